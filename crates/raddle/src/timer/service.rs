//! The one thread that serves all timers of a process.
//!
//! It is started by the first timer, sleeps until the earliest deadline, and ends after a while without any.
//! A new timer wakes it only if it is due before the thread would look anyway; a cancelled one never does: at
//! worst the thread looks once for nothing. What is due is handed to `serve`, outside all locks.

use super::heap::{DeadlineHeap, Ticket};
use crate::park::{Alone, Deadline, Key, Parking, Signal, Stop, now};
use crate::primitive::{Spin, thread_is_gone, thread_number, yield_now};
use crate::trace::thread::{Serving, Thread};
use crate::trace::{Claim, Kind, Resource, Waker};

/// How long the thread stays without any timer, in nanoseconds.
const IDLE: u64 = 2_000_000_000;

/// How long [`Timers::retire`] waits for the kernel, in nanoseconds: by far longer than it ever takes.
const KERNEL: u64 = 1_000_000_000;

/// Whether there is a thread to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    None,
    /// Somebody is starting it: it may run already, and does not end before this is over.
    Starting,
    Running,
}

#[derive(Debug)]
struct State<V> {
    heap: DeadlineHeap<u64, V>,
    service: Service,
    /// No timer is added any more.
    closed: bool,
    /// Taken out and not yet through `serve`.
    serving: bool,
    /// The thread is to end at once if there is no timer.
    retiring: bool,
    /// The thread's number in the kernel; 0 before it has begun.
    number: i32,
    /// When the thread looks next if nobody wakes it.
    looks_at: u64,
}

/// Timers with a value each. Made to be a `static`.
#[derive(Debug)]
pub struct Timers<V: Send + 'static> {
    state: Spin<State<V>>,
    earlier: Signal,
    serve: fn(V),
}

impl<V: Send + 'static> Timers<V> {
    /// No timers; `serve` gets the value of each when it is due, in the service thread.
    pub const fn new(serve: fn(V)) -> Self {
        Self {
            state: Spin::new(State {
                heap: DeadlineHeap::new(),
                service: Service::None,
                closed: false,
                serving: false,
                retiring: false,
                number: 0,
                looks_at: 0,
            }),
            earlier: Signal::new(),
            serve,
        }
    }

    /// Adds a timer; never blocks. The ticket cancels it.
    ///
    /// # Errors
    /// The value, if the service thread cannot be started, or after [`Timers::close`]. A timer is only taken in once
    /// there is a thread to serve it.
    pub fn add(&'static self, deadline: Deadline, value: V) -> Result<Ticket, V> {
        loop {
            let mut state = self.state.lock();
            if state.closed {
                return Err(value);
            }
            match state.service {
                Service::Running => {
                    let wake = deadline.nanoseconds() < state.looks_at;
                    let ticket = state.heap.insert(deadline.nanoseconds(), value);
                    drop(state);
                    if wake {
                        self.earlier.notify_all();
                    }
                    return Ok(ticket);
                }
                Service::Starting => {
                    drop(state);
                    yield_now();
                }
                Service::None => {
                    state.service = Service::Starting;
                    state.looks_at = 0;
                    drop(state);
                    // Without a name of its own: threads that it starts would have it too.
                    let started = std::thread::Builder::new().stack_size(256 * 1024).spawn(|| self.run());
                    self.state.lock().service = if started.is_ok() { Service::Running } else { Service::None };
                    if started.is_err() {
                        return Err(value);
                    }
                }
            }
        }
    }

    /// Takes a timer out; `None` if it has been served or taken out before.
    pub fn cancel(&self, ticket: Ticket) -> Option<V> {
        self.state.lock().heap.remove(ticket)
    }

    /// Whether a timer is still to come.
    pub fn is_pending(&self, ticket: Ticket) -> bool {
        self.state.lock().heap.get(ticket).is_some()
    }

    /// Whether one is being served at this moment: no longer to come, and not yet over.
    pub fn is_serving(&self) -> bool {
        self.state.lock().serving
    }

    /// How many are still to come.
    pub fn len(&self) -> usize {
        self.state.lock().heap.len()
    }

    /// Whether none is to come.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `look` for every value to come, under the lock: it must be short and run nothing foreign.
    pub fn for_each(&self, mut look: impl FnMut(&V)) {
        for (_, _, value) in self.state.lock().heap.iter() {
            look(value);
        }
    }

    /// Takes all timers out and lets no more in. One may still be on its way: see [`Timers::is_serving`].
    pub fn close(&self) -> Vec<V> {
        let mut state = self.state.lock();
        state.closed = true;
        state.heap.take_all().into_iter().map(|(_, value)| value).collect()
    }

    /// Ends the thread if it has no timers, and waits until the kernel has forgotten it. To be called before a fork; a
    /// timer that is added starts another.
    pub fn retire(&self) {
        let end = now() + KERNEL;
        let number = loop {
            let mut state = self.state.lock();
            if state.service == Service::None || state.heap.peek().is_some() || now() >= end {
                return;
            }
            // Else it is about to begin, or to come back for more.
            if state.service == Service::Running && state.number != 0 && !state.serving {
                state.retiring = true;
                break state.number;
            }
            drop(state);
            yield_now();
        };
        self.earlier.notify_all();
        // Not longer than it is wanted: a timer that somebody adds meanwhile keeps it.
        while !thread_is_gone(number) && now() < end && self.is_empty() {
            yield_now();
        }
    }

    fn run(&'static self) {
        let _serving = Serving::new();
        Thread::unseen().stand_in();
        self.state.lock().number = thread_number();
        let mut empty_since = None;
        loop {
            let time = now();
            let mut state = self.state.lock();
            state.serving = false;
            if let Some((_, value)) = state.heap.pop_due(time) {
                state.serving = true;
                drop(state);
                empty_since = None;
                (self.serve)(value);
                continue;
            }
            let next = match state.heap.peek() {
                Some((deadline, _)) => {
                    let deadline = *deadline;
                    empty_since = None;
                    state.retiring = false;
                    deadline
                }
                None => {
                    let end = *empty_since.get_or_insert(time) + IDLE;
                    if (end <= time || state.retiring) && state.service == Service::Running {
                        state.service = Service::None;
                        state.retiring = false;
                        state.number = 0;
                        return;
                    }
                    end.max(time + 1)
                }
            };
            state.looks_at = next;
            let key = self.earlier.key();
            drop(state);
            self.sleep(key, Deadline::at(next));
        }
    }

    fn sleep(&self, key: Key, deadline: Deadline) {
        let mut parking = Parking::new(Kind::Sleep, self, 0, deadline, &Alone);
        match self.earlier.wait(key, &mut parking) {
            Ok(()) | Err(Stop::TimedOut | Stop::Interrupted) => {}
        }
    }

    /// In a forked child, where neither the thread nor the timers exist: forgets both.
    ///
    /// The parent's timers are leaked: their values belong to a heap that may have been in use.
    pub fn after_fork_in_child(&self) {
        self.state.break_after_fork();
        let mut state = self.state.lock();
        std::mem::forget(std::mem::take(&mut state.heap));
        state.service = Service::None;
        state.closed = false;
        state.serving = false;
        state.retiring = false;
        state.number = 0;
        state.looks_at = 0;
    }
}

