//! Properties of the model and of a training step that hold for every option: sizes, first loss, causality, residual
//! streams, gradients, memory.
#![cfg(feature = "native")]

mod common;

use common::{architectures, backends, fastest, on_gpu, relative, scalar};
use cpu_kernels::ops::copy::CopyArgs;
use nanotern::backend::{Backend, Program};
use nanotern::data::synthetic;
use nanotern::graph::{DType, Graph, Plan, Section, TensorId};
use nanotern::model::{
    Context, DeltaNetOptions, Embeddings, Inputs, LoopOptions, MixerKind, Model, ModelConfig, MoeOptions, PRESETS,
    Preset, Quantize, Role, mixing_params,
};
use nanotern::ops::{COPY, IGNORE, Muon, Objective, Routing, StateForm, Targets, backward};
use nanotern::rng::Rng;
use nanotern::train::{Aux, Batch, OptimConfig, StepShape, TrainStep, Trainer};
use std::ops::Range;
use std::sync::Arc;

fn small() -> ModelConfig {
    ModelConfig {
        dim: 64,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        ffn: 96,
        seq_len: 32,
        group_size: 32,
        ..ModelConfig::default()
    }
}

/// A gated layer, and one with experts of another width and a shared one.
fn with_experts() -> ModelConfig {
    architectures(&small()).into_iter().find(|config| config.moe.is_some()).unwrap()
}

/// Layers with a Gated DeltaNet before one with attention, with sizes of its own.
fn hybrid() -> ModelConfig {
    let delta_net = DeltaNetOptions { heads: Some(2), key_size: Some(12), value_size: Some(32), conv_width: 3 };
    let mixers = vec![MixerKind::DeltaNet, MixerKind::DeltaNet, MixerKind::Attention];
    ModelConfig { layers: 3, mixers, delta_net: Some(delta_net), ..small() }
}

/// Gated DeltaNets beside attention and alone, with the options that change a layer.
fn hybrids() -> Vec<ModelConfig> {
    let of = |(mhc_streams, quantize, tie_embeddings, kv_heads)| ModelConfig {
        mhc_streams,
        quantize,
        tie_embeddings,
        kv_heads,
        ..hybrid()
    };
    let some = [
        (1, Quantize::Ternary, true, 4),
        (1, Quantize::None, true, 2),
        (2, Quantize::Ternary, false, 2),
        (4, Quantize::Ternary, true, 1),
    ];
    let alone = ModelConfig { mixers: vec![MixerKind::DeltaNet], delta_net: None, layers: 1, ..small() };
    let list: Vec<ModelConfig> = some.into_iter().map(of).chain([alone]).collect();
    list.iter().for_each(|c| c.check().unwrap());
    list
}

/// Every combination of streams, head, sub-layer norms and quantisation, and other architectures.
fn every_option() -> Vec<ModelConfig> {
    let mut list = Vec::new();
    for mhc_streams in [1, 2, 4] {
        for (tie_embeddings, ternary_head) in [(true, false), (false, false), (false, true)] {
            for sub_norm in [true, false] {
                for quantize in [Quantize::Ternary, Quantize::None] {
                    list.push(ModelConfig { mhc_streams, tie_embeddings, ternary_head, sub_norm, quantize, ..small() });
                }
            }
        }
    }
    for mhc_streams in [1, 2] {
        list.extend(architectures(&ModelConfig { mhc_streams, ..small() }));
    }
    list.iter().for_each(|c| c.check().unwrap());
    list
}

fn shape(batch: usize, seq: usize) -> StepShape {
    StepShape { batch, seq, ..StepShape::default() }
}

fn trainer(config: &ModelConfig, vocab: usize, shape: StepShape, backend: &Backend) -> Trainer {
    let mut trainer = Trainer::new(TrainStep::build(config, vocab, shape, &OptimConfig::default()), backend).unwrap();
    trainer.init(0);
    trainer
}

fn random_batch(shape: StepShape, vocab: usize, seed: u64) -> Batch {
    let mut rng = Rng::new(seed);
    let mut ids = || (0..shape.rows()).map(|_| rng.below(vocab as u64) as u32).collect();
    Batch::new(ids(), ids(), shape.seq)
}

/// Windows of text with bytes as ids.
fn text_batch(shape: StepShape, step: usize) -> Batch {
    let text = synthetic::generate(0, 1 << 16).train.into_bytes();
    let window = |i: usize| (step * shape.batch + i) * 97 % (text.len() - shape.seq - 1);
    let ids = |from: usize| {
        let cut = |i: usize| text[window(i) + from..][..shape.seq].iter().map(|b| u32::from(*b));
        (0..shape.batch).flat_map(cut).collect()
    };
    Batch::new(ids(0), ids(1), shape.seq)
}

fn as_f64(x: &[f32]) -> Vec<f64> {
    x.iter().map(|v| f64::from(*v)).collect()
}

fn gradients(trainer: &mut Trainer) -> Vec<(String, Vec<f32>)> {
    let graph = &trainer.step.plan.graph;
    let params = trainer.step.model.params();
    let list: Vec<_> = params.filter_map(|(w, param)| Some((w.name.clone(), graph.gradient(param)?))).collect();
    list.into_iter().map(|(name, g)| (name, trainer.program.read(g).unwrap())).collect()
}

/// The number of parameters that follows from the shapes.
fn count(c: &ModelConfig, vocab: usize) -> usize {
    let [q, kv] = [c.heads, c.kv_heads].map(|heads| heads * c.head_dim.unwrap_or(c.dim / c.heads));
    let attention = 2 * c.dim * (q + kv) + if c.sub_norm { q } else { 0 };
    let attention = attention + if c.qk_norm { 2 * c.head_dim.unwrap_or(c.dim / c.heads) } else { 0 };
    let biases = |of: &[(&str, usize)]| -> usize {
        of.iter().filter(|(part, _)| c.biases.iter().any(|biased| biased == part)).map(|(_, outs)| outs).sum()
    };
    let attention = attention + biases(&[("attn.q", q), ("attn.k", kv), ("attn.v", kv), ("attn.o", c.dim)]);
    let gated_biases = biases(&[("ffn.gate", c.ffn), ("ffn.up", c.ffn), ("ffn.down", c.dim)]);
    let layer = attention + 2 * c.dim + gated(c, c.ffn) + gated_biases + 2 * mixing_params(c.mhc_streams);
    let further = layer + 2 * c.dim * c.dim + 3 * c.dim;
    let all = vocab * c.dim * if c.tie_embeddings { 1 } else { 2 } + c.layers * layer + c.dim + c.mtp * further;
    let delta_nets = c.mixers.iter().cycle().take(c.layers).filter(|mixer| **mixer == MixerKind::DeltaNet).count();
    let all = all + delta_nets * delta_net(c) - delta_nets * attention;
    let Some(moe) = &c.moe else { return all };
    let width = moe.width(c.ffn);
    let norm = if c.sub_norm { width } else { 0 };
    let experts = moe.experts * 3 * c.dim * width + norm + gated(c, moe.shared) + moe.experts * (c.dim + 1);
    all + (c.layers - moe.from) * (experts - gated(c, c.ffn) - gated_biases)
}

