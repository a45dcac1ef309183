//! The repository's rules that no other tool knows: one line for each violation.
//!
//! Prints and unfinished code are clippy's, whitespace git's, licences and sources cargo-deny's.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::process::{self, Error, Result};

/// The crates and their layers, as in ARCHITECTURE.md: a crate uses only crates of lower ones.
const LAYERS: [(&str, u8); 20] = [
    ("calm-alloc", 0),
    ("calm-files", 0),
    ("calm-gemm", 0),
    ("calm-data", 1),
    ("calm-weights", 1),
    ("calm-kernels", 1),
    ("calm-records", 1),
    ("calm-nn", 2),
    ("calm-report", 2),
    ("calm-autoencoder", 3),
    ("calm-backbone", 3),
    ("calm-likelihood-free", 3),
    ("calm-baseline", 3),
    ("calm-local-decoder", 3),
    ("calm-lm", 4),
    ("calm-eval", 5),
    ("calm-train", 6),
    ("calm-compare", 7),
    ("calm-conform", 7),
    ("calm-cli", 8),
];

/// Low crates that touch files, and that link no tensor library.
const DATA_CRATES: [&str; 5] = [
    "calm-files",
    "calm-data",
    "calm-weights",
    "calm-records",
    "calm-report",
];

/// Burn's executors and their kernel language, for calm-kernels alone.
const KERNEL_LIBRARIES: [&str; 3] = ["burn-flex", "burn-cubecl", "cubecl"];

/// The most lines of a Rust file, and the most bytes of any.
const MAX_LINES: usize = 600;
const MAX_BYTES: usize = 1024 * 1024;

/// The hash of git's empty tree: a difference to it is everything.
const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

/// Beginnings of paths that exist on one machine only, and hosts of package registries; an underscore
/// keeps each from breaking its own rule here.
const FORBIDDEN_WORDS: &str = "/ro_ot/ /ho_me/ /wo_rk/ /Us_ers/ crates_.io- index.crates_.io \
     static.crates_.io pypi_.org pythonhosted_.org registry.npmjs_.org deb.debian_.org \
     archive.ubuntu_.com proxy.golang_.org";

/// Checks the repository and prints its violations; exit status 1 where there is one.
pub fn run(root: &Path, args: &[OsString]) -> Result<u8> {
    if let Some(word) = args.first() {
        let word = word.to_string_lossy();
        return Err(Error::Usage(format!("tidy takes no '{word}'")));
    }
    let git = |args: &[&str]| process::output(Command::new("git").current_dir(root).args(args));
    let listed = git(&[
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "--deduplicate",
    ])?;
    let mut found = Vec::new();
    let mut texts = BTreeMap::new();
    // What is deleted in the work tree is still in the index.
    for path in listed.lines().filter(|path| root.join(path).is_file()) {
        let full = root.join(path);
        let bytes = std::fs::read(&full).map_err(Error::io(&full))?;
        if bytes.len() > MAX_BYTES {
            found.push(format!(
                "{path}: {} bytes; at most {MAX_BYTES} are tracked",
                bytes.len()
            ));
        }
        if let Ok(text) = String::from_utf8(bytes) {
            check(path, &text, &mut found);
            texts.insert(path, text);
        }
    }
    check_fixtures(&texts, &mut found);
    let mut metadata = process::cargo(root);
    metadata.args(["metadata", "--no-deps", "--format-version", "1"]);
    let metadata = process::output(&mut metadata)?;
    let metadata = serde_json::from_str(&metadata).map_err(|e| Error::Failed(e.to_string()))?;
    check_layers(&metadata, &mut found);
    // Fixtures are data: a test may want them badly formed.
    let whitespace = [
        "diff",
        "--check",
        EMPTY_TREE,
        "--",
        ".",
        ":!fixtures/*.json",
        ":!fixtures/*.txt",
    ];
    if git(&whitespace).is_err() {
        let shown = Command::new("git")
            .current_dir(root)
            .args(whitespace)
            .output();
        let shown = shown.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        found.extend(shown.unwrap_or_default().lines().map(str::to_owned));
    }
    for violation in &found {
        println!("{violation}");
    }
    println!("tidy: {} files, {} violations", texts.len(), found.len());
    Ok(u8::from(!found.is_empty()))
}

/// The rules on one text file.
fn check(path: &str, text: &str, found: &mut Vec<String>) {
    let mut add = |line: usize, what: String| found.push(format!("{path}:{line}: {what}"));
    let words = FORBIDDEN_WORDS.replace('_', "");
    // Cargo writes the lock file and names the registry in it.
    for (i, line) in text.lines().enumerate().filter(|_| path != "Cargo.lock") {
        for word in words
            .split_whitespace()
            .filter(|word| begins_in(line, word))
        {
            add(
                i + 1,
                format!("'{word}' belongs to one machine or one registry"),
            );
        }
    }
    if !path.ends_with(".rs") {
        return;
    }
    if !text.starts_with("//!") {
        add(1, "the first line is no `//!` comment".to_owned());
    }
    let length = text.lines().count();
    if length > MAX_LINES {
        add(
            MAX_LINES + 1,
            format!("{length} lines; at most {MAX_LINES}"),
        );
    }
    let Some((name, place)) = path
        .strip_prefix("crates/")
        .and_then(|rest| rest.split_once('/'))
    else {
        return;
    };
    let layer = LAYERS
        .iter()
        .find(|(known, _)| *known == name)
        .map_or(0, |(_, layer)| *layer);
    let is_test = !place.starts_with("src/") || place.ends_with("tests.rs");
    let no_files = layer <= 3 && !DATA_CRATES.contains(&name) && name != "calm-alloc";
    // Unit tests close a file.
    let code = text.lines().take_while(|line| *line != "#[cfg(test)]");
    for (i, line) in code
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
    {
        let mut forbid = |pattern: &str, why: &str| {
            if begins_in(line, pattern) {
                add(i + 1, format!("`{pattern}`: {why}"));
            }
        };
        forbid("Device::default(", "take `&Device` from the caller");
        if !is_test {
            forbid(
                "Tensor::random(",
                "take the draw as an argument or from `Draws`",
            );
            if no_files {
                forbid("std::fs", "layers 0 to 2 do not touch the file system");
            }
        }
    }
}

