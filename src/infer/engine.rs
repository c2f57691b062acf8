//! The engine runs several sequences side by side, each in a slot with its state on the device. A step feeds one row for
//! each sequence that decodes, and fills up with rows of waiting prompts. It submits them at once and reads one token for
//! each sequence that is past its prompt. What a sequence gets does not depend on the other sequences.
//!
//! Where a device runs nodes later than they are submitted, the next step is submitted before the tokens of the last are read,
//! if all that is missing for it are these tokens, which the device has. The step is of no use for a sequence that ends with
//! its token: what it drew is not taken.
//!
//! On a CPU, the first further head of a model drafts the token behind each that is drawn (self-speculative decoding, Leviathan
//! et al. 2023, with the heads of the model itself as in Gloeckle et al. 2024). The next step feeds both as two rows of the
//! sequence, and both draw a token with the random number of their place. If the first row drew the draft, both tokens count.
//! Otherwise the second is dropped, and what the layers keep of its row is written over when that place is fed again. So every
//! token that counts was drawn from the logits, and by the random number, that it is drawn with one by one: the text is the
//! same. A draft is drawn with the random number of its place too, so that sampled drafts agree as often as greedy ones. There
//! are no drafts for sequences with a repetition penalty, since a token that was dropped would count as seen, and none in models
//! with a mixer that cannot go back.

use super::pages::Pages;
use super::sampling::Sampling;
use super::step::{DecodeStep, PAIR, Rows, SIZES};
use super::weights::{load_tensor, load_weights};
use crate::backend::{Backend, Program, Reading, fusible};
use crate::formats::{ModelFile, Tensor};
use crate::graph::{Graph, Plan, TensorId};
use crate::model::{Model, ModelConfig, State};
use crate::ops::{NO_TOKEN, PAGE, SampleRow, SamplingState};
use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sizes of an engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Sequences that run side by side, from 1 to 512.
    pub slots: usize,
    /// Tokens that a sequence may hold, at most the model's context; 0 takes that, up to [`DEFAULT_CONTEXT`]. Memory is taken
    /// as sequences grow.
    pub context: usize,
}

/// Most tokens of a sequence unless a larger context is asked for.
pub const DEFAULT_CONTEXT: usize = 4096;

impl EngineOptions {
    /// The context that an engine for this model has.
    ///
    /// # Errors
    /// When the model was made for a shorter one.
    pub fn context_of(&self, config: &ModelConfig) -> Result<usize> {
        let (context, longest) = (self.context, config.seq_len);
        match context {
            0 => Ok(longest.min(DEFAULT_CONTEXT)),
            _ if context > longest => {
                Err(Error::usage(format!("a context of {context} tokens: the model was made for {longest}")))
            }
            _ => Ok(context),
        }
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { slots: 4, context: 0 }
    }
}

/// How often drafts were right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drafts {
    /// Drafts that were fed.
    pub fed: u64,
    /// Those that were drawn indeed.
    pub taken: u64,
}

impl Drafts {
    /// Tokens of a step that fed a draft, on average.
    pub fn tokens_a_step(&self) -> f64 {
        1.0 + self.taken as f64 / self.fed.max(1) as f64
    }
}

/// How many passes through the shared layers of a loop decoded tokens took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passes {
    /// Tokens that could take fewer than all.
    pub tokens: u64,
    /// Passes that they took.
    pub passes: u64,
}

impl Passes {
    /// Passes of a token, on average.
    pub fn mean(&self) -> f64 {
        self.passes as f64 / self.tokens.max(1) as f64
    }
}

/// A sequence of one engine. No two sequences of an engine have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(u64);

/// The reason for which a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model drew one of its stop tokens.
    Stop,
    /// It drew `max_tokens` tokens.
    Length,
    /// The context is full.
    Context,
    /// The caller cancelled it.
    Cancelled,
}

/// What happened to a sequence in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The model drew this token.
    Token(u32),
    /// The sequence ended, and its slot is free.
    Finished(FinishReason),
    /// It ended, and its slot is free. The text says why: its logits are not finite numbers, and which op made the first, or it
    /// needed more memory than there is.
    Failed(String),
}

struct Sequence {
    id: SequenceId,
    /// The prompt, then the tokens drawn.
    tokens: Vec<u32>,
    /// Tokens that are in the state of the layers.
    fed: usize,
    drawn: usize,
    /// What the token behind the last may be.
    draft: Option<u32>,
    sampling: Sampling,
    cancelled: Arc<AtomicBool>,
}

impl Sequence {
    /// The draft that the next step may feed. There is none where the token behind it could not count.
    fn draft(&self) -> Option<u32> {
        let room = self.drawn + 1 < self.sampling.max_tokens;
        self.draft.filter(|_| room)
    }
}

/// What an engine puts on a device.
struct Parts {
    plan: Plan,
    model: Model,
    state: State,
    sampling: SamplingState,
    /// One for each number of rows, smallest first.
    steps: Vec<DecodeStep>,
    context: usize,
}

