//! A fixed set of threads that wait for short jobs: they spin for a moment, because the next op follows at once, then
//! park, so that an idle or busy machine is left alone. Where another program takes a thread's core in the middle of a
//! job, the rest would wait for whole time slices: then the caller goes on alone for a while.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a waiting thread spins before it parks.
const SPIN: Duration = Duration::from_micros(50);
/// A wait from which on a thread is taken to have lost its core, if the caller would have been done sooner without it.
const STALL: Duration = Duration::from_micros(500);
/// How many times as long as such a wait the caller then works alone, and the most.
const ALONE: u32 = 16;
const MOST_ALONE: Duration = Duration::from_millis(200);

type Task = *const (dyn Fn(usize) + Sync);

/// The job being run. The epoch counts jobs; the claims are the epoch (upper 48 bits) and the next part (lower 16 bits),
/// so that a late thread cannot claim a part of a job it has not seen.
struct Shared {
    job: Mutex<(u64, Option<Job>)>,
    wake: Condvar,
    /// Whether the caller sleeps until the last part is done, and what wakes it.
    sleeps: AtomicBool,
    finished: Condvar,
    epoch: AtomicU64,
    next: AtomicU64,
    done: AtomicUsize,
    stop: AtomicUsize,
    panicked: AtomicUsize,
}

#[derive(Clone, Copy)]
struct Job {
    task: Task,
    parts: usize,
}

// SAFETY: the task is Sync, and `Pool::run` keeps it alive until every part is done.
unsafe impl Send for Job {}

/// Threads that run the parts of one job together.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Until when the workers are left alone.
    alone: Option<Instant>,
}

impl Pool {
    /// A pool that works with `threads` threads, the calling one among them.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            job: Mutex::new((0, None)),
            wake: Condvar::new(),
            sleeps: AtomicBool::new(false),
            finished: Condvar::new(),
            epoch: AtomicU64::new(0),
            next: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            stop: AtomicUsize::new(0),
            panicked: AtomicUsize::new(0),
        });
        let mut pool = Pool { shared, workers: Vec::new(), alone: None };
        for _ in 1..threads {
            let shared = pool.shared.clone();
            pool.workers.push(std::thread::Builder::new().spawn(move || worker(&shared))?);
        }
        Ok(pool)
    }

    /// Threads that take part, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(0)`, ..., `task(parts - 1)`, in any order, on any of the threads; returns when all are done.
    ///
    /// # Panics
    /// When a task panicked.
    pub fn run(&mut self, parts: usize, task: &(dyn Fn(usize) + Sync)) {
        if parts <= 1 || self.workers.is_empty() {
            return (0..parts).for_each(task);
        }
        let start = Instant::now();
        if self.alone.is_some_and(|until| start < until) {
            return (0..parts).for_each(task);
        }
        assert!(parts < 1 << 16, "{parts} parts");
        // SAFETY: only the lifetime is erased; this function returns after the last use.
        let task: Task = unsafe { std::mem::transmute(std::ptr::from_ref(task)) };
        let s = &*self.shared;
        {
            let mut job = s.job.lock().unwrap_or_else(|e| e.into_inner());
            job.0 += 1;
            job.1 = Some(Job { task, parts });
            s.done.store(0, Relaxed);
            s.next.store(job.0 << 16, Release);
            s.epoch.store(job.0, Release);
        }
        s.wake.notify_all();
        let mine = work(s, s.epoch.load(Relaxed), Job { task, parts });
        if s.done.load(Acquire) < parts {
            let waits = Instant::now();
            if !spin_until(|| s.done.load(Acquire) == parts) {
                s.sleep(parts);
            }
            self.alone = time_alone(waits - start, mine, parts, waits.elapsed()).map(|time| Instant::now() + time);
        }
        assert!(s.panicked.swap(0, Relaxed) == 0, "a kernel panicked");
    }
}

impl Shared {
    /// Sleeps until all parts are done. An idle core lets the system bring the thread that is waited for.
    fn sleep(&self, parts: usize) {
        let mut job = self.job.lock().unwrap_or_else(|e| e.into_inner());
        self.sleeps.store(true, SeqCst);
        while self.done.load(SeqCst) < parts {
            job = self.finished.wait(job).unwrap_or_else(|e| e.into_inner());
        }
        self.sleeps.store(false, SeqCst);
    }

    /// Counts a part as done.
    fn count(&self, parts: usize) {
        // Either the caller sees this count before it sleeps, or this thread sees that it sleeps.
        if self.done.fetch_add(1, SeqCst) + 1 == parts && self.sleeps.load(SeqCst) {
            drop(self.job.lock().unwrap_or_else(|e| e.into_inner()));
            self.finished.notify_one();
        }
    }
}

