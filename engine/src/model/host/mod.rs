//! A network on the processor: its weights in the backend's layout, one decoder that runs every text model of the
//! family by its layer specifications, and the tower that reads pictures.

mod decoder;
mod recurrent;
mod siglip;
mod weights;

use std::sync::Arc;

use gemma_kernels::{Activation, Matrix, Ops, Projection, Rope};

use crate::cache::Layout;
use crate::config::{ModelConfig, RopeSpec};

pub use decoder::HostPass;
pub use siglip::Encoding;
pub(super) use siglip::patch_rows;
pub(crate) use weights::load;

/// A network ready to run. Belongs to the engine's thread.
pub struct HostNetwork {
    config: ModelConfig,
    ops: Arc<dyn Ops>,
    activation: Activation,
    layout: Arc<Layout>,
    embedding: Matrix,
    /// The output table where it is not the embedding's.
    output: Option<Matrix>,
    layers: Vec<Layer>,
    tower: Option<siglip::Tower>,
    final_norm: Vec<f32>,
    ropes: Vec<Rotation>,
    scratch: decoder::Scratch,
}

/// Weights of one layer. Norm weights have the 1 added.
struct Layer {
    before_mixer: Vec<f32>,
    after_mixer: Option<Vec<f32>>,
    before_mlp: Vec<f32>,
    after_mlp: Option<Vec<f32>>,
    mixer: MixerWeights,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// A product, perhaps with a bias.
struct Linear {
    matrix: Matrix,
    bias: Option<Vec<f32>>,
}

impl Linear {
    fn to<'a>(&'a self, out: &'a mut [f32]) -> Projection<'a> {
        Projection { matrix: &self.matrix, bias: self.bias.as_deref(), out }
    }
}

enum MixerWeights {
    Attention(AttentionWeights),
    RgLru(RgLruWeights),
}

struct AttentionWeights {
    q: Matrix,
    k: Matrix,
    v: Matrix,
    o: Linear,
    q_norm: Option<Vec<f32>>,
    k_norm: Option<Vec<f32>>,
    /// Index into [`HostNetwork::ropes`].
    rope: usize,
}

struct RgLruWeights {
    x: Linear,
    y: Linear,
    out: Linear,
    /// `[taps, width]`.
    convolution: Vec<f32>,
    convolution_bias: Vec<f32>,
    input_gate: Gate,
    recurrence_gate: Gate,
    /// `[width]`: `-8 softplus(parameter)`.
    decay: Vec<f32>,
}

/// A block-diagonal product with a bias.
struct Gate {
    blocks: Vec<Matrix>,
    bias: Vec<f32>,
}

/// RoPE of the layers that share it.
struct Rotation {
    spec: RopeSpec,
    /// Numbers of a head that are turned.
    dim: usize,
    rope: Rope,
}

impl HostNetwork {
    /// Where things stand in a sequence's memory.
    pub fn layout(&self) -> &Arc<Layout> {
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
        let layers = self.layers.iter().flat_map(|layer| {
            let mut all = vec![&layer.gate.matrix, &layer.up.matrix, &layer.down.matrix];
            match &layer.mixer {
                MixerWeights::Attention(a) => all.extend([&a.q, &a.k, &a.v, &a.o.matrix]),
                MixerWeights::RgLru(r) => {
                    all.extend([&r.x.matrix, &r.y.matrix, &r.out.matrix]);
                    all.extend(r.input_gate.blocks.iter().chain(&r.recurrence_gate.blocks));
                }
            }
            all
        });
        let text: u64 = layers.chain([&self.embedding]).chain(&self.output).map(|m| m.bytes() as u64).sum();
        text + self.tower.as_ref().map_or(0, siglip::Tower::bytes)
    }

    /// Begins to read a picture, `[3, image_size, image_size]`; `None` if the network reads none of this size.
    pub fn begin_picture(&self, pixels: &[f32]) -> Option<Encoding> {
        let tower = self.tower.as_ref().filter(|tower| tower.spec.pixels() == pixels.len())?;
        Some(tower.begin(&*self.ops, pixels))
    }

    /// Takes a picture one step on; its features `[tokens, hidden]` with the last one.
    pub fn read_on(&self, picture: &mut Encoding) -> Option<Vec<f32>> {
        self.tower.as_ref()?.advance(&*self.ops, picture)
    }
}
