//! The loss and the optimizers.

use super::*;

pub fn losses() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, cols, first, row, grad_scale) in [
        (1, 1, 0, 0, 1.0),
        (5, 100, 70, 2, 0.25),
        (3, 65, 0, 0, 0.01),
        (4, 4096, 0, 1, 0.01),
        (6, 257, 3, 0, 1.0),
        (3, 9000, 100, 1, 0.5),
    ] {
        let targets = |r: &mut Rng| {
            let mut targets = below(r, row + rows + 1, cols + 2 * first);
            targets[(row + rows / 2) as usize] = if rows > 1 { u32::MAX } else { 0 };
            targets[(row + rows - 1) as usize] = first + cols - 1;
            Data::U32(targets)
        };
        let (mine, blocks) = (cols.div_ceil(4096), cols.div_ceil(4096) + 2);
        let args = cross_entropy_partial::CrossEntropyPartialArgs { rows, cols, first, row, block: 1, blocks };
        let data = |r: &mut Rng| {
            vec![targets(r), normal(r, rows * cols, 3.0), normal(r, 2 * rows * blocks, 1.0), normal(r, rows, 1.0)]
        };
        cases.push(case(&ops::CROSS_ENTROPY_PARTIAL, args, data));
        let args = cross_entropy::CrossEntropyArgs { rows, vocab: first + cols, blocks: mine, row, grad_scale };
        let data = |r: &mut Rng| {
            let partial = uniform(r, 2 * rows * mine, 1.0, 9.0);
            vec![targets(r), partial, normal(r, rows, 3.0), out(row + rows + 1), out(3 * rows)]
        };
        cases.push(case(&ops::CROSS_ENTROPY, args, data));
        let softmax = |r: &mut Rng| {
            let mut softmax = values(r, 3 * rows, 2.0);
            softmax[rows as usize / 2 * 3 + 1] = 0.0;
            Data::F32(softmax)
        };
        for entropy in [0.0, 0.1] {
            let args = cross_entropy_gradient::CrossEntropyGradientArgs { rows, cols, first, row, grad_scale, entropy };
            let data = |r: &mut Rng| vec![targets(r), softmax(r), normal(r, rows * cols, 3.0)];
            cases.push(case(&ops::CROSS_ENTROPY_GRADIENT, args, data));
        }
        let args = softmax_mean::SoftmaxMeanArgs { rows, cols, scale: 0.3 };
        cases.push(case(&ops::SOFTMAX_MEAN, args, |r| vec![normal(r, rows * cols, 3.0), softmax(r)]));
        let (x_cols, stride) = (cols + 3, first + cols + 1);
        let args = join_columns::JoinColumnsArgs { rows, cols, x_first: 2, x_cols, first, stride };
        let data = |r: &mut Rng| vec![normal(r, rows * x_cols, 1.0), out(rows * stride)];
        cases.push(exact(case(&ops::JOIN_COLUMNS, args, data)));
    }
    for (rows, seq, keep) in [(1, 1, 1), (12, 4, 3), (70, 35, 20), (70, 64, 1)] {
        let args = filter_targets::FilterTargetsArgs { rows, seq, keep };
        // Some losses are equal.
        let losses = |r: &mut Rng| Data::F32(values(r, rows, 2.0).iter().map(|x| x.round()).collect());
        let data = |r: &mut Rng| vec![losses(r), Data::U32(below(r, rows, 100)), out(rows)];
        cases.push(exact(case(&ops::FILTER_TARGETS, args, data)));
    }
    for (n, beta) in [(1, 0.0), (63, 1.0), (2000, 0.0), (10_000, 0.5)] {
        let args = sum::SumArgs { n, scale: 0.3, beta };
        cases.push(case(&ops::SUM, args, |r| vec![uniform(r, n, 0.0, 8.0), target(r, beta, 1)]));
    }
    for (n, rows, start, stride, offset, step) in [
        (1, 1, 0, 1, 0, 1),
        (4096, 1, 0, 4096, 0, 1),
        (5000, 1, 7, 5000, 3, 2),
        (4097, 3, 0, 4097, 1, 2),
        (4097, 3, 64, 5000, 1, 5),
        (100, 5, 3, 110, 0, 1),
        (1, 32_770, 0, 1, 0, 1),
    ] {
        let args = sum_squares::SumSquaresArgs { n, rows, start, stride, offset, step, scale: 1.0 };
        let data = |r: &mut Rng| vec![normal(r, start + rows * stride, 0.1), normal(r, offset + rows * step + 1, 1.0)];
        cases.push(case(&ops::SUM_SQUARES, args, data));
    }
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    // A check: 0 for the largest numbers, NaN for what is none, wherever it is in a block.
    for (at, value) in [(0, f32::MAX), (4095, nan), (4096, inf), (8999, -inf), (5000, -f32::MAX), (63, inf)] {
        let args =
            sum_squares::SumSquaresArgs { n: 9000, rows: 1, start: 0, stride: 0, offset: 0, step: 0, scale: 0.0 };
        let data = |r: &mut Rng| {
            let mut x: Vec<f32> = (0..9000).map(|_| r.normal()).collect();
            x[at] = value;
            vec![Data::F32(x), out(3)]
        };
        cases.push(case(&ops::SUM_SQUARES, args, data));
    }
    for (clip, outlier, loss, ctl, norm) in [
        (1.0, 0.0, 3.0, [1.0, 0.0, 0.0, 0.0], 0.5),
        (1.0, 4.0, 3.0, [1.0, 0.0, 2.0, 30.0], 0.5),
        (1.0, 4.0, 3.0, [1.0, 0.0, 0.1, 30.0], 20.0),
        (1.0, 4.0, 3.0, [1.0, 0.0, 0.1, 19.0], 20.0),
        (0.0, 0.0, 3.0, [0.5, 1.0, 0.1, 7.0], 9.0),
        (1.0, 4.0, nan, [1.0, 0.0, 2.0, 30.0], 0.5),
        (1.0, 4.0, inf, [1.0, 0.0, 2.0, 30.0], 0.5),
        (1.0, 4.0, 3.0, [1.0, 0.0, 2.0, 30.0], inf),
    ] {
        let args = clip::ClipArgs { partials: 100, checks: 0, warmup: 20, clip, outlier };
        let [step, ctl] = [vec![1.0, 0.1, 0.1, 67.0], ctl.to_vec()].map(Data::F32);
        let data =
            |r: &mut Rng| vec![uniform(r, 100, 0.0, norm), Data::F32(vec![loss]), step, ctl, normal(r, 256, 1.0)];
        cases.push(case(&ops::CLIP, args, data));
    }
    // Checks, and the op's own state, that are finite or not.
    for (check, ctl) in [
        (0.0, [1.0, 0.0, 2.0, 30.0]),
        (nan, [1.0, 0.0, 2.0, 30.0]),
        (0.0, [1.0, 0.0, nan, 30.0]),
        (0.0, [1.0, 0.0, 2.0, inf]),
        (0.0, [nan, nan, 2.0, 30.0]),
    ] {
        let args = clip::ClipArgs { partials: 100, checks: 67, warmup: 20, clip: 1.0, outlier: 4.0 };
        let [step, ctl] = [vec![1.0, 0.1, 0.1, 67.0], ctl.to_vec()].map(Data::F32);
        let data = |r: &mut Rng| {
            let mut partial: Vec<f32> = (0..100).map(|_| r.f32()).collect();
            partial.extend((0..67).map(|i| if i == 65 { check } else { 0.0 }));
            vec![Data::F32(partial), Data::F32(vec![3.0]), step, ctl, normal(r, 256, 1.0)]
        };
        cases.push(case(&ops::CLIP, args, data));
    }
    cases
}

