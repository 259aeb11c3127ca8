//! A network: its weights in the backend's layout, and one decoder that runs every text model of the
//! family by its layer specifications.

mod decoder;
mod weights;

use std::sync::Arc;

use gemma_kernels::{Activation, KvLayout, Matrix, Ops, Rope};

use crate::config::{ModelConfig, RopeSpec};

pub use decoder::{Interrupt, Rows};
pub(crate) use weights::load;

/// A network ready to run. Belongs to the engine's thread.
pub struct Network {
    config: ModelConfig,
    ops: Arc<dyn Ops>,
    activation: Activation,
    layout: Arc<KvLayout>,
    embedding: Matrix,
    /// The output table where it is not the embedding's.
    output: Option<Matrix>,
    layers: Vec<Layer>,
    final_norm: Vec<f32>,
    ropes: Vec<(RopeSpec, Rope)>,
    scratch: decoder::Scratch,
}

/// Weights of one layer. Norm weights have the 1 added.
struct Layer {
    before_mixer: Vec<f32>,
    after_mixer: Option<Vec<f32>>,
    before_mlp: Vec<f32>,
    after_mlp: Option<Vec<f32>>,
    attention: AttentionWeights,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

struct AttentionWeights {
    q: Matrix,
    k: Matrix,
    v: Matrix,
    o: Matrix,
    q_norm: Option<Vec<f32>>,
    k_norm: Option<Vec<f32>>,
    /// Index into [`Network::ropes`].
    rope: usize,
}

impl Network {
    /// Where keys and values stand in a page.
    pub fn layout(&self) -> &Arc<KvLayout> {
        &self.layout
    }

    /// The network as data.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The backend it runs on.
    pub fn ops(&self) -> &dyn Ops {
        &*self.ops
    }

    /// Bytes of all matrices in memory.
    pub fn weight_bytes(&self) -> u64 {
        let layers = self.layers.iter().flat_map(|l| {
            let a = &l.attention;
            [&a.q, &a.k, &a.v, &a.o, &l.gate, &l.up, &l.down]
        });
        layers.chain([&self.embedding]).chain(&self.output).map(|m| m.bytes() as u64).sum()
    }
}
