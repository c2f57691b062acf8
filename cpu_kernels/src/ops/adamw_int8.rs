//! `adamw` with moments in 8 bits, rounded at random: one f32 scale for each block of 64 values of a row. The first moment is
//! code * scale, the second (code * scale)^2.

use super::adamw;
use super::state::{Codes, Inputs, Noise, STATE_BLOCK, decode, decode_squares, encode, encode_squares};
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
    let (x, w, m, v) = unsafe {
        let [m_scales, v_scales] = [5, 7].map(|i| call.bufs[i].write(scales.clone()));
        let (m, v) = (call.bufs[4].write(part.clone()), call.bufs[6].write(part.clone()));
        (Inputs::new(&a, call, part.clone()), call.bufs[3].write(part), (m, m_scales), (v, v_scales))
    };
    let x = &x;
    at_level!(call.level, body, (x: &Inputs<'_, AdamwStateArgs>, w: &mut [f32], m: Codes<'_, i8>, v: Codes<'_, u8>));
}

#[inline(always)]
fn body(x: &Inputs<'_, AdamwStateArgs>, w: &mut [f32], (m, m_scales): Codes<'_, i8>, (v, v_scales): Codes<'_, u8>) {
    let Inputs { args: a, ctl, step, g, first } = *x;
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
        encode(mean, |k| noise.first(i + k), &mut m[at.clone()], m_scale);
        encode_squares(square, |k| noise.second(i + k), &mut v[at], v_scale);
    }
}