impl Parts {
    /// With `drafts`, the model's first further head takes part.
    fn new(config: &ModelConfig, vocab: usize, options: EngineOptions, drafts: bool) -> Result<Parts> {
        let context = options.context_of(config)?;
        config.check_exits()?;
        // A step has a row for every sequence that decodes.
        let (slots, most) = (options.slots, SIZES[SIZES.len() - 1].0);
        if !(1..=most).contains(&slots) {
            return Err(Error::usage(format!("{slots} sequences side by side: between 1 and {most} are possible")));
        }
        let mut g = Graph::new();
        let model = Model::for_inference(&mut g, &ModelConfig { seq_len: context, ..config.clone() }, vocab);
        let mut state = model.state(&mut g, slots, context);
        if drafts {
            model.add_draft_state(&mut g, &mut state);
        }
        // A step draws for a slot and, behind a draft, for the one of that number beyond all slots.
        let picks = if drafts { 2 * slots } else { slots };
        let sampling = g.sampling_state(picks, vocab);
        let most = context.max(picks);
        let wanted = SIZES.iter().take_while(|(rows, _)| *rows < most).count() + 1;
        let mut sizes: Vec<_> = SIZES.into_iter().take(wanted).collect();
        if drafts {
            sizes.insert(1, PAIR);
        }
        let build = |size| DecodeStep::build(&mut g, &model, &state, sampling, size, (picks, drafts));
        let steps: Vec<DecodeStep> = sizes.into_iter().map(build).collect();
        let fusible = fusible(&g);
        Ok(Parts { plan: Plan::keeping(g, &fusible), model, state, sampling, steps, context })
    }
}

/// What an engine asks of a device, in bytes, when each of its sequences fills its context.
#[derive(Clone, Copy, Debug)]
pub struct EngineNeeds {
    /// Weights as they are read. A CPU also keeps copies in the order of its registers, some of them of f16 values as f32.
    pub weights: u64,
    /// Keys and values.
    pub cache: u64,
    /// Everything else, such as the results of ops.
    pub other: u64,
    /// Operations of the matrix products for one token, two for each multiply-add, without those over cached keys.
    pub flops: u64,
    /// The largest binding of an op.
    pub binding: u64,
}

impl EngineNeeds {
    /// Plans an engine, without a device; one that drafts if the model can. Errors as [`Engine::new`].
    pub fn new(config: &ModelConfig, vocab: usize, options: EngineOptions) -> Result<EngineNeeds> {
        let Parts { plan, model, state, steps, context, .. } = Parts::new(config, vocab, options, config.drafts())?;
        let bytes = |t: TensorId| plan.graph.tensor(t).bytes() as u64;
        let sizes = state.sizes(options.slots * context.div_ceil(PAGE));
        let weights = model.weights.iter().flat_map(|weight| weight.value.tensors()).map(bytes).sum::<u64>();
        let held = sizes.iter().map(|(t, _)| bytes(*t)).sum::<u64>();
        let nodes = steps[0].section.nodes();
        let bound = plan.graph.nodes.iter().flat_map(|node| &node.tensors).map(|t| plan.bound(*t));
        Ok(EngineNeeds {
            weights,
            cache: sizes.iter().map(|(_, bytes)| *bytes as u64).sum(),
            other: (plan.bytes() + plan.scratch()) as u64 - weights - held,
            flops: plan.graph.flops(nodes),
            binding: bound.chain(sizes.iter().map(|(_, bytes)| *bytes)).max().unwrap_or(0) as u64,
        })
    }

    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.weights + self.cache + self.other
    }
}

/// A step that was submitted.
struct Submitted {
    rows: Rows,
    /// The sequence in each slot.
    sequences: Vec<Option<SequenceId>>,
    tokens: Reading,
    drafts: Option<Reading>,
    ends: Option<Reading>,
}

/// A model that generates.
pub struct Engine {
    program: Program,
    model: Model,
    /// One for each number of rows, smallest first.
    steps: Vec<DecodeStep>,
    sampling: SamplingState,
    state: State,
    pages: Pages,
    slots: Vec<Option<Sequence>>,
    /// The next step, if it was submitted early.
    ahead: Option<Submitted>,
    /// None if the engine does not draft.
    drafts: Option<Drafts>,
    /// None if every token takes all passes.
    passes: Option<Passes>,
    vocab: usize,
    context: usize,
    stop: Vec<u32>,
    next: u64,
}

impl Engine {
    /// Loads a model onto a device.
    ///
    /// # Errors
    /// [`Error::Usage`] for sizes out of range, [`Error::Model`] for a file that lacks a weight, and when the device refuses.
    pub fn new(file: &ModelFile, backend: &Backend, options: EngineOptions) -> Result<Engine> {
        let mut engine = Engine::empty(&file.config, file.vocab, &file.text.stop, backend, options)?;
        load_weights(&mut engine.program, &engine.model, file)?;
        Ok(engine)
    }

