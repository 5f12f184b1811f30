//! `scheduler`: events in the order of time, priority and sequence.
//!
//! **Two orders.** While all times and priorities are exact floats and ints of 64 bits, an event has a [`order::Key`]
//! that orders as Python orders the numbers, and the core's heap of deadlines holds it. The first event with anything else
//! moves the scheduler over to a tree, which keeps the events sorted: only entering one compares, outside the
//! lock, and looking, taking and cancelling compare nothing. So a comparison may raise (the event is not entered),
//! block, or use the scheduler. An empty scheduler begins with keys again.
//!
//! **Not a number.** A NaN time has no place in any order: it goes behind the last event there is, and stays there.
//! The others keep their order among each other, which a plain heap does not promise.
//!
//! **Locking.** The lock is held for steps on the structures, never while Python runs; references are given up
//! behind it. `run` looks at the first event, asks for the time, and takes the event if it still is the first.
//!
//! **Waiting.** With the default `time.sleep`, waits go through the door, and an earlier event that is entered
//! meanwhile ends them. A cancelled event does not: a program that moves an event by cancel and enter may not find
//! that `run` has seen an empty queue in between.

mod order;

use crate::args;
use crate::error::{entry, entry_or, fetch};
use crate::gil::{self, PyHost};
use crate::lock::{boolean, none};
use crate::native::{Entry, Native, This, Visit, Which, fast, get, methods, no_pickle};
use crate::observe;
use crate::types::Slot;
use order::{Held, Queue, Rank, Search};
use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyAnyMethods, PyCFunction, PyDict, PyTuple};
use pyo3::{Bound, IntoPyObjectExt, Py, PyAny, PyErr, PyResult, Python, ffi};
use raddle::park::{Deadline, Key as Seen, Parking, Signal, Stop, now};
use raddle::primitive::{AtomicU64, Ordering, Spin};
use raddle::trace::{Claim, Kind, Resource, Waker};
use std::ffi::{CStr, c_int, c_void};
use std::ptr::null_mut;

/// Events that may run between two looks whether another thread has asked for the interpreter.
const EVENTS_A_TURN: u32 = 100;
/// The same as a time, in nanoseconds.
const TURN: u64 = 5_000_000;
/// Seconds beyond which a delay is left to `time.sleep` itself, which has its own errors for it.
const LONGEST: f64 = 9e9;
/// How often the order may change under the comparisons for one event.
const RESTARTS: u32 = 10_000;

/// What is taken from the standard library's `sched`, which is loaded for the first event.
struct Events {
    event: Py<PyAny>,
    /// The default of `kwargs`, which subclasses get to see.
    missing: Py<PyAny>,
}

static EVENTS: PyOnceLock<Events> = PyOnceLock::new();

impl Events {
    fn get(py: Python<'_>) -> PyResult<&Events> {
        EVENTS.get_or_try_init(py, || {
            let sched = py.import("sched")?;
            Ok(Events {
                event: sched.getattr("Event")?.unbind(),
                missing: sched.getattr("_sentinel").unwrap_or_else(|_| py.None().into_bound(py)).unbind(),
            })
        })
    }
}

/// What is taken when the extension is loaded: before a program puts something else there.
struct Standard {
    monotonic: Py<PyAny>,
    sleep: Py<PyAny>,
    /// Whether `sleep` is the interpreter's own, which nobody can tell from a wait at the door.
    sleeps: bool,
    /// `action(*argument, **kwargs)` for what is no tuple and no dict.
    call: Py<PyAny>,
}

static STANDARD: PyOnceLock<Standard> = PyOnceLock::new();

impl Standard {
    fn get(py: Python<'_>) -> PyResult<&Standard> {
        STANDARD.get_or_try_init(py, || {
            let time = py.import("time")?;
            let sleep = time.getattr("sleep")?;
            // Globals of its own: without them the function would keep those of `__main__` alive at exit.
            let globals = pyo3::types::PyDict::new(py);
            let call =
                py.eval(c"lambda action, argument, kwargs: action(*argument, **kwargs)", Some(&globals), None)?;
            Ok(Standard {
                monotonic: time.getattr("monotonic")?.unbind(),
                sleeps: sleep.is_instance_of::<PyCFunction>(),
                sleep: sleep.unbind(),
                call: call.unbind(),
            })
        })
    }
}

