//! Runs in which something breaks: values that are not numbers, logs and checkpoints that cannot be written, losses that
//! stay unusable. Nothing is hidden, and no run ends for what can be mended.
//!
//! A longer trial: `NANOTERN_TRIALS=100 cargo test --release --test faults -- --ignored --nocapture`.
#![cfg(feature = "cli")]

mod common;

use common::cli::{Ended, Project, fresh, resume};
use common::{backends, fastest, on_gpu};
use nanotern::checkpoint::{self, Array};
use nanotern::data::Corpus;
use nanotern::graph::DType;
use nanotern::model::{Embeddings, ModelConfig, Quantize};
use nanotern::ops::StateForm;
use nanotern::rng::Rng;
use nanotern::tokenizer::Tokenizer;
use nanotern::train::{Aux, Batch, Config, OptimConfig, Run, Session, Start, StepShape, TrainStep, Trainer};
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

const WRONG: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

/// Models that together have every kind of weight, with both optimizers.
fn models() -> Vec<(ModelConfig, OptimConfig)> {
    let base = ModelConfig { mhc_streams: 1, ..ModelConfig::self_test() };
    let optim = OptimConfig { warmup_steps: 0, ..OptimConfig::default() };
    let lion = OptimConfig { aux: Aux::Lion, ..optim.clone() };
    let untied = ModelConfig { tie_embeddings: false, embeddings: Embeddings::F32, mhc_streams: 2, ..base.clone() };
    let plain = ModelConfig { quantize: Quantize::None, sub_norm: false, ..base.clone() };
    let head = ModelConfig { ternary_head: true, mhc_streams: 4, ..untied.clone() };
    let state = |optim: &OptimConfig, state| OptimConfig { state, ..optim.clone() };
    vec![
        (base.clone(), optim.clone()),
        (untied.clone(), lion.clone()),
        (plain, state(&optim, StateForm::Bf16)),
        (head, state(&lion, StateForm::Int8)),
        (untied, state(&lion, StateForm::Bf16)),
        (base, state(&optim, StateForm::Int8)),
    ]
}

/// Whether a tensor can hold a value that is not finite.
fn floats(tensor: &Array) -> bool {
    [DType::F32, DType::Bf16].contains(&tensor.dtype)
}

#[test]
fn a_value_that_is_not_finite_is_noticed_by_the_next_step() {
    let shape = StepShape { batch: 2, seq: 16, ..StepShape::default() };
    let batch = || Batch::new((0..32).map(|i| i % 40).collect(), (0..32).map(|i| (i + 1) % 40).collect(), 16);
    // The kernels of all levels agree, so the best speaks for them.
    let best = nanotern::backend::Level::detect().to_string();
    for (name, backend) in backends().into_iter().filter(|(name, _)| on_gpu(name) || name.ends_with(&best)) {
        let mut rng = Rng::new(5);
        // Two models have all that is special to the shaders, which take long to prepare.
        let all = models().into_iter().enumerate().filter(|(i, _)| !on_gpu(&name) || i % 3 == 0);
        for (_, (config, optim)) in all {
            let mut trainer = Trainer::new(TrainStep::build(&config, 300, shape, &optim), &backend).unwrap();
            trainer.init(1);
            trainer.submit(0, 1.0, [batch()]).unwrap();
            let (model, state) = (trainer.model_tensors().unwrap(), trainer.optimizer_tensors().unwrap());
            let mut step = 0;
            for i in 0..model.len() + state.len() {
                let (mut model, mut state) = (model.clone(), state.clone());
                let tensor = model.iter_mut().chain(&mut state).nth(i).unwrap();
                // Codes are numbers, whatever they are.
                if !floats(tensor) {
                    continue;
                }
                // The first two values of `ctl` are written before they are read.
                let least = if tensor.name == "ctl" { 2 } else { 0 };
                let at = least + rng.below((tensor.data.len() - least) as u64) as usize;
                let (tensor_name, wrong) = (tensor.name.clone(), WRONG[i % 3]);
                tensor.data[at] = wrong;
                trainer.load(&model, &state).unwrap();
                // Before the weights are in use, the step may make them so from a momentum.
                (0..2).for_each(|n| trainer.submit(step + n, 1.0, [batch()]).unwrap());
                let stats = trainer.stats(step..step + 2).unwrap();
                assert!(stats[1].skipped, "{name}: {tensor_name}[{at}] = {wrong} is hidden: {stats:?}");
                let named = trainer.not_finite().unwrap();
                assert!(named.as_ref().is_some_and(|n| n.contains(&tensor_name)), "{tensor_name}: {named:?}");
                step += 2;
            }
            trainer.load(&model, &state).unwrap();
            trainer.submit(step, 1.0, [batch()]).unwrap();
            assert!(!trainer.stats(step..step + 1).unwrap()[0].skipped && trainer.not_finite().unwrap().is_none());
        }
    }
}

