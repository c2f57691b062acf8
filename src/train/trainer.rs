//! A training step on a device: it takes parameters and batches and gives statistics. Files, logs and signals are the
//! business of `run`. This part also runs in a browser.

use super::step::{TrainStep, sorted_rows};
use crate::backend::{Backend, Program};
use crate::checkpoint::Array;
use crate::graph::TensorId;
#[cfg(feature = "native")]
use crate::model::Role;
use crate::ops::{IGNORE, STATS_RING};
use crate::rng::{Rng, mix};
use crate::{Error, Result};
use std::ops::Range;

/// Statistics of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepStats {
    /// Mean cross-entropy, nats per token.
    pub loss: f32,
    /// Global gradient norm before clipping.
    pub grad_norm: f32,
    /// The step changed nothing, because its loss or norm was not finite or an outlier, or a weight or the optimizer's state
    /// was not finite.
    pub skipped: bool,
}

/// How a step used the experts of each layer that has some.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertUse {
    /// The share of the layer's assignments that each expert had; they add up to 1.
    pub shares: Vec<Vec<f64>>,
}

impl ExpertUse {
    /// The entropy of the shares of each layer, in parts of the largest one: 1 where all are equal, 0 where one expert has all.
    pub fn entropies(&self) -> Vec<f64> {
        let entropy = |shares: &Vec<f64>| {
            let sum: f64 = shares.iter().filter(|p| **p > 0.0).map(|p| p * p.recip().ln()).sum();
            sum / (shares.len() as f64).ln()
        };
        self.shares.iter().map(entropy).collect()
    }

    /// Experts of all layers that had no token.
    pub fn dead(&self) -> usize {
        self.shares.iter().flatten().filter(|p| **p == 0.0).count()
    }

    /// The largest load of an expert, in parts of the mean one.
    pub fn largest(&self) -> f64 {
        self.shares.iter().flat_map(|layer| layer.iter().map(|p| p * layer.len() as f64)).fold(0.0, f64::max)
    }
}

/// A batch of token windows.
#[derive(Clone, Debug)]
pub struct Batch {
    /// (rows): token ids.
    pub inputs: Vec<u32>,
    /// (rows): the token that follows each of them.
    pub targets: Vec<u32>,
    /// (rows): their positions. They rise by one from row to row, from 0 at the start of each window and, if documents are
    /// separated, of each document.
    pub positions: Vec<u32>,
}

impl Batch {
    /// Windows of `seq` tokens. Documents in a window see each other.
    pub fn new(inputs: Vec<u32>, targets: Vec<u32>, seq: usize) -> Batch {
        let positions = (0..inputs.len()).map(|row| (row % seq) as u32).collect();
        Batch { inputs, targets, positions }
    }

    /// Separates documents: behind each token `end`, positions start again, and nothing before is seen.
    pub fn separate(mut self, end: u32) -> Batch {
        for row in 1..self.inputs.len() {
            if self.positions[row] > 0 {
                self.positions[row] = if self.inputs[row - 1] == end { 0 } else { self.positions[row - 1] + 1 };
            }
        }
        self
    }
}

/// A parameter or a part of the optimizers' state: its name, its shape as files have it, and its tensor.
type Named = (String, Vec<usize>, TensorId);

/// A training step on a device.
pub struct Trainer {
    /// The graph, and the tensors that the host writes and reads.
    pub step: TrainStep,
    /// The graph on the device.
    pub program: Program,
    /// That of [`Trainer::init`], from which the random bits of a step follow.
    seed: u64,
}

impl Trainer {
    /// Prepares a step on a backend. Parameters are zero until [`Trainer::init`] or [`Trainer::load`].
    ///
    /// # Errors
    /// When the device refuses, such as for lack of memory.
    pub fn new(step: TrainStep, backend: &Backend) -> Result<Self> {
        let mut program = backend.prepare(step.plan.clone())?;
        program.write(step.model.rope, &step.model.rope_table());
        Ok(Trainer { step, program, seed: 0 })
    }

    /// Sets every parameter to its initial value, and the optimizer's state to zero. The values of a parameter depend only on
    /// the seed and its name. The seed is also that of the steps, where they round the optimizer's state at random.
    pub fn init(&mut self, seed: u64) {
        for (weight, param) in self.step.model.params() {
            let stream = weight.name.bytes().fold(0, |h, b| mix(h ^ u64::from(b)));
            let values = weight.init.values(weight.elements(), &mut Rng::stream(seed, stream));
            self.program.write(param, &values);
        }
        for (_, id) in &self.step.state {
            let tensor = self.step.plan.graph.tensor(*id);
            self.program.write(*id, &vec![0u8; tensor.elements() * tensor.dtype.bytes()]);
        }
        self.seed = seed;
    }

    fn params(&self) -> Vec<Named> {
        self.step.model.params().map(|(weight, id)| (weight.name.clone(), weight.shape.clone(), id)).collect()
    }

