//! Talking about a file: the turns of instruction-tuned models, by token id, and a plain question and
//! answer for base models.
//!
//! The file stands first, so that a follow-up question finds it computed. What does not fit the context
//! is left out from the oldest turn on, then from the file, and [`Dropped`] says so.

use gemma_engine::Error;

use crate::prompt::{Prompt, Tokens, window};

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Model,
}

/// Something that was said.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Turn {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub text: String,
}

/// What a chat prompt is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatMaterial {
    /// The file: its path as the model is shown it, the language's identifier, the text.
    pub file: Option<ChatFile>,
    /// What is selected in it.
    pub selection: Option<String>,
    /// What was said before, oldest first.
    pub history: Vec<Turn>,
    /// What is asked now.
    pub question: String,
}

/// A file that is talked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatFile {
    /// Relative to the workspace, with `/`.
    pub path: String,
    /// The protocol's identifier of its language.
    pub language: String,
    /// Its text.
    pub text: String,
}

/// What did not fit the context.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Dropped {
    /// So many of the oldest turns.
    pub turns: usize,
    /// So many lines at the end of the file.
    pub file_lines: usize,
}

impl Dropped {
    /// A sentence for the person who asked; `None` when everything fitted.
    pub fn notice(&self) -> Option<String> {
        let turns = (self.turns > 0)
            .then(|| format!("the oldest {} of the conversation", counted(self.turns, "message")));
        let lines = (self.file_lines > 0)
            .then(|| format!("the last {} of the file", counted(self.file_lines, "line")));
        let left_out: Vec<String> = [turns, lines].into_iter().flatten().collect();
        (!left_out.is_empty())
            .then(|| format!("Left out, to fit the model's context: {}.", left_out.join(" and ")))
    }
}

fn counted(number: usize, what: &str) -> String {
    if number == 1 { what.to_string() } else { format!("{number} {what}s") }
}

/// The ids that open and close a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnTokens {
    /// `<start_of_turn>`
    pub start: u32,
    /// `<end_of_turn>`
    pub end: u32,
}

/// The words that a base model's dialogue is written with; a new question ends its answer.
const QUESTION: &str = "Question:";
const ANSWER: &str = "Answer:";

/// Builds the prompt within `budget` tokens. `turns`: `None` for models without them.
pub fn build(
    material: &ChatMaterial,
    turns: Option<TurnTokens>,
    bos: u32,
    budget: usize,
    tokens: &dyn Tokens,
) -> Result<(Prompt, Dropped), Error> {
    let mut shown = material.clone();
    let mut dropped = Dropped::default();
    loop {
        let prompt = lay_out(&shown, turns, bos, tokens)?;
        if prompt.ids.len() <= budget {
            return Ok((prompt, dropped));
        }
        let surplus = prompt.ids.len() - budget;
        if !shown.history.is_empty() {
            dropped.turns += drop_oldest(&mut shown.history);
        } else if let Some(lines) = shorten(&mut shown, surplus, tokens)? {
            dropped.file_lines += lines;
        } else {
            return Err(too_long(prompt.ids.len(), budget));
        }
    }
}

/// A question goes together with its answer: a dialogue never begins with an answer.
fn drop_oldest(history: &mut Vec<Turn>) -> usize {
    let next = history.iter().skip(1).position(|turn| turn.role == Role::User);
    let gone = next.map_or(history.len(), |at| at + 1);
    history.drain(..gone);
    gone
}

/// Takes `surplus` tokens or more off the end of the file; `None` when nothing is left to take.
fn shorten(material: &mut ChatMaterial, surplus: usize, tokens: &dyn Tokens) -> Result<Option<usize>, Error> {
    let Some(file) = material.file.as_mut().filter(|file| !file.text.is_empty()) else { return Ok(None) };
    let fits = tokens.count(&file.text)?.saturating_sub(surplus);
    let end = match window::end(&file.text, fits, tokens)? {
        // Counts of lines may add up to less than the count of the whole: at least one goes.
        end if end == file.text.len() => file.text.trim_end().rfind('\n').map_or(0, |at| at + 1),
        end => end,
    };
    let lines = file.text[end..].lines().count();
    file.text.truncate(end);
    Ok(Some(lines))
}

fn too_long(length: usize, budget: usize) -> Error {
    Error::new(
        gemma_engine::ErrorKind::Input,
        "question",
        format_args!("it has {length} tokens, and the model takes {budget} besides its answer"),
    )
    .remedy("Ask something shorter, or select less.")
}

fn lay_out(
    material: &ChatMaterial,
    turns: Option<TurnTokens>,
    bos: u32,
    tokens: &dyn Tokens,
) -> Result<Prompt, Error> {
    let said = said(material);
    let mut ids = vec![bos];
    let Some(turns) = turns else {
        let dialogue: String = said.iter().map(plain_turn).collect();
        let text = format!("{}{dialogue}{ANSWER}", file(material));
        ids.extend(tokens.encode(&text)?);
        return Ok(Prompt { ids, stop: Vec::new(), stop_texts: vec![format!("\n{QUESTION}")] });
    };
    for (n, turn) in said.iter().enumerate() {
        let role = match turn.role {
            Role::User => "user",
            Role::Model => "model",
        };
        let before = if n == 0 { file(material) } else { String::new() };
        ids.push(turns.start);
        ids.extend(tokens.encode(&format!("{role}\n{before}{}", turn.text.trim()))?);
        ids.push(turns.end);
        ids.extend(tokens.encode("\n")?);
    }
    ids.push(turns.start);
    ids.extend(tokens.encode("model\n")?);
    Ok(Prompt { ids, stop: vec![turns.end], stop_texts: Vec::new() })
}

