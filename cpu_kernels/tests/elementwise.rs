//! Elementwise ops, embedding, norms, RoPE and sums.

mod common;

use common::*;
use cpu_kernels::ops::*;
use cpu_kernels::*;

const SIZES: [usize; 7] = [1, 7, 16, 33, 100, 1000, 5003];

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

#[test]
fn add_copy_fill() {
    for n in SIZES {
        let (a, b) = (noise(1, n), noise(2, n));
        let y = &check(&ADD, add::AddArgs { n: n as u32 }, &[(&a).into(), (&b).into(), poison(n)])[2];
        assert!((0..n).all(|i| y[i] == a[i] + b[i]));
        let y = &check(&COPY, copy::CopyArgs { n: n as u32 }, &[(&a).into(), poison(n)])[1];
        assert_eq!(y, &a);
        let y = &check(&FILL, fill::FillArgs { n: n as u32, value: 0.5 }, &[poison(n)])[0];
        assert!(y.iter().all(|y| *y == 0.5));
    }
}

#[test]
fn biases_and_columns() {
    for (rows, cols) in [(1, 1), (3, 7), (5, 64), (40, 133)] {
        let (x, bias, before) = (noise(1, rows * cols), noise(2, cols), noise(3, rows * (cols + 2)));
        let (r32, c32) = (rows as u32, cols as u32);
        let y = &check(&ADD_BIAS, add_bias::AddBiasArgs { rows: r32, cols: c32 }, &[(&x).into(), (&bias).into()])[0];
        assert!((0..rows * cols).all(|i| y[i] == x[i] + bias[i % cols]));
        // All columns beside two others, and back.
        let args =
            join_columns::JoinColumnsArgs { rows: r32, cols: c32, x_first: 0, x_cols: c32, first: 2, stride: c32 + 2 };
        let wide = &check(&JOIN_COLUMNS, args, &[(&x).into(), (&before).into()])[1];
        let want = |r: usize, c: usize| if c < 2 { before[r * (cols + 2) + c] } else { x[r * cols + c - 2] };
        assert!((0..wide.len()).all(|i| wide[i] == want(i / (cols + 2), i % (cols + 2))));
        let args =
            join_columns::JoinColumnsArgs { rows: r32, cols: c32, x_first: 2, x_cols: c32 + 2, first: 0, stride: c32 };
        assert_eq!(&check(&JOIN_COLUMNS, args, &[wide.into(), poison(rows * cols)])[1], &x);
    }
}

#[test]
fn swiglu_and_its_gradient() {
    for n in SIZES {
        gated_unit_and_its_gradient(n, 0, silu);
        gated_unit_and_its_gradient(n, 1, |x| x.max(0.0).powi(2));
    }
}

fn gated_unit_and_its_gradient(n: usize, squared: u32, unit: fn(f64) -> f64) {
    let gate: Vec<f32> = noise(1, n).iter().map(|x| 8.0 * x).collect();
    let (up, dy) = (noise(2, n), noise(3, n));
    let args = swiglu::SwigluArgs { rows: 1, cols: n as u32, stride: n as u32, gate: 0, up: 0, squared };
    let y = &check(&SWIGLU, args, &[(&gate).into(), (&up).into(), poison(n)])[2];
    let want: Vec<f64> = (0..n).map(|i| unit(gate[i].into()) * f64::from(up[i])).collect();
    assert_close(y, &want, 1e-12);

    let args = swiglu_backward::SwigluBackwardArgs { n: n as u32, squared };
    let bufs = [(&gate).into(), (&up).into(), (&dy).into(), poison(n), poison(n)];
    let out = check(&SWIGLU_BACKWARD, args, &bufs);
    let value = |gate: &[f64], up: &[f64]| (0..n).map(|i| unit(gate[i]) * up[i] * f64::from(dy[i])).sum();
    if n <= 100 {
        assert_close(&out[3], &gradient(&gate, |gate| value(gate, &wide(&up))), 1e-10);
        assert_close(&out[4], &gradient(&up, |up| value(&wide(&gate), up)), 1e-10);
    }

    // As rows of one matrix, up first: the same values.
    let rows = if n.is_multiple_of(3) { 3 } else { 1 };
    let cols = n / rows;
    let x: Vec<f32> = (0..rows).flat_map(|r| [&up, &gate].map(|x| &x[r * cols..][..cols]).concat()).collect();
    let (r32, c32) = (rows as u32, cols as u32);
    let args = swiglu::SwigluArgs { rows: r32, cols: c32, stride: 2 * c32, gate: c32, up: 0, squared };
    assert_eq!(&check(&SWIGLU, args, &[(&x).into(), (&x).into(), poison(n)])[2], y);
    let args = swiglu_columns_backward::SwigluColumnsBackwardArgs { rows: r32, cols: c32, squared };
    let dx = &check(&SWIGLU_COLUMNS_BACKWARD, args, &[(&x).into(), (&dy).into(), poison(2 * n)])[2];
    for (first, want) in [(0, &out[4]), (cols, &out[3])] {
        let have = (0..rows).flat_map(|r| dx[2 * r * cols + first..][..cols].to_vec());
        assert_eq!(have.collect::<Vec<_>>(), *want);
    }
}