/// The functions of a scheduler; null before `__init__`.
struct Functions {
    time: Held,
    delay: Held,
}

/// A scheduler.
pub(crate) struct PyScheduler {
    queue: Spin<Queue>,
    functions: Spin<Functions>,
    /// The sequence of the next event.
    sequence: AtomicU64,
    /// The first event is another one.
    changed: Signal,
}

impl Resource for PyScheduler {
    fn wakers(&self, _kind: Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }
}

impl Drop for PyScheduler {
    fn drop(&mut self) {
        self.clear();
    }
}

type Me<'a> = This<'a, PyScheduler>;

/// Which function.
#[derive(Clone, Copy)]
enum Function {
    Time,
    Delay,
}

impl Functions {
    fn get(&mut self, which: Function) -> &mut Held {
        match which {
            Function::Time => &mut self.time,
            Function::Delay => &mut self.delay,
        }
    }
}

impl PyScheduler {
    fn function<'py>(&self, py: Python<'py>, which: Function) -> PyResult<Bound<'py, PyAny>> {
        let mut functions = self.functions.lock();
        let function = *functions.get(which);
        if function.0.is_null() {
            drop(functions);
            let name = if matches!(which, Function::Time) { "timefunc" } else { "delayfunc" };
            return Err(PyAttributeError::new_err(format!("'scheduler' object has no attribute '{name}'")));
        }
        let function = function.clone_ref();
        drop(functions);
        Ok(function.into_bound(py))
    }

    /// Takes over a reference, or null.
    fn set_function(&self, which: Function, new: *mut ffi::PyObject) {
        let old = std::mem::replace(self.functions.lock().get(which), Held(new));
        // SAFETY: attached; the reference was the scheduler's.
        unsafe { gil::decref(old.0) };
    }

    fn take_all(&self) -> Vec<Held> {
        let old = self.queue.lock().take();
        let mut all = Vec::new();
        old.for_each(|held| all.push(held));
        all
    }

    /// Adds an event, whose reference is taken over.
    fn add(&self, py: Python<'_>, event: Held, rank: &Rank, sequence: u64) -> PyResult<()> {
        let added = self.queue.lock().insert(event, rank, sequence);
        let is_first = match added {
            Some(is_first) => is_first,
            None => self.add_compared(py, event, rank, sequence)?,
        };
        if is_first {
            self.changed.notify_all();
        }
        Ok(())
    }

    #[cold]
    fn add_compared(&self, py: Python<'_>, event: Held, rank: &Rank, sequence: u64) -> PyResult<bool> {
        let mut search = Search::new(sequence);
        loop {
            let mut queue = self.queue.lock();
            // The tree may have gone meanwhile.
            let asked = match queue.insert(event, rank, sequence) {
                Some(is_first) => return Ok(is_first),
                None => queue.step(event, &mut search),
            };
            drop(queue);
            let (other, other_sequence) = match asked {
                Ok(is_first) => return Ok(is_first),
                Err(other) => other,
            };
            let other = other.into_bound(py);
            let before = gil::compare(py, event.0, other.as_ptr(), ffi::Py_LT);
            let (before, failed) = match before {
                Err(error) => (false, Some(error)),
                Ok(before) if search.restarts() > RESTARTS => {
                    (before, Some(PyRuntimeError::new_err("scheduler changed with every comparison of its times")))
                }
                Ok(before) => (before, None),
            };
            gil::release(other);
            if let Some(error) = failed {
                gil::release(event.into_bound(py));
                return Err(error);
            }
            search.answer(other_sequence, before);
        }
    }

    /// The first event and its sequence.
    fn first<'py>(&self, py: Python<'py>) -> Option<(Bound<'py, PyAny>, u64)> {
        let queue = self.queue.lock();
        let (held, sequence) = queue.first()?;
        let held = held.clone_ref();
        drop(queue);
        Some((held.into_bound(py), sequence))
    }

    /// All events in the order in which they would run.
    fn in_order<'py>(&self, py: Python<'py>) -> Vec<(u64, Bound<'py, PyAny>)> {
        let copied = self.queue.lock().copy();
        copied.in_order().into_iter().map(|(sequence, held)| (sequence, held.into_bound(py))).collect()
    }
}

