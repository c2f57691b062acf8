//! Counters of the server, in the text format of Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the histogram of the time to the first token, in seconds.
const BOUNDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Counters and gauges.
#[derive(Debug, Default)]
pub struct Metrics {
    /// HTTP requests answered.
    pub requests: AtomicU64,
    /// Answers with a status of 400 or more.
    pub errors: AtomicU64,
    /// Tokens of prompts.
    pub prompt_tokens: AtomicU64,
    /// Tokens generated.
    pub generated_tokens: AtomicU64,
    /// Drafts of tokens that were fed.
    pub drafts: AtomicU64,
    /// Drafts that were right.
    pub drafts_taken: AtomicU64,
    /// Tokens that could take fewer passes through the layers of a loop.
    pub loop_tokens: AtomicU64,
    /// Passes that they took.
    pub loop_passes: AtomicU64,
    /// Sequences that ended early: their client disconnected, or the server shut down.
    pub cancelled: AtomicU64,
    /// How often the device failed.
    pub device_losses: AtomicU64,
    /// Sequences that run now.
    pub active: AtomicUsize,
    /// Requests that wait for a slot now.
    pub waiting: AtomicUsize,
    /// Open connections.
    pub connections: AtomicUsize,
    /// Sequences that can run side by side.
    pub slots: AtomicUsize,
    /// Dispatches for each decoded token, or kernels on the CPU.
    pub dispatches_per_token: AtomicUsize,
    first_token: [AtomicU64; BOUNDS.len()],
    first_token_count: AtomicU64,
    first_token_micros: AtomicU64,
}

impl Metrics {
    /// Counts a first token that came `after` its request.
    pub fn first_token(&self, after: Duration) {
        for (bound, count) in BOUNDS.iter().zip(&self.first_token) {
            if after.as_secs_f64() <= *bound {
                count.fetch_add(1, Relaxed);
            }
        }
        self.first_token_count.fetch_add(1, Relaxed);
        self.first_token_micros.fetch_add(after.as_micros() as u64, Relaxed);
    }

    /// The text of `/metrics`.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut add = |name: &str, kind: &str, help: &str, value: u64| {
            let _ =
                writeln!(text, "# HELP nanotern_{name} {help}\n# TYPE nanotern_{name} {kind}\nnanotern_{name} {value}");
        };
        add("requests_total", "counter", "HTTP requests answered.", self.requests.load(Relaxed));
        add("errors_total", "counter", "Answers with a status of 400 or more.", self.errors.load(Relaxed));
        add("prompt_tokens_total", "counter", "Tokens of prompts.", self.prompt_tokens.load(Relaxed));
        add("generated_tokens_total", "counter", "Tokens generated.", self.generated_tokens.load(Relaxed));
        add("drafts_total", "counter", "Drafts of tokens that were fed.", self.drafts.load(Relaxed));
        add("drafts_taken_total", "counter", "Drafts of tokens that were right.", self.drafts_taken.load(Relaxed));
        add("loop_tokens_total", "counter", "Tokens that could take fewer passes.", self.loop_tokens.load(Relaxed));
        add("loop_passes_total", "counter", "Passes that these tokens took.", self.loop_passes.load(Relaxed));
        add("cancelled_total", "counter", "Sequences cut before their end.", self.cancelled.load(Relaxed));
        add("device_losses_total", "counter", "Failures of the device.", self.device_losses.load(Relaxed));
        for (name, help, value) in [
            ("sequences_active", "Sequences that run.", &self.active),
            ("queue_length", "Requests that wait for a slot.", &self.waiting),
            ("connections", "Open connections.", &self.connections),
            ("slots", "Sequences that can run side by side.", &self.slots),
            ("dispatches_per_token", "Dispatches, or kernels, for a decoded token.", &self.dispatches_per_token),
        ] {
            add(name, "gauge", help, value.load(Relaxed) as u64);
        }
        self.render_first_token(&mut text);
        text
    }

    fn render_first_token(&self, text: &mut String) {
        let name = "nanotern_time_to_first_token_seconds";
        let _ = writeln!(
            text,
            "# HELP {name} From the request to its first token, waiting included.\n# TYPE {name} histogram"
        );
        for (bound, count) in BOUNDS.iter().zip(&self.first_token) {
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {}", count.load(Relaxed));
        }
        let count = self.first_token_count.load(Relaxed);
        let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "{name}_sum {}", self.first_token_micros.load(Relaxed) as f64 * 1e-6);
        let _ = writeln!(text, "{name}_count {count}");
    }
}
