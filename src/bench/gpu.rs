//! Everything that is worth knowing about a card, in one run: what it is, what it can do at most, whether it computes what the
//! CPU does, and how near each op, training steps and sequences come to that. What does not fit, or would take too long, is
//! skipped, and the report says why.

use super::traffic::moved;
use super::{OpTime, Profile, bench_sequences, bench_step, profile_step, random_model};
use crate::backend::{Backend, Clock, Cpu, Difference, Level};
use crate::infer::{Engine, EngineOptions};
use crate::model::{Embeddings, ModelConfig};
use crate::train::{COPIED, Config, StepShape, TrainStep, copy_bandwidth, fma_peak, self_test};
use crate::{Result, memory};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Version of the layout of [`Report`]. It changes when a field changes or goes.
const LAYOUT: u32 = 1;
/// Numbers of sequences side by side.
const SEQUENCES: [usize; 3] = [1, 8, 32];
/// Steps that are timed, after the two that warm up.
const STEPS: usize = 5;
/// How much slower than its roofline a device is taken to be until it was measured.
const SLOWNESS: f64 = 50.0;

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Only small shapes, to try the run itself.
    pub quick: bool,
    /// Time of the whole run: what would end later is skipped.
    pub limit: Duration,
}

/// A measurement, or why there is none.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Outcome<T> {
    /// The figures.
    Done(T),
    /// There are none.
    Skipped {
        /// The reason.
        skipped: String,
    },
}

impl<T> Outcome<T> {
    /// The figures, if there are any.
    pub fn done(&self) -> Option<&T> {
        match self {
            Outcome::Done(figures) => Some(figures),
            Outcome::Skipped { .. } => None,
        }
    }
}

/// The report of a run. Its JSON has the names of these fields; times are in seconds, sizes in bytes, speeds per second.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this layout.
    pub layout: u32,
    /// Version of this program.
    pub version: &'static str,
    /// What was measured.
    pub device: Device,
    /// What the device can do at most.
    pub probes: Probes,
    /// Whether it computes what the CPU does.
    pub parity: Outcome<Parity>,
    /// Training steps, op by op.
    pub ops: Vec<Named<Outcome<Ops>>>,
    /// Training steps as a whole.
    pub training: Vec<Named<Outcome<Training>>>,
    /// Reading prompts.
    pub prefill: Vec<Sequences>,
    /// Sampling tokens.
    pub decode: Vec<Sequences>,
    /// Seconds of the whole run.
    pub seconds: f64,
}

/// A measurement of something with a name.
#[derive(Clone, Debug, Serialize)]
pub struct Named<T> {
    /// The preset that was trained.
    pub name: String,
    /// Its figures.
    #[serde(flatten)]
    pub outcome: T,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Device {
    /// One line for people.
    pub description: String,
    /// The driver's name and version, if the system tells.
    pub driver: Option<String>,
    /// Whether it is no GPU but a program.
    pub software: bool,
    /// Features in use.
    pub features: Vec<&'static str>,
    /// Its limits by name.
    pub limits: std::collections::BTreeMap<&'static str, u64>,
    /// What times ops and probes.
    pub clock: String,
}

/// What the device can do at most, by two programs that do nothing else.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Probes {
    /// Bytes read and written together, in a copy.
    pub bytes_per_s: f64,
    /// Bytes of each of the two buffers of the copy.
    pub copied_bytes: usize,
    /// f32 operations in registers, two a multiply-add.
    pub flops_per_s: f64,
}

impl Probes {
    /// Seconds that so many bytes and operations take at least.
    fn roofline(&self, bytes: u64, flops: u64) -> f64 {
        (bytes as f64 / self.bytes_per_s).max(flops as f64 / self.flops_per_s)
    }
}

/// Whether the device computes what the scalar CPU kernels do, op by op with the same inputs.
#[derive(Clone, Debug, Serialize)]
pub struct Parity {
    /// No output differs.
    pub agrees: bool,
    /// Outputs of a training step and of the reading of a prompt that differ.
    pub differences: Vec<Differs>,
}

