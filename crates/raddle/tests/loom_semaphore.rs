//! The semaphore: permits are neither made nor lost, and one that is given back finds whoever waits.
#![cfg(raddle_loom)]

mod model;

use loom::sync::atomic::AtomicUsize;
use model::{Arc, Cell, Leaves, check, parking, spawn, ways_to_leave};
use raddle::park::{Alone, Host, Stop};
use raddle::sync::Semaphore;
use raddle::trace::Kind;
use std::sync::atomic::Ordering::Relaxed;

fn acquire(semaphore: &Semaphore, host: &dyn Host) -> Result<(), Stop> {
    if semaphore.try_acquire() {
        return Ok(());
    }
    semaphore.acquire_slow(&mut parking(Kind::Semaphore, semaphore, host))
}

/// *Seeded*: `try_acquire` with a load and a store; `Acquire` in it, or `SeqCst` in `release`, weakened to
/// `Relaxed` (a race for the cell); `SeqCst` of the waiter's count weakened to `Relaxed` (a deadlock).
#[test]
fn one_permit_admits_one_thread_at_a_time_and_is_conserved() {
    check(2, || {
        let shared = Arc::new((Semaphore::new(1), Cell::default()));
        let run = |shared: Arc<(Semaphore, Cell)>| {
            move || {
                acquire(&shared.0, &Alone).unwrap();
                shared.1.add(1);
                shared.0.release(1);
            }
        };
        let others = [spawn(run(Arc::clone(&shared))), spawn(run(Arc::clone(&shared)))];
        run(Arc::clone(&shared))();
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(shared.1.get(), 3);
        assert_eq!(shared.0.permits(), 1);
    });
}

/// *Seeded*: `try_acquire` going below zero.
#[test]
fn two_permits_admit_no_third_thread() {
    check(2, || {
        let shared = Arc::new((Semaphore::new(2), AtomicUsize::new(0)));
        let run = |shared: Arc<(Semaphore, AtomicUsize)>| {
            move || {
                acquire(&shared.0, &Alone).unwrap();
                assert!(shared.1.fetch_add(1, Relaxed) < 2);
                shared.1.fetch_sub(1, Relaxed);
                shared.0.release(1);
            }
        };
        let others = [spawn(run(Arc::clone(&shared))), spawn(run(Arc::clone(&shared)))];
        run(Arc::clone(&shared))();
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(shared.0.permits(), 2);
    });
}

/// *Seeded*: `release` notifying before it adds; the notification left out, or one only for any count.
#[test]
fn releasing_two_permits_at_once_lets_two_sleepers_go() {
    check(2, || {
        let semaphore = Arc::new(Semaphore::new(0));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let semaphore = Arc::clone(&semaphore);
                spawn(move || acquire(&semaphore, &Alone).unwrap())
            })
            .collect();
        semaphore.release(2);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(semaphore.permits(), 0);
    });
}

/// *Seeded*: the notification of a waiter that gives up left out.
#[test]
fn a_waiter_that_gives_up_leaves_the_permit_to_the_other() {
    for (at, stop) in ways_to_leave() {
        check(2, move || {
            let semaphore = Arc::new(Semaphore::new(0));
            let stays = Arc::clone(&semaphore);
            let stays = spawn(move || acquire(&stays, &Alone).unwrap());
            let leaves = Arc::clone(&semaphore);
            let leaves = spawn(move || {
                let result = acquire(&leaves, &Leaves::at(at, stop));
                if result.is_ok() {
                    leaves.release(1);
                }
                result
            });
            semaphore.release(1);
            stays.join().unwrap();
            // One more for the other, should it still wait.
            semaphore.release(1);
            if let Err(reason) = leaves.join().unwrap() {
                assert_eq!(reason, stop);
            }
            assert_eq!(semaphore.permits(), 1);
        });
    }
}

/// *Seeded*: `release_bounded` adding without comparing.
#[test]
fn a_bounded_release_never_exceeds_the_bound() {
    check(4, || {
        let semaphore = Arc::new(Semaphore::new(0));
        let other = Arc::clone(&semaphore);
        let other = spawn(move || other.release_bounded(1, 1));
        let here = semaphore.release_bounded(1, 1);
        assert!(here != other.join().unwrap());
        assert_eq!(semaphore.permits(), 1);
    });
}
