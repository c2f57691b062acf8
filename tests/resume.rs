//! A run that is interrupted by kill -9 or a signal, and resumed, ends exactly like an uninterrupted one.
#![cfg(all(feature = "cli", unix))]

mod common;

use common::cli::{Project, fresh, resume};
use common::hangup;
use nanotern::checkpoint;
use nanotern::rng::Rng;
use nanotern::train::Config;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::time::Duration;

/// Kills a run after the checkpoint at half of 24 steps, resumes it, and compares with an uninterrupted one.
fn half_and_half(options: &str, resume_options: &str) {
    let p = Project::new();
    let steps = format!("--total-steps 24 --eval-interval 6 {options}");
    p.train("whole", &steps);
    let mut run = p.start(&fresh("halves", &format!("{steps} --checkpoint-interval 12")));
    run.wait_for("step 13/");
    run.kill();
    assert_eq!(p.checkpoints("halves"), ["step_12"], "the kill came too late");
    let logged = events(&p, "halves").windows(10).filter(|w| w == b"train/loss").count();
    assert!(logged >= 13, "TensorBoard would see {logged} of 13 steps");
    p.ok(&resume("halves", resume_options));
    p.assert_same("whole", "halves");
    assert_eq!(p.exact_metrics("whole"), p.exact_metrics("halves"));
    let records = p.metrics("halves");
    let steps: Vec<_> = records.iter().filter(|r| r["loss"].is_number()).map(|r| r["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=24).collect::<Vec<_>>());
}

/// All TensorBoard events of a run.
fn events(p: &Project, run: &str) -> Vec<u8> {
    let names = p.path(run).read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|n| n.starts_with("events.")).flat_map(|n| p.read(&format!("{run}/{n}"))).collect()
}

#[test]
fn tokens_are_counted_across_a_change_of_batch() {
    let p = Project::new();
    p.train("run", "--total-steps 2 --batch-size 2");
    p.ok(&resume("run", "--total-steps 4 --batch-size 4"));
    assert_eq!(p.meta("run/final")["tokens"], 2 * 2 * 32 + 2 * 4 * 32);
    let tokens: Vec<_> =
        p.metrics("run").iter().filter(|r| r["loss"].is_number()).map(|r| r["tokens"].clone()).collect();
    assert_eq!(tokens, [64, 128, 256, 384]);
}

/// The losses of further heads are in both logs, an export has the heads, and drafts by them change no text.
#[test]
fn further_heads_are_measured_and_exported() {
    let p = Project::new();
    p.train("run", "--total-steps 4 --eval-interval 4 --set model.mtp=2 --set train.mtp_weight=0.5");
    let evaluated = p.metrics("run").into_iter().find(|r| r["val_loss"].is_number()).unwrap();
    let ahead: Vec<f64> = evaluated["val_loss_ahead"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert!(
        ahead.len() == 2 && ahead.iter().all(|loss| (1.0..8.0).contains(loss)) && ahead[0] != ahead[1],
        "{ahead:?}"
    );
    assert!(events(&p, "run").windows(16).any(|w| w == b"val/loss_ahead_2"));
    p.ok("export --checkpoint run --output model.gguf");
    let words = "generate --backend cpu --model model.gguf --prompt x --seed 3 --max-tokens 30";
    let [with, without] = ["--speculate", ""].map(|flag| p.nanotern(&format!("{words} {flag}")));
    assert_eq!((with.stdout, with.code), (without.stdout, Some(0)), "{}{}", with.stderr, without.stderr);
    assert!(with.stderr.contains("tokens a step") && !without.stderr.contains("tokens a step"), "{}", with.stderr);
}

/// Makes a step take about 20 ms, so that a kill after step 13 of 24 comes before the end.
const SLOW: &str = "--batch-size 16 --set model.ffn=256";

/// A Gated DeltaNet before attention.
const HYBRID: &str = r#"--set model.layers=2 --set model.mixers=["delta_net","attention"]"#;

#[test]
fn kill_and_resume_equals_running_on() {
    half_and_half(SLOW, "--threads 1");
}

/// The random bits of a step follow from the seed and the number of the step.
#[test]
fn kill_and_resume_with_optimizer_state_in_fewer_bits() {
    half_and_half(&format!("{SLOW} --set optim.state=int8"), "--threads 3");
    half_and_half(&format!("{SLOW} --set optim.state=bf16"), "--threads 1");
    half_and_half(&format!("{SLOW} --set optim.state=int8 --set optim.aux=lion"), "--threads 1");
    half_and_half(&format!("{SLOW} --set optim.state=bf16 --set optim.aux=lion"), "--threads 1");
}

#[test]
fn kill_and_resume_with_a_loop() {
    let looped = ["before=0", "shared=1", "times=2", "after=0"].map(|key| format!("--set model.loop.{key}"));
    half_and_half(&format!("{SLOW} {}", looped.join(" ")), "--threads 1");
}

#[test]
fn kill_and_resume_with_further_heads() {
    half_and_half(&format!("{SLOW} --set model.mtp=2 --set model.mhc_streams=2"), "--threads 2");
}

#[test]
fn kill_and_resume_with_streams_lion_and_accumulation_on_other_threads() {
    half_and_half(&format!("{SLOW} --grad-accum 2 --set model.mhc_streams=2 --set optim.aux=lion"), "--threads 3");
}

/// The biases of experts are state, and how they are used is logged.
#[test]
fn kill_and_resume_with_experts() {
    half_and_half(
        &format!("{SLOW} --grad-accum 2 --set model.moe.experts=4 --set model.moe.bias_rate=0.01"),
        "--threads 2",
    );
}

#[test]
fn kill_and_resume_with_delta_nets_equals_running_on() {
    half_and_half(&format!("{SLOW} {HYBRID} --set data.separate_documents=true"), "--threads 1");
}

#[test]
fn recomputed_layers_give_the_same_weights() {
    let p = Project::new();
    let looped = "--set model.loop={before=1,shared=1,times=2,after=0}";
    for (name, layers) in [
        ("one", format!("--set model.mhc_streams=1 --set model.layers=2 {looped}")),
        ("four", format!("--set model.mhc_streams=4 --set model.layers=2 {looped}")),
        ("experts", "--set model.moe.experts=4 --set model.moe.balance_loss=0.1".into()),
        ("ahead", "--set model.mhc_streams=2 --set model.mtp=2".into()),
        ("delta", HYBRID.into()),
    ] {
        let options = format!("{layers} --total-steps 6");
        p.train(&format!("kept-{name}"), &options);
        p.train(&format!("again-{name}"), &format!("{options} --set train.recompute=true"));
        p.assert_same(&format!("kept-{name}"), &format!("again-{name}"));
    }
}

/// The step of the newest checkpoint by name.
fn newest(p: &Project) -> u64 {
    let steps = p.checkpoints("killed").into_iter().filter_map(|name| name.strip_prefix("step_")?.parse().ok());
    steps.max().unwrap_or(0)
}

#[test]
fn twenty_kills_lose_nothing_but_the_steps_since_the_last_save() {
    kills(20);
}

/// `cargo test --release --test resume -- --ignored` takes some minutes.
#[test]
#[ignore = "takes minutes"]
fn two_hundred_kills_lose_nothing_but_the_steps_since_the_last_save() {
    kills(200);
}

fn kills(count: u64) {
    let p = Project::new();
    let steps = &format!("--total-steps {} --eval-interval 400", 75 * count);
    p.train("whole", steps);
    let mut rng = Rng::new(3);
    let mut before = 0;
    for kill in 0..count {
        let words = if kill == 0 {
            fresh("killed", &format!("{steps} --checkpoint-interval 2"))
        } else {
            resume("killed", &format!("--threads 1 --checkpoint-interval {}", 1 + kill % 2))
        };
        let mut run = p.start(&words);
        run.wait_for("run  ");
        // Every other kill waits for a save, so that slow disks make progress too; most kills happen during a save.
        while kill % 2 == 0 && newest(&p) <= before && run.child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(rng.below(60)));
        run.kill();
        let saved = checkpoint::newest_valid(&p.path("killed")).expect("a valid checkpoint, or none");
        let step = saved.map_or(0, |(saved, _)| saved.meta.step);
        let logged = p.metrics("killed").last().map_or(0, |r| r["step"].as_u64().unwrap());
        assert!(step >= before && logged <= step + 2, "kill {kill}: saved {step}, logged {logged}, before {before}");
        before = step;
    }
    assert!(before > 0, "no run lived long enough to save");
    p.ok(&resume("killed", "--threads 1 --checkpoint-interval 0"));
    p.assert_same("whole", "killed");
    assert_eq!(p.exact_metrics("whole"), p.exact_metrics("killed"));
    let names = p.path("killed").read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|n| n.starts_with("events.")).count(), 1, "a run has one event file");
}

