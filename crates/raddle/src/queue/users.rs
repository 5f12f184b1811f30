//! Who has used one side of a queue: a few thread tokens, kept without a lock.

use crate::primitive::{AtomicBool, AtomicUsize, Ordering};
use crate::trace::{Claim, Waker};

/// With more users than this, nothing is claimed about them.
const MOST: usize = 8;

/// The threads seen on one side of a queue.
#[derive(Debug, Default)]
pub(super) struct Users {
    tokens: [AtomicUsize; MOST],
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
        for slot in &self.tokens {
            let mut token = slot.load(Ordering::Relaxed);
            if token == 0 {
                // A user has a record from now on: one whose record is gone is dead, not unknown.
                #[cfg(not(raddle_loom))]
                drop(crate::trace::thread::Thread::current());
                match slot.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => return,
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
        for slot in &self.tokens {
            let token = slot.load(Ordering::Relaxed);
            #[cfg(not(raddle_loom))]
            if token != 0 && crate::trace::thread::by_token(token).is_some() {
                out.push(Waker { token, site: None });
            }
            #[cfg(raddle_loom)]
            let _ = token;
        }
        if out.len() == before { Claim::Unknown } else { Claim::Likely }
    }
}
