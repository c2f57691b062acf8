//! The quantised product: exact agreement of every level with the definition.

use cpu_kernels::{Level, matrix::ternary_gemm::TernaryGemm};

mod random;
use random::{Rng, pack_codes};

/// (rows, outs, dim, group).
const SHAPES: [(usize, usize, usize, usize); 12] = [
    (1, 1, 32, 32),
    (3, 5, 64, 64),
    (1, 40, 128, 64),
    (9, 33, 96, 32),
    (13, 70, 192, 64),
    (8, 32, 256, 128),
    (7, 31, 256, 256),
    (17, 48, 384, 128),
    (5, 16, 512, 512),
    (2, 3, 2048, 1024),
    (31, 65, 768, 96),
    (64, 96, 768, 256),
];

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

struct Case {
    shape: (usize, usize, usize, usize),
    trits: Vec<i8>,
    codes: Vec<u8>,
    scales: Vec<f32>,
    xq: Vec<i8>,
    steps: Vec<f32>,
}

impl Case {
    /// Extremes: every weight and activation at the end of its range; otherwise random.
    fn new(rng: &mut Rng, shape: (usize, usize, usize, usize), extreme: Option<(i8, i8)>) -> Self {
        let (rows, outs, dim, group) = shape;
        let trits: Vec<i8> = (0..outs * dim).map(|_| extreme.map_or_else(|| rng.below(3) as i8 - 1, |e| e.0)).collect();
        Self {
            shape,
            codes: pack_codes(&trits, dim),
            trits,
            scales: (0..outs * (dim / group)).map(|_| rng.symmetric().abs() + 0.01).collect(),
            xq: (0..rows * dim).map(|_| extreme.map_or_else(|| rng.int8(), |e| e.1)).collect(),
            steps: (0..rows).map(|_| rng.symmetric().abs() * 0.1).collect(),
        }
    }

    fn gemm(&self) -> TernaryGemm<'_> {
        let (rows, outs, dim, group) = self.shape;
        let Self { xq, steps, codes, scales, .. } = self;
        TernaryGemm { rows, outs, dim, group, xq, steps, codes, scales }
    }

    fn reference(&self) -> Vec<f32> {
        let (rows, outs, dim, group) = self.shape;
        let mut y = Vec::new();
        for r in 0..rows {
            for o in 0..outs {
                let mut acc = 0.0f32;
                for g in 0..dim / group {
                    let ks = g * group..(g + 1) * group;
                    let sum: i64 =
                        ks.map(|k| i64::from(self.trits[o * dim + k]) * i64::from(self.xq[r * dim + k])).sum();
                    acc += self.scales[o * (dim / group) + g] * sum as f32;
                }
                y.push(self.steps[r] * acc);
            }
        }
        y
    }
}

/// y of every part in turn, inside a larger buffer whose sentinels must survive.
fn run(g: &TernaryGemm, level: Level, parts: usize) -> Vec<f32> {
    let ldy = g.outs + 5;
    let mut y = vec![f32::NAN; g.rows * ldy];
    for part in (0..parts).rev() {
        // SAFETY: `y` holds the rows `ldy` apart, and one part runs at a time.
        unsafe { g.run_part(level, y.as_mut_ptr(), ldy, part, parts) };
    }
    let (kept, sentinels): (Vec<_>, Vec<_>) = y.chunks(ldy).map(|row| row.split_at(g.outs)).unzip();
    assert!(sentinels.concat().iter().all(|s| s.is_nan()), "{level}: written behind a row");
    kept.concat()
}

#[test]
fn levels_equal_reference() {
    let mut rng = Rng::new(5);
    for shape in SHAPES {
        for extreme in [None, Some((1, 127)), Some((1, -127)), Some((-1, 127)), Some((-1, -127)), Some((0, 127))] {
            let case = Case::new(&mut rng, shape, extreme);
            let want = bits(&case.reference());
            for level in Level::available() {
                for parts in [1, 2, 3, 5] {
                    let got = bits(&run(&case.gemm(), level, parts));
                    assert!(got == want, "{level} {shape:?} {extreme:?} in {parts}");
                }
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_rows() {
    let mut rng = Rng::new(6);
    let case = Case::new(&mut rng, (21, 50, 384, 128), None);
    for level in Level::available() {
        let whole = run(&case.gemm(), level, 1);
        for r in [0, 5, 20] {
            let row = TernaryGemm { rows: 1, xq: &case.xq[r * 384..], steps: &case.steps[r..], ..case.gemm() };
            assert_eq!(bits(&run(&row, level, 1)), bits(&whole[r * 50..(r + 1) * 50]), "{level} row {r}");
        }
    }
}
