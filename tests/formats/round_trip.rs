//! What is trained is what is served: every value that the forward pass used comes back from every file, bit for bit.

use super::raw::Raw;
use super::{latent, model, save, small, tiniest, trained_tokenizer};
use half::f16;
use nanotern::formats::{Format, ModelFile, TensorData, Ternary, gguf, mhc::MhcFile};
use nanotern::graph::Graph;
use nanotern::model::{
    DeltaNetOptions, Embeddings, FfnKind, Form, LoopOptions, MixerKind, Model, ModelConfig, MoeOptions, Preset,
    Quantize, Scales, Value,
};
use nanotern::rng::Rng;
use nanotern::tokenizer::Tokenizer;
use nanotern::train::{OptimConfig, StepShape, TrainStep, Trainer};
use std::time::Instant;

fn experts() -> MoeOptions {
    MoeOptions { experts: 3, active: 2, width: 64, shared: 32, from: 1, ..MoeOptions::default() }
}

/// One config for each option, and some together.
fn configs() -> Vec<(&'static str, ModelConfig)> {
    let base = tiniest();
    let untied = ModelConfig { tie_embeddings: false, ..base.clone() };
    let mixers = vec![MixerKind::DeltaNet, MixerKind::DeltaNet, MixerKind::Attention];
    let hybrid = ModelConfig { mixers, layers: 3, ..base.clone() };
    let sizes = DeltaNetOptions { heads: Some(3), key_size: Some(12), value_size: Some(32), conv_width: 2 };
    vec![
        ("delta nets", hybrid.clone()),
        ("delta nets of other sizes", ModelConfig { delta_net: Some(sizes), ..hybrid }),
        ("one stream", ModelConfig { mhc_streams: 1, ..base.clone() }),
        ("two streams", base.clone()),
        ("four streams", ModelConfig { mhc_streams: 4, layers: 2, ..base.clone() }),
        ("no sub-norms", ModelConfig { sub_norm: false, ..base.clone() }),
        ("untied", untied.clone()),
        ("ternary head", ModelConfig { ternary_head: true, ..untied.clone() }),
        ("f32 tables", ModelConfig { embeddings: Embeddings::F32, ..untied.clone() }),
        ("unquantised", ModelConfig { quantize: Quantize::None, ternary_head: true, ..untied }),
        ("group 64 of 32 inputs", ModelConfig { group_size: 64, ..base.clone() }),
        ("group 96", ModelConfig { dim: 96, ffn: 192, heads: 4, group_size: 96, ..base.clone() }),
        ("group 128", ModelConfig { group_size: 128, mhc_streams: 2, ..small() }),
        ("rope and eps", ModelConfig { rope_theta: 12_345.678_9, norm_eps: 1.1e-5, ..base.clone() }),
        ("further heads", ModelConfig { mtp: 2, ..base.clone() }),
        (
            "loop",
            ModelConfig { looped: Some(LoopOptions { before: 0, shared: 1, times: 3, after: 0 }), ..base.clone() },
        ),
        ("experts", ModelConfig { moe: Some(experts()), layers: 2, ..base.clone() }),
        ("experts of every layer, unquantised", {
            let moe = MoeOptions { shared: 0, from: 0, ..experts() };
            ModelConfig { moe: Some(moe), quantize: Quantize::None, ..base.clone() }
        }),
        ("experts by name", {
            let (moe, ffns) = (MoeOptions { from: 0, ..experts() }, vec![FfnKind::Moe, FfnKind::Gated]);
            ModelConfig { moe: Some(moe), ffns, layers: 2, ..base.clone() }
        }),
        ("bitnet", small()),
        ("bitnet, two blocks a row", ModelConfig { ffn: 512, kv_heads: 4, ..small() }),
    ]
}

