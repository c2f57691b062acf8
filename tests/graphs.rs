//! The graphs of many configurations, as checksums: a change of how a model is described must not change what it computes.
#![cfg(feature = "native")]

use cpu_kernels::Args;
use cpu_kernels::ops::copy::CopyArgs;
use cpu_kernels::ops::matmul::MatmulArgs;
use nanotern::backend::{Backend, Cpu, Level};
use nanotern::graph::{DType, Graph, Plan, TensorId};
use nanotern::infer::{Engine, EngineOptions};
use nanotern::model::{Embeddings, ModelConfig, Quantize};
use nanotern::ops::COPY;
use nanotern::train::{OptimConfig, Precision, StepShape, TrainStep};
use std::fmt::Write;
use std::sync::Arc;

/// Every combination of the options that change a graph.
fn configurations() -> Vec<ModelConfig> {
    let mut all = Vec::new();
    for mhc_streams in [1, 2, 4] {
        for (tie_embeddings, ternary_head) in [(true, false), (false, false), (false, true)] {
            for (sub_norm, quantize) in
                [true, false].into_iter().flat_map(|s| [(s, Quantize::Ternary), (s, Quantize::None)])
            {
                for embeddings in [Embeddings::F16, Embeddings::F32, Embeddings::Q8_0] {
                    for layers in [1, 3] {
                        all.push(ModelConfig {
                            dim: 64,
                            layers,
                            heads: 4,
                            kv_heads: 2,
                            ffn: 96,
                            seq_len: 32,
                            group_size: 32,
                            mhc_streams,
                            sub_norm,
                            tie_embeddings,
                            ternary_head,
                            quantize,
                            embeddings,
                            ..ModelConfig::default()
                        });
                    }
                }
            }
        }
    }
    all
}

/// Sections, and the nodes in order: op, arguments, names of tensors.
fn dump(graph: &Graph, out: &mut String) {
    for section in &graph.sections {
        writeln!(out, "{} {:?}", section.name, section.nodes()).unwrap();
    }
    for node in &graph.nodes {
        let names: Vec<&str> = node.tensors.iter().map(|t| graph.tensor(*t).name.as_str()).collect();
        writeln!(out, "{} {:?} {names:?}", node.op.name, node.args).unwrap();
    }
}

/// Number of graphs, lines of their dump, and its CRC-32C.
fn checksum(count: usize, dump: &str) -> (usize, usize, u32) {
    (count, dump.lines().count(), crc32c::crc32c(dump.as_bytes()))
}

#[test]
fn training_graphs_are_what_they_were() {
    let (mut count, mut out) = (0, String::new());
    for config in configurations().iter().filter(|c| c.embeddings != Embeddings::Q8_0) {
        let shape = StepShape { batch: 2, seq: 32, recompute: config.layers == 3, ..StepShape::default() };
        let step = TrainStep::build(config, 300, shape, &OptimConfig::default());
        dump(&step.plan.graph, &mut out);
        let state: Vec<&str> = step.state.iter().map(|(name, _)| name.as_str()).collect();
        writeln!(out, "{state:?}").unwrap();
        count += 1;
    }
    assert_eq!(checksum(count, &out), (144, 35_040, 0x4947_3848));
}

/// The forward pass and the optimizer are the same nodes in both.
#[test]
fn a_fast_step_differs_in_the_products_of_the_backward_pass() {
    let configs = configurations();
    for config in configs.iter().filter(|c| c.embeddings != Embeddings::Q8_0).step_by(5) {
        let [exact, fast] = [Precision::Exact, Precision::Fast].map(|precision| {
            let shape = StepShape { batch: 2, seq: 32, precision, ..StepShape::default() };
            TrainStep::build(config, 300, shape, &OptimConfig::default())
        });
        let micro = exact.sections.micro.nodes();
        assert_eq!(exact.plan.graph.nodes.len(), fast.plan.graph.nodes.len());
        for (i, (exact, fast)) in exact.plan.graph.nodes.iter().zip(&fast.plan.graph.nodes).enumerate() {
            let product = match exact.op.name {
                "ternary_matmul_backward_input" | "ternary_matmul_backward_weight" => true,
                "matmul" => {
                    let a = MatmulArgs::from_words(&exact.args);
                    (a.a_transposed, a.b_transposed) != (0, 1)
                }
                _ => false,
            };
            let differ = exact.args != fast.args;
            assert_eq!(differ, product && micro.contains(&i), "{}", exact.op.name);
        }
    }
}

