//! `Event`.

use crate::args::{self, Patience, patience};
use crate::error::{entry, fetch};
use crate::gil::PyHost;
use crate::lock::{boolean, none};
use crate::native::{Entry, Native, This, Which, get, methods, no_pickle};
use crate::observe;
use crate::types::Slot;
use pyo3::types::{PyAnyMethods, PyString, PyTypeMethods};
use pyo3::{Bound, PyAny, PyResult, ffi};
use raddle::park::{Parking, Stop};
use raddle::sync::Event;
use raddle::trace::{HOOK, Kind, mode};
use std::ffi::{CStr, c_void};

type Me<'a> = This<'a, Event>;

unsafe extern "C" fn py_is_set(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    boolean(unsafe { Me::from_ptr(object) }.is_set())
}

unsafe extern "C" fn py_is_set_old(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        let category = py.get_type::<pyo3::exceptions::PyDeprecationWarning>();
        pyo3::PyErr::warn(py, &category, c"isSet() is deprecated, use is_set() instead", 1)?;
        // SAFETY: a method of the type.
        Ok(boolean(unsafe { Me::from_ptr(object) }.is_set()))
    })
}

unsafe extern "C" fn py_set(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    unsafe { Me::from_ptr(object) }.set();
    if mode() & HOOK != 0 {
        observe::released(Kind::Event, object as usize);
    }
    none()
}

unsafe extern "C" fn py_clear(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    unsafe { Me::from_ptr(object) }.clear();
    none()
}

unsafe extern "C" fn py_wait(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    entry(|py| {
        let [timeout] = args::fast(py, "wait", ["timeout"], 1, (args, count, keywords))?;
        if this.is_set() {
            return Ok(boolean(true));
        }
        let Patience::Until(deadline) = patience(timeout.as_ref())? else {
            return Ok(boolean(false));
        };
        args::check(deadline)?;
        let event: &Event = &this;
        let host = PyHost::new();
        let result = host.detached(|| {
            let mut parking = Parking::new(Kind::Event, event, this.address(), deadline, &host);
            event.wait_slow(&mut parking)
        });
        match result {
            Ok(()) => Ok(boolean(true)),
            Err(Stop::TimedOut) => Ok(boolean(false)),
            Err(Stop::Interrupted) => Err(fetch(py)),
        }
    })
}

/// Keeps the flag, which a forked child has from its parent; waiters need no repair.
unsafe extern "C" fn py_reinit(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of a type with a `__dict__`.
        let object = unsafe { Bound::<PyAny>::from_borrowed_ptr(py, object) };
        if let Ok(condition) = object.getattr("__dict__")?.get_item("_raddle_cond") {
            condition.call_method0("_at_fork_reinit")?;
        }
        Ok(none())
    })
}

/// `_cond` of Event and Semaphore: a condition of the standard library's shape, made when asked for.
pub(crate) unsafe extern "C" fn py_cond(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: an attribute of a type with a `__dict__`.
        let object = unsafe { Bound::<PyAny>::from_borrowed_ptr(py, object) };
        let dict = object.getattr("__dict__")?;
        if let Ok(condition) = dict.get_item("_raddle_cond") {
            return Ok(condition.into_ptr());
        }
        let lock = crate::lock::new(py)?;
        let condition = crate::types::get(py, Slot::Condition).call1((lock,))?;
        dict.set_item("_raddle_cond", &condition)?;
        Ok(condition.into_ptr())
    })
}

unsafe extern "C" fn py_flag(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    boolean(unsafe { Me::from_ptr(object) }.is_set())
}

unsafe extern "C" fn py_longest(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    let this = unsafe { Me::from_ptr(object) };
    observe::longest_wait(this.address(), Event::longest_wait(&this))
}

unsafe extern "C" fn py_repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a slot of the type.
        let this = unsafe { Me::from_ptr(object) };
        let ty = this.bound(py).get_type();
        let status = if this.is_set() { "set" } else { "unset" };
        let text = format!("<{}.{} at {:#x}: {status}>", ty.module()?, ty.qualname()?, this.address());
        Ok(PyString::new(py, &text).into_ptr())
    })
}

impl Native for Event {
    type Entry = Entry;
    const NAME: &'static CStr = c"raddle.threading.Event";
    const DOC: &'static CStr = c"Event(*, name=None)\n--\n\n\
        A flag that threads wait for.\n\n\
        set() never waits, so that finalizers and signal handlers may call it.\n\
        Follows CPython's `threading.Event`.";
    const WHICH: Which = Which::Event;
    const DICT: bool = true;

    fn fresh() -> Self {
        Event::new()
    }

    fn init(this: Me<'_>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let [name] = args::tuple("Event", ["name"], 0, args, kwargs)?;
        this.set_name(args::name(name.as_ref())?);
        Ok(())
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        methods! {
            noargs "is_set" ("") = py_is_set, "Whether the flag is up.";
            noargs "isSet" = py_is_set_old, "A deprecated name of is_set.";
            noargs "set" ("") = py_set, "Raise the flag and let everybody go who waits. Never waits.";
            noargs "clear" ("") = py_clear, "Lower the flag.";
            fast "wait" (", timeout=None") = py_wait,
                "Wait until the flag is up; False if `timeout` seconds passed first.\n\n\
                 Waits without the GIL; signals are handled meanwhile.";
            noargs "_at_fork_reinit" = py_reinit, "Make it usable in a forked child.";
            noargs "__reduce__" = no_pickle, "Events cannot be pickled.";
        }
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        vec![
            get::<Self>(c"_flag", py_flag, c"Whether the flag is up."),
            get::<Self>(c"_cond", py_cond, c"A condition, for programs that look for one."),
        ]
    }

    fn additions() -> Vec<(&'static CStr, ffi::getter)> {
        vec![(c"waiters", observe::py_waiters as ffi::getter), (c"longest_wait", py_longest as ffi::getter)]
    }

    fn slots() -> Vec<ffi::PyType_Slot> {
        vec![ffi::PyType_Slot { slot: ffi::Py_tp_repr, pfunc: py_repr as *mut c_void }]
    }
}
