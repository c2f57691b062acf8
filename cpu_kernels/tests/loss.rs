//! Cross-entropy, in its three stages.

mod common;

use common::*;
use cpu_kernels::ops::cross_entropy::{CrossEntropyArgs, IGNORED};
use cpu_kernels::ops::cross_entropy_gradient::CrossEntropyGradientArgs;
use cpu_kernels::ops::cross_entropy_partial::CrossEntropyPartialArgs;
use cpu_kernels::ops::exit_rows::ExitRowsArgs;
use cpu_kernels::ops::filter_targets::FilterTargetsArgs;
use cpu_kernels::ops::softmax_mean::SoftmaxMeanArgs;
use cpu_kernels::ops::{
    CROSS_ENTROPY, CROSS_ENTROPY_GRADIENT, CROSS_ENTROPY_PARTIAL, EXIT_ROWS, FILTER_TARGETS, SOFTMAX_MEAN,
};

/// Columns of a block.
const BLOCK: usize = 4096;

fn loss(logits: &[f64], target: u32) -> f64 {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    logits.iter().map(|x| (x - top).exp()).sum::<f64>().ln() + top - logits[target as usize]
}

/// All stages over parts of the tokens that end before each of `cuts` and the last: losses behind `row` of 7, and gradients.
fn cross_entropy(
    targets: &Vec<u32>,
    logits: &[f32],
    row: usize,
    cuts: &[usize],
    [grad_scale, entropy]: [f32; 2],
) -> [Vec<f32>; 2] {
    let rows = targets.len() - row;
    let vocab = logits.len() / rows;
    let starts = || [0].into_iter().chain(cuts.iter().copied());
    let parts: Vec<(usize, usize)> = starts().zip(starts().skip(1).chain([vocab])).collect();
    let columns = |(start, end): (usize, usize)| -> Vec<f32> {
        logits.chunks(vocab).flat_map(|logits| &logits[start..end]).copied().collect()
    };
    let blocks = parts.iter().map(|(start, end)| (end - start).div_ceil(BLOCK)).sum::<usize>();
    let (mut partial, mut chosen, mut block) = (vec![f32::NAN; 2 * rows * blocks], vec![0.0; rows], 0);
    for part in &parts {
        let [cols, first] = [part.1 - part.0, part.0].map(|n| n as u32);
        let [rows, row, all] = [rows, row, blocks].map(|n| n as u32);
        let args = CrossEntropyPartialArgs { rows, cols, first, row, block, blocks: all };
        let bufs = [targets.into(), (&columns(*part)).into(), (&partial).into(), (&chosen).into()];
        let out = check(&CROSS_ENTROPY_PARTIAL, args, &bufs);
        (partial, chosen) = (out[2].clone(), out[3].clone());
        block += cols.div_ceil(BLOCK as u32);
    }
    let [n, vocab, blocks, row] = [rows, vocab, blocks, row].map(|n| n as u32);
    let args = CrossEntropyArgs { rows: n, vocab, blocks, row, grad_scale };
    let before = vec![7.0f32; targets.len() + 1];
    let bufs = [targets.into(), (&partial).into(), (&chosen).into(), (&before).into(), poison(3 * rows)];
    let out = check(&CROSS_ENTROPY, args, &bufs);
    let (losses, mut softmax) = (&out[3], out[4].clone());
    for part in parts.iter().filter(|_| entropy != 0.0) {
        let args = SoftmaxMeanArgs { rows: n, cols: (part.1 - part.0) as u32, scale: 1.0 / grad_scale };
        softmax = check(&SOFTMAX_MEAN, args, &[(&columns(*part)).into(), (&softmax).into()])[1].clone();
    }
    let mut gradients = vec![Vec::new(); rows];
    for (start, end) in parts {
        let (cols, first) = ((end - start) as u32, start as u32);
        let args = CrossEntropyGradientArgs { rows: n, cols, first, row, grad_scale, entropy };
        let bufs = [targets.into(), (&softmax).into(), (&columns((start, end))).into()];
        let found = check(&CROSS_ENTROPY_GRADIENT, args, &bufs)[2].clone();
        gradients.iter_mut().zip(found.chunks(end - start)).for_each(|(all, part)| all.extend(part));
    }
    [losses.clone(), gradients.concat()]
}

