//! The variants of ops for devices with cooperative matrices. Without one, these tests fail with NANOTERN_REQUIRE_MATRICES=1 and
//! otherwise print a note.

use crate::compare::{self, Bench, SENTINELS, verdict};
use crate::{cases, common};
use cpu_kernels::ops::matmul::MatmulArgs;
use nanotern::backend::{Backend, Wgpu, float_error};
use nanotern::graph::{DType, Graph, Node, Plan};
use nanotern::model::ModelConfig;
use nanotern::ops;
use nanotern::train::{Batch, OptimConfig, Precision, StepShape, TrainStep, Trainer};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A device that uses every variant, and how many of the nodes each of them runs.
fn device(nodes: &[Node]) -> Option<(Wgpu, BTreeMap<&'static str, usize>)> {
    let mut wgpu = common::has_adapter().then(|| Wgpu::open(None).unwrap())?;
    wgpu.use_variants(true);
    let mut count = BTreeMap::new();
    nodes.iter().filter_map(|node| wgpu.variant_of(node)).for_each(|name| *count.entry(name).or_default() += 1);
    Some((wgpu, count))
}

/// The same, if it has cooperative matrices.
fn with_matrices(nodes: &[Node]) -> Option<(Wgpu, BTreeMap<&'static str, usize>)> {
    let found = device(nodes).filter(|(wgpu, _)| wgpu.has_matrices());
    if found.is_none() {
        let required = std::env::var("NANOTERN_REQUIRE_MATRICES").as_deref() == Ok("1");
        assert!(!required, "no device has cooperative matrices, and they are required");
        println!("NOT TESTED: no device has cooperative matrices");
    }
    found
}

#[test]
fn variants_agree_with_the_definition() {
    let mut cases = cases::all();
    let nodes = compare::graph(&cases).0.nodes;
    let Some((wgpu, count)) = with_matrices(&nodes).or_else(|| device(&nodes)) else { return };
    let kinds = if wgpu.has_matrices() { 6 } else { 1 };
    assert!(count.len() == kinds && count.values().all(|n| *n >= 3), "cases of variants: {count:?}");
    let mut nodes = nodes.iter();
    cases.retain(|_| wgpu.variant_of(nodes.next().unwrap()).is_some());
    let (mut reference, mut bench) = (Bench::new(&common::scalar(), &cases), Bench::new(&Backend::Wgpu(wgpu), &cases));
    let (mut failures, mut worst) = (Vec::new(), BTreeMap::new());
    for (i, case) in cases.iter().enumerate() {
        let (expected, got) = (reference.run(i, case), bench.run(i, case));
        let wrong = match verdict(case, true, &expected, &got) {
            None if case.op.name == "ternary_matmul" && expected != got => Some("bits differ".to_string()),
            wrong => wrong,
        };
        failures.extend(wrong.map(|what| format!("{}: {what} ({})", case.op.name, case.args)));
        // The result is the last tensor.
        let result = |words: &[Vec<u32>]| -> Vec<f32> {
            let (values, _) = words.last().unwrap().split_last_chunk::<SENTINELS>().unwrap();
            bytemuck::cast_slice(values).to_vec()
        };
        let [want, have] = [&expected, &got].map(|words| result(words));
        let error = worst.entry(case.op.name).or_insert(0f64);
        *error = error.max(float_error(&want, &have));
    }
    println!("cases: {count:?}\nlargest normalised mean squared errors: {worst:?}");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// The largest floats and the smallest normal ones too.
#[test]
fn variants_pass_on_what_is_not_finite() {
    const N: usize = 64;
    let mut g = Graph::new();
    let [a, b, d] = ["a", "b", "d"].map(|name| g.persistent(name, &[N, N], DType::F32));
    let args = MatmulArgs { m: N as u32, n: N as u32, k: N as u32, ..MatmulArgs::default() };
    g.push(&ops::MATMUL, args, &[a, b, d]);
    let Some((wgpu, count)) = with_matrices(&g.nodes) else { return };
    assert_eq!(count.len(), 1);
    let mut program = Backend::Wgpu(wgpu).prepare(Arc::new(Plan::new(g))).unwrap();
    program.write(b, &[1f32; N * N]);
    for value in [f32::NAN, f32::INFINITY, f32::MAX, 4.0 * f32::MIN_POSITIVE] {
        let mut x = [0f32; N * N];
        x[3 * N + 40] = value;
        program.write(a, &x);
        program.run(0..1).unwrap();
        let row = program.read::<f32>(d).unwrap()[3 * N..4 * N].to_vec();
        let passed = |v: &f32| if value.is_finite() { *v == value } else { !v.is_finite() };
        assert!(row.iter().all(passed), "{value}: {row:?}");
    }
}

/// Losses of every row of a batch, without training on it.
fn losses(trainer: &mut Trainer, batch: &Batch) -> Vec<u32> {
    trainer.feed(batch);
    trainer.program.run_section(trainer.step.sections.eval).unwrap();
    let losses = trainer.program.read::<f32>(trainer.step.targets.losses).unwrap();
    losses.iter().map(|loss| loss.to_bits()).collect()
}

/// Steps are trained with variants. The weights that they lead to have the same losses, bit for bit, where no variant runs.
#[test]
fn a_forward_pass_has_the_same_bits_whatever_ran() {
    let config =
        ModelConfig { dim: 128, layers: 2, heads: 4, kv_heads: 2, ffn: 256, seq_len: 32, ..ModelConfig::default() };
    for precision in [Precision::Exact, Precision::Fast] {
        let shape = StepShape { batch: 2, seq: 32, precision, ..StepShape::default() };
        let build = || TrainStep::build(&config, 300, shape, &OptimConfig::default());
        let step = build();
        let Some((wgpu, count)) = with_matrices(&step.plan.graph.nodes) else { return };
        assert_eq!(count.len(), 5, "variants of a step: {count:?}");
        let mut plain = Wgpu::open(None).unwrap();
        plain.use_variants(false);
        let mut trained = Trainer::new(step, &Backend::Wgpu(wgpu)).unwrap();
        let mut served = Trainer::new(build(), &Backend::Wgpu(plain)).unwrap();
        trained.init(7);
        let batch = |n: u32| Batch::new((0..64).map(|i| i * i % n).collect(), (1..65).map(|i| i * i % n).collect(), 32);
        for step in 0..3 {
            trained.submit(step, 1.0, [batch(97 + step as u32)]).unwrap();
        }
        let stats = trained.stats(0..3).unwrap();
        assert!(stats.iter().all(|s| s.loss.is_finite() && !s.skipped), "{stats:?}");
        served.load_model(&trained.model_tensors().unwrap()).unwrap();
        for trainer in [&mut trained, &mut served] {
            trainer.program.run_section(trainer.step.sections.begin).unwrap();
        }
        assert_eq!(losses(&mut trained, &batch(89)), losses(&mut served, &batch(89)), "{precision:?}");
    }
}
