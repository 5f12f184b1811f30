//! Channels between processes: queues and the ends of pipes.
//!
//! A small message is copied while attached; a large one, and every wait, detached. Objects are turned into bytes and
//! back outside of all locks.

use crate::args::{self, Patience, patience};
use crate::error::fetch;
use crate::gil::{self, PyHost};
use crate::message::PyMessage;
use crate::plain;
use crate::queue::{empty, full, shut_down};
use crate::site;
use crate::watch::{Sought, Watch};
use pyo3::exceptions::{PyBrokenPipeError, PyEOFError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyString};
use pyo3::{IntoPyObjectExt, ffi};
use raddle::ipc::watch::Awaited;
use raddle::ipc::{Bell, Bytes, Channel, Limits, Memory, RecvError, SendError, fetch_memory};
use raddle::park::{Deadline, Outside, Parking, Stop, now};
use raddle::primitive::Spin;
use raddle::trace::{Claim, Kind, Resource, Waker};
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A pickle. What else the module that calls makes of tags is its own business.
pub(crate) const PICKLE: u8 = 0;
/// A bytes object as it is.
const BYTES: u8 = 1;
/// A string, in UTF-8.
const TEXT: u8 = 2;

/// Messages with later tags are given to Python as bytearrays, whose parts may become objects that can be changed.
const LAST: u8 = TEXT;

/// Messages up to this size are received on the stack first.
const SMALL: usize = 2048;
/// From this size on a message is copied detached: others may run while it is.
const LARGE: usize = 256 * 1024;

/// From this size on a message may wait for readers that are far behind, for a moment.
const PATIENT: usize = 64 * 1024;

/// How long a call that does not wait for messages waits for a lock that another process holds.
const BUSY: Duration = Duration::from_millis(100);

struct Ends {
    incoming: Channel,
    outgoing: Channel,
}

/// A queue between processes, or one end of a pipe.
#[pyclass(frozen, module = "raddle._raddle", name = "Channel")]
pub(crate) struct PyChannel {
    ends: Spin<Option<Arc<Ends>>>,
    /// What a pickle is read with, and what a message with a tag of Python's: `loads(data)`, `decode(tag, data)`.
    loads: Py<PyAny>,
    decode: Py<PyAny>,
    is_pipe: bool,
    /// Whether waits are told to other processes: not those of a pool's workers, which the pool knows.
    told: bool,
    /// Whether something has been sent from this object.
    used: AtomicBool,
}

/// The bytes of an object, for as long as this lives.
struct Borrowed {
    view: ffi::Py_buffer,
}

impl Borrowed {
    fn new(object: &Bound<'_, PyAny>, flags: std::ffi::c_int) -> PyResult<Self> {
        let mut view = MaybeUninit::<ffi::Py_buffer>::zeroed();
        // SAFETY: a live object, and room for a view, which is filled in on success.
        unsafe {
            if ffi::PyObject_GetBuffer(object.as_ptr(), view.as_mut_ptr(), flags) != 0 {
                return Err(fetch(object.py()));
            }
            Ok(Self { view: view.assume_init() })
        }
    }

    fn slice(&self) -> &[u8] {
        // SAFETY: a contiguous buffer, exported until `view` is released. Its owner may change it meanwhile from another
        // thread; then the message is a mixture, which is its own affair, as with `os.write`.
        unsafe {
            match NonNull::new(self.view.buf.cast::<u8>()) {
                Some(start) => std::slice::from_raw_parts(start.as_ptr(), self.view.len as usize),
                None => &[],
            }
        }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // SAFETY: filled in by PyObject_GetBuffer and not released yet; attached. May run a finalizer.
        gil::python(|| unsafe { ffi::PyBuffer_Release(&mut self.view) });
    }
}

pub(crate) fn failed(error: std::io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default().to_owned();
            PyOSError::new_err((number, text))
        }
        // What the core found wrong itself.
        None => PyOSError::new_err((libc::EBADMSG, error.to_string())),
    }
}

fn closed() -> PyErr {
    PyOSError::new_err("handle is closed")
}

