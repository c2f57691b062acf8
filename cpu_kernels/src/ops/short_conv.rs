//! Short causal convolution of each column by itself, with SiLU (Gated Delta Networks, Yang, Kautz and Hatamizadeh 2024):
//! y[r][first + c] = silu(sum over j < width of w[j][first + c] * x[r - j][c]), where r - j is the row j positions earlier in
//! the sequence of row r. There is none before position 0.
//!
//! In training, the rows are sequences of `seq` rows, `slots` is not read, and `tail` is not used. With `seq` = 0, row r is at
//! positions[r] of the sequence in slots[r]; `tail` (slots, width - 1, total) holds the last rows of each, that of position p
//! at p % (width - 1). A slot beyond it, such as 0xffffffff, stores nothing and gives 0.

use crate::simd::math::{LANES, sigmoid};
use crate::{Call, args, at_level};

args! {
    pub struct ShortConvArgs { rows: u32, cols: u32, first: u32, total: u32, width: u32, seq: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
///
/// # Panics
/// When the width is below 2.
pub unsafe fn short_conv(call: &Call<'_>) {
    let a: ShortConvArgs = call.args();
    let [rows, cols, first, total, width, seq] = [a.rows, a.cols, a.first, a.total, a.width, a.seq].map(|n| n as usize);
    let kept = width.checked_sub(1).filter(|kept| *kept > 0).expect("a convolution reads two rows or more");
    let mine = call.share_blocks(cols, LANES);
    let held = call.bufs[4].len::<f32>().checked_div(kept * total).unwrap_or(0);
    // SAFETY: the contract of `Kernel`.
    let (x, w, positions, slots) = unsafe {
        (call.bufs[0].read::<f32>(), call.bufs[1].read::<f32>(), call.bufs[2].read::<u32>(), call.bufs[3].read::<u32>())
    };
    assert!(rows <= positions.len() && rows <= slots.len(), "places of {rows} rows");
    let row_of = |r: usize| &x[r * cols + mine.start..r * cols + mine.end];
    let columns = first + mine.start..first + mine.end;
    let at = |start: usize| start + columns.start..start + columns.end;
    let tail_at = |r: usize, j: usize| at((slots[r] as usize * kept + (positions[r] as usize - j) % kept) * total);
    // Whether row `earlier` is j positions before row r of the same sequence.
    let follows = |earlier: usize, r: usize, j: usize| {
        slots[earlier] == slots[r] && positions[r].checked_sub(j as u32) == Some(positions[earlier])
    };
    let has_place = |r: usize| seq > 0 || (slots[r] as usize) < held;
    for (r, position) in positions.iter().enumerate().take(rows) {
        // SAFETY: the contract of `Kernel`; this part writes its columns alone.
        let y = unsafe { call.bufs[5].write::<f32>(at(r * total)) };
        y.fill(0.0);
        if !has_place(r) {
            continue;
        }
        for j in 0..width.min((*position as usize).saturating_add(1)) {
            let x = if seq > 0 {
                if r % seq < j {
                    break;
                }
                row_of(r - j)
            } else if j == 0 || r >= j && follows(r - j, r, j) {
                row_of(r - j)
            } else {
                // SAFETY: the contract of `Kernel`; no part writes these columns but this, which writes none now.
                unsafe { &*call.bufs[4].write::<f32>(tail_at(r, j)) }
            };
            let w = &w[at(j * total)];
            at_level!(call.level, add_tap, (x: &[f32], w: &[f32], y: &mut [f32]));
        }
        at_level!(call.level, silu, (y: &mut [f32]));
    }
    // The last rows of each sequence, once all have been read.
    for r in (0..rows).filter(|r| seq == 0 && has_place(*r)) {
        if r + kept >= rows || !follows(r, r + kept, kept) {
            // SAFETY: the contract of `Kernel`; this part writes its columns alone.
            let tail = unsafe { call.bufs[4].write::<f32>(tail_at(r, 0)) };
            tail.copy_from_slice(row_of(r));
        }
    }
}

#[inline(always)]
pub(super) fn add_tap(x: &[f32], w: &[f32], y: &mut [f32]) {
    for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
        *y += w * x;
    }
}

#[inline(always)]
fn silu(y: &mut [f32]) {
    for y in y {
        *y *= sigmoid(*y);
    }
}
