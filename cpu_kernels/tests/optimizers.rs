//! Clipping and the optimizers, against their formulas in f64.

mod common;

use common::*;
use cpu_kernels::ops::*;

/// (ctl, stats) after one step. The last `args.checks` values are no part of the norm.
fn clip_step(args: clip::ClipArgs, partial: &[f32], loss: f32, slot: f32, ctl: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let step = vec![1.0, 1.0, 1.0, slot];
    let args = clip::ClipArgs { partials: partial.len() as u32 - args.checks, ..args };
    let bufs = [partial.into(), (&vec![loss]).into(), (&step).into(), ctl.into(), (&vec![-1.0; 256]).into()];
    let mut out = check(&CLIP, args, &bufs);
    let stats = out.pop().unwrap();
    (out.pop().unwrap(), stats)
}

#[test]
fn clip_counts_and_skips() {
    let args = clip::ClipArgs { partials: 0, checks: 0, warmup: 2, clip: 1.0, outlier: 3.0 };
    let (ctl, stats) = clip_step(args, &[9.0, 16.0], 2.5, 65.0, &[0.0; 4]);
    assert!((ctl[0] - 0.2).abs() < 1e-6);
    assert_eq!(ctl[1..], [0.0, 5.0, 1.0]);
    assert_eq!(stats[4..8], [2.5, 5.0, 0.0, 0.0]);
    assert!(stats[..4].iter().chain(&stats[8..]).all(|s| *s == -1.0));

    let (ctl, _) = clip_step(args, &[400.0], 2.5, 0.0, &ctl);
    assert_eq!(ctl[1..], [0.0, 6.5, 2.0], "no outliers before warmup is over");
    let (after, stats) = clip_step(args, &[400.0], 2.5, 3.0, &ctl);
    // 0.9 * 6.5 + 0.1 * 3 * 6.5
    assert_eq!(after[1], 1.0);
    assert!((after[2] - 7.8).abs() < 1e-5 && after[3] == 3.0, "an outlier counts as just at the limit");
    assert_eq!(stats[12..16], [2.5, 20.0, 1.0, 0.0]);
    for (partial, loss) in [(f32::NAN, 1.0), (f32::INFINITY, 1.0), (1.0, f32::NAN), (1.0, f32::INFINITY)] {
        assert_eq!(clip_step(args, &[partial], loss, 0.0, &ctl).0[1..], [1.0, 6.5, 2.0]);
    }
    let checked = clip::ClipArgs { checks: 2, ..args };
    assert_eq!(clip_step(checked, &[0.25, 0.0, 0.0], 1.0, 0.0, &ctl).0, clip_step(args, &[0.25], 1.0, 0.0, &ctl).0);
    for wrong in [f32::NAN, f32::INFINITY] {
        assert_eq!(clip_step(checked, &[0.25, 0.0, wrong], 1.0, 0.0, &ctl).0[1..], [1.0, 6.5, 2.0]);
    }
    let free = clip::ClipArgs { clip: 0.0, outlier: 0.0, ..args };
    assert_eq!(clip_step(free, &[1e8], 1.0, 0.0, &ctl).0[..2], [1.0, 0.0]);
    assert_eq!(clip_step(args, &[0.25], 1.0, 0.0, &ctl).0[0], 1.0);
}

const FACTOR: f32 = 0.7;
const STEP: [f32; 4] = [0.8, 0.271, 0.142_625, 0.0];

fn ctl(skip: bool) -> Data {
    Data::F(vec![FACTOR, f32::from(skip), 0.0, 0.0])
}

#[test]
fn adamw_and_lion() {
    let (n, wd) = (1003, 0.1);
    let (g, w, m) = (noise(1, n), noise(2, n), noise(3, n));
    let v: Vec<f32> = noise(4, n).iter().map(|v| v * v).collect();
    let adam = adamw::AdamwArgs { n: n as u32, lr: 3e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: wd };
    let lion_args = lion::LionArgs { n: n as u32, lr: 1e-3, beta1: 0.9, beta2: 0.99, weight_decay: wd };
    for skip in [false, true] {
        let step = Data::F(STEP.to_vec());
        let bufs = [(&g).into(), ctl(skip), step.clone(), (&w).into(), (&m).into(), (&v).into()];
        let out = check(&ADAMW, adam, &bufs);
        let lion_out = check(&LION, lion_args, &[(&g).into(), ctl(skip), step, (&w).into(), (&m).into()]);
        if skip {
            assert_eq!((&out[3], &out[4], &out[5]), (&w, &m, &v));
            assert_eq!((&lion_out[3], &lion_out[4]), (&w, &m));
            continue;
        }
        for i in 0..n {
            let [g, w, m, v] = [g[i] * FACTOR, w[i], m[i], v[i]].map(f64::from);
            let [s0, s1, s2, _] = STEP.map(f64::from);
            let (m2, v2, lr) = (0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g, 3e-3 * s0);
            let w2 = w * (1.0 - lr * 0.1) - lr * (m2 / s1) / ((v2 / s2).sqrt() + 1e-8);
            for (got, want) in [(out[3][i], w2), (out[4][i], m2), (out[5][i], v2)] {
                assert!((f64::from(got) - want).abs() < 1e-6, "{got} {want}");
            }
            let lr = 1e-3 * s0;
            let w2 = w * (1.0 - lr * 0.1) - lr * (0.9 * m + 0.1 * g).signum();
            for (got, want) in [(lion_out[3][i], w2), (lion_out[4][i], 0.99 * m + 0.01 * g)] {
                assert!((f64::from(got) - want).abs() < 1e-6, "{got} {want}");
            }
        }
    }
}

