//! From a request to a prompt, and from what the engine said to an answer.

use std::sync::Arc;
use std::time::Duration;

use gemma_engine::{
    CancelFlag, Engine, Error, FinishReason, Finished, GenerateRequest, Model, Priority, Sampling, Stop,
    TokenStream,
};

use crate::completion::boundary::Healed;
use crate::completion::shape::decide;
use crate::completion::site::{Lexis, Site};
use crate::completion::{Answer, Reason, Request, enough, filters};
use crate::documents::Snapshot;
use crate::language::Language;
use crate::prompt::{Material, Piece, Prompt, fim, fit_pieces, lines, plain, shown_path, window};
use crate::settings::CompletionSettings;
use crate::text::LineEnding;

/// Bytes of the document on each side of the cursor that rules may look at, at least.
const LOOK: usize = 64 * 1024;

/// A request that is ready for the engine.
pub struct Prepared {
    prompt: Prompt,
    place: Place,
    priority: Priority,
}

/// A request that the engine works on.
pub struct Asked {
    /// What it says.
    pub stream: TokenStream,
    /// Where it belongs.
    pub place: Place,
}

/// Where an answer belongs, and what was left out of the prompt.
pub struct Place {
    site: Site,
    healed: Healed,
    /// The start of what is replaced, and the cursor, in characters.
    start: usize,
    cursor: usize,
    /// What the client's menu has selected: the answer begins with it.
    selected: String,
    line_ending: LineEnding,
}

/// Reads the document and lays out the prompt.
pub fn prepare(model: &Model, settings: &CompletionSettings, request: &Request) -> Result<Prepared, Error> {
    let place = place(model, settings, request);
    let tokenizer = model.tokenizer();
    let (before, healed) = Healed::split(&place.site.before);
    let material = material(model, settings, request, before, &place.site.after)?;
    let bos = model.config().bos;
    let end_of_turn = tokenizer.turns().map(|(_, end)| end);
    let mut prompt = match fim_tokens(model, settings) {
        Some(tokens) => {
            let order = settings.order.unwrap_or(fim::DEFAULT_ORDER);
            fim::build(&material, tokens, order, bos, tokenizer)?
        }
        None => plain::build(&material, bos, Vec::new(), tokenizer)?,
    };
    prompt.stop.extend(end_of_turn);
    let place = Place { healed, ..place };
    Ok(Prepared { prompt, place, priority: request.priority })
}

fn fim_tokens(model: &Model, settings: &CompletionSettings) -> Option<gemma_engine::FimTokens> {
    settings.fim.map(Into::into).or_else(|| model.tokenizer().fim())
}

fn place(model: &Model, settings: &CompletionSettings, request: &Request) -> Place {
    let document = &request.document;
    let cursor = request.cursor.min(document.text.len_chars());
    let (replaced, selected) = request.selected.clone().unwrap_or_default();
    let start = cursor.saturating_sub(replaced);
    let reach = LOOK.max(settings.prefix_tokens.saturating_mul(8));
    let before = format!("{}{selected}", before(document, start, reach));
    let after = after(document, cursor, LOOK.max(settings.suffix_tokens.saturating_mul(8)));
    let lexis = lexis(document.language);
    let shape = decide(&before, &after, &lexis, quoted(document, start), settings.multi_line);
    let blind = fim_tokens(model, settings).is_none();
    let site = Site::new(before, after, lexis, shape, blind);
    Place { site, healed: Healed::default(), start, cursor, selected, line_ending: document.line_ending }
}

/// Text before an offset, whole lines as far as `reach` bytes, line ends as `\n`.
fn before(document: &Snapshot, offset: usize, reach: usize) -> String {
    let text = &document.text;
    let byte = text.char_to_byte(offset);
    let first = match byte.checked_sub(reach) {
        Some(far) if far > 0 => text.line_to_char(text.byte_to_line(far) + 1).min(offset),
        _ => 0,
    };
    lines(&text.slice(first..offset))
}

/// Text behind an offset, whole lines as far as `reach` bytes, line ends as `\n`.
fn after(document: &Snapshot, offset: usize, reach: usize) -> String {
    let text = &document.text;
    let far = text.char_to_byte(offset).saturating_add(reach);
    let last =
        if far >= text.len_bytes() { text.len_chars() } else { text.line_to_char(text.byte_to_line(far)) };
    lines(&text.slice(offset..last.max(offset)))
}

