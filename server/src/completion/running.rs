//! Suggestions while they are computed. What computes belongs to a place and not to the request that began it:
//! it goes on while what is typed agrees with what it has said, and whoever asks meanwhile waits for it.
//!
//! ```text
//!            say, typed: agrees          end
//!          +---------------------+  +---------> Ended(result)   every seat takes its rest of it
//!          v                     |  |
//! begin -> Going ----------------+--+
//!                                   |
//!                                   +---------> Stopped         no seat gets anything
//!            say, typed: disagrees; another place; closed; nobody for LINGER
//! ```
//!
//! Invariants:
//! - A document has one run at most. One that has ended or was stopped is never joined.
//! - Stopping sets the run's flag, so it stops the computing, and wakes every seat.
//! - A run in which nobody has a seat is stopped, LINGER after the last one left: that long a client may take
//!   from a key, with which it gives up its request, to the next request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gemma_engine::{CancelFlag, Error};
use tokio::sync::watch;

use crate::completion::place::{Place, Typed};
use crate::completion::{Answer, reuse};
use crate::documents::Snapshot;

/// How long a run is kept for the next request.
pub const LINGER: Duration = Duration::from_millis(200);

/// What is computed, a run a document.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    going: Arc<Mutex<HashMap<Arc<str>, Arc<Run>>>>,
}

#[derive(Debug)]
struct Run {
    uri: Arc<str>,
    place: Place,
    /// Characters of the document when it began.
    length: usize,
    cancel: CancelFlag,
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What it says goes on behind the place.
    said: String,
    /// What may have been typed there since.
    typed: Vec<Typed>,
    seats: usize,
    end: Option<End>,
}

#[derive(Debug, Clone)]
enum End {
    Ended(Box<Result<Answer, Error>>),
    Stopped,
}

impl State {
    fn agrees(&self) -> bool {
        let agrees = |typed: &Typed| {
            // Models write line breaks as one character, whatever the document has.
            let typed = typed.text.replace("\r\n", "\n");
            self.said.starts_with(&typed) || typed.starts_with(&self.said)
        };
        self.typed.is_empty() || self.typed.iter().any(agrees)
    }
}

impl Runs {
    /// Nothing is computed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A seat in the document's run, where what was typed since it began agrees with it. Otherwise that run is
    /// stopped.
    pub fn join(&self, document: &Snapshot, cursor: usize) -> Option<Seat> {
        let run = self.lock().get(&document.uri).cloned()?;
        let typed = run.place.typed(&document.text, cursor);
        self.retype(&run, typed.into_iter().collect()).then(|| Seat::new(run))
    }

    /// Begins a run at a cursor; the one before it in the document is stopped.
    pub fn begin(&self, document: &Snapshot, cursor: usize) -> (Seat, Computing) {
        let run = Run::new(document, cursor);
        if let Some(older) = self.lock().insert(document.uri.clone(), run.clone()) {
            older.end(End::Stopped);
        }
        (Seat::new(run.clone()), Computing { run, runs: Some(self.clone()) })
    }

    /// The text of a document has changed: its run is stopped unless what was typed agrees with it.
    pub fn edited(&self, document: &Snapshot) {
        let run = self.lock().get(&document.uri).cloned();
        if let Some(run) = run {
            self.retype(&run, run.place.grown(&document.text, run.length));
        }
    }

    /// Stops the run of a document.
    pub fn stop(&self, uri: &str) {
        let run = self.lock().remove(uri);
        if let Some(run) = run {
            run.end(End::Stopped);
        }
    }

    /// Notes what may have been typed since a run began, nothing for what is no typing. Whether the run goes on.
    fn retype(&self, run: &Arc<Run>, typed: Vec<Typed>) -> bool {
        let mut goes_on = !typed.is_empty();
        run.state.send_if_modified(|state| {
            state.typed = typed;
            goes_on &= state.end.is_none() && state.agrees();
            false
        });
        if !goes_on {
            self.remove(run);
            run.end(End::Stopped);
        }
        goes_on
    }

