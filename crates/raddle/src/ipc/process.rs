//! Which process this is, and whether another one is still alive.
//!
//! A process is known by its number and the moment it was started, so that a later process with the same number is
//! not taken for it. What is asked of `/proc` is asked only of a process that seems to keep others waiting.
#![allow(unsafe_code)]

use std::sync::Once;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A process: its number, and when it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// In clock ticks since the machine was started; 0 if that cannot be told.
    pub(crate) started: u64,
}

static PID: AtomicU32 = AtomicU32::new(0);
static STARTED: AtomicU64 = AtomicU64::new(0);

/// In a forked child: it is another process now. Whoever forks, and by whatever means of the C library.
extern "C" fn forget() {
    PID.store(0, Ordering::Relaxed);
}

impl Identity {
    /// The calling process.
    #[inline]
    pub(crate) fn own() -> Identity {
        let pid = PID.load(Ordering::Acquire);
        if pid == 0 { Self::find_out() } else { Identity { pid, started: STARTED.load(Ordering::Relaxed) } }
    }

    #[cold]
    fn find_out() -> Identity {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            // SAFETY: the handler only stores to an atomic.
            unsafe { libc::pthread_atfork(None, None, Some(forget)) };
        });
        let pid = std::process::id();
        let started = match Sight::of(pid) {
            Sight::Lives(started) => started,
            _ => 0,
        };
        STARTED.store(started, Ordering::Relaxed);
        // Release: who reads the number finds the moment that belongs to it.
        PID.store(pid, Ordering::Release);
        Identity { pid, started }
    }

    /// Whether it has not ended. A process that is stopped lives; one that waits to be reaped does not.
    pub(crate) fn is_alive(self) -> bool {
        match Sight::of(self.pid) {
            Sight::Lives(started) => self.started == 0 || started == self.started,
            Sight::Ended => false,
            // SAFETY: signal 0 is sent to nobody; only the answer counts.
            Sight::Hidden => unsafe {
                libc::kill(self.pid as libc::pid_t, 0) == 0
                    || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
            },
        }
    }
}

/// What `/proc` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// It runs, and was started then.
    Lives(u64),
    Ended,
    /// There is no `/proc` to ask.
    Hidden,
}

impl Sight {
    fn of(pid: u32) -> Sight {
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(text) => Self::parse(&text).unwrap_or(Sight::Hidden),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Sight::Ended,
            Err(_) if std::path::Path::new("/proc/self/stat").exists() => Sight::Ended,
            Err(_) => Sight::Hidden,
        }
    }

    /// Reads a line of `/proc/PID/stat`. The name in brackets may contain anything, brackets too.
    fn parse(line: &str) -> Option<Sight> {
        let mut fields = line.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        let threads: u64 = fields.nth(16)?.parse().ok()?;
        let started: u64 = fields.nth(1)?.parse().ok()?;
        // The first thread may have ended while others of the process run on.
        Some(if matches!(state, "Z" | "X" | "x") && threads <= 1 { Sight::Ended } else { Sight::Lives(started) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calling_process_lives() {
        let me = Identity::own();
        assert_eq!(me.pid, std::process::id());
        assert_ne!(me.started, 0);
        assert!(me.is_alive());
        assert!(!Identity { started: me.started + 1, ..me }.is_alive());
    }

    #[test]
    fn a_process_that_nobody_has_reaped_is_dead() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let Sight::Lives(started) = Sight::of(child.id()) else { panic!("it runs") };
        let identity = Identity { pid: child.id(), started };
        assert!(identity.is_alive());
        child.kill().unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while identity.is_alive() && std::time::Instant::now() < end {
            std::thread::yield_now();
        }
        assert!(!identity.is_alive());
        child.wait().unwrap();
        assert!(!identity.is_alive());
    }

    #[test]
    fn names_may_contain_brackets_and_blanks() {
        let line = "7 (a) Z (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 12345 8192 1";
        assert_eq!(Sight::parse(line), Some(Sight::Lives(12345)));
        assert_eq!(Sight::parse("7 (x"), None);
        assert_eq!(Sight::parse("7 (x) Z 1 2"), None);
    }
}
