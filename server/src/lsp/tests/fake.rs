//! A model side that does what a test says.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gemma_engine::{
    CacheStatistics, CancelFlag, Error, ErrorKind, FinishReason, Finished, Picture, Priority, Timings,
};

use crate::chat::{ChatRequest, Conversation, Dropped};
use crate::completion::{self, Answer, Reason, Request};
use crate::explain::{self, OnProgress};
use crate::lsp::backend::{
    Backend, Completer, Doing, Heard, Pending, Progress, Resident, Seen, Shown, Talker, Viewer,
};
use crate::settings::Settings;

/// What a test sees and decides.
#[derive(Default)]
pub(super) struct Control {
    /// Loads wait while this is set.
    pub(super) hold_loads: AtomicBool,
    /// Completions wait while this is set, or until they are cancelled.
    pub(super) hold_completions: AtomicBool,
    /// So many characters of a completion are said before it waits.
    pub(super) said: AtomicUsize,
    /// What was begun for somebody who waits: the text up to the cursor.
    pub(super) begun: Mutex<Vec<String>>,
    /// What was begun ahead of time: the text up to the cursor, and the most tokens.
    pub(super) ahead: Mutex<Vec<(String, usize)>>,
    /// What is done ahead of time waits while this is set, or until it is cancelled.
    pub(super) hold_ahead: AtomicBool,
    pub(super) ahead_cancelled: AtomicUsize,
    pub(super) ahead_finished: AtomicUsize,
    /// Documents given along, of the last request.
    pub(super) others: Mutex<Vec<String>>,
    pub(super) loads: AtomicUsize,
    pub(super) cancelled: AtomicUsize,
    pub(super) finished: AtomicUsize,
}

pub(super) struct Fake(pub(super) Arc<Control>);