/// An output that differs.
#[derive(Clone, Debug, Serialize)]
pub struct Differs {
    /// The op.
    pub op: &'static str,
    /// The output.
    pub output: String,
    /// Normalised mean squared error, or the fraction of integers that differ. `null` if it is infinite.
    pub error: f64,
}

/// The ops of a training step, the slowest first.
#[derive(Clone, Debug, Serialize)]
pub struct Ops {
    /// Tokens of the step.
    pub tokens: usize,
    /// Seconds of all ops.
    pub seconds: f64,
    /// Seconds that they take at least.
    pub roofline_seconds: f64,
    /// The ops.
    pub ops: Vec<OpFigures>,
}

/// One op of a training step, all calls together.
#[derive(Clone, Debug, Serialize)]
pub struct OpFigures {
    /// Its name.
    pub op: &'static str,
    /// Nodes of the graph.
    pub calls: usize,
    /// Their seconds.
    pub seconds: f64,
    /// Their share of the step.
    pub share: f64,
    /// Bytes of the tensors that they bind.
    pub bytes: u64,
    /// Operations of matrix products.
    pub flops: u64,
    /// Seconds that these bytes or operations take at least, whichever are more.
    pub roofline_seconds: f64,
    /// How near the op is to that: 1 is there. An op that reads a part of a tensor can be above.
    pub roofline_share: Option<f64>,
}

/// A training step.
#[derive(Clone, Debug, Serialize)]
pub struct Training {
    /// Tokens of the step.
    pub tokens: usize,
    /// Whether the backward pass computes layers again, because they do not fit otherwise.
    pub recompute: bool,
    /// Seconds of each step.
    pub seconds: Vec<f64>,
    /// Tokens per second, by the median.
    pub tok_per_s: f64,
    /// Tokens per second at most, if every op reached its roofline.
    pub roofline_tok_per_s: f64,
    /// Share of the device's f32 operations that the model's matrix products are.
    pub mfu: f64,
    /// Bytes of all buffers.
    pub buffer_bytes: usize,
}

/// Sequences side by side.
#[derive(Clone, Debug, Serialize)]
pub struct Sequences {
    /// The model's shape.
    pub name: String,
    /// How many.
    pub sequences: usize,
    /// The figures.
    #[serde(flatten)]
    pub outcome: Outcome<Speed>,
}

/// The speed of sequences side by side.
#[derive(Clone, Debug, Serialize)]
pub struct Speed {
    /// Tokens of one measurement.
    pub tokens: usize,
    /// Seconds of each measurement.
    pub seconds: Vec<f64>,
    /// Tokens per second, by the median.
    pub tok_per_s: f64,
    /// Tokens per second at most: of decoding by the bytes of the weights, of prefill by those or by the operations of the
    /// layers, whichever take longer.
    pub roofline_tok_per_s: f64,
    /// Bytes of all buffers.
    pub buffer_bytes: usize,
}

/// A run under way.
struct Run<'a> {
    open: &'a dyn Fn() -> Result<Backend>,
    backend: Backend,
    extent: Extent,
    begun: Instant,
    say: &'a mut dyn FnMut(&str),
    probes: Probes,
    /// How much slower than its roofline a training step was.
    slowness: f64,
}

/// Measures the device that `open` opens; a device that was lost is opened again. `say` is told what is measured next.
///
/// # Errors
/// When the device cannot be opened, or cannot run the probes.
pub fn bench_gpu(open: &dyn Fn() -> Result<Backend>, extent: Extent, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let begun = Instant::now();
    let backend = open()?;
    let description = backend.describe();
    say(&format!("[0:00] {description}: at most {:.0} minutes", extent.limit.as_secs_f64() / 60.0));
    let (probes, clock) = probes(&backend, extent.quick)?;
    let device = device(&backend, description, clock);
    let mut run = Run { open, backend, extent, begun, say, probes, slowness: SLOWNESS };
    let (gb, gflops) = (probes.bytes_per_s * 1e-9, probes.flops_per_s * 1e-9);
    run.note(&format!("it copies {gb:.1} GB/s and computes {gflops:.0} GFLOP/s"));
    run.note("parity of ops with the CPU");
    let parity = run.measure(0.0, parity);
    let configs = if extent.quick { vec![small()] } else { presets()? };
    let profiled = &configs[..configs.len().min(2)];
    let ops = profiled.iter().map(|(name, config)| Named { name: name.clone(), outcome: run.ops(name, config) });
    let ops = ops.collect();
    let training = configs.iter().map(|(name, config)| Named { name: name.clone(), outcome: run.train(name, config) });
    let training = training.collect();
    let (prefill, decode) = run.sequences();
    let seconds = begun.elapsed().as_secs_f64();
    run.note("done");
    let version = env!("CARGO_PKG_VERSION");
    Ok(Report { layout: LAYOUT, version, device, probes, parity, ops, training, prefill, decode, seconds })
}

