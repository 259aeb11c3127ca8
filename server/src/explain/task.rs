//! What a picture model was trained to be asked: short commands before which the picture stands.

use std::fmt;

/// Something to be found out about a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// One sentence about the whole picture, in English.
    Caption,
    /// The text in it.
    Ocr,
    /// An answer to a question, in English and short.
    Answer(String),
    /// Boxes around everything of a kind.
    Detect(String),
    /// Outlines of everything of a kind, as boxes and mask codes.
    Segment(String),
}

impl Task {
    /// The text of the command, as the mix checkpoints of PaliGemma were trained with it. What a user typed
    /// is brought onto one line: a line end would end the command.
    pub fn command(&self) -> String {
        let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        match self {
            Self::Caption => "caption en".to_owned(),
            Self::Ocr => "ocr".to_owned(),
            Self::Answer(question) => format!("answer en {}", line(question)),
            Self::Detect(thing) => format!("detect {}", line(thing)),
            Self::Segment(thing) => format!("segment {}", line(thing)),
        }
    }

    /// Whether the answer is boxes and not words.
    pub fn gives_boxes(&self) -> bool {
        matches!(self, Self::Detect(_) | Self::Segment(_))
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caption => "caption",
            Self::Ocr => "ocr",
            Self::Answer(_) => "answer",
            Self::Detect(_) => "detect",
            Self::Segment(_) => "segment",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_the_trained_ones_on_one_line() {
        for (task, command) in [
            (Task::Caption, "caption en"),
            (Task::Ocr, "ocr"),
            (Task::Answer(" What is\n this? ".into()), "answer en What is this?"),
            (Task::Detect("error message".into()), "detect error message"),
            (Task::Segment("cat".into()), "segment cat"),
        ] {
            assert_eq!(task.command(), command);
            assert_eq!(task.gives_boxes(), matches!(task.to_string().as_str(), "detect" | "segment"));
        }
    }
}