#[test]
fn swiglu_far_out() {
    let gate = vec![-200.0, -88.0, 0.0, 88.0, 200.0];
    let args = swiglu::SwigluArgs { rows: 1, cols: 5, stride: 5, gate: 0, up: 0, squared: 0 };
    let y = &check(&SWIGLU, args, &[(&gate).into(), (&vec![1.0f32; 5]).into(), poison(5)])[2];
    assert_eq!(y[3..], [88.0, 200.0]);
    assert!(y[..3].iter().all(|y| y.abs() < 1e-35), "{y:?}");
    let args = swiglu_backward::SwigluBackwardArgs { n: 5, squared: 0 };
    let ones = &vec![1.0f32; 5];
    let bufs = [(&gate).into(), ones.into(), ones.into(), poison(5), poison(5)];
    let out = check(&SWIGLU_BACKWARD, args, &bufs);
    assert_eq!(out[3][2..], [0.5, 1.0, 1.0]);
    assert!(out[3][..2].iter().all(|y| y.abs() < 1e-35));
}

#[test]
fn embedding_and_its_gradient() {
    for (rows, dim, vocab) in [(1, 5, 3), (37, 20, 9), (64, 256, 40)] {
        let mut rng = Rng(rows as u64);
        let ids: Vec<u32> = (0..rows).map(|_| rng.next() % vocab).collect();
        let table = noise(1, vocab as usize * dim);
        let args = embedding::EmbeddingArgs { rows: rows as u32, dim: dim as u32, first: 0 };
        let y = &check(&EMBEDDING, args, &[(&ids).into(), (&table).into(), poison(rows * dim)])[2];
        for r in 0..rows {
            assert_eq!(y[r * dim..(r + 1) * dim], table[ids[r] as usize * dim..][..dim]);
        }

        let mut order: Vec<u32> = (0..rows as u32).collect();
        order.sort_by_key(|r| ids[*r as usize]);
        let (dy, before) = (noise(2, rows * dim), noise(3, vocab as usize * dim));
        let args = embedding_backward::EmbeddingBackwardArgs { rows: rows as u32, dim: dim as u32, first: 0 };
        let bufs = [(&ids).into(), (&order).into(), (&dy).into(), (&before).into()];
        let dtable = &check(&EMBEDDING_BACKWARD, args, &bufs)[3];
        let mut want = before.clone();
        for r in 0..rows {
            for c in 0..dim {
                want[ids[r] as usize * dim + c] += dy[r * dim + c];
            }
        }
        assert_eq!(dtable, &want);
    }
}

