//! When a generation ends before its token limit: by token id, by text, by the caller's own rule.

/// A caller's rule: `true` once the text so far is enough. Runs on the engine's thread; keep it short.
pub type Enough = Box<dyn FnMut(&str) -> bool + Send>;

/// When a generation ends before its token limit. The model's own end tokens stop it too.
#[derive(Default)]
pub struct Stop {
    /// Token ids that end it, compared by id, never by text; not part of the answer.
    pub tokens: Vec<u32>,
    /// Texts that end it; cut off together with what follows.
    pub texts: Vec<String>,
    /// Asked after each token with all the text so far; what is there stays in the answer.
    pub enough: Option<Enough>,
    /// Take the model's own end tokens for tokens like any other: for comparisons and measurements.
    pub ignore_eos: bool,
}

/// Watches the text of one request for its end.
pub(crate) struct StopWatch {
    stop: Stop,
    /// All text so far.
    text: String,
    /// Bytes of `text` that were given out.
    given: usize,
}

impl StopWatch {
    pub(crate) fn new(stop: Stop) -> Self {
        Self { stop, text: String::new(), given: 0 }
    }

    /// Whether a token ends the generation, `end` being the model's own end tokens.
    pub(crate) fn ends_at(&self, id: u32, end: &[u32]) -> bool {
        self.stop.tokens.contains(&id) || (!self.stop.ignore_eos && end.contains(&id))
    }

    /// Takes the text of one more token. Returns what may be given out, which is never part of a stop text, and
    /// whether the generation ends here.
    pub(crate) fn push(&mut self, text: &str) -> (String, bool) {
        let from = self.text.len();
        self.text.push_str(text);
        if let Some(at) = self.earliest_stop(from) {
            self.text.truncate(at);
            return (self.give(at), true);
        }
        let safe = self.text.len() - self.possible_stop();
        let given = self.give(safe);
        let enough = self.stop.enough.as_mut().is_some_and(|enough| enough(&self.text));
        if enough {
            let rest = self.give(self.text.len());
            return (given + &rest, true);
        }
        (given, false)
    }

    /// The end came otherwise: what was held back may be given out.
    pub(crate) fn flush(&mut self) -> String {
        self.give(self.text.len())
    }

    /// The whole text, for the answer.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// Where a stop text begins that ends at or behind `from`.
    fn earliest_stop(&self, from: usize) -> Option<usize> {
        let texts = self.stop.texts.iter().filter(|stop| !stop.is_empty());
        texts
            .filter_map(|stop| {
                let mut start = from.saturating_sub(stop.len() - 1);
                while !self.text.is_char_boundary(start) {
                    start -= 1;
                }
                self.text[start..].find(stop.as_str()).map(|at| start + at)
            })
            .min()
    }

    /// Bytes at the end of the text that may be the beginning of a stop text.
    fn possible_stop(&self) -> usize {
        let ends_like = |stop: &str| {
            (1..stop.len())
                .rev()
                .filter(|&len| stop.is_char_boundary(len))
                .find(|&len| self.text.ends_with(&stop[..len]))
                .unwrap_or(0)
        };
        self.stop.texts.iter().map(|stop| ends_like(stop)).max().unwrap_or(0)
    }

    fn give(&mut self, until: usize) -> String {
        // A stop text that was found may begin before what was held back only if it was given out: it was not.
        let from = self.given.min(until);
        self.given = until;
        self.text[from..until].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(stops: &[&str]) -> StopWatch {
        let texts = stops.iter().map(|s| (*s).to_owned()).collect();
        StopWatch::new(Stop { texts, ..Stop::default() })
    }

    /// Pushes pieces until the end; what was given out, and whether it ended.
    fn run(watch: &mut StopWatch, pieces: &[&str]) -> (String, bool) {
        let mut out = String::new();
        for piece in pieces {
            let (given, ends) = watch.push(piece);
            out += &given;
            if ends {
                return (out, true);
            }
        }
        (out + &watch.flush(), false)
    }

    #[test]
    fn stop_texts_are_cut_wherever_tokens_divide_them() {
        for (stops, pieces, want, ends) in [
            (&["\n\n"][..], &["a\n", "\nb"][..], "a", true),
            (&["\n\n"], &["a\n", "b"], "a\nb", false),
            (&["END", "D"], &["xE", "N", "Dy"], "x", true),
            (&["é!"], &["caf", "é", "!", "x"], "caf", true),
            (&["ab"], &["a", "a", "b"], "a", true),
            (&[""], &["a"], "a", false),
            (&[], &["a", "b"], "ab", false),
        ] {
            let mut watch = watch(stops);
            assert_eq!(run(&mut watch, pieces), (want.to_owned(), ends), "{stops:?} {pieces:?}");
            assert_eq!(watch.into_text(), want);
        }
    }

    #[test]
    fn the_callers_rule_keeps_the_text_it_saw() {
        let enough: Enough = Box::new(|text| text.contains(';'));
        let mut watch = StopWatch::new(Stop { enough: Some(enough), ..Stop::default() });
        assert_eq!(run(&mut watch, &["a", ";b", "c"]), ("a;b".to_owned(), true));
    }

    #[test]
    fn ids_end_it_by_id() {
        let watch = StopWatch::new(Stop { tokens: vec![70], ..Stop::default() });
        assert!(watch.ends_at(70, &[1]) && watch.ends_at(1, &[1]) && !watch.ends_at(2, &[1]));
        let comparing = StopWatch::new(Stop { ignore_eos: true, ..Stop::default() });
        assert!(!comparing.ends_at(1, &[1]));
    }
}
