//! The life of a future: pending, running, and then finished or cancelled, once.
//!
//! A [`Completion`] is the state machine without the value: whoever may end a future claims it first, stores
//! what it has to store, and then settles it. So the value is written by one thread and read by those who have
//! seen the end. Listeners are told after that, each once; they are the host's (a callback, a [`Collector`]).
//!
//! A host that needs a lock of its own around every change (to show a consistent picture of several futures)
//! [`hold`](Completion::hold)s the future: changes are refused from then on unless the caller says that it has
//! that lock.

#![allow(unsafe_code)]

mod collector;
mod listeners;

pub use collector::Collector;
pub use listeners::Listeners;

use crate::park::{Parking, Stop};
use crate::primitive::{AtomicU32, Futex, Ordering, Spin, const_unless_loom};

/// Where a future is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// Not begun.
    Pending = 0,
    /// Begun.
    Running = 1,
    /// About to be finished: its value is being stored. To others it is still running.
    Settling = 2,
    /// Cancelled before it began.
    Cancelled = 3,
    /// Cancelled, and whoever would have run it knows.
    Notified = 4,
    /// It has a value.
    Finished = 5,
}

impl Stage {
    fn of(word: u32) -> Stage {
        match word & STAGE {
            0 => Stage::Pending,
            1 => Stage::Running,
            2 => Stage::Settling,
            3 => Stage::Cancelled,
            4 => Stage::Notified,
            _ => Stage::Finished,
        }
    }

    /// Whether it is over: there is a value, or there will be none.
    #[inline]
    pub fn is_done(self) -> bool {
        self as u32 >= Stage::Cancelled as u32
    }
}

/// Why a change was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The future is not where this change starts from.
    Stage(Stage),
    /// It is held: the change has to be made under the host's lock.
    Held,
}

const STAGE: u32 = 7;
/// Somebody listens.
const LISTENED: u32 = 8;
/// Changes are made under the host's lock only.
const HELD: u32 = 16;
/// Somebody has said that it will wait.
const AWAITED: u32 = 32;

/// See the module. `L` is what listens.
#[derive(Debug)]
pub struct Completion<L> {
    word: Futex,
    sleepers: AtomicU32,
    listeners: Spin<Listeners<L>>,
}

impl<L> Default for Completion<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L> Completion<L> {
    const_unless_loom! {
        /// Pending, with nobody listening.
        pub fn new() -> Self {
            Self { word: Futex::new(0), sleepers: AtomicU32::new(0), listeners: Spin::new(Listeners::new()) }
        }
    }

    /// Where it is.
    #[inline]
    pub fn stage(&self) -> Stage {
        Stage::of(self.word.load(Ordering::Acquire))
    }