    fn state(&self) -> Vec<Named> {
        let shape = |id: TensorId| self.step.plan.graph.shape(id).to_vec();
        self.step.state.iter().map(|(name, id)| (name.clone(), shape(*id), *id)).collect()
    }

    /// Reads the parameters. Waits for the device.
    ///
    /// # Errors
    /// When the device fails.
    pub async fn fetch_model(&mut self) -> Result<Vec<Array>> {
        self.fetch(self.params()).await
    }

    /// [`Trainer::fetch_model`] for callers that can block.
    #[cfg(feature = "native")]
    pub fn model_tensors(&mut self) -> Result<Vec<Array>> {
        pollster::block_on(self.fetch_model())
    }

    /// Reads the state of the optimizers. Waits for the device.
    ///
    /// # Errors
    /// When the device fails.
    #[cfg(feature = "native")]
    pub fn optimizer_tensors(&mut self) -> Result<Vec<Array>> {
        pollster::block_on(self.fetch(self.state()))
    }

    /// Names the parameters and the state of optimizers that have a value that is not a finite number. Waits for the device.
    ///
    /// # Errors
    /// When the device fails.
    #[cfg(feature = "native")]
    pub fn not_finite(&mut self) -> Result<Option<String>> {
        let tensors = [self.model_tensors()?, self.optimizer_tensors()?];
        let named: Vec<String> = tensors.iter().flatten().filter_map(|t| t.finite().err()).collect();
        let (first, more) = (named[..named.len().min(3)].join("; "), named.len().saturating_sub(3));
        Ok((!named.is_empty()).then(|| if more > 0 { format!("{first}; and {more} more") } else { first }))
    }

    async fn fetch(&mut self, list: Vec<Named>) -> Result<Vec<Array>> {
        let mut tensors = Vec::with_capacity(list.len());
        for (name, shape, id) in list {
            let dtype = self.step.plan.graph.tensor(id).dtype;
            let data = Array::elements(dtype, &self.program.fetch::<u8>(id).await?);
            tensors.push(Array { name, shape, dtype, data });
        }
        Ok(tensors)
    }

    /// Sets parameters and optimizer state.
    ///
    /// # Errors
    /// [`Error::Usage`] names a tensor that is missing, unknown, or of another shape or type.
    pub fn load(&mut self, model: &[Array], optimizer: &[Array]) -> Result<()> {
        self.set(self.params(), model, "model")?;
        self.set(self.state(), optimizer, "optimizer")
    }

    /// Sets parameters only; errors as [`Trainer::load`].
    pub fn load_model(&mut self, model: &[Array]) -> Result<()> {
        self.set(self.params(), model, "model")
    }

    fn set(&mut self, wanted: Vec<Named>, given: &[Array], what: &str) -> Result<()> {
        if let Some(extra) = given.iter().find(|t| !wanted.iter().any(|(name, ..)| *name == t.name)) {
            return Err(Error::usage(format!(
                "the {what} has a tensor {} that is unknown to this configuration",
                extra.name
            )));
        }
        for (name, shape, id) in wanted {
            let dtype = self.step.plan.graph.tensor(id).dtype;
            let tensor = given.iter().find(|t| t.name == name);
            let tensor = tensor.ok_or_else(|| Error::usage(format!("the {what} lacks the tensor {name}")))?;
            if tensor.shape != shape {
                let have = &tensor.shape;
                return Err(Error::usage(format!("{name} has shape {have:?}; this configuration needs {shape:?}")));
            }
            if tensor.dtype != dtype {
                let have = tensor.dtype;
                return Err(Error::usage(format!("{name} is {have:?}; this configuration needs {dtype:?}")));
            }
            self.program.write(id, &tensor.bytes(0..tensor.data.len()));
        }
        Ok(())
    }

    /// Writes the inputs, targets and positions of a micro-batch.
    pub fn feed(&mut self, batch: &Batch) {
        self.program.write(self.step.ids, &batch.inputs);
        self.program.write(self.step.targets.ids, &batch.targets);
        self.program.write(self.step.positions, &batch.positions);
    }

    /// Refuses an id that no device can do anything right with.
    fn check(&self, batch: &Batch) -> Result<()> {
        let (vocab, targets) = (self.step.model.vocab, batch.targets.iter().filter(|t| **t != IGNORE));
        match batch.inputs.iter().chain(targets).find(|id| **id as usize >= vocab) {
            Some(id) => Err(Error::usage(format!("token {id}: the model has {vocab} tokens"))),
            None => Ok(()),
        }
    }

    /// Submits step `step` (from 0) with its micro-batches. `lr_factor` is that of the schedule. The device keeps the
    /// statistics for the next 64 steps.
    ///
    /// # Errors
    /// When the device fails, or an id is beyond the vocabulary. [`Error::Stopped`] if the program was told to stop; the
    /// parameters are then those before the step.
    ///
    /// # Panics
    /// When the number of micro-batches is not that of the step.
    pub fn submit(&mut self, step: u64, lr_factor: f64, micro: impl IntoIterator<Item = Batch>) -> Result<()> {
        self.try_submit(step, lr_factor, micro.into_iter().map(Ok))
    }

