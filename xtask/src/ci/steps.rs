//! The steps of CI, in the order in which they run.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Context, Outcome, Step};
use crate::error::{Error, Result};
use crate::{process, target_dir, tidy, vulkan};

/// All steps, cheapest first.
pub const STEPS: [Step; 9] = [
    Step {
        name: "fmt",
        run: fmt,
    },
    Step {
        name: "tidy",
        run: repository_rules,
    },
    Step {
        name: "typos",
        run: typos,
    },
    Step {
        name: "deny",
        run: deny,
    },
    Step {
        name: "clippy",
        run: clippy,
    },
    Step {
        name: "test",
        run: test,
    },
    Step {
        name: "doc",
        run: doc,
    },
    Step {
        name: "vulkan",
        run: vulkan_suite,
    },
    Step {
        name: "cuda",
        run: cuda_types,
    },
];

/// Runs `cargo ARGS` in the root.
fn cargo(context: &Context, args: &str) -> Result<Outcome> {
    process::check(process::cargo(&context.root).args(args.split(' ')))?;
    Ok(Outcome::Passed)
}

fn fmt(context: &mut Context) -> Result<Outcome> {
    cargo(context, "fmt --all --check")
}

fn repository_rules(context: &mut Context) -> Result<Outcome> {
    match tidy::run(&context.root, &[])? {
        0 => Ok(Outcome::Passed),
        status => Err(Error::Failed {
            command: "cargo xtask tidy".to_owned(),
            status,
        }),
    }
}

fn typos(context: &mut Context) -> Result<Outcome> {
    if !process::answers(&mut Command::new("typos")) {
        return Ok(Outcome::Skipped("typos is not installed".to_owned()));
    }
    process::check(Command::new("typos").current_dir(&context.root))?;
    Ok(Outcome::Passed)
}

/// Licences, bans and sources. Not advisories: they change without a commit of ours and their
/// database is not in the package registry; CONTRIBUTING.md says how to look at them.
fn deny(context: &mut Context) -> Result<Outcome> {
    if !process::answers(process::cargo(&context.root).arg("deny")) {
        return Ok(Outcome::Skipped("cargo-deny is not installed".to_owned()));
    }
    cargo(context, "deny check licenses bans sources")
}

fn clippy(context: &mut Context) -> Result<Outcome> {
    cargo(context, "clippy --workspace --all-targets -- -D warnings")
}

fn test(context: &mut Context) -> Result<Outcome> {
    let mut command = process::cargo(&context.root);
    command.args(["test", "--workspace"]);
    run_tests(context, &mut command)
}

fn doc(context: &mut Context) -> Result<Outcome> {
    let mut command = process::cargo(&context.root);
    command
        .args(["doc", "--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "-D warnings");
    process::check(&mut command)?;
    Ok(Outcome::Passed)
}

/// The kernels and the backend suite on Vulkan, over Mesa's software driver unless the environment names another.
fn vulkan_suite(context: &mut Context) -> Result<Outcome> {
    let target = target_dir(&context.root, Some("webgpu"));
    let mut command = process::cargo(&context.root);
    command.args([
        "test",
        "--package",
        "calm-kernels",
        "--package",
        "calm-lm",
        "--package",
        "calm-train",
        "--features",
        "webgpu",
        "--profile",
        "backend",
        "--test",
        "kernels",
        "--test",
        "backend",
    ]);
    command.arg("--target-dir").arg(&target);
    if !vulkan::named_by_environment() {
        let manifest = match software_driver()? {
            Ok(manifest) => manifest,
            Err(reason) => return Ok(Outcome::Skipped(reason)),
        };
        // The loader reads the second name only where it is older than the first.
        command
            .env("VK_DRIVER_FILES", &manifest)
            .env("VK_ICD_FILENAMES", &manifest);
    }
    let runtime = private_dir(&target.join("xdg-runtime"))?;
    command.env("XDG_RUNTIME_DIR", runtime);
    run_tests(context, &mut command)
}

/// The type check of the CUDA code. `DOCS_RS` keeps build scripts from downloading LLVM, which a
/// check does not need and not every machine can reach.
fn cuda_types(context: &mut Context) -> Result<Outcome> {
    let mut command = process::cargo(&context.root);
    command.args([
        "check",
        "--package",
        "calm-cli",
        "--features",
        "cuda,autotune",
    ]);
    command
        .arg("--target-dir")
        .arg(target_dir(&context.root, Some("cuda")));
    process::check(command.env("DOCS_RS", "1"))?;
    Ok(Outcome::Passed)
}

/// Runs a `cargo test`, shows its output, and adds its counts to the context's.
fn run_tests(context: &mut Context, command: &mut Command) -> Result<Outcome> {
    let tests = &mut context.tests;
    process::check_lines(command, |line| {
        if let Some((passed, failed)) = test_counts(line) {
            let all = tests.get_or_insert((0, 0));
            *all = (all.0 + passed, all.1 + failed);
        }
    })?;
    Ok(Outcome::Passed)
}

/// The counts in a closing line of a test binary: `test result: ok. 3 passed; 0 failed; ...`.
fn test_counts(line: &str) -> Option<(u64, u64)> {
    let (_, counts) = line
        .trim()
        .strip_prefix("test result: ")?
        .split_once(". ")?;
    let count = |what| {
        counts
            .split("; ")
            .find_map(|part| part.strip_suffix(what)?.parse::<u64>().ok())
    };
    Some((count(" passed")?, count(" failed")?))
}

/// The manifest of Mesa's software driver, installed where that is possible; else why it is not.
fn software_driver() -> Result<std::result::Result<PathBuf, String>> {
    let find = || vulkan::software(&vulkan::manifests(&vulkan::manifest_dirs())).cloned();
    if let Some(manifest) = find() {
        return Ok(Ok(manifest));
    }
    let package = vulkan::MESA_PACKAGE;
    if !cfg!(target_os = "linux") || !process::answers(&mut Command::new("apt-get")) {
        return Ok(Err(format!(
            "Mesa's software driver is not installed ({package})"
        )));
    }
    let user = Command::new("id").arg("-u").output();
    if !user.is_ok_and(|output| output.stdout.trim_ascii() == b"0") {
        return Ok(Err(format!("installing {package} needs root")));
    }
    println!("installing {package}");
    let apt = |args: &str| {
        let mut command = Command::new("apt-get");
        command
            .args(args.split(' '))
            .env("DEBIAN_FRONTEND", "noninteractive");
        process::status(&mut command)
    };
    let install = format!("install --yes --quiet=2 --no-install-recommends {package}");
    if apt("update --quiet=2")? != 0 || apt(&install)? != 0 {
        return Ok(Err(format!("apt-get could not install {package}")));
    }
    Ok(find().ok_or_else(|| format!("{package} is installed but holds no software driver")))
}

/// A folder that only this user can use, as `XDG_RUNTIME_DIR` must be.
fn private_dir(dir: &Path) -> Result<PathBuf> {
    let error = |source| Error::Io {
        path: dir.to_path_buf(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(error)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(error)?;
    }
    Ok(dir.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_counts_are_read_from_the_closing_lines_alone() {
        let ok = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(test_counts(ok), Some((12, 0)));
        assert_eq!(
            test_counts("test result: FAILED. 3 passed; 2 failed; 0 ignored"),
            Some((3, 2))
        );
        assert_eq!(test_counts("test energy::score ... ok"), None);
        assert_eq!(test_counts("running 3 tests"), None);
    }

    #[cfg(unix)]
    #[test]
    fn the_runtime_folder_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let made = private_dir(&dir.path().join("a/runtime")).unwrap();
        assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}