pub fn optimizers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (n, skip) in [(1, 0.0), (66, 0.0), (67, 0.0), (5000, 0.0), (100, 1.0)] {
        let ctl = || Data::F32(vec![0.7, skip, 1.0, 9.0]);
        let step = || Data::F32(vec![0.5, 0.1, 0.02, 3.0]);
        let (lr, beta1, beta2, weight_decay) = (3e-3, 0.9, 0.95, 0.1);
        let args = adamw::AdamwArgs { n, lr, beta1, beta2, eps: 1e-8, weight_decay };
        let data = |r: &mut Rng| {
            let [g, w, m, v] = [1.0, 0.5, 0.1, 0.0].map(|scale| normal(r, n, scale));
            let v = if n > 64 { uniform(r, n, 0.0, 0.1) } else { v };
            vec![g, ctl(), step(), w, m, v]
        };
        cases.push(case(&ops::ADAMW, args, data));
        let args = lion::LionArgs { n, lr, beta1, beta2, weight_decay };
        let data = |r: &mut Rng| {
            let [g, w, m] = [1.0, 0.5, 0.1].map(|scale| normal(r, n, scale));
            vec![g, ctl(), step(), w, m]
        };
        cases.push(case(&ops::LION, args, data));
    }
    for (rows, cols, batch, start, apart, offset, transposed, skip) in [
        (1, 1, 1, 0, 0, 0, 0, 0.0),
        (5, 9, 2, 45, 45, 3, 0, 0.0),
        (33, 20, 1, 660, 0, 7, 1, 0.0),
        (64, 32, 2, 0, 0, 0, 1, 1.0),
        (70, 37, 3, 5, 11, 1, 1, 0.0),
        (37, 70, 1, 0, 0, 2, 0, 0.0),
    ] {
        // Matrices of a stack, of which that from `start` on is the first; what lies around them stays.
        let stride = rows * cols + apart;
        let (n, stack, ctl, step) = (
            batch * rows * cols,
            start + batch * stride + 3,
            || Data::F32(vec![0.7, skip, 1.0, 9.0]),
            Data::F32(vec![0.5, 0.1, 0.02, 3.0]),
        );
        let args = muon_momentum::MuonMomentumArgs { rows, cols, batch, start, stride, offset, transposed, beta: 0.95 };
        let data = |r: &mut Rng| vec![normal(r, stack, 1.0), ctl(), normal(r, stack, 0.1), out(offset + n + 1)];
        cases.push(case(&ops::MUON_MOMENTUM, args, data));
        let (lr, shape, weight_decay) = (0.02, 1.3, 0.1);
        let args = muon_update::MuonUpdateArgs {
            rows,
            cols,
            batch,
            start,
            stride,
            offset,
            transposed,
            lr,
            shape,
            weight_decay,
        };
        let data = |r: &mut Rng| vec![normal(r, offset + n, 0.1), ctl(), step, normal(r, stack, 0.5)];
        cases.push(case(&ops::MUON_UPDATE, args, data));
    }
    cases.extend(states());
    for (n, batch) in [(1, 1), (100, 3), (5000, 2), (4096, 1)] {
        let args = muon_normalize::MuonNormalizeArgs { n, batch };
        let data = |r: &mut Rng| vec![uniform(r, batch * n.div_ceil(4096), 0.1, 9.0), normal(r, batch * n, 1.0)];
        cases.push(case(&ops::MUON_NORMALIZE, args, data));
    }
    cases
}

