//! The memory that a pass works in: buffers on the device, one set a pass, kept for the next.

use std::sync::Arc;

use gemma_kernels::cuda::{Buffer, CudaError, Place, Recording, States, attention, best, recurrent};

use super::{AdapterWork, DeviceNetwork};
use crate::config::Mixer;

/// Rows of logits that are kept on the device: a token and what was tried behind it.
pub(super) const LOGIT_ROWS: usize = 16;
/// Pages that a place has room for at first.
const PAGES: usize = 256;

/// Buffers for passes of at most so many rows.
pub(super) struct Work {
    pub(super) rows: usize,
    pub(super) place: Place,
    /// `[rows]`: token ids.
    pub(super) ids: Buffer,
    /// `[rows, hidden]` each: the residual stream, and where its next state goes.
    pub(super) streams: [Buffer; 2],
    /// `[rows, hidden]`: what a sublayer adds.
    pub(super) y: Buffer,
    /// Activation numbers `[rows, hidden]`: what a sublayer reads, in passes of many rows.
    pub(super) x: Buffer,
    /// `[rows, widest]`: queries, keys and values, or the branches of a recurrent block.
    pub(super) mixed: Buffer,
    /// Activation numbers `[rows, widest]`: what the output product of a mixer reads.
    pub(super) attended: Buffer,
    /// Activation numbers `[rows, ffn]`.
    pub(super) inner: Buffer,
    /// `[LOGIT_ROWS, vocab]`.
    pub(super) logits: Buffer,
    /// What the attention kernels need besides.
    pub(super) attention: Buffer,
    pub(super) best_scratch: Buffer,
    /// The best tokens of `LOGIT_ROWS` rows.
    pub(super) best: Buffer,
    pub(super) recurrent: Option<RecurrentWork>,
    /// Where the network has an adapter.
    pub(super) adapter: Option<AdapterWork>,
    /// Whole passes, launched as one.
    pub(super) recordings: Vec<(Shape, Recording)>,
}

/// What a recorded pass is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) tokens: usize,
    /// Of logits.
    pub(super) rows: usize,
    /// Whether the adapter runs.
    pub(super) adapted: bool,
}

/// What recurrent layers need.
pub(super) struct RecurrentWork {
    pub(super) states: States,
    /// The state before the pass.
    pub(super) from: Arc<Buffer>,
    /// Where states behind rows of the pass are left.
    pub(super) left: Vec<Arc<Buffer>>,
    pub(super) scratch: Buffer,
}

impl Work {
    /// The adapter's buffers, for a pass that it runs in.
    pub(super) fn adapter(&self, adapted: bool) -> Option<&AdapterWork> {
        self.adapter.as_ref().filter(|_| adapted)
    }
}

impl DeviceNetwork {
    /// Buffers for a pass of `rows` tokens over a sequence of `pages` pages: those of an earlier one, or new ones.
    pub(super) fn work(&mut self, rows: usize, pages: usize) -> Result<Work, CudaError> {
        match self.idle.pop() {
            Some(work) if work.place.holds(rows, pages) => Ok(work),
            // What is too small goes before what is larger comes.
            other => {
                let most_rows = other.map_or(0, |work| work.rows);
                self.new_work(rows.max(most_rows).max(LOGIT_ROWS), pages.max(PAGES).next_power_of_two())
            }
        }
    }

    fn new_work(&self, rows: usize, pages: usize) -> Result<Work, CudaError> {
        let (config, device) = (&self.config, &self.device);
        let number = if self.exact { 4 } else { 2 };
        let numbers = |width: usize| device.buffer(4 * rows * width);
        let activations = |width: usize| device.buffer(number * rows * width);
        let widest = |width: fn(&Mixer) -> usize| {
            config.layers.iter().map(|layer| width(&layer.mixer)).max().unwrap_or(0)
        };
        let mixed = widest(|mixer| match mixer {
            Mixer::Attention(a) => (a.heads + 2 * a.kv_heads) * a.head_dim,
            Mixer::RgLru(r) => 2 * r.width,
        });
        let attended = widest(|mixer| match mixer {
            Mixer::Attention(a) => a.heads * a.head_dim,
            Mixer::RgLru(r) => r.width,
        });
        let ffn = config.layers.iter().map(|layer| layer.mlp.ffn).max().unwrap_or(0);
        let kv = self.layout.kv().format();
        let attention_bytes = config.layers.iter().filter_map(|layer| match &layer.mixer {
            Mixer::Attention(a) => {
                Some(attention::scratch_bytes(device, a.heads, a.kv_heads, a.head_dim, rows, kv))
            }
            Mixer::RgLru(_) => None,
        });
        let mut attention = device.buffer(attention_bytes.max().unwrap_or(0))?;
        attention.fill(0)?;
        Ok(Work {
            rows,
            place: Place::new(device, rows, pages, self.windows.len())?,
            ids: device.buffer(4 * rows)?,
            streams: [numbers(config.hidden)?, numbers(config.hidden)?],
            y: numbers(config.hidden)?,
            x: activations(config.hidden)?,
            mixed: numbers(mixed)?,
            attended: activations(attended)?,
            inner: activations(ffn)?,
            logits: device.buffer(4 * LOGIT_ROWS * config.vocab)?,
            attention,
            best_scratch: device.buffer(best::scratch_bytes(LOGIT_ROWS, config.vocab))?,
            best: device.buffer(best::out_bytes(LOGIT_ROWS))?,
            recurrent: self.recurrent_work(rows)?,
            adapter: self
                .adapter
                .as_ref()
                .map(|adapter| adapter.work(device, rows, self.exact))
                .transpose()?,
            recordings: Vec::new(),
        })
    }

    fn recurrent_work(&self, rows: usize) -> Result<Option<RecurrentWork>, CudaError> {
        let len = self.config.state_bytes() / size_of::<f32>();
        if len == 0 {
            return Ok(None);
        }
        let widths = self.config.layers.iter().filter_map(|layer| match &layer.mixer {
            Mixer::RgLru(r) => Some(recurrent::scratch_bytes(rows, r.width)),
            Mixer::Attention(_) => None,
        });
        Ok(Some(RecurrentWork {
            states: States::new(&self.device, len, rows)?,
            from: Arc::new(self.device.buffer(4 * len)?),
            left: Vec::new(),
            scratch: self.device.buffer(widths.max().unwrap_or(0))?,
        }))
    }
}
