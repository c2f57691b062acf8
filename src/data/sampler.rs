//! Chooses the windows that a training step reads. The sampler has no state: the start of sample number `c` is a pure
//! function of (seed, c), so a run resumes from its sample counter alone.
//!
//! ```text
//! epoch e = c / windows,  index i = c % windows
//! start   = offset(e) + seq * permute(e, i)
//! ```
//!
//! `offset(e)` is uniform in `[0, seq)`, so that windows start at different positions in each epoch. `permute(e, _)` is a
//! keyed Feistel network with cycle walking, a permutation without a table. An epoch has as many windows as fit after the
//! largest offset, at most one fewer than would fit without an offset.

use super::Tokens;
use crate::error::{Error, Result};
use crate::rng::{Rng, mix};

/// Feistel rounds. Four give a pseudorandom permutation of a large domain (Luby & Rackoff 1988); small domains need more.
const ROUNDS: usize = 8;

/// Epoch-wise shuffled windows of `seq` inputs and their targets (`seq + 1` tokens), without replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampler {
    seq: usize,
    seed: u64,
    offsets: u64, // number of possible offsets, in 1..=seq
    windows: u64, // windows in an epoch
}

impl Sampler {
    /// A sampler over `tokens` tokens.
    ///
    /// # Errors
    /// When `seq` is 0 or a window of `seq + 1` tokens does not fit.
    pub fn new(tokens: usize, seq: usize, seed: u64) -> Result<Self> {
        if seq == 0 {
            return Err(Error::usage("the sequence length is 0; at least 1 token is needed"));
        }
        if tokens < seq + 1 {
            return Err(Error::usage(format!(
                "the data set has {tokens} tokens, but a window of sequence length {seq} needs {}: use more data or a \
                 shorter --seq-len",
                seq + 1
            )));
        }
        let offsets = seq.min(tokens - seq);
        let windows = (tokens - offsets) / seq; // the tokens after the largest offset (offsets - 1), without the last target
        Ok(Self { seq, seed, offsets: offsets as u64, windows: windows as u64 })
    }

    /// Windows (samples) in an epoch.
    pub fn windows(&self) -> u64 {
        self.windows
    }

    /// Start positions of the samples `cursor..cursor + batch`. `cursor` counts samples since the start of training, across
    /// epochs; after the last possible one it starts again.
    pub fn starts(&self, cursor: u64, batch: usize) -> Vec<usize> {
        (0..batch as u64).map(|i| cursor.wrapping_add(i)).map(|sample| self.start(sample)).collect()
    }

    fn start(&self, sample: u64) -> usize {
        let mut rng = Rng::stream(self.seed, sample / self.windows);
        let offset = rng.below(self.offsets) as usize;
        let window = permute(sample % self.windows, self.windows, rng.next_u64());
        offset + window as usize * self.seq
    }
}

/// The image of `index` under a permutation of `0..n` chosen by `key`.
fn permute(index: u64, n: u64, key: u64) -> u64 {
    let half = (64 - (n - 1).leading_zeros()).div_ceil(2).max(1); // bits of half a block: the domain is 4^half >= n
    let mask = (1u64 << half) - 1;
    let mut x = index;
    loop {
        let (mut left, mut right) = (x >> half, x & mask);
        for round in 0..ROUNDS as u64 {
            (left, right) = (right, left ^ (mix(key ^ mix(right << 8 | round)) & mask));
        }
        x = left << half | right;
        if x < n {
            return x;
        }
    }
}

/// Start positions `i * seq` of the evaluation windows, which do not overlap; at most `limit` of them.
pub fn eval_windows(tokens: usize, seq: usize, limit: usize) -> Vec<usize> {
    let count = tokens.saturating_sub(1).checked_div(seq).unwrap_or(0).min(limit);
    (0..count).map(|i| i * seq).collect()
}

