//! Who waits for whom among processes: rows in the shared memory of the locks.
//!
//! A thread that has waited for a while without a deadline posts a row: who it is, what it waits for, and where. With
//! the owners that the locks note, anybody who has the same memory can walk from a thread to what it waits for, to the
//! owner of that, and on; if the walk comes back to where it began, none of these waits ends by itself. Each party
//! walks for itself, now and then, and believes what it finds when it has found it twice.
//!
//! A thread that waits for another one of its own process, and in the end for one that has posted a row, is posted by
//! that one: so the walk goes on through the locks of a process.
//!
//! Whoever has posted a row looks now and then whether its wait could not have ended, and *confirms* the row: it waited
//! from `since` until `confirmed`. It also says for how long all threads of its process were known to wait. `knot.rs`
//! goes by that.
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
    /// A unit of a semaphore.
    Unit(u32),
    /// A notification of a condition.
    Notice(u32),
    /// The end of the process with this number.
    Exit(u32),
    /// A message of the channel in the file with this number.
    Message(u64),
    /// Room in such a channel.
    Room(u64),
    /// That all its messages are reported done.
    Done(u64),
    /// What another thread of the same process has, by its token: one that waits for another process.
    Thread(u64),
    /// The same, where by the rules of the object only that thread can end the wait.
    OnlyThread(u64),
}

impl Awaited {
    fn code(self) -> (u32, u64) {
        match self {
            Awaited::Lock(place) => (1, place.into()),
            Awaited::RLock(place) => (2, place.into()),
            Awaited::Exit(pid) => (3, pid.into()),
            Awaited::Unit(place) => (4, place.into()),
            Awaited::Notice(place) => (5, place.into()),
            Awaited::Message(file) => (6, file),
            Awaited::Room(file) => (7, file),
            Awaited::Done(file) => (8, file),
            Awaited::Thread(token) => (9, token),
            Awaited::OnlyThread(token) => (10, token),
        }
    }

    fn of((code, target): (u32, u64)) -> Option<Awaited> {
        let low = target as u32;
        Some(match code {
            1 => Awaited::Lock(low),
            2 => Awaited::RLock(low),
            3 => Awaited::Exit(low),
            4 => Awaited::Unit(low),
            5 => Awaited::Notice(low),
            6 => Awaited::Message(target),
            7 => Awaited::Room(target),
            8 => Awaited::Done(target),
            9 => Awaited::Thread(target),
            10 => Awaited::OnlyThread(target),
            _ => return None,
        })
    }

    /// Whether it has a place in an arena, which only who has that arena can know.
    fn is_in_arena(self) -> bool {
        matches!(self, Awaited::Lock(_) | Awaited::RLock(_) | Awaited::Unit(_) | Awaited::Notice(_))
    }

    /// Whether it is known whose it is: others may be had by anybody, and are part of no circle.
    pub fn is_of_somebody(self) -> bool {
        matches!(self, Awaited::Lock(_) | Awaited::RLock(_) | Awaited::Exit(_)) || self.is_inside()
    }

    /// Whether it is a thread of the same process.
    pub fn is_inside(self) -> bool {
        matches!(self, Awaited::Thread(_) | Awaited::OnlyThread(_))
    }
}

/// What a waiting thread says.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Row {
    /// The thread's process; 0: the row is free.
    pid: AtomicU32,
    /// What is waited for; 0: nothing (yet).
    kind: AtomicU32,
    target: AtomicU64,
    is_main: AtomicU32,
    /// Of its process's threads, how many have posted rows for waits that other processes may end.
    told: AtomicU32,
    owner: OwnerRecord,
    thread: AtomicU64,
    since: AtomicU64,
    /// Until when the wait is known to have lasted; 0: not yet.
    confirmed: AtomicU64,
    /// From when until when all threads of its process are known to have waited; 0: never.
    still_since: AtomicU64,
    still_until: AtomicU64,
    call: Text<4>,
    what: Text<4>,
    who: Text<8>,
    site: Text<16>,
}

/// All threads of a process waited, from when until when, on the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Still {
    /// When that was first known.
    pub since: u64,
    /// When it was known last.
    pub until: u64,
    /// How many of them have posted what they wait for.
    pub told: u32,
}

