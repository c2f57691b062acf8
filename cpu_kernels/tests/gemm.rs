//! The f32 product at every level: against an f64 reference, and for bits that do not depend on the shape around them.

use cpu_kernels::{
    Level,
    matrix::gemm::{Gemm, Mat},
};

use half::f16;

mod random;
use random::{Rng, pack_codes};

/// An operand with its storage: (rows, cols) in one of the encodings, and its elements as f64.
struct Operand {
    rows: usize,
    cols: usize,
    kind: Kind,
    data: Vec<f32>,
    /// `data`, rounded.
    halves: Vec<f16>,
    bytes: Vec<u8>,
    codes: Vec<i8>,
    group: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    RowMajor,
    ColMajor,
    Strided,
    HalfRowMajor,
    HalfColMajor,
    Ternary,
    Int8,
}

impl Operand {
    fn new(rng: &mut Rng, kind: Kind, rows: usize, cols: usize) -> Self {
        let group = [128, 64, 32].into_iter().find(|&g| cols.is_multiple_of(g)).unwrap_or(1);
        let len = match kind {
            Kind::RowMajor | Kind::ColMajor | Kind::HalfRowMajor | Kind::HalfColMajor => rows * cols,
            Kind::Strided => rows * (3 * cols + 2),
            Kind::Ternary => rows * (cols / group),
            Kind::Int8 => rows,
        };
        let data: Vec<f32> = (0..len).map(|_| rng.symmetric()).collect();
        let trits: Vec<i8> = (0..rows * cols).map(|_| rng.below(3) as i8 - 1).collect();
        Self {
            rows,
            cols,
            kind,
            halves: data.iter().map(|x| f16::from_f32(*x)).collect(),
            data,
            bytes: pack_codes(&trits, cols),
            codes: if kind == Kind::Ternary { trits } else { (0..rows * cols).map(|_| rng.int8()).collect() },
            group,
        }
    }

    fn mat(&self) -> Mat<'_> {
        match self.kind {
            Kind::RowMajor => Mat::row_major(&self.data, self.cols),
            Kind::ColMajor => Mat::transposed(&self.data, self.rows),
            Kind::HalfRowMajor => Mat::Half { data: &self.halves, row_stride: self.cols, col_stride: 1 },
            Kind::HalfColMajor => Mat::Half { data: &self.halves, row_stride: 1, col_stride: self.rows },
            Kind::Strided => Mat::Dense { data: &self.data, row_stride: 3 * self.cols + 2, col_stride: 3 },
            Kind::Ternary => {
                Mat::Ternary { codes: &self.bytes, scales: &self.data, group: self.group, cols: self.cols }
            }
            Kind::Int8 => Mat::Int8 { codes: &self.codes, steps: &self.data, cols: self.cols },
        }
    }

    /// The elements, from their definitions.
    fn dense(&self) -> Vec<f32> {
        let at = |i: usize, j: usize| match self.kind {
            Kind::RowMajor => self.data[i * self.cols + j],
            Kind::ColMajor => self.data[j * self.rows + i],
            Kind::HalfRowMajor => self.halves[i * self.cols + j].to_f32(),
            Kind::HalfColMajor => self.halves[j * self.rows + i].to_f32(),
            Kind::Strided => self.data[i * (3 * self.cols + 2) + 3 * j],
            Kind::Ternary => {
                f32::from(self.codes[i * self.cols + j]) * self.data[i * (self.cols / self.group) + j / self.group]
            }
            Kind::Int8 => f32::from(self.codes[i * self.cols + j]) * self.data[i],
        };
        (0..self.rows * self.cols).map(|e| at(e / self.cols, e % self.cols)).collect()
    }
}

/// C of every part in turn, with rows `ldc` apart inside a larger buffer of `fill`.
fn run(g: &Gemm, level: Level, c: &[f32], ldc: usize, parts: usize) -> Vec<f32> {
    let mut c = c.to_vec();
    for part in (0..parts).rev() {
        // SAFETY: `c` holds m rows `ldc` apart, and one part runs at a time.
        unsafe { g.run_part(level, c.as_mut_ptr(), ldc, part, parts) };
    }
    c
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

const KINDS: [(Kind, Kind); 11] = [
    (Kind::RowMajor, Kind::RowMajor),
    (Kind::RowMajor, Kind::ColMajor),
    (Kind::ColMajor, Kind::RowMajor),
    (Kind::ColMajor, Kind::ColMajor),
    (Kind::RowMajor, Kind::Ternary),
    (Kind::ColMajor, Kind::Int8),
    (Kind::Strided, Kind::Strided),
    (Kind::Int8, Kind::Ternary),
    (Kind::RowMajor, Kind::HalfRowMajor),
    (Kind::ColMajor, Kind::HalfColMajor),
    (Kind::HalfColMajor, Kind::RowMajor),
];

const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (7, 13, 129),
    (33, 65, 300),
    (5, 40, 2048),
    (121, 520, 70),
    (256, 64, 64),
    (13, 128, 257),
    (64, 96, 512),
    (3, 4, 0),
];

