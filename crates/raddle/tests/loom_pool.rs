//! The line of a pool: no task stays in it while a worker sleeps, none is lost when workers leave, and never more wait
//! than may.
#![cfg(raddle_loom)]

mod model;

use loom::sync::atomic::{AtomicBool, AtomicUsize};
use model::{Arc, Leaves, Nobody, check, parking, spawn, ways_to_leave};
use raddle::park::{Alone, Host, Stop};
use raddle::pool::{Added, Next, Rejected, Seat, Task, Tasks};
use raddle::sync::{Event, Semaphore};
use raddle::trace::Kind;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// What is done in a task.
type Action = Box<dyn Fn() + Send + Sync>;

struct Job {
    claimed: AtomicBool,
    action: Action,
}

#[derive(Clone)]
struct Ticket(Arc<Job>);

impl Task for Ticket {
    fn claim(&self) -> bool {
        !self.0.claimed.swap(true, AcqRel)
    }

    fn waits(&self) -> bool {
        !self.0.claimed.load(Acquire)
    }
}

type Line = Arc<Tasks<Ticket>>;

fn ticket(action: impl Fn() + Send + Sync + 'static) -> Ticket {
    Ticket(Arc::new(Job { claimed: AtomicBool::new(false), action: Box::new(action) }))
}

fn line(most: usize, limit: usize) -> Line {
    Arc::new(Tasks::new(most, limit))
}

/// A worker; `host` may end its rests.
fn serve(line: &Line, host: &dyn Host) {
    // Of the standard library, as the core wants it: who has it is no part of the model.
    let seat = std::sync::Arc::new(Seat::default());
    let (mut finished, mut tasks) = (false, 0);
    loop {
        let next = if std::mem::take(&mut finished) { line.finished_and_next(&seat) } else { line.next(&seat) };
        match next {
            Next::Run(job) => {
                (job.0.action)();
                // Both ways, in turn.
                finished = tasks % 2 == 0;
                if !finished {
                    line.finished();
                }
                tasks += 1;
            }
            Next::Gone(_) => {}
            Next::Leave => return,
            Next::Sleep => {
                while let Err(stop) = seat.wait_slow(&mut parking(Kind::Idle, &Nobody, host)) {
                    if stop == Stop::TimedOut && line.give_up(&seat) {
                        return;
                    }
                }
            }
        }
    }
}

/// Adds a task, and the worker that it may need.
fn add(line: &Line, job: Ticket) -> Option<loom::thread::JoinHandle<()>> {
    match line.add(job) {
        Ok(Added::Served) => None,
        Ok(Added::Start) => {
            let line = Arc::clone(line);
            Some(spawn(move || serve(&line, &Alone)))
        }
        Err(_) => panic!("refused"),
    }
}

fn acquire(semaphore: &Semaphore) {
    if !semaphore.try_acquire() {
        semaphore.acquire_slow(&mut parking(Kind::Semaphore, semaphore, &Alone)).unwrap();
    }
}

fn wait(event: &Event) {
    if !event.is_set() {
        event.wait_slow(&mut parking(Kind::Event, event, &Alone)).unwrap();
    }
}

/// The adder waits for the task and only then closes, so that a task left behind is a deadlock.
/// *Seeded*: `rouse` in `add` left out; the seat's word cleared after it is on the list; `Seat::wake` not waking, or
/// looking for sleepers before it stores; a worker that falls asleep staying counted as awake.
#[test]
fn a_worker_that_falls_asleep_misses_no_task() {
    check(3, || {
        let (line, ran) = (line(1, 0), Arc::new(Semaphore::new(0)));
        let mut workers = Vec::new();
        for _ in 0..2 {
            let ran = Arc::clone(&ran);
            workers.extend(add(&line, ticket(move || ran.release(1))));
        }
        acquire(&ran);
        acquire(&ran);
        assert_eq!(line.pending(), 0);
        line.close();
        assert_eq!(workers.len(), 1);
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(line.workers(), (0, 0));
    });
}

