//! Gradients of `short_conv` over sequences of `seq` rows, with all columns: with z the sums before SiLU and dz = dy * silu'(z),
//! dx[r][c] = sum over j of w[j][c] * dz[r + j][c] and dw[j][c] += sum over r of dz[r][c] * x[r - j][c], rows in order.

use super::short_conv::add_tap;
use crate::matrix::scratch::Scratch;
use crate::simd::math::{LANES, sigmoid};
use crate::{Call, args, at_level};

args! {
    pub struct ShortConvBackwardArgs { rows: u32, cols: u32, width: u32, seq: u32 }
}

/// Columns that are worked on at once.
const COLUMNS: usize = 4 * LANES;

/// # Safety
/// See [`crate::Kernel`].
///
/// # Panics
/// When the rows are no sequences of `seq` rows.
pub unsafe fn short_conv_backward(call: &Call<'_>) {
    let a: ShortConvBackwardArgs = call.args();
    let [rows, cols, width, seq] = [a.rows, a.cols, a.width, a.seq].map(|n| n as usize);
    assert!(seq > 0 && rows.is_multiple_of(seq), "{rows} rows in sequences of {seq}");
    let mine = call.share_blocks(cols, LANES);
    // SAFETY: the contract of `Kernel`.
    let ([x, w, dy], positions) =
        unsafe { ([0, 1, 3].map(|i| call.bufs[i].read::<f32>()), call.bufs[2].read::<u32>()) };
    let mut scratch = Scratch::of_thread();
    let [dz] = scratch.slices([seq * COLUMNS]);
    for start in mine.clone().step_by(COLUMNS) {
        let columns = start..mine.end.min(start + COLUMNS);
        let at = |row: usize| row * cols + columns.start..row * cols + columns.end;
        let place = |t: usize| t * columns.len()..(t + 1) * columns.len();
        for first in (0..rows).step_by(seq) {
            // Whether row t of the sequence reads the one j rows earlier.
            let reads = |t: usize, j: usize| j <= t && positions[first + t] as usize >= j;
            for t in 0..seq {
                let dz = &mut dz[place(t)];
                dz.fill(0.0);
                for j in (0..width).take_while(|j| reads(t, *j)) {
                    let (x, w) = (&x[at(first + t - j)], &w[at(j)]);
                    at_level!(call.level, add_tap, (x: &[f32], w: &[f32], dz: &mut [f32]));
                }
                let dy = &dy[at(first + t)];
                at_level!(call.level, through_silu, (dy: &[f32], dz: &mut [f32]));
            }
            for t in 0..seq {
                // SAFETY: the contract of `Kernel`; this part writes its columns alone.
                let dx = unsafe { call.bufs[4].write::<f32>(at(first + t)) };
                dx.fill(0.0);
                for j in (0..width.min(seq - t)).filter(|j| reads(t + j, *j)) {
                    let (dz, w) = (&dz[place(t + j)], &w[at(j)]);
                    at_level!(call.level, add_tap, (dz: &[f32], w: &[f32], dx: &mut [f32]));
                }
            }
            for j in 0..width {
                // SAFETY: as above.
                let dw = unsafe { call.bufs[5].write::<f32>(at(j)) };
                for t in (j..seq).filter(|t| reads(*t, j)) {
                    let (dz, x) = (&dz[place(t)], &x[at(first + t - j)]);
                    at_level!(call.level, add_tap, (dz: &[f32], x: &[f32], dw: &mut [f32]));
                }
            }
        }
    }
}

/// dz, which holds z, becomes dy * silu'(z).
#[inline(always)]
fn through_silu(dy: &[f32], dz: &mut [f32]) {
    for (z, dy) in dz.iter_mut().zip(dy) {
        let s = sigmoid(*z);
        *z = dy * (s + *z * s * (1.0 - s));
    }
}
