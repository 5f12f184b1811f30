//! Thread pools: a task and its result in turn, and bursts of tasks that do almost nothing.
//!
//! `rayon` and `threadpool` hand out no result by themselves: there it comes back through a `crossbeam` channel of
//! one place, made for each task as the handle is.

use crate::measure::{Contender, Row, together};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// A pool under test.
trait Pool: Sync {
    fn new(workers: usize) -> Self;
    /// Has a worker run it.
    fn execute(&self, task: impl FnOnce() + Send + 'static);
    /// Has a worker run it, and waits for the result.
    fn call(&self, task: impl FnOnce() -> u64 + Send + 'static) -> u64 {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        self.execute(move || sender.send(task()).expect("the caller waits"));
        receiver.recv().expect("the task sends")
    }
}

impl Pool for raddle::pool::ThreadPool {
    fn new(workers: usize) -> Self {
        Self::new(workers)
    }
    fn execute(&self, task: impl FnOnce() + Send + 'static) {
        Self::execute(self, task);
    }
    fn call(&self, task: impl FnOnce() -> u64 + Send + 'static) -> u64 {
        self.spawn(task).join().expect("the task does not panic")
    }
}

impl Pool for rayon::ThreadPool {
    fn new(workers: usize) -> Self {
        rayon::ThreadPoolBuilder::new().num_threads(workers).build().expect("threads can be started")
    }
    fn execute(&self, task: impl FnOnce() + Send + 'static) {
        self.spawn(task);
    }
}

impl Pool for threadpool::ThreadPool {
    fn new(workers: usize) -> Self {
        Self::new(workers)
    }
    fn execute(&self, task: impl FnOnce() + Send + 'static) {
        Self::execute(self, task);
    }
}

/// Runs once in each sample, so that all workers are there.
fn warm<P: Pool>(pool: &P) {
    for _ in 0..20 {
        pool.call(|| 0);
    }
}

fn ping_pong<P: Pool>(operations: u64, workers: usize) -> Duration {
    let pool = P::new(workers);
    warm(&pool);
    let begin = Instant::now();
    for number in 0..operations {
        assert_eq!(pool.call(move || number), number);
    }
    begin.elapsed()
}

fn in_turn<P: Pool>(operations: u64) -> Duration {
    ping_pong::<P>(operations, 1)
}

fn in_turn_of_four<P: Pool>(operations: u64) -> Duration {
    ping_pong::<P>(operations, 4)
}

/// Wakes the submitter when the last task has run.
struct Countdown {
    left: AtomicU64,
    waiter: Thread,
}

impl Countdown {
    fn wait(&self) {
        while self.left.load(Ordering::Acquire) > 0 {
            std::thread::park();
        }
    }
}

/// Submits so many tasks and waits until all have run.
fn submit<P: Pool>(pool: &P, tasks: u64) {
    let countdown = Arc::new(Countdown { left: AtomicU64::new(tasks), waiter: std::thread::current() });
    for _ in 0..tasks {
        let countdown = Arc::clone(&countdown);
        pool.execute(move || {
            if countdown.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                countdown.waiter.unpark();
            }
        });
    }
    countdown.wait();
}

fn burst<P: Pool>(operations: u64, submitters: u64) -> Duration {
    let pool = P::new(4);
    warm(&pool);
    let (pool, share) = (&pool, operations / submitters);
    together((0..submitters).map(|_| Box::new(move || submit(pool, share)) as Box<dyn FnOnce() + Send + '_>).collect())
}

fn one_submitter<P: Pool>(operations: u64) -> Duration {
    burst::<P>(operations, 1)
}

fn two_submitters<P: Pool>(operations: u64) -> Duration {
    burst::<P>(operations, 2)
}

macro_rules! pools {
    ($run:ident) => {
        vec![
            Contender { name: "raddle", run: $run::<raddle::pool::ThreadPool> },
            Contender { name: "rayon", run: $run::<rayon::ThreadPool> },
            Contender { name: "threadpool", run: $run::<threadpool::ThreadPool> },
        ]
    };
}

/// The rows of this file.
pub fn rows() -> Vec<Row> {
    vec![
        Row::new("pool, spawn and join in turn, 1 worker", 2, pools!(in_turn)),
        Row::new("pool, spawn and join in turn, 4 workers", 2, pools!(in_turn_of_four)),
        Row::pinned("pool, spawn and join in turn, 4 workers, one core", pools!(in_turn_of_four)),
        Row::burst("pool, burst of 100,000 tasks, 4 workers", 2, pools!(one_submitter)),
        Row::burst("pool, burst of 100,000, 2 submitters", 2, pools!(two_submitters)),
    ]
}