/// What can be waited for in a channel.
#[derive(Clone, Copy)]
enum For {
    Message,
    /// Room for a message of this length.
    Room(usize),
    /// That a message which is longer than the bound has been taken.
    Taken,
    /// That all messages are reported done.
    Done,
    /// For the readers' lock only.
    Readers,
    /// For a moment, that the readers catch up.
    CaughtUp,
    /// For both locks, to shut it; at once?
    Shut(bool),
}

impl For {
    fn wait(self, channel: &Channel, parking: &mut Parking<'_>) -> Result<(), Stop> {
        match self {
            For::Message => channel.wait_message(parking),
            For::Room(length) => channel.wait_room(length, parking),
            For::Taken => channel.wait_within_bound(parking),
            For::Done => channel.wait_done(parking),
            For::Readers => channel.wait_readers(parking),
            For::CaughtUp => channel.wait_caught_up(parking),
            For::Shut(immediate) => channel.shut(immediate, parking),
        }
    }

    /// Whether it has not come.
    fn lacks(self, channel: &Channel) -> bool {
        match self {
            For::Message => !channel.is_ready() && !channel.has_no_reader(),
            For::Room(length) => channel.is_full(length) && !channel.has_no_reader(),
            For::Taken => channel.is_beyond_bound() && !channel.has_no_reader(),
            For::Done => channel.is_unfinished(),
            For::Readers | For::CaughtUp | For::Shut(_) => true,
        }
    }

    /// What others are told, if it is for others to bring about.
    fn awaited(self, channel: &Channel) -> Option<Awaited> {
        match self {
            For::Message => Some(Awaited::Message(channel.number())),
            For::Room(_) | For::Taken => Some(Awaited::Room(channel.number())),
            For::Done => Some(Awaited::Done(channel.number())),
            For::Readers | For::CaughtUp | For::Shut(_) => None,
        }
    }
}

/// A wait of a channel: who asks, and for what.
struct Asked<'a> {
    kind: Kind,
    name: usize,
    host: &'a PyHost,
    patience: Patience,
    told: bool,
}

impl Asked<'_> {
    /// When to stop waiting for what is asked for, and when for a lock.
    fn deadline(&self, busy: bool) -> Option<Deadline> {
        match self.patience {
            Patience::Until(deadline) => Some(deadline),
            Patience::None if busy => Some(Deadline::after(BUSY)),
            Patience::None => None,
        }
    }

    /// Waits detached. False if the time is up.
    fn wait(&self, py: Python<'_>, channel: &Channel, deadline: Deadline, what: For) -> PyResult<bool> {
        args::check(deadline)?;
        let ended = self.host.detached(|| {
            let (name, lacks) = (|| channel.name(), || what.lacks(channel));
            let awaited = what.awaited(channel).filter(|_| self.told);
            let sought = |awaited| Sought { kind: self.kind, awaited, arena: None, name: &name, lacks: &lacks };
            let mut watch = awaited.map(|awaited| Watch::new(self.host, sought(awaited), deadline));
            let mut parking = Parking::new(self.kind, channel, self.name, deadline, self.host);
            if let Some(watch) = &mut watch {
                parking.watch(watch);
            }
            what.wait(channel, &mut parking)
        });
        match ended {
            Ok(()) => Ok(true),
            Err(Stop::TimedOut) => Ok(false),
            Err(Stop::Interrupted) => Err(fetch(py)),
        }
    }
}

impl PyChannel {
    fn ends(&self) -> PyResult<Arc<Ends>> {
        self.ends.lock().clone().ok_or_else(closed)
    }

