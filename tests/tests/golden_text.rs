//! Gemma 1, 2, 3 (text) and RecurrentGemma against the reference's logits: tiny models with random weights in which
//! every term of the published networks shows.

use gemma_engine::{LogitsRequest, Precision};
use gemma_tests::golden::{Case, Greedy, Prompt};
use gemma_tests::models::{Arithmetic, Generated, Loaded, certainty};
use gemma_tests::numbers::{Findings, logprob, margin, mean, worst};

/// Cases in f32.
const F32_CASES: [&str; 6] =
    ["gemma1-mqa", "gemma1-mha", "gemma2-gqa", "gemma3-text", "gemma3-text-ropescale", RECURRENT];
/// The case that can be cut back only to where its state was written down.
const RECURRENT: &str = "recurrentgemma";
/// Cases in bf16.
const BF16_CASES: [&str; 2] = ["gemma1-mqa-bf16", "gemma2-gqa-bf16"];

/// How far the default precision, which keeps keys and values in f16, may stand from the f32 reference.
const FAST_TOLERANCE: f32 = 0.02;
/// The same for bf16 checkpoints, whose keys and values matrix units round to bf16 in passes of many rows.
const BF16_FAST_TOLERANCE: f32 = 0.1;
/// How far a bf16 checkpoint may stand from the reference computed in bf16.
const BF16_TOLERANCE: f32 = 0.25;

/// One configuration of one case, loaded.
struct Subject {
    case: Case,
    loaded: Loaded,
    what: String,
    fast: bool,
}

impl Subject {
    fn new(name: &str, config: &str, arithmetic: impl Into<Arithmetic>) -> Self {
        let arithmetic = arithmetic.into();
        let case = Case::read(name);
        let folder = case.checkpoint(config);
        let loaded = Loaded::new(folder.path(), arithmetic);
        let what = format!("{name} ({config}, {arithmetic})");
        Self { case, loaded, what, fast: arithmetic.precision == Precision::Fast }
    }

    /// How far it may stand from the f32 reference on a prompt.
    fn tolerance(&self, prompt: &Prompt) -> f32 {
        if self.fast { prompt.tolerance().max(FAST_TOLERANCE) } else { prompt.tolerance() }
    }
}

/// These cases with these precisions at every level of instructions.
fn subjects(cases: &[&str], precisions: &[Precision]) -> impl Iterator<Item = Subject> {
    let all = Arithmetic::all(precisions);
    let each = move |name| all.clone().into_iter().map(move |how| Subject::new(name, "config.json", how));
    cases.iter().flat_map(move |case| each(case))
}

/// Every case in f32.
fn f32_subjects(precisions: &[Precision]) -> impl Iterator<Item = Subject> {
    subjects(&F32_CASES, precisions)
}

/// Every way of feeding `len` tokens in two pieces, all at once, and one by one.
fn splits(len: usize) -> Vec<Option<Vec<usize>>> {
    let mut ways: Vec<_> = (1..len).map(|at| Some(vec![at, len - at])).collect();
    ways.push(None);
    ways.push(Some(vec![1; len]));
    ways
}

#[test]
fn one_pass_gives_the_references_logits() {
    let mut findings = Findings::default();
    for subject in f32_subjects(&[Precision::Exact, Precision::Reference, Precision::Fast]) {
        for prompt in &subject.case.golden.prompts {
            let logits = subject.loaded.logits(&prompt.ids, None);
            let distance = worst(&logits.data, &subject.case.tensor(&prompt.logits).data);
            findings.check(distance <= subject.tolerance(prompt), || {
                format!("{} {}: {distance:e} from the reference", subject.what, prompt.name)
            });
        }
    }
    findings.assert_none();
}

#[test]
fn the_published_spelling_of_a_configuration_is_the_same_network() {
    let mut findings = Findings::default();
    for name in F32_CASES {
        let legacy = Subject::new(name, "config_legacy.json", Precision::Exact);
        let current = Subject::new(name, "config.json", Precision::Exact);
        let (ours, theirs) = (legacy.loaded.model.config(), current.loaded.model.config());
        findings.check(ours == theirs, || format!("{name}: {ours:?}, not {theirs:?}"));
        let prompt = legacy.case.prompt("long");
        let logits = legacy.loaded.logits(&prompt.ids, None);
        let distance = worst(&logits.data, &legacy.case.tensor(&prompt.logits).data);
        findings.check(distance <= prompt.tolerance(), || format!("{}: {distance:e}", legacy.what));
    }
    findings.assert_none();
}

