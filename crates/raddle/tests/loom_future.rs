//! The life of a future: it ends once, whoever waits hears of it, and whoever listens is told once.
#![cfg(raddle_loom)]

mod model;

use loom::sync::Mutex;
use loom::sync::atomic::AtomicUsize;
use model::{Arc, Cell, Leaves, Nobody, check, parking, spawn, ways_to_leave};
use raddle::future::{Completion, Refused, Stage};
use raddle::park::{Alone, Host, Stop};
use raddle::trace::Kind;
use std::sync::atomic::Ordering::Relaxed;

type Future = Completion<usize>;

fn wait(future: &Future, host: &dyn Host) -> Result<(), Stop> {
    future.wait_slow(&mut parking(Kind::Future, &Nobody, host))
}

/// Waits for a future that others end under a lock.
fn wait_told(shared: &(Future, Mutex<()>)) {
    {
        let _lock = shared.1.lock().unwrap();
        shared.0.will_wait();
    }
    wait(&shared.0, &Alone).unwrap();
}

/// *Seeded*: `go` with a load and a store; `claim` admitting a cancelled future; `cancel` admitting a running one.
#[test]
fn one_of_begin_and_cancel_and_one_of_claim_and_cancel_succeeds() {
    check(3, || {
        let future = Arc::new(Future::new());
        let canceller = Arc::clone(&future);
        let canceller = spawn(move || canceller.cancel(false).is_ok());
        let ender = Arc::clone(&future);
        let ender = spawn(move || {
            let claimed = ender.claim(false).is_ok();
            assert!(!claimed || ender.settle(Stage::Finished, false) == Ok(false));
            claimed
        });
        let begun = future.begin().is_ok();
        let (cancelled, claimed) = (canceller.join().unwrap(), ender.join().unwrap());
        assert!(!(begun && cancelled));
        assert!(cancelled != claimed);
        assert_eq!(future.stage(), if cancelled { Stage::Cancelled } else { Stage::Finished });
    });
}

/// *Seeded*: `claim` admitting a future that is being settled; the exchange of `go` weakened to `Relaxed`, or the
/// loads of `stage` and `wait_slow` (a race for the cell); the refusal in `go` told from its first, relaxed look.
#[test]
fn one_of_two_writes_the_value_and_who_sees_the_end_sees_it() {
    check(3, || {
        let shared = Arc::new((Future::new(), Cell::default()));
        let end = |value: usize, shared: Arc<(Future, Cell)>| {
            move || {
                if shared.0.claim(false).is_ok() {
                    shared.1.set(value);
                    shared.0.settle(Stage::Finished, false).unwrap();
                    return true;
                }
                if shared.0.claim(false) == Err(Refused::Stage(Stage::Finished)) {
                    assert!(shared.1.get() > 0);
                }
                false
            }
        };
        let enders = [spawn(end(1, Arc::clone(&shared))), spawn(end(2, Arc::clone(&shared)))];
        wait(&shared.0, &Alone).unwrap();
        let value = shared.1.get();
        let won: Vec<_> = enders.into_iter().map(|ender| ender.join().unwrap()).collect();
        assert_eq!(won, [value == 1, value == 2]);
    });
}

/// Of those who are not kept out, one has said that it will wait, and one just looks.
///
/// *Seeded*: `finish_alone` from pending only; that stores the end relaxed.
#[test]
fn an_end_in_one_step_is_seen_whole() {
    check(3, || {
        let shared = Arc::new((Future::new(), Cell::default()));
        // SAFETY: the others only look, and wait.
        unsafe { shared.0.begin_alone() }.unwrap();
        shared.0.will_wait();
        let waiter = Arc::clone(&shared);
        let waiter = spawn(move || {
            wait(&waiter.0, &Alone).unwrap();
            waiter.1.get()
        });
        let onlooker = Arc::clone(&shared);
        let onlooker = spawn(move || onlooker.0.is_done().then(|| onlooker.1.get()));
        assert_eq!(shared.0.is_open(), Ok(()));
        shared.1.set(7);
        // SAFETY: as above.
        assert_eq!(unsafe { shared.0.finish_alone() }, Ok(false));
        assert_eq!(shared.0.is_open(), Err(Refused::Stage(Stage::Finished)));
        assert_eq!(waiter.join().unwrap(), 7);
        assert!(matches!(onlooker.join().unwrap(), None | Some(7)));
    });
    check(3, || {
        let shared = Arc::new((Future::new(), Cell::default()));
        let onlooker = Arc::clone(&shared);
        let onlooker = spawn(move || onlooker.0.is_done().then(|| onlooker.1.get()));
        shared.1.set(7);
        // SAFETY: as above; nobody waits.
        assert_eq!(unsafe { shared.0.finish_alone() }, Ok(false));
        assert!(matches!(onlooker.join().unwrap(), None | Some(7)));
    });
}

