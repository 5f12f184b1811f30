//! What the rest of the world may know: events, call sites, threads and their waits.
//!
//! Primitives and the door write here; detectors and explorers only read. With everything off, an
//! uncontended operation pays one relaxed load of [`mode`].
#![allow(unsafe_code)]

pub mod site;
#[cfg(not(raddle_loom))]
pub mod thread;

pub use site::Site;

use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};

/// Bit of [`mode`]: locks remember where they were taken.
pub const SITES: u8 = 1;
/// Bit of [`mode`]: the order in which locks are taken is recorded.
pub const ORDER: u8 = 2;
/// Bit of [`mode`]: a [`Hook`] is installed.
pub const HOOK: u8 = 4;
/// Bit of [`mode`]: waits that ran out of time are recorded with the holder.
pub const TIMEOUTS: u8 = 8;

static MODE: AtomicU8 = AtomicU8::new(0);

/// Which kinds of recording are on: a set of [`SITES`], [`ORDER`], [`HOOK`], [`TIMEOUTS`].
#[inline]
pub fn mode() -> u8 {
    MODE.load(Ordering::Relaxed)
}

/// Turns kinds of recording on.
pub fn turn_on(bits: u8) {
    MODE.fetch_or(bits, Ordering::Relaxed);
}

/// Turns kinds of recording off.
pub fn turn_off(bits: u8) {
    MODE.fetch_and(!bits, Ordering::Relaxed);
}

/// What a thread waits for, or what it did to get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A plain lock, which any thread may release.
    Lock,
    /// A re-entrant lock, which only its owner can release.
    RLock,
    /// A notification of a condition.
    Condition,
    /// A permit of a semaphore.
    Semaphore,
    /// An event to be set.
    Event,
    /// The other parties of a barrier.
    Barrier,
    /// Room in a bounded queue.
    QueuePut,
    /// An item of a queue.
    QueueGet,
    /// The last `task_done` of a queue.
    QueueJoin,
    /// The end of another thread.
    Join,
    /// The next event of a scheduler, or plain sleep.
    Sleep,
    /// The end of a future, or of some of several.
    Future,
    /// Room in the line of a pool.
    Submit,
    /// A task for a worker of a pool.
    Idle,
    /// A message from another process.
    Receive,
    /// Room for a message to another process.
    Send,
    /// One of several descriptors to be ready.
    Ready,
    /// The end of another process.
    Exit,
}

/// How sure it is that nobody but the wakers named can end a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// Anybody might: the wait is no edge of a wait-for graph.
    Unknown,
    /// They hold it, but nothing has shown yet that whoever takes it also gives it back.
    Possible,
    /// By what has been seen so far, only they; the rules of the object admit others.
    Likely,
    /// By the rules of the object, only they.
    Proven,
}

/// A thread that can end a wait, and where it took what is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waker {
    /// The thread's token ([`crate::primitive::thread_token`]).
    pub token: usize,
    /// Where it took the object, if that is kept.
    pub site: Option<Site>,
    /// The [`epoch`] in which it did: a later thread may have the same token.
    pub epoch: u32,
}

/// What has been seen of how a lock or semaphore is used: by whom it is given back.
#[derive(Debug, Default)]
pub struct Usage(crate::primitive::AtomicU8);

impl Usage {
    const OWN: u8 = 1;
    const FOREIGN: u8 = 2;

    crate::primitive::const_unless_loom! {
        /// Nothing has been seen.
        pub fn new() -> Self {
            Self(crate::primitive::AtomicU8::new(0))
        }
    }

    /// Its taker has given it back, or has taken it for a block of code.
    #[inline]
    pub fn own(&self) {
        if self.0.load(Ordering::Relaxed) == 0 {
            self.0.store(Self::OWN, Ordering::Relaxed);
        }
    }

    /// Another thread has given it back: it is a signal, and says nothing about its holders from now on.
    #[inline]
    pub fn foreign(&self) {
        self.0.store(Self::FOREIGN, Ordering::Relaxed);
    }

    /// Whether it is a signal.
    #[inline]
    pub fn is_signal(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::FOREIGN
    }

    /// What a holder of it means.
    pub fn claim(&self) -> Claim {
        match self.0.load(Ordering::Relaxed) {
            Self::OWN => Claim::Likely,
            Self::FOREIGN => Claim::Unknown,
            _ => Claim::Possible,
        }
    }
}

static EPOCH: AtomicU32 = AtomicU32::new(1);

/// How many threads have ended so far. What a token took in one epoch is not a thread's that came after it.
#[inline]
pub fn epoch() -> u32 {
    EPOCH.load(Ordering::Relaxed)
}

/// A thread has ended; the epoch from which on its token may be another's.
#[cfg(not(raddle_loom))]
fn next_epoch() -> u32 {
    EPOCH.fetch_add(1, Ordering::Relaxed) + 1
}

/// Something that can be waited for.
pub trait Resource: Sync {
    /// Adds the threads that can end a wait of this kind, and says how sure that is.
    ///
    /// Called with a waiter held still, so that the object is alive; takes only short locks.
    fn wakers(&self, kind: Kind, out: &mut Vec<Waker>) -> Claim;

    /// Wakes those that have been given what they wait for, and sleep on only until it is their turn to use it.
    ///
    /// Called by who looks at such a sleeper: awake, it waits for something that can be told.
    fn hurry(&self) {}

    /// Whether another process may end any wait for it: nothing in this one can prove that a wait has no end.
    fn is_outside(&self) -> bool {
        false
    }

    /// A waiter gave up or was served after waiting this long, in nanoseconds.
    fn waited(&self, _nanoseconds: u64) {}
}

/// What a [`Hook`] decided about a thread that is about to block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// The door goes on and blocks in the operating system.
    Block,
    /// The hook has held the thread back itself; what is waited for is looked at again.
    Retry,
}

/// A later explorer's way in: told of every acquire and release, asked before every block.
pub trait Hook: Sync {
    /// The calling thread took the object.
    fn acquired(&self, kind: Kind, object: usize);
    /// The calling thread let go of the object, or woke those who wait for it.
    fn released(&self, kind: Kind, object: usize);
    /// The calling thread would block on the object now.
    fn block(&self, kind: Kind, object: usize) -> Takeover;
    /// The calling thread started another one.
    fn spawned(&self, child: usize);
}

/// A fat pointer cannot be stored atomically; this one points to it.
static INSTALLED: AtomicPtr<&'static dyn Hook> = AtomicPtr::new(std::ptr::null_mut());

/// Installs a hook for the rest of the process, in place of an earlier one.
pub fn set_hook(hook: &'static dyn Hook) {
    // Leaked on purpose: another thread may be inside the earlier hook.
    INSTALLED.store(Box::into_raw(Box::new(hook)), Ordering::Release);
    turn_on(HOOK);
}

/// Takes the hook out again; a call that is under way still ends in it.
pub fn clear_hook() {
    turn_off(HOOK);
}

/// The hook in force, if [`mode`] says there is one.
#[inline]
pub fn hook() -> Option<&'static dyn Hook> {
    if mode() & HOOK == 0 {
        return None;
    }
    let hook = INSTALLED.load(Ordering::Acquire);
    // SAFETY: non-null values come from `set_hook`, which leaks a valid box and never frees it.
    unsafe { hook.as_ref() }.copied()
}