fn device(backend: &Backend, description: String, clock: Clock) -> Device {
    let clock = clock.to_string();
    match backend {
        Backend::Wgpu(wgpu) => Device {
            description,
            driver: Some(wgpu.info().driver.clone()),
            software: !wgpu.info().is_gpu(),
            features: wgpu.info().features.clone(),
            limits: wgpu.limits().into_iter().collect(),
            clock,
        },
        other => Device {
            description,
            driver: None,
            software: matches!(other, Backend::Cpu(_)),
            features: Vec::new(),
            limits: Default::default(),
            clock,
        },
    }
}

/// Runs both probes; the copy is as large as the device allows.
fn probes(backend: &Backend, quick: bool) -> Result<(Probes, Clock)> {
    let most = match backend {
        Backend::Wgpu(wgpu) => wgpu.info().max_binding.min(wgpu.info().max_buffer),
        _ => u64::MAX,
    };
    let copied_bytes =
        if quick { COPIED / 16 } else { COPIED }.min(usize::try_from(most).unwrap_or(usize::MAX) / 16 * 16);
    let (bytes_per_s, clock) = copy_bandwidth(backend, copied_bytes)?;
    Ok((Probes { bytes_per_s, copied_bytes, flops_per_s: fma_peak(backend)? }, clock))
}

fn parity(backend: &Backend) -> Result<Parity> {
    let mut found = pollster::block_on(self_test(backend))?;
    let file = random_model(ModelConfig { seq_len: 64, ..ModelConfig::self_test() }, 300);
    let scalar = Backend::Cpu(Cpu::new(Level::Scalar, Some(1))?);
    let options = EngineOptions { slots: 1, context: 0 };
    let mut reference = Engine::new(&file, &scalar, options)?;
    let prompt: Vec<u32> = (0..9).map(|i| i * i % 300).collect();
    found.extend(reference.compare(&mut Engine::new(&file, backend, options)?, &prompt)?);
    let differs = |Difference { op, output, error, .. }| Differs { op, output, error };
    Ok(Parity { agrees: found.is_empty(), differences: found.into_iter().map(differs).collect() })
}

/// A configuration that every device runs in no time.
fn small() -> (String, Config) {
    let mut config = Config { model: ModelConfig::self_test(), ..Config::default() };
    config.data.vocab_size = Some(300);
    config.train.batch_size = 2;
    ("self-test".into(), config)
}

fn presets() -> Result<Vec<(String, Config)>> {
    let named = |name: &str| Ok((name.to_string(), Config::load(Some(name.as_ref()), &[])?));
    ["tiny", "nano-125m", "small-560m"].into_iter().map(named).collect()
}

fn vocab(config: &Config) -> usize {
    config.data.vocab_size.unwrap_or(crate::data::DEFAULT_VOCAB_SIZE)
}

fn tokens(config: &Config) -> usize {
    config.train.batch_size * config.train.grad_accum * config.seq_len()
}

