//! Pictures to features on a device: the SigLIP tower and the projector of [`super::super::host`], all rows of a picture
//! at once, a layer a step.

use gemma_kernels::Format;
use gemma_kernels::cuda::attention::{Dense, attend_dense, dense_scratch_bytes};
use gemma_kernels::cuda::few::{self, Output};
use gemma_kernels::cuda::many::ManyOutput;
use gemma_kernels::cuda::rows::{add, average_pool, layer_norm, norm_in_place, round};
use gemma_kernels::cuda::{Arrangement, Buffer, CudaError, Part, Strided};

use super::super::host::patch_rows;
use super::decoder::bytes;
use super::weights::Loader;
use super::{DeviceNetwork, Linear};
use crate::config::{ModelConfig, Projector, VisionSpec};
use crate::error::Result;

/// A tower's and its projector's weights.
pub(super) struct Tower {
    spec: VisionSpec,
    /// Its inputs filled up with zeros to a multiple of 8.
    patches: Linear,
    /// `[patches, hidden]`, learned.
    positions: Buffer,
    layers: Vec<TowerLayer>,
    norm: LayerNorm,
    projector: ProjectorWeights,
}

struct TowerLayer {
    before_attention: LayerNorm,
    qkv: Linear,
    output: Linear,
    before_mlp: LayerNorm,
    up: Linear,
    down: Linear,
}

struct LayerNorm {
    weight: Buffer,
    bias: Buffer,
}

enum ProjectorWeights {
    Linear(Linear),
    /// The norm's weight has the 1 added.
    Pool {
        norm: Buffer,
        linear: Linear,
    },
}

/// What becomes of a product.
#[derive(Clone, Copy)]
enum Becomes<'a> {
    /// f32.
    Numbers(&'a Buffer),
    /// Activation numbers, through GELU.
    Gelu(&'a Buffer),
}

/// A picture on its way through the tower.
pub struct Encoding {
    next_layer: usize,
    /// f32 `[patches, hidden]`, as `y`.
    residual: Buffer,
    y: Buffer,
    /// Activation numbers `[patches, hidden]`, as `attended`.
    x: Buffer,
    attended: Buffer,
    /// f32 `[patches, 3 * hidden]`.
    qkv: Buffer,
    /// Activation numbers `[patches, ffn]`.
    inner: Buffer,
    scratch: Buffer,
}

impl Loader<'_> {
    pub(super) fn tower(&mut self, config: &ModelConfig, spec: &VisionSpec) -> Result<Tower> {
        let (hidden, ffn, text) = (spec.hidden, spec.ffn, config.hidden);
        let mut layers = Vec::with_capacity(spec.layers);
        for i in 0..spec.layers {
            let name = |part: &str| format!("vision_tower.encoder.layers.{i}.{part}");
            let [q, k, v] = ["q_proj", "k_proj", "v_proj"].map(|part| name(&format!("self_attn.{part}")));
            let qkv = [(q.as_str(), hidden), (k.as_str(), hidden), (v.as_str(), hidden)];
            layers.push(TowerLayer {
                before_attention: self.layer_norm(&name("layer_norm1"), hidden)?,
                qkv: self.linear(&qkv, hidden, Arrangement::Stacked, true)?,
                output: self.one(&name("self_attn.out_proj"), hidden, hidden)?,
                before_mlp: self.layer_norm(&name("layer_norm2"), hidden)?,
                up: self.one(&name("mlp.fc1"), ffn, hidden)?,
                down: self.one(&name("mlp.fc2"), hidden, ffn)?,
            });
        }
        let embeddings = "vision_tower.embeddings";
        let positions = format!("{embeddings}.position_embedding.weight");
        let positions = self.tensors.numbers(&positions, &[spec.patches(), hidden])?;
        let projector = match spec.projector {
            Projector::Linear => {
                ProjectorWeights::Linear(self.one("multi_modal_projector.linear", text, hidden)?)
            }
            Projector::Pool => {
                let norm = "multi_modal_projector.mm_soft_emb_norm.weight";
                let norm = self.tensors.norm(config, norm, hidden)?;
                let name = "multi_modal_projector.mm_input_projection_weight";
                let bytes = self.tensors.turned(name, hidden, text)?;
                let part = Part { format: Format::F32, rows: text, bytes: &bytes };
                let matrix = self.packed(name, &[part], hidden, Arrangement::Stacked)?;
                ProjectorWeights::Pool {
                    norm: self.device.numbers(&norm)?,
                    linear: Linear::new(matrix, None),
                }
            }
        };
        Ok(Tower {
            spec: spec.clone(),
            patches: self.patches(&format!("{embeddings}.patch_embedding"), spec)?,
            positions: self.device.numbers(&positions)?,
            layers,
            norm: self.layer_norm("vision_tower.post_layernorm", hidden)?,
            projector,
        })
    }

    /// A convolution that takes each patch once: a product with its numbers in a row.
    fn patches(&mut self, name: &str, spec: &VisionSpec) -> Result<Linear> {
        let (rows, cols) = (spec.hidden, spec.patch_numbers());
        let weight = format!("{name}.weight");
        let mut numbers = self.tensors.numbers(&weight, &[rows, 3, spec.patch, spec.patch])?;
        fill_up(&mut numbers, cols);
        let bytes = bytes(numbers.iter().map(|number| number.to_le_bytes()));
        let part = Part { format: Format::F32, rows, bytes: &bytes };
        let matrix = self.packed(&weight, &[part], padded(cols), Arrangement::Stacked)?;
        let bias = self.tensors.numbers(&format!("{name}.bias"), &[rows])?;
        Ok(Linear::new(matrix, Some(self.device.numbers(&bias)?)))
    }

    fn one(&mut self, name: &str, rows: usize, cols: usize) -> Result<Linear> {
        self.linear(&[(name, rows)], cols, Arrangement::Stacked, true)
    }

    fn layer_norm(&mut self, name: &str, len: usize) -> Result<LayerNorm> {
        let weight = self.tensors.numbers(&format!("{name}.weight"), &[len])?;
        let bias = self.tensors.numbers(&format!("{name}.bias"), &[len])?;
        Ok(LayerNorm { weight: self.device.numbers(&weight)?, bias: self.device.numbers(&bias)? })
    }
}