    fn remove(&self, run: &Arc<Run>) {
        let mut going = self.lock();
        // A newer run may have taken the place.
        if going.get(&run.uri).is_some_and(|now| Arc::ptr_eq(now, run)) {
            going.remove(&run.uri);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Run>>> {
        self.going.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    fn new(document: &Snapshot, cursor: usize) -> Arc<Self> {
        Arc::new(Self {
            uri: document.uri.clone(),
            place: Place::new(&document.text, cursor),
            length: document.text.len_chars(),
            cancel: CancelFlag::new(),
            state: watch::Sender::new(State::default()),
        })
    }

    /// The first end stands.
    fn end(&self, end: End) {
        self.state.send_if_modified(|state| {
            let first = state.end.is_none();
            if first {
                state.end = Some(end);
            }
            first
        });
        // For one that has ended already this changes nothing.
        self.cancel.cancel();
    }
}

/// Somebody who waits for what a run says.
#[derive(Debug)]
pub struct Seat {
    run: Arc<Run>,
}

/// What a seat gets.
#[derive(Debug)]
pub enum Served {
    /// The answer, less what was typed since it was begun.
    Answer(Answer),
    /// It failed.
    Failed(Error),
    /// It was stopped, or does not go on with what was typed: whoever still wants something begins anew.
    Nothing,
}

impl Seat {
    fn new(run: Arc<Run>) -> Self {
        run.state.send_modify(|state| state.seats += 1);
        Self { run }
    }

    /// Waits for the end, and gives what is left of the answer for a cursor.
    pub async fn served(&self, document: &Snapshot, cursor: usize) -> Served {
        let mut state = self.run.state.subscribe();
        // The sender lives in the run, so there is an end to wait for.
        let end = state.wait_for(|state| state.end.is_some()).await.ok().and_then(|state| state.end.clone());
        match end {
            Some(End::Ended(result)) => match *result {
                Err(error) => Served::Failed(error),
                Ok(answer) => {
                    let rest = reuse::rest(&self.run.place, &answer, document, cursor);
                    rest.map_or(Served::Nothing, |rest| Served::Answer(self.marked(rest, cursor)))
                }
            },
            Some(End::Stopped) | None => Served::Nothing,
        }
    }

    /// An answer, which says so where it was begun for another cursor.
    fn marked(&self, answer: Answer, cursor: usize) -> Answer {
        match cursor == self.run.place.cursor {
            true => answer,
            false => Answer { rule: Some("running"), ..answer },
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.run.state.send_modify(|state| state.seats -= 1);
    }
}

/// The computing side of a run. Dropping it without an end stops the run.
#[derive(Debug)]
pub struct Computing {
    run: Arc<Run>,
    /// None for a run that nobody else may join.
    runs: Option<Runs>,
}

impl Computing {
    /// A run that nobody else joins and that ends with its seat.
    pub fn alone(document: &Snapshot, cursor: usize) -> (Seat, Self) {
        let run = Run::new(document, cursor);
        (Seat::new(run.clone()), Self { run, runs: None })
    }

    /// The flag to hand to the engine.
    pub fn flag(&self) -> CancelFlag {
        self.run.cancel.clone()
    }

    /// Whether requests may join the run.
    pub fn is_shared(&self) -> bool {
        self.runs.is_some()
    }

    /// Whether the run was stopped.
    pub fn is_stopped(&self) -> bool {
        self.run.state.borrow().end.is_some()
    }

    /// Notes all that was said so far. The run is stopped where that is not what was typed.
    pub fn say(&self, said: &str) {
        let mut agrees = true;
        self.run.state.send_if_modified(|state| {
            said.clone_into(&mut state.said);
            agrees = state.agrees();
            false
        });
        if !agrees {
            self.stop();
        }
    }

    /// Waits until nobody has wanted the run for some time.
    pub async fn unwanted(&self) {
        let mut state = self.run.state.subscribe();
        loop {
            let nobody = state.wait_for(|state| state.seats == 0).await.is_ok();
            let linger = if self.runs.is_some() && nobody { LINGER } else { Duration::ZERO };
            let back = state.wait_for(|state| state.seats > 0);
            if tokio::time::timeout(linger, back).await.is_err() || !nobody {
                return;
            }
        }
    }

    /// Stops the run.
    pub fn stop(&self) {
        self.leave();
        self.run.end(End::Stopped);
    }

    /// Ends the run.
    pub fn end(self, result: Result<Answer, Error>) {
        self.leave();
        self.run.end(End::Ended(Box::new(result)));
    }

    /// Nobody joins it any more.
    fn leave(&self) {
        if let Some(runs) = &self.runs {
            runs.remove(&self.run);
        }
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::Reason;
    use futures_util::FutureExt;
    use gemma_engine::ErrorKind;

    fn document(text: &str) -> (Snapshot, usize) {
        let cursor = text.chars().position(|c| c == '‸').expect("a cursor");
        (Snapshot::new("file:///a.rs", "rust", &text.replace('‸', "")), cursor)
    }

    fn begin(runs: &Runs, text: &str) -> (Seat, Computing) {
        let (document, cursor) = document(text);
        runs.begin(&document, cursor)
    }

    fn join(runs: &Runs, text: &str) -> Option<Seat> {
        let (document, cursor) = document(text);
        runs.join(&document, cursor)
    }

    /// What a seat gets for a cursor: a text, or why there is none.
    async fn served(seat: &Seat, text: &str) -> String {
        let (document, cursor) = document(text);
        match seat.served(&document, cursor).await {
            Served::Answer(answer) if answer.reason == Reason::Shown => answer.text,
            Served::Answer(answer) => format!("{:?}", answer.reason),
            Served::Failed(error) => format!("{:?}", error.kind()),
            Served::Nothing => "nothing".into(),
        }
    }

    fn shown(computing: &Computing, text: &str) -> Result<Answer, Error> {
        let nothing = Answer::nothing(computing.run.place.cursor, Reason::Shown, None);
        Ok(Answer { text: text.into(), ..nothing })
    }

    #[tokio::test]
    async fn who_types_along_waits_for_the_same_run_and_gets_the_rest() {
        let runs = Runs::new();
        let (first, computing) = begin(&runs, "a = ‸\n");
        // Ahead of what was said, level with it, behind it.
        let ahead = join(&runs, "a = f(‸)\n").expect("nothing disagrees yet");
        drop(first);
        computing.say("f(");
        assert!(join(&runs, "a = f(‸)\n").is_some());
        computing.say("f(x)");
        assert!(join(&runs, "a = f‸\n").is_some());
        let answer = shown(&computing, "f(x);");
        computing.end(answer);
        assert_eq!(served(&ahead, "a = f(‸)\n").await, "x);");
        assert_eq!(served(&ahead, "a = f(x‸\n").await, ");");
        assert!(join(&runs, "a = f‸\n").is_none(), "it has ended");
    }

    #[tokio::test]
    async fn a_run_is_stopped_as_soon_as_they_disagree() {
        for (typed, said) in [("x", "f("), ("fo", "f("), ("f(xyz", "f(x)"), ("\n  a", "\n a")] {
            let runs = Runs::new();
            let (_first, computing) = begin(&runs, "a = ‸\n");
            let flag = computing.flag();
            // It says what was not typed.
            let text = format!("a = {typed}‸\n");
            let seat = join(&runs, &text).expect("nothing disagrees yet");
            assert!(!flag.is_cancelled());
            computing.say(said);
            assert!(flag.is_cancelled() && computing.is_stopped(), "{typed} {said}");
            assert_eq!(served(&seat, &text).await, "nothing");

            // What is typed is not what it has said: known from an edit, or from a request.
            let (seat, computing) = begin(&runs, "a = ‸\n");
            computing.say(said);
            runs.edited(&document(&text).0);
            assert!(computing.is_stopped());
            assert_eq!(served(&seat, &text).await, "nothing");
            let (_seat, computing) = begin(&runs, "a = ‸\n");
            computing.say(said);
            assert!(join(&runs, &text).is_none() && computing.is_stopped());
        }
    }

    #[test]
    fn edits_that_agree_or_are_taken_back_let_it_go_on() {
        let runs = Runs::new();
        let (_seat, computing) = begin(&runs, "a = ‸\n");
        computing.say("f(x)");
        for text in ["a = f‸\n", "a = f(‸)\n", "a = f(‸\n", "a = f‸\n", "a = ‸\n"] {
            runs.edited(&document(text).0);
            assert!(!computing.is_stopped(), "{text}");
        }
        runs.edited(&document("a =‸\n").0);
        assert!(computing.is_stopped());
    }

    #[test]
    fn the_documents_line_breaks_are_the_models() {
        let runs = Runs::new();
        let (_seat, computing) = begin(&runs, "if a {‸\r\n}\r\n");
        computing.say("\n    f();");
        assert!(join(&runs, "if a {\r\n    ‸\r\n}\r\n").is_some());
    }

    #[tokio::test]
    async fn another_place_another_run_and_the_older_one_is_stopped() {
        let runs = Runs::new();
        let (_older, older) = begin(&runs, "a = ‸\nb\n");
        assert!(join(&runs, "a = \nb‸\n").is_none());
        assert!(older.is_stopped());
        let (seat, newer) = begin(&runs, "a = \nb‸\n");
        // The older one ends late and takes nothing from the newer one.
        let answer = shown(&older, "x");
        older.end(answer);
        assert!(!newer.is_stopped() && join(&runs, "a = \nb‸\n").is_some());
        let (_other, other) = runs.begin(&Snapshot::new("file:///b.rs", "rust", ""), 0);
        runs.stop("file:///a.rs");
        assert!(newer.is_stopped() && !other.is_stopped());
        assert_eq!(served(&seat, "a = \nb‸\n").await, "nothing");
    }

    #[tokio::test]
    async fn who_leaves_may_come_back_for_a_moment() {
        let runs = Runs::new();
        let (seat, computing) = begin(&runs, "a = ‸\n");
        drop(seat);
        assert_eq!(computing.unwanted().now_or_never(), None, "somebody may come yet");
        let back = join(&runs, "a = f‸\n").expect("it goes on");
        let unwanted = computing.unwanted();
        assert_eq!(tokio::time::timeout(LINGER * 2, unwanted).await.ok(), None, "somebody waits");
        drop(back);
        computing.unwanted().await;

        let (document, cursor) = document("b = ‸\n");
        let (seat, computing) = Computing::alone(&document, cursor);
        assert!(runs.join(&document, cursor).is_none(), "nobody else can come");
        drop(seat);
        computing.unwanted().await;
    }

    #[tokio::test]
    async fn failures_and_nothing_to_show_reach_the_seats() {
        let runs = Runs::new();
        let (seat, computing) = begin(&runs, "a = ‸\n");
        let error = Error::new(ErrorKind::Resources, "memory", "there is none left");
        computing.end(Err(error));
        assert_eq!(served(&seat, "a = ‸\n").await, "Resources");
        let (seat, computing) = begin(&runs, "a = ‸\n");
        computing.end(Ok(Answer::nothing(4, Reason::Empty, None)));
        assert_eq!(served(&seat, "a = ‸\n").await, "Empty");
        assert_eq!(served(&seat, "a = f‸\n").await, "nothing", "there may be something now");
        let (seat, computing) = begin(&runs, "a = ‸\n");
        drop(computing);
        assert_eq!(served(&seat, "a = ‸\n").await, "nothing", "what computed is gone");
    }
}
