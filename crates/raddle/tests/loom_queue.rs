//! The queue: each item once, no wake-up lost at either end, and shutting down frees everybody.
#![cfg(raddle_loom)]

mod model;

use model::{Arc, Leaves, check, parking, spawn, ways_to_leave};
use raddle::park::{Alone, Deadline, Stop};
use raddle::queue::{PopError, PushError, Queue};
use raddle::trace::Kind;

/// *Seeded*: the notification in `try_push_as` left out; the getter not enrolled; a new key read in `pop_until`
/// between the look and the wait.
#[test]
fn each_item_reaches_one_getter_exactly_once() {
    check(2, || {
        let queue = Arc::new(Queue::unbounded());
        let getters: Vec<_> = (0..2)
            .map(|_| {
                let queue = Arc::clone(&queue);
                spawn(move || queue.pop().unwrap())
            })
            .collect();
        queue.push(1).unwrap();
        queue.push(2).unwrap();
        let mut got: Vec<_> = getters.into_iter().map(|getter| getter.join().unwrap()).collect();
        got.sort_unstable();
        assert_eq!(got, [1, 2]);
        assert!(queue.is_empty());
        assert_eq!(queue.waiters(), (0, 0));
    });
}

/// *Seeded*: `try_pop` taking from the back of a first-in queue.
#[test]
fn items_of_one_producer_arrive_in_order_through_a_bounded_queue() {
    check(3, || {
        let queue = Arc::new(Queue::bounded(2));
        let producer = Arc::clone(&queue);
        let producer = spawn(move || (1..4).for_each(|item| producer.push(item).unwrap()));
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Ok(1), Ok(2), Ok(3)]);
        producer.join().unwrap();
        assert_eq!(queue.waiters(), (0, 0));
    });
}

/// *Seeded*: the notification of room in `try_pop_as` left out; the putter not enrolled; a new key read in `push_until`
/// between the look and the wait.
#[test]
fn putters_at_a_full_queue_wait_and_are_woken_by_room() {
    check(2, || {
        let queue = Arc::new(Queue::bounded(1));
        queue.push(0).unwrap();
        let putters: Vec<_> = (1..3)
            .map(|item| {
                let queue = Arc::clone(&queue);
                spawn(move || queue.push(item).unwrap())
            })
            .collect();
        assert_eq!(queue.pop(), Ok(0));
        assert!(queue.len() <= 1);
        let mut got = [queue.pop().unwrap(), queue.pop().unwrap()];
        got.sort_unstable();
        assert_eq!(got, [1, 2]);
        for putter in putters {
            putter.join().unwrap();
        }
        assert_eq!(queue.waiters(), (0, 0));
    });
}

/// *Seeded*: `try_pop_many` telling one putter whatever it took.
#[test]
fn taking_two_at_once_makes_room_for_two() {
    check(2, || {
        let queue = Arc::new(Queue::bounded(2));
        queue.push(0).unwrap();
        queue.push(0).unwrap();
        let putters: Vec<_> = (1..3)
            .map(|item| {
                let queue = Arc::clone(&queue);
                spawn(move || queue.push(item).unwrap())
            })
            .collect();
        assert_eq!(queue.try_pop_many(2), Ok(vec![0, 0]));
        for putter in putters {
            putter.join().unwrap();
        }
        assert_eq!(queue.len(), 2);
    });
}

/// *Seeded*: `close` not notifying `items`, or waking one only.
#[test]
fn shutting_down_frees_all_getters() {
    check(2, || {
        let queue = Arc::new(Queue::<usize>::unbounded());
        let getters: Vec<_> = (0..2)
            .map(|_| {
                let queue = Arc::clone(&queue);
                spawn(move || assert_eq!(queue.pop(), Err(PopError::Closed)))
            })
            .collect();
        assert!(queue.close(false).is_empty());
        for getter in getters {
            getter.join().unwrap();
        }
        assert_eq!(queue.waiters(), (0, 0));
    });
}

/// *Seeded*: `try_pop_as` refusing when the queue is closed, before it looks for an item.
#[test]
fn what_was_put_before_shutting_down_is_given_out_and_nothing_after() {
    check(3, || {
        let queue = Arc::new(Queue::unbounded());
        let getter = Arc::clone(&queue);
        let getter = spawn(move || (getter.pop(), getter.pop()));
        let putter = Arc::clone(&queue);
        let putter = spawn(move || putter.push(1));
        assert!(queue.close(false).is_empty());
        let expected = match putter.join().unwrap() {
            Ok(()) => (Ok(1), Err(PopError::Closed)),
            Err(refused) => {
                assert_eq!(refused, PushError::Closed(1));
                (Err(PopError::Closed), Err(PopError::Closed))
            }
        };
        assert_eq!(getter.join().unwrap(), expected);
    });
}

/// *Seeded*: `close` not notifying `room`, or waking one only.
#[test]
fn shutting_down_frees_all_putters_and_gives_their_items_back() {
    check(2, || {
        let queue = Arc::new(Queue::bounded(1));
        queue.push(0).unwrap();
        let putters: Vec<_> = (1..3)
            .map(|item| {
                let queue = Arc::clone(&queue);
                spawn(move || assert_eq!(queue.push(item), Err(PushError::Closed(item))))
            })
            .collect();
        assert!(queue.close(false).is_empty());
        for putter in putters {
            putter.join().unwrap();
        }
        assert_eq!(queue.close(true), [0]);
        assert_eq!(queue.unfinished(), 0);
    });
}

