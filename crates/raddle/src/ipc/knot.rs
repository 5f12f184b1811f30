//! Whether a process, and all that could let it go on, wait for each other: a knot among processes.
//!
//! A queue, a pipe, a semaphore or a plain lock may be used by any process that has it. So a wait for one of them ends
//! only if some process that has the shared file does something; `holders.rs` says which have it. A wait for the end of
//! a process, or for a re-entrant lock, is that one process's to end. If all threads of a process wait, of each that
//! could end one of these waits all threads wait too, and so on, then nothing moves any more, however one process came
//! to wait for another.
//!
//! **At one instant.** Rows are read one after the other, while processes run. But each says from when until when its
//! wait is known to have lasted, with what was waited for looked at after the last of these moments, and how long all
//! threads of its process have waited. What is found at one moment counts if later the same waits are found, and all
//! of them, and all processes, are confirmed to have waited at that moment. So then nobody ran who could have done
//! anything, and nothing that had been done before was still to be noticed.
//!
//! **What is not seen** ends the search: a process without rows, a thread that waits for the world outside or with a
//! deadline, a process that cannot be looked into. A process that is stopped confirms nothing.
//!
//! **Cost.** Looking who has a file is a walk over all processes of the machine. It is not done while a process is known
//! that has one and may go on: first of all, the parent. The oldest of the processes does it, and tells.

use super::arena::Arena;
use super::holders::{self, Holders};
use super::semlock::{Kind, MOST};
use super::side::alive;
use super::watch::{Awaited, Key, Party, Posted, Seen, key_of};
use crate::park::now;
/// The most processes of a knot.
const MOST_PROCESSES: usize = 256;

/// How long a wait lasts before it is looked who has what.
const FIRST_SCAN: u64 = 250_000_000;

/// Processes that wait for each other, all threads of them.
#[derive(Clone, Debug)]
pub struct Knot {
    /// All their waits that other processes might end, the calling process's first.
    pub parties: Vec<Party>,
    /// The latest moment at which one of the waits, or the rest of a process, began.
    began: u64,
    /// Until when all are known to have lasted.
    lasts: u64,
    /// Whether the calling process is the oldest of them: that one tells.
    tells: bool,
    /// Its name.
    pub key: Key,
}

/// One wait's search for a knot.
#[derive(Debug, Default)]
pub struct Seeker {
    /// Who had what when it was looked last; when that is to be done again at the latest, and the time between.
    holders: Option<Holders>,
    scan_at: u64,
    pause: u64,
    /// What was found last, and when it was found first; what was told.
    found: (Key, u64),
    told: Key,
}

/// Why there is no knot.
enum Loose {
    /// Somebody may go on, as far as anybody can tell.
    End,
    /// This process may.
    Runs(u32),
    /// One that had a file has ended.
    Outdated,
}

impl Seeker {
    /// Looks, in the middle of a wait that began at `since`: a knot that is believed, once.
    pub fn look(&mut self, posted: &Posted, since: u64) -> Option<Knot> {
        let knot = self.seek(posted, since);
        let Some(knot) = knot else {
            self.found = Default::default();
            return None;
        };
        if !knot.tells || knot.key == self.told {
            return None;
        }
        if knot.key != self.found.0 {
            self.found = (knot.key, now());
            return None;
        }
        if knot.lasts < self.found.1 {
            return None;
        }
        self.told.clone_from(&knot.key);
        Some(knot)
    }

    fn seek(&mut self, posted: &Posted, since: u64) -> Option<Knot> {
        let time = now();
        if self.scan_at == 0 {
            self.scan_at = since.saturating_add(FIRST_SCAN);
        }
        // By what was seen last.
        match self.holders.as_ref().map(|holders| (holders, knot(posted, holders))) {
            Some((_, Ok(knot))) if !knot.tells || knot.key == self.told => return Some(knot),
            Some((_, Ok(knot))) if knot.key == self.found.0 && knot.lasts < self.found.1 => return Some(knot),
            Some((_, Ok(_) | Err(Loose::Outdated))) => {}
            _ if time < self.scan_at => return None,
            Some((holders, Err(Loose::Runs(pid)))) if holders.still_has(pid) => return self.later(time),
            None if parent_runs(posted) => return self.later(time),
            _ => {}
        }
        let _: Option<Knot> = self.later(time);
        self.holders = Some(Holders::find().ok()?);
        self.holders.as_ref().and_then(|holders| knot(posted, holders).ok())
    }

    /// Nothing now.
    fn later(&mut self, time: u64) -> Option<Knot> {
        self.pause = (self.pause * 2).max(FIRST_SCAN);
        self.scan_at = time.saturating_add(self.pause);
        None
    }
}

