//! The part of a network that reads pictures, as data: a SigLIP tower and a projector in front of the decoder.

use crate::picture::Resample;

/// A SigLIP tower (a vision transformer, Zhai et al. 2023) and what brings its output among the embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionSpec {
    /// Pictures are squares of this many pixels a side.
    pub image_size: usize,
    /// Pixels a side of a patch; divides `image_size`.
    pub patch: usize,
    /// Width of the tower; a multiple of `heads`.
    pub hidden: usize,
    /// Its layers.
    pub layers: usize,
    /// Attention heads; there is no mask.
    pub heads: usize,
    /// Inner width of its MLPs.
    pub ffn: usize,
    /// LayerNorm epsilon, also that of the projector's norm.
    pub eps: f32,
    /// Tokens that a picture takes in a prompt.
    pub tokens: usize,
    /// The token that stands for them; it may lie outside the vocabulary.
    pub image_token: u32,
    /// From the tower's width to the decoder's.
    pub projector: Projector,
    /// What sees forward in a prompt.
    pub sight: Sight,
}

/// From the tower's width to the decoder's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projector {
    /// A linear layer with a bias: one token a patch (PaliGemma).
    Linear,
    /// Average pooling of squares of patches, RMSNorm, a matrix (Gemma 3).
    Pool,
}

/// What sees forward in a prompt; everything else is causal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// The whole prompt sees itself in both directions, however far (PaliGemma).
    Prefix,
    /// The tokens of one picture see each other, those before within the window (Gemma 3).
    Picture,
}

impl VisionSpec {
    /// Patches a side.
    pub fn side(&self) -> usize {
        self.image_size / self.patch
    }

    /// Patches of a picture: rows of the tower.
    pub fn patches(&self) -> usize {
        self.side() * self.side()
    }

    /// Numbers of a patch, three colours.
    pub fn patch_numbers(&self) -> usize {
        3 * self.patch * self.patch
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Numbers of a picture: `[3, image_size, image_size]`.
    pub fn pixels(&self) -> usize {
        3 * self.image_size * self.image_size
    }

    /// Patches a side that become one token.
    pub fn pool(&self) -> usize {
        match self.projector {
            Projector::Linear => 1,
            Projector::Pool => self.side() / self.tokens.isqrt(),
        }
    }

    /// How a picture is brought to the tower's size.
    pub fn resample(&self) -> Resample {
        match self.projector {
            Projector::Linear => Resample::Bicubic,
            Projector::Pool => Resample::Bilinear,
        }
    }

    /// Number of weights in front of a decoder of this width.
    pub fn parameters(&self, text_hidden: usize) -> u64 {
        let (h, ffn, text) = (self.hidden as u64, self.ffn as u64, text_hidden as u64);
        let embedding = h * (self.patch_numbers() as u64 + 1 + self.patches() as u64);
        // Two norms, four attention matrices and two of the MLP, all with biases.
        let layer = 4 * h + 4 * (h * h + h) + 2 * h * ffn + ffn + h;
        let projector = match self.projector {
            Projector::Linear => h * text + text,
            Projector::Pool => h * text + h,
        };
        embedding + self.layers as u64 * layer + 2 * h + projector
    }

    /// Floating-point operations of a picture's products, in front of a decoder of this width.
    pub fn operations(&self, text_hidden: usize) -> u64 {
        let (h, n, tokens) = (self.hidden as u64, self.patches() as u64, self.tokens as u64);
        // Each patch meets each other twice: as a key and as a value.
        let layer = n * h * (4 * h + 2 * self.ffn as u64) + 2 * n * n * h;
        let embedding = n * h * self.patch_numbers() as u64;
        2 * (embedding + self.layers as u64 * layer + tokens * h * text_hidden as u64)
    }
}