    /// Whether it is over.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.stage().is_done()
    }

    /// Whether somebody listens; a hint.
    #[inline]
    pub fn is_listened_to(&self) -> bool {
        self.word.load(Ordering::Relaxed) & LISTENED != 0
    }

    /// From now on changes are refused unless they are made under the host's lock.
    pub fn hold(&self) {
        self.word.fetch_or(HELD, Ordering::AcqRel);
    }

    /// Whether it is held.
    #[inline]
    pub fn is_held(&self) -> bool {
        self.word.load(Ordering::Relaxed) & HELD != 0
    }

    /// Goes from a stage that `from` admits to `to`; the stage left and whether somebody listens.
    #[inline]
    fn go(&self, from: impl Fn(Stage) -> bool, to: Stage, locked: bool) -> Result<bool, Refused> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let stage = Stage::of(word);
            if !from(stage) {
                // Acquire: who is told that it is over may look at the value.
                return Err(Refused::Stage(self.stage()));
            }
            if word & HELD != 0 && !locked {
                return Err(Refused::Held);
            }
            let next = word & !STAGE | to as u32;
            // SeqCst: pairs with `Parking::park`, which counts a sleeper before the kernel compares.
            match self.word.compare_exchange_weak(word, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if to.is_done() && self.sleepers.load(Ordering::SeqCst) > 0 {
            self.word.wake(u32::MAX);
        }
        Ok(word & LISTENED != 0)
    }

    /// Pending to running. Needs no lock of the host's: nobody waits for it.
    ///
    /// # Errors
    /// [`Refused::Stage`].
    #[inline]
    pub fn begin(&self) -> Result<(), Refused> {
        self.go(|stage| stage == Stage::Pending, Stage::Running, true).map(drop)
    }

    /// [`begin`](Self::begin), by a host whose other threads are kept out meanwhile: without a locked instruction.
    ///
    /// # Errors
    /// [`Refused::Stage`].
    ///
    /// # Safety
    /// As [`listen_alone`](Self::listen_alone).
    #[inline]
    pub unsafe fn begin_alone(&self) -> Result<(), Refused> {
        // Acquire: as in `go`.
        let word = self.word.load(Ordering::Acquire);
        match Stage::of(word) {
            // Nobody waits for this one: those who sleep until the end go on doing so.
            Stage::Pending => self.word.store(word & !STAGE | Stage::Running as u32, Ordering::Release),
            stage => return Err(Refused::Stage(stage)),
        }
        Ok(())
    }

    /// Pending to cancelled; whether somebody listens. `locked`: the caller has the host's lock.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn cancel(&self, locked: bool) -> Result<bool, Refused> {
        self.go(|stage| stage == Stage::Pending, Stage::Cancelled, locked)
    }

    /// Cancelled to notified; whether somebody listens.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn acknowledge(&self, locked: bool) -> Result<bool, Refused> {
        self.go(|stage| stage == Stage::Cancelled, Stage::Notified, locked)
    }

    /// Pending or running to settling: the caller stores the value and then settles it.
    ///
    /// # Errors
    /// [`Refused`].
    #[inline]
    pub fn claim(&self, locked: bool) -> Result<(), Refused> {
        self.go(|stage| matches!(stage, Stage::Pending | Stage::Running), Stage::Settling, locked).map(drop)
    }

    /// Settling to finished, or to notified if the task gave up; whether somebody listens.
    ///
    /// # Errors
    /// [`Refused::Held`]; the future is still claimed.
    ///
    /// # Panics
    /// If `end` is no end.
    #[inline]
    pub fn settle(&self, end: Stage, locked: bool) -> Result<bool, Refused> {
        assert!(end.is_done(), "a future is settled by its end");
        self.go(|stage| stage == Stage::Settling, end, locked)
    }

    /// Whether it could be claimed now.
    ///
    /// # Errors
    /// [`Refused`].
    #[inline]
    pub fn is_open(&self) -> Result<(), Refused> {
        let word = self.word.load(Ordering::Acquire);
        match Stage::of(word) {
            Stage::Pending | Stage::Running if word & HELD != 0 => Err(Refused::Held),
            Stage::Pending | Stage::Running => Ok(()),
            stage => Err(Refused::Stage(stage)),
        }
    }

    /// [`claim`](Self::claim) and [`settle`](Self::settle) in one, by a host whose other threads are kept out since it
    /// [`is_open`](Self::is_open): the value has been stored between the two. Without a locked instruction, unless
    /// somebody [will wait](Self::will_wait). Whether somebody listens.
    ///
    /// # Errors
    /// [`Refused`].
    ///
    /// # Safety
    /// As [`listen_alone`](Self::listen_alone); and whoever waits has said so, kept out itself by others or keeping
    /// them out.
    #[inline]
    pub unsafe fn finish_alone(&self) -> Result<bool, Refused> {
        self.is_open()?;
        let word = self.word.load(Ordering::Relaxed);
        if word & AWAITED != 0 {
            return self.go(|stage| matches!(stage, Stage::Pending | Stage::Running), Stage::Finished, false);
        }
        // Nobody sleeps, and who comes to wait finds it over. Release: so does who looks without being kept out.
        self.word.store(word & !STAGE | Stage::Finished as u32, Ordering::Release);
        Ok(word & LISTENED != 0)
    }

    /// Says that the caller is about to wait, for hosts that end it [alone](Self::finish_alone).
    pub fn will_wait(&self) {
        self.word.fetch_or(AWAITED, Ordering::Relaxed);
    }

    /// Puts it at a stage, whatever it was: for hosts whose programs may write the state.
    pub fn force(&self, stage: Stage) {
        let mut word = self.word.load(Ordering::Relaxed);
        while let Err(now) =
            self.word.compare_exchange_weak(word, word & !STAGE | stage as u32, Ordering::SeqCst, Ordering::Relaxed)
        {
            word = now;
        }
        self.word.wake(u32::MAX);
    }

    /// Listens, unless it has come to a stage that `over` admits.
    ///
    /// # Errors
    /// The listener: it has nothing to wait for.
    pub fn listen(&self, listener: L, over: impl Fn(Stage) -> bool) -> Result<(), L> {
        let mut listeners = self.listeners.lock();
        // Said before the look: an end that comes after it takes the lock and finds the listener.
        let word = self.word.fetch_or(LISTENED, Ordering::AcqRel);
        if over(Stage::of(word)) {
            return Err(listener);
        }
        listeners.push(listener);
        Ok(())
    }

    /// [`listen`](Self::listen), by a host whose other threads are kept out meanwhile, as a global lock of an
    /// interpreter keeps them: without a locked instruction.
    ///
    /// # Errors
    /// As [`listen`](Self::listen).
    ///
    /// # Safety
    /// Until this returns, other threads do nothing to this future but look at its stage and wait for it.
    #[inline]
    pub unsafe fn listen_alone(&self, listener: L, over: impl Fn(Stage) -> bool) -> Result<(), L> {
        let word = self.word.load(Ordering::Acquire);
        if over(Stage::of(word)) {
            return Err(listener);
        }
        self.word.store(word | LISTENED, Ordering::Release);
        // SAFETY: the caller's.
        unsafe { self.listeners.unlocked(|listeners| listeners.push(listener)) };
        Ok(())
    }

    /// Takes out the listener, if there is exactly one, likewise.
    ///
    /// # Safety
    /// As [`listen_alone`](Self::listen_alone).
    #[inline]
    pub unsafe fn take_only_alone(&self) -> Option<L> {
        // SAFETY: the caller's.
        unsafe { self.listeners.unlocked(Listeners::take_only) }
    }

    /// Takes out the listeners that `which` picks, in the order in which they came.
    pub fn take_listeners(&self, mut which: impl FnMut(&L) -> bool) -> Listeners<L> {
        let mut listeners = self.listeners.lock();
        if listeners.iter().all(&mut which) {
            return listeners.take();
        }
        let (taken, kept): (Vec<L>, Vec<L>) = listeners.take().into_iter().partition(which);
        *listeners = kept.into_iter().collect();
        taken.into_iter().collect()
    }

    /// Looks at the listeners under their lock.
    pub fn with_listeners<R>(&self, look: impl FnOnce(&Listeners<L>) -> R) -> R {
        look(&self.listeners.lock())
    }

    /// Blocks until it is over.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn wait_slow(&self, parking: &mut Parking<'_>) -> Result<(), Stop> {
        loop {
            let word = self.word.load(Ordering::Acquire);
            if Stage::of(word).is_done() {
                return Ok(());
            }
            match parking.park(&self.word, word, Some(&self.sleepers)) {
                Err(Stop::TimedOut) if self.is_done() => return Ok(()),
                other => other?,
            }
        }
    }
}
