//! The files of a run, the effect of each configuration key, skipped steps, and the commands around training.
#![cfg(feature = "cli")]

mod common;

use common::cli::{Project, fresh, resume};
use nanotern::train::Config;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn keys(record: &Value) -> Vec<&str> {
    record.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Bytes of the end of `text.txt` that are held back: a tenth, from the line end that is nearest.
fn bytes_held_back(p: &Project) -> usize {
    let text = String::from_utf8(p.read("text.txt")).unwrap();
    let target = text.len() * 9 / 10;
    let ends = text.match_indices('\n').map(|(i, _)| i + 1);
    text.len() - ends.min_by_key(|i| i.abs_diff(target)).unwrap()
}

#[test]
fn files_of_a_run() {
    let p = Project::new();
    p.train(
        "run",
        "--total-steps 9 --log-interval 4 --eval-interval 6 --checkpoint-interval 2 --keep-last-checkpoints 2",
    );
    assert_eq!(p.checkpoints("run"), ["final", "step_6", "step_8"]);
    let metrics = p.metrics("run");
    let (train, val): (Vec<_>, Vec<_>) = metrics.iter().partition(|r| r.get("loss").is_some());
    let steps = |records: &[&Value]| records.iter().map(|r| r["step"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!((steps(&train), steps(&val)), (vec![1, 4, 8, 9], vec![6, 9]));
    for record in &train {
        assert_eq!(keys(record), ["grad_norm", "loss", "lr", "step", "tok_per_s", "tokens"]);
    }
    for record in &val {
        assert_eq!(keys(record), ["step", "tokens", "val_bits_per_byte", "val_loss"]);
        // In the byte tokenizer each token is one byte, but for the end of the document.
        let bytes = bytes_held_back(&p) as f64;
        let [nats, bits] = ["val_loss", "val_bits_per_byte"].map(|k| record[k].as_f64().unwrap());
        assert!(
            (nats / std::f64::consts::LN_2 * (bytes + 1.0) / bytes - bits).abs() < 1e-9,
            "{nats} nats, {bits} bits"
        );
    }
    let meta = p.meta("run/final");
    assert_eq!((&meta["step"], &meta["tokens"], &meta["data_cursor"]), (&9.into(), &(9 * 64).into(), &18.into()));
    let plot = String::from_utf8(p.read("run/loss.svg")).unwrap();
    assert!(plot.trim_start().starts_with("<svg") && plot.trim_end().ends_with("</svg>"), "{plot}");
    assert_eq!(plot.matches('<').count(), plot.matches('>').count());
    let names = p.path("run").read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let events: Vec<String> = names.filter(|n| n.starts_with("events.out.tfevents.")).collect();
    let [events] = &events[..] else { panic!("{events:?}") };
    let events = p.read(&format!("run/{events}"));
    for tag in ["train/loss", "train/lr", "train/grad_norm", "train/tok_per_s", "val/loss", "val/bits_per_byte"] {
        assert!(events.windows(tag.len()).any(|w| w == tag.as_bytes()), "no {tag} among the events");
    }

    p.ok("train --config run/config.toml --backend cpu --checkpoint-dir again");
    assert!(p.read("run/config.toml") == p.read("again/config.toml"));
    p.assert_same("run", "again");
    // Resuming a completed run changes nothing.
    p.ok(&resume("run", ""));
    assert_eq!(p.metrics("run"), metrics);
    p.assert_same("run", "again");
}

/// The observable results of a run: weights, log, memory, checkpoints.
#[derive(PartialEq)]
struct Observed {
    model: Vec<u8>,
    metrics: Vec<Value>,
    memory: String,
    checkpoints: Vec<String>,
}

fn observe(p: &Project, dir: &str, words: &str) -> Observed {
    let ended = p.nanotern(&fresh(dir, words));
    assert_eq!(ended.code, Some(0), "{words}:\n{}", ended.stderr);
    Observed {
        model: p.read(&format!("{dir}/final/model.safetensors")),
        metrics: p.exact_metrics(dir),
        memory: ended.stderr.lines().find(|l| l.starts_with("model")).unwrap().to_string(),
        checkpoints: p.checkpoints(dir),
    }
}

/// A model with experts.
const MOE: &str = "--set model.layers=2 --set model.moe={}";

/// Each key with a different value, and the other keys that it needs to have an effect.
const KEYS: &[(&str, &str, &str)] = &[
    ("model.dim", "96", ""),
    ("model.layers", "2", ""),
    ("model.heads", "4", ""),
    ("model.kv_heads", "2", ""),
    ("model.ffn", "96", ""),
    ("model.seq_len", "48", ""),
    ("model.group_size", "64", ""),
    ("model.scales", "tensor", "--set model.head_dim=64"),
    ("train.seq_len", "16", ""),
    ("model.activation", "relu2", ""),
    ("model.head_dim", "16", ""),
    ("model.mhc_streams", "2", ""),
    ("model.sub_norm", "false", ""),
    ("model.qk_norm", "true", ""),
    ("model.biases", "[\"attn.q\"]", ""),
    ("model.tie_embeddings", "false", ""),
    ("model.quantize", "none", ""),
    ("model.embeddings", "f32", ""),
    ("model.ternary_head", "true", "--set model.tie_embeddings=false"),
    ("model.rope_theta", "100.0", ""),
    ("model.norm_eps", "0.01", ""),
    ("model.moe.experts", "4", MOE),
    ("model.moe.active", "1", MOE),
    ("model.moe.width", "32", MOE),
    ("model.moe.shared", "32", MOE),
    ("model.moe.from", "1", MOE),
    ("model.moe.bias_rate", "0.5", MOE),
    ("model.moe.balance_loss", "0.1", MOE),
    ("data.dataset", "synthetic", ""),
    ("data.path", "other.txt", ""),
    ("data.val_path", "other.txt", ""),
    ("data.vocab_size", "275", "--tokenizer bpe --vocab-size 270"),
    ("data.tokenizer", "bpe", "--vocab-size 300"),
    ("data.val_fraction", "0.3", ""),
    ("data.field", "other", "--data-path lines.jsonl"),
    ("data.special_tokens", "true", "--data-path marked.txt"),
    ("data.separate_documents", "true", "--data-path lines.jsonl"),
    ("data.seed", "1", "--dataset synthetic"),
    ("train.batch_size", "3", ""),
    ("train.grad_accum", "2", ""),
    ("train.total_steps", "5", ""),
    ("train.log_interval", "3", ""),
    ("train.eval_interval", "2", ""),
    ("train.eval_windows", "1", ""),
    ("train.checkpoint_interval", "2", ""),
    ("train.keep_last_checkpoints", "1", "--checkpoint-interval 2"),
    ("train.recompute", "true", "--set model.layers=2"),
    ("train.precision", "fast", ""),
    ("train.mtp_weight", "0.5", "--set model.mtp=1"),
    ("train.entropy_weight", "0.1", ""),
    ("train.token_filter", "0.35", ""),
    ("train.seed", "1", ""),
    ("optim.muon_lr", "0.01", ""),
    ("optim.muon_momentum", "0.5", ""),
    ("optim.muon_steps", "2", ""),
    ("optim.aux", "lion", ""),
    ("optim.aux_lr", "0.001", ""),
    ("optim.state", "int8", ""),
    ("optim.weight_decay", "0.1", ""),
    ("optim.clip", "0.001", ""),
    ("optim.outlier_factor", "0.001", "--total-steps 24"),
    ("optim.warmup_steps", "4", ""),
    ("optim.decay_fraction", "0.1", ""),
];

#[test]
fn every_key_does_something() {
    let mut all = Config::default();
    (all.data.path, all.data.val_path) = (Some("p".into()), Some("p".into()));
    all.data.vocab_size = Some(1);
    all.model.moe = Some(nanotern::model::MoeOptions::default());
    (all.model.activation, all.model.head_dim) = (nanotern::ops::Activation::Relu2, Some(32));
    (all.model.qk_norm, all.model.biases) = (true, vec!["attn.q".into()]);
    (all.model.scales, all.train.seq_len) = (nanotern::model::Scales::Tensor, Some(16));
    let table = toml::Table::try_from(&all).unwrap();
    let keys = |section: &str, table: &toml::Table| -> Vec<String> {
        table.keys().map(|key| format!("{section}.{key}")).filter(|key| key != "model.moe").collect()
    };
    let moe = keys("model.moe", table["model"]["moe"].as_table().unwrap());
    let sections = table.iter().flat_map(|(s, table)| keys(s, table.as_table().unwrap())).chain(moe);
    let listed: BTreeSet<String> = KEYS.iter().map(|(key, ..)| key.to_string()).collect();
    assert_eq!(listed, sections.collect(), "keys of this test and keys of the configuration");

    let p = Project::new();
    p.write("other.txt", "Nothing here is as it is in the other text, not one line of it. ".repeat(300));
    p.write("lines.jsonl", "{\"text\": \"a text of one kind\", \"other\": \"this is of another\"}\n".repeat(40));
    p.write("marked.txt", "A line with <|user|> in it.\n".repeat(60));
    let mut plain: BTreeMap<&str, Observed> = BTreeMap::new();
    for (i, (key, value, base)) in KEYS.iter().enumerate() {
        let base = &format!("--total-steps 6 {base}");
        // A later flag takes precedence only among --set, so total_steps is set once.
        let base = if base.matches("--total-steps").count() > 1 { &base["--total-steps 6 ".len()..] } else { base };
        let value = if key.ends_with("path") { p.path(value).display().to_string() } else { value.to_string() };
        let changed = observe(&p, &format!("changed{i}"), &format!("{base} --set {key}={value}"));
        let plain = plain.entry(KEYS[i].2).or_insert_with(|| observe(&p, &format!("plain{i}"), base));
        assert!(changed != *plain, "{key} = {value} changes nothing");
        if *key == "train.recompute" {
            assert!(changed.model == plain.model && changed.memory != plain.memory);
        }
    }
}

#[test]
fn precedence_is_flag_environment_file_preset() {
    let p = Project::new();
    let steps = |words: &str, environment: Option<&str>, dir: &str| {
        let mut command = p.command(&fresh(dir, words));
        command.envs(environment.map(|n| ("NANOTERN_TOTAL_STEPS", n)));
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        p.meta(&format!("{dir}/final"))["step"].as_u64().unwrap()
    };
    assert_eq!(steps("", None, "file"), 12);
    assert_eq!(steps("", Some("3"), "environment"), 3);
    assert_eq!(steps("--total-steps 2", Some("3"), "flag"), 2);
    assert_eq!(p.meta("file/final")["config"]["optim"]["muon_steps"], 3, "the preset's");
}

#[test]
fn a_step_that_is_not_finite_changes_nothing() {
    let p = Project::new();
    p.train("run", "--total-steps 4");
    p.spoil("run", "final");
    let weights = p.read("run/final/model.safetensors");
    p.ok(&resume("run", "--total-steps 7"));
    assert!(p.read("run/final/model.safetensors") == weights, "a skipped step changed weights");
    assert_eq!(p.meta("run/final")["skipped_steps"], 3);
    for record in p.metrics("run").iter().filter(|r| r.get("lr").is_some()) {
        let skipped = record["step"].as_u64().unwrap() > 4;
        assert!(record["loss"].is_null() == skipped && record.get("skipped").is_some() == skipped, "{record}");
    }
}

#[test]
fn steps_that_stay_unusable_end_the_run() {
    let p = Project::new();
    let ended = p.nanotern(&fresh("run", "--total-steps 40 --lr 1e30"));
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for part in ["a step was skipped: loss NaN", "8 steps in a row", "no checkpoint", "lower the learning rates"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    assert!(p.metrics("run").iter().any(|r| r["skipped"] == true));

    p.train("spoilt", "--total-steps 4");
    p.spoil("spoilt", "final");
    let ended = p.nanotern(&resume("spoilt", "--total-steps 100"));
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("rolled back to spoilt/final (step 4)").count(), 1, "{}", ended.stderr);
    assert_eq!(p.checkpoints("spoilt"), ["final"]);
}

#[test]
fn an_outlier_is_skipped_and_logged() {
    let p = Project::new();
    // Every norm exceeds a thousandth of the mean; the limit applies from step 21 on.
    let ended = p.nanotern(&fresh("run", "--total-steps 40 --checkpoint-interval 10 --set optim.outlier_factor=0.001"));
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for step in [20, 10] {
        let back = format!("rolled back to run/step_{step}");
        assert_eq!(ended.stderr.matches(&back).count(), 1, "{}", ended.stderr);
    }
    let metrics = p.metrics("run");
    let steps: Vec<u64> = metrics.iter().map(|r| r["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=28).collect::<Vec<_>>());
    for (record, step) in metrics.iter().zip(steps) {
        assert!(record["loss"].is_number() && (record["skipped"] == true) == (step > 20), "{record}");
    }
}

#[test]
fn inspect_shows_a_checkpoint_or_what_is_wrong_with_it() {
    let p = Project::new();
    p.train("run", "--total-steps 3");
    let text = p.ok("inspect run/final");
    for part in ["run/final (intact)", "step        3 (192 tokens, 0 skipped)", "parameters  41664", "embed.weight"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let json: Value = serde_json::from_str(&p.ok("inspect run/final --json")).unwrap();
    assert_eq!((&json["parameters"], &json["meta"]["step"]), (&41664.into(), &3.into()));
    assert_eq!(json["tensors"]["embed.weight"], serde_json::json!([262, 64]));

    let mut bytes = p.read("run/final/model.safetensors");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    p.write("run/final/model.safetensors", bytes);
    for (path, parts) in [
        ("run/final", &["run/final/model.safetensors", "checksum"][..]),
        ("nothing", &["nothing", "No such file"]),
        ("text.txt", &["text.txt"]),
    ] {
        let ended = p.nanotern(&format!("inspect {path}"));
        assert_eq!(ended.code, Some(1), "{path}");
        assert!(parts.iter().all(|part| ended.stderr.contains(part)), "{}", ended.stderr);
    }
}

#[test]
fn commands_around_training() {
    let p = Project::new();
    let devices: Value = serde_json::from_str(&p.ok("devices --json")).unwrap();
    assert!(devices.as_array().unwrap().iter().any(|d| d["backend"] == "cpu"), "{devices}");
    let report: Value = serde_json::from_str(&p.ok("doctor --json")).unwrap();
    assert!(report.as_array().unwrap().iter().all(|d| d["ok"] == true), "{report}");
    assert!(p.ok("completions bash").contains("_nanotern"));
    let bench = p.ok("bench train-step --config config.toml --backend cpu --steps 2 --json");
    let bench: Value = serde_json::from_str(&bench).unwrap();
    assert!(bench["tok_per_s"].as_f64().unwrap() > 0.0 && bench["seconds"].as_array().unwrap().len() == 2, "{bench}");
    assert!(p.ok("bench train-step --config config.toml --backend cpu --steps 1 --profile").contains("ternary_matmul"));
}

#[test]
#[cfg(unix)]
fn a_reader_that_leaves_is_no_error() {
    let p = Project::new();
    p.train("run", "--total-steps 3");
    for words in ["inspect run/final", "completions bash", "data prepare --input text.txt --output d --tokenizer bytes"]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let out = p.command(words).stdout(writer).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stderr), "", "{words}");
    }
    // Training continues without a reader.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = p.command(&fresh("unread", "--total-steps 3")).stderr(writer).status().unwrap();
    assert!(status.success());
    p.assert_same("run", "unread");
}

#[test]
fn prepared_tokens_train_as_the_text_does() {
    let p = Project::new();
    assert!(
        p.ok("tokenizer train --input text.txt --vocab-size 270 --output bpe.json").contains("bpe.json: 270 tokens")
    );
    assert!(p.ok("data prepare --input text.txt --output data --tokenizer bpe.json").contains("data/train.bin"));
    let tokens = "--dataset tokens --data-path data/train.bin --val-data-path data/val.bin --tokenizer bpe.json";
    p.train("tokens", tokens);
    p.train("text", "--tokenizer bpe.json");
    p.assert_same("tokens", "text");
    assert_eq!(p.exact_metrics("tokens"), p.exact_metrics("text"));
}

#[test]
fn bits_per_byte_are_those_of_an_evaluation() {
    let p = Project::new();
    std::fs::create_dir(p.path("val")).unwrap();
    let text = String::from_utf8(p.read("text.txt")).unwrap();
    p.write("val/a.txt", &text[..3000]);
    p.write("val/b.jsonl", "{\"text\": \"a <|user|> line of ümlauts\"}\n".repeat(70));
    p.write("val/c.png", b"\x89PNG\0");
    for (dir, words, special) in [
        ("bytes", "--tokenizer bytes", ""),
        ("bpe", "--tokenizer bpe --vocab-size 300", ""),
        ("special", "--tokenizer bytes --set data.special_tokens=true", "--special-tokens"),
    ] {
        let words = format!("{words} --val-data-path val --set train.eval_windows=999999 --total-steps 3");
        let ended = p.nanotern(&fresh(dir, &words));
        assert!(ended.stderr.contains("71 documents") && ended.stderr.contains("c.png"), "{}", ended.stderr);
        let trained = p.metrics(dir).last().unwrap()["val_bits_per_byte"].as_f64().unwrap();
        let json = p.ok(&format!("eval perplexity --model {dir} --backend cpu --data-path val --json {special}"));
        let json: Value = serde_json::from_str(&json).unwrap();
        let bits = json["bits_per_byte"].as_f64().unwrap();
        assert!((bits - trained).abs() < 1e-5 * bits, "{dir}: {bits}, {trained} in training");
    }
}

#[test]
fn other_data_do_not_keep_the_validation_data_of_the_file() {
    let p = Project::new();
    p.write("other.txt", "Other words are here, and here again. ".repeat(99));
    let with_val =
        String::from_utf8(p.read("config.toml")).unwrap().replace("[train]", "val_path = \"text.txt\"\n[train]");
    p.write("val.toml", with_val);
    let run = |dir: &str, words: &str| {
        let ended = p
            .nanotern(&format!("train --config val.toml --backend cpu --total-steps 1 --checkpoint-dir {dir} {words}"));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let kept = ended.stderr.contains("validation documents are those of");
        let said = ended.stderr.contains("text.txt is of other data and not used");
        assert_eq!(kept, p.meta(&format!("{dir}/final"))["config"]["data"]["val_path"].is_string());
        (kept, said)
    };
    assert_eq!(run("as-it-is", ""), (true, false));
    assert_eq!(run("same", "--data-path text.txt"), (true, false));
    assert_eq!(run("other", "--data-path other.txt"), (false, true));
    assert_eq!(run("set", &format!("--set data.path={}", p.path("other.txt").display())), (false, true));
    assert_eq!(run("dataset", "--dataset synthetic --vocab-size 300"), (false, true));
    assert_eq!(run("both", "--data-path other.txt --val-data-path other.txt"), (true, false));
}

#[test]
fn a_newcomer_needs_no_arguments() {
    let p = Project::new();
    p.ok("train --total-steps 3 --backend cpu");
    let runs: Vec<_> = p.path("runs").read_dir().unwrap().map(|e| e.unwrap().path()).collect();
    let [run] = &runs[..] else { panic!("{runs:?}") };
    let name = format!("runs/{}", run.file_name().unwrap().display());
    let losses: Vec<f64> = p.metrics(&name).iter().filter_map(|r| r["loss"].as_f64()).collect();
    assert!(losses.len() == 2 && losses[1] < losses[0], "{losses:?}");
    // The newest run is found.
    let ended = p.nanotern("train --resume --tokenizer bytes --backend cpu");
    assert!(ended.stderr.contains(&format!("{name}/final was trained with another tokenizer")), "{}", ended.stderr);
    p.train("runs/newer", "--total-steps 3");
    let ended = p.nanotern("train --resume --total-steps 4 --backend cpu");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("resumed from runs/newer/final (step 3)"), "{}", ended.stderr);
    assert_eq!(p.meta("runs/newer/final")["step"], 4);
}
