//! Rules on Rust files, seen without their comments and literals.

use super::Report;
use super::layers::{self, DATA_CRATES};
use super::mask::mask;

/// The most lines that a Rust file may have.
const MAX_LINES: usize = 500;

const UNFINISHED: [&str; 3] = ["todo!(", "unimplemented!(", "dbg!("];
const PRINTING: [&str; 4] = ["print!(", "println!(", "eprint!(", "eprintln!("];
const DEFAULT_DEVICE: [&str; 2] = ["Device::default(", "Device as Default>"];
const RANDOM: [&str; 3] = ["Tensor::random(", ">::random(", ".random_like("];
const FILES: [&str; 3] = ["std::fs", "fs::", "File::"];

/// Module comment, length, and the calls that are forbidden where the file lies.
pub fn check(content: &str, report: &mut Report<'_>) {
    if !content.starts_with("//!") {
        report.add(1, "module-comment", "the first line is no `//!` comment");
    }
    let length = content.lines().count();
    if length > MAX_LINES {
        report.add(
            MAX_LINES + 1,
            "file-length",
            format!("{length} lines; at most {MAX_LINES}"),
        );
    }

    let place = Place::of(report.path);
    let masked = mask(content);
    for (i, (line, in_test)) in masked.lines.iter().zip(&masked.test).enumerate() {
        let in_test = *in_test || place.test;
        let mut forbid = |rule, patterns: &[&str], why: &str| {
            if let Some(pattern) = patterns.iter().find(|pattern| contains_call(line, pattern)) {
                report.add(i + 1, rule, format!("`{pattern}`: {why}"));
            }
        };
        forbid(
            "unfinished",
            &UNFINISHED,
            "finish it, or return an error that says what is missing",
        );
        if place.in_crates {
            forbid(
                "default-device",
                &DEFAULT_DEVICE,
                "take `&Device` from the caller",
            );
            if !in_test && !place.draws {
                forbid(
                    "random",
                    &RANDOM,
                    "take the draw as an argument or from `Draws`",
                );
            }
        }
        if place.library && !in_test {
            forbid("print", &PRINTING, "a library prints nothing");
        }
        if place.no_files && !in_test {
            forbid(
                "file-system",
                &FILES,
                "layers 0 to 2 do not touch the file system",
            );
        }
        if place.in_crates && !place.kernels {
            for name in layers::KERNEL_LIBRARIES {
                let module = format!("{}::", name.replace('-', "_"));
                if contains_call(line, &module) {
                    report.add(
                        i + 1,
                        "layers",
                        format!("only calm-kernels may name {name}"),
                    );
                }
            }
        }
    }
}

/// What a path says about which rules hold in the file.
struct Place {
    /// Under crates/.
    in_crates: bool,
    /// A crate's library, not a program, bench, example or build script.
    library: bool,
    /// A file of tests, benches or examples.
    test: bool,
    /// The home of random draws: `draws.rs` or what lies in `draws/`.
    draws: bool,
    /// In a crate that must not touch the file system.
    no_files: bool,
    /// In calm-kernels.
    kernels: bool,
}

impl Place {
    fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').collect();
        let file = parts.last().copied().unwrap_or_default();
        let name = layers::crate_of(path);
        let in_crates = name.is_some();
        let name = name.unwrap_or_default();
        let program = name == "calm-cli" || path.contains("/src/bin/") || file == "build.rs";
        Self {
            in_crates,
            library: in_crates && !program,
            test: parts
                .iter()
                .any(|part| matches!(*part, "tests" | "benches" | "examples"))
                || file == "tests.rs"
                || file.ends_with("_tests.rs"),
            draws: file.starts_with("draws") || parts.contains(&"draws"),
            no_files: layers::layer(name).is_some_and(|layer| layer <= 2)
                && !DATA_CRATES.contains(&name)
                && !program,
            kernels: name == "calm-kernels",
        }
    }
}

