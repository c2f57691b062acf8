//! Speed of the ternary products on one thread, and the limits of the machine that bound it.
//!
//! Time is that of the thread where the system tells it, so that other processes count less. Two operations a weight and
//! row of activations.

use crate::matrix::ternary_gemm::TernaryGemm;
use crate::matrix::ternary_gemv::{Layout, PackedTernary, TernaryGemv};
use crate::{Level, at_level, matrix::packed_row_bytes};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// CPU seconds that this thread has used.
#[cfg(target_os = "linux")]
pub fn now() -> f64 {
    #[repr(C)]
    struct Timespec {
        sec: std::ffi::c_long,
        nsec: std::ffi::c_long,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: std::ffi::c_int, time: *mut Timespec) -> std::ffi::c_int;
    }
    const CLOCK_THREAD_CPUTIME_ID: std::ffi::c_int = 3;
    let mut time = Timespec { sec: 0, nsec: 0 };
    // SAFETY: `time` is a valid timespec of the C library.
    unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.sec as f64 + time.nsec as f64 * 1e-9
}

/// Seconds since the first call.
#[cfg(not(target_os = "linux"))]
pub fn now() -> f64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Median and least seconds of a call, of at least 20 calls and 200 ms.
pub fn time(mut f: impl FnMut()) -> (f64, f64) {
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 20 || start.elapsed() < Duration::from_millis(200) {
        let t = now();
        f();
        times.push(now() - t);
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[0])
}

/// Where the weights lie when they are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Wherever they fit: the same matrix again and again.
    Cache,
    /// Copies of the matrix in turn, more than any cache holds.
    Dram,
}

/// What the copies of [`Place::Dram`] take together.
const DRAM_BYTES: usize = 256 << 20;

/// One measured product.
#[derive(Clone, Debug)]
pub struct Record {
    /// `gemv` or `gemm`.
    pub kernel: &'static str,
    /// The SIMD level that was measured.
    pub level: Level,
    /// Of a `gemv`.
    pub layout: Option<Layout>,
    /// Rows of activations.
    pub rows: usize,
    /// Outputs: rows of the weights.
    pub outs: usize,
    /// Inputs: columns of the weights.
    pub dim: usize,
    /// Consecutive inputs that share a scale.
    pub group: usize,
    /// Where the weights are.
    pub place: Place,
    /// Weights and scales that a call reads.
    pub bytes: usize,
    /// Median of the seconds of a call.
    pub median: f64,
    /// Least seconds of a call.
    pub least: f64,
}

impl Record {
    /// 10^9 operations a second, by the median.
    pub fn gops(&self) -> f64 {
        2.0 * (self.rows * self.outs * self.dim) as f64 / self.median * 1e-9
    }

    /// 10^9 bytes of weights a second, by the median.
    pub fn gbps(&self) -> f64 {
        self.bytes as f64 / self.median * 1e-9
    }
}

/// A synthetic product.
struct Case {
    codes: Vec<u8>,
    scales: Vec<f32>,
    xq: Vec<i8>,
    steps: Vec<f32>,
    y: Vec<f32>,
}

impl Case {
    fn new(rows: usize, outs: usize, dim: usize, group: usize) -> Self {
        Self {
            // Codes 0, 1, 2 in turn, in some order.
            codes: (0..outs * packed_row_bytes(dim)).map(|i| [0b1000_0110, 0b0001_1001, 0b0110_0001][i % 3]).collect(),
            scales: vec![0.5; outs * (dim / group)],
            xq: (0..rows * dim).map(|i| (i % 255) as i8).collect(),
            steps: vec![1.0; rows],
            y: vec![0.0; rows * outs],
        }
    }
}

