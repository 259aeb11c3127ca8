//! A network: its weights in a backend's layout, run layer by layer by their specifications, and the tower that reads
//! pictures. On the processor ([`host`]) or on a graphics card ([`device`]).

mod device;
mod host;
mod pass;
mod tensors;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use gemma_kernels::{Ops, Reference, Span};

use crate::cache::{Layout, Marks, Sequence};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::generate::Scores;

pub(crate) use device::load as load_device;
pub use device::{DeviceNetwork, DevicePass, Encoding as DeviceEncoding};
pub(crate) use host::load as load_host;
pub use host::{Encoding as HostEncoding, HostNetwork, HostPass};
pub use pass::{Input, Interrupt, Logits, Rows};

/// A network ready to run. Belongs to the engine's thread.
pub enum Network {
    /// On the processor.
    Host(Box<HostNetwork>),
    /// On a graphics card.
    Device(Box<DeviceNetwork>),
}

/// A forward pass between two of its steps: a layer, or a part of the product with the vocabulary.
pub enum Pass {
    /// On the processor.
    Host(HostPass),
    /// On a graphics card.
    Device(Box<DevicePass>),
}

/// A picture on its way through the tower.
pub enum Encoding {
    /// On the processor.
    Host(HostEncoding),
    /// On a graphics card.
    Device(Box<DeviceEncoding>),
}

impl Network {
    /// Where things stand in a sequence's memory.
    pub fn layout(&self) -> &Arc<Layout> {
        match self {
            Self::Host(network) => network.layout(),
            Self::Device(network) => network.layout(),
        }
    }

    /// The network as data.
    pub fn config(&self) -> &ModelConfig {
        match self {
            Self::Host(network) => network.config(),
            Self::Device(network) => network.config(),
        }
    }

    /// Bytes of all matrices in memory.
    pub fn weight_bytes(&self) -> u64 {
        match self {
            Self::Host(network) => network.weight_bytes(),
            Self::Device(network) => network.weight_bytes(),
        }
    }

    /// Bytes of matrices that a token reads at least, of which only the best next tokens are wanted.
    pub fn bytes_of_token(&self) -> u64 {
        match self {
            Self::Host(network) => network.bytes_of_token(),
            Self::Device(network) => network.weight_bytes(),
        }
    }

    /// Prompt tokens of one pass, where nothing may be put aside for longer than is noticed (`short`) or only between
    /// two steps.
    pub fn chunk(&self, short: bool) -> usize {
        match (self, short) {
            (Self::Host(_), true) => 32,
            (Self::Host(_), false) => 512,
            (Self::Device(_), true) => 512,
            (Self::Device(_), false) => 2048,
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
        let mut pass = self.begin(sequence, input, (rows, Logits::All), Marks::default())?;
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
        wanted: (Rows, Logits),
        marks: Marks<'_>,
    ) -> Result<Pass> {
        match self {
            Self::Host(network) => Ok(Pass::Host(network.begin(sequence, input, wanted, marks))),
            Self::Device(network) => {
                // It computes all, and gives the best.
                Ok(Pass::Device(Box::new(network.begin(sequence, input, wanted.0, marks)?)))
            }
        }
    }

    /// Computes the next step of a pass over the same sequence; `false` once nothing is left to do.
    pub fn step(&mut self, pass: &mut Pass, sequence: &mut Sequence, spans: &[Span]) -> Result<bool> {
        match (self, pass) {
            (Self::Host(network), Pass::Host(pass)) => Ok(network.step(pass, sequence, spans)),
            (Self::Device(network), Pass::Device(pass)) => network.step(pass),
            _ => unreachable!("a pass is continued where it was begun"),
        }
    }

    /// Ends a pass over the same sequence that has run to its end: what it says of the tokens behind its rows.
    pub fn end(&mut self, pass: Pass, sequence: &mut Sequence) -> Result<Vec<Scores>> {
        match (self, pass) {
            (Self::Host(network), Pass::Host(pass)) => Ok(network.end(pass)),
            (Self::Device(network), Pass::Device(pass)) => network.end(*pass, sequence),
            _ => unreachable!("a pass is ended where it was begun"),
        }
    }

    /// The `count` best tokens of all, or `among` some (in order, none twice), with their logits, the best first; `None`
    /// where these scores are all that there is.
    pub fn best(&self, scores: &Scores, count: usize, among: Option<&[u32]>) -> Option<Vec<(u32, f32)>> {
        match (self, scores) {
            (Self::Host(network), Scores::Begun(begun)) => Some(network.best(begun, count, among)),
            _ => None,
        }
    }

    /// All logits of a row whose scores are given; on a device, of the pass that ended last.
    pub fn whole(&self, scores: &Scores, row: usize) -> Result<Arc<[f32]>> {
        match (self, scores) {
            (_, Scores::All(logits)) => Ok(logits.clone()),
            (Self::Device(network), Scores::Best(_)) => network.whole(row),
            (Self::Host(network), Scores::Begun(begun)) => Ok(network.whole(begun)),
            _ => unreachable!("scores are asked for where they were computed"),
        }
    }

    /// What reads logits that are in this machine's memory.
    pub fn ops(&self) -> &dyn Ops {
        match self {
            Self::Host(network) => network.ops(),
            Self::Device(_) => &Reference,
        }
    }

    /// `ln(sum(e^logit))` over the vocabulary; `None` where not all of it was computed.
    pub fn log_sum_exp(&self, scores: &Scores) -> Option<f32> {
        match scores {
            Scores::Best(best) => Some(best.log_sum_exp),
            Scores::Begun(_) => None,
            Scores::All(logits) => Some(self.ops().log_sum_exp(logits)),
        }
    }

    /// Begins to read a picture, `[3, image_size, image_size]`; `None` if the network reads none of this size.
    pub fn begin_picture(&self, pixels: &[f32]) -> Result<Option<Encoding>> {
        match self {
            Self::Host(network) => Ok(network.begin_picture(pixels).map(Encoding::Host)),
            Self::Device(network) => Ok(network.begin_picture(pixels)?.map(Box::new).map(Encoding::Device)),
        }
    }

    /// Takes a picture one step on; its features `[tokens, hidden]` with the last one.
    pub fn read_on(&self, picture: &mut Encoding) -> Result<Option<Vec<f32>>> {
        match (self, picture) {
            (Self::Host(network), Encoding::Host(picture)) => Ok(network.read_on(picture)),
            (Self::Device(network), Encoding::Device(picture)) => network.read_on(picture),
            _ => unreachable!("a picture is read on where it was begun"),
        }
    }
}