fn gated(c: &ModelConfig, ffn: usize) -> usize {
    3 * c.dim * ffn + if c.sub_norm { ffn } else { 0 }
}

fn delta_net(c: &ModelConfig) -> usize {
    let options = c.delta_net.clone().unwrap_or_default();
    let (heads, size) = (options.heads.unwrap_or(c.heads), c.dim / c.heads);
    let [key, value] = [options.key_size, options.value_size].map(|given| heads * given.unwrap_or(size));
    let products = c.dim * (2 * key + 3 * value) + 2 * heads * c.dim;
    products + options.conv_width * (2 * key + value) + 2 * heads + value / heads
}

#[test]
fn a_large_vocabulary_has_rows_of_logits() {
    for (vocab, chunk) in [(300, 500), (1 << 19, 128), (1 << 21, 64), (1 << 22, 64), (1 << 24, 64)] {
        let mut g = Graph::new();
        let model = Model::for_inference(&mut g, &ModelConfig::default(), vocab);
        assert_eq!((model.head_chunk(500), model.head_chunk(3)), (chunk, 3), "{vocab}");
    }
}

#[test]
fn presets_have_the_parameters_their_names_say() {
    let built = |c: &ModelConfig, vocab: usize| {
        let mut g = Graph::new();
        Model::new(&mut g, c, vocab).param_count()
    };
    for preset in PRESETS.iter() {
        preset.model.check().unwrap();
        let streams = ModelConfig { mhc_streams: 2, sub_norm: false, ..preset.model.clone() };
        for config in [preset.model.clone(), streams] {
            assert_eq!(built(&config, preset.vocab), count(&config, preset.vocab), "{}", preset.name);
        }
    }
    for (name, want) in [("tiny", 3_672_392), ("d20", 17_981_036)] {
        let preset = Preset::find(name).unwrap();
        let config = ModelConfig { mhc_streams: 2, sub_norm: false, ..preset.model.clone() };
        assert_eq!(built(&config, preset.vocab), want, "{name}");
    }
    for (name, millions, active) in [
        ("d20-loop", 18.0, 18.0),
        ("nano-125m", 123.6, 123.6),
        ("small-560m", 560.0, 560.0),
        ("medium-3b-moe", 2993.4, 1030.5),
        ("7b", 6888.5, 6888.5),
        ("25b-moe", 24903.6, 7388.2),
    ] {
        let Preset { vocab, model, .. } = Preset::find(name).unwrap();
        let used: usize = model.weights(*vocab).iter().map(|weight| weight.active(model)).sum();
        let have = [built(model, *vocab), used].map(|params| params as f64 * 1e-6);
        assert!((have[0] - millions).abs() < 0.1 && (have[1] - active).abs() < 0.1, "{name}: {have:?} million");
    }
    for config in every_option().into_iter().chain(hybrids()) {
        assert_eq!(built(&config, 300), count(&config, 300), "{config:?}");
    }
}

/// The loss before the first step is that of a uniform guess.
fn assert_first_loss(config: &ModelConfig, vocab: usize, shape: StepShape) {
    let mut trainer = trainer(config, vocab, shape, &fastest());
    let loss = trainer.evaluate([random_batch(shape, vocab, 5)]).unwrap();
    println!("vocab {vocab}: first loss {loss:.4}, ln(vocab) {:.4}", (vocab as f64).ln());
    assert!((loss - (vocab as f64).ln()).abs() < 0.3, "first loss {loss} of vocabulary {vocab}: {config:?}");
}

#[test]
fn the_first_loss_is_that_of_a_uniform_guess() {
    every_option().iter().for_each(|config| assert_first_loss(config, 300, shape(2, 32)));
    for (name, seq) in [("tiny", 256), ("d20", 32)] {
        let preset = Preset::find(name).unwrap();
        assert_first_loss(&preset.model, preset.vocab, shape(1, seq));
    }
}

/// Weights of one shape start with different values, all with the deviation that their width asks for, by the seed alone.
#[test]
fn weights_start_as_wide_as_they_should_and_different() {
    let config = ModelConfig { dim: 128, heads: 2, kv_heads: 2, ffn: 256, layers: 2, ..ModelConfig::default() };
    let mut trainer = trainer(&config, 300, shape(1, 8), &fastest());
    let mut start = |seed| {
        trainer.init(seed);
        trainer.model_tensors().unwrap()
    };
    let (first, other) = (start(1), start(2));
    assert!(first == start(1), "a seed gives one start");
    for (i, t) in first.iter().enumerate().filter(|(_, t)| t.shape.len() == 2) {
        let want = if t.name == "embed.weight" { 0.02 } else { 1.0 / (t.shape[1] as f64).sqrt() };
        let have = (t.data.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / t.data.len() as f64).sqrt();
        assert!((have / want - 1.0).abs() < 0.03, "{}: {have}, not {want}", t.name);
        assert!(t.data != other[i].data && first[..i].iter().all(|u| u.data != t.data), "{}", t.name);
    }
}

#[test]
fn sub_layers_start_by_reading_different_streams() {
    for (streams, before) in [(2, 1 + 2), (4, 24 + 4)] {
        let config = ModelConfig { layers: 3, mhc_streams: streams, ..small() };
        let mut trainer = trainer(&config, 40, shape(1, 8), &scalar());
        trainer.init(0);
        let mixing = trainer.model_tensors().unwrap().into_iter().filter(|t| t.name.ends_with(".mhc"));
        for (k, t) in mixing.enumerate() {
            let read: Vec<usize> = (0..streams).filter(|i| t.data[before + i] > 0.0).collect();
            assert_eq!(read, [k % streams], "{}", t.name);
        }
    }
}

#[test]
#[ignore = "takes 10 GiB of memory and a minute"]
fn the_first_loss_of_the_large_presets() {
    for name in ["nano-125m", "small-560m"] {
        let preset = Preset::find(name).unwrap();
        assert_first_loss(&preset.model, preset.vocab, shape(1, 32));
    }
}

/// A model with only a forward pass.
struct Forward {
    program: Program,
    forward: Section,
    ids: TensorId,
    logits: TensorId,
}

