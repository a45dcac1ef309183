//! What CI runs: every step in turn, cheapest first; the first that fails ends it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{Error, Result};
use crate::{process, target_dir, tidy, vulkan};

type Step = fn(&mut Context) -> Result<Outcome>;

/// The steps: names for `--skip` and `--only`, and what they do.
const STEPS: [(&str, Step); 11] = [
    ("fmt", |c| c.cargo("fmt --all --check")),
    ("tidy", |c| match tidy::run(&c.root, &[])? {
        0 => Ok(Outcome::Passed),
        _ => Err(Error::Failed("the repository's rules".to_owned())),
    }),
    ("typos", |c| {
        let typos = || Command::new("typos");
        installed(&mut typos(), typos().current_dir(&c.root), "typos")
    }),
    // Not advisories: they change without a commit of ours and their database is not in the package
    // registry; CONTRIBUTING.md says how to look at them.
    ("deny", |c| {
        let mut check = process::cargo(&c.root);
        check.args(["deny", "check", "licenses", "bans", "sources"]);
        installed(
            process::cargo(&c.root).arg("deny"),
            &mut check,
            "cargo-deny",
        )
    }),
    ("clippy", |c| {
        // With what is off by default and needs nothing that CI lacks.
        let features = "--features calm-cli/hub,calm-cli/parquet,calm-cli/remote,calm-lm/remote";
        c.cargo(&format!(
            "clippy --workspace --all-targets {features} -- -D warnings"
        ))
    }),
    ("test", |c| {
        let mut command = process::cargo(&c.root);
        command.args(["test", "--workspace"]);
        c.tests(&mut command)
    }),
    // What only features bring: a hub on the loopback address, and Parquet files; it links no Burn.
    ("features", |c| {
        for what in [
            "calm-weights --features hub --test hub",
            "calm-data --features parquet --lib",
        ] {
            let mut command = process::cargo(&c.root);
            command.args(["test", "--package"]).args(what.split(' '));
            c.tests(&mut command)?;
        }
        Ok(Outcome::Passed)
    }),
    // The kernels that this machine would not choose.
    ("isa", |c| {
        for isa in ["avx2", "base"] {
            for what in ["--package calm-gemm", "--workspace --test kernels"] {
                let mut command = process::cargo(&c.root);
                command
                    .arg("test")
                    .args(what.split(' '))
                    .env("CALM_ISA", isa);
                c.tests(&mut command)?;
            }
        }
        Ok(Outcome::Passed)
    }),
    ("doc", |c| {
        let mut command = process::cargo(&c.root);
        command.args(["doc", "--workspace", "--no-deps"]);
        process::check(command.env("RUSTDOCFLAGS", "-D warnings"))?;
        Ok(Outcome::Passed)
    }),
    ("backends", backends),
    ("cuda", cuda_types),
];

/// What every step may use.
struct Context {
    root: PathBuf,
    /// Tests that ran and passed, and that failed, over all steps; `None` before the first.
    tests: Option<(u64, u64)>,
}

/// How a step ended that did not fail.
enum Outcome {
    Passed,
    Skipped(String),
}

/// `ci [--skip STEP,...] [--only STEP,...]`: exit status 0 only where no step failed.
pub fn run(root: &Path, args: &[OsString]) -> Result<u8> {
    let names = STEPS.map(|(name, _)| name);
    let selection = select(&names, args)?;
    let mut context = Context {
        root: root.to_path_buf(),
        tests: None,
    };
    let mut table = format!("{:<8} {:>8}  {}\n", "step", "seconds", "result");
    let mut row = |name: &str, elapsed: Duration, result: &str| {
        table.push_str(&format!(
            "{name:<8} {:>8.1}  {result}\n",
            elapsed.as_secs_f64()
        ));
    };
    let begun = Instant::now();
    let mut failure = None;
    for ((name, step), wanted) in STEPS.iter().zip(selection) {
        if !wanted {
            row(name, Duration::ZERO, "not asked for");
            continue;
        }
        println!("==> {name}");
        let start = Instant::now();
        let outcome = step(&mut context);
        let result = match &outcome {
            Ok(Outcome::Passed) => "passed".to_owned(),
            Ok(Outcome::Skipped(reason)) => format!("skipped: {reason}"),
            Err(_) => "FAILED".to_owned(),
        };
        println!(
            "==> {name}: {result} ({:.1} s)",
            start.elapsed().as_secs_f64()
        );
        row(name, start.elapsed(), &result);
        if let Err(error) = outcome {
            failure = Some((name, error));
            break;
        }
    }
    row("all", begun.elapsed(), "");
    print!("\n{table}");
    if let Some((passed, failed)) = context.tests {
        println!("\ntests: {passed} passed, {failed} failed");
    }
    match failure {
        None => Ok(0),
        Some((name, error)) => {
            eprintln!("error: step {name} failed: {error}");
            Ok(1)
        }
    }
}

