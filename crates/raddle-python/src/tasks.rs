//! Tasks for worker processes as messages, and their replies as objects.
//!
//! A function that is pickled as its name goes beside its arguments: its pickle is made once, and plain arguments need no
//! pickler at all. How everything else is pickled, `raddle.multiprocessing` says: see [`set_pickling`].

use crate::channel::{PICKLE, with_parts};
use crate::error::discard;
use crate::gil;
use crate::message::PyMessage;
use crate::named::{Last, Named};
use crate::plain;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCFunction, PyDict, PyFunction, PyModule, PyTuple, PyType};
use pyo3::{IntoPyObjectExt, intern};
use raddle::workers::Reply;
use std::sync::{Arc, OnceLock};

/// As [`PICKLE`], which of a task is one of function, arguments and keywords; with large buffers outside of it.
pub(crate) const BUFFERS: u8 = 3;
/// A pickle of the arguments, then one of the function, then the length of that.
pub(crate) const CALL: u8 = 4;
/// The same, with large buffers of the arguments outside of their pickle.
pub(crate) const CALL_BUFFERS: u8 = 5;

/// Replies of at least this many bytes are unpickled where they are, and not copied.
const LARGE: usize = 16 * 1024;

/// Functions of `raddle.multiprocessing`.
struct Pickling {
    decode: Py<PyAny>,
    dump: Py<PyAny>,
    dump_task: Py<PyAny>,
}

static PICKLING: OnceLock<Pickling> = OnceLock::new();

/// Says how objects become messages, and messages objects.
///
/// `decode(tag, data)`: the object in a reply. `dump(object)`: the tag and the
/// parts of a message. `dump_task(fn, args, kwargs)`: the same of a task.
#[pyfunction]
pub(crate) fn set_pickling(decode: Py<PyAny>, dump: Py<PyAny>, dump_task: Py<PyAny>) {
    let _ = PICKLING.set(Pickling { decode, dump, dump_task });
}

fn pickling() -> PyResult<&'static Pickling> {
    PICKLING.get().ok_or_else(|| PyRuntimeError::new_err("raddle.multiprocessing has not been imported"))
}

/// The object in a reply.
pub(crate) fn decode<'py>(py: Python<'py>, reply: &Arc<Reply>) -> PyResult<Bound<'py, PyAny>> {
    if reply.tag == PICKLE
        && let Some(object) = plain::decode(py, &reply.bytes)
    {
        return Ok(object);
    }
    let data = match reply.bytes.len() < LARGE {
        true => PyBytes::new(py, &reply.bytes).into_any(),
        false => Bound::new(py, PyMessage::from(Arc::clone(reply)))?.into_any(),
    };
    gil::call(pickling()?.decode.bind(py), &[&reply.tag.into_bound_py_any(py)?, &data])
}

/// What a task's message is made of.
enum Body {
    Plain(Vec<u8>),
    /// Objects with bytes, and what comes behind them.
    Parts(Py<PyAny>, Vec<u8>),
}

/// A task that has been pickled.
pub(crate) struct Task {
    tag: u8,
    body: Body,
    /// The name of its function, or None.
    pub(crate) name: Py<PyAny>,
}

/// The same, for Python.
#[pyclass(frozen, module = "raddle._raddle", name = "Task")]
pub(crate) struct PyTask(pub(crate) Task);

impl Task {
    /// Runs `with` on the tag and the parts of the message.
    pub(crate) fn with_message<R>(&self, py: Python<'_>, with: impl FnOnce(u8, &[&[u8]]) -> R) -> PyResult<R> {
        match &self.body {
            Body::Plain(bytes) => Ok(with(self.tag, &[bytes])),
            Body::Parts(parts, behind) if behind.is_empty() => {
                with_parts(parts.bind(py), |parts| Ok(with(self.tag, parts)))
            }
            Body::Parts(parts, behind) => with_parts(parts.bind(py), |parts| {
                let mut parts = parts.to_vec();
                parts.push(behind);
                Ok(with(self.tag, &parts))
            }),
        }
    }
}