#[test]
fn a_signal_saves_and_stops() {
    let p = Project::new();
    let steps = "--total-steps 400 --set model.ffn=256";
    p.train("whole", steps);
    for (signal, code, dir) in [(Signal::INT, 130, "int"), (Signal::TERM, 143, "term")] {
        let mut run = p.start(&fresh(dir, steps));
        run.wait_for("step 5/");
        run.signal(signal);
        let ended = run.end();
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert!(ended.stderr.contains(&format!("nanotern train --resume {dir}")), "{}", ended.stderr);
        let [saved] = &p.checkpoints(dir)[..] else { panic!("{:?}", p.checkpoints(dir)) };
        let step = p.meta(&format!("{dir}/{saved}"))["step"].as_u64().unwrap();
        assert!(*saved == checkpoint::step_name(step) && (5..400).contains(&step), "{saved}, step {step}");
        assert_eq!(p.metrics(dir).last().unwrap()["step"], step);
        assert!(p.path(dir).join("loss.svg").is_file());
        p.ok(&resume(dir, "--threads 1"));
        p.assert_same("whole", dir);
        assert_eq!(p.exact_metrics("whole"), p.exact_metrics(dir));
    }
}

/// Waits until the condition holds, for a minute at most.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: not within a minute");
}

#[test]
fn a_signal_ends_a_long_step_which_is_then_repeated() {
    let p = Project::new();
    p.train("whole", "--total-steps 2 --grad-accum 1000");
    for (i, (signal, code)) in [(Signal::INT, 130), (Signal::TERM, 143), hangup()].into_iter().enumerate() {
        let dir = format!("run{i}");
        let mut run = p.start(&fresh(&dir, "--total-steps 2 --grad-accum 1000"));
        run.wait_for("step 1/");
        run.signal(signal);
        let ended = run.end();
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert!(!p.checkpoints(&dir).contains(&"final".to_string()), "the signal came too late");
        p.ok(&resume(&dir, ""));
        p.assert_same("whole", &dir);
        assert_eq!(p.exact_metrics("whole"), p.exact_metrics(&dir));
    }
    // A step of 65,536 micro-batches would take half a minute at the least.
    let mut backends = vec!["--backend cpu --threads 1"];
    if !nanotern::backend::adapters().is_empty() {
        backends.push("--backend wgpu");
    }
    for (i, backend) in backends.iter().enumerate() {
        let dir = format!("long{i}");
        let words = "train --config config.toml --grad-accum 65536 --checkpoint-dir";
        let mut run = p.start(&format!("{words} {dir} {backend}"));
        run.wait_for("run  ");
        wait_until("config.toml", || p.path(&dir).join("config.toml").exists());
        run.signal(Signal::INT);
        assert_eq!(run.end().code, Some(130));
        assert_eq!(p.checkpoints(&dir), ["step_0"]);
    }
}

