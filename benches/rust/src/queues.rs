//! Numbers through a queue: in one thread, between threads, bounded.

use crate::measure::{Contender, Row, together};
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The peer's queue of many producers and many consumers; capacity 0 is no bound.
pub trait Channel: Sync {
    fn new(capacity: usize) -> Self;
    fn push(&self, number: u64);
    fn pop(&self) -> u64;
}

impl Channel for raddle::queue::Queue<u64> {
    fn new(capacity: usize) -> Self {
        if capacity == 0 { Self::unbounded() } else { Self::bounded(capacity) }
    }
    fn push(&self, number: u64) {
        raddle::queue::Queue::push(self, number).unwrap();
    }
    fn pop(&self) -> u64 {
        raddle::queue::Queue::pop(self).unwrap()
    }
}

/// What a program without a channel crate writes: a deque behind the standard library's mutex.
pub struct Plain {
    items: std::sync::Mutex<VecDeque<u64>>,
    capacity: usize,
    filled: std::sync::Condvar,
    room: std::sync::Condvar,
}

impl Channel for Plain {
    fn new(capacity: usize) -> Self {
        Self {
            items: std::sync::Mutex::default(),
            capacity: if capacity == 0 { usize::MAX } else { capacity },
            filled: std::sync::Condvar::new(),
            room: std::sync::Condvar::new(),
        }
    }
    fn push(&self, number: u64) {
        let mut items = self.items.lock().unwrap();
        while items.len() >= self.capacity {
            items = self.room.wait(items).unwrap();
        }
        items.push_back(number);
        self.filled.notify_one();
    }
    fn pop(&self) -> u64 {
        let mut items = self.items.lock().unwrap();
        loop {
            if let Some(number) = items.pop_front() {
                self.room.notify_one();
                return number;
            }
            items = self.filled.wait(items).unwrap();
        }
    }
}

/// Both ends of a `crossbeam-channel`.
pub struct Crossbeam(crossbeam_channel::Sender<u64>, crossbeam_channel::Receiver<u64>);

impl Channel for Crossbeam {
    fn new(capacity: usize) -> Self {
        let (sender, receiver) =
            if capacity == 0 { crossbeam_channel::unbounded() } else { crossbeam_channel::bounded(capacity) };
        Self(sender, receiver)
    }
    fn push(&self, number: u64) {
        self.0.send(number).unwrap();
    }
    fn pop(&self) -> u64 {
        self.1.recv().unwrap()
    }
}

/// Both ends of a `flume` channel.
pub struct Flume(flume::Sender<u64>, flume::Receiver<u64>);

impl Channel for Flume {
    fn new(capacity: usize) -> Self {
        let (sender, receiver) = if capacity == 0 { flume::unbounded() } else { flume::bounded(capacity) };
        Self(sender, receiver)
    }
    fn push(&self, number: u64) {
        self.0.send(number).unwrap();
    }
    fn pop(&self) -> u64 {
        self.1.recv().unwrap()
    }
}

fn alone<C: Channel>(operations: u64) -> Duration {
    let queue = C::new(0);
    let begin = Instant::now();
    for number in 0..operations {
        black_box(&queue).push(number);
        assert_eq!(queue.pop(), number);
    }
    begin.elapsed()
}

fn through<C: Channel>(operations: u64, capacity: usize, sides: u64) -> Duration {
    let queue = C::new(capacity);
    let share = operations / sides;
    let sum = AtomicU64::new(0);
    let mut bodies: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for side in 0..sides {
        let (queue, sum) = (&queue, &sum);
        bodies.push(Box::new(move || (side * share..(side + 1) * share).for_each(|number| queue.push(number))));
        bodies.push(Box::new(move || {
            let mine = (0..share).map(|_| queue.pop()).sum();
            sum.fetch_add(mine, Ordering::Relaxed);
        }));
    }
    let spent = together(bodies);
    let all = share * sides;
    assert_eq!(sum.into_inner(), all * (all - 1) / 2);
    spent
}

fn one_by_one<C: Channel>(operations: u64) -> Duration {
    through::<C>(operations, 0, 1)
}

fn four_by_four<C: Channel>(operations: u64) -> Duration {
    through::<C>(operations, 0, 4)
}

fn bounded<C: Channel>(operations: u64) -> Duration {
    through::<C>(operations, 16, 1)
}

fn bounded_four<C: Channel>(operations: u64) -> Duration {
    through::<C>(operations, 16, 4)
}

/// The same workload over each peer's queue.
macro_rules! channels {
    ($run:ident) => {
        vec![
            Contender { name: "raddle", run: $run::<raddle::queue::Queue<u64>> },
            Contender { name: "std Mutex+Condvar", run: $run::<$crate::queues::Plain> },
            Contender { name: "crossbeam", run: $run::<$crate::queues::Crossbeam> },
            Contender { name: "flume", run: $run::<$crate::queues::Flume> },
        ]
    };
}
pub(crate) use channels;

/// The rows of this file.
pub fn rows() -> Vec<Row> {
    vec![
        Row::new("queue, push and pop in one thread", 1, channels!(alone)),
        Row::new("queue, 1 producer, 1 consumer", 2, channels!(one_by_one)),
        Row::new("queue, 4 producers, 4 consumers", 2, channels!(four_by_four)),
        Row::new("queue of 16, 1 producer, 1 consumer", 2, channels!(bounded)),
        Row::new("queue of 16, 4 producers, 4 consumers", 2, channels!(bounded_four)),
        Row::pinned("queue of 16, 1 producer, 1 consumer, one core", channels!(bounded)),
    ]
}
