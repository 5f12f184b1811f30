//! A worker process at work: takes tasks from its channel, runs them, and replies.
//!
//! Plain arguments and results take no detour through Python, and a function that is sent by its name is looked up once.
//! What is rare, errors above all, is left to `raddle.multiprocessing._worker`.

use crate::channel::{PICKLE, PyChannel, Raw, Small};
use crate::error::{discard, into_value};
use crate::gil;
use crate::message::PyMessage;
use crate::named::{Last, Named};
use crate::plain;
use crate::tasks::{BUFFERS, CALL, CALL_BUFFERS};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyEOFError, PyMemoryError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PySlice, PyTuple};
use raddle::park::now;
use raddle::workers::{NUMBER, SHIFT, TAIL, kind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Before it in a call: how long the pickle of the function is.
const LENGTH: usize = 4;

/// After so many tasks other threads of the worker get a turn, if they wait for one.
const TURN: u32 = 128;

/// What a task's message says.
struct Call<'py> {
    function: Bound<'py, PyAny>,
    args: Bound<'py, PyAny>,
    kwargs: Option<Bound<'py, PyAny>>,
}

/// What has become of a task.
enum Called<'py> {
    Returned(Bound<'py, PyAny>),
    /// The message says nothing that can be called.
    Unreadable(PyErr),
}

/// The tasks of one worker process. Used by one thread.
#[pyclass(module = "raddle._raddle", name = "Server", frozen)]
pub(crate) struct PyServer {
    channel: Py<PyChannel>,
    loads: Py<PyAny>,
    decode: Py<PyAny>,
    /// What does the rest: `reply(tail, result)`, `raised(tail, error)`, `unreadable(tail, error)`,
    /// `refused(error)`.
    worker: Py<PyAny>,
    stopped: Py<PyAny>,
    running: AtomicU64,
    known: Last,
}

#[pymethods]
impl PyServer {
    /// `stopped`: the exception by which a task is stopped.
    #[new]
    fn new(channel: Py<PyChannel>, loads: Py<PyAny>, decode: Py<PyAny>, worker: Py<PyAny>, stopped: Py<PyAny>) -> Self {
        Self { channel, loads, decode, worker, stopped, running: AtomicU64::new(0), known: Last::new() }
    }

    /// The number of the task that runs; 0 if none does.
    #[getter]
    fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    /// Whether the task that runs is to stop.
    fn is_to_stop(&self) -> PyResult<bool> {
        let running = self.running();
        Ok(running != 0 && self.channel.get().request()? == running)
    }

    /// Serves until there are no more tasks.
    ///
    /// Raises what a signal handler raises between tasks, and BrokenPipeError if there is nobody to reply to.
    fn serve(&self, py: Python<'_>) -> PyResult<()> {
        let channel = self.channel.bind(py);
        let mut small = Small::new();
        let mut turn = 0;
        loop {
            turn += 1;
            if turn == TURN {
                turn = 0;
                gil::give_way(py)?;
            }
            gil::check_signals(py)?;
            let (data, tag) = match PyChannel::receive_task(channel, &mut small, is_changed) {
                Ok(received) => received,
                Err(error) if error.is_instance_of::<PyEOFError>(py) => {
                    discard(py, error);
                    return Ok(());
                }
                Err(error) if error.is_instance_of::<PyOSError>(py) || error.is_instance_of::<PyMemoryError>(py) => {
                    // There is no room for the task, nor for those that may come behind it.
                    let error = into_value(py, error);
                    let told = self.tell(py, "refused", &[&error]);
                    gil::release(error);
                    return told.map(gil::release);
                }
                Err(error) => return Err(error),
            };
            if tag >> SHIFT != kind::TASK {
                return Ok(());
            }
            self.run(channel, tag, data)?;
        }
    }
}

fn is_changed(tag: u8) -> bool {
    tag == BUFFERS || tag == CALL_BUFFERS
}