/// bf16 values.
fn upper_halves(r: &mut Rng, n: u32, scale: f32) -> Data {
    Data::Bytes(values(r, n, scale).into_iter().flat_map(|v| half::bf16::from_f32(v).to_le_bytes()).collect())
}

/// A case of a state that is rounded at random. A GPU's arithmetic may differ by an ulp, which now and then changes what a value is
/// rounded to: codes of one byte may differ by one. Values of bf16 have two bytes, so the case has data with which a GPU's
/// arithmetic is exact.
fn rounded(case: Case) -> Case {
    Case {
        near_tie: Box::new(|_, a, b| a.cast_unsigned().abs_diff(b.cast_unsigned()) == 1 || a.abs_diff(b) == 1),
        ..case
    }
}

/// Multiples of 1/16 within +-2.
fn sixteenths(r: &mut Rng, n: u32) -> Vec<f32> {
    (0..n).map(|_| r.below(65) as f32 / 16.0 - 2.0).collect()
}

/// Optimizers with their state in bf16 and int8.
fn states() -> Vec<Case> {
    let mut cases = Vec::new();
    let step = || Data::F32(vec![0.5, 0.1, 0.02, 3.0, 12_345.0, 54_321.0]);
    let exact_m = |r: &mut Rng, n: u32| {
        Data::Bytes(sixteenths(r, n).iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect())
    };
    for (rows, cols, skip) in [(1u32, 4u32, 0.0), (3, 68, 0.0), (70, 64, 0.0), (5, 200, 1.0), (33, 132, 0.0)] {
        let (n, scales) = (rows * cols, rows * cols.div_ceil(64));
        let ctl = || Data::F32(vec![0.5, skip, 1.0, 9.0]);
        let (stream, lr, weight_decay) = (0xffff_fff0, 3e-3, 0.1);
        let args =
            adamw_bf16::AdamwStateArgs { rows, cols, stream, lr, beta1: 0.75, beta2: 0.75, eps: 1e-8, weight_decay };
        let data = |r: &mut Rng| {
            let (g, w) = (Data::F32(sixteenths(r, n)), normal(r, n, 0.5));
            let squares = sixteenths(r, n).iter().flat_map(|v| half::bf16::from_f32(v * v).to_le_bytes()).collect();
            vec![g, ctl(), step(), w, exact_m(r, n), Data::Bytes(squares)]
        };
        cases.push(case(&ops::ADAMW_BF16, args, data));
        let args =
            adamw_int8::AdamwStateArgs { rows, cols, stream, lr, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay };
        let data = |r: &mut Rng| {
            let (g, w, m, v) = (normal(r, n, 1.0), normal(r, n, 0.5), activations(r, n), below(r, n, 256));
            let [m_scales, v_scales] = [uniform(r, scales, 0.0, 0.01), uniform(r, scales, 0.0, 0.01)];
            vec![g, ctl(), step(), w, m, m_scales, Data::Bytes(v.iter().map(|v| *v as u8).collect()), v_scales]
        };
        cases.push(rounded(case(&ops::ADAMW_INT8, args, data)));
        let args = lion_bf16::LionStateArgs { rows, cols, stream, lr, beta1: 0.75, beta2: 0.875, weight_decay };
        let data = |r: &mut Rng| vec![Data::F32(sixteenths(r, n)), ctl(), step(), normal(r, n, 0.5), exact_m(r, n)];
        cases.push(case(&ops::LION_BF16, args, data));
        let args = lion_int8::LionStateArgs { rows, cols, stream, lr, beta1: 0.9, beta2: 0.99, weight_decay };
        let data = |r: &mut Rng| {
            let (g, w, m) = (normal(r, n, 1.0), normal(r, n, 0.5), activations(r, n));
            vec![g, ctl(), step(), w, m, uniform(r, scales, 0.0, 0.01)]
        };
        cases.push(rounded(case(&ops::LION_INT8, args, data)));
    }
    // What is not finite shows in the scale of its block, and so does a block of zeros.
    let (rows, cols) = (2, 192);
    let args = lion_int8::LionStateArgs { rows, cols, stream: 0, lr: 1e-3, beta1: 0.9, beta2: 0.99, weight_decay: 0.0 };
    let data = |_: &mut Rng| {
        let mut g = vec![0.0; 384];
        (g[70], g[200], g[383]) = (f32::NAN, f32::INFINITY, 1e-35);
        let ctl = Data::F32(vec![1.0, 0.0, 1.0, 9.0]);
        let scales = vec![0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0];
        vec![Data::F32(g), ctl, step(), Data::F32(vec![0.0; 384]), Data::Bytes(vec![0; 384]), Data::F32(scales)]
    };
    cases.push(rounded(case(&ops::LION_INT8, args, data)));
    for (rows, cols, batch, start, apart, offset, transposed, skip) in [
        (1u32, 4u32, 1, 0, 0, 0, 0, 0.0),
        (5, 12, 2, 2, 1, 3, 0, 0.0),
        (33, 20, 1, 6, 0, 7, 1, 0.0),
        (64, 32, 2, 0, 0, 0, 1, 1.0),
        (70, 196, 3, 5, 11, 1, 1, 0.0),
        (37, 132, 1, 0, 0, 2, 0, 0.0),
    ] {
        // In rows: where the first matrix begins, and what lies between two.
        let stride = (rows + apart) * cols;
        let (n, stack) = (batch * rows * cols, start * cols + batch * stride);
        let (start, scales) = (start * cols, stack / cols * cols.div_ceil(64));
        let args = |beta| muon_momentum_int8::MuonStateArgs {
            rows,
            cols,
            batch,
            start,
            stride,
            offset,
            transposed,
            stream: 77,
            beta,
        };
        let ctl = || Data::F32(vec![0.5, skip, 1.0, 9.0]);
        let x = || out(offset + n + 1);
        let data = |r: &mut Rng| vec![Data::F32(sixteenths(r, stack)), ctl(), step(), exact_m(r, stack), x()];
        cases.push(case(&ops::MUON_MOMENTUM_BF16, args(0.75), data));
        let data = |r: &mut Rng| {
            let (g, m) = (normal(r, stack, 1.0), activations(r, stack));
            vec![g, ctl(), step(), m, uniform(r, scales, 0.0, 0.01), x()]
        };
        cases.push(rounded(case(&ops::MUON_MOMENTUM_INT8, args(0.95), data)));
    }
    for (n, wrong) in [(1, None), (4097, None), (9000, Some(8191)), (4099, Some(4098)), (5000, Some(0))] {
        let args = finite_bf16::FiniteBf16Args { n, offset: 2 };
        let data = |r: &mut Rng| {
            let Data::Bytes(mut x) = upper_halves(r, n, 1e30) else { unreachable!() };
            // An infinite value, and a finite one next to the end.
            if let Some(at) = wrong {
                x[2 * at..2 * at + 2].copy_from_slice(&0xff80u16.to_le_bytes())
            }
            x.extend(0x7f80u16.to_le_bytes());
            vec![Data::Bytes(x), normal(r, 2 + n.div_ceil(4096), 1.0)]
        };
        cases.push(case(&ops::FINITE_BF16, args, data));
    }
    cases
}