    /// An engine without weights. [`Engine::load`] loads each. Errors as [`Engine::new`].
    pub fn empty(
        config: &ModelConfig,
        vocab: usize,
        stop: &[u32],
        backend: &Backend,
        options: EngineOptions,
    ) -> Result<Engine> {
        let drafts = config.drafts() && matches!(backend, Backend::Cpu(_));
        let Parts { plan, model, state, sampling, steps, context } = Parts::new(config, vocab, options, drafts)?;
        let mut program = backend.prepare(Arc::new(plan))?;
        program.write(model.rope, &model.rope_table());
        program.write(state.pages, &vec![u32::MAX; options.slots * context.div_ceil(PAGE)]);
        let (slots, pages) = ((0..options.slots).map(|_| None).collect(), Pages::new(options.slots));
        let stop = stop.to_vec();
        let drafts = drafts.then(Drafts::default);
        let passes = (config.exit_entropy > 0.0).then(Passes::default);
        let (ahead, next) = (None, 0);
        Ok(Engine {
            program,
            model,
            steps,
            sampling,
            state,
            pages,
            slots,
            ahead,
            drafts,
            passes,
            vocab,
            context,
            stop,
            next,
        })
    }

    /// Loads one weight.
    ///
    /// # Errors
    /// [`Error::Model`] for a weight that the model does not have, or has in another form.
    pub fn load(&mut self, tensor: &Tensor) -> Result<()> {
        load_tensor(&mut self.program, &self.model, tensor)
    }

    /// Waits until the device has finished.
    ///
    /// # Errors
    /// What went wrong on the device since the last time.
    pub async fn ready(&mut self) -> Result<()> {
        self.program.ready().await
    }

    /// Tokens that a sequence may hold.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Number of slots without a sequence.
    pub fn free_slots(&self) -> usize {
        self.slots.iter().filter(|s| s.is_none()).count()
    }

    /// Dispatches for each decoded token of a single sequence, or kernels on the CPU.
    pub fn dispatches_per_token(&self) -> usize {
        self.program.dispatches(self.steps[0].section.nodes())
    }

    /// The plan of all its steps, one section for each number of rows.
    pub fn plan(&self) -> &Plan {
        self.program.plan()
    }

    /// Pages of keys and values that the device has room for, of [`PAGE`] tokens each.
    pub fn pages(&self) -> usize {
        self.pages.held()
    }

    /// Bytes of all buffers on the device.
    pub fn device_bytes(&self) -> usize {
        self.program.bytes()
    }

    /// Largest number of rows in a step.
    pub fn most_rows(&self) -> usize {
        self.steps.last().expect("there is a step").rows
    }

    /// How often drafts were right so far. None if the engine does not draft: the model has no further head or a mixer that
    /// cannot go back, or runs on a GPU.
    pub fn drafts(&self) -> Option<Drafts> {
        self.drafts
    }

    /// How many passes decoded tokens took so far. None without an exit entropy ([`ModelConfig::set_exit_entropy`]): then all take
    /// as many as the model has.
    pub fn passes(&self) -> Option<Passes> {
        self.passes
    }

    /// Sets the tokens that end a sequence.
    pub fn set_stop(&mut self, stop: Vec<u32>) {
        self.stop = stop;
    }

    /// The program, and the nodes of the step with a single row, for measuring.
    #[cfg(feature = "native")]
    pub(crate) fn single_row(&mut self) -> (&mut Program, std::ops::Range<usize>) {
        (&mut self.program, self.steps[0].section.nodes())
    }

    /// Starts a sequence with `prompt`. It ends when `cancelled` is set.
    ///
    /// # Errors
    /// [`Error::Usage`] if a parameter is out of range, the prompt is empty or leaves no room in the context, an id is beyond
    /// the vocabulary, or no slot is free.
    pub fn start(&mut self, prompt: &[u32], sampling: Sampling, cancelled: Arc<AtomicBool>) -> Result<SequenceId> {
        sampling.check()?;
        if prompt.is_empty() {
            return Err(Error::usage("the prompt is empty"));
        }
        if prompt.len() >= self.context {
            let (n, limit) = (prompt.len(), self.context);
            return Err(Error::usage(format!(
                "the prompt has {n} tokens; the context of {limit} must leave room to answer"
            )));
        }
        sampling.check_tokens(self.vocab)?;
        if let Some(id) = prompt.iter().find(|id| **id as usize >= self.vocab) {
            return Err(Error::usage(format!("token {id}: the model has {} tokens", self.vocab)));
        }
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.ok_or_else(|| Error::usage("every slot has a sequence"))?;
        self.reset(slot, &sampling)?;
        let id = SequenceId(self.next);
        self.next += 1;
        let tokens = prompt.to_vec();
        self.slots[slot] = Some(Sequence { id, tokens, fed: 0, drawn: 0, draft: None, sampling, cancelled });
        Ok(id)
    }

    /// Resets the sampling state of a slot.
    fn reset(&mut self, slot: usize, sampling: &Sampling) -> Result<()> {
        let mut bias = vec![0f32; self.vocab];
        for (token, value) in &sampling.logit_bias {
            bias[*token as usize] = *value;
        }
        let behind_draft = self.drafts.map(|_| slot + self.slots.len());
        for slot in [slot].into_iter().chain(behind_draft) {
            self.program.write_part(self.sampling.bias, slot * self.vocab, &bias);
            self.program.write_part(self.sampling.seen, slot * self.vocab, &vec![0u32; self.vocab]);
        }
        Ok(())
    }

