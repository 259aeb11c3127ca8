//! Pictures to features among the embeddings: a SigLIP tower and a projector.
//!
//! Follows the reference implementation's `modeling_siglip.py`, `modeling_paligemma.py` and
//! `modeling_gemma3.py`. A picture goes through in blocks of rows, so that the engine can look at its queue
//! in between: only attention reads other rows than its own, and it reads keys and values that the layer has
//! computed for all rows before.

use gemma_kernels::{Activation, DenseAttention, Matrix, Ops, Projection};

use super::Linear;
use crate::config::VisionSpec;

/// Rows (patches) of one step: about as much work as a chunk of prefill.
const BLOCK: usize = 256;

/// A tower's and its projector's weights.
pub(super) struct Tower {
    pub(super) spec: VisionSpec,
    /// `[hidden, 3 * patch * patch]`
    /// How numbers meet the weights.
    pub(super) activation: Activation,
    /// How they meet each other.
    pub(super) attention: Activation,
    pub(super) patches: Linear,
    /// `[patches, hidden]`, learned.
    pub(super) positions: Vec<f32>,
    pub(super) layers: Vec<TowerLayer>,
    pub(super) norm: LayerNorm,
    pub(super) projector: ProjectorWeights,
}

pub(super) struct TowerLayer {
    pub(super) before_attention: LayerNorm,
    pub(super) q: Linear,
    pub(super) k: Linear,
    pub(super) v: Linear,
    pub(super) output: Linear,
    pub(super) before_mlp: LayerNorm,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

pub(super) struct LayerNorm {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

pub(super) enum ProjectorWeights {
    Linear(Linear),
    /// The norm's weight has the 1 added.
    Pool {
        norm: Vec<f32>,
        matrix: Matrix,
    },
}

/// What the next step of a picture does to a block of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Queries, keys and values of a layer.
    Project(usize),
    /// Attention and MLP of a layer.
    Attend(usize),
    /// Norm and projector.
    Features,
}

/// A picture on its way through the tower.
#[derive(Debug)]
pub struct Encoding {
    stage: Stage,
    /// The first row that the stage has not done yet.
    row: usize,
    /// `[patches, hidden]`, as the following three.
    residual: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// `[tokens, text hidden]`
    features: Vec<f32>,
}

impl Tower {
    /// Bytes of all matrices in memory.
    pub(super) fn bytes(&self) -> u64 {
        let layers = self.layers.iter().flat_map(|l| [&l.q, &l.k, &l.v, &l.output, &l.up, &l.down]);
        let projector = match &self.projector {
            ProjectorWeights::Linear(linear) => &linear.matrix,
            ProjectorWeights::Pool { matrix, .. } => matrix,
        };
        let matrices = layers.chain([&self.patches]).map(|linear| &linear.matrix).chain([projector]);
        matrices.map(|m| m.bytes() as u64).sum()
    }

    /// Begins with a picture: `[3, image_size, image_size]`, the caller has checked that it is.
    pub(super) fn begin(&self, ops: &dyn Ops, pixels: &[f32]) -> Encoding {
        let rows = self.spec.patches() * self.spec.hidden;
        let mut residual = vec![0.0; rows];
        let patches = patch_rows(&self.spec, pixels);
        let mut parts = [self.patches.to(&mut residual)];
        ops.project(&patches, self.spec.patches(), self.activation, &mut parts);
        ops.add(&mut residual, &self.positions);
        let [q, k, v] = [(); 3].map(|()| vec![0.0; rows]);
        let stage = if self.layers.is_empty() { Stage::Features } else { Stage::Project(0) };
        Encoding { stage, row: 0, residual, q, k, v, features: Vec::new() }
    }

    /// Takes the picture one step on; its features `[tokens, text hidden]` with the last one.
    pub(super) fn advance(&self, ops: &dyn Ops, picture: &mut Encoding) -> Option<Vec<f32>> {
        self.advance_by(ops, picture, BLOCK)
    }

    /// As [`Tower::advance`], by this many rows.
    fn advance_by(&self, ops: &dyn Ops, picture: &mut Encoding, block: usize) -> Option<Vec<f32>> {
        let (patches, hidden) = (self.spec.patches(), self.spec.hidden);
        let rows = picture.row..picture.row.saturating_add(block).min(patches);
        let numbers = rows.start * hidden..rows.end * hidden;
        match picture.stage {
            Stage::Project(layer) => self.project(ops, &self.layers[layer], picture, numbers),
            Stage::Attend(layer) => self.attend(ops, &self.layers[layer], picture, numbers),
            Stage::Features => {
                let done = self.features(ops, picture, numbers);
                if done {
                    return Some(std::mem::take(&mut picture.features));
                }
            }
        }
        picture.row = rows.end;
        if picture.row == patches {
            picture.row = 0;
            picture.stage = match picture.stage {
                Stage::Project(layer) => Stage::Attend(layer),
                Stage::Attend(layer) if layer + 1 < self.layers.len() => Stage::Project(layer + 1),
                Stage::Attend(_) | Stage::Features => Stage::Features,
            };
        }
        None
    }

