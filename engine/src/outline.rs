//! Where pictures stand in a prompt, and what sees forward in it.

use std::collections::HashMap;
use std::ops::Range;

use gemma_kernels::Span;
use sha2::{Digest, Sha256};

use crate::config::{ModelConfig, Sight};
use crate::error::{Error, ErrorKind, Result};

/// Where pictures stand in a prompt, and what sees forward in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outline {
    /// The tokens of each picture.
    pub(crate) pictures: Vec<Range<usize>>,
    /// Positions that see each other in both directions; in order.
    pub(crate) spans: Vec<Span>,
}

impl Outline {
    /// Reads a prompt for as many pictures. `prefix` is how many of `ids` a network that sees its prompt in
    /// both directions takes for the prompt; `None`: all of them.
    ///
    /// Fails unless there is one run of image tokens of the right length for each picture.
    pub(crate) fn new(
        config: &ModelConfig,
        ids: &[u32],
        pictures: usize,
        prefix: Option<usize>,
    ) -> Result<Self> {
        let error = |problem: String| Error::new(ErrorKind::Input, "prompt", problem);
        let Some(vision) = &config.vision else {
            return match pictures {
                0 => Ok(Self::default()),
                _ => Err(error(format!("{} is a model of text and reads no pictures", config.name()))
                    .remedy("Choose a PaliGemma, or a Gemma 3 from 4B on as a HuggingFace folder.")),
            };
        };
        let mut runs: Vec<Range<usize>> = Vec::new();
        for at in (0..ids.len()).filter(|&at| ids[at] == vision.image_token) {
            match runs.last_mut().filter(|run| run.end == at) {
                Some(run) => run.end = at + 1,
                None => runs.push(at..at + 1),
            }
        }
        if runs.len() != pictures {
            let problem = format!("{} runs of image tokens stand for {pictures} pictures", runs.len());
            return Err(error(problem));
        }
        if let Some(run) = runs.iter().find(|run| run.len() != vision.tokens) {
            let (found, tokens) = (run.len(), vision.tokens);
            return Err(error(format!(
                "{found} image tokens from {} on, a picture takes {tokens}",
                run.start
            )));
        }
        let spans = match vision.sight {
            Sight::Picture => {
                runs.iter().map(|run| Span { start: run.start, end: run.end, windowed: true }).collect()
            }
            Sight::Prefix => {
                let end = prefix.unwrap_or(ids.len());
                if let Some(run) = runs.iter().find(|run| run.end > end) {
                    let problem = format!("the picture at {} reaches behind its prefix of {end}", run.start);
                    return Err(error(problem));
                }
                vec![Span { start: 0, end, windowed: false }]
            }
        };
        Ok(Self { pictures: runs, spans })
    }

    /// The span that would be cut in two before `at`.
    pub(crate) fn cut(&self, at: usize) -> Option<Span> {
        self.spans.iter().copied().find(|span| span.start < at && at < span.end)
    }

    /// Where a pass of about `chunk` tokens from `from` on ends, so that it cuts nothing in two.
    pub(crate) fn pass(&self, from: usize, chunk: usize, len: usize) -> usize {
        let end = (from + chunk).min(len);
        match self.cut(end) {
            Some(span) if span.start > from => span.start,
            Some(span) => span.end,
            None => end,
        }
    }
}

/// Names for what stands in spans, for the prefix cache: a span is one thing that is shared whole or not at
/// all, so all its positions have one key, and two spans have the same key only where tokens, pictures and
/// place are the same.
#[derive(Debug, Default)]
pub(crate) struct SpanKeys {
    known: HashMap<[u8; 32], u32>,
    /// How many were ever given; none is given twice.
    given: u32,
}

/// Keys that are looked up; older ones are forgotten, and what they name is computed again.
const MOST_KEYS: usize = 1 << 16;

impl SpanKeys {
    /// The keys of a prompt: its token ids, and beyond every vocabulary those of its spans. `digests` tell the
    /// pictures apart. Where the model's adapter is on, no prompt shares anything with one without it.
    pub(crate) fn keys(
        &mut self,
        ids: &[u32],
        outline: &Outline,
        digests: &[&[u8; 32]],
        adapted: bool,
    ) -> Vec<u32> {
        let mut keys = ids.to_vec();
        if adapted && let Some(first) = keys.first_mut() {
            *first = ADAPTED;
        }
        for span in &outline.spans {
            let mut content = Sha256::new();
            content.update((span.start as u64).to_le_bytes());
            content.update([u8::from(adapted)]);
            for id in &ids[span.start..span.end] {
                content.update(id.to_le_bytes());
            }
            let inside = outline.pictures.iter().zip(digests);
            for (_, digest) in inside.filter(|(run, _)| span.start <= run.start && run.end <= span.end) {
                content.update(digest);
            }
            keys[span.start..span.end].fill(self.key(content.finalize().into()));
        }
        keys
    }

    fn key(&mut self, content: [u8; 32]) -> u32 {
        if self.known.len() >= MOST_KEYS {
            self.known.clear();
        }
        let Self { known, given } = self;
        *known.entry(content).or_insert_with(|| {
            *given += 1;
            u32::MAX - *given
        })
    }
}

/// Keys of spans are above, token ids below. A span's key means nothing in another process.
pub(crate) const SPANS: u32 = 1 << 31;

/// The key of the first token of whatever an adapter computes; beyond every vocabulary too.
const ADAPTED: u32 = SPANS - 1;

