//! The thread that owns the engine. Requests come through a channel and wait in order for a slot, up to the queue limit.
//! Tokens go back through one unbounded channel for each sequence. Its length is bounded by the context of the sequence.
//!
//! When the device fails, its model is loaded again. Requests that have had no token run again, once; the others are told. A
//! device that fails again and again is given up.

use super::error::ApiError;
use super::metrics::Metrics;
use super::recovery::Source;
use crate::infer::{Engine, Event, FinishReason, Sampling, SequenceId};
use crate::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use warp::http::StatusCode;

/// The largest queue limit. Every waiting request holds the memory of its prompt.
const LONGEST_QUEUE: usize = 1 << 16;

/// A device that fails more often than this, within [`WITHIN`], is given up.
const MOST_LOSSES: usize = 3;
/// See [`MOST_LOSSES`].
const WITHIN: Duration = Duration::from_secs(60);
/// Time between two attempts to open a device: a driver takes a while to come back.
const PAUSE: Duration = Duration::from_millis(500);

/// News of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// The next token.
    Token(u32),
    /// The sequence has ended.
    Finished(FinishReason),
    /// The sequence cannot start or go on.
    Failed(ApiError),
}

/// A request for the engine.
struct Job {
    prompt: Vec<u32>,
    sampling: Sampling,
    cancelled: Arc<AtomicBool>,
    updates: UnboundedSender<Update>,
    since: Instant,
    admitted: OwnedSemaphorePermit,
    /// The device failed while it ran.
    again: bool,
}

/// A request that runs or waits. Dropping it frees its slot.
pub struct Ticket {
    /// News of its sequence, in order.
    pub updates: UnboundedReceiver<Update>,
    cancelled: Arc<AtomicBool>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancelled.store(true, Relaxed);
    }
}

/// The connection to the engine's thread, which ends when this is dropped.
pub struct EngineHandle {
    jobs: Sender<Job>,
    /// The queue limit: how many requests may wait.
    limit: usize,
    /// One permit for each slot and for each request that may wait.
    permits: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    cut: Arc<AtomicBool>,
    state: Shared,
}

/// What the thread does.
#[derive(Clone, Debug)]
pub enum Phase {
    /// It serves.
    Serving,
    /// It opens a device, since the last one failed.
    Reopening,
    /// It has ended; the error is the answer to every request.
    Ended(ApiError),
}

/// What the thread does, and on what.
#[derive(Clone, Debug)]
pub struct State {
    /// What it does.
    pub phase: Phase,
    /// The device, in words.
    pub device: String,
}

/// The state that the thread tells everybody.
#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn get(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EngineHandle {
    /// Starts the thread. `device` says what the engine runs on, and `sources` where to get another, best first.
    ///
    /// # Errors
    /// When the limit is too large, or the system cannot start a thread.
    pub fn spawn(
        engine: Engine,
        device: String,
        sources: VecDeque<Source>,
        limit: usize,
        metrics: Arc<Metrics>,
    ) -> Result<EngineHandle> {
        if limit > LONGEST_QUEUE {
            return Err(Error::usage(format!("--queue {limit}: at most {LONGEST_QUEUE} requests may wait")));
        }
        let (jobs, received) = channel();
        let permits = Arc::new(Semaphore::new(engine.free_slots() + limit));
        let cut = Arc::new(AtomicBool::new(false));
        let state = Shared(Arc::new(Mutex::new(State { phase: Phase::Serving, device })));
        metrics.slots.store(engine.free_slots(), Relaxed);
        metrics.dispatches_per_token.store(engine.dispatches_per_token(), Relaxed);
        let worker = Worker {
            jobs: received,
            waiting: VecDeque::new(),
            running: HashMap::new(),
            metrics: Arc::clone(&metrics),
            cut: Arc::clone(&cut),
            state: Ends(state.clone()),
            sources,
            losses: Vec::new(),
        };
        let started = std::thread::Builder::new().name("engine".into()).spawn(move || worker.run(engine));
        started.map_err(|e| Error::Device(format!("the thread of the engine cannot start: {e}")))?;
        Ok(EngineHandle { jobs, limit, permits, metrics, cut, state })
    }

    /// Puts a request in the queue.
    ///
    /// # Errors
    /// 429 when every slot is taken and the queue is full, 503 when the device was given up, 500 when the thread has failed.
    pub fn submit(&self, prompt: Vec<u32>, sampling: Sampling) -> Result<Ticket, ApiError> {
        if let Phase::Ended(error) = self.state().phase {
            return Err(error);
        }
        let Ok(admitted) = Arc::clone(&self.permits).try_acquire_owned() else {
            let message = format!("every slot is taken and the queue of {} is full: try again later", self.limit);
            let full = ApiError::new(StatusCode::TOO_MANY_REQUESTS, message);
            return Err(full.code("queue_full").retry_after(1));
        };
        let (updates, received) = unbounded_channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let ticket = Ticket { updates: received, cancelled: Arc::clone(&cancelled) };
        let job = Job { prompt, sampling, cancelled, updates, since: Instant::now(), admitted, again: false };
        self.metrics.waiting.fetch_add(1, Relaxed);
        if self.jobs.send(job).is_err() {
            self.metrics.waiting.fetch_sub(1, Relaxed);
            return Err(stopped());
        }
        Ok(ticket)
    }

    /// Ends every running sequence, and refuses the waiting requests.
    pub fn cut(&self) {
        self.cut.store(true, Relaxed);
    }

    /// What the thread does, and on what.
    pub fn state(&self) -> State {
        self.state.get().clone()
    }
}

