//! The engine's promises to whoever submits requests: one end each, cancelling, priority, deadlines,
//! stopping, and the same answer however it was asked.

use std::sync::mpsc::channel;
use std::time::Duration;

use candle_core::quantized::GgmlDType;
use gemma_engine::{
    CancelFlag, ErrorKind, Event, FinishReason, GenerateRequest, Level, LoadOptions, Precision, Priority,
    Sampling, Stop,
};
use gemma_tests::models::{Arithmetic, Loaded, certainty};
use gemma_tests::places;
use gemma_tests::synthetic::Network;

fn real() -> Loaded {
    Loaded::new(&places::real_model(), Precision::Fast)
}

fn tiny() -> Loaded {
    Loaded::new(&places::golden("gemma2-gqa"), Precision::Fast)
}

fn request(loaded: &Loaded, prompt: Vec<u32>, max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        stop: Stop { ignore_eos: true, ..Stop::default() },
        logprobs: true,
        ..GenerateRequest::new(loaded.model.clone(), prompt, max_tokens)
    }
}

/// A prompt of `n` tokens that no other seed's begins with.
fn prompt(seed: u32, n: usize) -> Vec<u32> {
    let mut ids = vec![2, 100 + seed];
    ids.extend((0..n as u32 - 2).map(|i| 200 + (i * 31 + seed * 7) % 20));
    ids
}

#[test]
fn a_cancelled_prefill_stops_between_layers_and_is_kept_for_the_next() {
    let loaded = real();
    let cancel = CancelFlag::new();
    let long = GenerateRequest { cancel: cancel.clone(), ..request(&loaded, prompt(1, 3000), 4) };
    let stream = loaded.engine.submit(long);
    // Behind this one the long request has begun: requests of one priority are taken in order.
    let late = CancelFlag::new();
    late.cancel();
    let queued = GenerateRequest { cancel: late, ..request(&loaded, prompt(2, 100), 4) };
    let queued = loaded.engine.submit(queued);
    std::thread::sleep(Duration::from_millis(200));
    cancel.cancel();
    let finished = stream.finish_blocking(|_| {}).expect("cancelling is no error");
    assert_eq!(finished.finish_reason, FinishReason::Cancelled);
    assert!(finished.timings.prefill_tokens < 3000, "{:?}", finished.timings);
    let queued = queued.finish_blocking(|_| {}).expect("cancelling is no error");
    assert_eq!((queued.finish_reason, queued.timings.prefill_tokens), (FinishReason::Cancelled, 0));

    let again = loaded.greedy(&prompt(1, 3000), 1).finished;
    assert_eq!(again.timings.cached_tokens, finished.timings.prefill_tokens);
}

#[test]
fn a_keystroke_goes_before_a_running_chat_and_the_chat_goes_on() {
    let loaded = real();
    let chat = loaded.engine.submit(request(&loaded, prompt(3, 64), 400));
    let typed = GenerateRequest { priority: Priority::Completion, ..request(&loaded, prompt(4, 64), 4) };
    let typed = loaded.engine.submit(typed);
    let (order, ends) = channel();
    std::thread::scope(|scope| {
        for (name, stream) in [("chat", chat), ("completion", typed)] {
            let order = order.clone();
            scope.spawn(move || {
                let end = stream.finish_blocking(|_| {}).map(|finished| finished.tokens.len());
                order.send((name, end)).expect("somebody listens");
            });
        }
    });
    let ends: Vec<_> = ends.try_iter().collect();
    assert_eq!(ends, [("completion", Ok(4)), ("chat", Ok(400))]);
}

#[test]
fn the_deadline_ends_it_with_what_is_there() {
    let loaded = tiny();
    let deadline = Some(Duration::from_millis(30));
    let slow: gemma_engine::generate::Enough = Box::new(|_| {
        std::thread::sleep(Duration::from_millis(10));
        false
    });
    let stop = Stop { ignore_eos: true, enough: Some(slow), ..Stop::default() };
    let late = GenerateRequest { deadline, stop, ..request(&loaded, vec![2, 5], 200) };
    let finished = loaded.engine.submit(late).finish_blocking(|_| {}).expect("being late is no error");
    assert_eq!(finished.finish_reason, FinishReason::Deadline);
    assert!((1..200).contains(&finished.tokens.len()));
    assert_eq!(finished.timings.decode_tokens, finished.tokens.len());
}

