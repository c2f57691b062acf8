//! What safe code may ask for: any step, any arguments, any sizes. It gets a result or a panic, never another's memory.
//! AddressSanitizer sees more here than an ordinary run.

use cpu_kernels::matrix::dense_gemv::DensePanels;
use cpu_kernels::matrix::gemm::{Gemm, Mat};
use cpu_kernels::matrix::ternary_gemm::TernaryGemm;
use cpu_kernels::matrix::ternary_gemv::{Layout, PackedTernary};
use cpu_kernels::ops::int8_matmul::Int8MatmulArgs;
use cpu_kernels::ops::kv_append::{KvAppendArgs, PADDING};
use cpu_kernels::ops::matmul::MatmulArgs;
use cpu_kernels::ops::sample::SampleArgs;
use cpu_kernels::ops::ternary_matmul::TernaryMatmulArgs;
use cpu_kernels::ops::{ALL, COPY, INT8_MATMUL, KV_APPEND, MATMUL, SAMPLE, TERNARY_MATMUL, copy::CopyArgs};
use cpu_kernels::{ArgWords, Args, Bind, CpuProgram, Kernel, Level, Step};
use std::panic::{AssertUnwindSafe, catch_unwind};

mod random;
use random::Rng;

fn step(kernel: &'static Kernel, args: ArgWords, bufs: &[(usize, bool)], parts: usize) -> Step {
    Step { kernel, args, bufs: bufs.iter().map(|b| Bind::from(*b)).collect(), parts }
}

/// The results of two products of one constant in two shapes, packed and not: a step that writes the constant, and is never
/// run, keeps it from being packed.
fn in_two_shapes(kernel: &'static Kernel, level: Level, args: [ArgWords; 2], inputs: &[Vec<u8>], ys: [usize; 2]) {
    let run = |packed: bool| {
        let y = inputs.len();
        let product = |i: usize| {
            let bufs: Vec<_> = (0..y).map(|b| (b, false)).chain([(y + i, true)]).collect();
            step(kernel, args[i], &bufs, 2)
        };
        let mut steps = vec![product(0), product(1), product(0)];
        let writes = |b: usize| step(&COPY, CopyArgs { n: 0 }.to_words(), &[(y, false), (b, true)], 1);
        steps.extend((0..if packed { 0 } else { y }).map(writes));
        let sizes: Vec<usize> = inputs.iter().map(Vec::len).chain(ys).collect();
        let mut program = CpuProgram::new(level, 2, &sizes, steps).unwrap();
        inputs.iter().enumerate().for_each(|(b, bytes)| program.bytes_mut(b).copy_from_slice(bytes));
        program.run(0..3);
        assert_eq!(program.packed_bytes() > 0, packed && (level != Level::Scalar || inputs.len() == 2));
        [y, y + 1].map(|b| program.bytes(b).to_vec())
    };
    assert_eq!(run(true), run(false), "at {level}");
}

#[test]
fn a_constant_is_packed_for_each_shape_that_it_has() {
    let mut rng = Rng::new(7);
    let floats = |rng: &mut Rng, n: usize| -> Vec<u8> { (0..n).flat_map(|_| rng.symmetric().to_ne_bytes()).collect() };
    for level in Level::available() {
        let args = |n, k| MatmulArgs { m: 1, n, k, b_transposed: 1, ..MatmulArgs::default() }.to_words();
        let inputs = [floats(&mut rng, 128), floats(&mut rng, 2048)];
        in_two_shapes(&MATMUL, level, [args(64, 32), args(16, 128)], &inputs, [256, 64]);

        let codes: Vec<u8> = (0..4096).map(|_| rng.int8().cast_unsigned()).collect();
        let xq: Vec<u8> = (0..256).map(|_| rng.int8().cast_unsigned()).collect();
        let inputs = [xq, floats(&mut rng, 1), codes, floats(&mut rng, 128)];
        let args = |outs, dim| Int8MatmulArgs { rows: 1, outs, dim, x_row: 0 }.to_words();
        in_two_shapes(&INT8_MATMUL, level, [args(128, 32), args(16, 256)], &inputs, [512, 64]);

        let args = |outs, dim, group| TernaryMatmulArgs { rows: 1, outs, dim, group, x_row: 0 }.to_words();
        let inputs = inputs.map(|bytes| bytes.iter().map(|b| b & 0b0101_0101).collect());
        in_two_shapes(&TERNARY_MATMUL, level, [args(64, 128, 64), args(32, 256, 128)], &inputs, [256, 128]);
        in_two_shapes(&TERNARY_MATMUL, level, [args(32, 128, 64), args(32, 128, 32)], &inputs, [128, 128]);
    }
}

