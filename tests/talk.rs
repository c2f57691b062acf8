//! From a trained run to text: export, eval, generate and chat, through the real program.
#![cfg(feature = "cli")]

mod common;

use common::cli::{Ended, Project};
use nanotern::backend;
use nanotern::formats::{Format, ModelFile};
use nanotern::infer::{Engine, EngineOptions, Sampling};
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;

/// A run that is long enough to generate lines like those of the text, and its export.
fn trained() -> Project {
    let p = Project::new();
    p.train("run", "--total-steps 200 --set train.eval_windows=100000");
    p.ok("export --checkpoint run --output model.gguf");
    p
}

/// Runs a command with standard input.
fn piped(p: &Project, words: &str, input: impl AsRef<[u8]>) -> (String, String) {
    let mut command = p.command(words);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_ref()).unwrap();
    let out = child.wait_with_output().unwrap();
    let [text, err] = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(out.status.success() && !err.contains("panicked"), "{words}:\n{err}");
    (text, err)
}

#[test]
fn the_exported_model_has_the_loss_that_training_measured() {
    let p = Project::new();
    let text = String::from_utf8(p.read("text.txt")).unwrap();
    p.write("val.txt", &text[(text.len() as f64 * 0.9) as usize..]);
    p.train("run", "--total-steps 50 --set train.eval_windows=100000 --val-data-path val.txt");
    p.ok("export --checkpoint run --output model.gguf");
    let measured = p.metrics("run").iter().rev().find_map(|r| r["val_loss"].as_f64()).unwrap();
    for model in ["model.gguf", "run", "run/final"] {
        let json = p.ok(&format!("eval perplexity --backend cpu --model {model} --data-path val.txt --json"));
        let json: Value = serde_json::from_str(&json).unwrap();
        let loss = json["nats_per_token"].as_f64().unwrap();
        assert!((loss - measured).abs() < 5e-5, "{model}: {loss}, not {measured}");
        assert!((json["perplexity"].as_f64().unwrap() - loss.exp()).abs() < 1e-9);
    }
    assert!(p.ok("eval parity --backend cpu --model model.gguf").contains("agrees"));
    // The questions are longer than this model's context.
    let exam = p.nanotern("eval synthetic --backend cpu --model model.gguf");
    assert!(exam.code == Some(2) && exam.stderr.contains("context"), "{}", exam.stderr);
}

#[test]
fn generate_goes_on_from_a_text() {
    let p = trained();
    let words = "generate --backend cpu --model model.gguf --max-tokens 20";
    let prompt = ["--prompt", "7: 10 cats"];
    let run = |more: &str| {
        let out = p.command(&format!("{words} {more}")).args(prompt).output().unwrap();
        assert!(out.status.success());
        String::from_utf8(out.stdout).unwrap()
    };
    let greedy = run("--temperature 0");
    assert!(greedy.starts_with("7: 10 cats saw "), "{greedy}");
    assert_eq!(greedy, run("--temperature 0 --cpu-level scalar --threads 1").as_str(), "another level says the same");
    assert_eq!(run("--seed 5 --temperature 2"), run("--seed 5 --temperature 2"));
    assert_ne!(run("--seed 5 --temperature 2"), run("--seed 6 --temperature 2"));
    assert_eq!(run("--temperature 0 --stop saw"), "7: 10 cats \n", "no part of a stop string shows");
    let (text, err) = piped(&p, &format!("{words} --temperature 0"), "7: 10 cats");
    assert_eq!(text, greedy);
    assert!(err.contains("20 tokens, as many as asked for") && err.contains("tok/s"), "{err}");
    for (bad, word) in [("--temperature 11", "temperature"), ("--top-p 2", "top_p"), ("--max-tokens 0", "max_tokens")] {
        let ended = p.nanotern(&format!("generate --backend cpu --model model.gguf --prompt x {bad}"));
        assert!(ended.code == Some(2) && ended.stderr.contains(word), "{bad}: {}", ended.stderr);
    }
    // The context has 32 tokens.
    let special = format!("{words} --prompt <|assistant|><|assistant|><|assistant|>");
    let (spelled, tokens) = (p.nanotern(&special), p.nanotern(&format!("{special} --special-tokens")));
    assert!(spelled.code == Some(2) && spelled.stderr.contains("39"), "as text: {}", spelled.stderr);
    assert!(tokens.code == Some(0) && tokens.stdout.starts_with("<|assistant|>"), "as tokens: {}", tokens.stderr);
    let forced = p.ok(&format!("{words} --prompt x --temperature 0 --logit-bias {{\"258\":100}}"));
    assert_eq!(forced, "x\n", "a special token is not text");
    let missing = p.nanotern("generate --model nothing.gguf --prompt x");
    assert!(missing.code == Some(1) && missing.stderr.contains("nothing.gguf"), "{}", missing.stderr);
}