/// Which steps to run: all, less those of `--skip`; or those of `--only`, in the steps' own order.
fn select(names: &[&str], args: &[OsString]) -> Result<Vec<bool>> {
    let mut skip = vec![false; names.len()];
    let mut only: Option<Vec<bool>> = None;
    let words: Vec<String> = args
        .iter()
        .flat_map(|word| {
            word.to_string_lossy()
                .split('=')
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    for pair in words.chunks(2) {
        let marks = match pair[0].as_str() {
            "--skip" => &mut skip,
            "--only" => only.get_or_insert_with(|| vec![false; names.len()]),
            option => {
                return Err(Error::Usage(format!(
                    "ci has no option '{option}'; it takes --skip STEP,... and --only STEP,..."
                )));
            }
        };
        for name in pair.get(1).map_or("", String::as_str).split(',') {
            let Some(i) = names.iter().position(|known| *known == name) else {
                return Err(Error::Usage(format!(
                    "no step '{name}'; the steps are {}",
                    names.join(", ")
                )));
            };
            marks[i] = true;
        }
    }
    let only = only.unwrap_or_else(|| vec![true; names.len()]);
    Ok(only
        .iter()
        .zip(skip)
        .map(|(only, skip)| *only && !skip)
        .collect())
}

impl Context {
    /// Runs `cargo ARGS` in the root.
    fn cargo(&self, args: &str) -> Result<Outcome> {
        process::check(process::cargo(&self.root).args(args.split(' ')))?;
        Ok(Outcome::Passed)
    }

    /// Runs a `cargo test`, shows its output, and adds its counts up.
    fn tests(&mut self, command: &mut Command) -> Result<Outcome> {
        let tests = &mut self.tests;
        process::check_lines(command, |line| {
            if let Some((passed, failed)) = test_counts(line) {
                let all = tests.get_or_insert((0, 0));
                *all = (all.0 + passed, all.1 + failed);
            }
        })?;
        Ok(Outcome::Passed)
    }
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

/// Runs a tool where it is installed: `.ci/run` installs it, a developer may not have it.
fn installed(tool: &mut Command, command: &mut Command, name: &str) -> Result<Outcome> {
    if !process::answers(tool) {
        return Ok(Outcome::Skipped(format!("{name} is not installed")));
    }
    process::check(command)?;
    Ok(Outcome::Passed)
}

/// Training on two compute servers of this machine; then the kernels' tests and the conformance suite on
/// Vulkan, over Mesa's software driver unless the environment names another. One build serves both: their
/// features bring hundreds of crates.
fn backends(context: &mut Context) -> Result<Outcome> {
    let target = target_dir(&context.root, Some("webgpu-remote"));
    let cargo = |args: &str| {
        let mut command = process::cargo(&context.root);
        command.args(args.split_whitespace());
        command
            .args(["--profile", "backend", "--target-dir"])
            .arg(&target);
        command
    };
    // The same packages and features each time, or Burn is built again.
    let test = "test --package calm-kernels --package calm-cli \
                --features calm-kernels/webgpu,calm-cli/webgpu,calm-cli/remote --test";
    let mut remote = cargo(&format!("{test} remote"));
    let mut kernels = cargo(&format!("{test} kernels"));
    let mut conform = cargo("run --package calm-cli --features webgpu,remote --bin calm");
    context.tests(&mut remote)?;
    let manifest = match vulkan::named_by_environment() {
        true => None,
        false => match software_driver()? {
            Ok(manifest) => Some(manifest),
            Err(reason) => return Ok(Outcome::Skipped(format!("Vulkan alone: {reason}"))),
        },
    };
    // The loader wants a folder of the user's own.
    let runtime = target.join("xdg-runtime");
    std::fs::create_dir_all(&runtime).map_err(Error::io(&runtime))?;
    #[cfg(unix)]
    {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&runtime, private).map_err(Error::io(&runtime))?;
    }
    conform.args(["--", "conform", "--device", "vulkan"]);
    for command in [&mut kernels, &mut conform] {
        command.env("XDG_RUNTIME_DIR", &runtime);
        if let Some(manifest) = &manifest {
            // The loader reads the second name only where it is older than the first.
            command.env("VK_DRIVER_FILES", manifest);
            command.env("VK_ICD_FILENAMES", manifest);
        }
    }
    context.tests(&mut kernels)?;
    process::check(&mut conform)?;
    Ok(Outcome::Passed)
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
        process::status(
            command
                .args(args.split(' '))
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    };
    let install = format!("install --yes --quiet=2 --no-install-recommends {package}");
    if apt("update --quiet=2")? != 0 || apt(&install)? != 0 {
        return Ok(Err(format!("apt-get could not install {package}")));
    }
    Ok(find().ok_or_else(|| format!("{package} is installed but holds no software driver")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_selected_by_name() {
        let names = ["fmt", "tidy", "test", "vulkan"];
        let selected = |line: &str| -> Result<Vec<&str>> {
            let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let marks = select(&names, &args)?.into_iter();
            Ok(names
                .into_iter()
                .zip(marks)
                .filter(|(_, wanted)| *wanted)
                .map(|(n, _)| n)
                .collect())
        };
        assert_eq!(selected("").unwrap(), names);
        assert_eq!(selected("--skip vulkan,tidy").unwrap(), ["fmt", "test"]);
        assert_eq!(
            selected("--skip=vulkan --skip fmt").unwrap(),
            ["tidy", "test"]
        );
        assert_eq!(selected("--only test,fmt --skip fmt").unwrap(), ["test"]);
        let message = |line| selected(line).unwrap_err().to_string();
        let steps = "the steps are fmt, tidy, test, vulkan";
        assert_eq!(message("--only tests"), format!("no step 'tests'; {steps}"));
        assert_eq!(message("--skip"), format!("no step ''; {steps}"));
        assert!(message("vulkan").starts_with("ci has no option 'vulkan'"));
    }

    #[test]
    fn test_counts_are_read_from_the_closing_lines_alone() {
        let ok = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(test_counts(ok), Some((12, 0)));
        assert_eq!(
            test_counts("test result: FAILED. 3 passed; 2 failed; 0 ignored"),
            Some((3, 2))
        );
        assert_eq!(test_counts("test energy::score ... ok"), None);
    }
}
