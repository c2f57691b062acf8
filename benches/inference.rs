//! Measures the ternary product of one row in every layout of every level on one thread, and decoding and prefill of the
//! 18 M shape (f16 tables) on all cores; and, on all cores, products of rows sorted by expert beside those with one matrix.
//! `cargo bench --bench inference` runs all of them; `-- gemv` selects some. The
//! throughput of products counts two operations for each multiply-add, that of the model counts tokens.

use cpu_kernels::matrix::ternary_gemv::{Layout, PackedTernary, TernaryGemv};
use cpu_kernels::ops::quantize_rows::QuantizeRowsArgs;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nanotern::backend::{Backend, Cpu, Level};
use nanotern::bench::Shape;
use nanotern::graph::{DType, Graph, Plan};
use nanotern::infer::{Engine, EngineOptions, Sampling};
use nanotern::ops::{QUANTIZE_ROWS, QuantRows};
use nanotern::rng::Rng;
use std::hint::black_box;
use std::sync::Arc;

const GROUP: usize = 128;
/// Tokens of a prompt, and tokens to generate, in one iteration.
const TOKENS: usize = 128;

fn gemv(c: &mut Criterion) {
    for (outs, dim) in [(2048, 2048), (4096, 4096), (4096, 11_008)] {
        let mut rng = Rng::new(1);
        let codes: Vec<u8> = (0..outs * dim / 4).map(|_| (0..4).fold(0, |x, _| x << 2 | rng.below(3) as u8)).collect();
        let scales = vec![0.5; outs * dim / GROUP];
        let xq: Vec<i8> = (0..dim).map(|_| (rng.below(255) as i8).wrapping_sub(127)).collect();
        let mut y = vec![0.0; outs];
        let mut group = c.benchmark_group(format!("gemv {outs}x{dim}"));
        group.throughput(Throughput::Elements(2 * (outs * dim) as u64));
        for level in Level::available() {
            for layout in Layout::of(level) {
                let weights = PackedTernary::new(*layout, &codes, &scales, outs, dim, GROUP);
                let product = TernaryGemv { weights: &weights, rows: 1, xq: &xq, steps: &[1.0] };
                let name = format!("{} {}", level.name(), layout.name());
                group.bench_function(name, |b| b.iter(|| product.run(level, black_box(&mut y), outs)));
            }
        }
    }
}

fn model(c: &mut Criterion) {
    let file = Shape::find("18m").expect("a shape").model();
    let cpu = Backend::Cpu(Cpu::new(Level::detect(), None).expect("a processor"));
    let options = EngineOptions { slots: 1, context: 2 * TOKENS };
    let mut engine = Engine::new(&file, &cpu, options).expect("memory for 18 M parameters");
    engine.set_stop(Vec::new());
    let mut rng = Rng::new(1);
    let prompt: Vec<u32> = (0..TOKENS).map(|_| rng.below(file.vocab as u64) as u32).collect();
    let mut group = c.benchmark_group("18m");
    group.sample_size(20).throughput(Throughput::Elements(TOKENS as u64));
    group.bench_function("prefill", |b| {
        b.iter(|| pollster::block_on(engine.prompt_logits(black_box(&prompt), TOKENS)).expect("logits"))
    });
    let sampling = Sampling { temperature: 0.0, max_tokens: TOKENS, ..Sampling::default() };
    group.bench_function("decode", |b| {
        b.iter(|| engine.generate(black_box(&prompt[..1]), sampling.clone()).expect("tokens"))
    });
}

/// Products of 128 rows for each matrix, and of 128 rows in all, with one matrix and with eight.
fn experts(c: &mut Criterion) {
    let (outs, dim, experts) = (2048, 2048, 8);
    let mut group = c.benchmark_group(format!("experts {outs}x{dim}"));
    for (name, rows, experts) in
        [("dense 128", 128, 1), ("grouped 8x128", 1024, experts), ("grouped 8x16", 128, experts)]
    {
        let mut g = Graph::new();
        let x = g.persistent("x", &[rows, dim], DType::F32);
        let w = g.persistent("w", &[experts * outs, dim], DType::F32);
        let starts = g.persistent("starts", &[experts + 1], DType::U32);
        let weight = g.ternary_weight("ternary", experts * outs, dim, GROUP);
        let xq = QuantRows {
            codes: g.persistent("xq", &[rows, dim], DType::I8),
            step: g.persistent("step", &[rows], DType::F32),
        };
        let (prepare, ()) = g.section("prepare", |g| {
            g.ternary_quantize(w, &weight);
            g.push(&QUANTIZE_ROWS, QuantizeRowsArgs { rows: rows as u32, dim: dim as u32 }, &[x, xq.codes, xq.step]);
        });
        let (product, _) = g.section("product", |g| match experts {
            1 => g.ternary_matmul(xq, &weight, 0..rows),
            _ => g.grouped_ternary(xq, &weight, starts),
        });
        let cpu = Backend::Cpu(Cpu::new(Level::detect(), None).expect("a level of this machine"));
        let mut program = cpu.prepare(Arc::new(Plan::new(g))).expect("memory for some matrices");
        let mut rng = Rng::new(1);
        program.write(x, &(0..rows * dim).map(|_| rng.normal()).collect::<Vec<f32>>());
        program.write(w, &(0..experts * outs * dim).map(|_| rng.normal()).collect::<Vec<f32>>());
        program.write(starts, &(0..=experts).map(|e| (e * rows / experts) as u32).collect::<Vec<u32>>());
        program.run_section(prepare).expect("a CPU does not fail");
        group.throughput(Throughput::Elements(2 * (rows * outs * dim) as u64));
        group.bench_function(name, |b| b.iter(|| program.run_section(product).expect("a CPU does not fail")));
    }
}

criterion_group!(benches, gemv, experts, model);
criterion_main!(benches);
