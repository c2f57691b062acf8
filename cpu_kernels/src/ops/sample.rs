//! Draws a token for each row of logits, and notes it as seen. A row with a logit that is not finite gives 0xffffffff.
//!
//! params[r] are eight words: slot (one beyond `bias`, such as 0xffffffff, or of a row before: draw nothing), temperature,
//! top_k, top_p, min_p, repetition penalty, seed, counter; floats by their bits. In order: l = logits + bias[slot]; for seen
//! tokens l / penalty where positive, else l * penalty (Keskar et al. 2019); temperature 0 takes the largest, the first of
//! equals; otherwise p = exp((l - max) / temperature), of which those are kept that are at least min_p, among the top_k
//! largest (0: all), and among the fewest largest that hold top_p of what is left (Holtzman et al. 2020). Equals stay or go
//! together. The token is the first whose running sum of kept p exceeds u times their sum, u in [0, 1) a hash of seed and
//! counter.
//!
//! Thresholds are found by bisection over the bits of p, which orders it: no sorting. Sums run in lanes; the running sum is
//! that of whole blocks, then of single tokens.

use crate::matrix::scratch::Scratch;
use crate::simd::math::{BLOCK, exp, max, sum, sum_of};
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
    temperature: f32,
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
        let [slot, temperature, top_k, top_p, min_p, penalty, seed, counter] = words[..] else { unreachable!() };
        let [temperature, top_p, min_p, penalty] = [temperature, top_p, min_p, penalty].map(f32::from_bits);
        let slot = slot as usize;
        (slot < slots).then_some(Params { slot, temperature, top_k, top_p, min_p, penalty, seed, counter })
    }
}

/// Draws from (logits, bias).
#[inline(always)]
fn draw(token: &mut Option<usize>, p: &Params, of: [&[f32]; 2], seen: &[u32]) {
    let mut scratch = Scratch::of_thread();
    let [weights] = scratch.slices([seen.len()]);
    *token = p.draw(of, seen, weights);
}

impl Params {
    #[inline(always)]
    fn draw(&self, [logits, bias]: [&[f32]; 2], seen: &[u32], weights: &mut [f32]) -> Option<usize> {
        let mut finite = true;
        for (((w, l), b), seen) in weights.iter_mut().zip(logits).zip(bias).zip(seen) {
            finite &= l.is_finite();
            let penalty = if *seen != 0 { self.penalty } else { 1.0 };
            let l = l + b;
            *w = if l > 0.0 { l / penalty } else { l * penalty };
        }
        if !finite {
            return None;
        }
        let top = max(weights);
        // A vectoriser stops at a search; this way it is short.
        let block = weights.chunks(BLOCK).position(|w| max(w) == top).unwrap_or(0) * BLOCK;
        let best = block + weights[block..].iter().position(|w| *w == top).unwrap_or(0);
        if self.temperature == 0.0 {
            return Some(best);
        }
        for w in weights.iter_mut() {
            let p = exp((*w - top) / self.temperature);
            *w = if p >= self.min_p { p } else { 0.0 };
        }
        if self.top_k > 0 && (self.top_k as usize) < weights.len() {
            cut(weights, self.top_k as f32, |_| 1.0);
        }
        if self.top_p < 1.0 {
            cut(weights, self.top_p * sum(weights), |p| p);
        }
        let goal = uniform(self.seed, self.counter) * sum(weights);
        pick(weights, goal).or(Some(best))
    }
}

/// Sets to 0 what is below the largest threshold for which the worth of the weights at or above it is `enough`.
#[inline(always)]
fn cut(weights: &mut [f32], enough: f32, worth: impl Fn(f32) -> f32) {
    // Weights lie in 0..=1; the bits of such floats are ordered as they are.
    let (mut low, mut high) = (1u32, 1f32.to_bits());
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        let least = f32::from_bits(middle);
        if sum_of([weights], |[p]| if p >= least { worth(p) } else { 0.0 }) >= enough {
            low = middle
        } else {
            high = middle - 1
        }
    }
    let least = f32::from_bits(low);
    weights.iter_mut().for_each(|w| *w = if *w < least { 0.0 } else { *w });
}

/// The first weight whose running sum exceeds `goal`.
#[inline(always)]
fn pick(weights: &[f32], goal: f32) -> Option<usize> {
    let mut before = 0.0;
    for (i, block) in weights.chunks(BLOCK).enumerate() {
        let behind = before + sum(block);
        if behind > goal {
            let mut sum = before;
            let passes = |w: &f32| {
                sum += w;
                sum > goal
            };
            let last = || block.iter().rposition(|w| *w > 0.0);
            return block.iter().position(passes).or_else(last).map(|at| i * BLOCK + at);
        }
        before = behind;
    }
    None
}

/// A number in [0, 1) for each seed and counter: PCG hashes (Jarzynski & Olano 2020).
fn uniform(seed: u32, counter: u32) -> f32 {
    (hash(seed ^ hash(counter)) >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

fn hash(x: u32) -> u32 {
    let state = x.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> Params {
        Params { slot: 0, temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, penalty: 1.0, seed: 7, counter: 0 }
    }

    fn draw(logits: &[f32], set: impl FnOnce(&mut Params)) -> Vec<usize> {
        let mut p = params();
        set(&mut p);
        let (bias, seen) = (vec![0.0; logits.len()], vec![0; logits.len()]);
        let mut counts = vec![0; logits.len()];
        for counter in 0..4000 {
            let token = Params { counter, ..p }.draw([logits, &bias], &seen, &mut vec![0.0; logits.len()]);
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
        assert!(near(&draw(&logits, |p| p.temperature = 0.0), [1.0, 0.0, 0.0, 0.0]));
        assert!(near(&draw(&logits, |p| p.top_k = 2), [0.625, 0.375, 0.0, 0.0]));
        assert!(near(&draw(&logits, |p| p.top_p = 0.79), [0.625, 0.375, 0.0, 0.0]));
        assert!(near(&draw(&logits, |p| p.top_p = 1e-9), [1.0, 0.0, 0.0, 0.0]));
        assert!(near(&draw(&logits, |p| p.min_p = 0.25), [0.526, 0.316, 0.158, 0.0]));
        assert!(near(&draw(&logits, |p| p.temperature = 0.5), [0.685, 0.247, 0.062, 0.007]));
    }

    #[test]
    fn a_logit_that_is_not_finite_draws_nothing() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for (temperature, at) in [(0.0, 0), (0.0, 39), (1.0, 17)] {
                let mut p = params();
                p.temperature = temperature;
                let mut logits = [1.0; 40];
                assert!(p.draw([&logits, &[0.0; 40]], &[0; 40], &mut [0.0; 40]).is_some());
                logits[at] = wrong;
                assert_eq!(p.draw([&logits, &[0.0; 40]], &[0; 40], &mut [0.0; 40]), None);
            }
        }
    }

    #[test]
    fn penalty_and_bias_change_the_choice() {
        let p =
            Params { slot: 0, temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, penalty: 2.0, seed: 0, counter: 0 };
        assert_eq!(p.draw([&[2.0, 1.5, -1.0], &[0.0; 3]], &[1, 0, 0], &mut [0.0; 3]), Some(1));
        assert_eq!(p.draw([&[2.0, 1.5, -1.0], &[0.0, 0.0, 9.0]], &[0; 3], &mut [0.0; 3]), Some(2));
    }
}
