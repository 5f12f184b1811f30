//! Attached and detached: the only file that lets go of the interpreter and takes it back.
//!
//! Everything here is called attached unless it says otherwise. Two rules hold throughout the crate:
//! the interpreter is let go of only around the core's door, and no core lock is held while Python runs.

use pyo3::types::PyString;
use pyo3::{Bound, Py, PyAny, PyErr, PyResult, Python, ffi};
use raddle::park::{Alone, Deadline, Host, Look, Parking, Signal, Stop, now};
use raddle::primitive::thread_token;
use raddle::thread::Gate;
use raddle::trace::thread::Thread;
use raddle::trace::{Claim, Kind, Resource, Waker};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The token of the thread that handles signals.
static MAIN: AtomicUsize = AtomicUsize::new(0);

/// Says which thread handles signals: at import, and in a forked child.
pub(crate) fn set_main_thread(token: usize) {
    MAIN.store(token, Ordering::Relaxed);
}

/// Whether the calling thread handles signals.
pub(crate) fn is_main_thread() -> bool {
    is_main(thread_token())
}

/// Whether the thread with this token does.
pub(crate) fn is_main(token: usize) -> bool {
    MAIN.load(Ordering::Relaxed) == token
}

/// The memory in which threads sleep that wait for the GIL: the interpreter's static state, where it is for the main
/// interpreter. `None` if this build has no GIL.
pub(crate) fn memory() -> Option<Range<usize>> {
    if cfg!(Py_GIL_DISABLED) {
        return None;
    }
    static FOUND: OnceLock<Range<usize>> = OnceLock::new();
    Some(FOUND.get_or_init(find_memory).clone())
}