impl Forward {
    fn new(config: &ModelConfig, vocab: usize, batch: usize, backend: &Backend) -> Forward {
        let mut g = Graph::new();
        let model = Model::new(&mut g, config, vocab);
        let rows = batch * config.seq_len;
        let ids = g.persistent("ids", &[rows], DType::U32);
        let positions = g.persistent("positions", &[rows], DType::U32);
        let inputs = Inputs { ids, positions, context: Context::Batch(batch) };
        let (quantize, ()) = g.section("quantize", |g| model.quantize(g));
        let (forward, logits) = g.section("forward", |g| {
            let embedded = model.embed(g, &inputs);
            let pass = model.forward(g, &inputs, embedded, false);
            g.logits(&pass.head, 0..rows)
        });
        let mut program = backend.prepare(Arc::new(Plan::new(g))).unwrap();
        for (i, (w, param)) in model.params().enumerate() {
            program.write(param, &w.init.values(w.elements(), &mut Rng::new(i as u64)));
        }
        program.write(model.rope, &model.rope_table());
        let position: Vec<u32> = (0..rows).map(|r| (r % config.seq_len) as u32).collect();
        program.write(positions, &position);
        program.run_section(quantize).unwrap();
        Forward { program, forward, ids, logits }
    }

    fn logits(&mut self, ids: &[u32]) -> Vec<f32> {
        self.program.write(self.ids, ids);
        self.program.run_section(self.forward).unwrap();
        self.program.read(self.logits).unwrap()
    }
}

#[test]
fn a_token_changes_no_logits_before_it() {
    let (vocab, seq) = (70, 32);
    let groups = [1, 2, 4].map(|kv_heads| ModelConfig { kv_heads, ..small() });
    for config in every_option().into_iter().chain(groups).chain(hybrids()) {
        let mut model = Forward::new(&config, vocab, 2, &fastest());
        let ids = random_batch(shape(2, seq), vocab, 11).inputs;
        let before = model.logits(&ids);
        for t in [0, 7, seq - 1, seq + 13] {
            let mut changed = ids.clone();
            changed[t] = (changed[t] + 1) % vocab as u32;
            let after = model.logits(&changed);
            let differs = |row: usize| before[row * vocab..][..vocab] != after[row * vocab..][..vocab];
            let end = (t / seq + 1) * seq;
            let outside: Vec<usize> = (0..t).chain(end..2 * seq).filter(|row| differs(*row)).collect();
            assert!(outside.is_empty(), "token {t} changed the logits of rows {outside:?}: {config:?}");
            assert!(differs(t), "token {t} changed nothing: {config:?}");
            assert!(t + 1 == end || (t + 1..end).any(differs), "token {t} is seen by none after it: {config:?}");
        }
    }
}

/// Sets the bias of each expert of all layers that have some, at most five.
fn set_biases(trainer: &mut Trainer, values: &[f32; 5]) {
    let biases: Vec<_> = trainer.step.model.params().filter(|(w, _)| w.role == Role::Balance).collect();
    let biases: Vec<(usize, TensorId)> = biases.into_iter().map(|(w, id)| (w.elements(), id)).collect();
    biases.into_iter().for_each(|(experts, id)| trainer.program.write(id, &values[..experts]));
}

/// The losses of each row of a batch, and the gradients of all parameters with a mask on the targets.
fn losses_and_gradients(trainer: &mut Trainer, batch: Batch, counted: Range<usize>) -> (Vec<f32>, Vec<Vec<f32>>) {
    trainer.evaluate([batch.clone()]).unwrap();
    let losses = trainer.program.read::<f32>(trainer.step.targets.losses).unwrap()[counted.clone()].to_vec();
    let kept = |(row, target): (usize, &u32)| if counted.contains(&row) { *target } else { IGNORE };
    let targets = batch.targets.iter().enumerate().map(kept).collect();
    trainer.submit(0, 0.0, [Batch { targets, ..batch }]).unwrap();
    // A step moves the biases of experts at any learning rate.
    set_biases(trainer, &[0.0; 5]);
    // This one is a sum over rows sorted by expert, in blocks: where the rows lie depends on others, which add zeros.
    let blocks = |name: &str| name.ends_with("experts.sub_norm.weight");
    (losses, gradients(trainer).into_iter().filter(|(name, _)| !blocks(name)).map(|(_, g)| g).collect())
}

/// Losses of a document, and their gradients, do not depend on the documents before and behind it in the window.
#[test]
fn separated_documents_do_not_see_each_other() {
    const END: u32 = 69;
    let rows = 37..52; // in the second window, which starts at row 32
    let document = |seed: u64| {
        let mut batch = random_batch(shape(2, 32), 69, seed);
        for end in [rows.start - 1, rows.end - 1] {
            batch.inputs[end] = END;
        }
        batch
    };
    let (first, mut second) = (document(1), document(2));
    second.inputs[rows.clone()].copy_from_slice(&first.inputs[rows.clone()]);
    second.targets[rows.clone()].copy_from_slice(&first.targets[rows.clone()]);
    for (name, backend) in backends() {
        let plain = [small(), ModelConfig { mhc_streams: 2, quantize: Quantize::None, kv_heads: 1, ..small() }];
        for config in plain.into_iter().chain(architectures(&small())).chain([hybrid()]) {
            let mut trainer = trainer(&config, 70, shape(2, 32), &backend);
            let mut results = |separate: bool| {
                [&first, &second].map(|batch| {
                    let batch = if separate { batch.clone().separate(END) } else { batch.clone() };
                    losses_and_gradients(&mut trainer, batch, rows.clone())
                })
            };
            let [a, b] = results(true);
            assert!(a.0.iter().all(|l| *l > 0.0) && a.1.iter().any(|g| g.iter().any(|v| *v != 0.0)));
            assert!(a == b, "{name}: a document depends on others: {config:?}");
            let [a, b] = results(false);
            assert!(a.0 != b.0 && a.1 != b.1, "{name}: without separation they see each other");
        }
    }
}

/// A separated document has the losses that it has alone in a window: on a CPU, bit for bit.
#[test]
fn a_separated_document_is_read_as_if_alone() {
    const END: u32 = 69;
    for (config, (name, backend)) in
        [small(), hybrid()].iter().flat_map(|c| backends().into_iter().map(move |b| (c, b)))
    {
        let mut trainer = trainer(config, 70, shape(2, 32), &backend);
        let mut batch = random_batch(shape(2, 32), 69, 5);
        let documents = [0..3, 3..4, 4..29, 29..32, 32..64];
        documents.iter().for_each(|rows| batch.inputs[rows.end - 1] = END);
        let mut losses = |batch: Batch| {
            trainer.evaluate([batch]).unwrap();
            trainer.program.read::<f32>(trainer.step.targets.losses).unwrap()
        };
        let together = losses(batch.clone().separate(END));
        for rows in documents {
            let mut alone = random_batch(shape(2, 32), 69, 6);
            alone.inputs[..rows.len()].copy_from_slice(&batch.inputs[rows.clone()]);
            alone.targets[..rows.len()].copy_from_slice(&batch.targets[rows.clone()]);
            let (have, want) = (&together[rows.clone()], &losses(alone)[..rows.len()]);
            if on_gpu(&name) {
                // An activation within float error of a tie may get the neighbouring code.
                assert!(relative(have, &as_f64(want)) < 3e-2, "rows {rows:?} on {name}: {have:?}, alone {want:?}");
            } else {
                assert_eq!(have, want, "rows {rows:?} on {name}");
            }
        }
    }
}

