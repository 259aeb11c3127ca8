//! What was measured, request by request and over all of them.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::bench::client::Reply;
use crate::bench::kind::{KINDS, Kind};
use crate::bench::replay::Outcome;
use crate::bench::trace::{Complete, Position};

/// What an answer says of itself, in the terms of a report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    reason: Option<String>,
    rule: Option<String>,
    error: Option<String>,
    text: Option<String>,
    tokens: Option<(u64, u64)>,
    decode_tokens: Option<u64>,
    forward_passes: Option<u64>,
    draft_tokens: Option<u64>,
    accepted_tokens: Option<u64>,
    queue_ms: Option<f64>,
    ttft_ms: Option<f64>,
    total_ms: f64,
}

impl Measured {
    /// Of an answer to `textDocument/inlineCompletion`: its items, and its member `gemma`.
    pub fn of(reply: &Reply) -> Self {
        let mut measured = Self { total_ms: reply.took.as_secs_f64() * 1e3, ..Self::default() };
        let result = match &reply.result {
            Ok(result) => result,
            Err(error) => {
                measured.error = Some(error.clone());
                return measured;
            }
        };
        measured.text = result["items"][0]["insertText"].as_str().map(str::to_owned);
        let told = &result["gemma"];
        let (text, count) =
            (|key: &str| told[key].as_str().map(str::to_owned), |key: &str| told[key].as_u64());
        measured.reason = text("reason");
        measured.rule = text("rule");
        measured.tokens = count("tokensFound").zip(count("tokensComputed"));
        measured.decode_tokens = count("decodeTokens");
        measured.forward_passes = count("decodePasses");
        measured.draft_tokens = count("draftTokens");
        measured.accepted_tokens = count("acceptedTokens");
        measured.queue_ms = told["queueMs"].as_f64();
        // Of a request that was given up, the time until then is no time to a token.
        let given_up = matches!(measured.reason.as_deref(), Some("superseded" | "disabled" | "loading"));
        measured.ttft_ms = told["firstTokenMs"].as_f64().filter(|_| !given_up);
        measured
    }
}

/// A request of a trace, and what became of it. Numbers are absent where nothing was computed, or the server
/// does not tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Request {
    /// Which time the trace was played.
    pub round: usize,
    /// Its number in the trace.
    pub number: usize,
    /// When it comes in the trace, in milliseconds.
    pub t_ms: u64,
    /// The document, relative to the workspace.
    pub document: String,
    /// The cursor.
    pub position: Position,
    /// What it is a case of.
    pub kind: Kind,
    /// `shown`, or why not.
    pub reason: Option<String>,
    /// The rule that decided that.
    pub rule: Option<String>,
    /// What failed.
    pub error: Option<String>,
    /// Tokens of the prompt.
    pub tokens_asked: Option<u64>,
    /// Those that were kept from before.
    pub tokens_found: Option<u64>,
    /// Those that were computed; 0 where the answer was there already.
    pub tokens_computed: Option<u64>,
    /// Tokens generated.
    pub decode_tokens: Option<u64>,
    /// Forward passes for those.
    pub forward_passes: Option<u64>,
    /// Tokens tried ahead of their turn.
    pub draft_tokens: Option<u64>,
    /// Those of them that were right.
    pub accepted_tokens: Option<u64>,
    /// Waiting for the engine.
    pub queue_ms: Option<f64>,
    /// From the request to its first token, the prompt's layout included; to the answer where none was
    /// computed.
    pub ttft_ms: Option<f64>,
    /// From the request to the answer.
    pub total_ms: f64,
    /// What was shown.
    pub text: Option<String>,
    /// How many characters of that are what was typed next.
    pub agreed_chars: usize,
}

