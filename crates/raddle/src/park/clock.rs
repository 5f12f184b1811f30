//! The monotonic clock, in nanoseconds, and deadlines on it.

use std::time::Duration;

/// Nanoseconds of the monotonic clock, the one behind Python's `time.monotonic()`.
#[cfg(not(raddle_loom))]
#[allow(unsafe_code)]
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes; CLOCK_MONOTONIC always exists on Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Nanoseconds of processor time that the calling thread has used.
#[cfg(not(raddle_loom))]
#[allow(unsafe_code)]
pub fn thread_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: as above; the clock of the calling thread always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The model has no clock.
#[cfg(raddle_loom)]
pub fn now() -> u64 {
    0
}

/// The instant at which a wait gives up; may be never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

impl Deadline {
    /// Waits without limit.
    pub const NEVER: Deadline = Deadline(u64::MAX);

    /// This long from now; so long that the clock cannot hold it is never.
    pub fn after(duration: Duration) -> Deadline {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Deadline(now().saturating_add(nanoseconds))
    }

    /// At this reading of [`now`].
    pub const fn at(nanoseconds: u64) -> Deadline {
        Deadline(nanoseconds)
    }

    /// The reading of [`now`] it stands for; `u64::MAX` for never.
    pub const fn nanoseconds(self) -> u64 {
        self.0
    }

    /// Whether there is a limit at all.
    pub const fn is_timed(self) -> bool {
        self.0 != u64::MAX
    }

    /// Whether it has come.
    pub fn is_past(self) -> bool {
        self.is_timed() && now() >= self.0
    }
}
