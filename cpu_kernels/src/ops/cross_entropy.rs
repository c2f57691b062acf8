//! Cross-entropy in nats, from what `cross_entropy_partial` found: losses[row + r] = log(sum(exp(logits[r]))) - chosen[r]; a target
//! that is no token, such as 0xffffffff, counts nothing.
//! softmax[r] = (top, grad_scale / sum of e^(logit - top), 0), from which `cross_entropy_gradient` has the softmax; the second is 0
//! where the row counts nothing, and the third is for `softmax_mean`. Targets are read, and losses written, from element `row`.

use crate::simd::math::exp;
use crate::{Call, args, at_level};

args! {
    pub struct CrossEntropyArgs { rows: u32, vocab: u32, blocks: u32, row: u32, grad_scale: f32 }
}

/// The target of a row that counts nothing.
pub const IGNORED: u32 = u32::MAX;

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn cross_entropy(call: &Call<'_>) {
    let a: CrossEntropyArgs = call.args();
    let (row, blocks) = (a.row as usize, a.blocks as usize);
    let part = call.share(a.rows as usize);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (targets, partial, chosen, losses, softmax) = unsafe {
        let losses = call.bufs[3].write::<f32>(row + part.start..row + part.end);
        let softmax = call.bufs[4].write::<f32>(3 * part.start..3 * part.end);
        (call.bufs[0].read::<u32>(), call.bufs[1].read::<f32>(), call.bufs[2].read::<f32>(), losses, softmax)
    };
    let (targets, chosen) = (&targets[row + part.start..row + part.end], &chosen[part.clone()]);
    let (a, partial) = (&a, &partial[2 * blocks * part.start..2 * blocks * part.end]);
    at_level!(call.level, body,
        (a: &CrossEntropyArgs, targets: &[u32], partial: &[f32], chosen: &[f32], losses: &mut [f32], softmax: &mut [f32]));
}

#[inline(always)]
fn body(
    a: &CrossEntropyArgs,
    targets: &[u32],
    partial: &[f32],
    chosen: &[f32],
    losses: &mut [f32],
    softmax: &mut [f32],
) {
    let rows = targets.iter().zip(partial.chunks_exact(2 * a.blocks as usize)).zip(chosen);
    for (((target, partial), chosen), (loss, softmax)) in rows.zip(losses.iter_mut().zip(softmax.chunks_exact_mut(3))) {
        let blocks = || partial.as_chunks::<2>().0;
        let top = blocks().iter().fold(-1e30, |most: f32, [top, _]| if *top > most { *top } else { most });
        let total: f32 = blocks().iter().map(|[block, total]| total * exp(block - top)).sum();
        let counts = *target < a.vocab;
        *loss = if counts { top + total.ln() - chosen } else { 0.0 };
        softmax.copy_from_slice(&[top, if counts { a.grad_scale / total } else { 0.0 }, 0.0]);
    }
}