#[test]
fn a_signal_ends_an_evaluation_which_is_then_made_up_for() {
    let p = Project::new();
    let line = |i: u64| format!("{i}: {} mice met {} owls by {}\n", i * 7 % 13, i * i % 11, i * 7919 % 1009);
    p.write("text.txt", (0..150_000).map(line).collect::<String>());
    let steps = "--total-steps 4 --eval-interval 2 --set train.eval_windows=1000000 --batch-size 1";
    p.train("whole", steps);
    let mut run = p.start(&fresh("run", steps));
    // The second step is logged, and its evaluation begins.
    run.wait_for("step 2/");
    run.signal(Signal::TERM);
    let ended = run.end();
    assert_eq!(ended.code, Some(143), "{}", ended.stderr);
    assert_eq!(p.checkpoints("run"), ["step_2"]);
    assert!(p.metrics("run").iter().all(|r| r.get("val_loss").is_none()), "the evaluation ended before the signal");
    // So does the last one, after the last step.
    let mut run = p.start(&resume("run", "--threads 1"));
    run.wait_for("step 2: validation loss");
    wait_until("final", || p.path("run/final").exists());
    let (signal, code) = hangup();
    run.signal(signal);
    let ended = run.end();
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    assert!(p.meta("run/final")["step"] == 4 && p.metrics("run").last().unwrap().get("val_loss").is_none());
    p.ok(&resume("run", "--threads 1"));
    p.assert_same("whole", "run");
    assert_eq!(p.exact_metrics("whole"), p.exact_metrics("run"));
    assert_eq!(p.meta("run/final")["val_loss"], p.meta("whole/final")["val_loss"]);
}

