//! Sleeping on a word on Linux: `futex(2)`, private to the process, absolute on the monotonic clock.
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

/// Sleeps while the word has this value, at most until the deadline.
pub(crate) fn sleep(word: &Futex, expected: u32, deadline: Deadline) -> Slept {
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
            libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG,
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

/// Wakes up to this many of those asleep on the word.
pub(crate) fn wake(word: &Futex, count: u32) {
    let word: *const std::sync::atomic::AtomicU32 = &raw const **word;
    // SAFETY: FUTEX_WAKE only uses the address as a key and reads nothing through it.
    unsafe {
        libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, count.min(i32::MAX as u32));
    }
}