#[test]
fn tokens_then_exactly_one_end() {
    let loaded = real();
    let text_tokens = loaded.model.tokenizer().encode("fn main() {\n    let xs = vec![1, 2").expect("text");
    let prompt = [&[2], &text_tokens[..]].concat();
    let mut stream = loaded.engine.submit(request(&loaded, prompt, 12));
    let mut events = Vec::new();
    while let Some(event) = stream.next_blocking() {
        events.push(event);
    }
    let Some((Event::Finished(finished), tokens)) = events.split_last() else {
        panic!("the last event is the end: {events:?}");
    };
    let mut text = String::new();
    for event in tokens {
        let Event::Token(token) = event else { panic!("an end before the end") };
        assert!(certainty(token) <= 1e-4, "{}", certainty(token));
        text += &token.text;
    }
    assert_eq!((tokens.len(), &text), (12, &finished.text));
    assert_eq!(finished.finish_reason, FinishReason::Length);
    assert!(finished.timings.ttft_ms > 0.0);
}

#[test]
fn stop_texts_and_rules_cut_where_they_say() {
    let loaded = real();
    let ids = loaded.model.tokenizer().encode("1, 2, 3, 4, 5, 6, 7,").expect("text");
    let prompt = [&[2], &ids[..]].concat();
    let free = loaded.generate(&prompt, 12, Sampling::default(), Stop::default()).finished;
    assert!(free.text.contains(" 9"), "the model counts on: {:?}", free.text);
    let stop = Stop { texts: vec![" 9".to_owned()], ..Stop::default() };
    let cut = loaded.generate(&prompt, 12, Sampling::default(), stop);
    assert_eq!(cut.finished.finish_reason, FinishReason::Stop);
    assert_eq!(Some(cut.finished.text.as_str()), free.text.split(" 9").next());
    let streamed: String = cut.tokens.iter().map(|token| token.text.as_str()).collect();
    assert_eq!(streamed, cut.finished.text, "what was streamed is what was said");
}

#[test]
fn a_seed_fixes_a_sampled_answer() {
    let loaded = tiny();
    let answer = |seed| {
        let sampling = Sampling { temperature: 1.5, seed, ..Sampling::default() };
        loaded.generate(&[2, 9, 40], 20, sampling, Stop { ignore_eos: true, ..Stop::default() }).ids()
    };
    assert_eq!(answer(1), answer(1));
    assert_ne!(answer(1), answer(2));
}

#[test]
fn impossible_prompts_are_refused_and_the_engine_lives_on() {
    let loaded = tiny();
    let context = loaded.model.config().context;
    for bad in [vec![], vec![2, 256], vec![2; context + 1]] {
        let error = loaded.engine.submit(request(&loaded, bad, 4)).finish_blocking(|_| {});
        assert_eq!(error.expect_err("it makes no sense").kind(), ErrorKind::Input);
    }
    let full = loaded.greedy(&vec![2; context - 2], 50).finished;
    assert_eq!((full.finish_reason, full.tokens.len()), (FinishReason::Length, 2), "the context ends it");
}

#[test]
fn a_panic_in_a_callers_rule_ends_that_request_alone() {
    let loaded = tiny();
    let stop = Stop { enough: Some(Box::new(|_| panic!("planted"))), ..Stop::default() };
    let error = loaded.engine.submit(GenerateRequest { stop, ..request(&loaded, vec![2, 3], 4) });
    assert_eq!(error.finish_blocking(|_| {}).expect_err("it panicked").kind(), ErrorKind::Internal);
    assert_eq!(loaded.greedy(&[2, 3], 4).ids().len(), 4);
}