/// Whether `word` occurs in a line, and not as the rest of a longer name or path.
fn begins_in(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.*~})".contains(c))
    })
}

/// Every golden value is named in fixtures/README.md, beside a generator that is in the repository.
fn check_fixtures(texts: &BTreeMap<&str, String>, found: &mut Vec<String>) {
    const README: &str = "fixtures/README.md";
    let readme = texts.get(README).map_or("", String::as_str);
    let file = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let of = |ends: &[&str]| -> Vec<&str> {
        let wanted = |path: &&&str| {
            path.starts_with("fixtures/") && ends.iter().any(|end| path.ends_with(end))
        };
        texts.keys().filter(wanted).copied().collect()
    };
    if !of(&[".py", ".rs"])
        .iter()
        .any(|path| readme.contains(&file(path)))
    {
        found.push(format!("{README}: names no generator"));
    }
    for path in of(&[".json"]) {
        if !begins_in(readme, &file(path)) {
            found.push(format!("{path}: {README} does not name it"));
        }
    }
}

/// The layers, and which crates link no tensor library, by the packages of `cargo metadata`.
fn check_layers(metadata: &Value, found: &mut Vec<String>) {
    let layer = |name: &str| {
        LAYERS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, l)| *l)
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for package in list(&metadata["packages"]) {
        let name = package["name"].as_str().unwrap_or_default();
        let own = layer(name);
        let library =
            name.starts_with("calm-") && !["calm-benches", "calm-fixtures"].contains(&name);
        if library && own.is_none() {
            found.push(format!(
                "{name}: not in the table of layers (xtask, ARCHITECTURE.md)"
            ));
        }
        for dependency in list(&package["dependencies"]) {
            let other = dependency["name"].as_str().unwrap_or_default();
            // Tests may look at anything; only what is built into a crate has a layer.
            let built = dependency["kind"] != "dev";
            let is_tensor_library =
                ["burn", "cubecl"].contains(&other) || other.starts_with("burn-");
            let wrong = match (own, layer(other)) {
                (Some(own), Some(below)) if built && below >= own => "a crate of no lower layer",
                (None, Some(_)) if name == "xtask" => "xtask builds in seconds",
                _ if DATA_CRATES.contains(&name) && is_tensor_library => {
                    "it links no tensor library"
                }
                _ if KERNEL_LIBRARIES.contains(&other) && name != "calm-kernels" => {
                    "only calm-kernels may name it"
                }
                _ => continue,
            };
            found.push(format!("{name} may not depend on {other}: {wrong}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_checked_where_they_lie() {
        let lines = |path: &str, text: &str| {
            let mut found = Vec::new();
            check(path, &format!("//! A module.\n{text}\n"), &mut found);
            found.len()
        };
        for (path, text, count) in [
            ("crates/calm-nn/src/a.rs", "use std::fs;", 1),
            ("crates/calm-nn/src/a.rs", "/// As std::fs does.", 0),
            (
                "crates/calm-nn/src/a.rs",
                "#[cfg(test)]\nmod tests { use std::fs; }",
                0,
            ),
            ("crates/calm-nn/tests/a.rs", "use std::fs;", 0),
            ("crates/calm-data/src/a.rs", "use std::fs;", 0),
            (
                "crates/calm-lm/src/a.rs",
                "let x = Tensor::random([1], d, &device);",
                1,
            ),
            ("crates/calm-lm/tests/a.rs", "let d = Device::default();", 1),
            (
                "crates/calm-lm/tests/a.rs",
                "let d = MyDevice::default();",
                0,
            ),
            ("README.md", concat!("see /ho", "me/me/notes"), 1),
            ("README.md", concat!("target/ho", "me/notes"), 0),
        ] {
            assert_eq!(lines(path, text), count, "{path}: {text}");
        }
        let mut found = Vec::new();
        check("xtask/src/a.rs", &"x\n".repeat(MAX_LINES + 1), &mut found);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn a_crate_depends_on_lower_layers_only() {
        let count = |name: &str, dependency: &str, kind: Value| {
            let dependency = serde_json::json!({"name": dependency, "kind": kind});
            let package = serde_json::json!({"name": name, "dependencies": [dependency]});
            let mut found = Vec::new();
            check_layers(&serde_json::json!({"packages": [package]}), &mut found);
            found.len()
        };
        for (name, dependency, kind, expected) in [
            ("calm-lm", "calm-nn", Value::Null, 0),
            ("calm-nn", "calm-lm", Value::Null, 1),
            ("calm-backbone", "calm-autoencoder", "build".into(), 1),
            ("calm-backbone", "calm-autoencoder", "dev".into(), 0),
            ("calm-new", "serde", Value::Null, 1),
            ("calm-data", "burn-store", "dev".into(), 1),
            ("calm-nn", "cubecl", Value::Null, 1),
            ("calm-kernels", "cubecl", Value::Null, 0),
            ("xtask", "calm-report", Value::Null, 1),
        ] {
            assert_eq!(
                count(name, dependency, kind),
                expected,
                "{name} on {dependency}"
            );
        }
    }
}