    /// Takes pages for so many positions of a slot.
    fn provide(&mut self, slot: usize, positions: usize) -> Result<()> {
        let slot_pages = self.context.div_ceil(PAGE);
        let (needed, held) = (self.pages.needed(slot, positions), self.pages.held());
        if needed > held {
            // Growing copies what is there. Twice as many pages keep that below what is written. If there is no memory for
            // so many, it is as many as are needed.
            let ample = needed.max(2 * held).min(self.slots.len() * slot_pages);
            let mut grow = |pages| self.program.grow(&self.state.sizes(pages)).map(|()| pages);
            let grown = grow(ample).or_else(|e| if ample > needed { grow(needed) } else { Err(e) })?;
            self.pages.grow(grown);
        }
        let (first, new) = self.pages.take(slot, positions);
        if !new.is_empty() {
            self.program.write_part(self.state.pages, slot * slot_pages + first, new);
        }
        Ok(())
    }

    /// Ends the sequence of a slot.
    fn end(&mut self, slot: usize) -> SequenceId {
        self.pages.release(slot);
        self.slots[slot].take().expect("a sequence that runs").id
    }

    /// Runs one step. Without sequences it does nothing.
    ///
    /// # Errors
    /// When the device fails.
    pub async fn step(&mut self) -> Result<Vec<(SequenceId, Event)>> {
        let mut events = self.drop_cancelled();
        // A step for sequences that have all ended is not waited for.
        let ahead = self.ahead.take().filter(|step| (0..self.slots.len()).any(|slot| self.runs(slot, step)));
        let now = match ahead {
            Some(step) => step,
            None => {
                let Some(rows) = self.next_rows(&mut events)? else { return Ok(events) };
                self.submit(rows).await?
            }
        };
        if let Some(rows) = self.rows_after(&now) {
            self.ahead = Some(self.submit(rows).await?);
        }
        let running: Vec<bool> = (0..self.slots.len()).map(|slot| self.runs(slot, &now)).collect();
        let Submitted { rows, tokens, drafts, ends, .. } = now;
        let tokens: Vec<u32> = bytemuck::pod_collect_to_vec(&self.program.end_read(tokens).await?);
        let drafts: Vec<u32> = match drafts {
            Some(drafts) => bytemuck::pod_collect_to_vec(&self.program.end_read(drafts).await?),
            None => vec![NO_TOKEN; tokens.len()],
        };
        if let Some(ends) = ends {
            let ends = self.program.end_read(ends).await?;
            self.count_passes(&rows, &bytemuck::pod_collect_to_vec(&ends));
        }
        for (slot, fed) in rows.fed {
            if running[slot] {
                self.slots[slot].as_mut().expect("a sequence that was fed").fed += fed;
            }
        }
        let picked = rows.picked.into_iter().zip(rows.guesses).zip(tokens.into_iter().zip(drafts));
        for ((slot, guess), (token, draft)) in picked.filter(|((slot, _), _)| running[*slot]) {
            if !self.counts(slot, guess) {
                continue;
            }
            if token != NO_TOKEN {
                self.take(slot, token, &mut events);
                if let Some(s) = &mut self.slots[slot] {
                    s.draft = Some(draft).filter(|draft| *draft != NO_TOKEN);
                }
                continue;
            }
            #[cfg_attr(not(feature = "native"), expect(unused_mut, reason = "a browser is not told the op"))]
            let mut why = "the logits are not finite numbers".to_string();
            #[cfg(feature = "native")]
            if let Some(op) = self.blame(slot).await? {
                why += &format!(": {op}");
            }
            events.push((self.end(slot), Event::Failed(why)));
        }
        Ok(events)
    }

    /// Counts the passes of the rows of a step, by what it says of the end of each.
    fn count_passes(&mut self, rows: &Rows, ends: &[u32]) {
        let (Some(passes), Some(exits)) = (&mut self.passes, &self.steps[rows.step].exits) else { return };
        for pick in rows.may_end() {
            passes.tokens += 1;
            passes.passes += if ends[pick] == 0 { exits.times() as u64 } else { ends[pick].into() };
        }
    }

    /// Whether the token that was drawn behind a row counts: always, unless the row fed a draft that was wrong, or its sequence
    /// has ended.
    fn counts(&mut self, slot: usize, guess: Option<u32>) -> bool {
        let Some(s) = &mut self.slots[slot] else { return false };
        let Some(guess) = guess else { return true };
        let right = s.tokens.last() == Some(&guess);
        s.fed -= usize::from(!right);
        if let Some(drafts) = &mut self.drafts {
            drafts.fed += 1;
            drafts.taken += u64::from(right);
        }
        right
    }

