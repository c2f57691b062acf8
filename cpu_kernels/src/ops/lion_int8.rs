//! `lion` with a momentum in 8 bits, rounded at random: code * scale, with one f32 scale for each block of 64 values of a row.

use super::lion;
use super::state::{Codes, Inputs, Noise, STATE_BLOCK, decode, encode};
use crate::{Call, at_level};

pub use super::state::LionStateArgs;

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn lion_int8(call: &Call<'_>) {
    let a: LionStateArgs = call.args();
    let (cols, rows) = (a.cols as usize, call.share(a.rows as usize));
    let blocks = cols.div_ceil(STATE_BLOCK);
    let (part, scales) = (rows.start * cols..rows.end * cols, rows.start * blocks..rows.end * blocks);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (x, w, m) = unsafe {
        let m = (call.bufs[4].write(part.clone()), call.bufs[5].write(scales));
        (Inputs::new(&a, call, part.clone()), call.bufs[3].write(part), m)
    };
    let x = &x;
    at_level!(call.level, body, (x: &Inputs<'_, LionStateArgs>, w: &mut [f32], m: Codes<'_, i8>));
}

#[inline(always)]
fn body(x: &Inputs<'_, LionStateArgs>, w: &mut [f32], (m, scales): Codes<'_, i8>) {
    let Inputs { args: a, ctl, step, g, first } = *x;
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
        encode(mean, |k| noise.first(i + k), &mut m[at], scale);
    }
}