/// One adder, two tasks, the first of which needs the second: whoever takes the first leaves the second to another, who
/// may be awake, asleep, or not started yet. *Seeded*: `rouse` in `next` left out; `add` starting no worker for a task
/// beyond those there are.
#[test]
fn tasks_that_wait_for_each_other_run_at_once_where_there_may_be_two_workers() {
    for warm in 0..3 {
        check(if warm < 2 { 2 } else { 1 }, move || {
            let (line, gate, ran) = (line(2, 0), Arc::new(Event::new()), Arc::new(Semaphore::new(0)));
            let mut workers = Vec::new();
            for _ in 0..warm {
                workers.extend(add(&line, ticket(|| ())));
            }
            if warm == 2 {
                // Both have gone to sleep, or are about to.
                while line.workers() != (workers.len(), workers.len()) {
                    loom::thread::yield_now();
                }
            }
            let (opened, done) = (Arc::clone(&gate), Arc::clone(&ran));
            let first = ticket(move || {
                wait(&opened);
                done.release(1);
            });
            let done = Arc::clone(&ran);
            let second = ticket(move || {
                gate.set();
                done.release(1);
            });
            workers.extend(add(&line, first));
            workers.extend(add(&line, second));
            acquire(&ran);
            acquire(&ran);
            line.close();
            for worker in workers {
                worker.join().unwrap();
            }
        });
    }
}

/// *Seeded*: `close` waking one only, or none; a worker of a closed line leaving before it has looked at the line.
#[test]
fn closing_lets_all_workers_go_when_the_line_is_empty() {
    check(2, || {
        let (line, ran) = (line(2, 0), Arc::new(AtomicUsize::new(0)));
        let mut workers = Vec::new();
        for _ in 0..2 {
            let ran = Arc::clone(&ran);
            let job = ticket(move || {
                ran.fetch_add(1, Relaxed);
            });
            workers.extend(add(&line, job));
        }
        line.close();
        assert!(matches!(line.add(ticket(|| ())), Err(Rejected::Closed(_))));
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(ran.load(Relaxed), 2);
        assert_eq!(line.workers(), (0, 0));
    });
}

/// *Seeded*: `add` looking at `closed` before it has the lock.
#[test]
fn a_task_that_comes_while_it_closes_is_run_or_refused() {
    check(3, || {
        let (line, ran) = (line(1, 0), Arc::new(AtomicUsize::new(0)));
        let first = add(&line, ticket(|| ())).unwrap();
        let adder = (Arc::clone(&line), Arc::clone(&ran));
        let adder = spawn(move || {
            let (line, ran) = adder;
            let job = ticket(move || {
                ran.fetch_add(1, Relaxed);
            });
            // There is a worker, which cannot have left unless it is closed.
            match line.add(job) {
                Ok(added) => assert_eq!(added, Added::Served),
                Err(refused) => {
                    assert!(matches!(refused, Rejected::Closed(_)));
                    return 0;
                }
            }
            1
        });
        line.close();
        let accepted = adder.join().unwrap();
        first.join().unwrap();
        assert_eq!(ran.load(Relaxed), accepted);
    });
}

/// A worker that has had enough of waiting, and a task that comes at that moment.
/// *Seeded*: `give_up` leaving without being on the list; `give_up` not counting it out; `add` waking a seat and leaving
/// it on the list.
#[test]
fn a_worker_that_gives_up_leaves_no_task_behind() {
    for at in 0..4 {
        check(3, move || {
            let (line, ran) = (line(1, 0), Arc::new(Semaphore::new(0)));
            let tired = Arc::clone(&line);
            assert!(matches!(line.add(ticket(|| ())), Ok(Added::Start)));
            let tired = spawn(move || serve(&tired, &Leaves::at(at, Stop::TimedOut)));
            let done = Arc::clone(&ran);
            let fresh = add(&line, ticket(move || done.release(1)));
            acquire(&ran);
            line.close();
            tired.join().unwrap();
            if let Some(fresh) = fresh {
                fresh.join().unwrap();
            }
            assert_eq!(line.workers(), (0, 0));
        });
    }
}

/// Adds, waiting for room, as a host does whose wait may be stopped. False if it was.
fn add_when_there_is_room(line: &Line, mut job: Ticket, host: &dyn Host) -> bool {
    loop {
        let key = line.room_key();
        match line.add(job) {
            Ok(_) => return true,
            Err(Rejected::Closed(_)) => return false,
            Err(Rejected::Full(back)) => job = back,
        }
        if line.wait_room(key, &mut parking(Kind::Submit, &Nobody, host)).is_err() {
            return false;
        }
    }
}