// Entering

type Arguments = (*const *mut ffi::PyObject, ffi::Py_ssize_t, *mut ffi::PyObject);

/// Time, priority and action; then argument and kwargs.
type Five<'py> = ([Bound<'py, PyAny>; 3], [Option<Bound<'py, PyAny>>; 2]);

/// The arguments of `enter` and `enterabs`, of which the first three are needed.
fn five<'py>(py: Python<'py>, function: &str, first: &str, arguments: Arguments) -> PyResult<Five<'py>> {
    let names = [first, "priority", "action", "argument", "kwargs"];
    let [time, priority, action, argument, kwargs] = args::fast(py, function, names, 5, arguments)?;
    match (time, priority, action) {
        (Some(time), Some(priority), Some(action)) => Ok(([time, priority, action], [argument, kwargs])),
        (time, priority, action) => {
            Err(missing(function, &names[..3], &[time.is_none(), priority.is_none(), action.is_none()]))
        }
    }
}

/// The error that arguments are missing.
#[cold]
fn missing(function: &str, names: &[&str], missing: &[bool]) -> PyErr {
    let names: Vec<String> = names.iter().zip(missing).filter(|row| *row.1).map(|row| format!("'{}'", row.0)).collect();
    let (count, plural) = (names.len(), if names.len() == 1 { "" } else { "s" });
    let names = match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, [one])) => format!("{one} and {last}"),
        Some((last, others)) => format!("{}, and {last}", others.join(", ")),
        None => String::new(),
    };
    PyTypeError::new_err(format!("{function}() missing {count} required positional argument{plural}: {names}"))
}

/// A new `sched.Event`.
fn new_event<'py>(py: Python<'py>, fields: [*mut ffi::PyObject; 6]) -> PyResult<Bound<'py, PyAny>> {
    let ty: *mut ffi::PyTypeObject = Events::get(py)?.event.as_ptr().cast();
    // SAFETY: a subclass of tuple without fields of its own; its items are set before anybody sees it, and take the
    // references over.
    unsafe {
        let alloc = (*ty).tp_alloc.unwrap_or(ffi::PyType_GenericAlloc);
        let event = alloc(ty, fields.len() as ffi::Py_ssize_t);
        if event.is_null() {
            let error = fetch(py);
            fields.iter().for_each(|field| ffi::Py_DECREF(*field));
            return Err(error);
        }
        for (at, field) in fields.into_iter().enumerate() {
            ffi::PyTuple_SET_ITEM(event, at as ffi::Py_ssize_t, field);
        }
        Ok(Bound::from_owned_ptr(py, event))
    }
}

fast!(py_enterabs, PyScheduler, |py, this, fast| {
    let ([time, priority, action], [argument, kwargs]) = five(py, "scheduler.enterabs", "time", fast)?;
    let argument = argument.unwrap_or_else(|| PyTuple::empty(py).into_any());
    let missing = &Events::get(py)?.missing;
    let kwargs = kwargs.filter(|kwargs| !kwargs.is(missing)).unwrap_or_else(|| PyDict::new(py).into_any());
    let sequence = this.sequence.fetch_add(1, Ordering::Relaxed);
    let rank = Rank::of(time.as_ptr(), priority.as_ptr(), sequence);
    // SAFETY: attached.
    let number = unsafe { ffi::PyLong_FromUnsignedLongLong(sequence) };
    if number.is_null() {
        return Err(fetch(py));
    }
    let [time, priority, action, argument, kwargs] = [time, priority, action, argument, kwargs].map(Bound::into_ptr);
    let event = new_event(py, [time, priority, number, action, argument, kwargs])?;
    this.add(py, Held(event.clone().into_ptr()), &rank, sequence)?;
    Ok(event.into_ptr())
});

