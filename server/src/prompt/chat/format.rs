//! How a dialogue is written for a model: by its checkpoint's own template, in the family's turns, or as
//! questions and answers for models that know no turns.

use gemma_engine::{ControlPart, Error, Model};

use super::template::{Piece, Template};
use super::{Role, Turn};
use crate::models::follows_instructions;
use crate::prompt::{Prompt, Tokens};

const START_OF_TURN: &str = "<start_of_turn>";
const END_OF_TURN: &str = "<end_of_turn>";
const BOS: &str = "<bos>";
/// The words that a base model's dialogue is written with; a new question ends its answer.
const QUESTION: &str = "Question:";
const ANSWER: &str = "Answer:";

/// How a model's dialogues are written.
#[derive(Debug)]
pub enum Format {
    /// As the checkpoint's chat template says.
    Template(Box<Template>),
    /// In the turns of the published instruction-tuned models.
    Turns,
    /// As a text of questions and answers.
    Plain,
}

/// A part of a prompt on its way to ids.
enum Part<'a> {
    /// Text in which nothing has a special meaning.
    Text(String),
    Control(u32),
    /// What the model itself wrote.
    Ids(&'a [u32]),
}

impl Format {
    /// How this model's dialogues are written. A template that makes no sense is left aside, with a
    /// warning in the log.
    pub fn of(model: &Model) -> Self {
        let has_turns = model.tokenizer().turns().is_some();
        Self::choose(model.name(), model.chat_template(), has_turns)
    }

    /// As [`Format::of`], from what there is to know of a model.
    fn choose(name: &str, template: Option<&str>, has_turns: bool) -> Self {
        match template.map(Template::new) {
            Some(Ok(template)) => return Self::Template(Box::new(template)),
            Some(Err(why)) => {
                tracing::warn!("{name}: its chat template is not used, the built-in one is: {why}");
            }
            None => {}
        }
        let is_tuned = template.is_some() || follows_instructions(name);
        if has_turns && is_tuned { Self::Turns } else { Self::Plain }
    }

    /// Whether the model was tuned for turns, and so can be told how to answer.
    pub fn has_turns(&self) -> bool {
        !matches!(self, Self::Plain)
    }

    /// The prompt of a dialogue that ends with a question. `opening` goes before everything that is said.
    ///
    /// Text that stands together is encoded together, so that the ids are those of the whole text.
    pub(super) fn prompt(
        &self,
        opening: &str,
        said: &[Turn],
        bos: u32,
        tokens: &dyn Tokens,
    ) -> Result<Prompt, Error> {
        let roles: Vec<Role> = said.iter().map(|turn| turn.role).collect();
        let pieces = self.pieces(&roles);
        let mut parts = vec![Part::Control(bos)];
        if !self.has_turns() {
            parts.push(Part::Text(opening.to_owned()));
        }
        for piece in &pieces {
            match piece {
                Piece::Markup(text) => parts.extend(markup(text, tokens).into_iter().filter(|part| {
                    // It is there already, whether or not the template writes it.
                    !matches!(part, Part::Control(id) if *id == bos)
                })),
                Piece::Said(n) => {
                    if *n == 0 && self.has_turns() {
                        parts.push(Part::Text(opening.to_owned()));
                    }
                    if let Some(turn) = said.get(*n) {
                        parts.push(match &turn.ids {
                            Some(ids) => Part::Ids(ids),
                            None => Part::Text(self.shown(turn)),
                        });
                    }
                }
            }
        }
        let stop_texts = if self.has_turns() { Vec::new() } else { vec![format!("\n{QUESTION}")] };
        let ids = encode(&parts, tokens)?;
        Ok(Prompt { ids, stop: self.stop(tokens), stop_texts, cuts: Vec::new(), base_alone: true })
    }

    /// Text of a turn that has no ids of its own.
    fn shown(&self, turn: &Turn) -> String {
        let text = turn.text.trim();
        // A model writes its answer behind the colon with the space before it.
        if self.has_turns() || turn.role == Role::User { text.to_owned() } else { format!(" {text}") }
    }