/// A row as it was read.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) thread: u64,
    pub(super) since: u64,
    pub(super) confirmed: u64,
    pub(super) still: Still,
    pub(super) awaited: Awaited,
    pub(super) started: u64,
    call: String,
    what: Option<String>,
    who: String,
    site: Option<String>,
}

impl Row {
    fn post(&self, wait: &Wait<'_>, awaited: Awaited, me: Identity) -> bool {
        if self.pid.compare_exchange(0, me.pid, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            return false;
        }
        let (kind, target) = awaited.code();
        self.owner.set(me.pid, me.started);
        self.target.store(target, Ordering::Relaxed);
        self.is_main.store(u32::from(wait.is_main), Ordering::Relaxed);
        self.thread.store(wait.thread, Ordering::Relaxed);
        self.since.store(wait.since, Ordering::Relaxed);
        self.confirmed.store(0, Ordering::Relaxed);
        self.still_until.store(0, Ordering::Relaxed);
        self.call.write(wait.call);
        self.what.write(wait.what);
        self.who.write(wait.who);
        self.site.write(wait.site);
        // SeqCst: of two that post and then walk, one sees the other.
        self.kind.store(kind, Ordering::SeqCst);
        true
    }

    fn confirm(&self, until: u64, still: Still) {
        if self.still_since.load(Ordering::Relaxed) != still.since {
            // In this order, and read in another: the end of one span is not taken for that of another.
            self.still_until.store(0, Ordering::SeqCst);
            self.still_since.store(still.since, Ordering::SeqCst);
            self.told.store(still.told, Ordering::SeqCst);
        }
        self.still_until.store(still.until, Ordering::SeqCst);
        self.confirmed.store(until, Ordering::SeqCst);
    }

    fn withdraw(&self, me: u32) {
        self.kind.store(0, Ordering::SeqCst);
        let _ = self.pid.compare_exchange(me, 0, Ordering::SeqCst, Ordering::Relaxed);
    }

    fn read(&self) -> Option<Seen> {
        let head = || (self.kind.load(Ordering::SeqCst), self.since.load(Ordering::SeqCst));
        let before = head();
        let awaited = Awaited::of((before.0, self.target.load(Ordering::Relaxed)))?;
        let since = self.still_since.load(Ordering::SeqCst);
        let until = self.still_until.load(Ordering::SeqCst);
        let still = Still { since, until, told: self.told.load(Ordering::SeqCst) };
        let same = self.still_since.load(Ordering::SeqCst) == since;
        let seen = Seen {
            thread: self.thread.load(Ordering::Relaxed),
            since: before.1,
            confirmed: self.confirmed.load(Ordering::SeqCst),
            still: if same { still } else { Still::default() },
            awaited,
            started: self.owner.started_of(self.pid.load(Ordering::Relaxed)),
            call: self.call.read().unwrap_or_default(),
            what: self.what.read(),
            who: self.who.read().unwrap_or_default(),
            site: self.site.read(),
        };
        (head() == before).then_some(seen)
    }

    fn is_of(&self, pid: u32) -> bool {
        self.kind.load(Ordering::SeqCst) != 0 && self.pid.load(Ordering::Relaxed) == pid
    }
}

impl Seen {
    /// What is told of it; `taken`: where what it waits for was taken.
    pub(super) fn party(self, pid: u32, what: Option<String>, taken: Option<String>) -> Party {
        let Seen { thread, since, awaited, call, who, site, .. } = self;
        Party { pid, thread, since, who, awaited, call, what: what.or(self.what), site, taken }
    }
}

/// A wait, as it is told to others.
#[derive(Clone, Copy, Debug)]
pub struct Wait<'a> {
    /// When it began, on the clock.
    pub since: u64,
    /// The thread's [`thread_token`].
    pub thread: u64,
    /// Whether the thread is its process's main thread.
    pub is_main: bool,
    /// The call that waits.
    pub call: &'a str,
    /// What that waits for is called, where that is not noted elsewhere.
    pub what: &'a str,
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
    /// The call that waits.
    pub call: String,
    /// What that waits for is called, if it is no process.
    pub what: Option<String>,
    /// Where it waits.
    pub site: Option<String>,
    /// Where the next party took the lock that this one waits for, if that is kept.
    pub taken: Option<String>,
}

