//! tokenizer_config.json, which released models keep beside tokenizer.json: the token that ends a text,
//! and tokens that were added later.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The file's name.
const FILE: &str = "tokenizer_config.json";

/// Longest file that is read: Llama 3's has 50 KiB.
const LONGEST: u64 = 16 << 20;

/// What is read of a tokenizer_config.json.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SpecialTokens {
    eos_token: Option<Name>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    added_tokens_decoder: BTreeMap<u32, Added>,
}

/// A token, which may be an object with its text inside.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Name {
    Plain(String),
    Object { content: String },
}

#[derive(Debug, Serialize, Deserialize)]
struct Added {
    content: String,
    #[serde(default)]
    special: bool,
}

impl SpecialTokens {
    /// The file's contents.
    ///
    /// # Errors
    /// In words.
    pub fn parse(json: &[u8]) -> std::result::Result<Self, String> {
        serde_json::from_slice(json).map_err(|e| e.to_string())
    }

    /// What stands beside the tokenizer in `path`; nothing where there is no such file.
    pub(crate) fn beside(path: &Path) -> Result<Self> {
        let path = path.with_file_name(FILE);
        if !path.is_file() {
            return Ok(Self::default());
        }
        let mut json = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut json));
        read.map_err(Error::io("read", &path))?;
        let parsed = match json.len() as u64 > LONGEST {
            true => Err("longer than any such file".to_owned()),
            false => Self::parse(&json),
        };
        parsed.map_err(|reason| Error::BadTokenizer { path, reason })
    }

    /// Those that name the end of a text alone.
    pub(crate) fn ending(token: String) -> Self {
        Self {
            eos_token: Some(Name::Plain(token)),
            ..Self::default()
        }
    }

    /// Writes them beside the tokenizer in `path`.
    pub(crate) fn save_beside(&self, path: &Path) -> Result<()> {
        let path = path.with_file_name(FILE);
        let json = serde_json::to_vec_pretty(self).expect("words have a JSON form");
        calm_files::write_atomic(&path, &json).map_err(Error::io("write", &path))
    }

    /// The token that ends a text.
    pub(crate) fn end_of_text(&self) -> Option<&str> {
        self.eos_token.as_ref().map(|name| match name {
            Name::Plain(text) | Name::Object { content: text } => text.as_str(),
        })
    }

    /// Tokens and their ids, in the order of these: text, id, whether special.
    pub(crate) fn added(&self) -> impl Iterator<Item = (&str, u32, bool)> {
        let added = self.added_tokens_decoder.iter();
        added.map(|(&id, token)| (token.content.as_str(), id, token.special))
    }
}
