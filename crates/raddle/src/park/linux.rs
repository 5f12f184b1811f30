//! Sleeping on Linux: `futex(2)`, absolute on the monotonic clock, for words of this process and for words in memory
//! that processes share; `ppoll(2)` for descriptors.
#![allow(unsafe_code)]

use super::clock::Deadline;
use crate::primitive::Futex;

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slept {
    /// Woken, or the word had changed before, or for no reason at all.
    Woken,
    /// The deadline came.
    TimedOut,
    /// A signal handler ran in this thread.
    Interrupted,
}

/// Who may wake the sleepers on a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Threads of this process.
    Process,
    /// Whoever has mapped the memory that the word is in.
    Shared,
}

impl Reach {
    fn flag(self) -> libc::c_int {
        match self {
            Reach::Process => libc::FUTEX_PRIVATE_FLAG,
            Reach::Shared => 0,
        }
    }
}

/// Sleeps while the word has this value, at most until the deadline.
pub(crate) fn sleep(word: &Futex, expected: u32, deadline: Deadline) -> Slept {
    sleep_on(word, expected, deadline, Reach::Process)
}

/// [`sleep`], for a word of either kind.
pub(crate) fn sleep_on(word: &Futex, expected: u32, deadline: Deadline, reach: Reach) -> Slept {
    let limit = libc::timespec {
        tv_sec: (deadline.nanoseconds() / 1_000_000_000) as libc::time_t,
        tv_nsec: (deadline.nanoseconds() % 1_000_000_000) as libc::c_long,
    };
    let limit = if deadline.is_timed() { &raw const limit } else { std::ptr::null() };
    let word: *const std::sync::atomic::AtomicU32 = &raw const **word;
    // SAFETY: the word is a live, aligned 32-bit atomic for the length of the call; the limit is
    // null or a valid timespec; the remaining arguments are plain values of FUTEX_WAIT_BITSET.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word,
            libc::FUTEX_WAIT_BITSET | reach.flag(),
            expected,
            limit,
            std::ptr::null::<u32>(),
            libc::FUTEX_BITSET_MATCH_ANY,
        )
    };
    if result == 0 {
        return Slept::Woken;
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::ETIMEDOUT) => Slept::TimedOut,
        Some(libc::EINTR) => Slept::Interrupted,
        _ => Slept::Woken,
    }
}

/// Sleeps until one of the descriptors is ready, which their `revents` then say, at most until the deadline.
pub(crate) fn poll(descriptors: &mut [libc::pollfd], deadline: Deadline) -> Slept {
    let left = deadline.nanoseconds().saturating_sub(super::now());
    let limit = libc::timespec {
        tv_sec: (left / 1_000_000_000) as libc::time_t,
        tv_nsec: (left % 1_000_000_000) as libc::c_long,
    };
    let limit = if deadline.is_timed() { &raw const limit } else { std::ptr::null() };
    // SAFETY: a slice of descriptors of that length, a limit that is null or valid, and no change of the signal mask.
    let result =
        unsafe { libc::ppoll(descriptors.as_mut_ptr(), descriptors.len() as libc::nfds_t, limit, std::ptr::null()) };
    match result {
        0 => Slept::TimedOut,
        -1 if std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => Slept::Interrupted,
        _ => Slept::Woken,
    }
}

/// Wakes up to this many of those asleep on a word in memory that processes share; how many there were.
pub(crate) fn wake_shared(word: &Futex, count: u32) -> i64 {
    let word: *const std::sync::atomic::AtomicU32 = &raw const **word;
    // SAFETY: FUTEX_WAKE only uses the address as a key and reads nothing through it.
    unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, count.min(i32::MAX as u32)) }
}