    fn asked<'a>(&self, kind: (Kind, Kind), name: usize, host: &'a PyHost, patience: Patience) -> Asked<'a> {
        Asked { kind: if self.is_pipe { kind.1 } else { kind.0 }, name, host, patience, told: self.told }
    }

    fn send_parts(&self, py: Python<'_>, name: usize, tag: u8, parts: &[&[u8]], patience: Patience) -> PyResult<()> {
        let ends = self.ends()?;
        self.used.store(true, Ordering::Relaxed);
        let channel = &ends.outgoing;
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut parcel = None;
        let mut attempt = |host: &PyHost| {
            if length < LARGE {
                return channel.try_send(tag, parts);
            }
            host.detached(|| match parcel.get_or_insert_with(|| channel.parcel(parts)) {
                Some(parcel) => channel.try_send_parcel(tag, parcel),
                None => channel.try_send(tag, parts),
            })
        };
        let host = PyHost::new();
        let asked = self.asked((Kind::QueuePut, Kind::Send), name, &host, patience);
        if length >= PATIENT && patience != Patience::None && channel.is_far_ahead() {
            // A nanosecond for each byte: about what it takes to copy the message.
            let limit = Deadline::after(Duration::from_nanos(length as u64));
            asked.wait(py, channel, limit, For::CaughtUp)?;
        }
        let mut over = false;
        loop {
            let busy = match attempt(&host) {
                Ok(()) => break,
                Err(SendError::Shut) => return Err(shut_down(py)),
                Err(SendError::Gone) => return Err(PyBrokenPipeError::new_err((libc::EPIPE, "Broken pipe"))),
                Err(SendError::Failed(error)) => return Err(failed(error)),
                Err(SendError::Full) => false,
                Err(SendError::Busy) => true,
            };
            match asked.deadline(busy) {
                Some(deadline) if !over => {
                    over = !asked.wait(py, channel, deadline, For::Room(length))?;
                    over |= patience == Patience::None || deadline.is_past();
                }
                _ => return Err(full(py)),
            }
        }
        // As over a pipe of the operating system, a message that does not go into it waits for its reader.
        if self.is_pipe && channel.limits().bytes > 0 && length as u64 > channel.limits().bytes {
            asked.wait(py, channel, Deadline::NEVER, For::Taken)?;
            if channel.has_no_reader() && channel.is_ready() {
                return Err(PyBrokenPipeError::new_err((libc::EPIPE, "Broken pipe")));
            }
        }
        Ok(())
    }

    /// The next message: a bytes object, or what `room` made of it.
    fn receive_with<R>(
        &self,
        py: Python<'_>,
        name: usize,
        patience: Patience,
        mut attempt: impl FnMut(&Channel, &PyHost) -> PyResult<Result<R, RecvError>>,
    ) -> PyResult<R> {
        let ends = self.ends()?;
        let channel = &ends.incoming;
        let host = PyHost::new();
        let asked = self.asked((Kind::QueueGet, Kind::Receive), name, &host, patience);
        let (mut over, mut waited) = (false, false);
        loop {
            let busy = match attempt(channel, &host)? {
                Ok(received) => return Ok(received),
                Err(RecvError::Shut) => return Err(shut_down(py)),
                Err(RecvError::Gone) => return Err(PyEOFError::new_err(())),
                Err(RecvError::Failed(error)) => return Err(failed(error)),
                // Another reader has taken the one that room was made for.
                Err(RecvError::NoRoom(..) | RecvError::Apart) => continue,
                Err(RecvError::Busy) => true,
                Err(RecvError::Empty) => {
                    channel.nothing_there();
                    // A wait ends at the end too.
                    if (waited || patience == Patience::None) && channel.is_at_end() {
                        return Err(PyEOFError::new_err(()));
                    }
                    false
                }
            };
            match asked.deadline(busy) {
                Some(deadline) if !over => {
                    over = !asked.wait(py, channel, deadline, For::Message)?;
                    over |= patience == Patience::None || deadline.is_past();
                    waited = true;
                }
                _ => return Err(empty(py)),
            }
        }
    }

    fn receive_bytes<'py>(
        &self,
        py: Python<'py>,
        name: usize,
        patience: Patience,
        most: usize,
    ) -> PyResult<Option<(Bound<'py, PyAny>, u8)>> {
        let mut small = Small::new();
        let received = self.receive_raw(py, name, patience, most, &mut small, |tag| tag > LAST)?;
        Ok(received.map(|(raw, tag)| match raw {
            Raw::Object(object) => (object, tag),
            Raw::Small(bytes) if tag > LAST => (PyByteArray::new(py, bytes).into_any(), tag),
            Raw::Small(bytes) => (PyBytes::new(py, bytes).into_any(), tag),
        }))
    }

    /// The next message: on the stack, if it is small. None if it has more than `most` bytes.
    fn receive_raw<'py, 'a>(
        &self,
        py: Python<'py>,
        name: usize,
        patience: Patience,
        most: usize,
        small: &'a mut Small,
        mutable: impl Fn(u8) -> bool,
    ) -> PyResult<Option<(Raw<'py, 'a>, u8)>> {
        enum Found<'py> {
            Small(usize),
            Object(Bound<'py, PyAny>),
        }
        let start = NonNull::from(&mut small.0).cast::<u8>();
        let found = self.receive_with(py, name, patience, |channel, host| {
            // SAFETY: room for SMALL bytes, and no more is asked for.
            let first = unsafe { channel.try_recv(|size, _| (size <= SMALL && size <= most).then_some(start)) };
            let (size, tag) = match first {
                Ok((size, tag)) => return Ok(Ok(Some((Found::Small(size), tag)))),
                Err(RecvError::NoRoom(size, _)) if size > most => return Ok(Ok(None)),
                Err(RecvError::NoRoom(size, tag)) => (size, tag),
                Err(RecvError::Apart) => {
                    let (region, tag) = match host.detached(|| channel.try_recv_apart()) {
                        Ok(received) => received,
                        Err(error) => return Ok(Err(error)),
                    };
                    let message = Bound::new(py, PyMessage::from(Bytes::from(region)))?;
                    return Ok(Ok(Some((Found::Object(message.into_any()), tag))));
                }
                Err(error) => return Ok(Err(error)),
            };
            let (bytes, room) = if mutable(tag) { bytearray(py, size)? } else { uninit_bytes(py, size)? };
            let take = move || {
                let room = room;
                // SAFETY: the object is new and known to nobody else; it has room for `size` bytes.
                unsafe {
                    fetch_memory(room.0, size);
                    channel.try_recv(|found, other| (found == size && other == tag).then_some(room.0))
                }
            };
            let received = if size < LARGE { take() } else { host.detached(take) };
            Ok(received.map(|(_, tag)| Some((Found::Object(bytes), tag))))
        })?;
        Ok(found.map(|(found, tag)| match found {
            Found::Object(object) => (Raw::Object(object), tag),
            Found::Small(size) => {
                // SAFETY: `size` bytes have been written there.
                let bytes = unsafe { std::slice::from_raw_parts(small.0.as_ptr().cast::<u8>(), size) };
                (Raw::Small(bytes), tag)
            }
        }))
    }

    /// The next task of a worker, waited for.
    pub(crate) fn receive_task<'py, 'a>(
        this: &Bound<'py, Self>,
        small: &'a mut Small,
        mutable: impl Fn(u8) -> bool,
    ) -> PyResult<(Raw<'py, 'a>, u8)> {
        let patience = Patience::Until(Deadline::NEVER);
        let name = this.as_ptr() as usize;
        let received = this.get().receive_raw(this.py(), name, patience, usize::MAX, small, mutable)?;
        Ok(received.expect("there is room for any"))
    }

    /// Sends the reply to it.
    pub(crate) fn send_reply(this: &Bound<'_, Self>, tag: u8, parts: &[&[u8]]) -> PyResult<()> {
        let patience = Patience::Until(Deadline::NEVER);
        this.get().send_parts(this.py(), this.as_ptr() as usize, tag, parts, patience)
    }

    /// The number that the other side has left beside the messages; 0 if none.
    pub(crate) fn request(&self) -> PyResult<u64> {
        Ok(self.ends()?.incoming.requested())
    }

    fn decoded<'py>(&self, py: Python<'py>, data: Bound<'py, PyAny>, tag: u8) -> PyResult<Bound<'py, PyAny>> {
        match tag {
            BYTES => Ok(data),
            PICKLE => {
                if let Some(object) = plain::decode(py, data.cast::<PyBytes>()?.as_bytes()) {
                    return Ok(object);
                }
                gil::call(self.loads.bind(py), &[&data])
            }
            TEXT => {
                let text = data.cast::<PyBytes>()?.as_bytes();
                // SAFETY: that many bytes, a C string; attached.
                unsafe {
                    let text = ffi::PyUnicode_DecodeUTF8(
                        text.as_ptr().cast(),
                        text.len() as ffi::Py_ssize_t,
                        c"surrogatepass".as_ptr(),
                    );
                    Bound::from_owned_ptr_or_err(py, text)
                }
            }
            tag => gil::call(self.decode.bind(py), &[&tag.into_bound_py_any(py)?, &data]),
        }
    }
}