    /// The rows of the next step, with pages for them. A sequence for which there are none ends.
    fn next_rows(&mut self, events: &mut Vec<(SequenceId, Event)>) -> Result<Option<Rows>> {
        loop {
            let Some(rows) = self.rows() else { return Ok(None) };
            let fed = |slot: usize| self.slots[slot].as_ref().map_or(0, |s| s.fed);
            let wanted: Vec<_> = rows.fed.iter().map(|(slot, count)| (*slot, fed(*slot) + count)).collect();
            let short = wanted.into_iter().find_map(|(slot, n)| Some((slot, self.provide(slot, n).err()?)));
            match short {
                None => return Ok(Some(rows)),
                // It may do without a draft.
                Some((slot, _)) if self.slots[slot].as_mut().is_some_and(|s| s.draft.take().is_some()) => {}
                Some((slot, Error::OutOfMemory(why) | Error::Device(why))) => {
                    events.push((self.end(slot), Event::Failed(why)));
                }
                Some((_, error)) => return Err(error),
            }
        }
    }

    /// Submits a step, and the reading of its tokens.
    async fn submit(&mut self, rows: Rows) -> Result<Submitted> {
        let step = &self.steps[rows.step];
        step.write(&mut self.program, &rows);
        step.run(&mut self.program, &rows, step.section.nodes().end).await?;
        let tokens = self.program.begin_read(step.tokens).await?;
        let drafts = match &step.draft {
            Some(draft) => Some(self.program.begin_read(draft.tokens).await?),
            None => None,
        };
        let ends = match &step.exits {
            Some(exits) => Some(self.program.begin_read(exits.ends()).await?),
            None => None,
        };
        let sequences = self.slots.iter().map(|s| s.as_ref().map(|s| s.id)).collect();
        Ok(Submitted { rows, sequences, tokens, drafts, ends })
    }

    /// Whether the sequence for which a step was submitted still has this slot.
    fn runs(&self, slot: usize, step: &Submitted) -> bool {
        let id = self.slots[slot].as_ref().map(|s| s.id);
        id.is_some() && id == step.sequences[slot]
    }

    /// The rows that follow a step whose tokens are not known yet, but that every sequence goes on with, as far as one can tell
    /// without them.
    fn rows_after(&mut self, submitted: &Submitted) -> Option<Rows> {
        let now = &submitted.rows;
        let (picked, guesses) = (now.picked.clone(), vec![None; now.picked.len()]);
        let mut rows = Rows { step: now.step, picked, guesses, ..Rows::default() };
        let running = self.slots.iter().flatten().count();
        // Row i of the step drew token i.
        let decodes = running == now.picked.len() && now.index.iter().zip(0..).take(running).all(|(row, i)| *row == i);
        if !self.program.runs_later() || !decodes || !now.picked.iter().all(|slot| self.runs(*slot, submitted)) {
            return None;
        }
        for (slot, i) in now.picked.iter().zip(0..) {
            let s = self.slots[*slot].as_ref()?;
            let goes_on = s.drawn + 1 < s.sampling.max_tokens && s.tokens.len() + 1 < self.context;
            if !goes_on || s.fed + 1 != s.tokens.len() {
                return None;
            }
            rows.positions.push(s.tokens.len() as u32);
            rows.slots.push(*slot as u32);
            rows.fed.push((*slot, 1));
            rows.index.push(i);
            rows.pick.push(i);
            rows.params.extend(s.sampling.row(*slot, s.drawn + 1).words());
        }
        rows.pad(&self.steps[rows.step]);
        let wanted: Vec<(usize, usize)> =
            rows.picked.iter().zip(&rows.positions).map(|(s, at)| (*s, *at as usize)).collect();
        wanted.into_iter().all(|(slot, position)| self.provide(slot, position + 1).is_ok()).then_some(rows)
    }

    /// The op that made the first value of a sequence that is not finite: the sequence runs again from its start, op by op.
    #[cfg(feature = "native")]
    async fn blame(&mut self, slot: usize) -> Result<Option<String>> {
        let tokens = self.slots[slot].as_ref().expect("a sequence that was picked").tokens.clone();
        let mut first = 0;
        while first < tokens.len() {
            // Steps without padding, whose rows are those of the sequence alone.
            let left = tokens.len() - first;
            let step = self.steps.iter().rposition(|s| s.rows <= left).expect("a step has one row");
            let DecodeStep { rows, section, .. } = self.steps[step];
            self.write(step, slot, &tokens[first..first + rows], first, false);
            let op = crate::backend::first_not_finite(&mut self.program, section.nodes()).await?;
            if op.is_some() {
                return Ok(op);
            }
            first += rows;
        }
        Ok(None)
    }

    fn drop_cancelled(&mut self) -> Vec<(SequenceId, Event)> {
        let cancelled = |s: &Sequence| s.cancelled.load(Ordering::Relaxed);
        let slots = (0..self.slots.len()).filter(|slot| self.slots[*slot].as_ref().is_some_and(cancelled));
        let slots: Vec<usize> = slots.collect();
        slots.into_iter().map(|slot| (self.end(slot), Event::Finished(FinishReason::Cancelled))).collect()
    }