#[test]
fn lion_stays_where_nothing_pulls() {
    let args = lion::LionArgs { n: 2, lr: 1.0, beta1: 0.9, beta2: 0.99, weight_decay: 0.0 };
    let zero = vec![0.0, -0.0];
    let bufs = [(&zero).into(), ctl(false), Data::F(STEP.to_vec()), (&vec![5.0, 6.0]).into(), (&zero).into()];
    assert_eq!(check(&LION, args, &bufs)[3], [5.0, 6.0]);
}

#[test]
fn muon_moves_along_the_direction() {
    for (rows, cols, batch, offset, start, apart) in
        [(1, 1, 1, 0, 0, 0), (5, 40, 3, 3, 200, 0), (48, 32, 2, 16, 0, 7), (100, 17, 2, 0, 1700, 1700)]
    {
        let (n, stride) = (rows * cols, rows * cols + apart);
        // A stack of matrices, of which that from `start` on is the first that is meant.
        let stack = start + batch * stride;
        let (g, m, w) = (noise(1, stack), noise(2, stack), noise(3, stack));
        let [r32, c32, batch32, start32, stride32, offset32] =
            [rows, cols, batch, start, stride, offset].map(|n| n as u32);
        for (transposed, skip) in [(0, false), (1, false), (1, true)] {
            // The place of an element in the stack, and in x.
            let elements = || (0..batch * n).map(|i| (start + i / n * stride + i % n, i / n * n, i % n));
            let place = |i: usize| offset + if transposed == 1 { i % cols * rows + i / cols } else { i };
            let args = muon_momentum::MuonMomentumArgs {
                rows: r32,
                cols: c32,
                batch: batch32,
                start: start32,
                stride: stride32,
                offset: offset32,
                transposed,
                beta: 0.95,
            };
            let bufs = [(&g).into(), ctl(skip), (&m).into(), (&vec![9.0; offset + batch * n + 2]).into()];
            let out = check(&MUON_MOMENTUM, args, &bufs);
            let (moved, x) = (&out[2], &out[3]);
            for (at, before, i) in elements() {
                let (g, m) = (f64::from(g[at] * FACTOR), f64::from(m[at]));
                let m2 = 0.95 * m + 0.05 * g;
                assert!((f64::from(x[before + place(i)]) - (0.05 * g + 0.95 * m2)).abs() < 1e-6);
                assert!((f64::from(moved[at]) - if skip { m } else { m2 }).abs() < 1e-6);
            }
            assert!(x[..offset].iter().chain(&x[offset + batch * n..]).all(|x| *x == 9.0));

            let (lr, shape, weight_decay) = (0.02, 1.5, 0.1);
            let args = muon_update::MuonUpdateArgs {
                rows: r32,
                cols: c32,
                batch: batch32,
                start: start32,
                stride: stride32,
                offset: offset32,
                transposed,
                lr,
                shape,
                weight_decay,
            };
            let bufs = [x.into(), ctl(skip), Data::F(STEP.to_vec()), (&w).into()];
            let moved = &check(&MUON_UPDATE, args, &bufs)[3];
            let mut rest = w.clone();
            for (at, before, i) in elements() {
                let (w, lr) = (f64::from(w[at]), 0.02 * f64::from(STEP[0]));
                let want = if skip { w } else { w * (1.0 - lr * 0.1) - lr * 1.5 * f64::from(x[before + place(i)]) };
                assert!((f64::from(moved[at]) - want).abs() < 1e-6);
                rest[at] = moved[at];
            }
            assert_eq!(*moved, rest, "what lies between the matrices stays");
        }
    }
}

const KEYED: [f32; 6] = [0.8, 0.271, 0.142_625, 0.0, 4321.0, 99.0];

fn bf16(x: &[f32]) -> Data {
    Data::B(x.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect())
}

/// The values that bf16 bits say.
fn of_bf16(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16)).collect()
}

