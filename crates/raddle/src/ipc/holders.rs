//! Which processes have a file of ours: the kernel's word for it, out of `/proc`.
//!
//! Who has a file may use what is in it, whether this package knows of that process or not; who has not cannot. A file
//! counts as had while it is mapped or a descriptor of it is open. What cannot be seen is taken for a process that
//! might have it. A file that is on its way over a socket is nobody's: whoever sends one runs.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

/// How the files are called: memory with these names.
const OURS: &[u8] = b"/memfd:raddle-";

/// Bit of a process's flags: it is a thread of the kernel.
const KERNEL: u64 = 0x0020_0000;

/// Who has what, at one look.
#[derive(Clone, Debug, Default)]
pub(super) struct Holders {
    by_file: HashMap<u64, Vec<u32>>,
    /// When the processes that cannot be looked into were started.
    hidden: Vec<u64>,
    started: HashMap<u32, u64>,
}

/// What `/proc/PID/stat` says.
struct Stat {
    state: char,
    flags: u64,
    threads: u64,
    started: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Stat> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may contain anything, brackets too.
        let after = text.iter().rposition(|byte| *byte == b')')? + 1;
        let fields: Vec<&str> = std::str::from_utf8(&text[after..]).ok()?.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse().ok();
        Some(Stat {
            state: fields.first()?.chars().next()?,
            flags: number(6)?,
            threads: number(17)?,
            started: number(19)?,
        })
    }
}

impl Holders {
    /// Looks at every process. O(processes and their descriptors): some milliseconds.
    ///
    /// # Errors
    /// There is no `/proc` to ask.
    pub(super) fn find() -> io::Result<Holders> {
        let mut found = Holders::default();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // Gone meanwhile.
            let Some(stat) = Stat::of(pid) else { continue };
            let ended = matches!(stat.state, 'Z' | 'X' | 'x');
            if stat.flags & KERNEL != 0 || (ended && stat.threads <= 1) {
                continue;
            }
            if ended {
                // Its first thread has: nothing can be seen of the others.
                found.hidden.push(u64::MAX);
                continue;
            }
            match files_of(pid) {
                Ok(files) => {
                    for file in files {
                        let pids = found.by_file.entry(file).or_default();
                        if !pids.contains(&pid) {
                            pids.push(pid);
                        }
                        found.started.insert(pid, stat.started);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => found.hidden.push(stat.started),
                Err(error) if is_gone(&error) => {}
                Err(_) => found.hidden.push(u64::MAX),
            }
        }
        Ok(found)
    }

    /// Who has this file; `None` if that cannot be told.
    pub(super) fn of(&self, file: u64) -> Option<&[u32]> {
        let pids = self.by_file.get(&file)?;
        // One that is older than all of them has it from nobody.
        let oldest = pids.iter().filter_map(|pid| self.started.get(pid)).min()?;
        self.hidden.iter().all(|started| started < oldest).then_some(pids)
    }

    /// Whether a process still has all that it had at the look: one that had nothing has.
    pub(super) fn still_has(&self, pid: u32) -> bool {
        let mut had = self.by_file.iter().filter(|(_, pids)| pids.contains(&pid)).map(|(file, _)| *file).peekable();
        had.peek().is_none() || files_of(pid).is_ok_and(|files| had.all(|file| files.contains(&file)))
    }
}

/// Whether a process has one of these files.
pub(super) fn has_any(pid: u32, mut files: impl Iterator<Item = u64>) -> bool {
    files_of(pid).is_ok_and(|had| files.any(|file| had.contains(&file)))
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT))
}

/// The numbers of our files that a process has.
fn files_of(pid: u32) -> io::Result<Vec<u64>> {
    let mut files = Vec::new();
    // Room for all of it: it is read page by page otherwise.
    let mut maps = Vec::with_capacity(1 << 16);
    fs::File::open(format!("/proc/{pid}/maps"))?.read_to_end(&mut maps)?;
    for line in maps.split(|byte| *byte == b'\n') {
        if line.windows(OURS.len()).any(|part| part == OURS) {
            // addresses, rights, offset, device, inode, name
            let inode = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty()).nth(4);
            let inode = inode.and_then(|inode| std::str::from_utf8(inode).ok()?.parse().ok());
            files.push(inode.ok_or(io::ErrorKind::InvalidData)?);
        }
    }
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        match fs::read_link(&path) {
            Ok(target) if target.as_os_str().as_bytes().starts_with(OURS) => match fs::metadata(&path) {
                Ok(status) => files.push(status.ino()),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            },
            Ok(_) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::{Arena, Memory};
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn who_has_a_file_is_seen_and_nobody_else() {
        let arena = Arena::create().unwrap();
        let me = std::process::id();
        // The children of other tests have everything for a moment, until they execute a program.
        let only = |file, others: &[u32]| {
            let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
            let seen = || -> Vec<u32> { Holders::find().unwrap().of(file).unwrap().to_vec() };
            while seen().iter().any(|pid| *pid != me && !others.contains(pid)) {
                assert!(std::time::Instant::now() < end, "{:?}", seen());
            }
            let seen = seen();
            seen.contains(&me) && others.iter().all(|other| seen.contains(other))
        };
        assert!(only(arena.number(), &[]));
        // A file that is only open: in another process too.
        let memory = Memory::create(1, 0, 0).unwrap();
        let number = crate::ipc::memory::status(memory.as_fd()).unwrap().number;
        assert!(only(number, &[]));
        let passed = std::process::Stdio::from(memory.try_clone().unwrap());
        let mut child = std::process::Command::new("sleep").arg("1000").stdin(passed).spawn().unwrap();
        assert!(memory.as_raw_fd() > 2);
        assert!(only(number, &[child.id()]));
        assert!(only(arena.number(), &[]));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(only(number, &[]));
        drop(memory);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while Holders::find().unwrap().of(number).is_some() {
            assert!(std::time::Instant::now() < end);
        }
    }

    #[test]
    fn who_cannot_be_looked_into_might_have_what_is_older() {
        let mut found = Holders::default();
        found.by_file.insert(7, vec![1, 2]);
        found.started.extend([(1, 100), (2, 50)]);
        found.hidden.push(49);
        assert_eq!(found.of(7), Some(&[1, 2][..]));
        found.hidden.push(50);
        assert_eq!(found.of(7), None);
        assert_eq!(found.of(8), None);
    }
}
