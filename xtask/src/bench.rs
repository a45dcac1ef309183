//! Runs the benches of `benches/benches` through cargo.

use std::ffi::OsString;
use std::path::Path;

use crate::error::{Error, Result};
use crate::{device, process, target_dir};

/// The variable that tells the benches their device: divan keeps the command line for itself.
const DEVICE_VARIABLE: &str = "CALM_BENCH_DEVICE";

/// What the standard jobs can be asked for; they are a program of their own.
const JOBS: [&str; 3] = ["steps", "peer", "growth"];

/// `bench [NAME] [--device D] [ARGS...]`: the standard jobs (`steps`), the same beside PyTorch
/// (`peer`), how a step's time grows with its sizes (`growth`), one bench, or all benches where no
/// name is given; `ARGS` go to the program.
pub fn run(root: &Path, args: &[OsString]) -> Result<u8> {
    let (device, args) = device::split(args)?;
    let device = device.unwrap_or_else(|| "flex".to_owned());
    let wanted = device::build(&device)?;
    let target = wanted.map(|wanted| wanted.target);
    if let Some(job) = args.first().filter(|arg| JOBS.iter().any(|job| arg == job)) {
        let mut run = process::cargo(root);
        run.args([
            "run",
            "--release",
            "--package",
            "calm-benches",
            "--bin",
            "jobs",
        ]);
        if let Some(wanted) = wanted {
            run.args(["--features", wanted.features]);
        }
        run.arg("--target-dir").arg(target_dir(root, target));
        run.env(DEVICE_VARIABLE, &device);
        run.arg("--").arg(job).args(&args[1..]);
        return process::status(&mut run);
    }
    let known = names(&root.join("benches/benches"))?;
    let (chosen, rest) = choose(&known, &args)?;

    let mut bench = process::cargo(root);
    bench.args(["bench", "--package", "calm-benches"]);
    for name in chosen {
        bench.args(["--bench", name]);
    }
    if let Some(wanted) = wanted {
        bench.args(["--features", wanted.features]);
    }
    bench.arg("--target-dir").arg(target_dir(root, target));
    bench.env(DEVICE_VARIABLE, &device);
    bench.arg("--").args(rest);
    process::status(&mut bench)
}

/// The benches in a folder, sorted: `NAME.rs` and `NAME/main.rs`, as cargo finds them.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(Error::Io {
                path: dir.to_path_buf(),
                source,
            });
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|source| Error::Io {
                path: dir.to_path_buf(),
                source,
            })?
            .path();
        let is_bench = path.extension().is_some_and(|extension| extension == "rs")
            || path.join("main.rs").is_file();
        if let (true, Some(stem)) = (is_bench, path.file_stem()) {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The benches to run and the arguments for them.
fn choose<'a>(known: &'a [String], args: &'a [OsString]) -> Result<(&'a [String], &'a [OsString])> {
    if known.is_empty() {
        return Err(Error::Usage(
            "there are no benches in benches/benches".to_owned(),
        ));
    }
    match args.split_first() {
        Some((dashes, rest)) if dashes == "--" => Ok((known, rest)),
        Some((name, rest)) if !name.to_string_lossy().starts_with('-') => {
            let name = name.to_string_lossy();
            match known.iter().position(|known| *known == name) {
                Some(i) => {
                    let rest = rest.strip_prefix(&[OsString::from("--")]).unwrap_or(rest);
                    Ok((&known[i..=i], rest))
                }
                None => Err(Error::Usage(format!(
                    "no bench '{name}'; the benches are {}",
                    known.join(", ")
                ))),
            }
        }
        _ => Ok((known, args)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn benches_are_listed_as_cargo_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            names(&dir.path().join("missing")).unwrap(),
            Vec::<String>::new()
        );
        std::fs::create_dir_all(dir.path().join("peer")).unwrap();
        std::fs::create_dir_all(dir.path().join("shared")).unwrap();
        for file in [
            "steps.rs",
            "decode.rs",
            "peer/main.rs",
            "shared/mod.rs",
            "notes.md",
        ] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        assert_eq!(names(dir.path()).unwrap(), ["decode", "peer", "steps"]);
    }

    #[test]
    fn a_name_is_chosen_and_the_rest_passed_on() {
        let known = ["decode".to_owned(), "steps".to_owned()];
        let all = words("--sample-count 3");
        assert_eq!(choose(&known, &all).unwrap(), (&known[..], &all[..]));
        for line in ["steps --min-time 1", "steps -- --min-time 1"] {
            let args = words(line);
            let (chosen, rest) = choose(&known, &args).unwrap();
            assert_eq!((chosen, rest), (&known[1..], &words("--min-time 1")[..]));
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_list() {
        let known = ["decode".to_owned(), "steps".to_owned()];
        let error = choose(&known, &words("step")).map(drop).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no bench 'step'; the benches are decode, steps"
        );
        let error = choose(&[], &[]).map(drop).unwrap_err();
        assert_eq!(error.to_string(), "there are no benches in benches/benches");
    }
}