/// For how long the caller works alone after a job of which it did `mine` of the parts in its `own` time and then waited for
/// the rest. Threads that are merely slower than the caller are no reason: they are waited for less long than the caller
/// would have taken.
fn time_alone(own: Duration, mine: usize, parts: usize, waited: Duration) -> Option<Duration> {
    let rest = own.checked_mul((parts - mine) as u32)? / u32::try_from(mine).ok().filter(|mine| *mine > 0)?;
    (waited > STALL.max(rest)).then(|| MOST_ALONE.min(waited.saturating_mul(ALONE)))
}

/// Spins for a moment until `ready`; whether it is.
fn spin_until(ready: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..64 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() > SPIN {
            return false;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let _job = self.shared.job.lock().unwrap_or_else(|e| e.into_inner());
            self.shared.stop.store(1, Release);
        }
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

fn worker(s: &Shared) {
    let mut seen = 0;
    while let Some((epoch, job)) = wait(s, seen) {
        seen = epoch;
        work(s, epoch, job);
    }
}

/// The first job after `seen`, or nothing when the pool ends.
fn wait(s: &Shared, seen: u64) -> Option<(u64, Job)> {
    spin_until(|| s.epoch.load(Acquire) != seen || s.stop.load(Relaxed) != 0);
    let mut job = s.job.lock().unwrap_or_else(|e| e.into_inner());
    loop {
        if s.stop.load(Acquire) != 0 {
            return None;
        }
        if let (epoch, Some(j)) = *job
            && epoch != seen
        {
            return Some((epoch, j));
        }
        job = s.wake.wait(job).unwrap_or_else(|e| e.into_inner());
    }
}

/// Claims and runs parts of the job of `epoch` until none is left; how many.
fn work(s: &Shared, epoch: u64, job: Job) -> usize {
    for mine in 0.. {
        let mut claim = s.next.load(Acquire);
        loop {
            // The claims hold as much of the epoch as has room.
            if claim >> 16 != epoch << 16 >> 16 || (claim & 0xffff) as usize >= job.parts {
                return mine;
            }
            match s.next.compare_exchange_weak(claim, claim + 1, AcqRel, Acquire) {
                Ok(_) => break,
                Err(now) => claim = now,
            }
        }
        let part = (claim & 0xffff) as usize;
        // SAFETY: `run` waits for `done`, which counts this part, before the task goes away.
        let task = unsafe { &*job.task };
        if let Err(payload) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| task(part))) {
            // Dropping it may panic as well, but the caller's task must outlive all parts.
            let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(payload)));
            dropped.unwrap_or_else(std::mem::forget);
            s.panicked.store(1, Relaxed);
        }
        s.count(job.parts);
    }
    unreachable!("parts are fewer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads).unwrap();
            for parts in [1, 2, 3, 17].repeat(50) {
                let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                pool.run(parts, &|p| {
                    counts[p].fetch_add(1, Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Relaxed) == 1));
            }
        }
    }

    #[test]
    fn parked_workers_wake() {
        let mut pool = Pool::new(2).unwrap();
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(20));
            let sum = AtomicUsize::new(0);
            pool.run(8, &|p| {
                sum.fetch_add(p, Relaxed);
            });
            assert_eq!(sum.into_inner(), 28);
        }
    }

    #[test]
    fn a_thread_that_lost_its_core_is_left_alone() {
        let ms = Duration::from_millis;
        // One of two parts each: the other took the caller's time, and 4 ms more.
        assert_eq!(time_alone(ms(1), 1, 2, ms(4)), Some(ms(64)));
        assert_eq!(time_alone(ms(1), 1, 2, Duration::from_micros(400)), None, "a moment");
        assert_eq!(time_alone(ms(10), 1, 2, ms(9)), None, "the caller would have taken as long");
        assert_eq!(time_alone(ms(10), 1, 14, ms(20)), None, "slower cores are worth more than none");
        assert_eq!(time_alone(ms(1), 0, 2, ms(4)), None, "nothing to compare with");
        assert_eq!(time_alone(ms(1), 1, 2, Duration::from_secs(600)), Some(MOST_ALONE), "the process was stopped");
    }

    #[test]
    fn the_caller_goes_on_alone_for_a_while() {
        let mut pool = Pool::new(2).unwrap();
        let caller = std::thread::current().id();
        pool.alone = Some(Instant::now() + Duration::from_secs(3600));
        pool.run(8, &|_| assert_eq!(std::thread::current().id(), caller));
        pool.alone = Some(Instant::now());
        let helped = AtomicBool::new(false);
        pool.run(2, &|_| {
            let helper = std::thread::current().id() != caller;
            helped.fetch_or(helper, Relaxed);
            while !helped.load(Relaxed) {
                std::thread::yield_now();
            }
        });
    }

    #[test]
    #[should_panic(expected = "a kernel panicked")]
    fn a_panic_reaches_the_caller() {
        Pool::new(2).unwrap().run(4, &|p| assert!(p != 2));
    }
}
