//! What a thread of the operating system has from the one that started it: Linux.
//!
//! A new thread gets its starter's processors, scheduling policy, niceness, name and signal mask. One that has
//! run before may have others, and its next starter too; it is taken only for a starter whose own are the
//! same. The signal mask alone is set at each hand-over: an idle thread has all signals blocked, so that none
//! is delivered to a thread that, to the program, does not exist.
#![allow(unsafe_code)]

use std::mem::{MaybeUninit, zeroed};

/// Processors, scheduling and name of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Traits {
    processors: [u64; Traits::WORDS],
    scheduling: Scheduling,
    name: [u8; 16],
}

/// The kernel's `struct sched_attr`, in its first version: policy, niceness, priority, deadlines.
#[repr(C)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Scheduling {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

impl Traits {
    /// Room for 1024 processors; on a larger machine the call fails, and threads are not reused.
    const WORDS: usize = 16;

    /// Those of the calling thread; `None` if the system does not say, or if it has a locale of its own, which a
    /// new thread has not.
    pub(super) fn of_this_thread() -> Option<Self> {
        let mut processors = [0u64; Self::WORDS];
        let mut scheduling = Scheduling::default();
        let mut name = [0u8; 16];
        // SAFETY: each call writes at most the size it is given, into a local that is that large; a name has
        // at most 16 bytes. 0 stands for the calling thread.
        unsafe {
            let size = size_of_val(&processors);
            if libc::syscall(libc::SYS_sched_getaffinity, 0, size, processors.as_mut_ptr()) < 0
                || libc::syscall(libc::SYS_sched_getattr, 0, &raw mut scheduling, size_of::<Scheduling>(), 0) < 0
                || libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) < 0
            {
                return None;
            }
        }
        // LC_GLOBAL_LOCALE is (locale_t)-1.
        // SAFETY: with null it only tells the thread's locale.
        let global = unsafe { libc::uselocale(std::ptr::null_mut()) }.addr() == usize::MAX;
        global.then_some(Self { processors, scheduling, name })
    }
}

/// A signal mask.
#[derive(Clone, Copy)]
pub(super) struct Mask(libc::sigset_t);

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask")
    }
}

impl Mask {
    /// The calling thread's.
    pub(super) fn of_this_thread() -> Self {
        // SAFETY: an all-zero set is a valid one; the call cannot fail with these arguments, and fills it.
        unsafe {
            let mut mask = zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut mask);
            Self(mask)
        }
    }

    /// Every signal that can be blocked.
    pub(super) fn all() -> Self {
        let mut mask = MaybeUninit::uninit();
        // SAFETY: sigfillset fills the set, and cannot fail.
        unsafe {
            libc::sigfillset(mask.as_mut_ptr());
            Self(mask.assume_init())
        }
    }

    /// Makes it the calling thread's.
    pub(super) fn set(&self) {
        // SAFETY: a filled set; the call cannot fail with these arguments.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// The size in bytes of the stack that the system gives a thread whose starter asks for none.
pub(super) fn default_stack() -> usize {
    let mut size = 0;
    // SAFETY: the attributes are initialised by the first call, read by the second and destroyed by the third.
    unsafe {
        let mut attributes = MaybeUninit::uninit();
        if libc::pthread_attr_init(attributes.as_mut_ptr()) == 0 {
            libc::pthread_attr_getstacksize(attributes.as_ptr(), &raw mut size);
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
        }
    }
    size
}
