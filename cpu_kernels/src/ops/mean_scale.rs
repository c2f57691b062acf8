//! The one scale of a ternary matrix (BitNet b1.58, arXiv 2402.17764), from the sums of |w| of its groups, which
//! [`ternary_quantize`](super::ternary_quantize) makes: the mean, at least 1e-5, in each of the `n` places of `scales`. `inverse` is
//! 1 / the number of weights. A mean that is not finite gives NaN.

use crate::{Call, args, matrix::quantize};

args! {
    pub struct MeanScaleArgs { n: u32, inverse: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mean_scale(call: &Call<'_>) {
    let a: MeanScaleArgs = call.args();
    let [sums, scales] = call.bufs else { panic!("mean_scale takes two buffers") };
    let own = call.share(a.n as usize);
    // SAFETY: the sums are not written during the op; each part writes its own scales.
    let (sums, scales) = unsafe { (sums.read::<f32>(), scales.write::<f32>(own)) };
    scales.fill(quantize::mean_scale(&sums[..a.n as usize], a.inverse));
}