/// Room on the stack for a small message.
pub(crate) struct Small([MaybeUninit<u8>; SMALL]);

impl Small {
    pub(crate) fn new() -> Self {
        Self([MaybeUninit::uninit(); SMALL])
    }
}

/// A message.
pub(crate) enum Raw<'py, 'a> {
    Small(&'a [u8]),
    /// A bytes object, or a bytearray if what is made of the message may be changed.
    Object(Bound<'py, PyAny>),
}

/// A pointer that another thread may use: the detached part of a call runs in the same thread anyway.
#[derive(Clone, Copy)]
struct SendPointer(NonNull<u8>);
// SAFETY: see the type.
unsafe impl Send for SendPointer {}

/// A bytes object to be filled in before anybody else sees it.
fn uninit_bytes(py: Python<'_>, size: usize) -> PyResult<(Bound<'_, PyAny>, SendPointer)> {
    // SAFETY: a null start asks for an object without contents.
    unsafe {
        let object = ffi::PyBytes_FromStringAndSize(std::ptr::null(), size as ffi::Py_ssize_t);
        let object = Bound::from_owned_ptr_or_err(py, object)?;
        let start = NonNull::new_unchecked(ffi::PyBytes_AsString(object.as_ptr()).cast::<u8>());
        Ok((object, SendPointer(start)))
    }
}

/// The same, of bytes that may be changed later.
fn bytearray(py: Python<'_>, size: usize) -> PyResult<(Bound<'_, PyAny>, SendPointer)> {
    // SAFETY: as above.
    unsafe {
        let object = ffi::PyByteArray_FromStringAndSize(std::ptr::null(), size as ffi::Py_ssize_t);
        let object = Bound::from_owned_ptr_or_err(py, object)?;
        let start = NonNull::new_unchecked(ffi::PyByteArray_AsString(object.as_ptr()).cast::<u8>());
        Ok((object, SendPointer(start)))
    }
}

fn asked_patience(block: bool, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Patience> {
    if block { patience(timeout) } else { Ok(Patience::None) }
}

/// Runs `with` on the bytes of each part: one object, or a list of them.
pub(crate) fn with_parts<R>(data: &Bound<'_, PyAny>, with: impl FnOnce(&[&[u8]]) -> PyResult<R>) -> PyResult<R> {
    if let Ok(bytes) = data.cast_exact::<PyBytes>() {
        return with(&[bytes.as_bytes()]);
    }
    let borrowed = match data.cast_exact::<PyList>() {
        Ok(list) => list.iter().map(|part| Borrowed::new(&part, ffi::PyBUF_SIMPLE)).collect::<PyResult<Vec<_>>>()?,
        Err(_) => vec![Borrowed::new(data, ffi::PyBUF_SIMPLE)?],
    };
    let parts: Vec<&[u8]> = borrowed.iter().map(Borrowed::slice).collect();
    with(&parts)
}

#[pymethods]
impl PyChannel {
    /// Takes over the two descriptors. `outgoing` is the lane that is written to; -1: a queue. `is_workers`: one process
    /// is on each side, whose end is known by other means and is the channel's.
    #[new]
    #[pyo3(signature = (file, bell, incoming, outgoing, loads, decode, is_workers=false))]
    fn new(
        file: RawFd,
        bell: RawFd,
        incoming: u64,
        outgoing: i64,
        loads: Py<PyAny>,
        decode: Py<PyAny>,
        is_workers: bool,
    ) -> PyResult<Self> {
        if file < 0 || bell < 0 {
            return Err(PyValueError::new_err("invalid handle"));
        }
        // SAFETY: the caller gives both away; they are not negative.
        let (file, bell) = unsafe { (Arc::new(OwnedFd::from_raw_fd(file)), Arc::new(OwnedFd::from_raw_fd(bell))) };
        let is_pipe = outgoing >= 0;
        let bell = if is_pipe { Bell::Socket(bell) } else { Bell::Event(bell) };
        let outgoing = u64::try_from(outgoing).unwrap_or(incoming);
        let incoming = Channel::open(Arc::clone(&file), incoming, bell.clone()).map_err(failed)?;
        let outgoing = Channel::open(file, outgoing, bell).map_err(failed)?;
        let ends = Ends { incoming, outgoing: if is_workers { outgoing.unheard().apart() } else { outgoing } };
        let ends = Spin::new(Some(Arc::new(ends)));
        Ok(Self { ends, loads, decode, is_pipe, told: !is_workers, used: AtomicBool::new(false) })
    }

    /// Calls it after the line of the program that calls, in all processes.
    fn name_here(&self) -> PyResult<()> {
        if let Some(site) = site::here() {
            let (ends, name) = (self.ends()?, site::short(site));
            ends.incoming.set_name(&name);
            ends.outgoing.set_name(&name);
        }
        Ok(())
    }

    /// Sends a message of these bytes; `data` is an object with bytes, or a list of such.
    #[pyo3(signature = (tag, data, block=true, timeout=None))]
    fn send(
        this: &Bound<'_, Self>,
        tag: u8,
        data: &Bound<'_, PyAny>,
        block: bool,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let patience = asked_patience(block, timeout)?;
        with_parts(data, |parts| this.get().send_parts(this.py(), this.as_ptr() as usize, tag, parts, patience))
    }

    /// Sends an object that needs no pickler; False if it does. `bare`: bytes and strings go without a pickle.
    #[pyo3(signature = (object, block=true, timeout=None, bare=true))]
    fn send_plain(
        this: &Bound<'_, Self>,
        object: &Bound<'_, PyAny>,
        block: bool,
        timeout: Option<&Bound<'_, PyAny>>,
        bare: bool,
    ) -> PyResult<bool> {
        let (py, name) = (this.py(), this.as_ptr() as usize);
        if bare && let Ok(bytes) = object.cast_exact::<PyBytes>() {
            let patience = asked_patience(block, timeout)?;
            this.get().send_parts(py, name, BYTES, &[bytes.as_bytes()], patience)?;
            return Ok(true);
        }
        if bare && let Ok(text) = object.cast_exact::<PyString>() {
            // A string with surrogates has no UTF-8: that one is pickled.
            if let Ok(text) = text.to_str() {
                let patience = asked_patience(block, timeout)?;
                this.get().send_parts(py, name, TEXT, &[text.as_bytes()], patience)?;
                return Ok(true);
            }
        }
        let mut pickle = Vec::new();
        if plain::encode(object, &mut pickle) {
            let patience = asked_patience(block, timeout)?;
            this.get().send_parts(py, name, PICKLE, &[&pickle], patience)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// The object in the next message.
    #[pyo3(signature = (block=true, timeout=None))]
    fn receive<'py>(
        this: &Bound<'py, Self>,
        block: bool,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, me) = (this.py(), this.get());
        let patience = asked_patience(block, timeout)?;
        let received = me.receive_bytes(py, this.as_ptr() as usize, patience, usize::MAX)?;
        let (data, tag) = received.expect("there is room for any");
        me.decoded(py, data, tag)
    }

    /// The bytes of the next message; None if it has more than `most`. It stays then.
    #[pyo3(signature = (most=None))]
    fn receive_bytes_of<'py>(this: &Bound<'py, Self>, most: Option<usize>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let patience = Patience::Until(Deadline::NEVER);
        let received =
            this.get().receive_bytes(this.py(), this.as_ptr() as usize, patience, most.unwrap_or(usize::MAX))?;
        Ok(received.map(|(data, _)| data))
    }

    /// Writes the bytes of the next message to a buffer: how many. If there is too little room, the bytes themselves.
    fn receive_into<'py>(
        this: &Bound<'py, Self>,
        buffer: &Bound<'py, PyAny>,
        offset: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, me) = (this.py(), this.get());
        let borrowed = Borrowed::new(buffer, ffi::PyBUF_WRITABLE)?;
        let size = (borrowed.view.len as usize).checked_sub(offset);
        let size = size.ok_or_else(|| PyValueError::new_err("offset too large"))?;
        // SAFETY: inside of the buffer.
        let start = unsafe { NonNull::new(borrowed.view.buf.cast::<u8>().add(offset)) }.unwrap_or(NonNull::dangling());
        let start = SendPointer(start);
        let name = this.as_ptr() as usize;
        let patience = Patience::Until(Deadline::NEVER);
        let received = me.receive_with(py, name, patience, |channel, host| {
            let take = move || {
                let start = start;
                // SAFETY: room for `size` bytes, exported until `borrowed` goes.
                unsafe { channel.try_recv(|found, _| (found <= size).then_some(start.0)) }
            };
            let received = if size < LARGE { take() } else { host.detached(take) };
            Ok(match received {
                Ok((found, _)) => Ok(Some(found)),
                Err(RecvError::NoRoom(..) | RecvError::Apart) => Ok(None),
                Err(error) => Err(error),
            })
        })?;
        match received {
            Some(found) => found.into_bound_py_any(py),
            None => match me.receive_bytes(py, name, patience, usize::MAX)? {
                Some((data, _)) => Ok(data),
                None => unreachable!("there is room for any"),
            },
        }
    }

