//! Serving computes what training computed: with trained weights, through the file, bit for bit on a CPU.
#![cfg(feature = "native")]

mod common;

use common::{architectures, backends, fastest, on_gpu, relative, scalar};
use nanotern::backend::Backend;
use nanotern::bench::random_model;
use nanotern::checkpoint::{self, Meta};
use nanotern::eval;
use nanotern::formats::{Format, ModelFile, TensorData, TextConfig};
use nanotern::infer::{DEFAULT_CONTEXT, Drafts, Engine, EngineOptions, FinishReason, Sampling};
use nanotern::model::{LoopOptions, MixerKind, ModelConfig, Scales};
use nanotern::ops::PAGE;
use nanotern::rng::Rng;
use nanotern::tokenizer::Tokenizer;
use nanotern::train::{Batch, Config, OptimConfig, StepShape, TrainStep, Trainer};
use std::path::Path;

const VOCAB: usize = 262;
/// More than a page of keys and values.
const SEQ: usize = 80;

fn config(tie: bool, kv_heads: usize, streams: usize) -> ModelConfig {
    ModelConfig {
        dim: 64,
        layers: 2,
        heads: 4,
        kv_heads,
        ffn: 128,
        seq_len: SEQ,
        group_size: 64,
        mhc_streams: streams,
        tie_embeddings: tie,
        ..ModelConfig::default()
    }
}

fn ids(seed: u64) -> Vec<u32> {
    let mut rng = Rng::new(seed);
    (0..2 * SEQ).map(|_| rng.below(VOCAB as u64) as u32).collect()
}

/// Trains for some steps, saves, and returns the trainer's logits (rows, vocab) for `ids(0)`.
fn train(config: &ModelConfig, dir: &Path) -> Vec<f32> {
    let shape = StepShape { batch: 2, seq: SEQ, ..StepShape::default() };
    let step = TrainStep::build(config, VOCAB, shape, &OptimConfig::default());
    let mut trainer = Trainer::new(step, &fastest()).unwrap();
    trainer.init(3);
    for step in 0..12 {
        let batch = Batch::new(ids(step), ids(step + 1), SEQ);
        trainer.submit(step, 1.0, [batch]).unwrap();
    }
    let whole = Config { model: config.clone(), ..Config::default() };
    let meta = Meta { config: serde_json::to_value(whole).unwrap(), ..Meta::default() };
    let (model, optimizer) = (trainer.model_tensors().unwrap(), trainer.optimizer_tensors().unwrap());
    let tokenizer = Tokenizer::bytes().to_json();
    checkpoint::save(dir, "final", &meta, &model, &optimizer, Some(&tokenizer)).unwrap();

    trainer.feed(&Batch::new(ids(0), ids(1), SEQ));
    trainer.program.run_section(trainer.step.sections.begin).unwrap();
    let graph = &trainer.step.plan.graph;
    let nodes = trainer.step.sections.eval.nodes();
    let writes = |i: &usize| graph.outputs(&graph.nodes[*i]).find(|t| graph.tensor(*t).name == "logits");
    let (last, logits) = nodes.clone().find_map(|i| writes(&i).map(|t| (i, t))).unwrap();
    trainer.program.run(nodes.start..last + 1).unwrap();
    trainer.program.read(logits).unwrap()
}

/// The model through a GGUF file, if the encoding supports the model's groups.
fn served(dir: &Path) -> ModelFile {
    let file = ModelFile::open(&dir.join("final")).unwrap();
    let path = dir.join("model.gguf");
    let format = if file.config.scales == Scales::Tensor { Format::I2S } else { Format::Q1_58 };
    file.save_gguf(&path, format).unwrap();
    ModelFile::open(&path).unwrap()
}

/// Gated DeltaNets, and attention in the last layer.
fn hybrid(layers: usize, config: ModelConfig) -> ModelConfig {
    let mut mixers = vec![MixerKind::DeltaNet; layers - 1];
    mixers.push(MixerKind::Attention);
    ModelConfig { layers, mixers, ..config }
}

