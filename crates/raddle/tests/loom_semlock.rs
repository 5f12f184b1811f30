//! Locks, semaphores and conditions between processes: none is had twice, no release or notification is lost, also to
//! the death of a process.
//!
//! The processes of the model are threads with numbers. One that dies does not release, or not to its end.
#![cfg(raddle_loom)]

mod model;

use loom::sync::atomic::AtomicBool;
use model::{Arc, Cell as Guarded, check, parking, spawn};
use raddle::ipc::seats::Seats;
use raddle::ipc::semlock::{Cell, Kind, Taken, Taker};
use raddle::park::Alone;
use raddle::trace::{self, Claim, Resource, Waker};
use std::sync::atomic::Ordering::SeqCst;

struct Shared {
    cell: Cell,
    seats: Seats,
    dead: [AtomicBool; 4],
    guarded: Guarded,
}

impl Resource for Shared {
    fn wakers(&self, _kind: trace::Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }
}

fn taker(pid: u32) -> Taker {
    Taker { pid, started: 1, thread: pid as usize }
}

impl Shared {
    fn new(kind: Kind, value: u32) -> Arc<Self> {
        let shared = Shared {
            cell: Cell::default(),
            seats: Seats::default(),
            dead: Default::default(),
            guarded: Guarded::default(),
        };
        shared.cell.set(kind, value, taker(1));
        Arc::new(shared)
    }

    fn alive(&self, pid: u32) -> bool {
        !self.dead[pid as usize].load(SeqCst)
    }

    fn take(&self, kind: Kind, me: u32) -> Taken {
        if self.cell.try_take(kind, taker(me)) {
            return Taken::Free;
        }
        let mut parking = parking(trace::Kind::Lock, self, &Alone);
        let alive = |pid: u32, _: u64| self.alive(pid);
        self.cell.take(kind, taker(me), &mut parking, &alive).unwrap()
    }

    fn dies(&self, me: u32) {
        self.dead[me as usize].store(true, SeqCst);
        self.cell.time_passes();
        self.seats.time_passes();
    }

    fn wait(&self, me: u32) -> bool {
        let alive = |pid: u32, _: u64| self.alive(pid);
        let sitting = self.seats.enlist(0, taker(me), &alive).unwrap();
        self.seats.wait(&sitting, &mut parking(trace::Kind::Condition, self, &Alone)).unwrap();
        self.seats.leave(&sitting, taker(me))
    }

    fn notify(&self, me: u32) -> usize {
        self.seats.notify(0, 1, me, &|pid, _| self.alive(pid))
    }
}

/// *Seeded*: the wake-up in `release` left out; `sleepers` read before the word is changed.
#[test]
fn a_lock_is_had_by_one() {
    check(2, || {
        let shared = Shared::new(Kind::Owned, 1);
        let others: Vec<_> = (1..3)
            .map(|me| {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    assert_eq!(shared.take(Kind::Owned, me), Taken::Free);
                    shared.guarded.add(1);
                    assert!(shared.cell.release(Kind::Owned));
                })
            })
            .collect();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(shared.take(Kind::Owned, 3), Taken::Free);
        assert_eq!(shared.guarded.get(), 2);
    });
}

/// *Seeded*: the wake-up in `release` left out; `release` adding two.
#[test]
fn each_unit_lets_one_go_on() {
    check(2, || {
        let kind = Kind::Counted(2);
        let shared = Shared::new(kind, 0);
        let others: Vec<_> = (2..4)
            .map(|me| {
                let shared = Arc::clone(&shared);
                spawn(move || shared.take(kind, me))
            })
            .collect();
        assert!(shared.cell.release(kind));
        assert!(shared.cell.release(kind));
        others.into_iter().for_each(|other| assert_eq!(other.join().unwrap(), Taken::Free));
        assert_eq!(shared.cell.value(kind), 0);
    });
}

/// An owner has died; of two who ask one is told, and both get it.
///
/// *Seeded*: `try_recover` storing instead of comparing, or not asking.
#[test]
fn one_takes_over_from_a_dead_owner() {
    check(2, || {
        let shared = Shared::new(Kind::Owned, 0);
        // Before they ask: in the model, time that passes between a question and the sleep is not waited for.
        shared.dies(1);
        let others: Vec<_> = (2..4)
            .map(|me| {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    let taken = shared.take(Kind::Owned, me);
                    shared.guarded.add(1);
                    assert!(shared.cell.release(Kind::Owned));
                    usize::from(taken != Taken::Free)
                })
            })
            .collect();
        let told: usize = others.into_iter().map(|other| other.join().unwrap()).sum();
        assert_eq!((told, shared.guarded.get()), (1, 2));
    });
}

/// A releaser is killed before it wakes anybody.
///
/// *Seeded*: no look at the word after a sleep that ends by itself.
#[test]
fn a_release_by_one_that_dies_is_seen() {
    check(3, || {
        let shared = Shared::new(Kind::Owned, 0);
        let other = Arc::clone(&shared);
        let other = spawn(move || other.take(Kind::Owned, 2));
        shared.cell.die_releasing();
        shared.dies(1);
        assert_eq!(other.join().unwrap(), Taken::Free);
    });
}

/// *Seeded*: the wake-up in `notify` left out; the word not looked at again in `wait`.
#[test]
fn a_notification_wakes_one() {
    check(3, || {
        let shared = Shared::new(Kind::Owned, 1);
        let other = Arc::clone(&shared);
        let other = spawn(move || other.wait(2));
        while shared.notify(1) == 0 {
            loom::thread::yield_now();
        }
        assert!(other.join().unwrap());
        assert_eq!(shared.seats.waiting(0), 0);
    });
}

/// One waits and is killed, another waits: the notification is the other's.
///
/// *Seeded*: `notify` not asking whether the waiter lives.
#[test]
fn a_notification_passes_over_the_dead() {
    check(2, || {
        let shared = Shared::new(Kind::Owned, 1);
        assert!(shared.seats.enlist(0, taker(3), &|_, _| true).is_some());
        let other = Arc::clone(&shared);
        let other = spawn(move || other.wait(2));
        shared.dead[3].store(true, SeqCst);
        while shared.notify(1) == 0 {
            loom::thread::yield_now();
        }
        assert!(other.join().unwrap());
    });
}