#[test]
fn a_request_keeps_its_model_and_two_models_do_not_mix() {
    let loaded = tiny();
    let other = Loaded {
        model: loaded
            .engine
            .load(
                gemma_engine::LoadOptions {
                    name: Some("other".to_owned()),
                    ..gemma_engine::LoadOptions::new(places::golden("gemma1-mqa"))
                },
                &mut |_| {},
            )
            .expect("a second model"),
        engine: loaded.engine.clone(),
    };
    let ids = [2, 7, 30, 31, 32];
    let (alone, beside) = (loaded.greedy(&ids, 8).ids(), other.greedy(&ids, 8));
    assert_eq!(beside.finished.timings.cached_tokens, 0, "another model's cache is another");
    let running = other.engine.submit(request(&other, ids.to_vec(), 8));
    drop(other);
    assert!(running.finish_blocking(|_| {}).is_ok(), "a running request keeps its model");
    assert_eq!(loaded.greedy(&ids, 8).ids(), alone);
}

#[test]
fn dropping_the_engine_ends_what_runs() {
    let loaded = real();
    let mut stream = loaded.engine.submit(request(&loaded, prompt(5, 32), 5000));
    assert!(stream.next_blocking().is_some());
    drop(loaded);
    let mut last = None;
    while let Some(event) = stream.next_blocking() {
        last = Some(event);
    }
    // Either the engine said so, or its end closed the stream.
    assert!(!matches!(last, Some(Event::Failed(_))), "{last:?}");
}

#[test]
fn half_a_word_is_spelt_to_its_end_however_it_is_cut() {
    let loaded = real();
    let tokenizer = loaded.model.tokenizer();
    let answer = |prompt: &str, begin: &str| {
        let ids = tokenizer.encode(prompt).expect("text");
        let prompt = [&[2], &ids[..]].concat();
        let healed = GenerateRequest { begin_with: begin.to_owned(), ..request(&loaded, prompt, 8) };
        loaded.engine.submit(healed).finish_blocking(|_| {}).expect("it runs").text
    };
    for (prompt, begin) in [
        ("def area(self):\n    ", "retu"),
        ("def area(self):\n   ", " ret"),
        ("let total = xs.iter()", ".su"),
        ("x =", " "),
        ("Die", " Grö"),
        ("print(\"", "日本\u{10348}"),
        ("a", "b\r\nc\t\u{0}"),
    ] {
        let text = answer(prompt, begin);
        assert!(text.starts_with(begin), "{text:?} does not begin with {begin:?}");
    }
    assert!(answer("def area(self):\n    ", "retu").starts_with("return"));
}

#[test]
fn an_engine_uses_the_instructions_that_it_is_given() {
    let used = Arithmetic::all(&[Precision::Fast]).into_iter().map(|arithmetic| {
        let loaded = Loaded::new(&places::golden("gemma2-gqa"), arithmetic);
        loaded.engine.device().level
    });
    let levels = Level::available().into_iter().map(|level| format!("{level:?}").to_lowercase());
    assert_eq!(used.collect::<Vec<_>>(), levels.collect::<Vec<_>>());
}

#[test]
fn a_model_whose_logits_are_no_numbers_fails_its_requests_in_words_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (name, format) in [("eight.gguf", GgmlDType::Q8_0), ("exact.gguf", GgmlDType::F32)] {
        let (broken, sound) = (folder.path().join(name), folder.path().join(format!("sound-{name}")));
        let network = || Network::random(11);
        network().with_last_norm(f32::NAN).gguf().quantised(|_| format).write(&broken, 3);
        network().gguf().quantised(|_| format).write(&sound, 3);
        let loaded = Loaded::new(&broken, Precision::Fast);
        let hot = Sampling { temperature: 1.0, top_k: 8, ..Sampling::default() };
        for sampling in [Sampling::default(), hot] {
            let asked = GenerateRequest { sampling, logprobs: false, ..request(&loaded, vec![2, 5, 6], 4) };
            let error =
                loaded.engine.submit(asked).finish_blocking(|_| {}).expect_err("nothing can be picked");
            assert_eq!(error.kind(), ErrorKind::BadFile, "{error}");
            assert!(error.to_string().contains("none of its logits is a number"), "{error}");
        }
        let options = LoadOptions { precision: Precision::Fast, ..LoadOptions::new(&sound) };
        let model = loaded.engine.load(options, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
        let asked = GenerateRequest::new(model, vec![2, 5, 6], 4);
        assert!(loaded.engine.submit(asked).finish_blocking(|_| {}).is_ok(), "another model still answers");
    }
}
