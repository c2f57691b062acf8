//! Which rows take no further pass through looped layers: those whose logits have an entropy below a threshold, in nats.
//! ends[r] = passes, the number of passes so far, where ends[r] is 0, which means that the row goes on.
//!
//! The entropy is ln s - m / s with the sums s of e^d and m of d e^d, d = logit - top. A row with a NaN goes on.

use crate::simd::math::{exp, max, sum_of};
use crate::{Call, args, at_level};

args! {
    pub struct ExitRowsArgs { rows: u32, vocab: u32, passes: u32, threshold: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn exit_rows(call: &Call<'_>) {
    let a: ExitRowsArgs = call.args();
    let (part, vocab) = (call.share(a.rows as usize), a.vocab as usize);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (logits, ends) = unsafe { (call.bufs[0].read::<f32>(), call.bufs[1].write::<u32>(part.clone())) };
    let (a, logits) = (&a, &logits[part.start * vocab..part.end * vocab]);
    at_level!(call.level, body, (a: &ExitRowsArgs, logits: &[f32], ends: &mut [u32]));
}

#[inline(always)]
fn body(a: &ExitRowsArgs, logits: &[f32], ends: &mut [u32]) {
    for (logits, end) in logits.chunks_exact(a.vocab as usize).zip(ends) {
        let top = max(logits);
        // A token that is ruled out has no probability, and its logit no finite difference.
        let below = |x: f32| if x - top < -200.0 { -200.0 } else { x - top };
        let sum = sum_of([logits], |[x]| exp(below(x)));
        let mean = sum_of([logits], |[x]| below(x) * exp(below(x))) / sum;
        if *end == 0 && sum.ln() - mean < a.threshold {
            *end = a.passes;
        }
    }
}