fn stopped() -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the engine has stopped").code("engine_error")
}

/// 503: the device failed.
fn lost(what: &str) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, what).code("device_lost")
}

/// Tells the end of the thread, even by a panic.
struct Ends(Shared);

impl Drop for Ends {
    fn drop(&mut self) {
        let phase = &mut self.0.get().phase;
        if !matches!(phase, Phase::Ended(_)) {
            *phase = Phase::Ended(stopped());
        }
    }
}

struct Running {
    updates: UnboundedSender<Update>,
    cancelled: Arc<AtomicBool>,
    since: Instant,
    /// What it takes to run it again; `None` once it had a token or was run again.
    request: Option<(Vec<u32>, Sampling)>,
    started: bool,
    /// Held for as long as the slot.
    admitted: OwnedSemaphorePermit,
}

struct Worker {
    jobs: Receiver<Job>,
    waiting: VecDeque<Job>,
    running: HashMap<SequenceId, Running>,
    metrics: Arc<Metrics>,
    cut: Arc<AtomicBool>,
    state: Ends,
    /// Where to get an engine when the device fails, best first.
    sources: VecDeque<Source>,
    /// When the device failed, or could not be opened, within [`WITHIN`].
    losses: Vec<Instant>,
}

impl Worker {
    fn run(mut self, mut engine: Engine) {
        while let Err(error) = self.serve(&mut engine) {
            // Its memory may be all that there is.
            drop(engine);
            self.interrupt(&error);
            match self.reopen() {
                Ok(again) => engine = again,
                Err(why) => return self.give_up(&format!("{error}; {why}")),
            }
        }
    }

    /// Serves until nobody can ask any more.
    ///
    /// # Errors
    /// When the device fails.
    fn serve(&mut self, engine: &mut Engine) -> Result<()> {
        loop {
            if self.running.is_empty() && self.waiting.is_empty() {
                let Ok(job) = self.jobs.recv() else { return Ok(()) };
                self.waiting.push_back(job);
            }
            self.waiting.extend(self.jobs.try_iter());
            if self.cut.load(Relaxed) {
                self.cut_all();
            }
            self.start_waiting(engine);
            if !self.running.is_empty() {
                self.step(engine)?;
            }
        }
    }

    fn cut_all(&mut self) {
        for running in self.running.values() {
            running.cancelled.store(true, Relaxed);
        }
        for job in self.waiting.drain(..) {
            self.metrics.waiting.fetch_sub(1, Relaxed);
            let _ = job.updates.send(Update::Failed(ApiError::draining()));
        }
    }

    fn start_waiting(&mut self, engine: &mut Engine) {
        let before = self.waiting.len();
        self.waiting.retain(|job| !job.cancelled.load(Relaxed));
        self.metrics.waiting.fetch_sub(before - self.waiting.len(), Relaxed);
        while engine.free_slots() > 0 {
            let Some(job) = self.waiting.pop_front() else { break };
            self.metrics.waiting.fetch_sub(1, Relaxed);
            let Job { prompt, sampling, cancelled, updates, since, admitted, again } = job;
            match engine.start(&prompt, sampling.clone(), Arc::clone(&cancelled)) {
                Ok(id) => {
                    self.metrics.prompt_tokens.fetch_add(prompt.len() as u64, Relaxed);
                    let request = (!again).then_some((prompt, sampling));
                    let running = Running { updates, cancelled, since, request, started: false, admitted };
                    self.running.insert(id, running);
                }
                Err(error) => {
                    drop(admitted);
                    let refused = ApiError::new(StatusCode::BAD_REQUEST, error.to_string());
                    let _ = updates.send(Update::Failed(refused));
                }
            }
        }
        self.metrics.active.store(self.running.len(), Relaxed);
    }

