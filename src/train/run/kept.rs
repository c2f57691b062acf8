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
