//! Rotary position embedding (Su et al. 2021), half-split: rotates the pairs (i, i + head_dim/2) of every head by
//! position * theta^(-2i/head_dim). `table` holds (cos, sin) for each position and i; sign -1 rotates back (the gradient). A
//! position beyond the table is taken as its last one.

use crate::{Call, args, at_level};

args! {
    pub struct RopeArgs { rows: u32, heads: u32, head_dim: u32, sign: f32 }
}

/// The largest head_dim.
const MAX: usize = 256;

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn rope(call: &Call<'_>) {
    let a: RopeArgs = call.args();
    let dim = a.heads as usize * a.head_dim as usize;
    let part = call.share(a.rows as usize);
    call.bufs[3].holds::<f32>(0, &[a.rows, a.heads, a.head_dim]);
    let elements = part.start * dim..part.end * dim;
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (x, positions, table, y) = unsafe {
        let y = call.bufs[3].write(elements.clone());
        (call.bufs[0].read(), call.bufs[1].read(), call.bufs[2].read(), y)
    };
    let (a, x, positions) = (&a, &x[elements], &positions[part]);
    at_level!(call.level, body, (a: &RopeArgs, x: &[f32], positions: &[u32], table: &[f32], y: &mut [f32]));
}

#[inline(always)]
fn body(a: &RopeArgs, x: &[f32], positions: &[u32], table: &[f32], y: &mut [f32]) {
    let head_dim = a.head_dim as usize;
    let (half, dim) = (head_dim / 2, a.heads as usize * head_dim);
    assert!(head_dim <= MAX && head_dim.is_multiple_of(2), "head_dim {head_dim}");
    let last = (table.len() / head_dim).saturating_sub(1);
    let (mut cos, mut sin) = ([0.0; MAX / 2], [0.0; MAX / 2]);
    for ((x, y), position) in x.chunks_exact(dim).zip(y.chunks_exact_mut(dim)).zip(positions) {
        let angles = &table[last.min(*position as usize) * head_dim..][..head_dim];
        for ((cos, sin), angle) in cos.iter_mut().zip(&mut sin).zip(angles.as_chunks::<2>().0) {
            (*cos, *sin) = (angle[0], angle[1] * a.sign);
        }
        for (x, y) in x.chunks_exact(head_dim).zip(y.chunks_exact_mut(head_dim)) {
            let ((x0, x1), (y0, y1)) = (x.split_at(half), y.split_at_mut(half));
            let (inputs, outputs) = (x0.iter().zip(x1), y0.iter_mut().zip(y1));
            for (((x0, x1), (y0, y1)), (cos, sin)) in inputs.zip(outputs).zip(cos.iter().zip(&sin)) {
                *y0 = x0 * cos - x1 * sin;
                *y1 = x1 * cos + x0 * sin;
            }
        }
    }
}
