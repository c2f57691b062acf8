//! User errors: each ends with an exit code and a message that names the thing and the limit.
#![cfg(feature = "cli")]

mod common;

use common::cli::{Project, fresh, resume};

/// Runs `words`, which must fail with `code` and a message that contains each of `parts`.
fn fails(p: &Project, words: &str, code: i32, parts: &[&str]) {
    let ended = p.nanotern(words);
    assert_eq!(ended.code, Some(code), "{words}:\n{}", ended.stderr);
    for part in parts {
        assert!(ended.stderr.contains(part), "{words}: {part:?} is not in\n{}", ended.stderr);
    }
}

#[test]
fn configurations_that_cannot_be() {
    let p = Project::new();
    p.write("unknown.toml", "[model]\ndim = 64\nwidth = 3\n");
    p.write("broken.toml", "[model\n");
    p.write("type.toml", "[model]\ndim = \"wide\"\n");
    for (words, parts) in [
        ("--config nano-1t", &["nano-1t", "no such preset", "tiny, d20"][..]),
        ("--config missing.toml", &["missing.toml", "no such file"]),
        ("--config unknown.toml", &["unknown.toml", "unknown field `width`", "`dim`"]),
        ("--config type.toml", &["type.toml", "\"wide\"", "model.dim"]),
        ("--set optim.lr=1", &["unknown field `lr`", "muon_lr", "optim"]),
        ("--set data.size=1", &["unknown field `size`", "vocab_size"]),
        ("--set network.dim=1", &["unknown field `network`", "`model`"]),
        ("--set dim=64", &["dim", "section.key"]),
        ("--set model.dim", &["--set model.dim", "section.key=value"]),
        ("--set model.dim=wide", &["\"wide\"", "model.dim"]),
        ("--set model.sub_norm=1", &["model.sub_norm", "boolean"]),
        ("--set model.quantize=int4", &["int4", "`ternary`", "`none`"]),
        ("--set optim.aux=sgd", &["sgd", "`adamw`", "`lion`"]),
        ("--set train.total_steps=2.5", &["2.5", "train.total_steps"]),
        ("--total-steps=-3", &["-3", "train.total_steps"]),
        ("--total-steps 0", &["total_steps = 0", "between 1 and"]),
        ("--total-steps many", &["--total-steps", "many"]),
        ("--batch-size 0", &["batch_size = 0", "65536"]),
        ("--batch-size 60000 --seq-len 60000", &["batch_size = 60000", "seq_len = 60000", "2147483648", "grad_accum"]),
        ("--grad-accum 0", &["grad_accum = 0"]),
        ("--log-interval 0", &["log_interval = 0"]),
        ("--set train.eval_windows=0", &["eval_windows = 0"]),
        ("--lr nan", &["muon_lr = NaN", "at least 0"]),
        ("--lr=-1", &["muon_lr = -1"]),
        ("--set optim.muon_momentum=1.0", &["muon_momentum = 1"]),
        ("--set optim.muon_steps=0", &["muon_steps = 0"]),
        ("--set optim.decay_fraction=2.0", &["decay_fraction = 2", "between 0 and 1"]),
        ("--set model.dim=100", &["dim / heads = 100 / 2", "multiple of 4"]),
        ("--set model.dim=66 --set model.heads=4", &["dim / heads = 66 / 4", "multiple of 4"]),
        ("--set model.heads=3 --set model.dim=96", &["heads = 3", "kv_heads = 2"]),
        ("--set model.group_size=48", &["group_size = 48", "multiple of 32"]),
        ("--set model.mhc_streams=3", &["mhc_streams = 3", "1, 2 or 4"]),
        ("--set model.layers=0", &["layers = 0", "256"]),
        ("--set model.ternary_head=true", &["ternary_head", "tie_embeddings"]),
        ("--set model.rope_theta=0.5", &["rope_theta = 0.5"]),
        ("--seq-len 100000", &["seq_len = 100000", "65536"]),
    ] {
        let base = if words.starts_with("--config") { "train" } else { "train --config config.toml" };
        fails(&p, &format!("{base} --set model.kv_heads=2 {words} --backend cpu"), 2, parts);
    }
    fails(&p, "train --config broken.toml", 1, &["broken.toml", "line 1"]);
    assert!(!p.path("runs").exists(), "a refused run leaves nothing behind");
    let giant =
        "train --config config.toml --backend cpu --set model.dim=16384 --set model.heads=128 --set model.ffn=65536";
    fails(&p, &format!("{giant} --set model.layers=256"), 1, &["MiB of memory", "are free", "smaller batch or model"]);
}

