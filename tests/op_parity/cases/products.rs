//! Quantisers, and the products of matrices.

use super::*;

/// A case whose codes are those of `values(row, second tensor)`. A GPU's division may be off by 2.5 ulp, which moves a code by one
/// if value / step is that close to a tie.
fn quantized(case: Case, dim: usize, values: impl Fn(&[f32], &[f32]) -> Vec<f32>) -> Case {
    let floats = |i: usize| if let Data::F32(x) = &case.data[i] { &x[..] } else { &[] };
    let x: Vec<f32> = floats(0).chunks(dim).flat_map(|row| values(row, floats(1))).collect();
    let near_tie = move |at: usize, a: i8, b: i8| {
        let row = &x[at / dim * dim..][..dim];
        let step = row.iter().fold(1e-8f32, |m, v| m.max(v.abs())) / 127.0;
        let tie = ((x[at] / step).abs().fract() - 0.5).abs();
        a.abs_diff(b) == 1 && tie < 1e-3
    };
    Case { near_tie: Box::new(near_tie), ..case }
}

pub fn quantizers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, dim, scale) in [(1, 4, 1.0), (3, 32, 100.0), (5, 260, 1e-3), (2, 256, 0.0), (9, 768, 1.0)] {
        let args = quantize_rows::QuantizeRowsArgs { rows, dim };
        let data = |r: &mut Rng| vec![normal(r, rows * dim, scale), Data::Out((rows * dim) as usize), out(rows)];
        cases.push(quantized(case(&ops::QUANTIZE_ROWS, args, data), dim as usize, |row, _| row.to_vec()));
        let args = rms_norm_quantize::RmsNormQuantizeArgs { rows, dim, eps: 1e-5 };
        let data = |r: &mut Rng| {
            let [x, w, codes] = [normal(r, rows * dim, scale), normal(r, dim, 1.0), Data::Out((rows * dim) as usize)];
            vec![x, w, codes, out(rows), out(rows)]
        };
        let normed = |row: &[f32], w: &[f32]| {
            let rstd = (row.iter().map(|x| x * x).sum::<f32>() / row.len() as f32 + 1e-5).sqrt().recip();
            row.iter().zip(w).map(|(x, w)| x * rstd * w).collect()
        };
        cases.push(quantized(case(&ops::RMS_NORM_QUANTIZE, args, data), dim as usize, normed));
    }
    // Rows with a value that is not finite.
    let (rows, dim) = (5u32, 260u32);
    let data = |r: &mut Rng| {
        let mut x = values(r, rows * dim, 1.0);
        for (row, at, value) in [(0, 3, f32::NAN), (1, 259, f32::INFINITY), (3, 128, f32::NEG_INFINITY)] {
            x[row * dim as usize + at] = value;
        }
        vec![Data::F32(x), Data::Out((rows * dim) as usize), out(rows)]
    };
    cases.push(case(&ops::QUANTIZE_ROWS, quantize_rows::QuantizeRowsArgs { rows, dim }, data));
    // Rows with a value that is not finite, and with squares that overflow. Others are of one size, far from ties.
    let data = |r: &mut Rng| {
        let mut x = vec![1.0; (rows * dim) as usize];
        for (row, at, value) in [(0, 3, f32::NAN), (1, 259, f32::INFINITY), (3, 128, 1e30)] {
            x[row * dim as usize + at] = value;
        }
        vec![Data::F32(x), uniform(r, dim, 1.0, 1.0), Data::Out((rows * dim) as usize), out(rows), out(rows)]
    };
    let args = rms_norm_quantize::RmsNormQuantizeArgs { rows, dim, eps: 1e-5 };
    cases.push(case(&ops::RMS_NORM_QUANTIZE, args, data));
    for (rows, dim, group, scale) in [
        (1, 32, 32, 0.02),
        (3, 96, 32, 0.02),
        (3, 192, 96, 0.02),
        (2, 1600, 160, 0.02),
        (2, 1984, 992, 0.02),
        (2, 64, 64, 30.0),
        (5, 128, 128, 1e-5),
        (4, 384, 128, 0.02),
        (3, 768, 256, 0.02),
        (2, 1088, 64, 0.05),
        (2, 2048, 1024, 0.02),
        (1, 2048, 512, 0.02),
        (64, 256, 128, 0.06),
        (3, 1280, 128, 1e5),
    ] {
        let args = ternary_quantize::TernaryQuantizeArgs { rows, dim, group, stage: 0 };
        let bytes = rows as usize * ops::packed_row_bytes(dim as usize);
        let data = |r: &mut Rng| vec![normal(r, rows * dim, scale), Data::Out(bytes), out(rows * (dim / group))];
        cases.push(exact(case(&ops::TERNARY_QUANTIZE, args, data)));
    }
    // Groups with a value that is not finite, or with a sum that is not, beside good ones.
    for (at, value) in [(0, f32::NAN), (159, f32::INFINITY), (200, f32::NEG_INFINITY), (255, f32::MAX)] {
        for group in [32, 64, 128] {
            let args = ternary_quantize::TernaryQuantizeArgs { rows: 2, dim: 128, group, stage: 0 };
            let data = |r: &mut Rng| {
                let mut w: Vec<f32> = (0..256).map(|_| r.normal()).collect();
                (w[at], w[(at + 1) % 32 + at / 32 * 32]) = (value, value);
                vec![Data::F32(w), Data::Out(64), out(256 / group)]
            };
            cases.push(exact(case(&ops::TERNARY_QUANTIZE, args, data)));
        }
    }
    // Means halfway between two f16 values, means below the smallest scale, and weights on the threshold.
    let halfway = [1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, 1e-9, 0.0];
    let w = halfway.iter().flat_map(|v| (0..32).map(move |i| if i % 2 == 0 { *v } else { -*v })).collect();
    let threshold = (0..128).map(|i| [0.5, -0.5, 1.0, -2.0][i % 4]).collect();
    for (w, group) in [(w, 32), (threshold, 128)] {
        let args = ternary_quantize::TernaryQuantizeArgs { rows: 1, dim: 128, group, stage: 0 };
        let data = |_: &mut Rng| vec![Data::F32(w), Data::Out(32), out(128 / group)];
        cases.push(exact(case(&ops::TERNARY_QUANTIZE, args, data)));
    }
    // One scale for a matrix: sums of its groups, their mean, codes by a scale.
    for (rows, dim, group, w) in [(3, 96, 32, 0.02), (5, 256, 256, 1.0), (2, 2048, 1024, 0.02), (7, 192, 96, f32::MAX)]
    {
        let (bytes, scales) = (rows as usize * ops::packed_row_bytes(dim as usize), rows * (dim / group));
        let args = ternary_quantize::TernaryQuantizeArgs { rows, dim, group, stage: quantize::SUMS };
        let data = |r: &mut Rng| vec![normal(r, rows * dim, w), Data::Bytes(vec![7; bytes]), out(scales)];
        cases.push(exact(case(&ops::TERNARY_QUANTIZE, args, data)));
        let args = ternary_quantize::TernaryQuantizeArgs { stage: quantize::CODES, ..args };
        let data = |r: &mut Rng| {
            let mut given = vec![w; scales as usize];
            given[0] = f32::NAN;
            vec![normal(r, rows * dim, w), Data::Out(bytes), Data::F32(given)]
        };
        cases.push(exact(case(&ops::TERNARY_QUANTIZE, args, data)));
    }
    for (n, scale) in [(1, 1.0), (63, 1e-9), (1024, 1.0), (1025, 30.0), (5000, 0.3), (4000, f32::MAX)] {
        let args = mean_scale::MeanScaleArgs { n, inverse: 1.0 / (128 * n) as f32 };
        let data = |r: &mut Rng| vec![uniform(r, n, 0.0, scale), out(n)];
        cases.push(exact(case(&ops::MEAN_SCALE, args, data)));
    }
    cases
}

