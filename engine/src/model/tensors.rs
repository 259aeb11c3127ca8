//! Reading a checkpoint's tensors for a network: shapes are checked, numbers decoded, progress is told.

use gemma_kernels::{Format, quant, quantize};

use crate::checkpoint::{Checkpoint, TensorView};
use crate::config::{LayerSpec, ModelConfig, Norms, RgLruSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::options::LoadProgress;

/// A checkpoint while its weights are read.
pub(super) struct Tensors<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    progress: &'a mut dyn FnMut(LoadProgress),
    done: u64,
    total: u64,
}

/// The norms of a layer, with the 1 added.
pub(super) struct LayerNorms {
    pub(super) before_mixer: Vec<f32>,
    pub(super) after_mixer: Option<Vec<f32>>,
    pub(super) before_mlp: Vec<f32>,
    pub(super) after_mlp: Option<Vec<f32>>,
}

/// What is no matrix in a recurrent block.
pub(super) struct RecurrentNumbers {
    /// `[taps, width]`.
    pub(super) convolution: Vec<f32>,
    pub(super) convolution_bias: Vec<f32>,
    /// `[width]`: `-8 softplus(parameter)`.
    pub(super) decay: Vec<f32>,
}

/// The blocks of a gate, each `[out, in]`; bf16 stays bf16.
pub(super) struct GateBlocks {
    pub(super) format: Format,
    pub(super) blocks: Vec<Vec<u8>>,
    pub(super) bias: Vec<f32>,
}

impl<'a> Tensors<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint, progress: &'a mut dyn FnMut(LoadProgress)) -> Self {
        Self { checkpoint, progress, done: 0, total: checkpoint.weight_bytes() }
    }

    pub(super) fn layer_norms(
        &mut self,
        config: &ModelConfig,
        i: usize,
        spec: &LayerSpec,
    ) -> Result<LayerNorms> {
        let name = |part: &str| format!("model.layers.{i}.{part}.weight");
        // The same name stands before the MLP in Gemma 1 and behind the mixer in later ones.
        let post = "post_attention_layernorm";
        let (before_mlp, after_mixer, after_mlp) = match spec.norms {
            Norms::Pre => (post, None, None),
            Norms::PrePost => ("pre_feedforward_layernorm", Some(post), Some("post_feedforward_layernorm")),
        };
        let mut norm = |part: &str| self.norm(config, &name(part), config.hidden);
        Ok(LayerNorms {
            before_mixer: norm("input_layernorm")?,
            after_mixer: after_mixer.map(&mut norm).transpose()?,
            before_mlp: norm(before_mlp)?,
            after_mlp: after_mlp.map(&mut norm).transpose()?,
        })
    }

    pub(super) fn recurrent(&mut self, i: usize, r: &RgLruSpec) -> Result<RecurrentNumbers> {
        let name = |part: &str| format!("model.layers.{i}.temporal_block.{part}");
        let kernel = self.numbers(&name("conv_1d.weight"), &[r.width, 1, r.taps])?;
        let taps = |tap: usize| kernel.iter().skip(tap).step_by(r.taps).copied();
        let parameter = self.numbers(&name("rg_lru.recurrent_param"), &[r.width])?;
        let softplus = |x: f32| f64::from(x).max(0.0) + (-f64::from(x).abs()).exp().ln_1p();
        Ok(RecurrentNumbers {
            convolution: (0..r.taps).flat_map(taps).collect(),
            convolution_bias: self.numbers(&name("conv_1d.bias"), &[r.width])?,
            decay: parameter.iter().map(|&p| (-8.0 * softplus(p)) as f32).collect(),
        })
    }

    /// A gate's blocks, which the file holds as `[blocks, in, out]`.
    pub(super) fn gate(&mut self, name: &str, r: &RgLruSpec) -> Result<GateBlocks> {
        let side = r.width / r.blocks;
        let weight = format!("{name}_weight");
        let format = match self.tensor(&weight, &[r.blocks, side, side])?.format {
            Format::BF16 => Format::BF16,
            _ => Format::F32,
        };
        let numbers = self.numbers(&weight, &[r.blocks, side, side])?;
        let turned = |block: &[f32]| {
            let mut turned = vec![0.0; side * side];
            for (input, row) in block.chunks_exact(side).enumerate() {
                for (output, number) in row.iter().enumerate() {
                    turned[output * side + input] = *number;
                }
            }
            quantize::quantize(format, side, &turned).map_err(|e| self.bad(&weight, e))
        };
        let blocks = numbers.chunks_exact(side * side).map(turned).collect::<Result<_>>()?;
        Ok(GateBlocks { format, blocks, bias: self.numbers(&format!("{name}_bias"), &[r.blocks, side])? })
    }

    /// The bytes of a matrix `[rows, cols]` in f32 that the file holds as `[cols, rows]`.
    pub(super) fn turned(&mut self, name: &str, cols: usize, rows: usize) -> Result<Vec<u8>> {
        let numbers = self.numbers(name, &[cols, rows])?;
        let turned = (0..rows).flat_map(|row| numbers.iter().skip(row).step_by(rows));
        Ok(turned.flat_map(|number| number.to_le_bytes()).collect())
    }

    /// A norm's weight, with what the family adds to it.
    pub(super) fn norm(&mut self, config: &ModelConfig, name: &str, len: usize) -> Result<Vec<f32>> {
        let mut weight = self.numbers(name, &[len])?;
        weight.iter_mut().for_each(|w| *w += config.norm_offset);
        Ok(weight)
    }

    pub(super) fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.tensor(name, shape)?;
        // The last dimension is what blocks of quants run along.
        let cols = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().product::<usize>() / cols.max(1);
        let numbers = quant::dequantize(tensor.format, rows, cols, tensor.bytes);
        let numbers = numbers.map_err(|e| self.bad(name, e))?;
        self.report(tensor.bytes.len());
        Ok(numbers)
    }

    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'a>> {
        let tensor = self.checkpoint.tensor(name)?;
        if tensor.shape != shape {
            return Err(self.wrong_shape(name, &tensor.shape, shape));
        }
        Ok(tensor)
    }

    pub(super) fn bad(&self, name: &str, problem: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::BadFile, self.subject(name), problem)
    }

    /// Tells that so many bytes of the file were read.
    pub(super) fn report(&mut self, bytes: usize) {
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
