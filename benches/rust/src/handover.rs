//! Two threads that wake each other in turn; one operation is one wake-up.

use crate::measure::{Contender, Row, together};
use crate::queues::{Channel, channels};
use std::time::Duration;

/// A gate that closes behind whoever passes it.
trait Gate: Sync {
    fn new() -> Self;
    fn open(&self);
    fn pass(&self);
}

impl Gate for raddle::sync::Event {
    fn new() -> Self {
        Self::new()
    }
    fn open(&self) {
        self.set();
    }
    fn pass(&self) {
        self.wait();
        self.clear();
    }
}

impl Gate for raddle::sync::Semaphore {
    fn new() -> Self {
        Self::new(0)
    }
    fn open(&self) {
        self.release(1);
    }
    fn pass(&self) {
        self.acquire();
    }
}

struct RaddleFlag(raddle::sync::Mutex<bool>, raddle::sync::Condvar);

impl Gate for RaddleFlag {
    fn new() -> Self {
        Self(raddle::sync::Mutex::new(false), raddle::sync::Condvar::new())
    }
    fn open(&self) {
        *self.0.lock() = true;
        self.1.notify_one();
    }
    fn pass(&self) {
        let mut open = self.0.lock();
        while !*open {
            open = self.1.wait(open);
        }
        *open = false;
    }
}

struct StdFlag(std::sync::Mutex<bool>, std::sync::Condvar);

impl Gate for StdFlag {
    fn new() -> Self {
        Self(std::sync::Mutex::new(false), std::sync::Condvar::new())
    }
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_one();
    }
    fn pass(&self) {
        let mut open = self.1.wait_while(self.0.lock().unwrap(), |open| !*open).unwrap();
        *open = false;
    }
}

struct ParkingLotFlag(parking_lot::Mutex<bool>, parking_lot::Condvar);

impl Gate for ParkingLotFlag {
    fn new() -> Self {
        Self(parking_lot::Mutex::new(false), parking_lot::Condvar::new())
    }
    fn open(&self) {
        *self.0.lock() = true;
        self.1.notify_one();
    }
    fn pass(&self) {
        let mut open = self.0.lock();
        self.1.wait_while(&mut open, |open| !*open);
        *open = false;
    }
}

fn by_gate<G: Gate>(operations: u64) -> Duration {
    let (there, back) = (&G::new(), &G::new());
    let half = operations / 2;
    together(vec![
        Box::new(move || {
            for _ in 0..half {
                there.open();
                back.pass();
            }
        }),
        Box::new(move || {
            for _ in 0..half {
                there.pass();
                back.open();
            }
        }),
    ])
}

fn by_queue<C: Channel>(operations: u64) -> Duration {
    let (there, back) = (&C::new(1), &C::new(1));
    let half = operations / 2;
    together(vec![
        Box::new(move || {
            for number in 0..half {
                there.push(number);
                assert_eq!(back.pop(), number);
            }
        }),
        Box::new(move || (0..half).for_each(|_| back.push(there.pop()))),
    ])
}

/// raddle's primitive first, then the flag behind a mutex that the others write.
macro_rules! gates {
    ($ours:ty) => {
        vec![
            Contender { name: "raddle", run: by_gate::<$ours> },
            Contender { name: "std Mutex+Condvar", run: by_gate::<StdFlag> },
            Contender { name: "parking_lot Mutex+Condvar", run: by_gate::<ParkingLotFlag> },
        ]
    };
}

/// The rows of this file.
pub fn rows() -> Vec<Row> {
    use raddle::sync::{Event, Semaphore};
    vec![
        Row::new("hand-over by Event", 2, gates!(Event)),
        Row::new("hand-over by Semaphore", 2, gates!(Semaphore)),
        Row::new("hand-over by Mutex and Condvar", 2, gates!(RaddleFlag)),
        Row::new("hand-over by queue of 1", 2, channels!(by_queue)),
        Row::pinned("hand-over by Event, one core", gates!(Event)),
        Row::pinned("hand-over by Semaphore, one core", gates!(Semaphore)),
        Row::pinned("hand-over by Mutex and Condvar, one core", gates!(RaddleFlag)),
        Row::pinned("hand-over by queue of 1, one core", channels!(by_queue)),
    ]
}
