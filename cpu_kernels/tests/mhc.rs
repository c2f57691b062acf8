//! The residual streams, against the formulas in f64 and their differences.

mod common;

use common::*;
use cpu_kernels::ops::*;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn params(streams: usize) -> usize {
    if streams == 2 { 9 } else { 40 }
}

/// Permutations of 0..4 in lexicographic order.
fn permutations() -> Vec<[usize; 4]> {
    let mut all = Vec::new();
    for a in 0..4 {
        for b in (0..4).filter(|b| *b != a) {
            for c in (0..4).filter(|c| ![a, b].contains(c)) {
                all.push([a, b, c, 6 - a - b - c]);
            }
        }
    }
    all
}

/// h_pre, h_post, H_res
fn weights(n: usize, p: &[f64]) -> Vec<f64> {
    let (residual, rest) = p.split_at(p.len() - 4 * n);
    let pre = (0..n).map(|i| sigmoid(rest[i] + rest[n + i]));
    let post = (0..n).map(|i| 2.0 * sigmoid(rest[2 * n + i] + rest[3 * n + i]));
    let mut res = vec![0.0; n * n];
    if n == 2 {
        let a = sigmoid(residual[0]);
        res = vec![a, 1.0 - a, 1.0 - a, a];
    } else {
        let total: f64 = residual.iter().map(|l| l.exp()).sum();
        for (l, p) in residual.iter().zip(permutations()) {
            (0..4).for_each(|i| res[4 * i + p[i]] += l.exp() / total);
        }
    }
    pre.chain(post).chain(res).collect()
}

#[test]
fn weights_and_their_gradient() {
    for streams in [2, 4] {
        let count = streams * (streams + 2);
        let p: Vec<f32> = noise(7, params(streams)).iter().map(|x| 3.0 * x).collect();
        let args = mhc_weights::MhcWeightsArgs { streams: streams as u32 };
        let coef = &check(&MHC_WEIGHTS, args, &[(&p).into(), poison(count)])[1];
        assert_close(coef, &weights(streams, &wide(&p)), 1e-12);
        for i in 0..streams {
            let row: f32 = (0..streams).map(|j| coef[2 * streams + i * streams + j]).sum();
            let column: f32 = (0..streams).map(|j| coef[2 * streams + j * streams + i]).sum();
            assert!((row - 1.0).abs() < 1e-6 && (column - 1.0).abs() < 1e-6);
        }

        let (dcoef, before) = (noise(8, count), noise(9, p.len()));
        let args = mhc_weights_backward::MhcWeightsBackwardArgs { streams: streams as u32 };
        let bufs = [(&p).into(), coef.into(), (&dcoef).into(), (&before).into()];
        let dp = &check(&MHC_WEIGHTS_BACKWARD, args, &bufs)[3];
        let want = gradient(&p, |p| dot(&weights(streams, p), &dcoef));
        let want: Vec<f64> = want.iter().zip(&before).map(|(d, b)| d + f64::from(*b)).collect();
        assert_close(dp, &want, 1e-12);
    }
}

#[test]
fn expand_and_collapse() {
    for (n, streams) in [(1, 1), (50, 2), (1030, 4), (2500, 3)] {
        let (x, many) = (noise(1, n), noise(2, n * streams));
        let args = mhc_expand::MhcExpandArgs { n: n as u32, streams: streams as u32, scale: 0.5 };
        let y = &check(&MHC_EXPAND, args, &[(&x).into(), poison(n * streams)])[1];
        assert!((0..n * streams).all(|i| y[i] == 0.5 * x[i % n]));
        let args = mhc_collapse::MhcCollapseArgs { n: n as u32, streams: streams as u32, scale: 0.25 };
        let y = &check(&MHC_COLLAPSE, args, &[(&many).into(), poison(n)])[1];
        let want: Vec<f64> =
            (0..n).map(|e| 0.25 * (0..streams).map(|i| f64::from(many[i * n + e])).sum::<f64>()).collect();
        assert_close(y, &want, 1e-12);
    }
}

fn pre(n: usize, h: &[f64], x: &[f64]) -> Vec<f64> {
    (0..n).map(|e| (0..h.len()).map(|i| h[i] * x[i * n + e]).sum()).collect()
}

