//! Measures the heaviest ops of the tiny preset (8 x 256 tokens) at every CPU level on all cores, and its whole training
//! step. `cargo bench` runs all of them, `cargo bench -- ternary` some. A name ends in the level. Throughput counts two
//! operations for each multiply-add; for the quantiser it counts weights, for the step tokens.

use cpu_kernels::ops::attention::AttentionArgs;
use cpu_kernels::ops::attention_backward_kv::AttentionBackwardKvArgs;
use cpu_kernels::ops::attention_backward_q::AttentionBackwardQArgs;
use cpu_kernels::ops::matmul::MatmulArgs;
use cpu_kernels::ops::ternary_matmul::TernaryMatmulArgs;
use cpu_kernels::ops::ternary_quantize::TernaryQuantizeArgs;
use cpu_kernels::{Args, CpuProgram, Step};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use nanotern::backend::{Backend, Cpu, Level};
use nanotern::graph::{Access, DType, Op};
use nanotern::ops;
use nanotern::rng::Rng;
use nanotern::train::{Batch, Config, StepShape, TrainStep, Trainer};
use std::hint::black_box;
use std::thread::available_parallelism;
use std::time::Duration;

const BATCH: usize = 8;
const SEQ: usize = 256;
const ROWS: usize = BATCH * SEQ;
const DIM: usize = 256;
const HEADS: usize = 4;
const HEAD_DIM: usize = DIM / HEADS;
const FFN: usize = 512;
const VOCAB: usize = 4096;
const GROUP: usize = 128;

/// A program of one op. Its buffers have `elements` elements; those that the op reads hold noise.
fn program(op: &Op, args: &impl Args, elements: &[usize], level: Level) -> CpuProgram {
    let threads = available_parallelism().map_or(1, |n| n.get());
    let bytes: Vec<usize> = elements.iter().zip(op.bindings).map(|(n, b)| n * b.dtype.bytes()).collect();
    let bufs = op.bindings.iter().enumerate().map(|(i, b)| (i, b.access != Access::Read).into()).collect();
    let step = Step { kernel: op.kernel, args: args.to_words(), bufs, parts: threads };
    let mut program = CpuProgram::new(level, threads, &bytes, vec![step]).expect("threads");
    let mut rng = Rng::new(1);
    for (i, b) in op.bindings.iter().enumerate().filter(|(_, b)| b.access == Access::Read) {
        match b.dtype {
            DType::F32 => program.bytes_mut(i).chunks_exact_mut(4).for_each(|x| {
                x.copy_from_slice(&(rng.f32() - 0.5).to_ne_bytes());
            }),
            DType::F16 => program.bytes_mut(i).chunks_exact_mut(2).for_each(|x| {
                x.copy_from_slice(&half::f16::from_f32(rng.f32() - 0.5).to_ne_bytes());
            }),
            DType::Bf16 => program.bytes_mut(i).chunks_exact_mut(2).for_each(|x| {
                x.copy_from_slice(&half::bf16::from_f32(rng.f32() - 0.5).to_ne_bytes());
            }),
            DType::I8 => program
                .bytes_mut(i)
                .iter_mut()
                .for_each(|x| *x = (rng.below(255) as i8).wrapping_sub(127).cast_unsigned()),
            // Packed ternary codes: four values of 0, 1 or 2 in a byte.
            DType::U8 => {
                program.bytes_mut(i).iter_mut().for_each(|x| *x = (0..4).fold(0, |x, _| x << 2 | rng.below(3) as u8))
            }
            // Positions in one sequence after another.
            DType::U32 => program.bytes_mut(i).chunks_exact_mut(4).enumerate().for_each(|(row, x)| {
                x.copy_from_slice(&((row % SEQ) as u32).to_ne_bytes());
            }),
        }
    }
    program
}

