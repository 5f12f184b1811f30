//! The barrier: nobody leaves before all have arrived, round after round; abort and reset free everybody.
#![cfg(raddle_loom)]

mod model;

use loom::sync::atomic::AtomicUsize;
use model::{Arc, Cell, check, parking, spawn};
use raddle::park::{Alone, Key};
use raddle::sync::{Arrival, Barrier, BarrierError, Phase};
use raddle::trace::Kind;
use std::sync::atomic::Ordering::Relaxed;

fn sleep(barrier: &Barrier, key: Key) {
    barrier.wait_changed(key, &mut parking(Kind::Barrier, barrier, &Alone)).unwrap();
}

/// One round of a party, as hosts run it; `action` is run by the last to arrive.
fn pass(barrier: &Barrier, action: impl FnOnce()) -> Result<usize, BarrierError> {
    let (index, is_last) = loop {
        match barrier.arrive()? {
            Arrival::Blocked(key) => sleep(barrier, key),
            Arrival::Waiting(index) => break (index, false),
            Arrival::Last(index) => break (index, true),
        }
    };
    let result = if is_last {
        action();
        barrier.open();
        Ok(index)
    } else {
        loop {
            match barrier.phase() {
                (Phase::Filling, key) => sleep(barrier, key),
                (Phase::Draining, _) => break Ok(index),
                (Phase::Broken | Phase::Resetting, _) => break Err(BarrierError),
            }
        }
    };
    barrier.leave();
    result
}

/// *Seeded*: `Last` one party early; `open` not notifying; `open` waking one only; the key in `phase` read
/// after the phase.
#[test]
fn nobody_leaves_before_all_three_have_arrived() {
    check(2, || {
        let shared = Arc::new((Barrier::new(3), AtomicUsize::new(0)));
        let run = |shared: Arc<(Barrier, AtomicUsize)>| {
            move || {
                shared.1.fetch_add(1, Relaxed);
                let index = pass(&shared.0, || {}).unwrap();
                assert_eq!(shared.1.load(Relaxed), 3);
                index
            }
        };
        let others = [spawn(run(Arc::clone(&shared))), spawn(run(Arc::clone(&shared)))];
        let mut indices = vec![run(Arc::clone(&shared))()];
        indices.extend(others.map(|other| other.join().unwrap()));
        indices.sort_unstable();
        assert_eq!(indices, [0, 1, 2]);
        assert_eq!(shared.0.waiting(), 0);
    });
}

/// *Seeded*: `leave` never going back to filling; `leave` not notifying those that are blocked; `arrive`
/// admitting parties while the last round drains.
#[test]
fn a_second_round_starts_only_after_the_first_has_left() {
    check(3, || {
        let shared = Arc::new((Barrier::new(2), AtomicUsize::new(0)));
        let run = |shared: Arc<(Barrier, AtomicUsize)>| {
            move || {
                for round in 1..=2 {
                    shared.1.fetch_add(1, Relaxed);
                    pass(&shared.0, || {}).unwrap();
                    // All have arrived in this round, and at most one in the next.
                    let arrived = shared.1.load(Relaxed);
                    assert!(arrived >= 2 * round && arrived <= 2 * round + 1, "{arrived} in round {round}");
                }
            }
        };
        let other = spawn(run(Arc::clone(&shared)));
        run(Arc::clone(&shared))();
        other.join().unwrap();
        assert_eq!(shared.0.waiting(), 0);
    });
}

/// *Seeded*: the round opened before the action (in `pass` above, the contract of `open`); `arrive` admitting a
/// party beyond the last while the action runs.
#[test]
fn the_action_runs_once_before_anybody_leaves() {
    check(3, || {
        let shared = Arc::new((Barrier::new(2), Cell::default()));
        let run = |shared: Arc<(Barrier, Cell)>| {
            move || {
                let action = || {
                    // The round is full: whoever comes now waits for the next.
                    assert!(matches!(shared.0.arrive(), Ok(Arrival::Blocked(_))));
                    shared.1.add(1);
                };
                pass(&shared.0, action).unwrap();
                assert_eq!(shared.1.get(), 1);
            }
        };
        let other = spawn(run(Arc::clone(&shared)));
        run(Arc::clone(&shared))();
        other.join().unwrap();
    });
}

/// *Seeded*: `abort` not notifying, or waking one only.
#[test]
fn abort_frees_all_who_wait_and_turns_away_all_who_come() {
    check(2, || {
        let barrier = Arc::new(Barrier::new(3));
        let parties: Vec<_> = (0..2)
            .map(|_| {
                let barrier = Arc::clone(&barrier);
                spawn(move || pass(&barrier, || {}))
            })
            .collect();
        barrier.abort();
        assert_eq!(pass(&barrier, || {}), Err(BarrierError));
        for party in parties {
            assert_eq!(party.join().unwrap(), Err(BarrierError));
        }
        assert!(barrier.is_broken());
    });
}

/// *Seeded*: `reset` not notifying; `reset` making it whole at once although a party is still inside, which
/// then waits for a round it is not in; `leave` not ending the reset.
#[test]
fn reset_sends_away_those_inside_and_serves_those_who_come_after() {
    check(2, || {
        let barrier = Arc::new(Barrier::new(2));
        // It comes before the reset and is sent away, or after it and meets the other.
        let early = Arc::clone(&barrier);
        let early = spawn(move || pass(&early, || {}).or_else(|_| pass(&early, || {})));
        let late = Arc::clone(&barrier);
        let late = spawn(move || {
            late.reset();
            pass(&late, || {})
        });
        let (early, late) = (early.join().unwrap(), late.join().unwrap());
        let mut indices = [early.unwrap(), late.unwrap()];
        indices.sort_unstable();
        assert_eq!(indices, [0, 1]);
        assert!(!barrier.is_broken());
    });
}
