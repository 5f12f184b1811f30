//! The door: every wait of this crate goes through [`Parking::park`], and nothing else blocks.
//!
//! `README.md` beside this file states the protocol and argues that no wake-up is lost.
//! What a caller does is always the same:
//!
//! 1. Look whether it can go on; if so, it does, and never comes here.
//! 2. Make a [`Parking`] for the whole wait, however often it is woken in between.
//! 3. Read the word, look again, and call [`Parking::park`] with the value read; repeat.
//!
//! The door spins a little, adapting to how often that helps this thread; then it publishes the wait
//! (life-cycle state, what, since when, who could end it) and sleeps. It comes back for a wake-up. It
//! looks up once in a long wait if it has reason to: for a signal that came in just before it slept, or
//! because at that moment its wait seemed to have no end. Otherwise it sleeps without limit: nothing polls, except for
//! the end of threads that tell nobody ([`Look::Later`]).
#![cfg_attr(raddle_loom, allow(dead_code, reason = "the model neither spins nor publishes nor looks up"))]

mod clock;
#[cfg(not(raddle_loom))]
mod linux;
#[cfg(raddle_loom)]
mod model;
mod signal;

#[cfg(not(any(raddle_loom, target_os = "linux")))]
compile_error!("raddle blocks through futex(2), which only Linux has");

#[cfg(not(raddle_loom))]
use linux as os;
#[cfg(raddle_loom)]
use model as os;

#[cfg(not(raddle_loom))]
pub use clock::thread_time;
pub use clock::{Deadline, now};
pub use signal::{Key, Signal};

use crate::primitive::{AtomicU32, Futex, Ordering};
#[cfg(not(raddle_loom))]
use crate::trace::thread::{Publication, Thread, nudges};
#[cfg(not(raddle_loom))]
use crate::trace::{Claim, Waker};
use crate::trace::{Kind, Resource};
#[cfg(not(raddle_loom))]
use os::Slept;
use std::fmt;
#[cfg(not(raddle_loom))]
use std::sync::Arc;
#[cfg(not(raddle_loom))]
use std::time::Duration;

/// Why a wait ended without what it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The deadline came.
    TimedOut,
    /// The host said so ([`Host::interrupted`], [`Host::look`]); it keeps the reason.
    Interrupted,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stop::TimedOut => "the deadline came before what was waited for",
            Stop::Interrupted => "the wait was interrupted",
        })
    }
}

impl std::error::Error for Stop {}

/// What surrounds a waiting thread: a language runtime with signals, or nothing ([`Alone`]).
pub trait Host {
    /// A signal handler has run in this thread, or may have just before it slept. An error ends the wait.
    ///
    /// # Errors
    /// [`Stop::Interrupted`] to end the wait.
    fn interrupted(&self) -> Result<(), Stop> {
        Ok(())
    }

    /// The wait has lasted this many nanoseconds without a deadline: a moment to ask whether it can end.
    ///
    /// # Errors
    /// [`Stop::Interrupted`] to end the wait.
    fn look(&self, _waited: u64) -> Result<Look, Stop> {
        Ok(Look::Settled)
    }

    /// The thread is about to sleep without a deadline: whether it might never be woken. Only then does it
    /// look up. Called with the wait published; must be quick and take no lock that a waiter may hold.
    fn suspects(&self) -> bool {
        false
    }

    /// Whether the thread was asked to give up what it does: a task that was cancelled. Asked before each sleep,
    /// with the wait published: whoever asks it to says so first, and then wakes it
    /// ([`interrupt`]).
    ///
    /// # Errors
    /// [`Stop::Interrupted`] to end the wait.
    fn stopped(&self) -> Result<(), Stop> {
        Ok(())
    }

    /// When [`stopped`](Self::stopped) is to be asked again, however long the wait.
    fn limit(&self) -> Deadline {
        Deadline::NEVER
    }

    /// Whether signals are handled in this thread, so that one that came in just before it slept
    /// must be looked for.
    fn takes_signals(&self) -> bool {
        false
    }
}

/// What a [`Host::look`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing more than the usual moments.
    Settled,
    /// Another look soon: something was found that has to last to be believed.
    Again,
    /// Other looks, ever fewer: what was found may become true by something that tells nobody.
    Later,
}

/// No runtime around: nothing interrupts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Host for Alone {}

