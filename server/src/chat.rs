//! Talking about a file: one question, answered as a stream of tokens.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use gemma_engine::{
    CancelFlag, Engine, Error, GenerateRequest, Model, Priority, Sampling, Stop, TokenStream,
};

use crate::documents::Snapshot;
use crate::prompt::chat::{ChatFile, ChatMaterial, TurnTokens, build};
use crate::prompt::{lines, shown_path};

pub use crate::prompt::chat::{Dropped, Role, Turn};

/// Longest answer where nobody says otherwise, in tokens.
pub const MAX_TOKENS: usize = 1024;

/// A question, and what it is about.
pub struct ChatRequest {
    /// The file that is talked about.
    pub file: Option<Snapshot>,
    /// What is selected in it, in characters from its start.
    pub selection: Option<Range<usize>>,
    /// What is asked.
    pub question: String,
    /// What was said before, oldest first.
    pub history: Vec<Turn>,
    /// Where the workspace begins, for the path shown to the model.
    pub root: Option<PathBuf>,
    /// Longest answer, in tokens.
    pub max_tokens: usize,
    /// How tokens are picked; see [`sampling`].
    pub sampling: Sampling,
}

/// An answer on its way.
pub struct Reply {
    /// The answer, token by token.
    pub stream: TokenStream,
    /// What did not fit the model's context.
    pub dropped: Dropped,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
}

/// How answers are picked where nobody says otherwise: some variety, or small models repeat themselves.
pub fn sampling() -> Sampling {
    Sampling { temperature: 0.7, top_k: 64, top_p: 0.95, repetition_penalty: 1.05, ..Sampling::default() }
}

/// Asks. The stream goes on after this returns; `cancel` stops it.
///
/// Fails when the question alone does not fit the model's context.
pub fn ask(
    engine: &Engine,
    model: &Arc<Model>,
    request: ChatRequest,
    cancel: CancelFlag,
) -> Result<Reply, Error> {
    let tokenizer = model.tokenizer();
    let context = model.config().context;
    let max_tokens = request.max_tokens.clamp(1, (context / 2).max(1));
    let sampling = request.sampling.clone();
    let material = material(request);
    let turns = tokenizer.turns().map(|(start, end)| TurnTokens { start, end });
    let bos = model.config().bos;
    let (prompt, dropped) = build(&material, turns, bos, context - max_tokens, tokenizer)?;
    let prompt_tokens = prompt.ids.len();
    let stream = engine.submit(GenerateRequest {
        model: model.clone(),
        prompt: prompt.ids,
        pictures: Vec::new(),
        begin_with: String::new(),
        max_tokens,
        sampling,
        stop: Stop { tokens: prompt.stop, texts: prompt.stop_texts, ..Stop::default() },
        priority: Priority::Chat,
        deadline: None,
        cancel,
    });
    Ok(Reply { stream, dropped, prompt_tokens })
}

fn material(request: ChatRequest) -> ChatMaterial {
    let selection = request.file.as_ref().zip(request.selection).and_then(|(file, selected)| {
        let end = selected.end.min(file.text.len_chars());
        let start = selected.start.min(end);
        (start < end).then(|| lines(&file.text.slice(start..end)))
    });
    let root = request.root.as_deref();
    let file = request.file.map(|file| ChatFile {
        path: shown_path(&file.location(), root),
        language: file.language_id.to_string(),
        text: lines(&file.text.slice(..)),
    });
    ChatMaterial { file, selection, history: request.history, question: request.question }
}
