//! From a checkpoint to a network: every tensor brought into the backend's layout once.

use std::sync::Arc;

use gemma_kernels::{Activation, Format, KvFormat, Matrix, Ops, Rope, ShapeError};

use super::super::tensors::{GateBlocks, LayerNorms, RecurrentNumbers, Tensors};
use super::siglip::{LayerNorm, ProjectorWeights, Tower, TowerLayer};
use super::{
    AttentionWeights, Gate, HostNetwork, Layer, Linear, MixerWeights, RgLruWeights, Rotation, decoder,
};
use crate::adapter::Adapter;
use crate::cache::Layout;
use crate::checkpoint::{Checkpoint, TensorView};
use crate::config::{AttentionSpec, LayerSpec, Mixer, ModelConfig, Projector, RgLruSpec, VisionSpec};
use crate::error::Result;
use crate::options::LoadProgress;

/// Reads all weights of a checkpoint, and puts an adapter that was checked beside them. `activation` and `kv` say how
/// numbers are computed and kept.
pub(crate) fn load(
    checkpoint: &Checkpoint,
    adapter: Option<&Adapter>,
    ops: Arc<dyn Ops>,
    activation: Activation,
    kv: KvFormat,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<HostNetwork> {
    let config = checkpoint.config().clone();
    let mut loader = Loader { tensors: Tensors::new(checkpoint, progress), ops: &*ops };
    let mut ropes: Vec<Rotation> = Vec::new();
    let mut layers = Vec::with_capacity(config.layers.len());
    for (i, spec) in config.layers.iter().enumerate() {
        let mut layer = loader.layer(&config, i, spec, &mut ropes)?;
        for mut site in layer.sites() {
            loader.adapt(adapter, activation, i, &mut site)?;
        }
        layers.push(layer);
    }
    let (hidden, vocab) = (config.hidden, config.vocab);
    // The best tokens are found in the table that logits are products with.
    let has_output = checkpoint.contains("lm_head.weight");
    let mut vocabulary = |name, is_for_logits| match is_for_logits && activation == Activation::Rounded {
        true => loader.table(name, vocab, hidden),
        false => loader.matrix(name, vocab, hidden),
    };
    let embedding = vocabulary("model.embed_tokens.weight", !has_output)?;
    let output = has_output.then(|| vocabulary("lm_head.weight", true)).transpose()?;
    let final_norm = loader.tensors.norm(&config, "model.norm.weight", hidden)?;
    // As keys and values: where the checkpoint's numbers are f32, somebody wants them so.
    let attention = if checkpoint.format() == Format::F32 { Activation::F32 } else { activation };
    let how = (activation, attention);
    let tower = config.vision.as_ref().map(|spec| loader.tower(&config, spec, how)).transpose()?;
    let layout = Arc::new(Layout::new(&config, kv, None));
    let scratch = decoder::Scratch::default();
    Ok(HostNetwork {
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
        rows: adapter.map(|adapter| adapter.rows().clone()).unwrap_or_default(),
        scratch,
    })
}

pub(super) struct Loader<'a> {
    pub(super) tensors: Tensors<'a>,
    pub(super) ops: &'a dyn Ops,
}