impl Backend for Fake {
    fn load(
        &self,
        settings: &Settings,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Arc<dyn Completer>, Error> {
        Ok(self.model(settings.model.as_deref(), progress)?)
    }

    fn talker(
        &self,
        settings: &Settings,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Arc<dyn Talker>, Error> {
        Ok(self.model(settings.chat_model.as_deref(), progress)?)
    }

    fn viewer(
        &self,
        settings: &Settings,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Arc<dyn Viewer>, Error> {
        Ok(self.model(settings.chat_model.as_deref(), progress)?)
    }
}

impl Fake {
    fn model(&self, name: Option<&str>, progress: &mut dyn FnMut(Progress)) -> Result<Arc<Model>, Error> {
        self.0.loads.fetch_add(1, Ordering::SeqCst);
        let name = name.unwrap_or("fake").to_owned();
        for done in 0..=4 {
            let doing = if name == "download" && done < 4 { Doing::Downloading } else { Doing::Loading };
            progress(Progress { doing, done, total: 4 });
            while done == 2 && self.0.hold_loads.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        match name.as_str() {
            "missing" => {
                Err(Error::new(ErrorKind::NotFound, "missing", "there is no such model").remedy("Pull it."))
            }
            "panic" => panic!("a load that panics"),
            _ => Ok(Arc::new(Model { control: self.0.clone(), name })),
        }
    }
}

struct Model {
    control: Arc<Control>,
    name: String,
}

impl Resident for Model {
    fn name(&self) -> &str {
        &self.name
    }

    fn device(&self) -> String {
        "paper".into()
    }

    fn weight_bytes(&self) -> u64 {
        1
    }
}

impl Talker for Model {
    fn follows_instructions(&self) -> bool {
        self.name != "base"
    }

    /// Says back what it was asked, word by word, with the number of questions before it.
    fn ask(
        &self,
        conversation: &mut Conversation,
        request: ChatRequest,
        cancel: CancelFlag,
        heard: &mut dyn FnMut(Heard<'_>),
    ) -> Result<Finished, Error> {
        let turns = conversation.turns().len() / 2;
        self.control.begun.lock().unwrap().push(request.question.clone());
        match request.question.as_str() {
            "panic" => panic!("an answer that panics"),
            "fail" => return Err(Error::new(ErrorKind::Resources, "memory", "there is none left")),
            _ => {}
        }
        heard(Heard::Shown(Shown { prompt_tokens: 7, turns, dropped: Dropped::default() }));
        let mut text = String::new();
        let answer = format!("{turns}: {}", request.question);
        for word in answer.split_inclusive(' ') {
            if cancel.is_cancelled() {
                break;
            }
            text.push_str(word);
            heard(Heard::Text(word));
            while self.control.hold_completions.load(Ordering::SeqCst) && !cancel.is_cancelled() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let stopped = cancel.is_cancelled();
        let counter = if stopped { &self.control.cancelled } else { &self.control.finished };
        counter.fetch_add(1, Ordering::SeqCst);
        conversation.noted(request.question, text.as_str());
        Ok(ended(text, stopped))
    }
}

impl Viewer for Model {
    fn writer(&self) -> Option<&str> {
        None
    }

    /// Says how large the picture is, and the question.
    fn explain(
        &self,
        picture: Arc<Picture>,
        question: Option<&str>,
        cancel: CancelFlag,
        progress: OnProgress<'_>,
    ) -> Result<Seen, Error> {
        progress(explain::Progress::Step(explain::Step::Overview));
        let text = format!("{} x {}: {}", picture.width(), picture.height(), question.unwrap_or("nothing"));
        progress(explain::Progress::Text(&text));
        let Finished { text, finish_reason, timings, .. } = ended(text, cancel.is_cancelled());
        Ok(Seen { answer: explain::Answer { text, found: Vec::new(), finish_reason, timings }, tiles: 1 })
    }
}

fn ended(text: String, stopped: bool) -> Finished {
    let finish_reason = if stopped { FinishReason::Cancelled } else { FinishReason::Stop };
    let timings = Timings {
        prefill_tokens: 3,
        cached_tokens: 4,
        decode_tokens: 5,
        decode_passes: 2,
        ..Timings::default()
    };
    Finished { text, tokens: vec![1], finish_reason, timings }
}

impl Completer for Model {
    fn cache(&self) -> CacheStatistics {
        CacheStatistics { bytes: 2, picture_bytes: 1, tokens_found: 4, ..CacheStatistics::default() }
    }

    /// Completes the word before the cursor with `<word>!`, at the cursor.
    fn complete<'a>(
        &'a self,
        settings: &'a Settings,
        mut request: Request,
        cancel: CancelFlag,
        mut heard: completion::Heard<'a>,
    ) -> Pending<'a, Result<Answer, Error>> {
        Box::pin(async move {
            request.others = request.around();
            let before = request.document.text.slice(..request.cursor).to_string();
            let word = before.rsplit(' ').next().unwrap_or_default().to_owned();
            let control = &self.control;
            let is_ahead = request.priority == Priority::Background;
            let (hold, cancelled, finished) = match is_ahead {
                true => (&control.hold_ahead, &control.ahead_cancelled, &control.ahead_finished),
                false => (&control.hold_completions, &control.cancelled, &control.finished),
            };
            if is_ahead {
                control.ahead.lock().unwrap().push((before, settings.completion.max_tokens));
            } else {
                assert_eq!(request.priority, Priority::Completion);
                control.begun.lock().unwrap().push(before);
                *control.others.lock().unwrap() = request.others.iter().map(|o| o.uri.to_string()).collect();
            }
            let (back, text) = match request.selected {
                Some((replaced, selected)) => (replaced, format!("{selected}!")),
                // The second draw gives what the first did.
                None => (0, format!("<{word}>!{}", if request.variant > 0 { "?" } else { "" })),
            };
            while hold.load(Ordering::SeqCst) && !cancel.is_cancelled() {
                let said = control.said.load(Ordering::SeqCst);
                heard(&text.chars().take(said).collect::<String>());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if cancel.is_cancelled() {
                cancelled.fetch_add(1, Ordering::SeqCst);
                return Ok(Answer::nothing(request.cursor, Reason::Superseded, None));
            }
            finished.fetch_add(1, Ordering::SeqCst);
            match word.as_str() {
                "panic" => panic!("a completion that panics"),
                "fail" => return Err(Error::new(ErrorKind::Resources, "memory", "there is none left")),
                "empty" => return Ok(Answer::nothing(request.cursor, Reason::Empty, None)),
                _ => {}
            }
            let first_token = Some(Instant::now());
            heard(&text);
            let range = request.cursor - back..request.cursor;
            let finished = Some(ended(text.clone(), false));
            Ok(Answer { text, range, finished, first_token, ..Answer::nothing(0, Reason::Shown, None) })
        })
    }
}