    /// Waits until there is something to receive, or the end. False if the time is up before.
    #[pyo3(signature = (timeout=None))]
    fn poll(this: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let (py, me) = (this.py(), this.get());
        let ends = me.ends()?;
        let channel = &ends.incoming;
        let there = || channel.is_ready() || channel.has_no_reader();
        let patience = patience(timeout)?;
        if !there() {
            channel.nothing_there();
            let Patience::Until(deadline) = patience else { return Ok(there()) };
            let host = PyHost::new();
            let asked = me.asked((Kind::QueueGet, Kind::Receive), this.as_ptr() as usize, &host, patience);
            while !there() {
                if !asked.wait(py, channel, deadline, For::Message)? {
                    return Ok(there());
                }
            }
        }
        Ok(true)
    }

    /// Reports a message done; False if all have been.
    fn done(this: &Bound<'_, Self>) -> PyResult<bool> {
        let (py, me) = (this.py(), this.get());
        let ends = me.ends()?;
        let host = PyHost::new();
        let asked = me.asked((Kind::QueueJoin, Kind::Receive), this.as_ptr() as usize, &host, Patience::None);
        loop {
            match ends.incoming.try_done() {
                Ok(known) => return Ok(known),
                // Only for the lock: no message has to come.
                Err(RecvError::Busy) => {
                    asked.wait(py, &ends.incoming, Deadline::NEVER, For::Readers)?;
                }
                Err(RecvError::Failed(error)) => return Err(failed(error)),
                Err(_) => return Err(failed(std::io::ErrorKind::InvalidData.into())),
            }
        }
    }

