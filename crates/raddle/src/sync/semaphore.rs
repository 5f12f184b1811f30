//! A counting semaphore that remembers, as far as that says anything, who holds its permits.
//!
//! Permits are one atomic number. Beside it stands a short list of holders, for detectors: it is kept
//! while permits are given back by threads that took them. A semaphore that is used as a signal
//! (released by others), or that has many holders, stops keeping it.

use super::record_longest;
use crate::park::{Parking, Signal, Stop};
use crate::primitive::{AtomicI64, AtomicU32, Ordering, Spin, const_unless_loom};
use crate::trace::{Claim, Kind, Resource, Site, Usage, Waker, epoch};

/// With more holders than this, the list is given up.
const MOST_HOLDERS: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Semaphore {
    permits: AtomicI64,
    /// Threads on their way to sleep for a permit or asleep: while there are none, nobody is told of one.
    waiters: AtomicU32,
    freed: Signal,
    longest: AtomicU32,
    /// The list of holders says nothing (any more).
    usage: Usage,
    holders: Spin<Vec<Waker>>,
}

impl Semaphore {
    const_unless_loom! {
        /// With this many permits.
        pub fn new(permits: i64) -> Self {
            Self {
                permits: AtomicI64::new(permits),
                waiters: AtomicU32::new(0),
                freed: Signal::new(),
                longest: AtomicU32::new(0),
                usage: Usage::new(),
                holders: Spin::new(Vec::new()),
            }
        }
    }

    /// How many permits are left.
    #[inline]
    pub fn permits(&self) -> i64 {
        self.permits.load(Ordering::Relaxed)
    }

    /// Takes a permit if there is one. Never blocks.
    #[inline]
    pub fn try_acquire(&self) -> bool {
        // SeqCst: for a waiter, pairs with `tell`; costs the others nothing that a relaxed load would not.
        let mut permits = self.permits.load(Ordering::SeqCst);
        while permits > 0 {
            // Acquire: sees what was done before the release that made this permit.
            match self.permits.compare_exchange_weak(permits, permits - 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => permits = now,
            }
        }
        false
    }

    /// Takes a permit, blocking while there is none.
    ///
    /// # Errors
    /// [`Stop`], and then no permit is taken.
    pub fn acquire_slow(&self, parking: &mut Parking<'_>) -> Result<(), Stop> {
        // SeqCst: pairs with `tell`.
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let result = self.acquire_as_waiter(parking);
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        result
    }

    fn acquire_as_waiter(&self, parking: &mut Parking<'_>) -> Result<(), Stop> {
        loop {
            let key = self.freed.key();
            if self.try_acquire() {
                return Ok(());
            }
            if let Err(stop) = self.freed.wait(key, parking) {
                if stop == Stop::TimedOut && self.try_acquire() {
                    return Ok(());
                }
                // A release may have woken this thread and no other.
                if self.permits() > 0 {
                    self.freed.notify_one();
                }
                return Err(stop);
            }
        }
    }

    /// Takes a permit, blocking while there is none, with nothing to interrupt it.
    pub fn acquire(&self) {
        if !self.try_acquire() {
            let mut parking = Parking::new(Kind::Semaphore, self, 0, crate::park::Deadline::NEVER, &crate::park::Alone);
            while self.acquire_slow(&mut parking).is_err() {}
        }
    }

    /// Gives back this many permits. Never blocks.
    #[inline]
    pub fn release(&self, count: u32) {
        // Release: the next to take one of them sees what was done before.
        self.permits.fetch_add(i64::from(count), Ordering::SeqCst);
        self.tell(count);
    }

    /// Permits have come, by a `SeqCst` write: wakes as many of those who wait.
    #[inline]
    fn tell(&self, count: u32) {
        // SeqCst: pairs with `acquire_slow`, which counts itself and then looks. Either this load sees the waiter,
        // or its look sees the permits.
        if self.waiters.load(Ordering::SeqCst) > 0 {
            self.freed.notify(count);
        }
    }

    /// Gives back permits unless there would be more than `most`; false if so.
    pub fn release_bounded(&self, count: u32, most: i64) -> bool {
        let mut permits = self.permits.load(Ordering::Relaxed);
        loop {
            if permits + i64::from(count) > most {
                return false;
            }
            let more = permits + i64::from(count);
            match self.permits.compare_exchange_weak(permits, more, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => permits = now,
            }
        }
        self.tell(count);
        true
    }

    /// Notes that the thread with this token has taken a permit.
    #[inline]
    pub fn note_acquired(&self, token: usize, site: Option<Site>) {
        if self.usage.is_signal() {
            return;
        }
        let mut holders = self.holders.lock();
        if holders.len() < MOST_HOLDERS {
            holders.push(Waker { token, site, epoch: epoch() });
        } else {
            self.usage.foreign();
        }
    }

    /// Notes that the thread with this token gives a permit back.
    #[inline]
    pub fn note_released(&self, token: usize) {
        if self.usage.is_signal() {
            return;
        }
        let mut holders = self.holders.lock();
        match holders.iter().rposition(|holder| holder.token == token) {
            Some(at) => {
                holders.swap_remove(at);
                self.usage.own();
            }
            None => self.usage.foreign(),
        }
    }

    /// Who gives its permits back, as far as that has been seen.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Who holds its permits, as far as that is known.
    pub fn holders(&self) -> Vec<Waker> {
        if self.usage.is_signal() { Vec::new() } else { self.holders.lock().clone() }
    }

    /// The longest wait so far, in seconds.
    pub fn longest_wait(&self) -> f32 {
        f32::from_bits(self.longest.load(Ordering::Relaxed))
    }

    /// Sets the number of permits and forgets the holders, in a forked child.
    pub fn reset(&self, permits: i64) {
        self.permits.store(permits, Ordering::Release);
        self.holders.lock().clear();
    }
}

impl Resource for Semaphore {
    fn wakers(&self, _kind: Kind, out: &mut Vec<Waker>) -> Claim {
        let before = out.len();
        out.extend(self.holders());
        if out.len() == before { Claim::Unknown } else { self.usage.claim() }
    }

    fn waited(&self, nanoseconds: u64) {
        record_longest(&self.longest, nanoseconds);
    }
}
