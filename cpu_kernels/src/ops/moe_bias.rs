//! Balances experts without a loss (Wang et al. 2024, arXiv 2408.15664): bias[e] += rate * sign(mean(load) - load[e]), the mean
//! over the experts of a layer. Layers are `stride` elements apart. A skipped step (ctl[1] is not 0) moves no bias.
//! seen[e] = load[e], for whoever reads it after the next step has begun.

use crate::{Call, args};

args! {
    pub struct MoeBiasArgs { layers: u32, experts: u32, stride: u32, rate: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn moe_bias(call: &Call<'_>) {
    let a: MoeBiasArgs = call.args();
    if call.part != 0 {
        return;
    }
    let [layers, experts, stride] = [a.layers, a.experts, a.stride].map(|n| n as usize);
    // SAFETY: the contract of `Kernel`; only part 0 writes.
    let (load, ctl, bias, seen) = unsafe {
        let whole = |i: usize| call.bufs[i].write::<f32>(0..call.bufs[i].len::<f32>());
        (call.bufs[0].read::<f32>(), call.bufs[1].read::<f32>(), whole(2), whole(3))
    };
    for layer in 0..layers {
        let own = layer * stride..layer * stride + experts;
        let load = &load[own.clone()];
        let mean = load.iter().sum::<f32>() / experts as f32;
        for ((load, bias), seen) in load.iter().zip(&mut bias[own.clone()]).zip(&mut seen[own]) {
            *seen = *load;
            if ctl[1] == 0.0 && mean != *load {
                *bias += if mean > *load { a.rate } else { -a.rate };
            }
        }
    }
}