/// The bytes of a message, which nobody changes while they are looked at.
fn bytes_of<'a>(data: &'a Raw<'_, '_>) -> &'a [u8] {
    match data {
        Raw::Small(bytes) => bytes,
        Raw::Object(object) => match object.cast_exact::<PyBytes>() {
            Ok(bytes) => bytes.as_bytes(),
            Err(_) => match object.cast_exact::<PyByteArray>() {
                // SAFETY: the object is new and known to nobody else; the bytes are not kept beyond this look.
                Ok(bytes) => unsafe { bytes.as_bytes() },
                Err(_) => object.cast_exact::<PyMessage>().map_or(&[], |message| message.get().bytes()),
            },
        },
    }
}

impl PyServer {
    fn tell<'py>(&self, py: Python<'py>, what: &str, args: &[&Bound<'py, PyAny>]) -> PyResult<Bound<'py, PyAny>> {
        gil::method(self.worker.bind(py), what, args)
    }

    fn run<'py>(&self, channel: &Bound<'py, PyChannel>, tag: u8, data: Raw<'py, '_>) -> PyResult<()> {
        let py = channel.py();
        let number: [u8; NUMBER] = match bytes_of(&data).last_chunk() {
            Some(number) => *number,
            None => return Err(PyValueError::new_err("a task without a number")),
        };
        self.running.store(u64::from_le_bytes(number), Ordering::Relaxed);
        let began = now();
        // The signal to stop may have come before.
        let outcome = if self.is_to_stop()? { None } else { Some(self.call(py, tag, data)) };
        self.running.store(0, Ordering::Relaxed);
        let mut tail = [0; TAIL];
        tail[..TAIL - NUMBER].copy_from_slice(&(now() - began).to_le_bytes());
        tail[TAIL - NUMBER..].copy_from_slice(&number);
        match outcome {
            Some(Ok(Called::Returned(result))) => self.reply(channel, &tail, result),
            Some(Ok(Called::Unreadable(error))) => self.tell_error(py, "unreadable", &tail, error),
            Some(Err(error)) if !error.get_type(py).is(self.stopped.bind(py)) => {
                self.tell_error(py, "raised", &tail, error)
            }
            stopped => {
                if let Some(Err(error)) = stopped {
                    discard(py, error);
                }
                PyChannel::send_reply(channel, kind::STOPPED << SHIFT, &[&tail])
            }
        }
    }

