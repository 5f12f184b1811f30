//! A plain lock: one word to sleep on, one word for the owner.
//!
//! The algorithm is the second mutex of Ulrich Drepper's "Futexes Are Tricky":
//!
//! | state | meaning | release does |
//! |---|---|---|
//! | 0 | free | error |
//! | 1 | held, nobody sleeps | store 0 |
//! | 2 | held, somebody may sleep | store 0, wake one |
//!
//! A sleeper always leaves the state at 2, so whoever is woken and takes the lock keeps it at 2. A sleeper
//! that gives up after it may have been woken repairs the chain: see [`RawLock::acquire_slow`].
//! Any thread may release it. The lock remembers if one that did not take it ever did so: such a lock
//! is a signal, and no edge of a wait-for graph.

use super::record_longest;
use crate::park::{Parking, Stop};
use crate::primitive::{AtomicU32, AtomicUsize, Futex, Ordering, const_unless_loom};
use crate::trace::{Claim, Kind, Resource, Site, Usage, Waker, epoch};
use std::fmt;

const FREE: u32 = 0;
const HELD: u32 = 1;
const WAITED_FOR: u32 = 2;

/// See the module.
#[derive(Debug, Default)]
pub struct RawLock {
    state: Futex,
    /// Where the owner took it, if that is kept.
    taken_at: AtomicU32,
    owner: AtomicUsize,
    /// The epoch in which the owner took it.
    epoch: AtomicU32,
    longest: AtomicU32,
    /// Who has released it so far: its owner or others.
    usage: Usage,
}

/// The lock to be released was not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLocked;

impl fmt::Display for NotLocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("release of a lock that is not held")
    }
}

impl std::error::Error for NotLocked {}

impl RawLock {
    const_unless_loom! {
        /// A free lock.
        pub fn new() -> Self {
            Self {
                state: Futex::new(FREE),
                taken_at: AtomicU32::new(0),
                owner: AtomicUsize::new(0),
                epoch: AtomicU32::new(0),
                longest: AtomicU32::new(0),
                usage: Usage::new(),
            }
        }
    }

    /// Takes the lock for the thread with token `me` if it is free. Never blocks.
    #[inline]
    pub fn try_acquire(&self, me: usize) -> bool {
        if self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        self.owned_by(me);
        true
    }

    /// Takes the lock, blocking until it is free.
    ///
    /// # Errors
    /// [`Stop`], and then the lock is not taken.
    pub fn acquire_slow(&self, me: usize, parking: &mut Parking<'_>) -> Result<(), Stop> {
        let free = || self.state.load(Ordering::Relaxed) == FREE;
        // Not asleep yet, so no wake-up can be for this thread: it may take the lock as 1.
        while parking.spin(free) {
            if self.try_acquire(me) {
                return Ok(());
            }
        }
        loop {
            // From here on this thread may sleep, so the lock is taken as 2, never as 1.
            if self.state.swap(WAITED_FOR, Ordering::Acquire) == FREE {
                self.owned_by(me);
                return Ok(());
            }
            if let Err(stop) = parking.block(&self.state, WAITED_FOR) {
                self.pass_on();
                return Err(stop);
            }
        }
    }

    #[inline]
    fn owned_by(&self, me: usize) {
        self.owner.store(me, Ordering::Relaxed);
        self.epoch.store(epoch(), Ordering::Relaxed);
    }

    /// This thread leaves without the lock, and may have used up the one wake-up of a release.
    ///
    /// If the lock is free, somebody else is woken for it. If it has been taken past the sleepers
    /// (state 1), it is marked as waited for again, so that its release wakes one.
    fn pass_on(&self) {
        if self.state.compare_exchange(HELD, WAITED_FOR, Ordering::Relaxed, Ordering::Relaxed) == Err(FREE) {
            self.state.wake(1);
        }
    }

    /// Releases the lock, whoever holds it, and wakes one waiter. Never blocks.
    ///
    /// # Errors
    /// [`NotLocked`] if it is free.
    #[inline]
    pub fn release(&self, me: usize) -> Result<(), NotLocked> {
        if self.state.load(Ordering::Relaxed) == FREE {
            return Err(NotLocked);
        }
        if self.owner.load(Ordering::Relaxed) == me {
            self.usage.own()
        } else {
            self.usage.foreign()
        }
        self.owner.store(0, Ordering::Relaxed);
        // Release: what was done under the lock is seen by the next acquire.
        match self.state.swap(FREE, Ordering::Release) {
            // Another thread has released it since we looked.
            FREE => return Err(NotLocked),
            WAITED_FOR => self.state.wake(1),
            _ => {}
        }
        Ok(())
    }

    /// Whether somebody holds it now.
    #[inline]
    pub fn is_locked(&self) -> bool {
        self.state.load(Ordering::Relaxed) != FREE
    }

    /// The token of the thread that took it; 0 while it is free.
    #[inline]
    pub fn owner(&self) -> usize {
        self.owner.load(Ordering::Relaxed)
    }

    /// Whether the thread that took it has ended and left it so. Its token may be another thread's by now.
    #[cfg(not(raddle_loom))]
    pub fn is_left(&self) -> bool {
        let owner = self.owner();
        owner != 0 && crate::trace::thread::has_ended(owner, self.epoch.load(Ordering::Relaxed))
    }

    /// Notes where it was taken. Called by the owner.
    #[inline]
    pub fn set_taken_at(&self, site: Option<Site>) {
        self.taken_at.store(Site::to_word(site), Ordering::Relaxed);
    }

    /// Where the owner took it, if that is kept.
    pub fn taken_at(&self) -> Option<Site> {
        Site::from_word(self.taken_at.load(Ordering::Relaxed))
    }

    /// The longest wait for it so far, in seconds; waits under way are not counted.
    pub fn longest_wait(&self) -> f32 {
        f32::from_bits(self.longest.load(Ordering::Relaxed))
    }

    /// Makes it free and forgets everything, in a forked child whose other threads are gone.
    pub fn reset(&self) {
        self.owner.store(0, Ordering::Relaxed);
        self.taken_at.store(0, Ordering::Relaxed);
        self.state.store(FREE, Ordering::Release);
    }

    /// The owner as a detector sees it; `claim` is what an owner of this kind means.
    pub(super) fn wakers_with(&self, claim: Claim, out: &mut Vec<Waker>) -> Claim {
        let token = self.owner();
        if token == 0 || self.usage.is_signal() {
            return Claim::Unknown;
        }
        out.push(Waker { token, site: self.taken_at(), epoch: self.epoch.load(Ordering::Relaxed) });
        claim
    }

    /// Who releases it, as far as that has been seen.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }
}

impl Resource for RawLock {
    fn wakers(&self, _kind: Kind, out: &mut Vec<Waker>) -> Claim {
        self.wakers_with(self.usage.claim(), out)
    }

    fn waited(&self, nanoseconds: u64) {
        record_longest(&self.longest, nanoseconds);
    }
}