#[test]
fn pieces_through_the_cache_give_the_references_logits() {
    let mut findings = Findings::default();
    for subject in f32_subjects(&[Precision::Exact, Precision::Fast]) {
        for prompt in &subject.case.golden.prompts {
            for split in splits(prompt.ids.len()) {
                let logits = subject.loaded.logits(&prompt.ids, split.as_deref());
                let distance = worst(&logits.data, &subject.case.tensor(&prompt.logits).data);
                findings.check(distance <= subject.tolerance(prompt), || {
                    format!("{} {} fed as {split:?}: {distance:e}", subject.what, prompt.name)
                });
            }
        }
    }
    findings.assert_none();
}

#[test]
fn the_oracle_gives_the_same_in_pieces() {
    let mut findings = Findings::default();
    for subject in f32_subjects(&[Precision::Reference]) {
        let prompt = subject.case.prompt("long");
        for split in [vec![1; prompt.ids.len()], vec![3, prompt.ids.len() - 3]] {
            let logits = subject.loaded.logits(&prompt.ids, Some(&split));
            let distance = worst(&logits.data, &subject.case.tensor(&prompt.logits).data);
            findings.check(distance <= prompt.tolerance(), || format!("{}: {distance:e}", subject.what));
        }
    }
    findings.assert_none();
}

/// Holds the logits that greedy tokens are picked from against the reference's.
fn check_greedy_logits(subject: &Subject, greedy: &Greedy, findings: &mut Findings) {
    let prompt = subject.case.prompt(&greedy.prompt);
    let golden = subject.case.tensor(&greedy.logits);
    let ids = [&prompt.ids[..], &greedy.ids[..greedy.ids.len() - 1]].concat();
    let first = prompt.ids.len() - 1;
    let one_by_one = vec![1; ids.len()];
    for split in [None, Some(one_by_one.as_slice())] {
        let logits = subject.loaded.logits(&ids, split);
        let distance = worst(logits.slice(first..ids.len()), &golden.data);
        findings.check(distance <= subject.tolerance(prompt), || {
            format!("{} behind {}: {distance:e} from the greedy logits", subject.what, prompt.name)
        });
    }
}

/// Holds generated tokens and their log-probabilities against the reference's, up to the first choice
/// that is too close to call at the subject's precision.
fn check_greedy_tokens(subject: &Subject, greedy: &Greedy, findings: &mut Findings) {
    let prompt = subject.case.prompt(&greedy.prompt);
    let golden = subject.case.tensor(&greedy.logits);
    let tolerance = subject.tolerance(prompt);
    let generated = subject.loaded.greedy(&prompt.ids, greedy.ids.len());
    findings.check(generated.finished.tokens == generated.ids(), || {
        format!("{}: end and stream differ", subject.what)
    });
    for (step, id) in greedy.ids.iter().enumerate() {
        if subject.fast && margin(golden.row(step)) < 2.0 * tolerance {
            return;
        }
        let Some(token) = generated.tokens.get(step).filter(|token| token.id == *id) else {
            findings.check(false, || {
                format!(
                    "{} behind {}: {:?}, not {:?}",
                    subject.what,
                    prompt.name,
                    generated.ids(),
                    greedy.ids
                )
            });
            return;
        };
        let distance = (f64::from(certainty(token)) - logprob(golden.row(step), *id)).abs();
        findings.check(distance <= 2.0 * f64::from(tolerance), || {
            format!("{} behind {}: log-probability {step} is {distance:e} off", subject.what, prompt.name)
        });
    }
}

#[test]
fn greedy_tokens_are_the_references() {
    let mut findings = Findings::default();
    for subject in f32_subjects(&[Precision::Exact, Precision::Reference, Precision::Fast]) {
        for greedy in &subject.case.golden.greedy {
            check_greedy_logits(&subject, greedy, &mut findings);
            check_greedy_tokens(&subject, greedy, &mut findings);
        }
    }
    findings.assert_none();
}

/// How far two generations stand apart in log-probabilities; infinite where their tokens differ.
fn apart(a: &Generated, b: &Generated) -> f32 {
    if a.ids() != b.ids() {
        return f32::INFINITY;
    }
    let logprobs = |g: &Generated| g.tokens.iter().map(certainty).collect::<Vec<_>>();
    worst(&logprobs(a), &logprobs(b))
}

