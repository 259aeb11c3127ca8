//! Where only the best tokens are looked for, they are those of all logits: the same answers with probabilities, for which
//! everything is computed, and without.

use candle_core::quantized::GgmlDType;
use gemma_engine::{GenerateRequest, Precision, Sampling, Stop};
use gemma_tests::models::{Arithmetic, Generated, Loaded, certainty};
use gemma_tests::places;
use gemma_tests::synthetic::Network;

/// Greedy, drawn from few, from as many as are ever looked for, from more, from all, and with tokens that count less.
fn samplings() -> Vec<Sampling> {
    let hot = |top_k| Sampling { temperature: 1.2, top_k, seed: 7, ..Sampling::default() };
    vec![
        Sampling::default(),
        hot(1),
        hot(5),
        Sampling { top_p: 0.9, min_p: 0.01, ..hot(64) },
        hot(65),
        hot(0),
        Sampling { repetition_penalty: 1.3, ..Sampling::default() },
        Sampling { repetition_penalty: 1.3, ..hot(5) },
    ]
}

fn request(loaded: &Loaded, prompt: &[u32], sampling: &Sampling, logprobs: bool) -> GenerateRequest {
    let stop = Stop { ignore_eos: true, ..Stop::default() };
    GenerateRequest { logprobs, ..loaded.request(prompt, Vec::new(), 12, sampling.clone(), stop) }
}

/// The same answer with probabilities and without, whichever is asked for first; returns how many drafted tokens were right.
fn check(
    loaded: &Loaded,
    prompt: &[u32],
    change: &dyn Fn(GenerateRequest) -> GenerateRequest,
    what: &str,
) -> usize {
    let mut drafted = 0;
    for sampling in samplings() {
        let ask = |logprobs| loaded.run(change(request(loaded, prompt, &sampling, logprobs)));
        let without = ask(false);
        let with = ask(true);
        let again = ask(false);
        let what = format!("{what}, {sampling:?}");
        assert_eq!(without.ids(), with.ids(), "{what}");
        assert_eq!(without.ids(), again.ids(), "{what}: with the prompt known");
        assert!(with.tokens.iter().all(|token| certainty(token) <= 0.0), "{what}");
        drafted +=
            [&without, &with, &again].map(|g| g.finished.timings.accepted_tokens).iter().sum::<usize>();
    }
    drafted
}

#[test]
fn a_table_in_eight_bits_gives_the_same_answers_without_reading_all_of_it() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("model.gguf");
    Network::random(5).gguf().quantised(|_| GgmlDType::Q8_0).write(&path, 3);
    for arithmetic in Arithmetic::all(&[Precision::Fast, Precision::Exact]) {
        let loaded = Loaded::new(&path, arithmetic);
        let saves = loaded.model.bytes_of_token() < loaded.model.weight_bytes();
        assert_eq!(saves, arithmetic.precision == Precision::Fast, "{arithmetic}");
        for seed in 0..4 {
            let prompt: Vec<u32> =
                (0..30).map(|i| if i == 0 { 2 } else { (i * 7919 + seed * 31) % 512 }).collect();
            check(&loaded, &prompt, &|request| request, &format!("{arithmetic}, prompt {seed}"));
        }
        // Several rows a pass: what comes next stands in the prompt.
        let prompt = [2, 17, 18, 19, 20, 21, 17, 18, 19, 20, 21, 17, 18, 19].repeat(2);
        let draft: Vec<u32> = loaded.run(request(&loaded, &prompt, &Sampling::default(), true)).ids();
        let drafted =
            |request| GenerateRequest { drafts: vec![[&prompt, &draft[..]].concat().into()], ..request };
        check(&loaded, &prompt, &drafted, &format!("{arithmetic}, drafts"));
    }
}

#[test]
fn a_real_model_gives_the_same_answers_without_reading_all_of_it() {
    let loaded = Loaded::new(&places::real_model(), Precision::Fast);
    let tokenizer = loaded.model.tokenizer();
    let mut drafted = 0;
    for (prompt, begin) in [
        ("def area(self):\n    ", "retu"),
        ("The history of computing begins with", ""),
        ("for (let i = 0; i < items.length; i++) {\n  items[", "i"),
        ("a b c d a b c d a b c d a b", ""),
    ] {
        let ids = [&[2], &tokenizer.encode(prompt).expect("text")[..]].concat();
        let begun = |request| GenerateRequest { begin_with: begin.to_owned(), ..request };
        // Of many answers: whether one is drafted follows the speed that is measured.
        drafted += check(&loaded, &ids, &begun, prompt);
        let answer: Generated = loaded.run(begun(request(&loaded, &ids, &Sampling::default(), false)));
        assert!(answer.finished.text.starts_with(begin), "{:?}", answer.finished.text);
    }
    assert!(drafted > 0, "passes of several rows are among them");
}
