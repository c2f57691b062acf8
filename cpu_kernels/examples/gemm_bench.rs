//! Speed of the matrix products on one thread, per level: `cargo run --release --example gemm_bench [filter]`.
//! Prints the median over many calls; products in GFLOP/s or GOPS (2 m n k), quantisers in G values/s.

use cpu_kernels::{
    Level,
    matrix::bench,
    matrix::gemm::{Gemm, Mat},
    matrix::quantize,
    matrix::ternary_gemm::TernaryGemm,
};

fn noise(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 7 & 0xffff) as f32 / 32768.0 - 1.0).collect()
}

/// One line: a name and a rate for each level.
fn report(name: &str, ops: f64, mut f: impl FnMut(Level)) {
    if std::env::args().nth(1).is_some_and(|filter| !name.contains(&filter)) {
        return;
    }
    print!("{name:44}");
    for level in Level::available().into_iter().rev() {
        print!(" {level:>8} {:7.1}", ops / bench::time(|| f(level)).0 / 1e9);
    }
    println!();
}

fn gemm_shapes() {
    let shapes = [
        ("nn forward", 2048, 256, 256),
        ("nn forward", 2048, 512, 256),
        ("nn forward", 2048, 256, 512),
        ("nt forward", 2048, 256, 256),
        ("nt head chunk", 256, 4096, 256),
        ("tn head dE, beta 1", 4096, 256, 256),
        ("nt symmetric", 256, 256, 256),
        ("nt full", 256, 256, 256),
        ("nt scores", 64, 64, 64),
        ("nt scores", 64, 128, 64),
        ("nt scores", 64, 256, 64),
        ("nn scores V", 64, 64, 256),
        ("tn weights", 256, 256, 2048),
        ("nn head dX", 256, 256, 4096),
        ("nn", 768, 768, 768),
        ("nn one row", 1, 256, 256),
    ];
    for (name, m, n, k) in shapes {
        let (a, b, mut c) = (noise(m * k), noise(k * n), noise(m * n));
        let mut g = Gemm::new((m, n, k), Mat::row_major(&a, k), Mat::row_major(&b, n));
        if name.starts_with('t') {
            g.a = Mat::transposed(&a, m);
        }
        if name.starts_with("nt") {
            g.b = Mat::transposed(&b, k);
        }
        if name.ends_with("beta 1") {
            g.beta = 1.0;
        }
        if name.ends_with("symmetric") {
            g.b = Mat::transposed(&a, k);
            g.symmetric = true;
        }
        report(&format!("gemm {name} {m}x{n}x{k}"), 2.0 * (m * n * k) as f64, |level| g.run(level, &mut c, n));
    }
}

fn dequantised_shapes() {
    let (rows, out, dim) = (2048, 256, 256);
    let (dy, mut dw, mut dx) = (noise(rows * out), noise(out * dim), noise(rows * dim));
    let (xq, steps): (Vec<i8>, _) = ((0..rows * dim).map(|i| (i % 255) as i8).collect(), noise(rows));
    let x = Mat::Int8 { codes: &xq, steps: &steps, cols: dim };
    let g = Gemm { beta: 1.0, ..Gemm::new((out, dim, rows), Mat::transposed(&dy, out), x) };
    let ops = 2.0 * (rows * out * dim) as f64;
    report(&format!("gemm tn int8 {out}x{dim}x{rows}"), ops, |level| g.run(level, &mut dw, dim));
    let (codes, scales) = (vec![0b0110_0001u8; out * dim / 4], noise(out * dim / 128));
    let w = Mat::Ternary { codes: &codes, scales: &scales, group: 128, cols: dim };
    let g = Gemm::new((rows, dim, out), Mat::row_major(&dy, out), w);
    report(&format!("gemm nn ternary {rows}x{dim}x{out}"), ops, |level| g.run(level, &mut dx, dim));
}

fn ternary_shapes() {
    for (rows, outs, dim) in [(2048, 256, 256), (2048, 512, 256), (2048, 256, 512), (128, 768, 768), (16, 768, 768)] {
        let group = 128;
        let xq: Vec<i8> = (0..rows * dim).map(|i| (i % 255) as i8).collect();
        let (codes, scales, steps) = (vec![0b0110_0001u8; outs * dim / 4], noise(outs * dim / group), noise(rows));
        let mut y = vec![0.0; rows * outs];
        let g = TernaryGemm { rows, outs, dim, group, xq: &xq, steps: &steps, codes: &codes, scales: &scales };
        let ops = 2.0 * (rows * outs * dim) as f64;
        report(&format!("ternary {rows}x{outs}x{dim}"), ops, |level| g.run(level, &mut y, outs));
    }
}

/// Quantisers, in G values/s.
fn quantiser_shapes() {
    let (rows, dim, group) = (2048, 256, 128);
    let x = noise(rows * dim);
    let (mut xq, mut steps) = (vec![0; rows * dim], vec![0.0; rows]);
    let (mut codes, mut scales) = (vec![0; rows * dim / 4], vec![0.0; rows * dim / group]);
    report(&format!("quantize rows {rows}x{dim}"), x.len() as f64, |level| {
        quantize::rows(level, &x, dim, &mut xq, &mut steps);
    });
    report(&format!("quantize ternary {rows}x{dim}"), x.len() as f64, |level| {
        quantize::ternary(level, &x, dim, group, &mut codes, &mut scales);
    });
}

fn main() {
    gemm_shapes();
    quantiser_shapes();
    ternary_shapes();
    dequantised_shapes();
}
