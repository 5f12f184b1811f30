//! Attached and detached: the only file that lets go of the interpreter and takes it back.
//!
//! Everything here is called attached unless it says otherwise. Two rules hold throughout the crate:
//! the interpreter is let go of only around the core's door, and no core lock is held while Python runs.

use pyo3::ffi;
use raddle::park::{Host, Look, Stop};
use raddle::primitive::thread_token;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The token of the thread that handles signals.
static MAIN: AtomicUsize = AtomicUsize::new(0);

/// Says which thread handles signals: at import, and in a forked child.
pub(crate) fn set_main_thread(token: usize) {
    MAIN.store(token, Ordering::Relaxed);
}

/// Whether the calling thread handles signals.
pub(crate) fn is_main_thread() -> bool {
    MAIN.load(Ordering::Relaxed) == thread_token()
}

/// Stops a thread that the interpreter unwinds out of its frames, for ever.
///
/// At exit, CPython before 3.14 ends a daemon thread that wants to run Python by `pthread_exit`, which
/// unwinds through whatever called it. Rust frames may not be unwound like that: the thread sleeps here until
/// the process ends, as 3.14 does by itself.
struct Hang;

impl Drop for Hang {
    fn drop(&mut self) {
        loop {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        }
    }
}

/// Calls into the interpreter where that may run Python code, and so may end the thread.
#[inline]
pub(crate) fn python<R>(call: impl FnOnce() -> R) -> R {
    let hang = Hang;
    let result = call();
    std::mem::forget(hang);
    result
}

/// Takes the interpreter back, whatever happens in between.
struct Attach(*mut ffi::PyThreadState);

impl Drop for Attach {
    fn drop(&mut self) {
        // SAFETY: the state came from PyEval_SaveThread in this thread, which is detached now.
        python(|| unsafe { ffi::PyEval_RestoreThread(self.0) });
    }
}

/// A thread that waits, as the core sees it.
pub(crate) struct PyHost {
    state: Cell<*mut ffi::PyThreadState>,
    /// Whether an exception may end this wait.
    raises: bool,
    is_main: bool,
    pub(crate) found: crate::observe::Found,
}

impl PyHost {
    /// For a wait that signals and deadlock errors may end.
    pub(crate) fn new() -> Self {
        Self::with(true)
    }

    /// For a wait that must succeed: taking a condition's lock back.
    pub(crate) fn unending() -> Self {
        Self::with(false)
    }

    fn with(raises: bool) -> Self {
        let found = crate::observe::Found::default();
        Self { state: Cell::new(std::ptr::null_mut()), raises, is_main: raises && is_main_thread(), found }
    }

    /// Runs `wait` without the interpreter.
    pub(crate) fn detached<R>(&self, wait: impl FnOnce() -> R) -> R {
        // SAFETY: the caller is attached.
        self.state.set(unsafe { ffi::PyEval_SaveThread() });
        let _attach = AttachCell(&self.state);
        wait()
    }

    /// Runs `work` with the interpreter, from inside `detached`.
    pub(crate) fn attached<R>(&self, work: impl FnOnce() -> R) -> R {
        struct Detach<'a>(&'a Cell<*mut ffi::PyThreadState>);
        impl Drop for Detach<'_> {
            fn drop(&mut self) {
                // SAFETY: attached since the lines below.
                self.0.set(unsafe { ffi::PyEval_SaveThread() });
            }
        }
        drop(Attach(self.state.get()));
        let _detach = Detach(&self.state);
        work()
    }

    /// Whether an exception may end this wait.
    pub(crate) fn raises(&self) -> bool {
        self.raises
    }
}

struct AttachCell<'a>(&'a Cell<*mut ffi::PyThreadState>);

impl Drop for AttachCell<'_> {
    fn drop(&mut self) {
        drop(Attach(self.0.get()));
    }
}

impl Host for PyHost {
    fn interrupted(&self) -> Result<(), Stop> {
        if !self.is_main {
            return Ok(());
        }
        // SAFETY: attached inside the closure.
        match self.attached(|| python(|| unsafe { ffi::PyErr_CheckSignals() })) {
            0 => Ok(()),
            _ => Err(Stop::Interrupted),
        }
    }

    fn look(&self, waited: u64) -> Result<Look, Stop> {
        crate::observe::look(self, waited)
    }

    fn takes_signals(&self) -> bool {
        self.is_main
    }
}
