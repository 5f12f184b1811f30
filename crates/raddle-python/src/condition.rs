//! `Condition`, over a lock of ours or any object that behaves like one.

use crate::args::{self, Patience, patience};
use crate::error::{entry, fetch};
use crate::gil::{self, PyHost};
use crate::lock::{acquire_unending, boolean, given_back, none, try_acquire};
use crate::native::{Entry, Native, This, Visit, Which, fast, get, getter, methods, no_pickle, noargs};
use crate::observe;
use pyo3::exceptions::PyRuntimeError;
use pyo3::types::{PyAnyMethods, PyList, PyListMethods, PyString};
use pyo3::{Bound, IntoPyObjectExt, PyAny, PyResult, Python, ffi};
use raddle::park::{Deadline, Parking, Stop, now};
use raddle::primitive::thread_token;
use raddle::sync::{Condition, RawLock, RawRLock};
use raddle::trace::Kind;
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

/// What lock a condition has.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Sort {
    /// Some other object, called by its methods.
    Foreign,
    /// Exactly our `Lock`.
    Lock,
    /// Exactly our `RLock`.
    RLock,
}

/// A condition and its lock.
pub(crate) struct PyCondition {
    condition: Condition,
    lock: AtomicPtr<ffi::PyObject>,
    sort: AtomicU8,
}

impl Drop for PyCondition {
    fn drop(&mut self) {
        // SAFETY: cores are dropped attached; the reference is the core's own.
        unsafe { ffi::Py_XDECREF(*self.lock.get_mut()) };
    }
}

/// What a wait has to put back.
enum Saved<'py> {
    Lock,
    RLock(usize),
    Foreign(Option<Bound<'py, PyAny>>),
}

type Me<'a> = This<'a, PyCondition>;

impl PyCondition {
    fn sort(&self) -> Sort {
        match self.sort.load(Ordering::Relaxed) {
            1 => Sort::Lock,
            2 => Sort::RLock,
            _ => Sort::Foreign,
        }
    }

    fn lock<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let lock = self.lock.load(Ordering::Acquire);
        if lock.is_null() {
            return Err(PyRuntimeError::new_err("Condition.__init__() not called"));
        }
        // SAFETY: the core holds a reference.
        Ok(unsafe { Bound::from_borrowed_ptr(py, lock) })
    }

    fn our_lock(&self) -> This<'_, RawLock> {
        // SAFETY: `sort` says that it is exactly our Lock, held by the core.
        unsafe { This::from_ptr(self.lock.load(Ordering::Acquire)) }
    }

    fn our_rlock(&self) -> This<'_, RawRLock> {
        // SAFETY: `sort` says that it is exactly our RLock, held by the core.
        unsafe { This::from_ptr(self.lock.load(Ordering::Acquire)) }
    }

    fn is_owned(&self, py: Python<'_>) -> PyResult<bool> {
        match self.sort() {
            // As the standard library asks a plain lock: somebody holds it.
            Sort::Lock => Ok(self.our_lock().is_locked()),
            Sort::RLock => Ok(self.our_rlock().is_owned_by(thread_token())),
            Sort::Foreign => {
                let lock = self.lock(py)?;
                if let Some(is_owned) = lock.getattr_opt("_is_owned")? {
                    return gil::truth(&gil::call(&is_owned, &[])?);
                }
                if gil::truth(&gil::method(&lock, "acquire", &[&false.into_bound_py_any(py)?])?)? {
                    gil::method(&lock, "release", &[])?;
                    return Ok(false);
                }
                Ok(true)
            }
        }
    }

    fn release_save<'py>(&self, py: Python<'py>) -> PyResult<Saved<'py>> {
        match self.sort() {
            Sort::Lock => {
                let lock = self.our_lock();
                lock.release(thread_token()).map_err(|_| PyRuntimeError::new_err("release unlocked lock"))?;
                given_back(lock);
                Ok(Saved::Lock)
            }
            Sort::RLock => {
                let lock = self.our_rlock();
                let depth = lock
                    .release_all(thread_token())
                    .map_err(|_| PyRuntimeError::new_err("cannot release un-acquired lock"))?;
                given_back(lock);
                Ok(Saved::RLock(depth))
            }
            Sort::Foreign => {
                let lock = self.lock(py)?;
                if let Some(save) = lock.getattr_opt("_release_save")? {
                    return Ok(Saved::Foreign(Some(gil::call(&save, &[])?)));
                }
                gil::method(&lock, "release", &[])?;
                Ok(Saved::Foreign(None))
            }
        }
    }

    fn acquire_restore(&self, py: Python<'_>, saved: Saved<'_>) -> PyResult<()> {
        match saved {
            Saved::Lock => acquire_unending(py, self.our_lock()),
            Saved::RLock(depth) => {
                let lock = self.our_rlock();
                acquire_unending(py, lock);
                lock.restore(depth);
            }
            Saved::Foreign(state) => {
                let lock = self.lock(py)?;
                match state {
                    Some(state) => gil::method(&lock, "_acquire_restore", &[&state])?,
                    None => gil::method(&lock, "acquire", &[])?,
                };
            }
        }
        Ok(())
    }
}