/// Two threads under a lock of the host's, and one that waits without.
///
/// *Seeded*: `listen_alone` that does not say so in the word; the listener's lock left out; `finish_alone` that takes no
/// notice of who will wait.
#[test]
fn under_a_lock_of_the_host_s_a_listener_is_told_once_or_refused() {
    check(3, || {
        let shared = Arc::new((Future::new(), Mutex::new(())));
        let listener = Arc::clone(&shared);
        let listener = spawn(move || {
            let _lock = listener.1.lock().unwrap();
            // SAFETY: the other changes nothing but under the lock, and the third only waits.
            unsafe { listener.0.listen_alone(7, Stage::is_done) }
        });
        let waiter = Arc::clone(&shared);
        let waiter = spawn(move || wait_told(&waiter));
        let told = {
            let _lock = shared.1.lock().unwrap();
            assert_eq!(shared.0.is_open(), Ok(()));
            // SAFETY: as above.
            if unsafe { shared.0.finish_alone() } == Ok(true) { unsafe { shared.0.take_only_alone() } } else { None }
        };
        waiter.join().unwrap();
        match listener.join().unwrap() {
            Ok(()) => assert_eq!(told, Some(7)),
            Err(refused) => assert_eq!((refused, told), (7, None)),
        }
        // SAFETY: nobody else is left.
        assert_eq!(unsafe { shared.0.take_only_alone() }, None);
        assert_eq!(shared.0.stage(), Stage::Finished);
    });
}

/// Likewise two of whom one begins and ends it, and the other cancels it.
///
/// *Seeded*: `begin_alone` that looks at the stage only after its store; that forgets whether somebody listens.
#[test]
fn under_a_lock_of_the_host_s_it_is_begun_or_cancelled() {
    check(3, || {
        let shared = Arc::new((Future::new(), Mutex::new(())));
        let runner = Arc::clone(&shared);
        let runner = spawn(move || {
            let begun = {
                let _lock = runner.1.lock().unwrap();
                // SAFETY: the other changes nothing but under the lock, and the third only waits.
                unsafe { runner.0.begin_alone() }.is_ok()
            };
            let _lock = runner.1.lock().unwrap();
            // SAFETY: as above.
            begun.then(|| unsafe { runner.0.finish_alone() }.unwrap())
        });
        let waiter = Arc::clone(&shared);
        let waiter = spawn(move || wait_told(&waiter));
        let listens = {
            let _lock = shared.1.lock().unwrap();
            // SAFETY: as above.
            unsafe { shared.0.listen_alone(7, Stage::is_done) }.is_ok()
        };
        let cancelled = {
            let _lock = shared.1.lock().unwrap();
            shared.0.cancel(false)
        };
        waiter.join().unwrap();
        match runner.join().unwrap() {
            Some(listened) => {
                assert_eq!(listened, listens);
                assert!(cancelled.is_err());
                assert_eq!(shared.0.stage(), Stage::Finished);
            }
            None => {
                assert_eq!(cancelled, Ok(true));
                assert_eq!(shared.0.stage(), Stage::Cancelled);
            }
        }
    });
}

/// *Seeded*: the wake in `go` for one only.
#[test]
fn the_end_wakes_all_waiters() {
    check(2, || {
        let future = Arc::new(Future::new());
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let future = Arc::clone(&future);
                spawn(move || wait(&future, &Alone).unwrap())
            })
            .collect();
        future.claim(false).unwrap();
        assert_eq!(future.settle(Stage::Finished, false), Ok(false));
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// *Seeded*: the wake in `go` left out, or skipped where the end is `Notified`.
#[test]
fn no_waiter_is_left_asleep_whatever_else_happens_to_the_word() {
    for end in [Stage::Finished, Stage::Notified] {
        check(3, move || {
            let future = Arc::new(Future::new());
            let waiter = Arc::clone(&future);
            let waiter = spawn(move || wait(&waiter, &Alone).unwrap());
            future.begin().unwrap();
            future.listen(1, Stage::is_done).unwrap();
            future.claim(false).unwrap();
            assert_eq!(future.settle(end, false), Ok(true));
            waiter.join().unwrap();
        });
    }
}

/// *Seeded*: `cancel` waking nobody; `SeqCst` of the exchange in `go` weakened to `Release`.
#[test]
fn a_cancelled_future_wakes_who_waits() {
    check(3, || {
        let future = Arc::new(Future::new());
        let waiter = Arc::clone(&future);
        let waiter = spawn(move || wait(&waiter, &Alone).unwrap());
        let worker = Arc::clone(&future);
        let worker = spawn(move || worker.begin().is_ok());
        let cancelled = future.cancel(false).is_ok();
        let begun = worker.join().unwrap();
        assert!(cancelled != begun);
        if begun {
            future.claim(false).unwrap();
            future.settle(Stage::Finished, false).unwrap();
        }
        waiter.join().unwrap();
        // Only then does its executor come to it: that is not what the waiter waited for.
        assert_eq!(future.acknowledge(false).is_ok(), cancelled);
    });
}

/// *Seeded*: `LISTENED` set before the lock is taken, or after the look; the look left out.
#[test]
fn each_listener_is_told_once_by_the_end_or_refused() {
    check(3, || {
        let shared = Arc::new((Future::new(), AtomicUsize::new(0)));
        let listeners: Vec<_> = [1, 16]
            .into_iter()
            .map(|weight| {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    if let Err(mine) = shared.0.listen(weight, Stage::is_done) {
                        shared.1.fetch_add(mine, Relaxed);
                    }
                })
            })
            .collect();
        shared.0.claim(false).unwrap();
        if shared.0.settle(Stage::Finished, false).unwrap() {
            for listener in shared.0.take_listeners(|_| true) {
                shared.1.fetch_add(listener, Relaxed);
            }
        }
        for listener in listeners {
            listener.join().unwrap();
        }
        assert_eq!(shared.1.load(Relaxed), 17);
        assert!(shared.0.take_listeners(|_| true).is_empty());
    });
}

