//! Single ops against numbers from a PyTorch implementation: `tests/golden/ops.safetensors`.
#![cfg(feature = "native")]

mod common;

use common::{Golden, backends, relative};
use nanotern::backend::{Backend, Program};
use nanotern::graph::{DType, Graph, Plan, TensorId};
use nanotern::ops::{AdamW, Lion, Muon, rope_table};
use nanotern::train::OptimConfig;
use std::path::Path;
use std::sync::Arc;

const LIMIT: f64 = 1e-5;

fn golden() -> Golden {
    Golden::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ops.safetensors"))
}

/// A graph of f32 inputs, ready to run.
struct Bench<'a> {
    g: Graph,
    inputs: Vec<(TensorId, Vec<f32>)>,
    golden: &'a Golden,
}

impl<'a> Bench<'a> {
    fn new(golden: &'a Golden) -> Self {
        Bench { g: Graph::new(), inputs: Vec::new(), golden }
    }

    /// A tensor with the values of the golden file.
    fn input(&mut self, name: &str, shape: &[usize]) -> TensorId {
        self.given(name, shape, self.golden.f32(name))
    }

    fn given(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> TensorId {
        let t = self.g.persistent(name, shape, DType::F32);
        self.inputs.push((t, values));
        t
    }

    /// Runs the graph. No tensors share memory, so that all can be read at the end.
    fn run(mut self, backend: &Backend) -> Program {
        self.g.tensors.iter_mut().for_each(|t| t.kind = nanotern::graph::Kind::Persistent);
        let nodes = 0..self.g.nodes.len();
        let mut program = backend.prepare(Arc::new(Plan::new(self.g))).unwrap();
        self.inputs.iter().for_each(|(t, values)| program.write(*t, values));
        program.run(nodes).unwrap();
        program
    }
}

fn assert_close(program: &mut Program, t: TensorId, golden: &[f64], what: &str) {
    let distance = relative(&program.read(t).unwrap(), golden);
    assert!(distance <= LIMIT, "{what} is {distance:.1e} away");
}

#[test]
fn bitlinear() {
    let golden = golden();
    for (name, backend) in backends() {
        let mut b = Bench::new(&golden);
        let (w, x) = (b.input("bitlinear.w", &[6, 256]), b.input("bitlinear.x", &[5, 256]));
        let weight = b.g.ternary_weight("w", 6, 256, 128);
        b.g.ternary_quantize(w, &weight);
        let xq = b.g.quantize_rows(x);
        let y = b.g.ternary_matmul(xq, &weight, 0..5);
        let mut program = b.run(&backend);
        let packed: Vec<u8> = program.read(weight.codes).unwrap();
        let code =
            |row: usize, i: usize| i32::from(packed[row * 64 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3) - 1;
        for (i, want) in golden.get("bitlinear.codes").iter().enumerate() {
            assert_eq!(f64::from(code(i / 256, i % 256)), *want, "{name}: code {i}");
        }
        let scales: Vec<f32> = program.read(weight.scales).unwrap();
        let scales: Vec<f64> = scales.into_iter().map(f64::from).collect();
        assert_eq!(scales, golden.get("bitlinear.scales"), "{name}: scales");
        let codes: Vec<i8> = program.read(xq.codes).unwrap();
        for (i, (have, want)) in codes.iter().zip(golden.get("bitlinear.xq")).enumerate() {
            // Row 1 consists of exact ties, which a division that is not correctly rounded may miss.
            let tie = name == "wgpu" && i / 256 == 1;
            assert!((f64::from(*have) - want).abs() <= if tie { 1.0 } else { 0.0 }, "{name}: activation {i}");
        }
        assert_close(&mut program, xq.step, golden.get("bitlinear.step"), &format!("{name}: step"));
        let (have, want): (Vec<f32>, _) = (program.read(y).unwrap(), golden.get("bitlinear.y"));
        for row in (0..5).filter(|row| name != "wgpu" || *row != 1) {
            let distance = relative(&have[row * 6..][..6], &want[row * 6..][..6]);
            assert!(distance <= LIMIT, "{name}: row {row} of y is {distance:.1e} away");
        }
    }
}

#[test]
fn rope_and_rms_norm() {
    let golden = golden();
    for (name, backend) in backends() {
        let mut b = Bench::new(&golden);
        // The file's layout is (heads, seq, head_dim); ours is (seq, heads * head_dim).
        let (heads, seq, head_dim) = (2, 8, 16);
        let transposed = |values: &[f64]| -> Vec<f64> {
            let at = |t: usize, h: usize, d: usize| values[(h * seq + t) * head_dim + d];
            (0..seq).flat_map(|t| (0..heads).flat_map(move |h| (0..head_dim).map(move |d| at(t, h, d)))).collect()
        };
        let x = transposed(golden.get("rope.x")).into_iter().map(|v| v as f32).collect();
        let x = b.given("x", &[seq, heads * head_dim], x);
        let table = b.given("table", &[seq, head_dim], rope_table(seq, head_dim, 10_000.0));
        let positions = b.g.persistent("positions", &[seq], DType::U32);
        b.inputs.push((positions, (0..seq as u32).map(f32::from_bits).collect()));
        b.g.rope(x, 0, positions, table);
        let rotated = x;
        let (x, w) = (b.input("rmsnorm.x", &[3, 64]), b.input("rmsnorm.w", &[64]));
        let normed = b.g.rms_norm(x, w, 1e-6);
        let mut program = b.run(&backend);
        assert_close(&mut program, rotated, &transposed(golden.get("rope.y")), &format!("{name}: rope"));
        assert_close(&mut program, normed, golden.get("rmsnorm.y"), &format!("{name}: rms_norm"));
    }
}

#[test]
fn residual_mixing() {
    let golden = golden();
    for (name, backend) in backends() {
        for (streams, residual) in [(2, "alpha_logit"), (4, "res_logits")] {
            let of = |part: &str| golden.f32(&format!("mhc{streams}.{part}"));
            let parts = [residual, "pre_logits", "pre_bias", "post_logits", "post_bias"];
            let values: Vec<f32> = parts.into_iter().flat_map(of).collect();
            let mut b = Bench::new(&golden);
            let p = b.given("p", &[values.len()], values);
            let coef = b.g.mhc_weights(p, streams);
            let mut program = b.run(&backend);
            let want: Vec<f64> = ["h_pre", "h_post", "H_res"]
                .into_iter()
                .flat_map(|part| golden.get(&format!("mhc{streams}.{part}")).to_vec())
                .collect();
            assert_close(&mut program, coef, &want, &format!("{name}: coefficients of {streams} streams"));
            let coef: Vec<f32> = program.read(coef).unwrap();
            let mix = &coef[2 * streams..];
            for i in 0..streams {
                let row: f32 = mix[i * streams..][..streams].iter().sum();
                let column: f32 = mix.iter().skip(i).step_by(streams).sum();
                assert!((row - 1.0).abs() < 1e-6 && (column - 1.0).abs() < 1e-6, "{name}: doubly stochastic");
            }
        }
    }
}

#[test]
fn muon() {
    let golden = golden();
    for (name, backend) in backends() {
        for (tag, shape) in [("tall", [48, 32]), ("wide", [32, 48])] {
            let mut b = Bench::new(&golden);
            let control = b.g.step_control();
            b.inputs.push((control.step, vec![1.0, 0.1, 0.05, 0.0, 0.0, 0.0]));
            b.inputs.push((control.ctl, vec![1.0, 0.0, 0.0, 0.0]));
            let gradients = golden.f32(&format!("muon.{tag}.g"));
            let w = b.input(&format!("muon.{tag}.w0"), &shape);
            let m = b.given("m", &shape, vec![0.0; 48 * 32]);
            for (i, half) in gradients.chunks(48 * 32).enumerate() {
                let g = b.given(&format!("g{i}"), &shape, half.to_vec());
                let muon = Muon { lr: 0.02, momentum: 0.95, steps: 3, weight_decay: 0.1 };
                let matrices = b.g.muon_matrices(g, w, m.into());
                b.g.muon(&muon, control, &matrices);
            }
            let mut program = b.run(&backend);
            assert_close(&mut program, w, golden.get(&format!("muon.{tag}.w2")), &format!("{name}: muon {tag}"));
        }
    }
}

#[test]
fn auxiliary_optimizers() {
    let golden = golden();
    for (name, backend) in backends() {
        for kind in ["lion", "adamw"] {
            let mut b = Bench::new(&golden);
            let (w, m, v) =
                (b.input("aux.w0", &[64]), b.given("m", &[64], vec![0.0; 64]), b.given("v", &[64], vec![0.0; 64]));
            for (i, gradient) in golden.f32("aux.g").chunks(64).enumerate() {
                let control = b.g.step_control();
                let t = i as i32 + 1;
                let bias = |beta: f64| (1.0 - beta.powi(t)) as f32;
                b.inputs.push((control.step, vec![1.0, bias(0.9), bias(0.95), 0.0, 0.0, 0.0]));
                b.inputs.push((control.ctl, vec![1.0, 0.0, 0.0, 0.0]));
                let g = b.given("g", &[64], gradient.to_vec());
                if kind == "lion" {
                    b.g.lion(&Lion { lr: 1e-3, weight_decay: 0.1, ..Lion::default() }, control, [g, w], m.into());
                } else {
                    b.g.adamw(
                        &AdamW { lr: 3e-3, weight_decay: 0.1, ..AdamW::default() },
                        control,
                        [g, w],
                        [m, v].map(Into::into),
                    );
                }
            }
            let mut program = b.run(&backend);
            assert_close(&mut program, w, golden.get(&format!("aux.{kind}")), &format!("{name}: {kind}"));
        }
    }
}

#[test]
fn schedule() {
    let optim = OptimConfig { warmup_steps: 4, decay_fraction: 0.25, ..OptimConfig::default() };
    for (step, want) in golden().get("wsd.total20_warmup4_decay0.25").iter().enumerate() {
        assert!((optim.schedule(step as u64, 20) - want).abs() < 1e-6, "step {step}");
    }
}