    /// Calls the function of a task. Errors are the function's, and those by which it is stopped.
    fn call<'py>(&self, py: Python<'py>, tag: u8, data: Raw<'py, '_>) -> PyResult<Called<'py>> {
        let Call { function, args, kwargs } = match self.read(py, tag, data) {
            Ok(call) => call,
            Err(error) if self.is_final(py, &error) => return Err(error),
            Err(error) => return Ok(Called::Unreadable(error)),
        };
        let result = gil::call_tuple(&function, &args, kwargs.as_ref());
        gil::release(function);
        gil::release(args);
        if let Some(kwargs) = kwargs {
            gil::release(kwargs);
        }
        result.map(Called::Returned)
    }

    fn tell_error(&self, py: Python<'_>, what: &str, tail: &[u8], error: PyErr) -> PyResult<()> {
        let (tail, error) = (PyBytes::new(py, tail).into_any(), into_value(py, error));
        let told = self.tell(py, what, &[&tail, &error]);
        gil::release(error);
        told.map(gil::release)
    }

    fn reply(&self, channel: &Bound<'_, PyChannel>, tail: &[u8], result: Bound<'_, PyAny>) -> PyResult<()> {
        let py = channel.py();
        let mut message = Vec::new();
        if plain::encode(&result, &mut message) {
            gil::release(result);
            message.extend_from_slice(tail);
            return match PyChannel::send_reply(channel, kind::RESULT << SHIFT | PICKLE, &[&message]) {
                Err(error) if error.is_instance_of::<PyOSError>(py) && !is_broken(py, &error) => {
                    self.tell_error(py, "raised", tail, error)
                }
                sent => sent,
            };
        }
        let told = self.tell(py, "reply", &[&PyBytes::new(py, tail).into_any(), &result]);
        gil::release(result);
        told.map(gil::release)
    }

    /// Function and arguments of a task.
    fn read<'py>(&self, py: Python<'py>, tag: u8, data: Raw<'py, '_>) -> PyResult<Call<'py>> {
        match tag {
            CALL | CALL_BUFFERS => self.read_call(py, tag, data),
            _ => self.read_task(py, tag, data),
        }
    }

    fn is_final(&self, py: Python<'_>, error: &PyErr) -> bool {
        error.get_type(py).is(self.stopped.bind(py))
            || error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py)
    }

    fn read_call<'py>(&self, py: Python<'py>, tag: u8, data: Raw<'py, '_>) -> PyResult<Call<'py>> {
        let bytes = bytes_of(&data);
        let short = || PyValueError::new_err("a task that is shorter than it says");
        let body = &bytes[..bytes.len() - NUMBER];
        let (body, length) = body.split_last_chunk::<LENGTH>().ok_or_else(short)?;
        let at = body.len().checked_sub(u32::from_le_bytes(*length) as usize).ok_or_else(short)?;
        let function = self.function(py, &body[at..])?;
        let args = match tag {
            // What stands behind a pickle does not matter to it.
            CALL => match plain::decode(py, bytes) {
                Some(args) => args,
                None => gil::call(self.loads.bind(py), &[&object_of(py, data)])?,
            },
            _ => self.decode(py, &object_of(py, data), at)?,
        };
        match args.cast_exact::<PyTuple>() {
            Ok(_) => Ok(Call { function, args, kwargs: None }),
            Err(_) => Err(PyValueError::new_err("the arguments of a task are no tuple")),
        }
    }

    fn read_task<'py>(&self, py: Python<'py>, tag: u8, data: Raw<'py, '_>) -> PyResult<Call<'py>> {
        let end = bytes_of(&data).len() - NUMBER;
        let data = object_of(py, data);
        let call = match tag {
            BUFFERS => self.decode(py, &data, end)?,
            _ => gil::call(self.loads.bind(py), &[&data])?,
        };
        let (function, args, kwargs) = call.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
        Ok(Call { function, args, kwargs: Some(kwargs) })
    }

    /// The object in the first bytes of a message with buffers.
    fn decode<'py>(&self, py: Python<'py>, data: &Bound<'py, PyAny>, end: usize) -> PyResult<Bound<'py, PyAny>> {
        let view = PyMemoryView::from(data)?;
        let part = view.get_item(PySlice::new(py, 0, end as isize, 1))?;
        drop(view);
        gil::call(self.decode.bind(py), &[&BUFFERS.into_bound_py_any(py)?, &part])
    }

    /// The function of a pickle that holds nothing but its name.
    fn function<'py>(&self, py: Python<'py>, pickle: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let known = self.known.find(py, |named| named.pickle == pickle, |named| named.function.bind(py).clone());
        if let Some(function) = known {
            return Ok(function);
        }
        let function = gil::call(self.loads.bind(py), &[PyBytes::new(py, pickle).as_any()])?;
        match Named::new(&function, pickle) {
            Ok(Some(named)) => self.known.keep(named),
            Ok(None) => {}
            Err(error) => discard(py, error),
        }
        Ok(function)
    }
}

fn object_of<'py>(py: Python<'py>, data: Raw<'py, '_>) -> Bound<'py, PyAny> {
    match data {
        Raw::Object(object) => object,
        Raw::Small(bytes) => PyBytes::new(py, bytes).into_any(),
    }
}

fn is_broken(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<pyo3::exceptions::PyBrokenPipeError>(py)
}
