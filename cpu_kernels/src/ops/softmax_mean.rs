//! For the entropy of the softmax, over a part of the tokens: adds to softmax[r][2] the sum of p (logit - top), with the
//! probabilities p = scale * softmax[r][1] * e^(logit - top) and top = softmax[r][0], both from `cross_entropy`.

use crate::simd::math::{exp, sum_of};
use crate::{Call, args, at_level};

args! {
    pub struct SoftmaxMeanArgs { rows: u32, cols: u32, scale: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn softmax_mean(call: &Call<'_>) {
    let a: SoftmaxMeanArgs = call.args();
    let cols = a.cols as usize;
    let part = call.share(a.rows as usize);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (logits, softmax) =
        unsafe { (call.bufs[0].read::<f32>(), call.bufs[1].write::<f32>(3 * part.start..3 * part.end)) };
    let (a, logits) = (&a, &logits[part.start * cols..part.end * cols]);
    at_level!(call.level, body, (a: &SoftmaxMeanArgs, logits: &[f32], softmax: &mut [f32]));
}

#[inline(always)]
fn body(a: &SoftmaxMeanArgs, logits: &[f32], softmax: &mut [f32]) {
    for (logits, [top, factor, mean]) in logits.chunks_exact(a.cols as usize).zip(softmax.as_chunks_mut::<3>().0) {
        // A token that is ruled out has no probability, and its logit no finite difference.
        let term = |x: f32| {
            let below = if x - *top > -200.0 { x - *top } else { -200.0 };
            below * exp(below)
        };
        *mean += a.scale * *factor * sum_of([logits], |[x]| term(x));
    }
}
