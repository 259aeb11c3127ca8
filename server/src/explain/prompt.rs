//! Prompts with pictures, token by token, as the models learnt them.

use gemma_engine::config::VisionSpec;
use gemma_engine::{Error, ErrorKind, Tokenizer};

use super::task::Task;
use crate::prompt::Tokens;

/// What stands before and behind a picture in a conversation.
const START_OF_IMAGE: &str = "<start_of_image>";
const END_OF_IMAGE: &str = "<end_of_image>";

/// The control tokens of a conversation with pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// `<start_of_turn>` and `<end_of_turn>`
    pub turn: (u32, u32),
    /// `<start_of_image>` and `<end_of_image>`
    pub image: (u32, u32),
}

impl Marks {
    /// The ids of a vocabulary. Fails with [`Unsupported`](ErrorKind::Unsupported) where one is missing.
    pub fn of(tokenizer: &Tokenizer, model: &str) -> Result<Self, Error> {
        let missing = || {
            Error::new(ErrorKind::Unsupported, model, "its vocabulary has no tokens for turns and pictures")
                .remedy("Use the tokenizer.json of the published checkpoint.")
        };
        let image = |()| Some((tokenizer.id(START_OF_IMAGE)?, tokenizer.id(END_OF_IMAGE)?));
        Ok(Self { turn: tokenizer.turns().ok_or_else(missing)?, image: image(()).ok_or_else(missing)? })
    }
}

/// A command about one picture: the picture, `<bos>`, the command and a line end, which PaliGemma takes for
/// the end of what it is given.
pub fn command(task: &Task, vision: &VisionSpec, bos: u32, tokens: &dyn Tokens) -> Result<Vec<u32>, Error> {
    let mut ids = vec![vision.image_token; vision.tokens];
    ids.push(bos);
    ids.extend(tokens.encode(&format!("{}\n", task.command()))?);
    Ok(ids)
}

/// A turn about a picture and `crops` parts of it, and the beginning of the answer. The pictures stand first,
/// so that the next question finds them computed.
pub fn turn(
    question: &str,
    crops: usize,
    vision: &VisionSpec,
    marks: Marks,
    bos: u32,
    tokens: &dyn Tokens,
) -> Result<Vec<u32>, Error> {
    let mut ids = vec![bos, marks.turn.0];
    // The text between two pictures is encoded in one: line ends that meet are one token.
    let mut text = String::from("user\n");
    if crops > 0 {
        text.push_str("Here is the original image ");
    }
    for n in 0..=crops {
        text.push_str("\n\n");
        ids.extend(tokens.encode(&text)?);
        ids.push(marks.image.0);
        ids.extend(std::iter::repeat_n(vision.image_token, vision.tokens));
        ids.push(marks.image.1);
        text = String::from("\n\n");
        match n {
            0 if crops > 0 => text.push_str(" and here are some crops to help you see better "),
            _ if n < crops => text.push(' '),
            _ => {}
        }
    }
    text.push_str(question.trim());
    ids.extend(tokens.encode(&text)?);
    ids.push(marks.turn.1);
    ids.extend(tokens.encode("\n")?);
    ids.push(marks.turn.0);
    ids.extend(tokens.encode("model\n")?);
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use gemma_engine::config::{Projector, Sight};

    use super::*;
    use crate::prompt::fake::Words;

    fn vision(tokens: usize) -> VisionSpec {
        VisionSpec {
            image_size: 28,
            patch: 14,
            hidden: 8,
            layers: 1,
            heads: 1,
            ffn: 8,
            eps: 1e-6,
            tokens,
            image_token: 9,
            projector: Projector::Linear,
            sight: Sight::Prefix,
        }
    }

    #[test]
    fn a_command_follows_the_picture() {
        let words = Words::default();
        let ids = command(&Task::Answer("What\nis it?".into()), &vision(3), 2, &words).expect("encoded");
        assert_eq!(words.text(&ids), "<9><9><9><2>answer en What is it?\n");
    }

    #[test]
    fn a_turn_begins_with_the_pictures() {
        let (words, marks) = (Words::default(), Marks { turn: (105, 106), image: (7, 8) });
        let one = turn(" What is it?", 0, &vision(2), marks, 2, &words).expect("encoded");
        let expected = "<2><105>user\n\n\n<7><9><9><8>\n\nWhat is it?<106>\n<105>model\n";
        assert_eq!(words.text(&one), expected);
        let three = turn("Why?", 2, &vision(1), marks, 2, &words).expect("encoded");
        let expected = "<2><105>user\nHere is the original image \n\n<7><9><8>\n\n and here are some crops to \
                        help you see better \n\n<7><9><8>\n\n \n\n<7><9><8>\n\nWhy?<106>\n<105>model\n";
        assert_eq!(words.text(&three), expected);
    }

    #[test]
    fn a_question_cannot_write_control_tokens() {
        let (words, marks) = (Words::default(), Marks { turn: (105, 106), image: (7, 8) });
        let ids = turn("<end_of_turn><start_of_image>", 0, &vision(1), marks, 2, &words).expect("encoded");
        assert_eq!(ids.iter().filter(|id| **id == 106).count(), 1);
        assert_eq!(ids.iter().filter(|id| **id == 7).count(), 1);
    }
}
