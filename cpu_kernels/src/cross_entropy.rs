//! Cross-entropy in nats: losses[row + r] = log(sum(exp(logits[r]))) - logits[r][target]; a target of 0xffffffff counts nothing.
//! Turns the logits into their gradient in place, (softmax - one_hot) * grad_scale, unless grad_scale is 0: then they are kept.
//! Targets are read, and losses written, from element `row`.

use crate::{Call, args};

args! {
    pub struct CrossEntropyArgs { rows: u32, vocab: u32, row: u32, grad_scale: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn cross_entropy(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