impl Run<'_> {
    fn note(&mut self, what: &str) {
        let seconds = self.begun.elapsed().as_secs();
        (self.say)(&format!("[{}:{:02}] {what}", seconds / 60, seconds % 60));
    }

    /// The longest that one measurement may take.
    fn longest(&self) -> f64 {
        let left = self.extent.limit.saturating_sub(self.begun.elapsed()).as_secs_f64();
        left.min(self.extent.limit.as_secs_f64() / 10.0)
    }

    /// Measures something that is expected to take so many seconds, unless that is too long.
    fn measure<T>(&mut self, expected: f64, work: impl FnOnce(&Backend) -> Result<T>) -> Outcome<T> {
        let longest = self.longest();
        if longest <= 0.0 || expected > longest {
            let skipped = match longest <= 0.0 {
                true => "no time is left".to_string(),
                false => format!("it would take about {expected:.0} s; it may take {longest:.0} s"),
            };
            self.note(&format!("skipped: {skipped}"));
            return Outcome::Skipped { skipped };
        }
        match work(&self.backend) {
            Ok(figures) => Outcome::Done(figures),
            Err(error) => {
                self.note(&format!("skipped: {error}"));
                // The others are measured on a device that works.
                let mut skipped = error.to_string();
                match (self.open)() {
                    Ok(backend) => self.backend = backend,
                    Err(error) => skipped += &format!("; the device cannot be opened again: {error}"),
                }
                Outcome::Skipped { skipped }
            }
        }
    }

    /// Seconds that a training step takes at least.
    fn step_roofline(&self, step: &TrainStep) -> f64 {
        let graph = &step.plan.graph;
        let seconds = |i: usize| self.probes.roofline(moved(graph, &graph.nodes[i]), graph.flops(i..i + 1));
        let [begin, micro, update] = [step.sections.begin, step.sections.micro, step.sections.update]
            .map(|s| s.nodes().map(seconds).sum::<f64>());
        begin + step.shape.accum as f64 * micro + update
    }

    fn ops(&mut self, name: &str, config: &Config) -> Outcome<Ops> {
        let step = build(config, false);
        let expected = 3.0 * self.slowness * self.step_roofline(&step);
        self.note(&format!("ops of a training step of {name} (about {expected:.0} s)"));
        let software = self.software();
        let profile = self.measure(expected, |backend| {
            check_memory(software, step.plan.bytes())?;
            profile_step(config, vocab(config), backend, 2)
        });
        let Profile { ops, .. } = match profile {
            Outcome::Done(profile) => profile,
            Outcome::Skipped { skipped } => return Outcome::Skipped { skipped },
        };
        let seconds: f64 = ops.iter().map(|op| op.seconds).sum();
        let figures = |OpTime { op, calls, seconds: own, flops, bytes }| {
            let roofline_seconds = self.probes.roofline(bytes, flops);
            let roofline_share = Some(roofline_seconds / own).filter(|share| share.is_finite());
            OpFigures { op, calls, seconds: own, share: own / seconds, bytes, flops, roofline_seconds, roofline_share }
        };
        let ops: Vec<OpFigures> = ops.into_iter().map(figures).collect();
        let roofline_seconds = ops.iter().map(|op| op.roofline_seconds).sum();
        self.slowness = seconds / roofline_seconds;
        Outcome::Done(Ops { tokens: tokens(config), seconds, roofline_seconds, ops })
    }

    fn train(&mut self, name: &str, config: &Config) -> Outcome<Training> {
        let whole = self.train_as(name, config, false);
        // A second try only where memory was short.
        match &whole {
            Outcome::Skipped { skipped } if skipped.contains("memory") => self.train_as(name, config, true),
            _ => whole,
        }
    }

    fn train_as(&mut self, name: &str, config: &Config, recompute: bool) -> Outcome<Training> {
        let mut config = config.clone();
        config.train.recompute = recompute;
        let step = build(&config, recompute);
        let least = self.step_roofline(&step);
        let expected = (STEPS + 2) as f64 * self.slowness * least;
        let how = if recompute { ", recomputed" } else { "" };
        self.note(&format!("training steps of {name}{how} (about {expected:.0} s)"));
        let (software, bytes) = (self.software(), step.plan.bytes());
        drop(step);
        let bench = self.measure(expected, |backend| {
            check_memory(software, bytes)?;
            bench_step(&config, vocab(&config), backend, STEPS)
        });
        let bench = match bench {
            Outcome::Done(bench) => bench,
            Outcome::Skipped { skipped } => return Outcome::Skipped { skipped },
        };
        let seconds = bench.timing.median();
        self.slowness = self.slowness.max(seconds / least);
        Outcome::Done(Training {
            tokens: bench.timing.tokens,
            recompute,
            tok_per_s: bench.timing.tokens_per_second(),
            roofline_tok_per_s: bench.timing.tokens as f64 / least,
            mfu: bench.model_flops as f64 / seconds / self.probes.flops_per_s,
            buffer_bytes: bench.buffer_bytes,
            seconds: bench.timing.seconds,
        })
    }

    fn software(&self) -> bool {
        matches!(&self.backend, Backend::Wgpu(wgpu) if !wgpu.info().is_gpu())
    }

    /// Prefill and decoding of every shape, with each number of sequences.
    fn sequences(&mut self) -> (Vec<Sequences>, Vec<Sequences>) {
        let (mut prefill, mut decode) = (Vec::new(), Vec::new());
        let shapes: Vec<(String, ModelConfig, usize)> = if self.extent.quick {
            vec![("self-test".into(), ModelConfig { seq_len: 64, ..ModelConfig::self_test() }, 300)]
        } else {
            let shapes = super::SHAPES.iter().filter(|shape| ["18m", "125m", "560m"].contains(&shape.name));
            let int8 = |config| ModelConfig { embeddings: Embeddings::Q8_0, ..config };
            shapes.map(|s| (format!("{} q8_0", s.name), int8(s.config()), s.vocab)).collect()
        };
        let (prompt, most) = if self.extent.quick { (16, 4) } else { (128, 64) };
        for (name, config, vocab) in shapes {
            let (mut file, mut each) = (None, 0.0);
            for sequences in SEQUENCES {
                // Twice, the first time to warm up.
                let expected = 2.0 * each * (sequences * prompt) as f64;
                let about = if each > 0.0 { format!(" (about {expected:.0} s)") } else { String::new() };
                self.note(&format!("{sequences} sequences of {name}{about}"));
                let time = Duration::from_secs_f64(self.longest().clamp(0.1, 10.0));
                let bench = self.measure(expected, |backend| {
                    let file = file.get_or_insert_with(|| random_model(config.clone(), vocab));
                    bench_sequences(file, backend, sequences, (prompt, most), time)
                });
                if let Outcome::Done(bench) = &bench {
                    each = bench.prefill.median() / bench.prefill.tokens as f64;
                }
                let [a, b] = match bench {
                    Outcome::Skipped { skipped } => [(); 2].map(|()| Outcome::Skipped { skipped: skipped.clone() }),
                    Outcome::Done(bench) => {
                        let flops = 2 * bench.ternary_weights as u64;
                        let speed = |timing: super::Timing, least: f64| {
                            Outcome::Done(Speed {
                                tokens: timing.tokens,
                                tok_per_s: timing.tokens_per_second(),
                                roofline_tok_per_s: timing.tokens as f64 / least,
                                seconds: timing.seconds,
                                buffer_bytes: bench.buffer_bytes,
                            })
                        };
                        let read = bench.weight_bytes as u64;
                        let rows = bench.prefill.tokens;
                        let reading =
                            self.probes.roofline(read * rows.div_ceil(bench.most_rows) as u64, flops * rows as u64);
                        [speed(bench.prefill, reading), speed(bench.decode, self.probes.roofline(read, 0))]
                    }
                };
                prefill.push(Sequences { name: name.clone(), sequences, outcome: a });
                decode.push(Sequences { name: name.clone(), sequences, outcome: b });
            }
        }
        (prefill, decode)
    }
}

fn build(config: &Config, recompute: bool) -> TrainStep {
    let shape = StepShape { recompute, ..StepShape::of(config) };
    TrainStep::build(&config.model, vocab(config), shape, &config.optim)
}

/// A software device takes the memory of this machine, which would rather end the process than refuse.
fn check_memory(software: bool, bytes: usize) -> Result<()> {
    if software { memory::check(bytes, memory::free(), "it does not fit") } else { Ok(()) }
}
