//! From a checkpoint to a network: every tensor brought into the backend's layout once.

use std::sync::Arc;

use gemma_kernels::{Activation, Format, KvFormat, KvLayout, Matrix, Ops, Rope, quant};

use super::{AttentionWeights, Layer, Network, decoder};
use crate::checkpoint::Checkpoint;
use crate::config::{LayerSpec, Mixer, ModelConfig, Norms, RopeSpec};
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
    let mut ropes: Vec<(RopeSpec, Rope)> = Vec::new();
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
    let layout = Arc::new(KvLayout::new(
        kv,
        config.layers.iter().map(|layer| {
            let Mixer::Attention(a) = &layer.mixer;
            (a.kv_heads, a.head_dim)
        }),
    ));
    let scratch = decoder::Scratch::default();
    Ok(Network { config, ops, activation, layout, embedding, output, layers, final_norm, ropes, scratch })
}

struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    ops: &'a dyn Ops,
    progress: &'a mut dyn FnMut(LoadProgress),
    done: u64,
    total: u64,
}

impl Loader<'_> {
    fn layer(
        &mut self,
        config: &ModelConfig,
        i: usize,
        spec: &LayerSpec,
        ropes: &mut Vec<(RopeSpec, Rope)>,
    ) -> Result<Layer> {
        let Mixer::Attention(a) = &spec.mixer;
        let (hidden, ffn) = (config.hidden, spec.mlp.ffn);
        let (q_width, kv_width) = (a.heads * a.head_dim, a.kv_heads * a.head_dim);
        let name = |part: &str| format!("model.layers.{i}.{part}.weight");
        let rope = ropes.iter().position(|(spec, _)| *spec == a.rope).unwrap_or_else(|| {
            ropes.push((a.rope, Rope::new(a.head_dim, a.rope.theta, a.rope.factor)));
            ropes.len() - 1
        });
        let qk_norm = |loader: &mut Self, part: &str| {
            a.qk_norm.then(|| loader.norm(config, &name(part), a.head_dim)).transpose()
        };
        let attention = AttentionWeights {
            q: self.matrix(&name("self_attn.q_proj"), q_width, hidden)?,
            k: self.matrix(&name("self_attn.k_proj"), kv_width, hidden)?,
            v: self.matrix(&name("self_attn.v_proj"), kv_width, hidden)?,
            o: self.matrix(&name("self_attn.o_proj"), hidden, q_width)?,
            q_norm: qk_norm(self, "self_attn.q_norm")?,
            k_norm: qk_norm(self, "self_attn.k_norm")?,
            rope,
        };
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
            attention,
            gate: self.matrix(&name("mlp.gate_proj"), ffn, hidden)?,
            up: self.matrix(&name("mlp.up_proj"), ffn, hidden)?,
            down: self.matrix(&name("mlp.down_proj"), hidden, ffn)?,
        })
    }

    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let tensor = self.checkpoint.tensor(name)?;
        if tensor.shape != [rows, cols] {
            return Err(self.wrong_shape(name, &tensor.shape, &[rows, cols]));
        }
        let matrix = self
            .ops
            .matrix(tensor.format, rows, cols, tensor.bytes)
            .map_err(|e| Error::new(ErrorKind::BadFile, self.subject(name), e))?;
        self.report(tensor.bytes.len());
        Ok(matrix)
    }

    fn norm(&mut self, config: &ModelConfig, name: &str, len: usize) -> Result<Vec<f32>> {
        let tensor = self.checkpoint.tensor(name)?;
        if tensor.shape != [len] {
            return Err(self.wrong_shape(name, &tensor.shape, &[len]));
        }
        let mut weight = self.numbers(name, tensor.format, len, tensor.bytes)?;
        weight.iter_mut().for_each(|w| *w += config.norm_offset);
        self.report(tensor.bytes.len());
        Ok(weight)
    }

    fn numbers(&self, name: &str, format: Format, len: usize, bytes: &[u8]) -> Result<Vec<f32>> {
        quant::dequantize(format, 1, len, bytes)
            .map_err(|e| Error::new(ErrorKind::BadFile, self.subject(name), e))
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