impl Loader<'_> {
    fn layer(
        &mut self,
        config: &ModelConfig,
        i: usize,
        spec: &LayerSpec,
        ropes: &mut Vec<Rotation>,
    ) -> Result<Layer> {
        let (hidden, ffn) = (config.hidden, spec.mlp.ffn);
        let mixer = match &spec.mixer {
            Mixer::Attention(a) => MixerWeights::Attention(self.attention(config, i, a, ropes)?),
            Mixer::RgLru(r) => MixerWeights::RgLru(self.recurrence(config, i, r)?),
        };
        let mut linear = |part: &str, rows, cols| {
            self.linear(&format!("model.layers.{i}.{part}"), rows, cols, spec.mlp.bias)
        };
        let (gate, up) = (linear("mlp.gate_proj", ffn, hidden)?, linear("mlp.up_proj", ffn, hidden)?);
        let down = linear("mlp.down_proj", hidden, ffn)?;
        let LayerNorms { before_mixer, after_mixer, before_mlp, after_mlp } =
            self.tensors.layer_norms(config, i, spec)?;
        Ok(Layer { before_mixer, after_mixer, before_mlp, after_mlp, mixer, gate, up, down })
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
            a.qk_norm.then(|| loader.tensors.norm(config, &name(part), a.head_dim)).transpose()
        };
        Ok(AttentionWeights {
            q: self.linear(&name("q_proj"), q_width, hidden, false)?,
            k: self.linear(&name("k_proj"), kv_width, hidden, false)?,
            v: self.linear(&name("v_proj"), kv_width, hidden, false)?,
            o: self.linear(&name("o_proj"), hidden, q_width, a.out_bias)?,
            q_norm: qk_norm(self, "q_norm.weight")?,
            k_norm: qk_norm(self, "k_norm.weight")?,
            rope,
        })
    }

    fn recurrence(&mut self, config: &ModelConfig, i: usize, r: &RgLruSpec) -> Result<RgLruWeights> {
        let (hidden, width) = (config.hidden, r.width);
        let name = |part: &str| format!("model.layers.{i}.temporal_block.{part}");
        let RecurrentNumbers { convolution, convolution_bias, decay } = self.tensors.recurrent(i, r)?;
        Ok(RgLruWeights {
            x: self.linear(&name("linear_x"), width, hidden, true)?,
            y: self.linear(&name("linear_y"), width, hidden, true)?,
            out: self.linear(&name("linear_out"), hidden, width, true)?,
            convolution,
            convolution_bias,
            input_gate: self.gate(&name("rg_lru.input_gate"), r)?,
            recurrence_gate: self.gate(&name("rg_lru.recurrent_gate"), r)?,
            decay,
        })
    }

    fn gate(&mut self, name: &str, r: &RgLruSpec) -> Result<Gate> {
        let side = r.width / r.blocks;
        let GateBlocks { format, blocks, bias } = self.tensors.gate(name, r)?;
        let matrix = |bytes: &Vec<u8>| self.ops.matrix(format, side, side, bytes);
        let blocks = blocks.iter().map(matrix).collect::<std::result::Result<_, _>>();
        Ok(Gate { blocks: blocks.map_err(|e| self.tensors.bad(name, e))?, bias })
    }

    fn tower(
        &mut self,
        config: &ModelConfig,
        spec: &VisionSpec,
        (activation, attention): (Activation, Activation),
    ) -> Result<Tower> {
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
                norm: self.tensors.norm(config, "multi_modal_projector.mm_soft_emb_norm.weight", hidden)?,
                matrix: self.turned("multi_modal_projector.mm_input_projection_weight", hidden, text)?,
            },
        };
        Ok(Tower {
            activation,
            attention,
            spec: spec.clone(),
            patches: self.patches(&format!("{embeddings}.patch_embedding"), spec)?,
            positions: self.tensors.numbers(&positions, &[spec.patches(), hidden])?,
            layers,
            norm: self.layer_norm("vision_tower.post_layernorm", hidden)?,
            projector,
        })
    }

    /// A convolution that takes each patch once: a product with its numbers in a row.
    fn patches(&mut self, name: &str, spec: &VisionSpec) -> Result<Linear> {
        let (rows, cols) = (spec.hidden, spec.patch_numbers());
        let weight = format!("{name}.weight");
        let tensor = self.tensors.tensor(&weight, &[rows, 3, spec.patch, spec.patch])?;
        let matrix = self.ops.matrix(tensor.format, rows, cols, tensor.bytes);
        let matrix = matrix.map_err(|e| self.tensors.bad(&weight, e))?;
        self.tensors.report(tensor.bytes.len());
        let bias = self.tensors.numbers(&format!("{name}.bias"), &[rows])?;
        Ok(Linear::new(matrix, Some(bias)))
    }

    /// A matrix that the file holds as `[cols, rows]`.
    fn turned(&mut self, name: &str, cols: usize, rows: usize) -> Result<Matrix> {
        let bytes = self.tensors.turned(name, cols, rows)?;
        self.ops.matrix(Format::F32, rows, cols, &bytes).map_err(|e| self.tensors.bad(name, e))
    }

    fn layer_norm(&mut self, name: &str, len: usize) -> Result<LayerNorm> {
        let weight = self.tensors.numbers(&format!("{name}.weight"), &[len])?;
        Ok(LayerNorm { weight, bias: self.tensors.numbers(&format!("{name}.bias"), &[len])? })
    }

    fn linear(&mut self, name: &str, rows: usize, cols: usize, bias: bool) -> Result<Linear> {
        let matrix = self.matrix(&format!("{name}.weight"), rows, cols)?;
        let bias = bias.then(|| self.tensors.numbers(&format!("{name}.bias"), &[rows])).transpose()?;
        Ok(Linear::new(matrix, bias))
    }

    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        self.placed(name, rows, cols, |ops, t| ops.matrix(t.format, rows, cols, t.bytes))
    }

    fn table(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        self.placed(name, rows, cols, |ops, t| ops.table(t.format, rows, cols, t.bytes))
    }

    /// A tensor in the backend's layout.
    fn placed(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
        place: impl FnOnce(&dyn Ops, &TensorView<'_>) -> std::result::Result<Matrix, ShapeError>,
    ) -> Result<Matrix> {
        let tensor = self.tensors.tensor(name, &[rows, cols])?;
        let matrix = place(self.ops, &tensor).map_err(|e| self.tensors.bad(name, e))?;
        self.tensors.report(tensor.bytes.len());
        Ok(matrix)
    }
}
