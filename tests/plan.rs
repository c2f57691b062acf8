//! What `nanotern plan` says is what is allocated and written.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod common;

use common::cli::Project;
use common::{has_adapter, scalar};
use nanotern::backend::{Backend, Wgpu};
use nanotern::bench::{Needs, random_model};
use nanotern::formats::Format;
use nanotern::infer::{Engine, EngineOptions, Sampling};
use nanotern::model::Preset;
use nanotern::train::{Config, OptimConfig, StepShape, TrainStep, Trainer};
use serde_json::Value;

/// Bytes of memory that this process may write and that is its own.
fn held() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

#[track_caller]
fn assert_within_2_percent(got: u64, want: u64, what: &str) {
    assert!(got.abs_diff(want) * 50 <= want, "{what}: {got} bytes, {want} in the plan");
}

/// One test, since others would allocate at the same time. The scratch memory of a plan is that of a GPU.
#[test]
fn what_is_planned_is_what_is_allocated() {
    let dir = tempfile::tempdir().unwrap();
    for (name, batch) in [("tiny", 32), ("d20", 16)] {
        // So many sequences that buffers of less than a MiB, which may be memory that was freed before, are few.
        let overrides = [("train.batch_size".to_string(), batch.into())];
        let (config, preset) = (Config::load(Some(name.as_ref()), &overrides).unwrap(), Preset::find(name).unwrap());
        let options = EngineOptions { slots: 1, context: 0 };
        let needs = Needs::new(&config, preset.vocab, options).unwrap();
        assert_eq!(needs.params, needs.active, "a dense model");
        for wanted in &needs.training {
            let shape = StepShape { recompute: wanted.recompute, ..StepShape::of(&config) };
            let optim = OptimConfig { state: wanted.state, ..config.optim.clone() };
            let step = TrainStep::build(&config.model, preset.vocab, shape, &optim);
            let (scratch, before) = (step.plan.scratch() as u64, held());
            let trainer = Trainer::new(step, &scalar()).unwrap();
            let what = format!("{name}: training with {:?}, recompute = {}", wanted.state, wanted.recompute);
            assert_within_2_percent(held() - before, wanted.bytes() - scratch, &what);
            drop(trainer);
        }

        let model = random_model(config.model.clone(), preset.vocab);
        let decoded = |backend: &Backend| {
            let mut engine = Engine::new(&model, backend, options).unwrap();
            let prompt: Vec<u32> = (0..engine.context() as u32 - 1).collect();
            engine.generate_all(&[prompt], &Sampling { temperature: 0.0, ..Sampling::default() }).unwrap();
            (engine.device_bytes() as u64, engine.plan().scratch() as u64)
        };
        let wanted = needs.decoding;
        if name == "tiny" && has_adapter() {
            let (got, _) = decoded(&Backend::Wgpu(Wgpu::open(None).unwrap()));
            assert_within_2_percent(got, wanted.bytes(), "decoding to the end on a GPU");
        }
        // The copies of weights of f16 are f32.
        let (got, scratch) = decoded(&scalar());
        let copies = got.checked_sub(wanted.bytes() - scratch).expect("as much as in the plan");
        assert!(copies <= 2 * wanted.weights, "{name}: {copies} bytes of copies of {}", wanted.weights);

        let path = dir.path().join("model.gguf");
        for q8_0 in [false, true] {
            let mut model = model.clone();
            if q8_0 {
                model.round_tables_to_int8().unwrap();
            }
            let written = model.save_gguf(&path, Format::Q1_58).unwrap();
            let file = needs.files.iter().find(|file| file.format == Format::Q1_58 && file.q8_0 == q8_0).unwrap();
            assert_eq!((Ok(written), path.metadata().unwrap().len()), (file.bytes.clone(), written), "{name}");
        }
    }
}

#[test]
fn a_plan_is_printed() {
    let p = Project::new();
    let json = |words: &str| -> Value { serde_json::from_str(&p.ok(&format!("plan --json {words}"))).unwrap() };
    let bytes = |plan: &Value, i: usize, key: &str| plan["training"][i][key].as_u64().unwrap();
    let (eight, four) = (json("--config nano-125m"), json("--config nano-125m --batch-size 4"));
    assert_eq!((&eight["params"], &eight["vocab"]), (&four["params"], &50_257.into()));
    assert!(bytes(&four, 0, "activation_bytes") * 10 < bytes(&eight, 0, "activation_bytes") * 6);
    // f32, bf16 and int8, then the same with recomputed layers.
    let state = |i: usize| bytes(&eight, i, "state_bytes");
    assert!(state(1) * 100 < state(0) * 51 && state(2) * 100 < state(0) * 27, "{} {} {}", state(0), state(1), state(2));
    assert!(bytes(&eight, 3, "activation_bytes") * 2 < bytes(&eight, 0, "activation_bytes"));
    // Six operations for each weight of a product, and more for attention.
    let flops = eight["training_flops_per_token"].as_f64().unwrap() / eight["params"].as_f64().unwrap();
    assert!((6.0..8.0).contains(&flops), "{flops}");
    let devices = eight["devices"].as_array().unwrap();
    assert!(devices[0]["device"] == "cpu" && devices[0]["decodes"].is_boolean(), "{devices:?}");
    // Nothing of it is allocated: all of it would take 200 GiB.
    let large = p.ok("plan --config 7b");
    for part in ["6888.5 M parameters", "in a micro-batch", "recomputed", "q1_58", "tq2_0, tq1_0: no", "device    cpu"]
    {
        assert!(large.contains(part), "{part}: {large}");
    }
    for (words, code) in [("--config 8b", 2), ("--config tiny --context 999", 2), ("--config tiny --batch-size 0", 2)] {
        assert_eq!(p.nanotern(&format!("plan {words}")).code, Some(code), "{words}");
    }
}
