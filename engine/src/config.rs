//! A network of the Gemma family as data: one [`LayerSpec`] a layer, read from a checkpoint.
//!
//! A new Gemma is a new list of layer specifications, not a new decoder. Facts per model:
//! the reference implementation's `modeling_gemma*.py` and `modeling_recurrent_gemma.py`, the Gemma 1, 2
//! and 3 reports and the Griffin paper.

mod vision;

use std::fmt;

use gemma_kernels::KvFormat;

pub use vision::{Projector, Sight, VisionSpec};

/// Which published architecture a checkpoint declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Gemma 1 and CodeGemma.
    Gemma,
    /// Gemma 2.
    Gemma2,
    /// Gemma 3, text.
    Gemma3,
    /// RecurrentGemma (Griffin).
    RecurrentGemma,
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gemma => "gemma",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
            Self::RecurrentGemma => "recurrentgemma",
        })
    }
}

/// A whole network: a decoder of text and, in front of it, what reads pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Published architecture of the decoder.
    pub architecture: Architecture,
    /// What reads pictures, where the network does.
    pub vision: Option<VisionSpec>,
    /// Position of the first token in rotary embedding: 1 in PaliGemma, else 0.
    pub first_position: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Rows of the embedding table.
    pub vocab: usize,
    /// Longest sequence the network was trained for, in tokens.
    pub context: usize,
    /// What embeddings are multiplied with: sqrt(hidden), rounded to bf16 when the weights are not f32.
    pub embed_scale: f32,
    /// RMSNorm epsilon.
    pub norm_eps: f32,
    /// Added to every norm weight: 1 for HuggingFace checkpoints, 0 for GGUF, whose converter added it.
    pub norm_offset: f32,
    /// The layers, bottom to top.
    pub layers: Vec<LayerSpec>,
    /// `cap * tanh(logits / cap)` on the final logits.
    pub final_soft_cap: Option<f32>,
    /// First token of every sequence.
    pub bos: u32,
    /// Tokens that end a generation.
    pub eos: Vec<u32>,
}

/// One layer: a mixer, an MLP and the norms around them.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// What moves information between positions.
    pub mixer: Mixer,
    /// The gated MLP.
    pub mlp: MlpSpec,
    /// Where norms stand.
    pub norms: Norms,
}

/// What moves information between positions.
#[derive(Debug, Clone, PartialEq)]
pub enum Mixer {
    /// Softmax attention over keys and values.
    Attention(AttentionSpec),
    /// A convolution and a linear recurrence over a state of fixed size.
    RgLru(RgLruSpec),
}

/// Softmax attention (MHA, GQA or MQA), full or windowed.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// What `q . k` is multiplied with.
    pub scale: f32,
    /// A query at position `q` sees keys `k` with `q - window < k <= q`; `None`: all `k <= q`.
    pub window: Option<usize>,
    /// Rotary position embedding.
    pub rope: RopeSpec,
    /// How many numbers of a head it turns, from the first on.
    pub rotary: usize,
    /// RMSNorm on each query and key head before RoPE (Gemma 3).
    pub qk_norm: bool,
    /// `cap * tanh(score / cap)` before the mask (Gemma 2).
    pub soft_cap: Option<f32>,
    /// Whether the output product has a bias (RecurrentGemma).
    pub out_bias: bool,
}

/// Griffin's recurrent block: `out(rg_lru(conv(x(h))) * gelu_tanh(y(h)))`, its linear layers with biases.
#[derive(Debug, Clone, PartialEq)]
pub struct RgLruSpec {
    /// Channels.
    pub width: usize,
    /// Blocks on the diagonal of the gates; divides `width`.
    pub blocks: usize,
    /// Taps of the causal convolution, the newest input's included.
    pub taps: usize,
}

impl RgLruSpec {
    /// Numbers of state: the recurrence's, then the convolution's last inputs, oldest first.
    pub fn state_len(&self) -> usize {
        self.width * self.taps
    }
}

/// Rotary position embedding in the NeoX layout (halves), tables in f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeSpec {
    /// Base of the frequencies.
    pub theta: f32,
    /// Positions are divided by this (linear scaling); 1 for none.
    pub factor: f32,
}

/// `down(gelu_tanh(gate(x)) * up(x))`.
#[derive(Debug, Clone, PartialEq)]
pub struct MlpSpec {
    /// Inner width.
    pub ffn: usize,
    /// Whether its products have biases (RecurrentGemma).
    pub bias: bool,
}

