//! From a request to a prompt, and from what the engine said to an answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gemma_engine::{
    CancelFlag, Engine, Error, ErrorKind, Expectation, FimTokens, FinishReason, Finished, GenerateRequest,
    Model, Priority, Sampling, Speed, Stop,
};

use crate::completion::boundary::Seam;
use crate::completion::drafts::vocabulary;
use crate::completion::material::{Around, material};
use crate::completion::shape::decide;
use crate::completion::site::{Lexis, Site};
use crate::completion::{Answer, Heard, Reason, Request, enough, filters};
use crate::context::syntax::in_comment_or_string;
use crate::documents::Snapshot;
use crate::language::Language;
use crate::prompt::remembered::Remembering;
use crate::prompt::{Prompt, fim, lines, plain};
use crate::settings::{CompletionSettings, FimOrder};
use crate::text::LineEnding;

/// Bytes of the document on each side of the cursor that rules may look at, at least: some hundred lines. All of it
/// is read with every key.
const LOOK: usize = 16 * 1024;

/// A request that is ready for the engine: the prompt, what it leaves out of the text before the cursor,
/// and where the answer belongs.
pub struct Prepared {
    prompt: Prompt,
    drafts: Vec<Arc<[u32]>>,
    seam: Seam,
    place: Place,
    priority: Priority,
    sampling: Sampling,
}

/// Where an answer belongs.
struct Place {
    site: Site,
    /// The start of what is replaced, and the cursor, in characters.
    start: usize,
    cursor: usize,
    /// The line that `start` is on.
    line: usize,
    /// What the client's menu has selected: the answer begins with it.
    selected: String,
    /// The text before the cursor begins where the document does.
    whole: bool,
    line_ending: LineEnding,
}

/// Reads the document and lays out the prompt.
///
/// # Errors
/// The model has no tokenizer; the ids configured for filling in the middle are not in its vocabulary.
pub fn prepare(
    model: &Arc<Model>,
    settings: &CompletionSettings,
    request: &Request,
) -> Result<Prepared, Error> {
    let fim = fim_tokens(model, settings)?;
    let order = settings.order.or_else(|| taught_order(model)).unwrap_or(fim::DEFAULT_ORDER);
    let place = place(settings, request, fim.is_none());
    let (before, seam) = Seam::split(&place.site.before);
    // What the editor closes by itself comes and goes with single keys, and where the text behind the cursor
    // comes first, all of the prompt would be computed anew for it.
    let unseen = if fim.is_some() && order.suffix_first() { place.site.put_there() } else { 0 };
    let breaks = |text: &str| text.matches('\n').count();
    let around = Around {
        before,
        after: &place.site.after[unseen..],
        start: place.start,
        line: place.line + breaks(&place.selected) - breaks(seam.text()),
        whole: place.whole,
    };
    let memory = request.layouts.memory(model);
    let tokens = Remembering { tokens: model.tokenizer(), memory: &memory };
    let material = material(model.config().context, settings, request, &around, &tokens)?;
    let bos = model.config().bos;
    let mut prompt = match fim {
        Some(ids) => fim::build(&material, ids, order, bos, &tokens)?,
        None => plain::build(&material, bos, &tokens)?,
    };
    prompt.base_alone &= model.adapter_infills();
    prompt.stop.extend(model.tokenizer().turns().map(|(_, end)| end));
    let here = (&request.document, request.cursor);
    let drafts = request.drafts.gather(&vocabulary(model), model.tokenizer(), here, &request.others)?;
    let (priority, sampling) = (request.priority, sampling(request.variant));
    Ok(Prepared { prompt, drafts, seam, place, priority, sampling })
}

/// How tokens are picked for the suggestion of this number: near to what is most likely, since code that is only
/// possible is mostly wrong.
fn sampling(variant: u64) -> Sampling {
    match variant {
        0 => Sampling::default(),
        seed => Sampling { temperature: 0.8, top_k: 20, top_p: 0.95, seed, ..Sampling::default() },
    }
}

/// The ids for filling in the middle: as configured, else those that the vocabulary names.
fn fim_tokens(model: &Model, settings: &CompletionSettings) -> Result<Option<FimTokens>, Error> {
    if settings.order == Some(FimOrder::Plain) {
        return Ok(None);
    }
    let Some(configured) = settings.fim else { return Ok(model.fim()) };
    let entries = model.config().vocab.min(model.tokenizer().vocab_size());
    match configured.beyond(entries) {
        None => Ok(Some(configured.into())),
        Some((name, id)) => {
            let problem = format!("there is no token {id}, which it names as {name}");
            let remedy = format!(
                "{} has the ids 0 to {}. Set `fim` to those that it was tuned with, or take the setting out.",
                model.name(),
                entries.saturating_sub(1),
            );
            Err(Error::new(ErrorKind::Input, "the setting `fim`", problem).remedy(remedy))
        }
    }
}

