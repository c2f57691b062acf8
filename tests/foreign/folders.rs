//! Folders as Hugging Face has them.

use super::common::Golden;
use super::{agrees, folders};
use nanotern::formats::hf::Folder;
use nanotern::formats::{ModelFile, TensorData, Ternary};
use nanotern::model::RopeScaling;
use nanotern::ops::Activation;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The folders with a model that are there.
fn models() -> Vec<PathBuf> {
    let inner = folders().into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut models: Vec<_> =
        inner.map(|entry| entry.unwrap().path()).filter(|p| p.join("config.json").is_file()).collect();
    models.sort();
    models
}

#[test]
fn every_folder_computes_what_was_expected() {
    for folder in models() {
        let file = ModelFile::open(&folder).unwrap();
        let want = ["expect.safetensors", "expect_transformers_f32.safetensors"].map(|name| folder.join(name));
        let want = Golden::read(want.iter().find(|path| path.is_file()).unwrap());
        agrees(&folder.file_name().unwrap().to_string_lossy(), &file, &want, "");
    }
}

#[test]
fn a_tokenizer_of_a_folder_gives_the_ids_of_others() {
    for folder in models() {
        let Ok(cases) = std::fs::read_to_string(folder.join("tokenizer_cases.json")) else { continue };
        let tokenizer = ModelFile::open(&folder).unwrap().tokenizer().unwrap().unwrap();
        for case in serde_json::from_str::<Vec<Value>>(&cases).unwrap() {
            let (text, ids) = (case["text"].as_str().unwrap(), &case["ids"]);
            assert_eq!(json!(tokenizer.encode(text).unwrap()), *ids, "{text:?}");
        }
    }
}

/// A tensor of a folder: its type, shape and bytes.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// A folder that can be written: what `config.json` says, and its tensors.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) config: Value,
    tensors: BTreeMap<String, Stored>,
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Four rows in a byte, as far apart as possible.
fn packed(t: &Ternary) -> Vec<u8> {
    let quarter = t.outs / 4;
    let cell = |row: usize, col: usize| (t.code(row, col) + 1) as u8;
    let byte = |r: usize, c: usize| (0..4).fold(0, |byte, k| byte | cell(r + k * quarter, c) << (2 * k));
    (0..quarter).flat_map(|r| (0..t.dim).map(move |c| (r, c))).map(|(r, c)| byte(r, c)).collect()
}

