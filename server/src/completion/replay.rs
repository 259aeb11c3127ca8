//! Recorded editing sessions, key by key: how many tokens of each prompt no earlier prompt began with.
//!
//! Needs the vocabulary of a real model (`GEMMA_LS_TEST_MODEL`) and nothing of its network.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use gemma_engine::{Engine, LoadOptions, Model, Priority};
use serde_json::Value;

use super::ask::prepare;
use super::{Layouts, Request};
use crate::documents::{Documents, Snapshot};
use crate::prompt::Prompt;
use crate::settings::{CompletionSettings, FimIds, FimOrder};
use crate::text::{Change, Encoding, Position, Range, offset_of};

/// What led to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Text was inserted where the cursor stood, or the cursor went over a bracket that stood there.
    Forward,
    /// The cursor came back to where an earlier request was made.
    Back,
    /// The cursor came to a new place.
    New,
    /// Something was deleted or replaced.
    Edit,
}

/// One request of a session.
pub struct Step {
    pub key: Key,
    /// Tokens of its prompt, and those of them that no earlier prompt began with.
    pub asked: usize,
    pub computed: usize,
    /// Of the document, from 0.
    pub line: usize,
    pub prompt: Prompt,
}

/// The model of `GEMMA_LS_TEST_MODEL`.
pub fn model() -> Option<(Engine, Arc<Model>)> {
    let Some(path) = std::env::var_os("GEMMA_LS_TEST_MODEL") else {
        eprintln!("skipped: GEMMA_LS_TEST_MODEL names no model");
        return None;
    };
    let engine = Engine::start(Default::default()).expect("an engine");
    let options = LoadOptions { path: path.into(), name: None, precision: Default::default() };
    let model = engine.load(options, &mut |_| {}).expect("a model");
    Some((engine, model))
}

/// The recorded sessions: name and content.
pub fn traces() -> Vec<(String, String)> {
    let folder = std::env::var_os("GEMMA_LS_TRACES")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/traces"));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            found.push((name, std::fs::read_to_string(&path).expect("a trace")));
        }
    }
    found.sort();
    found
}

pub fn settings(order: FimOrder) -> CompletionSettings {
    CompletionSettings {
        order: Some(order),
        fim: Some(FimIds { prefix: 67, middle: 68, suffix: 69, separator: 70 }),
        ..CompletionSettings::default()
    }
}

/// Where the cursor of a document is, as the session says.
struct Cursor {
    uri: String,
    position: Position,
    /// What was done since the last request.
    key: Option<Key>,
}

/// Plays a session through [`prepare`].
pub fn replay(model: &Arc<Model>, settings: &CompletionSettings, trace: &str) -> Vec<Step> {
    let documents = Documents::new();
    let layouts = Arc::new(Layouts::new());
    let mut lines = trace.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let header = lines.next().expect("a header");
    let texts: Vec<(String, String, String)> = header["documents"]
        .as_array()
        .expect("documents")
        .iter()
        .map(|d| (string(&d["uri"]), string(&d["language"]), string(&d["text"])))
        .collect();
    let mut seen: HashSet<u64> = HashSet::new();
    let mut visited = Visited::default();
    let mut cursor = Cursor { uri: String::new(), position: Position::default(), key: None };
    let mut steps = Vec::new();
    for event in lines {
        let uri = string(&event["uri"]);
        match event["event"].as_str().expect("an event") {
            "open" => {
                // None of the sessions opens a document a second time.
                let (_, language, text) = texts.iter().find(|t| t.0 == uri).expect("a document");
                documents.open(&uri, language, 1, text);
            }
            "close" => drop(documents.close(&uri)),
            "focus" => cursor = Cursor { uri, position: Position::default(), key: Some(Key::New) },
            "cursor" => {
                let position = position(&event["position"]);
                let over = position.line == cursor.position.line
                    && position.character.abs_diff(cursor.position.character) == 1;
                let key = if over { cursor.key.unwrap_or(Key::Forward) } else { Key::New };
                cursor = Cursor { uri, position, key: Some(key) };
            }
            "change" => {
                let changes: Vec<Change> =
                    event["changes"].as_array().expect("changes").iter().map(change).collect();
                let before = documents.snapshot(&uri).expect("an open document").text;
                documents.change(&uri, 1, &changes, Encoding::Utf16);
                let now = documents.snapshot(&uri).expect("an open document");
                visited.shift(&uri, &before, &now.text);
                let inserted = match &changes[..] {
                    [Change { range: Some(range), .. }] => {
                        range.start == range.end && range.start == cursor.position
                    }
                    _ => false,
                };
                let key = if inserted { Key::Forward } else { Key::Edit };
                let key = cursor.key.unwrap_or(key);
                cursor = Cursor { uri, position: end_of(changes.last().expect("a change")), key: Some(key) };
            }
            "complete" => {
                let document = documents.snapshot(&uri).expect("an open document");
                let at = offset_of(&document.text, position(&event["position"]), Encoding::Utf16);
                let line = document.text.char_to_line(at);
                let mut key = cursor.key.take().unwrap_or(Key::New);
                if visited.here(&uri, line) && key == Key::New {
                    key = Key::Back;
                }
                let request = request(document, at, documents.others(&uri), &layouts);
                let prompt = prepare(model, settings, &request).expect("a prompt").into_prompt();
                let found = known(&mut seen, &prompt.ids);
                steps.push(Step {
                    key,
                    asked: prompt.ids.len(),
                    computed: prompt.ids.len() - found,
                    line,
                    prompt,
                });
            }
            other => panic!("{other}?"),
        }
    }
    steps
}

