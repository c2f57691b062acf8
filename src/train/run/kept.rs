//! What a rollback and a resumed run keep.

use super::*;
use crate::backend::{Cpu, Level};
use crate::model::ModelConfig;
use crate::tokenizer::Tokenizer;

fn corpus() -> Corpus {
    let text: String = (0..400).map(|i| format!("{i} times {i} is {}\n", i * i)).collect();
    Corpus::from_text("squares", &text, &text[..400], Tokenizer::bytes()).unwrap()
}

fn run(start: Start<'_>, total_steps: u64) -> Run {
    let mut config = Config { model: ModelConfig::self_test(), ..Config::default() };
    (config.train.batch_size, config.train.total_steps, config.train.eval_windows) = (2, total_steps, 2);
    (config.train.log_interval, config.train.checkpoint_interval) = (1, 0);
    Run::new(config, corpus(), start, &Backend::Cpu(Cpu::new(Level::detect(), Some(1)).unwrap())).unwrap()
}

#[test]
fn a_fault_that_passes_costs_steps_but_no_data_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    run(Start::New(&path), 6).train().unwrap();

    let mut faulty = run(Start::Resume(&path), 20);
    let mut weights = faulty.session.trainer.model_tensors().unwrap();
    weights.iter_mut().for_each(|t| t.data.fill(f32::NAN));
    faulty.session.trainer.load_model(&weights).unwrap();
    faulty.train().unwrap();
    let State { skipped, skipped_in_a_row, .. } = faulty.state;
    assert!(skipped > 0 && skipped_in_a_row == 0, "{:?}", faulty.state);
    assert_eq!(faulty.session.cursor, 2 * (20 + skipped), "each step reads the next windows");
    drop(faulty);

    let resumed = run(Start::Resume(&path), 21);
    let state = (resumed.state.skipped, resumed.session.step, resumed.session.cursor);
    assert_eq!(state, (skipped, 20, 2 * (20 + skipped)));
}

/// Steps that are skipped for a while, for weights that are too large or no numbers, end the same whenever the log is written.
#[test]
fn a_rollback_does_not_depend_on_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let first = dir.path().join("first");
    run(Start::New(&first), 6).train().unwrap();
    for (value, skipped) in [(3e38, SKIPS_BEFORE_ROLLBACK), (f32::NAN, 1)] {
        let ends = [1, 5, 64].map(|log_interval| {
            let path = dir.path().join(format!("{value} {log_interval}"));
            std::fs::create_dir_all(path.join("final")).unwrap();
            for folder in ["", "final"] {
                let files = first.join(folder).read_dir().unwrap().map(|e| e.unwrap().path());
                for file in files.filter(|f| f.is_file()) {
                    std::fs::copy(&file, path.join(folder).join(file.file_name().unwrap())).unwrap();
                }
            }
            let mut run = run(Start::Resume(&path), 50);
            run.session.config.train.log_interval = log_interval;
            let mut good = None;
            run.before_each_step(move |session| {
                let at = session.cursor / 2; // steps that read data
                if at == 10 {
                    let mut weights = session.trainer.model_tensors().unwrap();
                    good = Some((session.step, weights.clone()));
                    weights.iter_mut().find(|t| t.name == "norm.weight").unwrap().data.fill(value);
                    session.trainer.load_model(&weights).unwrap();
                }
                // Unless the run went back meanwhile, the weights recover.
                if let Some((step, weights)) = good.take_if(|_| at == 10 + SKIPS_BEFORE_ROLLBACK && value.is_finite())
                    && session.step == step + SKIPS_BEFORE_ROLLBACK
                {
                    session.trainer.load_model(&weights).unwrap();
                }
            });
            run.train().unwrap();
            let bits = |t: &checkpoint::Array| t.data.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let weights: Vec<_> = run.session.trainer.model_tensors().unwrap().iter().map(bits).collect();
            (run.state.skipped, run.session.cursor, weights)
        });
        assert_eq!((ends[0].0, ends[0].1), (skipped, 2 * (50 + skipped + 4)), "{value}");
        assert!(
            ends.iter().all(|end| *end == ends[0]),
            "{value}: {:?}",
            ends.map(|(skipped, cursor, _)| (skipped, cursor))
        );
    }
}

#[test]
fn other_validation_data_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let mut run = run(Start::New(&path), 2);
    run.train().unwrap();
    let (saved, _) = checkpoint::newest_valid(&path).unwrap().unwrap();
    let check = |val: u32| {
        let sums = Sums { val, ..Sums::new(&corpus()).unwrap() };
        resume::check(&saved, &run.session.config, &corpus(), &sums).unwrap()
    };
    let known = run.sums.val;
    assert_eq!(check(known), [""; 0]);
    assert!(check(known ^ 1).concat().contains("validation losses after step 2"));
}
