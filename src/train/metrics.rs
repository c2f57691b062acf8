//! `metrics.jsonl`: the log of a run, one JSON object in each line.
//!
//! A training record is `{step, tokens, loss, lr, grad_norm, tok_per_s}`, an evaluation record `{step, tokens, val_loss,
//! val_bits_per_byte}`. Losses are in nats per token. JSON has no NaN: a value that is not finite becomes `null`. The record
//! of a skipped step has `"skipped": true`, and the first one after a run has diverged `"diverged": true`. That of a model with
//! experts has `expert_load`, for each layer the share of the assignments that each expert had in the step, `expert_entropy`, the
//! entropy of these shares in parts of the largest one, and `dead_experts`, how many experts had none. Each line is a
//! single write to the operating system, so a killed process neither loses nor tears a line. A value that is exactly an f32
//! is written with the digits of an f32.

use std::path::Path;

use serde_json::{Map, Number, Value};

use super::log::{Log, read_or_empty};
use super::trainer::ExpertUse;
use crate::error::Result;

/// The file name inside a run directory.
pub const FILE_NAME: &str = "metrics.jsonl";

/// One logged training step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRecord {
    /// Completed steps.
    pub step: u64,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// Cross-entropy in nats per token.
    pub loss: f64,
    /// Learning rate of Muon.
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Tokens per second.
    pub tok_per_s: f64,
    /// Whether the step was skipped and changed no weight.
    pub skipped: bool,
    /// Whether the run has diverged since the last record.
    pub diverged: bool,
    /// How experts were used, in a model that has some.
    pub experts: Option<ExpertUse>,
}

/// One evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvalRecord {
    /// Completed steps.
    pub step: u64,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// Cross-entropy in nats per token.
    pub val_loss: f64,
    /// Cross-entropy in bits per byte of text; `None` if the number of bytes is unknown or 0.
    pub val_bits_per_byte: Option<f64>,
}

/// Appends records to the log of one run.
pub struct MetricsWriter {
    log: Log,
}

impl MetricsWriter {
    /// Opens the log of `run_dir`. A new run (`resume_step` is `None`) starts with an empty log. A run resumed at step S keeps
    /// the records up to and including S; later records and torn lines are removed, in one atomic rewrite, before the first
    /// record is appended. Every method returns what is to be said.
    pub fn open(run_dir: &Path, resume_step: Option<u64>) -> Self {
        let keep = move |log: &[u8]| resume_step.map_or_else(Vec::new, |last| up_to_step(log, last));
        MetricsWriter { log: Log::open(run_dir.join(FILE_NAME), keep) }
    }

    /// The log itself.
    pub(super) fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    /// Removes the records after step `last`, before the next one is appended.
    pub fn cut(&mut self, last: u64) {
        self.log.rewrite(move |log| up_to_step(log, last));
    }

    /// Appends a training record.
    pub fn step(&mut self, r: &StepRecord) -> Option<String> {
        let values = [("loss", r.loss), ("lr", r.lr), ("grad_norm", r.grad_norm), ("tok_per_s", r.tok_per_s)];
        let mut line = Line::new(r.step, r.tokens);
        values.iter().for_each(|(key, v)| line.put(key, number(*v)));
        for (key, _) in [("skipped", r.skipped), ("diverged", r.diverged)].iter().filter(|(_, is)| *is) {
            line.put(key, Value::Bool(true));
        }
        if let Some(experts) = &r.experts {
            let numbers = |list: &[f64]| Value::Array(list.iter().map(|v| number(*v)).collect());
            line.put("expert_load", experts.shares.iter().map(|shares| numbers(shares)).collect());
            line.put("expert_entropy", numbers(&experts.entropies()));
            line.put("dead_experts", experts.dead().into());
        }
        self.log.append(line.finish().as_bytes())
    }

    /// Appends an evaluation record.
    pub fn eval(&mut self, r: &EvalRecord) -> Option<String> {
        let mut line = Line::new(r.step, r.tokens);
        line.put("val_loss", number(r.val_loss));
        line.put("val_bits_per_byte", r.val_bits_per_byte.map_or(Value::Null, number));
        self.log.append(line.finish().as_bytes())
    }
}

/// The loss curves of a log, as `(step, nats per token)`, without the values that were not finite.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Losses {
    /// Training losses.
    pub train: Vec<(u64, f64)>,
    /// Validation losses.
    pub val: Vec<(u64, f64)>,
    /// The least entropy of the load of a layer's experts, in parts of the largest one.
    pub entropy: Vec<(u64, f64)>,
    /// Experts without a token in the last step that was logged.
    pub dead_experts: u64,
}

/// Reads the loss curves of `run_dir`, empty if it has no log yet. Lines that are not records are skipped.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if the file cannot be read.
pub fn read_losses(run_dir: &Path) -> Result<Losses> {
    let mut losses = Losses::default();
    for line in read_or_empty(&run_dir.join(FILE_NAME))?.split(|b| *b == b'\n') {
        let Some((step, record)) = parse(line) else { continue };
        let value = |key: &str| record.get(key).and_then(Value::as_f64).map(|v| (step, v));
        losses.train.extend(value("loss"));
        losses.val.extend(value("val_loss"));
        let entropies = record.get("expert_entropy").and_then(Value::as_array);
        let least = entropies.and_then(|list| list.iter().filter_map(Value::as_f64).min_by(f64::total_cmp));
        losses.entropy.extend(least.map(|least| (step, least)));
        losses.dead_experts = record.get("dead_experts").and_then(Value::as_u64).unwrap_or(losses.dead_experts);
    }
    Ok(losses)
}

