//! Working memory that a thread keeps from call to call: 64-byte aligned and grown on demand, so that the steady state
//! allocates nothing.

use bytemuck::{Pod, Zeroable};
use std::cell::Cell;

/// One cache line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u32; 16]);

thread_local! {
    static SCRATCH: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// The memory of this thread, given back when dropped. Whoever takes it meanwhile gets none and allocates.
pub(crate) struct Scratch(Vec<Line>);

impl Scratch {
    pub fn of_thread() -> Self {
        Scratch(SCRATCH.take())
    }

    /// Slices of the given numbers of elements, each from the start of a line on. They hold anything.
    pub fn slices<T: Pod, const N: usize>(&mut self, sizes: [usize; N]) -> [&mut [T]; N] {
        let lines = sizes.map(|size| (size * size_of::<T>()).div_ceil(size_of::<Line>()));
        let needed = lines.iter().sum();
        if self.0.len() < needed {
            self.0.resize(needed, Line::zeroed());
        }
        let mut rest = &mut self.0[..];
        let mut lines = lines.into_iter();
        sizes.map(|size| {
            let (mine, others) = std::mem::take(&mut rest).split_at_mut(lines.next().expect("one of each"));
            rest = others;
            &mut bytemuck::cast_slice_mut(mine)[..size]
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SCRATCH.set(std::mem::take(&mut self.0));
    }
}