pub fn ternary() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, outs, dim, group, x_row) in [
        (1, 1, 32, 32, 0),
        (1, 70, 256, 128, 0),
        (2, 33, 160, 32, 1),
        (4, 96, 512, 256, 3),
        (8, 5, 384, 128, 0),
        (7, 20, 1184, 32, 1),
        (33, 40, 192, 96, 2),
        (65, 130, 256, 128, 0),
        (3, 64, 2048, 1024, 0),
        (20, 40, 1728, 864, 0),
        (17, 256, 768, 256, 5),
        // In parts of k, and in large tiles.
        (300, 70, 160, 32, 2),
        (384, 2048, 1408, 128, 1),
        (2048, 384, 1408, 128, 0),
        (130, 140, 384, 128, 1),
        (9, 129, 192, 64, 0),
        (40, 70, 128, 128, 0),
    ] {
        // Gradients beyond the range of f16 in some cases.
        let size = match rows {
            33 => 1e12,
            40 => 1e-12,
            _ => 1.0,
        };
        let have = x_row + rows + 1;
        // Exact in f16, as scales are that were trained in groups. One for a whole matrix may be any number.
        let scale = |r: &mut Rng| half::f16::from_f32(0.001 + 0.1 * r.f32()).to_f32();
        let scales = |r: &mut Rng| Data::F32((0..outs * (dim / group)).map(|_| scale(r)).collect());
        let args = ternary_matmul::TernaryMatmulArgs { rows, outs, dim, group, x_row };
        let data = |r: &mut Rng| {
            let [xq, step] = [activations(r, have * dim), uniform(r, have, 0.01, 0.03)];
            let scales = uniform(r, outs * (dim / group), 0.001, 0.1);
            vec![xq, step, codes(r, outs, dim), scales, out(rows * outs)]
        };
        cases.push(case(&ops::TERNARY_MATMUL, args, data));
        for (beta, fast) in [(0.0, 0), (1.0, 0), (0.0, 1)].into_iter().filter(|(_, fast)| *fast == 0 || rows < 2048) {
            use ternary_matmul_backward_input::TernaryMatmulBackwardInputArgs as A;
            // Outputs of two matrices, where there are as many.
            let args = A { rows, outs, dim, group, x_row, beta, first: 0, second: outs / 3, fast };
            let data = |r: &mut Rng| {
                vec![normal(r, rows * outs, size), codes(r, outs, dim), scales(r), target(r, beta, have * dim)]
            };
            cases.push(close(case(&ops::TERNARY_MATMUL_BACKWARD_INPUT, args, data)));
        }
        for fast in 0..2 {
            use ternary_matmul_backward_weight::TernaryMatmulBackwardWeightArgs as A;
            let args = A { rows, outs, dim, x_row, fast };
            let data = |r: &mut Rng| {
                let [dy, xq] = [normal(r, rows * outs, size), activations(r, have * dim)];
                vec![dy, xq, uniform(r, have, 0.01, 0.03), normal(r, outs * dim, size)]
            };
            cases.push(close(case(&ops::TERNARY_MATMUL_BACKWARD_WEIGHT, args, data)));
        }
    }
    cases
}