/// Process, thread and beginning of each of several waits, in ascending order: names them for ever.
pub type Key = Vec<(u32, u64, u64)>;

/// The key of these waits.
pub fn key_of(parties: &[Party]) -> Key {
    let mut key: Key = parties.iter().map(|party| (party.pid, party.thread, party.since)).collect();
    key.sort_unstable();
    key
}

/// Threads that wait for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circle {
    /// The calling thread, whom it waits for, and so on.
    pub parties: Vec<Party>,
    /// Until when all waits that only rows tell of are known to have lasted.
    pub confirmed: u64,
}

/// The rows of one wait, until this is dropped.
#[derive(Debug)]
pub struct Posted {
    pub(super) arenas: Vec<Arc<Arena>>,
    rows: Vec<(usize, usize)>,
    pub(super) me: Identity,
}

impl Posted {
    /// Says in the arena of what is waited for, the first of `arenas`, that the thread waits for it; of what is in no
    /// arena, says in all of them. Where there is no room, nothing is said.
    pub fn new(arenas: Vec<Arc<Arena>>, wait: &Wait<'_>, awaited: Awaited) -> Posted {
        let me = Identity::own();
        let told = if awaited.is_in_arena() { 1 } else { arenas.len() };
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

    /// Whether the calling process has posted it, and not one that it was forked from.
    pub fn is_own(&self) -> bool {
        Identity::own() == self.me
    }

    /// Where it looks, and others.
    pub fn arenas(&self) -> &[Arc<Arena>] {
        &self.arenas
    }

    /// Says until when the wait has lasted, and for how long all threads of the process have waited.
    pub fn confirm(&self, until: u64, still: Still) {
        self.own_rows().for_each(|row| row.confirm(until, still));
    }

    fn own_rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter_map(|(number, at)| self.arenas[*number].rows().ok().map(|rows| &rows[*at]))
    }

    fn find(&self, is_it: impl Fn(&Row) -> bool) -> Option<(&Arena, &Row)> {
        self.arenas.iter().find_map(|arena| {
            let row = arena.rows().ok()?.iter().find(|row| is_it(row))?;
            Some((&**arena, row))
        })
    }

    /// What the threads of a process have posted, each once, and in which arena; nothing if the process has ended.
    pub(super) fn rows_of(&self, pid: u32) -> Vec<(&Arc<Arena>, Seen)> {
        let mut found: Vec<(&Arc<Arena>, Seen)> = Vec::new();
        for arena in &self.arenas {
            let Ok(rows) = arena.rows() else { continue };
            for row in rows.iter().filter(|row| row.is_of(pid)) {
                let Some(seen) = row.read() else { continue };
                if pid != self.me.pid && found.is_empty() && !row.owner.lives(pid, &alive) {
                    continue;
                }
                if found.iter().all(|(_, other)| other.thread != seen.thread) {
                    found.push((arena, seen));
                }
            }
        }
        found
    }

    /// The circle that the calling thread's wait is part of, beginning with it; `None` if there is none.
    pub fn circle(&self) -> Option<Circle> {
        self.circle_of(self.me.pid, thread_token() as u64)
    }

