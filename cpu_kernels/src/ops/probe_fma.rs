//! y\[i\]: the sum of eight chains that start at (i + c) % 64, each after 16 * rounds times x = a * x + b.

use crate::simd::isa::Lanes;
use crate::simd::math::LANES;
use crate::{Call, args, at_level};

/// Chains of an element: as many as hide the latency of a multiply-add on a processor with two units for it.
const CHAINS: usize = 8;
/// Most rounds: more would only take time.
const MOST_ROUNDS: u32 = 1 << 15;
/// Multiply-adds of a chain in a round.
const ROUND: usize = 16;

args! {
    pub struct ProbeFmaArgs { n: u32, rounds: u32, a: f32, b: f32 }
}

impl ProbeFmaArgs {
    /// Operations: two for each multiply-add.
    pub fn flops(&self) -> u64 {
        2 * (CHAINS * ROUND) as u64 * u64::from(self.n) * u64::from(self.rounds)
    }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn probe_fma(call: &Call<'_>) {
    let a: ProbeFmaArgs = call.args();
    assert!(a.rounds <= MOST_ROUNDS, "{} rounds", a.rounds);
    let part = call.share_blocks(a.n as usize, LANES);
    // SAFETY: the contract of `Kernel`; this part writes `part` alone.
    let y = unsafe { call.bufs[0].write::<f32>(part.clone()) };
    let (a, first) = (&a, part.start);
    at_level!(call.level, [body::<Plain, 1>, body::<Simd128, 2>, body::<Avx2, 1>, body::<Avx512, 1>, body::<Neon, 2>, body::<Neon, 2>],
        (a: &ProbeFmaArgs, first: usize, y: &mut [f32]));
}

/// Elements from `first` on, in `N` registers at a time.
#[inline(always)]
fn body<L: Lanes, const N: usize>(a: &ProbeFmaArgs, first: usize, y: &mut [f32]) {
    let at_once = N * L::WIDTH;
    for (block, y) in y.chunks_mut(at_once).enumerate() {
        let start: [f32; 64 + CHAINS] = std::array::from_fn(|i| ((first + block * at_once + i) % 64) as f32);
        let load = |at: usize| {
            let floats = &start[at..][..L::WIDTH];
            // SAFETY: the slice has as many floats as a register.
            unsafe { L::load(floats.as_ptr()) }
        };
        let mut x: [[L::F; CHAINS]; N] = std::array::from_fn(|n| std::array::from_fn(|c| load(n * L::WIDTH + c)));
        let (scale, shift) = (L::splat(a.a), L::splat(a.b));
        for _ in 0..a.rounds {
            for _ in 0..ROUND {
                for x in x.as_flattened_mut() {
                    *x = L::mul_add(*x, scale, shift);
                }
            }
        }
        let mut sums = [0.0; 64];
        for (n, x) in x.iter().enumerate() {
            for x in x {
                let mut values = [0.0; 16];
                // SAFETY: a register has at most 16 floats.
                unsafe { L::store(*x, values.as_mut_ptr()) };
                sums[n * L::WIDTH..].iter_mut().zip(&values[..L::WIDTH]).for_each(|(sum, value)| *sum += value);
            }
        }
        y.copy_from_slice(&sums[..y.len()]);
    }
}
