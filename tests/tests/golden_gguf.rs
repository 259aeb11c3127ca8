//! The real Gemma 3 270M in Q4_K_M against the reference, which computed with its weights widened to f32.

use std::sync::{Mutex, OnceLock};

use gemma_engine::{Level, Precision};
use gemma_tests::golden::{self, RealModel, RealPrompt};
use gemma_tests::models::{Arithmetic, Loaded};
use gemma_tests::numbers::{Findings, Matrix, argmax, logprob};
use gemma_tests::places;

/// How far the log-probabilities of the 20 most likely tokens may stand from the reference, in nats.
const EXACT_TOP20: f64 = 0.05;
/// The same for the default precision: what llama.cpp comes to on such prompts at worst.
const FAST_TOP20: f64 = 1.0;
/// How far the mean negative log-likelihood may stand from the reference, in nats.
const EXACT_NLL: f64 = 0.01;
const FAST_NLL: f64 = 0.05;
/// A greedy choice between two logits nearer than this may fall either way.
const CLOSE_CALL: f32 = 0.05;
/// The same for the default precision.
const FAST_CLOSE_CALL: f32 = 0.2;
/// Most tokens of a prompt that is read at every level of instructions: one prompt. Plain code takes minutes for all.
const SHORT: usize = 180;

/// The tests of this file take turns: logits over 262144 tokens at 900 positions take a gigabyte.
static TURN: Mutex<()> = Mutex::new(());

fn real() -> &'static RealModel {
    static REAL: OnceLock<RealModel> = OnceLock::new();
    REAL.get_or_init(|| golden::json("gemma3-270m-gguf/golden.json"))
}

/// The prompts with what they are read with: the machine's best instructions for all, every level for a short one.
fn subjects(precision: Precision) -> impl Iterator<Item = (Arithmetic, Vec<&'static RealPrompt>)> {
    let best = Level::detect();
    Arithmetic::all(&[precision]).into_iter().map(move |arithmetic| {
        let all = arithmetic.level == Some(best);
        let prompts = real().prompts.iter().filter(|prompt| all || prompt.ids.len() <= SHORT);
        (arithmetic, prompts.collect())
    })
}

/// What one prompt came to.
struct Measured {
    nll: f64,
    top20: f64,
    top_is_same: bool,
    argmax_agrees: usize,
}

fn measure(logits: &Matrix, prompt: &RealPrompt) -> Measured {
    let last = logits.row(logits.rows() - 1);
    let scored = prompt.ids.iter().enumerate().skip(1);
    let nll: f64 = scored.map(|(position, id)| -logprob(logits.row(position - 1), *id)).sum();
    let distances = prompt.top20.iter().map(|(id, golden)| (logprob(last, *id) - golden).abs());
    let agrees = |(row, id): &(usize, &u32)| argmax(logits.row(*row)) == **id as usize;
    Measured {
        nll: nll / (prompt.ids.len() - 1) as f64,
        top20: distances.fold(0.0, f64::max),
        top_is_same: argmax(last) == prompt.top20[0].0 as usize,
        argmax_agrees: prompt.argmax.iter().enumerate().filter(agrees).count(),
    }
}