    /// The rows of the next step.
    fn rows(&self) -> Option<Rows> {
        let waiting = |s: &Sequence| s.tokens.len() - s.fed;
        let decoding = self.slots.iter().flatten().filter(|s| waiting(s) == 1).count();
        let drafts = self.slots.iter().flatten().filter(|s| s.draft().is_some()).count();
        let all = self.slots.iter().flatten().map(waiting).sum::<usize>() + drafts;
        if all == 0 {
            return None;
        }
        let largest = self.most_rows();
        let mut room = largest.min(all) - decoding;
        let step = self.steps.iter().position(|s| s.rows >= largest.min(all)).expect("the largest fits");
        let mut rows = Rows { step, ..Rows::default() };
        for (slot, sequence) in self.slots.iter().enumerate() {
            let Some(s) = sequence else { continue };
            let count = if waiting(s) == 1 { 1 } else { waiting(s).min(room) };
            room -= if waiting(s) == 1 { 0 } else { count };
            if count == 0 {
                continue;
            }
            let draft = s.draft().filter(|_| room > 0);
            room -= usize::from(draft.is_some());
            let (ends, last) = (s.fed + count, s.tokens.len() - 1);
            for (i, id) in (s.fed..).zip(s.tokens[s.fed..ends].iter().chain(&draft)) {
                rows.ids.push(*id);
                rows.positions.push(i as u32);
                rows.slots.push(slot as u32);
                rows.next.push(s.tokens.get(i + 1).copied().unwrap_or(NO_TOKEN));
                let pick = rows.picked.len() as u32;
                rows.drawn.push(if i < last { u32::MAX } else { pick });
                rows.pick.push(if i < last || s.drawn == 0 { u32::MAX } else { pick });
                if i < last {
                    continue;
                }
                let (drawn, slot_of) = (s.drawn + i - last, slot + (i - last) * self.slots.len());
                rows.index.push(rows.ids.len() as u32 - 1);
                rows.picked.push(slot);
                rows.guesses.push(draft.filter(|_| i > last));
                rows.params.extend(s.sampling.row(slot_of, drawn).words());
                let behind = s.sampling.row(slot_of, drawn + 1).words();
                rows.draft_params.extend(if s.sampling.may_draft() { behind } else { SampleRow::NOTHING });
            }
            rows.fed.push((slot, count + usize::from(draft.is_some())));
        }
        rows.pad(&self.steps[step]);
        Some(rows)
    }

    fn take(&mut self, slot: usize, token: u32, events: &mut Vec<(SequenceId, Event)>) {
        let s = self.slots[slot].as_mut().expect("a sequence that was picked");
        let finish = if self.stop.contains(&token) {
            Some(FinishReason::Stop)
        } else {
            s.tokens.push(token);
            s.drawn += 1;
            events.push((s.id, Event::Token(token)));
            if s.drawn >= s.sampling.max_tokens {
                Some(FinishReason::Length)
            } else if s.tokens.len() >= self.context {
                Some(FinishReason::Context)
            } else {
                None
            }
        };
        if let Some(reason) = finish {
            events.push((self.end(slot), Event::Finished(reason)));
        }
    }

    /// Generates after one prompt and waits. Returns the tokens drawn, and why the sequence ended. Errors as
    /// [`Engine::start`], and [`Error::Model`] for logits that are not finite.
    #[cfg(feature = "native")]
    pub fn generate(&mut self, prompt: &[u32], sampling: Sampling) -> Result<(Vec<u32>, FinishReason)> {
        Ok(self.generate_all(&[prompt.to_vec()], &sampling)?.remove(0))
    }

    /// Generates after each prompt, with as many side by side as there are slots. Errors as [`Engine::generate`]; then no
    /// sequence of these prompts is left.
    #[cfg(feature = "native")]
    pub fn generate_all(&mut self, prompts: &[Vec<u32>], sampling: &Sampling) -> Result<Vec<(Vec<u32>, FinishReason)>> {
        let cancelled = Arc::default();
        let results = self.finish_all(prompts, sampling, &cancelled);
        if results.is_err() {
            cancelled.store(true, Ordering::Relaxed);
            self.drop_cancelled();
        }
        results
    }

