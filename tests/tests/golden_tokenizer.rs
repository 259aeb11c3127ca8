//! The reference's ids for 3 x 200 texts: Gemma 1 and 2, CodeGemma, Gemma 3.

use std::path::Path;

use gemma_engine::Tokenizer;
use gemma_engine::checkpoint::Checkpoint;
use gemma_tests::golden::{self, Case, Encoded, Vocabulary};
use gemma_tests::numbers::Findings;
use gemma_tests::places;
use gemma_tests::synthetic::Network;
use gemma_tests::vocabulary;

/// Reads the tokenizer of a checkpoint.
fn tokenizer(checkpoint: &Path) -> Tokenizer {
    let checkpoint = Checkpoint::open(checkpoint).unwrap_or_else(|e| panic!("{e}"));
    checkpoint.tokenizer().unwrap_or_else(|e| panic!("{e}"))
}

/// A tiny checkpoint's tokenizer when it is given this `tokenizer.json`.
fn tokenizer_from_json(vocabulary: &str) -> Tokenizer {
    let folder = Case::read("gemma1-mqa").checkpoint("config.json");
    let json = places::tokenizer_json(vocabulary);
    std::fs::copy(&json, folder.path().join("tokenizer.json"))
        .unwrap_or_else(|e| panic!("{}: {e}", json.display()));
    tokenizer(folder.path())
}

/// All the text that streaming the ids gives out, and whether a piece of it held U+FFFD.
fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> (String, bool) {
    let mut decoder = tokenizer.stream();
    let mut pieces: Vec<String> = ids.iter().map(|id| decoder.push(*id)).collect();
    pieces.push(decoder.flush());
    (pieces.concat(), pieces.iter().any(|piece| piece.contains(char::REPLACEMENT_CHARACTER)))
}

fn check_case(tokenizer: &Tokenizer, case: &Encoded, vocabulary: &Vocabulary, findings: &mut Findings) {
    let text = &case.text;
    match tokenizer.encode_with_control(text) {
        Ok(ids) => findings.check(ids == case.ids, || format!("{text:?}: {ids:?}, not {:?}", case.ids)),
        Err(error) => findings.check(false, || format!("{text:?}: {error}")),
    }
    let has_control = vocabulary.special_ids.keys().any(|name| text.contains(name));
    match tokenizer.encode(text) {
        Ok(ids) if has_control => {
            let control = ids.iter().find(|id| vocabulary.special_ids.values().any(|special| special == *id));
            findings.check(control.is_none(), || format!("{text:?} as a user's text became {ids:?}"));
        }
        Ok(ids) => findings.check(ids == case.ids, || format!("{text:?} plain: {ids:?}, not {:?}", case.ids)),
        Err(error) => findings.check(false, || format!("{text:?}: {error}")),
    }

    let decoded = tokenizer.decode(&case.ids, false);
    findings.check(decoded == case.decoded(), || {
        format!("{:?}: {decoded:?}, not {:?}", case.ids, case.decoded())
    });
    let visible = tokenizer.decode(&case.ids, true);
    let expected = case.decoded_without_special();
    findings.check(visible == expected, || format!("{:?}: {visible:?}, not {expected:?}", case.ids));

    let (text, broken) = streamed(tokenizer, &case.ids);
    findings.check(text == expected, || format!("{:?} streamed: {text:?}, not {expected:?}", case.ids));
    findings.check(!broken || expected.contains(char::REPLACEMENT_CHARACTER), || {
        format!("{:?} streamed: half a character was given out", case.ids)
    });
}

fn check(vocabulary: &str, tokenizer: &Tokenizer) {
    check_where(vocabulary, tokenizer, |_| true);
}

