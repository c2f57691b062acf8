//! A model of others in training: the loss and every gradient are those of PyTorch.

use super::common::{Golden, backends, on_gpu, relative};
use super::folders;
use nanotern::formats::Parameters;
use nanotern::train::{Batch, OptimConfig, StepShape, TrainStep, Trainer};
use std::path::Path;

/// What a folder calls a weight.
fn name(weight: &str) -> String {
    let Some((layer, part)) = weight.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) else {
        return format!("model.{}", weight.replace("embed", "embed_tokens"));
    };
    let part = match part.split('.').collect::<Vec<_>>()[..] {
        ["attn", "norm", _] => "input_layernorm".to_string(),
        ["ffn", "norm", _] => "post_attention_layernorm".to_string(),
        ["attn", "sub_norm", _] => "self_attn.attn_sub_norm".to_string(),
        ["ffn", "sub_norm", _] => "mlp.ffn_sub_norm".to_string(),
        ["attn", matrix, _] => format!("self_attn.{matrix}_proj"),
        [_, matrix, _] => format!("mlp.{matrix}_proj"),
        _ => unreachable!("{weight}"),
    };
    format!("model.layers.{layer}.{part}.weight")
}

#[test]
fn loss_and_gradients_are_those_of_others() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/training");
    let all = folders().into_iter().chain([own]).flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let folders = all.map(|entry| entry.unwrap().path()).filter(|path| path.join("config.json").is_file());
    let mut count = 0;
    for folder in folders {
        let expected = folder.with_extension("train.safetensors");
        if !expected.is_file() {
            continue;
        }
        count += 1;
        let (want, model) = (Golden::read(&expected), Parameters::open(&folder).unwrap());
        let [batch, width] = want.shapes["tokens"][..] else { panic!("tokens has two dimensions") };
        let ids: Vec<u32> = want.get("tokens").iter().map(|id| *id as u32).collect();
        let from = |first: usize| ids.chunks(width).flat_map(|row| row[first..][..width - 1].to_vec()).collect();
        let shape = StepShape { batch, seq: width - 1, ..StepShape::default() };
        for (backend_name, backend) in backends() {
            let step = TrainStep::build(&model.config, model.vocab, shape, &OptimConfig::default());
            let mut trainer = Trainer::new(step, &backend).unwrap();
            trainer.load_model(&model.weights).unwrap();
            trainer.program.run_section(trainer.step.sections.begin).unwrap();
            trainer.feed(&Batch::new(from(0), from(1), width - 1));
            trainer.program.run_section(trainer.step.sections.micro).unwrap();
            let loss = f64::from(trainer.program.read::<f32>(trainer.step.loss).unwrap()[0]);
            let off = (loss - want.get("loss")[0]).abs();
            println!("{} {backend_name}: loss {loss}, off by {off:.1e}", folder.display());
            assert!(off < if on_gpu(&backend_name) { 2e-6 } else { 1e-6 }, "{backend_name}: {off:.1e}");
            let params: Vec<_> = trainer.step.model.params().map(|(w, param)| (w.name.clone(), param)).collect();
            for (weight, param) in params {
                let gradient = trainer.step.plan.graph.gradient(param).unwrap();
                let gradient: Vec<f32> = trainer.program.read(gradient).unwrap();
                let distance = relative(&gradient, want.get(&name(&weight)));
                assert!(distance < 1e-5, "{backend_name}: the gradient of {weight} is off by {distance:.1e}");
            }
        }
    }
    assert!(count > 0);
}
