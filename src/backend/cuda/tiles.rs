//! How matrix products are divided among the blocks of native kernels.

use cpu_kernels::ops::matmul::MatmulArgs;
use cpu_kernels::ops::matmul_add::MatmulAddArgs;
use cpu_kernels::ops::ternary_matmul_backward_input::TernaryMatmulBackwardInputArgs;
use cpu_kernels::ops::ternary_matmul_backward_weight::TernaryMatmulBackwardWeightArgs;
use cpu_kernels::{ArgWords, Args};

/// Side of the square tile of the result that a block computes, as in `shaders/cuda/product.cuh`.
const SIDE: u32 = 128;
/// Blocks that run at once: one on each core of an H100.
const AT_ONCE: u64 = 132;
/// Most parts of k.
const MOST_PARTS: u32 = 32;
/// Elements of k that a part takes at least.
const LEAST_PART: u32 = 128;
/// The work of storing a tile, adding it up and starting a block, in elements of k.
const BESIDE: u64 = 96;

/// A batch of matrix products (m, k) x (k, n).
pub(super) struct Tiles {
    m: u32,
    n: u32,
    k: u32,
    batch: u32,
    /// Whether tiles below the diagonal are those above it, mirrored.
    symmetric: bool,
}

impl Tiles {
    pub fn matmul(words: &ArgWords) -> Self {
        let a = MatmulArgs::from_words(words);
        Tiles { m: a.m, n: a.n, k: a.k, batch: a.batch, symmetric: a.symmetric != 0 }
    }

    pub fn matmul_add(words: &ArgWords) -> Self {
        let a = MatmulAddArgs::from_words(words);
        Tiles { m: a.m, n: a.n, k: a.k, batch: a.batch, symmetric: a.symmetric != 0 }
    }

    pub fn backward_input(words: &ArgWords) -> Self {
        let a = TernaryMatmulBackwardInputArgs::from_words(words);
        Tiles { m: a.rows, n: a.dim, k: a.outs, batch: 1, symmetric: false }
    }

    pub fn backward_weight(words: &ArgWords) -> Self {
        let a = TernaryMatmulBackwardWeightArgs::from_words(words);
        Tiles { m: a.outs, n: a.dim, k: a.rows, batch: 1, symmetric: false }
    }

    /// Blocks: in z, one for each part of k of each matrix.
    pub fn grid(&self) -> [u32; 3] {
        let [rows, cols] = self.sides();
        [cols, rows, self.batch * self.parts()]
    }

    /// Blocks that add up parts: as many as compute them. None where a tile has one part.
    pub fn sums(&self) -> [u32; 3] {
        if self.parts() > 1 { self.grid() } else { [0; 3] }
    }

    /// Words of the results of all parts.
    pub fn scratch(&self) -> usize {
        self.sums().iter().fold((SIDE * SIDE) as usize, |words, n| words.saturating_mul(*n as usize))
    }

    fn sides(&self) -> [u32; 2] {
        [self.m, self.n].map(|n| n.div_ceil(SIDE))
    }

    /// Parts of k, so many that the last blocks end soonest.
    fn parts(&self) -> u32 {
        let [rows, cols] = self.sides().map(u64::from);
        let tiles = if self.symmetric { rows * (rows + 1) / 2 } else { rows * cols } * u64::from(self.batch);
        let time = |parts: &u32| {
            let part = u64::from(self.k.div_ceil(*parts)) + if *parts > 1 { BESIDE } else { 0 };
            (tiles * u64::from(*parts)).div_ceil(AT_ONCE) * part
        };
        (1..=(self.k / LEAST_PART).clamp(1, MOST_PARTS)).min_by_key(time).expect("there is one part at least")
    }
}
