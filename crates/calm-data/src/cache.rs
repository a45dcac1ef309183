//! Where fetched corpora and token caches live.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The cache directory: `corpora/` holds fetched files, `tokens/` holds token caches. Everything
/// in it can be deleted and is made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheDir {
    root: PathBuf,
}

impl CacheDir {
    /// The user's cache: `$CALM_CACHE`, else `$XDG_CACHE_HOME/calm`, else `$HOME/.cache/calm`.
    /// Empty variables count as unset. Nothing is created yet.
    ///
    /// # Errors
    /// [`Error::NoCacheLocation`] where none of the three is set.
    pub fn default_location() -> Result<Self> {
        Self::from_variables(|name| env::var_os(name).map(PathBuf::from))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self> {
        let variable = |name| variable(name).filter(|value| !value.as_os_str().is_empty());
        variable("CALM_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|path| path.join("calm")))
            .or_else(|| variable("HOME").map(|path| path.join(".cache").join("calm")))
            .map(Self::at)
            .ok_or(Error::NoCacheLocation)
    }

    /// A cache at `path`, which is created at first use.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { root: path.into() }
    }

    /// The root of the cache.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Directory of fetched corpus files.
    pub fn corpora(&self) -> PathBuf {
        self.root.join("corpora")
    }

    /// Directory of token caches.
    pub fn tokens(&self) -> PathBuf {
        self.root.join("tokens")
    }
}

/// Creates `directory` with its parents.
pub(crate) fn create_directory(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).map_err(Error::io("create directory", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(variables: &[(&str, &str)]) -> Result<CacheDir> {
        CacheDir::from_variables(|name| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| PathBuf::from(value))
        })
    }

    #[test]
    fn the_first_variable_that_is_set_decides() {
        let all = [
            ("CALM_CACHE", "/a"),
            ("XDG_CACHE_HOME", "/b"),
            ("HOME", "/c"),
        ];
        assert_eq!(located(&all).unwrap().path(), Path::new("/a"));
        assert_eq!(located(&all[1..]).unwrap().path(), Path::new("/b/calm"));
        assert_eq!(
            located(&all[2..]).unwrap().path(),
            Path::new("/c/.cache/calm")
        );
        let empty = [("CALM_CACHE", ""), ("HOME", "/c")];
        assert_eq!(located(&empty).unwrap().path(), Path::new("/c/.cache/calm"));
        assert!(matches!(located(&[]), Err(Error::NoCacheLocation)));
    }
}