    /// The circle that a thread's wait is part of.
    pub(super) fn circle_of(&self, pid: u32, thread: u64) -> Option<Circle> {
        let start = (pid, thread);
        let mut at = start;
        let mut circle = Circle { parties: Vec::new(), confirmed: u64::MAX };
        loop {
            let (pid, thread) = at;
            let (arena, row) = self.find(|row| row.is_of(pid) && row.thread.load(Ordering::Relaxed) == thread)?;
            let seen = row.read().filter(|seen| seen.thread == thread)?;
            let (mut what, mut taken) = (None, None);
            at = match seen.awaited {
                Awaited::Lock(place) | Awaited::RLock(place) => {
                    let cell = arena.cell(place)?;
                    what = cell.name();
                    let (pid, thread, site) = cell.owner()?;
                    taken = site;
                    (pid, thread)
                }
                Awaited::Exit(pid) => {
                    let (_, row) = self.find(|row| row.is_of(pid) && row.is_main.load(Ordering::Relaxed) == 1)?;
                    (pid, row.thread.load(Ordering::Relaxed))
                }
                Awaited::Thread(token) | Awaited::OnlyThread(token) => {
                    circle.confirmed = circle.confirmed.min(seen.confirmed);
                    (pid, token)
                }
                // Anybody may end those.
                _ => return None,
            };
            if pid != self.me.pid && !row.owner.lives(pid, &alive) {
                return None;
            }
            circle.parties.push(seen.party(pid, what, taken));
            if at == start {
                return Some(circle);
            }
            if circle.parties.len() == LONGEST || circle.parties.iter().any(|party| (party.pid, party.thread) == at) {
                // A circle of others: they find it.
                return None;
            }
        }
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        // In a forked child, the rows are its parent's.
        if self.is_own() {
            self.own_rows().for_each(|row| row.withdraw(self.me.pid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::semlock::Kind;
    use crate::ipc::{SemLock, Waiters};

    fn wait(who: &str) -> Wait<'_> {
        let thread = thread_token() as u64;
        Wait { since: 7, thread, is_main: true, call: "Lock.acquire", what: "", who, site: "here.py:1" }
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
        let circle = posted.circle().unwrap().parties;
        assert_eq!(circle.len(), 1);
        let party = &circle[0];
        assert_eq!((party.who.as_str(), party.since, party.awaited), ("p|t", 7, awaited));
        assert_eq!(party.what.as_deref(), Some("a.py:3"));
        assert_eq!((party.site.as_deref(), party.taken.as_deref()), (Some("here.py:1"), Some("b.py:4")));
        drop(posted);
        assert!(arena.rows().unwrap().iter().all(|row| row.pid.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_circle_goes_through_a_thread_that_waits_within_the_process() {
        let arena = Arc::new(Arena::create().unwrap());
        let lock = SemLock::create(&arena, Kind::Owned, 1).unwrap();
        let other = std::thread::scope(|scope| {
            let take = || lock.try_take().then(thread_token).unwrap();
            scope.spawn(take).join().unwrap()
        });
        let posted = Posted::new(vec![Arc::clone(&arena)], &wait("p|t"), Awaited::RLock(lock.place()));
        assert_eq!(posted.circle(), None, "the owner has posted nothing");
        let inside = Wait { thread: other as u64, is_main: false, call: "RLock.acquire", what: "inner", ..wait("p|u") };
        let mine = thread_token() as u64;
        let behind = Posted::new(vec![Arc::clone(&arena)], &inside, Awaited::OnlyThread(mine));
        assert_eq!(posted.circle().unwrap().confirmed, 0);
        behind.confirm(9, Still::default());
        let circle = posted.circle().unwrap();
        assert_eq!(circle.confirmed, 9);
        assert_eq!(circle.parties.iter().map(|party| party.thread).collect::<Vec<_>>(), [mine, other as u64]);
        assert_eq!(circle.parties[1].what.as_deref(), Some("inner"));
        drop(behind);
        assert_eq!(posted.circle(), None);
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
        let mut seeker = crate::ipc::knot::Seeker::default();
        for _ in 0..300 {
            for row in arena.rows().unwrap() {
                let pids = [me, me, 0, random() as u32];
                row.pid.store(pids[random() as usize % 4], Ordering::Relaxed);
                row.kind.store(random() as u32 % 12, Ordering::Relaxed);
                row.target.store([random(), random() % 64, me.into()][random() as usize % 3], Ordering::Relaxed);
                row.told.store(random() as u32 % 3, Ordering::Relaxed);
                row.confirmed.store(random(), Ordering::Relaxed);
                row.still_since.store(random() % 16, Ordering::Relaxed);
                row.still_until.store(random(), Ordering::Relaxed);
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
                assert!((1..=LONGEST).contains(&circle.parties.len()));
            }
            let _ = seeker.look(&posted, random());
        }
    }
}
