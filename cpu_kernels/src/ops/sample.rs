//! Draws a token for each row of logits, and notes it as seen. A row with a logit that is not finite gives 0xffffffff.
//!
//! params[r] are eight words: slot (one beyond `bias`, such as 0xffffffff, or of a row before: draw nothing), 1 / temperature,
//! top_k, top_p, min_p, repetition penalty, seed, counter; floats by their bits. In order: l = logits + bias[slot]; for seen
//! tokens l / penalty where positive, else l * penalty (Keskar et al. 2019); 1 / temperature = 0 takes the largest, the first
//! of equals; otherwise p = exp((l - max) / temperature), of which those are kept that are at least min_p and 2^-28, among the
//! top_k largest (0: all), and among the fewest largest that hold top_p of what is left (Holtzman et al. 2020). Equals stay or
//! go together. The token is the first whose running sum of kept p exceeds u times their sum, u in [0, 1) a hash of seed and
//! counter.
//!
//! Sums are those of the integers floor(p * 2^28): they are the same in any order, and so is the token on any device. The bits
//! of p order it, so a threshold is found by counting p by their upper bits; only those of one bin are then sorted.

use crate::matrix::scratch::Scratch;
use crate::simd::math::{BLOCK, exp, max};
use crate::{Call, args, at_level};

args! {
    pub struct SampleArgs { rows: u32, vocab: u32 }
}

/// What a row gives that draws nothing, or has a logit that is not finite.
pub const NO_TOKEN: u32 = u32::MAX;

/// Words of one row of parameters.
pub const SAMPLE_PARAMS: usize = 8;

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn sample(call: &Call<'_>) {
    let a: SampleArgs = call.args();
    let vocab = a.vocab as usize;
    // SAFETY: inputs are not written during the op, by this function's contract.
    let (logits, bias, params) =
        unsafe { (call.bufs[0].read::<f32>(), call.bufs[1].read::<f32>(), call.bufs[2].read::<u32>()) };
    let slots = bias.len().min(call.bufs[3].len::<u32>()) / vocab;
    let row = |r: usize| &params[r * SAMPLE_PARAMS..][..SAMPLE_PARAMS];
    let taken = |p: &Params, r: usize| (0..r).any(|before| row(before)[0] as usize == p.slot);
    for r in call.share(a.rows as usize) {
        let params = Params::new(row(r), slots).filter(|p| !taken(p, r));
        let token = params.and_then(|p| {
            let row = p.slot * vocab;
            // SAFETY: the contract of `Kernel`; no other row has this slot.
            let seen = unsafe { call.bufs[3].write::<u32>(row..row + vocab) };
            let mut token = None;
            let (to, p, of) = (&mut token, &p, [&logits[r * vocab..][..vocab], &bias[row..][..vocab]]);
            let known = &*seen;
            at_level!(call.level, draw, (to: &mut Option<usize>, p: &Params, of: [&[f32]; 2], known: &[u32]));
            token.inspect(|token| seen[*token] = 1)
        });
        // SAFETY: this row's place alone.
        unsafe { call.bufs[4].write::<u32>(r..r + 1)[0] = token.map_or(NO_TOKEN, |token| token as u32) };
    }
}

struct Params {
    slot: usize,
    sharpness: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    penalty: f32,
    seed: u32,
    counter: u32,
}

impl Params {
    /// Nothing where the slot is beyond `slots`.
    fn new(words: &[u32], slots: usize) -> Option<Params> {
        let [slot, sharpness, top_k, top_p, min_p, penalty, seed, counter] = words[..] else { unreachable!() };
        let [sharpness, top_p, min_p, penalty] = [sharpness, top_p, min_p, penalty].map(f32::from_bits);
        let slot = slot as usize;
        (slot < slots).then_some(Params { slot, sharpness, top_k, top_p, min_p, penalty, seed, counter })
    }
}

/// Draws from (logits, bias).
#[inline(always)]
fn draw(token: &mut Option<usize>, p: &Params, of: [&[f32]; 2], seen: &[u32]) {
    let mut scratch = Scratch::of_thread();
    let [weights, bin] = scratch.slices([seen.len(); 2]);
    *token = p.draw(of, seen, [weights, bin]);
}

impl Params {
    #[inline(always)]
    fn draw(&self, [logits, bias]: [&[f32]; 2], seen: &[u32], [weights, bin]: [&mut [f32]; 2]) -> Option<usize> {
        let mut finite = true;
        for (((w, l), b), seen) in weights.iter_mut().zip(logits).zip(bias).zip(seen) {
            finite &= l.is_finite();
            let penalty = if *seen != 0 { self.penalty } else { 1.0 };
            let l = l + b;
            let l = if l > 0.0 { l / penalty } else { l * penalty };
            *w = l.clamp(-3e38, 3e38);
        }
        if !finite {
            return None;
        }
        let top = max(weights);
        // A vectoriser stops at a search; this way it is short.
        let block = weights.chunks(BLOCK).position(|w| max(w) == top).unwrap_or(0) * BLOCK;
        let best = block + weights[block..].iter().position(|w| *w == top).unwrap_or(0);
        if self.sharpness == 0.0 {
            return Some(best);
        }
        let least = self.min_p.max(LEAST);
        for w in weights.iter_mut() {
            let p = exp((*w - top) * self.sharpness);
            *w = if p >= least { p } else { 0.0 };
        }
        if self.top_k > 0 && (self.top_k as usize) < weights.len() {
            cut(weights, bin, |_| u64::from(self.top_k), |_| 1);
        }
        if self.top_p < 1.0 {
            let part = (self.top_p * (1 << 24) as f32) as u32;
            cut(weights, bin, |sum| portion(sum, part).max(1), integer);
        }
        pick(weights, portion(mass(weights), uniform(self.seed, self.counter))).or(Some(best))
    }
}