    fn step(&mut self, engine: &mut Engine) -> Result<()> {
        let counted = |engine: &Engine| {
            let (drafts, passes) = (engine.drafts().unwrap_or_default(), engine.passes().unwrap_or_default());
            [drafts.fed, drafts.taken, passes.tokens, passes.passes]
        };
        let before = counted(engine);
        let events = pollster::block_on(engine.step())?;
        let Metrics { drafts, drafts_taken, loop_tokens, loop_passes, .. } = &*self.metrics;
        let counters = [drafts, drafts_taken, loop_tokens, loop_passes];
        for ((counter, now), before) in counters.into_iter().zip(counted(engine)).zip(before) {
            counter.fetch_add(now - before, Relaxed);
        }
        for (id, event) in events {
            let Some(running) = self.running.get_mut(&id) else { continue };
            let update = match event {
                Event::Token(token) => {
                    self.metrics.generated_tokens.fetch_add(1, Relaxed);
                    if !std::mem::replace(&mut running.started, true) {
                        running.request = None;
                        self.metrics.first_token(running.since.elapsed());
                    }
                    Update::Token(token)
                }
                Event::Failed(ref why) => {
                    let status = StatusCode::INTERNAL_SERVER_ERROR;
                    Update::Failed(ApiError::new(status, why).code("model_error"))
                }
                Event::Finished(reason) => {
                    self.metrics.cancelled.fetch_add(u64::from(reason == FinishReason::Cancelled), Relaxed);
                    Update::Finished(reason)
                }
            };
            let updates = running.updates.clone();
            // The slot must be free before the client learns of the end.
            if !matches!(event, Event::Token(_)) {
                self.running.remove(&id);
            }
            // If the client has gone, its ticket has cancelled the sequence.
            let _ = updates.send(update);
        }
        self.metrics.active.store(self.running.len(), Relaxed);
        Ok(())
    }

    /// Takes the sequences off a device that failed: those without a token wait again, the others are told.
    fn interrupt(&mut self, error: &Error) {
        self.state.0.get().phase = Phase::Reopening;
        self.metrics.device_losses.fetch_add(1, Relaxed);
        self.metrics.active.store(0, Relaxed);
        let mut running: Vec<Running> = self.running.drain().map(|(_, running)| running).collect();
        running.sort_by_key(|running| running.since);
        for Running { updates, cancelled, since, request, admitted, .. } in running.into_iter().rev() {
            if let Some((prompt, sampling)) = request {
                self.metrics.waiting.fetch_add(1, Relaxed);
                self.waiting.push_front(Job { prompt, sampling, cancelled, updates, since, admitted, again: true });
            } else {
                drop(admitted);
                let _ = updates.send(Update::Failed(lost(&format!("the device failed: {error}")).retry_after(1)));
            }
        }
        self.losses.push(Instant::now());
    }

    /// An engine with the same model, on the same device or on the next.
    ///
    /// # Errors
    /// Why there is none.
    fn reopen(&mut self) -> Result<Engine, String> {
        let mut why = None;
        while let Some(source) = self.sources.front_mut() {
            self.losses.retain(|loss| loss.elapsed() < WITHIN);
            if self.losses.len() > MOST_LOSSES {
                let often = format!("it failed {} times within {} s", self.losses.len(), WITHIN.as_secs());
                why.get_or_insert(often);
                self.sources.pop_front();
                self.losses.clear();
                continue;
            }
            match source() {
                Ok((engine, device)) => {
                    self.metrics.dispatches_per_token.store(engine.dispatches_per_token(), Relaxed);
                    *self.state.0.get() = State { phase: Phase::Serving, device };
                    return Ok(engine);
                }
                Err(error) => {
                    why = Some(error.to_string());
                    self.losses.push(Instant::now());
                    std::thread::sleep(PAUSE);
                }
            }
        }
        Err(why.unwrap_or_else(|| "there is no way to open it again".to_string()))
    }

    /// Refuses every request from now on.
    fn give_up(mut self, why: &str) {
        let error = lost(&format!("the device failed and was given up: {why}; start the server again"));
        self.state.0.get().phase = Phase::Ended(error.clone());
        self.waiting.extend(self.jobs.try_iter());
        for Job { updates, admitted, .. } in self.waiting.drain(..) {
            drop(admitted);
            self.metrics.waiting.fetch_sub(1, Relaxed);
            let _ = updates.send(Update::Failed(error.clone()));
        }
    }
}