/// Checks the cases whose texts `counts`.
fn check_where(vocabulary: &str, tokenizer: &Tokenizer, counts: impl Fn(&str) -> bool) {
    let vocabulary: Vocabulary = golden::json(&format!("tokenizer/{vocabulary}.json"));
    assert_eq!(vocabulary.cases.len(), 200);
    let mut findings = Findings::default();
    for (name, id) in vocabulary.special_ids.iter().filter(|(name, _)| counts(name)) {
        let found = tokenizer.id(name);
        findings.check(found == Some(*id), || format!("{name} is {found:?}, not {id}"));
        findings.check(tokenizer.is_control(*id), || format!("{name} is no control token"));
    }
    for case in vocabulary.cases.iter().filter(|case| counts(&case.text)) {
        check_case(tokenizer, case, &vocabulary, &mut findings);
    }
    findings.assert_none();
}

#[test]
fn gemma_1_and_2() {
    check("gemma", &tokenizer_from_json("gemma"));
}

#[test]
fn codegemma() {
    let tokenizer = tokenizer_from_json("codegemma");
    check("codegemma", &tokenizer);
    let fim = tokenizer.fim().expect("CodeGemma's vocabulary names the tokens of fill-in-the-middle");
    assert_eq!((fim.prefix, fim.middle, fim.suffix, fim.separator), (67, 68, 69, 70));
    assert_eq!(tokenizer.turns(), Some((106, 107)));
}

#[test]
fn codegemma_rewritten_as_gguf() {
    let file = vocabulary::Vocabulary::read(&places::tokenizer_json("codegemma")).expect("it can be read");
    let metadata = file.metadata(256_000).expect("it has as many entries");
    let gguf = Network::golden("gemma1-mqa").gguf();
    let gguf = metadata.into_iter().fold(gguf, |gguf, (key, value)| gguf.with(&key, value));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("model.gguf");
    gguf.write(&path, 3);
    // More spaces than any entry has: tokenizer.json's order of merging does not follow the entries' order there.
    let long_run = " ".repeat(32);
    check_where("codegemma", &tokenizer(&path), |text| !text.contains(&long_run));
    let wrong =
        file.metadata(255_999).map(|entries| entries.len()).expect_err("the model has one entry less");
    assert!(wrong.to_string().ends_with("it has more entries than the model's 255999"), "{wrong}");
}

#[test]
fn gemma_3() {
    check("gemma3", &tokenizer_from_json("gemma3"));
}

/// Tokens that GGUF files call control tokens and the reference does not.
const CONTROL_IN_GGUF: [(&str, u32); 4] =
    [("<mask>", 4), ("<unused3>", 9), ("<unused60>", 66), ("<unused61>", 67)];

#[test]
fn gemma_3_from_gguf() {
    let tokenizer = tokenizer(&places::real_model());
    // The file has 262144 entries; the picture token would be the next.
    let odd = |text: &str| {
        text.contains("<image_soft_token>") || CONTROL_IN_GGUF.iter().any(|(n, _)| text.contains(n))
    };
    check_where("gemma3", &tokenizer, |text| !odd(text));
    for (name, id) in CONTROL_IN_GGUF {
        assert_eq!(tokenizer.encode_with_control(name), Ok(vec![id]));
        assert_eq!(tokenizer.decode(&[id], false), name);
        assert_eq!(
            tokenizer.decode(&[id], true),
            "",
            "what the file calls a control token is shown to nobody"
        );
    }
    assert_eq!(tokenizer.id("<image_soft_token>"), None);
    assert!(tokenizer.fim().is_none(), "Gemma 3 has no tokens of fill-in-the-middle");
    assert_eq!(tokenizer.turns(), Some((105, 106)));
}

#[test]
fn half_a_character_is_held_back_and_flushed() {
    let tokenizer = tokenizer(&places::real_model());
    let bytes: Vec<u32> =
        "é".bytes().map(|b| tokenizer.id(&format!("<0x{b:02X}>")).expect("a byte token")).collect();
    let mut decoder = tokenizer.stream();
    assert_eq!(decoder.push(bytes[0]), "");
    assert_eq!(decoder.push(bytes[1]), "é");
    assert_eq!(decoder.push(bytes[0]), "");
    assert_eq!(decoder.flush(), "\u{fffd}");
    assert_eq!(decoder.flush(), "");
}