/// What momentum code i of rows of `cols` says.
fn of_int8(codes: &[u8], scales: &[f32], cols: usize) -> Vec<f32> {
    let blocks = cols.div_ceil(64);
    let value = |(i, code): (usize, &u8)| f32::from(code.cast_signed()) * scales[i / cols * blocks + i % cols / 64];
    codes.iter().enumerate().map(value).collect()
}

/// The momentum of Muon after a step for each of many keys: its mean, and the largest distance from what it is in f32 relative to
/// that of the neighbours.
#[test]
fn state_is_rounded_to_a_neighbour_at_random() {
    let (rows, cols, keys) = (2, 100, 600);
    let (n, scales) = (rows * cols, rows * 2);
    let args = muon_momentum_int8::MuonStateArgs {
        rows: rows as u32,
        cols: cols as u32,
        batch: 1,
        start: 0,
        stride: n as u32,
        offset: 0,
        transposed: 0,
        stream: 5,
        beta: 0.95,
    };
    let (mut g, m) = (noise(1, n), noise(2, n));
    // Some values change by less than half of the distance between neighbours.
    (0..n).step_by(3).for_each(|i| g[i] = m[i] + 0.05 * g[i]);
    for int8 in [false, true] {
        let (mut sums, mut values) = (vec![0.0f64; n], [vec![0.0; n], vec![0.0; n]]);
        for key in 0..keys {
            let step = Data::F(vec![1.0, 0.1, 0.1, 0.0, key as f32, 7.0]);
            let mut bufs = vec![(&g).into(), Data::F(vec![1.0, 0.0, 0.0, 0.0]), step];
            let x = poison(n);
            let out = if int8 {
                let codes = m.iter().map(|m| ((m * 127.0) as i8).cast_unsigned()).collect();
                bufs.extend([Data::B(codes), Data::F(vec![1.0 / 127.0; scales]), x]);
                let out = check_bytes(&MUON_MOMENTUM_INT8, args, &bufs);
                of_int8(&out[3], &bytemuck::pod_collect_to_vec::<u8, f32>(&out[4]), cols)
            } else {
                bufs.extend([bf16(&m), x]);
                of_bf16(&check_bytes(&MUON_MOMENTUM_BF16, args, &bufs)[3])
            };
            let [least, most] = &mut values;
            for (i, v) in out.iter().enumerate() {
                sums[i] += f64::from(*v) / f64::from(keys);
                (least[i], most[i]) = if key == 0 { (*v, *v) } else { (v.min(least[i]), v.max(most[i])) };
            }
        }
        for i in 0..n {
            let old = if int8 { f32::from((m[i] * 127.0) as i8) / 127.0 } else { of_bf16(&bytes(&bf16(&m[i..=i])))[0] };
            let exact = 0.95 * f64::from(old) + 0.05 * f64::from(g[i]);
            let gap = if int8 { 1.0 / 127.0 } else { exact.abs().log2().floor().exp2() / 128.0 };
            let [least, most] = [values[0][i], values[1][i]].map(f64::from);
            assert!(most - least < 1.01 * gap, "{i}: {least} to {most}");
            if int8 && (exact - f64::from(old)).abs() > gap {
                let nearest = (exact - least).abs() < 0.51 * gap;
                assert!(most == least && nearest, "{i}: {least} to {most}, {exact} is far from {old}");
                continue;
            }
            // Five standard errors of a value that is one of two.
            let error = 2.5 * gap / f64::from(keys).sqrt();
            assert!((sums[i] - exact).abs() < error, "{i}: {} is not {exact}", sums[i]);
        }
    }
}

