//! Picking the next token: repetition penalty, temperature, top-k, top-p, min-p, seed.

use std::cmp::Ordering;
use std::collections::HashSet;

use gemma_kernels::Ops;

/// How tokens are picked. The default is greedy.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 picks the most likely token; the other fields but the penalty are then unused.
    pub temperature: f32,
    /// Keep the `k` most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the most likely tokens until their probabilities add up to this; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divide positive and multiply negative logits of tokens already present by this; 1 for none.
    pub repetition_penalty: f32,
    /// The same seed and prompt give the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// The best tokens that are worth finding without the others.
const MOST_NEEDED: usize = 64;

/// Candidates up to which all are put in order.
const SORTED: usize = 1024;

/// Picks tokens for one request.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    state: u64,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling) -> Self {
        // One round of SplitMix64, so that seeds that differ little give unrelated sequences.
        let state = mix(sampling.seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
        Self { sampling, state }
    }

    /// Picks a token by all logits; `seen` are the ids that the repetition penalty applies to. The greatest of a
    /// vocabulary is found by `ops`. `None` where no logit is a number.
    pub(crate) fn pick(&mut self, ops: &dyn Ops, logits: &[f32], seen: &[u32]) -> Option<u32> {
        if self.penalises() {
            let mut logits = logits.to_vec();
            for &id in seen.iter().collect::<HashSet<_>>() {
                if let Some(logit) = logits.get_mut(id as usize) {
                    *logit = self.penalised(*logit);
                }
            }
            return self.draw(ops, &logits);
        }
        self.draw(ops, logits)
    }

    /// Picks one of these tokens by their logits; `None` where there is none.
    pub(crate) fn pick_among(&mut self, mut tokens: Vec<(u32, f32)>, seen: &[u32]) -> Option<u32> {
        if self.penalises() {
            for (_, logit) in tokens.iter_mut().filter(|token| seen.contains(&token.0)) {
                *logit = self.penalised(*logit);
            }
        }
        tokens.retain(|token| !token.1.is_nan());
        let top = tokens.iter().copied().min_by(by_logit)?;
        if self.sampling.temperature <= 0.0 {
            return Some(top.0);
        }
        self.draw_weighted(self.weighted(tokens, top.1))
    }

    /// Whether these, the best of a vocabulary in order, are all that could be picked.
    pub(crate) fn is_served_by(&self, best: &[(u32, f32)]) -> bool {
        let s = &self.sampling;
        let (Some(first), Some(last)) = (best.first(), best.last()) else { return false };
        if self.penalises() {
            return false;
        }
        let least = if s.min_p > 0.0 { f64::from(s.min_p.min(1.0)) } else { 0.0 };
        let weight = f64::from((last.1 - first.1) / s.temperature).exp();
        s.temperature <= 0.0
            || (1..=best.len()).contains(&s.top_k)
            || last.1 < self.floor(first.1)
            || weight < least
    }

    /// How many of the best tokens are always all that could be picked; `None` if only all logits tell.
    pub(crate) fn needs(&self) -> Option<usize> {
        let few = (1..=MOST_NEEDED).contains(&self.sampling.top_k);
        match (self.penalises(), self.is_greedy()) {
            (true, _) => None,
            (false, true) => Some(1),
            (false, false) => few.then_some(self.sampling.top_k),
        }
    }

    /// Whether the most likely token is picked always.
    pub(crate) fn is_greedy(&self) -> bool {
        self.sampling.temperature <= 0.0
    }

    /// Whether tokens already present count less.
    pub(crate) fn penalises(&self) -> bool {
        let penalty = self.sampling.repetition_penalty;
        penalty != 1.0 && penalty > 0.0
    }

    fn penalised(&self, logit: f32) -> f32 {
        let penalty = self.sampling.repetition_penalty;
        if logit > 0.0 { logit / penalty } else { logit * penalty }
    }

    fn draw(&mut self, ops: &dyn Ops, logits: &[f32]) -> Option<u32> {
        let best = ops.greatest(logits);
        let top = logits.get(best).copied().filter(|top| !top.is_nan())?;
        if self.sampling.temperature <= 0.0 {
            return Some(best as u32);
        }
        let floor = self.floor(top).max(reached_by(logits, self.sampling.top_k));
        let tokens = (0..).zip(logits.iter().copied()).filter(|&(_, logit)| logit >= floor).collect();
        self.draw_weighted(self.weighted(tokens, top))
    }

    /// The logit below which nothing can be picked anyway.
    fn floor(&self, top: f32) -> f32 {
        top - 40.0 * self.sampling.temperature
    }

    /// Draws one of the weighted tokens; `None` where there is none.
    fn draw_weighted(&mut self, candidates: Vec<(u32, f64)>) -> Option<u32> {
        let total: f64 = candidates.iter().map(|&(_, p)| p).sum();
        let mut left = self.uniform() * total;
        let drawn = candidates.iter().find(|&(_, p)| {
            left -= p;
            left < 0.0
        });
        drawn.or(candidates.first()).map(|&(id, _)| id)
    }

    /// Those of the tokens that may be picked with their weights, most likely first unless there are very many. `top` is
    /// the best logit.
    fn weighted(&self, mut candidates: Vec<(u32, f32)>, top: f32) -> Vec<(u32, f64)> {
        let s = &self.sampling;
        if s.top_k > 0 && s.top_k < candidates.len() {
            candidates.select_nth_unstable_by(s.top_k - 1, by_logit);
            candidates.truncate(s.top_k);
        }
        let is_short = candidates.len() <= SORTED;
        if is_short {
            candidates.sort_unstable_by(by_logit);
        }
        let weight = |logit: f32| f64::from((logit - top) / s.temperature).exp();
        let mut weighted: Vec<(u32, f64)> = candidates.iter().map(|&(id, l)| (id, weight(l))).collect();
        if s.min_p > 0.0 {
            // The best has weight 1.
            weighted.retain(|&(_, w)| w >= f64::from(s.min_p.min(1.0)));
        }
        if s.top_p < 1.0 {
            keep_share(&mut weighted, f64::from(s.top_p), is_short);
        }
        weighted
    }

    /// Uniform in 0..1.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.state) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Keeps the heaviest tokens that together have at least `share` of the weight of all, heaviest first.
