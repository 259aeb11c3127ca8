//! A network on a graphics card: its weights, activations, keys and values stay there; token ids go in, the best
//! tokens come out.
//!
//! A pass of few tokens launches five kernels a layer, each of which does what the host's decoder does in several
//! operations; one of many tokens goes through tensor cores. The steps are those of [`super::host`].

mod decoder;
mod tower;
mod weights;
mod work;

use std::sync::Arc;

use gemma_kernels::cuda::recurrent::GateMatrix;
use gemma_kernels::cuda::{Buffer, CudaError, Device, DeviceMatrix};

use crate::cache::Layout;
use crate::config::ModelConfig;
use crate::error::{Error, ErrorKind};

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

/// A product, perhaps with a bias.
struct Linear {
    matrix: DeviceMatrix,
    bias: Option<Buffer>,
}

enum MixerWeights {
    Attention(Box<AttentionWeights>),
    RgLru(Box<RgLruWeights>),
}

struct AttentionWeights {
    qkv: DeviceMatrix,
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
                MixerWeights::Attention(a) => a.qkv.bytes() + a.o.matrix.bytes(),
                MixerWeights::RgLru(r) => {
                    let gates = r.input_gate.bytes() + r.recurrence_gate.bytes();
                    r.xy.matrix.bytes() + r.out.matrix.bytes() + gates
                }
            };
            mixer + layer.gate_up.matrix.bytes() + layer.down.matrix.bytes()
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