/// Rows of `cols` numbers as the products take them: filled up with zeros.
fn fill_up(rows: &mut Vec<f32>, cols: usize) {
    let to = padded(cols);
    *rows = rows.chunks_exact(cols).flat_map(|row| row.iter().copied().chain(vec![0.0; to - cols])).collect();
}

fn padded(cols: usize) -> usize {
    cols.next_multiple_of(8)
}

impl Tower {
    /// Bytes of all matrices.
    pub(super) fn bytes(&self) -> usize {
        let layers = self.layers.iter().flat_map(|l| [&l.qkv, &l.output, &l.up, &l.down]);
        let projector = match &self.projector {
            ProjectorWeights::Linear(linear) | ProjectorWeights::Pool { linear, .. } => linear,
        };
        layers.chain([&self.patches, projector]).map(|linear| linear.bytes()).sum()
    }
}

impl DeviceNetwork {
    /// Begins to read a picture; see [`super::super::Network::begin_picture`].
    pub fn begin_picture(&self, pixels: &[f32]) -> Result<Option<Encoding>> {
        let Some(tower) = self.tower.as_ref().filter(|tower| tower.spec.pixels() == pixels.len()) else {
            return Ok(None);
        };
        let (spec, device) = (&tower.spec, &self.device);
        let (n, hidden) = (spec.patches(), spec.hidden);
        let activation = if self.exact { 4 } else { 2 };
        let mut rows = patch_rows(spec, pixels);
        fill_up(&mut rows, spec.patch_numbers());
        let patches = self.activations(device.numbers(&rows)?, rows.len())?;
        let scratch = dense_scratch_bytes(device, n, n, spec.heads, spec.head_dim(), self.exact);
        let mut scratch = device.buffer(scratch)?;
        scratch.fill(0)?;
        let picture = Encoding {
            next_layer: 0,
            residual: device.buffer(4 * n * hidden)?,
            y: device.buffer(4 * n * hidden)?,
            x: device.buffer(activation * n * hidden)?,
            attended: device.buffer(activation * n * hidden)?,
            qkv: device.buffer(12 * n * hidden)?,
            inner: device.buffer(activation * n * spec.ffn)?,
            scratch,
        };
        self.tower_product(&tower.patches, n, &patches, Becomes::Numbers(&picture.residual))?;
        add(&picture.residual, &tower.positions, n * hidden)?;
        Ok(Some(picture))
    }

