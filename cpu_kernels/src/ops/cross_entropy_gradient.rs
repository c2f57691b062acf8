//! Last stage of the cross-entropy, over a part of the tokens: turns the logits into their gradient in place,
//! (softmax - one_hot) * grad_scale, with softmax[r] = (top, grad_scale / sum of e^(logit - top), mean) from `cross_entropy`; where
//! the second is 0 it is 0. If `entropy` is not 0, the loss is less by so many times the entropy of the softmax: its share is then
//! multiplied by 1 + entropy * (logit - top - mean), with the mean from `softmax_mean`.
//! Column 0 of the logits is token `first`. Targets are read from element `row`.

use crate::simd::math::exp;
use crate::{Call, args, at_level};

args! {
    pub struct CrossEntropyGradientArgs { rows: u32, cols: u32, first: u32, row: u32, grad_scale: f32, entropy: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn cross_entropy_gradient(call: &Call<'_>) {
    let a: CrossEntropyGradientArgs = call.args();
    let (cols, row) = (a.cols as usize, a.row as usize);
    let part = call.share(a.rows as usize);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (targets, softmax, logits) = unsafe {
        let logits = call.bufs[2].write::<f32>(part.start * cols..part.end * cols);
        (call.bufs[0].read::<u32>(), call.bufs[1].read::<f32>(), logits)
    };
    let (targets, softmax) = (&targets[row + part.start..row + part.end], &softmax[3 * part.start..3 * part.end]);
    let a = &a;
    at_level!(call.level, body, (a: &CrossEntropyGradientArgs, targets: &[u32], softmax: &[f32], logits: &mut [f32]));
}

#[inline(always)]
fn body(a: &CrossEntropyGradientArgs, targets: &[u32], softmax: &[f32], logits: &mut [f32]) {
    let rows = targets.iter().zip(softmax.as_chunks::<3>().0);
    for ((target, &[top, factor, mean]), logits) in rows.zip(logits.chunks_exact_mut(a.cols as usize)) {
        if factor == 0.0 {
            logits.fill(0.0);
        } else if a.entropy == 0.0 {
            for x in logits.iter_mut() {
                *x = exp(*x - top) * factor;
            }
        } else {
            for x in logits.iter_mut() {
                let below = if *x - top > -200.0 { *x - top } else { -200.0 };
                *x = exp(below) * factor * (1.0 + a.entropy * (below - mean));
            }
        }
        if let Some(x) = target.checked_sub(a.first).and_then(|token| logits.get_mut(token as usize)) {
            *x -= a.grad_scale;
        }
    }
}
