//! Measures how long it takes to build and plan the graphs of deep models, without weights: an engine of four sequences
//! on the CPU, and a training step with and without recomputation. `cargo bench --bench plan`.

use nanotern::backend::{Backend, Cpu, Level};
use nanotern::graph::Plan;
use nanotern::infer::{Engine, EngineOptions};
use nanotern::model::ModelConfig;
use nanotern::train::{OptimConfig, StepShape, TrainStep};
use std::time::Instant;

fn main() {
    let cpu = Backend::Cpu(Cpu::new(Level::detect(), Some(1)).expect("one thread"));
    for layers in [30, 80, 256] {
        let config =
            ModelConfig { dim: 64, layers, heads: 1, kv_heads: 1, ffn: 64, seq_len: 64, ..ModelConfig::default() };
        let start = Instant::now();
        let engine = Engine::empty(&config, 256, &[], &cpu, EngineOptions::default()).expect("an engine");
        report(layers, "engine", start, engine.plan());
        for recompute in [false, true] {
            let shape = StepShape { batch: 1, seq: 64, recompute, ..StepShape::default() };
            let start = Instant::now();
            let step = TrainStep::build(&config, 256, shape, &OptimConfig::default());
            report(layers, if recompute { "training, recomputed" } else { "training" }, start, &step.plan);
        }
    }
}

fn report(layers: usize, what: &str, start: Instant, plan: &Plan) {
    let all = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let again = Plan::new(plan.graph.clone());
    let (nodes, bytes) = (again.graph.nodes.len(), again.temp_bytes());
    let planning = start.elapsed().as_secs_f64();
    println!("{layers:3} layers, {what}: {all:.3} s, of it the plan {planning:.3} s; {nodes} nodes, {bytes} bytes");
}