/// Holds all prompts against the reference; the share of positions with its most likely token must reach
/// `agreement`.
fn check(precision: Precision, top20: f64, nll: f64, agreement: f64) {
    let _turn = TURN.lock();
    let mut findings = Findings::default();
    for (arithmetic, prompts) in subjects(precision) {
        let loaded = Loaded::new(&places::real_model(), arithmetic);
        let (mut worst_top20, mut worst_nll) = (0.0_f64, 0.0_f64);
        for prompt in prompts {
            let measured = measure(&loaded.logits(&prompt.ids, None), prompt);
            let off = (measured.nll - prompt.mean_nll).abs();
            let agrees = measured.argmax_agrees as f64 / prompt.ids.len() as f64;
            let what = format!("{} ({arithmetic})", prompt.name);
            println!(
                "{what:<36} top-20 within {:.4}, mean nll off by {off:.5}, {:.2}% of positions agree",
                measured.top20,
                100.0 * agrees
            );
            let close = precision == Precision::Fast && prompt.greedy_margins[0] <= FAST_CLOSE_CALL;
            findings.check(measured.top_is_same || close, || format!("{what}: another top token"));
            findings.check(measured.top20 <= top20, || format!("{what}: top 20 are {} off", measured.top20));
            findings.check(off <= nll, || format!("{what}: mean nll is {off} off"));
            findings.check(agrees >= agreement, || format!("{what}: {agrees} of positions agree"));
            (worst_top20, worst_nll) = (worst_top20.max(measured.top20), worst_nll.max(off));
        }
        println!(
            "{arithmetic}: worst distance {worst_top20:.4} nats in the top 20, {worst_nll:.5} in the mean"
        );
    }
    findings.assert_none();
}

#[test]
fn with_f32_activations_the_reference_is_met() {
    check(Precision::Exact, EXACT_TOP20, EXACT_NLL, 0.99);
}

#[test]
fn the_default_precision_stands_no_further_off_than_llama_cpp() {
    check(Precision::Fast, FAST_TOP20, FAST_NLL, 0.9);
}

#[test]
fn greedy_tokens_are_the_references_up_to_a_close_call() {
    let _turn = TURN.lock();
    let mut findings = Findings::default();
    for (arithmetic, prompts) in subjects(Precision::Exact) {
        let loaded = Loaded::new(&places::real_model(), arithmetic);
        for prompt in prompts {
            let certain = prompt.greedy_margins.iter().take_while(|margin| **margin > CLOSE_CALL).count();
            let ids = loaded.greedy(&prompt.ids, certain.max(1)).ids();
            findings.check(ids[..certain] == prompt.greedy_ids[..certain], || {
                let want = &prompt.greedy_ids[..certain];
                format!("{} ({arithmetic}): {ids:?}, not {want:?}", prompt.name)
            });
        }
    }
    findings.assert_none();
}

#[test]
fn a_kept_prefix_gives_the_answer_of_a_cold_start() {
    let _turn = TURN.lock();
    // Where a row has the same bits in a pass of any length; matrix units take more than 16 rows in bf16.
    let arithmetic = || Arithmetic { precision: Precision::Fast, level: Some(Level::Avx512) };
    let warm = Loaded::new(&places::real_model(), arithmetic());
    for prompt in real().prompts.iter().take(4) {
        let ids = &prompt.ids[..prompt.ids.len().min(200)];
        let (half, most) = (ids.len() / 2, ids.len() - 3);
        warm.greedy(&ids[..half], 3);
        warm.greedy(&[&ids[..most], &[107, 107]].concat(), 3);
        let after = warm.greedy(ids, 8);
        let cached = after.finished.timings.cached_tokens;
        assert!(cached >= most, "{}: only {cached} of {most} tokens came from the cache", prompt.name);
        let fresh = Loaded::new(&places::real_model(), arithmetic()).greedy(ids, 8);
        assert_eq!(fresh.finished.timings.cached_tokens, 0);
        assert_eq!(after.ids(), fresh.ids(), "{}", prompt.name);
    }
}

#[test]
fn the_prompts_tokens_are_the_references() {
    let loaded = Loaded::new(&places::real_model(), Precision::Fast);
    for prompt in &real().prompts {
        let ids = loaded.model.tokenizer().encode(&prompt.text).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(ids, prompt.ids[1..], "{}", prompt.name);
    }
}

#[test]
fn it_takes_about_its_files_size_in_memory() {
    let path = places::real_model();
    let file = std::fs::metadata(&path).expect("the model's file can be looked at").len();
    let loaded = Loaded::new(&path, Precision::Fast);
    let bytes = loaded.model.weight_bytes();
    assert!(bytes as f64 <= 1.15 * file as f64, "{bytes} bytes of weights from a file of {file}");
}
