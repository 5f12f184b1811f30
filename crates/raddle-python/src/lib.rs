//! `raddle._raddle`: the core's types as Python's. Converts, detaches, maps errors; no algorithms.
//!
//! One file per kind of type; `native.rs` is their common layout, `gil.rs` the only place that lets go of the
//! interpreter, `error.rs` where results and panics become exceptions, `observe.rs` the bridge to reports.
// FFI is what this crate is for; every block says why it is sound.
#![allow(unsafe_code, missing_docs)]

mod args;
mod barrier;
mod cancel;
mod channel;
mod condition;
mod context;
mod error;
mod event;
mod exact;
mod future;
mod gil;
mod lock;
mod message;
mod named;
mod native;
mod observe;
mod plain;
mod pool;
mod queue;
mod reference;
mod sched;
mod select;
mod semaphore;
mod semlock;
mod serve;
mod site;
mod special;
mod tasks;
mod thread;
mod timer;
mod types;
mod watch;
mod workers;

use pyo3::ffi;
use pyo3::prelude::*;
use raddle::trace::{ORDER, SITES, TIMEOUTS};
use types::Slot;

/// The core of raddle. Private: use `raddle.threading`, `raddle.queue`, `raddle.sched`, `raddle.deadlock`.
#[pymodule(gil_used = false)]
mod _raddle {
    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        // SAFETY: attached. PyO3 refuses other interpreters from 3.12 on; the types are the process's on all.
        if unsafe { ffi::PyInterpreterState_Get() != ffi::PyInterpreterState_Main() } {
            return Err(pyo3::exceptions::PyImportError::new_err(
                "raddle works in the main interpreter only: its types cannot be shared with a sub-interpreter",
            ));
        }
        let main = py.import("threading")?.call_method0("main_thread")?;
        gil::set_main_thread(main.getattr("ident")?.extract::<usize>()?);
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        let module = module.as_any();
        lock::add(module)?;
        types::add::<condition::PyCondition>(module, Slot::Condition)?;
        semaphore::add(module)?;
        types::add::<raddle::sync::Event>(module, Slot::Event)?;
        types::add::<barrier::PyBarrier>(module, Slot::Barrier)?;
        types::add::<thread::PyRecord>(module, Slot::ThreadRecord)?;
        queue::add(module)?;
        sched::add(module)?;
        types::add::<cancel::PyToken>(module, Slot::Token)?;
        pool::add(module)?;
        select::add(module)?;
        semlock::add(module)?;
        let module = module.cast::<PyModule>()?;
        module.add_class::<channel::PyChannel>()?;
        module.add_class::<message::PyMessage>()?;
        module.add_class::<tasks::PyTask>()?;
        module.add_class::<workers::PyWorkers>()?;
        module.add_class::<serve::PyServer>()?;
        Ok(())
    }

    #[pymodule_export]
    use super::channel::{channel_event, channel_memory, wait_readable};
    #[pymodule_export]
    use super::plain::{plain_dumps, plain_loads};
    #[pymodule_export]
    use super::semlock::{set_describe, set_on_recovered};
    #[pymodule_export]
    use super::tasks::{pickle_task, set_pickling};
    #[pymodule_export]
    use super::workers::{task_name, worker_stop_signal};

    /// Says which files (by the beginnings of their paths) stand for whoever called them, and checks that call
    /// sites can be read fast; whether they can.
    #[pyfunction]
    fn setup(py: Python<'_>, own: Vec<String>) -> bool {
        // The importing thread has a record from now on: what it takes before it first waits counts as its own.
        drop(raddle::trace::thread::Thread::current());
        site::set_own(own);
        context::check(py);
        site::check(py)
    }

    /// Before a fork: idle threads of the operating system end, and that of timers if there are none; threads that
    /// begin a run get as far as Python, and others wait until the fork is over.
    ///
    /// From 3.12 on the interpreter counts them, and warns if the process has more than one.
    #[pyfunction]
    fn before_fork() {
        gil::PyHost::unending().detached(|| {
            timer::retire();
            raddle::thread::retire();
            gil::wait_for_arrivals();
            gil::keep_threads_out();
        });
    }

    /// After a fork, in the parent.
    #[pyfunction]
    fn after_fork_in_parent() {
        gil::let_threads_in();
        raddle::thread::resume();
    }

    /// The records of threads that keep the process alive.
    #[pyfunction]
    fn keepers(py: Python<'_>) -> PyResult<Bound<'_, pyo3::types::PyList>> {
        thread::keepers(py)
    }

    /// Whether one of them has run and is not through with what it leaves.
    #[pyfunction]
    fn keeper_is_leaving() -> bool {
        thread::is_leaving()
    }

    /// How many threads that raddle has started run Python.
    #[pyfunction]
    fn threads_running() -> usize {
        gil::running()
    }

    /// How many threads of the operating system are idle.
    #[pyfunction]
    fn threads_idle() -> usize {
        raddle::thread::idle()
    }

    /// In a forked child: only the calling thread is left.
    #[pyfunction]
    fn after_fork_in_child() {
        raddle::park::after_fork_in_child();
        raddle::thread::after_fork_in_child();
        gil::forget_threads();
        observe::after_fork_in_child();
        thread::after_fork_in_child();
        timer::after_fork_in_child();
        pool::after_fork_in_child();
        gil::set_main_thread(raddle::primitive::thread_token());
    }

    /// Sets the functions that reports go to.
    #[pyfunction]
    fn set_reporters(reporters: observe::Reporters) {
        observe::set_reporters(reporters);
    }

    /// Turns recording on or off: acquire sites, lock order, time-outs.
    #[pyfunction]
    fn record(sites: bool, order: bool, timeouts: bool) {
        for (on, bit) in [(sites, SITES), (order, ORDER), (timeouts, TIMEOUTS)] {
            if on { raddle::trace::turn_on(bit) } else { raddle::trace::turn_off(bit) }
        }
    }

    /// Where the calling Python code is, as `(file, line, function)`, or None.
    #[pyfunction]
    fn here(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        observe::place(py, site::here())
    }

    /// Every deadlock there is now: `[(proven, parties), ...]`.
    #[pyfunction]
    fn deadlocks(py: Python<'_>) -> PyResult<Bound<'_, pyo3::types::PyList>> {
        observe::deadlocks(py)
    }

    /// What every known thread does: `{ident: (kind, object, since, timed) | None}`.
    #[pyfunction]
    fn threads(py: Python<'_>) -> PyResult<Bound<'_, pyo3::types::PyDict>> {
        observe::threads(py)
    }

    /// What is held: `[(ident, object, site), ...]`; the ident is 0 for a thread that has ended.
    #[pyfunction]
    fn holds(py: Python<'_>) -> PyResult<Bound<'_, pyo3::types::PyList>> {
        observe::holds(py)
    }

    /// Adds a timer that is due in this many seconds: its `_fire()` is called. A number that cancels it.
    #[pyfunction]
    fn timer_add(timer: Bound<'_, PyAny>, seconds: f64) -> PyResult<u64> {
        timer::add(&timer, seconds)
    }

    /// Takes a timer out; False if it has fired or was taken out before.
    #[pyfunction]
    fn timer_cancel(ticket: u64) -> bool {
        timer::cancel(ticket)
    }

    /// Whether a timer is still to come.
    #[pyfunction]
    fn timer_is_pending(ticket: u64) -> bool {
        timer::is_pending(ticket)
    }

    /// Lets another thread have the interpreter and the core.
    #[pyfunction]
    fn yield_now() {
        gil::PyHost::unending().detached(raddle::primitive::yield_now);
    }

    /// Whether a timer is due and has not got its thread yet.
    #[pyfunction]
    fn timer_is_serving() -> bool {
        timer::is_serving()
    }

    /// How many timers are to come.
    #[pyfunction]
    fn timer_count() -> usize {
        timer::count()
    }

    /// The timers to come, in no order.
    #[pyfunction]
    fn timers(py: Python<'_>) -> PyResult<Bound<'_, pyo3::types::PyList>> {
        timer::pending(py)
    }

    /// Takes all timers out.
    #[pyfunction]
    fn timer_close() {
        timer::close();
    }

    /// Says which exceptions queues raise, and which module serves open ones.
    #[pyfunction]
    fn set_queue_names(empty: Py<PyAny>, full: Py<PyAny>, shut_down: Py<PyAny>, open: Py<PyModule>) {
        queue::set_names(empty, full, shut_down, open);
    }

    /// Says which type pools make futures of, which exceptions to raise, and who is told of errors.
    #[pyfunction]
    fn set_future_names(
        py: Python<'_>,
        future: Py<PyAny>,
        cancelled: Py<PyAny>,
        invalid: Py<PyAny>,
        callback_failed: Py<PyAny>,
        lost: Py<PyAny>,
    ) -> PyResult<()> {
        exact::adopt(future.bind(py))?;
        future::set_names(cancelled, invalid, callback_failed, lost);
        Ok(())
    }

    /// Says what is raised in a task that is to stop.
    #[pyfunction]
    fn set_cancel_names(cancelled: Py<PyAny>, late: Py<PyAny>) {
        cancel::set_names(cancelled, late);
    }

    /// Waits for a set of futures, from which it takes those that are not over: they are returned.
    #[pyfunction]
    fn futures_wait<'py>(
        py: Python<'py>,
        futures: Bound<'py, pyo3::types::PySet>,
        timeout: Option<Bound<'py, PyAny>>,
        return_when: &str,
    ) -> PyResult<Bound<'py, pyo3::types::PySet>> {
        select::wait(py, &futures, timeout.as_ref(), return_when)
    }

    /// Gives the futures of a set as they come to their end; the set becomes the iterator's.
    #[pyfunction]
    fn futures_as_completed<'py>(
        py: Python<'py>,
        futures: Bound<'py, PyAny>,
        timeout: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        select::as_completed(py, &futures, timeout.as_ref())
    }

    /// The results of futures in their order, a new one fetched by `feed()` for each that is taken.
    #[pyfunction]
    fn futures_results<'py>(
        py: Python<'py>,
        futures: Vec<Bound<'py, PyAny>>,
        timeout: Option<Bound<'py, PyAny>>,
        feed: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let futures: Vec<_> = futures.into_iter().map(Into::into).collect();
        let deadline = raddle::park::Deadline::at(cancel::deadline_of(timeout.as_ref())?);
        select::results(py, futures, deadline, Some(&feed))
    }

    /// Runs the task of a future that `Line.take` gave, in the calling thread.
    #[pyfunction]
    fn run_taken(py: Python<'_>, future: Bound<'_, PyAny>) -> PyResult<()> {
        pool::run_taken(py, &future)
    }

    /// Ends a future that `Line.take` gave: with an exception, or without one as cancelled.
    #[pyfunction]
    fn end_taken(py: Python<'_>, future: Bound<'_, PyAny>, error: Option<Py<PyAny>>) -> PyResult<()> {
        pool::end_taken(py, &future, error)
    }

    /// Logs the exceptions of tasks that nobody has looked at, at exit.
    #[pyfunction]
    fn tell_unseen(py: Python<'_>) {
        pool::tell_unseen(py);
    }

    /// The token of the task that the calling thread runs, or None.
    #[pyfunction]
    fn cancel_current(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        cancel::current(py)
    }

    /// Raises if the calling thread runs a task that is to stop.
    #[pyfunction]
    fn cancel_check(py: Python<'_>) -> PyResult<()> {
        cancel::check(py)
    }

    /// Sleeps for some seconds; a task that is to stop is raised in.
    #[pyfunction]
    fn cancel_sleep(py: Python<'_>, seconds: Bound<'_, PyAny>) -> PyResult<()> {
        cancel::sleep(py, &seconds)
    }
}
