//! An event count: "something has changed since you looked".
//!
//! One word counts changes; sleepers are counted beside it. A waiter reads the [`Key`], looks at what
//! it waits for, and parks with that key; a changer changes it first and then notifies. If the change
//! came before the look, the look sees it; if after, the key is out of date and the waiter does not
//! sleep. This is Dmitry Vyukov's eventcount, with the kernel's compare in place of a waiter list.

use super::{Parking, Stop};
use crate::primitive::{AtomicU32, Futex, Ordering, const_unless_loom};

/// How many changes a waiter knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u32);

/// See the module.
#[derive(Debug, Default)]
pub struct Signal {
    changes: Futex,
    sleepers: AtomicU32,
}

impl Signal {
    const_unless_loom! {
        /// With nobody waiting.
        pub fn new() -> Self {
            Self { changes: Futex::new(0), sleepers: AtomicU32::new(0) }
        }
    }

    /// To be read before looking at what is waited for.
    #[inline]
    pub fn key(&self) -> Key {
        Key(self.changes.load(Ordering::SeqCst))
    }

    /// Comes back once there was a change after `key`, or for no reason.
    ///
    /// # Errors
    /// As [`Parking::park`].
    pub fn wait(&self, key: Key, parking: &mut Parking<'_>) -> Result<(), Stop> {
        parking.park(&self.changes, key.0, Some(&self.sleepers))
    }

    /// Something has changed that one waiter may use.
    #[inline]
    pub fn notify_one(&self) {
        self.notify(1);
    }

    /// Something has changed that concerns all waiters.
    #[inline]
    pub fn notify_all(&self) {
        self.notify(u32::MAX);
    }

    /// Something has changed that this many waiters may use.
    #[inline]
    pub fn notify(&self, count: u32) {
        // SeqCst on both: pairs with `Parking::park`, which counts itself and then has the kernel
        // compare the word. One of the two sees the other.
        self.changes.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.changes.wake(count);
        }
    }

    /// How many threads sleep here now; those that still spin are not counted.
    pub fn sleepers(&self) -> u32 {
        self.sleepers.load(Ordering::Relaxed)
    }
}