    /// [`Trainer::submit`] of micro-batches that may not be readable; the first error ends it, and with it the step.
    pub(super) fn try_submit(
        &mut self,
        step: u64,
        lr_factor: f64,
        micro: impl IntoIterator<Item = Result<Batch>>,
    ) -> Result<()> {
        let t = (step + 1).min(1 << 20) as i32;
        let bias = |beta: f32| (1.0 - f64::from(beta).powi(t)) as f32;
        let slot = (step % STATS_RING as u64) as f32;
        let [beta1, beta2] = self.step.adamw_betas;
        let key = Rng::stream(mix(self.seed), step).next_u64();
        let [low, high] = [key, key >> 16].map(|bits| f32::from(bits as u16));
        let control = [lr_factor as f32, bias(beta1), bias(beta2), slot, low, high];
        self.program.write(self.step.control.step, &control);
        self.program.run_section(self.step.sections.begin)?;
        let mut count = 0;
        for batch in micro {
            let batch = batch?;
            self.check(&batch)?;
            self.feed(&batch);
            self.program.write(self.step.order, &sorted_rows(&batch.inputs));
            self.program.run_unless_stopped(self.step.sections.micro)?;
            count += 1;
        }
        assert_eq!(count, self.step.shape.accum, "micro-batches of a step");
        self.program.run_section(self.step.sections.update)
    }

    /// Statistics of some of the last 64 steps. Waits for the device.
    ///
    /// # Errors
    /// When the device fails.
    pub async fn fetch_stats(&mut self, steps: Range<u64>) -> Result<Vec<StepStats>> {
        let ring: Vec<f32> = self.program.fetch(self.step.control.stats).await?;
        let stat = |step: u64| {
            let [loss, grad_norm, skipped, _] = ring[4 * (step as usize % STATS_RING)..][..4] else { unreachable!() };
            StepStats { loss, grad_norm, skipped: skipped != 0.0 }
        };
        Ok(steps.map(stat).collect())
    }

    /// [`Trainer::fetch_stats`] for callers that can block.
    #[cfg(feature = "native")]
    pub fn stats(&mut self, steps: Range<u64>) -> Result<Vec<StepStats>> {
        pollster::block_on(self.fetch_stats(steps))
    }

    /// How the last step used experts; `None` in a model without any. Waits for the device.
    ///
    /// # Errors
    /// When the device fails.
    #[cfg(feature = "native")]
    pub fn expert_use(&mut self) -> Result<Option<ExpertUse>> {
        let config = &self.step.model.config;
        let (Some(moe), Some(loads)) = (&config.moe, self.step.expert_loads) else { return Ok(None) };
        let (experts, layers) =
            (moe.experts, self.step.model.weights.iter().filter(|w| w.role == Role::Balance).count());
        let loads: Vec<f32> = self.program.read(loads)?;
        let shares = loads.chunks(loads.len() / layers).map(|layer| {
            let all: f64 = layer[..experts].iter().map(|n| f64::from(*n)).sum();
            layer[..experts].iter().map(|n| f64::from(*n) / all.max(1.0)).collect()
        });
        Ok(Some(ExpertUse { shares: shares.collect() }))
    }

    /// Mean cross-entropy of windows, in nats per token. Each batch has as many sequences as a micro-batch. Rows whose target
    /// is [`IGNORE`] do not count. Weights are rounded first, since they may have changed.
    ///
    /// # Errors
    /// When the device fails, or an id is beyond the vocabulary.
    pub async fn fetch_loss(&mut self, batches: impl IntoIterator<Item = Batch>) -> Result<f64> {
        self.try_fetch_loss(batches.into_iter().map(Ok)).await
    }

    /// [`Trainer::fetch_loss`] of batches that may not be readable; the first error ends it.
    pub(super) async fn try_fetch_loss(&mut self, batches: impl IntoIterator<Item = Result<Batch>>) -> Result<f64> {
        self.program.run_section(self.step.sections.begin)?;
        let (mut sum, mut count) = (0.0, 0u64);
        for batch in batches {
            let batch = batch?;
            self.check(&batch)?;
            self.feed(&batch);
            self.program.run_unless_stopped(self.step.sections.eval)?;
            let losses: Vec<f32> = self.program.fetch(self.step.targets.losses).await?;
            sum += losses.iter().map(|l| f64::from(*l)).sum::<f64>();
            count += batch.targets.iter().filter(|t| **t != IGNORE).count() as u64;
        }
        Ok(sum / count.max(1) as f64)
    }

    /// [`Trainer::fetch_loss`] for callers that can block.
    #[cfg(feature = "native")]
    pub fn evaluate(&mut self, batches: impl IntoIterator<Item = Batch>) -> Result<f64> {
        pollster::block_on(self.fetch_loss(batches))
    }
}