unsafe extern "C" fn py_enter(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        let this = unsafe { Me::from_ptr(object) };
        let ([delay, priority, action], [argument, kwargs]) =
            five(py, "scheduler.enter", "delay", (args, count, keywords))?;
        let timefunc = this.function(py, Function::Time)?;
        let now = gil::call(&timefunc, &[])?;
        let time = gil::add(&now, &delay)?;
        let argument = argument.unwrap_or_else(|| PyTuple::empty(py).into_any());
        let missing = Events::get(py)?.missing.as_ptr();
        let kwargs = kwargs.as_ref().map_or(missing, Bound::as_ptr);
        let all = [object, time.as_ptr(), priority.as_ptr(), action.as_ptr(), argument.as_ptr(), kwargs];
        let method = gil::attribute(&this.bound(py), "enterabs")?;
        // SAFETY: live objects, without keywords.
        Ok(unsafe { gil::call_raw(&method, all[1..].as_ptr(), all.len() - 1, null_mut()) }?.into_ptr())
    })
}

// Cancelling

/// The sequence number of what compares as a tuple and may be an event.
fn sequence_of(event: &Bound<'_, PyAny>) -> Option<u64> {
    let event = event.as_ptr();
    // SAFETY: a live object; the type and the length are checked before each access.
    unsafe {
        if ffi::PyTuple_Check(event) == 0
            || (*ffi::Py_TYPE(event)).tp_richcompare.map(|compare| compare as usize)
                != ffi::PyTuple_Type.tp_richcompare.map(|compare| compare as usize)
            || ffi::PyTuple_GET_SIZE(event) != 6
        {
            return None;
        }
        let number = ffi::PyTuple_GET_ITEM(event, 2);
        if ffi::PyLong_CheckExact(number) == 0 {
            return None;
        }
        let mut overflow = 0;
        let number = ffi::PyLong_AsLongLongAndOverflow(number, &mut overflow);
        (overflow == 0).then(|| u64::try_from(number).ok())?
    }
}

fn equal(py: Python<'_>, mine: &Bound<'_, PyAny>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
    gil::compare(py, mine.as_ptr(), other.as_ptr(), ffi::Py_EQ)
}

/// Ends a series of this scheduler's (`Periodic` of raddle/sched.py); false if it is none, or has ended.
fn end_series(py: Python<'_>, this: Me<'_>, series: &Bound<'_, PyAny>) -> PyResult<bool> {
    let owner = match gil::attribute(series, "_scheduler") {
        Err(error) if error.is_instance_of::<PyAttributeError>(py) => return Ok(false),
        owner => owner?,
    };
    let lasts = owner.is(this.bound(py)) && !gil::truth(&gil::attribute(series, "cancelled")?)?;
    if lasts {
        gil::method(series, "cancel", &[])?;
    }
    Ok(lasts)
}

fn cancel(py: Python<'_>, this: Me<'_>, event: &Bound<'_, PyAny>) -> PyResult<()> {
    let remove = |sequence| -> bool {
        let held = this.queue.lock().remove(sequence);
        match held {
            Some(held) => {
                gil::release(held.into_bound(py));
                true
            }
            None => false,
        }
    };
    let removed = match sequence_of(event) {
        Some(sequence) => {
            let found = this.queue.lock().find(sequence).map(|held| held.clone_ref());
            match found {
                Some(mine) => {
                    let mine = mine.into_bound(py);
                    equal(py, &mine, event)? && remove(sequence)
                }
                None => false,
            }
        }
        // No event, but it may say that it equals one.
        None => {
            let mut removed = false;
            for (sequence, mine) in this.in_order(py) {
                if equal(py, &mine, event)? {
                    removed = remove(sequence);
                    break;
                }
            }
            removed || end_series(py, this, event)?
        }
    };
    if removed { Ok(()) } else { Err(PyValueError::new_err("list.remove(x): x not in list")) }
}

