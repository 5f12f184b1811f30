//! Who has used one side of a queue: a few thread tokens, kept without a lock.

use crate::primitive::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use crate::trace::{Claim, Waker, epoch};

/// With more users than this, nothing is claimed about them.
const MOST: usize = 8;

/// The threads seen on one side of a queue.
#[derive(Debug, Default)]
pub(super) struct Users {
    tokens: [AtomicUsize; MOST],
    /// The epochs in which they came.
    epochs: [AtomicU32; MOST],
    too_many: AtomicBool,
}

impl Users {
    crate::primitive::const_unless_loom! {
        pub(super) fn new() -> Self {
            Self {
                #[cfg(not(raddle_loom))]
                tokens: [const { AtomicUsize::new(0) }; MOST],
                #[cfg(raddle_loom)]
                tokens: Default::default(),
                #[cfg(not(raddle_loom))]
                epochs: [const { AtomicU32::new(0) }; MOST],
                #[cfg(raddle_loom)]
                epochs: Default::default(),
                too_many: AtomicBool::new(false),
            }
        }
    }

    /// The thread with this token uses this side.
    #[inline]
    pub(super) fn note(&self, me: usize) {
        // Nothing follows from it but a detector's opinion: it would only multiply the model's schedules.
        if cfg!(raddle_loom) {
            return;
        }
        // Relaxed throughout: a hint for detectors, confirmed by them over time.
        if self.tokens[0].load(Ordering::Relaxed) != me {
            self.note_slow(me);
        }
    }

    fn note_slow(&self, me: usize) {
        for (slot, came) in self.tokens.iter().zip(&self.epochs) {
            let mut token = slot.load(Ordering::Relaxed);
            if token == 0 {
                // A user has a record from now on: one whose record is gone is dead, not unknown.
                #[cfg(not(raddle_loom))]
                crate::trace::thread::Thread::current().mark_used();
                match slot.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => return came.store(epoch(), Ordering::Relaxed),
                    Err(other) => token = other,
                }
            }
            if token == me {
                return;
            }
        }
        self.too_many.store(true, Ordering::Relaxed);
    }

    /// Adds those users that still live; nothing is claimed if none is known.
    pub(super) fn wakers(&self, out: &mut Vec<Waker>) -> Claim {
        if self.too_many.load(Ordering::Relaxed) {
            return Claim::Unknown;
        }
        let before = out.len();
        #[cfg(not(raddle_loom))]
        for (slot, came) in self.tokens.iter().zip(&self.epochs) {
            use crate::trace::thread::by_token;
            let (token, epoch) = (slot.load(Ordering::Relaxed), came.load(Ordering::Relaxed));
            if token != 0 && by_token(token, epoch).is_some() {
                out.push(Waker { token, site: None, epoch });
            } else if token != 0 && by_token(token, u32::MAX).is_some() {
                // A later thread has the token of one that is gone; whether it uses the queue is not known.
                return Claim::Unknown;
            }
        }
        if out.len() == before { Claim::Unknown } else { Claim::Likely }
    }
}