impl Request {
    /// A request and its answer.
    pub fn new(
        (round, number): (usize, usize),
        t_ms: u64,
        document: String,
        kind: Kind,
        complete: &Complete,
        measured: Measured,
    ) -> Self {
        let shown = measured.text.as_deref().unwrap_or_default();
        let expected = complete.expect_prefix.chars();
        let agreed_chars = shown.chars().zip(expected).take_while(|(a, b)| a == b).count();
        // Served from what an earlier request computed.
        let served = measured.tokens.is_none() && measured.text.is_some();
        let (found, computed) = measured.tokens.unzip();
        Self {
            round,
            number,
            t_ms,
            document,
            position: complete.position,
            kind,
            tokens_asked: measured.tokens.map(|(found, computed)| found + computed),
            tokens_found: found,
            tokens_computed: computed.or(served.then_some(0)),
            decode_tokens: measured.decode_tokens,
            forward_passes: measured.forward_passes,
            draft_tokens: measured.draft_tokens,
            accepted_tokens: measured.accepted_tokens,
            queue_ms: measured.queue_ms,
            ttft_ms: measured.ttft_ms.or(served.then_some(measured.total_ms)),
            total_ms: measured.total_ms,
            reason: measured.reason,
            rule: measured.rule,
            error: measured.error,
            text: measured.text,
            agreed_chars,
        }
    }
}

/// What the server holds after a trace was played.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Round {
    /// Which time.
    pub round: usize,
    /// Bytes kept for reuse.
    pub cache_bytes: Option<u64>,
    /// Bytes that may be kept.
    pub budget_bytes: Option<u64>,
    /// How often something was dropped to stay within that, since the start.
    pub evictions: Option<u64>,
    /// Memory of the whole process.
    pub rss_bytes: Option<u64>,
    /// The most of it so far.
    pub peak_rss_bytes: Option<u64>,
}

/// Three percentiles: the least value that so many percent of all are not above.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// Nine of ten are not above it.
    pub p90: f64,
    /// All but one of a hundred are not above it.
    pub p99: f64,
}

/// The percentiles of values; `None` of none.
pub fn percentiles(values: impl IntoIterator<Item = f64>) -> Option<Percentiles> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let rank = |percent: usize| {
        let rank = (values.len() * percent).div_ceil(100);
        values.get(rank.saturating_sub(1)).copied()
    };
    Some(Percentiles { p50: rank(50)?, p90: rank(90)?, p99: rank(99)? })
}

/// Requests with what is common to them.
pub struct Group<'a> {
    requests: Vec<&'a Request>,
}

impl<'a> Group<'a> {
    /// Those of one kind; all where none is named.
    pub fn of(requests: &'a [Request], kind: Option<Kind>) -> Self {
        let chosen = requests.iter().filter(|request| kind.is_none_or(|kind| request.kind == kind));
        Self { requests: chosen.collect() }
    }

    /// Those of them that the model was asked for: the others were served from what was there, or refused.
    pub fn asked(self) -> Self {
        let asked = |request: &&Request| request.tokens_asked.is_some();
        Self { requests: self.requests.into_iter().filter(asked).collect() }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The percentiles of a number that some requests have.
    pub fn percentiles(&self, value: impl Fn(&Request) -> Option<f64>) -> Option<Percentiles> {
        percentiles(self.requests.iter().filter_map(|request| value(request)))
    }

    /// The sum of a number that some requests have.
    pub fn sum(&self, value: impl Fn(&Request) -> Option<u64>) -> u64 {
        self.requests.iter().filter_map(|request| value(request)).sum()
    }

    /// How many showed something.
    pub fn shown(&self) -> usize {
        self.requests.iter().filter(|request| request.text.is_some()).count()
    }

    /// How many characters of what was shown are what was typed next, in the mean.
    pub fn agreed_chars(&self) -> Option<f64> {
        let shown = self.shown();
        let sum: usize = self.requests.iter().map(|request| request.agreed_chars).sum();
        (shown > 0).then(|| sum as f64 / shown as f64)
    }

    /// How often each reason, with its rule, was given; the most frequent first.
    pub fn reasons(&self) -> Vec<(String, usize)> {
        let mut counts: Vec<(String, usize)> = Vec::new();
        for request in &self.requests {
            let reason = match (&request.error, request.reason.as_deref()) {
                (Some(_), _) => "failed".to_owned(),
                (None, reason) => {
                    let reason = reason.unwrap_or(if request.text.is_some() { "shown" } else { "untold" });
                    let rule = request.rule.as_deref().map(|rule| format!(" ({rule})"));
                    format!("{reason}{}", rule.unwrap_or_default())
                }
            };
            match counts.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += 1,
                None => counts.push((reason, 1)),
            }
        }
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }

