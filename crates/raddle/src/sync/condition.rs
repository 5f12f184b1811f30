//! A condition: a line of waiters, woken first come, first served, each on a word of its own.
//!
//! The lock that goes with it is the caller's business: enlist while holding it, release it, wait,
//! take it again. A notification is given to the waiter that is first in line at that moment, and a
//! waiter that gives up learns whether it was given one all the same.

use crate::park::{Parking, Stop, generation};
use crate::primitive::{AtomicU32, Futex, Ordering, Spin, const_unless_loom};
use crate::trace::{Claim, Kind, Resource, Waker};
use std::collections::VecDeque;
use std::sync::Arc;

const IN_LINE: u32 = 0;
const NOTIFIED: u32 = 1;

/// See the module.
#[derive(Debug, Default)]
pub struct Condition {
    line: Spin<VecDeque<Arc<Waiter>>>,
    longest: AtomicU32,
}

/// A place in a condition's line.
#[derive(Debug)]
pub struct Waiter {
    word: Futex,
    /// 1 while its thread sleeps, 0 while it still spins.
    sleepers: AtomicU32,
    /// The process it waits in: after a fork, the child's notifications are not for the parent's waiters.
    generation: u32,
}

impl Waiter {
    /// Whether it has been notified.
    pub fn is_notified(&self) -> bool {
        self.word.load(Ordering::Acquire) == NOTIFIED
    }
}

impl Condition {
    const_unless_loom! {
        /// With nobody waiting.
        pub fn new() -> Self {
            Self { line: Spin::new(VecDeque::new()), longest: AtomicU32::new(0) }
        }
    }

    /// Takes a place at the end of the line. Called with the caller's lock held.
    pub fn enlist(&self) -> Arc<Waiter> {
        let waiter =
            Arc::new(Waiter { word: Futex::new(IN_LINE), sleepers: AtomicU32::new(0), generation: generation() });
        self.line.lock().push_back(Arc::clone(&waiter));
        waiter
    }

    /// Blocks until `waiter` is notified. Called without the caller's lock.
    ///
    /// # Errors
    /// [`Stop`]: the caller then [`withdraw`](Self::withdraw)s, which decides whether a notification
    /// came first after all.
    pub fn wait(&self, waiter: &Waiter, parking: &mut Parking<'_>) -> Result<(), Stop> {
        while !waiter.is_notified() {
            parking.park(&waiter.word, IN_LINE, Some(&waiter.sleepers))?;
        }
        Ok(())
    }

    /// Gives up a place in the line; false if it was notified before.
    ///
    /// Leaving the line and being notified exclude each other: the line's lock decides.
    pub fn withdraw(&self, waiter: &Arc<Waiter>) -> bool {
        let mut line = self.line.lock();
        let place = line.iter().position(|other| Arc::ptr_eq(other, waiter));
        let removed = place.and_then(|at| line.remove(at));
        drop(line);
        removed.is_some()
    }

    /// Notifies up to `count` waiters, the longest waiting first; says how many.
    pub fn notify(&self, count: usize) -> usize {
        let mut notified = 0;
        while notified < count {
            let Some(waiter) = self.line.lock().pop_front() else { break };
            if waiter.generation != generation() {
                // Its thread was left behind by a fork.
                continue;
            }
            // SeqCst: pairs with `Parking::park`, which counts the sleeper before the kernel compares.
            waiter.word.store(NOTIFIED, Ordering::SeqCst);
            if waiter.sleepers.load(Ordering::SeqCst) > 0 {
                waiter.word.wake(1);
            }
            notified += 1;
        }
        notified
    }

    /// How many wait.
    pub fn waiters(&self) -> usize {
        let generation = generation();
        self.line.lock().iter().filter(|waiter| waiter.generation == generation).count()
    }

    /// The longest wait so far, in seconds.
    pub fn longest_wait(&self) -> f32 {
        f32::from_bits(self.longest.load(Ordering::Relaxed))
    }

    /// Forgets all waiters, in a forked child.
    pub fn reset(&self) {
        let line = std::mem::take(&mut *self.line.lock());
        drop(line);
    }
}

impl Resource for Condition {
    fn wakers(&self, _kind: Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }

    fn waited(&self, nanoseconds: u64) {
        super::record_longest(&self.longest, nanoseconds);
    }
}
