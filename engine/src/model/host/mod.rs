//! A network on the processor: its weights in the backend's layout, one decoder that runs every text model of the
//! family by its layer specifications, and the tower that reads pictures.

mod adapter;
mod decoder;
mod recurrent;
mod siglip;
mod weights;

use std::collections::BTreeMap;
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
    /// What an adapter puts in place of the embeddings of tokens.
    rows: BTreeMap<u32, Vec<f32>>,
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

impl Layer {
    /// All products but those of gates, with the names of their modules, those over one input together.
    fn sites(&mut self) -> Vec<Vec<(&'static str, &mut Linear)>> {
        let mut sites = match &mut self.mixer {
            MixerWeights::Attention(a) => vec![
                vec![
                    ("self_attn.q_proj", &mut a.q),
                    ("self_attn.k_proj", &mut a.k),
                    ("self_attn.v_proj", &mut a.v),
                ],
                vec![("self_attn.o_proj", &mut a.o)],
            ],
            MixerWeights::RgLru(r) => vec![
                vec![("temporal_block.linear_x", &mut r.x), ("temporal_block.linear_y", &mut r.y)],
                vec![("temporal_block.linear_out", &mut r.out)],
            ],
        };
        sites.push(vec![("mlp.gate_proj", &mut self.gate), ("mlp.up_proj", &mut self.up)]);
        sites.push(vec![("mlp.down_proj", &mut self.down)]);
        sites
    }

    /// All products but those of gates.
    fn linears(&self) -> impl Iterator<Item = &Linear> {
        let mixer = match &self.mixer {
            MixerWeights::Attention(a) => vec![&a.q, &a.k, &a.v, &a.o],
            MixerWeights::RgLru(r) => vec![&r.x, &r.y, &r.out],
        };
        mixer.into_iter().chain([&self.gate, &self.up, &self.down])
    }
}

/// A product, perhaps with a bias and with what an adapter adds.
struct Linear {
    matrix: Matrix,
    bias: Option<Vec<f32>>,
    adapter: Option<adapter::Beside>,
}

impl Linear {
    fn new(matrix: Matrix, bias: Option<Vec<f32>>) -> Self {
        Self { matrix, bias, adapter: None }
    }

    /// The product alone.
    fn to<'a>(&'a self, out: &'a mut [f32]) -> Projection<'a> {
        Projection { bias: self.bias.as_deref(), ..Projection::new(&self.matrix, out) }
    }

    /// The product with the adapter, if it has one and it is on.
    fn adapted<'a>(&'a self, out: &'a mut [f32], on: bool) -> Projection<'a> {
        let low_rank = self.adapter.as_ref().filter(|_| on).map(adapter::Beside::low_rank);
        Projection { low_rank, ..self.to(out) }
    }
}

enum MixerWeights {
    Attention(AttentionWeights),
    RgLru(RgLruWeights),
}

struct AttentionWeights {
    q: Linear,
    k: Linear,
    v: Linear,
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
        let linears = self.layers.iter().flat_map(Layer::linears);
        let products: usize = linears
            .map(|linear| linear.matrix.bytes() + linear.adapter.as_ref().map_or(0, adapter::Beside::bytes))
            .sum();
        let gates = self.layers.iter().flat_map(|layer| match &layer.mixer {
            MixerWeights::Attention(_) => [].iter().chain(&[]),
            MixerWeights::RgLru(r) => r.input_gate.blocks.iter().chain(&r.recurrence_gate.blocks),
        });
        let matrices = gates.chain([&self.embedding]).chain(&self.output);
        let text = products + matrices.map(Matrix::bytes).sum::<usize>();
        text as u64 + self.tower.as_ref().map_or(0, siglip::Tower::bytes)
    }

    /// Bytes of matrices that a token reads at least, of which only the best next tokens are wanted.
    pub fn bytes_of_token(&self) -> u64 {
        let vocabulary = self.vocabulary();
        self.weight_bytes() - (vocabulary.bytes() - vocabulary.bytes_for_best()) as u64
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
