//! Which order to use: the cheapest of those that are as good as the best, where "as good" is what the places
//! measured cannot tell apart.

use serde::Serialize;

use crate::bench::fim::measure::{Filled, Place};
use crate::bench::random::Random;
use crate::settings::FimOrder;

/// A difference that chance brings about less often than this is one.
const CHANCE: f64 = 0.05;
/// So often a mean is taken anew of places drawn from those measured.
const DRAWS: usize = 2000;
/// Orders whose keys cost the same within this many tokens are equally dear.
const SAME_COST: f64 = 2.0;

/// How an order compares with the best one, place by place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The order.
    #[serde(serialize_with = "name")]
    pub order: FimOrder,
    /// Its mean similarity less that of the best one.
    pub difference: f64,
    /// Where that would lie in 95 of 100 repetitions with other places (paired bootstrap).
    pub interval: (f64, f64),
    /// Places that only this order filled exactly.
    pub wins: usize,
    /// Places that only the best one filled exactly.
    pub losses: usize,
    /// How often chance alone makes wins and losses so unequal (sign test).
    pub p: f64,
    /// Prompt tokens computed for a key, in the mean.
    pub key_tokens: f64,
    /// Negative logarithm of the probability of a token of what stood there, in the mean.
    pub nll: f64,
    /// Whether it cannot be told from the best one.
    pub as_good: bool,
}

/// What to use.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// The order to use.
    #[serde(serialize_with = "name")]
    pub order: FimOrder,
    /// The order with the highest similarity.
    #[serde(serialize_with = "name")]
    pub best: FimOrder,
    /// All orders against that one.
    pub comparisons: Vec<Comparison>,
}

fn name<S: serde::Serializer>(order: &FimOrder, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(order.name())
}

/// Compares the orders of places that were all filled in each of them; `None` without a place.
pub fn verdict(orders: &[FimOrder], places: &[Place], seed: u64) -> Option<Verdict> {
    let column = |i: usize| -> Vec<&Filled> { places.iter().map(|place| &place.filled[i]).collect() };
    let similarity = |i: usize| mean(column(i).iter().map(|filled| filled.similarity)).unwrap_or_default();
    // On a tie the one named first.
    let best = (0..orders.len()).rev().max_by(|&a, &b| similarity(a).total_cmp(&similarity(b)))?;
    if places.is_empty() {
        return None;
    }
    let compared = (0..orders.len()).map(|i| compare(orders[i], &column(i), &column(best), seed));
    let comparisons: Vec<Comparison> = compared.collect();
    let good = || comparisons.iter().filter(|comparison| comparison.as_good);
    let cheapest = good().map(|comparison| comparison.key_tokens).min_by(f64::total_cmp)?;
    let cheap = good().filter(|comparison| comparison.key_tokens <= cheapest + SAME_COST);
    let order = cheap.min_by(|a, b| a.nll.total_cmp(&b.nll))?.order;
    Some(Verdict { order, best: orders[best], comparisons })
}

fn compare(order: FimOrder, these: &[&Filled], best: &[&Filled], seed: u64) -> Comparison {
    let pairs = || these.iter().zip(best);
    let differences: Vec<f64> = pairs().map(|(a, b)| a.similarity - b.similarity).collect();
    let wins = pairs().filter(|(a, b)| a.exact && !b.exact).count();
    let losses = pairs().filter(|(a, b)| !a.exact && b.exact).count();
    let (interval, p) = (interval(&differences, seed), sign_test(wins, losses));
    let worse = interval.1 < 0.0 || (losses > wins && p < CHANCE);
    Comparison {
        order,
        difference: mean(differences).unwrap_or_default(),
        interval,
        wins,
        losses,
        p,
        key_tokens: mean(key_tokens(these)).unwrap_or_default(),
        nll: nll(these).unwrap_or_default(),
        as_good: !worse,
    }
}

/// The tokens of each key of all places.
pub fn key_tokens<'a>(filled: &'a [&Filled]) -> impl Iterator<Item = f64> + 'a {
    filled.iter().flat_map(|filled| filled.key_tokens.iter().map(|&tokens| tokens as f64))
}

/// The negative logarithm of the probability of a token, over all tokens of all places.
pub fn nll(filled: &[&Filled]) -> Option<f64> {
    let tokens: usize = filled.iter().map(|filled| filled.nll_tokens).sum();
    let sum: f64 = filled.iter().map(|filled| filled.nll).sum();
    (tokens > 0).then(|| sum / tokens as f64)
}