/// Measures [`TernaryGemv`].
pub fn gemv(
    level: Level,
    layout: Layout,
    rows: usize,
    (outs, dim): (usize, usize),
    group: usize,
    place: Place,
) -> Record {
    let Case { codes, scales, xq, steps, mut y } = Case::new(rows, outs, dim, group);
    let packed = PackedTernary::new(layout, &codes, &scales, outs, dim, group);
    let bytes = packed.bytes();
    let copies = if place == Place::Dram { DRAM_BYTES / bytes + 1 } else { 1 };
    let copies = vec![packed; copies];
    let mut next = copies.iter().cycle();
    let (median, least) = time(|| {
        let Some(weights) = next.next() else { return };
        TernaryGemv { weights, rows, xq: &xq, steps: &steps }.run(level, &mut y, outs);
    });
    Record { kernel: "gemv", level, layout: Some(layout), rows, outs, dim, group, place, bytes, median, least }
}

/// Measures [`TernaryGemm`].
pub fn gemm(level: Level, rows: usize, (outs, dim): (usize, usize), group: usize) -> Record {
    let Case { codes, scales, xq, steps, mut y } = Case::new(rows, outs, dim, group);
    let product = TernaryGemm { rows, outs, dim, group, xq: &xq, steps: &steps, codes: &codes, scales: &scales };
    let (median, least) = time(|| product.run(level, &mut y, outs));
    let bytes = codes.len() + 4 * scales.len();
    Record { kernel: "gemm", level, layout: None, rows, outs, dim, group, place: Place::Cache, bytes, median, least }
}

/// 10^9 bytes a second that this thread reads from `bytes` of memory, again and again.
pub fn read_bandwidth(bytes: usize) -> f64 {
    // Wider registers read no faster from where it matters.
    let level = Level::detect().min(Level::Avx2);
    let memory = vec![1u64; bytes / 8];
    let part = memory.len().min(1 << 14);
    let mut parts = memory.chunks_exact(part).cycle();
    let mut any = 0;
    // Some of a pass at a time, so that an interruption spoils little.
    let (median, _) = time(|| {
        for words in parts.by_ref().take(8) {
            let any = &mut any;
            at_level!(level, any_bits, (words: &[u64], any: &mut u64));
        }
    });
    black_box(any);
    (8 * 8 * part) as f64 / median * 1e-9
}

/// The bits set in any of the words.
#[inline(always)]
fn any_bits(words: &[u64], to: &mut u64) {
    let mut any = [0; 32];
    for words in words.as_chunks::<32>().0 {
        for i in 0..32 {
            any[i] |= words[i];
        }
    }
    *to |= any.iter().fold(0, |a, b| a | b);
}

/// 10^9 operations a second (two a product of bytes) of the level's multiply-add of bytes; none where there is none.
#[cfg(target_arch = "x86_64")]
pub fn peak_gops(level: Level) -> Option<f64> {
    use std::arch::x86_64::*;

    const CHAINS: usize = 12;
    const STEPS: usize = 10_000;

    #[target_feature(enable = "avx2")]
    fn maddubs(x: i32) {
        let x = _mm256_set1_epi32(x);
        let mut sums = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..STEPS {
            sums.iter_mut().for_each(|sum| *sum = _mm256_maddubs_epi16(*sum, x));
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn dpbusd(x: i32) {
        let x = _mm512_set1_epi32(x);
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..STEPS {
            sums.iter_mut().for_each(|sum| *sum = _mm512_dpbusd_epi32(*sum, x, x));
        }
        black_box(sums);
    }

    level.require();
    let x = black_box(0x0102_0304);
    let (lanes, run): (_, unsafe fn(i32)) = match level {
        Level::Avx512 => (64, dpbusd),
        Level::Avx2 => (32, maddubs),
        _ => return None,
    };
    // SAFETY: the level is available.
    let (_, least) = time(|| unsafe { run(x) });
    Some(2.0 * (lanes * CHAINS * STEPS) as f64 / least * 1e-9)
}

/// 10^9 operations a second of the level's multiply-add of bytes; none where there is none.
#[cfg(not(target_arch = "x86_64"))]
pub fn peak_gops(_: Level) -> Option<f64> {
    None
}
