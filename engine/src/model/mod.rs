//! A network: its weights in a backend's layout, run layer by layer by their specifications, and the tower that reads
//! pictures. On the processor ([`host`]) or on a graphics card ([`device`]).

mod host;
mod pass;
mod tensors;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use gemma_kernels::Span;

use crate::cache::{Layout, Marks, Sequence};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::generate::Scores;

pub(crate) use host::load as load_host;
pub use host::{Encoding as HostEncoding, HostNetwork, HostPass};
pub use pass::{Input, Interrupt, Rows};

/// A network ready to run. Belongs to the engine's thread.
pub enum Network {
    /// On the processor.
    Host(Box<HostNetwork>),
}

/// A forward pass between two of its steps: a layer, or a part of the product with the vocabulary.
pub enum Pass {
    /// On the processor.
    Host(HostPass),
}

/// A picture on its way through the tower.
pub enum Encoding {
    /// On the processor.
    Host(HostEncoding),
}

impl Network {
    /// Where things stand in a sequence's memory.
    pub fn layout(&self) -> &Arc<Layout> {
        match self {
            Self::Host(network) => network.layout(),
        }
    }

    /// The network as data.
    pub fn config(&self) -> &ModelConfig {
        match self {
            Self::Host(network) => network.config(),
        }
    }

    /// Bytes of all matrices in memory.
    pub fn weight_bytes(&self) -> u64 {
        match self {
            Self::Host(network) => network.weight_bytes(),
        }
    }

    /// Appends `input` to `sequence` and returns the logits of `rows`, `[rows, vocab]`, after the final
    /// soft cap. `None` if interrupted: the sequence is then as it was.
    pub fn forward(
        &mut self,
        sequence: &mut Sequence,
        input: Input<'_>,
        rows: Rows,
        interrupt: &Interrupt,
    ) -> Result<Option<Vec<f32>>> {
        let mut pass = self.begin(sequence, input, rows, Marks::default())?;
        while self.step(&mut pass, sequence, input.spans)? {
            if interrupt.is_due() {
                return Ok(None);
            }
        }
        let scores = self.end(pass, sequence)?;
        let mut logits = Vec::with_capacity(scores.len() * self.config().vocab);
        for (row, scores) in scores.iter().enumerate() {
            logits.extend_from_slice(&self.whole(scores, row)?);
        }
        sequence.advance(input.keys);
        Ok(Some(logits))
    }

    /// Begins a pass that is computed step by step, other passes over other sequences in between. The sequence
    /// is as it was until its caller counts in what the pass has read ([`Sequence::advance`]).
    pub fn begin(
        &mut self,
        sequence: &mut Sequence,
        input: Input<'_>,
        rows: Rows,
        marks: Marks<'_>,
    ) -> Result<Pass> {
        match self {
            Self::Host(network) => Ok(Pass::Host(network.begin(sequence, input, rows, marks))),
        }
    }

    /// Computes the next step of a pass over the same sequence; `false` once nothing is left to do.
    pub fn step(&mut self, pass: &mut Pass, sequence: &mut Sequence, spans: &[Span]) -> Result<bool> {
        match (self, pass) {
            (Self::Host(network), Pass::Host(pass)) => Ok(network.step(pass, sequence, spans)),
        }
    }

    /// Ends a pass over the same sequence that has run to its end: what it says of the tokens behind its rows.
    pub fn end(&mut self, pass: Pass, _sequence: &mut Sequence) -> Result<Vec<Scores>> {
        match (self, pass) {
            (Self::Host(network), Pass::Host(pass)) => Ok(network.end(pass)),
        }
    }

    /// All logits of a row of the pass that ended last, whose scores are given.
    pub fn whole(&self, scores: &Scores, _row: usize) -> Result<Arc<[f32]>> {
        match (self, scores) {
            (_, Scores::All(logits)) => Ok(logits.clone()),
            (Self::Host(_), Scores::Best(_)) => unreachable!("the processor keeps nothing back"),
        }
    }

    /// `ln(sum(e^logit))` over the vocabulary.
    pub fn log_sum_exp(&self, scores: &Scores) -> f32 {
        match (self, scores) {
            (_, Scores::Best(best)) => best.log_sum_exp,
            (Self::Host(network), Scores::All(logits)) => network.ops().log_sum_exp(logits),
        }
    }

    /// Begins to read a picture, `[3, image_size, image_size]`; `None` if the network reads none of this size.
    pub fn begin_picture(&self, pixels: &[f32]) -> Result<Option<Encoding>> {
        match self {
            Self::Host(network) => Ok(network.begin_picture(pixels).map(Encoding::Host)),
        }
    }

    /// Takes a picture one step on; its features `[tokens, hidden]` with the last one.
    pub fn read_on(&self, picture: &mut Encoding) -> Result<Option<Vec<f32>>> {
        match (self, picture) {
            (Self::Host(network), Encoding::Host(picture)) => Ok(network.read_on(picture)),
        }
    }
}
