//! `muon_momentum` with a momentum in bf16, rounded at random.

use super::muon_momentum::{direction, spread, tiles};
use super::state::{Inputs, Noise, STATE_BLOCK, narrow, widen};
use crate::{Buf, Call, at_level};
use std::ops::Range;

pub use super::state::MuonStateArgs;

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn muon_momentum_bf16(call: &Call<'_>) {
    let a: MuonStateArgs = call.args();
    let (rows, cols) = (a.rows as usize, a.cols as usize);
    for (matrix, part) in tiles(call, (a.batch, a.stride), (rows, cols)) {
        let start = a.start as usize + matrix * a.stride as usize;
        let elements = start + part.start * cols..start + part.end * cols;
        // SAFETY: the contract of `Kernel`; this part writes its rows of m alone.
        let (inputs, m) = unsafe { (Inputs::new(&a, call, elements.clone()), call.bufs[3].write(elements)) };
        let (inputs, x, offset) = (&inputs, &call.bufs[4], a.offset as usize + matrix * rows * cols);
        at_level!(call.level, body,
            (inputs: &Inputs<'_, MuonStateArgs>, offset: usize, part: Range<usize>, m: &mut [u16], x: &Buf));
    }
}

#[inline(always)]
fn body(inputs: &Inputs<'_, MuonStateArgs>, offset: usize, part: Range<usize>, m: &mut [u16], x: &Buf) {
    let Inputs { args: a, ctl, step, g, first } = *inputs;
    let (noise, mut state) = (Noise::new(step, a.stream), [0.0; STATE_BLOCK]);
    spread(&a.of_f32(), offset, part, x, |at, x| {
        for start in at.clone().step_by(STATE_BLOCK) {
            let block = start..at.end.min(start + STATE_BLOCK);
            let mean = &mut state[..block.len()];
            widen(&m[block.clone()], mean);
            direction(a.beta, ctl, &g[block.clone()], mean, &mut x[start - at.start..][..block.len()]);
            if ctl[1] == 0.0 {
                narrow(mean, |i| noise.first(first + start + i), &mut m[block]);
            }
        }
    });
}
