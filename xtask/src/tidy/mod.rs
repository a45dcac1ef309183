//! The repository's rules as code: one line for each violation.

mod fixtures;
mod layers;
mod manifest;
mod mask;
mod source;
mod text;

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};
use crate::process;

/// One violation; `Display` is `path:line: rule: message`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    /// Relative to the root, with `/` between the parts.
    path: String,
    /// Counted from 1; 1 as well for what concerns the whole file.
    line: usize,
    rule: &'static str,
    message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: {}",
            self.path, self.line, self.rule, self.message
        )
    }
}

/// Collects violations of one file.
struct Report<'a> {
    path: &'a str,
    violations: &'a mut Vec<Violation>,
}

impl Report<'_> {
    fn add(&mut self, line: usize, rule: &'static str, message: impl Into<String>) {
        let path = self.path.to_owned();
        self.violations.push(Violation {
            path,
            line,
            rule,
            message: message.into(),
        });
    }
}

/// Checks the repository and prints its violations; exit status 1 where there is one.
pub fn run(root: &Path, args: &[OsString]) -> Result<u8> {
    if let Some(word) = args.first() {
        return Err(Error::Usage(format!(
            "tidy takes no '{}'",
            word.to_string_lossy()
        )));
    }
    let files = files(root)?;
    let violations = check(root, &files)?;
    for violation in &violations {
        println!("{violation}");
    }
    println!(
        "tidy: {} files, {} violations",
        files.len(),
        violations.len()
    );
    Ok(u8::from(!violations.is_empty()))
}

/// The files that git tracks or would add, relative to the root, sorted.
fn files(root: &Path) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--deduplicate",
    ]);
    let output = git
        .current_dir(root)
        .output()
        .map_err(|source| process::spawn_error(&git, source))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Usage(format!(
            "tidy needs git to list the files of {}: {}",
            root.display(),
            stderr.lines().next().unwrap_or("git ls-files failed")
        )));
    }
    let mut files: Vec<String> = output
        .stdout
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        // Deleted in the work tree but still in the index.
        .filter(|name| root.join(name).is_file())
        .collect();
    files.sort();
    Ok(files)
}

/// The violations in `files`, sorted by path and line.
fn check(root: &Path, files: &[String]) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    let mut fixtures_readme = None;
    for path in files {
        let full = root.join(path);
        let bytes = std::fs::read(&full).map_err(|source| Error::Io { path: full, source })?;
        let mut report = Report {
            path,
            violations: &mut violations,
        };
        text::check_size(bytes.len() as u64, &mut report);
        // Rules on text do not concern a binary file.
        let Ok(content) = String::from_utf8(bytes) else {
            continue;
        };
        if content.contains('\0') {
            continue;
        }
        text::check(&content, &mut report);
        if path.ends_with(".rs") {
            source::check(&content, &mut report);
        }
        if path.ends_with("Cargo.toml") {
            layers::check(&content, &mut report);
        }
        if path == fixtures::README {
            fixtures_readme = Some(content);
        }
    }
    fixtures::check(files, fixtures_readme.as_deref(), &mut violations);
    violations.sort();
    Ok(violations)
}

/// The violations that one rule function finds in `content` at `path`, as `line: rule`.
#[cfg(test)]
fn found(rule: fn(&str, &mut Report<'_>), path: &str, content: &str) -> Vec<String> {
    let mut violations = Vec::new();
    rule(
        content,
        &mut Report {
            path,
            violations: &mut violations,
        },
    );
    violations
        .iter()
        .map(|v| format!("{}: {}", v.line, v.rule))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, content: &[u8]) {
        let full = root.join(path);
        std::fs::create_dir_all(full.parent().unwrap()).unwrap();
        std::fs::write(full, content).unwrap();
    }

    fn git(root: &Path, args: &[&str]) {
        assert!(
            Command::new("git")
                .args(args)
                .current_dir(root)
                .status()
                .unwrap()
                .success()
        );
    }

    #[test]
    fn a_violation_is_one_line_with_its_place() {
        let violation = Violation {
            path: "crates/calm-nn/src/lib.rs".to_owned(),
            line: 7,
            rule: "print",
            message: "a library prints nothing".to_owned(),
        };
        assert_eq!(
            violation.to_string(),
            "crates/calm-nn/src/lib.rs:7: print: a library prints nothing"
        );
    }

    #[test]
    fn a_repository_is_checked_from_end_to_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        git(root, &["init", "--quiet"]);
        write(root, ".gitignore", b"/target\n");
        write(root, "target/junk.rs", b"no module comment");
        write(
            root,
            "crates/calm-nn/Cargo.toml",
            b"[dependencies]\ncalm-lm.workspace = true\n",
        );
        write(
            root,
            "crates/calm-nn/src/lib.rs",
            b"//! Layers.\nfn f() { println!(); }\n",
        );
        write(
            root,
            "fixtures/README.md",
            b"`a.json` is written by `generate.py`.\n",
        );
        write(root, "fixtures/generate.py", b"pass\n");
        write(root, "fixtures/a.json", b"{}\n");
        write(root, "fixtures/b.json", b"{}\n");
        // Binary: no rule on text applies, the one on size does.
        write(root, "image.bin", &vec![0; 1024 * 1024 + 1]);
        let files = files(root).unwrap();
        assert_eq!(files.len(), 8, "{files:?}");
        let lines: Vec<String> = check(root, &files)
            .unwrap()
            .iter()
            .map(|v| format!("{}:{}:{}", v.path, v.line, v.rule))
            .collect();
        assert_eq!(
            lines,
            [
                "crates/calm-nn/Cargo.toml:2:layers",
                "crates/calm-nn/src/lib.rs:2:print",
                "fixtures/b.json:1:fixtures",
                "image.bin:1:file-size",
            ]
        );
    }

    #[test]
    fn a_file_deleted_in_the_work_tree_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "--quiet"]);
        write(dir.path(), "a.txt", b"a\n");
        write(dir.path(), "b.txt", b"b\n");
        git(dir.path(), &["add", "."]);
        std::fs::remove_file(dir.path().join("a.txt")).unwrap();
        assert_eq!(files(dir.path()).unwrap(), ["b.txt"]);
    }

    #[test]
    fn outside_of_git_the_error_says_so_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let error = files(dir.path()).unwrap_err().to_string();
        assert!(
            error.starts_with("tidy needs git to list the files of "),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1);
    }
}