/// `wait`: releases the lock, waits for a notification, takes the lock again whatever happened.
fn wait(py: Python<'_>, this: Me<'_>, patience: Patience) -> PyResult<bool> {
    if let Patience::Until(deadline) = patience {
        args::check(deadline)?;
    }
    if !this.is_owned(py)? {
        return Err(PyRuntimeError::new_err("cannot wait on un-acquired lock"));
    }
    let mut place = this.condition.enlist();
    let saved = match this.release_save(py) {
        Ok(saved) => saved,
        Err(error) => {
            this.condition.withdraw(&mut place);
            this.condition.leave(place);
            return Err(error);
        }
    };
    let mut raised = None;
    let notified = match patience {
        // As the standard library: one look, without the lock.
        Patience::None => false,
        Patience::Until(deadline) => {
            let host = PyHost::new();
            let condition = &this.condition;
            let result = host.detached(|| {
                let mut parking = Parking::new(Kind::Condition, condition, this.address(), deadline, &host);
                condition.wait(&place, &mut parking)
            });
            if result == Err(Stop::Interrupted) {
                raised = Some(fetch(py));
            }
            result.is_ok()
        }
    };
    let notified = notified || !this.condition.withdraw(&mut place);
    if raised.is_some() && notified {
        // The notification was for a thread that leaves by an exception: another one gets it.
        this.condition.notify(1);
    }
    let restored = this.acquire_restore(py, saved);
    this.condition.leave(place);
    restored?;
    match raised {
        Some(error) => Err(error),
        None => Ok(notified),
    }
}

fast!(py_wait, PyCondition, |py, this, fast| {
    let [timeout] = args::fast(py, "wait", ["timeout"], 1, fast)?;
    Ok(boolean(wait(py, this, patience(timeout.as_ref())?)?))
});

fast!(py_wait_for, PyCondition, |py, this, fast| {
    let [predicate, timeout] = args::fast(py, "wait_for", ["predicate", "timeout"], 2, fast)?;
    let Some(predicate) = predicate else {
        return Err(pyo3::exceptions::PyTypeError::new_err(
            "wait_for() missing 1 required positional argument: 'predicate'",
        ));
    };
    let deadline = match patience(timeout.as_ref())? {
        Patience::None => Deadline::at(now()),
        Patience::Until(deadline) => deadline,
    };
    // A subclass may have a `wait` of its own, which then is what waits.
    let own = this.bound(py).get_type().getattr("wait")?;
    let ours = own.as_ptr() == plain_wait(py)?.as_ptr();
    let call = || gil::call(&predicate, &[]);
    let mut result = call()?;
    while !gil::truth(&result)? {
        if deadline.is_past() {
            break;
        }
        if ours {
            wait(py, this, Patience::Until(deadline))?;
        } else {
            let left = deadline.nanoseconds().saturating_sub(now()) as f64 / 1e9;
            let left = deadline.is_timed().then_some(left);
            gil::method(&this.bound(py), "wait", &[&left.into_bound_py_any(py)?])?;
        }
        result = call()?;
    }
    Ok(result.into_ptr())
});

fn plain_wait(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    crate::types::get(py, crate::types::Slot::Condition).getattr("wait")
}

fn notify(object: *mut ffi::PyObject, count: impl FnOnce(Python<'_>) -> PyResult<usize>) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        let this = unsafe { Me::from_ptr(object) };
        if !this.is_owned(py)? {
            return Err(PyRuntimeError::new_err("cannot notify on un-acquired lock"));
        }
        this.condition.notify(count(py)?);
        Ok(none())
    })
}

unsafe extern "C" fn py_notify(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    notify(object, |py| {
        if count == 0 && keywords.is_null() {
            return Ok(1);
        }
        let [n] = args::fast(py, "notify", ["n"], 1, (args, count, keywords))?;
        let n = n.map_or(Ok(1), |n| n.extract::<i64>())?;
        Ok(usize::try_from(n).unwrap_or(0))
    })
}

