//! AdamW (Loshchilov & Hutter 2019). m = beta1 m + (1-beta1) g, v = beta2 v + (1-beta2) g^2,
//! w = w (1 - lr wd) - lr (m / step[1]) / (sqrt(v / step[2]) + eps), with g = gradient * ctl[0], lr = args.lr * step[0], and
//! step[1], step[2] the bias corrections 1 - beta^t. Nothing moves when ctl[1] is set.

use crate::{Call, args};

args! {
    pub struct AdamwArgs { n: u32, lr: f32, beta1: f32, beta2: f32, eps: f32, weight_decay: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn adamw(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