/// The least weight that counts: 2^-28.
const LEAST: f32 = 1.0 / (1 << 28) as f32;
/// Bins of weights: by their upper bits, those of the exponent and five more.
const BINS: usize = 1024;

/// The bin of a weight of at most 1. That of 0 is beyond those of weights that count.
#[inline(always)]
fn bin_of(weight: f32) -> usize {
    (weight.to_bits().wrapping_sub(LEAST.to_bits()) >> 18) as usize % BINS
}

/// A weight as a multiple of 2^-28.
#[inline(always)]
fn integer(weight: f32) -> u64 {
    // SAFETY: weights lie in 0..=1.
    let integer = unsafe { (weight * (1 << 28) as f32).to_int_unchecked::<i32>() };
    integer as u32 as u64
}

/// The sum of the weights' integers.
#[inline(always)]
fn mass(weights: &[f32]) -> u64 {
    weights.iter().map(|w| integer(*w)).sum()
}

/// floor(sum * part / 2^24)
fn portion(sum: u64, part: u32) -> u64 {
    ((u128::from(sum) * u128::from(part)) >> 24) as u64
}

/// Sets to 0 what is below the largest threshold for which the worth of the weights at or above it is enough, given the worth of
/// all. Without one, all stay. `bin` holds as many weights.
#[inline(always)]
fn cut(weights: &mut [f32], bin: &mut [f32], enough: impl Fn(u64) -> u64, worth: impl Fn(f32) -> u64) {
    // Several of each, so that an addition need not wait for the one before.
    let mut bins = [[0u64; BINS]; 4];
    let (chunks, tail) = weights.as_chunks::<4>();
    for chunk in chunks {
        (0..4).for_each(|i| bins[i][bin_of(chunk[i])] += worth(chunk[i]));
    }
    tail.iter().for_each(|w| bins[0][bin_of(*w)] += worth(*w));
    let mut bins: [u64; BINS] = std::array::from_fn(|i| bins.iter().map(|bins| bins[i]).sum());
    bins[bin_of(0.0)] = 0;
    let mut rest = enough(bins.iter().sum());
    let Some(at) = (0..BINS).rev().find(|i| match rest.checked_sub(bins[*i]) {
        None | Some(0) => true,
        Some(less) => {
            rest = less;
            false
        }
    }) else {
        return;
    };
    let mut n = 0;
    let [first, end] = [at, at + 1].map(|at| f32::from_bits(LEAST.to_bits() + ((at as u32) << 18)));
    for chunk in weights.chunks(64) {
        // Few chunks have one, which a vectoriser sees faster.
        if chunk.iter().filter(|w| **w >= first && **w < end).count() > 0 {
            for w in chunk {
                bin[n] = *w;
                n += usize::from(*w >= first && *w < end);
            }
        }
    }
    let bin = &mut bin[..n];
    bin.sort_unstable_by(|a, b| b.total_cmp(a));
    let last = bin.iter().find(|w| {
        let worth = worth(**w);
        let found = worth >= rest;
        rest -= worth.min(rest);
        found
    });
    let least = last.copied().unwrap_or(LEAST);
    weights.iter_mut().for_each(|w| *w = if *w < least { 0.0 } else { *w });
}

/// The first weight at which the running sum exceeds `goal`.
#[inline(always)]
fn pick(weights: &[f32], goal: u64) -> Option<usize> {
    let mut before = 0;
    for (i, block) in weights.chunks(BLOCK).enumerate() {
        let behind = before + mass(block);
        if behind > goal {
            let passes = |w: &f32| {
                before += integer(*w);
                before > goal
            };
            return block.iter().position(passes).map(|at| i * BLOCK + at);
        }
        before = behind;
    }
    None
}

/// A number below 2^24 for each seed and counter.
fn uniform(seed: u32, counter: u32) -> u32 {
    hash(seed ^ hash(counter)) >> 8
}

