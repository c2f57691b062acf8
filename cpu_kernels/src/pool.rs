//! A fixed set of threads that wait for short jobs: they spin for a moment, because the next op follows at once, then
//! park, so that an idle or busy machine is left alone.

use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// Rounds of spinning before a waiting thread parks: some tens of microseconds.
const SPINS: u32 = 20_000;

type Task = *const (dyn Fn(usize) + Sync);

/// The job being run. The epoch counts jobs; the claims are the epoch (upper half) and the next part (lower half), so
/// that a late thread cannot claim a part of a job it has not seen.
struct Shared {
    job: Mutex<(usize, Option<Job>)>,
    wake: Condvar,
    epoch: AtomicUsize,
    next: AtomicUsize,
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

pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool that works with `threads` threads, the calling one among them.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            job: Mutex::new((0, None)),
            wake: Condvar::new(),
            epoch: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            stop: AtomicUsize::new(0),
            panicked: AtomicUsize::new(0),
        });
        let workers = (1..threads.max(1))
            .map(|_| {
                let shared = shared.clone();
                std::thread::spawn(move || worker(&shared))
            })
            .collect();
        Pool { shared, workers }
    }

    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(0)`, ..., `task(parts - 1)`, in any order, on any of the threads; returns when all are done.
    ///
    /// # Panics
    /// When a task panicked.
    pub fn run(&mut self, parts: usize, task: &(dyn Fn(usize) + Sync)) {
        if parts <= 1 || self.workers.is_empty() {
            (0..parts).for_each(task);
            return;
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
        work(s, s.epoch.load(Relaxed), Job { task, parts });
        let mut spins = 0;
        while s.done.load(Acquire) < parts {
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        assert!(s.panicked.swap(0, Relaxed) == 0, "a kernel panicked");
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
fn wait(s: &Shared, seen: usize) -> Option<(usize, Job)> {
    for _ in 0..SPINS {
        if s.epoch.load(Acquire) != seen || s.stop.load(Relaxed) != 0 {
            break;
        }
        std::hint::spin_loop();
    }
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

/// Claims and runs parts of the job of `epoch` until none is left.
fn work(s: &Shared, epoch: usize, job: Job) {
    loop {
        let mut claim = s.next.load(Acquire);
        loop {
            if claim >> 16 != epoch || claim & 0xffff >= job.parts {
                return;
            }
            match s.next.compare_exchange_weak(claim, claim + 1, AcqRel, Acquire) {
                Ok(_) => break,
                Err(now) => claim = now,
            }
        }
        let part = claim & 0xffff;
        // SAFETY: `run` waits for `done`, which counts this part, before the task goes away.
        let task = unsafe { &*job.task };
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| task(part))).is_err() {
            s.panicked.store(1, Relaxed);
        }
        s.done.fetch_add(1, AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads);
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
        let mut pool = Pool::new(2);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let sum = AtomicUsize::new(0);
            pool.run(8, &|p| {
                sum.fetch_add(p, Relaxed);
            });
            assert_eq!(sum.into_inner(), 28);
        }
    }

    #[test]
    #[should_panic(expected = "a kernel panicked")]
    fn a_panic_reaches_the_caller() {
        Pool::new(2).run(4, &|p| assert!(p != 2));
    }
}