/// Largest relative deviation of a stream from the mean of the streams, after the last sub-layer.
fn deviation(trainer: &mut Trainer, batch: &Batch) -> f64 {
    trainer.program.run_section(trainer.step.sections.begin).unwrap();
    trainer.feed(batch);
    let plan = trainer.step.plan.clone();
    let eval = trainer.step.sections.eval.nodes();
    let last = eval.clone().rev().find(|i| plan.graph.nodes[*i].op.name == "mhc_post").unwrap();
    trainer.program.run(eval.start..last + 1).unwrap();
    let output = plan.graph.outputs(&plan.graph.nodes[last]).next().unwrap();
    let x = as_f64(&trainer.program.read::<f32>(output).unwrap());
    let streams = trainer.step.model.config.mhc_streams;
    let n = x.len() / streams;
    let mean: Vec<f64> = (0..n).map(|i| (0..streams).map(|s| x[s * n + i]).sum::<f64>() / streams as f64).collect();
    let norm = mean.iter().map(|m| m * m).sum::<f64>().sqrt();
    let off = |s: usize| (0..n).map(|i| (x[s * n + i] - mean[i]).powi(2)).sum::<f64>().sqrt() / norm;
    (0..streams).map(off).fold(0.0, f64::max)
}

#[test]
fn residual_streams_diverge_and_their_mixing_learns() {
    for streams in [2, 4] {
        let config = ModelConfig { mhc_streams: streams, ..small() };
        let shape = shape(4, 32);
        let mut trainer = trainer(&config, 256, shape, &fastest());
        let params = trainer.step.model.params();
        let mixing: Vec<_> = params.filter(|(w, _)| w.role == Role::Mixing).map(|(w, id)| (w.clone(), id)).collect();
        let init: Vec<Vec<f32>> = mixing.iter().map(|(_, id)| trainer.program.read(*id).unwrap()).collect();
        for step in 0..100 {
            trainer.submit(step as u64, 1.0, [text_batch(shape, step)]).unwrap();
        }
        let off = deviation(&mut trainer, &text_batch(shape, 100));
        println!("{streams} streams are up to {off:.3} from their mean");
        assert!(off >= 1e-3, "{streams} streams are {off} from their mean");
        let residual = if streams == 2 { 1 } else { 24 };
        let mut start = 0;
        for (kind, n) in [
            ("H_res", residual),
            ("pre_logits", streams),
            ("pre_bias", streams),
            ("post_logits", streams),
            ("post_bias", streams),
        ] {
            // The mean of the streams after the last sub-layer is the same for every doubly stochastic H_res.
            let last = mixing.len() - usize::from(kind == "H_res");
            for ((w, id), init) in mixing[..last].iter().zip(&init).skip(1) {
                let now: Vec<f32> = trainer.program.read(*id).unwrap();
                let moved = (start..start + n).map(|i| (now[i] - init[i]).abs()).fold(0.0, f32::max);
                assert!(moved > 1e-3, "{kind} of {} moved by {moved}", w.name);
            }
            start += n;
        }
    }
}

/// Central differences need a smooth function, so weights are not quantised here. The straight-through estimate is not a
/// derivative; `golden.rs` compares it with a reference implementation.
#[test]
fn gradients_agree_with_central_differences() {
    for streams in [1, 2, 4] {
        for tie_embeddings in [true, false] {
            let config = ModelConfig {
                dim: 32,
                heads: 4,
                kv_heads: 2,
                ffn: 48,
                seq_len: 8,
                mhc_streams: streams,
                tie_embeddings,
                quantize: Quantize::None,
                embeddings: Embeddings::F32,
                ..small()
            };
            let batch = random_batch(shape(2, 8), 40, 3);
            let end = batch.inputs[3];
            // That of experts is no smooth function.
            let others = architectures(&config).into_iter().filter(|config| config.moe.is_none());
            for config in others.chain([config]) {
                check_gradients(&config, batch.clone());
                check_gradients(&config, batch.clone().separate(end));
            }
        }
    }
}

/// The choice of experts is no smooth function: all are active, or the bias decides.
#[test]
fn gradients_of_experts_agree_with_central_differences() {
    for (streams, active) in [(1, 4), (2, 2), (4, 4), (1, 1)] {
        let moe = MoeOptions { experts: 4, active, width: 32, shared: 32, bias_rate: 0.0, ..MoeOptions::default() };
        let config = ModelConfig {
            dim: 32,
            heads: 4,
            kv_heads: 2,
            seq_len: 8,
            mhc_streams: streams,
            tie_embeddings: false,
            quantize: Quantize::None,
            embeddings: Embeddings::F32,
            moe: Some(moe),
            ..small()
        };
        // Beside a delta rule, in a loop and under a further head too.
        let looped = Some(LoopOptions { before: 1, shared: 1, times: 2, after: 0 });
        let mixers = vec![MixerKind::DeltaNet, MixerKind::Attention];
        let all = ModelConfig { mixers, norm_eps: 0.01, looped, mtp: 1, ..config.clone() };
        for config in [config, all] {
            config.check().unwrap();
            check_gradients(&config, random_batch(shape(2, 8), 40, 3));
        }
    }
}

/// Sequences of several chunks of the delta rule, of which the last is not whole. At position 0 a query reads one value times a
/// number, of which a norm with a small epsilon leaves the sign; that is not smooth.
#[test]
fn gradients_of_a_delta_net_agree_with_central_differences() {
    for streams in [1, 2, 4] {
        let config = ModelConfig {
            seq_len: 70,
            mhc_streams: streams,
            quantize: Quantize::None,
            embeddings: Embeddings::F32,
            norm_eps: 0.01,
            ..hybrid()
        };
        let batch = random_batch(shape(2, 70), 40, 3);
        let end = batch.inputs[37];
        check_gradients(&config, batch.clone());
        check_gradients(&config, batch.separate(end));
    }
}