#[test]
fn every_option_round_trips_in_every_format() {
    let tokenizer = Tokenizer::bytes();
    for (name, config) in configs() {
        let model = model(&config, 262, Some(&tokenizer));
        let mut held = 0;
        for format in Format::ALL {
            let Ok(layout) = gguf::Layout::new(&model, format) else { continue };
            let bytes = layout.to_vec();
            assert_eq!(bytes.len() as u64, layout.bytes());
            let read = ModelFile::from_gguf(&bytes).unwrap_or_else(|e| panic!("{name}, {format}: {e}"));
            assert_eq!(read, model, "{name}, {format}");
            assert_eq!(read.tokenizer().unwrap().unwrap().hash(), tokenizer.hash());
            held += 1;
        }
        let blocks = config.group_size == 256 && config.dim == 256;
        let want = if config.is_ternary() { if blocks { 3 } else { 1 } } else { 4 };
        assert_eq!(held, want, "formats that hold {name}");
    }
}

#[test]
fn training_declares_the_weights_of_files_and_a_parameter_for_each() {
    for (name, config) in configs() {
        let mut g = Graph::new();
        let model = Model::new(&mut g, &config, 300);
        let declared: Vec<_> = model.params().map(|(w, param)| (w.name.clone(), g.matrix(param))).collect();
        let listed: Vec<_> = config.weights(300).into_iter().map(|w| (w.name.clone(), w.matrix())).collect();
        assert_eq!(listed, declared, "{name}");
    }
}

/// The codes, scales and rounded tables are those on the training device, not merely the same function of the weights.
#[test]
fn a_file_holds_what_the_trainer_computes_with() {
    let config = ModelConfig { tie_embeddings: false, ..tiniest() };
    let weights = latent(&config, 262, 3);
    let shape = StepShape { batch: 1, seq: config.seq_len, ..StepShape::default() };
    let step = TrainStep::build(&config, 262, shape, &OptimConfig::default());
    let mut trainer = Trainer::new(step, &super::scalar()).unwrap();
    trainer.load_model(&weights).unwrap();
    trainer.program.run_section(trainer.step.sections.begin).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = ModelFile::open(&save(dir.path(), &config, &weights, None)).unwrap();
    let path = dir.path().join("m.gguf");
    file.save_gguf(&path, Format::Q1_58).unwrap();
    for tensor in &ModelFile::open(&path).unwrap().tensors {
        let weight = trainer.step.model.weights.iter().find(|w| w.name == tensor.name).unwrap();
        match (&tensor.data, weight.value) {
            (TensorData::F32(v), Value::Dense(id)) => assert_eq!(*v, trainer.program.read::<f32>(id).unwrap()),
            (TensorData::F16(v), Value::Dense(id)) => {
                let used: Vec<f32> = trainer.program.read(id).unwrap();
                assert_eq!(v.iter().map(|v| v.to_f32()).collect::<Vec<_>>(), used, "{}", tensor.name);
            }
            (TensorData::Ternary(t), Value::Ternary(w)) => {
                assert_eq!(t.codes, trainer.program.read::<u8>(w.codes).unwrap(), "{}", tensor.name);
                assert_eq!(t.scales, trainer.program.read::<f32>(w.scales).unwrap(), "{}", tensor.name);
            }
            _ => panic!("{}: another form than the trainer's", tensor.name),
        }
    }
}

