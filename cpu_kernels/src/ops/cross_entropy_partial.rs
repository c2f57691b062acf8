//! First stage of the cross-entropy, over a part of the tokens: partial[r][block + b] = (top, sum of e^(logit - top)) for block b of
//! 4096 logits of row r, with top the largest of them, but at least -1e30.
//! Column 0 of the logits is token `first`. Where the target of a row is one of these tokens, chosen[r] is its logit. Targets are
//! read from element `row`.

use crate::simd::math::{BLOCK, LANES, exp, max, sum};
use crate::{Call, args, at_level};

args! {
    pub struct CrossEntropyPartialArgs { rows: u32, cols: u32, first: u32, row: u32, block: u32, blocks: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn cross_entropy_partial(call: &Call<'_>) {
    let a: CrossEntropyPartialArgs = call.args();
    let [rows, cols, row, block, blocks] = [a.rows, a.cols, a.row, a.block, a.blocks].map(|n| n as usize);
    assert!(block + cols.div_ceil(BLOCK) <= blocks, "blocks of {cols} columns from {block} on, of {blocks}");
    let part = call.share(rows);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (targets, logits, partial, chosen) = unsafe {
        let partial = call.bufs[2].write::<f32>(part.start * blocks * 2..part.end * blocks * 2);
        (call.bufs[0].read::<u32>(), call.bufs[1].read::<f32>(), partial, call.bufs[3].write::<f32>(part.clone()))
    };
    let (targets, logits) = (&targets[row + part.start..row + part.end], &logits[part.start * cols..part.end * cols]);
    let a = &a;
    at_level!(call.level, body,
        (a: &CrossEntropyPartialArgs, targets: &[u32], logits: &[f32], partial: &mut [f32], chosen: &mut [f32]));
}

#[inline(always)]
fn body(a: &CrossEntropyPartialArgs, targets: &[u32], logits: &[f32], partial: &mut [f32], chosen: &mut [f32]) {
    let partial = partial.chunks_exact_mut(2 * a.blocks as usize);
    for (((target, logits), partial), chosen) in
        targets.iter().zip(logits.chunks_exact(a.cols as usize)).zip(partial).zip(chosen)
    {
        let blocks = partial[2 * a.block as usize..].chunks_exact_mut(2);
        for (x, partial) in logits.chunks(BLOCK).zip(blocks) {
            let top = max(x).max(-1e30);
            partial.copy_from_slice(&[top, sum_exp(x, top)]);
        }
        if let Some(logit) = target.checked_sub(a.first).and_then(|token| logits.get(token as usize)) {
            *chosen = *logit;
        }
    }
}

/// The sum of e^(x - top), in the order of [`sum`], without a place for the exponentials.
#[inline(always)]
fn sum_exp(x: &[f32], top: f32) -> f32 {
    const CHUNK: usize = 32 * LANES;
    let mut lanes = [0.0; LANES];
    for x in x.chunks(CHUNK) {
        // e^-inf is 0, which the lanes may add.
        let mut e = [f32::NEG_INFINITY; CHUNK];
        e[..x.len()].copy_from_slice(x);
        for e in &mut e {
            *e = exp(*e - top);
        }
        for e in e.as_chunks::<LANES>().0 {
            for (lane, e) in lanes.iter_mut().zip(e) {
                *lane += e;
            }
        }
    }
    sum(&lanes)
}