/// Callbacks are called when a future is cancelled, collectors told when its executor knows.
/// *Seeded*: `take_listeners` taking all, or dropping those not picked; `acknowledge` not telling of listeners.
#[test]
fn each_kind_of_listener_is_told_at_its_own_end() {
    const CALLBACK: usize = 1;
    const COLLECTOR: usize = 16;
    check(3, || {
        let shared = Arc::new((Future::new(), AtomicUsize::new(0)));
        let listener = Arc::clone(&shared);
        let listener = spawn(move || {
            let over = |stage| matches!(stage, Stage::Notified | Stage::Finished);
            if let Err(mine) = listener.0.listen(COLLECTOR, over) {
                listener.1.fetch_add(mine, Relaxed);
            }
            if let Err(mine) = listener.0.listen(CALLBACK, Stage::is_done) {
                listener.1.fetch_add(mine, Relaxed);
            }
        });
        let tell = |kind| {
            for each in shared.0.take_listeners(|each| *each == kind) {
                assert_eq!(each, kind);
                shared.1.fetch_add(each, Relaxed);
            }
        };
        if shared.0.cancel(false).unwrap() {
            tell(CALLBACK);
        }
        if shared.0.acknowledge(false).unwrap() {
            tell(COLLECTOR);
        }
        listener.join().unwrap();
        assert_eq!(shared.1.load(Relaxed), CALLBACK + COLLECTOR);
    });
}

/// *Seeded*: `go` looking at `HELD` once, before its loop; `settle` not looking; `hold` with a load and a store.
#[test]
fn a_held_future_stands_still_under_the_lock_of_its_host() {
    check(3, || {
        let shared = Arc::new((Future::new(), Mutex::new(())));
        let ender = Arc::clone(&shared);
        let ender = spawn(move || {
            let mut guard = None;
            if ender.0.claim(false) == Err(Refused::Held) {
                guard = Some(ender.1.lock().unwrap());
                ender.0.claim(true).unwrap();
            }
            if guard.is_none() && ender.0.settle(Stage::Finished, false) == Err(Refused::Held) {
                guard = Some(ender.1.lock().unwrap());
            }
            if guard.is_some() {
                ender.0.settle(Stage::Finished, true).unwrap();
            }
        });
        {
            let _guard = shared.1.lock().unwrap();
            shared.0.hold();
            let stage = shared.0.stage();
            loom::thread::yield_now();
            assert_eq!(shared.0.stage(), stage);
        }
        ender.join().unwrap();
        assert_eq!(shared.0.stage(), Stage::Finished);
    });
}

/// *Seeded*: a stop at the deadline not looking at the stage again.
#[test]
fn a_waiter_that_gives_up_disturbs_nobody() {
    for (at, stop) in ways_to_leave() {
        check(2, move || {
            let future = Arc::new(Future::new());
            let stays = Arc::clone(&future);
            let stays = spawn(move || wait(&stays, &Alone).unwrap());
            let leaves = Arc::clone(&future);
            let leaves = spawn(move || wait(&leaves, &Leaves::at(at, stop)));
            future.claim(false).unwrap();
            future.settle(Stage::Finished, false).unwrap();
            stays.join().unwrap();
            let result = leaves.join().unwrap();
            // Woken (an odd time), it was over: then the deadline is no reason any more.
            if at % 2 == 1 && stop == Stop::TimedOut {
                assert_eq!(result, Ok(()));
            }
        });
    }
}