#[test]
fn losses_and_gradients() {
    for (rows, vocab, cuts) in [
        (1, 1, vec![]),
        (3, 5, vec![]),
        (6, 33, vec![7, 8]),
        (4, 513, vec![512]),
        (7, 4096, vec![]),
        (3, 9000, vec![]),
        (3, 9000, vec![4100, 4101]),
    ] {
        let mut rng = Rng(3);
        let row = 2;
        let targets: Vec<u32> =
            (0..rows + row).map(|r| if r == 4 { IGNORED } else { rng.next() % vocab as u32 }).collect();
        let logits: Vec<f32> = noise(1, rows * vocab).iter().map(|x| 6.0 * x).collect();
        let [losses, gradients] = cross_entropy(&targets, &logits, row, &cuts, [0.25, 0.0]);
        assert_eq!((&losses[..row], losses[rows + row]), (&[7.0; 2][..], 7.0));
        for (r, logits) in logits.chunks(vocab).enumerate() {
            let (target, loss_r) = (targets[row + r], losses[row + r]);
            let gradient_r = &gradients[r * vocab..(r + 1) * vocab];
            if target == IGNORED {
                assert!(loss_r == 0.0 && gradient_r.iter().all(|g| *g == 0.0));
                continue;
            }
            let want = loss(&wide(logits), target);
            assert!((f64::from(loss_r) - want).abs() < 4e-6, "{loss_r} {want}");
            let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            let share = |i: usize| f64::from(logits[i]).exp() / total - f64::from(u32::from(i == target as usize));
            let want: Vec<f64> = (0..vocab).map(|i| 0.25 * share(i)).collect();
            assert_close(gradient_r, &want, 1e-11);
        }
    }
}

#[test]
fn large_logits() {
    let logits = vec![1e4f32, 0.0, -1e4, 1e4 - 1.0];
    for cuts in [vec![], vec![1], vec![2, 3]] {
        let [losses, gradients] = cross_entropy(&vec![3], &logits, 0, &cuts, [1.0, 0.0]);
        assert!((losses[0] - 1.313_261_7).abs() < 1e-3);
        assert_close(&gradients, &[0.731_058_578, 0.0, 0.0, -0.731_058_578], 1e-12);
    }
}

/// What `entropy` adds is the gradient of -entropy * (-sum of p ln p), by differences.
#[test]
fn the_gradient_of_the_entropy() {
    let entropy = |logits: &[f64]| -> f64 {
        let total = logits.iter().map(|x| x.exp()).sum::<f64>();
        logits.iter().map(|x| x.exp() / total * (total.ln() - x)).sum()
    };
    for (rows, vocab, cuts) in [(1, 1, vec![]), (3, 33, vec![]), (2, 33, vec![1, 20]), (2, 5000, vec![4100])] {
        let targets: Vec<u32> = (0..rows as u32).map(|r| if r == 2 { IGNORED } else { r }).collect();
        let logits: Vec<f32> = noise(1, rows * vocab).iter().map(|x| 6.0 * x).collect();
        let [losses, plain] = cross_entropy(&targets, &logits, 0, &cuts, [0.25, 0.0]);
        let [same, gradients] = cross_entropy(&targets, &logits, 0, &cuts, [0.25, 0.3]);
        assert_eq!(same, losses);
        for (r, logits) in logits.chunks(vocab).enumerate() {
            let mut logits = wide(logits);
            for c in (0..vocab).step_by(vocab.div_ceil(40)) {
                let own = logits[c];
                let [above, below] = [1e-4, -1e-4].map(|h| {
                    logits[c] = own + h;
                    entropy(&logits)
                });
                logits[c] = own;
                let want = if targets[r] == IGNORED { 0.0 } else { -0.25 * 0.3 * (above - below) / 2e-4 };
                let have = f64::from(gradients[r * vocab + c]) - f64::from(plain[r * vocab + c]);
                assert!((have - want).abs() < 2e-7, "row {r}, token {c} of {vocab}: {have} {want}");
            }
        }
    }
    // A token that is ruled out adds nothing.
    let [_, gradients] = cross_entropy(&vec![1], &[f32::NEG_INFINITY, 0.0, 0.0], 0, &[], [1.0, 0.3]);
    assert_close(&gradients, &[0.0, -0.5, 0.5], 1e-12);
}