/// The step of the last record of `run_dir` up to step `most`; 0 without one.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if the file cannot be read.
pub fn last_step(run_dir: &Path, most: u64) -> Result<u64> {
    let log = read_or_empty(&run_dir.join(FILE_NAME))?;
    let mut steps = log.split(|b| *b == b'\n').filter_map(|line| Some(parse(line)?.0));
    Ok(steps.rfind(|step| *step <= most).unwrap_or(0))
}

/// A JSON object under construction; a `Map` would sort the keys.
struct Line(String);

impl Line {
    fn new(step: u64, tokens: u64) -> Self {
        Line(format!("{{\"step\":{step},\"tokens\":{tokens}"))
    }

    /// `key` needs no escaping.
    fn put(&mut self, key: &str, value: Value) {
        self.0.push_str(&format!(",\"{key}\":{value}"));
    }

    fn finish(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }
}

/// A JSON number, or `null` if the value is not finite.
fn number(v: f64) -> Value {
    let short = v as f32;
    if f64::from(short) == v {
        // The shortest digits of this f32. Parsed as f32 they give the same value, as f64 a close one.
        return serde_json::from_str(&format!("{short}")).unwrap_or(Value::Null);
    }
    Number::from_f64(v).map_or(Value::Null, Value::Number)
}

fn parse(line: &[u8]) -> Option<(u64, Map<String, Value>)> {
    let record: Map<String, Value> = serde_json::from_slice(line).ok()?;
    Some((record.get("step")?.as_u64()?, record))
}

fn up_to_step(log: &[u8], last: u64) -> Vec<u8> {
    let lines = log.split(|b| *b == b'\n').filter(|line| parse(line).is_some_and(|(step, _)| step <= last));
    lines.flat_map(|line| line.iter().copied().chain([b'\n'])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn step(step: u64, loss: f64) -> StepRecord {
        StepRecord {
            step,
            tokens: step * 64,
            loss,
            lr: 0.02,
            grad_norm: 1.5,
            tok_per_s: 1234.0,
            skipped: !loss.is_finite(),
            diverged: loss > 9.0,
            experts: None,
        }
    }

    fn text(dir: &Path) -> String {
        fs::read_to_string(dir.join(FILE_NAME)).unwrap()
    }

    #[test]
    fn records_are_written_as_documented() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = MetricsWriter::open(dir.path(), None);
        let said = [
            log.step(&step(1, f64::from(4.321f32))),
            log.step(&step(2, f64::NAN)),
            log.eval(&EvalRecord { step: 2, tokens: 128, val_loss: 1.0 / 3.0, val_bits_per_byte: None }),
            log.eval(&EvalRecord { step: 3, tokens: 192, val_loss: f64::INFINITY, val_bits_per_byte: Some(0.1) }),
            log.step(&step(4, 9.5)),
        ];
        assert_eq!(said, [const { None }; 5]);
        let want = concat!(
            r#"{"step":1,"tokens":64,"loss":4.321,"lr":0.02,"grad_norm":1.5,"tok_per_s":1234}"#,
            "\n",
            r#"{"step":2,"tokens":128,"loss":null,"lr":0.02,"grad_norm":1.5,"tok_per_s":1234,"skipped":true}"#,
            "\n",
            r#"{"step":2,"tokens":128,"val_loss":0.3333333333333333,"val_bits_per_byte":null}"#,
            "\n",
            r#"{"step":3,"tokens":192,"val_loss":null,"val_bits_per_byte":0.1}"#,
            "\n",
            r#"{"step":4,"tokens":256,"loss":9.5,"lr":0.02,"grad_norm":1.5,"tok_per_s":1234,"diverged":true}"#,
            "\n",
        );
        assert_eq!(text(dir.path()), want);
        let losses = read_losses(dir.path()).unwrap();
        let want = Losses { train: vec![(1, 4.321), (4, 9.5)], val: vec![(2, 1.0 / 3.0)], ..Losses::default() };
        assert_eq!(losses, want);
    }

    #[test]
    fn the_use_of_experts_is_written_and_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = MetricsWriter::open(dir.path(), None);
        for (at, shares) in [[[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.5, 0.5]]].iter().enumerate() {
            let experts = Some(ExpertUse { shares: shares.map(|s| s.to_vec()).to_vec() });
            log.step(&StepRecord { experts, ..step(at as u64 + 1, 2.0) });
        }
        let text = text(dir.path());
        assert!(
            text.contains(r#","expert_load":[[0.5,0.5],[1,0]],"expert_entropy":[1,0],"dead_experts":1}"#),
            "{text}"
        );
        let losses = read_losses(dir.path()).unwrap();
        assert_eq!((losses.entropy, losses.dead_experts), (vec![(1, 0.0), (2, 1.0)], 0));
    }

    #[test]
    fn resume_drops_later_records_and_torn_lines() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = MetricsWriter::open(dir.path(), None);
        (1..=4).for_each(|s| assert!(log.step(&step(s, 2.0)).is_none()));
        let whole = text(dir.path());
        fs::write(dir.path().join(FILE_NAME), format!("{whole}{{\"step\":3,\"tok")).unwrap();
        let mut log = MetricsWriter::open(dir.path(), Some(2));
        (3..=4).for_each(|s| assert!(log.step(&step(s, 2.0)).is_none()));
        assert_eq!(text(dir.path()), whole);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing temporary is left");
        assert_eq!((last_step(dir.path(), 9).unwrap(), last_step(dir.path(), 3).unwrap()), (4, 3));
        MetricsWriter::open(dir.path(), Some(9)).log().append(&[]);
        assert_eq!(text(dir.path()), whole);
        MetricsWriter::open(dir.path(), None).log().append(&[]);
        assert_eq!(text(dir.path()), "");
    }

    #[test]
    fn a_directory_without_a_log_has_no_losses() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_losses(dir.path()).unwrap(), Losses::default());
    }
}
