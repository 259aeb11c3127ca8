//! Recorded editing sessions, key by key: how many tokens of each prompt no earlier prompt began with.
//!
//! Needs the vocabulary of a real model (`GEMMA_LS_TEST_MODEL`) and nothing of its network.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gemma_engine::{Engine, LoadOptions, Model, Priority};

use super::ask::prepare;
use super::boundary::Seam;
use super::{Layouts, Request};
use crate::bench::kind::{Kind, Reach, kinds};
use crate::bench::playback::Playback;
use crate::bench::trace::{Trace, What};
use crate::documents::{Documents, Snapshot};
use crate::prompt::remembered::{Memory, Remembering};
use crate::prompt::{Prompt, Tokens};
use crate::settings::{CompletionSettings, FimIds, FimOrder};
use crate::text::{Change, Encoding, Position, Range};

/// One request of a session.
struct Step {
    kind: Kind,
    /// Tokens of its prompt that no earlier prompt began with.
    computed: usize,
    line: usize,
    /// To lay the prompt out, and to parse the document before.
    took: (Duration, Duration),
    prompt: Prompt,
}

/// The model of `GEMMA_LS_TEST_MODEL`.
fn model() -> Option<(Engine, Arc<Model>)> {
    let Some(path) = std::env::var_os("GEMMA_LS_TEST_MODEL") else {
        eprintln!("skipped: GEMMA_LS_TEST_MODEL names no model");
        return None;
    };
    let engine = Engine::start(Default::default()).expect("an engine");
    let options = LoadOptions::new(path);
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
        let begun = Instant::now();
        request.document.tree();
        let parsed = begun.elapsed();
        let prepared = prepare(model, settings, &request).expect("a prompt");
        let took = (begun.elapsed() - parsed, parsed);
        let prompt = prepared.prompt().clone();
        let computed = prompt.ids.len() - known(&mut seen, &prompt.ids);
        steps.push(Step { kind: kinds.next().expect("a kind"), computed, line, took, prompt });
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

/// What typing costs, with the text behind the cursor first. The counts are exact: the same in every run.
#[test]
fn a_key_costs_the_tokens_that_it_changed() {
    /// Prompts of a session that begin anew in the middle of typing.
    const ANEW: usize = 4;
    let Some((_engine, model)) = model() else { return };
    for trace in traces() {
        let steps = steps(&model, &settings(FimOrder::Spm), &trace);
        let costs = |kind: Kind| {
            steps.iter().filter(|step| step.kind == kind).map(|step| step.computed).collect::<Vec<_>>()
        };
        let (forward, back) = (costs(Kind::Forward), costs(Kind::Back));
        let (typical, most) = (quantile(&forward, 0.5), quantile(&forward, 0.97));
        assert!(typical <= 3 && most <= 8, "{}: {typical} and {most} a key", trace.name);
        assert!(quantile(&back, 0.5) <= 24, "{}: back for {back:?}", trace.name);
        let anew = forward.iter().filter(|cost| **cost > 100).count();
        assert!(anew <= ANEW, "{}: {anew} prompts begin anew while typing", trace.name);
    }
}

/// How many ids at the end of a text a key makes others of, and how many it adds.
#[test]
fn a_key_changes_ids_at_the_end_only() {
    let Some((_engine, model)) = model() else { return };
    let tokens = model.tokenizer();
    for trace in traces() {
        let (mut changed, mut added) = (Vec::new(), Vec::new());
        for document in &trace.documents {
            // A stretch of each document, typed key by key from where a page of it is there.
            let text: Vec<char> = document.text.chars().collect();
            let begin = text.len() / 3;
            let page: String = text[begin.saturating_sub(800)..begin].iter().collect();
            let mut typed = page;
            let mut before = tokens.encode(Seam::split(&typed).0).expect("ids");
            for c in text[begin..].iter().take(600) {
                typed.push(*c);
                let now = tokens.encode(Seam::split(&typed).0).expect("ids");
                let same = before.iter().zip(&now).take_while(|(a, b)| a == b).count();
                changed.push(before.len() - same);
                added.push(now.len() - same);
                before = now;
            }
        }
        let worst = changed.iter().max().copied().unwrap_or_default();
        assert!(quantile(&changed, 0.9) <= 1 && worst <= 4, "{}: {worst} ids change", trace.name);
        assert!(quantile(&added, 0.9) <= 3, "{}: {} ids come", trace.name, quantile(&added, 0.9));
    }
}

/// With a memory of lines, the ids are those of the whole text.
#[test]
fn remembered_ids_are_those_of_the_whole() {
    let Some((_engine, model)) = model() else { return };
    let memory = Memory::default();
    let tokens = model.tokenizer();
    assert!(tokens.parts_at_line_breaks());
    let remembering = Remembering { tokens, memory: &memory };
    for text in traces().iter().flat_map(|trace| &trace.documents).map(|document| &document.text) {
        let text = format!("\n\n{text}\n \n\t\n\n\n  長さ 📏\n");
        assert_eq!(remembering.encode(&text), tokens.encode(&text));
        let half =
            &text[..text.len() / 2 - (0..4).find(|n| text.is_char_boundary(text.len() / 2 - n)).unwrap_or(0)];
        assert_eq!(remembering.count(half), tokens.encode(half).map(|ids| ids.len()));
    }
}

/// Prints what each session costs, and what its prompts take to lay out.
#[test]
#[ignore = "prints numbers and checks none"]
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
            let took = |one: fn(&Step) -> Duration| {
                let took: Vec<usize> = steps.iter().map(|step| one(step).as_micros() as usize).collect();
                [0.5, 0.9, 0.99].map(|part| quantile(&took, part))
            };
            println!(
                "{:20} us to lay out: {:?}, to parse: {:?}",
                "",
                took(|step| step.took.0),
                took(|step| step.took.1)
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
