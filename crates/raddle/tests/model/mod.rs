//! What the loom tests share: how a model is run, a cell that must not be raced for, hosts that give up.
//!
//! Run them with `RUSTFLAGS="--cfg raddle_loom" cargo test -p raddle --release --test 'loom_*'`. A wake-up
//! that is lost shows as loom's "deadlock" panic, a race for a [`Cell`] as "Causality violation".
//!
//! Each property names, under *Seeded*, changes to the core that were made by hand to see it fail.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use raddle::park::{Deadline, Host, Parking, Stop};
use raddle::trace::{Claim, Kind, Resource, Waker};
use std::sync::atomic::{AtomicUsize, Ordering};

pub use loom::sync::Arc;
pub use loom::thread::spawn;

/// Explores every schedule of the model with at most this many preemptions.
pub fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(model);
}

/// A number that is not atomic: loom fails the model where two threads can reach it at once, or where
/// one would not see what the other did.
#[derive(Debug, Default)]
pub struct Cell(loom::cell::UnsafeCell<usize>);

// SAFETY: none to give. It is loom that checks the accesses, which is the point of the type.
unsafe impl Sync for Cell {}

impl Cell {
    pub fn get(&self) -> usize {
        // SAFETY: loom fails the model if a write is under way or not ordered before this.
        self.0.with(|value| unsafe { *value })
    }

    pub fn set(&self, number: usize) {
        // SAFETY: loom fails the model if another access is under way or not ordered with this one.
        self.0.with_mut(|value| unsafe { *value = number });
    }

    pub fn add(&self, number: usize) {
        self.set(self.get() + number);
    }
}

/// Ends the wait the n-th time the model asks, from 0: an even time before the thread falls asleep (a
/// deadline or a signal came first), an odd one after it was woken, which uses a wake-up up.
pub struct Leaves {
    at: usize,
    stop: Stop,
    asked: AtomicUsize,
}

impl Leaves {
    pub fn at(at: usize, stop: Stop) -> Self {
        Self { at, stop, asked: AtomicUsize::new(0) }
    }
}

impl Host for Leaves {
    fn interrupted(&self) -> Result<(), Stop> {
        // Of the standard library: it is no part of the model, only one thread uses it.
        if self.asked.fetch_add(1, Ordering::Relaxed) == self.at { Err(self.stop) } else { Ok(()) }
    }
}

/// Both reasons to leave, at each of the first moments to do so.
pub fn ways_to_leave() -> impl Iterator<Item = (usize, Stop)> {
    (0..3).flat_map(|at| [(at, Stop::TimedOut), (at, Stop::Interrupted)])
}

/// A wait without limit.
pub fn parking<'a>(kind: Kind, object: &'a dyn Resource, host: &'a dyn Host) -> Parking<'a> {
    Parking::new(kind, object, 0, Deadline::NEVER, host)
}

/// What is waited for, where the host brings the object that the wait is told for.
pub struct Nobody;

impl Resource for Nobody {
    fn wakers(&self, _kind: Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }
}
