//! What the ops of the residual streams share: the layout of the coefficients and sums of a few scaled vectors.

use crate::simd::math::keep;
use crate::{Level, at_level};
use std::ops::Range;

/// The largest number of streams.
pub(crate) const MAX_STREAMS: usize = 4;

/// Elements that are worked on at once, so that they stay in the first cache.
pub(crate) const CHUNK: usize = 1024;

/// Coefficients of a sub-layer: h_pre[N], h_post[N], H_res[N][N].
pub(crate) struct Coef<'a> {
    streams: usize,
    values: &'a [f32],
}

impl<'a> Coef<'a> {
    pub fn new(streams: usize, values: &'a [f32]) -> Self {
        assert!((1..=MAX_STREAMS).contains(&streams), "{streams} residual streams");
        Coef { streams, values: &values[..streams * (streams + 2)] }
    }

    pub fn pre(&self, i: usize) -> f32 {
        self.values[..self.streams][i]
    }

    pub fn post(&self, i: usize) -> f32 {
        self.values[self.streams..2 * self.streams][i]
    }

    pub fn res(&self, i: usize, j: usize) -> f32 {
        self.values[2 * self.streams..][i * self.streams + j]
    }
}

/// `part` in pieces of at most [`CHUNK`] elements.
pub(crate) fn chunks(part: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    part.clone().step_by(CHUNK).map(move |start| start..part.end.min(start + CHUNK))
}

/// y = beta * y + sum of factor * x over the terms (factor, x), in order.
pub(crate) fn combine(level: Level, beta: f32, y: &mut [f32], terms: &[(f32, &[f32])]) {
    at_level!(level, combine_body, (beta: f32, y: &mut [f32], terms: &[(f32, &[f32])]));
}

#[inline(always)]
fn combine_body(beta: f32, y: &mut [f32], terms: &[(f32, &[f32])]) {
    let Some(((factor, x), rest)) = terms.split_first() else { return };
    for (y, x) in y.iter_mut().zip(*x) {
        *y = keep(beta, *y) + factor * x;
    }
    for (factor, x) in rest {
        for (y, x) in y.iter_mut().zip(*x) {
            *y += factor * x;
        }
    }
}
