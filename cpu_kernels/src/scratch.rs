//! Per-thread working memory for packing: 64-byte aligned, grown on demand and kept, so that the steady state allocates
//! nothing.

use bytemuck::{Pod, Zeroable};
use std::cell::RefCell;

/// One cache line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u32; 16]);

thread_local! {
    static SCRATCH: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with three disjoint areas of at least `bytes[i]` bytes each, all line aligned. The content is arbitrary
/// but initialised. Must not be nested.
pub(crate) fn with<R>(bytes: [usize; 3], f: impl FnOnce([&mut [Line]; 3]) -> R) -> R {
    let lines = bytes.map(|b| b.div_ceil(size_of::<Line>()));
    let total = lines.iter().sum();
    SCRATCH.with_borrow_mut(|buf| {
        if buf.len() < total {
            buf.resize(total, Line::zeroed());
        }
        let (a, rest) = buf.split_at_mut(lines[0]);
        let (b, rest) = rest.split_at_mut(lines[1]);
        f([a, b, &mut rest[..lines[2]]])
    })
}
