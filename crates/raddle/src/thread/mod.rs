//! Threads of the operating system, kept for a while after their work: a start costs a wake-up, not a `clone`.
//!
//! A thread whose work has ended goes idle for up to [`IDLE`] and is given the next work ([`handover`]). To the
//! work nothing shows that it is not the thread's first: a record of its own ([`crate::trace::thread`]), the signal
//! mask of whoever starts it, and processors, scheduling and name as that one has them (`traits`), or else a new
//! thread; and a number in the kernel that no thread has which the host still knows. What is left of earlier work is what the core cannot see: thread-specific data of C
//! libraries, whose destructors run when the thread leaves, and anything a thread has set by bare system calls.
//!
//! An idle thread counts as none. It has no record that detectors see, all its signals are blocked, and it holds
//! nothing. Before a fork, [`retire`] ends all of them and waits until the kernel has forgotten them.
#![cfg_attr(raddle_loom, allow(unused_imports, reason = "only the protocol is modelled"))]

mod gate;
pub mod handover;
#[cfg(not(raddle_loom))]
mod traits;

pub use gate::{Gate, Inside};

#[cfg(not(raddle_loom))]
pub use cached::{IDLE, Job, MOST_IDLE, after_fork_in_child, idle, resume, retire, spawn};

#[cfg(not(raddle_loom))]
use crate::park::{Parking, Stop};
#[cfg(not(raddle_loom))]
use crate::primitive::Ordering;
#[cfg(not(raddle_loom))]
use crate::trace::thread::Thread;