/// The windows at `starts` as (inputs, targets), each (starts.len(), seq). Targets are the inputs shifted by one token.
///
/// # Errors
/// As [`Tokens::read`].
///
/// # Panics
/// When a window exceeds `tokens`.
pub fn batch(tokens: &Tokens, starts: &[usize], seq: usize) -> Result<(Vec<u32>, Vec<u32>)> {
    let (mut inputs, mut targets) = (Vec::with_capacity(starts.len() * seq), Vec::with_capacity(starts.len() * seq));
    for &start in starts {
        let window = tokens.read(start..start + seq + 1)?;
        inputs.extend_from_slice(&window[..seq]);
        targets.extend_from_slice(&window[1..]);
    }
    Ok((inputs, targets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn epoch_starts(sampler: &Sampler, epoch: u64) -> Vec<usize> {
        sampler.starts(epoch * sampler.windows(), sampler.windows() as usize)
    }

    #[test]
    fn every_window_once_an_epoch() {
        for (tokens, seq) in [(9, 8), (10, 8), (16, 8), (17, 8), (1000, 7), (4099, 64), (20, 1), (2, 1)] {
            let sampler = Sampler::new(tokens, seq, 5).unwrap();
            assert!(sampler.windows() as usize + 1 >= (tokens - 1) / seq, "{tokens} {seq}");
            for epoch in 0..5 {
                let starts = epoch_starts(&sampler, epoch);
                let distinct: BTreeSet<usize> = starts.iter().copied().collect();
                let offset = *distinct.first().unwrap();
                assert_eq!(distinct.len() as u64, sampler.windows(), "{tokens} {seq}");
                let expected: BTreeSet<usize> = (0..starts.len()).map(|i| offset + i * seq).collect();
                assert_eq!(distinct, expected);
                assert!(offset < seq && distinct.last().unwrap() + seq < tokens, "{tokens} {seq}");
            }
        }
    }

    #[test]
    fn resuming_equals_running_on() {
        let sampler = Sampler::new(500, 16, 9).unwrap();
        let through = sampler.starts(0, 120); // spans several epochs
        let resumed: Vec<usize> =
            (0..120).step_by(8).flat_map(|c| Sampler::new(500, 16, 9).unwrap().starts(c, 8)).collect();
        assert_eq!(through, resumed);
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let (a, b) = (Sampler::new(5000, 16, 1).unwrap(), Sampler::new(5000, 16, 2).unwrap());
        assert_ne!(epoch_starts(&a, 0), epoch_starts(&b, 0));
        assert_ne!(epoch_starts(&a, 0), epoch_starts(&a, 1));
        let offsets: BTreeSet<usize> = (0..40).map(|e| epoch_starts(&a, e)[0] % 16).collect();
        assert!(offsets.len() > 8, "{offsets:?}");
    }

    #[test]
    fn windows_come_in_no_order() {
        let sampler = Sampler::new(8 * 1000 + 8, 8, 3).unwrap();
        for epoch in 0..3 {
            let starts = epoch_starts(&sampler, epoch);
            let next = starts.windows(2).filter(|w| w[0] + 8 == w[1]).count();
            let rising = starts.windows(2).filter(|w| w[0] < w[1]).count();
            assert!(next < 10 && (400..600).contains(&rising), "epoch {epoch}: {next} follow, {rising} rise");
        }
    }

    #[test]
    fn permutation_has_few_fixed_points_and_no_order() {
        let n = 1000;
        let image: Vec<u64> = (0..n).map(|i| permute(i, n, 77)).collect();
        assert_eq!(image.iter().collect::<BTreeSet<_>>().len(), n as usize);
        assert!(image.iter().enumerate().filter(|&(i, &x)| i as u64 == x).count() < 8);
        let rising = image.windows(2).filter(|w| w[0] < w[1]).count();
        assert!((400..600).contains(&rising), "{rising}");
    }

    #[test]
    fn too_little_data_names_both_numbers() {
        let message = Sampler::new(64, 64, 0).unwrap_err().to_string();
        assert!(message.contains("64 tokens") && message.contains("65"), "{message}");
        assert!(Sampler::new(10, 0, 0).is_err());
    }

    #[test]
    fn eval_windows_do_not_overlap() {
        assert_eq!(eval_windows(10, 3, 99), [0, 3, 6]);
        assert_eq!(eval_windows(9, 3, 99), [0, 3]);
        assert_eq!(eval_windows(10, 3, 2), [0, 3]);
        assert!(
            eval_windows(0, 3, 9).is_empty() && eval_windows(3, 3, 9).is_empty() && eval_windows(9, 0, 9).is_empty()
        );
    }

    #[test]
    fn targets_are_inputs_one_later() {
        let tokens: Vec<u32> = (0..10).collect();
        let batch = batch(&tokens.into(), &[0, 6], 3).unwrap();
        assert_eq!(batch, (vec![0, 1, 2, 6, 7, 8], vec![1, 2, 3, 7, 8, 9]));
    }
}
