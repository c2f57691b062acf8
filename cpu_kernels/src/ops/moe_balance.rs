//! The loss that balances experts (Fedus et al. 2021, arXiv 2101.03961): value = experts * sum over e of f[e] * P[e], where f[e] is
//! the share of all assignments that expert e has, which `starts` counts, and P[e] the mean over rows of softmax(logits[r])[e]. It
//! is 1 where both are uniform.

use super::experts::shares;
use crate::simd::math::exp;
use crate::{Call, args, at_level};

args! {
    pub struct MoeBalanceArgs { rows: u32, experts: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn moe_balance(call: &Call<'_>) {
    let a: MoeBalanceArgs = call.args();
    if call.part != 0 {
        return;
    }
    let (rows, experts) = (a.rows as usize, a.experts as usize);
    // SAFETY: the contract of `Kernel`; only part 0 writes.
    let (logits, starts, value) =
        unsafe { (call.bufs[0].read::<f32>(), call.bufs[1].read::<u32>(), call.bufs[2].write::<f32>(0..1)) };
    let (logits, starts, value) = (&logits[..rows * experts], &starts[..experts + 1], &mut value[0]);
    at_level!(call.level, body, (rows: usize, logits: &[f32], starts: &[u32], value: &mut f32));
}

#[inline(always)]
fn body(rows: usize, logits: &[f32], starts: &[u32], value: &mut f32) {
    let experts = starts.len() - 1;
    // A sum for each 64 rows keeps rounding small.
    let blocks = logits
        .chunks(64 * experts)
        .map(|block| block.chunks_exact(experts).map(|row| mean(row, shares(starts, experts as f32))).sum::<f32>());
    *value = blocks.sum::<f32>() / rows as f32;
}

/// The mean of `values` under softmax(logits).
#[inline(always)]
pub(super) fn mean(logits: &[f32], values: impl Iterator<Item = f32>) -> f32 {
    let top = top(logits);
    let (mut sum, mut total) = (0.0, 0.0);
    for (logit, value) in logits.iter().zip(values) {
        let p = exp(logit - top);
        sum += p * value;
        total += p;
    }
    sum / total
}

#[inline(always)]
pub(super) fn top(logits: &[f32]) -> f32 {
    logits.iter().fold(logits[0], |top, l| if *l > top { *l } else { top })
}