#[test]
fn encodings_follow_their_definition() {
    let (outs, dim) = (3, 512);
    let mut rng = Rng::new(5);
    let w: Vec<f32> = (0..outs * dim).map(|_| rng.normal()).collect();
    let t = Ternary::quantize(&w, (outs, dim), 256, Scales::Group);
    let [q1, tq2, tq1] = [Format::Q1_58, Format::Tq2_0, Format::Tq1_0].map(|f| f.encode(&t));
    let f16_at = |b: &[u8], i: usize| f16::from_le_bytes([b[i], b[i + 1]]).to_f32();
    for row in 0..outs {
        for col in 0..dim {
            let (code, i) = (t.code(row, col), row * dim + col);
            let trit = q1[i / 4] >> (2 * (i % 4)) & 3;
            assert_eq!([0, 1, 9, -1][trit as usize], code, "q1_58 ({row}, {col})");
            let (block, j) = (i / 256, i % 256);
            let byte = tq2[66 * block + j / 128 * 32 + j % 32];
            assert_eq!((byte >> (j % 128 / 32 * 2) & 3) as i8 - 1, code, "tq2_0 ({row}, {col})");
            // ggml's own way to a digit: multiply by 3^n modulo 256, then take the top of a product with 3.
            let (byte, n) = match j {
                0..160 => (j % 32, j / 32),
                160..240 => (32 + (j - 160) % 16, (j - 160) / 16),
                _ => (48 + (j - 240) % 4, (j - 240) / 4),
            };
            let q = tq1[54 * block + byte].wrapping_mul([1, 3, 9, 27, 81][n]);
            assert_eq!(((u16::from(q) * 3) >> 8) as i8 - 1, code, "tq1_0 ({row}, {col})");
            let scale = t.scales[i / 256];
            assert_eq!([f16_at(&tq2, 66 * block + 64), f16_at(&tq1, 54 * block + 52)], [scale; 2]);
        }
    }
    assert_eq!(q1[outs * dim / 4..], t.scales.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<_>>());
}

/// A matrix (outs, dim) of random codes with one scale.
fn one_scale(outs: usize, dim: usize) -> Ternary {
    let mut rng = Rng::new(dim as u64);
    let w: Vec<f32> = (0..outs * dim).map(|_| rng.normal()).collect();
    Ternary { scales: vec![0.123_456_79], ..Ternary::quantize(&w, (outs, dim), 32, Scales::Tensor) }
}

#[test]
fn i2_s_is_one_row_of_runs_and_a_scale() {
    for (outs, dim) in [(3, 512), (4, 96), (2, 64), (8, 416)] {
        let t = one_scale(outs, dim);
        let bytes = Format::I2S.encode(&t);
        assert_eq!(Ok(bytes.len() as u64), Format::I2S.bytes(outs as u64, dim as u64, 32));
        for i in 0..outs * dim {
            let code = bytes[i / 128 * 32 + i % 32] >> (6 - 2 * (i % 128 / 32)) & 3;
            assert_eq!(code as i8 - 1, t.code(i / dim, i % dim), "{outs} x {dim}: {i}");
        }
        let tail = &bytes[outs * dim / 4..];
        assert_eq!((&tail[..4], &tail[4..]), (&t.scales[0].to_le_bytes()[..], &[0; 28][..]));
        let decode = |bytes: &[u8]| Format::I2S.decode(bytes, (outs, dim), (32, Scales::Tensor));
        assert_eq!(decode(&bytes), Ok(t));
        let wrong = |at: usize, value: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            decode(&bytes).unwrap_err()
        };
        assert!(wrong(7, 0x30).contains("byte 7"), "{}", wrong(7, 0x30));
        assert!(wrong(outs * dim / 4 + 3, 0xff).contains("scale 0"), "a scale that is negative");
    }
    // Half a run.
    assert!(Format::I2S.bytes(1, 64, 32).unwrap_err().contains("128"));
    assert!(Format::I2S.bytes(u64::MAX / 16, 128, 32).unwrap_err().contains("too many"));
}

#[test]
fn formats_refuse_groups_they_cannot_hold() {
    for group in [128, 512] {
        let model = model(&ModelConfig { group_size: group, ffn: 512, ..small() }, 262, None);
        for format in [Format::Tq2_0, Format::Tq1_0, Format::I2S] {
            let message = gguf::Layout::new(&model, format).err().unwrap().to_string();
            assert!(
                message.contains("group") && (message.contains("256") || message.contains(&group.to_string())),
                "{message}"
            );
        }
    }
}

