//! Packed weights: every layout at every level has the bits of the scalar product.

use cpu_kernels::matrix::ternary_gemm::TernaryGemm;
use cpu_kernels::matrix::ternary_gemv::{Layout, Layouts, PackedTernary, TernaryGemv};
use cpu_kernels::{Level, ops::round_f16};

mod random;
use random::{Rng, pack_codes};

const OUTS: [usize; 7] = [1, 7, 16, 17, 33, 64, 100];
/// (dim, group).
const DIMS: [(usize, usize); 12] = [
    (32, 32),
    (96, 32),
    (64, 64),
    (192, 64),
    (96, 96),
    (480, 160),
    (128, 128),
    (640, 128),
    (256, 256),
    (768, 256),
    (2048, 1024),
    (416, 416),
];

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

struct Case {
    codes: Vec<u8>,
    scales: Vec<f32>,
    xq: Vec<i8>,
    steps: Vec<f32>,
}

/// Rows of activations in every case.
const ROWS: usize = 10;

impl Case {
    /// Extremes: every weight and activation at the end of its range; otherwise random.
    fn new(rng: &mut Rng, outs: usize, dim: usize, group: usize, extreme: Option<(i8, i8)>) -> Self {
        let trits: Vec<i8> = (0..outs * dim).map(|_| extreme.map_or_else(|| rng.below(3) as i8 - 1, |e| e.0)).collect();
        Self {
            codes: pack_codes(&trits, dim),
            scales: (0..outs * (dim / group)).map(|_| round_f16::round(rng.symmetric().abs() + 0.01)).collect(),
            xq: (0..ROWS * dim).map(|_| extreme.map_or_else(|| rng.int8(), |e| e.1)).collect(),
            steps: (0..ROWS).map(|_| rng.symmetric().abs() * 0.1).collect(),
        }
    }

    fn want(&self, rows: usize, outs: usize, dim: usize, group: usize) -> Vec<f32> {
        let Self { codes, scales, xq, steps } = self;
        let mut y = vec![0.0; rows * outs];
        TernaryGemm { rows, outs, dim, group, xq, steps, codes, scales }.run(Level::Scalar, &mut y, outs);
        y
    }
}

/// y of every part in turn, inside a larger buffer whose sentinels must survive.
fn run(g: &TernaryGemv, level: Level, parts: usize) -> Vec<f32> {
    let outs = g.weights.outs();
    let ldy = outs + 5;
    let mut y = vec![f32::NAN; g.rows * ldy];
    for part in (0..parts).rev() {
        // SAFETY: `y` holds the rows `ldy` apart, and one part runs at a time.
        unsafe { g.run_part(level, y.as_mut_ptr(), ldy, part, parts) };
    }
    let (kept, sentinels): (Vec<_>, Vec<_>) = y.chunks(ldy).map(|row| row.split_at(outs)).unzip();
    assert!(sentinels.concat().iter().all(|s| s.is_nan()), "{level}: written behind a row");
    kept.concat()
}

fn check(case: &Case, outs: usize, dim: usize, group: usize) {
    let want = bits(&case.want(ROWS, outs, dim, group));
    for layout in Layout::ALL {
        let weights = &PackedTernary::new(layout, &case.codes, &case.scales, outs, dim, group);
        for level in Level::available() {
            if layout != Layout::Canonical && !Layout::of(level).contains(&layout) {
                continue;
            }
            for (rows, parts) in [(1, 1), (1, 2), (1, 3), (2, 1), (3, 2), (4, 1), (6, 2), (ROWS, 3)] {
                let g = TernaryGemv { weights, rows, xq: &case.xq, steps: &case.steps };
                let got = bits(&run(&g, level, parts));
                assert!(got == want[..rows * outs], "{layout} {level} {outs}x{dim}/{group} {rows} rows in {parts}");
            }
        }
    }
}

#[test]
fn layouts_equal_scalar() {
    let mut rng = Rng::new(11);
    for (dim, group) in DIMS {
        for outs in OUTS {
            check(&Case::new(&mut rng, outs, dim, group, None), outs, dim, group);
        }
        for extreme in [(1, 127), (1, -127), (-1, 127), (-1, -127), (0, 127)] {
            check(&Case::new(&mut rng, 33, dim, group, Some(extreme)), 33, dim, group);
        }
    }
}

/// Extremes whose signs differ within a pair, so that its sum is small and its parts are not.
#[test]
fn alternating_extremes() {
    let mut rng = Rng::new(12);
    let (outs, dim, group) = (40, 512, 256);
    for period in [1, 2, 3, 4, 64, 128] {
        let mut case = Case::new(&mut rng, outs, dim, group, None);
        let sign = |i: usize| if (i / period).is_multiple_of(2) { 1i8 } else { -1 };
        case.xq.iter_mut().enumerate().for_each(|(i, x)| *x = 127 * sign(i));
        check(&case, outs, dim, group);
        case.codes = pack_codes(&(0..outs * dim).map(sign).collect::<Vec<_>>(), dim);
        check(&case, outs, dim, group);
    }
}

#[test]
fn scales_of_full_precision() {
    let mut rng = Rng::new(13);
    let (outs, dim, group) = (32, 384, 128);
    let mut case = Case::new(&mut rng, outs, dim, group, None);
    let small = PackedTernary::new(Layout::Rows16, &case.codes, &case.scales, outs, dim, group).bytes();
    case.scales[7] = 2f32.powi(-24);
    case.scales[8] = -1.5;
    case.scales[9] = 3.0 * 2f32.powi(-20);
    check(&case, outs, dim, group);
    case.scales[50] = 0.1;
    check(&case, outs, dim, group);
    case.scales[50] = 1e30;
    check(&case, outs, dim, group);
    let large = PackedTernary::new(Layout::Rows16, &case.codes, &case.scales, outs, dim, group).bytes();
    assert_eq!(large - small, 2 * outs * (dim / group), "scales of trained weights are stored as f16");
}

#[test]
fn longest_group() {
    let mut rng = Rng::new(14);
    let dim = PackedTernary::MAX_GROUP;
    for extreme in [(1, 127), (-1, 127), (1, -127)] {
        check(&Case::new(&mut rng, 3, dim, dim, Some(extreme)), 3, dim, dim);
    }
}

#[test]
fn empty_matrices() {
    for level in Level::available() {
        let weights = &PackedTernary::new(Layouts::new(level, None).choose(0, 128, 128), &[], &[], 0, 128, 128);
        TernaryGemv { weights, rows: 1, xq: &[0; 128], steps: &[1.0] }.run(level, &mut [], 0);
    }
}

#[test]
fn a_choice_is_kept_and_can_be_asked_for() {
    for level in Level::available() {
        let layouts = Layouts::new(level, None);
        let chosen = layouts.choose(256, 256, 128);
        assert!(Layout::of(level).contains(&chosen));
        assert_eq!(layouts.choose(256, 256, 128), chosen);
        for layout in Layout::ALL {
            let asked = Layouts::new(level, Some(layout)).choose(256, 256, 128);
            assert!(if layout.runs_at(level) { asked == layout } else { Layout::of(level).contains(&asked) });
        }
    }
}