fn corpus() -> Corpus {
    let line = |i: u64| format!("{i}: {} cats saw {} dogs near {}\n", i * 7 % 13, i * i % 11, i * 7919 % 1009);
    let text: String = (0..300).map(line).collect();
    Corpus::from_text("cats", &text, &text[..2000], Tokenizer::bytes()).unwrap()
}

/// A run of 60 steps with a checkpoint after each 10.
fn config(i: usize) -> Config {
    let (model, optim) = models().swap_remove(i % 6);
    let mut config = Config { model, optim, ..Config::default() };
    let train = &mut config.train;
    (train.batch_size, train.total_steps, train.eval_windows) = (2, 60, 4);
    (train.log_interval, train.eval_interval, train.checkpoint_interval) = (5, 20, 10);
    config
}

fn run(dir: &Path, config: &Config, before_step: impl FnMut(&mut Session) + 'static) -> nanotern::Result<Run> {
    let mut run = Run::new(config.clone(), corpus(), Start::New(dir), &fastest())?;
    run.before_each_step(before_step);
    Ok(run)
}

/// Puts a value that is not finite into a random tensor before a random step. The run goes back to a good checkpoint within an
/// interval, or ends with an error that names the tensor. Returns what happened.
fn trial(seed: u64) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(seed);
    let (at, pick, wrong) = (rng.below(60), rng.next_u64(), WRONG[rng.below(3) as usize]);
    let steps = Rc::new(RefCell::new(Vec::new()));
    let injected = Rc::new(RefCell::new(String::new()));
    let (seen, tensor) = (steps.clone(), injected.clone());
    let mut done = false;
    let inject = move |session: &mut Session| {
        seen.borrow_mut().push(session.step);
        if session.step != at || std::mem::replace(&mut done, true) {
            return;
        }
        let (mut model, mut state) =
            (session.trainer.model_tensors().unwrap(), session.trainer.optimizer_tensors().unwrap());
        let mut arrays: Vec<_> = model.iter_mut().chain(&mut state).filter(|array| floats(array)).collect();
        let count = arrays.len();
        let array = arrays.swap_remove(pick as usize % count);
        let n = array.data.len();
        let element = if array.name == "ctl" { 2 + pick as usize % 2 } else { (pick >> 8) as usize % n };
        array.data[element] = wrong;
        *tensor.borrow_mut() = array.name.clone();
        session.trainer.load(&model, &state).unwrap();
    };
    let ended = run(dir.path(), &config(seed as usize), inject).unwrap().train();
    let (steps, tensor) = (steps.borrow(), injected.borrow());
    let what = format!("trial {seed}: {tensor} = {wrong} before step {}", at + 1);
    match ended {
        Ok(outcome) => {
            assert_eq!((outcome.step, outcome.signal), (60, None), "{what}");
            let saved = checkpoint::load(&outcome.checkpoint).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(saved.meta.skipped_steps <= 10, "{what}");
            let falls: Vec<_> = steps.windows(2).filter(|w| w[1] <= w[0]).collect();
            let latest = at - at % 10;
            // Up to an interval of steps ran before it was noticed; no good step before the last checkpoint was lost.
            let back = [&[steps[at as usize], latest][..]];
            assert!(falls.len() <= 1, "{what}: {falls:?}");
            let last = steps[steps.iter().rposition(|s| *s == latest).unwrap() - 1];
            assert!(falls.len() == 1 && falls[0][1] == latest && last <= at + 10, "{what}: {falls:?}, {back:?}");
            format!("{what}: back at step {latest} after step {}", last + 1)
        }
        Err(e) => {
            let message = e.to_string();
            assert!(
                at < 10 && message.contains(tensor.as_str()) && message.contains("no checkpoint"),
                "{what}: {message}"
            );
            format!("{what}: {message}")
        }
    }
}

#[test]
fn wrong_values_are_named_or_rolled_back() {
    (0..6).for_each(|seed| drop(trial(seed)));
}

#[test]
#[ignore = "takes minutes"]
fn many_wrong_values_are_named_or_rolled_back() {
    let trials = std::env::var("NANOTERN_TRIALS").map_or(100, |n| n.parse().unwrap());
    (0..trials).for_each(|seed| println!("{}", trial(seed)));
}

/// Both files of a finished run, without the speed.
fn exact_log(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    text.lines().map(|l| l.split(",\"tok_per_s\"").next().unwrap().to_string()).collect()
}

