//! A run that is interrupted by kill -9 or a signal, and resumed, ends exactly like an uninterrupted one.
#![cfg(all(feature = "cli", unix))]

mod common;

use common::cli::{Project, fresh, resume};
use nanotern::checkpoint;
use nanotern::rng::Rng;
use rustix::process::Signal;
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

/// Makes a step take about 20 ms, so that a kill after step 13 of 24 comes before the end.
const SLOW: &str = "--batch-size 16 --set model.ffn=256";

#[test]
fn kill_and_resume_equals_running_on() {
    half_and_half(SLOW, "--threads 1");
}

#[test]
fn kill_and_resume_with_streams_lion_and_accumulation_on_other_threads() {
    half_and_half(&format!("{SLOW} --grad-accum 2 --set model.mhc_streams=2 --set optim.aux=lion"), "--threads 3");
}

#[test]
fn recomputed_layers_give_the_same_weights() {
    let p = Project::new();
    for streams in [1, 4] {
        let options = format!("--set model.mhc_streams={streams} --set model.layers=2 --total-steps 6");
        p.train(&format!("kept{streams}"), &options);
        p.train(&format!("again{streams}"), &format!("{options} --set train.recompute=true"));
        p.assert_same(&format!("kept{streams}"), &format!("again{streams}"));
    }
}

/// The step of the newest checkpoint by name.
fn newest(p: &Project) -> u64 {
    let steps = p.checkpoints("killed").into_iter().filter_map(|name| name.strip_prefix("step_")?.parse().ok());
    steps.max().unwrap_or(0)
}

#[test]
fn twenty_kills_lose_nothing_but_the_steps_since_the_last_save() {
    let p = Project::new();
    let steps = "--total-steps 1500 --eval-interval 400";
    p.train("whole", steps);
    let mut rng = Rng::new(3);
    let mut before = 0;
    for kill in 0..20 {
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

#[test]
fn a_second_signal_ends_the_run_at_once() {
    let p = Project::new();
    // One step of 65,536 micro-batches takes about a minute.
    let mut run = p.start(&fresh("run", "--grad-accum 65536"));
    run.wait_for("run  ");
    std::thread::sleep(Duration::from_millis(1000));
    run.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(run.child.try_wait().unwrap(), None, "the first signal waits for the step");
    run.signal(Signal::TERM);
    assert_eq!(run.end().code, Some(143));
    assert!(p.checkpoints("run").is_empty());
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
