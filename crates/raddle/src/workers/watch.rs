//! What the dispatcher waits for: descriptors, through epoll, and deaths, through descriptors of processes.
#![allow(unsafe_code)]

use super::times::Spent;
use crate::park::now;
use crate::pool::run_delay_of;
use crate::trace::thread::Serving;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::thread::JoinHandle;

/// A set of descriptors to wait for, each with a number, and a bell that any thread may ring.
#[derive(Debug)]
pub(super) struct Watch {
    epoll: OwnedFd,
    bell: OwnedFd,
}

/// The number that the bell has.
pub(super) const BELL: u64 = u64::MAX;

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

impl Watch {
    /// With the bell only.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: flags only; descriptors that are given back are new.
        let (epoll, bell) = unsafe {
            let epoll = OwnedFd::from_raw_fd(checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))?);
            (epoll, OwnedFd::from_raw_fd(checked(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?))
        };
        let watch = Self { epoll, bell };
        watch.add(watch.bell.as_raw_fd(), BELL)?;
        Ok(watch)
    }

    /// All descriptors of its own.
    pub(super) fn descriptors(&self) -> [RawFd; 2] {
        [self.epoll.as_raw_fd(), self.bell.as_raw_fd()]
    }

    /// Watches a descriptor, too.
    pub(super) fn add(&self, fd: RawFd, number: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: number };
        // SAFETY: descriptors, and an event to read.
        checked(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) }).map(drop)
    }

    /// Does so no longer.
    pub(super) fn remove(&self, fd: RawFd) {
        // SAFETY: descriptors. One that is not watched is no harm.
        unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
    }

    /// Ends the next wait, or this one.
    pub(super) fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: a descriptor, and bytes to read from. A bell that takes no more rings already.
        unsafe { libc::write(self.bell.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Waits until some are ready, at the latest until this moment: their numbers.
    pub(super) fn wait(&self, until: Option<u64>, ready: &mut Vec<u64>) {
        ready.clear();
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        let left =
            until.map_or(-1, |until| until.saturating_sub(now()).div_ceil(1_000_000).min(1 << 30) as libc::c_int);
        // SAFETY: a descriptor, and room for that many events.
        let found =
            unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), events.len() as libc::c_int, left) };
        for event in events.iter().take(usize::try_from(found).unwrap_or(0)) {
            let number = event.u64;
            if number == BELL {
                let mut bytes = [0u8; 8];
                // SAFETY: a descriptor, and room for eight bytes.
                unsafe { libc::read(self.bell.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
            } else {
                ready.push(number);
            }
        }
    }
}

/// A process that is watched and signalled: another one that gets its number later is not taken for it.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// Readable once it has ended.
    pub(super) fd: OwnedFd,
}

impl Process {
    /// The process with this number; it must not have been waited for.
    pub(super) fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: numbers only; the descriptor that is given back is new.
        unsafe {
            let fd = checked(libc::syscall(libc::SYS_pidfd_open, pid, 0) as libc::c_int)?;
            Ok(Self { pid, fd: OwnedFd::from_raw_fd(fd) })
        }
    }

    /// Sends it a signal. One that has ended gets none.
    pub(super) fn signal(&self, signal: i32) {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a descriptor of a process, and no information to read.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.fd.as_raw_fd(), signal, none, 0) };
    }

    /// The processor time that it has taken, and how long it had no core although it was ready; zero where that cannot
    /// be told.
    pub(super) fn spent(&self) -> Spent {
        Spent { cpu: self.cpu().unwrap_or(0), delay: run_delay_of(self.pid) }
    }

    /// The processor time that it has taken, in nanoseconds, if that can be told.
    fn cpu(&self) -> Option<u64> {
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: places for a clock and for a time.
        unsafe {
            if libc::clock_getcpuclockid(self.pid, &mut clock) != 0 || libc::clock_gettime(clock, &mut time) != 0 {
                return None;
            }
        }
        Some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    /// How much memory it has, in bytes, if that can be told.
    pub(super) fn memory(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.pid)).ok()?;
        let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
        // SAFETY: asks for a number.
        Some(pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64)
    }
}

/// Starts a thread that no signal interrupts: handlers run in the host's threads.
pub(super) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // SAFETY: sets of signals are plain data, filled in before they are used; only the calling thread's mask changes,
    // and is put back.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed::<libc::sigset_t>(), std::mem::zeroed::<libc::sigset_t>());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let made = std::thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024).spawn(|| {
            let _serving = Serving::new();
            body();
        });
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        made
    }
}