/// Against f64, with alpha and beta, a leading dimension and sentinels; then the same bits for any number of parts.
#[test]
fn levels_match_reference() {
    let mut rng = Rng::new(1);
    for level in Level::available() {
        for (m, n, k) in SHAPES {
            for (ka, kb) in KINDS {
                if kb == Kind::Ternary && !n.is_multiple_of(32) {
                    continue;
                }
                let (a, b) = (Operand::new(&mut rng, ka, m, k), Operand::new(&mut rng, kb, k, n));
                for (alpha, beta) in [(1.0, 0.0), (1.0, 1.0), (-0.5, 2.5)] {
                    let what = format!("{level} {m}x{n}x{k} {ka:?} {kb:?} alpha {alpha} beta {beta}");
                    let g = Gemm { alpha, beta, ..Gemm::new((m, n, k), a.mat(), b.mat()) };
                    check(&mut rng, &g, level, &a.dense(), &b.dense(), &what);
                }
            }
        }
    }
}

fn check(rng: &mut Rng, g: &Gemm, level: Level, a: &[f32], b: &[f32], what: &str) {
    let (m, n, k) = (g.m, g.n, g.k);
    let ldc = n + 3;
    let before: Vec<f32> = (0..m * ldc).map(|_| if g.beta == 0.0 { f32::NAN } else { rng.symmetric() }).collect();
    let c = run(g, level, &before, ldc, 1);
    let (mut error, mut norm) = (0.0, 0.0);
    for i in 0..m {
        for j in 0..n {
            let sum: f64 = (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b[p * n + j])).sum();
            let old = if g.beta == 0.0 { 0.0 } else { f64::from(g.beta) * f64::from(before[i * ldc + j]) };
            let want = f64::from(g.alpha) * sum + old;
            error += (f64::from(c[i * ldc + j]) - want).powi(2);
            norm += want.powi(2);
        }
        assert_eq!(
            bits(&c[i * ldc + n..(i + 1) * ldc]),
            bits(&before[i * ldc + n..(i + 1) * ldc]),
            "{what}: sentinels"
        );
    }
    assert!(error <= 1e-11 * norm, "{what}: NMSE {:e}", error / norm);
    for parts in [2, 3, 5] {
        assert_eq!(bits(&run(g, level, &before, ldc, parts)), bits(&c), "{what}: {parts} parts");
    }
}

/// A row or column computed alone has the bits it has in the whole.
#[test]
fn bits_do_not_depend_on_shape() {
    let mut rng = Rng::new(2);
    let (m, n, k) = (131, 192, 600);
    for level in Level::available() {
        for (ka, kb) in KINDS {
            let (a, b) = (Operand::new(&mut rng, ka, m, k), Operand::new(&mut rng, kb, k, n));
            let whole = run(&Gemm::new((m, n, k), a.mat(), b.mat()), level, &vec![f32::NAN; m * n], n, 1);
            let (a, b) = (a.dense(), b.dense());
            for i in [0, 1, 11, 12, 77, 130] {
                let row = &a[i * k..(i + 1) * k];
                let g = Gemm::new((1, n, k), Mat::row_major(row, k), Mat::row_major(&b, n));
                let alone = run(&g, level, &vec![f32::NAN; n], n, 1);
                assert_eq!(bits(&alone), bits(&whole[i * n..(i + 1) * n]), "{level} {ka:?} {kb:?} row {i}");
            }
            for j in [0, 31, 100, 191] {
                let col: Vec<f32> = b.iter().skip(j).step_by(n).copied().collect();
                let g = Gemm::new((m, 1, k), Mat::row_major(&a, k), Mat::transposed(&col, k));
                let alone = run(&g, level, &vec![f32::NAN; m], 1, 1);
                let want: Vec<f32> = whole.iter().skip(j).step_by(n).copied().collect();
                assert_eq!(bits(&alone), bits(&want), "{level} {ka:?} {kb:?} column {j}");
            }
        }
    }
}

/// X X^T, and the polynomial step `b A + c A A` of a symmetric A, as Newton-Schulz uses them.
#[test]
fn symmetric_equals_full() {
    let mut rng = Rng::new(3);
    for level in Level::available() {
        for (n, k) in [(1, 5), (12, 40), (33, 65), (130, 257), (256, 300), (577, 16)] {
            let x = Operand::new(&mut rng, Kind::RowMajor, n, k);
            let full = Gemm::new((n, n, k), x.mat(), Mat::transposed(&x.data, k));
            let nan = vec![f32::NAN; n * (n + 1)];
            let gram = run(&full, level, &nan, n + 1, 1);
            let square = |symmetric| {
                let a = Mat::row_major(&gram, n + 1);
                Gemm { alpha: 2.0, beta: -4.75, symmetric, ..Gemm::new((n, n, n), a, a) }
            };
            let squared = run(&square(false), level, &gram, n + 1, 1);
            for parts in [1, 2, 3, 5] {
                let what = format!("{level} {n}x{k} in {parts}");
                let half = Gemm { symmetric: true, ..full };
                assert_eq!(bits(&run(&half, level, &nan, n + 1, parts)), bits(&gram), "{what}");
                assert_eq!(bits(&run(&square(true), level, &gram, n + 1, parts)), bits(&squared), "{what} squared");
            }
        }
    }
}

