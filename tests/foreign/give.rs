//! Models of other programs, and ours, given back: as GGUF files of the architectures that others know, and as folders.

use super::common::Golden;
use super::gguf::{architecture, tensors};
use super::{distance, engine, folders, logits};
use nanotern::backend::{Backend, Cpu, Level};
use nanotern::formats::gguf::Layout;
use nanotern::formats::hf::Matrices;
use nanotern::formats::{CHAT_TEMPLATE, Format, ModelFile, Target, Tensor, TensorData, Ternary, TextConfig};
use nanotern::model::{
    Form, LoopOptions, MixerKind, ModelConfig, MoeOptions, Quantize, Role, RopeScaling, Scales, Weight,
};
use nanotern::ops::Activation;
use nanotern::rng::Rng;
use nanotern::tokenizer::Tokenizer;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const PACKED: Target = Target::Folder(Matrices::Packed);
const BF16: Target = Target::Folder(Matrices::Bf16);

/// Sub-norms, relu squared, and a head that is the embedding.
fn bitnet() -> ModelConfig {
    ModelConfig {
        dim: 96,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        ffn: 160,
        seq_len: 64,
        activation: Activation::Relu2,
        scales: Scales::Tensor,
        norm_eps: 1e-5,
        ..ModelConfig::default()
    }
}

/// No sub-norms, heads that are wider than the model, and a head of its own.
pub fn llama() -> ModelConfig {
    ModelConfig {
        activation: Activation::Silu,
        head_dim: Some(40),
        sub_norm: false,
        tie_embeddings: false,
        rope_theta: 500_000.0,
        ..bitnet()
    }
}

/// A model of random values. Of each f32 one, the bits of `mask` are kept.
pub fn random(config: &ModelConfig, mask: u32) -> ModelFile {
    let mut rng = Rng::new(5);
    let mut number = move |scale: f32, mean: f32| f32::from_bits((mean + scale * rng.normal()).to_bits() & mask);
    let text = TextConfig { chat_template: Some(CHAT_TEMPLATE.into()), ..TextConfig::new(&Tokenizer::bytes()) };
    let vocab = Tokenizer::bytes().vocab_size() + 2;
    let data = |weight: &Weight| {
        let mut values = |scale, mean| (0..weight.elements()).map(|_| number(scale, mean)).collect::<Vec<f32>>();
        match weight.form {
            Form::F32 => TensorData::F32(values(0.2, if weight.role == Role::Norm { 1.0 } else { 0.0 })),
            Form::F16 => TensorData::F16(values(0.5, 0.0).into_iter().map(half::f16::from_f32).collect()),
            Form::Ternary { group, scales } => {
                let (outs, dim) = weight.matrix();
                let mut t = Ternary::quantize(&values(1.0, 0.0), (outs, dim), group, scales);
                if scales == Scales::Tensor {
                    t.scales = vec![number(0.01, (dim as f32).powf(-0.5))];
                }
                TensorData::Ternary(t)
            }
            Form::Int8 => unreachable!("tables are f16"),
        }
    };
    let mut data = data;
    let tensors = config.weights(vocab).iter().map(|weight| Tensor::new(weight, data(weight))).collect();
    ModelFile { config: config.clone(), vocab, tensors, text }
}

/// f32 numbers, those that f16 holds too, and those of bf16.
const MASKS: [u32; 3] = [u32::MAX, 0xffff_e000, 0xffff_0000];

/// Models that a folder can hold.
fn models() -> Vec<(String, ModelFile)> {
    let scaling =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 32.0 };
    let silu = ModelConfig { activation: Activation::Silu, ..bitnet() };
    let scaled = ModelConfig { rope_scaling: Some(scaling), activation: Activation::Relu2, ..llama() };
    let linear = ModelConfig { rope_scaling: Some(RopeScaling::Linear { factor: 2.0 }), ..llama() };
    let configs = [("bitnet", bitnet()), ("silu", silu), ("scaled", scaled), ("linear", linear)];
    let with = |(i, (name, config)): (usize, (&str, ModelConfig))| (name.to_string(), random(&config, MASKS[i % 3]));
    configs.into_iter().enumerate().map(with).collect()
}

