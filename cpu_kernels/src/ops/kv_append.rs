//! Stores keys or values in the pages of sequences: row r is at positions[r] of the sequence in slots[r], whose pages are in
//! that row of the table `pages` (slots, slot_pages), [`PAGE`] positions each. A slot or a position beyond the table and a page
//! beyond the cache, such as 0xffffffff, store nothing.
//!
//! Values are (pages, kv_heads, 64, head_dim). Keys are `transposed`, (pages, kv_heads, head_dim, 64): attention reads both in
//! the order in which they lie.

use crate::{Call, args};

args! {
    pub struct KvAppendArgs { rows: u32, kv_heads: u32, head_dim: u32, slot_pages: u32, transposed: u32 }
}

/// Positions of a page.
pub const PAGE: usize = crate::matrix::panels::PANEL;
/// Floats behind the last page of a cache, which vector loads may touch.
pub const PADDING: usize = crate::simd::math::LANES;

impl KvAppendArgs {
    /// Floats of a cache of so many pages.
    pub fn cache_len(&self, pages: usize) -> usize {
        pages.saturating_mul(page_len(self.kv_heads, self.head_dim)).saturating_add(PADDING)
    }
}

/// Floats of a page.
fn page_len(kv_heads: u32, head_dim: u32) -> usize {
    PAGE.saturating_mul(kv_heads as usize).saturating_mul(head_dim as usize)
}

/// The pages of sequences, and how many there are in a cache.
pub(crate) struct Pages<'a> {
    table: &'a [u32],
    slot_pages: usize,
    held: usize,
}

impl<'a> Pages<'a> {
    /// Those of caches of at least `len` floats.
    pub fn new(table: &'a [u32], slot_pages: u32, heads: (u32, u32), len: usize) -> Self {
        let held = len.saturating_sub(PADDING).checked_div(page_len(heads.0, heads.1)).unwrap_or(0);
        Pages { table, slot_pages: slot_pages as usize, held }
    }

    /// The pages of a sequence up to that of a position, as far as the table goes.
    fn listed(&self, slot: u32, position: u32) -> Option<&'a [u32]> {
        self.table.chunks_exact(self.slot_pages.max(1)).nth(slot as usize)?.get(..=position as usize / PAGE)
    }

    fn holds(&self, page: u32) -> bool {
        (page as usize) < self.held
    }

    /// The pages of a sequence up to that of a position; `None` if one of them is not there.
    pub fn up_to(&self, slot: u32, position: u32) -> Option<&'a [u32]> {
        self.listed(slot, position).filter(|pages| pages.iter().all(|page| self.holds(*page)))
    }

    /// The page of a position, if it is there.
    fn of(&self, slot: u32, position: u32) -> Option<usize> {
        self.listed(slot, position)?.last().filter(|page| self.holds(**page)).map(|page| *page as usize)
    }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn kv_append(call: &Call<'_>) {
    let a: KvAppendArgs = call.args();
    let [heads, head_dim] = [a.kv_heads, a.head_dim].map(|n| n as usize);
    // SAFETY: the contract of `Kernel`.
    let (x, [positions, slots, table]) =
        unsafe { (call.bufs[0].read::<f32>(), [1, 2, 3].map(|i| call.bufs[i].read::<u32>())) };
    let pages = Pages::new(table, a.slot_pages, (a.kv_heads, a.head_dim), call.bufs[4].len::<f32>());
    let cache = call.bufs[4].array::<f32>(0, &[]);
    // Rows may share a place, so a part has some elements of all rows.
    let mine = call.share(heads * head_dim);
    for r in 0..a.rows as usize {
        let Some(page) = pages.of(slots[r], positions[r]) else { continue };
        let place = positions[r] as usize % PAGE;
        let x = &x[r * heads * head_dim..][..heads * head_dim];
        let mut i = mine.start;
        while i < mine.end {
            let (h, d) = (i / head_dim, i % head_dim);
            // Where element 0 of this head lies, and the distance of the others.
            let head = (page * heads + h) * head_dim * PAGE;
            let (at, stride) = if a.transposed == 0 { (head + place * head_dim, 1) } else { (head + place, PAGE) };
            let x = &x[i..mine.end.min((h + 1) * head_dim)];
            for (d, x) in (d..).zip(x) {
                // SAFETY: the page lies in the cache; these elements of a row are this part's alone.
                unsafe { *cache.add(at + d * stride) = *x };
            }
            i += x.len();
        }
    }
}
