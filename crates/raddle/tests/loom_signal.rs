//! The event count: whoever waits with a key learns of every change after it.
#![cfg(raddle_loom)]

mod model;

use model::{Arc, check, parking, spawn};
use raddle::park::{Alone, Signal};
use raddle::trace::{Claim, Kind, Resource, Waker};
use std::sync::atomic::Ordering::Relaxed;

#[derive(Default)]
struct Flag {
    raised: loom::sync::atomic::AtomicUsize,
    signal: Signal,
}

impl Resource for Flag {
    fn wakers(&self, _kind: Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }
}

impl Flag {
    /// Returns once the flag is at this number or beyond.
    fn wait_for(&self, number: usize) {
        let mut parking = parking(Kind::Event, self, &Alone);
        loop {
            let key = self.signal.key();
            if self.raised.load(Relaxed) >= number {
                return;
            }
            self.signal.wait(key, &mut parking).unwrap();
        }
    }
}

/// *Seeded*: the wake in `Signal::notify` left out; `SeqCst` there or on the sleeper's count in
/// `Parking::park` weakened to `AcqRel`; the sleeper counted after its sleep; the sleepers read before the change; the
/// key read after the look.
#[test]
fn a_change_after_the_key_ends_the_wait() {
    check(4, || {
        let flag = Arc::new(Flag::default());
        let changer = Arc::clone(&flag);
        let changer = spawn(move || {
            changer.raised.store(1, Relaxed);
            changer.signal.notify_one();
        });
        flag.wait_for(1);
        changer.join().unwrap();
    });
}

/// *Seeded*: `notify_all` waking one.
#[test]
fn a_change_for_all_ends_every_wait() {
    check(2, || {
        let flag = Arc::new(Flag::default());
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let flag = Arc::clone(&flag);
                spawn(move || flag.wait_for(1))
            })
            .collect();
        flag.raised.store(1, Relaxed);
        flag.signal.notify_all();
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// *Seeded*: the count of sleepers set to 0, by the notifier that wakes one of them or by the first that wakes up.
#[test]
fn each_of_two_changes_for_one_reaches_a_waiter() {
    check(2, || {
        let flag = Arc::new(Flag::default());
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let flag = Arc::clone(&flag);
                spawn(move || {
                    let mut parking = parking(Kind::Event, &*flag, &Alone);
                    loop {
                        let key = flag.signal.key();
                        let take = |there: usize| there.checked_sub(1);
                        if flag.raised.fetch_update(Relaxed, Relaxed, take).is_ok() {
                            return;
                        }
                        flag.signal.wait(key, &mut parking).unwrap();
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            flag.raised.fetch_add(1, Relaxed);
            flag.signal.notify_one();
        }
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// *Seeded*: `Parking::park` returning early without counting itself down again.
#[test]
fn nobody_is_counted_as_asleep_once_all_waits_are_over() {
    check(4, || {
        let flag = Arc::new(Flag::default());
        let changer = Arc::clone(&flag);
        let changer = spawn(move || {
            changer.raised.store(1, Relaxed);
            changer.signal.notify_one();
        });
        flag.wait_for(1);
        changer.join().unwrap();
        assert_eq!(flag.signal.sleepers(), 0);
    });
}