#[test]
fn an_id_that_is_not_there_gives_zeros_and_adds_nothing() {
    let ids = vec![3u32, 1, u32::MAX];
    let table = noise(1, 6);
    let args = embedding::EmbeddingArgs { rows: 3, dim: 2, first: 0 };
    let y = &check(&EMBEDDING, args, &[(&ids).into(), (&table).into(), poison(6)])[2];
    assert_eq!(y[..], [0.0, 0.0, table[2], table[3], 0.0, 0.0]);
    let args = embedding_backward::EmbeddingBackwardArgs { rows: 3, dim: 2, first: 0 };
    let bufs = [(&ids).into(), (&vec![1u32, 0, 3]).into(), (&noise(2, 6)).into(), (&vec![0.0; 6]).into()];
    let dtable = &check(&EMBEDDING_BACKWARD, args, &bufs)[3];
    assert_eq!(dtable[..], [&[0.0; 2], &noise(2, 6)[2..4], &[0.0; 2]].concat());
}

/// Ids 2 to 4 of a table: other rows are those of other parts.
#[test]
fn a_part_of_a_table_leaves_the_rows_of_others() {
    let (ids, table, before) = (vec![1u32, 4, u32::MAX, 2], noise(1, 6), noise(2, 8));
    let args = embedding::EmbeddingArgs { rows: 4, dim: 2, first: 2 };
    let y = &check(&EMBEDDING, args, &[(&ids).into(), (&table).into(), (&before).into()])[2];
    assert_eq!(y[..], [&before[..2], &table[4..6], &before[4..6], &table[..2]].concat());
    let args = embedding_backward::EmbeddingBackwardArgs { rows: 4, dim: 2, first: 2 };
    let bufs = [(&ids).into(), (&vec![0u32, 3, 1, 2]).into(), (&before).into(), (&vec![0.0; 6]).into()];
    let dtable = &check(&EMBEDDING_BACKWARD, args, &bufs)[3];
    assert_eq!(dtable[..], [&before[6..8], &[0.0; 2], &before[2..4]].concat());
}

fn normalised(x: &[f64], w: &[f64], eps: f64) -> Vec<f64> {
    let rows = x.chunks(w.len()).map(|x| (x, (x.iter().map(|x| x * x).sum::<f64>() / w.len() as f64 + eps).sqrt()));
    rows.flat_map(|(x, norm)| x.iter().zip(w).map(move |(x, w)| x / norm * w)).collect()
}

#[test]
fn rms_norm_and_its_gradients() {
    for (rows, dim) in [(1, 1), (3, 7), (5, 16), (70, 33), (130, 20)] {
        let (x, w, dy) = (noise(1, rows * dim), noise(2, dim), noise(3, rows * dim));
        let eps = 1e-3;
        let (r, d) = (rows as u32, dim as u32);
        let args = rms_norm::RmsNormArgs { rows: r, dim: d, eps };
        let bufs = [(&x).into(), (&w).into(), poison(rows * dim), poison(rows)];
        let out = check(&RMS_NORM, args, &bufs);
        assert_close(&out[2], &normalised(&wide(&x), &wide(&w), eps.into()), 1e-12);
        let rstd = &out[3];

        let value = |x: &[f64], w: &[f64]| dot(&normalised(x, w, eps.into()), &dy);
        let want_dx = if rows < 100 { gradient(&x, |x| value(x, &wide(&w))) } else { Vec::new() };
        let want_dw = gradient(&w, |w| value(&wide(&x), w));
        let (before, before_w) = (noise(4, rows * dim), noise(5, dim));
        for beta in [0.0f32, 1.0] {
            let args = rms_norm_backward::RmsNormBackwardArgs { rows: r, dim: d, beta };
            let dx = if beta == 0.0 { poison(rows * dim) } else { (&before).into() };
            let bufs = [(&x).into(), (&w).into(), rstd.into(), (&dy).into(), dx, (&before_w).into()];
            let out = check(&RMS_NORM_BACKWARD, args, &bufs);
            let (dx, dw) = (&out[4], &out[5]);
            let want: Vec<f64> = want_dw.iter().zip(&before_w).map(|(dw, before)| dw + f64::from(*before)).collect();
            assert_close(dw, &want, 1e-11);
            if rows < 100 {
                let want: Vec<f64> = (0..dx.len()).map(|i| want_dx[i] + f64::from(beta * before[i])).collect();
                // A row of one element has a gradient near 0, the difference of equal terms.
                assert_close(dx, &want, if dim == 1 { 1e-5 } else { 1e-11 });
            }
        }
    }
}

