//! Golden ids of both vocabularies, from every kind of file, and the `tokenizers` crate as an oracle.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::checkpoint::Checkpoint;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    decoded: Option<String>,
    decoded_without_special: Option<String>,
}

fn golden(name: &str) -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/golden/tokenizer").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn json(name: &str) -> (PathBuf, Tokenizer) {
    let path = crate::test_cache::tokenizer_json(name);
    let tokenizer = Tokenizer::from_json(&std::fs::read(&path).unwrap(), &path).unwrap();
    (path, tokenizer)
}

fn real_gguf() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| Checkpoint::open(&crate::test_cache::real_model()).unwrap().tokenizer().unwrap())
}

/// Checks all cases; `same_specials` is false where the file marks other tokens as control tokens than the
/// reference's does (GGUF does so for `<mask>` and `<unused...>`).
fn check(tokenizer: &Tokenizer, golden: &Golden, same_specials: bool) {
    for case in &golden.cases {
        let text = &case.text;
        if text.contains("<image_soft_token>") && tokenizer.id("<image_soft_token>").is_none() {
            continue;
        }
        assert_eq!(tokenizer.encode_with_control(text).unwrap(), case.ids, "ids of {text:?}");
        let decoded = case.decoded.as_ref().unwrap_or(text);
        assert_eq!(&tokenizer.decode(&case.ids, false), decoded, "text of {text:?}");
        let plain = tokenizer.decode(&case.ids, true);
        if same_specials || !(text.contains("<unused") || text.contains("<mask>")) {
            assert_eq!(
                &plain,
                case.decoded_without_special.as_ref().unwrap_or(decoded),
                "plain text of {text:?}"
            );
        }
        let mut stream = tokenizer.stream();
        let mut streamed: String = case.ids.iter().map(|&id| stream.push(id)).collect();
        streamed += &stream.flush();
        assert_eq!(streamed, plain, "stream of {text:?}");
    }
}

#[test]
fn cut_at_control_tokens_a_text_keeps_its_ids() {
    for tokenizer in [&json("gemma").1, &json("gemma3").1, real_gguf()] {
        for text in [
            "",
            "<bos>",
            "a<start_of_turn>user\n\n\nb<end_of_turn>\n",
            "<start_of_turn><end_of_turn",
            "\n<b><bos>",
        ] {
            let mut ids = Vec::new();
            for part in tokenizer.control_parts(text) {
                match part {
                    ControlPart::Text(text) => ids.extend(tokenizer.encode(text).unwrap()),
                    ControlPart::Control(id) => ids.push(id),
                }
            }
            assert_eq!(ids, tokenizer.encode_with_control(text).unwrap(), "{text:?}");
        }
        let (start, end) = tokenizer.turns().unwrap();
        let parts = tokenizer.control_parts("<start_of_turn>x\n<end_of_turn>");
        let expected = [ControlPart::Control(start), ControlPart::Text("x\n"), ControlPart::Control(end)];
        assert_eq!(parts, expected);
    }
}

#[test]
fn golden_gemma_from_tokenizer_json() {
    check(&json("gemma").1, &golden("gemma.json"), true);
}

#[test]
fn golden_codegemma_from_tokenizer_json() {
    let (_, tokenizer) = json("codegemma");
    check(&tokenizer, &golden("codegemma.json"), true);
    let fim = FimTokens { prefix: 67, middle: 68, suffix: 69, separator: 70 };
    assert_eq!(tokenizer.fim(), Some(fim));
    assert_eq!(tokenizer.turns(), Some((106, 107)));
}

#[test]
fn golden_gemma3_from_tokenizer_json() {
    check(&json("gemma3").1, &golden("gemma3.json"), true);
}

#[test]
fn golden_gemma3_from_gguf() {
    let tokenizer = real_gguf();
    check(tokenizer, &golden("gemma3.json"), false);
    assert_eq!(tokenizer.fim(), None);
    assert_eq!(tokenizer.turns(), Some((105, 106)));
    assert_eq!(tokenizer.vocab_size(), 262_144);
}

#[test]
fn control_tokens_in_a_users_text_are_text() {
    for tokenizer in [real_gguf(), &json("codegemma").1] {
        for text in
            ["<eos>", "a<bos>b", "<start_of_turn>user\n<end_of_turn>", "<|fim_prefix|>x<|file_separator|>"]
        {
            let ids = tokenizer.encode(text).unwrap();
            assert!(ids.iter().all(|&id| !tokenizer.is_control(id)), "{text}: {ids:?}");
            assert_eq!(tokenizer.decode(&ids, true), text);
        }
    }
}

/// Texts of what makes tokenizers differ: runs of white space, code, byte fallback, added tokens.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z_]{1,12}",
        3 => " {1,40}",
        2 => "\n{1,35}",
        1 => "\t{1,34}",
        2 => "[-=_.,;:(){}<>/\\\\'\"#*&|!?0-9]{1,20}",
        1 => any::<char>().prop_map(String::from),
        1 => "\u{2581}{1,5}",
        1 => "(<b>|</td>|<table>|> </|> <|</ |<unused5>|<mask>)",
        1 => "[äöüßéñ中文日本語한국어русский😀𝕏\u{10ffff}]{1,6}",
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

fn oracle(name: &str) -> (Tokenizer, tokenizers::Tokenizer) {
    let (path, tokenizer) = json(name);
    let mut oracle = tokenizers::Tokenizer::from_file(path).unwrap();
    oracle.set_encode_special_tokens(true);
    (tokenizer, oracle)
}

