//! What is asked for with one key (explain, document, test, find the bug), in words for the model.

use serde::{Deserialize, Serialize};

/// What is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What the user's own words say.
    #[default]
    Ask,
    /// What the code does.
    Explain,
    /// Comments that document it.
    Document,
    /// Tests of it.
    Tests,
    /// What is wrong in it, and how it is mended.
    Fix,
}

/// Something that a compiler or a linter says of a place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Line, from 1.
    pub line: usize,
    /// `error`, `warning`, ...
    pub severity: &'static str,
    /// Who says it, with the number that it has there.
    pub source: Option<String>,
    /// What it says.
    pub message: String,
}

/// What a wish is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Some lines, which the model is shown before the wish.
    Selection,
    /// The whole file.
    File,
    /// Nothing in particular.
    Nothing,
}

impl Kind {
    /// Whether a block of code in the answer is meant to take the place of what was selected.
    pub fn replaces_selection(self) -> bool {
        matches!(self, Self::Ask | Self::Document | Self::Fix)
    }

    fn words(self, about: About, complaints: bool) -> Option<String> {
        let what = match about {
            About::Selection => "the selected code",
            About::File => "this file",
            About::Nothing => "it",
        };
        Some(match self {
            Self::Ask if complaints => "What does this mean, and where does it come from?".to_owned(),
            Self::Ask => return None,
            Self::Explain if complaints => {
                "Explain what this means and what in the code causes it.".to_owned()
            }
            Self::Explain => format!("Explain what {what} does, step by step. Name the lines you mean."),
            Self::Document => format!(
                "Write documentation comments for {what}, as is usual in its language. Answer with {what} and \
                 the comments in one code block; change nothing else."
            ),
            Self::Tests => format!(
                "Write tests for {what} with the test framework that is usual in its language: the common case, \
                 the edges and what must fail. Answer with the tests in one code block."
            ),
            Self::Fix if complaints => {
                format!("Say in one sentence what is wrong, then give {what} corrected in one code block.")
            }
            Self::Fix => format!(
                "Find the bug in {what}. Say which line is wrong and why, then give {what} corrected in one code \
                 block. If there is none, say so."
            ),
        })
    }
}

/// The question as the model is asked it; `None` where nothing is asked.
pub fn question(kind: Kind, about: About, complaints: &[Complaint], asked: Option<&str>) -> Option<String> {
    let asked = asked.map(str::trim).filter(|asked| !asked.is_empty());
    let words = match (kind, asked) {
        // The user's own words are the question; other wishes may have words added to them.
        (Kind::Ask, Some(_)) => None,
        _ => kind.words(about, !complaints.is_empty()),
    };
    let said = complaints.iter().map(Complaint::sentence);
    let parts: Vec<String> = said.chain(words).chain(asked.map(str::to_owned)).collect();
    (kind != Kind::Ask || asked.is_some() || !complaints.is_empty()).then(|| parts.join("\n"))
}

impl Complaint {
    fn sentence(&self) -> String {
        let source = self.source.as_ref().map_or_else(String::new, |source| format!(" ({source})"));
        format!("In line {} there is this {}{source}: {}", self.line, self.severity, self.message.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_questions() {
        let ask = |kind, about, asked| question(kind, about, &[], asked);
        assert_eq!(ask(Kind::Ask, About::File, None), None);
        assert_eq!(ask(Kind::Ask, About::File, Some("  ")), None);
        assert_eq!(ask(Kind::Ask, About::Selection, Some(" why? ")), Some("why?".into()));
        let explain = ask(Kind::Explain, About::File, None).expect("a question");
        assert!(explain.starts_with("Explain what this file does"), "{explain}");
        let tests = ask(Kind::Tests, About::Selection, Some("Use pytest.")).expect("a question");
        assert!(tests.contains("the selected code") && tests.ends_with("\nUse pytest."), "{tests}");
    }

    #[test]
    fn a_complaint_stands_before_the_question() {
        let complaint = Complaint {
            line: 3,
            severity: "error",
            source: Some("rustc E0308".into()),
            message: "mismatched types\n".into(),
        };
        let complaints = [complaint];
        let explain = question(Kind::Explain, About::Selection, &complaints, None).expect("a question");
        assert_eq!(
            explain,
            "In line 3 there is this error (rustc E0308): mismatched types\n\
             Explain what this means and what in the code causes it."
        );
        let fix = question(Kind::Fix, About::Selection, &complaints, None).expect("a question");
        assert!(fix.contains("the selected code corrected"), "{fix}");
        assert!(question(Kind::Ask, About::File, &complaints, None).is_some());
    }
}
