//! Handing work to an idle thread: none is lost, none runs twice, and whoever leaves has been given nothing. And the
//! gate: nobody is inside while it is closed.
#![cfg(raddle_loom)]

mod model;

use loom::sync::atomic::AtomicUsize;
use model::{Arc, Cell, Leaves, Nobody, check, parking, spawn};
use raddle::park::{Alone, Deadline, Host, Stop};
use raddle::thread::Gate;
use raddle::thread::handover::{Idle, Worker};
use raddle::trace::Kind;
use std::sync::atomic::Ordering::Relaxed;

struct Shared {
    idle: Idle<u32, usize>,
    ran: AtomicUsize,
    seen: Cell,
}

fn shared() -> Arc<Shared> {
    Arc::new(Shared { idle: Idle::new(2), ran: AtomicUsize::new(0), seen: Cell::default() })
}

/// The life of a worker: its first work, which is 0, and whatever it is given until it leaves.
fn serve(shared: &Shared, tag: u32, host: &dyn Host) {
    let worker = std::sync::Arc::new(Worker::with(0));
    while let Some(job) = shared.idle.next(&worker, Deadline::NEVER, host) {
        shared.ran.fetch_add(job, Relaxed);
        if !shared.idle.enter(&worker, tag, true) {
            return;
        }
    }
}

/// *Seeded*: `next` leaving at its deadline without looking at the list; `leave` not taking the worker off it;
/// `give` without its notification.
#[test]
fn work_handed_over_is_done_once_and_what_is_not_comes_back() {
    // The worker's patience ends never, before it sleeps, and after it was woken.
    for at in [usize::MAX, 0, 1, 2, 3] {
        check(3, move || {
            let shared = shared();
            let worker = Arc::clone(&shared);
            let worker = spawn(move || serve(&worker, 7, &Leaves::at(at, Stop::TimedOut)));
            let mut handed = 0;
            for job in [1, 10] {
                match shared.idle.hand(|tag| *tag == 7, job) {
                    Ok(()) => handed += job,
                    Err(back) => assert_eq!(back, job),
                }
            }
            shared.idle.close();
            worker.join().unwrap();
            assert_eq!(shared.ran.load(Relaxed), handed);
            assert_eq!((shared.idle.count(), shared.idle.left(0)), (0, vec![7]));
        });
    }
}

/// *Seeded*: `hand` giving to a worker that stays on the list; `close` leaving the list as it was.
#[test]
fn two_that_hand_over_and_one_worker() {
    check(2, || {
        let shared = shared();
        let worker = Arc::clone(&shared);
        let worker = spawn(move || serve(&worker, 7, &Alone));
        let other = Arc::clone(&shared);
        let other = spawn(move || other.idle.hand(|_| true, 10).map_or(0, |()| 10));
        let mine = shared.idle.hand(|_| true, 1).map_or(0, |()| 1);
        let handed = mine + other.join().unwrap();
        shared.idle.close();
        worker.join().unwrap();
        assert_eq!(shared.ran.load(Relaxed), handed);
    });
}

/// What the starter did before it handed over, the worker sees; and the other way round.

#[test]
fn the_worker_sees_what_was_done_before() {
    check(3, || {
        let shared = shared();
        let worker = Arc::clone(&shared);
        let worker = spawn(move || {
            let own = std::sync::Arc::new(Worker::with(0));
            assert_eq!(own.take_back(), Some(0));
            assert!(worker.idle.enter(&own, 7, true));
            assert_eq!(worker.idle.next(&own, Deadline::NEVER, &Alone), Some(1));
            worker.seen.add(1);
        });
        let handed = loop {
            if shared.idle.count() == 1 {
                shared.seen.set(5);
                break shared.idle.hand(|_| true, 1).is_ok();
            }
            loom::thread::yield_now();
        };
        worker.join().unwrap();
        assert!(handed);
        assert_eq!(shared.seen.get(), 6);
    });
}

/// *Seeded*: `enter` not looking at `closed`; `open` not counting.
#[test]
fn nobody_enters_while_the_list_is_closed() {
    check(3, || {
        let shared = shared();
        let worker = Arc::clone(&shared);
        let worker = spawn(move || serve(&worker, 7, &Alone));
        shared.idle.close();
        shared.idle.close();
        shared.idle.open();
        assert_eq!(shared.idle.count(), 0);
        assert!(shared.idle.hand(|_| true, 1).is_err());
        worker.join().unwrap();
        assert_eq!(shared.idle.left(0), [7]);
    });
}

struct Gated {
    gate: Gate,
    seen: Cell,
}

impl Gated {
    fn visit(&self, host: &dyn Host) {
        if let Ok(_inside) = self.gate.enter(&mut parking(Kind::Sleep, &Nobody, host)) {
            self.seen.add(1);
        }
    }

    fn close(&self) {
        self.gate.close(&mut parking(Kind::Sleep, &Nobody, &Alone)).unwrap();
        self.seen.add(10);
    }
}

/// *Seeded*: `enter` not looking at `closed`; `close` not waiting; `open` and the last to leave without their
/// notification.
#[test]
fn nobody_is_inside_while_the_gate_is_closed() {
    // The visitor's patience ends never, before it sleeps, and after it was woken.
    for at in [usize::MAX, 0, 1] {
        check(3, move || {
            let shared = Arc::new(Gated { gate: Gate::new(), seen: Cell::default() });
            let visitor = Arc::clone(&shared);
            let visitor = spawn(move || visitor.visit(&Leaves::at(at, Stop::TimedOut)));
            shared.close();
            shared.gate.open();
            visitor.join().unwrap();
            assert!(matches!(shared.seen.get(), 11 | 10));
            assert!(at != usize::MAX || shared.seen.get() == 11);
        });
    }
}

/// *Seeded*: `open` forgetting that another wants it closed.
#[test]
fn a_gate_closed_by_two_is_opened_by_the_last() {
    check(3, || {
        let shared = Arc::new(Gated { gate: Gate::new(), seen: Cell::default() });
        shared.close();
        shared.close();
        let visitor = Arc::clone(&shared);
        let visitor = spawn(move || visitor.visit(&Alone));
        shared.gate.open();
        shared.seen.add(100);
        shared.gate.open();
        visitor.join().unwrap();
        assert_eq!(shared.seen.get(), 121);
    });
}
