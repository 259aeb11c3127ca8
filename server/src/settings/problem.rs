//! What is wrong with a setting, told so that the user can mend it.

use std::fmt;

use serde::Serialize;

/// One key or value that was ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The key as the user wrote it.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
    /// What may stand there.
    pub allowed: Option<String>,
    /// What is used instead.
    pub used: Option<String>,
    /// The key that was probably meant.
    pub meant: Option<&'static str>,
}

impl Problem {
    /// A whole source of settings that cannot be read.
    pub(super) fn unreadable(source: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self {
            key: source.to_string(),
            problem: format!("cannot be read: {error}"),
            allowed: None,
            used: Some("the defaults".into()),
            meant: None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)?;
        if let Some(meant) = self.meant {
            write!(f, "; did you mean {meant}?")?;
        }
        if let Some(allowed) = &self.allowed {
            write!(f, "; allowed: {allowed}")?;
        }
        if let Some(used) = &self.used {
            write!(f, "; using {used}")?;
        }
        Ok(())
    }
}

/// The candidate that a word was probably meant to be: the fewest letters apart, if they are few.
/// Case and separators do not count, so that `max_tokens` and `max-tokens` find `maxTokens`.
pub(super) fn nearest(word: &str, candidates: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    // A key longer than this is not a typing error, and the distance costs the product of the lengths.
    const LONGEST: usize = 64;
    let plain = |s: &str| -> Vec<char> {
        s.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).take(LONGEST).collect()
    };
    let word = plain(word);
    let (distance, best) = candidates.map(|c| (edits(&word, &plain(c)), c)).min_by_key(|(d, _)| *d)?;
    (distance <= word.len() / 3).then_some(best)
}

/// Letters to insert, delete, replace or swap with their neighbour to get from `a` to `b`.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(ca != cb)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *ca == b[j - 1] && a[i - 1] == *cb {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_key_that_was_meant() {
        let keys = ["model", "chatModel", "maxTokens", "maxTimeMs", "threads", "trigger"];
        for (written, meant) in [
            ("modle", Some("model")),
            ("max_tokens", Some("maxTokens")),
            ("MAXTOKENS", Some("maxTokens")),
            ("maxToken", Some("maxTokens")),
            ("thread", Some("threads")),
            ("tirgger", Some("trigger")),
            ("temperature", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(written, keys.into_iter()), meant, "{written:?}");
        }
    }
}
