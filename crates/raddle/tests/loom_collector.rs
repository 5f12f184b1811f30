//! The collector: its waiter goes on as soon as it may, and finds what has arrived.
#![cfg(raddle_loom)]

mod model;

use model::{Arc, Cell, Leaves, Nobody, check, parking, spawn, ways_to_leave};
use raddle::future::Collector;
use raddle::park::{Alone, Host, Stop};
use raddle::trace::Kind;

fn wait(collector: &Collector<usize>, host: &dyn Host) -> Result<(), Stop> {
    collector.wait_slow(&mut parking(Kind::Future, &Nobody, host))
}

/// *Seeded*: the wake left out; `word` not counted; `SeqCst` of its count weakened to `Release`.
#[test]
fn the_last_of_all_wakes_the_waiter_and_shows_what_came_before() {
    check(3, || {
        let shared = Arc::new((Collector::new(2), [Cell::default(), Cell::default()]));
        let adders: Vec<_> = (0..2)
            .map(|number| {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    shared.1[number].set(number + 1);
                    shared.0.add(number, false);
                })
            })
            .collect();
        wait(&shared.0, &Alone).unwrap();
        let mut arrived = shared.0.take();
        assert_eq!([shared.1[0].get(), shared.1[1].get()], [1, 2]);
        arrived.sort_unstable();
        assert_eq!(arrived, [0, 1]);
        assert!(shared.0.is_empty());
        for adder in adders {
            adder.join().unwrap();
        }
    });
}

/// *Seeded*: `urgent` not remembered; an urgent one not waking.
#[test]
fn an_urgent_one_lets_the_waiter_go_alone() {
    check(3, || {
        let collector = Arc::new(Collector::new(3));
        let adders: Vec<_> = [false, true]
            .into_iter()
            .map(|urgent| {
                let collector = Arc::clone(&collector);
                spawn(move || collector.add(usize::from(urgent), urgent))
            })
            .collect();
        wait(&collector, &Alone).unwrap();
        assert!(collector.take().contains(&1));
        assert!(collector.is_ready());
        for adder in adders {
            adder.join().unwrap();
        }
    });
}

/// As `as_completed` waits: for any, again and again. *Seeded*: the number compared after the lock has been let go.
#[test]
fn one_by_one_none_is_missed() {
    check(3, || {
        let collector = Arc::new(Collector::new(1));
        let adders: Vec<_> = (0..2)
            .map(|number| {
                let collector = Arc::clone(&collector);
                spawn(move || collector.add(number, false))
            })
            .collect();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            wait(&collector, &Alone).unwrap();
            let arrived = collector.take();
            assert!(!arrived.is_empty());
            seen.extend(arrived);
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1]);
        for adder in adders {
            adder.join().unwrap();
        }
    });
}

/// *Seeded*: a stop at the deadline not looking again.
#[test]
fn a_waiter_that_gives_up_finds_what_is_there() {
    for (at, stop) in ways_to_leave() {
        check(3, move || {
            let collector = Arc::new(Collector::new(1));
            let adder = Arc::clone(&collector);
            let adder = spawn(move || adder.add(7, false));
            let result = wait(&collector, &Leaves::at(at, stop));
            if at % 2 == 1 && stop == Stop::TimedOut {
                assert_eq!(result, Ok(()));
            }
            adder.join().unwrap();
            assert_eq!(collector.take(), [7]);
        });
    }
}
