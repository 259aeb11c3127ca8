//! What a request of a trace is a case of: typing on, coming back to a place, or anything else. Each has its
//! own price, and a median over all of them says little.

use std::collections::HashMap;

use serde::Serialize;

use crate::bench::playback::Playback;
use crate::bench::trace::{Trace, What};

/// A case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One key behind the place of the request before.
    Forward,
    /// The first request after a jump to a place where one was made before, and nothing within reach of what a
    /// prompt shows there was edited since.
    Back,
    /// The same, where something within reach was edited since.
    BackEdited,
    /// Anything else: a new place, a deletion, a paste, a change inside a line.
    Other,
}

/// All cases, in the order in which they are reported.
pub const KINDS: [Kind; 4] = [Kind::Forward, Kind::Back, Kind::BackEdited, Kind::Other];

impl Kind {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Forward => "typing forward",
            Self::Back => "back at a known place",
            Self::BackEdited => "back, edited nearby",
            Self::Other => "other",
        }
    }
}

/// How far from the cursor a prompt shows the document, in characters.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// Before the cursor.
    pub before: usize,
    /// Behind it.
    pub after: usize,
}

/// What one key puts in, at most, beside a line break with its indentation: a character, or a pair.
const KEY: usize = 2;
/// A place in a document that moves with its text.
#[derive(Clone, Copy)]
struct Mark {
    offset: usize,
    /// The number of the request it belongs to.
    request: usize,
}

/// What is remembered of a document.
#[derive(Default)]
struct History {
    requests: Vec<Mark>,
    edits: Vec<Mark>,
}

impl History {
    /// `start..end` is replaced by `new` characters.
    fn replaced(&mut self, start: usize, end: usize, new: usize, request: usize) {
        for mark in self.requests.iter_mut().chain(&mut self.edits) {
            if mark.offset > start {
                mark.offset = mark.offset.max(end) - end + start + new;
            }
        }
        self.edits.push(Mark { offset: start, request });
    }

    /// The kind of a request behind a jump to `landing`.
    fn kind(&self, landing: usize, request: usize, reach: Reach) -> Kind {
        let near = self.requests.iter().filter(|mark| mark.offset.abs_diff(landing) <= KEY);
        let Some(visit) = near.map(|mark| mark.request).max() else { return Kind::Other };
        let seen = landing.saturating_sub(reach.before)..=landing + reach.after;
        // What was edited for the visit itself or for this request is no surprise.
        let edited = |edit: &&Mark| edit.request > visit && edit.request < request;
        match self.edits.iter().filter(edited).any(|edit| seen.contains(&edit.offset)) {
            true => Kind::BackEdited,
            false => Kind::Back,
        }
    }
}

