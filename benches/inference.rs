//! Measures the ternary product of one row in every layout of every level on one thread, and decoding and prefill of the
//! 18 M shape (f16 tables) on all cores. `cargo bench --bench inference` runs all of them; `-- gemv` selects some. The
//! throughput of products counts two operations for each multiply-add, that of the model counts tokens.

use cpu_kernels::matrix::ternary_gemv::{Layout, PackedTernary, TernaryGemv};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nanotern::backend::{Backend, Cpu, Level};
use nanotern::bench::Shape;
use nanotern::infer::{Engine, EngineOptions, Sampling};
use nanotern::rng::Rng;
use std::hint::black_box;

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

criterion_group!(benches, gemv, model);
criterion_main!(benches);