#[test]
fn served_logits_are_the_trainers() {
    let plain = [true, false].into_iter().flat_map(|t| [4, 2].map(|kv| [1, 2, 4].map(|n| config(t, kv, n)))).flatten();
    let hybrids = [(2, true, 2, 1), (2, false, 4, 2), (2, true, 1, 4), (4, false, 2, 1), (4, true, 2, 2)];
    let hybrids = hybrids.map(|(layers, t, kv, n)| hybrid(layers, config(t, kv, n)));
    let others = [config(false, 2, 1), config(true, 4, 2)].map(|plain| architectures(&plain)).concat();
    for config in plain.chain(hybrids).chain(others) {
        let dir = tempfile::tempdir().unwrap();
        let trained = train(&config, dir.path());
        let file = served(dir.path());
        // What differs on a GPU grows with the layers.
        let on = |name: &str| name.contains(&best()) || on_gpu(name) && config.layers == 2;
        for (name, backend) in backends().into_iter().filter(|(name, _)| on(name)) {
            let mut engine = Engine::new(&file, &backend, EngineOptions::default()).unwrap();
            let chunks: &[usize] = if on_gpu(&name) { &[5, SEQ] } else { &[1, 5, 16, 48, SEQ] };
            for chunk in chunks.iter().copied() {
                let prompt = &ids(0)[..SEQ];
                let all = pollster::block_on(engine.prompt_logits(prompt, chunk)).unwrap();
                for (c, logits) in all.iter().enumerate() {
                    let row = ((c + 1) * chunk).min(SEQ) - 1;
                    let want = &trained[row * VOCAB..][..VOCAB];
                    let case = format!("{name}, row {row}, chunks of {chunk}: {config:?}");
                    if on_gpu(&name) {
                        let want: Vec<f64> = want.iter().map(|v| f64::from(*v)).collect();
                        // An activation within float error of a tie may get the neighbouring code.
                        assert!(relative(logits, &want) < 3e-2, "{case}: {:.1e}", relative(logits, &want));
                    } else {
                        assert_eq!(logits, want, "{case}");
                    }
                }
            }
        }
    }
}

