//! An adapter beside the products of the base, whose weights stay as they are.
//!
//! The first factors of all products over one input lie behind each other in one matrix, rounded as the base's weights
//! are, so that they meet the same activations: `down`. The second ones are few numbers a row, in bf16 at least: `up`.

use std::sync::Arc;

use gemma_kernels::{Activation, Format, LowRank, Matrix, quantize};

use super::Linear;
use super::weights::Loader;
use crate::adapter::{Adapter, Factors};
use crate::error::Result;

/// What an adapter adds to one product.
pub(super) struct Beside {
    /// Shared by the products over one input.
    down: Arc<Matrix>,
    up: Matrix,
    first: usize,
}

impl Beside {
    pub(super) fn low_rank(&self) -> LowRank<'_> {
        LowRank { down: &self.down, up: &self.up, first: self.first }
    }

    /// Bytes in memory; those of what is shared count for the first product.
    pub(super) fn bytes(&self) -> usize {
        self.up.bytes() + if self.first == 0 { self.down.bytes() } else { 0 }
    }
}

impl Loader<'_> {
    /// Puts what the adapter has for the products over one input beside them: `site` has their modules in layer `i`.
    pub(super) fn adapt(
        &self,
        adapter: Option<&Adapter>,
        activation: Activation,
        i: usize,
        site: &mut [(&str, &mut Linear)],
    ) -> Result<()> {
        let module = |part: &str| format!("model.layers.{i}.{part}");
        let found = |part: &str| adapter.and_then(|adapter| adapter.modules().get(&module(part)));
        let mut down = Vec::new();
        let factors: Vec<Option<&Factors>> = site.iter().map(|(part, _)| found(part)).collect();
        let Some(inputs) = factors.iter().flatten().map(|factors| factors.inputs()).next() else {
            return Ok(());
        };
        factors.iter().flatten().for_each(|factors| down.extend_from_slice(&factors.down));
        let base = self.tensors.checkpoint.tensor(&format!("{}.weight", module(site[0].0)))?.format;
        let (first_format, second_format) = formats(base, activation, inputs);
        let matrix = |format, cols, numbers: &[f32]| {
            let name = module(site[0].0);
            let bytes = quantize::quantize(format, cols, numbers).map_err(|e| self.tensors.bad(&name, e))?;
            let matrix = self.ops.matrix(format, numbers.len() / cols, cols, &bytes);
            matrix.map_err(|e| self.tensors.bad(&name, e))
        };
        let down = Arc::new(matrix(first_format, inputs, &down)?);
        let mut first = 0;
        let mut beside = Vec::with_capacity(site.len());
        for factors in factors {
            let Some(factors) = factors else {
                beside.push(None);
                continue;
            };
            let up = matrix(second_format, factors.rank, &factors.up)?;
            beside.push(Some(Beside { down: down.clone(), up, first }));
            first += factors.rank;
        }
        for ((_, linear), beside) in site.iter_mut().zip(beside) {
            linear.adapter = beside;
        }
        Ok(())
    }
}

/// How the factors beside a base of this format are stored: so that the first meets activations as the base does, and
/// neither is rounded where the base is not.
fn formats(base: Format, activation: Activation, inputs: usize) -> (Format, Format) {
    match (activation, base) {
        (Activation::F32, _) | (_, Format::F32) => (Format::F32, Format::F32),
        (_, Format::F16 | Format::BF16) => (base, Format::BF16),
        _ if inputs.is_multiple_of(32) => (Format::Q8_0, Format::BF16),
        _ => (Format::F32, Format::BF16),
    }
}
