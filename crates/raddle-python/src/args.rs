//! Arguments: positional and keyword, and the time-outs that Python's locks take.

use crate::error::fetch;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::types::{PyAnyMethods, PyDictMethods, PyTupleMethods, PyTypeMethods};
use pyo3::{Bound, PyAny, PyResult, Python, ffi};
use raddle::park::{Deadline, now};

/// The largest time-out, in seconds: `threading.TIMEOUT_MAX`.
const TIMEOUT_MAX: f64 = 9_223_372_036.0;

/// The one argument of a call, by position or by this name.
///
/// # Errors
/// `TypeError` if there is not exactly that.
#[inline]
pub(crate) fn one<'py>(
    py: Python<'py>,
    function: &str,
    name: &str,
    (args, count, keywords): (*const *mut ffi::PyObject, ffi::Py_ssize_t, *mut ffi::PyObject),
) -> PyResult<Bound<'py, PyAny>> {
    if count == 1 && keywords.is_null() {
        // SAFETY: the interpreter passes `count` live arguments.
        return Ok(unsafe { Bound::from_borrowed_ptr(py, *args) });
    }
    let [value] = fast(py, function, [name], 1, (args, count, keywords))?;
    value.ok_or_else(|| PyTypeError::new_err(format!("{function}() missing 1 required positional argument: '{name}'")))
}

/// Sorts the arguments of a fast call into the places of `names`; a missing one is `None`.
///
/// The first `positional` of them may be given by position.
///
/// # Errors
/// `TypeError` for too many, unknown or doubled arguments.
pub(crate) fn fast<'py, const N: usize>(
    py: Python<'py>,
    function: &str,
    names: [&str; N],
    positional: usize,
    (args, count, keywords): (*const *mut ffi::PyObject, ffi::Py_ssize_t, *mut ffi::PyObject),
) -> PyResult<[Option<Bound<'py, PyAny>>; N]> {
    let mut found: [Option<Bound<'py, PyAny>>; N] = [const { None }; N];
    // SAFETY: the interpreter passes `count` positional arguments and behind them one for each keyword.
    let (given, keywords) = unsafe {
        let keywords = Bound::from_borrowed_ptr_or_opt(py, keywords);
        let extra = keywords.as_ref().map_or(0, |names| names.len().unwrap_or(0));
        (std::slice::from_raw_parts(args, count as usize + if args.is_null() { 0 } else { extra }), keywords)
    };
    let count = count as usize;
    if count > positional {
        return Err(PyTypeError::new_err(format!(
            "{function}() takes at most {positional} positional argument{} ({count} given)",
            if positional == 1 { "" } else { "s" }
        )));
    }
    for (place, object) in found.iter_mut().zip(&given[..count]) {
        // SAFETY: a live argument.
        *place = Some(unsafe { Bound::from_borrowed_ptr(py, *object) });
    }
    if let Some(keywords) = keywords {
        let keywords = keywords.cast_into::<pyo3::types::PyTuple>()?;
        for (keyword, object) in keywords.iter().zip(&given[count..]) {
            // SAFETY: a live argument.
            let value = unsafe { Bound::from_borrowed_ptr(py, *object) };
            put(function, names, &mut found, &keyword, value)?;
        }
    }
    Ok(found)
}

/// The same for `__init__` and `__new__`.
///
/// # Errors
/// As [`fast`].
pub(crate) fn tuple<'py, const N: usize>(
    function: &str,
    names: [&str; N],
    positional: usize,
    args: &Bound<'py, PyAny>,
    kwargs: Option<&Bound<'py, PyAny>>,
) -> PyResult<[Option<Bound<'py, PyAny>>; N]> {
    let mut found: [Option<Bound<'py, PyAny>>; N] = [const { None }; N];
    let args = args.cast::<pyo3::types::PyTuple>()?;
    if args.len() > positional {
        return Err(PyTypeError::new_err(format!(
            "{function}() takes at most {positional} positional argument{} ({} given)",
            if positional == 1 { "" } else { "s" },
            args.len()
        )));
    }
    for (place, value) in found.iter_mut().zip(args.iter()) {
        *place = Some(value);
    }
    if let Some(kwargs) = kwargs {
        for (keyword, value) in kwargs.cast::<pyo3::types::PyDict>()?.iter() {
            put(function, names, &mut found, &keyword, value)?;
        }
    }
    Ok(found)
}

fn put<'py, const N: usize>(
    function: &str,
    names: [&str; N],
    found: &mut [Option<Bound<'py, PyAny>>; N],
    keyword: &Bound<'py, PyAny>,
    value: Bound<'py, PyAny>,
) -> PyResult<()> {
    let keyword = keyword.extract::<String>()?;
    let Some(at) = names.iter().position(|name| *name == keyword) else {
        return Err(PyTypeError::new_err(format!("{function}() got an unexpected keyword argument '{keyword}'")));
    };
    if found[at].replace(value).is_some() {
        return Err(PyTypeError::new_err(format!("{function}() got multiple values for argument '{keyword}'")));
    }
    Ok(())
}

/// Whether an argument is true; `default` if it is missing.
///
/// # Errors
/// What its `__bool__` raises.
pub(crate) fn truth(value: Option<&Bound<'_, PyAny>>, default: bool) -> PyResult<bool> {
    value.map_or(Ok(default), crate::gil::truth)
}

/// How many seconds an argument stands for, as the standard library's C code reads it.
///
/// # Errors
/// `TypeError` if it is neither a float nor an integer, `ValueError` if it is not a number.
fn seconds(value: &Bound<'_, PyAny>) -> PyResult<f64> {
    // SAFETY: a live object.
    if unsafe { ffi::PyFloat_Check(value.as_ptr()) == 0 && ffi::PyIndex_Check(value.as_ptr()) == 0 } {
        let text = format!("'{}' object cannot be interpreted as an integer", value.get_type().name()?);
        return Err(PyTypeError::new_err(text));
    }
    // SAFETY: a live object.
    let seconds = unsafe { ffi::PyFloat_AsDouble(value.as_ptr()) };
    if seconds == -1.0 {
        // SAFETY: attached.
        if !unsafe { ffi::PyErr_Occurred() }.is_null() {
            let error = fetch(value.py());
            if error.is_instance_of::<PyOverflowError>(value.py()) {
                return Err(PyOverflowError::new_err("timeout value is too large"));
            }
            return Err(error);
        }
    }
    if seconds.is_nan() {
        return Err(PyValueError::new_err("Invalid value NaN (not a number)"));
    }
    Ok(seconds)
}

/// The deadline this many seconds from now.
///
/// # Errors
/// `OverflowError` beyond `TIMEOUT_MAX`.
fn after(seconds: f64) -> PyResult<Deadline> {
    if seconds > TIMEOUT_MAX {
        return Err(PyOverflowError::new_err("timeout value is too large"));
    }
    Ok(Deadline::at(now().saturating_add((seconds * 1e9).ceil() as u64).min(u64::MAX - 1)))
}

/// What a call that may wait was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not to wait.
    None,
    /// To wait until then.
    Until(Deadline),
}

