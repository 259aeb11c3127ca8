//! From the plain numbers that either kind of file states to a [`ModelConfig`], with the checks both need.

use std::fmt::Display;
use std::path::Path;

use gemma_kernels::Format;

use crate::config::{
    Architecture, AttentionSpec, LayerSpec, Mixer, MlpSpec, ModelConfig, Norms, RgLruSpec, RopeSpec, Sight,
    VisionSpec,
};
use crate::error::{Error, ErrorKind, Result};

/// More layers than any model has; keeps a hostile number from being allocated for.
pub(super) const MAX_LAYERS: usize = 1024;
/// Wider than any dimension of any model; products of two stay far inside `usize`.
pub(super) const MAX_DIM: usize = 1 << 24;

/// Wider than any convolution of the family.
const MAX_TAPS: usize = 64;

/// What a config file states about a text network of the family, defaults filled in.
pub(super) struct Network {
    pub(super) architecture: Architecture,
    pub(super) vision: Option<VisionSpec>,
    pub(super) hidden: usize,
    pub(super) vocab: usize,
    pub(super) context: usize,
    pub(super) ffn: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    /// How many numbers of a head RoPE turns.
    pub(super) rotary: usize,
    /// `q . k` is multiplied with its -1/2nd power.
    pub(super) query_scalar: f32,
    pub(super) norm_eps: f32,
    /// One a layer.
    pub(super) layers: Vec<Kind>,
    /// The recurrent layers', where there are any.
    pub(super) recurrence: Option<RgLruSpec>,
    pub(super) window: Option<usize>,
    pub(super) rope_global: RopeSpec,
    pub(super) rope_local: RopeSpec,
    pub(super) attention_cap: Option<f32>,
    pub(super) final_cap: Option<f32>,
    pub(super) bos: u32,
    pub(super) eos: Vec<u32>,
    /// How the configuration says that the weights are stored.
    pub(super) stated_format: Option<Format>,
}

/// What a layer mixes positions with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Attention to everything before.
    Full,
    /// Attention within the window.
    Sliding,
    /// A recurrence.
    Recurrent,
}

impl Network {
    /// The configuration, once the numbers make sense together. `embed_scale` and `norm_offset` depend on
    /// the weights and the kind of file.
    pub(super) fn into_config(self, path: &Path, embed_scale: f32, norm_offset: f32) -> Result<ModelConfig> {
        self.check(path)?;
        let norms = match self.architecture {
            Architecture::Gemma | Architecture::RecurrentGemma => Norms::Pre,
            Architecture::Gemma2 | Architecture::Gemma3 => Norms::PrePost,
        };
        let recurrent = self.architecture == Architecture::RecurrentGemma;
        let attention = |slides| {
            Mixer::Attention(AttentionSpec {
                heads: self.heads,
                kv_heads: self.kv_heads,
                head_dim: self.head_dim,
                scale: self.query_scalar.powf(-0.5),
                window: self.window.filter(|_| slides),
                rope: if slides { self.rope_local } else { self.rope_global },
                rotary: self.rotary,
                qk_norm: self.architecture == Architecture::Gemma3,
                soft_cap: self.attention_cap,
                out_bias: recurrent,
            })
        };
        let layer = |kind: &Kind| {
            let mixer = match (kind, &self.recurrence) {
                (Kind::Recurrent, Some(spec)) => Mixer::RgLru(spec.clone()),
                (kind, _) => attention(*kind == Kind::Sliding),
            };
            LayerSpec { mixer, mlp: MlpSpec { ffn: self.ffn, bias: recurrent }, norms }
        };
        let layers = self.layers.iter().map(layer).collect();
        Ok(ModelConfig {
            architecture: self.architecture,
            first_position: usize::from(self.sees_prompt_both_ways()),
            vision: self.vision,
            hidden: self.hidden,
            vocab: self.vocab,
            context: self.context,
            embed_scale,
            norm_eps: self.norm_eps,
            norm_offset,
            layers,
            final_soft_cap: self.final_cap,
            bos: self.bos,
            eos: self.eos,
        })
    }

    /// Whether it is a network of text that may or may not come with a tower (Gemma 3).
    pub(super) fn reads_pictures_if_it_can(&self) -> bool {
        self.vision.as_ref().is_some_and(|vision| vision.sight == Sight::Picture)
    }

    fn sees_prompt_both_ways(&self) -> bool {
        self.vision.as_ref().is_some_and(|vision| vision.sight == Sight::Prefix)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let dims = [
            ("the hidden size", self.hidden),
            ("the vocabulary size", self.vocab),
            ("the context length", self.context),
            ("the feed-forward size", self.ffn),
            ("the number of heads", self.heads),
            ("the number of key-value heads", self.kv_heads),
            ("the head size", self.head_dim),
        ];
        for (what, value) in dims {
            if value == 0 || value > MAX_DIM {
                return Err(senseless(path, format_args!("{what} is {value}")));
            }
        }
        if self.layers.is_empty() || self.layers.len() > MAX_LAYERS {
            return Err(senseless(path, format_args!("the number of layers is {}", self.layers.len())));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let (heads, kv) = (self.heads, self.kv_heads);
            return Err(senseless(path, format_args!("{heads} heads cannot share {kv} key-value heads")));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(senseless(path, format_args!("the head size {} is odd", self.head_dim)));
        }
        if self.rotary > self.head_dim || !self.rotary.is_multiple_of(2) {
            let (rotary, head) = (self.rotary, self.head_dim);
            return Err(senseless(path, format_args!("RoPE turns {rotary} numbers of heads of {head}")));
        }
        if let Some(r) = &self.recurrence {
            self.check_recurrence(path, r)?;
        }
        if self.window == Some(0) {
            return Err(senseless(path, "the sliding window is 0"));
        }
        let positive = [
            ("the query scale", Some(self.query_scalar)),
            ("the norm epsilon", Some(self.norm_eps)),
            ("the RoPE base", Some(self.rope_global.theta)),
            ("the local RoPE base", Some(self.rope_local.theta)),
            ("the RoPE factor", Some(self.rope_global.factor)),
            ("the local RoPE factor", Some(self.rope_local.factor)),
            ("the attention soft cap", self.attention_cap),
            ("the final soft cap", self.final_cap),
        ];
        for (what, value) in positive {
            if value.is_some_and(|v| !v.is_finite() || v <= 0.0) {
                return Err(senseless(path, format_args!("{what} is {}", value.unwrap_or_default())));
            }
        }
        Ok(())
    }

    fn check_recurrence(&self, path: &Path, r: &RgLruSpec) -> Result<()> {
        let sizes =
            [("the recurrent width", r.width, MAX_DIM), ("the convolution's width", r.taps, MAX_TAPS)];
        for (what, value, most) in sizes {
            if value == 0 || value > most {
                return Err(senseless(path, format_args!("{what} is {value}")));
            }
        }
        if r.blocks == 0 || !r.width.is_multiple_of(r.blocks) {
            let (width, blocks) = (r.width, r.blocks);
            return Err(senseless(
                path,
                format_args!("{width} channels do not make {blocks} blocks of gates"),
            ));
        }
        Ok(())
    }
}

pub(super) fn senseless(path: &Path, problem: impl Display) -> Error {
    Error::new(ErrorKind::BadFile, path.display(), format_args!("{problem}, which cannot be"))
        .remedy("The configuration does not belong to a Gemma model or was damaged: download it again.")
}
