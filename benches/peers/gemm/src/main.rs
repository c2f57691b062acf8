//! Compares our f32 matrix products with those of the `gemm` crate for the shapes of training: (m, k) times (k, n), one
//! thread each, in turns. Prints the medians as a Markdown table. Run nothing else at the same time.

use cpu_kernels::Level;
use cpu_kernels::matrix::gemm::{Gemm, Mat};
use std::time::Instant;

const ROUNDS: usize = 31;

/// A product of a training step: its name, which operands are stored transposed, and m, n, k.
type Shape = (&'static str, [bool; 2], [usize; 3]);

/// The tiny preset on 8 x 256 tokens, nano-125m on 512, and the symmetric products of Newton-Schulz.
const SHAPES: [Shape; 12] = [
    ("tiny, dX of a layer", [false, false], [2048, 256, 512]),
    ("tiny, dW of a layer", [true, false], [512, 256, 2048]),
    ("tiny, head", [false, true], [2048, 4096, 256]),
    ("tiny, dX of the head", [false, false], [2048, 256, 4096]),
    ("tiny, dW of the head", [true, false], [4096, 256, 2048]),
    ("tiny, Newton-Schulz X X^T", [false, true], [256, 256, 512]),
    ("tiny, Newton-Schulz A X", [false, false], [256, 512, 256]),
    ("125m, dX of a layer", [false, false], [512, 768, 2048]),
    ("125m, dW of a layer", [true, false], [2048, 768, 512]),
    ("125m, head, a chunk", [false, true], [64, 50_257, 768]),
    ("125m, Newton-Schulz X X^T", [false, true], [768, 768, 2048]),
    ("125m, Newton-Schulz A X", [false, false], [768, 2048, 768]),
];

fn noise(len: usize, seed: u32) -> Vec<f32> {
    let value = |i: usize| (i as u32 ^ seed).wrapping_mul(2_654_435_761) >> 8;
    (0..len).map(|i| value(i) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn seconds(f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// (row stride, column stride) of a (rows, cols) matrix.
fn strides(transposed: bool, rows: usize, cols: usize) -> (usize, usize) {
    if transposed { (1, rows) } else { (cols, 1) }
}

fn theirs([m, n, k]: [usize; 3], a: (&[f32], (usize, usize)), b: (&[f32], (usize, usize)), c: &mut [f32]) {
    assert!(a.0.len() == m * k && b.0.len() == k * n && c.len() == m * n);
    let stride = |s: usize| s as isize;
    let ((a, (a_rs, a_cs)), (b, (b_rs, b_cs))) = (a, b);
    // SAFETY: the lengths were checked, and the strides are those of whole matrices.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            stride(n),
            false,
            a.as_ptr(),
            stride(a_cs),
            stride(a_rs),
            b.as_ptr(),
            stride(b_cs),
            stride(b_rs),
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Median seconds of both sides, and the median ratio of the rounds.
fn compare(level: Level, [at, bt]: [bool; 2], sizes: [usize; 3]) -> (f64, f64, f64) {
    let [m, n, k] = sizes;
    let (a, b, mut ours, mut other) = (noise(m * k, 1), noise(k * n, 2), vec![0.0; m * n], vec![0.0; m * n]);
    let (sa, sb) = (strides(at, m, k), strides(bt, k, n));
    let mat = |data, (row_stride, col_stride)| Mat::Dense { data, row_stride, col_stride };
    let product = Gemm::new((m, n, k), mat(&a, sa), mat(&b, sb));
    let mut times = [vec![], vec![]];
    for round in 0..=ROUNDS {
        // The sides take turns at going first. The first round warms up.
        for side in [round % 2, 1 - round % 2] {
            let time = match side {
                0 => seconds(|| product.run(level, &mut ours, n)),
                _ => seconds(|| theirs(sizes, (&a, sa), (&b, sb), &mut other)),
            };
            if round > 0 {
                times[side].push(time);
            }
        }
    }
    let far = ours.iter().zip(&other).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert!(far < 1e-4 * k as f32, "the products differ by {far}");
    let ratio = median(times[1].iter().zip(&times[0]).map(|(t, o)| t / o).collect());
    let [ours, other] = times.map(median);
    (ours, other, ratio)
}

fn main() {
    let level = Level::detect();
    println!("f32 products on one thread, GFLOP/s, medians of {ROUNDS} interleaved rounds; ours at {level}.\n");
    println!("| product | m x n x k | ours | gemm crate | ratio |\n|---|---|---:|---:|---:|");
    for (name, transposed, [m, n, k]) in SHAPES {
        let (ours, other, ratio) = compare(level, transposed, [m, n, k]);
        let rate = |seconds: f64| 2e-9 * (m * n * k) as f64 / seconds;
        println!("| {name} | {m} x {n} x {k} | {:.0} | {:.0} | {ratio:.2}x |", rate(ours), rate(other));
    }
}
