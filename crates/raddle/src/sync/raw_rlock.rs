//! A re-entrant lock: a [`RawLock`] and a depth that only the owner touches.

use super::RawLock;
use crate::park::{Parking, Stop};
use crate::primitive::{AtomicUsize, Ordering, const_unless_loom};
use crate::trace::{Claim, Kind, Resource, Site, Waker};
use std::fmt;

/// A lock that its owner may take again; free when released as often.
#[derive(Debug, Default)]
pub struct RawRLock {
    lock: RawLock,
    /// How often the owner has taken it. Read and written by the owner only, hence relaxed.
    depth: AtomicUsize,
}

/// The calling thread does not hold the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOwner;

impl fmt::Display for NotOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("release of a re-entrant lock by a thread that does not hold it")
    }
}

impl std::error::Error for NotOwner {}

impl RawRLock {
    const_unless_loom! {
        /// A free lock.
        pub fn new() -> Self {
            Self { lock: RawLock::new(), depth: AtomicUsize::new(0) }
        }
    }

    /// Takes the lock if it is free or already this thread's. Never blocks.
    #[inline]
    pub fn try_acquire(&self, me: usize) -> bool {
        self.try_deepen(me) > 0
    }

    /// [`try_acquire`](Self::try_acquire) that says how often the thread holds the lock now; 0: not at all.
    #[inline]
    pub fn try_deepen(&self, me: usize) -> usize {
        let depth = if self.is_owned_by(me) {
            self.depth.load(Ordering::Relaxed) + 1
        } else if self.lock.try_acquire(me) {
            1
        } else {
            return 0;
        };
        self.depth.store(depth, Ordering::Relaxed);
        depth
    }

    /// Takes the lock, blocking while another thread holds it.
    ///
    /// # Errors
    /// [`Stop`], and then the lock is not taken.
    pub fn acquire_slow(&self, me: usize, parking: &mut Parking<'_>) -> Result<(), Stop> {
        if self.try_acquire(me) {
            return Ok(());
        }
        self.lock.acquire_slow(me, parking)?;
        self.depth.store(1, Ordering::Relaxed);
        Ok(())
    }

    /// Undoes one acquire of this thread. Never blocks.
    ///
    /// # Errors
    /// [`NotOwner`] if this thread does not hold it.
    #[inline]
    pub fn release(&self, me: usize) -> Result<(), NotOwner> {
        if !self.is_owned_by(me) {
            return Err(NotOwner);
        }
        let depth = self.depth.load(Ordering::Relaxed);
        self.depth.store(depth - 1, Ordering::Relaxed);
        if depth == 1 {
            self.lock.release(me).map_err(|_| NotOwner)?;
        }
        Ok(())
    }

    /// Lets go of it altogether and says how often it was held, for [`RawRLock::restore`].
    ///
    /// # Errors
    /// [`NotOwner`] if this thread does not hold it.
    pub fn release_all(&self, me: usize) -> Result<usize, NotOwner> {
        if !self.is_owned_by(me) {
            return Err(NotOwner);
        }
        let depth = self.depth.swap(0, Ordering::Relaxed);
        self.lock.release(me).map_err(|_| NotOwner)?;
        Ok(depth)
    }

    /// Sets the depth after the owner has taken the lock once.
    pub fn restore(&self, depth: usize) {
        self.depth.store(depth, Ordering::Relaxed);
    }

    /// Whether this thread holds it.
    #[inline]
    pub fn is_owned_by(&self, me: usize) -> bool {
        // Relaxed: a thread that reads its own token wrote it, and no other thread can write it.
        self.lock.owner() == me
    }

    /// How often its owner holds it; 0 while it is free.
    pub fn depth(&self) -> usize {
        if self.lock.is_locked() { self.depth.load(Ordering::Relaxed) } else { 0 }
    }

    /// Whether somebody holds it now.
    pub fn is_locked(&self) -> bool {
        self.lock.is_locked()
    }

    /// The token of the thread that holds it; 0 while it is free.
    pub fn owner(&self) -> usize {
        self.lock.owner()
    }

    /// Whether the thread that took it has ended and left it so. Its token may be another thread's by now.
    #[cfg(not(raddle_loom))]
    pub fn is_left(&self) -> bool {
        self.lock.is_left()
    }

    /// Who releases it; for this kind it does not matter.
    pub fn usage(&self) -> &crate::trace::Usage {
        self.lock.usage()
    }

    /// Notes where it was taken. Called by the owner.
    #[inline]
    pub fn set_taken_at(&self, site: Option<Site>) {
        self.lock.set_taken_at(site);
    }

    /// Where the owner took it first, if that is kept.
    pub fn taken_at(&self) -> Option<Site> {
        self.lock.taken_at()
    }

    /// The longest wait for it so far, in seconds.
    pub fn longest_wait(&self) -> f32 {
        self.lock.longest_wait()
    }

    /// Makes it free, in a forked child whose other threads are gone.
    pub fn reset(&self) {
        self.depth.store(0, Ordering::Relaxed);
        self.lock.reset();
    }
}

impl Resource for RawRLock {
    fn wakers(&self, _kind: Kind, out: &mut Vec<Waker>) -> Claim {
        self.lock.wakers_with(Claim::Proven, out)
    }

    fn waited(&self, nanoseconds: u64) {
        self.lock.waited(nanoseconds);
    }
}
