//! Keys and values in 8 bits: how far the tiny models' logits move from the reference's, and that what is kept gives the
//! answer of a cold start.

use gemma_engine::{EngineOptions, KvFormat, Precision};
use gemma_tests::golden::Case;
use gemma_tests::models::{Loaded, certainty};
use gemma_tests::numbers::{Findings, worst};

const CASES: [&str; 4] = ["gemma1-mqa", "gemma1-mha", "gemma2-gqa", "gemma3-text"];

/// How far logits may stand from the f32 reference: a key's or value's number moves by up to 1/254 of the greatest
/// of its row, and random weights make much of that: 0.17 at most was seen.
const TOLERANCE: f32 = 0.25;
/// Rows of a pass up to which a row has the same bits in every pass.
const FEW: usize = 16;
/// Tokens of a prompt that has room in such a pass together with the longest draft.
const PROMPT: usize = 8;

fn loaded(case: &Case, kv_format: Option<KvFormat>) -> Loaded {
    let options = EngineOptions { kv_format, ..EngineOptions::default() };
    Loaded::with(case.checkpoint("config.json").path(), Precision::Fast, options)
}

#[test]
fn eight_bits_stay_near_the_reference() {
    let mut findings = Findings::default();
    for name in CASES {
        let case = Case::read(name);
        let (bytes, floats) = (loaded(&case, Some(KvFormat::Q8)), loaded(&case, None));
        let (config, taken) = (bytes.model.config(), bytes.model.kv_bytes_per_token());
        assert_eq!(taken, config.kv_bytes_per_token(KvFormat::Q8) as u64);
        for prompt in &case.golden.prompts {
            let what = format!("{name} {}", prompt.name);
            let logits = bytes.logits(&prompt.ids, None);
            let distance = worst(&logits.data, &case.tensor(&prompt.logits).data);
            findings.check(distance <= TOLERANCE, || format!("{what}: {distance:e} from the reference"));
            let same = logits.data == floats.logits(&prompt.ids, None).data;
            findings.check(!same || prompt.ids.len() == 1, || format!("{what}: nothing was rounded"));
        }
    }
    findings.assert_none();
}

#[test]
fn what_is_kept_in_eight_bits_gives_the_bits_of_a_cold_start() {
    let mut findings = Findings::default();
    for name in CASES {
        let case = Case::read(name);
        let ids = &case.prompt("long").ids;
        let ids = &ids[..ids.len().min(FEW)];
        let cold = loaded(&case, Some(KvFormat::Q8));
        let whole = cold.logits(ids, None);
        for at in 1..ids.len() {
            let pieces = cold.logits(ids, Some(&[at, ids.len() - at]));
            findings.check(pieces.data == whole.data, || format!("{name}, cut at {at}"));
        }
        let ids = &ids[..PROMPT];
        for kept in [1, PROMPT / 2, PROMPT - 1] {
            let warm = loaded(&case, Some(KvFormat::Q8));
            warm.greedy(&ids[..kept], 1);
            let (after, fresh) = (warm.greedy(ids, 8), loaded(&case, Some(KvFormat::Q8)).greedy(ids, 8));
            let cached = after.finished.timings.cached_tokens;
            findings.check(cached >= kept, || format!("{name}: {cached} of {kept} tokens were kept"));
            let logprobs = |g: &gemma_tests::models::Generated| {
                g.tokens.iter().map(|token| (token.id, certainty(token).to_bits())).collect::<Vec<_>>()
            };
            findings.check(logprobs(&after) == logprobs(&fresh), || format!("{name}, {kept} tokens kept"));
        }
    }
    findings.assert_none();
}