#[test]
fn a_hangup_that_is_ignored_stays_ignored() {
    let p = Project::new();
    let words = format!("nanotern {}", fresh("run", "--total-steps 100000 --set model.ffn=256"));
    let mut shell = std::process::Command::new("sh");
    // As `nohup` does; `exec` makes the trainer the process that is signalled.
    shell.args(["-c", "trap '' HUP; shift; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_nanotern")]);
    shell.args(words.split_whitespace()).current_dir(p.path(""));
    let mut run = p.spawn(shell);
    run.wait_for("step 3/");
    run.signal(Signal::HUP);
    run.wait_for("step 300/");
    run.signal(Signal::TERM);
    assert_eq!(run.end().code, Some(143));
}

#[test]
fn a_finished_run_is_not_replaced_unless_told_to() {
    let p = Project::new();
    p.train("run", "--total-steps 4");
    let all = |run: &str| {
        let names = p.path(run).read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    let saved = || ["config.toml", "metrics.jsonl", "final/meta.json", "loss.svg"].map(|f| p.read(&format!("run/{f}")));
    let (before, names) = (saved(), all("run"));
    let ended = p.nanotern(&resume("run", "--log-interval 2"));
    assert!(ended.code == Some(0) && ended.stderr.contains("nothing to do: all 4 steps are done"), "{}", ended.stderr);
    assert!(saved() == before && all("run") == names);
    // A larger number of steps tells to go on; what was final is kept.
    let weights = p.read("run/final/model.safetensors");
    let ended = p.nanotern(&resume("run", "--total-steps 8 --keep-last-checkpoints 1 --checkpoint-interval 2"));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("the learning rate of Muon rises from 1.0e-2 to 2.0e-2 after step 4"),
        "{}",
        ended.stderr
    );
    assert_eq!(p.checkpoints("run"), ["final", "step_4", "step_6"]);
    assert!(p.read("run/step_4/model.safetensors") == weights && p.meta("run/final")["step"] == 8);
}

#[test]
fn a_run_without_a_checkpoint_starts_over_and_says_so() {
    let p = Project::new();
    let mut run = p.start(&fresh("run", "--total-steps 1000000"));
    run.wait_for("step 3/");
    run.kill();
    for words in [resume("run", "--total-steps 5"), fresh("run", "--total-steps 5")] {
        let ended = p.nanotern(&words);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("run has no checkpoint: the run starts over at step 0"), "{}", ended.stderr);
        std::fs::remove_dir_all(p.path("run/final")).unwrap();
    }
}