#[test]
fn a_kept_prefix_gives_the_answer_of_a_cold_start() {
    let mut findings = Findings::default();
    for name in F32_CASES {
        for arithmetic in Arithmetic::all(&[Precision::Exact, Precision::Fast]) {
            for index in 0..Case::read(name).golden.branches.len() {
                let warm = Subject::new(name, "config.json", arithmetic);
                let cold = Subject::new(name, "config.json", arithmetic);
                let branch = &warm.case.golden.branches[index];
                let prompt = warm.case.prompt(&branch.prompt);
                warm.loaded.greedy(&warm.case.prompt(&branch.base).ids, 4);
                let after = warm.loaded.greedy(&prompt.ids, 12);
                let fresh = cold.loaded.greedy(&prompt.ids, 12);
                let what = format!("{} {} after {}", warm.what, branch.prompt, branch.base);

                // Behind the prefix, base and prompt may go on alike by chance.
                let base = &warm.case.prompt(&branch.base).ids;
                let common = base.iter().zip(&prompt.ids).take_while(|(a, b)| a == b).count();
                let cached = after.finished.timings.cached_tokens;
                assert!(common >= branch.prefix_len, "{what}: the golden data contradicts itself");
                let kept = if name == RECURRENT { cached <= common } else { cached == common };
                findings.check(kept, || format!("{what}: {cached} tokens came from the cache, not {common}"));
                let distance = apart(&after, &fresh);
                findings.check(distance <= warm.tolerance(prompt), || format!("{what}: {distance:e} apart"));

                let golden = warm.case.tensor(&prompt.logits);
                let expected = logprob(golden.row(golden.rows() - 1), after.tokens[0].id);
                let distance = (f64::from(certainty(&after.tokens[0])) - expected).abs();
                findings.check(distance <= 2.0 * f64::from(warm.tolerance(prompt)), || {
                    format!("{what}: {distance:e} from the reference")
                });
            }
        }
    }
    findings.assert_none();
}

#[test]
fn bf16_stands_nearer_to_the_truth_than_bf16_arithmetic() {
    let mut findings = Findings::default();
    for subject in subjects(&BF16_CASES, &[Precision::Exact, Precision::Reference, Precision::Fast]) {
        for prompt in &subject.case.golden.prompts {
            let what = format!("{} {}", subject.what, prompt.name);
            let logits = subject.loaded.logits(&prompt.ids, None);
            let reference = subject.case.tensor(&prompt.logits);
            let distance = worst(&logits.data, &reference.data);
            findings.check(distance <= BF16_TOLERANCE, || format!("{what}: {distance} from bf16"));

            let truth = format!("prompt.{}.logits_f32_bf16scale", prompt.name);
            if subject.case.has_tensor(&truth) {
                let truth = &subject.case.tensor(&truth).data;
                let (ours, theirs) = (mean(&logits.data, truth), mean(&reference.data, truth));
                findings.check(ours < theirs, || format!("{what}: {ours} from the truth, bf16 {theirs}"));
                let distance = worst(&logits.data, truth);
                let tolerance = if subject.fast { BF16_FAST_TOLERANCE } else { 1e-3 };
                findings.check(distance <= tolerance, || format!("{what}: {distance:e} from the truth"));
            }
        }
    }
    findings.assert_none();
}

#[test]
fn bf16_in_pieces_is_bf16_in_one_pass() {
    let mut findings = Findings::default();
    for subject in subjects(&BF16_CASES, &[Precision::Exact, Precision::Fast]) {
        let prompt = subject.case.prompt("long");
        let whole = subject.loaded.logits(&prompt.ids, None);
        for split in splits(prompt.ids.len()) {
            let pieces = subject.loaded.logits(&prompt.ids, split.as_deref());
            let distance = worst(&pieces.data, &whole.data);
            let tolerance = if subject.fast { BF16_FAST_TOLERANCE } else { 1e-4 };
            findings.check(distance <= tolerance, || format!("{} {split:?}: {distance:e}", subject.what));
        }
    }
    findings.assert_none();
}

#[test]
fn senseless_input_is_refused() {
    let subject = Subject::new("gemma1-mqa", "config.json", Precision::Exact);
    let Loaded { engine, model } = &subject.loaded;
    for (ids, split) in [
        (vec![], None),
        (vec![2, 256], None),
        (vec![2, 3, 4], Some(vec![1, 1])),
        (vec![2, 3], Some(vec![2, 0])),
    ] {
        let request = LogitsRequest { ids: ids.clone(), split: split.clone(), ..LogitsRequest::default() };
        let answer = engine.logits(model, request);
        let refused = match &answer {
            Ok(_) => split == Some(vec![2, 0]),
            Err(error) => error.kind() == gemma_engine::ErrorKind::Input,
        };
        assert!(refused, "{ids:?} in pieces {split:?}: {answer:?}");
    }
}
