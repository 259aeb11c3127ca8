//! From a checkpoint to a network: every tensor brought into the backend's layout once.

use std::sync::Arc;

use gemma_kernels::{Activation, Format, KvFormat, Matrix, Ops, Rope, quant};

use super::siglip::{LayerNorm, ProjectorWeights, Tower, TowerLayer};
use super::{AttentionWeights, Gate, Layer, Linear, MixerWeights, Network, RgLruWeights, Rotation, decoder};
use crate::cache::Layout;
use crate::checkpoint::{Checkpoint, TensorView};
use crate::config::{AttentionSpec, LayerSpec, Mixer, ModelConfig, Norms, Projector, RgLruSpec, VisionSpec};
use crate::engine::LoadProgress;
use crate::error::{Error, ErrorKind, Result};

/// Reads all weights of a checkpoint. `activation` and `kv` say how numbers are computed and kept.
pub(crate) fn load(
    checkpoint: &Checkpoint,
    ops: Arc<dyn Ops>,
    activation: Activation,
    kv: KvFormat,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Network> {
    let config = checkpoint.config().clone();
    let total = checkpoint.weight_bytes();
    let mut loader = Loader { checkpoint, ops: &*ops, progress, done: 0, total };
    let mut ropes: Vec<Rotation> = Vec::new();
    let mut layers = Vec::with_capacity(config.layers.len());
    for (i, spec) in config.layers.iter().enumerate() {
        layers.push(loader.layer(&config, i, spec, &mut ropes)?);
    }
    let (hidden, vocab) = (config.hidden, config.vocab);
    let embedding = loader.matrix("model.embed_tokens.weight", vocab, hidden)?;
    let output = checkpoint
        .contains("lm_head.weight")
        .then(|| loader.matrix("lm_head.weight", vocab, hidden))
        .transpose()?;
    let final_norm = loader.norm(&config, "model.norm.weight", hidden)?;
    let tower = config.vision.as_ref().map(|spec| loader.tower(&config, spec, activation)).transpose()?;
    let layout = Arc::new(Layout::new(&config, kv));
    let scratch = decoder::Scratch::default();
    Ok(Network {
        config,
        ops,
        activation,
        layout,
        embedding,
        output,
        layers,
        tower,
        final_norm,
        ropes,
        scratch,
    })
}

struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    ops: &'a dyn Ops,
    progress: &'a mut dyn FnMut(LoadProgress),
    done: u64,
    total: u64,
}

impl<'a> Loader<'a> {
    fn layer(
        &mut self,
        config: &ModelConfig,
        i: usize,
        spec: &LayerSpec,
        ropes: &mut Vec<Rotation>,
    ) -> Result<Layer> {
        let (hidden, ffn) = (config.hidden, spec.mlp.ffn);
        let name = |part: &str| format!("model.layers.{i}.{part}.weight");
        let mixer = match &spec.mixer {
            Mixer::Attention(a) => MixerWeights::Attention(self.attention(config, i, a, ropes)?),
            Mixer::RgLru(r) => MixerWeights::RgLru(self.recurrence(config, i, r)?),
        };
        let mut linear = |part: &str, rows, cols| {
            self.linear(&format!("model.layers.{i}.{part}"), rows, cols, spec.mlp.bias)
        };
        let (gate, up) = (linear("mlp.gate_proj", ffn, hidden)?, linear("mlp.up_proj", ffn, hidden)?);
        let down = linear("mlp.down_proj", hidden, ffn)?;
        // The same name stands before the MLP in Gemma 1 and behind the mixer in later ones.
        let post = "post_attention_layernorm";
        let (before_mlp, after_mixer, after_mlp) = match spec.norms {
            Norms::Pre => (post, None, None),
            Norms::PrePost => ("pre_feedforward_layernorm", Some(post), Some("post_feedforward_layernorm")),
        };
        Ok(Layer {
            before_mixer: self.norm(config, &name("input_layernorm"), hidden)?,
            after_mixer: after_mixer.map(|n| self.norm(config, &name(n), hidden)).transpose()?,
            before_mlp: self.norm(config, &name(before_mlp), hidden)?,
            after_mlp: after_mlp.map(|n| self.norm(config, &name(n), hidden)).transpose()?,
            mixer,
            gate,
            up,
            down,
        })
    }