unsafe extern "C" fn py_cancel(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    observe::quietly(|py| {
        // SAFETY: a method of the type.
        let this = unsafe { Me::from_ptr(object) };
        let [event] = args::fast(py, "scheduler.cancel", ["event"], 1, (args, count, keywords))?;
        let event = event.ok_or_else(|| missing("scheduler.cancel", &["event"], &[true]))?;
        cancel(py, this, &event)
    })
}

// Running

/// When it was last looked whether another thread has asked for the interpreter.
struct Turn {
    since: u64,
    events: u32,
}

impl Turn {
    fn new() -> Turn {
        Turn { since: now(), events: 0 }
    }

    /// What `time.sleep(0)` after each event is for: other threads and signal handlers, now and then.
    fn pass(&mut self, py: Python<'_>) -> PyResult<()> {
        self.events += 1;
        if self.events < EVENTS_A_TURN && now() - self.since < TURN {
            return Ok(());
        }
        gil::give_way(py)?;
        *self = Turn::new();
        Ok(())
    }
}

/// `time > now`
fn is_later(time: &Bound<'_, PyAny>, now: &Bound<'_, PyAny>) -> PyResult<bool> {
    // SAFETY: live objects, whose type is checked.
    unsafe {
        if ffi::PyFloat_CheckExact(time.as_ptr()) != 0 && ffi::PyFloat_CheckExact(now.as_ptr()) != 0 {
            return Ok(ffi::PyFloat_AS_DOUBLE(time.as_ptr()) > ffi::PyFloat_AS_DOUBLE(now.as_ptr()));
        }
    }
    gil::greater(time, now)
}

/// One field of an event.
fn field<'py>(event: &Bound<'py, PyAny>, at: ffi::Py_ssize_t) -> Bound<'py, PyAny> {
    // SAFETY: events are tuples of six.
    unsafe { Bound::from_borrowed_ptr(event.py(), ffi::PyTuple_GET_ITEM(event.as_ptr(), at)) }
}

/// `action(*argument, **kwargs)`
fn perform(py: Python<'_>, event: &Bound<'_, PyAny>) -> PyResult<()> {
    let [action, argument, kwargs] = [3, 4, 5].map(|at| field(event, at));
    // SAFETY: attached; what fails has set an exception.
    if unsafe { ffi::Py_EnterRecursiveCall(c" while running a scheduled action".as_ptr()) } != 0 {
        return Err(fetch(py));
    }
    let result = (|| {
        let (Ok(arguments), Ok(keywords)) = (argument.cast_exact::<PyTuple>(), kwargs.cast_exact::<PyDict>()) else {
            let call = Standard::get(py)?.call.bind(py);
            return gil::call(call, &[&action, &argument, &kwargs]);
        };
        // SAFETY: live objects; the tuple's items stay, since the event holds it.
        unsafe {
            if ffi::PyDict_Size(keywords.as_ptr()) == 0 {
                let items = (*arguments.as_ptr().cast::<ffi::PyTupleObject>()).ob_item.as_ptr();
                let count = ffi::PyTuple_GET_SIZE(arguments.as_ptr()) as usize;
                gil::call_raw(&action, items, count, null_mut())
            } else {
                // A copy: what is called may keep it.
                let keywords = Bound::from_owned_ptr_or_err(py, ffi::PyDict_Copy(keywords.as_ptr()))?;
                gil::call_tuple(&action, arguments.as_any(), Some(&keywords))
            }
        }
    })();
    // SAFETY: entered above.
    unsafe { ffi::Py_LeaveRecursiveCall() };
    let result = result?;
    gil::release(result);
    Ok(())
}