fn event_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let names = dir.read_dir().unwrap().map(|e| e.unwrap().path());
    names.filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("events.out.")).collect()
}

#[test]
fn logs_that_fail_do_not_end_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    let config = config(0);
    run(&whole, &config, |_| ()).unwrap().train().unwrap();
    let at = broken.clone();
    let hook = move |session: &mut Session| {
        let metrics = at.join("metrics.jsonl");
        match session.step {
            // A folder cannot be written to as a file, not even by root.
            12 => {
                for path in [metrics, event_files(&at).remove(0), at.join("loss.svg")] {
                    let aside = path.with_extension("aside");
                    if path.exists() {
                        std::fs::rename(&path, aside).unwrap();
                    }
                    std::fs::create_dir(&path).unwrap();
                }
            }
            33 => {
                std::fs::remove_dir(&metrics).unwrap();
                std::fs::rename(metrics.with_extension("aside"), &metrics).unwrap();
            }
            47 => {
                let path = event_files(&at).into_iter().find(|p| p.is_dir()).unwrap();
                std::fs::remove_dir(&path).unwrap();
                std::fs::rename(path.with_extension("aside"), &path).unwrap();
            }
            _ => {}
        }
    };
    run(&broken, &config, hook).unwrap().train().unwrap();
    assert_eq!(exact_log(&whole), exact_log(&broken), "records are missing");
    let events = |dir: &Path| std::fs::read(event_files(dir).remove(0)).unwrap().len();
    assert_eq!(events(&whole), events(&broken));
    let model = |dir: &Path| std::fs::read(dir.join("final/model.safetensors")).unwrap();
    assert!(model(&whole) == model(&broken));
}

/// The disk takes 4 to 8 kB of a file.
#[test]
#[cfg(unix)]
fn a_full_disk_is_said_once_for_each_log() {
    let p = Project::new();
    let words = fresh("run", "--total-steps 200 --checkpoint-interval 50 --eval-interval 0");
    let mut shell = std::process::Command::new("sh");
    let limited = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
    shell.args(["-c", limited, env!("CARGO_BIN_EXE_nanotern")]).args(words.split_whitespace());
    let ended = p.spawn({
        shell.current_dir(p.path(""));
        shell
    });
    let Ended { code, stderr, .. } = ended.end();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("step 200/200"), "{stderr}");
    for log in ["metrics.jsonl", "events.out.tfevents."] {
        let of_log = stderr.lines().filter(|l| l.starts_with("warning: ") && l.contains(log) && l.contains("goes on"));
        assert_eq!(of_log.count(), 1, "{log}: {stderr}");
    }
    for part in ["step_50 not saved", "tries again at step 55", "final not saved", "lost: steps 1 to 200"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    p.metrics("run"); // every line is whole
}

#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_has_room_again_gets_all() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let p = Project::new();
    let words = fresh("run", "--total-steps 2000 --checkpoint-interval 50");
    let mut shell = std::process::Command::new("sh");
    let limited = "trap '' XFSZ; ulimit -S -f 8; exec \"$0\" \"$@\"";
    shell.args(["-c", limited, env!("CARGO_BIN_EXE_nanotern")]).args(words.split_whitespace());
    shell.current_dir(p.path(""));
    let mut run = p.spawn(shell);
    run.wait_for("tries again at step 65");
    let room = Rlimit { current: None, maximum: None };
    prlimit(Some(Pid::from_child(&run.child)), Resource::Fsize, room).unwrap();
    let Ended { code, stderr, .. } = run.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stderr.matches("is written again; nothing is missing").count(), 2, "{stderr}");
    let steps: Vec<u64> = p.metrics("run").iter().filter_map(|r| r.get("lr").and(r["step"].as_u64())).collect();
    assert_eq!(steps, (1..=2000).collect::<Vec<_>>());
    assert!(p.checkpoints("run").contains(&"final".to_string()));
}