    /// Layout of messages, oldest first, up to where the answer begins.
    fn pieces(&self, roles: &[Role]) -> Vec<Piece> {
        match self {
            Self::Template(template) => template.lay_out(roles).unwrap_or_else(|why| {
                tracing::warn!("the chat template fails for this dialogue: {why}");
                turns(roles)
            }),
            Self::Turns => turns(roles),
            Self::Plain => questions_and_answers(roles),
        }
    }

    /// The tokens that end an answer, besides the model's own end tokens: those around turns.
    fn stop(&self, tokens: &dyn Tokens) -> Vec<u32> {
        let mut texts = format!("{END_OF_TURN}{START_OF_TURN}");
        if let Self::Template(_) = self {
            // Whatever the template puts behind an answer.
            let pieces = self.pieces(&[Role::User, Role::Model, Role::User]);
            let behind = pieces.iter().skip_while(|piece| **piece != Piece::Said(1)).nth(1);
            if let Some(Piece::Markup(text)) = behind {
                texts.push_str(text);
            }
        }
        let mut ids: Vec<u32> = Vec::new();
        for part in tokens.control_parts(&texts) {
            if let ControlPart::Control(id) = part
                && !ids.contains(&id)
            {
                ids.push(id);
            }
        }
        ids
    }
}

/// The turns of the published instruction-tuned models.
fn turns(roles: &[Role]) -> Vec<Piece> {
    let mut pieces = vec![Piece::Markup(BOS.to_owned())];
    for (n, role) in roles.iter().enumerate() {
        let name = match role {
            Role::User => "user",
            Role::Model => "model",
        };
        pieces.push(Piece::Markup(format!("{START_OF_TURN}{name}\n")));
        pieces.push(Piece::Said(n));
        pieces.push(Piece::Markup(format!("{END_OF_TURN}\n")));
    }
    pieces.push(Piece::Markup(format!("{START_OF_TURN}model\n")));
    pieces
}

fn questions_and_answers(roles: &[Role]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (n, role) in roles.iter().enumerate() {
        pieces.push(Piece::Markup(match role {
            Role::User => format!("{QUESTION} "),
            Role::Model => ANSWER.to_owned(),
        }));
        pieces.push(Piece::Said(n));
        pieces.push(Piece::Markup("\n\n".to_owned()));
    }
    pieces.push(Piece::Markup(ANSWER.to_owned()));
    pieces
}

fn markup<'a>(text: &str, tokens: &dyn Tokens) -> Vec<Part<'a>> {
    let parts = tokens.control_parts(text).into_iter();
    parts
        .map(|part| match part {
            ControlPart::Text(text) => Part::Text(text.to_owned()),
            ControlPart::Control(id) => Part::Control(id),
        })
        .collect()
}

fn encode(parts: &[Part<'_>], tokens: &dyn Tokens) -> Result<Vec<u32>, Error> {
    let mut ids = Vec::new();
    let mut text = String::new();
    for part in parts {
        if let Part::Text(more) = part {
            text.push_str(more);
            continue;
        }
        if !text.is_empty() {
            ids.extend(tokens.encode(&text)?);
            text.clear();
        }
        match part {
            Part::Control(id) => ids.push(*id),
            Part::Ids(said) => ids.extend_from_slice(said),
            Part::Text(_) => {}
        }
    }
    if !text.is_empty() {
        ids.extend(tokens.encode(&text)?);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_tuned_for_turns_get_them_and_base_models_do_not() {
        let sound = "{% for m in messages %}{{ m.content }}{% endfor %}";
        for (name, template, has_turns, expected) in [
            ("gemma-3-1b-it-q4_0", None, true, "Turns"),
            ("codegemma:7b-instruct", None, true, "Turns"),
            ("gemma-3-270m-q4_k_m", None, true, "Plain"),
            ("gemma-2b-it", None, false, "Plain"),
            ("model", Some(sound), false, "Template"),
            ("model", Some("{{ broken"), true, "Turns"),
            ("model", Some("no user text in it"), true, "Turns"),
            ("model", Some("{{ broken"), false, "Plain"),
        ] {
            let format = format!("{:?}", Format::choose(name, template, has_turns));
            assert!(format.starts_with(expected), "{name} {template:?}: {format}");
        }
    }
}