    /// The numbers that are reported of every group.
    fn to_json(&self) -> Map<String, Value> {
        let count = |value: fn(&Request) -> Option<u64>| self.percentiles(move |r| Some(value(r)? as f64));
        let object = json!({
            "requests": self.len(),
            "tokens_asked": count(|r| r.tokens_asked),
            "tokens_found": count(|r| r.tokens_found),
            "tokens_computed": count(|r| r.tokens_computed),
            "queue_ms": self.percentiles(|r| r.queue_ms),
            "ttft_ms": self.percentiles(|r| r.ttft_ms),
            "total_ms": self.percentiles(|r| Some(r.total_ms)),
            "shown": self.shown(),
            "agreed_chars": self.agreed_chars(),
        });
        match object {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// What was asked for, to stand beside what was measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Setup {
    /// The trace's name.
    pub trace: String,
    /// Whether it was played by its clock.
    pub paced: bool,
    /// How often.
    pub repeat: usize,
    /// Whether a chat was kept running.
    pub with_chat: bool,
    /// Whether tokens were tried ahead of their turn.
    pub speculation: bool,
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// The order asked for; the model's own otherwise.
    pub order: Option<String>,
}

/// Everything as one JSON object.
pub fn to_json(setup: &Setup, outcome: &Outcome) -> Value {
    let all = Group::of(&outcome.requests, None);
    let mut summary = all.to_json();
    // Only those that ran to the last token: what an answer of full length takes.
    let full = |request: &Request| {
        (request.decode_tokens == Some(setup.max_tokens as u64)).then_some(request.total_ms)
    };
    let kinds: Map<String, Value> = KINDS
        .iter()
        .filter_map(|&kind| {
            let name = serde_json::to_value(kind).ok()?.as_str()?.to_owned();
            Some((name, Value::Object(Group::of(&outcome.requests, Some(kind)).to_json())))
        })
        .collect();
    let last = outcome.rounds.last().copied().unwrap_or_default();
    let more = json!({
        "full_length_ms": all.percentiles(full),
        "forward_passes": all.sum(|r| r.forward_passes),
        "decode_tokens": all.sum(|r| r.decode_tokens),
        "draft_tokens": all.sum(|r| r.draft_tokens),
        "accepted_tokens": all.sum(|r| r.accepted_tokens),
        "reasons": all.reasons().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "kinds": kinds,
        "asked_of_model": Group::of(&outcome.requests, None).asked().to_json(),
        "evictions": last.evictions,
        "cache_bytes": last.cache_bytes,
        "budget_bytes": last.budget_bytes,
        "peak_rss_bytes": last.peak_rss_bytes,
        "chat_answers": setup.with_chat.then_some(outcome.chat_answers),
        "wall_ms": outcome.wall.as_secs_f64() * 1e3,
    });
    if let Value::Object(more) = more {
        summary.extend(more);
    }
    json!({
        "setup": setup,
        "model": outcome.model,
        "device": outcome.device,
        "summary": summary,
        "rounds": outcome.rounds,
        "requests": outcome.requests,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::trace::Trigger;

    fn reply(result: Result<Value, &str>) -> Reply {
        Reply { result: result.map_err(str::to_owned), took: Duration::from_millis(80) }
    }

    fn request(number: usize, kind: Kind, expected: &str, result: Result<Value, &str>) -> Request {
        let complete = Complete {
            position: Position { line: 1, character: 2 },
            trigger: Trigger::Automatic,
            expect_prefix: expected.into(),
        };
        Request::new((0, number), 7, "a.rs".into(), kind, &complete, Measured::of(&reply(result)))
    }

    fn computed(text: &str, found: u64, computed: u64, first_token_ms: f64) -> Result<Value, &'static str> {
        Ok(json!({
            "items": [{"insertText": text}],
            "gemma": {
                "reason": "shown", "rule": null, "tokensAsked": found + computed, "tokensFound": found,
                "tokensComputed": computed, "decodeTokens": 16, "decodePasses": 9, "queueMs": 0.5,
                "firstTokenMs": first_token_ms, "totalMs": 70.0,
            },
        }))
    }

    fn served(text: &str) -> Result<Value, &'static str> {
        let gemma = json!({"reason": "shown", "rule": "reuse", "tokensAsked": null, "firstTokenMs": 0.25});
        Ok(json!({"items": [{"insertText": text}], "gemma": gemma}))
    }

    fn superseded() -> Result<Value, &'static str> {
        Ok(json!({"items": [], "gemma": {"reason": "superseded", "rule": null, "firstTokenMs": 30.0}}))
    }

    #[test]
    fn what_was_served_computed_nothing_and_what_was_given_up_has_no_first_token() {
        let one = request(0, Kind::Forward, "größe", computed("größer", 90, 10, 30.0));
        assert_eq!(
            (one.tokens_asked, one.tokens_found, one.tokens_computed),
            (Some(100), Some(90), Some(10))
        );
        assert_eq!((one.ttft_ms, one.total_ms, one.agreed_chars), (Some(30.0), 80.0, 5));
        let one = request(0, Kind::Forward, "ab", served("xb"));
        assert_eq!((one.tokens_asked, one.tokens_computed, one.ttft_ms), (None, Some(0), Some(0.25)));
        assert_eq!((one.agreed_chars, one.rule.as_deref()), (0, Some("reuse")));
        let one = request(0, Kind::Forward, "", superseded());
        assert_eq!((one.tokens_computed, one.ttft_ms, one.text), (None, None, None));
        let one = request(0, Kind::Forward, "", Err("no memory"));
        assert_eq!((one.error.as_deref(), one.reason), (Some("no memory"), None));
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let all = |n: usize| percentiles((1..=n).rev().map(|v| v as f64));
        assert_eq!(all(100), Some(Percentiles { p50: 50.0, p90: 90.0, p99: 99.0 }));
        assert_eq!(all(3), Some(Percentiles { p50: 2.0, p90: 3.0, p99: 3.0 }));
        assert_eq!(all(1), Some(Percentiles { p50: 1.0, p90: 1.0, p99: 1.0 }));
        assert_eq!(all(0), None);
    }

    #[test]
    fn the_summary_is_of_all_and_of_each_kind() {
        let requests = vec![
            request(0, Kind::Other, "ab", computed("abc", 0, 100, 500.0)),
            request(1, Kind::Forward, "b", computed("b", 99, 1, 30.0)),
            request(2, Kind::Forward, "x", served("y")),
            request(3, Kind::Forward, "", superseded()),
            request(4, Kind::Forward, "", Err("no memory")),
        ];
        let rounds = vec![Round { cache_bytes: Some(5), evictions: Some(2), ..Round::default() }];
        let outcome = Outcome { requests, rounds, ..Outcome::default() };
        let report = to_json(&Setup { max_tokens: 16, ..Setup::default() }, &outcome);
        let summary = &report["summary"];
        assert_eq!(summary["tokens_computed"], json!({"p50": 1.0, "p90": 100.0, "p99": 100.0}));
        assert_eq!(summary["kinds"]["forward"]["tokens_computed"]["p50"], 0.0);
        assert_eq!(summary["kinds"]["back"]["tokens_computed"], Value::Null);
        assert_eq!(summary["asked_of_model"]["requests"], 2);
        assert_eq!((&summary["shown"], &summary["agreed_chars"]), (&json!(3), &json!(1.0)));
        assert_eq!(summary["full_length_ms"]["p50"], 80.0);
        assert_eq!((&summary["forward_passes"], &summary["decode_tokens"]), (&json!(18), &json!(32)));
        assert_eq!((&summary["evictions"], &summary["cache_bytes"]), (&json!(2), &json!(5)));
        let reasons = json!({"shown": 2, "shown (reuse)": 1, "superseded": 1, "failed": 1});
        assert_eq!(summary["reasons"], reasons);
        assert_eq!(report["requests"].as_array().map(Vec::len), Some(5));
    }
}