/// Writes a value into a tensor of a checkpoint, with the right checksums.
fn poison(checkpoint: &Path, file: &str, tensor: &str, value: f32) {
    let path = checkpoint.join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    let before = crc32c::crc32c(&bytes);
    let (header, meta) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let start = 8 + header + meta.info(tensor).unwrap().data_offsets.0;
    bytes[start..start + 4].copy_from_slice(&value.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let manifest = checkpoint.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let text = text.replace(&format!("{before:08x}"), &format!("{:08x}", crc32c::crc32c(&bytes)));
    let own = text.rfind("\"crc32c\": \"").unwrap() + 11;
    let unsigned = format!("{}00000000{}", &text[..own], &text[own + 8..]);
    let signed = format!("{}{:08x}{}", &text[..own], crc32c::crc32c(unsigned.as_bytes()), &text[own + 8..]);
    std::fs::write(&manifest, signed).unwrap();
}

#[test]
fn a_checkpoint_that_is_not_finite_is_neither_loaded_nor_saved() {
    let p = Project::new();
    p.train("whole", "--total-steps 30 --checkpoint-interval 10 --keep-last-checkpoints 9");
    for (file, tensor, value) in [
        ("model.safetensors", "layers.0.attn.q.weight", f32::NAN),
        ("optimizer.safetensors", "embed.weight.v", f32::INFINITY),
    ] {
        poison(&p.path("whole/final"), file, tensor, value);
        let what = format!("final/{file}: {tensor}: value 0 is {value}: not a finite number");
        let ended = p.nanotern("inspect whole/final");
        assert!(ended.code == Some(1) && ended.stderr.contains(&what), "{}", ended.stderr);
        // What only needs the weights reads no state of the optimizer.
        let fork = "train --backend cpu --resume whole --fork fork --total-steps 1";
        for words in ["export --checkpoint whole/final --output x.gguf", fork] {
            let ended = p.nanotern(words);
            let reads = ended.stderr.contains(&what);
            assert_eq!(reads, file == "model.safetensors", "{words}: {}", ended.stderr);
            assert!(reads || ended.code == Some(0), "{words}: {}", ended.stderr);
        }
        std::fs::remove_dir_all(p.path("fork")).unwrap();
        let ended = p.nanotern(&resume("whole", ""));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(
            ended.stderr.contains(&what) && ended.stderr.contains("resumed from whole/step_20"),
            "{}",
            ended.stderr
        );
        assert!(checkpoint::load(&p.path("whole/final")).is_ok());
    }
    let mut saved = checkpoint::load(&p.path("whole/final")).unwrap();
    saved.optimizer[1].data[3] = f32::NAN;
    let result = checkpoint::save(&p.path("whole"), "step_31", &saved.meta, &saved.model, &saved.optimizer, None);
    let wanted = format!("{}: value 3 is NaN: not a finite number", saved.optimizer[1].name);
    assert_eq!(result.unwrap_err().to_string(), wanted);
    assert!(!p.checkpoints("whole").contains(&"step_31".to_string()));
    for step in ["final", "step_10", "step_20"] {
        poison(&p.path("whole").join(step), "model.safetensors", "norm.weight", f32::NEG_INFINITY);
    }
    let ended = p.nanotern(&resume("whole", ""));
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("norm.weight: value 0 is -inf"), "{}", ended.stderr);
}