/// A model with a loop is used with fewer passes than it was trained with: as if it had been trained with so many.
#[test]
fn fewer_passes_give_the_logits_of_a_shorter_loop() {
    let of = |times| ModelConfig {
        looped: Some(LoopOptions { before: 0, shared: 2, times, after: 0 }),
        ..config(true, 2, 1)
    };
    let mut file = random_model(of(3), VOCAB);
    let logits = |file: &ModelFile| {
        let mut engine = Engine::new(file, &fastest(), EngineOptions::default()).unwrap();
        pollster::block_on(engine.prompt_logits(&ids(0)[..9], 9)).unwrap()
    };
    let trained = logits(&file);
    for passes in [1, 2] {
        file.config = of(3);
        file.config.set_passes(passes).unwrap();
        let fewer = logits(&file);
        assert!(fewer == logits(&ModelFile { config: of(passes), ..file.clone() }) && fewer != trained, "{passes}");
    }
    for (mut config, passes, said) in
        [(of(3), 4, "between 1 and the trained 3"), (of(3), 0, "between"), (config(true, 2, 1), 1, "has no loop")]
    {
        let error = config.set_passes(passes).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

/// Models with a loop: with layers before and after, without, with streams, with experts.
fn looped_models() -> Vec<ModelFile> {
    let of = |before, shared, times, after, plain: ModelConfig| ModelConfig {
        layers: before + shared + after,
        looped: Some(LoopOptions { before, shared, times, after }),
        ..plain
    };
    let experts = architectures(&config(false, 2, 1)).into_iter().find_map(|config| config.moe);
    let list = [
        of(1, 2, 3, 1, config(true, 2, 1)),
        of(0, 1, 4, 0, config(false, 4, 2)),
        of(1, 1, 2, 2, ModelConfig { moe: experts, ..config(true, 2, 4) }),
    ];
    list.map(|config| random_model(config, VOCAB)).to_vec()
}

/// The logits (vocab) behind each token of a text that is fed one by one, and the passes of a token.
fn one_by_one(file: &ModelFile, backend: &Backend, text: &[u32]) -> (Vec<Vec<f32>>, Option<f64>) {
    let mut engine = Engine::new(file, backend, EngineOptions::default()).unwrap();
    let logits = pollster::block_on(engine.prompt_logits(text, 1)).unwrap();
    (logits, engine.passes().map(|passes| passes.mean()))
}

fn entropy(logits: &[f32]) -> f64 {
    let p: Vec<f64> = logits.iter().map(|x| f64::from(*x).exp()).collect();
    let sum: f64 = p.iter().sum();
    p.iter().map(|p| -p / sum * (p / sum).ln()).sum()
}

fn ending_at(file: &ModelFile, nats: f32) -> ModelFile {
    let mut file = file.clone();
    file.config.set_exit_entropy(nats).unwrap();
    file
}

/// A model with an exit entropy below which about half of its predictions for a text after one pass are.
fn half_ends(file: &ModelFile, text: &[u32]) -> ModelFile {
    let mut once = file.clone();
    once.config.set_passes(1).unwrap();
    let mut entropies: Vec<f64> = one_by_one(&once, &fastest(), text).0.iter().map(|l| entropy(l)).collect();
    entropies.sort_by(f64::total_cmp);
    let middle = text.len() / 2;
    ending_at(file, ((entropies[middle - 1] + entropies[middle]) / 2.0) as f32)
}

#[test]
fn a_token_that_ends_after_a_pass_has_the_logits_of_as_many_passes() {
    let text = &ids(0)[..9];
    for file in looped_models() {
        let times = file.config.looped.unwrap().times;
        let (all, none) = one_by_one(&file, &fastest(), text);
        assert_eq!(none, None);
        let never = one_by_one(&ending_at(&file, f32::MIN_POSITIVE), &fastest(), text);
        assert!(never == (all.clone(), Some(times as f64)), "{:?}", never.1);
        assert!(one_by_one(&ending_at(&file, 0.0), &fastest(), text) == (all.clone(), None));
        let mut once = file.clone();
        once.config.set_passes(1).unwrap();
        let first = one_by_one(&once, &fastest(), text).0;
        let ended = one_by_one(&ending_at(&file, f32::INFINITY), &fastest(), text);
        assert!(ended == (first.clone(), Some(1.0)) && first != all, "{:?}", ended.1);
        // A threshold between two entropies ends one row and not the other.
        let (half, mean) = one_by_one(&half_ends(&file, text), &fastest(), text);
        assert!((1.0..times as f64).contains(&mean.unwrap()) && half != all && half != first, "{mean:?}");
        // A prompt takes all passes, in chunks of any size but 1.
        let chunk = |file: &ModelFile| {
            let mut engine = Engine::new(file, &fastest(), EngineOptions::default()).unwrap();
            let logits = pollster::block_on(engine.prompt_logits(text, 4)).unwrap();
            (logits, engine.passes().map_or(0, |passes| passes.tokens))
        };
        assert!(chunk(&ending_at(&file, f32::INFINITY)) == chunk(&file));
    }
}

/// Where all rows of a step end, passes are left out; beside rows that go on, and on a GPU, they run.
#[test]
fn sequences_whose_tokens_end_early_get_side_by_side_what_they_get_alone() {
    for file in &looped_models()[..2] {
        alike_side_by_side(&half_ends(file, &ids(0)[..40]));
    }
}

/// With a model that has learned what it predicts: its choices are far from ties.
#[test]
fn a_gpu_ends_tokens_where_a_cpu_does() {
    let looped = Some(LoopOptions { before: 1, shared: 1, times: 3, after: 1 });
    let prompts = ["one", "ten two one t", "o", "one six ten two one two ten two one six"];
    let prompts: Vec<Vec<u32>> = prompts.iter().map(|p| p.bytes().map(u32::from).collect()).collect();
    let file = drafting(&ModelConfig { layers: 3, looped, ..config(true, 2, 2) });
    let file = half_ends(&file, &prompts[3]);
    let sampling = Sampling { temperature: 0.0, max_tokens: 30, ..Sampling::default() };
    let answers = |backend: &Backend| {
        let mut engine = Engine::new(&file, backend, EngineOptions::default()).unwrap();
        (engine.generate_all(&prompts, &sampling).unwrap(), engine.passes())
    };
    let want = answers(&fastest());
    let mean = want.1.unwrap().mean();
    assert!(mean > 1.2 && mean < 2.8, "{mean}");
    for (name, backend) in backends() {
        assert_eq!(answers(&backend), want, "{name}");
    }
}

/// What is scored with exits is what decoding computes.
#[test]
fn perplexity_with_exits_is_that_of_decoding() {
    for file in looped_models() {
        let tokens = ids(0).into();
        let score = |file: &ModelFile| eval::perplexity(file, &fastest(), &tokens, None).unwrap();
        let mut once = file.clone();
        once.config.set_passes(1).unwrap();
        let (all, ended) = (score(&once), score(&ending_at(&file, f32::INFINITY)));
        assert_eq!((all.passes, ended.passes, ended.tokens), (None, Some(1.0), all.tokens));
        assert!((all.nats_per_token - ended.nats_per_token).abs() < 1e-5, "{all:?} {ended:?}");
    }
}

#[test]
fn an_exit_entropy_that_means_nothing_is_refused() {
    let looped = looped_models().remove(0).config;
    let plain = config(true, 2, 1);
    let mixers = vec![MixerKind::Attention, MixerKind::DeltaNet];
    let mixed = ModelConfig { mixers: mixers.clone(), ..looped.clone() };
    let ahead = ModelConfig { mtp: 1, ..looped.clone() };
    for (config, nats, said) in [
        (&looped, -0.5, "-0.5: at least 0 nats"),
        (&looped, f32::NAN, "at least 0 nats"),
        (&plain, 0.5, "the model has no loop"),
        (&mixed, 0.5, "layer 1"),
        (&ahead, 0.5, "--speculate"),
    ] {
        let error = config.clone().set_exit_entropy(nats).unwrap_err().to_string();
        assert!(error.contains("an exit entropy of") && error.contains(said), "{error}");
        let file = random_model(ModelConfig { exit_entropy: nats, ..config.clone() }, VOCAB);
        let error = Engine::new(&file, &fastest(), EngineOptions::default()).err().unwrap().to_string();
        assert!(error.contains(said), "{error}");
    }
    // Before the loop, any mixer will do.
    let mixers = mixers.into_iter().rev().chain([MixerKind::Attention; 2]).collect();
    ModelConfig { mixers, ..looped }.set_exit_entropy(0.5).unwrap();
}

fn best() -> String {
    cpu_kernels::Level::detect().to_string()
}

/// Generates tokens for several prompts at once; also gives why a prompt failed.
fn together(engine: &mut Engine, prompts: &[Vec<u32>], sampling: &Sampling) -> (Vec<Vec<u32>>, Vec<Option<String>>) {
    use nanotern::infer::Event;
    let ids: Vec<_> = prompts.iter().map(|p| engine.start(p, sampling.clone(), Default::default()).unwrap()).collect();
    let (mut tokens, mut failed) = (vec![Vec::new(); prompts.len()], vec![None; prompts.len()]);
    let mut running = prompts.len();
    while running > 0 {
        for (id, event) in pollster::block_on(engine.step()).unwrap() {
            let which = ids.iter().position(|i| *i == id).unwrap();
            match event {
                Event::Token(token) => tokens[which].push(token),
                Event::Finished(_) => running -= 1,
                Event::Failed(why) => {
                    failed[which] = Some(why);
                    running -= 1;
                }
            }
        }
    }
    (tokens, failed)
}

#[test]
fn sequences_side_by_side_get_what_they_get_alone() {
    side_by_side(&config(true, 2, 2));
}

#[test]
fn sequences_of_a_delta_net_get_side_by_side_what_they_get_alone() {
    side_by_side(&hybrid(2, config(true, 2, 1)));
}

fn side_by_side(config: &ModelConfig) {
    let dir = tempfile::tempdir().unwrap();
    train(config, dir.path());
    alike_side_by_side(&served(dir.path()));
}

#[test]
fn sequences_of_experts_get_side_by_side_what_they_get_alone() {
    let experts = architectures(&config(false, 2, 2)).into_iter().find(|config| config.moe.is_some());
    alike_side_by_side(&random_model(experts.unwrap(), VOCAB));
}

fn alike_side_by_side(file: &ModelFile) {
    let prompts: Vec<Vec<u32>> =
        [1, 7, 20, 3, 11, 30].iter().enumerate().map(|(i, n)| ids(i as u64)[..*n].to_vec()).collect();
    let options = EngineOptions { slots: 6, ..EngineOptions::default() };
    for (name, backend) in backends() {
        for temperature in [0.0, 1.0] {
            let sampling = Sampling {
                temperature,
                max_tokens: 12,
                seed: 9,
                top_k: 40,
                repetition_penalty: 1.3,
                ..Sampling::default()
            };
            let mut engine = Engine::new(file, &backend, options).unwrap();
            let alone: Vec<Vec<u32>> =
                prompts.iter().map(|p| engine.generate(p, sampling.clone()).unwrap().0).collect();
            assert!(alone.iter().any(|a| a.len() == 12) && alone[0] != alone[1]);
            let (together, _) = together(&mut engine, &prompts, &sampling);
            // A GPU sums few rows and many rows in different orders: the most likely token is the same, a sampled one may
            // differ.
            if temperature == 0.0 || !on_gpu(&name) {
                assert_eq!(together, alone, "{name} at temperature {temperature}");
            }
            assert_eq!(engine.free_slots(), 6);
        }
    }
}

/// A model with further heads that has learned the next letters of a text that repeats itself, now and then otherwise.
fn drafting(config: &ModelConfig) -> ModelFile {
    let shape = StepShape { batch: 4, seq: SEQ, ..StepShape::default() };
    let step = TrainStep::build(config, VOCAB, shape, &OptimConfig::default());
    let mut trainer = Trainer::new(step, &fastest()).unwrap();
    trainer.init(3);
    let mut rng = Rng::new(5);
    for step in 0..60 {
        let mut text = Vec::new();
        while text.len() <= shape.rows() {
            let word: &[u8] = [b"one two ", b"one six ", b"ten two "][rng.below(3) as usize];
            text.extend(word.iter().map(|b| u32::from(*b)));
        }
        let batch = Batch::new(text[..shape.rows()].to_vec(), text[1..=shape.rows()].to_vec(), SEQ);
        trainer.submit(step, 1.0, [batch]).unwrap();
    }
    let text = TextConfig::new(&Tokenizer::bytes());
    ModelFile::from_latent(config.clone(), text, &trainer.model_tensors().unwrap()).unwrap()
}

/// Greedy or sampled, alone or side by side, with ends of all kinds: with drafts, every sequence has the tokens that it has
/// without.
#[test]
fn drafts_change_no_token() {
    let cpu = |name: &str| !on_gpu(name) && [String::from("scalar"), best()].iter().any(|level| name.contains(level));
    let looped = LoopOptions { before: 1, shared: 1, times: 2, after: 0 };
    let plain = ModelConfig { mtp: 1, ..config(true, 2, 1) };
    for config in [ModelConfig { mhc_streams: 2, mtp: 2, looped: Some(looped), ..plain.clone() }, plain] {
        let file = drafting(&config);
        let mut without = file.clone();
        without.remove_further_heads();
        assert!(without.tensors.len() < file.tensors.len() && without.config.mtp == 0);
        let prompts = ["one", "ten two one t", "o", "one six ten two one two ten two one six", "qqq", "two "];
        let prompts: Vec<Vec<u32>> = prompts.iter().map(|p| p.bytes().map(u32::from).collect()).collect();
        for (name, backend) in backends().into_iter().filter(|(name, _)| cpu(name)) {
            let plain = |max_tokens| Sampling { max_tokens, seed: 9, temperature: 0.0, ..Sampling::default() };
            let sampled = |max_tokens| Sampling { temperature: 1.2, top_k: 40, ..plain(max_tokens) };
            let stop = u32::from(b'x');
            for (sampling, stops, slots, drafts) in [
                (plain(100), vec![], 6, true),
                (plain(7), vec![], 1, true),
                (plain(1), vec![], 2, false),
                (sampled(100), vec![stop], 6, true),
                (sampled(12), vec![], 2, true),
                (Sampling { logit_bias: vec![(stop, 4.0)], min_p: 0.01, ..sampled(30) }, vec![], 4, true),
                (Sampling { repetition_penalty: 1.2, ..sampled(30) }, vec![], 3, false),
            ] {
                let options = EngineOptions { slots, context: 0 };
                let [with, single] = [&file, &without].map(|file| {
                    let mut engine = Engine::new(file, &backend, options).unwrap();
                    engine.set_stop(stops.clone());
                    (engine.generate_all(&prompts, &sampling).unwrap(), engine.drafts())
                });
                assert_eq!(with.0, single.0, "{name}, {slots} slots: {sampling:?}");
                assert_eq!(single.1, None);
                let Drafts { fed, taken } = with.1.unwrap();
                println!("{name}, {slots} slots, temperature {}: {taken} of {fed}", sampling.temperature);
                assert_eq!(taken > 0, drafts, "{name}: {taken} of {fed} drafts, {sampling:?}");
                assert!(!drafts || sampling.temperature == 0.0 || taken < fed, "no draft was wrong");
            }
        }
    }
}

#[test]
fn a_mixer_that_cannot_go_back_has_no_drafts() {
    let file = random_model(hybrid(2, ModelConfig { mtp: 1, ..config(true, 2, 1) }), VOCAB);
    for (name, backend) in backends() {
        let mut engine = Engine::new(&file, &backend, EngineOptions::default()).unwrap();
        let sampling = Sampling { temperature: 0.0, max_tokens: 5, ..Sampling::default() };
        assert_eq!(engine.generate(&[1, 2, 3], sampling).unwrap().0.len(), 5, "{name}");
        assert_eq!(engine.drafts(), None, "{name}");
    }
}

/// Prompts and answers that end before, at and behind the end of a page, in pages that lie anywhere.
#[test]
fn long_sequences_side_by_side_get_what_they_get_alone() {
    let file = random_model(ModelConfig { seq_len: 300, ..config(true, 2, 1) }, VOCAB);
    let prompts: Vec<Vec<u32>> = [58, 63, 1, 64, 130, 200].map(|n| ids(7).into_iter().cycle().take(n).collect()).into();
    let sampling = Sampling { temperature: 0.0, max_tokens: 10, ..Sampling::default() };
    let options = EngineOptions { slots: 6, context: 0 };
    for (name, backend) in backends() {
        let mut engine = Engine::new(&file, &backend, options).unwrap();
        let first = together(&mut engine, &prompts, &sampling).0;
        let pages: usize = prompts.iter().map(|p| (p.len() + 9).div_ceil(PAGE)).sum();
        assert!((pages..2 * pages).contains(&engine.pages()), "{name}: {} pages for {pages}", engine.pages());
        // The same again, where pages are taken in another order.
        let mut turned: Vec<_> = together(&mut engine, &[&prompts[3..], &prompts[..3]].concat(), &sampling).0;
        turned.rotate_left(3);
        for (prompt, got) in prompts.iter().zip(first.iter().zip(&turned)) {
            let mut engine = Engine::new(&file, &backend, options).unwrap();
            let alone = engine.generate(prompt, sampling.clone()).unwrap().0;
            assert!(*got.0 == alone && *got.1 == alone, "{name}: a prompt of {}", prompt.len());
            assert!(on_gpu(&name) || alone.len() == 10);
        }
    }
}

#[test]
fn keys_and_values_take_memory_as_sequences_grow() {
    let file = random_model(ModelConfig { seq_len: 8192, ..config(true, 2, 1) }, VOCAB);
    for (name, backend) in backends() {
        let mut engine = Engine::new(&file, &backend, EngineOptions { slots: 16, context: 0 }).unwrap();
        assert_eq!((engine.context(), engine.pages()), (DEFAULT_CONTEXT, 1), "{name}");
        let sampling = Sampling { temperature: 0.0, max_tokens: 1, ..Sampling::default() };
        // Room doubles. What a sequence leaves is for the next, in whatever slot.
        for (tokens, pages) in [(64, 1), (65, 2), (130, 4), (10, 4), (256, 4), (257, 8)] {
            let before = (engine.pages(), engine.device_bytes());
            engine.generate(&vec![5; tokens], sampling.clone()).unwrap();
            assert_eq!(engine.pages(), pages, "{name}: {tokens} tokens");
            // Two layers have keys and values of two heads.
            let page = 2 * 2 * 2 * 16 * PAGE * 4;
            assert!(engine.device_bytes() >= before.1 + (pages - before.0) * page, "{name}: {tokens} tokens");
        }
        let idle = Engine::new(&file, &backend, EngineOptions { slots: 1, context: 64 }).unwrap().device_bytes();
        let wide = Engine::new(&file, &backend, EngineOptions { slots: 16, context: 8192 }).unwrap().device_bytes();
        // Rotary positions, and what more sequences sample, but no keys and values.
        assert!(wide < idle + 6_000_000, "{name}: {idle} and {wide} bytes");
    }
}

/// What a layer with a Gated DeltaNet remembers does not grow.
#[test]
fn a_delta_net_takes_no_memory_as_sequences_grow() {
    let delta_net = ModelConfig { seq_len: 8192, mixers: vec![MixerKind::DeltaNet], ..config(true, 2, 1) };
    let growth = |config: &ModelConfig| {
        let options = EngineOptions { slots: 1, context: 0 };
        let mut engine = Engine::new(&random_model(config.clone(), VOCAB), &fastest(), options).unwrap();
        let mut bytes = |tokens: usize| {
            engine.generate(&vec![5; tokens], Sampling { max_tokens: 1, ..Sampling::default() }).unwrap();
            engine.device_bytes()
        };
        // What is packed when it is first needed is there after the first.
        let before = bytes(600);
        bytes(1800) - before
    };
    assert_eq!(growth(&delta_net), 0);
    let one_of_four = |attention: usize| {
        let mut mixers = vec![MixerKind::DeltaNet; 4 - attention];
        mixers.extend(vec![MixerKind::Attention; attention]);
        growth(&ModelConfig { layers: 4, mixers, ..delta_net.clone() })
    };
    assert_eq!(4 * one_of_four(1), one_of_four(4));
}

/// Sets values of an f32 weight to one at which what is made of them overflows.
fn overflow(file: &mut ModelFile, weight: &str, count: usize) {
    let tensor = file.tensors.iter_mut().find(|t| t.name == weight).unwrap();
    let TensorData::F32(values) = &mut tensor.data else { panic!("{weight} is not f32") };
    values[..count].fill(3e38);
}

#[test]
fn logits_that_are_not_finite_end_their_sequence_alone() {
    let dir = tempfile::tempdir().unwrap();
    train(&config(true, 2, 2), dir.path());
    let (mut some, mut all) = (served(dir.path()), served(dir.path()));
    // One factor of the last norm overflows for some tokens only.
    overflow(&mut some, "norm.weight", 1);
    overflow(&mut all, "layers.1.ffn.norm.weight", 64);
    let prompts: Vec<Vec<u32>> = (0..12).map(|i| ids(i)[..1 + 3 * i as usize].to_vec()).collect();
    let sampling = Sampling { temperature: 0.0, max_tokens: 3, ..Sampling::default() };
    let options = EngineOptions { slots: prompts.len(), ..EngineOptions::default() };
    for (name, backend) in backends() {
        let mut engine = Engine::new(&some, &backend, options).unwrap();
        let alone: Vec<_> = prompts.iter().map(|p| engine.generate(p, sampling.clone())).collect();
        let failed = alone.iter().filter(|r| r.is_err()).count();
        assert!(failed > 0 && failed < alone.len(), "{name}: {failed} of {} fail", alone.len());
        let (tokens, why) = together(&mut engine, &prompts, &sampling);
        for (i, alone) in alone.into_iter().enumerate() {
            match alone {
                Ok((alone, _)) => assert!(why[i].is_none() && tokens[i] == alone, "{name}, prompt {i}"),
                Err(error) => {
                    let (error, why) = (error.to_string(), why[i].clone());
                    assert!(error.contains("not finite") && error.ends_with("rms_norm at norm.weight"), "{error}");
                    assert_eq!(why, Some(error), "{name}, prompt {i}");
                }
            }
        }
        assert_eq!(engine.free_slots(), prompts.len());
        let error = Engine::new(&all, &backend, options).unwrap().generate_all(&prompts, &sampling).unwrap_err();
        assert!(error.to_string().ends_with("rms_norm_quantize at layers.1.ffn.norm.weight"), "{name}: {error}");
        let error = eval::perplexity(&all, &backend, &ids(0).into(), None).unwrap_err().to_string();
        assert!(
            error.contains("loss is not") && error.ends_with("rms_norm_quantize at layers.1.ffn.norm.weight"),
            "{error}"
        );
    }
}

/// An 8-bit embedding and head give the same bits in chunks of any size, and results close to those of f16.
#[test]
fn tables_may_be_rounded_to_8_bits() {
    for tie in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        train(&config(tie, 2, 2), dir.path());
        let mut file = served(dir.path());
        let logits = |file: &ModelFile, backend: &Backend, chunk| {
            let mut engine = Engine::new(file, backend, EngineOptions::default()).unwrap();
            pollster::block_on(engine.prompt_logits(&ids(0)[..SEQ], chunk)).unwrap().pop().unwrap()
        };
        let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|v| f64::from(*v)).collect() };
        let exact = wide(&logits(&file, &scalar(), SEQ));
        file.round_tables_to_int8().unwrap();
        let want = logits(&file, &fastest(), SEQ);
        let rounding = relative(&want, &exact);
        assert!(rounding > 1e-4 && rounding < 0.1, "tied {tie}: {rounding:.1e}");
        for (name, backend) in backends() {
            let found = logits(&file, &backend, 5);
            let off = relative(&found, &wide(&want));
            assert!(off < 3e-2, "tied {tie}, {name}: {off:.1e}");
            assert!(!name.contains(&best()) || found == want, "tied {tie}, {name}: {off:.1e}");
        }
    }
}

