//! Rotary position embedding (Su et al. 2021), half-split, in place: rotates the pairs (i, i + head_dim/2) of `heads` heads by
//! position * theta^(-2i/head_dim). These are heads `first` and on of the `all` in a row. `table` holds (cos, sin) for each position and i; sign -1 rotates back (the gradient). A
//! position beyond the table is taken as its last one.

use crate::{Call, args, at_level};

args! {
    pub struct RopeArgs { rows: u32, heads: u32, head_dim: u32, first: u32, all: u32, sign: f32 }
}

/// The largest head_dim.
const MAX: usize = 256;

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn rope(call: &Call<'_>) {
    let a: RopeArgs = call.args();
    let dim = a.all as usize * a.head_dim as usize;
    let part = call.share(a.rows as usize);
    call.bufs[0].holds::<f32>(0, &[a.rows, a.all, a.head_dim]);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (x, positions, table) = unsafe {
        let x = call.bufs[0].write(part.start * dim..part.end * dim);
        (x, call.bufs[1].read(), call.bufs[2].read())
    };
    let (a, positions) = (&a, &positions[part]);
    at_level!(call.level, body, (a: &RopeArgs, x: &mut [f32], positions: &[u32], table: &[f32]));
}

#[inline(always)]
fn body(a: &RopeArgs, x: &mut [f32], positions: &[u32], table: &[f32]) {
    let head_dim = a.head_dim as usize;
    let (half, first, len) = (head_dim / 2, a.first as usize * head_dim, a.heads as usize * head_dim);
    assert!(head_dim <= MAX && head_dim.is_multiple_of(2), "head_dim {head_dim}");
    let last = (table.len() / head_dim).saturating_sub(1);
    let (mut cos, mut sin) = ([0.0; MAX / 2], [0.0; MAX / 2]);
    for (x, position) in x.chunks_exact_mut(a.all as usize * head_dim).zip(positions) {
        let angles = &table[last.min(*position as usize) * head_dim..][..head_dim];
        for ((cos, sin), angle) in cos.iter_mut().zip(&mut sin).zip(angles.as_chunks::<2>().0) {
            (*cos, *sin) = (angle[0], angle[1] * a.sign);
        }
        for x in x[first..][..len].chunks_exact_mut(head_dim) {
            let (x0, x1) = x.split_at_mut(half);
            for ((x0, x1), (cos, sin)) in x0.iter_mut().zip(x1).zip(cos.iter().zip(&sin)) {
                (*x0, *x1) = (*x0 * cos - *x1 * sin, *x1 * cos + *x0 * sin);
            }
        }
    }
}