/// Whether `pattern` occurs in a line, and not as the end of a longer name.
fn contains_call(line: &str, pattern: &str) -> bool {
    let begins_with_name = pattern.starts_with(|c: char| c.is_alphanumeric());
    line.match_indices(pattern).any(|(at, _)| {
        !begins_with_name || !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::super::found;
    use super::*;

    /// Violations in a file with a module comment above `code`, which is line 2.
    fn in_file(path: &str, code: &str) -> Vec<String> {
        found(check, path, &format!("//! A module.\n{code}\n"))
    }

    #[test]
    fn every_file_begins_with_a_module_comment() {
        assert_eq!(
            found(check, "xtask/src/main.rs", "// A.\n"),
            ["1: module-comment"]
        );
        assert_eq!(found(check, "xtask/src/main.rs", ""), ["1: module-comment"]);
        assert_eq!(found(check, "xtask/src/main.rs", "//! A.\n"), [""; 0]);
    }

    #[test]
    fn files_are_short() {
        let lines = |n: usize| format!("//! A.\n{}", "\n".repeat(n - 1));
        assert_eq!(found(check, "xtask/src/main.rs", &lines(500)), [""; 0]);
        assert_eq!(
            found(check, "xtask/src/main.rs", &lines(501)),
            ["501: file-length"]
        );
    }

    #[test]
    fn unfinished_code_is_found_everywhere_but_in_comments_and_strings() {
        for call in UNFINISHED {
            assert_eq!(
                in_file("xtask/src/main.rs", &format!("{call})")),
                ["2: unfinished"]
            );
            assert_eq!(
                in_file("benches/benches/a.rs", &format!("{call})")),
                ["2: unfinished"]
            );
            assert_eq!(
                in_file("xtask/src/main.rs", &format!("// {call})")),
                [""; 0]
            );
            assert_eq!(
                in_file("xtask/src/main.rs", &format!("f(\"{call})\")")),
                [""; 0]
            );
        }
        assert_eq!(in_file("xtask/src/main.rs", "not_todo!()"), [""; 0]);
    }

    #[test]
    fn libraries_take_the_device_even_in_tests() {
        for path in ["crates/calm-nn/src/lib.rs", "crates/calm-cli/src/main.rs"] {
            assert_eq!(
                in_file(path, "let d = Device::default();"),
                ["2: default-device"]
            );
        }
        let path = "crates/calm-lm/tests/backend.rs";
        assert_eq!(
            in_file(path, "let d = <Device as Default>::default();"),
            ["2: default-device"]
        );
        assert_eq!(in_file(path, "//! let d = Device::default();"), [""; 0]);
        assert_eq!(in_file(path, "let d = MyDevice::default();"), [""; 0]);
    }

    #[test]
    fn draws_come_from_one_place() {
        let calls = [
            "let x = Tensor::random([2], d, device);",
            "let x = Tensor::<2>::random([2, 2], d, device);",
            "let x = y.random_like(d);",
        ];
        for call in calls {
            assert_eq!(in_file("crates/calm-lm/src/model.rs", call), ["2: random"]);
            assert_eq!(
                in_file("crates/calm-likelihood-free/src/draws.rs", call),
                [""; 0]
            );
            assert_eq!(in_file("crates/calm-lm/tests/model.rs", call), [""; 0]);
            let test = format!("#[cfg(test)]\nmod tests {{\n{call}\n}}");
            assert_eq!(in_file("crates/calm-lm/src/model.rs", &test), [""; 0]);
        }
    }

    #[test]
    fn libraries_print_nothing() {
        for call in PRINTING {
            let code = format!("{call}\"x\");");
            assert_eq!(in_file("crates/calm-train/src/lib.rs", &code), ["2: print"]);
            for path in [
                "crates/calm-cli/src/main.rs",
                "crates/calm-train/src/bin/tool.rs",
                "crates/calm-train/build.rs",
                "crates/calm-train/examples/a.rs",
                "crates/calm-train/tests/a.rs",
                "crates/calm-train/src/tests.rs",
                "benches/src/lib.rs",
                "xtask/src/main.rs",
            ] {
                assert_eq!(in_file(path, &code), [""; 0], "{path}");
            }
        }
    }

    #[test]
    fn low_layers_do_not_touch_files_except_the_data_crates() {
        for call in [
            "use std::fs;",
            "use std::{fs::File, io};",
            "fs::read(p)?;",
            "File::open(p)?;",
        ] {
            for name in ["calm-nn", "calm-kernels", "calm-backbone", "calm-baseline"] {
                let path = format!("crates/{name}/src/lib.rs");
                assert_eq!(in_file(&path, call), ["2: file-system"], "{path} {call}");
            }
            for name in ["calm-data", "calm-report", "calm-lm", "calm-cli"] {
                assert_eq!(
                    in_file(&format!("crates/{name}/src/lib.rs"), call),
                    [""; 0],
                    "{name}"
                );
            }
            assert_eq!(in_file("crates/calm-nn/tests/golden.rs", call), [""; 0]);
        }
        assert_eq!(
            in_file("crates/calm-nn/src/lib.rs", "let offs::X = y;"),
            [""; 0]
        );
    }

    #[test]
    fn kernel_libraries_are_named_in_one_crate() {
        for code in [
            "use burn_flex::Flex;",
            "cubecl::launch()",
            "type R = burn_cubecl::X;",
        ] {
            assert_eq!(in_file("crates/calm-nn/src/lib.rs", code), ["2: layers"]);
            assert_eq!(in_file("crates/calm-kernels/src/lib.rs", code), [""; 0]);
        }
    }
}