const SPIN_MOST: u32 = 320;
const SPIN_LEAST: u32 = 2;
/// One in so many waits spins as long as any may. Once both sides of a hand-over sleep, a short spin never
/// outlasts the other's wake-up, and would never be found to pay again. Twice as rarely after each that has not paid.
const PROBE: u32 = 64;
const MOST_HALVINGS: u32 = 4;
/// A yield that takes this long, in nanoseconds, has lost the core to somebody who does not wait for us.
const ROBBED: u64 = 200_000;
/// What a spin that succeeds saves, in nanoseconds: a sleep and a wake-up. Where those since the last loss have saved more
/// than a loss has cost, the core was lost as everybody loses it, at the end of a time slice.
const SAVED: u64 = 5_000;
/// For how many times as long as a loss the thread then does not spin: a sleeper gets the core back at once. Twice as
/// often after each loss that follows, as long as spinning has not paid in between.
const CALM_FACTOR: u64 = 16;
const MOST_DOUBLINGS: u32 = 3;

const MILLISECOND: u64 = 1_000_000;
/// When a sleeper that has reason to look up does so first, in nanoseconds after it went to sleep.
const FIRST_LOOK: u64 = 60 * MILLISECOND;
/// After so many that settled it, a sleeper does not look up any more unless it is nudged.
const MOST_LOOKS: u32 = 4;
/// A look that took longer, in nanoseconds, has run code of the host, and a signal may have come meanwhile.
const LONG_LOOK: u64 = MILLISECOND / 5;
/// How soon a look is repeated if the host asks for it.
const LOOK_AGAIN: u64 = 40 * MILLISECOND;
/// How long it is to the next look at most if the host asks for those.
const LOOK_LATER: u64 = 600 * MILLISECOND;

/// The time, unless this thread has lost its core by spinning and should not spin for a while.
#[cfg(not(raddle_loom))]
fn may_spin(thread: &Thread) -> Option<u64> {
    let time = now();
    (time >= thread.calm_until.load(Ordering::Relaxed)).then_some(time)
}

/// The time after a yield that began at `before`, unless the yield was such a loss.
#[cfg(not(raddle_loom))]
fn still_worth(thread: &Thread, before: u64) -> Option<u64> {
    let after = now();
    let gone = after - before;
    if gone <= ROBBED {
        return Some(after);
    }
    if u64::from(thread.wins.swap(0, Ordering::Relaxed)) * SAVED >= gone {
        thread.losses.store(0, Ordering::Relaxed);
        return Some(after);
    }
    let losses = thread.losses.fetch_add(1, Ordering::Relaxed).min(MOST_DOUBLINGS);
    let until = after + gone * (CALM_FACTOR << losses);
    thread.calm_until.store(until, Ordering::Relaxed);
    crate::trace::thread::CALM_UNTIL.fetch_max(until, Ordering::Relaxed);
    None
}

/// Yields the core until `ready`, for at most this many rounds, and not where that loses it to others.
///
/// For what is over within microseconds: nothing sleeps here, and nothing wakes it.
#[cfg(not(raddle_loom))]
pub fn yield_until(mut ready: impl FnMut() -> bool, rounds: u32) {
    if ready() {
        return;
    }
    let thread = Thread::current();
    let Some(mut before) = may_spin(&thread) else { return };
    for _ in 0..rounds {
        crate::primitive::yield_now();
        if ready() {
            return;
        }
        match still_worth(&thread, before) {
            Some(time) => before = time,
            None => return,
        }
    }
}

/// Who looks up from a wait that another process may end.
pub trait Watcher {
    /// Called before each sleep of a wait that is published since then, on the clock: when to call again at the latest.
    ///
    /// # Errors
    /// [`Stop`] to end the wait.
    fn look(&mut self, since: u64) -> Result<Deadline, Stop>;
}

/// Where a thread sleeps that another process may wake.
#[derive(Debug)]
pub enum Outside<'a> {
    /// On a word in shared memory, while it has this value.
    Word(&'a Futex, u32),
    /// Until one of the descriptors is ready; their `revents` are set then.
    #[cfg(not(raddle_loom))]
    Descriptors(&'a mut [libc::pollfd]),
}

/// One wait of one thread, from the first try that failed to success or [`Stop`].
pub struct Parking<'a> {
    kind: Kind,
    object: &'a dyn Resource,
    host: &'a dyn Host,
    name: usize,
    deadline: Deadline,
    watcher: Option<&'a mut dyn Watcher>,
    #[cfg(not(raddle_loom))]
    thread: Arc<Thread>,
    #[cfg(not(raddle_loom))]
    sleep: Option<Sleeping<'a>>,
}

