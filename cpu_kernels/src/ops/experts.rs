//! What the ops of a mixture of experts share: which rows are an expert's, where rows are sorted by expert.

use std::ops::Range;

/// The experts that have rows, with these: expert e has rows `starts[e]..starts[e + 1]` of `rows`.
///
/// # Panics
/// When the rows of experts overlap or are beyond the last one: parts of a product rely on it.
pub(crate) fn ranges(starts: &[u32], experts: usize, rows: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let starts = &starts[..experts + 1];
    let last = starts[experts] as usize;
    assert!(starts.is_sorted() && last <= rows, "{experts} experts have rows up to {last} of {rows}");
    let range = |e: usize| (e, starts[e] as usize..starts[e + 1] as usize);
    (0..experts).map(range).filter(|(_, rows)| !rows.is_empty())
}

/// The share of its rows that each expert has, times `scale`: what `starts` counts.
pub(crate) fn shares(starts: &[u32], scale: f32) -> impl Iterator<Item = f32> + Clone {
    let all = starts.last().map_or(0, |last| *last);
    starts.windows(2).map(move |pair| scale * (pair[1].wrapping_sub(pair[0]) as f32 / all.max(1) as f32))
}
