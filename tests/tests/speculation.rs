//! Tokens that are tried ahead of their turn, prompts that were computed whole before, and passes that were put aside
//! change what an answer costs and nothing else.

use std::sync::Arc;

use gemma_engine::{Finished, GenerateRequest, Precision, Priority, Sampling, Stop};
use gemma_tests::models::{Loaded, certainty};
use gemma_tests::places;

/// One of every kind: plain attention, windows, windows with query and key norms, a recurrence.
const KINDS: [&str; 4] = ["gemma1-mqa", "gemma2-gqa", "gemma3-text", "recurrentgemma"];

fn load(kind: &str) -> Loaded {
    Loaded::new(&places::golden(kind), Precision::Fast)
}

fn request(loaded: &Loaded, prompt: &[u32], max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        stop: Stop { ignore_eos: true, ..Stop::default() },
        logprobs: true,
        ..GenerateRequest::new(loaded.model.clone(), prompt.to_vec(), max_tokens)
    }
}

/// The answer, with the bits of the probabilities.
fn run(loaded: &Loaded, request: GenerateRequest) -> (Vec<(u32, u32)>, Finished) {
    let mut tokens = Vec::new();
    let stream = loaded.engine.submit(request);
    let finished = stream.finish_blocking(|t| tokens.push((t.id, certainty(t).to_bits()))).expect("it runs");
    (tokens, finished)
}

fn prompt(seed: u32, n: u32) -> Vec<u32> {
    [2].into_iter().chain((0..n).map(|i| 20 + (i * (7 + seed) + i / 9) % 60)).collect()
}

#[test]
fn drafts_change_what_an_answer_costs_and_not_what_it_is() {
    for kind in KINDS {
        let (plain, drafted) = (load(kind), load(kind));
        let (mut saved, mut wrong) = (0, 0);
        for (seed, n) in [(0, 9), (1, 70), (2, 127), (3, 33)] {
            let prompt = prompt(seed, n);
            for sampling in [
                Sampling::default(),
                Sampling { temperature: 1.0, top_k: 5, seed: 7, ..Sampling::default() },
                Sampling { repetition_penalty: 1.3, ..Sampling::default() },
            ] {
                let asked = |loaded: &Loaded| GenerateRequest {
                    sampling: sampling.clone(),
                    ..request(loaded, &prompt, 40)
                };
                let without = GenerateRequest { speculate: false, ..asked(&plain) };
                let (expected, cold) = run(&plain, without);
                assert_eq!((cold.timings.decode_passes, cold.timings.draft_tokens), (39, 0), "{kind}");
                // The answer itself in parts, each spoilt at its end: drafts that are right for a while.
                let parts = expected.chunks(7).map(|part| {
                    let ids = part.iter().map(|(id, _)| *id);
                    ids.chain([255, u32::MAX]).collect::<Arc<[u32]>>()
                });
                let whole = expected.iter().map(|(id, _)| *id).collect();
                for drafts in [Vec::new(), parts.collect(), vec![whole]] {
                    let with = GenerateRequest { drafts, ..asked(&drafted) };
                    let (got, warm) = run(&drafted, with);
                    assert_eq!(got, expected, "{kind}, seed {seed}, {sampling:?}");
                    assert!(warm.timings.decode_passes + warm.timings.accepted_tokens >= 39);
                    saved += warm.timings.accepted_tokens;
                    wrong += warm.timings.draft_tokens - warm.timings.accepted_tokens;
                }
            }
        }
        assert!(saved > 0 && wrong > 0, "{kind}: {saved} right and {wrong} wrong prove nothing");
    }
}

#[test]
fn a_prompt_that_was_computed_whole_costs_no_token() {
    for kind in KINDS {
        let loaded = load(kind);
        for n in [1, 15, 16, 90] {
            let prompt = prompt(4, n);
            let (cold, first) = run(&loaded, request(&loaded, &prompt, 12));
            assert!(first.timings.prefill_tokens > 0);
            let (warm, second) = run(&loaded, request(&loaded, &prompt, 12));
            assert_eq!(warm, cold, "{kind}, {n}");
            let timings = second.timings;
            assert_eq!((timings.prefill_tokens, timings.cached_tokens), (0, prompt.len()), "{kind}, {n}");
        }
    }
}

#[test]
fn an_answer_that_was_put_aside_is_the_answer() {
    for kind in KINDS {
        let loaded = load(kind);
        let long = prompt(5, 100);
        let quiet = load(kind);
        let (expected, _) = run(&quiet, request(&quiet, &long, 60));
        let mut tokens = Vec::new();
        let chat = loaded.engine.submit(request(&loaded, &long, 60));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..30 {
                    let typed = request(&loaded, &prompt(6, 3 + i), 2);
                    run(&loaded, GenerateRequest { priority: Priority::Completion, ..typed });
                }
            });
            chat.finish_blocking(|t| tokens.push((t.id, certainty(t).to_bits()))).expect("it runs");
        });
        assert_eq!(tokens, expected, "{kind}");
    }
}

#[test]
fn a_recurrence_goes_on_where_the_last_prompt_ended() {
    let loaded = load("recurrentgemma");
    let typed = prompt(8, 120);
    // One token more at each keystroke, each answered with something that is not typed.
    for len in 90..typed.len() {
        let (_, finished) = run(&loaded, request(&loaded, &typed[..len], 8));
        assert!(len == 90 || finished.timings.prefill_tokens <= 1, "{len}: {:?}", finished.timings);
    }
}

#[test]
fn an_expected_request_holds_a_chat_back_and_its_end_lets_it_go_on() {
    let loaded = load("gemma2-gqa");
    let expected = loaded.engine.expect(Priority::Completion);
    let mut chat = loaded.engine.submit(request(&loaded, &prompt(5, 20), 5));
    let typed = request(&loaded, &prompt(6, 9), 3);
    let (typed, _) = run(&loaded, GenerateRequest { priority: Priority::Completion, ..typed });
    assert_eq!(typed.len(), 3, "what is expected is not held back itself");
    // Also what is cancelled meanwhile ends.
    let cancelled = request(&loaded, &prompt(7, 9), 3);
    cancelled.cancel.cancel();
    run(&loaded, cancelled);
    assert!(chat.try_next().is_none(), "a chat waits while a keystroke is being made ready");
    drop(expected);
    let finished = chat.finish_blocking(|_| {}).expect("it runs");
    assert_eq!(finished.tokens.len(), 5);
}