/// The kind of each request of a trace, in order.
pub fn kinds(trace: &Trace, reach: Reach) -> Vec<Kind> {
    let mut playback = Playback::new(&trace.documents);
    let mut histories: HashMap<usize, History> = HashMap::new();
    let mut kinds = Vec::new();
    // Where the request before was made, and whether all since was one key.
    let mut last: Option<(usize, usize)> = None;
    let (mut keys, mut plain, mut jump) = (0, true, None);
    for event in &trace.events {
        let request = kinds.len();
        let history = histories.entry(event.document).or_default();
        match &event.what {
            What::Change { changes, .. } => {
                for change in changes {
                    let Ok(range) = playback.documents[event.document].range(change.range) else { continue };
                    let new = change.text.chars().count();
                    let one_key = change.text.trim().chars().count() <= KEY;
                    let typed_on = Some((event.document, range.start)) == last;
                    keys += 1;
                    plain &= range.is_empty() && new > 0 && one_key && (typed_on || jump.is_some());
                    history.replaced(range.start, range.end, new, request);
                }
            }
            What::Complete(_) => {
                let cursor = playback.documents[event.document].cursor;
                kinds.push(match (last, jump) {
                    (Some((_, before)), None) => {
                        // Typing over a closing bracket moves the cursor by one and changes nothing.
                        let key = plain && if keys == 0 { cursor == before + 1 } else { keys == 1 };
                        if key { Kind::Forward } else { Kind::Other }
                    }
                    (_, landing) => history.kind(landing.unwrap_or(cursor), request, reach),
                });
                history.requests.push(Mark { offset: cursor, request });
                last = Some((event.document, cursor));
                (keys, plain, jump) = (0, true, None);
            }
            _ => {}
        }
        // A trace is checked when it is read.
        let _ = playback.apply(event);
        if let (What::Cursor { .. } | What::Focus, Some((document, before))) = (&event.what, last) {
            let cursor = playback.documents[event.document].cursor;
            // A pair that was closed at once has the cursor put back into it.
            let beside = document == event.document && cursor.abs_diff(before) <= KEY;
            if !beside || jump.is_some() {
                jump = Some(cursor);
            }
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::trace::{Change, Complete, Document, Event, Position, Range, Trigger};

    const REACH: Reach = Reach { before: 50, after: 20 };

    fn at(character: u32) -> Position {
        Position { line: 0, character }
    }

    /// A trace in one line of 1000 blanks: `(what, from, to, text)`.
    fn trace(steps: &[(&str, u32, u32, &str)]) -> Trace {
        let mut events = vec![
            Event { t_ms: 0, document: 0, what: What::Open },
            Event { t_ms: 0, document: 0, what: What::Focus },
        ];
        let mut version = 1;
        for &(what, from, to, text) in steps {
            let what = match what {
                "change" => {
                    version += 1;
                    let range = Range { start: at(from), end: at(to) };
                    What::Change { version, changes: vec![Change { range, text: text.into() }] }
                }
                "cursor" => What::Cursor { position: at(from) },
                _ => What::Complete(Complete {
                    position: at(from),
                    trigger: Trigger::Automatic,
                    expect_prefix: String::new(),
                }),
            };
            events.push(Event { t_ms: 0, document: 0, what });
        }
        let document = Document { path: "a".into(), language: "text".into(), text: " ".repeat(1000) };
        let trace = Trace { name: "t".into(), description: "d".into(), documents: vec![document], events };
        let mut playback = Playback::new(&trace.documents);
        for event in &trace.events {
            playback.apply(event).expect("a sound trace");
        }
        trace
    }

    fn key(at: u32) -> [(&'static str, u32, u32, &'static str); 2] {
        [("change", at, at, "x"), ("complete", at + 1, 0, "")]
    }

    #[test]
    fn a_key_behind_the_last_one_is_typing_forward() {
        let mut steps = vec![("cursor", 10, 0, "")];
        steps.extend(key(10));
        steps.extend(key(11));
        // A pair, with the cursor put back into it, and its end typed over.
        steps.extend([("change", 12, 12, "()"), ("cursor", 13, 0, ""), ("complete", 13, 0, "")]);
        steps.extend([("cursor", 14, 0, ""), ("complete", 14, 0, "")]);
        steps.extend([("change", 14, 14, "\n    "), ("cursor", 14, 0, ""), ("complete", 14, 0, "")]);
        let kinds = kinds(&trace(&steps), REACH);
        assert_eq!(kinds[..4], [Kind::Other, Kind::Forward, Kind::Forward, Kind::Forward]);
    }

    #[test]
    fn deleting_and_pasting_are_not() {
        let mut steps = vec![("cursor", 10, 0, "")];
        steps.extend(key(10));
        steps.extend([("change", 10, 11, ""), ("complete", 10, 0, "")]);
        steps.extend([("change", 10, 10, "a whole lot"), ("complete", 21, 0, "")]);
        assert_eq!(kinds(&trace(&steps), REACH), [Kind::Other; 3]);
    }

    #[test]
    fn coming_back_depends_on_what_was_edited_within_reach() {
        let mut steps = vec![("cursor", 500, 0, "")];
        steps.extend(key(500));
        // Far away, before: the place moves by one.
        steps.push(("cursor", 10, 0, ""));
        steps.extend(key(10));
        steps.push(("cursor", 502, 0, ""));
        steps.extend(key(502));
        steps.push(("cursor", 300, 0, ""));
        steps.extend(key(300));
        steps.extend([("cursor", 490, 0, ""), ("change", 490, 491, "y"), ("cursor", 10, 0, "")]);
        steps.extend([("complete", 10, 0, ""), ("cursor", 504, 0, "")]);
        steps.extend(key(504));
        let kinds = kinds(&trace(&steps), REACH);
        assert_eq!(kinds, [Kind::Other, Kind::Other, Kind::Back, Kind::Other, Kind::Back, Kind::BackEdited]);
    }
}
