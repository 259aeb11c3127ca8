//! Recorded editing sessions, key by key: how many tokens of each prompt no earlier prompt began with.
//!
//! Needs the vocabulary of a real model (`GEMMA_LS_TEST_MODEL`) and nothing of its network.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gemma_engine::{Engine, LoadOptions, Model, Priority};

use super::ask::prepare;
use super::{Layouts, Request};
use crate::bench::kind::{Kind, Reach, kinds};
use crate::bench::playback::Playback;
use crate::bench::trace::{Trace, What};
use crate::documents::{Documents, Snapshot};
use crate::prompt::Prompt;
use crate::settings::{CompletionSettings, FimIds, FimOrder};
use crate::text::{Change, Encoding, Position, Range};

/// One request of a session.
struct Step {
    kind: Kind,
    /// Tokens of its prompt that no earlier prompt began with.
    computed: usize,
    line: usize,
    prompt: Prompt,
}

/// The model of `GEMMA_LS_TEST_MODEL`.
fn model() -> Option<(Engine, Arc<Model>)> {
    let Some(path) = std::env::var_os("GEMMA_LS_TEST_MODEL") else {
        eprintln!("skipped: GEMMA_LS_TEST_MODEL names no model");
        return None;
    };
    let engine = Engine::start(Default::default()).expect("an engine");
    let options = LoadOptions { path: path.into(), name: None, precision: Default::default() };
    let model = engine.load(options, &mut |_| {}).expect("a model");
    Some((engine, model))
}

/// The recorded sessions.
fn traces() -> Vec<Trace> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/traces");
    let names = [
        "forward-rust",
        "jump-around",
        "long-file",
        "paste-and-switch-go",
        "python-fixups",
        "repetitive-edit-ts",
    ];
    names
        .iter()
        .map(|name| Trace::read(&folder.join(name).with_extension("jsonl")).expect("a trace"))
        .collect()
}

fn settings(order: FimOrder) -> CompletionSettings {
    CompletionSettings {
        order: Some(order),
        fim: Some(FimIds { prefix: 67, middle: 68, suffix: 69, separator: 70 }),
        ..CompletionSettings::default()
    }
}

/// Calls `each` with every request of a session, as the server would make it.
fn play(trace: &Trace, mut each: impl FnMut(Request)) {
    let (documents, layouts) = (Documents::new(), Arc::new(Layouts::new()));
    let uri = |document: usize| format!("file:///project/{}", trace.documents[document].path.display());
    let mut playback = Playback::new(&trace.documents);
    for event in &trace.events {
        playback.apply(event).expect("a sound trace");
        let (uri, state) = (uri(event.document), &playback.documents[event.document]);
        match &event.what {
            What::Open => {
                let language = &trace.documents[event.document].language;
                documents.open(&uri, language, state.version, &state.text.to_string());
            }
            What::Close => assert!(documents.close(&uri)),
            What::Change { version, changes } => {
                let changes: Vec<Change> = changes.iter().map(change).collect();
                assert!(documents.change(&uri, *version, &changes, Encoding::Utf16));
            }
            What::Complete(_) => {
                let document = documents.snapshot(&uri).expect("an open document");
                each(request(document, state.cursor, documents.others(&uri), &layouts));
            }
            What::Focus | What::Cursor { .. } => {}
        }
    }
}

fn change(change: &crate::bench::trace::Change) -> Change {
    let at = |p: crate::bench::trace::Position| Position { line: p.line, character: p.character };
    let range = Range { start: at(change.range.start), end: at(change.range.end) };
    Change { range: Some(range), text: change.text.clone() }
}

fn request(document: Snapshot, cursor: usize, others: Vec<Snapshot>, layouts: &Arc<Layouts>) -> Request {
    Request {
        document,
        cursor,
        others,
        root: Some(PathBuf::from("/project")),
        selected: None,
        priority: Priority::Completion,
        variant: 0,
        index: None,
        drafts: Arc::default(),
        layouts: Arc::clone(layouts),
    }
}

/// What a session costs.
fn steps(model: &Arc<Model>, settings: &CompletionSettings, trace: &Trace) -> Vec<Step> {
    let mut kinds = kinds(trace, Reach { before: 3072, after: 512 }).into_iter();
    let mut seen = HashSet::new();
    let mut steps = Vec::new();
    play(trace, |request| {
        let line = request.document.text.char_to_line(request.cursor);
        let prompt = prepare(model, settings, &request).expect("a prompt").prompt().clone();
        let computed = prompt.ids.len() - known(&mut seen, &prompt.ids);
        steps.push(Step { kind: kinds.next().expect("a kind"), computed, line, prompt });
    });
    steps
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

fn quantile(values: &[usize], part: f64) -> usize {
    let mut values = values.to_vec();
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).round() as usize).copied().unwrap_or_default()
}

/// Prints what each session costs.
#[test]
fn what_sessions_cost() {
    let Some((_engine, model)) = model() else { return };
    for trace in traces() {
        for order in [FimOrder::Psm, FimOrder::Spm] {
            if std::env::var("GEMMA_LS_SHOW").is_ok_and(|wanted| !trace.name.contains(&wanted)) {
                continue;
            }
            let steps = steps(&model, &settings(order), &trace);
            let show = |kind: Option<Kind>| {
                let of = steps.iter().filter(|s| kind.is_none_or(|kind| s.kind == kind));
                let values: Vec<usize> = of.map(|s| s.computed).collect();
                let part = |part| quantile(&values, part);
                format!("{:>3}x {:>4} {:>4} {:>4}", values.len(), part(0.5), part(0.9), part(0.99))
            };
            let big: usize = steps.iter().filter(|s| s.computed > 100).count();
            println!(
                "{:20} {order:?} forward {} | back {} | edited {} | other {} | all {} | over 100: {big}",
                trace.name,
                show(Some(Kind::Forward)),
                show(Some(Kind::Back)),
                show(Some(Kind::BackEdited)),
                show(Some(Kind::Other)),
                show(None),
            );
            if std::env::var_os("GEMMA_LS_SHOW").is_some() {
                for (i, s) in steps
                    .iter()
                    .enumerate()
                    .filter(|(_, s)| s.computed > 40 || matches!(s.kind, Kind::Back | Kind::BackEdited))
                {
                    let part = s.prompt.ids.len() - s.computed;
                    let same = |o: &&Step| o.prompt.ids.get(..part) == s.prompt.ids.get(..part);
                    let earlier = steps[..i].iter().rev().find(same).unwrap_or(s);
                    let text = |ids: &[u32]| {
                        let ids = &ids[part.min(ids.len())..(part + 14).min(ids.len())];
                        model.tokenizer().decode(ids, false)
                    };
                    let marks = s.prompt.ids[..part].iter().filter(|id| (67..=70).contains(*id)).count();
                    println!(
                        "   {i} {:?} line {} computed {} of {}, marks {marks}: {:?} for {:?}",
                        s.kind,
                        s.line + 1,
                        s.computed,
                        s.prompt.ids.len(),
                        text(&s.prompt.ids),
                        text(&earlier.prompt.ids)
                    );
                }
            }
        }
    }
}
