//! The quantisers: every level against an independent definition, bit for bit.

use cpu_kernels::{Level, matrix::quantize};

mod random;
use random::{Rng, pack_codes};

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Rows of several magnitudes, with zeros, halves, infinities and NaN among them.
fn activations(rng: &mut Rng, rows: usize, dim: usize) -> Vec<f32> {
    let mut x = Vec::new();
    for r in 0..rows {
        let size = [1.0, 1e-12, 0.0, 1e30, 127.0][r % 5];
        x.extend((0..dim).map(|_| size * rng.symmetric()));
        let row = &mut x[r * dim..];
        match r {
            4 => row.iter_mut().for_each(|x| *x = (*x * 2.0).round() / 2.0),
            5 => row[dim / 2] = f32::NAN,
            6 => row[dim - 1] = f32::INFINITY,
            7 => row.fill(-0.0),
            _ => {}
        }
    }
    x
}

#[test]
fn rows_equal_definition() {
    let mut rng = Rng::new(7);
    for dim in [1, 7, 16, 31, 32, 33, 64, 100, 256, 768] {
        let rows = 12;
        let mut x = activations(&mut rng, rows, dim);
        // A step of exactly 1, so that halves are ties.
        x[4 * dim] = -127.0;
        let mut want = (Vec::new(), Vec::new());
        for row in x.chunks(dim) {
            let max = row.iter().fold(1e-8f32, |m, x| m.max(x.abs()));
            let step = if row.iter().all(|x| x.is_finite()) { max / 127.0 } else { f32::NAN };
            want.1.push(step);
            want.0.extend(row.iter().map(|x| match (x / step).round_ties_even().clamp(-127.0, 127.0) {
                t if t.is_nan() => -127,
                t => t as i8,
            }));
        }
        for level in Level::available() {
            let (mut xq, mut steps) = (vec![99; rows * dim], vec![f32::NAN; rows]);
            quantize::rows(level, &x, dim, &mut xq, &mut steps);
            assert_eq!(xq, want.0, "{level} dim {dim}");
            assert_eq!(bits(&steps), bits(&want.1), "{level} dim {dim}");
        }
    }
}

/// f16, half to even, by search among all finite f16 values: slow and obvious. `x` is at least 2^-14.
fn nearest_f16(x: f32) -> f32 {
    let value = |h: u32| (1.0 + f64::from(h & 0x3ff) / 1024.0) * 2f64.powi((h >> 10) as i32 - 15);
    let distance = |h: u32| (value(h) - f64::from(x)).abs();
    // 0x7c00 would be 65,536: it stands for infinity.
    let (mut low, mut high) = (0x400, 0x7c00);
    while high - low > 1 {
        let mid = (low + high) / 2;
        if value(mid) <= f64::from(x) { low = mid } else { high = mid }
    }
    let h = match distance(low).total_cmp(&distance(high)) {
        std::cmp::Ordering::Less => low,
        std::cmp::Ordering::Greater => high,
        std::cmp::Ordering::Equal => low + (low & 1),
    };
    if h == 0x7c00 { f32::INFINITY } else { value(h) as f32 }
}

fn tree_sum(t: &[f32]) -> f32 {
    match t.len() {
        1 => t[0],
        n => tree_sum(&(0..n / 2).map(|i| t[i] + t[i + n / 2]).collect::<Vec<_>>()),
    }
}

fn check_ternary(w: &[f32], dim: usize, group: usize) {
    let (mut trits, mut scales) = (Vec::new(), Vec::new());
    for w in w.chunks(group) {
        let mut t: Vec<f32> = w.iter().map(|w| w.abs()).collect();
        t.resize(group.next_power_of_two(), 0.0);
        let mean = tree_sum(&t) * (1.0 / group as f32);
        let s = if mean.is_finite() { nearest_f16(mean.max(2f32.powi(-14))) } else { f32::NAN };
        trits.extend(w.iter().map(|&w| i8::from(w > 0.5 * s) - i8::from(w < -0.5 * s)));
        scales.push(s);
    }
    let want = pack_codes(&trits, dim);
    for level in Level::available() {
        let (mut codes, mut got) = (vec![0xff; want.len()], vec![f32::NAN; scales.len()]);
        quantize::ternary(level, w, dim, group, &mut codes, &mut got);
        assert_eq!(bits(&got), bits(&scales), "{level} dim {dim} group {group}");
        assert_eq!(codes, want, "{level} dim {dim} group {group}");
    }
}

#[test]
fn ternary_equals_definition() {
    let mut rng = Rng::new(8);
    for (dim, group) in [
        (32, 32),
        (64, 64),
        (96, 32),
        (192, 64),
        (256, 128),
        (384, 128),
        (512, 256),
        (192, 96),
        (768, 768),
        (1024, 512),
    ] {
        for size in [0.02, 1e-6, 0.0, 3.0, 70000.0, 131_000.0, 1e37] {
            let w: Vec<f32> = (0..5 * dim).map(|_| size * rng.symmetric()).collect();
            check_ternary(&w, dim, group);
        }
    }
}

/// Weights on the threshold are 0, and means half-way between two f16 go to the even one.
#[test]
fn ternary_ties() {
    for scale in [1.0, 1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, 1.0 + 5.0 / 2048.0, 2f32.powi(-14), 65519.0, 65520.0] {
        check_ternary(&[scale; 128], 128, 128);
        let mut w = [scale; 128];
        (w[0], w[1], w[2], w[3]) = (scale * 0.5, scale * 1.5, -scale * 0.5, -scale * 1.5);
        check_ternary(&w, 128, 128);
        check_ternary(&w, 128, 64);
    }
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        check_ternary(&[wrong; 64], 64, 64);
        let mut w = [0.5; 128];
        w[77] = wrong;
        check_ternary(&w, 128, 64);
    }
}