    fn attention(
        &mut self,
        config: &ModelConfig,
        i: usize,
        a: &AttentionSpec,
        ropes: &mut Vec<Rotation>,
    ) -> Result<AttentionWeights> {
        let hidden = config.hidden;
        let (q_width, kv_width) = (a.heads * a.head_dim, a.kv_heads * a.head_dim);
        let name = |part: &str| format!("model.layers.{i}.self_attn.{part}");
        let shared = ropes.iter().position(|r| r.spec == a.rope && r.dim == a.rotary);
        let rope = shared.unwrap_or_else(|| {
            let rope = Rope::new(a.rotary, a.rope.theta, a.rope.factor);
            ropes.push(Rotation { spec: a.rope, dim: a.rotary, rope });
            ropes.len() - 1
        });
        let qk_norm = |loader: &mut Self, part: &str| {
            a.qk_norm.then(|| loader.norm(config, &name(part), a.head_dim)).transpose()
        };
        Ok(AttentionWeights {
            q: self.matrix(&name("q_proj.weight"), q_width, hidden)?,
            k: self.matrix(&name("k_proj.weight"), kv_width, hidden)?,
            v: self.matrix(&name("v_proj.weight"), kv_width, hidden)?,
            o: self.linear(&name("o_proj"), hidden, q_width, a.out_bias)?,
            q_norm: qk_norm(self, "q_norm.weight")?,
            k_norm: qk_norm(self, "k_norm.weight")?,
            rope,
        })
    }

    fn recurrence(&mut self, config: &ModelConfig, i: usize, r: &RgLruSpec) -> Result<RgLruWeights> {
        let (hidden, width) = (config.hidden, r.width);
        let name = |part: &str| format!("model.layers.{i}.temporal_block.{part}");
        let kernel = self.numbers(&name("conv_1d.weight"), &[width, 1, r.taps])?;
        let taps = |tap: usize| kernel.iter().skip(tap).step_by(r.taps).copied();
        let parameter = self.numbers(&name("rg_lru.recurrent_param"), &[width])?;
        let softplus = |x: f32| f64::from(x).max(0.0) + (-f64::from(x).abs()).exp().ln_1p();
        Ok(RgLruWeights {
            x: self.linear(&name("linear_x"), width, hidden, true)?,
            y: self.linear(&name("linear_y"), width, hidden, true)?,
            out: self.linear(&name("linear_out"), hidden, width, true)?,
            convolution: (0..r.taps).flat_map(taps).collect(),
            convolution_bias: self.numbers(&name("conv_1d.bias"), &[width])?,
            input_gate: self.gate(&name("rg_lru.input_gate"), r)?,
            recurrence_gate: self.gate(&name("rg_lru.recurrent_gate"), r)?,
            decay: parameter.iter().map(|&p| (-8.0 * softplus(p)) as f32).collect(),
        })
    }

    /// A gate's blocks `[blocks, in, out]`, turned to `[out, in]` each; bf16 stays bf16.
    fn gate(&mut self, name: &str, r: &RgLruSpec) -> Result<Gate> {
        let side = r.width / r.blocks;
        let weight = format!("{name}_weight");
        let kept = match self.tensor(&weight, &[r.blocks, side, side])?.format {
            Format::BF16 => Format::BF16,
            _ => Format::F32,
        };
        let numbers = self.numbers(&weight, &[r.blocks, side, side])?;
        let mut blocks = Vec::with_capacity(r.blocks);
        for block in numbers.chunks_exact(side * side) {
            let turned = (0..side).flat_map(|out| block.iter().skip(out).step_by(side));
            let bytes: Vec<u8> = match kept {
                Format::BF16 => turned.flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
                _ => turned.flat_map(|v| v.to_le_bytes()).collect(),
            };
            let matrix = self.ops.matrix(kept, side, side, &bytes).map_err(|e| self.bad(&weight, e))?;
            blocks.push(matrix);
        }
        Ok(Gate { blocks, bias: self.numbers(&format!("{name}_bias"), &[r.blocks, side])? })
    }

    fn tower(&mut self, config: &ModelConfig, spec: &VisionSpec, activation: Activation) -> Result<Tower> {
        let (hidden, ffn, text) = (spec.hidden, spec.ffn, config.hidden);
        let mut layers = Vec::with_capacity(spec.layers);
        for i in 0..spec.layers {
            let name = |part: &str| format!("vision_tower.encoder.layers.{i}.{part}");
            layers.push(TowerLayer {
                before_attention: self.layer_norm(&name("layer_norm1"), hidden)?,
                q: self.linear(&name("self_attn.q_proj"), hidden, hidden, true)?,
                k: self.linear(&name("self_attn.k_proj"), hidden, hidden, true)?,
                v: self.linear(&name("self_attn.v_proj"), hidden, hidden, true)?,
                output: self.linear(&name("self_attn.out_proj"), hidden, hidden, true)?,
                before_mlp: self.layer_norm(&name("layer_norm2"), hidden)?,
                up: self.linear(&name("mlp.fc1"), ffn, hidden, true)?,
                down: self.linear(&name("mlp.fc2"), hidden, ffn, true)?,
            });
        }
        let embeddings = "vision_tower.embeddings";
        let positions = format!("{embeddings}.position_embedding.weight");
        let projector = match spec.projector {
            Projector::Linear => {
                ProjectorWeights::Linear(self.linear("multi_modal_projector.linear", text, hidden, true)?)
            }
            Projector::Pool => ProjectorWeights::Pool {
                norm: self.norm(config, "multi_modal_projector.mm_soft_emb_norm.weight", hidden)?,
                matrix: self.turned("multi_modal_projector.mm_input_projection_weight", hidden, text)?,
            },
        };
        Ok(Tower {
            activation,
            spec: spec.clone(),
            patches: self.patches(&format!("{embeddings}.patch_embedding"), spec)?,
            positions: self.numbers(&positions, &[spec.patches(), hidden])?,
            layers,
            norm: self.layer_norm("vision_tower.post_layernorm", hidden)?,
            projector,
        })
    }

