//! How fast is typed and how fast is answered: where keys come faster than answers, a request that the next key
//! would supersede is better not begun.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After this long without a key the next one is the first of its kind.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait: more would be felt.
const LONGEST: Duration = Duration::from_millis(300);
/// So many of the last gaps and answers count, and fewer than a few say nothing.
const COUNTED: usize = 8;
const FEW: usize = 3;

/// The pace of one conversation.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    keys: HashMap<Arc<str>, Keys>,
    answers: Lately,
}

/// The requests of one document.
#[derive(Debug, Clone)]
struct Keys {
    last: Instant,
    after_pause: bool,
    gaps: Lately,
}

/// The last durations of something.
#[derive(Debug, Clone, Default)]
struct Lately(VecDeque<Duration>);

impl Lately {
    fn push(&mut self, one: Duration) {
        if self.0.len() == COUNTED {
            self.0.pop_front();
        }
        self.0.push_back(one);
    }

    /// The one in the middle, so that a single odd one changes little.
    fn middle(&self) -> Option<Duration> {
        let mut sorted: Vec<_> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

impl Pace {
    /// A request came.
    pub fn asked(&mut self, uri: &Arc<str>, now: Instant) {
        match self.keys.get_mut(uri) {
            Some(keys) => {
                let gap = now.saturating_duration_since(keys.last);
                keys.last = now;
                keys.after_pause = gap > PAUSE;
                if !keys.after_pause {
                    keys.gaps.push(gap);
                }
            }
            None => {
                let keys = Keys { last: now, after_pause: true, gaps: Lately::default() };
                self.keys.insert(uri.clone(), keys);
            }
        }
    }

    /// The first words of an answer were there after this time.
    pub fn answered(&mut self, took: Duration) {
        self.answers.push(took);
    }

    /// An answer was given up after this time, before its first words: it would have taken longer.
    pub fn given_up(&mut self, took: Duration) {
        if self.answers.middle().is_none_or(|usual| took > usual) {
            self.answers.push(took);
        }
    }

    /// Forgets a document.
    pub fn forget(&mut self, uri: &str) {
        self.keys.remove(uri);
    }

    /// How long the request that came last is to wait for the next key before it is begun.
    pub fn delay(&self, uri: &str) -> Duration {
        let keys = self.keys.get(uri).filter(|keys| !keys.after_pause && keys.gaps.0.len() >= FEW);
        let (gap, answer) = (keys.and_then(|keys| keys.gaps.middle()), self.answers.middle());
        match (gap, answer) {
            (Some(gap), Some(answer)) if answer > gap => LONGEST.min(gap.mul_f64(1.3)),
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Milliseconds that the last of these keys waits, each given as its gap, where answers take so long.
    fn delay(gaps: &[u32], answers: &[u32]) -> u128 {
        let (mut pace, uri, mut now) = (Pace::default(), Arc::from("a"), Instant::now());
        for &answer in answers {
            pace.answered(answer * MS);
        }
        pace.asked(&uri, now);
        for &gap in gaps {
            now += gap * MS;
            pace.asked(&uri, now);
        }
        pace.delay(&uri).as_millis()
    }

    #[test]
    fn keys_wait_only_where_they_come_faster_than_answers() {
        for (gaps, answers, expected) in [
            // The machine is faster; it is not; it is far from it.
            (&[120, 100, 140, 120][..], &[40, 50, 30][..], 0),
            (&[120, 100, 140, 120], &[400, 300, 500], 156),
            (&[240, 240, 240], &[400, 300, 500], 300),
            // The same pace is fast enough.
            (&[120, 120, 120], &[120], 0),
            // The first key, one after a pause, the next one after it.
            (&[], &[400], 0),
            (&[120, 120, 120, 1500], &[400], 0),
            (&[120, 120, 120, 1500, 120], &[400], 156),
            // Too little is known of the keys, or nothing of the answers.
            (&[120, 120], &[400], 0),
            (&[120, 120, 120], &[], 0),
            // One cold answer among quick ones, one slow key among quick ones.
            (&[120, 120, 120], &[40, 4000, 40, 40], 0),
            (&[100, 900, 100, 100], &[400], 130),
            // What was long ago does not count.
            (&[500, 500, 500, 100, 100, 100, 100, 100], &[20, 20, 20, 400, 400, 400, 400, 400], 130),
        ] {
            assert_eq!(delay(gaps, answers), expected, "{gaps:?} {answers:?}");
        }
    }

    #[test]
    fn answers_that_are_given_up_count_for_what_they_took_at_least() {
        let mut pace = Pace::default();
        pace.given_up(200 * MS);
        assert_eq!(pace.answers.middle(), Some(200 * MS));
        pace.given_up(100 * MS);
        assert_eq!(pace.answers.0.len(), 1, "it may have taken any time above that");
        pace.given_up(300 * MS);
        assert_eq!(pace.answers.middle(), Some(300 * MS));
    }

    #[test]
    fn documents_have_their_own_keys_and_may_be_forgotten() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        pace.answered(400 * MS);
        for n in 0..5 {
            pace.asked(&a, now + n * 100 * MS);
        }
        pace.asked(&b, now + 500 * MS);
        assert_eq!((pace.delay(&a), pace.delay(&b)), (130 * MS, Duration::ZERO));
        pace.forget(&a);
        assert_eq!(pace.delay(&a), Duration::ZERO);
    }
}
