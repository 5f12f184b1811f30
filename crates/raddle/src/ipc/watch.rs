//! Who waits for whom among processes: rows in the shared memory of the locks.
//!
//! A thread that has waited for a while without a deadline posts a row: who it is, what it waits for, and where. With
//! the owners that the locks note, anybody who has the same memory can walk from a thread to what it waits for, to the
//! owner of that, and on; if the walk comes back to where it began, none of these waits ends by itself. Each party
//! walks for itself, now and then, and believes what it finds when it has found it twice.
//!
//! A row may be read while it changes, and may be damaged: what comes of that is a walk that ends, or a circle that is
//! not found again. Rows of processes that were killed are written over when there is no other room.

use super::arena::Arena;
use super::process::Identity;
use super::semlock::Text;
use super::side::{OwnerRecord, alive};
use crate::primitive::thread_token;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How many threads can say at once what they wait for.
pub(super) const ROWS: usize = 128;

/// The most threads of a circle.
const LONGEST: usize = 64;

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// A lock that any process may release: its place in the arena.
    Lock(u32),
    /// A lock that only its owner can release.
    RLock(u32),
    /// The end of the process with this number.
    Exit(u32),
}

const LOCK: u32 = 1;
const RLOCK: u32 = 2;
const EXIT: u32 = 3;

/// What a waiting thread says.
#[derive(Debug)]
#[repr(C, align(256))]
pub(super) struct Row {
    /// The thread's process; 0: the row is free.
    pid: AtomicU32,
    /// What is waited for; 0: nothing (yet).
    kind: AtomicU32,
    target: AtomicU32,
    is_main: AtomicU32,
    owner: OwnerRecord,
    thread: AtomicU64,
    since: AtomicU64,
    who: Text<8>,
    site: Text<16>,
}

/// A row as it was read.
#[derive(Clone, Debug)]
struct Seen {
    thread: u64,
    since: u64,
    awaited: Awaited,
    who: String,
    site: Option<String>,
}

impl Row {
    fn post(&self, wait: &Wait<'_>, awaited: Awaited, me: Identity) -> bool {
        if self.pid.compare_exchange(0, me.pid, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            return false;
        }
        let (kind, target) = match awaited {
            Awaited::Lock(place) => (LOCK, place),
            Awaited::RLock(place) => (RLOCK, place),
            Awaited::Exit(pid) => (EXIT, pid),
        };
        self.owner.set(me.pid, me.started);
        self.target.store(target, Ordering::Relaxed);
        self.is_main.store(u32::from(wait.is_main), Ordering::Relaxed);
        self.thread.store(thread_token() as u64, Ordering::Relaxed);
        self.since.store(wait.since, Ordering::Relaxed);
        self.who.write(wait.who);
        self.site.write(wait.site);
        // SeqCst: of two that post and then walk, one sees the other.
        self.kind.store(kind, Ordering::SeqCst);
        true
    }

    fn withdraw(&self, me: u32) {
        self.kind.store(0, Ordering::SeqCst);
        let _ = self.pid.compare_exchange(me, 0, Ordering::SeqCst, Ordering::Relaxed);
    }

    fn read(&self) -> Option<Seen> {
        let awaited = match (self.kind.load(Ordering::SeqCst), self.target.load(Ordering::Relaxed)) {
            (LOCK, place) => Awaited::Lock(place),
            (RLOCK, place) => Awaited::RLock(place),
            (EXIT, pid) => Awaited::Exit(pid),
            _ => return None,
        };
        Some(Seen {
            thread: self.thread.load(Ordering::Relaxed),
            since: self.since.load(Ordering::Relaxed),
            awaited,
            who: self.who.read().unwrap_or_default(),
            site: self.site.read(),
        })
    }

    fn is_of(&self, pid: u32) -> bool {
        self.kind.load(Ordering::SeqCst) != 0 && self.pid.load(Ordering::Relaxed) == pid
    }
}

/// A wait, as it is told to others.
#[derive(Clone, Copy, Debug)]
pub struct Wait<'a> {
    /// When it began, on the clock.
    pub since: u64,
    /// Whether the thread is its process's main thread.
    pub is_main: bool,
    /// What the process and the thread are called.
    pub who: &'a str,
    /// Where it waits.
    pub site: &'a str,
}

/// A thread of a circle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Its process.
    pub pid: u32,
    /// Its [`thread_token`].
    pub thread: u64,
    /// When its wait began, on the clock.
    pub since: u64,
    /// What the process and the thread are called.
    pub who: String,
    /// What it waits for.
    pub awaited: Awaited,
    /// What that is called, if it is a lock.
    pub what: Option<String>,
    /// Where it waits.
    pub site: Option<String>,
    /// Where the next party took the lock that this one waits for, if that is kept.
    pub taken: Option<String>,
}

/// The rows of one wait, until this is dropped.
#[derive(Debug)]
pub struct Posted {
    arenas: Vec<Arc<Arena>>,
    rows: Vec<(usize, usize)>,
    me: Identity,
}

impl Posted {
    /// Says in the arena of a lock, the first of `arenas`, that the calling thread waits for it; of a process, says in
    /// all of them that it waits for its end. Where there is no room, nothing is said.
    pub fn new(arenas: Vec<Arc<Arena>>, wait: &Wait<'_>, awaited: Awaited) -> Posted {
        let me = Identity::own();
        let told = if matches!(awaited, Awaited::Exit(_)) { arenas.len() } else { 1 };
        let mut rows = Vec::new();
        for (number, arena) in arenas.iter().enumerate().take(told) {
            let Ok(all) = arena.rows() else { continue };
            let free = || all.iter().position(|row| row.post(wait, awaited, me));
            let clear_dead = || {
                for row in all {
                    let pid = row.pid.load(Ordering::Relaxed);
                    if pid != 0 && !row.owner.lives(pid, &alive) {
                        row.withdraw(pid);
                    }
                }
            };
            let at = free().or_else(|| {
                clear_dead();
                free()
            });
            rows.extend(at.map(|at| (number, at)));
        }
        Posted { arenas, rows, me }
    }