fn check_gradients(config: &ModelConfig, batch: Batch) {
    let shape = shape(2, config.seq_len);
    let mut t = trainer(config, 40, shape, &scalar());
    set_biases(&mut t, &[0.0, 9.0, 1.0, 8.0, 0.0]);
    // At the start residual streams are equal; after a few steps they differ.
    for step in 0..3 {
        t.submit(step, 1.0, [batch.clone()]).unwrap();
    }
    let learned = t.step.model.params().filter(|(w, _)| w.role != Role::Balance);
    let params: Vec<TensorId> = learned.map(|(_, id)| id).collect();
    let values: Vec<Vec<f32>> = params.iter().map(|id| t.program.read(*id).unwrap()).collect();
    t.submit(3, 0.0, [batch.clone()]).unwrap();
    let grads = gradients(&mut t);
    let mut rng = Rng::new(9);
    let overall = grads.iter().flat_map(|(_, g)| g).map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
    for ((id, w), (name, g)) in params.iter().zip(&values).zip(&grads) {
        let g = as_f64(g);
        let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
        let random: Vec<f64> = g.iter().map(|_| f64::from(rng.normal())).collect();
        let length = random.iter().map(|r| r * r).sum::<f64>().sqrt();
        // Along the gradient, where the difference is largest, plus a random direction, which covers every component.
        let along: Vec<f64> = g.iter().zip(&random).map(|(g, r)| g / norm.max(1e-12) + r / length).collect();
        let size = w.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
        let h = (2e-3 / norm.max(1e-12)).min(5e-3 * size.max(1.0));
        let mut loss = |step: f64| {
            let moved: Vec<f32> = w.iter().zip(&along).map(|(w, d)| (f64::from(*w) + step * h * d) as f32).collect();
            t.program.write(*id, &moved);
            let own = t.evaluate([batch.clone()]).unwrap();
            let weight = f64::from(shape.mtp_weight) / t.step.ahead.len().max(1) as f64;
            own + weight * (0..t.step.ahead.len()).map(|k| further_losses(&mut t, k).iter().sum::<f64>()).sum::<f64>()
                / 16.0
        };
        let mut slope = |step: f64| (loss(step) - loss(-step)) / (2.0 * h * step);
        let numeric = (4.0 * slope(1.0) - slope(2.0)) / 3.0;
        let analytic: f64 = g.iter().zip(&along).map(|(g, d)| g * d).sum();
        t.program.write(*id, w);
        let error = (numeric - analytic).abs();
        assert!(
            error <= 0.01 * norm + 1e-4 * overall,
            "{name}: derivative {analytic:.4e}, by differences {numeric:.4e} (norm {norm:.1e} of {overall:.1e}): {config:?}"
        );
    }
}

/// With a filter the gradient is that of the hardest half of each sequence alone, and the loss is that of all.
#[test]
fn the_easier_tokens_of_a_sequence_are_not_learnt() {
    let (vocab, seq) = (70, 32);
    for (name, backend) in backends() {
        let filtered = StepShape { token_filter: 0.5, entropy_weight: 0.1, ..shape(2, seq) };
        let mut easy = trainer(&small(), vocab, filtered, &backend);
        let mut plain = trainer(&small(), vocab, StepShape { token_filter: 0.0, ..filtered }, &backend);
        let mut batch = random_batch(filtered, vocab, 3);
        let all = plain.evaluate([batch.clone()]).unwrap();
        easy.submit(0, 0.0, [batch.clone()]).unwrap();
        let loss = easy.stats(0..1).unwrap()[0].loss;
        assert!((f64::from(loss) - all).abs() < 1e-5, "{name}: {loss} {all}");
        let losses: Vec<f32> = plain.program.read(plain.step.targets.losses).unwrap();
        for (targets, losses) in batch.targets.chunks_mut(seq).zip(losses.chunks(seq)) {
            let mut sorted = losses.to_vec();
            sorted.sort_by(f32::total_cmp);
            targets.iter_mut().zip(losses).filter(|(_, loss)| **loss < sorted[seq / 2]).for_each(|(t, _)| *t = IGNORE);
        }
        assert_eq!(batch.targets.iter().filter(|t| **t == IGNORE).count(), seq);
        plain.submit(0, 0.0, [batch]).unwrap();
        for ((weight, have), (_, half)) in gradients(&mut easy).iter().zip(gradients(&mut plain)) {
            let want: Vec<f64> = half.iter().map(|g| 2.0 * f64::from(*g)).collect();
            let error = relative(have, &want);
            assert!(error < 1e-5, "{name}, {weight}: {error:.1e}");
        }
    }
}

/// The losses of the rows of further head `k`, in the batch that was evaluated last.
fn further_losses(trainer: &mut Trainer, k: usize) -> Vec<f64> {
    as_f64(&trainer.program.read(trainer.step.ahead[k].targets.losses).unwrap())
}

/// Head k from 1 knows the tokens up to k places behind a row, in the window and in the document.
#[test]
fn a_further_head_sees_the_tokens_up_to_those_it_is_given() {
    const END: u32 = 69;
    let (seq, ends) = (32, [10, 11, 20]);
    let document_end = |row: usize| ends.iter().map(|end| end + 1).find(|end| row < *end).unwrap_or(seq);
    for config in architectures(&small()).into_iter().filter(|config| config.mtp > 0) {
        let mut trainer = trainer(&config, 70, shape(2, seq), &fastest());
        for separate in [false, true] {
            let mut batch = random_batch(shape(2, seq), 69, 11);
            ends.iter().for_each(|end| batch.inputs[*end] = END);
            let mut losses = |batch: &Batch| {
                trainer.evaluate([if separate { batch.clone().separate(END) } else { batch.clone() }]).unwrap();
                (0..config.mtp).map(|k| further_losses(&mut trainer, k)).collect::<Vec<_>>()
            };
            let before = losses(&batch);
            for (t, k) in [0, 5, 12, 21, seq - 1].into_iter().flat_map(|t| (0..config.mtp).map(move |k| (t, k))) {
                let mut changed = batch.clone();
                changed.inputs[t] = (changed.inputs[t] + 1) % 69;
                let after = losses(&changed);
                let document = |row| if separate { document_end(row) } else { seq };
                for row in 0..2 * seq {
                    let counts = row % seq + k + 1 < if row < seq { document(row) } else { seq };
                    assert_eq!(before[k][row] != 0.0, counts, "row {row} of head {k}");
                    let differs = before[k][row] != after[k][row];
                    let sees = row < seq && row + k + 1 >= t && document(row) > t && document(t) == document(row);
                    assert!(!differs || sees && counts, "token {t} changed row {row} of head {k}: {config:?}");
                    assert!(differs || !counts || row + k + 1 != t || !sees, "row {row} of head {k} does not see {t}");
                }
            }
        }
    }
}

