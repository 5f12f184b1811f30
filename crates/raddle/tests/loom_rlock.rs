//! The re-entrant lock: its depth belongs to its owner.
#![cfg(raddle_loom)]

mod model;

use model::{Arc, Cell, Leaves, check, parking, spawn, ways_to_leave};
use raddle::park::{Alone, Host, Stop};
use raddle::sync::RawRLock;
use raddle::trace::Kind;

#[derive(Default)]
struct Guarded {
    lock: RawRLock,
    value: Cell,
}

impl Guarded {
    fn acquire(&self, me: usize, host: &dyn Host) -> Result<(), Stop> {
        if self.lock.try_acquire(me) {
            return Ok(());
        }
        self.lock.acquire_slow(me, &mut parking(Kind::RLock, &self.lock, host))
    }

    /// Takes it twice and changes the value in between and at the innermost.
    fn add_twice(&self, me: usize, host: &dyn Host) -> Result<(), Stop> {
        self.acquire(me, host)?;
        assert_eq!(self.lock.depth(), 1);
        self.value.add(1);
        self.acquire(me, &Alone).unwrap();
        assert_eq!(self.lock.depth(), 2);
        self.lock.release(me).unwrap();
        assert!(self.lock.is_owned_by(me));
        self.value.add(1);
        self.lock.release(me).unwrap();
        assert!(!self.lock.is_owned_by(me));
        Ok(())
    }
}

/// *Seeded*: `release` letting go at depth 2; `acquire_slow` not setting the depth to 1.
#[test]
fn the_lock_is_held_until_it_was_released_as_often_as_taken() {
    check(3, || {
        let guarded = Arc::new(Guarded::default());
        let others: Vec<_> = (1..3)
            .map(|me| {
                let guarded = Arc::clone(&guarded);
                spawn(move || guarded.add_twice(me, &Alone).unwrap())
            })
            .collect();
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(guarded.value.get(), 4);
        assert_eq!(guarded.lock.depth(), 0);
    });
}

/// *Seeded*: `release` not asking who calls.
#[test]
fn a_thread_that_does_not_own_it_cannot_release_it() {
    check(4, || {
        let guarded = Arc::new(Guarded::default());
        let other = Arc::clone(&guarded);
        let other = spawn(move || assert!(other.lock.release(2).is_err()));
        guarded.add_twice(1, &Alone).unwrap();
        other.join().unwrap();
        assert_eq!(guarded.value.get(), 2);
    });
}

/// *Seeded*: `release_all` letting go once only; `restore` left out.
#[test]
fn letting_go_altogether_admits_others_and_the_depth_comes_back() {
    check(4, || {
        let guarded = Arc::new(Guarded::default());
        let other = Arc::clone(&guarded);
        guarded.acquire(1, &Alone).unwrap();
        guarded.acquire(1, &Alone).unwrap();
        guarded.value.add(1);
        let other = spawn(move || other.add_twice(2, &Alone).unwrap());
        let depth = guarded.lock.release_all(1).unwrap();
        assert_eq!(depth, 2);
        assert!(!guarded.lock.is_owned_by(1));
        guarded.acquire(1, &Alone).unwrap();
        guarded.lock.restore(depth);
        guarded.value.add(1);
        guarded.lock.release(1).unwrap();
        assert!(guarded.lock.is_owned_by(1));
        guarded.lock.release(1).unwrap();
        other.join().unwrap();
        assert_eq!(guarded.value.get(), 4);
        assert!(!guarded.lock.is_locked());
    });
}

/// *Seeded*: `acquire_slow` setting the depth although the wait was stopped; `RawLock::pass_on` left out.
#[test]
fn a_waiter_that_gives_up_changes_no_depth_and_passes_the_wake_up_on() {
    for (at, stop) in ways_to_leave() {
        check(2, move || {
            let guarded = Arc::new(Guarded::default());
            guarded.acquire(3, &Alone).unwrap();
            let stays = Arc::clone(&guarded);
            let stays = spawn(move || stays.add_twice(1, &Alone).unwrap());
            let leaves = Arc::clone(&guarded);
            let leaves = spawn(move || leaves.add_twice(2, &Leaves::at(at, stop)));
            assert_eq!(guarded.lock.depth(), 1);
            guarded.lock.release(3).unwrap();
            stays.join().unwrap();
            let left = leaves.join().unwrap().is_err();
            assert_eq!(guarded.value.get(), if left { 2 } else { 4 });
        });
    }
}
