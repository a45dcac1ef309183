//! Which files of a directory hold a model's tensors.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// Where the weights of a model are looked for, in transformers' order: a file, or the index of one in
/// shards.
pub const WEIGHT_FILES: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Longest index that is read.
pub(crate) const LONGEST_INDEX: u64 = 64 << 20;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The shards that an index names, and the tensors of each.
///
/// # Errors
/// In words: no such JSON, no tensor, or a shard that is not the name of a file beside the index.
pub fn parse_index(json: &[u8]) -> Result<BTreeMap<String, BTreeSet<String>>, String> {
    let index: Index = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let mut shards = BTreeMap::<String, BTreeSet<String>>::new();
    for (tensor, shard) in index.weight_map {
        // A path could lead out of the directory.
        let plain =
            !shard.is_empty() && !shard.starts_with('.') && !shard.contains(['/', '\\', ':', '\0']);
        if !plain {
            return Err(format!("shard {shard:?} is no plain file name"));
        }
        shards.entry(shard).or_default().insert(tensor);
    }
    match shards.is_empty() {
        true => Err("it names no tensor".to_owned()),
        false => Ok(shards),
    }
}