impl Made {
    /// A model of an architecture, with packed matrices whose scales multiply.
    pub(super) fn new(model: &ModelFile, architecture: &str) -> Made {
        let c = &model.config;
        let act = if c.activation == Activation::Relu2 { "relu2" } else { "silu" };
        let mut config = json!({"architectures": [architecture], "hidden_size": c.dim, "num_hidden_layers": c.layers,
            "num_attention_heads": c.heads, "num_key_value_heads": c.kv_heads, "head_dim": c.head_dim(),
            "intermediate_size": c.ffn, "max_position_embeddings": c.seq_len, "rms_norm_eps": c.norm_eps,
            "rope_theta": c.rope_theta, "vocab_size": model.vocab, "tie_word_embeddings": c.tie_embeddings, "hidden_act": act,
            "eos_token_id": 3, "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
            "quantization_mode": "offline"}});
        if let Some(RopeScaling::Yarn { factor, beta_fast, beta_slow, original_context, attention_factor }) =
            c.rope_scaling
        {
            config["rope_scaling"] = json!({"rope_type": "yarn", "factor": factor, "beta_fast": beta_fast,
                "beta_slow": beta_slow, "original_max_position_embeddings": original_context,
                "attention_factor": attention_factor});
        }
        if architecture.starts_with("Llama") {
            config["attention_bias"] = json!(c.biases.iter().any(|part| part == "attn.o"));
            config["mlp_bias"] = json!(c.biases.iter().any(|part| part == "ffn.up"));
        }
        let mut tensors = BTreeMap::new();
        for tensor in &model.tensors {
            let name = tensor.name.replace("layers.", "model.layers.");
            let name = name.replace("embed.", "model.embed_tokens.").replace("attn.norm.", "input_layernorm.");
            let name = name.replace("ffn.norm.", "post_attention_layernorm.");
            let name = match &name[..] {
                "norm.weight" => "model.norm.weight".to_string(),
                "head.weight" => "lm_head.weight".to_string(),
                _ => name.replace("attn.q_norm", "self_attn.q_norm").replace("attn.k_norm", "self_attn.k_norm"),
            };
            let name =
                name.replace("attn.sub_norm", "self_attn.attn_sub_norm").replace("ffn.sub_norm", "mlp.ffn_sub_norm");
            let name = match name.split('.').collect::<Vec<_>>()[..] {
                [model, layers, i, "attn", part, end] => format!("{model}.{layers}.{i}.self_attn.{part}_proj.{end}"),
                [model, layers, i, "ffn", part, end] => format!("{model}.{layers}.{i}.mlp.{part}_proj.{end}"),
                _ => name,
            };
            match &tensor.data {
                TensorData::F32(v) => _ = tensors.insert(name, (Dtype::F32, tensor.shape.clone(), bytes(v))),
                TensorData::F16(v) => {
                    let bytes = v.iter().flat_map(|v| v.to_le_bytes()).collect();
                    tensors.insert(name, (Dtype::F16, tensor.shape.clone(), bytes));
                }
                TensorData::Ternary(t) => {
                    tensors.insert(format!("{name}_scale"), (Dtype::F32, vec![1], bytes(&t.scales)));
                    tensors.insert(name, (Dtype::U8, vec![t.outs / 4, t.dim], packed(t)));
                }
                TensorData::Int8(_) => unreachable!("a file without one"),
            }
        }
        Made { config, tensors }
    }

    fn matrices(&self) -> Vec<String> {
        self.tensors.keys().filter(|name| name.ends_with("_proj.weight")).cloned().collect()
    }

    /// Writes it, in so many files.
    fn write(&self, folder: &Path, files: usize) {
        std::fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        let view =
            |(dtype, shape, data): &Stored| TensorView::new(*dtype, shape.clone(), &data.clone().leak()[..]).unwrap();
        let all: Vec<_> = self.tensors.iter().map(|(name, stored)| (name.clone(), view(stored))).collect();
        if files == 1 {
            return safetensors::serialize_to_file(all, None, &folder.join("model.safetensors")).unwrap();
        }
        let mut map = serde_json::Map::new();
        for (i, part) in all.chunks(all.len().div_ceil(files)).enumerate() {
            let name = format!("model-{i}.safetensors");
            map.extend(part.iter().map(|(tensor, _)| (tensor.clone(), json!(name))));
            safetensors::serialize_to_file(part.to_vec(), None, &folder.join(name)).unwrap();
        }
        std::fs::write(folder.join("model.safetensors.index.json"), json!({ "weight_map": map }).to_string()).unwrap();
    }

    /// What is read of it, or the error.
    pub(super) fn read(&self, files: usize) -> Result<ModelFile, String> {
        let dir = tempfile::tempdir().unwrap();
        self.write(dir.path(), files);
        ModelFile::open(dir.path()).map_err(|e| e.to_string())
    }
}

/// One of our GGUF files.
pub(super) fn file(name: &str) -> ModelFile {
    ModelFile::open(&folders()[0].join(name)).unwrap()
}

fn own() -> (ModelFile, Made) {
    let model = file("b158.i2_s.gguf");
    let made = Made::new(&model, "BitNetForCausalLM");
    (model, made)
}

