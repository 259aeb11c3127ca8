//! Talking about a file: questions and their answers, one conversation at a time.
//!
//! A [`Conversation`] keeps what was said, a model's answers as the ids that it generated: a follow-up
//! question then finds the file and everything said before in the engine's cache. The file's text is given
//! anew with each question, so that edits count; what stands before the first edit is still reused.

pub mod answer;
pub mod edit;
pub mod wish;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use gemma_engine::{
    CancelFlag, Engine, Error, Finished, GenerateRequest, Model, Sampling, Stop, TokenStream, Tokenizer,
};

use crate::documents::Snapshot;
use crate::language::Language;
use crate::prompt::chat::{ChatFile, ChatMaterial, Format, about_selection, build};
use crate::prompt::{lines, shown_path};

pub use crate::prompt::chat::{Dropped, Role, Turn};

/// Longest answer where nobody says otherwise, in tokens.
pub const MAX_TOKENS: usize = 1024;

/// A model that answers questions. Cheap to clone.
#[derive(Clone)]
pub struct ChatModel {
    engine: Engine,
    model: Arc<Model>,
    format: Arc<Format>,
}

/// A question, and what it is about.
#[derive(Clone)]
pub struct ChatRequest {
    /// The file that is talked about, as it is now.
    pub file: Option<Snapshot>,
    /// What is selected in it, in characters from its start; an empty range is the cursor. A file that does
    /// not fit is shown around it.
    pub selection: Option<Range<usize>>,
    /// Where the workspace begins, for the path shown to the model.
    pub root: Option<PathBuf>,
    /// Whether a model that follows instructions is shown line numbers, so that it can name lines.
    pub line_numbers: bool,
    /// What is asked.
    pub question: String,
    /// Longest answer, in tokens.
    pub max_tokens: usize,
    /// How tokens are picked; see [`sampling`].
    pub sampling: Sampling,
}

/// What was said so far. Belongs to one model at a time; another one reads it as text.
#[derive(Clone, Default)]
pub struct Conversation {
    turns: Vec<Turn>,
    model: Weak<Model>,
}

/// An answer on its way.
pub struct Reply {
    /// The answer, token by token.
    pub stream: TokenStream,
    /// What did not fit the model's context.
    pub dropped: Dropped,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// The question as the model was shown it, for [`Conversation::answered`].
    pub asked: Turn,
}

/// How answers are picked where nobody says otherwise: some variety, or small models repeat themselves.
pub fn sampling() -> Sampling {
    Sampling { temperature: 0.7, top_k: 64, top_p: 0.95, repetition_penalty: 1.05, ..Sampling::default() }
}

impl ChatModel {
    /// Finds out how the model's dialogues are written; says in the log when its own template is of no use.
    pub fn new(engine: Engine, model: Arc<Model>) -> Self {
        let format = Arc::new(Format::of(&model));
        Self { engine, model, format }
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Asks. The stream goes on after this returns; `cancel` stops it. The question belongs to the
    /// conversation once its answer is given to [`Conversation::answered`]; old turns that do not fit any
    /// more are gone from it. The file is encoded on this thread, which takes milliseconds: not for a
    /// message loop.
    ///
    /// Fails when the question alone does not fit the model's context.
    pub fn ask(
        &self,
        conversation: &mut Conversation,
        request: ChatRequest,
        cancel: CancelFlag,
    ) -> Result<Reply, Error> {
        let model = &self.model;
        let context = model.config().context;
        let max_tokens = request.max_tokens.clamp(1, (context / 2).max(1));
        let sampling = request.sampling.clone();
        conversation.belong_to(model);
        let material = material(request, conversation.turns.clone());
        let budget = context - max_tokens;
        let (prompt, dropped) =
            build(&material, &self.format, model.config().bos, budget, model.tokenizer())?;
        conversation.turns.drain(..dropped.turns);
        let prompt_tokens = prompt.ids.len();
        let stream = self.engine.submit(GenerateRequest {
            sampling,
            stop: Stop { tokens: prompt.stop, texts: prompt.stop_texts, ..Stop::default() },
            cancel,
            base_alone: prompt.base_alone && model.adapter_infills(),
            ..GenerateRequest::new(model.clone(), prompt.ids, max_tokens)
        });
        Ok(Reply { stream, dropped, prompt_tokens, asked: Turn::new(Role::User, material.question) })
    }
}

impl Reply {
    /// Waits for the end of the answer on this thread, showing its text piece by piece. What was said then
    /// belongs to the conversation, also where it was stopped.
    pub fn follow(
        self,
        conversation: &mut Conversation,
        on_text: impl FnMut(&str),
    ) -> Result<Finished, Error> {
        let finished = self.stream.texts_blocking(on_text)?;
        conversation.answered(self.asked, &finished);
        Ok(finished)
    }
}

impl Conversation {
    /// A conversation that was had before, elsewhere: as far as questions and answers take turns.
    pub fn of(turns: Vec<Turn>) -> Self {
        let mut taken: Vec<Turn> = Vec::new();
        for turn in turns {
            let next = if taken.len().is_multiple_of(2) { Role::User } else { Role::Model };
            if turn.role == next {
                taken.push(turn);
            }
        }
        taken.truncate(taken.len() / 2 * 2);
        Self { turns: taken, model: Weak::new() }
    }

