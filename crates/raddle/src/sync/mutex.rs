//! [`Mutex`] and [`Condvar`]: the raw types with guards, for Rust programs.
#![allow(unsafe_code)]

use super::{Condition, RawLock};
use crate::park::{Alone, Deadline, Parking, Stop};
use crate::primitive::thread_token;
use crate::trace::Kind;
use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// A value behind a lock that knows its owner.
///
/// Not re-entrant, not fair, not poisoned by a panic.
///
/// ```
/// let total = raddle::sync::Mutex::new(0);
/// *total.lock() += 1;
/// assert_eq!(*total.lock(), 1);
/// ```
#[derive(Default)]
pub struct Mutex<T: ?Sized> {
    lock: RawLock,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only through a guard, of which the lock admits one at a time.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}
// SAFETY: moving the mutex moves the value with it; the lock is plain atomics.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}

impl<T> Mutex<T> {
    crate::primitive::const_unless_loom! {
        /// A free mutex around `value`.
        pub fn new(value: T) -> Self {
            Self { lock: RawLock::new(), value: UnsafeCell::new(value) }
        }
    }

    /// The value, moved out.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Takes the lock, blocking until it is free. Signals do not end the wait.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let me = thread_token();
        if !self.lock.try_acquire(me) {
            self.lock_slow(me, Deadline::NEVER);
        }
        MutexGuard { mutex: self, not_send: std::marker::PhantomData }
    }

    #[cold]
    fn lock_slow(&self, me: usize, deadline: Deadline) -> bool {
        let mut parking = Parking::new(Kind::Lock, &self.lock, 0, deadline, &Alone);
        loop {
            match self.lock.acquire_slow(me, &mut parking) {
                Ok(()) => return true,
                Err(Stop::TimedOut) => return false,
                Err(Stop::Interrupted) => {}
            }
        }
    }

    /// Takes the lock if it is free. Never blocks.
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let taken = self.lock.try_acquire(thread_token());
        taken.then(|| MutexGuard { mutex: self, not_send: std::marker::PhantomData })
    }

    /// Takes the lock, blocking for at most this long.
    pub fn try_lock_for(&self, duration: Duration) -> Option<MutexGuard<'_, T>> {
        let me = thread_token();
        let taken = self.lock.try_acquire(me) || self.lock_slow(me, Deadline::after(duration));
        taken.then(|| MutexGuard { mutex: self, not_send: std::marker::PhantomData })
    }

    /// The value, without locking.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// The lock below, for its owner and waits.
    pub fn raw(&self) -> &RawLock {
        &self.lock
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(value) => f.debug_struct("Mutex").field("value", &&*value).finish(),
            None => f.debug_struct("Mutex").field("owner", &self.lock.owner()).finish_non_exhaustive(),
        }
    }
}

/// The value of a locked [`Mutex`]; releases it when dropped, in the thread that took it.
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    not_send: std::marker::PhantomData<*const ()>,
}

// SAFETY: a shared guard only gives out `&T`.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held by this guard, so nobody has a mutable reference.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held by this guard, which is borrowed mutably.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let released = self.mutex.lock.release(thread_token());
        debug_assert!(released.is_ok());
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A condition for values behind a [`Mutex`]. First come, first served; no spurious wake-ups.
#[derive(Debug, Default)]
pub struct Condvar {
    condition: Condition,
}

impl Condvar {
    crate::primitive::const_unless_loom! {
        /// With nobody waiting.
        pub fn new() -> Self {
            Self { condition: Condition::new() }
        }
    }

    /// Releases the mutex, blocks until notified, and takes the mutex again.
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.wait_until(guard, Deadline::NEVER).0
    }

    /// The same with a limit; the second value is false if it came first.
    pub fn wait_for<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>, limit: Duration) -> (MutexGuard<'a, T>, bool) {
        self.wait_until(guard, Deadline::after(limit))
    }

    fn wait_until<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>, deadline: Deadline) -> (MutexGuard<'a, T>, bool) {
        let mutex = guard.mutex;
        let mut place = self.condition.enlist();
        drop(guard);
        // `Alone` never interrupts, so the only `Stop` is the deadline.
        let mut parking = Parking::new(Kind::Condition, &self.condition, 0, deadline, &Alone);
        let notified = self.condition.wait(&place, &mut parking).is_ok() || !self.condition.withdraw(&mut place);
        drop(parking);
        let guard = mutex.lock();
        self.condition.leave(place);
        (guard, notified)
    }

    /// Wakes one waiter, the longest waiting. Usable with and without the mutex held.
    pub fn notify_one(&self) -> bool {
        self.condition.notify(1) == 1
    }

    /// Wakes all waiters; says how many.
    pub fn notify_all(&self) -> usize {
        self.condition.notify(usize::MAX)
    }
}