/// Waits at the door; false if `time.sleep` has to decide about this delay.
fn sleep(py: Python<'_>, this: Me<'_>, seen: Seen, delay: &Bound<'_, PyAny>) -> PyResult<bool> {
    // SAFETY: a live object, whose type is checked.
    let seconds = unsafe {
        if ffi::PyFloat_CheckExact(delay.as_ptr()) != 0 || ffi::PyLong_CheckExact(delay.as_ptr()) != 0 {
            ffi::PyFloat_AsDouble(delay.as_ptr())
        } else {
            return Ok(false);
        }
    };
    if !(0.0..LONGEST).contains(&seconds) {
        // SAFETY: attached; an int may be too large for a float.
        unsafe { ffi::PyErr_Clear() };
        return Ok(false);
    }
    let deadline = Deadline::at(now().saturating_add((seconds * 1e9).ceil() as u64));
    let host = PyHost::new();
    let core: &PyScheduler = &this;
    let result = host.detached(|| {
        let mut parking = Parking::new(Kind::Sleep, core, this.address(), deadline, &host);
        core.changed.wait(seen, &mut parking)
    });
    match result {
        Ok(()) | Err(Stop::TimedOut) => Ok(true),
        Err(Stop::Interrupted) => Err(fetch(py)),
    }
}

/// Runs what is due until nothing is left. The delay until the next event, if it is not to wait for it.
fn run<'py>(
    py: Python<'py>,
    this: Me<'_>,
    blocking: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let delayfunc = this.function(py, Function::Delay)?;
    let timefunc = this.function(py, Function::Time)?;
    let standard = Standard::get(py)?;
    let sleeps = standard.sleeps && delayfunc.is(&standard.sleep);
    let mut turn = Turn::new();
    loop {
        let seen = this.changed.key();
        let Some((event, sequence)) = this.first(py) else { return Ok(None) };
        let now = gil::call(&timefunc, &[])?;
        if is_later(&field(&event, 0), &now)? {
            let blocking = args::truth(blocking, true)?;
            let delay = gil::subtract(&field(&event, 0), &now)?;
            if !blocking {
                return Ok(Some(delay));
            }
            gil::release(event);
            if !sleeps || !sleep(py, this, seen, &delay)? {
                gil::call(&delayfunc, &[&delay])?;
            }
            continue;
        }
        let taken = this.queue.lock().take_first(sequence);
        // An earlier one has come, or this one has gone: look again.
        let Some(taken) = taken else { continue };
        // SAFETY: the queue's reference; `event` is another one to the same object.
        unsafe { ffi::Py_DECREF(taken.0) };
        perform(py, &event)?;
        gil::release(event);
        if sleeps {
            turn.pass(py)?;
        } else {
            gil::call(&delayfunc, &[&0i32.into_bound_py_any(py)?])?;
        }
    }
}

fast!(py_run, PyScheduler, |py, this, fast| {
    let [blocking] = args::fast(py, "scheduler.run", ["blocking"], 1, fast)?;
    Ok(run(py, this, blocking.as_ref())?.map_or_else(none, Bound::into_ptr))
});

// Looking

unsafe extern "C" fn py_empty(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    boolean(unsafe { Me::from_ptr(object) }.queue.lock().is_empty())
}

unsafe extern "C" fn py_queue(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: an attribute of the type.
        let events = unsafe { Me::from_ptr(object) }.in_order(py);
        Ok(pyo3::types::PyList::new(py, events.into_iter().map(|(_, event)| event))?.into_any().into_ptr())
    })
}

unsafe extern "C" fn py_get_function(object: *mut ffi::PyObject, which: *mut c_void) -> *mut ffi::PyObject {
    let which = if which.is_null() { Function::Time } else { Function::Delay };
    // SAFETY: an attribute of the type.
    entry(|py| Ok(unsafe { Me::from_ptr(object) }.function(py, which)?.into_ptr()))
}

unsafe extern "C" fn py_set_function(object: *mut ffi::PyObject, new: *mut ffi::PyObject, which: *mut c_void) -> c_int {
    entry_or(-1, |py| {
        // SAFETY: an attribute of the type, and its new value or null.
        let this = unsafe { Me::from_ptr(object) };
        let which = if which.is_null() { Function::Time } else { Function::Delay };
        if new.is_null() {
            this.function(py, which)?;
        }
        // SAFETY: a live object or null.
        unsafe { ffi::Py_XINCREF(new) };
        this.set_function(which, new);
        Ok(0)
    })
}

