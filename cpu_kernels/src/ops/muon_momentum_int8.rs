//! `muon_momentum` with a momentum in 8 bits, rounded at random: code * scale, with one f32 scale for each block of 64 values of
//! a row.

use super::muon_momentum::{direction, spread, tiles};
use super::state::{Codes, Inputs, Noise, STATE_BLOCK, decode, encode};
use crate::{Buf, Call, at_level};
use std::ops::Range;

pub use super::state::MuonStateArgs;

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn muon_momentum_int8(call: &Call<'_>) {
    let a: MuonStateArgs = call.args();
    let (rows, cols) = (a.rows as usize, a.cols as usize);
    let blocks = cols.div_ceil(STATE_BLOCK);
    assert!([a.start, a.stride].iter().all(|n| cols > 0 && (*n as usize).is_multiple_of(cols)), "whole rows of {cols}");
    for (matrix, part) in tiles(call, (a.batch, a.stride), (rows, cols)) {
        let start = a.start as usize + matrix * a.stride as usize;
        let elements = start + part.start * cols..start + part.end * cols;
        let scales = elements.start / cols * blocks..elements.end / cols * blocks;
        // SAFETY: the contract of `Kernel`; this part writes its rows of m and of the scales alone.
        let (inputs, m) = unsafe {
            let m = (call.bufs[3].write(elements.clone()), call.bufs[4].write(scales));
            (Inputs::new(&a, call, elements), m)
        };
        let (inputs, x, offset) = (&inputs, &call.bufs[5], a.offset as usize + matrix * rows * cols);
        at_level!(call.level, body,
            (inputs: &Inputs<'_, MuonStateArgs>, offset: usize, part: Range<usize>, m: Codes<'_, i8>, x: &Buf));
    }
}

#[inline(always)]
fn body(inputs: &Inputs<'_, MuonStateArgs>, offset: usize, part: Range<usize>, (m, scales): Codes<'_, i8>, x: &Buf) {
    let Inputs { args: a, ctl, step, g, first } = *inputs;
    let (cols, noise, mut state) = (a.cols as usize, Noise::new(step, a.stream), [0.0; STATE_BLOCK]);
    spread(&a.of_f32(), offset, part, x, |at, x| {
        for start in at.clone().step_by(STATE_BLOCK) {
            let block = start..at.end.min(start + STATE_BLOCK);
            let scale = &mut scales[start / cols * cols.div_ceil(STATE_BLOCK) + start % cols / STATE_BLOCK];
            let mean = &mut state[..block.len()];
            decode(&m[block.clone()], *scale, mean);
            direction(a.beta, ctl, &g[block.clone()], mean, &mut x[start - at.start..][..block.len()]);
            if ctl[1] == 0.0 {
                encode(mean, |i| noise.first(first + start + i), &mut m[block], scale);
            }
        }
    });
}
