//! `lion` with a momentum in 8 bits, rounded at random: code * scale, with one f32 scale for each block of 64 values of a row.

use super::lion;
use super::state::{Noise, STATE_BLOCK, decode, encode};
use crate::{Call, at_level};

pub use super::state::LionStateArgs;

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn lion_int8(call: &Call<'_>) {
    let a: LionStateArgs = call.args();
    let (cols, rows) = (a.cols as usize, call.share(a.rows as usize));
    let blocks = cols.div_ceil(STATE_BLOCK);
    let part = rows.start * cols..rows.end * cols;
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (g, ctl, step, w, m, scales) = unsafe {
        let [g, ctl, step] = [0, 1, 2].map(|i| call.bufs[i].read());
        let scales = call.bufs[5].write(rows.start * blocks..rows.end * blocks);
        (g, ctl, step, call.bufs[3].write(part.clone()), call.bufs[4].write(part.clone()), scales)
    };
    let (a, first, g) = (&a, part.start, &g[part]);
    at_level!(call.level, body,
        (a: &LionStateArgs, first: usize, g: &[f32], ctl: &[f32], step: &[f32], w: &mut [f32], m: &mut [i8], scales: &mut [f32]));
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the buffers of the op")]
fn body(
    a: &LionStateArgs,
    first: usize,
    g: &[f32],
    ctl: &[f32],
    step: &[f32],
    w: &mut [f32],
    m: &mut [i8],
    scales: &mut [f32],
) {
    if ctl[1] != 0.0 {
        return;
    }
    let (cols, noise, mut state) = (a.cols as usize, Noise::new(step, a.stream), [0.0; STATE_BLOCK]);
    for (block, scale) in scales.iter_mut().enumerate() {
        let (row, start) = (block / cols.div_ceil(STATE_BLOCK), block % cols.div_ceil(STATE_BLOCK) * STATE_BLOCK);
        let at = row * cols + start..row * cols + cols.min(start + STATE_BLOCK);
        let mean = &mut state[..at.len()];
        decode(&m[at.clone()], *scale, mean);
        lion::body(&a.of_f32(), &g[at.clone()], ctl, step, &mut w[at.clone()], mean);
        let i = first + at.start;
        *scale = encode(mean, |k| noise.first(i + k), &mut m[at]);
    }
}