/// Where the C library does not tell how large a symbol is, the first byte: nobody will be seen to wait for it.
fn find_memory() -> Range<usize> {
    unsafe extern "C" {
        static _PyRuntime: u8;
    }
    let start = &raw const _PyRuntime;
    #[cfg(target_env = "gnu")]
    {
        const RTLD_DL_SYMENT: std::ffi::c_int = 1;
        let (mut info, mut symbol) = (MaybeUninit::<libc::Dl_info>::uninit(), std::ptr::null::<libc::Elf64_Sym>());
        // SAFETY: `start` is in a loaded object; both places are valid for writes, and the entry, if there is one,
        // belongs to that object, which is never unloaded.
        let size = unsafe {
            let found = libc::dladdr1(start.cast(), info.as_mut_ptr(), (&raw mut symbol).cast(), RTLD_DL_SYMENT);
            if found != 0 { symbol.as_ref().map(|symbol| symbol.st_size as usize) } else { None }
        };
        if let Some(size) = size {
            return start.addr()..start.addr() + size;
        }
    }
    start.addr()..start.addr() + 1
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

/// The interpreter's functions that may run Python code, declared so that an unwind may pass through the call.
///
/// Through a call declared `extern "C"`, as PyO3 declares them, it may not: the process would be aborted before
/// [`Hang`] stops the thread. So whatever may run foreign code from a thread of the program goes through the
/// functions below, and not through PyO3's methods.
mod unwinding {
    use pyo3::ffi::{PyObject, PyThreadState};
    use std::ffi::{c_char, c_int};

    unsafe extern "C-unwind" {
        pub(super) fn PyObject_Vectorcall(
            callable: *mut PyObject,
            args: *const *mut PyObject,
            count: usize,
            keywords: *mut PyObject,
        ) -> *mut PyObject;
        pub(super) fn PyObject_Call(
            callable: *mut PyObject,
            args: *mut PyObject,
            kwargs: *mut PyObject,
        ) -> *mut PyObject;
        pub(super) fn PyObject_GetAttr(object: *mut PyObject, name: *mut PyObject) -> *mut PyObject;
        pub(super) fn PyObject_RichCompareBool(a: *mut PyObject, b: *mut PyObject, operation: c_int) -> c_int;
        pub(super) fn PyObject_RichCompare(a: *mut PyObject, b: *mut PyObject, operation: c_int) -> *mut PyObject;
        pub(super) fn PyNumber_Add(a: *mut PyObject, b: *mut PyObject) -> *mut PyObject;
        pub(super) fn PyNumber_Subtract(a: *mut PyObject, b: *mut PyObject) -> *mut PyObject;
        pub(super) fn PyObject_IsTrue(object: *mut PyObject) -> c_int;
        pub(super) fn PyObject_GetIter(object: *mut PyObject) -> *mut PyObject;
        pub(super) fn PyIter_Next(iterator: *mut PyObject) -> *mut PyObject;
        pub(super) fn PyErr_CheckSignals() -> c_int;
        pub(super) fn PyObject_ClearWeakRefs(object: *mut PyObject);
        pub(super) fn PyObject_CallFinalizerFromDealloc(object: *mut PyObject) -> c_int;
        pub(super) fn Py_DecRef(object: *mut PyObject);
        pub(super) fn PyErr_WriteUnraisable(object: *mut PyObject);
        pub(super) fn PyThreadState_Clear(state: *mut PyThreadState);
        #[cfg(not(Py_3_13))]
        pub(super) fn _PyErr_WriteUnraisableMsg(message: *const c_char, object: *mut PyObject);
        #[cfg(Py_3_13)]
        pub(super) fn PyErr_FormatUnraisable(format: *const c_char, ...);
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

/// What a function gave: a new reference, or null for an exception.
#[inline]
pub(crate) fn owned<'py>(py: Python<'py>, result: *mut ffi::PyObject) -> PyResult<Bound<'py, PyAny>> {
    if result.is_null() {
        return Err(PyErr::fetch(py));
    }
    // SAFETY: a new reference.
    Ok(unsafe { Bound::from_owned_ptr(py, result) })
}

/// `callable(*args)`, of at most [`FEW`] arguments.
pub(crate) fn call<'py>(callable: &Bound<'py, PyAny>, args: &[&Bound<'py, PyAny>]) -> PyResult<Bound<'py, PyAny>> {
    owned(callable.py(), call_plain(callable, args))
}

/// The same, for [`owned`].
#[inline]
pub(crate) fn call_plain<'py>(callable: &Bound<'py, PyAny>, args: &[&Bound<'py, PyAny>]) -> *mut ffi::PyObject {
    // The first place is the callee's to use: a bound method puts its object there.
    let mut places = [std::ptr::null_mut(); FEW + 1];
    for (place, arg) in places[1..].iter_mut().zip(args) {
        *place = arg.as_ptr();
    }
    assert!(args.len() <= FEW, "a call with more arguments goes another way");
    let count = args.len() | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
    // SAFETY: live objects; attached. What may unwind owns nothing that matters: the thread never goes on.
    python(|| unsafe {
        unwinding::PyObject_Vectorcall(callable.as_ptr(), places[1..].as_ptr(), count, std::ptr::null_mut())
    })
}

/// The most arguments of [`call`] and [`method`].
const FEW: usize = 5;

/// `callable(*args)` with the arguments in a tuple, and a dict of keywords or none.
pub(crate) fn call_tuple<'py>(
    callable: &Bound<'py, PyAny>,
    args: &Bound<'py, PyAny>,
    kwargs: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let kwargs = kwargs.map_or(std::ptr::null_mut(), |kwargs| kwargs.as_ptr());
    // SAFETY: live objects of the right types; attached.
    let result = python(|| unsafe { unwinding::PyObject_Call(callable.as_ptr(), args.as_ptr(), kwargs) });
    owned(callable.py(), result)
}

/// A call with its arguments as they came.
///
/// # Safety
/// The arguments are those of a fast call.
pub(crate) unsafe fn call_raw<'py>(
    callable: &Bound<'py, PyAny>,
    args: *const *mut ffi::PyObject,
    count: usize,
    keywords: *mut ffi::PyObject,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the caller's.
    owned(callable.py(), unsafe { call_raw_plain(callable, args, count, keywords) })
}

/// The same, for [`owned`].
///
/// # Safety
/// As [`call_raw`].
#[inline]
pub(crate) unsafe fn call_raw_plain(
    callable: &Bound<'_, PyAny>,
    args: *const *mut ffi::PyObject,
    count: usize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the caller's; attached.
    python(|| unsafe { unwinding::PyObject_Vectorcall(callable.as_ptr(), args, count, keywords) })
}

/// `object.name`.
pub(crate) fn attribute<'py>(object: &Bound<'py, PyAny>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    attribute_of(object, &PyString::intern(object.py(), name))
}

