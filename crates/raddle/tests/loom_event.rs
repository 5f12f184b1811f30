//! The event: setting it lets every waiter go, even if it is cleared again before they run.
#![cfg(raddle_loom)]

mod model;

use loom::sync::atomic::AtomicUsize;
use model::{Arc, Cell, Leaves, check, parking, spawn, ways_to_leave};
use raddle::park::{Alone, Host, Stop};
use raddle::sync::Event;
use raddle::trace::Kind;
use std::sync::atomic::Ordering::Relaxed;

fn wait(event: &Event, host: &dyn Host) -> Result<(), Stop> {
    if event.is_set() {
        return Ok(());
    }
    event.wait_slow(&mut parking(Kind::Event, event, host))
}

/// *Seeded*: the wake in `Event::set` left out, or for one only; `SeqCst` of its exchange weakened to `Release`;
/// the sleeper counted after its sleep in `Parking::park`; `Acquire` in `is_set` or `wait_slow` weakened (a race for
/// the cell).
#[test]
fn setting_lets_all_waiters_go_and_shows_them_what_was_done_before() {
    check(3, || {
        let shared = Arc::new((Event::new(), Cell::default()));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    wait(&shared.0, &Alone).unwrap();
                    assert_eq!(shared.1.get(), 1);
                })
            })
            .collect();
        shared.1.set(1);
        shared.0.set();
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// Announces, from inside the wait, that it has looked and will sleep: the door asks the host before.
struct Announces<'a>(&'a Event);

impl Host for Announces<'_> {
    fn interrupted(&self) -> Result<(), Stop> {
        self.0.set();
        Ok(())
    }
}

/// *Seeded*: `set` not starting a new generation; `clear` storing 0.
#[test]
fn a_waiter_is_let_go_by_a_set_that_is_followed_by_a_clear() {
    check(4, || {
        let shared = Arc::new((Event::new(), Event::new()));
        let waiter = Arc::clone(&shared);
        let waiter = spawn(move || wait(&waiter.0, &Announces(&waiter.1)).unwrap());
        wait(&shared.1, &Alone).unwrap();
        shared.0.set();
        shared.0.clear();
        waiter.join().unwrap();
        assert!(!shared.0.is_set());
    });
}

/// *Seeded*: `clear` with a load and a store.
#[test]
fn a_waiter_is_let_go_by_a_set_while_another_thread_clears() {
    check(3, || {
        let shared = Arc::new((Event::new(), Event::new()));
        let waiter = Arc::clone(&shared);
        let waiter = spawn(move || wait(&waiter.0, &Announces(&waiter.1)).unwrap());
        let clearer = Arc::clone(&shared);
        let clearer = spawn(move || clearer.0.clear());
        wait(&shared.1, &Alone).unwrap();
        shared.0.set();
        waiter.join().unwrap();
        clearer.join().unwrap();
    });
}

/// A worker that clears the event and then looks for work must not miss work announced by a set that found
/// the flag up. *Seeded*: `set` returning when it reads a raised flag; writing it back but not looking what that
/// found; writing it back `Relaxed`.
#[test]
fn work_announced_by_a_set_is_seen_after_a_clear_or_the_flag_is_up_again() {
    check(5, || {
        let shared = Arc::new((Event::new(), AtomicUsize::new(0)));
        shared.0.set();
        let announcer = Arc::clone(&shared);
        let announcer = spawn(move || {
            announcer.1.store(1, Relaxed);
            announcer.0.set();
        });
        shared.0.clear();
        let seen = shared.1.load(Relaxed) == 1;
        announcer.join().unwrap();
        assert!(seen || shared.0.is_set());
    });
}

/// *Seeded*: a stop at the deadline not looking at the word again.
#[test]
fn a_waiter_that_gives_up_disturbs_nobody() {
    for (at, stop) in ways_to_leave() {
        check(2, move || {
            let event = Arc::new(Event::new());
            let stays = Arc::clone(&event);
            let stays = spawn(move || wait(&stays, &Alone).unwrap());
            let leaves = Arc::clone(&event);
            let leaves = spawn(move || (wait(&leaves, &Leaves::at(at, stop)), leaves.is_set()));
            event.set();
            stays.join().unwrap();
            let (result, _) = leaves.join().unwrap();
            // Woken (an odd time), it had been set: then the deadline is no reason any more.
            if at % 2 == 1 && stop == Stop::TimedOut {
                assert_eq!(result, Ok(()));
            }
        });
    }
}
