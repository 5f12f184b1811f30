//! The condition: a notification goes to the first in line, to nobody else, and is never lost.
#![cfg(raddle_loom)]

mod model;

use model::{Arc, Cell, Leaves, check, parking, spawn, ways_to_leave};
use raddle::park::{Alone, Host};
use raddle::sync::{Condition, Place, RawLock};
use raddle::trace::{Kind, Resource};

/// A condition with a lock, as hosts use the two.
#[derive(Default)]
struct Shared {
    lock: RawLock,
    condition: Condition,
    value: Cell,
}

impl Shared {
    fn acquire(&self, me: usize) {
        if !self.lock.try_acquire(me) {
            self.lock.acquire_slow(me, &mut parking(Kind::Lock, &self.lock, &Alone)).unwrap();
        }
    }

    fn release(&self, me: usize) {
        self.lock.release(me).unwrap();
    }

    /// Waits in a place taken before; whether it was notified. A [`Stop`](raddle::park::Stop) does not
    /// say that it was not: withdrawing decides.
    fn wait(&self, mut place: Place, host: &dyn Host) -> bool {
        let notified = self.wait_in(&mut place, host);
        self.condition.leave(place);
        notified
    }

    fn wait_in(&self, place: &mut Place, host: &dyn Host) -> bool {
        let waited = self.condition.wait(place, &mut parking(Kind::Condition, &self.condition, host));
        waited.is_ok() || !self.condition.withdraw(place)
    }
}

/// *Seeded*: the wake in `Condition::notify` left out; `SeqCst` of its store weakened to `Release`, or that of
/// the sleeper's count in `Parking::park`; the count read before the store; `Acquire` in `is_notified` weakened.
#[test]
fn a_notification_between_enlisting_and_sleeping_is_not_lost() {
    check(4, || {
        let shared = Arc::new(Shared::default());
        let place = shared.condition.enlist();
        let notifier = Arc::clone(&shared);
        let notifier = spawn(move || {
            notifier.value.set(1);
            assert_eq!(notifier.condition.notify(1), 1);
        });
        assert!(shared.wait(place, &Alone));
        // A notification also hands over what was done before it.
        assert_eq!(shared.value.get(), 1);
        notifier.join().unwrap();
        assert_eq!(shared.condition.waiters(), 0);
    });
}

/// *Seeded*: enlisting after the lock is let go (in `waiter` below: the contract of `enlist`); the wake in
/// `Condition::notify` left out.
#[test]
fn a_change_made_under_the_lock_is_always_noticed() {
    check(2, || {
        let shared = Arc::new(Shared::default());
        let waiters: Vec<_> = (1..3)
            .map(|me| {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    shared.acquire(me);
                    while shared.value.get() == 0 {
                        let mut place = shared.condition.enlist();
                        shared.release(me);
                        assert!(shared.wait_in(&mut place, &Alone));
                        shared.acquire(me);
                        shared.condition.leave(place);
                    }
                    shared.release(me);
                })
            })
            .collect();
        shared.acquire(3);
        shared.value.set(1);
        shared.condition.notify(usize::MAX);
        shared.release(3);
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// *Seeded*: `notify` popping from the back of the line.
#[test]
fn the_first_in_line_is_notified_first() {
    check(3, || {
        let shared = Arc::new(Shared::default());
        let first = shared.condition.enlist();
        let second = shared.condition.enlist();
        let in_first = Arc::clone(&shared);
        let in_first = spawn(move || assert!(in_first.wait(first, &Alone)));
        let in_second = Arc::clone(&shared);
        let in_second = spawn(move || {
            assert!(in_second.wait(second, &Alone));
            assert_eq!(in_second.value.get(), 1);
        });
        assert_eq!(shared.condition.notify(1), 1);
        // Ends only if the first was the one.
        in_first.join().unwrap();
        shared.value.set(1);
        assert_eq!(shared.condition.notify(1), 1);
        in_second.join().unwrap();
    });
}

/// *Seeded*: `withdraw` claiming success for one that is not in line; `notify` leaving its waiter in line.
#[test]
fn either_a_waiter_withdraws_or_it_is_notified() {
    for (at, stop) in ways_to_leave() {
        check(4, move || {
            let shared = Arc::new(Shared::default());
            let place = shared.condition.enlist();
            let waiter = Arc::clone(&shared);
            let waiter = spawn(move || waiter.wait(place, &Leaves::at(at, stop)));
            let given = shared.condition.notify(1);
            assert_eq!(given == 1, waiter.join().unwrap());
            assert_eq!(shared.condition.waiters(), 0);
        });
    }
}

/// *Seeded*: `withdraw` leaving the waiter in line, where it takes the other's notification.
#[test]
fn a_notification_goes_past_one_that_withdrew() {
    for (at, stop) in ways_to_leave() {
        check(2, move || {
            let shared = Arc::new(Shared::default());
            let first = shared.condition.enlist();
            let second = shared.condition.enlist();
            let leaves = Arc::clone(&shared);
            let leaves = spawn(move || leaves.wait(first, &Leaves::at(at, stop)));
            let stays = Arc::clone(&shared);
            let stays = spawn(move || stays.wait(second, &Alone));
            assert_eq!(shared.condition.notify(1), 1);
            if leaves.join().unwrap() {
                // The one notification was its own: the second is still in line.
                assert_eq!(shared.condition.notify(1), 1);
            }
            assert!(stays.join().unwrap());
            assert_eq!(shared.condition.notify(1), 0);
        });
    }
}

/// *Seeded*: `leave` without waking the next; `withdraw` of a waiter that is notified but not woken leaving the count
/// of those notified as it was.
#[test]
fn those_notified_together_are_all_woken() {
    for (at, stop) in ways_to_leave() {
        check(2, move || {
            let shared = Arc::new(Shared::default());
            let first = shared.condition.enlist();
            let second = shared.condition.enlist();
            let in_first = Arc::clone(&shared);
            let in_first = spawn(move || in_first.wait(first, &Leaves::at(at, stop)));
            let in_second = Arc::clone(&shared);
            let in_second = spawn(move || in_second.wait(second, &Alone));
            let given = shared.condition.notify(2);
            // The first had left, or is one of the two.
            assert_eq!(given == 2, in_first.join().unwrap());
            assert!(in_second.join().unwrap());
            assert_eq!(shared.condition.waiters(), 0);
            assert_eq!(shared.condition.notify(1), 0);
        });
    }
}

/// *Seeded*: `hurry` that wakes only one, or nobody.
#[test]
fn who_looks_wakes_those_whose_turn_has_not_come() {
    check(2, || {
        let shared = Arc::new(Shared::default());
        let mut first = shared.condition.enlist();
        let second = shared.condition.enlist();
        let in_second = Arc::clone(&shared);
        let in_second = spawn(move || in_second.wait(second, &Alone));
        assert_eq!(shared.condition.notify(2), 2);
        // The first is woken, but does not come to leave.
        shared.condition.hurry();
        assert!(in_second.join().unwrap());
        assert!(shared.wait_in(&mut first, &Alone));
        shared.condition.leave(first);
    });
}