/// `object.name`, of an interned name.
pub(crate) fn attribute_of<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: live objects; attached.
    let result = python(|| unsafe { unwinding::PyObject_GetAttr(object.as_ptr(), name.as_ptr()) });
    owned(object.py(), result)
}

/// `object.name(*args)`.
pub(crate) fn method<'py>(
    object: &Bound<'py, PyAny>,
    name: &str,
    args: &[&Bound<'py, PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    call(&attribute(object, name)?, args)
}

/// `bool(object)`.
pub(crate) fn truth(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    // SAFETY: a live object; attached.
    match python(|| unsafe { unwinding::PyObject_IsTrue(object.as_ptr()) }) {
        -1 => Err(PyErr::fetch(object.py())),
        answer => Ok(answer == 1),
    }
}

/// `a < b`, `a == b` and so on, by identity first where that decides.
pub(crate) fn compare(
    py: Python<'_>,
    a: *mut ffi::PyObject,
    b: *mut ffi::PyObject,
    operation: std::ffi::c_int,
) -> PyResult<bool> {
    // SAFETY: the callers pass live objects; attached.
    match python(|| unsafe { unwinding::PyObject_RichCompareBool(a, b, operation) }) {
        -1 => Err(PyErr::fetch(py)),
        answer => Ok(answer == 1),
    }
}

/// `bool(a > b)`.
pub(crate) fn greater(a: &Bound<'_, PyAny>, b: &Bound<'_, PyAny>) -> PyResult<bool> {
    // SAFETY: live objects; attached.
    let answer = python(|| unsafe { unwinding::PyObject_RichCompare(a.as_ptr(), b.as_ptr(), ffi::Py_GT) });
    truth(&owned(a.py(), answer)?)
}

/// `a + b`.
pub(crate) fn add<'py>(a: &Bound<'py, PyAny>, b: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: live objects; attached.
    owned(a.py(), python(|| unsafe { unwinding::PyNumber_Add(a.as_ptr(), b.as_ptr()) }))
}

/// `a - b`.
pub(crate) fn subtract<'py>(a: &Bound<'py, PyAny>, b: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: live objects; attached.
    owned(a.py(), python(|| unsafe { unwinding::PyNumber_Subtract(a.as_ptr(), b.as_ptr()) }))
}

/// Handles signals that have come in.
pub(crate) fn check_signals(py: Python<'_>) -> PyResult<()> {
    // SAFETY: attached.
    match python(|| unsafe { unwinding::PyErr_CheckSignals() }) {
        0 => Ok(()),
        _ => Err(PyErr::fetch(py)),
    }
}

/// `iter(object)`.
pub(crate) fn iterate<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: a live object; attached.
    let result = python(|| unsafe { unwinding::PyObject_GetIter(object.as_ptr()) });
    owned(object.py(), result)
}

/// The next item of an iterator; `None` at its end.
pub(crate) fn next<'py>(iterator: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    // SAFETY: a live iterator; attached.
    let result = python(|| unsafe { unwinding::PyIter_Next(iterator.as_ptr()) });
    // SAFETY: attached.
    if result.is_null() && unsafe { ffi::PyErr_Occurred() }.is_null() {
        return Ok(None);
    }
    owned(iterator.py(), result).map(Some)
}

/// Gives back a reference, which may run a finalizer.
///
/// # Safety
/// The caller owns the reference (null: none), and is attached.
#[inline]
pub(crate) unsafe fn decref(object: *mut ffi::PyObject) {
    // SAFETY: the caller's; the reference is not the last, so nothing is freed.
    unsafe {
        if !cfg!(Py_GIL_DISABLED) && !object.is_null() && ffi::Py_REFCNT(object) > 1 {
            return ffi::Py_DECREF(object);
        }
    }
    // SAFETY: the caller's.
    python(|| unsafe { unwinding::Py_DecRef(object) });
}

/// Lets another thread have the interpreter that has asked for it, for who has not run Python code for a while.
///
/// By calling a function of no effect, since that is where the interpreter looks for such requests. Letting go of it
/// and taking it again would hardly ever let anybody in: who waits is woken too late, and begins to count its switch
/// interval anew, at the end of which it would ask.
///
/// # Errors
/// What a signal handler raises, or another thread in this one.
pub(crate) fn give_way(py: Python<'_>) -> PyResult<()> {
    static NOTHING: OnceLock<Py<PyAny>> = OnceLock::new();
    let nothing = match NOTHING.get() {
        Some(nothing) => nothing,
        None => {
            let new = py.eval(c"lambda: None", None, None)?.unbind();
            NOTHING.get_or_init(|| new)
        }
    };
    call(nothing.bind(py), &[]).map(drop)
}