/// `acquire(blocking=True, timeout=-1)` of locks: -1 waits without limit, other negative values are errors.
///
/// # Errors
/// As CPython's `lock.acquire`.
pub(crate) fn lock_patience(
    blocking: Option<&Bound<'_, PyAny>>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<Patience> {
    // Before 3.12 the standard library reads an integer here.
    let blocking = match blocking {
        Some(blocking) if cfg!(not(Py_3_12)) => blocking.extract::<i32>()? != 0,
        blocking => truth(blocking, true)?,
    };
    let seconds = timeout.map_or(Ok(-1.0), seconds)?;
    if !blocking && seconds != -1.0 {
        return Err(PyValueError::new_err("can't specify a timeout for a non-blocking call"));
    }
    if seconds < -TIMEOUT_MAX {
        return Err(PyOverflowError::new_err("timestamp too large to convert to C PyTime_t"));
    }
    if seconds < 0.0 && seconds != -1.0 {
        return Err(PyValueError::new_err(if cfg!(Py_3_13) {
            "timeout value must be a non-negative number"
        } else {
            "timeout value must be positive"
        }));
    }
    if !blocking {
        return Ok(Patience::None);
    }
    Ok(Patience::Until(if seconds < 0.0 { Deadline::NEVER } else { after(seconds)? }))
}

/// Stands for a time-out beyond `TIMEOUT_MAX`, which is an error only for a call that has to wait.
const TOO_LONG: Deadline = Deadline::at(u64::MAX - 1);

/// To be asked before a wait.
///
/// # Errors
/// `OverflowError` if the time-out was beyond `TIMEOUT_MAX`.
pub(crate) fn check(deadline: Deadline) -> PyResult<()> {
    if deadline == TOO_LONG { Err(PyOverflowError::new_err("timeout value is too large")) } else { Ok(()) }
}

/// `timeout=None` of the other waits: `None` waits without limit, what is not positive does not wait. To be
/// [`check`]ed before the wait.
///
/// # Errors
/// `TypeError` if it is no number.
pub(crate) fn patience(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Patience> {
    let Some(timeout) = timeout.filter(|timeout| !timeout.is_none()) else {
        return Ok(Patience::Until(Deadline::NEVER));
    };
    // SAFETY: a live object.
    let seconds = unsafe { ffi::PyFloat_AsDouble(timeout.as_ptr()) };
    // SAFETY: attached.
    if seconds == -1.0 && !unsafe { ffi::PyErr_Occurred() }.is_null() {
        let error = fetch(timeout.py());
        if error.is_instance_of::<PyOverflowError>(timeout.py()) {
            return Ok(Patience::Until(TOO_LONG));
        }
        return Err(error);
    }
    Ok(match seconds {
        seconds if seconds > TIMEOUT_MAX => Patience::Until(TOO_LONG),
        seconds if seconds > 0.0 => Patience::Until(after(seconds)?),
        _ => Patience::None,
    })
}

/// The `name=` of a constructor: a `str` or `None`.
///
/// # Errors
/// `TypeError` for anything else.
pub(crate) fn name<'a, 'py>(value: Option<&'a Bound<'py, PyAny>>) -> PyResult<Option<&'a Bound<'py, PyAny>>> {
    match value {
        Some(name) if name.is_none() => Ok(None),
        Some(name) if !name.is_instance_of::<pyo3::types::PyString>() => {
            Err(PyTypeError::new_err(format!("name must be str or None, not {}", name.get_type().name()?)))
        }
        other => Ok(other),
    }
}