#[test]
fn data_that_cannot_be() {
    let p = Project::new();
    p.write("short.txt", "only a few words");
    p.write("empty.txt", "");
    p.write("latin.txt", b"caf\xe9".repeat(100));
    p.write("odd.bin", [1; 401]);
    p.write("large.bin", 1000u32.to_le_bytes().repeat(100));
    p.write("val.txt", "fewer than 33 tokens");
    for (words, code, parts) in [
        ("--vocab-size 100", 2, &["vocab_size is 100", "`bytes` has 262 tokens"][..]),
        ("--tokenizer bpe --vocab-size 3", 2, &["3", "256"]),
        ("--tokenizer missing.json", 1, &["missing.json"]),
        ("--tokenizer text.txt", 1, &["text.txt"]),
        ("--data-path missing.txt", 1, &["missing.txt", "No such file"]),
        ("--data-path short.txt", 2, &["15 tokens", "sequence length 32 needs 33"]),
        ("--data-path empty.txt", 1, &["empty.txt", "empty"]),
        ("--data-path latin.txt", 1, &["latin.txt", "UTF-8", "offset 3"]),
        ("--data-path odd.bin", 1, &["odd.bin", "multiple of 4"]),
        ("--data-path large.bin --vocab-size 300", 1, &["large.bin", "1000", "300"]),
        ("--data-path large.bin --vocab-size 40000000", 2, &["40000000", "at most 33554432", "dim = 64"]),
        ("--val-data-path val.txt", 2, &["21 validation tokens", "33"]),
        ("--val-data-path missing.txt", 1, &["missing.txt"]),
        ("--dataset tokens --set data.path=x.bin", 1, &["x.bin"]),
        ("--dataset web", 2, &["web", "`synthetic`"]),
        ("--set data.val_fraction=1.0", 2, &["val_fraction is 1", "below 1"]),
        ("--set data.separate_documents=true", 2, &["data.separate_documents", "text.txt"]),
    ] {
        fails(&p, &fresh("run", words), code, parts);
    }
    p.write("none.toml", "[data]\ndataset = \"text\"\n");
    fails(&p, "train --config none.toml --backend cpu", 2, &["`text`", "--data-path"]);
    assert!(!p.path("run").exists() && !p.path("runs").exists(), "a refused run leaves nothing behind");
}

#[test]
fn devices_that_cannot_be() {
    let p = Project::new();
    for (words, code, parts) in [
        ("--backend nonsense", 2, &["--backend nonsense", "auto, cpu, wgpu or cuda"][..]),
        #[cfg(not(feature = "cuda"))]
        ("--backend cuda", 2, &["built without CUDA", "cargo build --release --features cuda"]),
        ("--backend cpu --adapter llvmpipe", 2, &["--adapter", "NANOTERN_ADAPTER", "the backend is cpu"]),
        ("--backend wgpu --threads 2", 2, &["--threads", "the backend is wgpu"]),
        ("--backend wgpu --cpu-level scalar", 2, &["--cpu-level", "the backend is wgpu"]),
        #[cfg(feature = "cuda")]
        ("--backend cuda --threads 2", 2, &["--threads", "the backend is cuda"]),
        ("--backend auto --adapter 0 --threads 2", 2, &["--threads", "the backend is wgpu"]),
        ("--cpu-level avx1024", 2, &["avx1024", "scalar, avx2, avx512"]),
        ("--threads 0", 2, &["0 threads", "between 1 and 1024"]),
        ("--threads 5000", 2, &["5000 threads", "1024"]),
        ("--threads two", 2, &["--threads", "two"]),
    ] {
        let backend = if words.contains("--backend") { "" } else { "--backend cpu" };
        fails(&p, &format!("train --config config.toml {backend} {words}"), code, parts);
    }
    // If an adapter is named, `auto` does not fall back to the CPU.
    for backend in ["wgpu", "auto"] {
        let words = format!("train --config config.toml --backend {backend} --adapter no-such-card");
        if nanotern::backend::adapters().is_empty() {
            fails(&p, &words, 1, &["--backend cpu"]);
        } else {
            fails(&p, &words, 2, &["--adapter no-such-card"]);
        }
    }
    assert!(!p.path("runs").exists(), "a refused run leaves nothing behind");
}