/// Gives back a reference, which may run a finalizer.
pub(crate) fn release(object: Bound<'_, PyAny>) {
    // SAFETY: the reference is owned; a `Bound` proves that the thread is attached.
    unsafe { decref(object.into_ptr()) };
}

/// Calls the finalizer of an object that is going; whether it goes on going.
///
/// # Safety
/// As `PyObject_CallFinalizerFromDealloc`.
pub(crate) unsafe fn finalize(object: *mut ffi::PyObject) -> bool {
    // SAFETY: the caller's.
    python(|| unsafe { unwinding::PyObject_CallFinalizerFromDealloc(object) == 0 })
}

/// Clears the weak references to an object that is going, which may call back.
///
/// # Safety
/// As `PyObject_ClearWeakRefs`.
pub(crate) unsafe fn clear_weakrefs(object: *mut ffi::PyObject) {
    // SAFETY: the caller's.
    python(|| unsafe { unwinding::PyObject_ClearWeakRefs(object) });
}

/// Tells `sys.unraisablehook` of an error that nobody can be given.
pub(crate) fn unraisable(py: Python<'_>, error: PyErr, about: *mut ffi::PyObject) {
    error.restore(py);
    // SAFETY: an exception is set; `about` is null or a live object.
    python(|| unsafe { unwinding::PyErr_WriteUnraisable(about) });
}

/// Tells `sys.unraisablehook` of an error that has ended a thread; a `SystemExit` is none.
pub(crate) fn unraisable_in_thread(py: Python<'_>, error: PyErr, callable: *mut ffi::PyObject) {
    if error.is_instance_of::<pyo3::exceptions::PySystemExit>(py) {
        return release(error.into_value(py).into_bound(py).into_any());
    }
    error.restore(py);
    // SAFETY: an exception is set; `callable` is a live object, and the format asks for one.
    python(|| unsafe {
        #[cfg(not(Py_3_13))]
        unwinding::_PyErr_WriteUnraisableMsg(c"in thread started by".as_ptr(), callable);
        #[cfg(Py_3_13)]
        unwinding::PyErr_FormatUnraisable(c"Exception ignored in thread started by %R".as_ptr(), callable);
    });
}

unsafe extern "C" {
    /// Public from 3.13 on; exported under the other name before.
    #[cfg_attr(not(Py_3_13), link_name = "_Py_IsFinalizing")]
    fn Py_IsFinalizing() -> std::ffi::c_int;
    fn PyThreadState_DeleteCurrent();
    fn PyThread_get_stacksize() -> usize;
}

/// Whether the interpreter has begun to take itself down: other threads do not get it any more.
pub(crate) fn is_finalizing() -> bool {
    // SAFETY: reads a flag; may be called by any thread.
    unsafe { Py_IsFinalizing() != 0 }
}

/// The size in bytes set by `threading.stack_size`, if one was set.
pub(crate) fn stack_size() -> Option<usize> {
    // SAFETY: reads a field of the interpreter; attached.
    Some(unsafe { PyThread_get_stacksize() }).filter(|size| *size != 0)
}

/// Threads that were told to run Python and are not attached yet.
struct Arrivals {
    count: AtomicUsize,
    fewer: Signal,
}

static ARRIVALS: Arrivals = Arrivals { count: AtomicUsize::new(0), fewer: Signal::new() };

impl Resource for Arrivals {
    fn wakers(&self, _kind: Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }
}

/// One of them: until it is attached, or dropped because there is no thread for it.
pub(crate) struct Arrival(());

impl Arrival {
    pub(crate) fn new() -> Self {
        ARRIVALS.count.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        // Release: pairs with `wait_for_arrivals`; the interpreter's list of thread states is as it should be.
        if ARRIVALS.count.fetch_sub(1, Ordering::Release) == 1 {
            ARRIVALS.fewer.notify_all();
        }
    }
}

/// Who makes the state of a new thread is inside. The interpreter's list of states is locked meanwhile, and a child
/// could neither use nor unlock it.
static NEW_STATES: Gate = Gate::new();