/// The last look of `pop_until` leaves nothing to pass on, so this waits as a host does that does not look again.
/// *Seeded*: passing on in `retire_getter` left out.
#[test]
fn a_getter_that_gives_up_leaves_the_item_to_the_other() {
    for (at, stop) in ways_to_leave() {
        check(2, move || {
            let queue = Arc::new(Queue::unbounded());
            let stays = Arc::clone(&queue);
            let stays = spawn(move || stays.pop().unwrap());
            let leaves = Arc::clone(&queue);
            let leaves = spawn(move || {
                let mut key = leaves.enroll_getter();
                let host = Leaves::at(at, stop);
                let mut parking = parking(Kind::QueueGet, &*leaves, &host);
                loop {
                    if let Ok(item) = leaves.try_pop() {
                        leaves.retire_getter(true);
                        return leaves.push(item).unwrap();
                    }
                    if leaves.wait_item(key, &mut parking).is_err() {
                        leaves.retire_getter(false);
                        return;
                    }
                    key = leaves.item_key();
                }
            });
            queue.push(1).unwrap();
            assert_eq!(stays.join().unwrap(), 1);
            // One more for the other, should it still wait.
            queue.push(2).unwrap();
            leaves.join().unwrap();
            assert_eq!(queue.waiters(), (0, 0));
        });
    }
}

/// *Seeded*: passing on in `retire_putter` left out.
#[test]
fn a_putter_that_gives_up_leaves_the_room_to_the_other() {
    for (at, stop) in ways_to_leave() {
        check(2, move || {
            let queue = Arc::new(Queue::bounded(1));
            queue.push(0).unwrap();
            let stays = Arc::clone(&queue);
            let stays = spawn(move || stays.push(1).unwrap());
            let leaves = Arc::clone(&queue);
            let leaves = spawn(move || {
                let mut key = leaves.enroll_putter();
                let host = Leaves::at(at, stop);
                let mut parking = parking(Kind::QueuePut, &*leaves, &host);
                loop {
                    if leaves.check_room().is_ok() {
                        // Does not use it: a host that fails to make its item.
                        leaves.retire_putter(false);
                        return;
                    }
                    if leaves.wait_room(key, &mut parking).is_err() {
                        leaves.retire_putter(false);
                        return;
                    }
                    key = leaves.room_key();
                }
            });
            assert_eq!(queue.pop(), Ok(0));
            assert_eq!(queue.pop(), Ok(1));
            stays.join().unwrap();
            leaves.join().unwrap();
            assert_eq!(queue.waiters(), (0, 0));
        });
    }
}

/// *Seeded*: the last look in `pop_until` after a stop left out (an item is left although a getter came first).
#[test]
fn a_pop_that_is_stopped_takes_the_item_or_leaves_it_for_another() {
    for (at, stop) in ways_to_leave() {
        check(3, move || {
            let queue = Arc::new(Queue::unbounded());
            let getter = Arc::clone(&queue);
            let getter = spawn(move || getter.pop_until(Deadline::NEVER, &Leaves::at(at, stop)));
            queue.push(1).unwrap();
            let got = getter.join().unwrap();
            let left = queue.try_pop();
            match got {
                Ok(item) => assert_eq!((item, left), (1, Err(PopError::Empty))),
                Err(reason) => {
                    let expected = if stop == Stop::Interrupted { PopError::Interrupted } else { PopError::Empty };
                    assert_eq!((reason, left), (expected, Ok(1)));
                    // Woken (an odd time), the item was there: it must not be refused.
                    assert!(at % 2 == 0);
                }
            }
        });
    }
}

/// *Seeded*: `task_done` not notifying; the joiner not enrolled.
#[test]
fn a_join_ends_with_the_last_task_done() {
    check(3, || {
        let queue = Arc::new(Queue::unbounded());
        queue.push(1).unwrap();
        queue.push(2).unwrap();
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let queue = Arc::clone(&queue);
                spawn(move || {
                    queue.try_pop().unwrap();
                    assert!(queue.task_done());
                })
            })
            .collect();
        if let Some(mut key) = queue.enroll_joiner() {
            let mut parking = parking(Kind::QueueJoin, &*queue, &Alone);
            while queue.unfinished() > 0 {
                queue.wait_done(key, &mut parking).unwrap();
                key = queue.done_key();
            }
            queue.retire_joiner();
        }
        assert!(queue.is_empty());
        assert!(!queue.task_done());
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

/// *Seeded*: `seal` not notifying `items`, or `done`.
#[test]
fn sealing_frees_getters_and_joiners() {
    check(2, || {
        let queue = Arc::new(Queue::unbounded());
        queue.push(1).unwrap();
        assert_eq!(queue.try_pop(), Ok(1));
        let getter = Arc::clone(&queue);
        let getter = spawn(move || assert_eq!(getter.pop(), Err(PopError::Sealed)));
        let joiner = Arc::clone(&queue);
        let joiner = spawn(move || {
            let Some(mut key) = joiner.enroll_joiner() else { return };
            let mut parking = parking(Kind::QueueJoin, &*joiner, &Alone);
            while joiner.unfinished() > 0 && !joiner.is_sealed() {
                joiner.wait_done(key, &mut parking).unwrap();
                key = joiner.done_key();
            }
            joiner.retire_joiner();
        });
        assert_eq!(queue.seal(), (vec![], 1, false));
        getter.join().unwrap();
        joiner.join().unwrap();
    });
}