/// Experts with many rows, few rows, and none.
pub fn grouped() -> Vec<Case> {
    let mut cases = Vec::new();
    let shapes: [(&[u32], u32, u32, u32); 8] = [
        (&[1], 8, 32, 32),
        (&[0, 1, 0, 1], 33, 160, 32),
        (&[3, 0, 5], 70, 256, 128),
        (&[0, 9, 40, 1, 0], 40, 192, 96),
        (&[70, 0, 65, 130], 130, 128, 64),
        (&[33, 32, 31, 0], 64, 384, 128),
        (&[5, 4, 3, 0, 0, 4, 0, 0], 96, 512, 256),
        (&[0, 300, 129], 140, 288, 32),
    ];
    for (counts, outs, dim, group) in shapes {
        let (rows, experts) = (counts.iter().sum::<u32>(), counts.len() as u32);
        let scale = |r: &mut Rng| half::f16::from_f32(0.001 + 0.1 * r.f32()).to_f32();
        let scales = |r: &mut Rng| Data::F32((0..experts * outs * (dim / group)).map(|_| scale(r)).collect());
        let args = grouped_ternary::GroupedTernaryArgs { rows, experts, outs, dim, group };
        let data = |r: &mut Rng| {
            let [xq, step] = [activations(r, rows * dim), uniform(r, rows, 0.01, 0.03)];
            vec![xq, step, starts(counts), codes(r, experts * outs, dim), scales(r), out(rows * outs)]
        };
        cases.push(case(&ops::GROUPED_TERNARY, args, data));
        for (beta, fast) in [(0.0, 0), (1.0, 0), (0.0, 1)] {
            use grouped_ternary_backward_input::GroupedTernaryBackwardInputArgs as A;
            let args = A { rows, experts, outs, dim, group, beta, fast };
            let data = |r: &mut Rng| {
                let (dy, codes) = (normal(r, rows * outs, 1.0), codes(r, experts * outs, dim));
                vec![dy, starts(counts), codes, scales(r), target(r, beta, rows * dim)]
            };
            cases.push(close(case(&ops::GROUPED_TERNARY_BACKWARD_INPUT, args, data)));
        }
        for fast in 0..2 {
            use grouped_ternary_backward_weight::GroupedTernaryBackwardWeightArgs as A;
            let args = A { rows, experts, outs, dim, fast };
            let data = |r: &mut Rng| {
                let [dy, xq] = [normal(r, rows * outs, 1.0), activations(r, rows * dim)];
                vec![dy, xq, uniform(r, rows, 0.01, 0.03), starts(counts), normal(r, experts * outs * dim, 1.0)]
            };
            cases.push(close(case(&ops::GROUPED_TERNARY_BACKWARD_WEIGHT, args, data)));
        }
        // Widths that are no multiple of four too.
        for (dim, kind, fast) in
            [dim, 35].into_iter().flat_map(|dim| (0..3).flat_map(move |k| [(dim, k, 0), (dim, k, 1)]))
        {
            let (weights, wide, narrow) = (experts * outs * dim, rows * dim, rows * outs);
            let beta = if kind == 0 { 0.0 } else { 1.0 };
            let args = grouped_matmul::GroupedMatmulArgs { rows, experts, outs, dim, kind, beta, fast };
            let [a, b, d] = [[wide, weights, narrow], [narrow, weights, wide], [narrow, wide, weights]][kind as usize];
            let data = |r: &mut Rng| {
                let [a, b] = [a, b].map(|n| normal(r, n, 1.0));
                vec![a, b, starts(counts), target(r, beta, d)]
            };
            cases.push(close(case(&ops::GROUPED_MATMUL, args, data)));
        }
    }
    cases
}