/// A PCG hash (Jarzynski & Olano 2020).
#[inline(always)]
pub(super) fn hash(x: u32) -> u32 {
    let state = x.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> Params {
        Params { slot: 0, sharpness: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, penalty: 1.0, seed: 7, counter: 0 }
    }

    fn draw(logits: &[f32], set: impl FnOnce(&mut Params)) -> Vec<usize> {
        let mut p = params();
        set(&mut p);
        let (bias, seen) = (vec![0.0; logits.len()], vec![0; logits.len()]);
        let mut counts = vec![0; logits.len()];
        for counter in 0..4000 {
            let [weights, bin] = &mut [vec![0.0; logits.len()], vec![0.0; logits.len()]];
            let token = Params { counter, ..p }.draw([logits, &bias], &seen, [weights, bin]);
            counts[token.unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn frequencies_follow_the_distribution() {
        let logits: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let near = |have: &[usize], want: [f64; 4]| {
            have.iter().zip(want).all(|(have, want)| (*have as f64 / 4000.0 - want).abs() < 0.03)
        };
        assert!(near(&draw(&logits, |_| ()), [0.5, 0.3, 0.15, 0.05]));
        assert!(near(&draw(&logits, |p| p.sharpness = 0.0), [1.0, 0.0, 0.0, 0.0]));
        assert!(near(&draw(&logits, |p| p.top_k = 2), [0.625, 0.375, 0.0, 0.0]));
        assert!(near(&draw(&logits, |p| p.top_p = 0.79), [0.625, 0.375, 0.0, 0.0]));
        assert!(near(&draw(&logits, |p| p.top_p = 1e-9), [1.0, 0.0, 0.0, 0.0]));
        assert!(near(&draw(&logits, |p| p.min_p = 0.25), [0.526, 0.316, 0.158, 0.0]));
        assert!(near(&draw(&logits, |p| p.sharpness = 2.0), [0.685, 0.247, 0.062, 0.007]));
    }

    /// The cuts and the choice by definition, on sorted tokens.
    fn defined(p: &Params, weights: &[f32]) -> Option<usize> {
        let mut kept: Vec<f32> = weights.to_vec();
        let mut keep = |enough: &dyn Fn(u64) -> u64, worth: &dyn Fn(f32) -> u64| {
            let enough = enough(kept.iter().map(|w| worth(*w)).sum());
            let mut sorted: Vec<f32> = kept.iter().copied().filter(|w| *w > 0.0).collect();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let reaches = |least: &&f32| sorted.iter().filter(|w| w >= least).map(|w| worth(*w)).sum::<u64>() >= enough;
            if let Some(least) = sorted.iter().find(reaches) {
                kept.iter_mut().for_each(|w| *w = if *w < *least { 0.0 } else { *w });
            }
        };
        if p.top_k > 0 {
            keep(&|_| u64::from(p.top_k), &|w| u64::from(w > 0.0));
        }
        keep(&|sum| portion(sum, (p.top_p * (1 << 24) as f32) as u32).max(1), &integer);
        let goal = portion(mass(&kept), uniform(p.seed, p.counter));
        (0..kept.len()).find(|i| mass(&kept[..=*i]) > goal)
    }

    #[test]
    fn cuts_are_those_of_the_definition() {
        let noise = |i: u32| (hash(i) >> 8) as f32 / (1 << 24) as f32;
        for trial in 0..400 {
            let n = 1 + hash(trial) as usize % 90;
            let spread = [0.0, 0.01, 1.0, 8.0, 40.0][trial as usize % 5];
            let logits: Vec<f32> =
                (0..n as u32).map(|i| (noise(trial << 8 | i) * 4.0 * spread).round() / 4.0).collect();
            let (top_k, top_p) = (hash(trial + 1) % 12, [0.0, 0.3, 0.9, 0.999][hash(trial + 2) as usize % 4]);
            let p = Params { top_k, top_p, counter: trial, ..params() };
            let [weights, bin] = &mut [vec![0.0; n], vec![0.0; n]];
            let token = p.draw([&logits, &vec![0.0; n]], &vec![0; n], [weights, bin]);
            let top = max(&logits);
            let weights: Vec<f32> =
                logits.iter().map(|l| exp(l - top)).map(|p| if p < LEAST { 0.0 } else { p }).collect();
            assert_eq!(token, defined(&p, &weights), "trial {trial}");
        }
    }

    #[test]
    fn a_logit_that_is_not_finite_draws_nothing() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for (sharpness, at) in [(0.0, 0), (0.0, 39), (1.0, 17)] {
                let mut p = params();
                p.sharpness = sharpness;
                let mut logits = [1.0; 40];
                assert!(p.draw([&logits, &[0.0; 40]], &[0; 40], [&mut [0.0; 40], &mut [0.0; 40]]).is_some());
                logits[at] = wrong;
                assert_eq!(p.draw([&logits, &[0.0; 40]], &[0; 40], [&mut [0.0; 40], &mut [0.0; 40]]), None);
            }
        }
    }

    #[test]
    fn penalty_and_bias_change_the_choice() {
        let p = Params { sharpness: 0.0, penalty: 2.0, ..params() };
        assert_eq!(p.draw([&[2.0, 1.5, -1.0], &[0.0; 3]], &[1, 0, 0], [&mut [0.0; 3], &mut [0.0; 3]]), Some(1));
        assert_eq!(p.draw([&[2.0, 1.5, -1.0], &[0.0, 0.0, 9.0]], &[0; 3], [&mut [0.0; 3], &mut [0.0; 3]]), Some(2));
    }
}