fn plain_turn(turn: &Turn) -> String {
    let who = match turn.role {
        Role::User => QUESTION,
        Role::Model => ANSWER,
    };
    format!("{who} {}\n\n", turn.text.trim())
}

/// History and question; what is selected stands with the question.
fn said(material: &ChatMaterial) -> Vec<Turn> {
    let mut said = material.history.clone();
    let text = match &material.selection {
        Some(selection) => {
            format!(
                "This part is selected:\n{}\n{}",
                fenced(selection, language(material)),
                material.question
            )
        }
        None => material.question.clone(),
    };
    said.push(Turn { role: Role::User, text });
    said
}

fn language(material: &ChatMaterial) -> &str {
    material.file.as_ref().map_or("", |file| &file.language)
}

fn file(material: &ChatMaterial) -> String {
    match &material.file {
        Some(file) => format!("This is the file {}:\n{}\n", file.path, fenced(&file.text, &file.language)),
        None => String::new(),
    }
}

/// A fence longer than any in the text.
fn fenced(text: &str, language: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat((longest + 1).max(3));
    format!("{fence}{language}\n{}\n{fence}\n", text.trim_end_matches('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::fake::Words;

    const TURNS: Option<TurnTokens> = Some(TurnTokens { start: 105, end: 106 });

    fn turn(role: Role, text: &str) -> Turn {
        Turn { role, text: text.into() }
    }

    fn about_a_file() -> ChatMaterial {
        ChatMaterial {
            file: Some(ChatFile {
                path: "a.py".into(),
                language: "python".into(),
                text: "x = 1\ny = 2\n".into(),
            }),
            selection: None,
            history: vec![turn(Role::User, "why?"), turn(Role::Model, "because")],
            question: "how?".into(),
        }
    }

    #[test]
    fn turns_to_the_token() {
        let words = Words::default();
        let (prompt, dropped) = build(&about_a_file(), TURNS, 2, 1000, &words).expect("fits");
        let expected = "<2><105>user\nThis is the file a.py:\n```python\nx = 1\ny = 2\n```\n\nwhy?<106>\n\
                        <105>model\nbecause<106>\n<105>user\nhow?<106>\n<105>model\n";
        assert_eq!(words.text(&prompt.ids), expected);
        assert_eq!((prompt.stop, dropped.notice()), (vec![106], None));
    }

    #[test]
    fn base_models_get_questions_and_answers() {
        let words = Words::default();
        let (prompt, _) = build(&about_a_file(), None, 2, 1000, &words).expect("fits");
        let text = words.text(&prompt.ids);
        assert!(text.starts_with("<2>This is the file a.py:\n```python\n"), "{text}");
        assert!(text.ends_with("Question: why?\n\nAnswer: because\n\nQuestion: how?\n\nAnswer:"), "{text}");
    }

    #[test]
    fn a_follow_up_question_begins_with_the_same_tokens() {
        let words = Words::default();
        let mut material = about_a_file();
        material.history.clear();
        let first = build(&material, TURNS, 2, 1000, &words).expect("fits").0.ids;
        material.history = vec![turn(Role::User, "how?"), turn(Role::Model, "so")];
        material.question = "really?".into();
        let second = build(&material, TURNS, 2, 1000, &words).expect("fits").0.ids;
        assert!(second.starts_with(&first));
    }

    #[test]
    fn the_oldest_turns_go_first_then_the_end_of_the_file() {
        let words = Words::default();
        let mut material = about_a_file();
        let whole = build(&material, TURNS, 2, 1000, &words).expect("fits").0.ids.len();
        let (_, dropped) = build(&material, TURNS, 2, whole - 1, &words).expect("fits");
        assert_eq!(dropped, Dropped { turns: 2, file_lines: 0 });

        material.history.clear();
        let alone = build(&material, TURNS, 2, 1000, &words).expect("fits").0.ids.len();
        let (prompt, dropped) = build(&material, TURNS, 2, alone - 1, &words).expect("fits");
        assert_eq!(dropped, Dropped { turns: 0, file_lines: 1 });
        assert!(!words.text(&prompt.ids).contains("y = 2"));
        assert_eq!(
            dropped.notice().as_deref(),
            Some("Left out, to fit the model's context: the last line of the file.")
        );

        assert!(build(&material, TURNS, 2, 10, &words).is_err());
    }

    #[test]
    fn a_selection_stands_with_the_question_and_its_fence_holds() {
        let words = Words::default();
        let material = ChatMaterial {
            selection: Some("```\nx\n```".into()),
            question: "what?".into(),
            ..ChatMaterial::default()
        };
        let (prompt, _) = build(&material, TURNS, 2, 1000, &words).expect("fits");
        assert!(words.text(&prompt.ids).contains("````\n```\nx\n```\n````\n\nwhat?<106>"));
    }
}