    /// Adds what another model was asked and answered.
    pub fn noted(&mut self, question: impl Into<String>, answer: impl Into<String>) {
        self.turns.push(Turn::new(Role::User, question));
        self.turns.push(Turn::new(Role::Model, answer));
    }

    /// What was said, oldest first: questions and answers in turn, those that were dropped left out.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.turns.clear();
    }

    /// Adds a question and what was answered. A question that got no answer, because it was stopped
    /// before, leaves no trace.
    pub fn answered(&mut self, asked: Turn, finished: &Finished) {
        if finished.tokens.is_empty() {
            return;
        }
        let ids = self.model.upgrade().map(|model| kept_ids(finished, model.tokenizer()));
        self.turns.push(asked);
        self.turns.push(Turn { ids, ..Turn::new(Role::Model, finished.text.as_str()) });
    }

    /// The ids of another model mean nothing to this one.
    fn belong_to(&mut self, model: &Arc<Model>) {
        let model = Arc::downgrade(model);
        if !self.model.ptr_eq(&model) {
            self.turns.iter_mut().for_each(|turn| turn.ids = None);
            self.model = model;
        }
    }
}

/// The generated ids whose text is in the answer: those behind a stop text are not.
fn kept_ids(finished: &Finished, tokenizer: &Tokenizer) -> Vec<u32> {
    let mut decoder = tokenizer.stream();
    let mut text = String::new();
    let mut kept = 0;
    for (n, &id) in finished.tokens.iter().enumerate() {
        text.push_str(&decoder.push(id));
        if !finished.text.starts_with(&text) {
            break;
        }
        kept = n + 1;
    }
    finished.tokens[..kept].to_vec()
}

fn material(request: ChatRequest, history: Vec<Turn>) -> ChatMaterial {
    let Some(document) = request.file else {
        return ChatMaterial { file: None, history, question: request.question.trim().to_owned() };
    };
    let selected = request.selection.map(|selected| {
        let end = selected.end.min(document.text.len_chars());
        let bytes_before = |chars: usize| lines(&document.text.slice(..chars)).len();
        bytes_before(selected.start.min(end))..bytes_before(end)
    });
    let file = ChatFile {
        path: shown_path(&document.location(), request.root.as_deref()),
        language: language_of(&document).to_owned(),
        text: lines(&document.text.slice(..)),
        focus: selected.clone(),
        numbered: request.line_numbers,
    };
    let question = about_selection(&request.question, &file, &selected.unwrap_or(0..0));
    ChatMaterial { file: Some(file), history, question }
}

/// What the client calls the document's language, else what we do; nothing for text without one.
fn language_of(document: &Snapshot) -> &str {
    match (&*document.language_id, document.language) {
        ("", Language::Other) => "",
        ("", language) => language.id(),
        (given, _) => given,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_had_elsewhere_takes_turns() {
        let turn = |role, text: &str| Turn::new(role, text);
        let (user, model) = (Role::User, Role::Model);
        let turns = vec![
            turn(model, "lost"),
            turn(user, "a"),
            turn(user, "again"),
            turn(model, "b"),
            turn(user, "unanswered"),
        ];
        let said: Vec<String> = Conversation::of(turns).turns.into_iter().map(|turn| turn.text).collect();
        assert_eq!(said, ["a", "b"]);
        assert!(Conversation::of(Vec::new()).turns().is_empty());
    }

    #[test]
    fn a_selection_is_found_whatever_the_line_ends() {
        let document = Snapshot::new("file:///w/a.py", "", "ä = 1\r\nb = 2\r\nc = 3\r\n");
        let request = |selection| ChatRequest {
            file: Some(document.clone()),
            selection,
            root: Some("/w".into()),
            line_numbers: true,
            question: " what? ".into(),
            max_tokens: 10,
            sampling: sampling(),
        };
        let shown = material(request(Some(7..12)), Vec::new());
        assert_eq!(shown.question, "Line 2 is selected:\n```python\nb = 2\n```\n\nwhat?");
        let file = shown.file.expect("there is one");
        let focus = file.focus.clone().expect("it is selected");
        assert_eq!((file.path.as_str(), &file.text[focus]), ("a.py", "b = 2"));
        assert_eq!(file.language, "python");
        assert_eq!(material(request(Some(7..7)), Vec::new()).question, "what?");
        assert_eq!(material(request(Some(70..90)), Vec::new()).question, "what?");
        assert_eq!(material(request(None), Vec::new()).question, "what?");
    }
}