#[test]
fn a_fork_is_a_new_run_from_the_same_weights() {
    let p = Project::new();
    p.train("runs/old", "--total-steps 4");
    let before = ["config.toml", "metrics.jsonl", "final/manifest.json"].map(|f| p.read(&format!("runs/old/{f}")));
    p.write("other.txt", "Another text, in which nothing is as it was. ".repeat(40));
    for words in ["--resume runs/old", "--resume", ""] {
        let ended = p.nanotern(&format!(
            "train --backend cpu {words} --fork new --data-path other.txt --seed 7 --total-steps 3"
        ));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let from = "a new run from the weights of runs/old/final (step 4)";
        assert!(ended.stderr.contains(from) && ended.stderr.contains("step 1/3"), "{}", ended.stderr);
        assert_eq!(p.checkpoints("new"), ["final", "step_0"]);
        assert!(p.read("new/step_0/model.safetensors") == p.read("runs/old/final/model.safetensors"));
        assert_eq!((&p.meta("new/final")["step"], &p.meta("new/step_0")["seed"]), (&3.into(), &7.into()));
        let optimizer = checkpoint::load(&p.path("new/step_0")).unwrap().optimizer;
        assert!(optimizer.iter().all(|t| t.data.iter().all(|v| *v == 0.0)), "a fresh optimizer");
        std::fs::remove_dir_all(p.path("new")).unwrap();
    }
    let after = ["config.toml", "metrics.jsonl", "final/manifest.json"].map(|f| p.read(&format!("runs/old/{f}")));
    assert!(before == after);
    // Killed before its first checkpoint, it still goes on from those weights.
    let mut run = p.start("train --backend cpu --fork new --total-steps 1000000");
    run.wait_for("step 3/");
    run.kill();
    let ended = p.nanotern(&resume("new", "--total-steps 2"));
    assert!(ended.stderr.contains("resumed from new/step_0 (step 0)"), "{}", ended.stderr);
    // Its matrices may become their polar factors.
    let ended = p.nanotern("train --backend cpu --fork fire --fire --total-steps 1");
    assert!(ended.stderr.contains("replaced by its polar factor"), "{}", ended.stderr);
    let [old, new] = ["runs/old/final", "fire/step_0"].map(|dir| checkpoint::load(&p.path(dir)).unwrap().model);
    for (old, new) in old.iter().zip(&new) {
        let matrix = old.name.starts_with("layers.") && old.shape.len() == 2;
        assert_eq!(old.data != new.data, matrix, "{}", old.name);
    }
    // Other tensors of the same shapes are another tokenizer's.
    let ended =
        p.nanotern("train --backend cpu --resume runs/old --fork bpe --tokenizer bpe --vocab-size 262 --total-steps 1");
    assert!(ended.code == Some(0) && ended.stderr.contains("trained with another tokenizer"), "{}", ended.stderr);
}

