//! What was measured of each order, over all places and over parts of them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::bench::fim::measure::{Filled, Place};
use crate::bench::fim::samples::KINDS;
use crate::bench::fim::verdict::{Verdict, key_tokens, mean, nll};
use crate::settings::FimOrder;

/// Means over places filled in one order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Means {
    /// How many places.
    pub places: usize,
    /// Share of them filled with exactly what stood there.
    pub exact: f64,
    /// Share of them whose first token is the one that stood there.
    pub first_token: f64,
    /// How alike what would be shown is to what stood there.
    pub similarity: f64,
    /// Negative logarithm of the probability of a token of what stood there.
    pub nll: Option<f64>,
    /// Tokens of a prompt.
    pub tokens_asked: f64,
    /// Prompt tokens computed for a key typed behind the place.
    pub key_tokens: Option<f64>,
    /// Time from such a key to the first token.
    pub key_ms: Option<f64>,
    /// Time to the first token at a place that was not seen before.
    pub ttft_ms: f64,
    /// Time to the end of that answer.
    pub total_ms: f64,
}

impl Means {
    /// Of places filled; `None` of none.
    pub fn of(filled: &[&Filled]) -> Option<Self> {
        let over = |value: fn(&Filled) -> f64| mean(filled.iter().map(|filled| value(filled)));
        let share = |is: bool| f64::from(u8::from(is));
        Some(Self {
            places: filled.len(),
            exact: mean(filled.iter().map(|filled| share(filled.exact)))?,
            first_token: mean(filled.iter().map(|filled| share(filled.first_token)))?,
            similarity: over(|filled| filled.similarity)?,
            nll: nll(filled),
            tokens_asked: over(|filled| filled.tokens_asked as f64)?,
            key_tokens: mean(key_tokens(filled)),
            key_ms: mean(filled.iter().flat_map(|filled| filled.key_ms.iter().copied())),
            ttft_ms: over(|filled| filled.ttft_ms)?,
            total_ms: over(|filled| filled.total_ms)?,
        })
    }
}

/// An order with its means.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The order.
    pub order: FimOrder,
    /// Over all places.
    pub all: Means,
    /// Over the places of each kind that there are, by its words.
    pub kinds: Vec<(&'static str, Means)>,
    /// Over the places in each language.
    pub languages: BTreeMap<&'static str, Means>,
}

/// The means of each order.
pub fn rows(orders: &[FimOrder], places: &[Place]) -> Vec<Row> {
    let row = |(i, &order): (usize, &FimOrder)| {
        let of = |chosen: &dyn Fn(&Place) -> bool| {
            let filled: Vec<&Filled> =
                places.iter().filter(|place| chosen(place)).map(|place| &place.filled[i]).collect();
            Means::of(&filled)
        };
        let kinds = KINDS.iter().filter_map(|&kind| Some((kind.words(), of(&|p| p.sample.kind == kind)?)));
        let mut languages: Vec<_> = places.iter().map(|place| place.sample.source.language).collect();
        languages.dedup();
        let languages = languages
            .into_iter()
            .filter_map(|language| Some((language.id(), of(&|p| p.sample.source.language == language)?)));
        Some(Row { order, all: of(&|_| true)?, kinds: kinds.collect(), languages: languages.collect() })
    };
    orders.iter().enumerate().filter_map(row).collect()
}

/// Everything as one JSON object; `setup` stands at its beginning.
pub fn to_json(setup: &Value, orders: &[FimOrder], places: &[Place], verdict: Option<&Verdict>) -> Value {
    let rows: Vec<Value> = rows(orders, places)
        .iter()
        .map(|row| {
            let kinds: BTreeMap<_, _> = row.kinds.iter().map(|(kind, means)| (*kind, means)).collect();
            json!({"order": row.order.name(), "all": row.all, "kinds": kinds, "languages": row.languages})
        })
        .collect();
    let places: Vec<Value> = places
        .iter()
        .map(|place| {
            let sample = &place.sample;
            let filled: BTreeMap<_, _> = orders.iter().map(|order| order.name()).zip(&place.filled).collect();
            json!({
                "file": sample.source.shown,
                "line": sample.line(),
                "language": sample.source.language.id(),
                "kind": sample.kind.words(),
                "middle": sample.middle(),
                "orders": filled,
            })
        })
        .collect();
    json!({"setup": setup, "orders": rows, "verdict": verdict, "places": places})
}
