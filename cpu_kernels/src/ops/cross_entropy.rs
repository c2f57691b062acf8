//! Cross-entropy in nats: losses[row + r] = log(sum(exp(logits[r]))) - logits[r][target]; a target
//! that is no token, such as 0xffffffff, counts nothing.
//! Turns the logits into their gradient in place, (softmax - one_hot) * grad_scale, unless grad_scale is 0: then they are kept.
//! Targets are read, and losses written, from element `row`.

use crate::simd::math::{LANES, exp, max, sum};
use crate::{Call, args, at_level};

args! {
    pub struct CrossEntropyArgs { rows: u32, vocab: u32, row: u32, grad_scale: f32 }
}

/// The target of a row that counts nothing.
pub const IGNORED: u32 = u32::MAX;

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn cross_entropy(call: &Call<'_>) {
    let a: CrossEntropyArgs = call.args();
    let (vocab, row) = (a.vocab as usize, a.row as usize);
    let part = call.share(a.rows as usize);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (targets, logits, losses) = unsafe {
        let logits = call.bufs[1].write(part.start * vocab..part.end * vocab);
        (call.bufs[0].read(), logits, call.bufs[2].write(row + part.start..row + part.end))
    };
    let (targets, grad_scale) = (&targets[row + part.start..row + part.end], a.grad_scale);
    at_level!(call.level, body,
        (vocab: usize, grad_scale: f32, targets: &[u32], logits: &mut [f32], losses: &mut [f32]));
}

#[inline(always)]
fn body(vocab: usize, grad_scale: f32, targets: &[u32], logits: &mut [f32], losses: &mut [f32]) {
    for ((logits, loss), target) in logits.chunks_exact_mut(vocab).zip(losses).zip(targets) {
        let target = *target as usize;
        if target >= vocab {
            *loss = 0.0;
            if grad_scale != 0.0 {
                logits.fill(0.0);
            }
            continue;
        }
        let (top, chosen) = (max(logits), logits[target]);
        let total = if grad_scale == 0.0 {
            sum_exp(logits, top)
        } else {
            for x in logits.iter_mut() {
                *x = exp(*x - top);
            }
            sum(logits)
        };
        *loss = top + total.ln() - chosen;
        if grad_scale != 0.0 {
            let factor = grad_scale / total;
            for x in logits.iter_mut() {
                *x *= factor;
            }
            logits[target] -= grad_scale;
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