/// What a change of a key does to a run that goes on.
enum Change {
    /// No run has it: files of others do.
    Untrained,
    Refused,
    /// Said, with this text.
    Said(&'static str),
    Silent,
}
use Change::{Refused, Said, Silent, Untrained};

/// Each key with another value than that of `config.toml`.
const KEYS: &[(&str, &str, Change)] = &[
    ("model.dim", "96", Refused),
    ("model.layers", "2", Refused),
    ("model.heads", "4", Refused),
    ("model.kv_heads", "2", Refused),
    ("model.ffn", "96", Refused),
    ("model.activation", "relu2", Refused),
    ("model.head_dim", "64", Refused),
    ("model.qk_norm", "true --set model.mtp=1", Refused),
    ("model.biases", "[\"ffn.up\"]", Refused),
    ("model.seq_len", "48", Refused),
    ("model.group_size", "64", Refused),
    ("model.scales", "tensor --set model.head_dim=64", Refused),
    ("model.dense", "[\"layers.0.ffn.down.weight\"]", Untrained),
    ("model.mhc_streams", "2", Refused),
    ("model.sub_norm", "false", Refused),
    ("model.tie_embeddings", "false", Refused),
    ("model.quantize", "none", Refused),
    ("model.embeddings", "f32", Refused),
    ("model.ternary_head", "true --set model.tie_embeddings=false", Refused),
    ("model.rope_theta", "100.0", Refused),
    ("model.rope_scaling", "{type=\"linear\",factor=2.0}", Refused),
    ("model.norm_eps", "0.01", Refused),
    ("model.mixers", "[\"attention\"]", Refused),
    ("model.ffns", "[\"gated\"]", Refused),
    ("model.mtp", "1", Refused),
    ("model.delta_net", "{conv_width=3}", Refused),
    ("model.loop", "{before=0,shared=1,times=2,after=0}", Refused),
    ("model.moe", "{experts=4}", Refused),
    ("data.dataset", "synthetic", Refused),
    ("data.path", "other.txt", Refused),
    // The whole text is then for training.
    ("data.val_path", "other.txt", Refused),
    // A limit that the tokenizer keeps.
    ("data.vocab_size", "300", Silent),
    ("data.tokenizer", "bpe", Refused),
    ("data.separate_documents", "true", Refused),
    // The text is no JSON and spells no special token.
    ("data.field", "body", Silent),
    ("data.special_tokens", "true", Silent),
    ("data.val_fraction", "0.3", Refused),
    // Of the synthetic text only.
    ("data.seed", "1", Silent),
    ("train.batch_size", "3", Said("a step has 96 tokens, not 64 as before")),
    ("train.grad_accum", "2", Said("a step has 128 tokens, not 64 as before")),
    ("train.seq_len", "16", Refused),
    ("train.total_steps", "9", Said("it then falls to 0 from step 5 to step 9, not from step 3 to step 6")),
    ("train.log_interval", "3", Silent),
    ("train.eval_interval", "2", Silent),
    ("train.eval_windows", "1", Said("validation losses after step 3 are of other windows")),
    ("train.checkpoint_interval", "2", Silent),
    ("train.keep_last_checkpoints", "1", Silent),
    ("train.recompute", "true", Silent),
    ("train.precision", "fast", Said("train.precision = \"fast\" (was \"exact\")")),
    ("train.mtp_weight", "0.1", Said("train.mtp_weight = 0.1 (was 0.3)")),
    ("train.entropy_weight", "0.1", Said("train.entropy_weight = 0.1 (was 0)")),
    ("train.token_filter", "0.35", Said("train.token_filter = 0.35 (was 0)")),
    ("train.seed", "1", Refused),
    ("optim.muon_lr", "0.01", Said("the learning rate of Muon falls from 2.0e-2 to 1.0e-2 after step 3")),
    ("optim.muon_momentum", "0.5", Said("optim.muon_momentum = 0.5 (was 0.95)")),
    ("optim.muon_steps", "2", Said("optim.muon_steps = 2 (was 3)")),
    ("optim.aux", "lion", Refused),
    ("optim.aux_lr", "0.001", Said("the learning rate of AdamW falls from 3.0e-3 to 1.0e-3 after step 3")),
    ("optim.state", "int8", Refused),
    ("optim.weight_decay", "0.1", Said("optim.weight_decay = 0.1 (was 0)")),
    ("optim.clip", "0.5", Said("optim.clip = 0.5 (was 1)")),
    ("optim.outlier_factor", "30.0", Said("optim.outlier_factor = 30 (was 20)")),
    ("optim.warmup_steps", "10", Said("the learning rate of Muon falls from 2.0e-2 to 8.0e-3 after step 3")),
    ("optim.decay_fraction", "0.1", Said("it then falls to 0 from step 5 to step 6, not from step 3")),
];

/// The keys of a section: an unknown one is refused with a list of those that exist.
fn keys(section: &str) -> Vec<String> {
    let message = toml::from_str::<Config>(&format!("{section}.x = 0")).unwrap_err().message().to_string();
    let names = message.split('`').skip(1).step_by(2).filter(|name| *name != "x");
    names.map(|name| format!("{section}.{name}")).collect()
}

#[test]
fn every_key_at_resume() {
    let all: BTreeSet<String> = ["model", "data", "train", "optim"].iter().flat_map(|section| keys(section)).collect();
    let listed: BTreeSet<String> = KEYS.iter().map(|(key, ..)| key.to_string()).collect();
    assert_eq!(listed, all, "keys of this test and keys of the configuration");

    let p = Project::new();
    p.write("other.txt", "Nothing here is as it is in the other text, not one line of it. ".repeat(300));
    p.train("whole", "--total-steps 6 --checkpoint-interval 3 --set model.mixers=[\"delta_net\"]");
    std::fs::remove_dir_all(p.path("whole/final")).unwrap();
    for (key, value, change) in KEYS {
        for name in ["run", "run/step_3"] {
            std::fs::create_dir_all(p.path(name)).unwrap();
        }
        for entry in ["", "step_3"].iter().flat_map(|dir| p.path("whole").join(dir).read_dir().unwrap()) {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::copy(&path, p.path("run").join(path.strip_prefix(p.path("whole")).unwrap())).unwrap();
            }
        }
        let before = p.read("run/config.toml");
        let value = if key.ends_with("path") { p.path(value).display().to_string() } else { value.to_string() };
        let ended = p.nanotern(&resume("run", &format!("--threads 1 --set {key}={value}")));
        let (code, err) = (ended.code, &ended.stderr);
        match change {
            Untrained => assert!(code == Some(2) && err.contains("trained"), "{key}: {err}"),
            Refused => {
                assert!(code == Some(2) && err.contains(key) && err.contains("--fork NEWDIR"), "{key}: {err}");
                assert!(p.read("run/config.toml") == before, "{key}: refused, and changed");
            }
            Said(text) => {
                assert!(code == Some(0) && err.contains(key) | err.contains(text) && err.contains(text), "{key}: {err}")
            }
            Silent => {
                let said = ["after step", "not", "was"].iter().any(|word| err.contains(word));
                assert!(code == Some(0) && !said, "{key}: {err}");
            }
        }
        std::fs::remove_dir_all(p.path("run")).unwrap();
    }
}

