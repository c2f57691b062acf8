//! Cross-entropy.

mod common;

use common::*;
use cpu_kernels::ops::CROSS_ENTROPY;
use cpu_kernels::ops::cross_entropy::{CrossEntropyArgs, IGNORED};

fn loss(logits: &[f64], target: u32) -> f64 {
    logits.iter().map(|x| x.exp()).sum::<f64>().ln() - logits[target as usize]
}

#[test]
fn losses_and_gradients() {
    for (rows, vocab) in [(1, 1), (3, 5), (6, 33), (4, 513), (7, 4096)] {
        let mut rng = Rng(3);
        let row = 2;
        let targets: Vec<u32> =
            (0..rows + row).map(|r| if r == 4 { IGNORED } else { rng.next() % vocab as u32 }).collect();
        let logits: Vec<f32> = noise(1, rows * vocab).iter().map(|x| 6.0 * x).collect();
        let before = vec![7.0f32; rows + row + 1];
        let args = CrossEntropyArgs { rows: rows as u32, vocab: vocab as u32, row: row as u32, grad_scale: 0.25 };
        let bufs = [(&targets).into(), (&logits).into(), (&before).into()];
        let trained = check(&CROSS_ENTROPY, args, &bufs);
        let kept = check(&CROSS_ENTROPY, CrossEntropyArgs { grad_scale: 0.0, ..args }, &bufs);
        assert_same(&trained[2], &kept[2], "losses with and without gradient");
        assert_same(&kept[1], &logits, "logits");
        assert_eq!((&trained[2][..row], trained[2][rows + row]), (&before[..row], 7.0));
        for (r, logits) in logits.chunks(vocab).enumerate() {
            let (target, loss_r) = (targets[row + r], trained[2][row + r]);
            let gradient_r = &trained[1][r * vocab..(r + 1) * vocab];
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
    let args = CrossEntropyArgs { rows: 1, vocab: 4, row: 0, grad_scale: 1.0 };
    let out = check(&CROSS_ENTROPY, args, &[(&vec![3u32]).into(), (&logits).into(), poison(1)]);
    assert!((out[2][0] - 1.313_261_7).abs() < 1e-3);
    assert_close(&out[1], &[0.731_058_578, 0.0, 0.0, -0.731_058_578], 1e-12);
}

#[test]
fn a_target_that_is_no_token_counts_nothing() {
    let args = CrossEntropyArgs { rows: 1, vocab: 5, row: 0, grad_scale: 1.0 };
    let out = check(&CROSS_ENTROPY, args, &[(&vec![5u32]).into(), (&noise(1, 5)).into(), poison(1)]);
    assert_eq!((&out[1][..], out[2][0]), (&[0.0; 5][..], 0.0));
}
