//! What a model's passes cost on this machine and what drafts of it are worth, as measured lately: how many tokens to
//! try ahead of their turn follows from the two.
//!
//! A draft is verified in one pass, so it costs what the pass is longer for its rows, and saves a pass for each
//! token that was right. Where it does not pay it is not made; the belief in it then comes back slowly, so that it
//! is tried again now and then.

use std::time::Duration;

use gemma_kernels::FEW_ROWS;

use crate::engine::Speed;

/// Tokens tried ahead of their turn, at most.
pub(super) const LONGEST_DRAFT: usize = 8;
/// What a new measurement counts against all before it.
const WEIGHT: f64 = 0.1;
/// A row more, in passes of one row, until it was measured.
const ROW: f64 = 0.15;
/// How likely a drafted token is right before anything is known, by how many tokens before it agree: one, two, three,
/// up to five, more.
const HOPES: [f64; 5] = [0.25, 0.4, 0.55, 0.7, 0.85];
/// How fast a belief that is not tested goes back to the hope.
const RECOVERY: f64 = 0.005;

/// Measurements of one model.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// Milliseconds for a prompt's token, among many.
    prefill: Option<f64>,
    /// Milliseconds of a pass by its rows, the first for one row.
    passes: [Option<f64>; LONGEST_DRAFT + 1],
    /// How often a drafted token was right.
    right: [f64; HOPES.len()],
}

impl Default for Pace {
    fn default() -> Self {
        Self { prefill: None, passes: Default::default(), right: HOPES }
    }
}

impl Pace {
    /// Notes how long a pass took from its begin to its end, the logits of `rows` included.
    pub(super) fn passed(&mut self, tokens: usize, rows: usize, took: Duration) {
        /// Fewer tokens than this are bound by memory: their time says little about a token.
        const MANY: usize = 16;
        let ms = took.as_secs_f64() * 1000.0;
        if tokens >= MANY {
            blend(&mut self.prefill, ms / tokens as f64);
        } else if tokens == rows
            && let Some(pass) = self.passes.get_mut(tokens.wrapping_sub(1))
        {
            blend(pass, ms);
        }
    }

    /// Notes how a draft behind `agreed` tokens fared: of `drafted` tokens the first `right` were right.
    pub(super) fn drafted(&mut self, agreed: usize, drafted: usize, right: usize) {
        let belief = &mut self.right[class(agreed)];
        for i in 0..drafted.min(right + 1) {
            let outcome = if i < right { 1.0 } else { 0.0 };
            *belief += (outcome - *belief) * WEIGHT;
        }
    }

    /// How many tokens to try behind `agreed` ones in a pass that has `certain` tokens to compute anyway.
    pub(super) fn draft_length(&mut self, agreed: usize, certain: usize) -> usize {
        let class = class(agreed);
        let right = self.right[class];
        let first = self.pass(1) + self.prefill.unwrap_or(0.0) * certain.saturating_sub(1) as f64;
        // Tokens for the time: what is expected to be right, over what the pass takes.
        let (mut best, mut best_rate) = (0, 1.0 / first);
        let (mut expected, mut chance) = (1.0, 1.0);
        // A pass of few tokens stays one, since longer ones may round otherwise: a draft changes no answer.
        let room = FEW_ROWS.checked_sub(certain).unwrap_or(LONGEST_DRAFT);
        for length in 1..=LONGEST_DRAFT.min(room) {
            chance *= right;
            expected += chance;
            let rate = expected / (first + self.pass(1 + length) - self.pass(1));
            if rate > best_rate {
                (best, best_rate) = (length, rate);
            }
        }
        if best == 0 {
            self.right[class] += (HOPES[class] - right) * RECOVERY;
        }
        best
    }

    /// Milliseconds of a pass of `rows` rows, as far as measurements tell; in passes of one row if nothing was
    /// measured yet.
    fn pass(&self, rows: usize) -> f64 {
        if let Some(ms) = self.passes[rows - 1] {
            return ms;
        }
        let one = self.passes[0].unwrap_or(1.0);
        // Between neighbours that were measured, or beyond the last.
        let below = (0..rows - 1).rev().find_map(|i| Some((i + 1, self.passes[i]?)));
        let above = (rows..self.passes.len()).find_map(|i| Some((i + 1, self.passes[i]?)));
        match (below, above) {
            (Some((from, low)), Some((to, high))) => {
                low + (high - low) * (rows - from) as f64 / (to - from) as f64
            }
            (Some((from, low)), None) => low + one * ROW * (rows - from) as f64,
            (None, Some((to, high))) => (high - one * ROW * (to - rows) as f64).max(0.5 * high),
            (None, None) => one * (1.0 + ROW * (rows - 1) as f64),
        }
    }

    /// For people and deadlines.
    pub(super) fn speed(&self) -> Option<Speed> {
        let decode_ms = self.passes[0].or(self.prefill)?;
        Some(Speed { prefill_ms: self.prefill.unwrap_or(decode_ms), decode_ms })
    }
}

fn blend(mean: &mut Option<f64>, new: f64) {
    *mean = Some(mean.map_or(new, |mean| mean + (new - mean) * WEIGHT));
}

fn class(agreed: usize) -> usize {
    match agreed {
        0..=3 => agreed.saturating_sub(1),
        4..=5 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(rows_ms: &[(usize, u64)]) -> Pace {
        let mut pace = Pace::default();
        for &(rows, ms) in rows_ms {
            pace.passed(rows, rows, Duration::from_millis(ms));
        }
        pace
    }

    #[test]
    fn drafts_are_long_where_rows_are_cheap_and_hits_are_many() {
        let mut cheap = measured(&[(1, 100), (9, 120)]);
        assert_eq!(cheap.draft_length(8, 1), LONGEST_DRAFT);
        let mut dear = measured(&[(1, 100), (9, 900)]);
        assert_eq!(dear.draft_length(1, 1), 0, "a row costs what a pass does");
        assert!(cheap.draft_length(1, 1) < LONGEST_DRAFT, "one token that agrees says little");
    }

    #[test]
    fn a_draft_does_not_make_a_pass_of_few_tokens_one_of_many() {
        let mut cheap = measured(&[(1, 100), (9, 120)]);
        let lengths = [FEW_ROWS - 3, FEW_ROWS, FEW_ROWS + 1].map(|certain| cheap.draft_length(8, certain));
        assert_eq!(lengths, [3, 0, LONGEST_DRAFT]);
    }

    #[test]
    fn what_fails_is_given_up_and_tried_again_later() {
        let mut pace = measured(&[(1, 100), (9, 300)]);
        assert!(pace.draft_length(3, 1) > 0);
        for _ in 0..100 {
            pace.drafted(3, 4, 0);
        }
        assert_eq!(pace.draft_length(3, 1), 0);
        assert!(pace.draft_length(8, 1) > 0, "longer agreement is judged by itself");
        let again = (0..2000).position(|_| pace.draft_length(3, 1) > 0);
        assert!(again.is_some_and(|after| after > 20), "{again:?}");
        for _ in 0..100 {
            pace.drafted(3, 4, 4);
        }
        assert!(pace.draft_length(3, 1) >= 4);
    }

    #[test]
    fn what_was_not_measured_is_told_from_its_neighbours() {
        let pace = measured(&[(1, 10), (5, 18)]);
        assert_eq!((pace.pass(3), pace.pass(5)), (14.0, 18.0));
        assert!(pace.pass(9) > 18.0);
        let pace = measured(&[(4, 20)]);
        assert!(pace.pass(1) < 20.0 && pace.pass(1) >= 10.0);
        assert_eq!(Pace::default().speed(), None);
    }
}
