//! What CI runs, cheapest first; the first step that fails ends it.

mod steps;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use steps::STEPS;

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

/// One step: its name for `--skip` and `--only`, and what it does.
struct Step {
    name: &'static str,
    run: fn(&mut Context) -> Result<Outcome>,
}

/// `ci [--skip STEP,...] [--only STEP,...]`: exit status 0 only where no step failed.
pub fn run(root: &Path, args: &[OsString]) -> Result<u8> {
    let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
    let selection = select(&names, args)?;
    let mut context = Context {
        root: root.to_path_buf(),
        tests: None,
    };
    let mut rows: Vec<(&str, String, Duration)> = Vec::new();
    let mut failure = None;
    for (step, wanted) in STEPS.iter().zip(selection) {
        if !wanted {
            rows.push((step.name, "not asked for".to_owned(), Duration::ZERO));
            continue;
        }
        println!("==> {}", step.name);
        let start = Instant::now();
        let outcome = (step.run)(&mut context);
        let elapsed = start.elapsed();
        let result = match &outcome {
            Ok(Outcome::Passed) => "passed".to_owned(),
            Ok(Outcome::Skipped(reason)) => format!("skipped: {reason}"),
            Err(_) => "FAILED".to_owned(),
        };
        println!(
            "==> {}: {result} ({:.1} s)",
            step.name,
            elapsed.as_secs_f64()
        );
        rows.push((step.name, result, elapsed));
        if let Err(error) = outcome {
            failure = Some((step.name, error));
            break;
        }
    }
    print!("\n{}", table(&rows));
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
    let mut words = args.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
            None => (word.into_owned(), None),
        };
        let marks = match option.as_str() {
            "--skip" => &mut skip,
            "--only" => only.get_or_insert_with(|| vec![false; names.len()]),
            _ => {
                return Err(Error::Usage(format!(
                    "ci has no option '{option}'; it takes --skip STEP,... and --only STEP,..."
                )));
            }
        };
        let steps = || names.join(", ");
        let list = value
            .or_else(|| words.next().map(|word| word.into_owned()))
            .ok_or_else(|| {
                Error::Usage(format!("{option} needs a step; the steps are {}", steps()))
            })?;
        for name in list.split(',') {
            match names.iter().position(|known| *known == name) {
                Some(i) => marks[i] = true,
                None => {
                    return Err(Error::Usage(format!(
                        "no step '{name}'; the steps are {}",
                        steps()
                    )));
                }
            }
        }
    }
    let only = only.unwrap_or_else(|| vec![true; names.len()]);
    Ok(only
        .iter()
        .zip(skip)
        .map(|(only, skip)| *only && !skip)
        .collect())
}

/// The closing table: step, seconds, result.
fn table(rows: &[(&str, String, Duration)]) -> String {
    let mut text = format!("{:<8} {:>8}  {}\n", "step", "seconds", "result");
    for (name, result, elapsed) in rows {
        text.push_str(&format!(
            "{name:<8} {:>8.1}  {result}\n",
            elapsed.as_secs_f64()
        ));
    }
    let total: Duration = rows.iter().map(|(_, _, elapsed)| elapsed).sum();
    text.push_str(&format!("{:<8} {:>8.1}\n", "all", total.as_secs_f64()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["fmt", "tidy", "test", "vulkan"];

    fn selected(line: &str) -> Result<Vec<&'static str>> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let marks = select(&NAMES, &args)?;
        Ok(NAMES
            .iter()
            .zip(marks)
            .filter(|(_, wanted)| *wanted)
            .map(|(name, _)| *name)
            .collect())
    }

    #[test]
    fn steps_are_selected_by_name() {
        assert_eq!(selected("").unwrap(), NAMES);
        assert_eq!(selected("--skip vulkan,tidy").unwrap(), ["fmt", "test"]);
        assert_eq!(
            selected("--skip=vulkan --skip fmt").unwrap(),
            ["tidy", "test"]
        );
        assert_eq!(selected("--only test,fmt").unwrap(), ["fmt", "test"]);
        assert_eq!(selected("--only test,fmt --skip fmt").unwrap(), ["test"]);
    }

    #[test]
    fn a_bad_selection_is_answered_with_the_steps() {
        let message = |line| selected(line).unwrap_err().to_string();
        assert_eq!(
            message("--only tests"),
            "no step 'tests'; the steps are fmt, tidy, test, vulkan"
        );
        assert_eq!(
            message("--skip"),
            "--skip needs a step; the steps are fmt, tidy, test, vulkan"
        );
        assert!(message("vulkan").starts_with("ci has no option 'vulkan'"));
    }

    #[test]
    fn step_names_are_unique_and_fit_the_table() {
        for (i, step) in STEPS.iter().enumerate() {
            assert!(step.name.len() <= 8, "{}", step.name);
            assert!(
                STEPS[..i].iter().all(|other| other.name != step.name),
                "{}",
                step.name
            );
        }
    }

    #[test]
    fn the_table_adds_the_seconds_up() {
        let rows = [
            ("fmt", "passed".to_owned(), Duration::from_millis(1500)),
            ("typos", "skipped: not installed".to_owned(), Duration::ZERO),
            ("test", "FAILED".to_owned(), Duration::from_millis(61_000)),
        ];
        let expected = "\
step      seconds  result
fmt           1.5  passed
typos         0.0  skipped: not installed
test         61.0  FAILED
all          62.5
";
        assert_eq!(table(&rows), expected);
    }
}