#[test]
fn a_rollback_walks_over_all_checkpoints() {
    let p = Project::new();
    let words = "--total-steps 60 --checkpoint-interval 10 --keep-last-checkpoints 9 --eval-interval 0";
    p.train("run", words);
    ["final", "step_50"].iter().for_each(|n| std::fs::remove_dir_all(p.path("run").join(n)).unwrap());
    ["step_40", "step_30"].iter().for_each(|n| p.spoil("run", n));
    // Saves are due within the streaks.
    let ended = p.nanotern(&resume("run", "--checkpoint-interval 5"));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let back = |ended: &Ended| -> Vec<u64> {
        let lines = ended.stderr.lines().filter_map(|l| l.split_once("rolled back to "));
        lines.map(|(_, to)| to.split(['(', ')']).nth(1).unwrap()[5..].parse().unwrap()).collect()
    };
    assert_eq!(back(&ended), [40, 30, 20], "{}", ended.stderr);
    assert_eq!(p.meta("run/final")["skipped_steps"], 24);
    assert_eq!(p.meta("run/final")["state"]["rolled_back"], serde_json::Value::Null);
    assert_eq!(p.meta("run/step_40")["state"]["rolled_back"], serde_json::json!({ "from": 48, "to": 20 }));
    let steps: Vec<u64> =
        p.metrics("run").iter().filter(|r| r.get("lr").is_some()).map(|r| r["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=60).collect::<Vec<_>>());

    // None is of use: each is tried once, and nothing is saved.
    p.train("bad", words);
    std::fs::remove_dir_all(p.path("bad/final")).unwrap();
    p.checkpoints("bad").iter().for_each(|n| p.spoil("bad", n));
    let before = p.checkpoints("bad");
    let ended = p.nanotern(&resume("bad", "--checkpoint-interval 5 --total-steps 100"));
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_eq!((back(&ended), p.checkpoints("bad")), (vec![50, 40, 30, 20, 10], before), "{}", ended.stderr);
    for part in ["8 steps in a row", "no checkpoint to go back to", "lower the learning rates"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

#[test]
fn skipped_steps_at_the_end_of_a_run_are_said() {
    let p = Project::new();
    p.train("run", "--total-steps 4");
    p.spoil("run", "final");
    let ended = p.nanotern(&resume("run", "--total-steps 7"));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("warning: the last 3 steps were skipped"), "{}", ended.stderr);
    assert_eq!(p.meta("run/final")["state"]["skipped_in_a_row"], 3);
}

#[test]
fn the_count_of_skipped_steps_survives() {
    let p = Project::new();
    p.train("run", "--total-steps 20 --checkpoint-interval 10 --keep-last-checkpoints 9");
    std::fs::remove_dir_all(p.path("run/final")).unwrap();
    let mut saved = checkpoint::load(&p.path("run/step_10")).unwrap();
    saved.meta.skipped_steps = 7;
    let tokenizer = saved.tokenizer_json.as_deref();
    checkpoint::save(&p.path("run"), "step_10", &saved.meta, &saved.model, &saved.optimizer, tokenizer).unwrap();
    p.ok(&resume("run", ""));
    assert_eq!(p.meta("run/final")["skipped_steps"], 7);
}

#[test]
fn records_that_are_missing_are_said() {
    let p = Project::new();
    p.train("run", "--total-steps 20 --checkpoint-interval 10");
    std::fs::remove_dir_all(p.path("run/final")).unwrap();
    let log = String::from_utf8(p.read("run/metrics.jsonl")).unwrap();
    let kept: String = log.split_inclusive('\n').take(6).collect();
    for (log, said) in [(log.clone(), None), (kept, Some("the log has no records of steps 7 to 10"))] {
        p.write("run/metrics.jsonl", log);
        let ended = p.nanotern(&resume("run", ""));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(ended.stderr.contains("has no records"), said.is_some(), "{}", ended.stderr);
        assert!(said.is_none_or(|said| ended.stderr.contains(said)), "{}", ended.stderr);
        std::fs::remove_dir_all(p.path("run/final")).unwrap();
    }
}

#[test]
fn a_run_that_diverges_says_so_once() {
    let p = Project::new();
    for (rate, diverged) in [("1e6", 1), ("0.003", 0)] {
        let dir = format!("run{diverged}");
        let ended = p.nanotern(&fresh(&dir, &format!("--total-steps 60 --set optim.aux_lr={rate}")));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        // ln(262) + 1
        let said = "the run has diverged: the loss was above ln(vocabulary) + 1 = 6.57 for 10 steps in a row";
        assert_eq!(ended.stderr.matches(said).count(), diverged, "{}", ended.stderr);
        assert_eq!(p.metrics(&dir).iter().filter(|r| r.get("diverged").is_some()).count(), diverged);
    }
}

#[test]
fn an_older_checkpoint_is_used_only_if_told_to() {
    let p = Project::new();
    p.train("run", "--total-steps 4 --checkpoint-interval 2");
    let commands = [
        "export --output x.gguf --checkpoint run",
        "generate --backend cpu --max-tokens 2 --prompt x --model run",
        "eval perplexity --backend cpu --data-path text.txt --model run",
        "eval parity --backend cpu --model run",
        "chat --backend cpu --model run",
    ];
    for words in commands {
        let ended = p.nanotern(words);
        let step = "run/final (step 4)";
        assert!(ended.stdout.contains(step) || ended.stderr.contains(step), "{words}: {}", ended.stderr);
    }
    let mut bytes = p.read("run/final/model.safetensors");
    bytes[9000] ^= 1;
    p.write("run/final/model.safetensors", bytes);
    for words in commands.into_iter().chain(["serve --port 0 --backend cpu --model run"]) {
        let ended = p.nanotern(words);
        assert_eq!(ended.code, Some(1), "{words}: {}", ended.stderr);
        for part in ["run/final/model.safetensors: checksum", "--allow-older", "step 2"] {
            assert!(ended.stderr.contains(part), "{words}: {}", ended.stderr);
        }
        assert!(!p.path("x.gguf").exists() || !words.starts_with("export") || p.read("x.gguf").len() > 1);
    }
    for words in commands {
        let ended = p.nanotern(&format!("{words} --allow-older"));
        let (step, why) = ("run/step_2 (step 2)", "run/final/model.safetensors: checksum");
        assert!(ended.stdout.contains(step) || ended.stderr.contains(step), "{words}: {}", ended.stderr);
        assert!(ended.stderr.contains(why), "{words}: {}", ended.stderr);
    }
}