/// The mean of numbers; `None` of none.
pub fn mean(numbers: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for number in numbers {
        sum += number;
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}

/// Where the mean lies in 95 of 100 sets of as many numbers drawn from these (percentile bootstrap).
fn interval(numbers: &[f64], seed: u64) -> (f64, f64) {
    let mut random = Random::new(seed);
    let draw = |random: &mut Random| mean(numbers.iter().map(|_| numbers[random.below(numbers.len())]));
    let mut means: Vec<f64> = (0..DRAWS).filter_map(|_| draw(&mut random)).collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means.get((share * DRAWS as f64) as usize).copied().unwrap_or_default();
    (at(CHANCE / 2.0), at(1.0 - CHANCE / 2.0))
}

/// How often a fair coin falls at least as unequally, counted on both sides.
fn sign_test(wins: usize, losses: usize) -> f64 {
    let (count, fewer) = (wins + losses, wins.min(losses));
    // ln of the number of ways to choose k of all, less that of all ways.
    let mut ways = -(count as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for k in 0..=fewer {
        tail += ways.exp();
        ways += ((count - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bench::fim::samples::{Kind, Sample, Source};
    use crate::language::Language;

    fn filled(similarity: f64, key_tokens: usize, nll: f64) -> Filled {
        Filled {
            shown: String::new(),
            exact: similarity >= 1.0,
            first_token: false,
            similarity,
            tokens_asked: 100,
            ttft_ms: 1.0,
            total_ms: 1.0,
            nll,
            nll_tokens: 1,
            key_tokens: vec![key_tokens; 2],
            key_ms: vec![1.0; 2],
        }
    }

    /// Places of which each was filled so in each order.
    fn places(count: usize, each: impl Fn(usize) -> Vec<Filled>) -> Vec<Place> {
        let source = Arc::new(Source {
            path: "/a.rs".into(),
            shown: "a.rs".into(),
            language: Language::Rust,
            text: "x".into(),
        });
        let sample = Sample { source, kind: Kind::Block, range: 0..1 };
        (0..count).map(|i| Place { sample: sample.clone(), filled: each(i) }).collect()
    }

    const ORDERS: [FimOrder; 3] = [FimOrder::Psm, FimOrder::Spm, FimOrder::SpmMiddleLast];

    #[test]
    fn the_cheapest_of_those_as_good_as_the_best_wins() {
        // Here better, there worse: chance.
        let swing = |i: usize| if i.is_multiple_of(2) { 0.52 } else { 0.47 };
        let places =
            places(60, |i| vec![filled(0.5, 130, 1.0), filled(swing(i), 2, 1.1), filled(0.49, 1, 1.3)]);
        let verdict = verdict(&ORDERS, &places, 1).expect("places");
        assert_eq!((verdict.best, verdict.order), (FimOrder::Psm, FimOrder::Spm));
        let [psm, spm, last] = &verdict.comparisons[..] else { panic!("three") };
        assert!(psm.as_good && spm.as_good && psm.difference == 0.0);
        // A difference that is the same everywhere is no chance, however small.
        assert!(!last.as_good && last.interval.1 < 0.0, "{last:?}");
    }

    #[test]
    fn a_clearly_better_order_wins_whatever_it_costs() {
        let better = |i: usize| if i.is_multiple_of(3) { 1.0 } else { 0.5 };
        let places = places(60, |i| {
            vec![filled(better(i), 130, 1.0), filled(0.45, 1, 1.0), filled(better(i) - 0.2, 1, 1.0)]
        });
        let verdict = verdict(&ORDERS, &places, 1).expect("places");
        assert_eq!((verdict.best, verdict.order), (FimOrder::Psm, FimOrder::Psm));
        assert_eq!((verdict.comparisons[1].wins, verdict.comparisons[1].losses), (0, 20));
    }

    #[test]
    fn of_equally_dear_orders_the_likelier_one_wins() {
        let places = places(20, |_| vec![filled(0.5, 130, 1.0), filled(0.5, 1, 1.2), filled(0.5, 2, 0.9)]);
        let verdict = verdict(&ORDERS, &places, 1).expect("places");
        assert_eq!(verdict.order, FimOrder::SpmMiddleLast);
        assert_eq!(super::verdict(&ORDERS, &[], 1), None);
    }

    #[test]
    fn the_sign_test_is_that_of_the_tables() {
        for (wins, losses, p) in
            [(0, 0, 1.0), (0, 5, 0.0625), (1, 9, 0.021_484), (5, 5, 1.0), (400, 300, 0.000_178)]
        {
            assert!(
                (sign_test(wins, losses) - p).abs() < 2e-5,
                "{wins} {losses}: {}",
                sign_test(wins, losses)
            );
        }
    }

    #[test]
    fn an_interval_holds_the_mean_and_narrows_with_more_places() {
        let numbers = |count: usize| (0..count).map(|i| (i % 10) as f64).collect::<Vec<_>>();
        let (few, many) = (interval(&numbers(20), 1), interval(&numbers(2000), 1));
        assert!(few.0 < 4.5 && 4.5 < few.1 && many.0 < 4.5 && 4.5 < many.1);
        assert!(many.1 - many.0 < (few.1 - few.0) / 5.0);
        assert_eq!(interval(&[0.25; 8], 1), (0.25, 0.25));
    }
}