#[test]
fn decoding_graphs_are_what_they_were() {
    let backend = Backend::Cpu(Cpu::new(Level::Scalar, Some(1)).unwrap());
    let (mut count, mut out) = (0, String::new());
    for config in &configurations() {
        let engine = Engine::empty(config, 300, &[], &backend, EngineOptions { slots: 2, context: 0 }).unwrap();
        dump(&engine.plan().graph, &mut out);
        count += 1;
    }
    assert_eq!(checksum(count, &out), (216, 44_160, 0x1aaa_689d));
}

/// The gradient of a norm's weight, where the norm is added to itself or not.
fn gradient(twice: bool) -> Vec<f32> {
    let mut g = Graph::new();
    let [x, dy] = ["x", "dy"].map(|name| g.persistent(name, &[2, 4], DType::F32));
    let w = g.persistent("w", &[4], DType::F32);
    let dw = g.add_gradient(w);
    let (all, ()) = g.section("all", |g| {
        g.fill(dw, 0.0);
        let start = g.nodes.len();
        let u = g.rms_norm(x, w, 1e-6);
        let y = if twice { g.add_tensors(u, u) } else { u };
        let nodes = start..g.nodes.len();
        nanotern::ops::backward(g, nodes, &[(y, dy)]);
    });
    let backend = Backend::Cpu(Cpu::new(Level::Scalar, Some(1)).unwrap());
    let mut program = backend.prepare(Arc::new(Plan::new(g))).unwrap();
    program.write(x, &[1f32, -2.0, 3.0, 0.5, 2.0, 1.0, -1.0, 4.0]);
    program.write(w, &[1f32, 2.0, -1.0, 0.5]);
    program.write(dy, &[0.5f32, 1.0, -2.0, 3.0, 1.5, -1.0, 2.0, 0.25]);
    program.run_section(all).unwrap();
    program.read(dw).unwrap()
}

#[test]
fn a_tensor_used_twice_gets_both_gradients() {
    let once = gradient(false);
    assert!(once.iter().all(|v| *v != 0.0), "{once:?}");
    assert_eq!(gradient(true), once.iter().map(|v| 2.0 * v).collect::<Vec<_>>());
}

/// x -> a -> b -> c -> ... of different sizes.
fn chain(sizes: &[usize]) -> Graph {
    let mut g = Graph::new();
    let mut x = g.persistent("x", &[sizes[0]], DType::F32);
    for n in sizes {
        let y = g.temp("y", &[*n], DType::F32);
        g.push(&COPY, CopyArgs { n: *n as u32 }, &[x, y]);
        x = y;
    }
    g
}

#[test]
fn neighbours_never_share_and_the_plan_is_near_the_ideal() {
    let plan = Plan::new(chain(&[100, 7, 300, 20, 20, 500, 1, 64]));
    for node in &plan.graph.nodes {
        assert_ne!(plan.slot(node.tensors[0]), plan.slot(node.tensors[1]));
    }
    assert!(plan.temp_bytes() >= plan.ideal_peak());
    // The two tensors of 20 elements overlap. Each also overlaps a large one; the large ones share a slot.
    assert_eq!(plan.temp_bytes(), 4 * (500 + 20 + 20));
}

#[test]
fn every_tensor_fits_its_slot_and_lives_apart() {
    let plan = Plan::new(chain(&[3, 9, 27, 81, 9, 3]));
    let uses = |t: TensorId| {
        let nodes = plan.graph.nodes.iter().enumerate();
        nodes.filter(move |(_, node)| node.tensors.contains(&t)).map(|(i, _)| i)
    };
    for slot in &plan.slots {
        assert!(slot.tensors.iter().all(|t| plan.graph.tensor(*t).bytes() <= slot.bytes));
        for pair in slot.tensors.windows(2) {
            assert!(uses(pair[0]).next_back() < uses(pair[1]).next());
        }
    }
}