fn save(model: &ModelFile, target: Target) -> Result<(tempfile::TempDir, Vec<String>), String> {
    let dir = tempfile::tempdir().unwrap();
    let mut fitted = model.clone();
    let notes = fitted.fit(target).map_err(|e| e.to_string())?;
    let bytes = fitted.save(&dir.path().join("out"), target).map_err(|e| e.to_string())?;
    let files = std::fs::read_dir(dir.path().join("out"));
    let size: u64 = match files {
        Ok(files) => files.map(|file| file.unwrap().metadata().unwrap().len()).sum(),
        Err(_) => std::fs::metadata(dir.path().join("out")).unwrap().len(),
    };
    assert_eq!(bytes, size, "the size that is said");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing temporary is left");
    Ok((dir, notes))
}

fn json(dir: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("out").join(name)).unwrap()).unwrap()
}

#[test]
fn a_packed_folder_is_read_as_the_same_bits() {
    for (i, (name, model)) in models().into_iter().enumerate() {
        let (dir, notes) = save(&model, PACKED).unwrap();
        assert_eq!(notes, Vec::<String>::new());
        assert_eq!(ModelFile::open(&dir.path().join("out")).unwrap(), model, "{name}");
        // transformers computes in the one type that all numbers have.
        let file = std::fs::read(dir.path().join("out/model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&file).unwrap();
        let kinds: std::collections::BTreeSet<String> =
            file.tensors().iter().map(|(_, tensor)| format!("{:?}", tensor.dtype())).collect();
        let (kind, word) = [("F32", "float32"), ("F16", "float16"), ("BF16", "bfloat16")][i % 3];
        assert_eq!(kinds, [kind, "U8"].map(String::from).into(), "{name}");
        assert_eq!(json(dir.path(), "config.json")["torch_dtype"], word);
    }
}

#[test]
fn a_folder_of_values_has_the_nearest_of_bf16() {
    for (name, model) in models() {
        let (dir, notes) = save(&model, BF16).unwrap();
        assert!(notes[0].contains("8 bits"), "{notes:?}");
        assert_eq!(notes.iter().any(|note| note.contains("rounds")), name != "scaled", "{name}: {notes:?}");
        let read = ModelFile::open(&dir.path().join("out")).unwrap();
        assert_eq!(read.config, ModelConfig { quantize: Quantize::F16, ..model.config.clone() }, "{name}");
        for (tensor, before) in read.tensors.iter().zip(&model.tensors) {
            let (TensorData::F16(values), TensorData::Ternary(t)) = (&tensor.data, &before.data) else {
                assert_eq!(tensor, before);
                continue;
            };
            let bf16 = |v: f32| half::bf16::from_f32(v).to_f32();
            let want = |i: usize| bf16(f32::from(t.code(i / t.dim, i % t.dim)) * t.scales[0]);
            assert!(values.iter().enumerate().all(|(i, v)| v.to_f32() == want(i)), "{name} {}", tensor.name);
        }
        let (again, notes) = save(&read, BF16).unwrap();
        assert_eq!(notes, Vec::<String>::new(), "bf16 holds what bf16 held");
        let [first, second] =
            [&dir, &again].map(|dir| std::fs::read(dir.path().join("out/model.safetensors")).unwrap());
        assert!(first == second, "{name}");
    }
}

/// Runs a program of this folder with the Python of NANOTERN_PYTHON; none if there is none.
fn python(program: &str, args: &[&str]) -> Option<Value> {
    let Ok(python) = std::env::var("NANOTERN_PYTHON") else {
        println!("not read by {program}: NANOTERN_PYTHON names no Python with transformers");
        return None;
    };
    let out = Command::new(python).arg(folders()[0].join(program)).args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    Some(serde_json::from_str(text.lines().last().unwrap()).unwrap())
}

fn numbers(rows: &Value) -> Vec<f64> {
    rows.as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap()).map(|v| v.as_f64().unwrap()).collect()
}

/// An independent program in float64 computes the same logits from a folder.
#[test]
fn a_folder_means_to_others_what_it_means_here() {
    let cpu = Backend::Cpu(Cpu::new(Level::detect(), None).unwrap());
    let mut torch = true;
    for (name, model) in models() {
        for target in [PACKED, BF16] {
            let (dir, _) = save(&model, target).unwrap();
            let path = dir.path().join("out");
            let Some(found) = python("folder.py", &[path.to_str().unwrap()]) else { return };
            let ids: Vec<u32> = found["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
            let have = logits(&mut engine(&ModelFile::open(&path).unwrap(), &cpu), &ids, 1);
            let (error, most) = distance(&have, &numbers(&found["logits"]));
            println!("{name} {target}: NMSE {error:.1e}, max {most:.1e}");
            assert!(error <= 1e-10, "{name} {target}: {error:.1e}, {most:.1e}");
            // What transformers itself makes of it. Without torch it knows no models.
            let words = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            let load = || python("load.py", &[path.to_str().unwrap(), "Hi", &words]).unwrap()["logits"].clone();
            let found = if torch { load() } else { Value::Null };
            torch = !found.is_null();
            if torch {
                let (error, most) = distance(&have, &numbers(&found));
                println!("{name} {target}: transformers: NMSE {error:.1e}, max {most:.1e}");
                assert!(error <= 1e-10, "{name} {target}: transformers: {error:.1e}, {most:.1e}");
            }
        }
    }
}

/// transformers spells and begins texts as this program does, also where the tokenizer says nothing of how they begin.
#[test]
fn the_tokenizer_of_a_folder_is_that_of_the_model() {
    for add_bos in [false, true] {
        let mut model = random(&bitnet(), u32::MAX);
        model.text.add_bos = add_bos;
        let (dir, _) = save(&model, PACKED).unwrap();
        let path = dir.path().join("out");
        let read = ModelFile::open(&path).unwrap();
        let ids = |model: &ModelFile| model.text.prompt(model.tokenizer().unwrap().unwrap().encode("Hi you").unwrap());
        assert_eq!(ids(&read), ids(&model));
        assert_eq!(json(dir.path(), "tokenizer.json")["post_processor"].is_null(), !add_bos);
        assert_eq!((&read.text.stop, read.text.bos, read.text.eos), (&model.text.stop, Some(256), Some(257)));
        let Some(found) = python("load.py", &[path.to_str().unwrap(), "Hi you"]) else { continue };
        assert_eq!(found["ids"], serde_json::json!(ids(&model)), "add_bos {add_bos}");
        assert_eq!(found["chat"], "<|user|>Hello.<|end|>\n<|assistant|>");
        assert_eq!((&found["ends"], &found["model"]), (&serde_json::json!([257, 261]), &"BitNetForCausalLM".into()));
    }
}

#[test]
fn what_a_folder_cannot_hold_is_refused_by_name() {
    let refused = |config: &ModelConfig, target: Target, parts: &[&str]| {
        let error = save(&random(config, u32::MAX), target).expect_err(parts[0]);
        parts.iter().for_each(|part| assert!(error.contains(part), "{part}: {error}"));
    };
    let plain = ModelConfig { scales: Scales::Group, group_size: 32, ..bitnet() };
    let options = LoopOptions { before: 0, shared: 1, times: 2, after: 1 };
    let moe = MoeOptions { experts: 4, width: 32, shared: 0, ..MoeOptions::default() };
    let delta = vec![MixerKind::DeltaNet, MixerKind::Attention];
    for (what, config) in [
        ("residual streams", ModelConfig { mhc_streams: 2, ..plain.clone() }),
        ("a loop", ModelConfig { looped: Some(options), ..plain.clone() }),
        ("experts", ModelConfig { moe: Some(moe), ..plain.clone() }),
        ("further heads", ModelConfig { mtp: 1, ..plain.clone() }),
        ("mixers", ModelConfig { mixers: delta, ..plain.clone() }),
        ("a ternary head", ModelConfig { ternary_head: true, tie_embeddings: false, ..plain.clone() }),
        ("160 values together", ModelConfig { head_dim: Some(40), ..plain.clone() }),
    ] {
        refused(&config, BF16, &[what, "GGUF file can"]);
    }
    refused(&plain, PACKED, &["hf-packed has one scale for a matrix", "attn.q", "q1_58 holds the model"]);
    refused(&ModelConfig { quantize: Quantize::F16, ..bitnet() }, PACKED, &["attn.q.weight is f16", "hf-bf16 holds"]);
    let dense = vec!["layers.1.ffn.up.weight".to_string()];
    refused(&ModelConfig { dense, ..bitnet() }, PACKED, &["ffn.up.weight is f16"]);
    let mut model = random(&bitnet(), u32::MAX);
    model.round_tables_to_int8().unwrap();
    assert!(save(&model, PACKED).unwrap_err().contains("embed.weight is q8_0"));
    // A name that is taken is not replaced.
    let dir = tempfile::tempdir().unwrap();
    let error = random(&bitnet(), u32::MAX).save(dir.path(), PACKED).unwrap_err().to_string();
    assert!(error.contains("no folder is replaced") && std::fs::read_dir(dir.path()).unwrap().count() == 0, "{error}");
}

/// f32 scales of matrices as f16 ones of groups, and back.
#[test]
fn scales_are_spread_and_merged() {
    let config = ModelConfig { dim: 256, ffn: 512, layers: 1, ..bitnet() };
    for (mask, exact) in [(u32::MAX, false), (0xffff_e000, true)] {
        let model = random(&config, mask);
        for format in [Format::Tq2_0, Format::Tq1_0, Format::Q1_58] {
            let (dir, notes) = save(&model, Target::Gguf(format)).unwrap();
            assert_eq!(notes.is_empty(), exact, "{notes:?}");
            let mut read = ModelFile::open(&dir.path().join("out")).unwrap();
            for (tensor, before) in read.tensors.iter().zip(&model.tensors) {
                if let (TensorData::Ternary(t), TensorData::Ternary(before)) = (&tensor.data, &before.data) {
                    let scale = half::f16::from_f32(before.scales[0]).to_f32();
                    assert!(
                        t.codes == before.codes && t.scales == vec![scale; t.outs * t.dim / 256],
                        "{}",
                        tensor.name
                    );
                }
            }
            read.fit(Target::Gguf(Format::I2S)).unwrap();
            assert_eq!(read.tensors == model.tensors, exact);
        }
    }
    let mut model = random(&config, u32::MAX);
    let Some(TensorData::Ternary(t)) =
        model.tensors.iter_mut().map(|t| &mut t.data).find(|data| data.kind() == "ternary")
    else {
        panic!("no ternary matrix")
    };
    t.scales[0] = 1e-9;
    let error = save(&model, Target::Gguf(Format::Tq2_0)).unwrap_err();
    assert!(error.contains("attn.q.weight: its scale is 1e-9") && error.contains("i2_s does"), "{error}");
    let error = save(&random(&bitnet(), u32::MAX), Target::Gguf(Format::Tq2_0)).unwrap_err();
    assert!(error.contains("256") && error.contains("i2_s holds the model"), "{error}");
    let (_dir, notes) =
        save(&random(&ModelConfig { quantize: Quantize::F16, ..config }, 0), Target::Gguf(Format::I2S)).unwrap();
    assert!(notes[0].contains("no ternary matrix"), "{notes:?}");
}

/// The architecture that a model is written as, and who reads it.
#[test]
fn a_file_has_the_architecture_that_others_know() {
    let group = |config: ModelConfig| ModelConfig {
        dim: 256,
        ffn: 256,
        head_dim: None,
        scales: Scales::Group,
        group_size: 256,
        ..config
    };
    let silu = ModelConfig { activation: Activation::Silu, ..bitnet() };
    for (config, format, arch, reader) in [
        (bitnet(), Format::I2S, "bitnet-b1.58", "bitnet.cpp"),
        (silu.clone(), Format::I2S, "bitnet", "bitnet.cpp"),
        (llama(), Format::I2S, "llama", "bitnet.cpp"),
        (group(llama()), Format::Tq2_0, "llama", "llama.cpp"),
        (group(silu.clone()), Format::Tq1_0, "bitnet", "llama.cpp"),
        (group(bitnet()), Format::Tq2_0, "bitnet-b1.58", "builds of llama.cpp that know"),
        (group(llama()), Format::Q1_58, "nanotern", "nanotern only: q1_58"),
        (ModelConfig { head_dim: Some(40), ..silu }, Format::I2S, "nanotern", "a combination of options"),
        (ModelConfig { mhc_streams: 2, ..group(llama()) }, Format::Tq2_0, "nanotern", "several residual streams"),
        (ModelConfig { activation: Activation::Relu2, ..llama() }, Format::I2S, "nanotern", "a combination of options"),
    ] {
        let model = random(&config, u32::MAX);
        let bytes = Layout::new(&model, format).unwrap().to_vec();
        assert_eq!(architecture(&bytes), arch);
        let readers = model.readers(Target::Gguf(format));
        assert!(readers.contains(reader), "{reader}: {readers}");
        assert_eq!(ModelFile::from_gguf(&bytes).unwrap(), model, "{arch}");
    }
    let mut model = random(&llama(), u32::MAX);
    assert!(!model.readers(Target::Gguf(Format::I2S)).contains(';'));
    model.text.tokenizer_json = None;
    assert!(model.readers(Target::Gguf(Format::I2S)).contains("no tokenizer"));
    assert!(model.readers(PACKED).contains("transformers; it has no tokenizer"));
}

/// What other programs wrote of the same folder has the same tensors, bit for bit.
#[test]
fn folders_are_converted_to_the_files_of_others() {
    for folder in folders() {
        for (from, to, format) in [
            ("a_bitnet_bf16_online", "a_bitnet_b158.i2_s", Format::I2S),
            ("c_llama_packed", "c_llama.tq2_0", Format::Tq2_0),
            ("e_1bitllm_spm", "e_1bitllm.tq2_0", Format::Tq2_0),
            ("e_1bitllm_spm", "e_1bitllm.tq1_0", Format::Tq1_0),
        ] {
            let Ok(want) = std::fs::read(folder.join(format!("{to}.gguf"))) else { continue };
            let mut model = ModelFile::open(&folder.join(from)).unwrap();
            model.fit(Target::Gguf(format)).unwrap();
            let have = Layout::new(&model, format).unwrap().to_vec();
            assert_eq!(architecture(&have), architecture(&want));
            let (have, want) = (tensors(&have), tensors(&want));
            let differ: Vec<&String> = want.keys().filter(|name| have.get(*name) != want.get(*name)).collect();
            assert!(differ.is_empty() && have.len() == want.len(), "{to}: {differ:?}");
        }
    }
}

/// A file of llama.cpp's kind, with rows that are turned, a scale for rotary positions and a dense matrix, is written as it was; without
/// this program's own keys it means the same.
#[test]
fn a_file_of_llama_is_written_as_it_was() {
    let path = folders()[0].join("llama.tq2_0.gguf");
    let bytes = std::fs::read(&path).unwrap();
    let model = ModelFile::from_gguf(&bytes).unwrap();
    let again = Layout::new(&model, Format::Tq2_0).unwrap().to_vec();
    assert_eq!((tensors(&again), architecture(&again)), (tensors(&bytes), architecture(&bytes)));
    let keys = |bytes: &[u8]| {
        let file = nanotern::formats::gguf::Gguf::parse(bytes).unwrap();
        let keys = file.keys.iter().filter(|(key, _)| key.starts_with("llama."));
        keys.map(|(key, value)| (key.to_string(), value.to_string())).collect::<Vec<_>>()
    };
    // Others also write the size of a head where it follows from the width.
    let (have, want) = (keys(&again), keys(&bytes));
    assert!(have.iter().all(|key| want.contains(key)) && have.len() + 2 == want.len(), "{have:?}\n{want:?}");
    let want = Golden::read(&path.with_extension("expect.safetensors"));
    super::agrees("llama again", &ModelFile::from_gguf(&again).unwrap(), &want, "ref.");
}