/// A thread that waits so many nanoseconds for the end of a fork goes on: the fork may wait for it.
const PATIENCE: u64 = 1_000_000_000;

/// Keeps new threads out of the interpreter until [`let_threads_in`]. Called detached: one may need it to get through.
pub(crate) fn keep_threads_out() {
    let mut parking = Parking::new(Kind::Sleep, &ARRIVALS, 0, Deadline::NEVER, &Alone);
    // Nothing interrupts it, and it has no deadline.
    let _ = NEW_STATES.close(&mut parking);
}

/// The end of [`keep_threads_out`].
pub(crate) fn let_threads_in() {
    NEW_STATES.open();
}

/// The state of a new thread.
fn new_state() -> *mut ffi::PyThreadState {
    let deadline = Deadline::at(now().saturating_add(PATIENCE));
    let _inside = NEW_STATES.enter(&mut Parking::new(Kind::Sleep, &ARRIVALS, 0, deadline, &Alone));
    // SAFETY: needs no thread state; the main interpreter is there, since its end has not begun.
    let state = unsafe { ffi::PyThreadState_New(ffi::PyInterpreterState_Main()) };
    if state.is_null() {
        // SAFETY: does not return. What the interpreter does in `PyGILState_Ensure`: nobody can be told.
        unsafe { ffi::Py_FatalError(c"raddle: no memory for the state of a new thread".as_ptr()) };
    }
    state
}

/// In a forked child: the parent's threads neither run nor come.
pub(crate) fn forget_threads() {
    NEW_STATES.after_fork_in_child();
    ARRIVALS.count.store(0, Ordering::Relaxed);
    RUNNING.store(0, Ordering::Relaxed);
}

/// Lets all threads that are to run Python attach. Called detached.
pub(crate) fn wait_for_arrivals() {
    let mut parking = Parking::new(Kind::Sleep, &ARRIVALS, 0, Deadline::NEVER, &Alone);
    loop {
        let key = ARRIVALS.fewer.key();
        if ARRIVALS.count.load(Ordering::Acquire) == 0 {
            return;
        }
        // Nothing interrupts it, and it has no deadline.
        let _ = ARRIVALS.fewer.wait(key, &mut parking);
    }
}

/// How many threads are in [`as_new_thread`]: what `_thread._count()` would count of them.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// How many threads that raddle has started run Python.
pub(crate) fn running() -> usize {
    RUNNING.load(Ordering::Relaxed)
}

/// Runs `body` attached, in a thread that Python does not know yet: with a thread state of its own, from
/// the first line of a thread to its end.
///
/// The state is made and deleted in the thread that it is for, as `PyGILState_Ensure` does it for a thread of C: that
/// binds it to this thread on every version. It is new for each call, so `threading.local`, context variables,
/// trace functions and pending exceptions are those of a new thread.
/// What `body` returns lasts until nothing of the thread is left but its place in the interpreter's list.
pub(crate) fn as_new_thread<R>(arrival: Arrival, body: impl FnOnce(Python<'_>) -> R) {
    if is_finalizing() {
        // The interpreter would end this thread when it asks to be attached, if it is still there to be asked.
        drop(arrival);
        drop(Hang);
        return;
    }
    let state = new_state();
    drop(Attach(state, ROUNDS));
    drop(arrival);
    RUNNING.fetch_add(1, Ordering::Relaxed);
    // SAFETY: attached by the line above.
    let lasts = body(unsafe { Python::assume_attached() });
    // The last thread of a forked child is not counted there.
    let _ = RUNNING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |running| running.checked_sub(1));
    // SAFETY: the calling thread's own state, current, with no frame left in it.
    python(|| unsafe { unwinding::PyThreadState_Clear(state) });
    drop(lasts);
    // SAFETY: cleared, current and not used any more; lets go of the interpreter.
    unsafe { PyThreadState_DeleteCurrent() };
    HELD.store(false, Ordering::Relaxed);
}

/// Whether a thread that came back from a wait of ours runs Python, as far as that is known: it has not begun
/// another wait. A hint, which costs some yields where it is wrong.
static HELD: AtomicBool = AtomicBool::new(false);

/// Most rounds to give the thread that woke this one to let go of the interpreter.
const ROUNDS: u32 = 24;

/// The same where that thread runs Python first: it has begun its run, which is often short.
const ROUNDS_OF_A_RUN: u32 = 160;

