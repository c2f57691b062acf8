//! `adamw` with moments in 8 bits, rounded at random: one f32 scale for each block of 64 values of a row. The first moment is
//! code * scale, the second (code * scale)^2.

use super::adamw;
use super::state::{Noise, STATE_BLOCK, decode, decode_squares, encode, encode_squares};
use crate::{Call, at_level};

pub use super::state::AdamwStateArgs;

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn adamw_int8(call: &Call<'_>) {
    let a: AdamwStateArgs = call.args();
    let (cols, rows) = (a.cols as usize, call.share(a.rows as usize));
    let blocks = cols.div_ceil(STATE_BLOCK);
    let (part, scales) = (rows.start * cols..rows.end * cols, rows.start * blocks..rows.end * blocks);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (g, ctl, step, w, m, v, m_scales, v_scales) = unsafe {
        let [g, ctl, step] = [0, 1, 2].map(|i| call.bufs[i].read());
        let [m_scales, v_scales] = [5, 7].map(|i| call.bufs[i].write(scales.clone()));
        let [w, m, v] = [3, 4, 6].map(|i| &call.bufs[i]);
        let (w, m, v) = (w.write(part.clone()), m.write(part.clone()), v.write(part.clone()));
        (g, ctl, step, w, m, v, m_scales, v_scales)
    };
    let (a, first, g) = (&a, part.start, &g[part]);
    at_level!(call.level, body,
        (a: &AdamwStateArgs, first: usize, g: &[f32], ctl: &[f32], step: &[f32], w: &mut [f32],
         m: &mut [i8], m_scales: &mut [f32], v: &mut [u8], v_scales: &mut [f32]));
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the buffers of the op")]
fn body(
    a: &AdamwStateArgs,
    first: usize,
    g: &[f32],
    ctl: &[f32],
    step: &[f32],
    w: &mut [f32],
    m: &mut [i8],
    m_scales: &mut [f32],
    v: &mut [u8],
    v_scales: &mut [f32],
) {
    if ctl[1] != 0.0 {
        return;
    }
    let (cols, noise, mut state) = (a.cols as usize, Noise::new(step, a.stream), [[0.0; STATE_BLOCK]; 2]);
    for (block, (m_scale, v_scale)) in m_scales.iter_mut().zip(v_scales).enumerate() {
        let (row, start) = (block / cols.div_ceil(STATE_BLOCK), block % cols.div_ceil(STATE_BLOCK) * STATE_BLOCK);
        let at = row * cols + start..row * cols + cols.min(start + STATE_BLOCK);
        let [mean, square] = state.each_mut().map(|s| &mut s[..at.len()]);
        decode(&m[at.clone()], *m_scale, mean);
        decode_squares(&v[at.clone()], *v_scale, square);
        adamw::body(&a.of_f32(), &g[at.clone()], ctl, step, &mut w[at.clone()], mean, square);
        let i = first + at.start;
        *m_scale = encode(mean, |k| noise.first(i + k), &mut m[at.clone()]);
        *v_scale = encode_squares(square, |k| noise.second(i + k), &mut v[at]);
    }
}