    /// Waits until every message sent has been reported done.
    fn join(this: &Bound<'_, Self>) -> PyResult<()> {
        let (py, me) = (this.py(), this.get());
        let ends = me.ends()?;
        let host = PyHost::new();
        let asked = me.asked((Kind::QueueJoin, Kind::Receive), this.as_ptr() as usize, &host, Patience::None);
        asked.wait(py, &ends.incoming, Deadline::NEVER, For::Done)?;
        me.statistics().map(|_| ())
    }

    /// Shuts it, for all processes.
    fn shut(this: &Bound<'_, Self>, immediate: bool) -> PyResult<()> {
        let (py, me) = (this.py(), this.get());
        let ends = me.ends()?;
        let host = PyHost::new();
        let asked = me.asked((Kind::QueuePut, Kind::Send), this.as_ptr() as usize, &host, Patience::None);
        asked.wait(py, &ends.outgoing, Deadline::NEVER, For::Shut(immediate)).map(|_| ())
    }

    /// `(messages, bytes, unfinished, shut)` of what comes in.
    fn statistics(&self) -> PyResult<(u64, u64, u64, bool)> {
        let ends = self.ends()?;
        let now = ends.incoming.statistics().map_err(|error| PyOSError::new_err((libc::EBADMSG, error.to_string())))?;
        Ok((now.items, now.bytes, now.unfinished, now.shut))
    }