    /// A convolution that takes each patch once: a product with its numbers in a row.
    fn patches(&mut self, name: &str, spec: &VisionSpec) -> Result<Linear> {
        let (rows, cols) = (spec.hidden, spec.patch_numbers());
        let weight = format!("{name}.weight");
        let tensor = self.tensor(&weight, &[rows, 3, spec.patch, spec.patch])?;
        let matrix = self.ops.matrix(tensor.format, rows, cols, tensor.bytes);
        let matrix = matrix.map_err(|e| self.bad(&weight, e))?;
        self.report(tensor.bytes.len());
        Ok(Linear { matrix, bias: Some(self.numbers(&format!("{name}.bias"), &[rows])?) })
    }

    /// A matrix that the file holds as `[cols, rows]`, in f32.
    fn turned(&mut self, name: &str, cols: usize, rows: usize) -> Result<Matrix> {
        let numbers = self.numbers(name, &[cols, rows])?;
        let turned = (0..rows).flat_map(|row| numbers.iter().skip(row).step_by(rows));
        let bytes: Vec<u8> = turned.flat_map(|number| number.to_le_bytes()).collect();
        self.ops.matrix(Format::F32, rows, cols, &bytes).map_err(|e| self.bad(name, e))
    }

    fn layer_norm(&mut self, name: &str, len: usize) -> Result<LayerNorm> {
        let weight = self.numbers(&format!("{name}.weight"), &[len])?;
        Ok(LayerNorm { weight, bias: self.numbers(&format!("{name}.bias"), &[len])? })
    }

    fn linear(&mut self, name: &str, rows: usize, cols: usize, bias: bool) -> Result<Linear> {
        let matrix = self.matrix(&format!("{name}.weight"), rows, cols)?;
        let bias = bias.then(|| self.numbers(&format!("{name}.bias"), &[rows])).transpose()?;
        Ok(Linear { matrix, bias })
    }

    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let tensor = self.tensor(name, &[rows, cols])?;
        let matrix =
            self.ops.matrix(tensor.format, rows, cols, tensor.bytes).map_err(|e| self.bad(name, e))?;
        self.report(tensor.bytes.len());
        Ok(matrix)
    }

    fn norm(&mut self, config: &ModelConfig, name: &str, len: usize) -> Result<Vec<f32>> {
        let mut weight = self.numbers(name, &[len])?;
        weight.iter_mut().for_each(|w| *w += config.norm_offset);
        Ok(weight)
    }

    fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.tensor(name, shape)?;
        // The last dimension is what blocks of quants run along.
        let cols = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().product::<usize>() / cols.max(1);
        let numbers = quant::dequantize(tensor.format, rows, cols, tensor.bytes);
        let numbers = numbers.map_err(|e| self.bad(name, e))?;
        self.report(tensor.bytes.len());
        Ok(numbers)
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'a>> {
        let tensor = self.checkpoint.tensor(name)?;
        if tensor.shape != shape {
            return Err(self.wrong_shape(name, &tensor.shape, shape));
        }
        Ok(tensor)
    }

    fn bad(&self, name: &str, problem: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::BadFile, self.subject(name), problem)
    }

    fn report(&mut self, bytes: usize) {
        self.done += bytes as u64;
        (self.progress)(LoadProgress { done: self.done.min(self.total), total: self.total });
    }

    fn subject(&self, name: &str) -> String {
        format!("{}: tensor {name}", self.checkpoint.path().display())
    }

    fn wrong_shape(&self, name: &str, found: &[usize], expected: &[usize]) -> Error {
        let problem = format!("its shape is {found:?}, the configuration says {expected:?}");
        Error::new(ErrorKind::BadFile, self.subject(name), problem)
            .remedy("The file and its configuration do not belong together; download the model again.")
    }
}