/// Normalised and quantised at once, or one after the other: the same bits.
#[test]
fn rms_norm_quantize_is_both() {
    for (rows, dim) in [(1, 4), (3, 20), (70, 36), (5, 8192), (9, 256)] {
        let mut x = noise(1, rows * dim);
        x[dim / 2] = if rows == 3 { f32::NAN } else { x[0] };
        let (w, eps, [r, d]) = (noise(2, dim), 1e-3, [rows, dim].map(|n| n as u32));
        for level in levels() {
            let args = rms_norm::RmsNormArgs { rows: r, dim: d, eps };
            let bufs = [(&x).into(), (&w).into(), poison(rows * dim), poison(rows)];
            let normed = run(&RMS_NORM, args, &bufs, level, 2);
            // Four codes in a word.
            let codes = || poison(rows * dim / 4);
            let args = quantize_rows::QuantizeRowsArgs { rows: r, dim: d };
            let want = run(&QUANTIZE_ROWS, args, &[(&normed[2]).into(), codes(), poison(rows)], level, 2);
            let args = rms_norm_quantize::RmsNormQuantizeArgs { rows: r, dim: d, eps };
            let bufs = [(&x).into(), (&w).into(), codes(), poison(rows), poison(rows)];
            let got = run(&RMS_NORM_QUANTIZE, args, &bufs, level, 2);
            for (want, got) in [&want[1], &want[2], &normed[3]].into_iter().zip(&got[2..]) {
                assert_same(want, got, &format!("({rows}, {dim}) at {level}"));
            }
        }
    }
}

#[test]
fn a_sum_of_squares_that_overflows_is_not_hidden() {
    let dim = 20;
    let x: Vec<f32> =
        [1.0, 1e18, f32::MAX].iter().flat_map(|size| noise(1, dim).into_iter().map(move |x| x * size)).collect();
    let args = rms_norm::RmsNormArgs { rows: 3, dim: dim as u32, eps: 1e-5 };
    let bufs = [(&x).into(), (&noise(2, dim)).into(), poison(3 * dim), poison(3)];
    let out = check(&RMS_NORM, args, &bufs);
    assert_eq!(out[3].iter().map(|rstd| rstd.is_nan()).collect::<Vec<_>>(), [false, false, true]);
    assert!(out[2].iter().zip(0..).all(|(y, i)| y.is_nan() == (i >= 2 * dim)), "{:?}", out[2]);
}

#[test]
fn rope_and_back() {
    for (rows, heads, head_dim, first) in [(1, 1, 2, 0), (9, 3, 16, 0), (9, 3, 16, 2), (20, 2, 80, 0), (5, 1, 256, 1)] {
        let all = first + heads + first / 2;
        let (half, n, positions) = (head_dim / 2, rows * all * head_dim, 40);
        let mut rng = Rng(5);
        let at: Vec<u32> = (0..rows).map(|_| rng.next() % positions).collect();
        let angle = |p: u32, i: usize| f64::from(p) * 10000f64.powf(-2.0 * i as f64 / head_dim as f64);
        let angles = (0..positions).flat_map(|p| (0..half).map(move |i| angle(p, i)));
        let table: Vec<f32> = angles.flat_map(|a| [a.cos() as f32, a.sin() as f32]).collect();
        let x = noise(1, n);
        let turn = |x: &Vec<f32>, sign: f32| {
            let [rows, heads, head_dim, first, all] = [rows, heads, head_dim, first, all].map(|n| n as u32);
            let args = rope::RopeArgs { rows, heads, head_dim, first, all, sign };
            check(&ROPE, args, &[x.into(), (&at).into(), (&table).into()]).swap_remove(0)
        };
        let y = turn(&x, 1.0);
        let want: Vec<f64> = (0..n)
            .map(|e| {
                let (row, head, i) = (e / (all * head_dim), e / head_dim % all, e % head_dim);
                if !(first..first + heads).contains(&head) {
                    return x[e].into();
                }
                let (sin, cos) = angle(at[row], i % half).sin_cos();
                let (x, other) = (f64::from(x[e]), f64::from(x[if i < half { e + half } else { e - half }]));
                if i < half { x * cos - other * sin } else { x * cos + other * sin }
            })
            .collect();
        assert_close(&y, &want, 1e-12);
        assert_close(&turn(&y, -1.0), &wide(&x), 1e-12);
    }
}

