//! Where futures that are over gather: what "wait for any of these" and "wait for all of these" wait on.

use crate::park::{Parking, Stop};
use crate::primitive::{AtomicU32, Futex, Ordering, Spin, const_unless_loom};

#[derive(Debug)]
struct Inner<K> {
    arrived: Vec<K>,
    /// How many have to be here for the waiter to go on.
    need: usize,
    /// One has come that lets the waiter go on by itself.
    urgent: bool,
}

/// See the module. One thread waits; any may add.
#[derive(Debug)]
pub struct Collector<K> {
    inner: Spin<Inner<K>>,
    /// Counts the occasions on which the waiter could go on.
    word: Futex,
    sleepers: AtomicU32,
}

impl<K> Collector<K> {
    const_unless_loom! {
        /// With nothing in it, for a waiter that needs this many at a time.
        pub fn new(need: usize) -> Self {
            Self {
                inner: Spin::new(Inner { arrived: Vec::new(), need, urgent: false }),
                word: Futex::new(0),
                sleepers: AtomicU32::new(0),
            }
        }
    }

    /// Adds one. Only the one that completes the number wakes the waiter, or one that is `urgent`.
    pub fn add(&self, item: K, urgent: bool) {
        let mut inner = self.inner.lock();
        inner.arrived.push(item);
        inner.urgent |= urgent;
        let ready = urgent || inner.arrived.len() == inner.need;
        drop(inner);
        if ready {
            // SeqCst: pairs with `Parking::park`, which counts a sleeper before the kernel compares.
            self.word.fetch_add(1, Ordering::SeqCst);
            if self.sleepers.load(Ordering::SeqCst) > 0 {
                self.word.wake(u32::MAX);
            }
        }
    }

    /// Takes what has arrived, in that order.
    pub fn take(&self) -> Vec<K> {
        std::mem::take(&mut self.inner.lock().arrived)
    }

    /// How many have arrived and were not taken.
    pub fn len(&self) -> usize {
        self.inner.lock().arrived.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the waiter may go on.
    pub fn is_ready(&self) -> bool {
        let inner = self.inner.lock();
        inner.urgent || inner.arrived.len() >= inner.need
    }

    /// Blocks until enough have arrived, or an urgent one.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn wait_slow(&self, parking: &mut Parking<'_>) -> Result<(), Stop> {
        loop {
            let word = self.word.load(Ordering::Acquire);
            if self.is_ready() {
                return Ok(());
            }
            match parking.park(&self.word, word, Some(&self.sleepers)) {
                Err(Stop::TimedOut) if self.is_ready() => return Ok(()),
                other => other?,
            }
        }
    }
}