/// Whether the parent could end a wait of the calling process, and may go on.
fn parent_runs(posted: &Posted) -> bool {
    let parent = std::os::unix::process::parent_id();
    let rows = posted.rows_of(posted.me.pid);
    let files = rows.iter().filter_map(|(arena, seen)| file_of(arena, seen.awaited));
    posted.rows_of(parent).iter().all(|(_, seen)| seen.still.until == 0) && holders::has_any(parent, files)
}

/// The file that all have who could end this wait.
fn file_of(arena: &Arena, awaited: Awaited) -> Option<u64> {
    match awaited {
        Awaited::Lock(_) | Awaited::Unit(_) | Awaited::Notice(_) => Some(arena.number()),
        Awaited::Message(file) | Awaited::Room(file) | Awaited::Done(file) => Some(file),
        Awaited::RLock(_) | Awaited::Exit(_) | Awaited::Thread(_) | Awaited::OnlyThread(_) => None,
    }
}

/// The processes that the calling one waits for, directly or not, if all of them wait.
fn knot(posted: &Posted, holders: &Holders) -> Result<Knot, Loose> {
    let me = posted.me.pid;
    let mut pids = vec![me];
    let mut knot = Knot { parties: Vec::new(), began: 0, lasts: u64::MAX, tells: true, key: Vec::new() };
    let mut mine = 0;
    let mut next = 0;
    while let Some(pid) = pids.get(next).copied() {
        next += 1;
        let mut rows = posted.rows_of(pid);
        rows.retain(|(_, seen)| !seen.awaited.is_inside());
        let still = rows.iter().map(|(_, seen)| seen.still).max_by_key(|still| still.until).ok_or_else(|| lost(pid))?;
        if still.until == 0 || still.told as usize != rows.len() {
            return Err(Loose::Runs(pid));
        }
        if pids.len() > MOST_PROCESSES {
            return Err(Loose::End);
        }
        knot.began = knot.began.max(still.since);
        knot.lasts = knot.lasts.min(still.until);
        if pid == me {
            mine = rows[0].1.started;
        } else if (rows[0].1.started, pid) < (mine, me) {
            knot.tells = false;
        }
        for (arena, seen) in rows {
            knot.began = knot.began.max(seen.since);
            knot.lasts = knot.lasts.min(seen.confirmed);
            let (wakers, what, taken) = wakers(arena, &seen, pid, holders)?;
            for waker in wakers {
                if !pids.contains(&waker) {
                    pids.push(waker);
                }
            }
            knot.parties.push(seen.party(pid, what, taken));
        }
    }
    if knot.began > knot.lasts {
        return Err(Loose::End);
    }
    // A hang with a circle in it is that circle's: its parties tell it.
    if knot
        .parties
        .iter()
        .any(|party| posted.circle_of(party.pid, party.thread).is_some_and(|circle| circle.parties.len() > 1))
    {
        return Err(Loose::End);
    }
    knot.key = key_of(&knot.parties);
    Ok(knot)
}

/// A process without rows.
fn lost(pid: u32) -> Loose {
    if alive(pid, 0) { Loose::Runs(pid) } else { Loose::Outdated }
}

/// Who could end a wait; what is waited for is called, if that is noted; where it was taken.
type Wakers = (Vec<u32>, Option<String>, Option<String>);