/// Folders of other architectures: norms of heads, biases, YaRN. What is computed of the same tensors is known from their files.
#[test]
fn other_architectures_hold_what_their_files_do() {
    for (name, architecture) in [
        ("qwen2.tq2_0.gguf", "Qwen2ForCausalLM"),
        ("qwen3.i2_s.gguf", "Qwen3ForCausalLM"),
        ("llama.i2_s.gguf", "LlamaForCausalLM"),
    ] {
        let mut model = file(name);
        let mut made = Made::new(&model, architecture);
        // A product has its bias before it is multiplied by its scale.
        let multiplied = made.read(1).unwrap();
        for tensor in &mut model.tensors.iter().filter(|tensor| tensor.name.ends_with(".bias")) {
            let data = |file: &ModelFile, name: &str| file.tensor(name).unwrap().data.clone();
            let TensorData::Ternary(t) = data(&model, &tensor.name.replace(".bias", ".weight")) else {
                panic!("{name}")
            };
            let TensorData::F32(values) = &tensor.data else { panic!("{name}") };
            let want = values.iter().map(|value| value * t.scales[0]).collect();
            assert_eq!(data(&multiplied, &tensor.name), TensorData::F32(want), "{name}: {}", tensor.name);
        }
        // The other class divides before.
        made.config["quantization_config"] = json!({"quant_method": "bitnet"});
        let read = made.read(2).unwrap();
        for tensor in &mut model.tensors {
            if let TensorData::Ternary(t) = &mut tensor.data {
                t.scales[0] = 1.0 / t.scales[0];
            }
        }
        assert_eq!(read.tensors, model.tensors, "{name}");
        let options =
            |file: &ModelFile| (file.config.qk_norm, file.config.biases.clone(), file.config.rope_scaling.clone());
        if !name.starts_with("llama") {
            assert_eq!(options(&read), options(&model), "{name}");
            assert_eq!(read.config.rope_frequencies(), model.config.rope_frequencies(), "{name}");
        }
        assert_eq!(
            (read.config.head_dim(), read.config.tie_embeddings),
            (model.config.head_dim(), model.config.tie_embeddings)
        );
    }
}

#[test]
fn a_folder_holds_what_its_file_does() {
    let (model, mut made) = own();
    for files in [1, 3] {
        let read = made.read(files).unwrap();
        assert_eq!(read.tensors, model.tensors, "{files} files");
        assert_eq!((read.vocab, &read.text.stop[..]), (model.vocab, &[3][..]));
        assert_eq!(read.config.activation, model.config.activation);
    }
    // The other class divides by what has the same name.
    made.config["quantization_config"] = json!({"quant_method": "bitnet"});
    let divided = made.read(1).unwrap();
    for (divided, plain) in divided.tensors.iter().zip(&model.tensors) {
        if let (TensorData::Ternary(divided), TensorData::Ternary(plain)) = (&divided.data, &plain.data) {
            assert_eq!((&divided.codes, divided.scales[0]), (&plain.codes, 1.0 / plain.scales[0]));
        }
    }
}

#[test]
fn trained_values_are_rounded_by_their_mean_magnitude() {
    let (_, mut made) = own();
    made.config["quantization_config"]["quantization_mode"] = json!("online");
    let mut rng = nanotern::rng::Rng::new(3);
    let mut all = BTreeMap::new();
    for name in made.matrices() {
        made.tensors.remove(&format!("{name}_scale"));
        let (kind, shape, data) = made.tensors.get_mut(&name).unwrap();
        let values: Vec<f32> = (0..4 * data.len()).map(|_| half::bf16::from_f32(rng.normal()).to_f32()).collect();
        let stored = values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
        (*kind, *data, shape[0]) = (Dtype::BF16, stored, 4 * shape[0]);
        all.insert(name, values);
    }
    let read = made.read(2).unwrap();
    let t = |name: &str| match &read.tensor(name).unwrap().data {
        TensorData::Ternary(t) => t.clone(),
        other => panic!("{}", other.kind()),
    };
    for (ours, theirs) in [("attn.q", "self_attn.q"), ("attn.o", "self_attn.o"), ("ffn.down", "mlp.down")] {
        let t = t(&format!("layers.1.{ours}.weight"));
        let values = &all[&format!("model.layers.1.{theirs}_proj.weight")];
        let mean = values.iter().map(|v| f64::from(v.abs())).sum::<f64>() / values.len() as f64;
        assert!((f64::from(t.scales[0]) / mean - 1.0).abs() < 1e-6);
        for (i, v) in values.iter().enumerate() {
            let want = (f64::from(*v) / mean).round().clamp(-1.0, 1.0) as i8;
            let near_tie = ((f64::from(*v) / mean).abs() - 0.5).abs() < 1e-5;
            assert!(near_tie || t.code(i / t.dim, i % t.dim) == want, "{ours} {i}: {v}");
        }
    }
}

