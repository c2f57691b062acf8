//! Second stage of the global gradient norm, and the verdict on the step.
//!
//! norm = sqrt(sum of partials); ctl[0] = min(clip / (norm + 1e-6), 1), the factor that every optimizer puts on its gradients;
//! ctl[1] = 1 if the step is to be skipped: the norm or the loss is not finite, or norm > outlier * ctl[2] after `warmup` steps
//! have been counted in ctl[3]; ctl[2] = running mean of the norm (0.9 old + 0.1 new), not moved by skipped steps. The step's
//! (loss, norm, skipped, 0) go to stats[slot], slot = step[3], a ring of 64. clip = 0 means no clipping, outlier = 0 no limit.

use crate::{Call, args};

args! {
    pub struct ClipArgs { partials: u32, warmup: u32, clip: f32, outlier: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn clip(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