/// An attribute that holds a function; the closure says which.
fn function(name: &'static CStr, which: Function, doc: &'static CStr) -> ffi::PyGetSetDef {
    let closure = match which {
        Function::Time => null_mut(),
        Function::Delay => std::ptr::dangling_mut(),
    };
    ffi::PyGetSetDef { set: Some(py_set_function), closure, ..get::<PyScheduler>(name, py_get_function, doc) }
}

impl Native for PyScheduler {
    type Entry = Entry;
    const NAME: &'static CStr = c"raddle._raddle.scheduler";
    const DOC: &'static CStr = c"The core of raddle.sched.scheduler.";
    const WHICH: Which = Which::Scheduler;
    const DICT: bool = true;

    fn fresh() -> Self {
        PyScheduler {
            queue: Spin::new(Queue::new()),
            functions: Spin::new(Functions { time: Held(null_mut()), delay: Held(null_mut()) }),
            sequence: AtomicU64::new(0),
            changed: Signal::new(),
        }
    }

    fn init(this: Me<'_>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let py = args.py();
        let [time, delay] = args::tuple("scheduler", ["timefunc", "delayfunc"], 2, args, kwargs)?;
        let standard = Standard::get(py)?;
        let time = time.unwrap_or_else(|| standard.monotonic.bind(py).clone());
        let delay = delay.unwrap_or_else(|| standard.sleep.bind(py).clone());
        let events = this.take_all();
        this.set_function(Function::Time, time.into_ptr());
        this.set_function(Function::Delay, delay.into_ptr());
        events.into_iter().for_each(|event| gil::release(event.into_bound(py)));
        Ok(())
    }

    fn traverse(&self, visit: &Visit) -> c_int {
        let functions = self.functions.lock();
        let mut stop = [functions.time, functions.delay].iter().find_map(|held| match visit.call(held.0) {
            0 => None,
            stop => Some(stop),
        });
        self.queue.lock().for_each(|held| {
            if stop.is_none() {
                stop = Some(visit.call(held.0)).filter(|stop| *stop != 0);
            }
        });
        stop.unwrap_or(0)
    }

    fn clear(&self) {
        let events = self.take_all();
        self.set_function(Function::Time, null_mut());
        self.set_function(Function::Delay, null_mut());
        for event in events {
            // SAFETY: attached; the reference was the queue's.
            unsafe { gil::decref(event.0) };
        }
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        methods! {
            fast "enterabs" (", time, priority, action, argument=(), kwargs={}") = py_enterabs,
                "Enter an event at an absolute time; the Event, by which it can be cancelled.\n\n\
                 O(log n). Any number of threads. Wakes a run() that sleeps towards a later event.";
            fast "enter" (", delay, priority, action, argument=(), kwargs={}") = py_enter,
                "Enter an event that is due in `delay`, by enterabs(); the Event.";
            fast "cancel" (", event") = py_cancel,
                "Take an event out, given as enter() returned it or as an equal one. ValueError if it is not there.\n\n\
                 O(log n). The event is given up at once.";
            noargs "empty" ("") = py_empty, "Whether there is no event.";
            fast "run" (", blocking=True") = py_run,
                "Run the events when they are due, until there is none left.\n\n\
                 With blocking=False, run what is due and return the delay until the next event, or None. What an\n\
                 action raises ends the run; its event is gone, the others stay. With the default functions it waits\n\
                 without the GIL, signals are handled meanwhile, and other threads get to run every 100 events or 5 ms.";
            noargs "__reduce__" = no_pickle, "Schedulers cannot be pickled.";
        }
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        vec![
            function(c"timefunc", Function::Time, c"The function that tells the time."),
            function(c"delayfunc", Function::Delay, c"The function that waits."),
            get::<Self>(c"queue", py_queue, c"A list of the events, in the order in which they would run."),
        ]
    }
}

/// Adds the type to the module.
pub(crate) fn add(module: &Bound<'_, PyAny>) -> PyResult<()> {
    Standard::get(module.py())?;
    crate::types::add::<PyScheduler>(module, Slot::Scheduler)
}
