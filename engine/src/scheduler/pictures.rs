//! The pictures of requests: encoded one step at a time, and kept for the next question about them.

use std::sync::Arc;
use std::time::Instant;

use crate::config::VisionSpec;
use crate::error::Result;
use crate::generate::Timings;
use crate::model::{Encoding, Network};
use crate::outline::{Outline, SpanKeys};
use crate::picture::Picture;

/// What pictures became, most recently used last, within a budget of bytes; and names for them in prompts.
pub(super) struct PictureCache {
    budget: u64,
    entries: Vec<Entry>,
    pub(super) keys: SpanKeys,
}

struct Entry {
    model: u64,
    digest: [u8; 32],
    features: Arc<[f32]>,
}

impl PictureCache {
    /// An empty cache that keeps at most `budget` bytes of features.
    pub(super) fn new(budget: u64) -> Self {
        Self { budget, entries: Vec::new(), keys: SpanKeys::default() }
    }

    fn get(&mut self, model: u64, digest: &[u8; 32]) -> Option<Arc<[f32]>> {
        let at = self.entries.iter().position(|e| e.model == model && e.digest == *digest)?;
        let entry = self.entries.remove(at);
        let features = entry.features.clone();
        self.entries.push(entry);
        Some(features)
    }

    fn keep(&mut self, model: u64, digest: [u8; 32], features: Arc<[f32]>) {
        self.entries.retain(|e| e.model != model || e.digest != digest);
        self.entries.push(Entry { model, digest, features });
        while self.bytes() > self.budget {
            self.entries.remove(0);
        }
    }

    /// Forgets what a model made of pictures.
    pub(super) fn forget(&mut self, model: u64) {
        self.entries.retain(|e| e.model != model);
    }

    /// Bytes of the features that are kept.
    pub(super) fn bytes(&self) -> u64 {
        self.entries.iter().map(|e| size_of_val(&*e.features) as u64).sum()
    }
}

/// The pictures of one request and what has become of them.
#[derive(Default)]
pub(super) struct PictureWork {
    pictures: Vec<Arc<Picture>>,
    /// One for each, once it is there.
    features: Vec<Option<Arc<[f32]>>>,
    running: Option<Encoding>,
}

impl PictureWork {
    pub(super) fn new(pictures: Vec<Arc<Picture>>) -> Self {
        Self { features: vec![None; pictures.len()], pictures, running: None }
    }

    /// What tells the pictures apart.
    pub(super) fn digests(&self) -> Vec<&[u8; 32]> {
        self.pictures.iter().map(|picture| picture.digest()).collect()
    }

    /// Takes the pictures that stand at `from` or behind one step on; `true` once all are there.
    pub(super) fn step(
        &mut self,
        outline: &Outline,
        from: usize,
        (model, network): (u64, &Network),
        cache: &mut PictureCache,
        timings: &mut Timings,
    ) -> Result<bool> {
        let Some(vision) = &network.config().vision else { return Ok(true) };
        let begun = Instant::now();
        let missing =
            |(run, features): (&std::ops::Range<usize>, &Option<_>)| run.start >= from && features.is_none();
        let Some(at) = outline.pictures.iter().zip(&self.features).position(missing) else { return Ok(true) };
        let (picture, digest) = (&self.pictures[at], self.pictures[at].digest());
        let done = match self.running.take() {
            Some(mut running) => {
                let features = network.read_on(&mut running)?.map(Arc::from);
                match &features {
                    Some(features) => {
                        cache.keep(model, *digest, Arc::clone(features));
                        timings.image_tokens += vision.tokens;
                    }
                    None => self.running = Some(running),
                }
                features
            }
            None => {
                let found = cache.get(model, digest);
                match &found {
                    Some(_) => timings.image_tokens_cached += vision.tokens,
                    None => self.running = network.begin_picture(&pixels(vision, picture))?,
                }
                found
            }
        };
        self.features[at] = done;
        timings.image_ms += begun.elapsed().as_secs_f64() * 1000.0;
        Ok(false)
    }

    /// The pictures of a pass over `from..end`: where each begins in it, and its features.
    pub(super) fn of_pass(&self, outline: &Outline, from: usize, end: usize) -> Vec<(usize, &[f32])> {
        let all = outline.pictures.iter().zip(&self.features);
        let inside = all.filter(|(run, _)| from <= run.start && run.end <= end);
        inside.filter_map(|(run, features)| Some((run.start - from, features.as_deref()?))).collect()
    }
}

/// What the tower takes of a picture.
fn pixels(vision: &VisionSpec, picture: &Picture) -> Vec<f32> {
    picture.pixel_values(vision.image_size, vision.resample())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_holds_and_the_most_recently_used_stay() {
        let mut cache = PictureCache::new(3 * 40);
        for name in [1, 2, 3] {
            cache.keep(7, [name; 32], Arc::from([f32::from(name); 10]));
        }
        assert_eq!(cache.get(7, &[1; 32]).as_deref(), Some(&[1.0; 10][..]));
        assert_eq!(cache.get(8, &[1; 32]), None, "another model's features are others");
        cache.keep(7, [4; 32], Arc::from([4.0; 10]));
        assert_eq!((cache.get(7, &[2; 32]), cache.bytes()), (None, 120), "the least recently used went");
        assert!(cache.get(7, &[1; 32]).is_some());
        cache.keep(7, [5; 32], Arc::from([5.0; 31]));
        assert_eq!(cache.bytes(), 0, "what is larger than the budget is not kept");
        cache.keep(7, [6; 32], Arc::from([6.0; 3]));
        cache.forget(7);
        assert_eq!(cache.bytes(), 0);
    }
}
