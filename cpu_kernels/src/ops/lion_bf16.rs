//! `lion` with a momentum in bf16, rounded at random.

use super::lion;
use super::state::{Noise, STATE_BLOCK, narrow, widen};
use crate::simd::math::LANES;
use crate::{Call, at_level};

pub use super::state::LionStateArgs;

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn lion_bf16(call: &Call<'_>) {
    let a: LionStateArgs = call.args();
    let part = call.share_blocks(a.rows as usize * a.cols as usize, LANES);
    // SAFETY: the contract of `Kernel`; this part writes `part` alone.
    let (g, ctl, step, w, m) = unsafe {
        let [g, ctl, step] = [0, 1, 2].map(|i| call.bufs[i].read());
        (g, ctl, step, call.bufs[3].write(part.clone()), call.bufs[4].write(part.clone()))
    };
    let (a, first, g) = (&a, part.start, &g[part]);
    at_level!(call.level, body,
        (a: &LionStateArgs, first: usize, g: &[f32], ctl: &[f32], step: &[f32], w: &mut [f32], m: &mut [u16]));
}

#[inline(always)]
fn body(a: &LionStateArgs, first: usize, g: &[f32], ctl: &[f32], step: &[f32], w: &mut [f32], m: &mut [u16]) {
    if ctl[1] != 0.0 {
        return;
    }
    let (noise, mut state) = (Noise::new(step, a.stream), [0.0; STATE_BLOCK]);
    let blocks = g.chunks(STATE_BLOCK).zip(w.chunks_mut(STATE_BLOCK)).zip(m.chunks_mut(STATE_BLOCK));
    for (i, ((g, w), m)) in blocks.enumerate() {
        let (at, mean) = (first + i * STATE_BLOCK, &mut state[..g.len()]);
        widen(m, mean);
        lion::body(&a.of_f32(), g, ctl, step, w, mean);
        narrow(mean, |i| noise.first(at + i), m);
    }
}
