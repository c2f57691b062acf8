//! `lion` with a momentum in bf16, rounded at random.

use super::lion;
use super::state::{Inputs, Noise, STATE_BLOCK, narrow, widen};
use crate::simd::math::LANES;
use crate::{Call, at_level};

pub use super::state::LionStateArgs;

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn lion_bf16(call: &Call<'_>) {
    let a: LionStateArgs = call.args();
    let part = call.share_blocks(a.rows as usize * a.cols as usize, LANES);
    // SAFETY: the contract of `Kernel`; this part writes `part` alone.
    let (x, w, m) =
        unsafe { (Inputs::new(&a, call, part.clone()), call.bufs[3].write(part.clone()), call.bufs[4].write(part)) };
    let x = &x;
    at_level!(call.level, body, (x: &Inputs<'_, LionStateArgs>, w: &mut [f32], m: &mut [u16]));
}

#[inline(always)]
fn body(x: &Inputs<'_, LionStateArgs>, w: &mut [f32], m: &mut [u16]) {
    let Inputs { args: a, ctl, step, g, first } = *x;
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
