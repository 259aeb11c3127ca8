//! Golden models with a vocabulary made up for them: what they say is nonsense, the way to it is the real one.

use std::collections::HashMap;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::golden::Case;

/// A golden model with a vocabulary of `size`: control tokens where `named` says, then letters, line ends and
/// spaces, and `<loc....>` for all the rest, every second of them as a control token.
pub fn model(case: &str, size: usize, named: &[(usize, &str)]) -> TempDir {
    let folder = Case::read(case).checkpoint("config.json");
    let control: HashMap<usize, &str> =
        [(0, "<pad>"), (1, "<eos>"), (2, "<bos>"), (3, "<unk>")].iter().chain(named).copied().collect();
    let mut letters = ('a'..='z').map(String::from).chain(["\u{2581}", "\n", "?"].map(String::from));
    let mut added: Vec<Value> = Vec::new();
    let mut vocabulary = serde_json::Map::new();
    let mut add = |id: usize, content: &str, special: bool| {
        added.push(json!({"id": id, "content": content, "special": special, "normalized": false,
                          "lstrip": false, "rstrip": false, "single_word": false}));
    };
    for id in 0..size {
        let piece = match control.get(&id) {
            Some(name) => {
                add(id, name, true);
                (*name).to_owned()
            }
            None => letters.next().unwrap_or_else(|| {
                let mark = format!("<loc{:04}>", id * 3);
                add(id, &mark, id % 2 == 0);
                mark
            }),
        };
        vocabulary.insert(piece, json!(id));
    }
    let tokenizer = json!({
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "vocab": vocabulary, "merges": []},
    });
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).expect("it can be written");
    folder
}

/// The golden PaliGemma.
pub fn paligemma() -> TempDir {
    model("paligemma", 272, &[(260, "<image>")])
}