/// What is known once the thread has slept: before, it has only spun.
#[cfg(not(raddle_loom))]
struct Sleeping<'a> {
    publication: Publication<'a>,
    since: u64,
    /// The next look, on the clock; `u64::MAX` if none is due.
    look_at: u64,
    /// Whether the thread handles signals, and has done something since it last looked for one.
    signals: bool,
    /// How many looks have found nothing: each makes the next four times later, and after some there is none.
    looks: u32,
    nudges: u64,
}

impl fmt::Debug for Parking<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parking").field("kind", &self.kind).field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl<'a> Parking<'a> {
    /// A wait of the calling thread for `object`; `name` is the address its host knows it by (0: none).
    pub fn new(kind: Kind, object: &'a dyn Resource, name: usize, deadline: Deadline, host: &'a dyn Host) -> Self {
        Self {
            kind,
            object,
            host,
            name,
            deadline,
            watcher: None,
            #[cfg(not(raddle_loom))]
            thread: Thread::current(),
            #[cfg(not(raddle_loom))]
            sleep: None,
        }
    }

    /// Lets `watcher` look up from its sleeps in [`park_outside`](Self::park_outside).
    pub fn watch(&mut self, watcher: &'a mut dyn Watcher) {
        self.watcher = Some(watcher);
    }

    /// When the wait gives up.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Comes back once the word may have changed from `expected`; also for no reason.
    ///
    /// `sleepers` is counted up while the thread sleeps, and not while it spins: who changes the word
    /// reads it afterwards and makes no system call where nobody sleeps. Both sides use `SeqCst`
    /// (see [`Signal`]).
    ///
    /// # Errors
    /// [`Stop::TimedOut`] at the deadline; the caller looks once more. [`Stop::Interrupted`] when the
    /// host ended the wait: a wake-up may have been used up, which the caller has to pass on.
    pub fn park(&mut self, word: &Futex, expected: u32, sleepers: Option<&AtomicU32>) -> Result<(), Stop> {
        if self.taken_over() {
            return Ok(());
        }
        if self.spin(|| word.load(Ordering::Acquire) != expected) {
            return Ok(());
        }
        let Some(sleepers) = sleepers else {
            return self.sleep(word, expected);
        };
        // SeqCst: pairs with the changer's store to the word and load of `sleepers`. Either the changer
        // sees this count, or the kernel sees the changed word and does not put us to sleep.
        sleepers.fetch_add(1, Ordering::SeqCst);
        let result = self.sleep(word, expected);
        sleepers.fetch_sub(1, Ordering::Relaxed);
        result
    }

    /// [`park`](Self::park) without spinning first, for a word that says "somebody sleeps".
    ///
    /// # Errors
    /// As [`park`](Self::park).
    pub fn block(&mut self, word: &Futex, expected: u32) -> Result<(), Stop> {
        if self.taken_over() {
            return Ok(());
        }
        self.sleep(word, expected)
    }

    /// Sleeps where another process may end it: at most until `look`, and at most until the wait's deadline.
    ///
    /// Comes back once the place may have changed; also for no reason, and at `look`. Such a wait is published as
    /// one that may end by itself: nothing in this process can prove that it has no end.
    ///
    /// # Errors
    /// As [`park`](Self::park).
    pub fn park_outside(&mut self, place: Outside<'_>, look: Deadline) -> Result<(), Stop> {
        if self.taken_over() {
            return Ok(());
        }
        self.sleep_outside(place, look)
    }

    #[cfg(raddle_loom)]
    fn sleep_outside(&mut self, place: Outside<'_>, _look: Deadline) -> Result<(), Stop> {
        let Outside::Word(word, expected) = place;
        os::sleep(word, expected, self.host)
    }

    #[cfg(not(raddle_loom))]
    fn sleep_outside(&mut self, place: Outside<'_>, look: Deadline) -> Result<(), Stop> {
        /// Stands for a word that is not this process's; nobody sleeps on it.
        static ELSEWHERE: Futex = Futex::new(0);
        self.publish(&ELSEWHERE, true);
        let since = self.sleep.as_ref().map_or(0, |sleeping| sleeping.since);
        let look = match &mut self.watcher {
            Some(watcher) => look.min(watcher.look(since)?),
            None => look,
        };
        let sleeping = self.sleep.as_mut().expect("published above");
        sleeping.publication.asleep(&ELSEWHERE, 0);
        if sleeping.look_at == u64::MAX && sleeping.signals {
            sleeping.look_at = now() + FIRST_LOOK;
        }
        let limit = self.deadline.min(look).min(Deadline::at(sleeping.look_at));
        let slept = match place {
            Outside::Word(word, expected) => os::sleep_on(word, expected, limit, os::Reach::Shared),
            Outside::Descriptors(descriptors) => os::poll(descriptors, limit),
        };
        sleeping.publication.awake();
        if slept == Slept::Woken {
            sleeping.signals = self.host.takes_signals();
            return Ok(());
        }
        if slept == Slept::Interrupted || now() >= sleeping.look_at {
            sleeping.look_at = u64::MAX;
            sleeping.signals = false;
            self.host.interrupted()?;
        }
        if self.deadline.is_past() { Err(Stop::TimedOut) } else { Ok(()) }
    }

    /// Whether an explorer has held the thread back in place of the operating system.
    fn taken_over(&self) -> bool {
        crate::trace::hook().is_some_and(|hook| hook.block(self.kind, self.name) == crate::trace::Takeover::Retry)
    }

    /// The model has no clock, and a spin in it is only a scheduling point.
    #[cfg(raddle_loom)]
    pub(crate) fn spin(&self, mut ready: impl FnMut() -> bool) -> bool {
        ready()
    }

    /// Spins as long as that has paid for this thread; whether `ready` came true meanwhile.
    ///
    /// Each round yields the core, so that on one core the thread waited for gets to run.
    #[cfg(not(raddle_loom))]
    pub(crate) fn spin(&self, mut ready: impl FnMut() -> bool) -> bool {
        if ready() {
            return true;
        }
        let thread = &self.thread;
        let Some(mut before) = may_spin(thread) else { return false };
        let usual = thread.spin.load(Ordering::Relaxed);
        let misses = thread.misses.load(Ordering::Relaxed);
        let probes = thread.waits.fetch_add(1, Ordering::Relaxed).is_multiple_of(PROBE << misses);
        for round in 0..if probes { SPIN_MOST } else { usual } {
            crate::primitive::yield_now();
            let done = ready();
            match still_worth(thread, before) {
                Some(time) => before = time,
                None => return done,
            }
            if done {
                thread.spin.store(usual.max(2 * round + 8).min(SPIN_MOST), Ordering::Relaxed);
                thread.wins.fetch_add(1, Ordering::Relaxed);
                thread.misses.store(0, Ordering::Relaxed);
                return true;
            }
        }
        if probes {
            thread.misses.store((misses + 1).min(MOST_HALVINGS), Ordering::Relaxed);
        }
        thread.spin.store((usual - usual.div_ceil(4)).max(SPIN_LEAST), Ordering::Relaxed);
        false
    }

    #[cfg(raddle_loom)]
    fn sleep(&mut self, word: &Futex, expected: u32) -> Result<(), Stop> {
        os::sleep(word, expected, self.host)
    }

    #[cfg(not(raddle_loom))]
    fn sleep(&mut self, word: &Futex, expected: u32) -> Result<(), Stop> {
        self.publish(word, self.object.is_outside());
        let sleeping = self.sleep.as_mut().expect("published above");
        sleeping.publication.asleep(word, expected);
        let timed = self.deadline.is_timed();
        let nudges = nudges();
        // Published first, asked second: of two threads that close a cycle at once, one sees the other.
        let nudged = sleeping.nudges != nudges;
        if nudged {
            sleeping.nudges = nudges;
            sleeping.looks = 0;
        }
        if nudged || sleeping.look_at == u64::MAX {
            let pause = if sleeping.signals {
                FIRST_LOOK
            } else if !timed && sleeping.looks < MOST_LOOKS && self.host.suspects() {
                FIRST_LOOK << (2 * sleeping.looks)
            } else {
                u64::MAX
            };
            // Never later than it was to be: those who are nudged again and again look all the same.
            sleeping.look_at = sleeping.look_at.min(now().saturating_add(pause));
        }
        if let Err(stop) = self.host.stopped() {
            sleeping.publication.awake();
            return Err(stop);
        }
        let until = self.deadline.min(Deadline::at(sleeping.look_at)).min(self.host.limit());
        match os::sleep(word, expected, until) {
            Slept::Woken => {
                sleeping.publication.awake();
                sleeping.signals = self.host.takes_signals();
            }
            Slept::Interrupted => {
                sleeping.publication.awake();
                sleeping.signals = self.host.takes_signals();
                self.host.interrupted()?;
            }
            Slept::TimedOut if self.deadline.is_past() => {
                sleeping.publication.awake();
                return Err(Stop::TimedOut);
            }
            Slept::TimedOut if sleeping.look_at > now() => sleeping.publication.awake(),
            // Still asleep to those who look: a look must see the sleeper's own wait as well.
            Slept::TimedOut => {
                let asked = self.look();
                if let Some(sleeping) = &self.sleep {
                    sleeping.publication.awake();
                }
                asked?;
            }
        }
        Ok(())
    }

    /// The sleeper looks up.
    #[cfg(not(raddle_loom))]
    fn look(&mut self) -> Result<(), Stop> {
        let Some(sleeping) = self.sleep.as_mut() else { return Ok(()) };
        sleeping.look_at = u64::MAX;
        if std::mem::take(&mut sleeping.signals) {
            self.host.interrupted()?;
        }
        let time = now();
        let waited = time - sleeping.since;
        match if self.deadline.is_timed() { Look::Settled } else { self.host.look(waited)? } {
            Look::Settled => sleeping.looks += 1,
            Look::Again => sleeping.look_at = time + LOOK_AGAIN,
            Look::Later => sleeping.look_at = time + (waited / 4).clamp(LOOK_AGAIN, LOOK_LATER),
        }
        if now() - time > LONG_LOOK {
            sleeping.signals = self.host.takes_signals();
        }
        Ok(())
    }

    #[cfg(not(raddle_loom))]
    #[allow(unsafe_code)]
    fn publish(&mut self, word: &Futex, outside: bool) {
        if self.sleep.is_some() {
            return;
        }
        let since = now();
        // SAFETY: the thread's record lives as long as `self.thread`, which `Drop` outlives the
        // publication for; an `Arc`'s contents do not move with the `Parking`.
        let thread: &'a Thread = unsafe { &*Arc::as_ptr(&self.thread) };
        let timed = outside || self.deadline.is_timed() || self.host.limit().is_timed();
        let publication = Publication::new(thread, self.kind, self.object, self.name, since, timed, word);
        let signals = self.host.takes_signals();
        self.sleep = Some(Sleeping { publication, since, look_at: u64::MAX, signals, looks: 0, nudges: nudges() });
    }
}

