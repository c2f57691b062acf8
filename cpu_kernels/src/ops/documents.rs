//! The documents of a sequence, for attention: position 0 starts one, and its rows see nothing before it. The first may have
//! started before the sequence.

use std::ops::Range;

/// Cuts rows of one sequence where positions start again: (first row of the document, some of the rows).
pub(crate) struct Documents<'a> {
    pub positions: &'a [u32],
    pub rows: Range<usize>,
}

impl Iterator for Documents<'_> {
    type Item = (usize, Range<usize>);

    #[inline(never)]
    fn next(&mut self) -> Option<Self::Item> {
        let first = self.rows.start;
        if first >= self.rows.end {
            return None;
        }
        self.rows.start = self.rows.end.min(end(self.positions, first));
        Some((first.saturating_sub(self.positions[first] as usize), first..self.rows.start))
    }
}

/// The first row behind the document of `row`.
#[inline(never)]
pub(crate) fn end(positions: &[u32], row: usize) -> usize {
    let follows = |r: &usize| positions[*r] as usize == positions[row] as usize + r - row;
    (row + 1..positions.len()).find(|r| !follows(r)).unwrap_or(positions.len())
}