/// The order that a model's adapter was trained on, if it says so.
fn taught_order(model: &Model) -> Option<FimOrder> {
    let named = model.adapter()?.infill()?.order.as_deref()?;
    FimOrder::ALL.into_iter().find(|order| order.name() == named)
}

fn place(settings: &CompletionSettings, request: &Request, blind: bool) -> Place {
    let document = &request.document;
    let cursor = request.cursor.min(document.text.len_chars());
    let (replaced, selected) = request.selected.clone().unwrap_or_default();
    let start = cursor.saturating_sub(replaced);
    let reach = LOOK.max(settings.prefix_tokens.saturating_mul(8));
    let (before, whole) = before(document, start, reach);
    let before = before + &selected;
    let after = after(document, cursor, LOOK.max(settings.suffix_tokens.saturating_mul(8)));
    let lexis = lexis(document.language);
    let quoted = in_comment_or_string(document, start).is_some();
    let shape = decide(&before, &after, &lexis, quoted, settings.multi_line);
    let site = Site::new(before, after, lexis, shape, blind);
    let line = document.text.char_to_line(start);
    Place { site, start, cursor, line, selected, whole, line_ending: document.line_ending }
}

/// Text before an offset: about `reach` bytes of it, from the start of a line unless the cursor's own
/// line is longer than that; and whether that is all of it. Line ends as `\n`.
fn before(document: &Snapshot, offset: usize, reach: usize) -> (String, bool) {
    let text = &document.text;
    let far = text.char_to_byte(offset).saturating_sub(reach);
    let line = text.char_to_line(offset);
    let first = match text.byte_to_line(far) {
        _ if far == 0 => 0,
        same if same == line => text.byte_to_char(far),
        above => text.line_to_char(above + 1),
    };
    (lines(&text.slice(first..offset)), first == 0)
}