#[test]
fn runs_that_cannot_be_taken_up() {
    let p = Project::new();
    fails(&p, "train --resume", 2, &["no run in runs", "nanotern train"]);
    std::fs::create_dir(p.path("empty")).unwrap();
    fails(&p, &resume("empty", ""), 2, &["empty is not a run", "config.toml"]);
    fails(&p, &resume("nowhere", ""), 2, &["nowhere is not a run"]);
    assert!(!p.path("nowhere").exists() && p.path("empty").read_dir().unwrap().next().is_none());

    p.train("run", "--total-steps 6");
    let saved = || ["config.toml", "metrics.jsonl", "final/model.safetensors"].map(|f| p.read(&format!("run/{f}")));
    let before = saved();
    p.write("other.txt", "Another text, in which nothing is as it was. ".repeat(40));
    for (words, parts) in [
        (fresh("run", ""), &["run already contains a run", "--resume"][..]),
        (resume("run", "--total-steps 4"), &["total_steps = 4", "6 steps"]),
        (resume("run", "--set model.dim=128"), &["embed.weight", "[262, 64]", "[262, 128]"]),
        (resume("run", "--set model.layers=2"), &["layers.1.", "lacks"]),
        (resume("run", "--set model.mhc_streams=2"), &["mhc", "lacks"]),
        (resume("run", "--set optim.aux=lion"), &["optimizer has a tensor", ".v"]),
        (resume("run", "--checkpoint-dir other"), &["--resume run", "--checkpoint-dir other", "one of them"]),
        (resume("run", "--seed 7"), &["seed 0, not 7"]),
        (resume("run", "--data-path other.txt"), &["data that differs from other.txt"]),
        (resume("run", "--tokenizer bpe --vocab-size 262"), &["another tokenizer"]),
    ] {
        fails(&p, &words, 2, parts);
        assert!(saved() == before, "{words}: a refused run was changed");
    }
    std::fs::remove_dir_all(p.path("run/final")).unwrap();
    std::fs::create_dir(p.path("run/step_4")).unwrap();
    fails(&p, &resume("run", ""), 1, &["no valid checkpoint", "step_4"]);
}

#[test]
fn places_that_cannot_be_written() {
    let p = Project::new();
    fails(&p, &fresh("text.txt", ""), 1, &["text.txt"]);
    fails(&p, &fresh("text.txt/run", ""), 1, &["text.txt/run"]);
    if cfg!(target_os = "linux") {
        fails(&p, &fresh("/proc/run", ""), 1, &["/proc/run"]);
    }
    // A save fails half-way through a run because a file has the name of the checkpoint.
    std::fs::create_dir(p.path("run")).unwrap();
    p.write("run/.tmp-step_4", "");
    let words = "--total-steps 6 --checkpoint-interval 2";
    fails(&p, &fresh("run", words), 1, &["run/step_4 not saved", "kept: step_2"]);
    p.ok(&resume("run", "--checkpoint-interval 0"));
    p.train("whole", "--total-steps 6");
    p.assert_same("whole", "run");
}
