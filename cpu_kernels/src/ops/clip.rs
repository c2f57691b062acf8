//! Second stage of the global gradient norm, and the verdict on the step.
//!
//! norm = sqrt(sum of partials); ctl[0] = min(clip / (norm + 1e-6), 1), the factor that every optimizer puts on its
//! gradients; ctl[1] = 1 if the step is to be skipped: the norm, the loss, ctl[2], ctl[3] or one of `checks` values behind the
//! partials (those of weights and optimizer state) is not finite, or, after `warmup` steps have been
//! counted in ctl[3], norm > outlier * max(ctl[2], clip), for a norm that clipping would leave alone does no harm;
//! ctl[2] = running mean of the norm (0.9 old + 0.1 new; the first norm starts it), where an outlier counts as just at the
//! limit, so that norms which stay large are outliers for a few steps only. The step's (loss, norm, skipped, 0) go to
//! stats[slot], slot = step[3], a ring of 64. clip = 0 means no clipping, outlier = 0 no limit.

use crate::{Call, args, simd::math};

args! {
    pub struct ClipArgs { partials: u32, checks: u32, warmup: u32, clip: f32, outlier: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn clip(call: &Call<'_>) {
    let a: ClipArgs = call.args();
    if call.part != 0 {
        return;
    }
    // SAFETY: the contract of `Kernel`; only part 0 writes.
    let (partial, loss, step, ctl) = unsafe {
        let (loss, step) = (call.bufs[1].read::<f32>(), call.bufs[2].read::<f32>());
        (call.bufs[0].read::<f32>(), loss, step, call.bufs[3].write::<f32>(0..4))
    };
    let (partial, checks) = partial[..(a.partials + a.checks) as usize].split_at(a.partials as usize);
    let norm = math::sum(partial).sqrt();
    let counted = ctl[3];
    let limited = a.outlier > 0.0 && counted > 0.0 && counted >= a.warmup as f32;
    let limit = if limited { a.outlier * ctl[2].max(a.clip) } else { f32::INFINITY };
    let finite = [norm, loss[0], ctl[2], ctl[3], math::sum(checks)].iter().all(|v| v.is_finite());
    let skip = !finite || norm > limit;
    ctl[0] = if a.clip == 0.0 { 1.0 } else { (a.clip / (norm + 1e-6)).min(1.0) };
    ctl[1] = f32::from(skip);
    if finite {
        ctl[2] = if counted == 0.0 { norm } else { 0.9 * ctl[2] + 0.1 * norm.min(limit) };
        ctl[3] = counted + 1.0;
    }
    let slot = step[3] as usize % 64 * 4;
    // SAFETY: as above.
    let stats = unsafe { call.bufs[4].write::<f32>(slot..slot + 4) };
    stats.copy_from_slice(&[loss[0], norm, f32::from(skip), 0.0]);
}
