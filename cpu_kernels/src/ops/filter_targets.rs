//! Of each sequence of `seq` rows, keeps the targets of the `keep` rows with the largest losses, of equal ones the first;
//! kept[r] = 0xffffffff, which is no token, elsewhere.

use super::cross_entropy::IGNORED;
use crate::{Call, args, at_level};
use std::ops::Range;

args! {
    pub struct FilterTargetsArgs { rows: u32, seq: u32, keep: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn filter_targets(call: &Call<'_>) {
    let a: FilterTargetsArgs = call.args();
    let part = call.share(a.rows as usize);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (losses, targets, kept) = unsafe {
        (call.bufs[0].read::<f32>(), call.bufs[1].read::<u32>(), call.bufs[2].write::<u32>(part.start..part.end))
    };
    let (a, losses) = (&a, &losses[..a.rows as usize]);
    at_level!(call.level, body,
        (a: &FilterTargetsArgs, part: Range<usize>, losses: &[f32], targets: &[u32], kept: &mut [u32]));
}

#[inline(always)]
fn body(a: &FilterTargetsArgs, part: Range<usize>, losses: &[f32], targets: &[u32], kept: &mut [u32]) {
    let seq = a.seq as usize;
    for (r, kept) in part.zip(kept) {
        let (start, own) = (r / seq * seq, losses[r]);
        let (before, behind) = losses[start..losses.len().min(start + seq)].split_at(r - start);
        let harder =
            before.iter().filter(|loss| **loss >= own).count() + behind.iter().filter(|loss| **loss > own).count();
        *kept = if harder < a.keep as usize { targets[r] } else { IGNORED };
    }
}
