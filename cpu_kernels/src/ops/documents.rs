//! The documents of a sequence, for attention: position 0 starts one, and its rows see nothing before it.

use std::ops::Range;

/// Cuts rows of one sequence where positions start again: (first row of the document, some of `rows`).
pub(crate) fn documents(positions: &[u32], mut rows: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    std::iter::from_fn(move || {
        let first = rows.start;
        (first < rows.end).then(|| {
            let behind = end(positions, first).min(rows.end);
            rows.start = behind;
            (start(positions, first), first..behind)
        })
    })
}

/// The first row of the document of `row`.
fn start(positions: &[u32], row: usize) -> usize {
    row.checked_sub(positions[row] as usize).expect("a position is at most its row")
}

/// The first row behind the document of `row`.
pub(crate) fn end(positions: &[u32], row: usize) -> usize {
    let start = start(positions, row);
    let follows = |r: &usize| positions[*r] as usize == r - start;
    (row + 1..positions.len()).find(|r| !follows(r)).unwrap_or(positions.len())
}
