//! Griffin's recurrent block: a causal convolution and the RG-LRU between two linear branches
//! (De et al. 2024; the reference implementation's `modeling_recurrent_gemma.py`).
//!
//! Unlike the reference it goes on from any state by any number of tokens: the convolution's last inputs
//! are carried along with the recurrence.

use gemma_kernels::{BlockProjection, CausalConv, Ops, RgLru};

use super::decoder::{HostPass, Scratch, sized};
use super::{HostNetwork, RgLruWeights};
use crate::cache::Sequence;
use crate::config::RgLruSpec;

/// Buffers of a recurrent block, `[n, width]` each.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    x: Vec<f32>,
    y: Vec<f32>,
    convolved: Vec<f32>,
    input_gate: Vec<f32>,
    recurrence_gate: Vec<f32>,
    states: Vec<f32>,
}

impl HostNetwork {
    /// The recurrent block of a pass's next layer over the rows of `s.hidden`, in place.
    pub(super) fn recurrence(
        &self,
        s: &mut Scratch,
        sequence: &mut Sequence,
        weights: &RgLruWeights,
        spec: &RgLruSpec,
        pass: &HostPass,
    ) {
        let (i, n, adapted) = (pass.next_layer, pass.len, pass.adapted);
        let start = sequence.tokens().len();
        let (ops, len, b): (&dyn Ops, _, _) = (&*self.ops, n * spec.width, &mut s.recurrent);
        let (x, y) = (sized(&mut b.x, len), sized(&mut b.y, len));
        let mut branches = [weights.x.adapted(x, adapted), weights.y.adapted(y, adapted)];
        ops.project(&s.hidden, n, self.activation, &mut branches);
        let (state, carried) = sequence.state(i);
        let convolved = sized(&mut b.convolved, len);
        let (weight, bias) = (&weights.convolution, &weights.convolution_bias);
        ops.causal_conv(CausalConv { x, carried, weight, bias, out: &mut *convolved });
        let (input, recurrence) = (sized(&mut b.input_gate, len), sized(&mut b.recurrence_gate, len));
        let mut gates = [
            BlockProjection { blocks: &weights.input_gate.blocks, out: &mut *input },
            BlockProjection { blocks: &weights.recurrence_gate.blocks, out: &mut *recurrence },
        ];
        ops.project_blocks(convolved, n, &mut gates);
        let states = sized(&mut b.states, len);
        ops.rg_lru(RgLru {
            x: convolved,
            input_gate: input,
            recurrence_gate: recurrence,
            input_bias: &weights.input_gate.bias,
            recurrence_bias: &weights.recurrence_gate.bias,
            decay: &weights.decay,
            start,
            state: &mut state.to_vec(),
            out: &mut *states,
        });
        sequence.record(i, x, states);
        ops.geglu(y, states);
        ops.project(y, n, self.activation, &mut [weights.out.adapted(&mut s.hidden, adapted)]);
    }
}
