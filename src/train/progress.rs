//! Progress of a training run on standard error: a bar on a terminal, otherwise (also on a dumb terminal) one plain line for
//! each logged step. NO_COLOR makes the bar colourless.

use super::bar::Bar;
use std::io::Write;
use std::time::{Duration, Instant};

/// The status at a logged step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Status {
    /// Completed steps.
    pub step: u64,
    /// Training loss in nats per token.
    pub loss: f64,
    /// Learning rate of Muon.
    pub lr: f64,
    /// Tokens per second.
    pub tok_per_s: f64,
    /// Model FLOP utilisation, 0 to 1, if the peak of the device is known.
    pub mfu: Option<f64>,
}

/// Shows the progress of a run.
#[derive(Debug)]
pub struct Progress {
    total: u64,
    first: u64,
    started: Instant,
    bar: Option<Bar>,
}

impl Progress {
    /// For a run of `total` steps of which `first` are completed (0, or the step it is resumed from).
    pub fn new(total: u64, first: u64) -> Self {
        Progress { total, first, started: Instant::now(), bar: Bar::new(total, first) }
    }

    /// Moves the bar; prints no line.
    pub fn advance(&self, step: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
        }
    }

    /// Shows the status of a logged step: in the bar, or as a line.
    pub fn log(&self, status: &Status) {
        let eta = eta(status.step, self.first, self.total, self.started.elapsed());
        match &self.bar {
            Some(bar) => {
                bar.set_position(status.step);
                bar.set_message(bar_text(status, eta));
            }
            None => write_line(&line(status, self.total, eta)),
        }
    }

    /// Prints `text` on separate lines without damaging the bar.
    pub fn message(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| write_line(text)),
            None => write_line(text),
        }
    }

    /// Leaves the bar as it is and moves to the line below it.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}

/// Writes a line. Errors are ignored: training continues when standard error is closed.
fn write_line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn line(s: &Status, total: u64, eta: Option<Duration>) -> String {
    let mut line =
        format!("step {}/{total}  loss {:.4}  lr {:.2e}  {} tok/s", s.step, s.loss, s.lr, thousands(s.tok_per_s));
    push_eta_mfu(&mut line, eta, s.mfu);
    line
}

fn bar_text(s: &Status, eta: Option<Duration>) -> String {
    let mut text = format!("loss {:.4}  {} tok/s", s.loss, thousands(s.tok_per_s));
    push_eta_mfu(&mut text, eta, s.mfu);
    text
}

fn push_eta_mfu(text: &mut String, eta: Option<Duration>, mfu: Option<f64>) {
    if let Some(eta) = eta {
        text.push_str(&format!("  eta {}", duration(eta)));
    }
    if let Some(mfu) = mfu {
        text.push_str(&format!("  mfu {:.0} %", mfu * 100.0));
    }
}

/// Remaining time at the mean speed since the start; `None` before the first step.
fn eta(step: u64, first: u64, total: u64, elapsed: Duration) -> Option<Duration> {
    let done = step.checked_sub(first).filter(|d| *d > 0)?;
    let left = total.saturating_sub(step);
    Duration::try_from_secs_f64(elapsed.as_secs_f64() * left as f64 / done as f64).ok()
}

/// `42s`, `3m12s`, `5h07m`, `2d03h`.
fn duration(d: Duration) -> String {
    let s = d.as_secs_f64().round() as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        _ => format!("{}d{:02}h", s / 86_400, s / 3600 % 24),
    }
}

/// Rounded, with commas: `1,234,567`. A value that is not finite gives `?`.
fn thousands(v: f64) -> String {
    if !v.is_finite() {
        return "?".to_string();
    }
    let digits = format!("{}", v.max(0.0).round() as u64);
    let mut out = String::new();
    for (i, digit) in digits.char_indices() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_log() {
        let mut status = Status { step: 120, loss: 4.321, lr: 0.02, tok_per_s: 1234.4, mfu: Some(0.41) };
        let eta = Some(Duration::from_secs(192));
        let want = "step 120/2000  loss 4.3210  lr 2.00e-2  1,234 tok/s  eta 3m12s  mfu 41 %";
        assert_eq!(line(&status, 2000, eta), want);
        status.mfu = None;
        status.loss = f64::NAN;
        assert_eq!(line(&status, 2000, None), "step 120/2000  loss NaN  lr 2.00e-2  1,234 tok/s");
    }

    #[test]
    fn durations_and_thousands() {
        let texts = [0, 59, 60, 3599, 3600, 18_420, 86_399, 183_600].map(|s| duration(Duration::from_secs(s)));
        assert_eq!(texts, ["0s", "59s", "1m00s", "59m59s", "1h00m", "5h07m", "23h59m", "2d03h"]);
        let texts = [0.4, 999.0, 999.6, 1_234_567.0, f64::INFINITY].map(thousands);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567", "?"]);
    }

    #[test]
    fn time_left_counts_from_the_step_resumed_from() {
        let elapsed = Duration::from_secs(10);
        assert_eq!(eta(110, 100, 200, elapsed), Some(Duration::from_secs(90)));
        assert_eq!(eta(100, 100, 200, elapsed), None);
        assert_eq!(eta(201, 100, 200, elapsed), Some(Duration::ZERO));
    }
}