/// Where RMSNorms stand in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// Before the mixer and before the MLP (Gemma 1, RecurrentGemma).
    Pre,
    /// Also behind each, before the residual is added (Gemma 2 and 3).
    PrePost,
}

impl ModelConfig {
    /// The published name of the whole: that of the decoder, unless the pictures have brought another.
    pub fn name(&self) -> String {
        match (self.vision.as_ref().map(|vision| vision.sight), self.architecture) {
            (Some(Sight::Prefix), Architecture::Gemma) => "paligemma".to_owned(),
            (Some(Sight::Prefix), Architecture::Gemma2) => "paligemma2".to_owned(),
            (_, architecture) => architecture.to_string(),
        }
    }

    /// Bytes of keys and values that one token takes in the cache.
    pub fn kv_bytes_per_token(&self, format: KvFormat) -> usize {
        self.layers
            .iter()
            .map(|layer| match &layer.mixer {
                Mixer::Attention(a) => 2 * a.kv_heads * format.row_bytes(a.head_dim),
                Mixer::RgLru(_) => 0,
            })
            .sum()
    }

    /// Bytes of the recurrent layers' state behind a token, whatever the number of tokens; 0 where no layer
    /// is recurrent.
    pub fn state_bytes(&self) -> usize {
        let numbers: usize = self
            .layers
            .iter()
            .map(|layer| match &layer.mixer {
                Mixer::Attention(_) => 0,
                Mixer::RgLru(r) => r.state_len(),
            })
            .sum();
        numbers * size_of::<f32>()
    }

    /// The tokens behind which keys and values are never read again, where there is such a bound: the
    /// longest window, if every attention layer has one. Memory for a sequence then stays the same however
    /// long it gets, and nothing but time limits its length.
    pub fn horizon(&self) -> Option<usize> {
        let mut attention = self.layers.iter().filter_map(|layer| match &layer.mixer {
            Mixer::Attention(a) => Some(a.window),
            Mixer::RgLru(_) => None,
        });
        attention.try_fold(0, |longest, window| Some(longest.max(window?)))
    }

    /// The longest sequence it takes; `None` where its memory has a fixed size and nothing forbids to go on
    /// (better answers still come from within [`ModelConfig::context`]).
    pub fn longest(&self) -> Option<usize> {
        if self.horizon().is_some() { None } else { Some(self.context) }
    }

    /// Number of weights, the tied output table counted once, those that read pictures too.
    pub fn parameters(&self) -> u64 {
        let h = self.hidden as u64;
        let norms_per_layer = |n: Norms| match n {
            Norms::Pre => 2 * h,
            Norms::PrePost => 4 * h,
        };
        let layers: u64 = self
            .layers
            .iter()
            .map(|layer| {
                let ffn = layer.mlp.ffn as u64;
                let mlp = 3 * h * ffn + if layer.mlp.bias { 2 * ffn + h } else { 0 };
                mixer_parameters(&layer.mixer, h) + mlp + norms_per_layer(layer.norms)
            })
            .sum();
        self.vocab as u64 * h + layers + h + self.vision_parameters()
    }

    fn vision_parameters(&self) -> u64 {
        self.vision.as_ref().map_or(0, |vision| vision.parameters(self.hidden))
    }

    /// Floating-point operations of the weights' products in a pass over so many tokens of text, of which the last alone
    /// meets the vocabulary.
    pub fn operations(&self, tokens: usize) -> u64 {
        let vocabulary = self.vocab as u64 * self.hidden as u64;
        2 * ((self.parameters() - self.vision_parameters() - vocabulary) * tokens as u64 + vocabulary)
    }
}

fn mixer_parameters(mixer: &Mixer, hidden: u64) -> u64 {
    match mixer {
        Mixer::Attention(a) => {
            let (heads, kv, dim) = (a.heads as u64, a.kv_heads as u64, a.head_dim as u64);
            let qk_norm = if a.qk_norm { 2 * dim } else { 0 };
            let bias = if a.out_bias { hidden } else { 0 };
            hidden * dim * (2 * heads + 2 * kv) + qk_norm + bias
        }
        Mixer::RgLru(r) => {
            let (width, taps) = (r.width as u64, r.taps as u64);
            let linears = 3 * hidden * width + 2 * width + hidden;
            let convolution = (taps + 1) * width;
            // Two gates with biases, and the decay.
            let recurrence = 2 * width * (width / r.blocks as u64) + 3 * width;
            linears + convolution + recurrence
        }
    }
}