/// Takes the interpreter back, whatever happens in between.
struct Attach(*mut ffi::PyThreadState, u32);

impl Drop for Attach {
    fn drop(&mut self) {
        // Who woke us often lets go of the interpreter within a microsecond, to wait in turn. Asking for it
        // before that means a sleep in the interpreter's own queue, and a wake-up across cores.
        raddle::park::yield_until(|| !HELD.load(Ordering::Relaxed), self.1);
        // SAFETY: the state came from PyEval_SaveThread in this thread, which is detached now.
        python(|| unsafe { ffi::PyEval_RestoreThread(self.0) });
        HELD.store(true, Ordering::Relaxed);
    }
}

/// A thread that waits, as the core sees it.
pub(crate) struct PyHost {
    state: Cell<*mut ffi::PyThreadState>,
    /// Whether an exception may end this wait.
    raises: bool,
    is_main: bool,
    /// How many rounds to wait for whoever ended the wait to let go of the interpreter.
    rounds: u32,
    pub(crate) found: crate::observe::Found,
}

impl PyHost {
    /// For a wait that signals and deadlock errors may end.
    pub(crate) fn new() -> Self {
        Self::with(true, ROUNDS)
    }

    /// For a wait that must succeed: taking a condition's lock back.
    pub(crate) fn unending() -> Self {
        Self::with(false, ROUNDS)
    }

    /// For a wait that a thread ends which then runs on, perhaps only for some microseconds.
    pub(crate) fn for_start() -> Self {
        Self::with(true, ROUNDS_OF_A_RUN)
    }

    fn with(raises: bool, rounds: u32) -> Self {
        let found = crate::observe::Found::default();
        Self { state: Cell::new(std::ptr::null_mut()), raises, is_main: raises && is_main_thread(), rounds, found }
    }

    /// Runs `wait` without the interpreter.
    pub(crate) fn detached<R>(&self, wait: impl FnOnce() -> R) -> R {
        // SAFETY: the caller is attached.
        self.state.set(unsafe { ffi::PyEval_SaveThread() });
        HELD.store(false, Ordering::Relaxed);
        let _attach = AttachCell(self);
        wait()
    }

    /// Runs `work` with the interpreter, from inside `detached`.
    pub(crate) fn attached<R>(&self, work: impl FnOnce() -> R) -> R {
        struct Detach<'a>(&'a Cell<*mut ffi::PyThreadState>);
        impl Drop for Detach<'_> {
            fn drop(&mut self) {
                // SAFETY: attached since the lines below.
                self.0.set(unsafe { ffi::PyEval_SaveThread() });
                HELD.store(false, Ordering::Relaxed);
            }
        }
        drop(Attach(self.state.get(), self.rounds));
        let _detach = Detach(&self.state);
        work()
    }

    /// Whether an exception may end this wait.
    pub(crate) fn raises(&self) -> bool {
        self.raises
    }
}

struct AttachCell<'a>(&'a PyHost);

impl Drop for AttachCell<'_> {
    fn drop(&mut self) {
        drop(Attach(self.0.state.get(), self.0.rounds));
    }
}

impl Host for PyHost {
    fn interrupted(&self) -> Result<(), Stop> {
        if !self.is_main {
            return Ok(());
        }
        // SAFETY: attached inside the closure.
        match self.attached(|| python(|| unsafe { unwinding::PyErr_CheckSignals() })) {
            0 => Ok(()),
            _ => Err(Stop::Interrupted),
        }
    }

    fn look(&self, waited: u64) -> Result<Look, Stop> {
        crate::observe::look(self, waited)
    }

    fn suspects(&self) -> bool {
        raddle::trace::thread::nobody_awake() || raddle::detect::is_stuck(&Thread::current())
    }

    fn takes_signals(&self) -> bool {
        self.is_main
    }

    fn stopped(&self) -> Result<(), Stop> {
        let Some(reason) = self.raises.then(crate::cancel::asked).flatten() else { return Ok(()) };
        self.attached(|| {
            // SAFETY: attached by the line above.
            let py = unsafe { Python::assume_attached() };
            crate::cancel::error(py, reason).restore(py);
        });
        Err(Stop::Interrupted)
    }

    fn limit(&self) -> Deadline {
        if self.raises { crate::cancel::limit() } else { Deadline::NEVER }
    }
}