fn request(document: Snapshot, cursor: usize, others: Vec<Snapshot>, layouts: &Arc<Layouts>) -> Request {
    Request {
        document,
        cursor,
        others,
        root: Some("/project".into()),
        selected: None,
        priority: Priority::Completion,
        variant: 0,
        layouts: Arc::clone(layouts),
    }
}

/// How many ids `ids` has in common with the start of one of those before; it becomes one of them.
fn known(seen: &mut HashSet<u64>, ids: &[u32]) -> usize {
    let mut hasher = DefaultHasher::new();
    let mut found = 0;
    for (at, id) in ids.iter().enumerate() {
        id.hash(&mut hasher);
        if !seen.insert(hasher.finish()) && found == at {
            found += 1;
        }
    }
    found
}

/// Lines where requests were made, by document.
#[derive(Default)]
struct Visited(Vec<(String, usize)>);

impl Visited {
    /// Lines move with the text above them.
    fn shift(&mut self, uri: &str, before: &ropey::Rope, after: &ropey::Rope) {
        let same = before.lines().zip(after.lines()).take_while(|(a, b)| a == b).count();
        for (_, line) in self.0.iter_mut().filter(|(of, line)| of == uri && *line > same) {
            *line = (*line + after.len_lines()).saturating_sub(before.len_lines());
        }
    }

    /// Whether an earlier request was made on this line or on the one above.
    fn here(&mut self, uri: &str, line: usize) -> bool {
        let known = self.0.iter().any(|(of, at)| of == uri && (*at == line || at + 1 == line));
        if !self.0.iter().any(|(of, at)| of == uri && *at == line) {
            self.0.push((uri.to_owned(), line));
        }
        known
    }
}

fn string(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

fn position(value: &Value) -> Position {
    let number = |name: &str| value[name].as_u64().and_then(|n| u32::try_from(n).ok()).expect("a number");
    Position { line: number("line"), character: number("character") }
}

fn change(value: &Value) -> Change {
    let range = Range { start: position(&value["range"]["start"]), end: position(&value["range"]["end"]) };
    Change { range: Some(range), text: string(&value["text"]) }
}

/// Where the cursor is after a change.
fn end_of(change: &Change) -> Position {
    let start = change.range.map(|range| range.start).unwrap_or_default();
    let breaks = u32::try_from(change.text.matches('\n').count()).expect("few lines");
    let last = change.text.rsplit('\n').next().unwrap_or_default().encode_utf16().count();
    let last = u32::try_from(last).expect("a short line");
    let character = if breaks == 0 { start.character + last } else { last };
    Position { line: start.line + breaks, character }
}

fn quantile(mut values: Vec<usize>, part: f64) -> usize {
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).round() as usize).copied().unwrap_or_default()
}

/// Prints what each session costs.
#[test]
fn what_sessions_cost() {
    let Some((_engine, model)) = model() else { return };
    for (name, trace) in traces() {
        for order in [FimOrder::Psm, FimOrder::Spm] {
            if std::env::var("GEMMA_LS_SHOW").is_ok_and(|wanted| !name.contains(&wanted)) {
                continue;
            }
            let steps = replay(&model, &settings(order), &trace);
            let of = |key: Key| steps.iter().filter(|s| s.key == key).map(|s| s.computed).collect::<Vec<_>>();
            let show = |values: Vec<usize>| {
                format!(
                    "{:>3}x {:>4} {:>4} {:>4}",
                    values.len(),
                    quantile(values.clone(), 0.5),
                    quantile(values.clone(), 0.9),
                    quantile(values, 0.99)
                )
            };
            let big: usize = steps.iter().filter(|s| s.computed > 100).count();
            println!(
                "{name:20} {order:?} forward {} | back {} | new {} | edit {} | all {} | over 100: {big}",
                show(of(Key::Forward)),
                show(of(Key::Back)),
                show(of(Key::New)),
                show(of(Key::Edit)),
                show(steps.iter().map(|s| s.computed).collect()),
            );
            if std::env::var_os("GEMMA_LS_SHOW").is_some() {
                for (i, s) in steps.iter().enumerate().filter(|(_, s)| s.computed > 40) {
                    let part = s.asked - s.computed;
                    let same = |o: &&Step| o.prompt.ids.get(..part) == s.prompt.ids.get(..part);
                    let earlier = steps[..i].iter().rev().find(same).unwrap_or(s);
                    let text = |ids: &[u32]| {
                        let ids = &ids[part.min(ids.len())..(part + 14).min(ids.len())];
                        model.tokenizer().decode(ids, false)
                    };
                    let marks = s.prompt.ids[..part].iter().filter(|id| (67..=70).contains(*id)).count();
                    println!(
                        "   {i} {:?} line {} computed {} of {}, marks {marks}: {:?} for {:?}",
                        s.key,
                        s.line + 1,
                        s.computed,
                        s.asked,
                        text(&s.prompt.ids),
                        text(&earlier.prompt.ids)
                    );
                }
            }
        }
    }
}