    fn find(&self, is_it: impl Fn(&Row) -> bool) -> Option<(&Arena, &Row)> {
        self.arenas.iter().find_map(|arena| {
            let row = arena.rows().ok()?.iter().find(|row| is_it(row))?;
            Some((&**arena, row))
        })
    }

    /// The circle that the calling thread's wait is part of, beginning with it; `None` if there is none.
    pub fn circle(&self) -> Option<Vec<Party>> {
        let start = (self.me.pid, thread_token() as u64);
        let mut at = start;
        let mut parties: Vec<Party> = Vec::new();
        loop {
            let (pid, thread) = at;
            let (arena, row) = self.find(|row| row.is_of(pid) && row.thread.load(Ordering::Relaxed) == thread)?;
            let seen = row.read().filter(|seen| seen.thread == thread)?;
            let mut party = Party {
                pid,
                thread,
                since: seen.since,
                who: seen.who,
                awaited: seen.awaited,
                what: None,
                site: seen.site,
                taken: None,
            };
            at = match seen.awaited {
                Awaited::Lock(place) | Awaited::RLock(place) => {
                    let cell = arena.cell(place)?;
                    let (pid, thread, site) = cell.owner()?;
                    party.what = cell.name();
                    party.taken = site;
                    (pid, thread)
                }
                Awaited::Exit(pid) => {
                    let (_, row) = self.find(|row| row.is_of(pid) && row.is_main.load(Ordering::Relaxed) == 1)?;
                    (pid, row.thread.load(Ordering::Relaxed))
                }
            };
            if pid != self.me.pid && !row.owner.lives(pid, &alive) {
                return None;
            }
            parties.push(party);
            if at == start {
                return Some(parties);
            }
            if parties.len() == LONGEST || parties.iter().any(|party| (party.pid, party.thread) == at) {
                // A circle of others: they find it.
                return None;
            }
        }
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        // In a forked child, the rows are its parent's.
        if Identity::own() != self.me {
            return;
        }
        for (number, at) in &self.rows {
            if let Ok(rows) = self.arenas[*number].rows() {
                rows[*at].withdraw(self.me.pid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::semlock::Kind;
    use crate::ipc::{SemLock, Waiters};

    fn wait(who: &str) -> Wait<'_> {
        Wait { since: 7, is_main: true, who, site: "here.py:1" }
    }

    #[test]
    fn a_thread_that_waits_for_what_it_has_is_a_circle() {
        let arena = Arc::new(Arena::create().unwrap());
        let lock = SemLock::create(&arena, Kind::Owned, 1).unwrap();
        lock.set_name("a.py:3");
        let awaited = Awaited::Lock(lock.place());
        let posted = Posted::new(vec![Arc::clone(&arena)], &wait("p|t"), awaited);
        assert_eq!(posted.circle(), None);
        assert!(lock.try_take());
        lock.note_site(5, || "b.py:4");
        let circle = posted.circle().unwrap();
        assert_eq!(circle.len(), 1);
        let party = &circle[0];
        assert_eq!((party.who.as_str(), party.since, party.awaited), ("p|t", 7, awaited));
        assert_eq!(party.what.as_deref(), Some("a.py:3"));
        assert_eq!((party.site.as_deref(), party.taken.as_deref()), (Some("here.py:1"), Some("b.py:4")));
        drop(posted);
        assert!(arena.rows().unwrap().iter().all(|row| row.pid.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn more_waits_than_rows_are_not_told() {
        let arena = Arc::new(Arena::create().unwrap());
        let all: Vec<_> =
            (0..ROWS + 3).map(|_| Posted::new(vec![Arc::clone(&arena)], &wait("p|t"), Awaited::RLock(0))).collect();
        assert_eq!(all.iter().filter(|posted| posted.rows.is_empty()).count(), 3);
        drop(all);
        assert_eq!(Posted::new(vec![arena], &wait("p|t"), Awaited::RLock(0)).rows.len(), 1);
    }

    /// Whatever is in the memory, what is read from it are numbers and texts.
    #[test]
    fn damaged_memory_ends_every_walk() {
        let arena = Arc::new(Arena::create().unwrap());
        let lock = SemLock::create(&arena, Kind::Owned, 1).unwrap();
        let waiters = Arc::new(Waiters::create(&arena).unwrap());
        drop(waiters.enlist().unwrap());
        let posted = Posted::new(vec![Arc::clone(&arena)], &wait("p|t"), Awaited::Lock(lock.place()));
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let me = std::process::id();
        for _ in 0..300 {
            for row in arena.rows().unwrap() {
                let pids = [me, me, 0, random() as u32];
                row.pid.store(pids[random() as usize % 4], Ordering::Relaxed);
                row.kind.store(random() as u32 % 5, Ordering::Relaxed);
                row.target.store([random() as u32, random() as u32 % 64, me][random() as usize % 3], Ordering::Relaxed);
                row.is_main.store(random() as u32 % 2, Ordering::Relaxed);
                row.thread.store([thread_token() as u64, random()][random() as usize % 2], Ordering::Relaxed);
                row.who.write(&"\u{fffd}x".repeat(random() as usize % 40));
            }
            if random() % 2 == 0 {
                lock.try_take();
            } else {
                lock.release();
            }
            if let Some(circle) = posted.circle() {
                assert!((1..=LONGEST).contains(&circle.len()));
            }
        }
    }
}
