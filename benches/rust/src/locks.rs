//! A counter behind a mutex: alone, and with threads that contend for it.

use crate::measure::{Contender, Row, together};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// A counter behind the peer's mutex.
trait Counter: Sync {
    fn new() -> Self;
    fn add(&self);
    fn total(&self) -> u64;
}

impl Counter for raddle::sync::Mutex<u64> {
    fn new() -> Self {
        Self::new(0)
    }
    fn add(&self) {
        *self.lock() += 1;
    }
    fn total(&self) -> u64 {
        *self.lock()
    }
}

impl Counter for std::sync::Mutex<u64> {
    fn new() -> Self {
        Self::new(0)
    }
    fn add(&self) {
        *self.lock().unwrap() += 1;
    }
    fn total(&self) -> u64 {
        *self.lock().unwrap()
    }
}

impl Counter for parking_lot::Mutex<u64> {
    fn new() -> Self {
        Self::new(0)
    }
    fn add(&self) {
        *self.lock() += 1;
    }
    fn total(&self) -> u64 {
        *self.lock()
    }
}

fn alone<C: Counter>(operations: u64) -> Duration {
    let counter = C::new();
    let begin = Instant::now();
    for _ in 0..operations {
        black_box(&counter).add();
    }
    let spent = begin.elapsed();
    assert_eq!(counter.total(), operations);
    spent
}

/// `work` is what a thread does between two sections, in turns of an empty loop.
fn contended<C: Counter>(operations: u64, threads: u64, work: u32) -> Duration {
    let counter = C::new();
    let share = operations / threads;
    let body = || {
        for _ in 0..share {
            counter.add();
            for turn in 0..work {
                black_box(turn);
            }
        }
    };
    let spent = together((0..threads).map(|_| Box::new(body) as Box<dyn FnOnce() + Send>).collect());
    assert_eq!(counter.total(), share * threads);
    spent
}

fn by_2<C: Counter>(operations: u64) -> Duration {
    contended::<C>(operations, 2, 0)
}

fn by_4<C: Counter>(operations: u64) -> Duration {
    contended::<C>(operations, 4, 0)
}

fn by_4_working<C: Counter>(operations: u64) -> Duration {
    contended::<C>(operations, 4, 200)
}

/// The same workload over each peer's mutex.
macro_rules! peers {
    ($run:ident) => {
        vec![
            Contender { name: "raddle", run: $run::<raddle::sync::Mutex<u64>> },
            Contender { name: "std", run: $run::<std::sync::Mutex<u64>> },
            Contender { name: "parking_lot", run: $run::<parking_lot::Mutex<u64>> },
        ]
    };
}

/// The rows of this file.
pub fn rows() -> Vec<Row> {
    vec![
        Row::new("lock, uncontended", 1, peers!(alone)),
        Row::new("lock, 2 threads", 2, peers!(by_2)),
        Row::new("lock, 4 threads", 2, peers!(by_4)),
        Row::new("lock, 4 threads with work between", 2, peers!(by_4_working)),
        Row::pinned("lock, 4 threads, one core", peers!(by_4)),
    ]
}
