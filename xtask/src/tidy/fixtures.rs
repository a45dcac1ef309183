//! Every golden value has a generator that made it, and fixtures/README.md says which.

use super::{Report, Violation};

/// Where fixtures and their generators are listed.
pub const README: &str = "fixtures/README.md";

/// Every fixtures/**/*.json is named in the README, beside a generator that is in the repository.
pub fn check(files: &[String], readme: Option<&str>, violations: &mut Vec<Violation>) {
    let generators: Vec<&str> = files
        .iter()
        .filter(|path| path.starts_with("fixtures/"))
        .filter(|path| [".py", ".rs", ".sh"].iter().any(|end| path.ends_with(end)))
        .filter_map(|path| path.rsplit('/').next())
        .collect();
    for path in files
        .iter()
        .filter(|path| path.starts_with("fixtures/") && path.ends_with(".json"))
    {
        let name = path.rsplit('/').next().unwrap_or(path);
        let mut report = Report { path, violations };
        match readme {
            None => report.add(1, "fixtures", format!("no {README} names its generator")),
            Some(text) if !names(text, name) => {
                report.add(1, "fixtures", format!("{README} does not name {name}"));
            }
            Some(text) if !generators.iter().any(|generator| names(text, generator)) => {
                report.add(
                    1,
                    "fixtures",
                    format!("{README} names no generator in fixtures"),
                );
            }
            Some(_) => {}
        }
    }
}

/// Whether a text holds a file's name as a word of its own: `brier.json` is not in `x_brier.json`.
fn names(text: &str, file: &str) -> bool {
    text.match_indices(file)
        .any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[&str], readme: Option<&str>) -> Vec<String> {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        let mut violations = Vec::new();
        check(&files, readme, &mut violations);
        violations.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_fixture_is_named_with_a_generator() {
        let files = [
            "fixtures/generate.py",
            "fixtures/brier.json",
            "presets/nano.json",
        ];
        let readme = "`generate.py` writes `brier.json`.";
        assert_eq!(found(&files, Some(readme)), [""; 0]);
        assert_eq!(
            found(&files, None),
            ["fixtures/brier.json:1: fixtures: no fixtures/README.md names its generator"]
        );
        assert_eq!(
            found(&files, Some("`generate.py` writes `x_brier.json`.")),
            ["fixtures/brier.json:1: fixtures: fixtures/README.md does not name brier.json"]
        );
        // The generator that the README names is not in the repository.
        assert_eq!(
            found(&files[1..], Some(readme)),
            ["fixtures/brier.json:1: fixtures: fixtures/README.md names no generator in fixtures"]
        );
    }
}
