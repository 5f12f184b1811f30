//! An event: a flag that threads wait for.
//!
//! The word is `generation << 1 | flag`. A waiter sleeps on the word it saw with the flag down;
//! setting starts a new generation, so that a waiter is let go even if the flag is down again
//! before it runs.

use super::record_longest;
use crate::park::{Parking, Stop};
use crate::primitive::{AtomicU32, Futex, Ordering, const_unless_loom};
use crate::trace::{Claim, Kind, Resource, Waker};

/// See the module.
#[derive(Debug, Default)]
pub struct Event {
    word: Futex,
    sleepers: AtomicU32,
    longest: AtomicU32,
}

impl Event {
    const_unless_loom! {
        /// With the flag down.
        pub fn new() -> Self {
            Self { word: Futex::new(0), sleepers: AtomicU32::new(0), longest: AtomicU32::new(0) }
        }
    }

    /// Whether the flag is up.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.word.load(Ordering::Acquire) & 1 == 1
    }

    /// Raises the flag and lets everybody go who waits. Never blocks.
    #[inline]
    pub fn set(&self) {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & 1 == 1 {
                // Up already. Said to the word itself: a clear comes either after this, and sees what this thread
                // did before, or before it, and then the flag is down and has to be raised.
                word = self.word.fetch_or(0, Ordering::Release);
                if word & 1 == 1 {
                    return;
                }
            }
            let raised = word.wrapping_add(2) | 1;
            // SeqCst: pairs with `Parking::park`, which counts a sleeper before the kernel compares.
            match self.word.compare_exchange_weak(word, raised, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => {
                    if self.sleepers.load(Ordering::SeqCst) > 0 {
                        self.word.wake(u32::MAX);
                    }
                    return;
                }
                Err(now) => word = now,
            }
        }
    }

    /// Lowers the flag. Never blocks.
    #[inline]
    pub fn clear(&self) {
        self.word.fetch_and(!1, Ordering::AcqRel);
    }

    /// Blocks until the flag is or was up.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn wait_slow(&self, parking: &mut Parking<'_>) -> Result<(), Stop> {
        let seen = self.word.load(Ordering::Acquire);
        loop {
            let word = self.word.load(Ordering::Acquire);
            if word & 1 == 1 || word != seen {
                return Ok(());
            }
            match parking.park(&self.word, seen, Some(&self.sleepers)) {
                Err(Stop::TimedOut) if self.word.load(Ordering::Acquire) != seen => return Ok(()),
                other => other?,
            }
        }
    }

    /// Blocks until the flag is or was up, with nothing to interrupt it.
    pub fn wait(&self) {
        if !self.is_set() {
            let mut parking = Parking::new(Kind::Event, self, 0, crate::park::Deadline::NEVER, &crate::park::Alone);
            while self.wait_slow(&mut parking).is_err() {}
        }
    }

    /// The longest wait so far, in seconds.
    pub fn longest_wait(&self) -> f32 {
        f32::from_bits(self.longest.load(Ordering::Relaxed))
    }
}

impl Resource for Event {
    fn wakers(&self, _kind: Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }

    fn waited(&self, nanoseconds: u64) {
        record_longest(&self.longest, nanoseconds);
    }
}