#[test]
fn the_hardest_targets_of_each_sequence_are_kept() {
    let losses = vec![1.0f32, 3.0, 2.0, 3.0, 0.0, 0.0, 0.0, 7.0, 5.0, 5.0];
    let targets: Vec<u32> = (10..20).collect();
    let args = FilterTargetsArgs { rows: 10, seq: 4, keep: 2 };
    let kept = &check(&FILTER_TARGETS, args, &[(&losses).into(), (&targets).into(), poison(10)])[2];
    let kept: Vec<u32> = kept.iter().map(|x| x.to_bits()).collect();
    let no = IGNORED;
    assert_eq!(kept, [no, 11, no, 13, 14, no, no, 17, 18, 19]);
}

/// Rows of 1 and of many logits, on both sides of their own entropy; one that has ended; a token that is ruled out; a NaN.
#[test]
fn rows_whose_entropy_is_below_a_threshold_end() {
    let ends = |logits: &[f32], before: u32, threshold: f32| {
        let args = ExitRowsArgs { rows: 1, vocab: logits.len() as u32, passes: 2, threshold };
        check(&EXIT_ROWS, args, &[(&logits.to_vec()).into(), (&vec![before]).into()])[1][0].to_bits()
    };
    for vocab in [2, 33, 5000] {
        let logits: Vec<f32> = noise(7, vocab).iter().map(|x| 5.0 * x).collect();
        let p: Vec<f64> = logits.iter().map(|x| f64::from(*x).exp()).collect();
        let sum: f64 = p.iter().sum();
        let entropy = p.iter().map(|p| -p / sum * (p / sum).ln()).sum::<f64>() as f32;
        assert_eq!([-1e-4, 1e-4].map(|more| ends(&logits, 0, entropy * (1.0 + more))), [0, 2], "{vocab} logits");
        assert_eq!([-1e-4, 1e-4].map(|more| ends(&logits, 1, entropy * (1.0 + more))), [1, 1], "{vocab} logits");
    }
    assert_eq!([0.69, 0.70].map(|nats| ends(&[1.0, f32::NEG_INFINITY, 1.0], 0, nats)), [0, 2]);
    assert_eq!(ends(&[1.0, f32::NAN, 1.0], 0, f32::INFINITY), 0);
}

/// A block of tokens that are ruled out counts nothing, and what is no number is not hidden.
#[test]
fn logits_that_are_not_finite() {
    let ruled_out = [vec![f32::NEG_INFINITY; 2], vec![0.0; 2]].concat();
    for cuts in [vec![], vec![2], vec![1]] {
        let [losses, gradients] = cross_entropy(&vec![3], &ruled_out, 0, &cuts, [1.0, 0.0]);
        assert!((losses[0] - std::f32::consts::LN_2).abs() < 1e-6, "{losses:?}");
        assert_close(&gradients, &[0.0, 0.0, 0.5, -0.5], 1e-12);
        let [losses, _] = cross_entropy(&vec![3], &[0.0, f32::NAN, 0.0, 0.0], 0, &cuts, [1.0, 0.0]);
        assert!(losses[0].is_nan());
    }
}

#[test]
fn a_target_that_is_no_token_counts_nothing() {
    let mut logits = noise(1, 5);
    for cuts in [vec![], vec![3]] {
        let [losses, gradients] = cross_entropy(&vec![5], &logits, 0, &cuts, [1.0, 0.0]);
        assert_eq!((&gradients[..], losses[0]), (&[0.0; 5][..], 0.0));
        logits[1] = f32::NAN;
    }
}
