//! From a checkpoint to a network on a device: every tensor repacked and uploaded once.

use std::sync::Arc;

use gemma_kernels::cuda::attention::supports;
use gemma_kernels::cuda::many::SCRATCH_BYTES;
use gemma_kernels::cuda::recurrent::{GateMatrix, fits};
use gemma_kernels::cuda::{Arrangement, Buffer, Device, DeviceMatrix, MatrixError, PageMemory, Part};
use gemma_kernels::{KvFormat, Rope};

use super::super::tensors::{LayerNorms, RecurrentNumbers, Tensors};
use super::{AttentionWeights, DeviceAdapter, DeviceNetwork, Layer, Linear, MixerWeights, RgLruWeights};
use crate::adapter::Adapter;
use crate::cache::Layout;
use crate::checkpoint::Checkpoint;
use crate::config::{AttentionSpec, LayerSpec, Mixer, ModelConfig, RgLruSpec, RopeSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::options::LoadProgress;

/// Of the memory that the weights leave, the part that keys and values may take: passes need the rest, and whoever else
/// uses the device.
const PAGES_SHARE: f64 = 0.75;

/// Reads all weights of a checkpoint to a device, and an adapter for it. `exact` computes everything in f32.
pub(crate) fn load(
    checkpoint: &Checkpoint,
    adapter: Option<&Adapter>,
    device: &Device,
    exact: bool,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<DeviceNetwork> {
    let config = checkpoint.config().clone();
    check_shapes(&config, exact)?;
    let tensors = Tensors::new(checkpoint, progress);
    let mut loader = Loader { tensors, device, exact, frequencies: Vec::new(), windows: Vec::new() };
    let layers = config.layers.iter().enumerate().map(|(i, spec)| loader.layer(&config, i, spec));
    let mut layers = layers.collect::<Result<Vec<_>>>()?;
    let adapter = adapter.map(|adapter| DeviceAdapter::new(adapter, &config, device, exact, &mut layers));
    let adapter = adapter.transpose()?;
    let (hidden, vocab) = (config.hidden, config.vocab);
    let embedding = loader.matrix(&[("model.embed_tokens.weight", vocab)], hidden, Arrangement::Stacked)?;
    let output = checkpoint
        .contains("lm_head.weight")
        .then(|| loader.matrix(&[("lm_head.weight", vocab)], hidden, Arrangement::Stacked))
        .transpose()?;
    let final_norm = loader.tensors.norm(&config, "model.norm.weight", hidden)?;
    let tower = config.vision.as_ref().map(|spec| loader.tower(&config, spec)).transpose()?;
    let kv = if exact { KvFormat::F32 } else { KvFormat::F16 };
    let memory = PageMemory::new(device, (device.free_bytes()? as f64 * PAGES_SHARE) as u64);
    Ok(DeviceNetwork {
        layout: Arc::new(Layout::new(&config, kv, Some(memory))),
        device: device.clone(),
        exact,
        embedding,
        output,
        layers,
        final_norm: device.numbers(&final_norm)?,
        tower,
        adapter,
        scratch: device.buffer(SCRATCH_BYTES)?,
        windows: loader.windows,
        idle: Vec::new(),
        config,
    })
}

/// Fails where a model has a shape that the kernels do not run. All published ones do; the processor runs any.
fn check_shapes(config: &ModelConfig, exact: bool) -> Result<()> {
    let no = |what: String| {
        let problem = format!("its kernels do not run {what}");
        Err(Error::new(ErrorKind::Unsupported, "GPU", problem).remedy("Set device to cpu or auto."))
    };
    let step = if exact { 4 } else { 8 };
    let mut widths = vec![config.hidden];
    for layer in &config.layers {
        widths.push(layer.mlp.ffn);
        match &layer.mixer {
            Mixer::Attention(a) if exact || supports(a.head_dim) => widths.push(a.heads * a.head_dim),
            Mixer::Attention(a) => return no(format!("heads of {} numbers", a.head_dim)),
            Mixer::RgLru(r) if fits(r.taps, r.width / r.blocks) => widths.push(r.width),
            Mixer::RgLru(r) => {
                return no(format!(
                    "recurrent blocks of {} channels and {} taps",
                    r.width / r.blocks,
                    r.taps
                ));
            }
        }
    }
    widths.extend(config.vision.iter().flat_map(|vision| [vision.hidden, vision.ffn]));
    match widths.iter().find(|width| !width.is_multiple_of(step)) {
        Some(width) => no(format!("rows of {width} numbers")),
        // What the table of embeddings is read by.
        None if !config.hidden.is_multiple_of(8) => no(format!("rows of {} numbers", config.hidden)),
        None => Ok(()),
    }
}

pub(super) struct Loader<'a> {
    pub(super) tensors: Tensors<'a>,
    pub(super) device: &'a Device,
    exact: bool,
    /// Of each kind of rotation, and the numbers of a head that it turns.
    frequencies: Vec<(RopeSpec, usize, Arc<Buffer>)>,
    windows: Vec<Option<usize>>,
}

impl Loader<'_> {
    fn layer(&mut self, config: &ModelConfig, i: usize, spec: &LayerSpec) -> Result<Layer> {
        let (hidden, ffn, bias) = (config.hidden, spec.mlp.ffn, spec.mlp.bias);
        let LayerNorms { before_mixer, after_mixer, before_mlp, after_mlp } =
            self.tensors.layer_norms(config, i, spec)?;
        let mixer = match &spec.mixer {
            Mixer::Attention(a) => MixerWeights::Attention(Box::new(self.attention(config, i, a)?)),
            Mixer::RgLru(r) => MixerWeights::RgLru(Box::new(self.recurrence(config, i, r)?)),
        };
        let name = |part: &str| format!("model.layers.{i}.mlp.{part}");
        let (gate, up) = (name("gate_proj"), name("up_proj"));
        let gate_up = self.linear(&[(&gate, ffn), (&up, ffn)], hidden, Arrangement::GateUp, bias)?;
        let down = self.linear(&[(&name("down_proj"), hidden)], ffn, Arrangement::Stacked, bias)?;
        let norm = |weight: Option<Vec<f32>>| weight.map(|w| self.device.numbers(&w)).transpose();
        Ok(Layer {
            before_mixer: self.device.numbers(&before_mixer)?,
            after_mixer: norm(after_mixer)?,
            before_mlp: self.device.numbers(&before_mlp)?,
            after_mlp: norm(after_mlp)?,
            mixer,
            gate_up,
            down,
        })
    }

    fn attention(&mut self, config: &ModelConfig, i: usize, a: &AttentionSpec) -> Result<AttentionWeights> {
        let hidden = config.hidden;
        let (q_width, kv_width) = (a.heads * a.head_dim, a.kv_heads * a.head_dim);
        let name = |part: &str| format!("model.layers.{i}.self_attn.{part}");
        let [q, k, v] = ["q_proj", "k_proj", "v_proj"].map(name);
        let parts = [(q.as_str(), q_width), (k.as_str(), kv_width), (v.as_str(), kv_width)];
        let mut norm = |part: &str| -> Result<Option<Buffer>> {
            if !a.qk_norm {
                return Ok(None);
            }
            let weight = self.tensors.norm(config, &name(part), a.head_dim)?;
            Ok(Some(self.device.numbers(&weight)?))
        };
        let (q_norm, k_norm) = (norm("q_norm.weight")?, norm("k_norm.weight")?);
        Ok(AttentionWeights {
            qkv: self.linear(&parts, hidden, Arrangement::Stacked, false)?,
            o: self.linear(&[(&name("o_proj"), hidden)], q_width, Arrangement::Stacked, a.out_bias)?,
            q_norm,
            k_norm,
            frequencies: self.frequencies(a)?,
            sight: self.sight(a.window),
        })
    }

    fn frequencies(&mut self, a: &AttentionSpec) -> Result<Arc<Buffer>> {
        let known = self.frequencies.iter().find(|(rope, dim, _)| (*rope, *dim) == (a.rope, a.rotary));
        if let Some((_, _, buffer)) = known {
            return Ok(buffer.clone());
        }
        let rope = Rope::new(a.rotary, a.rope.theta, a.rope.factor);
        let buffer = Arc::new(self.device.numbers(rope.frequencies())?);
        self.frequencies.push((a.rope, a.rotary, buffer.clone()));
        Ok(buffer)
    }

    fn sight(&mut self, window: Option<usize>) -> usize {
        self.windows.iter().position(|w| *w == window).unwrap_or_else(|| {
            self.windows.push(window);
            self.windows.len() - 1
        })
    }

    fn recurrence(&mut self, config: &ModelConfig, i: usize, r: &RgLruSpec) -> Result<RgLruWeights> {
        let (hidden, width) = (config.hidden, r.width);
        let name = |part: &str| format!("model.layers.{i}.temporal_block.{part}");
        let RecurrentNumbers { convolution, convolution_bias, decay } = self.tensors.recurrent(i, r)?;
        let (x, y) = (name("linear_x"), name("linear_y"));
        let (input_gate, input_bias) = self.gate(&name("rg_lru.input_gate"), r)?;
        let (recurrence_gate, recurrence_bias) = self.gate(&name("rg_lru.recurrent_gate"), r)?;
        Ok(RgLruWeights {
            xy: self.linear(&[(&x, width), (&y, width)], hidden, Arrangement::Stacked, true)?,
            out: self.linear(&[(&name("linear_out"), hidden)], width, Arrangement::Stacked, true)?,
            convolution: self.device.numbers(&convolution)?,
            convolution_bias: self.device.numbers(&convolution_bias)?,
            input_gate,
            input_bias,
            recurrence_gate,
            recurrence_bias,
            decay: self.device.numbers(&decay)?,
        })
    }

    fn gate(&mut self, name: &str, r: &RgLruSpec) -> Result<(GateMatrix, Buffer)> {
        let gate = self.tensors.gate(name, r)?;
        let blocks: Vec<&[u8]> = gate.blocks.iter().map(Vec::as_slice).collect();
        let matrix = GateMatrix::new(self.device, gate.format, r.width / r.blocks, &blocks, self.exact);
        let matrix = matrix.map_err(|e| self.failed(name, e))?;
        Ok((matrix, self.device.numbers(&gate.bias)?))
    }

    /// A product of several tensors side by side, with their biases `NAME.bias` if they have any.
    pub(super) fn linear(
        &mut self,
        names: &[(&str, usize)],
        cols: usize,
        arrangement: Arrangement,
        bias: bool,
    ) -> Result<Linear> {
        let weights: Vec<(String, usize)> =
            names.iter().map(|(name, rows)| (format!("{name}.weight"), *rows)).collect();
        let parts: Vec<(&str, usize)> = weights.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
        let matrix = self.matrix(&parts, cols, arrangement)?;
        let mut numbers = Vec::new();
        for (name, rows) in names.iter().filter(|_| bias) {
            numbers.extend(self.tensors.numbers(&format!("{name}.bias"), &[*rows])?);
        }
        let bias = bias.then(|| self.device.numbers(&numbers)).transpose()?;
        Ok(Linear::new(matrix, bias))
    }

    fn matrix(
        &mut self,
        names: &[(&str, usize)],
        cols: usize,
        arrangement: Arrangement,
    ) -> Result<DeviceMatrix> {
        let mut parts = Vec::with_capacity(names.len());
        for (name, rows) in names {
            let tensor = self.tensors.tensor(name, &[*rows, cols])?;
            parts.push(Part { format: tensor.format, rows: *rows, bytes: tensor.bytes });
        }
        let matrix = self.packed(names[0].0, &parts, cols, arrangement)?;
        self.tensors.report(parts.iter().map(|part| part.bytes.len()).sum());
        Ok(matrix)
    }

    pub(super) fn packed(
        &self,
        name: &str,
        parts: &[Part<'_>],
        cols: usize,
        arrangement: Arrangement,
    ) -> Result<DeviceMatrix> {
        let matrix = DeviceMatrix::new(self.device, parts, cols, arrangement, self.exact);
        matrix.map_err(|e| self.failed(name, e))
    }

    fn failed(&self, name: &str, error: MatrixError) -> Error {
        match error {
            MatrixError::Cuda(error) => error.into(),
            MatrixError::Shape(error) => self.tensors.bad(name, error),
        }
    }
}