unsafe extern "C" fn py_notify_all(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    if unsafe { ffi::Py_TYPE(object) }.cast() == crate::types::pointer(crate::types::Slot::Condition) {
        return notify(object, |_| Ok(usize::MAX));
    }
    entry(|py| {
        // A subclass may have a `notify` of its own.
        // SAFETY: as above.
        let this = unsafe { Me::from_ptr(object) };
        gil::method(&this.bound(py), "notify", &[&this.condition.waiters().into_bound_py_any(py)?])?;
        Ok(none())
    })
}

unsafe extern "C" fn py_notify_all_old(object: *mut ffi::PyObject, unused: *mut ffi::PyObject) -> *mut ffi::PyObject {
    let warned = entry(|py| {
        let category = py.get_type::<pyo3::exceptions::PyDeprecationWarning>();
        pyo3::PyErr::warn(py, &category, c"notifyAll() is deprecated, use notify_all() instead", 1)?;
        Ok(none())
    });
    if warned.is_null() {
        return warned;
    }
    // SAFETY: passed on; None is immortal or stays referenced by the interpreter.
    unsafe {
        ffi::Py_DECREF(warned);
        py_notify_all(object, unused)
    }
}

/// Calls the lock's own method with the arguments given.
unsafe fn forward(
    object: *mut ffi::PyObject,
    name: &CStr,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type; the arguments are passed on as they came.
        unsafe {
            let lock = Me::from_ptr(object).lock(py)?;
            let method = lock.getattr(PyString::new(py, name.to_str().unwrap_or_default()))?;
            Ok(gil::call_raw(&method, args, count as usize, keywords)?.into_ptr())
        }
    })
}

unsafe extern "C" fn py_acquire(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a method of the type; passed on.
    unsafe { forward(object, c"acquire", args, count, keywords) }
}

unsafe extern "C" fn py_release(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    unsafe { forward(object, c"release", std::ptr::null(), 0, std::ptr::null_mut()) }
}

unsafe extern "C" fn py_enter(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    match this.sort() {
        Sort::Lock if try_acquire(this.our_lock(), true) => boolean(true),
        Sort::RLock if try_acquire(this.our_rlock(), true) => boolean(true),
        // SAFETY: a method of the type.
        _ => unsafe { forward(object, c"__enter__", std::ptr::null(), 0, std::ptr::null_mut()) },
    }
}

unsafe extern "C" fn py_exit(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    match this.sort() {
        Sort::Lock if this.our_lock().release(thread_token()).is_ok() => {
            given_back(this.our_lock());
            none()
        }
        Sort::RLock if this.our_rlock().release(thread_token()).is_ok() => {
            given_back(this.our_rlock());
            none()
        }
        // SAFETY: a method of the type; the arguments are passed on.
        _ => unsafe { forward(object, c"__exit__", args, count, keywords) },
    }
}

unsafe extern "C" fn py_is_owned(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    entry(|py| Ok(boolean(unsafe { Me::from_ptr(object) }.is_owned(py)?)))
}

unsafe extern "C" fn py_release_save(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        let lock = unsafe { Me::from_ptr(object) }.lock(py)?;
        Ok(match lock.getattr_opt("_release_save")? {
            Some(save) => gil::call(&save, &[])?,
            None => gil::method(&lock, "release", &[])?,
        }
        .into_ptr())
    })
}

unsafe extern "C" fn py_acquire_restore(object: *mut ffi::PyObject, state: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type, and its argument.
        let (this, state) = unsafe { (Me::from_ptr(object), Bound::<PyAny>::from_borrowed_ptr(py, state)) };
        let lock = this.lock(py)?;
        match lock.getattr_opt("_acquire_restore")? {
            Some(restore) => gil::call(&restore, &[&state])?,
            None => gil::method(&lock, "acquire", &[])?,
        };
        Ok(none())
    })
}

noargs!(py_reinit, PyCondition, |py, this| {
    this.lock(py)?.call_method0("_at_fork_reinit")?;
    this.condition.reset();
    Ok(none())
});

unsafe extern "C" fn py_lock(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    entry(|py| Ok(unsafe { Me::from_ptr(object) }.lock(py)?.into_ptr()))
}

// A list as long as the line, for programs that count the standard library's waiters.
getter!(py_line, PyCondition, |py, this| {
    let list = PyList::empty(py);
    for _ in 0..this.condition.waiters() {
        list.append(py.None())?;
    }
    Ok(list.into_ptr())
});