    fn norm(&self, ops: &dyn Ops, norm: &LayerNorm, x: &[f32], out: &mut [f32]) {
        ops.layer_norm(x, &norm.weight, &norm.bias, self.spec.eps, out);
    }

    fn project(
        &self,
        ops: &dyn Ops,
        layer: &TowerLayer,
        picture: &mut Encoding,
        block: std::ops::Range<usize>,
    ) {
        let n = block.len() / self.spec.hidden;
        let mut normed = vec![0.0; block.len()];
        self.norm(ops, &layer.before_attention, &picture.residual[block.clone()], &mut normed);
        let mut parts = [
            layer.q.to(&mut picture.q[block.clone()]),
            layer.k.to(&mut picture.k[block.clone()]),
            layer.v.to(&mut picture.v[block]),
        ];
        ops.project(&normed, n, self.activation, &mut parts);
    }

    fn attend(
        &self,
        ops: &dyn Ops,
        layer: &TowerLayer,
        picture: &mut Encoding,
        block: std::ops::Range<usize>,
    ) {
        let spec = &self.spec;
        let n = block.len() / spec.hidden;
        let (mut read, mut written) = (vec![0.0; block.len()], vec![0.0; block.len()]);
        ops.dense_attention(DenseAttention {
            q: &picture.q[block.clone()],
            k: &picture.k,
            v: &picture.v,
            heads: spec.heads,
            head_dim: spec.head_dim(),
            scale: (spec.head_dim() as f32).powf(-0.5),
            activation: self.attention,
            out: &mut read,
        });
        let residual = &mut picture.residual[block];
        ops.project(&read, n, self.activation, &mut [layer.output.to(&mut written)]);
        ops.add(residual, &written);
        self.norm(ops, &layer.before_mlp, residual, &mut read);
        let mut inner = vec![0.0; n * spec.ffn];
        ops.project(&read, n, self.activation, &mut [layer.up.to(&mut inner)]);
        ops.gelu(&mut inner);
        ops.project(&inner, n, self.activation, &mut [layer.down.to(&mut written)]);
        ops.add(residual, &written);
    }