/// A part of what rows write is lost where two of them write to one place at once.
#[test]
fn rows_may_share_a_slot() {
    let (rows, kv_heads, head_dim) = (6u32, 2u32, 24u32);
    for transposed in [0, 1] {
        let args = KvAppendArgs { rows, kv_heads, head_dim, slot_pages: 1, transposed };
        let len = args.cache_len(1);
        let bufs = [(0, false), (1, false), (2, false), (3, false), (4, true)];
        let sizes = [(rows * kv_heads * head_dim) as usize, rows as usize, rows as usize, 1, len].map(|n| 4 * n);
        let mut program = CpuProgram::new(Level::Scalar, 3, &sizes, vec![step(&KV_APPEND, args.to_words(), &bufs, 3)]);
        let program = program.as_mut().unwrap();
        let x: Vec<f32> = (0..rows * kv_heads * head_dim).map(|i| 1.0 + i as f32).collect();
        program.bytes_mut(0).copy_from_slice(bytemuck::cast_slice(&x));
        program.run(0..1);
        let cache: &[f32] = bytemuck::cast_slice(&program.bytes(4)[..4 * (len - PADDING)]);
        // The last row is at position 0.
        let last: f32 = x[(5 * kv_heads * head_dim) as usize..].iter().sum();
        assert_eq!(cache.iter().sum::<f32>(), last);
    }
    let (rows, vocab) = (5u32, 8u32);
    let bufs = [(0, false), (1, false), (2, false), (3, true), (4, true)];
    let sizes = [rows * vocab, vocab, 8 * rows, vocab, rows].map(|n| 4 * n as usize);
    let sample = step(&SAMPLE, SampleArgs { rows, vocab }.to_words(), &bufs, 5);
    let mut program = CpuProgram::new(Level::Scalar, 3, &sizes, vec![sample]).unwrap();
    program.run(0..1);
    assert_eq!(bytemuck::cast_slice::<_, u32>(program.bytes(4)), [0, u32::MAX, u32::MAX, u32::MAX, u32::MAX]);
}

/// Every kernel with arguments and buffers that have nothing to do with it: it may panic, and it leaves what its step only
/// reads.
#[test]
fn any_step_ends_in_a_result_or_a_panic() {
    const SIZES: &[u32] = &[0, 1, 2, 3, 4, 8, 16, 24, 31, 32, 33, 64, 65, 96, 128];
    const FAR: &[u32] = &[1 << 12, 1 << 16, 1 << 26, 1 << 31, u32::MAX];
    std::panic::set_hook(Box::new(|_| ()));
    let trials = std::env::var("NANOTERN_TRIALS").map_or(60, |n| n.parse().expect("a number"));
    let (mut rng, mut ran) = (Rng::new(11), 0);
    for trial in 0..trials {
        for (name, kernel) in ALL {
            let mut pick = |from: &[u32]| from[rng.next() as usize % from.len()];
            let mut args: ArgWords = std::array::from_fn(|_| pick(SIZES));
            if trial % 3 == 0 {
                // Something far out; nothing is empty then, which could be counted through for ever.
                args.iter_mut().for_each(|a| *a = (*a).max(1));
                args[pick(&[0, 1, 2, 3, 4, 5, 6, 7]) as usize] = pick(FAR);
            }
            let sizes: Vec<usize> = (0..8).map(|_| 4 * (pick(SIZES) * pick(&[0, 1, 8, 64])) as usize).collect();
            let writes = pick(&[0, 1, 2, 3]);
            let bufs: Vec<(usize, bool)> =
                (0..8).map(|b| (b, writes > 0 && !(b as u32 + writes).is_multiple_of(3))).collect();
            let bufs = if writes == 1 { bufs.iter().map(|(b, _)| (*b, *b > 1)).collect() } else { bufs };
            let levels = Level::available();
            let level = levels[pick(&[0, 1, 2]) as usize % levels.len()];
            let steps = vec![step(kernel, args, &bufs, 3), step(kernel, args, &bufs, 1)];
            let mut program = CpuProgram::new(level, 2, &sizes, steps).unwrap();
            let fill =
                |b: usize| (0..sizes[b] / 4).flat_map(move |i| ((i % 7) as u32).to_ne_bytes()).collect::<Vec<u8>>();
            (0..8).for_each(|b| program.bytes_mut(b).copy_from_slice(&fill(b)));
            ran += usize::from(catch_unwind(AssertUnwindSafe(|| program.run(0..2))).is_ok());
            for (b, writes) in &bufs {
                assert!(*writes || program.bytes(*b) == fill(*b), "{name} wrote a buffer that it was to read");
            }
        }
    }
    let _ = std::panic::take_hook();
    assert!(ran > trials, "only {ran} steps of {trials} trials ran");
}