    #[cfg(feature = "native")]
    fn finish_all(
        &mut self,
        prompts: &[Vec<u32>],
        sampling: &Sampling,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<Vec<(Vec<u32>, FinishReason)>> {
        let mut results: Vec<(Vec<u32>, Option<FinishReason>)> = vec![(Vec::new(), None); prompts.len()];
        let mut running = std::collections::HashMap::new();
        let mut waiting = prompts.iter().enumerate();
        while results.iter().any(|(_, reason)| reason.is_none()) {
            while self.free_slots() > 0
                && let Some((i, prompt)) = waiting.next()
            {
                running.insert(self.start(prompt, sampling.clone(), cancelled.clone())?, i);
            }
            for (id, event) in pollster::block_on(self.step())? {
                let Some(i) = running.get(&id) else { continue };
                match event {
                    Event::Token(token) => results[*i].0.push(token),
                    Event::Finished(reason) => results[*i].1 = Some(reason),
                    Event::Failed(why) => return Err(Error::Model(why)),
                }
            }
        }
        Ok(results.into_iter().map(|(tokens, reason)| (tokens, reason.expect("it ended"))).collect())
    }

    /// Feeds a prompt to a new sequence in chunks of at most `chunk` rows. Returns the logits (vocab) of the last row of each
    /// chunk. With an exit entropy and a `chunk` of 1, tokens are fed as if the model had drawn them: they may take fewer passes.
    ///
    /// # Errors
    /// [`Error::Usage`] if the prompt exceeds the context.
    ///
    /// # Panics
    /// When a sequence is running.
    pub async fn prompt_logits(&mut self, prompt: &[u32], chunk: usize) -> Result<Vec<Vec<f32>>> {
        let mut all = Vec::new();
        for (c, ids) in prompt.chunks(chunk).enumerate() {
            all.push(self.chunk_logits(ids, c * chunk, chunk == 1).await?);
        }
        Ok(all)
    }

    /// [`Engine::prompt_logits`] for one chunk, whose first row has the position `first`; what was fed before it stays. The last
    /// row of a chunk that is `drawn` may take fewer passes: it must be alone.
    pub(crate) async fn chunk_logits(&mut self, ids: &[u32], first: usize, drawn: bool) -> Result<Vec<f32>> {
        let rows = self.feed(ids, first, drawn)?;
        let step = &self.steps[rows.step];
        step.run(&mut self.program, &rows, step.scoring().end).await?;
        let mut logits: Vec<f32> = self.program.fetch(step.logits).await?;
        if let Some(exits) = &step.exits {
            let ends: Vec<u32> = self.program.fetch(exits.ends()).await?;
            self.count_passes(&rows, &ends);
        }
        logits.truncate(self.vocab);
        Ok(logits)
    }

    /// Feeds the start of a prompt to this engine and to one with the same model on another backend, op by op with the same
    /// inputs. Returns the outputs that differ. Errors and panics as [`Engine::prompt_logits`].
    #[cfg(feature = "native")]
    pub fn compare(&mut self, other: &mut Engine, prompt: &[u32]) -> Result<Vec<crate::backend::Difference>> {
        let ids = &prompt[..prompt.len().min(SIZES[2].0).min(self.context)];
        let step = self.feed(ids, 0, false)?.step;
        other.feed(ids, 0, false)?;
        let nodes = self.steps[step].section.nodes();
        let limit = crate::backend::parity_limit;
        pollster::block_on(crate::backend::lockstep(&mut self.program, &mut other.program, nodes, limit))
    }

    /// Writes the rows of one sequence from position `first` on, of which the last gets logits; returns them.
    fn feed(&mut self, ids: &[u32], first: usize, drawn: bool) -> Result<Rows> {
        assert!(self.slots.iter().all(Option::is_none), "sequences are running");
        let (n, limit) = (ids.len(), self.context);
        let step = self.steps.iter().position(|s| s.rows >= n);
        let step = step.filter(|_| first + n <= limit && n > 0);
        let step = step.ok_or_else(|| Error::usage(format!("{n} tokens from {first}: the context holds {limit}")))?;
        self.provide(0, first + n)?;
        Ok(self.write(step, 0, ids, first, drawn))
    }

    /// Writes the rows of one sequence, at most those of the step, from position `first` on.
    fn write(&mut self, step: usize, slot: usize, ids: &[u32], first: usize, drawn: bool) -> Rows {
        let n = ids.len();
        let mut rows = Rows {
            step,
            ids: ids.to_vec(),
            positions: (first as u32..(first + n) as u32).collect(),
            slots: vec![slot as u32; n],
            index: vec![n as u32 - 1],
            pick: if drawn { vec![0] } else { vec![] },
            ..Rows::default()
        };
        rows.pad(&self.steps[step]);
        self.steps[step].write(&mut self.program, &rows);
        rows
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::super::step::Ends;
    use super::*;
    use crate::backend::{Cpu, Level};
    use crate::model::LoopOptions;
    use std::ops::Range;

    #[test]
    fn as_many_sequences_as_the_largest_step_has_rows() {
        let config =
            ModelConfig { dim: 32, layers: 1, heads: 1, kv_heads: 1, ffn: 32, seq_len: 4, ..ModelConfig::default() };
        let backend = Backend::Cpu(Cpu::new(Level::detect(), Some(1)).unwrap());
        let engine = |slots| Engine::empty(&config, 32, &[], &backend, EngineOptions { slots, context: 0 });
        for slots in [0, 513, usize::MAX] {
            let error = engine(slots).err().unwrap().to_string();
            assert!(error.contains(&slots.to_string()) && error.contains("between 1 and 512"), "{error}");
        }
        // All of them decode in one step: each gets a token.
        let mut engine = engine(512).unwrap();
        for _ in 0..512 {
            engine.start(&[1], Sampling::default(), Arc::default()).unwrap();
        }
        assert_eq!(pollster::block_on(engine.step()).unwrap().len(), 512);
    }

    /// Of passes that no row takes, the nodes that make keys and values run alone, and readouts run only where a row may end.
    #[test]
    fn passes_that_no_row_takes_are_left_out() {
        let looped = Some(LoopOptions { before: 0, shared: 1, times: 4, after: 1 });
        let (layers, seq_len) = (2, 8);
        let plain = ModelConfig { dim: 32, layers, heads: 1, kv_heads: 1, ffn: 32, seq_len, ..ModelConfig::default() };
        let backend = Backend::Cpu(Cpu::new(Level::detect(), Some(1)).unwrap());
        let engine = |exit_entropy| {
            let config = ModelConfig { looped, exit_entropy, ..plain.clone() };
            Engine::empty(&config, 32, &[], &backend, EngineOptions { slots: 1, context: 0 }).unwrap()
        };
        let ran = |exit_entropy, drawn| {
            let mut engine = engine(exit_entropy);
            let rows = engine.feed(&[1], 0, drawn).unwrap();
            let (step, end) = (&engine.steps[0], engine.steps[0].section.nodes().end);
            pollster::block_on(step.run(&mut engine.program, &rows, end)).unwrap()
        };
        assert_eq!(ran(0.0, true), engine(0.0).steps[0].section.nodes().len());
        // All logits of a model without weights are equal: the entropy is ln 32 = 3.47.
        let engine = engine(3.5);
        let (step, Ends { passes, carried, .. }) = (&engine.steps[0], engine.steps[0].exits.as_ref().unwrap());
        let ops = |nodes: Range<usize>| engine.plan().graph.nodes[nodes].iter().map(|node| node.op.name);
        let kept: Vec<&str> = carried[1].iter().cloned().flat_map(ops).collect();
        let products = ["rms_norm_quantize", "ternary_matmul", "ternary_matmul"];
        assert_eq!(kept, [&products[..], &["rope", "kv_append", "kv_append", "keep_rows"]].concat());
        let (all, readout) = (step.section.nodes().len(), passes[0].readout.len());
        assert_eq!([ran(3.4, true), ran(3.5, false)], [all, all - 3 * readout]);
        assert_eq!(ran(3.5, true), all - 3 * (readout + passes[1].layers.len() - kept.len()));
    }

    /// A GPU has the next step before the tokens of the last are read, while it is certain that there is one.
    #[test]
    fn the_next_step_is_submitted_before_tokens_are_read() {
        let config =
            ModelConfig { dim: 32, layers: 1, heads: 1, kv_heads: 1, ffn: 32, seq_len: 9, ..ModelConfig::default() };
        let Ok(wgpu) = crate::backend::Wgpu::open(None) else {
            return println!("NOT TESTED on wgpu: this machine has no adapter");
        };
        let cpu = Backend::Cpu(Cpu::new(Level::detect(), Some(1)).unwrap());
        for (backend, early) in [(cpu, false), (Backend::Wgpu(wgpu), true)] {
            let options = EngineOptions { slots: 2, context: 0 };
            let mut engine = Engine::empty(&config, 32, &[], &backend, options).unwrap();
            let sampling = |max_tokens| Sampling { max_tokens, ..Sampling::default() };
            let step = |engine: &mut Engine| {
                let events = pollster::block_on(engine.step()).unwrap();
                (events.iter().filter(|(_, e)| matches!(e, Event::Token(_))).count(), engine.ahead.is_some())
            };
            engine.start(&[1], sampling(100), Arc::default()).unwrap();
            assert_eq!(step(&mut engine), (1, early));
            // The step that was submitted has no row of the second sequence, whose prompt then takes another kind of step.
            engine.start(&[1, 2], sampling(2), Arc::default()).unwrap();
            assert_eq!(step(&mut engine), (if early { 1 } else { 2 }, false));
            if early {
                assert_eq!(step(&mut engine), (2, false));
            }
            assert_eq!(step(&mut engine), (2, false));
            // The first goes on alone, up to its context.
            let mut tokens = if early { 4 } else { 3 };
            while engine.free_slots() < 2 {
                let (drawn, ahead) = step(&mut engine);
                tokens += drawn;
                assert_eq!(ahead, early && tokens < 8, "{tokens} tokens");
            }
            assert_eq!(tokens, 8);
        }
    }

    #[test]
    fn prompts_that_fail_leave_no_sequence_and_no_page() {
        let config =
            ModelConfig { dim: 32, layers: 1, heads: 1, kv_heads: 1, ffn: 32, seq_len: 8, ..ModelConfig::default() };
        let backend = Backend::Cpu(Cpu::new(Level::detect(), Some(1)).unwrap());
        let mut engine = Engine::empty(&config, 32, &[], &backend, EngineOptions { slots: 2, context: 0 }).unwrap();
        let sampling = Sampling { max_tokens: 4, ..Sampling::default() };
        for _ in 0..4 {
            // The second fills its context. The third, which is too long, takes its place while the first goes on.
            let prompts = [vec![1], vec![2; 6], vec![3; 9]];
            assert!(engine.generate_all(&prompts, &sampling).is_err());
            assert_eq!(engine.free_slots(), 2);
        }
        assert!(engine.pages() <= 2, "{} pages", engine.pages());
        assert!(engine.generate_all(&[vec![1], vec![32]], &sampling).is_err());
        assert_eq!(pollster::block_on(engine.prompt_logits(&[1, 2], 2)).unwrap().len(), 1);
    }
}