/// Losses, gradient of the head's input, and gradient of its weight, with the head in chunks of `chunk` rows.
fn head(config: &ModelConfig, vocab: usize, chunk: usize) -> [Vec<f32>; 3] {
    let mut g = Graph::new();
    let model = Model::new(&mut g, config, vocab);
    model.params().for_each(|(_, id)| _ = g.add_gradient(id));
    let rows = 4 * config.seq_len;
    let [ids, positions, targets] = ["ids", "positions", "targets"].map(|n| g.persistent(n, &[rows], DType::U32));
    let targets = Targets { ids: targets, losses: g.persistent("losses", &[rows], DType::F32) };
    let objective = Objective { scale: 1.0 / rows as f32, entropy: 0.1 };
    let (all, dx) = g.section("all", |g| {
        model.quantize(g);
        let inputs = Inputs { ids, positions, context: Context::Batch(4) };
        let embedded = model.embed(g, &inputs);
        let pass = model.forward(g, &inputs, embedded, false);
        g.head_loss(&pass.head, targets, chunk, Some(objective)).unwrap()
    });
    let (_, weight) = model.params().filter(|(w, _)| w.role == Role::Table).last().unwrap();
    let dw = g.gradient(weight).unwrap();
    let mut program = fastest().prepare(Arc::new(Plan::new(g))).unwrap();
    for (i, (w, param)) in model.params().enumerate() {
        program.write(param, &w.init.values(w.elements(), &mut Rng::new(i as u64)));
    }
    let batch = random_batch(shape(4, config.seq_len), vocab, 2);
    program.write(ids, &batch.inputs);
    program.write(targets.ids, &batch.targets);
    program.write(positions, &batch.positions);
    program.run_section(all).unwrap();
    [targets.losses, dx, dw].map(|t| program.read(t).unwrap())
}

#[test]
fn the_head_in_chunks_equals_the_whole() {
    for (tie_embeddings, ternary_head) in [(true, false), (false, false), (false, true)] {
        let config = ModelConfig { tie_embeddings, ternary_head, ..small() };
        let (chunks, whole) = (head(&config, 300, 48), head(&config, 300, 128));
        for (have, want) in chunks.iter().zip(&whole) {
            let off = relative(have, &as_f64(want));
            assert!(off < 1e-6 && want.iter().any(|v| *v != 0.0), "{off:.1e} away: {config:?}");
        }
    }
}

/// The logits of 1,024 rows exceed a binding: they are computed in two parts of the tokens.
#[test]
fn the_head_in_parts_equals_the_whole() {
    for (tie_embeddings, ternary_head) in [(true, false), (false, true)] {
        let config = ModelConfig { layers: 1, seq_len: 256, tie_embeddings, ternary_head, ..small() };
        let (parts, whole) = (head(&config, 40_000, 1024), head(&config, 40_000, 512));
        for (have, want) in parts.iter().zip(&whole) {
            let off = relative(have, &as_f64(want));
            assert!(off < 1e-6 && want.iter().any(|v| *v != 0.0), "{off:.1e} away: {config:?}");
        }
    }
}

#[test]
fn evaluation_measures_the_loss_that_training_does() {
    for config in every_option().into_iter().chain(hybrids()) {
        let shape = shape(2, 32);
        let mut trainer = trainer(&config, 300, shape, &fastest());
        let batch = random_batch(shape, 300, 4);
        let eval = trainer.evaluate([batch.clone()]).unwrap();
        trainer.submit(0, 1.0, [batch]).unwrap();
        let train = f64::from(trainer.stats(0..1).unwrap()[0].loss);
        assert!((eval - train).abs() < 2e-6 * train, "evaluation {eval}, training {train}: {config:?}");
    }
}

#[test]
fn accumulated_micro_batches_equal_one_large_batch() {
    for config in [small(), ModelConfig { mhc_streams: 4, ..small() }, hybrid()] {
        let batch = random_batch(shape(4, 32), 300, 8);
        let half = |i: usize| Batch {
            inputs: batch.inputs[i * 64..][..64].to_vec(),
            targets: batch.targets[i * 64..][..64].to_vec(),
            positions: batch.positions[i * 64..][..64].to_vec(),
        };
        let mut whole = trainer(&config, 300, shape(4, 32), &fastest());
        let mut halves = trainer(&config, 300, StepShape { accum: 2, ..shape(2, 32) }, &fastest());
        whole.submit(0, 1.0, [batch.clone()]).unwrap();
        halves.submit(0, 1.0, [half(0), half(1)]).unwrap();
        let [a, b] = [&mut whole, &mut halves].map(|t| t.stats(0..1).unwrap()[0]);
        assert!((a.loss - b.loss).abs() < 1e-5 * a.loss && (a.grad_norm - b.grad_norm).abs() < 1e-5 * a.grad_norm);
        for ((name, a), (_, b)) in gradients(&mut whole).iter().zip(&gradients(&mut halves)) {
            // With equal streams the gradient of their mixing is zero up to rounding.
            let off = relative(b, &as_f64(a));
            assert!(off < 1e-5 || name.ends_with(".mhc"), "gradient of {name} is {off:.1e} away");
        }
    }
}

#[test]
fn an_id_beyond_the_vocabulary_is_refused() {
    for (name, backend) in backends() {
        let mut trainer = trainer(&small(), 300, shape(2, 32), &backend);
        for id in [300, 999_999, u32::MAX - 1] {
            let (mut inputs, mut targets) = (random_batch(shape(2, 32), 300, 8), random_batch(shape(2, 32), 300, 8));
            (inputs.inputs[5], targets.targets[7]) = (id, id);
            for batch in [inputs, targets] {
                let errors = [trainer.submit(0, 1.0, [batch.clone()]), trainer.evaluate([batch]).map(|_| ())];
                for error in errors {
                    assert_eq!(
                        error.unwrap_err().to_string(),
                        format!("token {id}: the model has 300 tokens"),
                        "{name}"
                    );
                }
            }
        }
        let mut ignored = random_batch(shape(2, 32), 300, 8);
        ignored.targets[7] = u32::MAX;
        trainer.submit(0, 1.0, [ignored]).unwrap();
    }
}

/// Where no temporary is much larger than the others: such a one has a buffer that stays mostly empty when it is not alive.
#[test]
fn the_memory_plan_is_near_the_ideal() {
    let plan = |config: &ModelConfig, recompute: bool| {
        let shape = StepShape { recompute, ..shape(8, 256) };
        TrainStep::build(config, 1024, shape, &OptimConfig::default()).plan
    };
    for mhc_streams in [1, 2] {
        let config = ModelConfig { mhc_streams, ..ModelConfig::default() };
        let (kept, again) = (plan(&config, false), plan(&config, true));
        for plan in [&kept, &again] {
            let (have, ideal) = (plan.temp_bytes(), plan.ideal_peak());
            println!("{mhc_streams} streams: {have} bytes of temporaries, {ideal} at least");
            assert!(have as f64 <= 1.3 * ideal as f64, "{have} bytes of temporaries, {ideal} at least");
        }
        assert!(again.temp_bytes() < kept.temp_bytes() * 3 / 4, "{} of {}", again.temp_bytes(), kept.temp_bytes());
    }
}

