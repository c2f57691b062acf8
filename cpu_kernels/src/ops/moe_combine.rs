//! What the experts of a row gave, weighted: y[r] = sum over j, in order, of weights[r][j] * x[place[r * k + j]].

use crate::{Call, args, at_level};

args! {
    pub struct MoeCombineArgs { rows: u32, dim: u32, k: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn moe_combine(call: &Call<'_>) {
    let a: MoeCombineArgs = call.args();
    let (dim, k) = (a.dim as usize, a.k as usize);
    let part = call.share(a.rows as usize);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (x, place, weights, y) = unsafe {
        let y = call.bufs[3].write::<f32>(part.start * dim..part.end * dim);
        (call.bufs[0].read::<f32>(), call.bufs[1].read::<u32>(), call.bufs[2].read::<f32>(), y)
    };
    let own = part.start * k..part.end * k;
    let (place, weights) = (&place[own.clone()], &weights[own]);
    at_level!(call.level, body, (dim: usize, k: usize, x: &[f32], place: &[u32], weights: &[f32], y: &mut [f32]));
}

#[inline(always)]
fn body(dim: usize, k: usize, x: &[f32], place: &[u32], weights: &[f32], y: &mut [f32]) {
    let assigned = place.chunks_exact(k).zip(weights.chunks_exact(k));
    for (y, (place, weights)) in y.chunks_exact_mut(dim).zip(assigned) {
        y.fill(0.0);
        for (place, weight) in place.iter().zip(weights) {
            let x = &x[*place as usize * dim..][..dim];
            y.iter_mut().zip(x).for_each(|(y, x)| *y += weight * x);
        }
    }
}
