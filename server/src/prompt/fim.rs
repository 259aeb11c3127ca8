//! Fill in the middle, as CodeGemma was trained: control tokens by id, never as text, with no blanks or
//! line breaks of our own around them.
//!
//! Prefix first (PSM):
//! `<bos>` other files `<|file_separator|>` path `\n` `<|fim_prefix|>` P `<|fim_suffix|>` S `<|fim_middle|>`.
//! Suffix first (SPM): `... <|fim_prefix|> <|fim_suffix|> S <|fim_middle|> P`. Here P stands last, so
//! typing only appends, and an accepted completion is in the cache already, as prefix. With the token of the
//! middle last: `... <|fim_suffix|> S <|fim_prefix|> P <|fim_middle|>`.

use gemma_engine::{Error, FimTokens};

use crate::prompt::{Material, Prompt, Tokens};
use crate::settings::FimOrder;

/// The order where neither the user nor a measurement says otherwise.
pub const DEFAULT_ORDER: FimOrder = FimOrder::Psm;

/// Builds the prompt.
pub fn build(
    material: &Material,
    fim: FimTokens,
    order: FimOrder,
    bos: u32,
    tokens: &dyn Tokens,
) -> Result<Prompt, Error> {
    let mut ids = vec![bos];
    for piece in &material.pieces {
        ids.extend(tokens.encode(&format!("{}\n{}", piece.path, piece.text.trim_end_matches('\n')))?);
        ids.push(fim.separator);
    }
    ids.extend(tokens.encode(&format!("{}\n", material.path))?);
    let prefix = encode(&material.prefix(), tokens)?;
    let suffix = encode(&material.after, tokens)?;
    match order {
        FimOrder::Psm => {
            ids.push(fim.prefix);
            ids.extend(prefix);
            ids.push(fim.suffix);
            ids.extend(suffix);
            ids.push(fim.middle);
        }
        FimOrder::Spm => {
            ids.extend([fim.prefix, fim.suffix]);
            ids.extend(suffix);
            ids.push(fim.middle);
            ids.extend(prefix);
        }
        FimOrder::SpmMiddleLast => {
            ids.push(fim.suffix);
            ids.extend(suffix);
            ids.push(fim.prefix);
            ids.extend(prefix);
            ids.push(fim.middle);
        }
        // Who wants that asks for no such prompt.
        FimOrder::Plain => ids.extend(prefix),
    }
    Ok(Prompt { ids, stop: vec![fim.prefix, fim.middle, fim.suffix, fim.separator], stop_texts: Vec::new() })
}

fn encode(text: &str, tokens: &dyn Tokens) -> Result<Vec<u32>, Error> {
    if text.is_empty() { Ok(Vec::new()) } else { tokens.encode(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;
    use crate::prompt::Piece;
    use crate::prompt::fake::Words;

    const FIM: FimTokens = FimTokens { prefix: 67, middle: 68, suffix: 69, separator: 70 };

    fn material() -> Material {
        Material {
            pieces: vec![Piece { path: "src/b.x".into(), language: Language::Other, text: "two\n".into() }],
            path: "src/a.x".into(),
            language: Language::Other,
            head: "use b".into(),
            before: "one ".into(),
            after: " three\n".into(),
        }
    }

    #[test]
    fn both_orders_to_the_token() {
        let words = Words::default();
        for (order, expected) in [
            (FimOrder::Psm, "<2>src/b.x\ntwo<70>src/a.x\n<67>use b\none <69> three\n<68>"),
            (FimOrder::Spm, "<2>src/b.x\ntwo<70>src/a.x\n<67><69> three\n<68>use b\none "),
            (FimOrder::SpmMiddleLast, "<2>src/b.x\ntwo<70>src/a.x\n<69> three\n<67>use b\none <68>"),
        ] {
            let prompt = build(&material(), FIM, order, 2, &words).expect("a prompt");
            assert_eq!(words.text(&prompt.ids), expected);
            assert_eq!(prompt.stop, [67, 68, 69, 70]);
        }
    }

    #[test]
    fn suffix_first_only_appends_while_typing() {
        let words = Words::default();
        let mut material = material();
        let before = build(&material, FIM, FimOrder::Spm, 2, &words).expect("a prompt");
        material.before.push_str("more");
        let after = build(&material, FIM, FimOrder::Spm, 2, &words).expect("a prompt");
        assert!(after.ids.starts_with(&before.ids));
    }

    #[test]
    fn an_empty_document_has_nothing_between_the_tokens() {
        let words = Words::default();
        let material = Material {
            pieces: Vec::new(),
            path: "a".into(),
            language: Language::Other,
            head: String::new(),
            before: String::new(),
            after: String::new(),
        };
        let prompt = build(&material, FIM, FimOrder::Psm, 2, &words).expect("a prompt");
        assert_eq!(words.text(&prompt.ids), "<2>a\n<67><69><68>");
    }
}
