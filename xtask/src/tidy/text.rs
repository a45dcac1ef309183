//! Rules on every text file: its whitespace, its size, and words that belong to one machine.

use super::Report;

/// The largest file that may be tracked, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Beginnings of absolute paths that exist on one machine only. Put together so that this file
/// does not break its own rule.
const MACHINE_PATHS: [&str; 4] = [
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/wo", "rk/"),
    concat!("/Us", "ers/"),
];

/// Hosts of package registries, and the folder that cargo names after one of them.
const REGISTRY_HOSTS: [&str; 9] = [
    concat!("crates", ".io-"),
    concat!("index.crates", ".io"),
    concat!("static.crates", ".io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("registry.npmjs", ".org"),
    concat!("deb.debian", ".org"),
    concat!("archive.ubuntu", ".com"),
    concat!("proxy.golang", ".org"),
];

/// No large file is tracked.
pub fn check_size(bytes: u64, report: &mut Report<'_>) {
    if bytes > MAX_FILE_BYTES {
        report.add(
            1,
            "file-size",
            format!("{bytes} bytes; at most {MAX_FILE_BYTES} are tracked"),
        );
    }
}

/// Whitespace and forbidden words.
pub fn check(content: &str, report: &mut Report<'_>) {
    if !is_data(report.path) {
        check_whitespace(content, report);
    }
    // Cargo writes the lock file and names the registry in it.
    if report.path != "Cargo.lock" {
        check_words(content, report);
    }
}

/// Fixtures other than programs and prose are data: a test may want them badly formed.
fn is_data(path: &str) -> bool {
    path.starts_with("fixtures/")
        && ![".rs", ".py", ".md", ".toml"]
            .iter()
            .any(|end| path.ends_with(end))
}

fn check_whitespace(content: &str, report: &mut Report<'_>) {
    for (i, line) in content.split('\n').enumerate() {
        if line.ends_with([' ', '\t', '\r']) {
            report.add(i + 1, "trailing-whitespace", "the line ends in whitespace");
        }
    }
    if !content.is_empty() && !content.ends_with('\n') {
        report.add(
            content.lines().count(),
            "final-newline",
            "the file does not end in a newline",
        );
    }
}

fn check_words(content: &str, report: &mut Report<'_>) {
    for (i, line) in content.lines().enumerate() {
        if let Some(word) = MACHINE_PATHS.iter().find(|word| starts_a_path(line, word)) {
            report.add(
                i + 1,
                "machine-path",
                format!("'{word}' is a path of one machine"),
            );
        }
        if let Some(word) = REGISTRY_HOSTS.iter().find(|word| line.contains(**word)) {
            report.add(
                i + 1,
                "registry-host",
                format!("'{word}' names a registry's host"),
            );
        }
    }
}

/// Whether `prefix` occurs where an absolute path begins: not in the middle of a longer path.
fn starts_a_path(line: &str, prefix: &str) -> bool {
    line.match_indices(prefix).any(|(at, _)| {
        !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.*~})".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::super::found;
    use super::*;

    #[test]
    fn whitespace_at_ends_is_found() {
        let found = |content| found(check, "README.md", content);
        assert_eq!(found("a\n\nb\n"), [""; 0]);
        assert_eq!(found(""), [""; 0]);
        assert_eq!(
            found("a \nb\t\nc\r\nd\n"),
            [
                "1: trailing-whitespace",
                "2: trailing-whitespace",
                "3: trailing-whitespace"
            ]
        );
        assert_eq!(found("a\nb"), ["2: final-newline"]);
    }

    #[test]
    fn fixtures_may_be_badly_formed_but_their_generators_not() {
        assert_eq!(
            found(check, "fixtures/text/torn.jsonl", "{\"text\": \"a "),
            [""; 0]
        );
        assert_eq!(
            found(check, "fixtures/generate.py", "a \n"),
            ["1: trailing-whitespace"]
        );
    }

    #[test]
    fn paths_of_one_machine_are_found_where_a_path_begins() {
        for word in MACHINE_PATHS {
            assert_eq!(
                found(check, "a.md", &format!("ok\nsee `{word}x`\n")),
                ["2: machine-path"]
            );
            assert_eq!(
                found(check, "a.md", &format!("{word}x\n")),
                ["1: machine-path"]
            );
            assert_eq!(found(check, "a.md", &format!("target{word}x\n")), [""; 0]);
            assert_eq!(
                found(check, "a.md", &format!("$HOME{word}x {{dir}}{word}\n")),
                [""; 0]
            );
        }
    }

    #[test]
    fn registry_hosts_are_found_except_in_the_lock_file() {
        for host in REGISTRY_HOSTS {
            let line = format!("url = \"https://{host}/x\"\n");
            assert_eq!(found(check, "a.toml", &line), ["1: registry-host"]);
            assert_eq!(found(check, "Cargo.lock", &line), [""; 0]);
        }
        assert_eq!(
            found(check, "a.md", "published on crates.io, or not\n"),
            [""; 0]
        );
    }

    #[test]
    fn size_is_limited() {
        let found = |bytes| {
            let mut violations = Vec::new();
            check_size(
                bytes,
                &mut Report {
                    path: "a",
                    violations: &mut violations,
                },
            );
            violations.len()
        };
        assert_eq!(found(MAX_FILE_BYTES), 0);
        assert_eq!(found(MAX_FILE_BYTES + 1), 1);
    }
}
