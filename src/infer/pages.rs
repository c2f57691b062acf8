//! Which pages of the caches each sequence has. A page belongs to one sequence at a time; those that are free are taken first,
//! from the lowest on.

use crate::ops::PAGE;

pub(super) struct Pages {
    /// The pages of each slot, in order.
    slots: Vec<Vec<u32>>,
    /// Whether each page of the caches belongs to a slot.
    taken: Vec<bool>,
}

impl Pages {
    /// Those of caches of one page.
    pub fn new(slots: usize) -> Pages {
        Pages { slots: vec![Vec::new(); slots], taken: vec![false] }
    }

    /// Pages of the caches.
    pub fn held(&self) -> usize {
        self.taken.len()
    }

    /// Pages that the caches need in all, so that a slot has so many positions.
    pub fn needed(&self, slot: usize, positions: usize) -> usize {
        let all: usize = self.slots.iter().map(Vec::len).sum();
        all + positions.div_ceil(PAGE).saturating_sub(self.slots[slot].len())
    }

    /// The caches have so many pages now.
    pub fn grow(&mut self, held: usize) {
        self.taken.resize(held, false);
    }

    /// Gives a slot the pages for so many positions, where the caches have them: the first of its new pages by number, and all
    /// of these.
    pub fn take(&mut self, slot: usize, positions: usize) -> (usize, &[u32]) {
        let of_slot = &mut self.slots[slot];
        let first = of_slot.len();
        let free = self.taken.iter_mut().enumerate().filter(|(_, taken)| !**taken);
        for (page, taken) in free.take(positions.div_ceil(PAGE).saturating_sub(first)) {
            *taken = true;
            of_slot.push(page as u32);
        }
        (first, &of_slot[first..])
    }

    /// Takes all pages of a slot from it.
    pub fn release(&mut self, slot: usize) {
        self.slots[slot].drain(..).for_each(|page| self.taken[page as usize] = false);
    }
}
