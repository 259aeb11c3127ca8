//! For models that cannot fill in the middle: the text before the cursor as the end of one document that
//! a model would find natural. Other files come first, each under a comment with its path.
//!
//! The model does not see the text behind the cursor; its answer is cut where that text begins.

use gemma_engine::Error;

use crate::language::Language;
use crate::prompt::{Material, Prompt, Tokens, cuts, ended};

/// Builds the prompt.
pub fn build(material: &Material, bos: u32, tokens: &dyn Tokens) -> Result<Prompt, Error> {
    let mut text = String::new();
    for piece in &material.pieces {
        text.push_str(&comment(&piece.path, piece.language));
        text.push_str(&ended(&piece.text));
        text.push('\n');
    }
    text.push_str(&comment(&material.path, material.language));
    text.push_str(&material.prefix());
    let mut ids = vec![bos];
    ids.extend(tokens.encode(&text)?);
    // A model that has seen files follow one another may begin the next one.
    let headers = material.pieces.iter().map(|piece| comment(&piece.path, piece.language));
    let own = comment(&material.path, material.language);
    let mut stop_texts: Vec<String> = headers.chain([own]).map(|header| format!("\n{header}")).collect();
    stop_texts.sort();
    stop_texts.dedup();
    let cuts = cuts(&[ids.len()]);
    Ok(Prompt { ids, stop: Vec::new(), stop_texts, cuts, base_alone: true })
}

/// A line that names a file, in the language's own comments.
fn comment(path: &str, language: Language) -> String {
    let spec = language.spec();
    match (spec.line_comment, spec.block_comment) {
        (Some(marker), _) => format!("{marker} {path}\n"),
        (None, Some((open, close))) => format!("{open} {path} {close}\n"),
        (None, None) => format!("{path}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::Piece;
    use crate::prompt::fake::Words;

    #[test]
    fn other_files_come_first_and_the_cursor_last() {
        let words = Words::default();
        let material = Material {
            pieces: vec![Piece { path: "b.py".into(), language: Language::Python, text: "two\n\n".into() }],
            path: "a.rs".into(),
            language: Language::Rust,
            head: "use b;\n".into(),
            before: "fn one() {\n    ".into(),
            after: "unseen".into(),
        };
        let prompt = build(&material, 2, &words).expect("a prompt");
        assert_eq!(words.text(&prompt.ids), "<2># b.py\ntwo\n\n// a.rs\nuse b;\nfn one() {\n    ");
        assert_eq!(prompt.stop_texts, ["\n# b.py\n", "\n// a.rs\n"]);
    }

    #[test]
    fn paths_stand_in_the_comments_of_their_language() {
        for (language, line) in [
            (Language::Rust, "// a\n"),
            (Language::Python, "# a\n"),
            (Language::Html, "<!-- a -->\n"),
            (Language::Css, "/* a */\n"),
            (Language::Other, "a\n"),
        ] {
            assert_eq!(comment("a", language), line);
        }
    }
}