#[test]
fn architecture_is_bitnet_where_stock_runtimes_compute_the_same() {
    let arch = |config: &ModelConfig, format| {
        let bytes = gguf::Layout::new(&model(config, 262, None), format).unwrap().to_vec();
        gguf::Gguf::parse(&bytes).unwrap().keys["general.architecture"].as_str().unwrap().to_string()
    };
    assert_eq!(arch(&small(), Format::Tq2_0), "bitnet");
    assert_eq!(arch(&small(), Format::Tq1_0), "bitnet");
    assert_eq!(arch(&small(), Format::Q1_58), "nanotern");
    for other in [ModelConfig { mhc_streams: 2, ..small() }, ModelConfig { tie_embeddings: false, ..small() }] {
        assert_eq!(arch(&other, Format::Tq2_0), "nanotern");
    }
}

/// What other programs write has none of this program's keys.
#[test]
fn stock_bitnet_files_open() {
    let written = model(&small(), 262, Some(&Tokenizer::bytes()));
    for format in [Format::Tq2_0, Format::Tq1_0] {
        let mut raw = Raw::parse(&gguf::Layout::new(&written, format).unwrap().to_vec());
        raw.keys.retain(|k| !k.0.starts_with(b"nanotern."));
        raw.remove("bitnet.vocab_size");
        assert_eq!(ModelFile::from_gguf(&raw.bytes()).unwrap(), written, "{format}");
    }
}

#[test]
fn tokenizers_are_spelled_for_others() {
    let bpe = trained_tokenizer(400);
    let strings = |v: &gguf::Value<'_>| v.as_array().unwrap().strings().unwrap().map(String::from).collect::<Vec<_>>();
    for (tokenizer, pre) in [(&bpe, "smollm"), (&Tokenizer::bytes(), "gpt-2")] {
        let vocab = tokenizer.vocab_size() + 3; // rows that no token uses
        let written = model(&tiniest(), vocab, Some(tokenizer));
        let bytes = gguf::Layout::new(&written, Format::Q1_58).unwrap().to_vec();
        let file = gguf::Gguf::parse(&bytes).unwrap();
        assert_eq!(file.keys["tokenizer.ggml.pre"].as_str(), Some(pre));
        let tokens = strings(&file.keys["tokenizer.ggml.tokens"]);
        let kinds = file.keys["tokenizer.ggml.token_type"].as_array().unwrap().uints().unwrap();
        for (id, token) in tokens.iter().enumerate() {
            assert_eq!(kinds[id] == 5, id >= vocab - 3, "{token}");
            assert_eq!(kinds[id] == 3, tokenizer.is_special(id as u32), "{token}");
            assert_eq!(tokenizer.token_id(token).map_or(id, |i| i as usize), id, "{token}");
        }
        let merges = strings(&file.keys["tokenizer.ggml.merges"]).len();
        assert_eq!(merges, tokenizer.vocab_size() - 262);
        assert_eq!(ModelFile::from_gguf(&bytes).unwrap(), written);
    }
}

#[test]
fn a_model_without_a_tokenizer_is_a_file_without_one() {
    let model = model(&tiniest(), 50, None);
    let bytes = gguf::Layout::new(&model, Format::Q1_58).unwrap().to_vec();
    assert_eq!(gguf::Gguf::parse(&bytes).unwrap().keys["tokenizer.ggml.model"].as_str(), Some("none"));
    let read = ModelFile::from_gguf(&bytes).unwrap();
    assert!(read == model && read.tokenizer().unwrap().is_none());
}

#[test]
fn mhc_files_have_their_sizes_and_round_trip() {
    for (layers, streams, bytes) in [(4, 2, 304), (6, 2, 448), (12, 2, 880), (4, 4, 16 + 320 * 4)] {
        let mut model = model(&ModelConfig { layers, mhc_streams: streams, ..tiniest() }, 20, None);
        let mixing = model.mhc().unwrap();
        let file = mixing.to_bytes();
        assert_eq!(file.len(), bytes);
        assert_eq!(file[..12], [0x21, 0x43, 0x48, 0x6d, 2, 0, 0, 0, 2 * layers as u8, 0, 0, 0]);
        assert_eq!(MhcFile::parse(&file).unwrap(), mixing);
        let mut old = file.clone();
        old[4] = 1;
        assert_eq!(MhcFile::parse(&old).unwrap(), mixing);
        let before = model.clone();
        model.set_mhc(mixing.clone()).unwrap();
        assert_eq!(model, before);
        let fewer = MhcFile { sublayers: mixing.sublayers[..2].to_vec(), ..mixing };
        assert!(model.set_mhc(fewer).unwrap_err().contains("2 sub-layers"));
    }
    assert!(model(&small(), 20, None).mhc().is_none());
}