unsafe extern "C" fn py_longest(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    let this = unsafe { Me::from_ptr(object) };
    observe::longest_wait(this.address(), this.condition.longest_wait())
}

unsafe extern "C" fn py_repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a slot of the type.
        let this = unsafe { Me::from_ptr(object) };
        let text = format!("<Condition({}, {})>", this.lock(py)?.repr()?, this.condition.waiters());
        Ok(PyString::new(py, &text).into_ptr())
    })
}

impl Native for PyCondition {
    type Entry = Entry;
    const NAME: &'static CStr = c"raddle.threading.Condition";
    const DOC: &'static CStr = c"Condition(lock=None, *, name=None)\n--\n\n\
        Threads wait, holding a lock, until another one notifies them: first come, first served.\n\n\
        `lock` is a Lock, an RLock or anything that behaves like one; without it a new RLock is made.\n\
        Follows CPython's `threading.Condition`.";
    const WHICH: Which = Which::Condition;
    const DICT: bool = true;

    fn fresh() -> Self {
        PyCondition {
            condition: Condition::new(),
            lock: AtomicPtr::new(std::ptr::null_mut()),
            sort: AtomicU8::new(Sort::Foreign as u8),
        }
    }

    fn init(this: Me<'_>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let py = args.py();
        let [lock, name] = args::tuple("Condition", ["lock", "name"], 1, args, kwargs)?;
        this.set_name(args::name(name.as_ref())?);
        let rlock = crate::types::get(py, crate::types::Slot::RLock);
        let lock = match lock.filter(|lock| !lock.is_none()) {
            Some(lock) => lock,
            None => rlock.call0()?,
        };
        let ty = lock.get_type();
        let sort = if ty.as_ptr() == rlock.as_ptr() {
            Sort::RLock
        } else if ty.as_ptr() == crate::types::get(py, crate::types::Slot::Lock).as_ptr() {
            Sort::Lock
        } else {
            // As the standard library: what has neither method is refused here, not at the first wait.
            lock.getattr("acquire")?;
            lock.getattr("release")?;
            Sort::Foreign
        };
        let old = this.lock.swap(lock.into_ptr(), Ordering::AcqRel);
        this.sort.store(sort as u8, Ordering::Release);
        // SAFETY: the core owned this reference.
        unsafe { ffi::Py_XDECREF(old) };
        Ok(())
    }

    fn traverse(&self, visit: &Visit) -> c_int {
        visit.call(self.lock.load(Ordering::Relaxed))
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        methods! {
            fast "acquire" (", *args") = py_acquire, "Take the lock, as its own method does.";
            noargs "release" ("") = py_release, "Release the lock.";
            noargs "__enter__" = py_enter, "Take the lock.";
            fast "__exit__" = py_exit, "Release the lock.";
            fast "wait" (", timeout=None") = py_wait,
                "Release the lock, wait for a notification, take the lock again.\n\n\
                 True if notified, False if `timeout` seconds passed first. RuntimeError if the lock is not held.";
            fast "wait_for" (", predicate, timeout=None") = py_wait_for,
                "Wait until predicate() is true; its last value, false if `timeout` seconds passed first.";
            fast "notify" (", n=1") = py_notify,
                "Wake up to n waiters, the longest waiting first. The lock must be held.";
            noargs "notify_all" ("") = py_notify_all, "Wake all waiters.";
            noargs "notifyAll" = py_notify_all_old, "A deprecated name of notify_all.";
            noargs "_is_owned" = py_is_owned, "Whether the lock is held.";
            noargs "_release_save" = py_release_save, "Let go of the lock altogether.";
            o "_acquire_restore" = py_acquire_restore, "Take the lock back.";
            noargs "_at_fork_reinit" = py_reinit, "Make it fresh, in a forked child.";
            noargs "__reduce__" = no_pickle, "Conditions cannot be pickled.";
        }
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        vec![
            get::<Self>(c"_lock", py_lock, c"The lock."),
            get::<Self>(c"_waiters", py_line, c"As many entries as threads wait."),
        ]
    }

    fn additions() -> Vec<(&'static CStr, ffi::getter)> {
        vec![(c"waiters", observe::py_waiters as ffi::getter), (c"longest_wait", py_longest as ffi::getter)]
    }

    fn slots() -> Vec<ffi::PyType_Slot> {
        vec![ffi::PyType_Slot { slot: ffi::Py_tp_repr, pfunc: py_repr as *mut c_void }]
    }
}