/// Of a wait of this process.
fn wakers(arena: &Arena, seen: &Seen, pid: u32, holders: &Holders) -> Result<Wakers, Loose> {
    let having = || {
        let pids = file_of(arena, seen.awaited).and_then(|file| holders.of(file));
        pids.filter(|pids| pids.contains(&pid)).map(<[u32]>::to_vec).ok_or(Loose::End)
    };
    let cell = |place: u32| arena.cell(place).ok_or(Loose::End);
    match seen.awaited {
        Awaited::RLock(place) | Awaited::Lock(place) => {
            let cell = cell(place)?;
            let (owner, _, taken) = cell.owner().ok_or(Loose::End)?;
            // From one that has ended it is about to be taken over.
            if !cell.has_living_owner(&alive) {
                return Err(Loose::End);
            }
            let only = matches!(seen.awaited, Awaited::RLock(_));
            Ok((if only { vec![owner] } else { having()? }, cell.name(), taken))
        }
        Awaited::Unit(place) => {
            let cell = cell(place)?;
            if cell.value(Kind::Counted(MOST)) > 0 {
                return Err(Loose::End);
            }
            Ok((having()?, cell.name(), None))
        }
        Awaited::Exit(pid) if alive(pid, 0) => Ok((vec![pid], None, None)),
        Awaited::Exit(_) => Err(Loose::End),
        _ => Ok((having()?, None, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::watch::{Still, Wait};
    use crate::ipc::{Memory, SemLock};
    use crate::primitive::thread_token;
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::Arc;

    fn posted(arena: &Arc<Arena>, awaited: Awaited, since: u64) -> Posted {
        let thread = thread_token() as u64;
        let wait = Wait { since, thread, is_main: true, call: "Queue.get", what: "a", who: "p|t", site: "" };
        Posted::new(vec![Arc::clone(arena)], &wait, awaited)
    }

    fn memory() -> (OwnedFd, u64) {
        let memory = Memory::create(1, 0, 0).unwrap();
        let number = crate::ipc::memory::status(memory.as_fd()).unwrap().number;
        (memory, number)
    }

    /// Confirms everything until now.
    fn confirm(posted: &Posted, since: u64) {
        posted.confirm(now(), Still { since, until: now(), told: 1 });
    }

    /// What is told in the end: the children of other tests have everything for a moment, until they execute a program.
    fn eventually(seeker: &mut Seeker, posted: &Posted, since: u64) -> Knot {
        let end = now() + 10_000_000_000;
        while now() < end {
            confirm(posted, since);
            if let Some(knot) = seeker.look(posted, since) {
                return knot;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("nothing was told");
    }

    #[test]
    fn a_process_alone_with_its_queue_is_told_once_when_all_was_confirmed() {
        let arena = Arc::new(Arena::create().unwrap());
        let (_memory, number) = memory();
        let since = now() - FIRST_SCAN;
        let posted = posted(&arena, Awaited::Message(number), since);
        let mut seeker = Seeker::default();
        assert!(seeker.look(&posted, since).is_none(), "nothing is known of the process");
        confirm(&posted, since);
        seeker.scan_at = 1;
        assert!(seeker.look(&posted, since).is_none(), "for the first time");
        assert!(seeker.look(&posted, since).is_none(), "nothing was confirmed since");
        let knot = eventually(&mut seeker, &posted, since);
        assert_eq!(knot.parties.len(), 1);
        assert_eq!((knot.parties[0].what.as_deref(), knot.parties[0].since), (Some("a"), since));
        confirm(&posted, since);
        assert!(seeker.look(&posted, since).is_none(), "it has been told");
    }

    #[test]
    fn what_began_after_the_last_confirmation_is_no_knot() {
        let arena = Arc::new(Arena::create().unwrap());
        let (_memory, number) = memory();
        let since = now() - FIRST_SCAN;
        let posted = posted(&arena, Awaited::Done(number), since);
        let mut seeker = Seeker::default();
        for _ in 0..3 {
            // All threads wait, from now on: that of the row was seen before.
            let before = now();
            posted.confirm(before, Still { since: now() + 1, until: now() + 2, told: 1 });
            seeker.scan_at = 1;
            assert!(seeker.look(&posted, since).is_none());
            // One of them has no row.
            posted.confirm(now(), Still { since, until: now(), told: 2 });
            seeker.scan_at = 1;
            assert!(seeker.look(&posted, since).is_none());
        }
    }

    #[test]
    fn who_else_has_the_file_might_use_it() {
        let arena = Arc::new(Arena::create().unwrap());
        let (memory, number) = memory();
        let passed = std::process::Stdio::from(memory.try_clone().unwrap());
        let mut child = std::process::Command::new("sleep").arg("1000").stdin(passed).spawn().unwrap();
        let since = now() - FIRST_SCAN;
        let posted = posted(&arena, Awaited::Room(number), since);
        let mut seeker = Seeker::default();
        for _ in 0..3 {
            confirm(&posted, since);
            assert!(seeker.look(&posted, since).is_none());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let knot = eventually(&mut seeker, &posted, since);
        assert_eq!(knot.parties[0].awaited, Awaited::Room(number));
    }

    #[test]
    fn a_unit_that_is_there_is_not_waited_for() {
        let arena = Arc::new(Arena::create().unwrap());
        let units = SemLock::create(&arena, Kind::Counted(MOST), 1).unwrap();
        let since = now() - FIRST_SCAN;
        let posted = posted(&arena, Awaited::Unit(units.place()), since);
        let mut seeker = Seeker::default();
        for _ in 0..5 {
            confirm(&posted, since);
            assert!(seeker.look(&posted, since).is_none());
        }
        assert!(units.try_take());
        assert_eq!(eventually(&mut seeker, &posted, since).parties.len(), 1);
    }

    #[test]
    fn the_end_of_a_process_that_runs_or_has_ended_is_no_knot() {
        let arena = Arc::new(Arena::create().unwrap());
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let since = now() - FIRST_SCAN;
        let posted = posted(&arena, Awaited::Exit(child.id()), since);
        let mut seeker = Seeker::default();
        for round in 0..4 {
            if round == 2 {
                child.kill().unwrap();
            }
            confirm(&posted, since);
            assert!(seeker.look(&posted, since).is_none());
        }
        child.wait().unwrap();
    }
}