    /// `(most messages, most bytes)`; 0 for no bound.
    fn limits(&self) -> PyResult<(u64, u64)> {
        let Limits { items, bytes } = self.ends()?.outgoing.limits();
        Ok((items, bytes))
    }

    /// The descriptor of the shared memory.
    fn file(&self) -> PyResult<RawFd> {
        use std::os::fd::AsRawFd;
        Ok(self.ends()?.incoming.file().as_raw_fd())
    }

    /// A descriptor that can be selected, from now on: readable while there is something to receive, and at the end.
    fn select(&self) -> PyResult<RawFd> {
        let ends = self.ends()?;
        ends.incoming.select();
        Ok(ends.incoming.bell().fd())
    }

    /// The same descriptor, for handing it over.
    fn bell(&self) -> PyResult<RawFd> {
        Ok(self.ends()?.incoming.bell().fd())
    }

    /// Closes it in this process; those who wait in it go on waiting.
    fn close(&self) {
        let ends = self.ends.lock().take();
        drop(ends);
    }

    /// Whether something has been sent from this object.
    #[getter]
    fn used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether it is closed in this process.
    #[getter]
    fn closed(&self) -> bool {
        self.ends.lock().is_none()
    }
}

/// A new descriptor of shared memory for this many lanes with these bounds.
#[pyfunction]
pub(crate) fn channel_memory(lanes: u64, items: u64, size: u64) -> PyResult<RawFd> {
    if !(1..=2).contains(&lanes) {
        return Err(PyValueError::new_err("one lane or two"));
    }
    Memory::create(lanes, items, size).map(IntoRawFd::into_raw_fd).map_err(failed)
}