fn keep_share(tokens: &mut Vec<(u32, f64)>, share: f64, are_sorted: bool) {
    let total: f64 = tokens.iter().map(|&(_, weight)| weight).sum();
    let (mut sum, mut sorted) = (0.0, if are_sorted { tokens.len() } else { 0 });
    let mut enough = 0;
    // One in any case.
    while enough < tokens.len() && (enough == 0 || sum / total < share) {
        if enough == sorted {
            // As many again as are in order: most often a few of a vocabulary are enough.
            let rest = &mut tokens[sorted..];
            let part = rest.len().min(sorted.max(SORTED));
            if part < rest.len() {
                rest.select_nth_unstable_by(part - 1, by_weight);
            }
            rest[..part].sort_unstable_by(by_weight);
            sorted += part;
        }
        sum += tokens[enough].1;
        enough += 1;
    }
    tokens.truncate(enough);
}

/// A logit that at least `k` tokens reach, and few more: the greatest of as many groups reach it. None of the `k` best
/// is below it, and a vocabulary need not be sorted for them.
fn reached_by(logits: &[f32], k: usize) -> f32 {
    const GROUP: usize = 64;
    const LANES: usize = 16;
    if k == 0 || k > logits.len() / GROUP {
        return f32::NEG_INFINITY;
    }
    let mut greatest: Vec<f32> = logits
        .chunks_exact(GROUP)
        .map(|group| {
            // In lanes, so that it vectorises.
            let mut lanes = [f32::NEG_INFINITY; LANES];
            for part in group.chunks_exact(LANES) {
                for (lane, &logit) in lanes.iter_mut().zip(part) {
                    *lane = if logit > *lane { logit } else { *lane };
                }
            }
            lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
        })
        .collect();
    *greatest.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}

