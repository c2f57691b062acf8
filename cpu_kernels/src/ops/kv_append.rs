//! Stores keys or values in a cache, at slots[r] and positions[r] for row r; a slot of 0xffffffff stores nothing.
//!
//! Values are (slots, kv_heads, context, head_dim). Keys are `transposed`, (slots, kv_heads, context / 64, head_dim, 64) with
//! context rounded up: attention reads both in the order in which they lie.

use crate::{Call, args};

args! {
    pub struct KvAppendArgs { rows: u32, kv_heads: u32, head_dim: u32, context: u32, transposed: u32 }
}

/// Keys that lie beside each other.
pub const PANEL: usize = crate::matrix::panels::PANEL;
/// Floats behind the last value of a cache, which vector loads may touch.
pub const PADDING: usize = crate::simd::math::LANES;

impl KvAppendArgs {
    /// Floats of a cache of so many slots.
    pub fn cache_len(&self, slots: usize) -> usize {
        let [heads, head_dim, context] = [self.kv_heads, self.head_dim, self.context].map(|n| n as usize);
        let positions = if self.transposed != 0 { context.next_multiple_of(PANEL) } else { context };
        slots * heads * positions * head_dim + PADDING
    }

    /// Where element 0 of a head lies, and the distance of the others.
    fn place(&self, slot: usize, head: usize, position: usize) -> (usize, usize) {
        let [heads, head_dim, context] = [self.kv_heads, self.head_dim, self.context].map(|n| n as usize);
        let head = slot * heads + head;
        if self.transposed == 0 {
            return ((head * context + position) * head_dim, 1);
        }
        ((head * context.div_ceil(PANEL) + position / PANEL) * head_dim * PANEL + position % PANEL, PANEL)
    }
}

/// # Safety
/// See [`crate::Kernel`]. No two rows have one slot and position.
pub unsafe fn kv_append(call: &Call<'_>) {
    let a: KvAppendArgs = call.args();
    let [heads, head_dim, context] = [a.kv_heads, a.head_dim, a.context].map(|n| n as usize);
    // SAFETY: inputs are not written during the op, by this function's contract.
    let (x, positions, slots) =
        unsafe { (call.bufs[0].read::<f32>(), call.bufs[1].read::<u32>(), call.bufs[2].read::<u32>()) };
    let cache = &call.bufs[3];
    for r in call.share(a.rows as usize).filter(|r| slots[*r] != u32::MAX) {
        let position = positions[r] as usize;
        assert!(position < context, "position {position} of {context}");
        for (h, x) in x[r * heads * head_dim..][..heads * head_dim].chunks_exact(head_dim).enumerate() {
            let (at, stride) = a.place(slots[r] as usize, h, position);
            assert!(at + (head_dim - 1) * stride < cache.len::<f32>(), "kv_append: cache");
            for (d, x) in x.iter().enumerate() {
                // SAFETY: in bounds as just checked; this row's place alone, by this function's contract.
                unsafe { *cache.ptr::<f32>().add(at + d * stride) = *x };
            }
        }
    }
}
