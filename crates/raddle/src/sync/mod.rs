//! Locks, conditions and friends. Each knows its owner or its holders, and says so to detectors.
//!
//! The types named `Raw…` and [`Event`], [`Semaphore`], [`Barrier`] are what the Python types are made
//! of; [`Mutex`] and [`Condvar`] are the same with guards, for Rust.

mod barrier;
mod condition;
mod event;
mod mutex;
mod raw_lock;
mod raw_rlock;
mod semaphore;

pub use barrier::{Arrival, Barrier, BarrierError, Phase};
pub use condition::{Condition, Place};
pub use event::Event;
pub use mutex::{Condvar, Mutex, MutexGuard};
pub use raw_lock::{NotLocked, RawLock};
pub use raw_rlock::{NotOwner, RawRLock};
pub use semaphore::Semaphore;

use crate::primitive::{AtomicU32, Ordering};

/// Raises `longest`, the bits of an `f32` of seconds, to `nanoseconds` if that is longer.
pub(crate) fn record_longest(longest: &AtomicU32, nanoseconds: u64) {
    let seconds = nanoseconds as f32 / 1e9;
    // Positive floats order as their bits do.
    longest.fetch_max(seconds.to_bits(), Ordering::Relaxed);
}
