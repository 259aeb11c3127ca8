//! An adapter beside a network's weights on a device: its factors stand with the products that they are for, trained
//! token rows with the network.

use std::collections::BTreeMap;

use gemma_kernels::cuda::low_rank::{DeviceLowRank, Factors, LowRankPart};
use gemma_kernels::cuda::{Buffer, CudaError, Device, MatrixError};

use super::decoder::{FEW, bytes};
use super::{Layer, Linear, MixerWeights};
use crate::adapter::Adapter;
use crate::config::{Mixer, ModelConfig};
use crate::error::{Error, ErrorKind, Result};

/// What a network has of an adapter besides the factors.
pub(super) struct DeviceAdapter {
    /// By token what stands in place of its embedding, scaled: bytes of f32 `[hidden]`.
    pub(super) rows: BTreeMap<u32, Vec<u8>>,
    /// The largest rank of a product.
    rank: usize,
    /// The most outputs of one that has factors.
    outputs: usize,
}

/// Buffers for what is computed beside a product.
pub(super) struct AdapterWork {
    /// Activation numbers `[rows, rank]`: between the factors.
    pub(super) between: Buffer,
    /// `[rows, outputs]`: what comes to a product, where there are few rows.
    pub(super) added: Buffer,
}

impl DeviceAdapter {
    /// Brings an adapter to the device, which was checked to be one for this network, its factors beside the products
    /// of the layers.
    pub(super) fn new(
        adapter: &Adapter,
        config: &ModelConfig,
        device: &Device,
        exact: bool,
        layers: &mut [Layer],
    ) -> Result<Self> {
        let mut loader = Loader { adapter, device, exact, taken: 0, rank: 0, outputs: 0 };
        for (i, (layer, spec)) in layers.iter_mut().zip(&config.layers).enumerate() {
            let name = |part: &str| format!("model.layers.{i}.{part}");
            match (&mut layer.mixer, &spec.mixer) {
                (MixerWeights::Attention(weights), Mixer::Attention(a)) => {
                    let (queries, keys) = (a.heads * a.head_dim, a.kv_heads * a.head_dim);
                    let [q, k, v, o] =
                        ["q", "k", "v", "o"].map(|part| name(&format!("self_attn.{part}_proj")));
                    loader.take(&mut weights.qkv, &[(q, queries), (k, keys), (v, keys)])?;
                    loader.take(&mut weights.o, &[(o, config.hidden)])?;
                }
                (MixerWeights::RgLru(weights), Mixer::RgLru(r)) => {
                    let [x, y, out] =
                        ["x", "y", "out"].map(|part| name(&format!("temporal_block.linear_{part}")));
                    loader.take(&mut weights.xy, &[(x, r.width), (y, r.width)])?;
                    loader.take(&mut weights.out, &[(out, config.hidden)])?;
                }
                _ => unreachable!("weights are loaded by their layer's specification"),
            }
            let [gate, up, down] = ["gate", "up", "down"].map(|part| name(&format!("mlp.{part}_proj")));
            loader.take(&mut layer.gate_up, &[(gate, spec.mlp.ffn), (up, spec.mlp.ffn)])?;
            loader.take(&mut layer.down, &[(down, config.hidden)])?;
        }
        let Loader { taken, rank, outputs, .. } = loader;
        if taken < adapter.modules().len() {
            let problem = format!(
                "its kernels run adapters of a decoder's layers alone, and not all of {}",
                adapter.name()
            );
            return Err(
                Error::new(ErrorKind::Unsupported, "GPU", problem).remedy("Set device to cpu or auto.")
            );
        }
        let scaled =
            |row: &[f32]| bytes(row.iter().map(|number| (number * config.embed_scale).to_le_bytes()));
        let rows = adapter.rows().iter().map(|(&id, row)| (id, scaled(row))).collect();
        Ok(Self { rows, rank, outputs })
    }

    /// Buffers for passes of `rows` rows.
    pub(super) fn work(&self, device: &Device, rows: usize, exact: bool) -> Result<AdapterWork, CudaError> {
        let (number, few) = if exact { (4, rows) } else { (2, rows.min(FEW)) };
        Ok(AdapterWork {
            between: device.buffer(number * rows * self.rank)?,
            added: device.buffer(4 * few * self.outputs)?,
        })
    }
}

/// An adapter while it is brought to a device.
struct Loader<'a> {
    adapter: &'a Adapter,
    device: &'a Device,
    exact: bool,
    /// Modules that were found.
    taken: usize,
    rank: usize,
    outputs: usize,
}

impl Loader<'_> {
    /// Brings what there is for a product of these modules, with their outputs.
    fn take(&mut self, linear: &mut Linear, modules: &[(String, usize)]) -> Result<()> {
        let part = |(module, rows): &(String, usize)| {
            let factors = self.adapter.modules().get(module);
            let factors = factors.map(|factors| Factors { down: &factors.down, up: &factors.up });
            LowRankPart { rows: *rows, factors }
        };
        let parts: Vec<_> = modules.iter().map(part).collect();
        let found = parts.iter().filter(|part| part.factors.is_some()).count();
        if found == 0 {
            return Ok(());
        }
        let low_rank = DeviceLowRank::new(self.device, &parts, linear.matrix.cols(), self.exact);
        let low_rank = low_rank.map_err(|e| match e {
            MatrixError::Cuda(error) => Error::from(error),
            MatrixError::Shape(error) => Error::new(ErrorKind::BadFile, self.adapter.name(), error),
        })?;
        self.taken += found;
        self.rank = self.rank.max(low_rank.rank());
        self.outputs = self.outputs.max(linear.matrix.rows());
        linear.low_rank = Some(low_rank);
        Ok(())
    }
}
