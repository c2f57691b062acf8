//! Helpers for several test files: the backends to test, and golden files.

#![allow(dead_code, reason = "each test file uses its own part of this")]

#[cfg(feature = "cli")]
pub mod cli;
pub mod sampling;
#[cfg(all(feature = "cli", unix))]
pub mod server;

use nanotern::backend::{Backend, Cpu, Level, Wgpu, adapters};
use nanotern::model::{LoopOptions, MixerKind, ModelConfig, MoeOptions, Scales};
use nanotern::ops::Activation;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Whether a wgpu adapter exists. If not, the test fails with NANOTERN_REQUIRE_GPU=1 and otherwise prints a note.
pub fn has_adapter() -> bool {
    let found = !adapters().is_empty();
    if !found {
        assert!(std::env::var("NANOTERN_REQUIRE_GPU").as_deref() != Ok("1"), "no wgpu adapter, and one is required");
        // Directly to standard error, since the output of passing tests is captured.
        let _ = writeln!(std::io::stderr(), "NOT TESTED on wgpu: this machine has no adapter");
    }
    found
}

/// A model with norms of queries and keys, and a bias of every product.
pub fn normed(plain: &ModelConfig) -> ModelConfig {
    let biases = ["attn.q", "attn.k", "attn.v", "attn.o", "ffn.gate", "ffn.up", "ffn.down"].map(String::from);
    ModelConfig { qk_norm: true, biases: biases.into(), ..plain.clone() }
}

/// Models of other architectures than a plain transformer of two layers or more, made from one.
pub fn architectures(plain: &ModelConfig) -> Vec<ModelConfig> {
    let looped = |before, shared, times| {
        let after = plain.layers - before - shared;
        ModelConfig { looped: Some(LoopOptions { before, shared, times, after }), ..plain.clone() }
    };
    let moe = MoeOptions { experts: 5, active: 2, width: 64, shared: 32, from: 1, ..MoeOptions::default() };
    let one = MoeOptions { experts: 3, active: 1, ..MoeOptions::default() };
    let experts = ModelConfig { moe: Some(moe), ..plain.clone() };
    let passed_again = ModelConfig { moe: Some(one), ..looped(1, 1, 2) };
    let list = vec![looped(1, 1, 2), looped(0, plain.layers, 3), experts, passed_again];
    let ahead = |mtp, config: &ModelConfig| ModelConfig { mtp, ..config.clone() };
    // A delta rule, attention, experts, a loop and a further head in one model.
    let mixers = vec![MixerKind::DeltaNet, MixerKind::Attention];
    let all = ModelConfig { mixers, ..ahead(1, &list[3]) };
    // As BitNet b1.58 2B4T has it.
    let (scales, activation) = (Scales::Tensor, Activation::Relu2);
    let bitnet = ModelConfig { scales, activation, head_dim: Some(64), ffn: 128, ..plain.clone() };
    let list = [ahead(2, plain), ahead(1, &list[2])].into_iter().chain(list);
    let list = list.chain([all, normed(plain), bitnet]).collect::<Vec<_>>();
    list.iter().for_each(|config| config.check().unwrap());
    list
}

/// The most memory that a process held so far without its executable, in KiB; 0 if it has ended or the system does not tell.
pub fn peak_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let field = |name| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    field("VmHWM:").zip(field("RssFile:")).map_or(0, |(peak, files)| peak - files)
}

/// All backends of this machine: each CPU level, wgpu, and CUDA if it is built in.
pub fn backends() -> Vec<(String, Backend)> {
    let mut list: Vec<(String, Backend)> = Level::available()
        .into_iter()
        .map(|level| (format!("cpu {level}"), Backend::Cpu(Cpu::new(level, Some(2)).unwrap())))
        .collect();
    if has_adapter() {
        list.push(("wgpu".into(), Backend::Wgpu(Wgpu::open(None).unwrap())));
    }
    #[cfg(feature = "cuda")]
    if nanotern::backend::cuda::devices().is_ok_and(|devices| !devices.is_empty()) {
        list.push(("cuda".into(), Backend::Cuda(nanotern::backend::Cuda::open(None).unwrap())));
    }
    list
}

/// Whether the backend with that name sums in the order of the shaders instead of that of the kernels.
pub fn on_gpu(name: &str) -> bool {
    ["wgpu", "cuda"].contains(&name)
}

pub fn scalar() -> Backend {
    Backend::Cpu(Cpu::new(Level::Scalar, Some(1)).unwrap())
}

pub fn fastest() -> Backend {
    Backend::Cpu(Cpu::new(Level::detect(), Some(2)).unwrap())
}

/// A safetensors file of numbers.
pub struct Golden {
    pub tensors: BTreeMap<String, Vec<f64>>,
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// The metadata key `recipe`, if there is one.
    pub recipe: serde_json::Value,
}

impl Golden {
    pub fn read(path: &Path) -> Golden {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let recipe = header.metadata().as_ref().and_then(|m| m.get("recipe"));
        let recipe = recipe.map_or(serde_json::Value::Null, |r| serde_json::from_str(r).unwrap());
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let (mut tensors, mut shapes) = (BTreeMap::new(), BTreeMap::new());
        for (name, view) in file.tensors() {
            use safetensors::Dtype::*;
            let data = view.data();
            let values = match view.dtype() {
                F32 => data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
                F64 => data.chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
                I32 => data.chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
                F16 => data.chunks(2).map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).into()).collect(),
                I8 => data.iter().map(|b| f64::from(*b as i8)).collect(),
                other => panic!("{name}: {other:?}"),
            };
            shapes.insert(name.clone(), view.shape().to_vec());
            tensors.insert(name, values);
        }
        Golden { tensors, shapes, recipe }
    }

    pub fn get(&self, name: &str) -> &[f64] {
        self.tensors.get(name).unwrap_or_else(|| panic!("the golden file has no {name}"))
    }

    pub fn f32(&self, name: &str) -> Vec<f32> {
        self.get(name).iter().map(|v| *v as f32).collect()
    }

    /// The values of one of our parameters. Our residual mixing is one tensor, the file's is five.
    pub fn param(&self, prefix: &str, name: &str) -> Vec<f64> {
        let Some(sublayer) = name.strip_suffix(".mhc") else { return self.get(&format!("{prefix}.{name}")).to_vec() };
        ["alpha_logit", "res_logits", "pre_logits", "pre_bias", "post_logits", "post_bias"]
            .iter()
            .filter_map(|part| self.tensors.get(&format!("{prefix}.{sublayer}.mhc.{part}")))
            .flatten()
            .copied()
            .collect()
    }
}

/// |x - reference| / max(|reference|, 1e-4), with Euclidean norms.
pub fn relative(x: &[f32], reference: &[f64]) -> f64 {
    assert_eq!(x.len(), reference.len(), "number of values");
    let diff: f64 = x.iter().zip(reference).map(|(x, r)| (f64::from(*x) - r).powi(2)).sum();
    let norm: f64 = reference.iter().map(|r| r * r).sum();
    let distance = diff.sqrt() / norm.sqrt().max(1e-4);
    if distance.is_nan() { f64::INFINITY } else { distance }
}

/// SIGHUP and its exit code; under `nohup`, where programs ignore it, SIGTERM.
#[cfg(unix)]
pub fn hangup() -> (rustix::process::Signal, i32) {
    use rustix::process::Signal;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    if ignored.unwrap_or(0) & 1 == 0 { (Signal::HUP, 129) } else { (Signal::TERM, 143) }
}