/// A dense model keeps its values, and its layers see their inputs as they are.
#[test]
fn dense_matrices_stay_what_they_are() {
    let (_, mut made) = own();
    made.config["quantization_config"] = Value::Null;
    made.config["architectures"] = json!(["LlamaForCausalLM"]);
    for (i, name) in made.matrices().into_iter().enumerate() {
        made.tensors.remove(&format!("{name}_scale"));
        let (kind, shape, data) = made.tensors.get_mut(&name).unwrap();
        // All but one are ternary.
        let value = |n: usize| if i > 0 { [0.25, -0.25, 0.0][n % 3] } else { n as f32 / 64.0 };
        *data = (0..4 * data.len()).flat_map(|n| half::f16::from_f32(value(n % 60)).to_le_bytes()).collect();
        (*kind, shape[0]) = (Dtype::F16, 4 * shape[0]);
    }
    let read = made.read(1).unwrap();
    let TensorData::F16(values) = &read.tensor("layers.0.attn.q.weight").unwrap().data else { panic!("not f16") };
    assert!(!read.config.is_ternary() && values[..3].iter().map(|v| v.to_f32()).eq([0.25, -0.25, 0.0]));
    let dir = tempfile::tempdir().unwrap();
    made.write(dir.path(), 1);
    let folder = Folder::open(dir.path()).unwrap();
    let all = made.matrices().len();
    assert_eq!(folder.three_valued().unwrap(), (all - 1, all));
    assert!(folder.what.contains("LlamaForCausalLM, dense"), "{}", folder.what);
}

/// What a folder must not say, and what the error names.
#[test]
fn what_is_not_honoured_or_damaged_is_refused_by_name() {
    let (_, made) = own();
    let q = "model.layers.0.self_attn.q_proj.weight";
    type Change = fn(&mut Made);
    let cases: &[(&str, Change)] = &[
        ("architectures", |m| m.config["architectures"] = json!(["GemmaForCausalLM"])),
        ("architectures", |m| m.config["architectures"] = Value::Null),
        ("hidden_size", |m| m.config["hidden_size"] = json!(-1)),
        ("dim = 99", |m| m.config["hidden_size"] = json!(99)),
        ("heads", |m| m.config["num_attention_heads"] = json!(0)),
        ("head_dim", |m| m.config["head_dim"] = json!(1u64 << 40)),
        ("layers", |m| m.config["num_hidden_layers"] = json!(1_000_000)),
        ("vocab_size", |m| m.config["vocab_size"] = json!(1u64 << 60)),
        ("rms_norm_eps", |m| m.config["rms_norm_eps"] = Value::Null),
        ("hidden_act", |m| m.config["hidden_act"] = json!("gelu")),
        ("q_proj.bias", |m| m.config["attention_bias"] = json!(true)),
        ("mlp_bias", |m| m.config["mlp_bias"] = json!(true)),
        ("original_max", |m| m.config["rope_scaling"] = json!({"rope_type": "yarn", "factor": 4.0})),
        ("low_freq_factor", |m| m.config["rope_parameters"] = json!({"rope_type": "llama3", "factor": 8.0})),
        ("rope_scaling", |m| m.config["rope_scaling"] = json!({"type": "linear", "factor": 0.0})),
        ("quant_method", |m| m.config["quantization_config"]["quant_method"] = json!("gptq")),
        ("linear_class", |m| m.config["quantization_config"]["linear_class"] = json!("other")),
        ("quantization_mode", |m| m.config["quantization_config"]["quantization_mode"] = json!("later")),
        ("use_rms_norm", |m| m.config["quantization_config"]["use_rms_norm"] = json!(true)),
        ("modules_to_not_convert", |m| m.config["quantization_config"]["modules_to_not_convert"] = json!(["k_proj"])),
        ("eos_token_id", |m| m.config["eos_token_id"] = json!(4_000_000)),
    ];
    for (part, change) in cases {
        let mut changed = made.clone();
        change(&mut changed);
        let error = changed.read(1).expect_err(part);
        assert!(error.contains(part) || error.contains("stop") || error.contains("eos"), "{part}: {error}");
    }
    let tensor = |change: &dyn Fn(&mut BTreeMap<String, Stored>)| {
        let mut changed = made.clone();
        change(&mut changed.tensors);
        changed.read(1).unwrap_err()
    };
    let scale = format!("{q}_scale");
    for (what, error) in [
        ("missing", tensor(&|t| _ = t.remove(q))),
        ("scale is missing", tensor(&|t| _ = t.remove(&scale))),
        ("scale is 0", tensor(&|t| t.get_mut(&scale).unwrap().2 = bytes(&[0.0]))),
        ("not a finite number", tensor(&|t| t.get_mut(&scale).unwrap().2 = bytes(&[f32::NAN]))),
        ("one value", tensor(&|t| *t.get_mut(&scale).unwrap() = (Dtype::F32, vec![2], bytes(&[1.0, 2.0])))),
        ("invalid trit", tensor(&|t| t.get_mut(q).unwrap().2[5] = 0xc1)),
        ("packed codes", tensor(&|t| t.get_mut(q).unwrap().0 = Dtype::I8)),
        ("packed codes", tensor(&|t| t.get_mut(q).unwrap().1.reverse())),
        (
            "q_proj.bias\" is unknown",
            tensor(&|t| _ = t.insert(q.replace("weight", "bias"), (Dtype::F32, vec![1], vec![0; 4]))),
        ),
    ] {
        assert!(error.contains(what), "{what}: {error}");
    }
}

