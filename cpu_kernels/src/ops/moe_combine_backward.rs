//! Gradient of `moe_combine`: for each assignment a of row r = a / k, dx[place[a]] = weights[a] * dy[r] and
//! dweights[a] = x[place[a]] . dy[r]. `place` has each place once.

use crate::simd::math::dot;
use crate::{Call, args, at_level};

args! {
    pub struct MoeCombineBackwardArgs { n: u32, dim: u32, k: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn moe_combine_backward(call: &Call<'_>) {
    let a: MoeCombineBackwardArgs = call.args();
    let [n, dim, k] = [a.n, a.dim, a.k].map(|n| n as usize);
    let mine = call.share(n);
    // SAFETY: the contract of `Kernel`; this part writes its places and its assignments alone.
    let (x, place, weights, dy, dx, dweights) = unsafe {
        let dx = call.bufs[4].write::<f32>(mine.start * dim..mine.end * dim);
        let [x, weights, dy] = [0, 2, 3].map(|i| call.bufs[i].read::<f32>());
        (x, call.bufs[1].read::<u32>(), weights, dy, dx, call.bufs[5].write::<f32>(mine.clone()))
    };
    let (place, weights) = (&place[..n], &weights[..n]);
    for (a, place) in place.iter().enumerate().filter(|(_, place)| mine.contains(&(**place as usize))) {
        let to = (*place as usize - mine.start) * dim;
        let (dx, dy, weight) = (&mut dx[to..to + dim], &dy[a / k * dim..][..dim], weights[a]);
        dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx = weight * dy);
    }
    for (a, dweight) in mine.clone().zip(dweights) {
        let (x, dy) = (&x[place[a] as usize * dim..][..dim], &dy[a / k * dim..][..dim]);
        *dweight = at_level!(call.level, dot, (x: &[f32], dy: &[f32]) -> f32);
    }
}