/// SIMD levels run the same chain of fused operations.
#[test]
fn simd_levels_agree() {
    let mut rng = Rng::new(9);
    let (m, n, k) = (29, 70, 700);
    let (a, b) = (Operand::new(&mut rng, Kind::ColMajor, m, k), Operand::new(&mut rng, Kind::Int8, k, n));
    let g = Gemm { alpha: 0.7, beta: -1.3, ..Gemm::new((m, n, k), a.mat(), b.mat()) };
    let before: Vec<f32> = (0..m * n).map(|_| rng.symmetric()).collect();
    let simd = Level::available().into_iter().filter(|&l| l != Level::Scalar);
    let all: Vec<_> = simd.map(|level| bits(&run(&g, level, &before, n, 1))).collect();
    assert!(all.windows(2).all(|w| w[0] == w[1]));
}

/// The same bits as a product of operands that were rounded before, by means of f64.
#[test]
fn a_short_product_rounds_what_is_dense() {
    let short = |x: f32| {
        if !x.is_finite() {
            return x;
        }
        // The exponent of x; 11 significant bits end 10 below it.
        let unit = 2f64.powi((x.to_bits() >> 23 & 0xff).max(1) as i32 - 127 - 10);
        ((f64::from(x) / unit).round_ties_even() * unit) as f32
    };
    let one_nan = |x: f32| if x.is_nan() { f32::NAN } else { x };
    let mut rng = Rng::new(11);
    let (m, n, k) = (29, 128, 320);
    let steps: Vec<f32> = (0..k).map(|_| 0.01 + rng.symmetric().abs()).collect();
    for level in Level::available() {
        for (ka, kb) in KINDS {
            let (mut a, b) = (Operand::new(&mut rng, ka, m, k), Operand::new(&mut rng, kb, k, n));
            // Halves of the last bit that stays, beside even and odd ones; sizes far apart; no numbers.
            let odd = [0x3f80_1000, 0x3f80_3000, 0x3f80_0fff, 0x0000_1000, 0x7f00_1001, 0x7f80_0000, 0xffff_ffff];
            odd.iter().zip(&mut a.data).for_each(|(bits, x)| *x = f32::from_bits(*bits));
            let dense = |x: &Operand| -> Vec<f32> { x.dense().into_iter().map(short).collect() };
            let before = vec![f32::NAN; m * n];
            let is_dense = |kind| matches!(kind, Kind::RowMajor | Kind::ColMajor | Kind::Strided);
            let round = |x: &Operand| if is_dense(x.kind) { dense(x) } else { x.dense() };
            let (ra, rb) = (round(&a), round(&b));
            let numbers =
                |g: &Gemm| run(g, level, &before, n, 1).into_iter().map(|x| one_nan(x).to_bits()).collect::<Vec<_>>();
            let plain = Gemm::new((m, n, k), Mat::row_major(&ra, k), Mat::row_major(&rb, n));
            let rounded = Gemm { short: true, ..Gemm::new((m, n, k), a.mat(), b.mat()) };
            assert_eq!(numbers(&rounded), numbers(&plain), "{level} {ka:?} {kb:?}");
            if is_dense(ka) {
                let scaled: Vec<f32> = a.dense().iter().enumerate().map(|(i, x)| short(x * steps[i % k])).collect();
                let plain = Gemm { a: Mat::row_major(&scaled, k), ..plain };
                assert_eq!(
                    numbers(&Gemm { steps: &steps, ..rounded }),
                    numbers(&plain),
                    "{level} {ka:?} {kb:?} in steps"
                );
            }
        }
    }
}

/// Parts on threads at the same time, as the thread pool runs them.
#[test]
fn parts_on_threads() {
    struct Share(*mut f32);
    // SAFETY: the parts write disjoint tiles.
    unsafe impl Sync for Share {}
    let mut rng = Rng::new(4);
    let (m, n, k) = (200, 192, 256);
    let (a, b) = (Operand::new(&mut rng, Kind::RowMajor, m, k), Operand::new(&mut rng, Kind::RowMajor, k, n));
    for level in Level::available() {
        let g = Gemm::new((m, n, k), a.mat(), b.mat());
        let want = run(&g, level, &vec![0.0; m * n], n, 1);
        let mut c = vec![f32::NAN; m * n];
        let share = Share(c.as_mut_ptr());
        std::thread::scope(|s| {
            for part in 0..4 {
                let (share, g) = (&share, &g);
                // SAFETY: equal arguments but for `part`; `c` outlives the scope.
                s.spawn(move || unsafe { g.run_part(level, share.0, n, part, 4) });
            }
        });
        assert_eq!(bits(&c), bits(&want), "{level}");
    }
}

#[test]
#[should_panic(expected = "exceeds")]
fn short_operand_is_refused() {
    let data = [0.0; 11];
    let g = Gemm::new((3, 3, 4), Mat::row_major(&data, 4), Mat::row_major(&data, 3));
    g.run(Level::Scalar, &mut [0.0; 9], 3);
}
