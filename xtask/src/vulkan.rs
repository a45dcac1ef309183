//! Vulkan drivers: whether the loader would find one, and Mesa's software driver.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The Debian package that holds Mesa's drivers, the software driver (lavapipe) among them.
pub const MESA_PACKAGE: &str = "mesa-vulkan-drivers";

/// The environment variables that name drivers to the Vulkan loader.
const VARIABLES: [&str; 3] = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES"];

/// Whether the environment names the driver: then the user has chosen, and nothing is overridden.
pub fn named_by_environment() -> bool {
    named().is_some()
}

/// The driver manifests that the environment names, as a list of paths.
fn named() -> Option<OsString> {
    VARIABLES
        .iter()
        .find_map(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
}

/// The folders in which the Vulkan loader looks for driver manifests on Linux.
pub fn manifest_dirs() -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = [
        "/etc/vulkan/icd.d",
        "/usr/local/etc/vulkan/icd.d",
        "/usr/local/share/vulkan/icd.d",
        "/usr/share/vulkan/icd.d",
    ]
    .map(PathBuf::from)
    .to_vec();
    if let Some(home) = std::env::var_os("HOME") {
        dirs.push(Path::new(&home).join(".local/share/vulkan/icd.d"));
        dirs.push(Path::new(&home).join(".config/vulkan/icd.d"));
    }
    dirs
}

/// The driver manifests (`*.json`) in `dirs`, sorted within each; a missing folder holds none.
pub fn manifests(dirs: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in dirs {
        let Ok(entries) = std::fs::read_dir(dir) else {
            continue;
        };
        let mut here: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "json")
            })
            .collect();
        here.sort();
        found.append(&mut here);
    }
    found
}

/// The manifest of Mesa's software driver among `manifests` (`lvp_icd*.json`).
pub fn software(manifests: &[PathBuf]) -> Option<&PathBuf> {
    manifests.iter().find(|path| is_software(path))
}

fn is_software(manifest: &Path) -> bool {
    manifest
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("lvp_icd"))
}

/// Whether Vulkan can only mean a software driver here: the environment names nothing else, or, on
/// Linux, no graphics device has a node. Drivers for absent GPUs are often installed, so what is
/// installed says nothing.
pub fn software_only() -> bool {
    if let Some(named) = named() {
        return std::env::split_paths(&named).all(|path| is_software(&path));
    }
    cfg!(target_os = "linux")
        && !has_graphics_node(Path::new("/dev/dri"))
        && !has_graphics_node(Path::new("/dev"))
}

/// Whether a folder holds the node of a GPU: a render node, NVIDIA's, or that of WSL.
fn has_graphics_node(dir: &Path) -> bool {
    let is_node = |name: &str| {
        let numbered = |prefix| {
            name.strip_prefix(prefix)
                .is_some_and(|rest: &str| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        name == "dxg" || numbered("renderD") || numbered("nvidia")
    };
    std::fs::read_dir(dir).is_ok_and(|entries| {
        entries
            .filter_map(std::result::Result::ok)
            .any(|entry| is_node(&entry.file_name().to_string_lossy()))
    })
}

/// A hint for a machine on which no driver is found, else nothing; Linux only.
pub fn hint() -> Option<String> {
    if !cfg!(target_os = "linux")
        || named_by_environment()
        || !manifests(&manifest_dirs()).is_empty()
    {
        return None;
    }
    Some(format!(
        "no Vulkan driver found; for Mesa's software driver install the package {MESA_PACKAGE} \
         (Debian, Ubuntu: apt-get install {MESA_PACKAGE})"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_software_driver_is_found_among_the_manifests() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert!(manifests(std::slice::from_ref(&missing)).is_empty());
        for name in ["radeon_icd.x86_64.json", "lvp_icd.x86_64.json", "notes.txt"] {
            std::fs::write(dir.path().join(name), "{}").unwrap();
        }
        let found = manifests(&[missing, dir.path().to_path_buf()]);
        assert_eq!(found.len(), 2);
        assert_eq!(
            software(&found),
            Some(&dir.path().join("lvp_icd.x86_64.json"))
        );
        assert_eq!(software(&found[1..]), None);
    }

    #[test]
    fn a_gpu_is_known_by_its_node() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_graphics_node(&dir.path().join("missing")));
        for name in ["card0", "nvidiactl", "null", "renderD"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert!(!has_graphics_node(dir.path()));
        for name in ["renderD128", "nvidia0", "dxg"] {
            std::fs::write(dir.path().join(name), "").unwrap();
            assert!(has_graphics_node(dir.path()), "{name}");
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
    }
}
