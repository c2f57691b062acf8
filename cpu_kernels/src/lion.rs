//! Lion (Chen et al., arXiv 2302.06675). w = w (1 - lr wd) - lr sign(beta1 m + (1-beta1) g), then m = beta2 m + (1-beta2) g, with
//! g = gradient * ctl[0], lr = args.lr * step[0], sign(0) = 0. Nothing moves when ctl[1] is set.

use crate::{Call, args};

args! {
    pub struct LionArgs { n: u32, lr: f32, beta1: f32, beta2: f32, weight_decay: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn lion(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