pub fn matmuls() -> Vec<Case> {
    use matmul::MatmulArgs as A;
    let mut cases = Vec::new();
    for (i, [m, n, k]) in [[1, 1, 1], [3, 5, 7], [1, 130, 64], [8, 9, 50], [64, 64, 16], [65, 63, 17], [70, 130, 96]]
        .into_iter()
        .enumerate()
    {
        // Factors beyond the range of f16, too.
        let [left, right] = [[1.0; 2], [1e-20, 1e25]][i % 2];
        let kinds = [(0, 0), (0, 1), (1, 0), (1, 1)];
        for (fast, (a_transposed, b_transposed)) in (0..2).flat_map(|fast| kinds.map(|kind| (fast, kind))) {
            let (batch, beta) = ([1, 3][i % 2], [0.0, 1.0, 0.5][(i + b_transposed as usize) % 3]);
            let (a_offset, b_offset, d_offset) = [(0, 0, 0), (5, 2, 3)][(i + a_transposed as usize) % 2];
            let offsets = A { a_offset, b_offset, d_offset, ..A::default() };
            let args = A { m, n, k, batch, a_transposed, b_transposed, alpha: 0.7, beta, fast, ..offsets };
            let data = |r: &mut Rng, b: fn(&mut Rng, u32, f32) -> Data, right: f32| {
                let [a, b] = [normal(r, a_offset + batch * m * k, left), b(r, b_offset + batch * k * n, right)];
                vec![a, b, target(r, beta, d_offset + batch * m * n + 1)]
            };
            cases.push(close(case(&ops::MATMUL, args, |r| data(r, normal, right))));
            cases.push(case(&ops::MATMUL_F16, args, |r| data(r, halves, 1.0)));
        }
    }
    // Parts of k; large tiles, for which there are enough of them or enough of k.
    for (m, n, k, batch, a_transposed, b_transposed, fast) in [
        (70, 130, 301, 2, 1, 0, 0),
        (70, 130, 301, 2, 1, 0, 1),
        (132, 68, 520, 1, 0, 1, 0),
        (700, 1301, 1030, 1, 0, 0, 0),
        (700, 1301, 1030, 1, 0, 0, 1),
    ] {
        let args = A { m, n, k, batch, a_transposed, b_transposed, alpha: 0.7, beta: 1.0, fast, ..A::default() };
        let data = |r: &mut Rng, b: fn(&mut Rng, u32, f32) -> Data| {
            let [a, b] = [normal(r, batch * m * k, 1.0), b(r, batch * k * n, 1.0)];
            vec![a, b, normal(r, batch * m * n, 1.0)]
        };
        cases.push(close(case(&ops::MATMUL, args, |r| data(r, normal))));
        cases.push(case(&ops::MATMUL_F16, args, |r| data(r, halves)));
    }
    for (m, k, batch) in [(5, 9, 2), (70, 33, 1), (130, 64, 2), (130, 300, 1)] {
        let args = A { m, n: m, k, batch, b_transposed: 1, symmetric: 1, ..A::default() };
        let data = |r: &mut Rng| vec![normal(r, batch * m * k, 1.0), Data::Same(0), out(batch * m * m)];
        cases.push(close(case(&ops::MATMUL, args, data)));
    }
    for (m, n, k, batch, beta) in [
        (1, 1, 1, 1, 1.0),
        (3, 70, 5, 2, -4.775),
        (66, 130, 20, 1, 0.5),
        (66, 130, 200, 1, 0.5),
        (700, 1300, 1030, 1, 0.5),
    ] {
        let args = matmul_add::MatmulAddArgs { m, n, k, batch, symmetric: 0, alpha: 2.0, beta };
        let data = |r: &mut Rng| {
            let [a, b, c] = [m * k, k * n, m * n].map(|n| normal(r, batch * n, 1.0));
            vec![a, b, c, out(batch * m * n)]
        };
        cases.push(close(case(&ops::MATMUL_ADD, args, data)));
    }
    for (m, batch) in [(5, 2), (100, 2), (140, 1)] {
        let args = matmul_add::MatmulAddArgs { m, n: m, k: m, batch, symmetric: 1, alpha: 2.03, beta: -4.8 };
        let data = |r: &mut Rng| {
            let mut x = values(r, batch * m * m, 1.0);
            for (i, row) in (0..batch).flat_map(|b| (0..m).map(move |row| (b * m * m, row))) {
                (0..row).for_each(|col| x[(i + row * m + col) as usize] = x[(i + col * m + row) as usize]);
            }
            vec![Data::F32(x), Data::Same(0), Data::Same(0), out(batch * m * m)]
        };
        cases.push(close(case(&ops::MATMUL_ADD, args, data)));
    }
    cases
}
