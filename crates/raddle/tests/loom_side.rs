//! One side of a channel between processes: no change is missed, and none is lost to the death of a process.
//!
//! The processes of the model are threads with numbers. One that dies leaves the lock held, as a killed process does.
#![cfg(raddle_loom)]

mod model;

use loom::sync::atomic::AtomicBool;
use model::{Arc, Cell, check, parking, spawn};
use raddle::ipc::side::{FIELDS, Fields, SLEEPERS, Side};
use raddle::park::{Alone, Outside, Parking};
use raddle::trace::{Claim, Kind, Resource, Waker};
use std::sync::atomic::Ordering::SeqCst;

/// Where a writer is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    None,
    Holding,
    Announcing,
    Announced,
    Committed,
}

#[derive(Default)]
struct Shared {
    side: Side,
    dead: [AtomicBool; 4],
    /// What the lock guards.
    guarded: Cell,
}

impl Resource for Shared {
    fn wakers(&self, _kind: Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }
}

impl Shared {
    fn hold(&self, me: u32, parking: &mut Parking<'_>) -> raddle::ipc::side::Holding<'_> {
        loop {
            match self.side.try_hold(me, 1) {
                Some(holding) => return holding,
                None => self.wait_free(me, parking),
            }
        }
    }

    fn wait_free(&self, me: u32, parking: &mut Parking<'_>) {
        let alive = |pid: u32, _: u64| !self.dead[pid as usize].load(SeqCst);
        self.side.wait_free(me, 1, parking, &alive, &|| ()).unwrap();
    }

    /// Adds one to every number of the state, and dies where it is told to.
    fn write(&self, me: u32, death: Death) {
        let mut parking = parking(Kind::Send, self, &Alone);
        let holding = self.hold(me, &mut parking);
        self.guarded.add(1);
        let fields: Fields = holding.state().map(|number| number + 1);
        match death {
            Death::Holding => holding.die(),
            Death::Announcing => holding.die_announcing(),
            Death::Announced => {
                holding.announce(&|| ());
                holding.die();
            }
            Death::Committed => {
                holding.announce(&|| ());
                holding.commit(&fields);
                holding.die();
            }
            Death::None => {
                holding.announce(&|| ());
                return holding.commit(&fields);
            }
        }
        self.dead[me as usize].store(true, SeqCst);
        self.side.time_passes();
    }

    /// Returns once the state is at this number or beyond.
    fn wait_for(&self, me: u32, number: u64) {
        let mut parking = parking(Kind::Receive, self, &Alone);
        let look = || self.side.state().unwrap().1[0] >= number;
        while !look() {
            let word = self.side.enlist(SLEEPERS);
            if self.side.is_held() {
                self.wait_free(me, &mut parking);
            } else if !look() {
                parking.park_outside(Outside::Word(self.side.event(), word), parking.deadline()).unwrap();
            }
        }
    }
}

/// *Seeded*: the wake-up in `wake` left out; `is_held` not asked; the event word not changed by `take_flags`.
#[test]
fn a_commit_ends_the_wait() {
    check(3, || {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        let writer = spawn(move || writer.write(1, Death::None));
        shared.wait_for(2, 1);
        writer.join().unwrap();
    });
}

/// *Seeded*: `wake` waking one.
#[test]
fn a_commit_ends_every_wait() {
    check(2, || {
        let shared = Arc::new(Shared::default());
        let waiters: Vec<_> = (2..4)
            .map(|me| {
                let shared = Arc::clone(&shared);
                spawn(move || shared.wait_for(me, 1))
            })
            .collect();
        shared.write(1, Death::None);
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// A writer is killed at each of the places that matter; another writes then. The waiter sees what was committed.
///
/// *Seeded*: no wake-up in `take_over`; `take_over` storing instead of comparing.
#[test]
fn a_death_loses_no_wake_up() {
    for death in [Death::Holding, Death::Announcing, Death::Announced, Death::Committed] {
        check(2, move || {
            let shared = Arc::new(Shared::default());
            let committed = u64::from(death == Death::Committed);
            let writers = Arc::clone(&shared);
            let writers = spawn(move || {
                writers.write(1, death);
                writers.write(2, Death::None);
            });
            shared.wait_for(3, committed);
            shared.wait_for(3, committed + 1);
            writers.join().unwrap();
            assert_eq!(shared.side.state().unwrap().1, [committed + 1; FIELDS]);
        });
    }
}

/// Two find the dead owner at once: one takes the lock over, and never both.
///
/// *Seeded*: `take_over` storing instead of comparing.
#[test]
fn one_takes_over() {
    check(2, || {
        let shared = Arc::new(Shared::default());
        shared.write(1, Death::Holding);
        let other = Arc::clone(&shared);
        let other = spawn(move || other.write(2, Death::None));
        shared.write(3, Death::None);
        other.join().unwrap();
        assert_eq!(shared.side.state().unwrap().1, [2; FIELDS]);
    });
}

/// *Seeded*: one copy instead of two. It is blind to the fences.
#[test]
fn a_state_is_seen_whole() {
    check(2, || {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        let writer = spawn(move || {
            writer.write(1, Death::None);
            writer.write(1, Death::None);
        });
        let (_, state) = shared.side.state().unwrap();
        assert_eq!(state, [state[0]; FIELDS]);
        writer.join().unwrap();
    });
}
