//! A network on a graphics card: its weights, activations, keys and values stay there; token ids go in, the best
//! tokens come out.
//!
//! A pass of few tokens launches five kernels a layer, each of which does what the host's decoder does in several
//! operations; one of many tokens goes through tensor cores. An adapter takes two more with each
//! product that it adds to. The steps are those of [`super::host`].

mod adapter;
mod decoder;
mod tower;
mod weights;
mod work;

use std::sync::Arc;

use gemma_kernels::cuda::low_rank::DeviceLowRank;
use gemma_kernels::cuda::recurrent::GateMatrix;
use gemma_kernels::cuda::{Buffer, CudaError, Device, DeviceMatrix};

use crate::cache::Layout;
use crate::config::ModelConfig;
use crate::error::{Error, ErrorKind};

use adapter::{AdapterWork, DeviceAdapter};
pub use decoder::DevicePass;
pub use tower::Encoding;
use tower::Tower;
pub(crate) use weights::load;
use work::Work;

/// A network ready to run. Belongs to the engine's thread.
pub struct DeviceNetwork {
    config: ModelConfig,
    device: Device,
    layout: Arc<Layout>,
    /// Whether everything is computed in f32.
    exact: bool,
    embedding: DeviceMatrix,
    /// The output table where it is not the embedding's.
    output: Option<DeviceMatrix>,
    layers: Vec<Layer>,
    /// `[hidden]`, with the 1 added.
    final_norm: Buffer,
    tower: Option<Tower>,
    /// What of an adapter is not with the products.
    adapter: Option<DeviceAdapter>,
    /// For products whose inputs are split.
    scratch: Buffer,
    /// The windows that there are; a layer's sight is an index into them.
    windows: Vec<Option<usize>>,
    /// Buffers of passes that have ended; the last ones are of the pass that ended last, whose logits can still be
    /// asked for.
    idle: Vec<Work>,
}

/// Weights of one layer. Norm weights have the 1 added.
struct Layer {
    before_mixer: Buffer,
    after_mixer: Option<Buffer>,
    before_mlp: Buffer,
    after_mlp: Option<Buffer>,
    mixer: MixerWeights,
    gate_up: Linear,
    down: Linear,
}

/// A product, perhaps with a bias and an adapter's factors.
struct Linear {
    matrix: DeviceMatrix,
    bias: Option<Buffer>,
    low_rank: Option<DeviceLowRank>,
}

/// What a product multiplies with and adds.
#[derive(Clone, Copy)]
struct Product<'a> {
    matrix: &'a DeviceMatrix,
    bias: Option<&'a Buffer>,
    /// Factors, where they shall run, with their buffers.
    low_rank: Option<(&'a DeviceLowRank, &'a AdapterWork)>,
}

impl Linear {
    fn new(matrix: DeviceMatrix, bias: Option<Buffer>) -> Self {
        Self { matrix, bias, low_rank: None }
    }

    /// The product; with the adapter's factors where there are buffers for it.
    fn product<'a>(&'a self, adapter: Option<&'a AdapterWork>) -> Product<'a> {
        Product {
            matrix: &self.matrix,
            bias: self.bias.as_ref(),
            low_rank: self.low_rank.as_ref().zip(adapter),
        }
    }

    /// Bytes of its matrices.
    fn bytes(&self) -> usize {
        self.matrix.bytes() + self.low_rank.as_ref().map_or(0, DeviceLowRank::bytes)
    }
}

enum MixerWeights {
    Attention(Box<AttentionWeights>),
    RgLru(Box<RgLruWeights>),
}

struct AttentionWeights {
    qkv: Linear,
    o: Linear,
    q_norm: Option<Buffer>,
    k_norm: Option<Buffer>,
    /// `[rotated / 2]`.
    frequencies: Arc<Buffer>,
    /// Index into [`DeviceNetwork::windows`].
    sight: usize,
}

struct RgLruWeights {
    /// The x branch, then the y branch.
    xy: Linear,
    out: Linear,
    /// `[taps, width]`.
    convolution: Buffer,
    convolution_bias: Buffer,
    input_gate: GateMatrix,
    input_bias: Buffer,
    recurrence_gate: GateMatrix,
    recurrence_bias: Buffer,
    /// `[width]`: `-8 softplus(parameter)`.
    decay: Buffer,
}

impl DeviceNetwork {
    /// Where things stand in a sequence's memory.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The network as data.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Bytes of all matrices on the device.
    pub fn weight_bytes(&self) -> u64 {
        let layers = self.layers.iter().map(|layer| {
            let mixer = match &layer.mixer {
                MixerWeights::Attention(a) => a.qkv.bytes() + a.o.bytes(),
                MixerWeights::RgLru(r) => {
                    let gates = r.input_gate.bytes() + r.recurrence_gate.bytes();
                    r.xy.bytes() + r.out.bytes() + gates
                }
            };
            mixer + layer.gate_up.bytes() + layer.down.bytes()
        });
        let tower = self.tower.as_ref().map_or(0, Tower::bytes);
        let tables = [Some(&self.embedding), self.output.as_ref()];
        let tables = tables.into_iter().flatten().map(DeviceMatrix::bytes);
        layers.chain(tables).chain([tower]).map(|bytes| bytes as u64).sum()
    }
}

impl From<CudaError> for Error {
    fn from(error: CudaError) -> Self {
        let (kind, remedy) = match error {
            CudaError::OutOfMemory { .. } => (
                ErrorKind::DeviceFull,
                "Close what else uses the GPU, or choose a smaller model; with device auto or cpu the processor does it.",
            ),
            CudaError::Lost(_) => {
                (ErrorKind::DeviceLost, "The model goes on on the processor; restart to use the GPU again.")
            }
            CudaError::Unavailable(_) => (ErrorKind::DeviceLost, "Set device to cpu."),
        };
        Self::new(kind, "GPU", error).remedy(remedy)
    }
}