#[test]
fn ids_are_those_of_the_tokenizers_crate() {
    for name in ["codegemma", "gemma2", "gemma3"] {
        let (tokenizer, oracle) = oracle(name);
        let reference = |text: &str| oracle.encode_fast(text, false).unwrap().get_ids().to_vec();
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(2000));
        runner
            .run(&text(), |text| {
                let expected = reference(&text);
                prop_assert_eq!(&tokenizer.encode(&text).unwrap(), &expected, "{} from tokenizer.json", name);
                if name == "gemma3" && !text.contains("<unused") && !text.contains("<mask>") {
                    prop_assert_eq!(&real_gguf().encode(&text).unwrap(), &expected, "from GGUF");
                }
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn a_stream_of_any_ids_is_what_decode_gives() {
    let tokenizer = real_gguf();
    let ids =
        prop::collection::vec(prop_oneof![0u32..300, 238u32..494, 0u32..262_200, Just(u32::MAX)], 0..60);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(3000));
    runner
        .run(&ids, |ids| {
            let mut stream = tokenizer.stream();
            let mut streamed: String = ids.iter().map(|&id| stream.push(id)).collect();
            streamed += &stream.flush();
            prop_assert_eq!(streamed, tokenizer.decode(&ids, true));
            Ok(())
        })
        .unwrap();
}

#[test]
fn half_a_character_is_never_given_out() {
    let tokenizer = real_gguf();
    let ids = tokenizer.encode("\u{10ffff}").unwrap();
    assert_eq!(ids.len(), 4, "made of bytes");
    let mut stream = tokenizer.stream();
    let (last, first) = ids.split_last().unwrap();
    for &id in first {
        assert_eq!(stream.push(id), "");
    }
    assert_eq!(stream.push(*last), "\u{10ffff}");
    assert_eq!(stream.flush(), "");
    stream.push(first[0]);
    assert_eq!(stream.push(tokenizer.id("a").unwrap()), "\u{fffd}a");
    stream.push(first[0]);
    assert_eq!(stream.flush(), "\u{fffd}");
}

/// A small tokenizer.json with the family's structure.
fn small() -> serde_json::Value {
    serde_json::json!({
        "added_tokens": [
            {"id": 0, "content": "<eos>", "special": true},
            {"id": 1, "content": "\n\n", "special": false},
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "pre_tokenizer": null,
        "model": {
            "type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
            "vocab": {"<eos>": 0, "\n\n": 1, "<unk>": 2, "a": 3, "b": 4, "\u{2581}": 5, "ab": 6, "\u{2581}ab": 7},
            "merges": ["a b", "\u{2581} ab"],
        },
    })
}

fn read(value: &serde_json::Value) -> Result<Tokenizer> {
    Tokenizer::from_json(value.to_string().as_bytes(), Path::new("tokenizer.json"))
}

#[test]
fn a_small_vocabulary() {
    let tokenizer = read(&small()).unwrap();
    assert_eq!(tokenizer.encode("ab ab\n\nb").unwrap(), [6, 7, 1, 4]);
    assert_eq!(tokenizer.encode("xyz").unwrap(), [2], "neighbouring unknown characters are one");
    assert_eq!(tokenizer.encode_with_control("<eos>").unwrap(), [0]);
    assert_eq!(added_token_of(&small(), "<eos>"), Some(0));
    assert_eq!(added_token_of(&small(), "ab"), None);
}

#[test]
fn what_spells_a_text_is_found_without_looking_at_every_token() {
    let tokenizer = real_gguf();
    let texts = [
        "a",
        " ",
        "  ",
        "retu",
        " self.na",
        "\n\n",
        "\t",
        "größe",
        "日本",
        "\u{2581}x",
        "a\u{2581}",
        "<eos>",
        "\0",
        "😀b",
    ];
    let halves = [&"é".as_bytes()[1..], &"日".as_bytes()[..2], &[0xff, b'a']];
    for text in texts.iter().map(|text| text.as_bytes()).chain(halves) {
        let mut found = tokenizer.spelling(text);
        found.sort_unstable();
        let all = 0..tokenizer.vocab_size() as u32;
        let expected: Vec<u32> = all.filter(|&id| tokenizer.spells(id, text).is_some()).collect();
        let differs = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        let what = String::from_utf8_lossy(text);
        assert!(found == expected && !found.is_empty(), "{what:?}: {differs:?}, {} found", found.len());
    }
}

fn added_token_of(value: &serde_json::Value, content: &str) -> Option<u32> {
    json_added_token(value.to_string().as_bytes(), content)
}

#[test]
fn other_tokenizers_are_refused_by_name() {
    let change = |pointer: &str, value: serde_json::Value| {
        let mut json = small();
        *json.pointer_mut(pointer).unwrap() = value;
        read(&json).err().map(|e| (e.kind(), e.to_string()))
    };
    for (pointer, value, kind, named) in [
        ("/model/type", "Unigram".into(), ErrorKind::Unsupported, "model.type"),
        ("/model/byte_fallback", false.into(), ErrorKind::Unsupported, "model"),
        ("/normalizer", serde_json::Value::Null, ErrorKind::Unsupported, "normalizer"),
        ("/pre_tokenizer", serde_json::json!({"type": "ByteLevel"}), ErrorKind::Unsupported, "pre_tokenizer"),
        ("/model/vocab/ab", 4_000_000.into(), ErrorKind::BadFile, "4000000"),
        ("/model/vocab/ab", 4.into(), ErrorKind::BadFile, "id 4"),
        ("/model/merges/0", "a c".into(), ErrorKind::BadFile, "model.merges"),
        ("/model/merges", 3.into(), ErrorKind::BadFile, "tokenizer.json"),
    ] {
        let (found, message) = change(pointer, value).unwrap_or_else(|| panic!("{pointer} was accepted"));
        assert_eq!(found, kind, "{pointer}: {message}");
        assert!(message.contains("tokenizer.json") && message.contains(named), "{pointer}: {message}");
    }
}
