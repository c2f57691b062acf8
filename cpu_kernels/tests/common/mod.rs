//! Runs one kernel on buffers and compares levels, splits and references.
#![allow(dead_code, reason = "each test file uses some of it")]

use cpu_kernels::{Args, CpuProgram, Kernel, Level, Step};
use std::fmt::Debug;

/// A buffer's contents.
#[derive(Clone)]
pub enum Data {
    F(Vec<f32>),
    U(Vec<u32>),
    B(Vec<u8>),
}

impl From<&[f32]> for Data {
    fn from(x: &[f32]) -> Self {
        Data::F(x.to_vec())
    }
}

impl From<&Vec<f32>> for Data {
    fn from(x: &Vec<f32>) -> Self {
        Data::F(x.clone())
    }
}

impl From<&Vec<u32>> for Data {
    fn from(x: &Vec<u32>) -> Self {
        Data::U(x.clone())
    }
}

/// An output of n elements that nothing has written yet.
pub fn poison(n: usize) -> Data {
    Data::F(vec![f32::NAN; n])
}

pub fn levels() -> impl Iterator<Item = Level> {
    [Level::Scalar, Level::Avx2, Level::Avx512].into_iter().filter(|level| level.is_available())
}

/// The bytes of a buffer.
pub fn bytes(data: &Data) -> Vec<u8> {
    match data {
        Data::F(x) => bytemuck::cast_slice(x).to_vec(),
        Data::U(x) => bytemuck::cast_slice(x).to_vec(),
        Data::B(x) => x.clone(),
    }
}

/// The bytes of every buffer after one run of the kernel.
pub fn run_bytes<A: Args + Debug>(
    kernel: &'static Kernel,
    args: A,
    bufs: &[Data],
    level: Level,
    parts: usize,
) -> Vec<Vec<u8>> {
    let contents: Vec<Vec<u8>> = bufs.iter().map(bytes).collect();
    let sizes: Vec<usize> = contents.iter().map(Vec::len).collect();
    let step = Step { kernel, args: args.to_words(), bufs: (0..bufs.len()).map(|b| (b, true).into()).collect(), parts };
    let mut program = CpuProgram::new(level, parts.min(2), &sizes, vec![step]).unwrap();
    for (i, content) in contents.iter().enumerate() {
        program.bytes_mut(i).copy_from_slice(content);
    }
    program.run(0..1);
    (0..bufs.len()).map(|i| program.bytes(i).to_vec()).collect()
}

/// Every buffer after one run of the kernel.
pub fn run<A: Args + Debug>(
    kernel: &'static Kernel,
    args: A,
    bufs: &[Data],
    level: Level,
    parts: usize,
) -> Vec<Vec<f32>> {
    run_bytes(kernel, args, bufs, level, parts).iter().map(|bytes| bytemuck::pod_collect_to_vec(bytes)).collect()
}

/// Runs the kernel at the scalar level in one part; every level and every split must give the same bytes.
pub fn check_bytes<A: Args + Debug>(kernel: &'static Kernel, args: A, bufs: &[Data]) -> Vec<Vec<u8>> {
    let scalar = run_bytes(kernel, args, bufs, Level::Scalar, 1);
    for level in levels() {
        for parts in [1, 3] {
            assert!(run_bytes(kernel, args, bufs, level, parts) == scalar, "{args:?} at {level} in {parts} parts");
        }
    }
    scalar
}

/// Runs the kernel at the scalar level in one part; every other split must give the same bits, and every other level too,
/// or, with `loose`, close to the same.
pub fn check_levels<A: Args + Debug>(kernel: &'static Kernel, args: A, bufs: &[Data], loose: bool) -> Vec<Vec<f32>> {
    let scalar = run(kernel, args, bufs, Level::Scalar, 1);
    for level in levels() {
        let one = run(kernel, args, bufs, level, 1);
        for (i, (scalar, one)) in scalar.iter().zip(&one).enumerate() {
            if loose {
                let wide: Vec<f64> = scalar.iter().map(|x| f64::from(*x)).collect();
                assert_close(one, &wide, 1e-10);
            } else {
                assert_same(scalar, one, &format!("{args:?}: buffer {i} at {level}"));
            }
        }
        for parts in [2, 3, 5] {
            let split = run(kernel, args, bufs, level, parts);
            for (i, (one, split)) in one.iter().zip(&split).enumerate() {
                assert_same(one, split, &format!("{args:?}: buffer {i} at {level} in {parts} parts"));
            }
        }
    }
    scalar
}

/// As [`check_levels`], levels bit for bit.
pub fn check<A: Args + Debug>(kernel: &'static Kernel, args: A, bufs: &[Data]) -> Vec<Vec<f32>> {
    check_levels(kernel, args, bufs, false)
}

pub fn assert_same(a: &[f32], b: &[f32], what: &str) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!(a.to_bits() == b.to_bits(), "{what}: element {i} is {b}, not {a}");
    }
}

/// Normalised mean square error at most `bound`; NaN is never close.
#[track_caller]
pub fn assert_close(got: &[f32], want: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).powi(2)).sum();
    let size: f64 = want.iter().map(|w| w * w).sum();
    assert!(error <= bound * size.max(1e-30), "NMSE {:e} > {bound:e}", error / size.max(1e-30));
}

/// Numbers from about -1 to 1, the same for a seed everywhere.
pub fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut rng = Rng(seed);
    (0..n).map(|_| rng.next() as f32 / (1u32 << 31) as f32 - 1.0).collect()
}

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as u32
    }
}

pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

pub fn dot(a: &[f64], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum()
}

/// The gradient of `f` at x by central differences.
pub fn gradient(x: &[f32], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const H: f64 = 1e-4;
    let mut x = wide(x);
    (0..x.len())
        .map(|i| {
            let at = x[i];
            x[i] = at + H;
            let above = f(&x);
            x[i] = at - H;
            let below = f(&x);
            x[i] = at;
            (above - below) / (2.0 * H)
        })
        .collect()
}