/// How much of a prompt a sequence that shares its first `len` keys may be resumed for: no span is cut.
pub(crate) fn resumable(keys: &[u32], len: usize) -> usize {
    let inside = |at: usize| at > 0 && keys.get(at).is_some_and(|&key| key >= SPANS && key == keys[at - 1]);
    (0..=len).rev().find(|&at| !inside(at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Architecture, Projector, VisionSpec};

    const IMAGE: u32 = 90;

    fn config(sight: Sight) -> ModelConfig {
        let vision = VisionSpec {
            image_size: 4,
            patch: 2,
            hidden: 4,
            layers: 1,
            heads: 1,
            ffn: 1,
            eps: 1e-6,
            tokens: 4,
            image_token: IMAGE,
            projector: Projector::Linear,
            sight,
        };
        ModelConfig {
            architecture: Architecture::Gemma3,
            vision: Some(vision),
            first_position: 0,
            hidden: 8,
            vocab: 100,
            context: 100,
            embed_scale: 1.0,
            norm_eps: 1e-6,
            norm_offset: 1.0,
            layers: Vec::new(),
            final_soft_cap: None,
            bos: 2,
            eos: vec![1],
        }
    }

    fn outline(sight: Sight, ids: &[u32], pictures: usize) -> Outline {
        Outline::new(&config(sight), ids, pictures, None).unwrap()
    }

    const TWO: [u32; 13] = [2, IMAGE, IMAGE, IMAGE, IMAGE, 7, 8, IMAGE, IMAGE, IMAGE, IMAGE, 9, 9];

    #[test]
    fn pictures_are_found_and_miscounted_ones_refused() {
        let of_two = outline(Sight::Picture, &TWO, 2);
        assert_eq!(of_two.pictures, [1..5, 7..11]);
        assert_eq!(
            of_two.spans.iter().map(|s| (s.start, s.end, s.windowed)).collect::<Vec<_>>(),
            [(1, 5, true), (7, 11, true)]
        );
        assert_eq!(outline(Sight::Prefix, &TWO, 2).spans, [Span { start: 0, end: 13, windowed: false }]);
        for (ids, pictures, said) in [
            (&TWO[..], 1, "2 runs of image tokens stand for 1 pictures"),
            (&TWO[..], 3, "2 runs"),
            (&TWO[..4], 1, "3 image tokens from 1 on, a picture takes 4"),
            (&[2, 3][..], 1, "0 runs"),
        ] {
            let error = Outline::new(&config(Sight::Picture), ids, pictures, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Input);
            assert!(error.to_string().contains(said), "{error}");
        }
        let error = Outline::new(&config(Sight::Prefix), &TWO, 2, Some(9)).unwrap_err();
        assert!(error.to_string().contains("the picture at 7 reaches behind its prefix of 9"), "{error}");
        let text = ModelConfig { vision: None, ..config(Sight::Picture) };
        assert!(Outline::new(&text, &[2], 1, None).unwrap_err().to_string().contains("reads no pictures"));
        assert_eq!(Outline::new(&text, &TWO, 0, None).unwrap(), Outline::default(), "a token like any other");
    }

    #[test]
    fn passes_cut_no_span_in_two() {
        let outline = outline(Sight::Picture, &TWO, 2);
        for (from, chunk, end) in
            [(0, 1, 1), (0, 3, 1), (1, 2, 5), (1, 8, 7), (5, 1, 6), (0, 50, 13), (7, 4, 11)]
        {
            assert_eq!(outline.pass(from, chunk, TWO.len()), end, "{chunk} from {from}");
        }
    }

    #[test]
    fn keys_tell_pictures_prompts_and_places_apart() {
        let mut keys = SpanKeys::default();
        let of_two = outline(Sight::Picture, &TWO, 2);
        let (a, b) = ([1; 32], [2; 32]);
        let first = keys.keys(&TWO, &of_two, &[&a, &b], false);
        assert_eq!(first, keys.keys(&TWO, &of_two, &[&a, &b], false), "the same again");
        let other = keys.keys(&TWO, &of_two, &[&a, &a], false);
        assert_eq!(first[..7], other[..7]);
        assert!(first[7..11].iter().all(|key| !other.contains(key) && *key >= SPANS));
        assert_ne!(other[1], other[7], "the same picture elsewhere");
        assert_eq!([first[0], first[5], first[12]], [2, 7, 9]);

        let prefix = |ids: &[u32], keys: &mut SpanKeys| {
            keys.keys(ids, &outline(Sight::Prefix, ids, 2), &[&a, &b], false)
        };
        let (long, short) = (prefix(&TWO, &mut keys), prefix(&TWO[..12], &mut keys));
        assert!(
            long.iter().all(|key| !short.contains(key)),
            "another prompt is another span from its first token"
        );
    }

    #[test]
    fn no_sequence_is_resumed_inside_a_span() {
        let mut keys = SpanKeys::default();
        let keys = keys.keys(&TWO, &outline(Sight::Picture, &TWO, 2), &[&[1; 32], &[2; 32]], false);
        for (len, whole) in
            [(0, 0), (1, 1), (2, 1), (4, 1), (5, 5), (6, 6), (7, 7), (10, 7), (11, 11), (12, 12)]
        {
            assert_eq!(resumable(&keys, len), whole, "{len}");
        }
        assert_eq!(resumable(&[5, 5, 5], 2), 2, "the same word twice is no span");
    }
}
