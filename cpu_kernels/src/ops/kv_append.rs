//! Stores keys or values in a cache, at slots[r] and positions[r] for row r; a slot or a position beyond the
//! cache, such as a slot of 0xffffffff, stores nothing.
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
        slots.saturating_mul(self.slot_len()).saturating_add(PADDING)
    }

    /// Slots of a cache of so many floats.
    pub(crate) fn slots(&self, len: usize) -> usize {
        len.saturating_sub(PADDING).checked_div(self.slot_len()).unwrap_or(0)
    }

    fn slot_len(&self) -> usize {
        let [heads, head_dim, context] = [self.kv_heads, self.head_dim, self.context].map(|n| n as usize);
        let positions = if self.transposed != 0 { context.next_multiple_of(PANEL) } else { context };
        heads.saturating_mul(positions).saturating_mul(head_dim)
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
/// See [`crate::Kernel`].
pub unsafe fn kv_append(call: &Call<'_>) {
    let a: KvAppendArgs = call.args();
    let [heads, head_dim, context] = [a.kv_heads, a.head_dim, a.context].map(|n| n as usize);
    // SAFETY: the contract of `Kernel`.
    let (x, positions, slots) =
        unsafe { (call.bufs[0].read::<f32>(), call.bufs[1].read::<u32>(), call.bufs[2].read::<u32>()) };
    let (held, cache) = (a.slots(call.bufs[3].len::<f32>()), call.bufs[3].array::<f32>(0, &[]));
    // Rows may share a place, so a part has some elements of all rows.
    let mine = call.share(heads * head_dim);
    for r in 0..a.rows as usize {
        let (slot, position) = (slots[r] as usize, positions[r] as usize);
        if slot >= held || position >= context {
            continue;
        }
        let x = &x[r * heads * head_dim..][..heads * head_dim];
        let mut i = mine.start;
        while i < mine.end {
            let (h, d) = (i / head_dim, i % head_dim);
            let (at, stride) = a.place(slot, h, position);
            let x = &x[i..mine.end.min((h + 1) * head_dim)];
            for (d, x) in (d..).zip(x) {
                // SAFETY: the slot and the position lie in the cache; these elements of a row are this part's alone.
                unsafe { *cache.add(at + d * stride) = *x };
            }
            i += x.len();
        }
    }
}