/// Pickles a task. `about`: what it is named after, if that is not its function.
///
/// Raises whatever pickling raises.
#[pyfunction]
#[pyo3(signature = (function, args, kwargs, about=None))]
pub(crate) fn pickle_task(
    function: &Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
    kwargs: &Bound<'_, PyDict>,
    about: Option<&Bound<'_, PyAny>>,
) -> PyResult<PyTask> {
    pickle(function, args, kwargs, about).map(PyTask)
}

/// See [`pickle_task`].
pub(crate) fn pickle(
    function: &Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
    kwargs: &Bound<'_, PyDict>,
    about: Option<&Bound<'_, PyAny>>,
) -> PyResult<Task> {
    let py = function.py();
    let mut behind = Vec::new();
    let mut name = None;
    let named = kwargs.is_empty()
        && with_named(function, |named| {
            behind.extend_from_slice(&named.pickle);
            behind.extend((named.pickle.len() as u32).to_le_bytes());
            name = Some(named.name.clone_ref(py).into_any());
        })?;
    let name = match (about, name) {
        (None, Some(name)) => name,
        (about, _) => name_of(about.unwrap_or(function)),
    };
    if named {
        let mut bytes = Vec::with_capacity(64 + behind.len());
        if plain::encode(args, &mut bytes) {
            bytes.extend(behind);
            return Ok(Task { tag: CALL, body: Body::Plain(bytes), name });
        }
        match parts_of(gil::call(pickling()?.dump.bind(py), &[args.as_any()])) {
            Ok((tag, parts)) => {
                let tag = if tag == BUFFERS { CALL_BUFFERS } else { CALL };
                return Ok(Task { tag, body: Body::Parts(parts, behind), name });
            }
            // Another pickler may be able to.
            Err(error) if error.is_instance_of::<pyo3::exceptions::PyException>(py) => discard(py, error),
            Err(error) => return Err(error),
        }
    }
    let dumped = gil::call(pickling()?.dump_task.bind(py), &[function, args.as_any(), kwargs.as_any()]);
    let (tag, parts) = parts_of(dumped)?;
    Ok(Task { tag, body: Body::Parts(parts, Vec::new()), name })
}

fn parts_of(dumped: PyResult<Bound<'_, PyAny>>) -> PyResult<(u8, Py<PyAny>)> {
    dumped?.extract()
}

fn name_of(function: &Bound<'_, PyAny>) -> Py<PyAny> {
    let py = function.py();
    match gil::attribute(function, "__qualname__") {
        Ok(name) => name.unbind(),
        Err(error) => {
            discard(py, error);
            py.None()
        }
    }
}

/// Runs `with` if a function is one that pickle writes as its name. Whether it did.
fn with_named(function: &Bound<'_, PyAny>, with: impl FnOnce(&Named)) -> PyResult<bool> {
    static LAST: Last = Last::new();
    let py = function.py();
    let mut with = Some(with);
    let mut once = |named: &Named| with.take().map(|with| with(named)).is_some();
    if LAST.find(py, |named| named.function.is(function), &mut once).is_some() {
        return Ok(true);
    }
    if !is_pickled_as_name(function) {
        return Ok(false);
    }
    let (tag, parts) = match parts_of(gil::call(pickling()?.dump.bind(py), &[function])) {
        Ok(dumped) => dumped,
        // It will be told when all of the task is pickled.
        Err(error) if error.is_instance_of::<pyo3::exceptions::PyException>(py) => {
            discard(py, error);
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    if tag != PICKLE {
        return Ok(false);
    }
    let pickle = with_parts(parts.bind(py), |parts| Ok(parts.concat()))?;
    let Some(named) = Named::new(function, &pickle)? else { return Ok(false) };
    once(&named);
    LAST.keep(named);
    Ok(true)
}

fn is_pickled_as_name(function: &Bound<'_, PyAny>) -> bool {
    if function.cast_exact::<PyCFunction>().is_ok() {
        let owner = gil::attribute_of(function, intern!(function.py(), "__self__"));
        return owner.is_ok_and(|owner| owner.cast_exact::<PyModule>().is_ok());
    }
    function.cast_exact::<PyFunction>().is_ok() || function.cast_exact::<PyType>().is_ok()
}