#[test]
fn damaged_files_of_a_folder_are_refused() {
    let (_, made) = own();
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str, bytes: &[u8]| {
        made.write(dir.path(), 1);
        std::fs::write(dir.path().join(name), bytes).unwrap();
        let error = ModelFile::open(dir.path()).unwrap_err().to_string();
        std::fs::remove_file(dir.path().join(name)).unwrap();
        error
    };
    assert!(read("config.json", b"{").contains("config.json"));
    assert!(read("config.json", &vec![b' '; 2 << 20]).contains("at most"));
    for bytes in [&b""[..], b"abc", &u64::MAX.to_le_bytes(), &[&2u64.to_le_bytes()[..], b"{}x"].concat()] {
        assert!(read("model.safetensors", bytes).contains("model.safetensors"));
    }
    let index = "model.safetensors.index.json";
    for name in ["../x.safetensors", "/etc/passwd", "..", "a/b", ""] {
        let error = read(index, json!({"weight_map": {"a": name}}).to_string().as_bytes());
        assert!(error.contains("no name of a file"), "{name}: {error}");
    }
    assert!(read(index, b"[]").contains("weight_map"));
    for damaged in [&[0x0a][..], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f, 1], &[0xff; 11], &[0x0b]] {
        made.write(dir.path(), 1);
        std::fs::write(dir.path().join("tokenizer.model"), damaged).unwrap();
        let error = ModelFile::open(dir.path()).unwrap().tokenizer().unwrap_err().to_string();
        assert!(error.contains("tokenizer.model"), "{error}");
    }
}

/// Frequencies of Llama 3.1, by the formula in transformers.
#[test]
fn rotary_frequencies_of_llama_3_are_scaled() {
    let (model, mut made) = own();
    made.config["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64});
    let read = made.read(1).unwrap().config.rope_frequencies();
    let want = [1.0, 0.518_861_563_251, 0.170_454_676_467, 0.034_687_925_809, 0.009_059_745_796, 0.004_700_753_866];
    for (i, (have, want)) in read.iter().zip(want).enumerate() {
        assert!((have - want).abs() < 1e-11, "{i}: {have}, not {want}");
    }
    let plain = model.config.rope_frequencies();
    assert!(plain[0] == read[0] && plain[1] == read[1] && plain[7] == 8.0 * read[7]);
    made.config["rope_scaling"] = json!({"type": "linear", "factor": 2.0});
    assert_eq!(made.read(1).unwrap().config.rope_frequencies()[3], plain[3] / 2.0);
}