fn lexis(language: Language) -> Lexis {
    let spec = language.spec();
    let has_characters = spec.strings.iter().any(|kind| kind.starts_with("char") || kind.starts_with("rune"));
    Lexis {
        line_comment: spec.line_comment,
        slash_star: spec.block_comment.is_some_and(|(open, _)| open == "/*"),
        single_quoted_strings: !has_characters,
    }
}

/// Whether the syntax tree has an offset inside a comment or a string, but not in code inside it.
fn quoted(document: &Snapshot, offset: usize) -> bool {
    let Some(tree) = document.tree() else { return false };
    let spec = document.language.spec();
    let byte = document.text.char_to_byte(offset);
    // The character before the cursor too: at the end of a comment the cursor is in it.
    let mut node = tree.root_node().descendant_for_byte_range(byte.saturating_sub(1), byte);
    while let Some(inner) = node {
        if spec.interpolations.contains(&inner.kind()) {
            return false;
        }
        let strictly_inside = inner.start_byte() < byte && byte < inner.end_byte();
        let is_comment = spec.comments.contains(&inner.kind()) && inner.start_byte() < byte;
        if is_comment || strictly_inside && spec.strings.contains(&inner.kind()) {
            return true;
        }
        node = inner.parent();
    }
    false
}

fn material(
    model: &Model,
    settings: &CompletionSettings,
    request: &Request,
    before: &str,
    after: &str,
) -> Result<Material, Error> {
    let tokens = model.tokenizer();
    let start = window::start(before, settings.prefix_tokens, tokens)?;
    let end = window::end(after, settings.suffix_tokens, tokens)?;
    let root = request.root.as_deref();
    let pieces = request.others.iter().map(|other| Piece {
        path: shown_path(other, root),
        language: other.language,
        text: lines(&other.text.slice(..)),
    });
    Ok(Material {
        pieces: fit_pieces(pieces.collect(), settings.other_files_tokens, tokens)?,
        path: shown_path(&request.document, root),
        language: request.document.language,
        head: String::new(),
        before: before[start..].to_string(),
        after: after[..end].to_string(),
    })
}

impl Prepared {
    /// Queues the request.
    pub fn submit(
        self,
        engine: &Engine,
        model: &Arc<Model>,
        settings: &CompletionSettings,
        cancel: &CancelFlag,
    ) -> Asked {
        let Self { prompt, place, priority } = self;
        let enough = enough::rule(place.site.clone(), place.healed.clone());
        let stream = engine.submit(GenerateRequest {
            model: model.clone(),
            prompt: prompt.ids,
            max_tokens: settings.max_tokens,
            sampling: Sampling::default(),
            stop: Stop { tokens: prompt.stop, enough: Some(enough), ..Stop::default() },
            priority,
            deadline: Some(Duration::from_millis(settings.max_time_ms)),
            cancel: cancel.clone(),
        });
        Asked { stream, place }
    }
}

impl Place {
    /// What of an answer is shown, and where.
    pub fn answer(&self, finished: Finished) -> Answer {
        let cut_short = matches!(finished.finish_reason, FinishReason::Length | FinishReason::Deadline);
        let nothing = Answer::nothing(self.cursor, Reason::Empty, None);
        let answer = match self.healed.restore(&finished.text) {
            None => Answer { reason: Reason::Filtered, rule: Some("boundary"), ..nothing },
            Some(text) if text.trim().is_empty() => nothing,
            Some(text) => self.shown(filters::run(&self.site, text, cut_short)),
        };
        Answer { finished: Some(finished), ..answer }
    }

    fn shown(&self, shown: filters::Shown) -> Answer {
        if shown.text.is_empty() {
            return Answer::nothing(self.cursor, Reason::Filtered, shown.rule);
        }
        let covered = self.site.after[..shown.covers].chars().count();
        let text = format!("{}{}", self.selected, shown.text);
        let text = text.replace('\n', self.line_ending.as_str());
        Answer { text, range: self.start..self.cursor + covered, ..Answer::nothing(0, Reason::Shown, None) }
    }
}