#[test]
fn sums() {
    for (rows, cols) in [(1, 1), (3, 17), (40, 64), (5, 133), (200, 300)] {
        let (x, before) = (noise(1, rows * cols), noise(2, cols + 5));
        let args = sum_rows::SumRowsArgs { rows: rows as u32, cols: cols as u32, offset: 3, beta: 1.0 };
        let y = &check(&SUM_ROWS, args, &[(&x).into(), (&before).into()])[1];
        let column = |c: usize| (0..rows).map(|r| f64::from(x[r * cols + c])).sum::<f64>();
        let want: Vec<f64> = (0..cols).map(|c| f64::from(before[3 + c]) + column(c)).collect();
        assert_close(&y[3..3 + cols], &want, 1e-11);
        assert_eq!((&y[..3], &y[3 + cols..]), (&before[..3], &before[3 + cols..]));
    }
    for n in [1, 5, 1024, 1025, 4096, 9000] {
        let x = noise(3, n);
        let total: f64 = wide(&x).iter().sum();
        let args = sum::SumArgs { n: n as u32, scale: 0.25, beta: 0.0 };
        let y = &check(&SUM, args, &[(&x).into(), poison(1)])[1];
        assert!((f64::from(y[0]) - 0.25 * total).abs() < 1e-4);
        let args = sum::SumArgs { n: n as u32, scale: 0.25, beta: 2.0 };
        let y = &check(&SUM, args, &[(&x).into(), (&vec![3.0f32]).into()])[1];
        assert!((f64::from(y[0]) - 6.0 - 0.25 * total).abs() < 1e-4);

        let (rows, blocks) = (3, n.div_ceil(simd::math::BLOCK));
        let x = noise(4, rows * n);
        let [n32, step] = [n, blocks].map(|n| n as u32);
        let args = sum_squares::SumSquaresArgs { n: n32, rows: 3, start: 0, stride: n32, offset: 2, step, scale: 1.0 };
        let partial = &check(&SUM_SQUARES, args, &[(&x).into(), poison(2 + rows * blocks)])[1];
        let blocks = x.chunks(n).flat_map(|row| row.chunks(simd::math::BLOCK));
        let want: Vec<f64> = blocks.map(|b| b.iter().map(|x| f64::from(*x).powi(2)).sum()).collect();
        assert_close(&partial[2..], &want, 1e-11);
        // The second and the third piece, with room between their sums.
        let args = sum_squares::SumSquaresArgs { rows: 2, start: n32, offset: 0, step: step + 1, ..args };
        let spread = &check(&SUM_SQUARES, args, &[(&x).into(), (&vec![9.0f32; 2 * step as usize + 2]).into()])[1];
        let (second, third) = partial[2 + step as usize..].split_at(step as usize);
        assert_eq!(*spread, [second, &[9.0], third, &[9.0]].concat());

        for (at, value, finite) in [(0, 1e30, true), (n - 1, f32::NAN, false), (n / 2, f32::NEG_INFINITY, false)] {
            let mut x = noise(5, n);
            x[at] = value;
            let args = sum_squares::SumSquaresArgs { rows: 1, start: 0, offset: 0, scale: 0.0, ..args };
            let sums = &check(&SUM_SQUARES, args, &[(&x).into(), poison(n.div_ceil(simd::math::BLOCK))])[1];
            for (block, sum) in sums.iter().enumerate() {
                let holds = at / simd::math::BLOCK == block && !finite;
                assert!(if holds { sum.is_nan() } else { *sum == 0.0 }, "{value} at {at} of {n}: {sums:?}");
            }
        }
    }
}