    /// Takes a picture one step on; its features `[tokens, hidden]` with the last one.
    pub fn read_on(&self, picture: &mut Encoding) -> Result<Option<Vec<f32>>> {
        let Some(tower) = &self.tower else { unreachable!("a picture was begun") };
        let Some(layer) = tower.layers.get(picture.next_layer) else {
            return Ok(Some(self.features(tower, picture)?));
        };
        self.tower_layer(&tower.spec, layer, picture)?;
        // A step is over when it was computed: what is more urgent waits for one at most.
        self.device.finish()?;
        picture.next_layer += 1;
        Ok(None)
    }

    fn tower_layer(
        &self,
        spec: &VisionSpec,
        layer: &TowerLayer,
        picture: &Encoding,
    ) -> Result<(), CudaError> {
        let Encoding { residual, y, x, attended, qkv, inner, scratch, .. } = picture;
        let (n, hidden) = (spec.patches(), spec.hidden);
        let norm =
            |norm: &LayerNorm| layer_norm(residual, (&norm.weight, &norm.bias), spec.eps, n, x, self.exact);
        norm(&layer.before_attention)?;
        self.tower_product(&layer.qkv, n, x, Becomes::Numbers(qkv))?;
        let rows = |part: usize| Strided { buffer: qkv, first: part * hidden, stride: 3 * hidden };
        attend_dense(&Dense {
            q: rows(0),
            k: rows(1),
            v: rows(2),
            queries: n,
            keys: n,
            heads: spec.heads,
            head_dim: spec.head_dim(),
            scale: (spec.head_dim() as f32).powf(-0.5),
            exact: self.exact,
            scratch,
            out: attended,
        })?;
        self.tower_product(&layer.output, n, attended, Becomes::Numbers(y))?;
        add(residual, y, n * hidden)?;
        norm(&layer.before_mlp)?;
        self.tower_product(&layer.up, n, x, Becomes::Gelu(inner))?;
        self.tower_product(&layer.down, n, inner, Becomes::Numbers(y))?;
        add(residual, y, n * hidden)
    }

    fn features(&self, tower: &Tower, picture: &Encoding) -> Result<Vec<f32>> {
        let (spec, norm) = (&tower.spec, &tower.norm);
        let (n, hidden) = (spec.patches(), spec.hidden);
        let normed = |out: &Buffer, exact: bool| {
            layer_norm(&picture.residual, (&norm.weight, &norm.bias), spec.eps, n, out, exact)
        };
        let len = spec.tokens * self.config.hidden;
        let features = self.device.buffer(4 * len)?;
        match &tower.projector {
            ProjectorWeights::Linear(linear) => {
                normed(&picture.x, self.exact)?;
                self.tower_product(linear, n, &picture.x, Becomes::Numbers(&features))?;
            }
            ProjectorWeights::Pool { norm, linear } => {
                normed(&picture.y, true)?;
                let pooled = self.device.buffer(4 * spec.tokens * hidden)?;
                average_pool(&picture.y, spec.side(), spec.pool(), hidden, &pooled)?;
                norm_in_place(&pooled, norm, spec.eps, spec.tokens)?;
                let pooled = self.activations(pooled, spec.tokens * hidden)?;
                self.tower_product(linear, spec.tokens, &pooled, Becomes::Numbers(&features))?;
            }
        }
        Ok(features.read_numbers(0, len)?)
    }

    /// `len` f32 numbers as activation numbers.
    fn activations(&self, numbers: Buffer, len: usize) -> Result<Buffer, CudaError> {
        if self.exact {
            return Ok(numbers);
        }
        let rounded = self.device.buffer(2 * len)?;
        round(&numbers, len, &rounded)?;
        Ok(rounded)
    }

    fn tower_product(
        &self,
        linear: &Linear,
        n: usize,
        x: &Buffer,
        becomes: Becomes<'_>,
    ) -> Result<(), CudaError> {
        if self.exact {
            let output = match becomes {
                Becomes::Numbers(out) => Output::Numbers(out),
                Becomes::Gelu(out) => Output::Gelu(out),
            };
            return self.few(linear.product(None), n, few::Input::Plain(x), output);
        }
        let output = match becomes {
            Becomes::Numbers(out) => ManyOutput::Numbers(Strided::whole(out, linear.matrix.rows())),
            Becomes::Gelu(out) => ManyOutput::Gelu(Strided::whole(out, linear.matrix.rows())),
        };
        self.many(linear.product(None), n, x, output)
    }
}