#[test]
fn the_tiny_preset_is_small_and_opens_at_once() {
    let tokenizer = trained_tokenizer(4096);
    let config = ModelConfig { mhc_streams: 2, ..Preset::find("tiny").unwrap().model.clone() };
    let model = model(&config, 4096, Some(&tokenizer));
    assert!(config.weights(4096)[0].form == Form::F16);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    let bytes = model.save_gguf(&path, Format::Q1_58).unwrap();
    assert!(bytes == std::fs::metadata(&path).unwrap().len() && bytes < 3_400_000, "{bytes} bytes");
    let times: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(ModelFile::open(&path).unwrap().vocab, 4096);
            1e3 * start.elapsed().as_secs_f64()
        })
        .collect();
    let best = times.iter().copied().fold(f64::INFINITY, f64::min);
    println!("tiny: {bytes} bytes with {} tokens, opens in {best:.1} ms", tokenizer.vocab_size());
    assert!(cfg!(debug_assertions) || best < 50.0, "opens in {times:?} ms");
}

/// What the keys leave unsaid follows from the types.
#[test]
fn stock_files_with_8_bit_tables_are_read() {
    let file = ModelFile::from_gguf(&super::malformed::stock_q8_0().bytes()).unwrap();
    assert_eq!(file.config, ModelConfig { embeddings: Embeddings::Q8_0, rope_theta: 10_000.0, ..small() });
    let TensorData::Int8(table) = &file.tensor("embed.weight").unwrap().data else { panic!("an int8 table") };
    assert_eq!((table.codes.len(), table.scales.len()), (262 * 256, 262 * 8));
    assert!(table.codes.iter().enumerate().all(|(at, code)| *code == (at / 32 + at % 32) as u8 as i8));
    assert!(table.scales.iter().enumerate().all(|(i, scale)| *scale == f16::from_f32(i as f32 / 64.0).to_f32()));
    // It can be written again, with the table as it is.
    let again = gguf::Layout::new(&file, Format::Tq2_0).unwrap().to_vec();
    assert_eq!(ModelFile::from_gguf(&again).unwrap(), file);
}

/// Rounding tables to 8 bits leaves each value within half a step, and the file holds what it came to.
#[test]
fn tables_are_rounded_to_8_bits_on_request() {
    let exact = model(&ModelConfig { tie_embeddings: false, ..small() }, 262, None);
    let mut rounded = exact.clone();
    rounded.round_tables_to_int8().unwrap();
    for name in ["embed.weight", "head.weight"] {
        let (TensorData::F16(values), TensorData::Int8(table)) =
            (&exact.tensor(name).unwrap().data, &rounded.tensor(name).unwrap().data)
        else {
            panic!("{name} has another type")
        };
        for (i, (value, code)) in values.iter().zip(&table.codes).enumerate() {
            let scale = table.scales[i / 32];
            assert!((value.to_f32() - scale * f32::from(*code)).abs() <= 0.51 * scale, "{name}, value {i}");
        }
    }
    let bytes = gguf::Layout::new(&rounded, Format::Q1_58).unwrap().to_vec();
    assert_eq!(ModelFile::from_gguf(&bytes).unwrap(), rounded);
    let mut narrow = model(&ModelConfig { dim: 48, heads: 4, quantize: Quantize::None, ..tiniest() }, 262, None);
    assert!(narrow.round_tables_to_int8().unwrap_err().to_string().contains("dim = 48"));
}