#[test]
fn a_sequence_ends_for_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    train(&config(true, 4, 1), dir.path());
    let file = served(dir.path());
    let mut engine = Engine::new(&file, &fastest(), EngineOptions::default()).unwrap();
    let sampling = |max_tokens| Sampling { temperature: 0.0, max_tokens, ..Sampling::default() };
    let prompt = ids(4)[..40].to_vec();
    let (tokens, reason) = engine.generate(&prompt, sampling(3)).unwrap();
    assert_eq!((tokens.len(), reason), (3, FinishReason::Length));
    let (tokens, reason) = engine.generate(&prompt, sampling(1000)).unwrap();
    assert!(reason == FinishReason::Stop || (reason == FinishReason::Context && tokens.len() == SEQ - 40));
    let forced = Sampling { logit_bias: vec![(file.text.stop[0], 100.0)], ..sampling(10) };
    assert_eq!(engine.generate(&prompt, forced).unwrap(), (vec![], FinishReason::Stop));
    let favoured = Sampling { logit_bias: vec![(65, 100.0)], ..sampling(4) };
    assert_eq!(engine.generate(&prompt, favoured).unwrap().0, [65; 4]);
    for (bad, word) in [
        (Sampling { temperature: -1.0, ..sampling(1) }, "temperature"),
        (Sampling { top_p: f32::NAN, ..sampling(1) }, "top_p"),
        (Sampling { logit_bias: vec![(9999, 1.0)], ..sampling(1) }, "9999"),
        (sampling(0), "max_tokens"),
    ] {
        assert!(engine.generate(&prompt, bad).unwrap_err().to_string().contains(word));
    }
    for (bad, word) in [(vec![], "empty"), (vec![VOCAB as u32], "262"), (ids(0)[..SEQ].to_vec(), "context")] {
        assert!(engine.generate(&bad, sampling(1)).unwrap_err().to_string().contains(word));
    }
    assert_eq!(engine.free_slots(), 4);
}