fn op(c: &mut Criterion, name: &str, op: &Op, args: impl Args, elements: &[usize]) {
    let words = args.to_words();
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(match (op.flops)(&words) {
        0 => elements[0] as u64,
        flops => flops,
    }));
    for level in Level::available() {
        let mut program = program(op, &args, elements, level);
        group.bench_function(level.name(), |b| b.iter(|| program.run(black_box(0..1))));
    }
}

fn matmul(c: &mut Criterion) {
    for (m, n, k) in [(ROWS, FFN, DIM), (ROWS, VOCAB, DIM)] {
        let args = MatmulArgs { m: m as u32, n: n as u32, k: k as u32, b_transposed: 1, ..MatmulArgs::default() };
        op(c, &format!("matmul {m}x{n}x{k}"), &ops::MATMUL, args, &[m * k, k * n, m * n]);
    }
}

fn ternary(c: &mut Criterion) {
    let [rows, outs, dim, group] = [ROWS, FFN, DIM, GROUP].map(|n| n as u32);
    let (codes, scales) = (FFN * ops::packed_row_bytes(DIM), FFN * DIM / GROUP);
    let args = TernaryMatmulArgs { rows, outs, dim, group, x_row: 0 };
    let elements = [ROWS * DIM, ROWS, codes, scales, ROWS * FFN];
    op(c, &format!("ternary_matmul {ROWS}x{FFN}x{DIM}"), &ops::TERNARY_MATMUL, args, &elements);
    let args = TernaryQuantizeArgs { rows: outs, dim, group, stage: 0 };
    op(c, &format!("ternary_quantize {FFN}x{DIM}"), &ops::TERNARY_QUANTIZE, args, &[FFN * DIM, codes, scales]);
}

fn attention(c: &mut Criterion) {
    let [batch, seq, heads, head_dim] = [BATCH, SEQ, HEADS, HEAD_DIM].map(|n| n as u32);
    let (kv_heads, scale) = (heads, (HEAD_DIM as f32).sqrt().recip());
    let (x, qkv, lse) = (ROWS * DIM, 3 * ROWS * DIM, ROWS * HEADS);
    let args = AttentionArgs { batch, seq, heads, kv_heads, head_dim, scale };
    op(c, "attention", &ops::ATTENTION, args, &[qkv, ROWS, x, lse]);
    let args = AttentionBackwardQArgs { batch, seq, heads, kv_heads, head_dim, scale };
    op(c, "attention_backward_q", &ops::ATTENTION_BACKWARD_Q, args, &[qkv, x, 2 * lse, ROWS, qkv]);
    let args = AttentionBackwardKvArgs { batch, seq, heads, kv_heads, head_dim, scale };
    op(c, "attention_backward_kv", &ops::ATTENTION_BACKWARD_KV, args, &[qkv, x, 2 * lse, ROWS, qkv]);
}

/// Forward, backward and update. Reading the loss back waits for the step.
fn train_step(c: &mut Criterion) {
    let mut group: BenchmarkGroup<'_, WallTime> = c.benchmark_group("train_step tiny");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(10);
    let config = Config::default();
    let shape = StepShape { batch: BATCH, seq: SEQ, ..StepShape::default() };
    let mut rng = Rng::new(1);
    let mut ids = || (0..ROWS).map(|_| rng.below(VOCAB as u64) as u32).collect::<Vec<_>>();
    let batch = Batch::new(ids(), ids(), SEQ);
    for level in Level::available() {
        let backend = Backend::Cpu(Cpu::new(level, None).expect("the level is available"));
        let step = TrainStep::build(&config.model, VOCAB, shape, &config.optim);
        let mut trainer = Trainer::new(step, &backend).expect("the CPU prepares every plan");
        trainer.init(0);
        let mut n = 0;
        group.bench_function(level.name(), |b| {
            b.iter(|| {
                trainer.submit(n, 1.0, [batch.clone()]).expect("a step runs");
                n += 1;
                trainer.stats(n - 1..n).expect("a step has a loss")
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = matmul, ternary, attention, train_step
}
criterion_main!(benches);
