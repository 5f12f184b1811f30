//! The event: setting it lets every waiter go, even if it is cleared again before they run.
#![cfg(raddle_loom)]

mod model;

use model::{Arc, Cell, Leaves, check, parking, spawn, ways_to_leave};
use raddle::park::{Alone, Host, Stop};
use raddle::sync::Event;
use raddle::trace::Kind;

fn wait(event: &Event, host: &dyn Host) -> Result<(), Stop> {
    if event.is_set() {
        return Ok(());
    }
    event.wait_slow(&mut parking(Kind::Event, event, host))
}

/// *Seeded*: the wake in `Event::set` left out, or for one only; `SeqCst` of its exchange weakened to `Release`;
/// the sleeper not counted in `Parking::park`; `Acquire` in `is_set` or `wait_slow` weakened (a race for the cell).
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

/// The waiter says that it is about to wait while the other thread holds back, so that setting finds it there
/// or between looking and sleeping. *Seeded*: `set` not starting a new generation.
#[test]
fn a_waiter_is_let_go_by_a_set_that_is_followed_by_a_clear() {
    check(4, || {
        let shared = Arc::new((Event::new(), Event::new()));
        let waiter = Arc::clone(&shared);
        let waiter = spawn(move || {
            // From inside the wait: the door asks the host before it sleeps.
            struct Announces<'a>(&'a Event);
            impl Host for Announces<'_> {
                fn interrupted(&self) -> Result<(), Stop> {
                    self.0.set();
                    Ok(())
                }
            }
            wait(&waiter.0, &Announces(&waiter.1)).unwrap();
        });
        wait(&shared.1, &Alone).unwrap();
        shared.0.set();
        shared.0.clear();
        waiter.join().unwrap();
        assert!(!shared.0.is_set());
    });
}

/// *Seeded*: `set` returning without a `Release` when the flag is up already.
#[test]
fn setting_a_set_event_still_shows_what_was_done_before() {
    check(4, || {
        let shared = Arc::new((Event::new(), Cell::default(), Event::new()));
        shared.0.set();
        let other = Arc::clone(&shared);
        let other = spawn(move || {
            other.1.set(1);
            other.0.set();
        });
        other.join().unwrap();
        assert!(shared.0.is_set());
        assert_eq!(shared.1.get(), 1);
    });
}

/// *Seeded*: `set` storing the word it read instead of exchanging it (the clear is undone).
#[test]
fn set_and_clear_at_once_leave_it_one_way_or_the_other_and_the_waiter_goes_by_the_set() {
    check(3, || {
        let event = Arc::new(Event::new());
        let waiter = Arc::clone(&event);
        let waiter = spawn(move || wait(&waiter, &Alone).unwrap());
        let clearer = Arc::clone(&event);
        let clearer = spawn(move || clearer.clear());
        event.set();
        clearer.join().unwrap();
        // If the clear won, only a waiter that was there before saw the set: let a late one go as well.
        event.set();
        waiter.join().unwrap();
        assert!(event.is_set());
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