/// A new descriptor that can be made readable.
#[pyfunction]
pub(crate) fn channel_event() -> PyResult<RawFd> {
    Bell::event().map(IntoRawFd::into_raw_fd).map_err(failed)
}

/// What descriptors are waited for with.
struct Descriptors;

impl Resource for Descriptors {
    fn wakers(&self, _kind: Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }
}

/// Waits until one of the descriptors is readable, or is at its end: the numbers of those that are, in the list. None are
/// if the time is up. A process that is given is what the wait is shown to be for.
#[pyfunction]
#[pyo3(signature = (descriptors, timeout=None, process=None))]
pub(crate) fn wait_readable(
    py: Python<'_>,
    descriptors: Vec<RawFd>,
    timeout: Option<&Bound<'_, PyAny>>,
    process: Option<&Bound<'_, PyAny>>,
) -> PyResult<Vec<usize>> {
    let mut asked: Vec<libc::pollfd> =
        descriptors.iter().map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 }).collect();
    let deadline = match patience(timeout)? {
        Patience::None => Deadline::at(now()),
        Patience::Until(deadline) => deadline,
    };
    args::check(deadline)?;
    let (kind, name) = process.map_or((Kind::Ready, 0), |process| (Kind::Exit, process.as_ptr() as usize));
    let pid = process.map(|process| gil::attribute(process, "pid")?.extract::<Option<u32>>()).transpose()?.flatten();
    let host = PyHost::new();
    let ended = host.detached(|| {
        let sought = |pid| Sought::seen_by_all(kind, Awaited::Exit(pid), None);
        let mut watch = pid.map(|pid| Watch::new(&host, sought(pid), deadline));
        let mut parking = Parking::new(kind, &Descriptors, name, deadline, &host);
        if let Some(watch) = &mut watch {
            parking.watch(watch);
        }
        loop {
            parking.park_outside(Outside::Descriptors(&mut asked), Deadline::NEVER)?;
            if asked.iter().any(|one| one.revents != 0) {
                return Ok(());
            }
        }
    });
    match ended {
        Ok(()) | Err(Stop::TimedOut) => {}
        Err(Stop::Interrupted) => return Err(fetch(py)),
    }
    if asked.iter().any(|one| one.revents & libc::POLLNVAL != 0) {
        return Err(failed(std::io::Error::from_raw_os_error(libc::EBADF)));
    }
    Ok(asked.iter().enumerate().filter(|(_, one)| one.revents != 0).map(|(at, _)| at).collect())
}
