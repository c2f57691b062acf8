//! Gradient of `moe_dispatch`: dx[r] = beta * dx[r] + sum over j, in order, of dy[place[r * k + j]].

use crate::simd::math::keep;
use crate::{Call, args};

args! {
    pub struct MoeDispatchBackwardArgs { rows: u32, dim: u32, k: u32, beta: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn moe_dispatch_backward(call: &Call<'_>) {
    let a: MoeDispatchBackwardArgs = call.args();
    let (dim, k) = (a.dim as usize, a.k as usize);
    let part = call.share(a.rows as usize);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (dy, place, dx) = unsafe {
        let dx = call.bufs[2].write::<f32>(part.start * dim..part.end * dim);
        (call.bufs[0].read::<f32>(), call.bufs[1].read::<u32>(), dx)
    };
    for (r, dx) in part.zip(dx.chunks_exact_mut(dim)) {
        dx.iter_mut().for_each(|d| *d = keep(a.beta, *d));
        for place in &place[r * k..(r + 1) * k] {
            let dy = &dy[*place as usize * dim..][..dim];
            dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx += dy);
        }
    }
}