    /// Appends the features of a block; whether they are complete.
    fn features(&self, ops: &dyn Ops, picture: &mut Encoding, block: std::ops::Range<usize>) -> bool {
        let spec = &self.spec;
        let Encoding { residual, features, .. } = picture;
        match &self.projector {
            ProjectorWeights::Linear(linear) => {
                let mut normed = vec![0.0; block.len()];
                self.norm(ops, &self.norm, &residual[block.clone()], &mut normed);
                let (n, first) = (block.len() / spec.hidden, features.len());
                features.resize(first + n * linear.matrix.rows(), 0.0);
                let mut parts = [linear.to(&mut features[first..])];
                ops.project(&normed, n, self.activation, &mut parts);
                block.end == residual.len()
            }
            ProjectorWeights::Pool { norm, matrix } => {
                let mut normed = vec![0.0; residual.len()];
                self.norm(ops, &self.norm, residual, &mut normed);
                let mut pooled = vec![0.0; spec.tokens * spec.hidden];
                ops.average_pool(&normed, spec.side(), spec.pool(), &mut pooled);
                ops.rms_norm_in_place(&mut pooled, norm, spec.eps);
                features.resize(spec.tokens * matrix.rows(), 0.0);
                let mut parts = [Projection::new(matrix, features)];
                ops.project(&pooled, spec.tokens, self.activation, &mut parts);
                true
            }
        }
    }
}

/// The patches of a picture as rows `[patches, 3 * patch * patch]`, colour by colour.
pub(in crate::model) fn patch_rows(spec: &VisionSpec, pixels: &[f32]) -> Vec<f32> {
    let (size, patch, side) = (spec.image_size, spec.patch, spec.side());
    let mut rows = Vec::with_capacity(pixels.len());
    for (y, x) in (0..side * side).map(|at| (at / side * patch, at % side * patch)) {
        for line in (0..3).flat_map(|colour| (0..patch).map(move |dy| (colour * size + y + dy) * size + x)) {
            rows.extend_from_slice(&pixels[line..line + patch]);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use gemma_kernels::{Cpu, Format, Level, Reference};

    use super::*;
    use crate::config::{Projector, Sight};

    fn spec(image_size: usize, projector: Projector) -> VisionSpec {
        let side = image_size / 2;
        let tokens = if projector == Projector::Pool { side * side / 4 } else { side * side };
        VisionSpec {
            image_size,
            patch: 2,
            hidden: 6,
            layers: 2,
            heads: 2,
            ffn: 10,
            eps: 1e-6,
            tokens,
            image_token: 9,
            projector,
            sight: Sight::Prefix,
        }
    }

    /// Numbers that look random, the same on every machine.
    fn numbers(seed: u32, len: usize) -> Vec<f32> {
        let hash = |i: u32| (i ^ seed.rotate_left(16)).wrapping_mul(0x9e37_79b9).rotate_left(13);
        (0..len as u32).map(|i| (hash(hash(i)) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    /// A tower of random weights for text 5 wide.
    fn tower(ops: &dyn Ops, spec: VisionSpec) -> Tower {
        let (hidden, ffn, text) = (spec.hidden, spec.ffn, 5);
        let mut seed = 0;
        let mut vector = |len: usize| {
            seed += 1;
            numbers(seed, len)
        };
        let mut linear = |rows: usize, cols: usize| {
            let bytes: Vec<u8> = vector(rows * cols).iter().flat_map(|v| v.to_le_bytes()).collect();
            let matrix = ops.matrix(Format::F32, rows, cols, &bytes).unwrap();
            Linear::new(matrix, Some(vector(rows)))
        };
        let norm = |seed| LayerNorm { weight: numbers(seed, hidden), bias: numbers(seed + 1, hidden) };
        let layers = (0..spec.layers as u32).map(|i| TowerLayer {
            before_attention: norm(100 + 4 * i),
            q: linear(hidden, hidden),
            k: linear(hidden, hidden),
            v: linear(hidden, hidden),
            output: linear(hidden, hidden),
            before_mlp: norm(102 + 4 * i),
            up: linear(ffn, hidden),
            down: linear(hidden, ffn),
        });
        Tower {
            activation: Activation::F32,
            attention: Activation::F32,
            layers: layers.collect(),
            patches: linear(hidden, spec.patch_numbers()),
            positions: numbers(200, spec.patches() * hidden),
            norm: norm(201),
            projector: match spec.projector {
                Projector::Linear => ProjectorWeights::Linear(linear(text, hidden)),
                Projector::Pool => {
                    ProjectorWeights::Pool { norm: numbers(203, hidden), matrix: linear(text, hidden).matrix }
                }
            },
            spec,
        }
    }

    /// The features of a picture by blocks of rows, and the steps that it took.
    fn encode(ops: &dyn Ops, tower: &Tower, block: usize) -> (Vec<f32>, usize) {
        let mut picture = tower.begin(ops, &numbers(300, tower.spec.pixels()));
        for step in 1.. {
            if let Some(features) = tower.advance_by(ops, &mut picture, block) {
                return (features, step);
            }
        }
        unreachable!("there is always another step");
    }

    #[test]
    fn blocks_of_rows_give_the_features_of_the_whole() {
        // 7 x 7 patches cannot be pooled by two, 8 x 8 can.
        for (size, projector) in [(14, Projector::Linear), (16, Projector::Pool)] {
            let cpu = Cpu::new(2, Level::detect());
            let fast = tower(&cpu, spec(size, projector));
            let (whole, steps) = encode(&cpu, &fast, usize::MAX);
            assert_eq!((whole.len(), steps), (fast.spec.tokens * 5, 5), "two steps a layer, and the end");
            for block in [1, 10, 48, 64] {
                let (features, steps) = encode(&cpu, &fast, block);
                assert_eq!(features, whole, "blocks of {block}");
                let blocks = fast.spec.patches().div_ceil(block);
                let end = if projector == Projector::Pool { 1 } else { blocks };
                assert_eq!(steps, 4 * blocks + end);
            }
            let (slow, _) = encode(&Reference, &tower(&Reference, spec(size, projector)), usize::MAX);
            let worst = slow.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-5, "{projector:?}: {worst:e} from the oracle");
        }
    }

    #[test]
    fn patches_are_cut_colour_by_colour() {
        let pixels: Vec<f32> = (0..48).map(|i| i as f32).collect();
        let rows = patch_rows(&spec(4, Projector::Linear), &pixels);
        assert_eq!(rows.len(), 48);
        // The second patch of the first row: two lines of two pixels of each colour.
        assert_eq!(rows[12..24], [2.0, 3.0, 6.0, 7.0, 18.0, 19.0, 22.0, 23.0, 34.0, 35.0, 38.0, 39.0]);
    }
}