impl<V: Send> Resource for Timers<V> {
    fn wakers(&self, _kind: Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    type Served = (u32, Sender<u32>);
    static TIMERS: Timers<Served> = Timers::new(|(name, sender)| sender.send(name).unwrap());

    #[test]
    fn timers_are_served_in_the_order_of_their_deadlines_and_cancelled_ones_never() {
        let (sender, receiver) = channel();
        let add = |name: u32, milliseconds: u64| {
            TIMERS.add(Deadline::after(Duration::from_millis(milliseconds)), (name, sender.clone())).unwrap()
        };
        add(3, 90);
        let cancelled = add(2, 60);
        add(1, 30);
        assert!(TIMERS.is_pending(cancelled));
        assert!(TIMERS.cancel(cancelled).is_some());
        assert!(TIMERS.cancel(cancelled).is_none());
        drop(sender);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [1, 3]);
        assert!(TIMERS.is_empty());
    }

    #[test]
    fn a_retired_thread_is_gone_and_the_next_timer_has_another() {
        static LINE: Timers<Sender<()>> = Timers::new(|sender| sender.send(()).unwrap());
        let (sender, receiver) = channel();
        for _ in 0..100 {
            LINE.add(Deadline::after(Duration::ZERO), sender.clone()).unwrap();
            receiver.recv().unwrap();
            while LINE.is_serving() {
                yield_now();
            }
            let number = LINE.state.lock().number;
            LINE.retire();
            assert!(thread_is_gone(number));
        }
        LINE.retire();
    }

    #[test]
    fn a_thread_with_timers_does_not_retire() {
        static LINE: Timers<Sender<()>> = Timers::new(|sender| sender.send(()).unwrap());
        let (sender, receiver) = channel();
        LINE.add(Deadline::after(Duration::from_millis(50)), sender).unwrap();
        LINE.retire();
        assert_eq!(LINE.len(), 1);
        receiver.recv().unwrap();
    }

    #[test]
    fn closed_timers_are_given_back_and_no_more_are_taken() {
        static CLOSED: Timers<u32> = Timers::new(|_| unreachable!("none is due"));
        CLOSED.add(Deadline::after(Duration::from_secs(3600)), 1).unwrap();
        assert_eq!(CLOSED.close(), [1]);
        assert_eq!(CLOSED.add(Deadline::after(Duration::ZERO), 2), Err(2));
        assert!(CLOSED.is_empty() && !CLOSED.is_serving());
    }
}