/// Text behind an offset: about `reach` bytes of it, to the end of a line unless the cursor's own line
/// is longer than that. Line ends as `\n`.
fn after(document: &Snapshot, offset: usize, reach: usize) -> String {
    let text = &document.text;
    let far = text.char_to_byte(offset).saturating_add(reach).min(text.len_bytes());
    let line = text.char_to_line(offset);
    let last = match text.byte_to_line(far) {
        _ if far == text.len_bytes() => text.len_chars(),
        same if same == line => text.byte_to_char(far),
        below => text.line_to_char(below),
    };
    lines(&text.slice(offset..last))
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

impl Prepared {
    #[cfg(test)]
    pub fn prompt(&self) -> &Prompt {
        &self.prompt
    }

    /// The prompt, and what the answer has to begin with.
    pub fn into_parts(self) -> (Prompt, String) {
        (self.prompt, self.seam.text().to_owned())
    }

    /// Asks, within the time the user allows, and reads the answer. `heard` is told of its text as it comes.
    /// `expected` held the engine back for this; it ends when the request is queued.
    pub async fn run(
        self,
        engine: &Engine,
        model: &Arc<Model>,
        settings: &CompletionSettings,
        cancel: &CancelFlag,
        mut heard: Heard<'_>,
        expected: Expectation,
    ) -> Result<Answer, Error> {
        let stream = engine.submit(GenerateRequest {
            begin_with: self.seam.text().to_owned(),
            cuts: self.prompt.cuts,
            base_alone: self.prompt.base_alone,
            stop: Stop {
                tokens: self.prompt.stop,
                texts: self.prompt.stop_texts,
                enough: Some(enough::rule(self.place.site.clone(), self.seam.clone())),
                ..Stop::default()
            },
            speculate: settings.speculation,
            drafts: self.drafts,
            priority: self.priority,
            sampling: self.sampling,
            deadline: deadline(self.priority, settings, model.speed(), self.prompt.ids.len()),
            cancel: cancel.clone(),
            ..GenerateRequest::new(model.clone(), self.prompt.ids, settings.max_tokens)
        });
        drop(expected);
        let (mut said, mut first_token) = (String::new(), None);
        let finished = stream.finish_hearing(|token| {
            first_token.get_or_insert_with(Instant::now);
            said.push_str(&token.text);
            heard(self.seam.join(&said).unwrap_or_default());
        });
        let finished = finished.await?;
        let first_token = first_token.or_else(|| Some(Instant::now()));
        let superseded = finished.finish_reason == FinishReason::Cancelled || cancel.is_cancelled();
        let answer = if superseded {
            Answer::nothing(self.place.cursor, Reason::Superseded, None)
        } else {
            self.place.read(&self.seam, &finished)
        };
        Ok(Answer { finished: Some(finished), first_token, ..answer })
    }
}

/// How long an answer may take: what the user says, else what the model takes on this machine, and half as much
/// again. `None` where nobody waits.
fn deadline(
    priority: Priority,
    settings: &CompletionSettings,
    speed: Option<Speed>,
    prompt: usize,
) -> Option<Duration> {
    /// What is sent to wait longer than this is no longer wanted when it comes; shorter than that, and a
    /// moment in which the machine is busy costs the answer.
    const BOUNDS: (f64, f64) = (1500.0, 15_000.0);
    const UNMEASURED: f64 = 5000.0;
    if priority == Priority::Background {
        return None;
    }
    let measured = |speed: Speed| {
        let (prompt, answer) = (prompt as f64, settings.max_tokens as f64);
        ((prompt * speed.prefill_ms + answer * speed.decode_ms) * 1.5).clamp(BOUNDS.0, BOUNDS.1)
    };
    let usual = speed.map_or(UNMEASURED, measured);
    Some(settings.max_time_ms.map_or(Duration::from_secs_f64(usual / 1e3), Duration::from_millis))
}

impl Place {
    /// What of an answer is shown, and where.
    fn read(&self, seam: &Seam, finished: &Finished) -> Answer {
        let cut_short = matches!(finished.finish_reason, FinishReason::Length | FinishReason::Deadline);
        let rest = seam.join(&finished.text).unwrap_or_default();
        let nothing = Answer::nothing(self.cursor, Reason::Empty, None);
        match rest.trim().is_empty() {
            true if cut_short => Answer { reason: Reason::Filtered, rule: Some("too_late"), ..nothing },
            true => nothing,
            false => self.shown(filters::run(&self.site, rest, cut_short)),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn request(language: &str, text: &str) -> Request {
        let cursor = text.chars().position(|c| c == '‸').expect("a cursor");
        Request {
            document: Snapshot::new("file:///project/src/a", language, &text.replace('‸', "")),
            cursor,
            others: Vec::new(),
            index: None,
            drafts: Arc::default(),
            root: None,
            selected: None,
            priority: Priority::Completion,
            variant: 0,
            layouts: Default::default(),
        }
    }

    /// The answer where the model says this, behind the line breaks that the prompt does without.
    fn answer(request: &Request, raw: &str) -> Answer {
        let place = place(&CompletionSettings::default(), request, false);
        let seam = Seam::split(&place.site.before).1;
        let breaks = if seam.text().ends_with('\n') { seam.text() } else { "" };
        let finished = Finished {
            text: format!("{breaks}{raw}"),
            tokens: Vec::new(),
            finish_reason: FinishReason::Stop,
            timings: Default::default(),
        };
        place.read(&seam, &finished)
    }

    #[test]
    fn answers_have_the_line_ends_of_the_document() {
        let request = request("rust", "// é\r\nfn f() {\r\n    ‸\r\n}\r\n");
        let answer = answer(&request, "a();\n    b();\n}\n");
        assert_eq!((answer.text.as_str(), answer.reason), ("a();\r\n    b();", Reason::Shown));
        assert_eq!(answer.range, request.cursor..request.cursor);
    }

    #[test]
    fn what_the_menu_has_selected_comes_first() {
        let mut request = request("rust", "fn f() {\n    é.pu‸\n}\n");
        request.selected = Some((2, "push_str".into()));
        let answer = answer(&request, "push_str(\"x\");\n");
        assert_eq!(answer.text, "push_str(\"x\");");
        assert_eq!(answer.range, request.cursor - 2..request.cursor);
    }

    #[test]
    fn brackets_that_the_editor_closed_are_replaced() {
        let request = request("rust", "let é = f(‸);\n");
        let answer = answer(&request, "x).unwrap();");
        assert_eq!((answer.text.as_str(), answer.range.len()), ("x).unwrap();", 2));
        let answer = super::tests::answer(&request, "x);");
        assert_eq!((answer.text.as_str(), answer.range.len()), ("x", 0));
        let answer = super::tests::answer(&request, "x); // done");
        assert_eq!((answer.text.as_str(), answer.range.len()), ("x); // done", 2));
    }

    #[test]
    fn why_nothing_is_shown() {
        let request = request("python", "x = ‸\n");
        for (raw, reason, rule) in [
            ("", Reason::Empty, None),
            ("  \n", Reason::Empty, None),
            (" <|file_separator|>", Reason::Filtered, Some("control_token")),
            (" 1\n", Reason::Shown, None),
        ] {
            let answer = answer(&request, raw);
            assert_eq!((answer.reason, answer.rule), (reason, rule), "{raw:?}");
        }
    }

    #[test]
    fn an_answer_may_take_what_the_machine_takes() {
        let settings = CompletionSettings { max_tokens: 100, ..CompletionSettings::default() };
        let impatient = CompletionSettings { max_time_ms: Some(10), ..settings.clone() };
        let speed = |prefill_ms, decode_ms| Some(Speed { prefill_ms, decode_ms });
        for (priority, settings, speed, expected) in [
            (Priority::Completion, &settings, None, Some(5000)),
            (Priority::Completion, &settings, speed(2.0, 16.0), Some(5400)),
            (Priority::Completion, &settings, speed(0.1, 2.0), Some(1500)),
            (Priority::Completion, &settings, speed(11.0, 130.0), Some(15_000)),
            (Priority::Completion, &impatient, speed(2.0, 16.0), Some(10)),
            // Nobody waits for it.
            (Priority::Background, &impatient, speed(2.0, 16.0), None),
        ] {
            let deadline = deadline(priority, settings, speed, 1000);
            assert_eq!(deadline.map(|time| time.as_millis()), expected, "{priority:?} {speed:?}");
        }
    }

    #[test]
    fn comments_and_strings_get_one_line() {
        for (language, text, lines) in [
            ("python", "x = \"\"\"a\n  ‸\n  b\"\"\"\n", 1),
            ("python", "x = \"\"\"a\n  b\"\"\"\n‸\n", 2),
            ("rust", "/* a\n ‸\n*/\nfn f() {}\n", 1),
            ("rust", "/// a\n‸\nfn f() {}\n", 2),
        ] {
            let answer = answer(&request(language, text), "one()\ntwo()\n");
            assert_eq!(answer.text.lines().count(), lines, "{text}");
        }
    }

    /// Prompts as ids of a real model's vocabulary: only where there is one.
    #[test]
    fn prompts_to_the_token_with_a_real_vocabulary() {
        let Some(path) = std::env::var_os("GEMMA_LS_TEST_MODEL") else {
            eprintln!("skipped: GEMMA_LS_TEST_MODEL names no model");
            return;
        };
        let engine = Engine::start(Default::default()).expect("an engine");
        let options = gemma_engine::LoadOptions::new(path);
        let model = engine.load(options, &mut |_| {}).expect("a model");
        let mut settings = CompletionSettings::default();
        let prompt = |text: &str, settings: &CompletionSettings| {
            prepare(&model, settings, &request("rust", text)).expect("a prompt").prompt.ids
        };

        let plain = prompt("fn é() {\n    let x = so‸;\n}\n", &settings);
        assert_eq!(model.tokenizer().decode(&plain, false), "<bos>// a\nfn é() {\n    let x =");
        assert_eq!(prompt("fn é() {\n    let x = some‸;\n}\n", &settings), plain);

        let (prefix, middle, suffix, separator) = (67, 68, 69, 70);
        settings.fim = Some(crate::settings::FimIds { prefix, middle, suffix, separator });
        for order in [FimOrder::Psm, FimOrder::Spm] {
            settings.order = Some(order);
            // Spelled out in a document, a control token is letters.
            let ids = prompt("// <bos> <unused61>\nfn f() {\n    ‸\n}\n", &settings);
            let found: Vec<u32> = ids.iter().copied().filter(|id| (67..=70).contains(id)).collect();
            assert_eq!(found, [prefix, suffix, middle], "{order:?}");
            assert_eq!(ids.iter().filter(|&&id| id == model.config().bos).count(), 1);
        }

        let beyond = u32::try_from(model.tokenizer().vocab_size()).expect("few entries");
        settings.fim = Some(crate::settings::FimIds { prefix, middle, suffix: beyond, separator });
        let refused =
            prepare(&model, &settings, &request("rust", "‸")).err().expect("no such id").to_string();
        assert!(refused.contains(&format!("no token {beyond}, which it names as suffix")), "{refused}");
    }

    #[test]
    fn long_documents_are_read_around_the_cursor() {
        let text = format!("{}‸{}", "é line\n".repeat(50_000), "x\n".repeat(50_000));
        let request = request("rust", &text);
        let (before, whole) = before(&request.document, request.cursor, 1000);
        assert!(before.len() <= 1000 && before.len() > 900 && before.starts_with("é line\n") && !whole);
        let after = after(&request.document, request.cursor, 1000);
        assert!(after.len() <= 1000 && after.len() > 900 && after.ends_with("x\n"));

        let text = format!("{}‸{}", "é".repeat(50_000), "é".repeat(50_000));
        let request = super::tests::request("rust", &text);
        assert!((900..=1001).contains(&super::before(&request.document, request.cursor, 1000).0.len()));
        assert!((900..=1001).contains(&super::after(&request.document, request.cursor, 1000).len()));
    }
}