/// The better first; of equals the lower id.
fn by_logit(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The heavier first; of equals the lower id.
fn by_weight(a: &(u32, f64), b: &(u32, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The output function of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use gemma_kernels::Reference;

    use super::*;

    fn pick(sampling: Sampling, logits: &[f32], seen: &[u32]) -> u32 {
        Sampler::new(sampling).pick(&Reference, logits, seen).expect("there are numbers")
    }

    /// Ids picked in 2,000 draws with different seeds.
    fn picked(sampling: Sampling, logits: &[f32]) -> Vec<u32> {
        let mut ids: Vec<u32> =
            (0..2000).map(|seed| pick(Sampling { seed, ..sampling.clone() }, logits, &[])).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn hot() -> Sampling {
        Sampling { temperature: 1.0, ..Sampling::default() }
    }

    #[test]
    fn greedy_takes_the_first_of_the_best() {
        assert_eq!(pick(Sampling::default(), &[0.0, 3.0, 3.0, -1.0], &[]), 1);
        assert_eq!(pick(Sampling::default(), &[f32::NAN, 1.0], &[]), 1);
    }

    #[test]
    fn the_penalty_makes_seen_tokens_less_likely_whatever_their_sign() {
        let penalty = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        assert_eq!(pick(penalty.clone(), &[3.0, 2.0], &[0, 0]), 1);
        assert_eq!(pick(penalty, &[-1.0, -1.5], &[0, 99]), 1);
    }

    #[test]
    fn filters_keep_what_they_say() {
        let logits = [1.0, 0.9, 0.8, 0.7];
        assert_eq!(picked(hot(), &logits), [0, 1, 2, 3]);
        assert_eq!(picked(Sampling { top_k: 2, ..hot() }, &logits), [0, 1]);
        assert_eq!(picked(Sampling { top_p: 0.5, ..hot() }, &logits), [0, 1]);
        assert_eq!(picked(Sampling { min_p: 0.85, ..hot() }, &logits), [0, 1]);
        assert_eq!(picked(Sampling { top_p: 0.0, ..hot() }, &logits), [0]);
    }

    /// The best `k` of some logits, as a device gives them.
    fn best(logits: &[f32], k: usize) -> Vec<(u32, f32)> {
        let mut tokens: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        tokens.sort_by(by_logit);
        tokens.truncate(k);
        tokens
    }

    #[test]
    fn the_best_tokens_serve_wherever_no_other_could_be_picked() {
        let logits: Vec<f32> = (0..100).map(|i| ((i * 37) % 100) as f32 * 0.1).collect();
        let few = best(&logits, 8);
        let served = |sampling: Sampling| Sampler::new(sampling).is_served_by(&few);
        assert!(served(Sampling::default()) && served(Sampling { top_k: 8, ..hot() }));
        assert!(served(Sampling { min_p: 0.6, ..hot() }) && served(Sampling { temperature: 0.01, ..hot() }));
        assert!(
            !served(hot())
                && !served(Sampling { top_k: 9, ..hot() })
                && !served(Sampling { top_p: 0.5, ..hot() })
        );
        assert!(!served(Sampling { repetition_penalty: 1.1, ..Sampling::default() }));
        for sampling in
            [Sampling::default(), Sampling { top_k: 5, ..hot() }, Sampling { min_p: 0.6, ..hot() }]
        {
            for seed in 0..50 {
                let sampler = || Sampler::new(Sampling { seed, ..sampling.clone() });
                assert_eq!(sampler().pick_among(few.clone(), &[]), sampler().pick(&Reference, &logits, &[]));
            }
        }
    }

    #[test]
    fn the_best_of_a_long_vocabulary_are_drawn_from_as_if_all_were_sorted() {
        // Few values, so that many tokens are equal, best ones side by side and apart, and numbers that are none.
        let mut logits: Vec<f32> =
            (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 27) as f32).collect();
        logits[1000..1030].fill(40.0);
        logits[4990..].fill(39.0);
        logits[64..200].fill(f32::NAN);
        let numbers: Vec<f32> =
            logits.iter().map(|v| if v.is_nan() { f32::NEG_INFINITY } else { *v }).collect();
        for top_k in [1, 29, 30, 31, 40, 64, 78, 79, 500, 4999, 6000] {
            let sampling = Sampling { top_k, temperature: 9.0, top_p: 0.95, ..hot() };
            let mut sorted = best(&numbers, top_k);
            sorted.retain(|token| token.1.is_finite());
            for seed in 0..40 {
                let mut of_all = Sampler::new(Sampling { seed, ..sampling.clone() });
                let mut of_best = Sampler::new(Sampling { seed, ..sampling.clone() });
                let want = of_best.pick_among(sorted.clone(), &[]);
                assert_eq!(of_all.pick(&Reference, &logits, &[]), want, "of {top_k}");
            }
        }
    }

    /// What is kept of a long vocabulary is what sorting all of it would keep.
    #[test]
    fn a_share_of_the_probability_is_found_without_sorting_a_vocabulary() {
        let logits: Vec<f32> =
            (0..20_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as f32 / 400.0).collect();
        for temperature in [0.3, 1.0, 8.0, 100.0] {
            for top_p in [0.0, 0.01, 0.5, 0.9, 0.999, 0.999_999] {
                let sampler = Sampler::new(Sampling { temperature, top_p, ..hot() });
                let all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
                let (top, sorted) = (best(&logits, 1)[0].1, best(&logits, logits.len()));
                let got = sampler.weighted(all, top);
                let weight = |logit: f32| f64::from((logit - top) / temperature).exp();
                let total: f64 = sorted.iter().map(|token| weight(token.1)).sum();
                let mut sum = 0.0;
                let enough = sorted.iter().position(|token| {
                    sum += weight(token.1) / total;
                    sum >= f64::from(top_p)
                });
                let kept = enough.map_or(sorted.len(), |last| last + 1);
                let what = format!("{top_p} at {temperature}: {} and {kept} of {}", got.len(), sorted.len());
                // Sums of so many numbers in another order differ in their last bits.
                assert!(got.len().abs_diff(kept) <= 1, "{what}");
                let same = got.iter().zip(&sorted).all(|(got, sorted)| got.1 == weight(sorted.1));
                assert!(same, "{what}");
            }
        }
    }

    #[test]
    fn where_nothing_is_a_number_nothing_is_picked() {
        let none = [f32::NAN; 8];
        for sampling in [Sampling::default(), hot(), Sampling { top_k: 3, top_p: 0.5, ..hot() }] {
            let mut sampler = Sampler::new(sampling);
            assert_eq!(sampler.pick(&Reference, &none, &[1]), None);
            assert_eq!(sampler.pick(&Reference, &[], &[]), None);
            assert_eq!(sampler.pick_among(vec![(3, f32::NAN)], &[]), None);
            assert_eq!(sampler.pick_among(vec![(3, f32::NAN), (4, -1.0)], &[]), Some(4));
        }
        let penalty = Sampling { repetition_penalty: 1.5, ..Sampling::default() };
        assert_eq!(Sampler::new(penalty).pick(&Reference, &none, &[1]), None);
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let logits = [0.0, (3.0f32).ln()];
        let ones: u32 = (0..4000).map(|seed| pick(Sampling { seed, ..hot() }, &logits, &[])).sum();
        assert!((2880..3120).contains(&ones), "{ones} of 4000, not about three quarters");
    }

    #[test]
    fn a_seed_fixes_the_sequence() {
        let draw = |seed| {
            let mut sampler = Sampler::new(Sampling { seed, ..hot() });
            (0..20).filter_map(|_| sampler.pick(&Reference, &[0.5; 50], &[])).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}