#[test]
fn every_command_takes_a_context_and_says_when_it_limits() {
    let p = trained();
    let mut file = ModelFile::open(&p.path("model.gguf")).unwrap();
    file.config.seq_len = 5000;
    file.save_gguf(&p.path("long.gguf"), Format::Q1_58).unwrap();
    for words in [
        "generate --prompt x --max-tokens 1",
        "chat",
        "eval perplexity --data-path text.txt",
        "eval synthetic",
        "eval parity --prompt x",
        "bench prefill --tokens 2 --repeats 1",
        "bench decode --tokens 2 --prompt 2 --repeats 1",
        "serve --port 0",
    ] {
        let words = format!("{words} --backend cpu --threads 1 --model long.gguf");
        let beyond = p.nanotern(&format!("{words} --context 5001"));
        assert!(beyond.code == Some(2) && beyond.stderr.contains("5001 tokens") && beyond.stderr.contains("5000"));
        let none = p.nanotern(&format!("{words} --context 0"));
        assert!(none.code == Some(2) && none.stderr.contains("--context 0"), "{words}: {}", none.stderr);
        if words.contains("serve") {
            continue;
        }
        let (limited, whole) = (p.nanotern(&words), p.nanotern(&format!("{words} --context 5000")));
        let says =
            |ended: &Ended| ended.stderr.contains("limited to 4096 tokens") && ended.stderr.contains("--context 5000");
        assert!(says(&limited) && !says(&whole), "{words}: {}", limited.stderr);
    }
    let words = "--backend cpu --model long.gguf --context 3";
    for (words, says) in [
        (format!("generate --prompt four {words}"), "the context of 3"),
        (format!("bench decode --prompt 2 --tokens 1 {words}"), "2 prompt tokens"),
        (format!("bench prefill --tokens 4 {words}"), "4 prompt tokens"),
    ] {
        let small = p.nanotern(&words);
        assert!(small.code == Some(2) && small.stderr.contains(says), "{words}: {}", small.stderr);
    }
}

#[cfg(unix)]
#[test]
fn an_input_without_end_is_refused() {
    let p = trained();
    let endless = || Stdio::from(std::fs::File::open("/dev/zero").unwrap());
    let generate = p.command("generate --backend cpu --model model.gguf").stdin(endless()).output().unwrap();
    let said = String::from_utf8_lossy(&generate.stderr).into_owned();
    assert!(generate.status.code() == Some(2) && said.contains("standard input is longer than 16 MiB"), "{said}");
    // A line that is too long is no turn, and the next one is.
    let lines = [&vec![b'x'; (16 << 20) + 9], &b"\na\n"[..]].concat();
    let (text, err) = piped(&p, "chat --backend cpu --model run --temperature 0 --max-tokens 3", lines);
    assert!(err.contains("the line is longer than 16 MiB"), "{err}");
    assert_eq!((err.matches("tok/s").count(), text.matches('\n').count()), (1, 1), "{text:?}\n{err}");
}

#[test]
fn chat_takes_turns() {
    let p = trained();
    let words = "chat --backend cpu --model run --temperature 0 --max-tokens 3";
    let (text, err) = piped(&p, words, "a\n\nb\n");
    assert_eq!(err.matches("tok/s").count(), 2, "an empty line is not a turn:\n{err}");
    assert_eq!(text.matches('\n').count(), 2, "{text:?}");
    // The context of 32 tokens fits one such turn, so the answer does not depend on earlier turns.
    let words = format!("{words} --system s");
    let (last, err) = piped(&p, &words, "fifteen letters\n");
    assert!(!err.contains("forgotten"), "{err}");
    let (text, err) = piped(&p, &words, "say 7: 10 cats\nand something\nfifteen letters\n");
    assert!(text.ends_with(&last) && text.len() > last.len(), "{text:?} does not end with {last:?}");
    assert_eq!(err.matches("the oldest turns are forgotten, 1 of them").count(), 2, "{err}");
    // A special token that somebody writes is text.
    let (text, _) = piped(&p, &words, "<|end|>\n");
    assert_eq!(text.matches('\n').count(), 1, "{text:?}");
    // A line that cannot be a turn is said, and the conversation goes on.
    for (line, part) in [
        (&b"a line that is longer than the context"[..], "error: "),
        (b"caf\xe9", "error: the line is not UTF-8 from byte 3 on"),
    ] {
        let (text, err) = piped(&p, &words, [line, b"\n", b"fifteen letters\n"].concat());
        assert!(err.matches("error: ").count() == 1 && err.contains(part), "{err}");
        assert_eq!(text, last, "the next line is answered as if it were the first");
    }
}

