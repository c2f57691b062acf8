//! `train --init`: a model is trained further, whatever file it came in.
#![cfg(feature = "cli")]

mod common;

use common::cli::Project;
use nanotern::checkpoint::step_name;
use nanotern::formats::{Format, ModelFile};

/// A run in `first`, and its model in `model.gguf`.
fn trained() -> Project {
    let project = Project::new();
    project.ok("train --backend cpu --config config.toml --checkpoint-dir first");
    project.ok("export --checkpoint first --output model.gguf");
    project
}

const DATA: &str = "--backend cpu --data-path text.txt --batch-size 2 --set train.eval_interval=0";

#[test]
fn a_run_begins_with_the_model_bit_for_bit() {
    let project = trained();
    let model = ModelFile::open(&project.path("model.gguf")).unwrap();
    for (from, to) in [("model.gguf", "a"), ("first", "b"), ("first/final", "c")] {
        let seen = project.nanotern(&format!("train --init {from} {DATA} --total-steps 1 --checkpoint-dir {to}"));
        assert_eq!(seen.code, Some(0), "{}", seen.stderr);
        assert!(seen.stderr.contains(&format!("the weights of {from}")), "{}", seen.stderr);
        let start = ModelFile::open(&project.path(to).join(step_name(0))).unwrap();
        assert_eq!((&start.config, &start.text), (&model.config, &model.text), "{from}");
        assert!(start.tensors == model.tensors, "{from}: other weights");
        let end = ModelFile::open(&project.path(to)).unwrap();
        assert!(end.tensors != model.tensors, "{from}: nothing was learnt");
    }
}

/// The tokenizer and all else come from the run's own folder then.
#[test]
fn a_run_goes_on_without_the_file_that_it_began_with() {
    let project = trained();
    // What no tokenizer says.
    let mut model = ModelFile::open(&project.path("model.gguf")).unwrap();
    model.text.chat_template = Some("{{ messages[0].content }}".into());
    model.save_gguf(&project.path("model.gguf"), Format::Q1_58).unwrap();
    let text = ModelFile::open(&project.path("model.gguf")).unwrap().text;
    assert_eq!(text.chat_template, model.text.chat_template);
    project.ok(&format!("train --init model.gguf {DATA} --total-steps 2 --checkpoint-dir run"));
    std::fs::remove_file(project.path("model.gguf")).unwrap();
    std::fs::remove_dir_all(project.path("first")).unwrap();
    project.ok("train --backend cpu --resume run --total-steps 3");
    project.ok("train --backend cpu --resume run --fork other --total-steps 1");
    for run in ["run", "other"] {
        assert_eq!(ModelFile::open(&project.path(run)).unwrap().text, text, "{run}");
    }
}

#[test]
fn sequences_may_be_shorter_than_the_context() {
    let project = trained();
    project.ok(&format!("train --init model.gguf {DATA} --seq-len 16 --total-steps 1 --checkpoint-dir run"));
    let config = String::from_utf8(project.read("run/config.toml")).unwrap();
    let line = |line: &str| config.lines().filter(|have| *have == line).count();
    assert_eq!([line("seq_len = 16"), line("seq_len = 32")], [1, 1], "{config}");
    assert_eq!(ModelFile::open(&project.path("run")).unwrap().config.seq_len, 32);
}

#[test]
fn what_does_not_go_with_a_model_is_said_or_refused_by_name() {
    let project = trained();
    project.write(
        "bare.toml",
        "[train]\ntotal_steps = 1\nbatch_size = 2\n[data]\ntokenizer = \"bpe\"\nvocab_size = 300\n",
    );
    let warned = project.nanotern(&format!("train --init model.gguf {DATA} --set model.norm_eps=1e-5 --total-steps 1"));
    assert!(warned.code == Some(0) && warned.stderr.contains("another model with model.norm_eps"), "{}", warned.stderr);
    for (args, said) in [
        ("--init model.gguf --config tiny", "--config tiny describes a model"),
        ("--init model.gguf --config config.toml", "leave out [model]"),
        ("--init model.gguf --resume first", "cannot be used with"),
        ("--init nothing.gguf", "nothing.gguf"),
        ("--init model.gguf --config bare.toml", "262 rows of the embedding"),
        ("--init model.gguf --seq-len 33", "model.seq_len = 32"),
        ("--init model.gguf --set model.dim=128", "has shape"),
        ("--tokenizer model", "there is no model"),
    ] {
        let ended = project.nanotern(&format!("train {args} {DATA} --checkpoint-dir new"));
        assert!(ended.code != Some(0) && ended.stderr.contains(said), "{args}: {}", ended.stderr);
        assert!(!project.path("new").exists(), "{args}: a folder is left");
    }
}
