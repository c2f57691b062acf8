//! The thread that owns the engine. Requests come through a channel and wait in order for a slot, up to the queue limit.
//! Tokens go back through one unbounded channel for each sequence. Its length is bounded by the context of the sequence.

use super::error::ApiError;
use super::metrics::Metrics;
use crate::infer::{Engine, Event, FinishReason, Sampling, SequenceId};
use crate::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use warp::http::StatusCode;

/// The largest queue limit. Every waiting request holds the memory of its prompt.
const LONGEST_QUEUE: usize = 1 << 16;

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
    alive: Arc<AtomicBool>,
}

impl EngineHandle {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the limit is too large, or the system cannot start a thread.
    pub fn spawn(engine: Engine, limit: usize, metrics: Arc<Metrics>) -> Result<EngineHandle> {
        if limit > LONGEST_QUEUE {
            return Err(Error::usage(format!("--queue {limit}: at most {LONGEST_QUEUE} requests may wait")));
        }
        let (jobs, received) = channel();
        let permits = Arc::new(Semaphore::new(engine.free_slots() + limit));
        let (cut, alive) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
        metrics.slots.store(engine.free_slots(), Relaxed);
        metrics.dispatches_per_token.store(engine.dispatches_per_token(), Relaxed);
        let worker = Worker {
            engine,
            jobs: received,
            waiting: VecDeque::new(),
            running: HashMap::new(),
            metrics: Arc::clone(&metrics),
            cut: Arc::clone(&cut),
            alive: Alive(Arc::clone(&alive)),
        };
        let started = std::thread::Builder::new().name("engine".into()).spawn(move || worker.run());
        started.map_err(|e| Error::Device(format!("the thread of the engine cannot start: {e}")))?;
        Ok(EngineHandle { jobs, limit, permits, metrics, cut, alive })
    }

    /// Puts a request in the queue.
    ///
    /// # Errors
    /// 429 when every slot is taken and the queue is full, 500 when the engine has failed.
    pub fn submit(&self, prompt: Vec<u32>, sampling: Sampling) -> Result<Ticket, ApiError> {
        if !self.alive() {
            return Err(failed("the engine has stopped"));
        }
        let Ok(admitted) = Arc::clone(&self.permits).try_acquire_owned() else {
            let message = format!("every slot is taken and the queue of {} is full: try again later", self.limit);
            let full = ApiError::new(StatusCode::TOO_MANY_REQUESTS, message);
            return Err(full.code("queue_full").retry_after(1));
        };
        let (updates, received) = unbounded_channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let ticket = Ticket { updates: received, cancelled: Arc::clone(&cancelled) };
        let job = Job { prompt, sampling, cancelled, updates, since: Instant::now(), admitted };
        self.metrics.waiting.fetch_add(1, Relaxed);
        if self.jobs.send(job).is_err() {
            self.metrics.waiting.fetch_sub(1, Relaxed);
            return Err(failed("the engine has stopped"));
        }
        Ok(ticket)
    }

    /// Ends every running sequence, and refuses the waiting requests.
    pub fn cut(&self) {
        self.cut.store(true, Relaxed);
    }

    /// False once a device error or a bug has ended the thread.
    pub fn alive(&self) -> bool {
        self.alive.load(Relaxed)
    }
}

fn failed(what: &str) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, what).code("engine_error")
}

/// Clears the flag when the thread ends, even by a panic.
struct Alive(Arc<AtomicBool>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

struct Running {
    updates: UnboundedSender<Update>,
    cancelled: Arc<AtomicBool>,
    since: Instant,
    started: bool,
    /// Held for as long as the slot.
    _admitted: OwnedSemaphorePermit,
}

struct Worker {
    engine: Engine,
    jobs: Receiver<Job>,
    waiting: VecDeque<Job>,
    running: HashMap<SequenceId, Running>,
    metrics: Arc<Metrics>,
    cut: Arc<AtomicBool>,
    alive: Alive,
}

impl Worker {
    fn run(mut self) {
        loop {
            if self.running.is_empty() && self.waiting.is_empty() {
                let Ok(job) = self.jobs.recv() else { return };
                self.waiting.push_back(job);
            }
            self.waiting.extend(self.jobs.try_iter());
            if self.cut.load(Relaxed) {
                self.cut_all();
            }
            self.start_waiting();
            if !self.running.is_empty()
                && let Err(error) = self.step()
            {
                return self.fail(&error.to_string());
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

    fn start_waiting(&mut self) {
        let before = self.waiting.len();
        self.waiting.retain(|job| !job.cancelled.load(Relaxed));
        self.metrics.waiting.fetch_sub(before - self.waiting.len(), Relaxed);
        while self.engine.free_slots() > 0 {
            let Some(job) = self.waiting.pop_front() else { break };
            self.metrics.waiting.fetch_sub(1, Relaxed);
            let Job { prompt, sampling, cancelled, updates, since, admitted } = job;
            match self.engine.start(&prompt, sampling, Arc::clone(&cancelled)) {
                Ok(id) => {
                    self.metrics.prompt_tokens.fetch_add(prompt.len() as u64, Relaxed);
                    let running = Running { updates, cancelled, since, started: false, _admitted: admitted };
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

    fn step(&mut self) -> Result<()> {
        for (id, event) in pollster::block_on(self.engine.step())? {
            let Some(running) = self.running.get_mut(&id) else { continue };
            let update = match event {
                Event::Token(token) => {
                    self.metrics.generated_tokens.fetch_add(1, Relaxed);
                    if !std::mem::replace(&mut running.started, true) {
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

    /// Reports a failure of the device to every client. Later requests find that the thread has ended.
    fn fail(self, what: &str) {
        self.alive.0.store(false, Relaxed);
        let waiting = self.waiting.iter().map(|job| &job.updates);
        for updates in self.running.values().map(|r| &r.updates).chain(waiting) {
            let _ = updates.send(Update::Failed(failed(what)));
        }
        self.metrics.active.store(0, Relaxed);
    }
}