#[test]
fn a_prompt_begins_with_bos_if_the_file_says_so() {
    let p = trained();
    let mut file = ModelFile::open(&p.path("model.gguf")).unwrap();
    assert_eq!((file.text.add_bos, file.text.bos), (false, Some(256)), "no model of ours was trained so");
    let engine = |file: &ModelFile, prompt: &[u32]| {
        let mut engine =
            Engine::new(file, &backend::open("cpu", &Default::default()).unwrap(), EngineOptions::default()).unwrap();
        let greedy = Sampling { temperature: 0.0, max_tokens: 12, ..Sampling::default() };
        file.tokenizer().unwrap().unwrap().decode(&engine.generate(prompt, greedy).unwrap().0)
    };
    let prompt = "7: 10";
    let bytes = || prompt.bytes().map(u32::from);
    for add_bos in [true, false] {
        // A text that goes on gets no end token, which is said.
        (file.text.add_bos, file.text.add_eos) = (add_bos, add_bos);
        file.save_gguf(&p.path("other.gguf"), Format::Q1_58).unwrap();
        let words = "generate --backend cpu --model other.gguf --temperature 0 --max-tokens 12 --prompt";
        let out = p.command(words).arg(prompt).output().unwrap();
        assert_eq!(String::from_utf8(out.stderr).unwrap().contains("add_eos_token"), add_bos);
        let ids: Vec<u32> = [256].into_iter().filter(|_| add_bos).chain(bytes()).collect();
        assert_eq!(
            String::from_utf8(out.stdout).unwrap().trim_end_matches('\n'),
            format!("{prompt}{}", engine(&file, &ids)).trim_end_matches('\n')
        );
    }
    assert_ne!(
        engine(&file, &bytes().collect::<Vec<_>>()),
        engine(&file, &[256].into_iter().chain(bytes()).collect::<Vec<_>>())
    );
}

/// A model whose results overflow answers nothing: every command says which op began.
#[test]
fn logits_that_are_not_finite_are_an_error() {
    let p = trained();
    p.overflowing("model.gguf", "overflow.gguf");
    p.write("val.txt", "7: 10 cats saw 3 dogs near 901\n".repeat(10));
    for words in ["generate --prompt x", "chat", "eval perplexity --data-path val.txt --json"] {
        let mut command = p.command(&format!("{words} --backend cpu --model overflow.gguf"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(b"hi\nhi\n");
        let out = child.wait_with_output().unwrap();
        let [text, err] = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(out.status.code() == Some(1) && err.contains("rms_norm at norm.weight"), "{words}: {err}");
        assert!(text.trim() == if words.starts_with("generate") { "x" } else { "" }, "{words}: {text:?}");
    }
}

/// Generating, scoring and timing say how many passes a token took. A value that is none, and a model without a loop, are refused.
#[test]
fn an_exit_entropy_is_a_flag() {
    let p = Project::new();
    p.train("looped", "--total-steps 2 --set model.loop={before=0,shared=1,times=3,after=0} --set model.layers=1");
    p.train("plain", "--total-steps 2");
    let words = "generate --backend cpu --prompt x --temperature 0 --max-tokens 9";
    for (flags, said) in [
        ("--exit-entropy inf", "; 1.00 passes a token]"),
        ("--exit-entropy 1e-9", "; 3.00 passes a token]"),
        ("--exit-entropy 0", "ms]"),
    ] {
        let ended = p.nanotern(&format!("{words} --model looped {flags}"));
        assert!(ended.code == Some(0) && ended.stderr.contains(said), "{flags}: {}", ended.stderr);
    }
    let score = "eval perplexity --backend cpu --model looped --data-path text.txt";
    let scored = p.ok(&format!("{score} --exit-entropy 100"));
    assert!(scored.trim_end().ends_with("tokens, 1.00 passes a token"), "{scored}");
    let json: Value = serde_json::from_str(&p.ok(&format!("{score} --exit-entropy 100 --json"))).unwrap();
    assert_eq!(json["passes"], 1.0);
    let timed = p.ok("bench decode --backend cpu --model looped --repeats 1 --tokens 8 --exit-entropy 100");
    assert!(timed.contains("passes   1.00 a token"), "{timed}");
    for (flags, said) in [
        ("--model looped --exit-entropy -1", "at least 0 nats is possible"),
        ("--model looped --exit-entropy nan", "at least 0 nats is possible"),
        ("--model looped --exit-entropy much", "--exit-entropy <NATS>"),
        ("--model plain --exit-entropy 0.5", "the model has no loop"),
    ] {
        let ended = p.nanotern(&format!("{words} {flags}"));
        assert!(ended.code == Some(2) && ended.stderr.contains(said), "{flags}: {}", ended.stderr);
    }
}