/// Two forward, three in the gradient of q, four in that of k and v, over the half of the scores that the mask leaves.
#[test]
fn every_product_of_attention_is_counted() {
    let step = TrainStep::build(&small(), 60, shape(2, 32), &OptimConfig::default());
    let nodes = &step.plan.graph.nodes[step.sections.micro.nodes()];
    let flops = |name: &str| nodes.iter().filter(|n| n.op.name == name).map(|n| (n.op.flops)(&n.args)).sum::<u64>();
    let (layers, batch, scores, dim) = (2, 2, 32 * 32 / 2, 64);
    let product = layers * batch * 2 * scores * dim;
    let counts = ["attention", "attention_backward_q", "attention_backward_kv"].map(|name| flops(name) / product);
    assert_eq!(counts, [2, 3, 4]);
}

/// Two workgroups for each of an H100's 132 cores.
#[test]
fn attention_of_a_preset_fills_a_large_gpu() {
    for name in ["nano-125m", "small-560m"] {
        let Preset { model, vocab, .. } = Preset::find(name).unwrap();
        let step = TrainStep::build(model, *vocab, shape(8, 1024), &OptimConfig::default());
        let nodes = step.plan.graph.nodes.iter().filter(|node| node.op.name.starts_with("attention"));
        for node in nodes {
            let groups: u32 = (node.op.passes[0].grid)(&node.args).iter().product();
            assert!(groups >= 264, "{}: {groups} workgroups in {name}", node.op.name);
        }
    }
}

/// Two Muon updates of a stack, or of its matrices as parameters of their own, so many at a time: weights and momenta.
fn muon_updates(stacked: bool, count: usize, [rows, cols]: [usize; 2], at_a_time: usize) -> Vec<f32> {
    let mut g = Graph::new();
    let control = g.step_control();
    let shapes = if stacked { vec![vec![count, rows, cols]] } else { vec![vec![rows, cols]; count] };
    let mut tensors = Vec::new();
    for shape in &shapes {
        tensors.push(["grad", "weight", "momentum"].map(|name| g.persistent(name, shape, DType::F32)));
    }
    let matrices: Vec<_> = tensors.iter().flat_map(|[grad, w, m]| g.muon_matrices(*grad, *w, (*m).into())).collect();
    assert_eq!(matrices.len(), count);
    let muon = Muon { lr: 0.02, momentum: 0.9, steps: 3, weight_decay: 0.1 };
    let (section, ()) =
        g.section("update", |g| matrices.chunks(at_a_time).for_each(|some| g.muon(&muon, control, some)));
    let mut program = fastest().prepare(Arc::new(Plan::new(g))).unwrap();
    program.write(control.ctl, &[1f32, 0.0, 0.0, 0.0]);
    program.write(control.step, &[1f32, 0.1, 0.1, 0.0, 0.0, 0.0]);
    for (kind, seed) in [(0, 1), (1, 2)] {
        let mut rng = Rng::new(seed);
        for t in &tensors {
            let n = program.plan().graph.tensor(t[kind]).elements();
            program.write(t[kind], &(0..n).map(|_| rng.normal()).collect::<Vec<f32>>());
        }
    }
    (0..2).for_each(|_| program.run_section(section).unwrap());
    [1, 2].map(|kind| tensors.iter().flat_map(|t| program.read::<f32>(t[kind]).unwrap()).collect::<Vec<_>>()).concat()
}

#[test]
fn muon_updates_a_stack_as_so_many_matrices() {
    for (count, rows, cols) in [(3, 8, 24), (4, 40, 16), (1, 32, 32)] {
        let [stack, alone] = [true, false].map(|stacked| muon_updates(stacked, count, [rows, cols], count));
        assert!(stack == alone && stack.iter().all(|v| v.is_finite() && *v != 0.0), "{count} of {rows} x {cols}");
    }
}

#[test]
fn muon_moves_a_matrix_alike_in_every_batch() {
    let whole = muon_updates(false, 5, [40, 24], 5);
    for at_a_time in [1, 2, 3] {
        assert!(muon_updates(false, 5, [40, 24], at_a_time) == whole, "{at_a_time} at a time");
    }
}

/// Bytes of the state of both optimizers.
fn state_bytes(step: &TrainStep) -> usize {
    step.state.iter().map(|(_, t)| step.plan.graph.tensor(*t)).map(|t| t.elements() * t.dtype.bytes()).sum()
}

#[test]
fn state_in_fewer_bits_takes_less_memory() {
    for Preset { name, vocab, model } in PRESETS.iter() {
        for aux in [Aux::AdamW, Aux::Lion] {
            let [f32, bf16, int8] = [StateForm::F32, StateForm::Bf16, StateForm::Int8].map(|state| {
                let optim = OptimConfig { state, aux, ..OptimConfig::default() };
                let step = TrainStep::build(model, *vocab, shape(1, 16), &optim);
                (state_bytes(&step), step.plan.bytes())
            });
            assert!(bf16.0 * 100 <= f32.0 * 51 && int8.0 * 100 <= f32.0 * 27, "{name}: {f32:?}, {bf16:?}, {int8:?}");
            assert!(
                f32.1 - int8.1 >= (f32.0 - int8.0) * 99 / 100,
                "{name}: {f32:?}, {int8:?}: the device has less to hold"
            );
        }
    }
}

/// A run on text ends with the same loss, up to what another seed changes. What a longer run gives is in docs/measurements.md.
#[test]
fn state_in_fewer_bits_trains_alike() {
    let (config, shape) = (small(), shape(8, 32));
    let batches: Vec<Batch> = (0..60).map(|step| text_batch(shape, step)).collect();
    for aux in [Aux::AdamW, Aux::Lion] {
        let [f32, others @ ..] = [StateForm::F32, StateForm::Bf16, StateForm::Int8].map(|state| {
            let optim = OptimConfig { state, aux, warmup_steps: 0, ..OptimConfig::default() };
            let mut trainer = Trainer::new(TrainStep::build(&config, 256, shape, &optim), &fastest()).unwrap();
            let losses = (0..3).map(|seed| {
                trainer.init(seed);
                (0..).zip(&batches).for_each(|(step, batch)| trainer.submit(step, 1.0, [batch.clone()]).unwrap());
                trainer.stats(40..60).unwrap().iter().map(|stats| f64::from(stats.loss) / 60.0).sum::<f64>()
            });
            losses.sum::<f64>()
        });
        println!("{aux:?}: {f32} and {others:?}");
        assert!(others.iter().all(|loss| (loss - f32).abs() < 0.02), "{aux:?}: {f32} and {others:?}");
    }
}

/// What every GPU and browser lets an op bind is enough, where it is enough for a single matrix.
#[test]
fn muon_binds_at_most_128_mib_of_a_preset() {
    for preset in PRESETS.iter() {
        let step = TrainStep::build(&preset.model, preset.vocab, shape(1, 16), &OptimConfig::default());
        let graph = &step.plan.graph;
        let nodes = graph.nodes[step.sections.update.nodes()].iter();
        let nodes = nodes.filter(|node| ["muon_momentum", "matmul", "matmul_add"].contains(&node.op.name));
        let tensors = nodes.flat_map(|node| &node.tensors).map(|t| graph.tensor(*t));
        let most = tensors.max_by_key(|t| t.bytes()).unwrap();
        // One matrix is bound as a whole.
        let one = 4 * preset.model.dim * preset.model.ffn;
        assert!(most.bytes() <= one.max(128 << 20), "{}: {} takes {} bytes", preset.name, most.name, most.bytes());
    }
}

