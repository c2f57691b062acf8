//! A single ternary product. The page measures its time, because this module has no clock.

use cpu_kernels::Level;
use cpu_kernels::matrix::ternary_gemv::{Layout, PackedTernary, TernaryGemv};
use wasm_bindgen::prelude::*;

const GROUP: usize = 128;

/// The product of a matrix (outs, dim) and a vector, with the SIMD kernels or the scalar kernel.
#[wasm_bindgen]
pub struct Gemv {
    level: Level,
    weights: PackedTernary,
    xq: Vec<i8>,
    y: Vec<f32>,
}

#[wasm_bindgen]
impl Gemv {
    /// `dim` is rounded up to whole groups of 128.
    #[wasm_bindgen(constructor)]
    pub fn new(simd: bool, outs: usize, dim: usize) -> Gemv {
        let level = if simd { Level::detect() } else { Level::Scalar };
        let dim = dim.max(1).next_multiple_of(GROUP);
        // A mix of -1, 0 and 1; a byte holds four codes.
        let some = [0b1000_0110, 0b0001_1001, 0b0110_0001];
        let codes: Vec<u8> = some.into_iter().cycle().take(outs * dim / 4).collect();
        let scales = vec![0.5; outs * (dim / GROUP)];
        let weights = PackedTernary::new(Layout::of(level)[0], &codes, &scales, outs, dim, GROUP);
        let xq = (0..dim).map(|i| (i % 255) as u8 as i8).collect();
        Gemv { level, weights, xq, y: vec![0.0; outs] }
    }

    /// Computes the product `times` times. Returns the sum of the last result, which is the same for every kernel.
    pub fn run(&mut self, times: usize) -> f64 {
        let product = TernaryGemv { weights: &self.weights, rows: 1, xq: &self.xq, steps: &[1.0] };
        (0..times).for_each(|_| product.run(self.level, &mut self.y, self.weights.outs()));
        self.y.iter().map(|y| f64::from(*y)).sum()
    }
}
