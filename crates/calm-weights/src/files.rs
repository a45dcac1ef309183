//! The tensors of a model's directory, in however many files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::index::{LONGEST_INDEX, WEIGHT_FILES, parse_index};
use crate::{Error, Result, Tensor, TensorFile};

/// The tensors of one file or of a directory that a model was saved in, by name.
#[derive(Debug)]
pub struct TensorFiles {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
}

impl TensorFiles {
    /// Opens a tensor file, or of a directory the first of [`WEIGHT_FILES`] that is there.
    ///
    /// # Errors
    /// No weights there, and what [`TensorFile::open`] says of each file; shards that don't hold what
    /// their index says.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            let tensors = TensorFile::open(path)?.into_tensors();
            return Ok(Self {
                path: path.to_owned(),
                tensors,
            });
        }
        let found = WEIGHT_FILES.map(|name| path.join(name));
        let found = found.into_iter().find(|path| path.is_file());
        let Some(found) = found else {
            let (path, expected) = (path.to_owned(), WEIGHT_FILES.join(", "));
            return Err(Error::NoWeights { path, expected });
        };
        match found.extension().is_some_and(|e| e == "json") {
            true => Self::open_shards(found),
            false => Self::open(&found),
        }
    }

    fn open_shards(path: PathBuf) -> Result<Self> {
        let mut json = Vec::new();
        let file = File::open(&path).map_err(Error::io(&path))?;
        let read = file.take(LONGEST_INDEX + 1).read_to_end(&mut json);
        read.map_err(Error::io(&path))?;
        if json.len() as u64 > LONGEST_INDEX {
            return Err(Error::malformed(path, "longer than any index of shards"));
        }
        let shards = parse_index(&json).map_err(|e| Error::malformed(&path, e))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let mut tensors = BTreeMap::new();
        for (shard, names) in shards {
            let shard = TensorFile::open(&directory.join(shard))?;
            if let Some(missing) = names
                .iter()
                .find(|&name| !shard.tensors().contains_key(name))
            {
                let detail = format!("the index promises tensor {missing}, which is not here");
                return Err(Error::malformed(shard.path(), detail));
            }
            let path = shard.path().to_owned();
            for (name, tensor) in shard.into_tensors() {
                if !names.contains(&name) {
                    let detail = format!("tensor {name}, which the index doesn't place here");
                    return Err(Error::malformed(path, detail));
                }
                tensors.insert(name, tensor);
            }
        }
        Ok(Self { path, tensors })
    }

    /// What was opened: the file, or the index.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A tensor.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// All tensors, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
    }
}