#[test]
fn data_that_moved_is_the_same_data() {
    let p = Project::new();
    p.write("bpe.json", nanotern::tokenizer::Tokenizer::bytes().to_json());
    p.train("run", "--total-steps 4 --tokenizer bpe.json");
    std::fs::rename(p.path("text.txt"), p.path("moved.txt")).unwrap();
    std::fs::rename(p.path("bpe.json"), p.path("moved.json")).unwrap();
    let ended = p.nanotern(&resume("run", "--total-steps 5 --data-path moved.txt --tokenizer moved.json"));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // Another validation text is said.
    p.train("own", "--total-steps 4 --data-path moved.txt --val-data-path moved.txt");
    p.write("other.txt", "Nothing here is as it is in the other text, not one line of it. ".repeat(300));
    let ended = p.nanotern(&resume("own", "--total-steps 5 --val-data-path other.txt"));
    let said = ended.stderr.contains("validation losses after step 4 are of other windows");
    assert!(ended.code == Some(0) && said, "{}", ended.stderr);
}

#[test]
fn another_level_is_said() {
    let p = Project::new();
    p.train("run", "--total-steps 2 --cpu-level scalar");
    let ended = p.nanotern(&resume("run", "--total-steps 3 --cpu-level scalar"));
    assert!(ended.code == Some(0) && !ended.stderr.contains("differently"), "{}", ended.stderr);
    let best = nanotern::backend::Level::detect();
    let ended = p.nanotern(&resume("run", "--total-steps 4"));
    let line = format!("steps so far ran on cpu (scalar); on cpu ({best}) they may round differently");
    assert_eq!(ended.stderr.contains(&line), best != nanotern::backend::Level::Scalar, "{}", ended.stderr);
}

#[test]
fn a_directory_has_one_trainer() {
    let p = Project::new();
    let mut first = p.start(&fresh("run", "--total-steps 1000000"));
    first.wait_for("step 3/");
    for words in [fresh("run", ""), resume("run", "")] {
        let second = p.nanotern(&words);
        assert_eq!(second.code, Some(1), "{}", second.stderr);
        let holder = format!("process {} is already training in this directory", first.child.id());
        assert!(second.stderr.contains(&holder), "{}", second.stderr);
    }
    let last = p.metrics("run").last().unwrap()["step"].as_u64().unwrap();
    first.wait_for(&format!("step {}/", last + 20));
    first.kill();
}
