//! `adamw` with moments in bf16, rounded at random.

use super::adamw;
use super::state::{Inputs, Noise, STATE_BLOCK, narrow, widen};
use crate::simd::math::LANES;
use crate::{Call, at_level};

pub use super::state::AdamwStateArgs;

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn adamw_bf16(call: &Call<'_>) {
    let a: AdamwStateArgs = call.args();
    let part = call.share_blocks(a.rows as usize * a.cols as usize, LANES);
    // SAFETY: the contract of `Kernel`; this part writes `part` alone.
    let (x, w, m, v) = unsafe {
        let [m, v] = [4, 5].map(|i| call.bufs[i].write(part.clone()));
        (Inputs::new(&a, call, part.clone()), call.bufs[3].write(part), m, v)
    };
    let x = &x;
    at_level!(call.level, body, (x: &Inputs<'_, AdamwStateArgs>, w: &mut [f32], m: &mut [u16], v: &mut [u16]));
}

#[inline(always)]
fn body(x: &Inputs<'_, AdamwStateArgs>, w: &mut [f32], m: &mut [u16], v: &mut [u16]) {
    let Inputs { args: a, ctl, step, g, first } = *x;
    if ctl[1] != 0.0 {
        return;
    }
    let (noise, mut state) = (Noise::new(step, a.stream), [[0.0; STATE_BLOCK]; 2]);
    let [m, v] = [m, v].map(|t| t.chunks_mut(STATE_BLOCK));
    for (i, (((g, w), m), v)) in g.chunks(STATE_BLOCK).zip(w.chunks_mut(STATE_BLOCK)).zip(m).zip(v).enumerate() {
        let (at, [mean, square]) = (first + i * STATE_BLOCK, state.each_mut().map(|s| &mut s[..g.len()]));
        widen(m, mean);
        widen(v, square);
        adamw::body(&a.of_f32(), g, ctl, step, w, mean, square);
        narrow(mean, |i| noise.first(at + i), m);
        narrow(square, |i| noise.second(at + i), v);
    }
}