/// Blocks until the thread has ended.
///
/// # Errors
/// [`Stop`].
#[cfg(not(raddle_loom))]
pub fn join(thread: &Thread, parking: &mut Parking<'_>) -> Result<(), Stop> {
    let (ended, joiners) = thread.end_to_wait_for();
    let is_over = || ended.load(Ordering::Acquire) != 0;
    while !is_over() {
        match parking.park(ended, 0, Some(joiners)) {
            Err(Stop::TimedOut) if is_over() => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(not(raddle_loom))]
mod cached {
    use super::handover::{Idle, Worker};
    use super::traits::{Mask, Traits, default_stack};
    use crate::park::{Alone, Deadline, generation, now};
    use crate::primitive::{thread_is_gone as is_gone, thread_number as number, yield_now};
    use crate::trace::thread::{Serving, Thread};
    use std::io;
    use std::sync::Arc;
    use std::time::Duration;

    /// How long a thread without work stays.
    pub const IDLE: Duration = Duration::from_secs(1);

    /// How many stay at most.
    pub const MOST_IDLE: usize = 32;

    /// How long [`retire`] waits for the kernel, in nanoseconds: by far longer than it ever takes.
    const KERNEL: u64 = 1_000_000_000;

    /// When so many have left, those that the kernel has forgotten are forgotten here.
    const MANY: usize = 64;

    /// What a thread does.
    pub type Job = Box<dyn FnOnce() + Send>;

    #[derive(Debug)]
    struct Start {
        record: Option<Arc<Thread>>,
        mask: Mask,
        job: Work,
    }

    struct Work(Job);

    impl std::fmt::Debug for Work {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Work")
        }
    }

    /// A thread as the list of the idle knows it.
    #[derive(Clone, Debug)]
    struct Tag {
        /// `None` for one that is not to be reused.
        traits: Option<Traits>,
        number: i32,
        /// What it ran last. As long as somebody has that thread, another with its number would be taken for it.
        last: Arc<Thread>,
    }

    static WORKERS: Idle<Tag, Start> = Idle::new(MOST_IDLE);

    /// Runs the work in another thread, as the thread of this record, or as nobody until it adopts one: in an idle
    /// thread or a new one. Never blocks.
    ///
    /// `stack` asks for a stack of this many bytes, and so for a new thread that will not be kept. The record is
    /// adopted before the work begins. The one that the thread has when the work is over is ended then: whoever joins
    /// it goes on.
    ///
    /// # Errors
    /// Why the operating system has no thread for it, and the work.
    pub fn spawn(record: Option<Arc<Thread>>, stack: Option<usize>, job: Job) -> Result<(), (io::Error, Job)> {
        let mut start = Start { record, mask: Mask::of_this_thread(), job: Work(job) };
        if stack.is_none() {
            let traits = Traits::of_this_thread();
            match WORKERS.hand(|tag| tag.last.is_forgotten() && tag.traits.is_some() && tag.traits == traits, start) {
                Ok(()) => return Ok(()),
                Err(back) => start = back,
            }
        }
        let worker = Arc::new(Worker::with(start));
        let own = Arc::clone(&worker);
        let thread = std::thread::Builder::new().stack_size(stack.unwrap_or_else(default_stack));
        match thread.spawn(move || serve(&own, stack.is_none())) {
            Ok(_) => Ok(()),
            Err(error) => match worker.take_back() {
                Some(start) => Err((error, start.job.0)),
                None => unreachable!("a thread that was not started has taken work"),
            },
        }
    }

    /// The life of a thread. `kept`: it may go idle.
    fn serve(worker: &Arc<Worker<Start>>, kept: bool) {
        let _serving = Serving::new();
        let unseen = Thread::unseen();
        unseen.stand_in();
        let born = generation();
        while let Some(Start { record, mask, job }) = WORKERS.next(worker, Deadline::after(IDLE), &Alone) {
            mask.set();
            if let Some(record) = record {
                record.adopt();
            }
            (job.0)();
            let record = Thread::current();
            unseen.stand_in();
            Mask::all().set();
            // On the list, or known to be leaving, before anybody learns that the work is over: who joins it may use
            // the thread at once, or send it away. In a forked child it is the last thread, and its end is the
            // process's.
            let kept = kept && generation() == born;
            let traits = if kept { Traits::of_this_thread() } else { None };
            let kept = traits.is_some();
            let tag = Tag { traits, number: number(), last: Arc::clone(&record) };
            let stays = WORKERS.enter(worker, tag, kept);
            record.end();
            if !stays {
                break;
            }
        }
        let mut left = WORKERS.left(MANY);
        left.retain(|tag| !is_gone(tag.number));
        WORKERS.remember(left);
    }

    /// How many threads are idle.
    pub fn idle() -> usize {
        WORKERS.count()
    }

    /// Ends all idle threads, waits until the kernel has forgotten them and those that ended before, and keeps
    /// none until [`resume`]. To be called before a fork; tens of microseconds for each.
    pub fn retire() {
        WORKERS.close();
        let mut left = WORKERS.left(0);
        let end = now() + KERNEL;
        while !left.is_empty() && now() < end {
            left.retain(|tag| !is_gone(tag.number));
            yield_now();
        }
    }

    /// After a fork, in the parent: threads are kept again.
    pub fn resume() {
        WORKERS.open();
    }

    /// In a forked child: none of the threads exists.
    pub fn after_fork_in_child() {
        WORKERS.after_fork_in_child();
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::sync::Event;
        use std::sync::Mutex;
        use std::sync::atomic::{AtomicUsize, Ordering};

        /// The idle threads are the process's, and the tests share it.
        static ALONE: Mutex<()> = Mutex::new(());

        fn alone() -> std::sync::MutexGuard<'static, ()> {
            let guard = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            retire();
            resume();
            guard
        }

        fn join(record: &Thread) {
            let mut parking = crate::park::Parking::new(crate::trace::Kind::Join, record, 0, Deadline::NEVER, &Alone);
            super::super::join(record, &mut parking).unwrap();
        }

        /// Runs the work to its end; the kernel's number of the thread.
        fn run(stack: Option<usize>, work: impl FnOnce() + Send + 'static) -> i32 {
            static NUMBER: AtomicUsize = AtomicUsize::new(0);
            let record = Thread::new();
            let job = Box::new(move || {
                NUMBER.store(number() as usize, Ordering::SeqCst);
                work();
            });
            spawn(Some(Arc::clone(&record)), stack, job).map_err(|(error, _)| error).unwrap();
            join(&record);
            record.forget();
            NUMBER.load(Ordering::SeqCst) as i32
        }

        #[test]
        fn a_thread_that_is_joined_is_there_for_the_next() {
            let _alone = alone();
            let first = run(None, || {});
            for _ in 0..1000 {
                assert_eq!(run(None, || {}), first);
            }
            assert_eq!(idle(), 1);
        }

        #[test]
        fn each_run_has_its_record() {
            let _alone = alone();
            let (sender, receiver) = std::sync::mpsc::channel();
            let records: Vec<_> = (0..2).map(|_| Thread::new()).collect();
            for record in &records {
                let sender = sender.clone();
                let job = Box::new(move || sender.send(Thread::current().id()).unwrap());
                assert!(spawn(Some(Arc::clone(record)), None, job).is_ok());
                join(record);
                assert_eq!(record.life(), crate::trace::thread::Life::Dead);
                assert_eq!(receiver.recv().unwrap(), record.id());
            }
            // An idle thread is nobody that a detector sees.
            assert!(crate::trace::thread::all().iter().all(|thread| thread.token() != records[1].token()));
        }

        #[test]
        fn retired_threads_are_gone_and_none_is_kept_until_resume() {
            let _alone = alone();
            static GATE: Event = Event::new();
            let records: Vec<_> = (0..4).map(|_| Thread::new()).collect();
            for record in &records {
                assert!(spawn(Some(Arc::clone(record)), None, Box::new(|| GATE.wait())).is_ok());
            }
            GATE.set();
            records.iter().for_each(|record| join(record));
            let first = run(None, || {});
            assert!(idle() >= 4);
            retire();
            assert!(is_gone(first));
            assert_eq!(idle(), 0);
            let second = run(None, || {});
            assert_eq!(idle(), 0);
            resume();
            assert_ne!(run(None, || {}), second);
            assert_eq!(idle(), 1);
        }

        #[test]
        fn a_thread_that_somebody_still_knows_is_not_used_again() {
            let _alone = alone();
            let records: Vec<_> = (0..3).map(|_| Thread::new()).collect();
            for (at, record) in records.iter().enumerate() {
                assert!(spawn(Some(Arc::clone(record)), None, Box::new(|| {})).is_ok());
                join(record);
                assert_eq!(idle(), at + 1);
            }
            records.iter().for_each(|record| record.forget());
            run(None, || {});
            assert_eq!(idle(), 3);
        }

        #[test]
        fn a_stack_of_a_size_of_its_own_is_not_kept() {
            let _alone = alone();
            run(Some(512 * 1024), || {});
            assert_eq!(idle(), 0);
        }

        #[test]
        fn a_thread_that_was_changed_is_not_given_to_a_starter_that_was_not() {
            let _alone = alone();
            // SAFETY: a valid name, and a niceness that any process may take on.
            #[allow(unsafe_code, reason = "what a program may do to its thread")]
            let changes: [fn(); 2] = [
                || unsafe {
                    libc::prctl(libc::PR_SET_NAME, c"changed".as_ptr());
                },
                || unsafe {
                    libc::setpriority(libc::PRIO_PROCESS, 0, 7);
                },
            ];
            for change in changes {
                let changed = run(None, change);
                assert_ne!(run(None, || {}), changed);
            }
        }

        #[test]
        fn a_thread_has_the_signal_mask_of_its_starter() {
            #[allow(unsafe_code, reason = "the test changes its own mask")]
            fn blocks(signal: i32) -> bool {
                // SAFETY: the set is valid, and only read.
                unsafe {
                    let mut mask = std::mem::zeroed();
                    libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut mask);
                    libc::sigismember(&raw const mask, signal) == 1
                }
            }
            let _alone = alone();
            let first = run(None, || assert!(!blocks(libc::SIGUSR1)));
            let before = Mask::of_this_thread();
            Mask::all().set();
            let second = run(None, || assert!(blocks(libc::SIGUSR1)));
            before.set();
            let third = run(None, || assert!(!blocks(libc::SIGUSR1)));
            assert_eq!((first, first), (second, third));
        }
    }
}