impl Drop for Parking<'_> {
    fn drop(&mut self) {
        #[cfg(not(raddle_loom))]
        if let Some(sleeping) = self.sleep.take() {
            self.object.waited(now().saturating_sub(sleeping.since));
        }
    }
}

/// Wakes all that sleep on a word in memory that processes share; they are told nothing.
pub(crate) fn wake_outside(word: &Futex) {
    #[cfg(not(raddle_loom))]
    os::wake_shared(word, u32::MAX);
    #[cfg(raddle_loom)]
    word.wake(u32::MAX);
}

/// Wakes one of those; whether one was asleep.
pub(crate) fn wake_outside_one(word: &Futex) -> bool {
    #[cfg(not(raddle_loom))]
    let woken = os::wake_shared(word, 1) > 0;
    #[cfg(raddle_loom)]
    let woken = {
        word.wake(1);
        // The model does not say, so that it is looked further into.
        false
    };
    woken
}

/// How often [`interrupt`] wakes a sleeper who does not leave, and how long it waits before it does so again.
#[cfg(not(raddle_loom))]
const INTERRUPTS: u32 = 100;
#[cfg(not(raddle_loom))]
const PAUSE: Duration = Duration::from_micros(50);

/// Gets a thread out of the sleep it is in, if any, so that its host is asked again whether it may go on
/// ([`Host::stopped`]); the caller has said so before. Blocks for microseconds.
///
/// A sleeper is seen asleep an instant before the kernel has put it to sleep. A wake-up in that instant is
/// lost, so it is repeated until the sleeper has left.
#[cfg(not(raddle_loom))]
pub fn interrupt(thread: &Thread) {
    /// Nobody ends this wait but its deadline.
    struct Pause;
    impl Resource for Pause {
        fn wakers(&self, _kind: Kind, _out: &mut Vec<Waker>) -> Claim {
            Claim::Unknown
        }
    }
    let number = thread.asleep_in();
    for round in 0..INTERRUPTS {
        if number.is_none() || thread.asleep_in() != number {
            return;
        }
        thread.nudge();
        let word = Futex::new(0);
        let mut parking = Parking::new(Kind::Sleep, &Pause, 0, Deadline::after(PAUSE * (round + 1)), &Alone);
        // Ends at the deadline.
        let _ = parking.block(&word, 0);
    }
}

/// How many forks lie between this process and the one that loaded the crate.
static GENERATION: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// Differs between a process and its forked children: what waits in a list belongs to one of them.
pub fn generation() -> u32 {
    GENERATION.load(std::sync::atomic::Ordering::Relaxed)
}

/// In a forked child, before anything else of this crate is used: only the calling thread is left.
///
/// Words and counts need no repair: a count of sleepers that are gone costs a system call, no more.
#[cfg(not(raddle_loom))]
pub fn after_fork_in_child() {
    GENERATION.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    crate::trace::thread::after_fork_in_child();
}