/// *Seeded*: `withdrawn` not notifying, or notifying before it counts; `gone` not counted down where the task leaves the
/// line.
#[test]
fn a_withdrawn_task_makes_room_and_counts_once() {
    check(3, || {
        let line = line(1, 1);
        let first = ticket(|| ());
        assert!(matches!(line.add(first.clone()), Ok(Added::Start)));
        let waiting = Arc::clone(&line);
        let waiting = spawn(move || {
            assert!(add_when_there_is_room(&waiting, ticket(|| ()), &Alone));
            assert!(waiting.pending() <= 1);
        });
        let taker = Arc::clone(&line);
        let taker = spawn(move || match taker.take_oldest() {
            Some(Ok(_)) => 1,
            _ => 0,
        });
        let withdrawn = first.claim();
        if withdrawn {
            assert!(line.withdrawn().is_empty());
        }
        waiting.join().unwrap();
        let mut taken = taker.join().unwrap() + usize::from(withdrawn);
        while let Some(job) = line.take_oldest() {
            taken += usize::from(job.is_ok());
        }
        assert_eq!((taken, line.pending()), (2, 0));
        assert!(line.add(ticket(|| ())).is_ok());
        assert_eq!(line.pending(), 1);
    });
}

/// *Seeded*: the limit compared with what is left after the new one (one too many); `next` not notifying room.
#[test]
fn never_more_wait_than_may_and_each_room_is_used() {
    check(2, || {
        let (line, ran) = (line(1, 1), Arc::new(Semaphore::new(0)));
        let done = Arc::clone(&ran);
        let worker = add(&line, ticket(move || done.release(1))).unwrap();
        let other = (Arc::clone(&line), Arc::clone(&ran));
        let other = spawn(move || {
            let (line, ran) = other;
            assert!(add_when_there_is_room(&line, ticket(move || ran.release(1)), &Alone));
            assert!(line.pending() <= 1);
        });
        let done = Arc::clone(&ran);
        assert!(add_when_there_is_room(&line, ticket(move || done.release(1)), &Alone));
        assert!(line.pending() <= 1);
        for _ in 0..3 {
            acquire(&ran);
        }
        other.join().unwrap();
        line.close();
        worker.join().unwrap();
    });
}

/// *Seeded*: `close` not notifying room.
#[test]
fn closing_frees_who_waits_for_room() {
    check(3, || {
        let line = line(1, 1);
        assert!(line.add(ticket(|| ())).is_ok());
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let line = Arc::clone(&line);
                spawn(move || assert!(!add_when_there_is_room(&line, ticket(|| ()), &Alone)))
            })
            .collect();
        line.close();
        for each in waiting {
            each.join().unwrap();
        }
    });
}

/// *Seeded*: room not passed on in `wait_room` by one who leaves.
#[test]
fn a_submitter_that_gives_up_leaves_the_room_to_the_other() {
    for (at, stop) in ways_to_leave() {
        check(2, move || {
            let line = line(1, 1);
            assert!(line.add(ticket(|| ())).is_ok());
            let stays = Arc::clone(&line);
            let stays = spawn(move || assert!(add_when_there_is_room(&stays, ticket(|| ()), &Alone)));
            let leaves = Arc::clone(&line);
            let leaves = spawn(move || {
                if add_when_there_is_room(&leaves, ticket(|| ()), &Leaves::at(at, stop)) {
                    assert!(matches!(leaves.take_oldest(), Some(Ok(_))));
                }
            });
            assert!(matches!(line.take_oldest(), Some(Ok(_))));
            stays.join().unwrap();
            // The other may wait still, for the room of the one that stayed.
            assert!(matches!(line.take_oldest(), Some(Ok(_))));
            leaves.join().unwrap();
        });
    }
}

/// *Seeded*: `set_most` not waking those beyond the number; more leaving than are beyond it.
#[test]
fn fewer_workers_are_left_after_their_number_was_lowered() {
    check(2, || {
        let (line, ran) = (line(2, 0), Arc::new(Semaphore::new(0)));
        let mut workers = Vec::new();
        for _ in 0..2 {
            let done = Arc::clone(&ran);
            workers.extend(add(&line, ticket(move || done.release(1))));
        }
        acquire(&ran);
        acquire(&ran);
        line.set_most(1);
        let done = Arc::clone(&ran);
        assert!(add(&line, ticket(move || done.release(1))).is_none());
        acquire(&ran);
        line.close();
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(line.workers(), (0, 0));
    });
}
