//! The router of a mixture of experts (Shazeer et al. 2017): logits[r][e] = x[r] . w[e]. chosen[r] are the k experts with
//! the largest logits + bias, the largest first and of equals the one with the lower number; weights[r] is the softmax of their
//! logits, without the bias: it changes the choice alone (Wang et al. 2024, arXiv 2408.15664). A sum is not a number where a
//! factor is not; it is never larger than another.

use crate::simd::math::{dot, exp};
use crate::{Call, args, at_level};

args! {
    pub struct MoeRouteArgs { rows: u32, dim: u32, experts: u32, k: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn moe_route(call: &Call<'_>) {
    let a: MoeRouteArgs = call.args();
    let part = call.share(a.rows as usize);
    let [dim, experts, active] = [a.dim, a.experts, a.k].map(|n| n as usize);
    let own = |width: usize| part.start * width..part.end * width;
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (x, w, bias, logits, chosen, weights) = unsafe {
        let (logits, chosen) = (call.bufs[3].write::<f32>(own(experts)), call.bufs[4].write::<u32>(own(active)));
        let [x, w, bias] = [0, 1, 2].map(|i| call.bufs[i].read::<f32>());
        (x, w, bias, logits, chosen, call.bufs[5].write::<f32>(own(active)))
    };
    let of = Router { dim, active, w: &w[..experts * dim], bias: &bias[..experts] };
    let (of, x) = (&of, &x[own(dim)]);
    at_level!(call.level, body, (of: &Router<'_>, x: &[f32], logits: &mut [f32], chosen: &mut [u32], weights: &mut [f32]));
}

struct Router<'a> {
    dim: usize,
    active: usize,
    w: &'a [f32],
    bias: &'a [f32],
}

#[inline(always)]
fn body(of: &Router<'_>, x: &[f32], logits: &mut [f32], chosen: &mut [u32], weights: &mut [f32]) {
    let rows = x.chunks_exact(of.dim).zip(logits.chunks_exact_mut(of.bias.len()));
    let places = chosen.chunks_exact_mut(of.active).zip(weights.chunks_exact_mut(of.active));
    for ((x, logits), (chosen, weights)) in rows.zip(places) {
        for (logit, w) in logits.iter_mut().zip(of.w.chunks_exact(of.dim)) {
            *logit = dot(x, w);
        }
        choose(logits, of.bias, chosen);
        let logit = |e: &u32| logits[*e as usize];
        let top = chosen.iter().map(logit).fold(logit(&chosen[0]), |top, l| if l > top { l } else { top });
        let mut total = 0.0;
        for (weight, e) in weights.iter_mut().zip(&*chosen) {
            *weight = exp(logit(e) - top);
            total += *weight;
        }
        weights.iter_mut().for_each(|weight| *weight /= total);
    }
}

#[inline(always)]
fn choose(logits: &[f32], bias: &[f32], chosen: &mut [u32]) {
    for rank in 0..chosen.len() {
        let (before, rest) = chosen.split_at_mut(rank);
        let mut best: Option<(f32, usize)> = None;
        for (e, (logit, bias)) in logits.iter().zip(bias).enumerate() {
            let score = logit + bias;
            if best.is_none_or(|(most, _)| score > most) && !before.contains(&(e as u32)) {
                best = Some((score, e));
            }
        }
        rest[0] = best.expect("no more experts are active than there are").1 as u32;
    }
}
