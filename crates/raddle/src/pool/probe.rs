//! What the threads of this process are doing, as the kernel tells it: files under /proc, some microseconds a look.

use std::fs::File;
use std::io::Read;

/// What a thread is doing at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It runs, or would if a core were free.
    Runs,
    /// It sleeps on the futex at this address.
    SleepsAt(usize),
    /// It is in another system call.
    Waits,
}

/// The beginning of a file under /proc: as much as `buffer` takes.
fn read<'a>(path: &str, buffer: &'a mut [u8]) -> Option<&'a str> {
    let length = File::open(path).ok()?.read(buffer).ok()?;
    std::str::from_utf8(&buffer[..length]).ok()
}

/// Nanoseconds that the calling thread was ready to run and had no core, since it began. 0 where the kernel does not
/// count them.
pub fn run_delay() -> u64 {
    delay_in("/proc/thread-self/schedstat")
}

/// The same of the main thread of another process.
pub(crate) fn run_delay_of(process: i32) -> u64 {
    delay_in(&format!("/proc/{process}/schedstat"))
}

/// The second field: nanoseconds on a run queue.
fn delay_in(path: &str) -> u64 {
    let mut buffer = [0; 96];
    let fields = read(path, &mut buffer);
    fields.and_then(|fields| fields.split_ascii_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// What the thread of this process with this number does now. `None`: there is no such thread, or the kernel does not
/// tell.
pub fn doing(thread: i32) -> Option<Doing> {
    let mut buffer = [0; 192];
    let line = read(&format!("/proc/self/task/{thread}/syscall"), &mut buffer)?;
    understood(line)
}

/// The number of the system call, its arguments, stack pointer and program counter; or "running"; or -1 and the last
/// two where the thread is blocked outside of a system call, as by a page that has to be read.
fn understood(line: &str) -> Option<Doing> {
    let mut words = line.split_ascii_whitespace();
    match words.next()? {
        "running" => Some(Doing::Runs),
        number if number.parse() == Ok(libc::SYS_futex) => {
            let address = words.next()?.strip_prefix("0x")?;
            Some(Doing::SleepsAt(usize::from_str_radix(address, 16).ok()?))
        }
        number => number.parse::<i64>().ok().map(|_| Doing::Waits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitive::thread_number;
    use std::sync::mpsc;

    #[test]
    fn lines_of_the_kernel() {
        let futex = format!("{} 0x7f9529140c78 0x89 0x0 0x7f 0x0 0xffffffff 0x7f1 0x7f2\n", libc::SYS_futex);
        assert_eq!(understood(&futex), Some(Doing::SleepsAt(0x7f95_2914_0c78)));
        assert_eq!(understood("running\n"), Some(Doing::Runs));
        assert_eq!(understood("-1 0x7f1 0x7f2\n"), Some(Doing::Waits));
        for odd in ["", "\n", "what", &format!("{} nothing", libc::SYS_futex)] {
            assert_eq!(understood(odd), None);
        }
    }

    #[test]
    fn threads_are_seen_to_run_and_to_sleep() {
        let (say, hear) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            say.send(thread_number()).unwrap();
            while ended.try_recv().is_err() {}
            say.send(0).unwrap();
            let _ = ended.recv();
        });
        let number = hear.recv().unwrap();
        while doing(number) != Some(Doing::Runs) {
            std::thread::yield_now();
        }
        end.send(()).unwrap();
        hear.recv().unwrap();
        while !matches!(doing(number), Some(Doing::SleepsAt(_))) {
            std::thread::yield_now();
        }
        drop(end);
        thread.join().unwrap();
        while doing(number).is_some() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_delay_only_grows() {
        let before = run_delay();
        std::thread::yield_now();
        assert!(run_delay() >= before);
    }
}
