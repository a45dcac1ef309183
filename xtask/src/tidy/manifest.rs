//! The dependencies that a Cargo.toml names, read line by line.

/// Where a dependency is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// `[dependencies]`, for any target.
    Normal,
    /// `[dev-dependencies]`.
    Dev,
    /// `[build-dependencies]`.
    Build,
}

/// One dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The line that names it, counted from 1.
    pub line: usize,
    /// Its section.
    pub section: Section,
    /// The package's own name, also where the dependency is renamed.
    pub name: String,
}

/// The dependencies of a manifest that is formatted as Cargo.toml files are: one key a line.
pub fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut found: Vec<Dependency> = Vec::new();
    let mut section = None;
    // In `[dependencies.NAME]` the lines below are that dependency's own keys.
    let mut in_table = false;
    for (i, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            // `[target.'cfg(..)'.dependencies]`: what a cfg holds has no `]`.
            let (kind, name) = table(header.0);
            section = kind;
            in_table = name.is_some();
            if let (Some(section), Some(name)) = (kind, name) {
                found.push(Dependency {
                    line: i + 1,
                    section,
                    name,
                });
            }
            continue;
        }
        let Some(section) = section else { continue };
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let key = key.trim();
        if in_table {
            if let (true, Some(last)) = (key == "package", found.last_mut()) {
                last.name = unquoted(value).to_owned();
            }
            continue;
        }
        let name = unquoted(key.split('.').next().unwrap_or(key));
        if name.is_empty()
            || !name
                .chars()
                .all(|c| c.is_alphanumeric() || "_-".contains(c))
        {
            continue;
        }
        let name = renamed(value).unwrap_or(name);
        found.push(Dependency {
            line: i + 1,
            section,
            name: name.to_owned(),
        });
    }
    found
}

/// The section that a table's header begins, and the dependency whose table it is.
fn table(header: &str) -> (Option<Section>, Option<String>) {
    for (word, section) in [
        ("dev-dependencies", Section::Dev),
        ("build-dependencies", Section::Build),
        ("dependencies", Section::Normal),
    ] {
        // `[workspace.dependencies]` and its tables only say what a name stands for.
        let place = match header.rfind(word) {
            Some(at) if header[..at].is_empty() || header.starts_with("target.") => at,
            _ => continue,
        };
        let rest = &header[place + word.len()..];
        return (
            Some(section),
            rest.strip_prefix('.').map(|name| unquoted(name).to_owned()),
        );
    }
    (None, None)
}

/// The value of `package = "NAME"` in an inline table.
fn renamed(value: &str) -> Option<&str> {
    let (_, rest) = value.split_once("package")?;
    rest.trim_start().strip_prefix('=')?.split('"').nth(1)
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_matches(['"', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_dependency_is_read() {
        let manifest = r#"
[package]
name = "x"

[dependencies]
a.workspace = true
b = "1"   # a comment
c = { workspace = true, features = [
    "d",
] }
"e" = { version = "1" }
f = { package = "g", version = "1" }

[dependencies.h]
version = "1"

[dependencies.i]
package = "j"

[target.'cfg(unix)'.dependencies]
k = "1"

[dev-dependencies]
l.workspace = true

[build-dependencies]
m = "1"

[features]
n = ["o"]

[workspace.dependencies]
p = "1"
"#;
        let found: Vec<(usize, Section, String)> = dependencies(manifest)
            .into_iter()
            .map(|d| (d.line, d.section, d.name))
            .collect();
        let expected = [
            (6, Section::Normal, "a"),
            (7, Section::Normal, "b"),
            (8, Section::Normal, "c"),
            (11, Section::Normal, "e"),
            (12, Section::Normal, "g"),
            (14, Section::Normal, "h"),
            (17, Section::Normal, "j"),
            (21, Section::Normal, "k"),
            (24, Section::Dev, "l"),
            (27, Section::Build, "m"),
        ];
        assert_eq!(
            found,
            expected.map(|(line, section, name)| (line, section, name.to_owned()))
        );
    }
}
