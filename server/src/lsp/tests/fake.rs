//! A model side that does what a test says.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gemma_engine::{CancelFlag, Error, ErrorKind};

use crate::completion::{Answer, Reason, Request};
use crate::lsp::backend::{Backend, Completer, Doing, Pending, Progress};
use crate::settings::Settings;

/// What a test sees and decides.
#[derive(Default)]
pub(super) struct Control {
    /// Loads wait while this is set.
    pub(super) hold_loads: AtomicBool,
    /// Completions wait while this is set, or until they are cancelled.
    pub(super) hold_completions: AtomicBool,
    /// What was begun: the text up to the cursor.
    pub(super) begun: Mutex<Vec<String>>,
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
        self.0.loads.fetch_add(1, Ordering::SeqCst);
        let name = settings.model.clone().unwrap_or_else(|| "fake".into());
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

impl Completer for Model {
    fn name(&self) -> &str {
        &self.name
    }

    fn device(&self) -> String {
        "paper".into()
    }

    fn weight_bytes(&self) -> u64 {
        1
    }

    fn cache_bytes(&self) -> u64 {
        2
    }

    /// Completes the word before the cursor with `<word>!`, at the cursor.
    fn complete<'a>(
        &'a self,
        _: &'a Settings,
        request: Request,
        cancel: CancelFlag,
    ) -> Pending<'a, Result<Answer, Error>> {
        Box::pin(async move {
            let before = request.document.text.slice(..request.cursor).to_string();
            let control = &self.control;
            control.begun.lock().unwrap().push(before.clone());
            *control.others.lock().unwrap() = request.others.iter().map(|o| o.uri.to_string()).collect();
            while control.hold_completions.load(Ordering::SeqCst) && !cancel.is_cancelled() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if cancel.is_cancelled() {
                control.cancelled.fetch_add(1, Ordering::SeqCst);
                return Ok(Answer::nothing(request.cursor, Reason::Superseded, None));
            }
            control.finished.fetch_add(1, Ordering::SeqCst);
            let word = before.rsplit(' ').next().unwrap_or_default().to_owned();
            match word.as_str() {
                "panic" => panic!("a completion that panics"),
                "fail" => return Err(Error::new(ErrorKind::Resources, "memory", "there is none left")),
                "empty" => return Ok(Answer::nothing(request.cursor, Reason::Empty, None)),
                _ => {}
            }
            let (back, text) = match request.selected {
                Some((replaced, selected)) => (replaced, format!("{selected}!")),
                None => (0, format!("<{word}>!")),
            };
            let range = request.cursor - back..request.cursor;
            Ok(Answer { text, range, reason: Reason::Shown, rule: None, finished: None })
        })
    }
}