/// Each form does what `adamw` and `lion` do in f32 from the values that it holds, up to what it rounds.
#[test]
fn adamw_and_lion_in_fewer_bits() {
    let (rows, cols) = (7, 132);
    let (n, scales) = (rows * cols, rows * 3);
    let (r32, c32) = (rows as u32, cols as u32);
    let (g, w, m) = (noise(1, n), noise(2, n), noise(3, n));
    let v: Vec<f32> = noise(4, n).iter().map(|v| v * v).collect();
    let (lr, weight_decay) = (3e-3, 0.1);
    let adam = adamw_int8::AdamwStateArgs {
        rows: r32,
        cols: c32,
        stream: 1,
        lr,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay,
    };
    let lion = lion_int8::LionStateArgs { rows: r32, cols: c32, stream: 1, lr, beta1: 0.9, beta2: 0.99, weight_decay };
    let adam_f32 = adamw::AdamwArgs { n: n as u32, lr, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay };
    let lion_f32 = lion::LionArgs { n: n as u32, lr, beta1: 0.9, beta2: 0.99, weight_decay };
    let m_codes: Vec<u8> = m.iter().map(|m| ((m * 127.0) as i8).cast_unsigned()).collect();
    let v_codes: Vec<u8> = v.iter().map(|v| (v.sqrt() * 255.0).max(1.0) as u8).collect();
    let [m_scales, v_scales] = [127.0, 255.0].map(|most| vec![1.0 / most; scales]);
    let squares = |codes: &[u8], scales: &[f32]| -> Vec<f32> {
        let root = |(i, code): (usize, &u8)| f32::from(*code) * scales[i / cols * 3 + i % cols / 64];
        codes.iter().enumerate().map(root).map(|root| root * root).collect()
    };
    for skip in [false, true] {
        let head = |step: &[f32]| vec![(&g).into(), ctl(skip), step.into(), (&w).into()];
        let floats = bytemuck::pod_collect_to_vec::<u8, f32>;
        let expected = |m: &[f32], v: &[f32]| {
            let adam = check(&ADAMW, adam_f32, &[head(&STEP), vec![m.into(), v.into()]].concat());
            let lion = check(&LION, lion_f32, &[head(&STEP), vec![m.into()]].concat());
            (adam, lion)
        };
        // 8 bits.
        let state = vec![Data::B(m_codes.clone()), (&m_scales).into(), Data::B(v_codes.clone()), (&v_scales).into()];
        let out = check_bytes(&ADAMW_INT8, adam, &[head(&KEYED), state.clone()].concat());
        let lion_out = check_bytes(&LION_INT8, lion, &[head(&KEYED), state[..2].to_vec()].concat());
        let (adam_want, lion_want) = expected(&of_int8(&m_codes, &m_scales, cols), &squares(&v_codes, &v_scales));
        assert_same(&floats(&out[3]), &adam_want[3], "AdamW's weights");
        assert_same(&floats(&lion_out[3]), &lion_want[3], "Lion's weights");
        let near = |got: &[f32], want: &[f32], most: f32| {
            assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() <= most), "beyond {most}");
        };
        near(&of_int8(&out[4], &floats(&out[5]), cols), &adam_want[4], 1.01 / 127.0);
        near(&of_int8(&lion_out[4], &floats(&lion_out[5]), cols), &lion_want[4], 1.01 / 127.0);
        let roots = |v: &[f32]| v.iter().map(|v| v.sqrt()).collect::<Vec<_>>();
        near(&roots(&squares(&out[6], &floats(&out[7]))), &roots(&adam_want[5]), 1.01 / 255.0);
        assert!(out[6].iter().all(|code| *code > 0), "no second moment becomes 0");
        if skip {
            assert!(out[4] == m_codes && out[6] == v_codes && lion_out[4] == m_codes, "a skipped step moves nothing");
        }
        // bf16.
        let state = vec![bf16(&m), bf16(&v)];
        let out = check_bytes(&ADAMW_BF16, adam, &[head(&KEYED), state.clone()].concat());
        let lion_out = check_bytes(&LION_BF16, lion, &[head(&KEYED), state[..1].to_vec()].concat());
        let [m, v] = [0, 1].map(|i| of_bf16(&bytes(&state[i])));
        let (adam_want, lion_want) = expected(&m, &v);
        assert_same(&floats(&out[3]), &adam_want[3], "AdamW's weights");
        assert_same(&floats(&lion_out[3]), &lion_want[3], "Lion's weights");
        for (got, want) in [(&out[4], &adam_want[4]), (&out[5], &adam_want[5]), (&lion_out[4], &lion_want[4])] {
            assert!(of_bf16(got).iter().zip(want).all(|(got, want)| (got - want).abs() <= want.abs() / 128.0));
        }
        if skip {
            assert!(out[4] == bytes(&state[0]) && out[5] == bytes(&state[1]) && lion_out[4] == bytes(&state[0]));
        }
    }
}

#[test]
fn muon_normalize_divides_by_the_norm() {
    for (n, batch) in [(1, 1), (100, 3), (5000, 2), (20000, 3)] {
        let x = noise(1, n * batch);
        let blocks = n.div_ceil(cpu_kernels::simd::math::BLOCK);
        let [n32, rows, step] = [n, batch, blocks].map(|n| n as u32);
        let args = sum_squares::SumSquaresArgs { n: n32, rows, start: 0, stride: n32, offset: 0, step, scale: 1.0 };
        let partial = &check(&SUM_SQUARES, args, &[(&x).into(), poison(blocks * batch)])[1];
        let args = muon_normalize::MuonNormalizeArgs { n: n as u32, batch: batch as u32 };
        let y = &check(&MUON_NORMALIZE, args, &[partial.into(), (&x).into()])[1];
        let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() + 1e-7;
        let want: Vec<f64> = x.chunks(n).flat_map(|x| x.iter().map(|v| f64::from(*v) / norm(x))).collect();
        assert_close(y, &want, 1e-12);
    }
}