/// The value and the gradient of the loss that balances experts, where their shares are constant.
#[test]
fn the_balance_loss_has_the_gradient_that_differences_show() {
    let (rows, experts) = (6, 4);
    let mut g = Graph::new();
    let [x0, zero] = ["x", "zero"].map(|name| g.persistent(name, &[rows, experts], DType::F32));
    let starts = g.persistent("starts", &[experts + 1], DType::U32);
    let dlogits = g.persistent("dlogits", &[rows, experts], DType::F32);
    g.add_gradient(x0);
    let kept = g.persistent("value", &[1], DType::F32);
    let (section, ()) = g.section("all", |g| {
        let seed = g.temp("seed", &[1], DType::F32);
        g.fill(seed, 1.0);
        let nodes = g.nodes.len();
        let logits = g.add_tensors(x0, zero);
        let value = g.balance_loss(&Routing { logits, weights: logits, place: starts, starts });
        let nodes = nodes..g.nodes.len();
        g.sum(value, 1.0, 0.0, kept);
        let gradient = backward(g, nodes.start + 1..nodes.end, &[(value, seed)]).grad(logits).unwrap();
        g.push(&COPY, CopyArgs { n: (rows * experts) as u32 }, &[gradient, dlogits]);
    });
    let mut program = scalar().prepare(Arc::new(Plan::new(g))).unwrap();
    program.write(starts, &[0u32, 7, 8, 8, 12]);
    let mut rng = Rng::new(3);
    let x: Vec<f32> = (0..rows * experts).map(|_| rng.normal()).collect();
    let mut run = |x: &[f32]| {
        program.write(x0, x);
        program.run_section(section).unwrap();
        (program.read::<f32>(kept).unwrap()[0], program.read::<f32>(dlogits).unwrap())
    };
    assert!((run(&[0.0; 24]).0 - 1.0).abs() < 1e-6, "uniform");
    let gradient = run(&x).1;
    for i in 0..x.len() {
        let mut at = |by: f32| {
            let mut moved = x.clone();
            moved[i] += by;
            f64::from(run(&moved).0)
        };
        let numeric = (at(0.02) - at(-0.02)) / 0.04;
        assert!((numeric - f64::from(gradient[i])).abs() < 1e-4, "{i}: {numeric}, not {}", gradient[i]);
    }
}

/// A bias against an expert changes who is chosen and not how much a chosen one counts; after steps, it has moved by its rate for
/// each, away from experts with a large load, and the loads are those of all micro-batches.
#[test]
fn the_bias_moves_towards_an_equal_load() {
    for (name, backend) in backends() {
        let config = with_experts();
        let shape = StepShape { accum: 2, ..shape(2, 32) };
        let mut trainer = trainer(&config, 60, shape, &backend);
        let bias = trainer.step.model.params().find(|(w, _)| w.role == Role::Balance).unwrap().1;
        let seen = trainer.step.expert_loads.unwrap();
        let micro = |seed| [random_batch(shape, 60, seed), random_batch(shape, 60, seed + 1)];
        trainer.submit(0, 1.0, micro(5)).unwrap();
        let load = trainer.program.read::<f32>(seen).unwrap()[..5].to_vec();
        let (mean, rate) = (load.iter().sum::<f32>() / 5.0, config.moe.as_ref().unwrap().bias_rate);
        assert_eq!(mean * 5.0, (2 * shape.tokens()) as f32, "{name}");
        let want: Vec<f32> = load.iter().map(|n| if *n < mean { rate } else { -rate }).collect();
        assert_eq!(trainer.program.read::<f32>(bias).unwrap(), want, "{name}: {load:?}");
        // Who has no chance has no load, and rises.
        trainer.program.write(bias, &[0f32, 0.0, -50.0, 0.0, 50.0]);
        trainer.submit(1, 1.0, micro(7)).unwrap();
        let load = trainer.program.read::<f32>(seen).unwrap()[..5].to_vec();
        assert_eq!((load[2], load[4]), (0.0, shape.tokens() as f32), "{name}");
        let now = trainer.program.read::<f32>(bias).unwrap();
        assert_eq!((now[2], now[4]), (-50.0 + rate, 50.0 - rate), "{name}");
    }
}

/// Skewed choices become even by the bias alone, and by the loss alone.
#[test]
fn experts_become_balanced() {
    let uneven = |bias_rate: f32, balance_loss: f32| {
        let moe = MoeOptions { bias_rate, balance_loss, ..with_experts().moe.unwrap() };
        let config = ModelConfig { moe: Some(moe), ..with_experts() };
        let shape = shape(4, 32);
        let mut trainer = trainer(&config, 256, shape, &fastest());
        let seen = trainer.step.expert_loads.unwrap();
        let mut load = [0.0; 5];
        for step in 0..120 {
            trainer.submit(step as u64, 1.0, [text_batch(shape, step)]).unwrap();
            if step >= 100 {
                let last = trainer.program.read::<f32>(seen).unwrap();
                load.iter_mut().zip(last).for_each(|(load, last)| *load += last);
            }
        }
        5.0 * load.iter().copied().fold(0.0, f32::max) / load.iter().sum::<f32>()
    };
    let [none, bias, loss] = [uneven(0.0, 0.0), uneven(0.02, 0.0), uneven(0.0, 0.1)];
    println!("the largest load, in means: {none:.2}, with the bias {bias:.2}, with the loss {loss:.2}");
    assert!(bias < 1.3 && loss < 1.3 && none > 1.5, "{none}, {bias}, {loss}");
}

#[test]
fn muon_takes_each_expert_as_a_matrix_of_its_own() {
    use cpu_kernels::{Args, ops::muon_momentum::MuonMomentumArgs};
    let moe = MoeOptions { experts: 5, width: 32, ..MoeOptions::default() };
    let config = ModelConfig { moe: Some(moe), ..small() };
    let step = TrainStep::build(&config, 60, shape(1, 32), &OptimConfig::default());
    let nodes = step.plan.graph.nodes[step.sections.update.nodes()].iter().filter(|n| n.op.name == "muon_momentum");
    let mut matrices = [0; 2];
    for MuonMomentumArgs { rows, cols, batch, .. } in nodes.map(|node| Args::from_words(&node.args)) {
        matrices[usize::from([(32, 64), (64, 32)].contains(&(rows, cols)))] += batch;
    }
    // Queries and outputs, and the experts with the keys and values, which have the sides of two heads.
    assert_eq!(matrices, [2 * 2, 2 * (3 * 5 + 2)]);
}