fn post(n: usize, streams: usize, coef: &[f64], x: &[f64], f: &[f64]) -> Vec<f64> {
    let (h, res) = coef[streams..].split_at(streams);
    let at = |i: usize, e: usize| (0..streams).map(|j| res[i * streams + j] * x[j * n + e]).sum::<f64>() + h[i] * f[e];
    (0..streams * n).map(|k| at(k / n, k % n)).collect()
}

/// Adds the blocks of a first stage.
fn total(partial: &[f32], width: usize) -> Vec<f32> {
    let args = sum_rows::SumRowsArgs { rows: (partial.len() / width) as u32, cols: width as u32, offset: 0, beta: 0.0 };
    check(&SUM_ROWS, args, &[partial.into(), poison(width)]).swap_remove(1)
}

#[test]
fn pre_and_its_gradients() {
    for (n, streams) in [(1, 2), (37, 4), (40, 1), (4100, 2), (9000, 4)] {
        let (n32, s32) = (n as u32, streams as u32);
        let (coef, x, du) = (noise(1, streams * (streams + 2)), noise(2, n * streams), noise(3, n));
        let h = &coef[..streams];
        let args = mhc_pre::MhcPreArgs { n: n32, streams: s32 };
        let u = &check(&MHC_PRE, args, &[(&coef).into(), (&x).into(), poison(n)])[2];
        assert_close(u, &pre(n, &wide(h), &wide(&x)), 1e-12);

        let before = noise(4, n * streams);
        for beta in [0.0f32, 1.0] {
            let args = mhc_pre_backward::MhcPreBackwardArgs { n: n32, streams: s32, beta };
            let dx = if beta == 0.0 { poison(n * streams) } else { (&before).into() };
            let dx = &check(&MHC_PRE_BACKWARD, args, &[(&coef).into(), (&du).into(), dx])[2];
            let old = |k: usize| f64::from(beta * before[k]);
            let want: Vec<f64> =
                (0..n * streams).map(|k| old(k) + f64::from(h[k / n]) * f64::from(du[k % n])).collect();
            assert_close(dx, &want, 1e-12);
        }

        let args = mhc_pre_backward_coef::MhcPreBackwardCoefArgs { n: n32, streams: s32 };
        let bufs = [(&x).into(), (&du).into(), poison(n.div_ceil(cpu_kernels::simd::math::BLOCK) * streams)];
        let partial = &check(&MHC_PRE_BACKWARD_COEF, args, &bufs)[2];
        assert_close(&total(partial, streams), &gradient(h, |h| dot(&pre(n, h, &wide(&x)), &du)), 1e-11);
    }
}

#[test]
fn post_and_its_gradients() {
    for (n, streams) in [(1, 2), (37, 4), (40, 1), (4100, 2), (9000, 4)] {
        let (n32, s32) = (n as u32, streams as u32);
        let (coef, x, f) = (noise(1, streams * (streams + 2)), noise(2, n * streams), noise(3, n));
        let dy = noise(4, n * streams);
        let args = mhc_post::MhcPostArgs { n: n32, streams: s32 };
        let y = &check(&MHC_POST, args, &[(&coef).into(), (&x).into(), (&f).into(), poison(n * streams)])[3];
        let (coef_w, x_w, f_w) = (wide(&coef), wide(&x), wide(&f));
        assert_close(y, &post(n, streams, &coef_w, &x_w, &f_w), 1e-12);

        let args = mhc_post_backward::MhcPostBackwardArgs { n: n32, streams: s32 };
        let bufs = [(&coef).into(), (&dy).into(), poison(n * streams), poison(n)];
        let out = check(&MHC_POST_BACKWARD, args, &bufs);
        if n <= 100 {
            assert_close(&out[2], &gradient(&x, |x| dot(&post(n, streams, &coef_w, x, &f_w), &dy)), 1e-11);
            assert_close(&out[3], &gradient(&f, |f| dot(&post(n, streams, &coef_w, &x_w, f), &dy)), 1e-11);
        }

        let width = streams * (streams + 1);
        let args = mhc_post_backward_coef::MhcPostBackwardCoefArgs { n: n32, streams: s32 };
        let bufs = [(&x).into(), (&f).into(), (&dy).into(), poison(n.div_ceil(cpu_kernels::simd::math::BLOCK) * width)];
        let partial = &check(&MHC_POST_BACKWARD_COEF, args, &bufs)[3];
        let want = gradient(&coef, |coef| dot(&post(n, streams, coef, &x_w, &f_w), &dy));
        assert_close(&total(partial, width), &want[streams..], 1e-11);
    }
}
