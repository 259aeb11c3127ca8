//! Fill in the middle, as CodeGemma was trained: control tokens by id, never as text, with no blanks or
//! line breaks of our own around them.
//!
//! All orders begin with `<bos>` other files `<|file_separator|>` path `\n`; what follows is in [`FimOrder`].

use gemma_engine::{Error, FimTokens};

use crate::prompt::{Material, Prompt, Tokens, cuts};
use crate::settings::FimOrder;

/// The order where the user says nothing else. CodeGemma was trained on both orders, half on each, and the others on
/// none: they are tuned for either, or not at all. With the suffix first a key costs the tokens that it changed; with
/// the prefix first it costs those of the suffix too (recorded sessions, 90 keys in a hundred: at most 2 tokens
/// instead of at most 127). `gemma-ls bench fim` measures what a model makes of each.
pub const DEFAULT_ORDER: FimOrder = FimOrder::Spm;

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
    let mut ends = vec![ids.len()];
    let prefix = encode(&material.prefix(), tokens)?;
    let suffix = encode(&material.after, tokens)?;
    match order {
        FimOrder::Psm => {
            ids.push(fim.prefix);
            ids.extend(prefix);
            ends.push(ids.len());
            ids.push(fim.suffix);
            ids.extend(suffix);
            ids.push(fim.middle);
        }
        FimOrder::Spm => {
            ids.extend([fim.prefix, fim.suffix]);
            ids.extend(suffix);
            ids.push(fim.middle);
            ends.push(ids.len());
            ids.extend(prefix);
            ends.push(ids.len());
        }
        FimOrder::SpmMiddleLast => {
            ids.push(fim.suffix);
            ids.extend(suffix);
            ids.push(fim.prefix);
            ends.push(ids.len());
            ids.extend(prefix);
            ends.push(ids.len());
            ids.push(fim.middle);
        }
        // Who wants that asks for no such prompt.
        FimOrder::Plain => ids.extend(prefix),
    }
    Ok(Prompt {
        ids,
        stop: vec![fim.prefix, fim.middle, fim.suffix, fim.separator],
        stop_texts: Vec::new(),
        cuts: cuts(&ends),
        base_alone: false,
    })
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
    fn all_layouts_to_the_token() {
        let words = Words::default();
        for (order, expected) in [FimOrder::Psm, FimOrder::Spm, FimOrder::SpmMiddleLast].into_iter().zip([
            "<2>src/b.x\ntwo<70>src/a.x\n|<67>use b|\n|one| |<69> three\n<68>",
            "<2>src/b.x\ntwo<70>src/a.x\n|<67><69> three\n<68>|use b|\n|one| |",
            "<2>src/b.x\ntwo<70>src/a.x\n|<69> three\n<67>|use b|\n|one| |<68>",
        ]) {
            let prompt = build(&material(), FIM, order, 2, &words).expect("a prompt");
            let ends = prompt.cuts.iter().scan(0, |from, &to| Some(std::mem::replace(from, to)..to));
            let mut parts: Vec<_> = ends.map(|part| words.text(&prompt.ids[part])).collect();
            parts.push(words.text(&prompt.ids[prompt.cuts[prompt.cuts.len() - 1]..]));
            assert_eq!(parts.join("|"), expected);
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
