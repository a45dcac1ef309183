//! The checkpoints of a run directory, read without the code that wrote them.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::random::Random;
use crate::process::{Error, Result};

/// The folders under `checkpoints`, in the order in which they are trained.
pub const STAGES: [&str; 3] = ["autoencoder", "lm", "baseline"];

/// A folder that bears a checkpoint's name.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub stage: &'static str,
    pub step: u64,
    pub path: PathBuf,
    /// Its manifest is there and has its own sha256, and every file has the size and the sha256 that
    /// stand there.
    pub valid: bool,
}

/// All of them, by stage and step.
pub fn all(run: &Path) -> Result<Vec<Checkpoint>> {
    let mut found = Vec::new();
    for stage in STAGES {
        let directory = run.join("checkpoints").join(stage);
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries {
            let path = entry.map_err(Error::io(&directory))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let step = name
                .strip_prefix("step-")
                .and_then(|step| step.parse().ok());
            if let Some(step) = step {
                found.push(Checkpoint {
                    stage,
                    step,
                    valid: is_whole(&path),
                    path,
                });
            }
        }
    }
    found.sort_by_key(|checkpoint| (checkpoint.stage, checkpoint.step));
    Ok(found)
}

/// The newest that is valid.
pub fn newest_valid<'a>(checkpoints: &'a [Checkpoint], stage: &str) -> Option<&'a Checkpoint> {
    let of_stage = checkpoints.iter().filter(|c| c.stage == stage && c.valid);
    of_stage.max_by_key(|checkpoint| checkpoint.step)
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_whole(directory: &Path) -> bool {
    let read = |name: &str| fs::read(directory.join(name)).unwrap_or_default();
    let manifest = read("manifest.json");
    if read("manifest.sha256") != format!("{}  manifest.json\n", sha256(&manifest)).as_bytes() {
        return false;
    }
    let Ok(serde_json::Value::Object(manifest)) = serde_json::from_slice(&manifest) else {
        return false;
    };
    let Some(serde_json::Value::Object(files)) = manifest.get("files") else {
        return false;
    };
    !files.is_empty()
        && files.iter().all(|(name, entry)| {
            fs::read(directory.join(name)).is_ok_and(|bytes| {
                entry["bytes"].as_u64() == Some(bytes.len() as u64)
                    && entry["sha256"].as_str() == Some(&sha256(&bytes))
            })
        })
}

impl Checkpoint {
    /// Changes one byte of one of its files.
    pub fn damage(&self, random: &mut Random) -> Result<()> {
        let mut files: Vec<PathBuf> = fs::read_dir(&self.path)
            .map_err(Error::io(&self.path))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .collect();
        files.sort();
        let file = &files[random.below(files.len() as u64) as usize];
        let mut bytes = fs::read(file).map_err(Error::io(file))?;
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        fs::write(file, bytes).map_err(Error::io(file))
    }
}

/// Bytes of all files below a folder.
pub fn bytes(directory: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory).map_err(Error::io(directory))? {
        let path = entry.map_err(Error::io(directory))?.path();
        sum += match path.is_dir() {
            true => bytes(&path)?,
            false => fs::metadata(&path).map_err(Error::io(&path))?.len(),
        };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_seen_wherever_it_is() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("checkpoints/lm/step-000004");
        fs::create_dir_all(&path).unwrap();
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let whole = format!(r#"{{"files":{{"a":{{"bytes":3,"sha256":"{digest}"}}}}}}"#);
        let write = |manifest: &str, a: &str| {
            fs::write(path.join("manifest.json"), manifest).unwrap();
            let sum = format!("{}  manifest.json\n", sha256(manifest.as_bytes()));
            fs::write(path.join("manifest.sha256"), sum).unwrap();
            fs::write(path.join("a"), a).unwrap();
        };
        write(&whole, "abc");
        let found = all(place.path()).unwrap();
        assert_eq!(
            (found[0].stage, found[0].step, found[0].valid),
            ("lm", 4, true)
        );
        assert_eq!(newest_valid(&found, "lm").unwrap().step, 4);
        for (manifest, a) in [
            (whole.as_str(), "abx"),
            (whole.as_str(), "abcd"),
            (&whole[1..], "abc"),
            ("{}", "abc"),
        ] {
            write(manifest, a);
            let found = all(place.path()).unwrap();
            assert!(!found[0].valid && newest_valid(&found, "lm").is_none());
        }
        for seed in 0..20 {
            write(&whole, "abc");
            all(place.path()).unwrap()[0]
                .damage(&mut Random::new(seed))
                .unwrap();
            assert!(!all(place.path()).unwrap()[0].valid, "seed {seed}");
        }
        assert!(all(&place.path().join("missing")).unwrap().is_empty());
    }
}