/// Sizes whose products wrap to small numbers.
const FAR: usize = 1 << (usize::BITS - 4);

#[test]
#[should_panic(expected = "c: (")]
fn a_result_whose_size_wraps() {
    let one = Mat::Dense { data: &[1.0], row_stride: 0, col_stride: 0 };
    Gemm::new((FAR + 1, 16, 1), one, one).run(Level::detect(), &mut [0.0; 16], 16);
}

#[test]
#[should_panic(expected = "bytes of codes")]
fn ternary_codes_whose_size_wraps() {
    let one = Mat::Dense { data: &[1.0], row_stride: 0, col_stride: 0 };
    let ternary = Mat::Ternary { codes: &[], scales: &[], group: 128, cols: 128 };
    Gemm::new((1, 128, FAR), one, ternary).run(Level::detect(), &mut [0.0; 128], 128);
}

#[test]
#[should_panic(expected = "codes for")]
fn int8_codes_whose_size_wraps() {
    let one = Mat::Dense { data: &[1.0], row_stride: 0, col_stride: 0 };
    let int8 = Mat::Int8 { codes: &[], steps: &[], cols: 16 };
    Gemm::new((1, 16, FAR), one, int8).run(Level::detect(), &mut [0.0; 16], 16);
}

#[test]
#[should_panic(expected = "y: ")]
fn a_ternary_result_whose_size_wraps() {
    let (xq, steps, codes, scales) = (&[1; 32], &[1.0], &[0; 512], &[1.0; 16]);
    let product = TernaryGemm { rows: FAR + 1, outs: 16, dim: 32, group: 32, xq, steps, codes, scales };
    product.run(Level::detect(), &mut [0.0; 16], 16);
}

#[test]
#[should_panic(expected = "xq: ")]
fn activations_whose_size_wraps() {
    let (xq, steps, codes, scales) = (&[], &[], &[], &[]);
    TernaryGemm { rows: FAR, outs: 0, dim: 32, group: 32, xq, steps, codes, scales }.run(Level::detect(), &mut [], 0);
}

#[test]
#[should_panic(expected = "codes: 0 for")]
fn weights_whose_size_wraps() {
    PackedTernary::new(Layout::Rows16, &[], &[], FAR, 32, 32);
}

#[test]
#[should_panic(expected = "of 0 values")]
fn a_table_whose_size_wraps() {
    DensePanels::new(&[], FAR, 16);
}

#[test]
#[should_panic(expected = "a step only reads")]
fn a_result_in_a_buffer_that_is_only_read() {
    let copy = step(&COPY, CopyArgs { n: 4 }.to_words(), &[(0, false), (1, false)], 1);
    CpuProgram::new(Level::Scalar, 1, &[16, 16], vec![copy]).unwrap().run(0..1);
}

#[test]
#[should_panic(expected = "in a buffer of 15")]
fn a_result_that_its_buffer_does_not_hold() {
    let args = MatmulArgs { m: 1, n: 16, k: 1, b_transposed: 1, ..MatmulArgs::default() }.to_words();
    let product = step(&MATMUL, args, &[(0, false), (1, false), (2, true)], 1);
    CpuProgram::new(Level::Scalar, 1, &[4, 64, 60], vec![product]).unwrap().run(0..1);
}

#[test]
#[should_panic(expected = "written and bound twice")]
fn a_buffer_that_is_read_and_written() {
    let copy = step(&COPY, CopyArgs { n: 4 }.to_words(), &[(0, false), (0, true)], 1);
    let _ = CpuProgram::new(Level::Scalar, 1, &[16], vec![copy]);
}

/// The copy of 4 floats, from these bytes of a buffer of 256.
fn from_part(part: std::ops::Range<usize>) {
    let from = Bind { buffer: 0, part: Some(part), writes: false };
    let bufs = vec![from, (1, true).into()];
    let copy = Step { kernel: &COPY, args: CopyArgs { n: 4 }.to_words(), bufs, parts: 1 };
    CpuProgram::new(Level::Scalar, 1, &[256, 16], vec![copy]).unwrap().run(0..1);
}

#[test]
fn a_part_that_is_there() {
    from_part(192..256);
}

#[test]
#[should_panic(expected = "bytes 192..260 of 256")]
fn a_part_that_ends_behind_its_buffer() {
    from_part(192..260);
}

#[test]
#[should_panic(expected = "aligned to 64 bytes")]
fn a_part_that_is_not_aligned() {
    from_part(32..64);
}

#[test]
#[should_panic(expected = "out of range")]
fn a_part_that_is_too_small() {
    from_part(64..72);
}
