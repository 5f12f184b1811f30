//! `SemLock` and `Arena`: locks and semaphores for processes, as `multiprocessing.synchronize` uses them.

use crate::args::{self, Fast, Patience, patience};
use crate::channel::failed;
use crate::error::{entry, fetch};
use crate::gil::{self, PyHost};
use crate::lock::{boolean, none};
use crate::native::{Entry, Native, This, Which, get, getter, methods, noargs};
use crate::site;
use crate::types::Slot;
use crate::watch::{Sought, Watch};
use pyo3::exceptions::{PyAssertionError, PyLookupError, PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;
use pyo3::{IntoPyObjectExt, ffi};
use raddle::ipc::semlock::{Dead, Kind, MOST, Taken};
use raddle::ipc::watch::Awaited;
use raddle::ipc::{Arena, SemLock, Waiter, Waiters};
use raddle::park::{Deadline, Parking, Stop, generation, now};
use raddle::primitive::thread_token;
use raddle::trace::{self, Site, mode};
use std::borrow::Cow;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The standard library's numbers for what a `SemLock` is.
const RECURSIVE_MUTEX: i32 = 0;
const SEMAPHORE: i32 = 1;

/// Shared memory for locks. Made without arguments, or of a descriptor that it takes over.
#[pyclass(frozen, module = "raddle._raddle", name = "Arena", weakref)]
pub(crate) struct PyArena {
    arena: Arc<Arena>,
}

#[pymethods]
impl PyArena {
    #[new]
    #[pyo3(signature = (file=None))]
    fn new(file: Option<RawFd>) -> PyResult<Self> {
        let arena = match file {
            None => Arena::create(),
            Some(file) if file < 0 => return Err(PyValueError::new_err("invalid handle")),
            // SAFETY: the caller gives it away; it is not negative.
            Some(file) => Arena::open(unsafe { OwnedFd::from_raw_fd(file) }),
        };
        Ok(Self { arena: Arc::new(arena.map_err(failed)?) })
    }

    /// The descriptor of the shared memory.
    fn file(&self) -> RawFd {
        self.arena.file().as_raw_fd()
    }
}

impl PyArena {
    pub(crate) fn core(&self) -> &Arc<Arena> {
        &self.arena
    }
}

/// A function of Python's.
type Hook = Mutex<Option<Py<PyAny>>>;

/// `recovered(semlock, pid, site)` is told of locks whose owner has ended.
static ON_RECOVERED: Hook = Mutex::new(None);

/// `describe(ident)` says what a thread and its process are called, and gives the arenas.
static DESCRIBE: Hook = Mutex::new(None);

fn set(hook: &Hook, function: Py<PyAny>) {
    let old = hook.lock().unwrap_or_else(PoisonError::into_inner).replace(function);
    drop(old);
}

fn get_hook<'py>(py: Python<'py>, hook: &Hook) -> Option<Bound<'py, PyAny>> {
    hook.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|function| function.bind(py).clone())
}

/// Sets what is told of locks that were taken from a process which has ended.
#[pyfunction]
pub(crate) fn set_on_recovered(recovered: Py<PyAny>) {
    set(&ON_RECOVERED, recovered);
}

/// Sets what describes threads for other processes.
#[pyfunction]
pub(crate) fn set_describe(describe: Py<PyAny>) {
    set(&DESCRIBE, describe);
}

/// What a thread and its process are called, and the arenas; `None` if this process has had none.
pub(crate) fn describe(py: Python<'_>, thread: usize) -> PyResult<Option<(String, Bound<'_, PyList>)>> {
    let Some(describe) = get_hook(py, &DESCRIBE) else { return Ok(None) };
    gil::call(&describe, &[&thread.into_bound_py_any(py)?])?.extract::<(String, Bound<'_, PyList>)>().map(Some)
}

struct Inner {
    lock: SemLock,
    recursive: bool,
    maxvalue: i64,
}

/// A lock or semaphore, and what this process has of it, as the standard library keeps it.
#[repr(C)]
pub(crate) struct PySemLock {
    inner: OnceLock<Inner>,
    /// How often it was taken less how often it was given back by means of this object.
    count: AtomicI64,
    /// The thread that took it last.
    owner: AtomicUsize,
    /// The process that `count` is of, as `generation()` tells it from its forked children.
    of: AtomicU32,
}

type Me<'a> = This<'a, PySemLock>;

fn unready() -> PyErr {
    PyRuntimeError::new_err("SemLock.__init__ has not been called")
}

impl PySemLock {
    #[inline]
    fn inner(&self) -> PyResult<&Inner> {
        self.inner.get().ok_or_else(unready)
    }

    /// How often this process has it: what its parent had when it forked is not its own.
    #[inline]
    fn count(&self) -> &AtomicI64 {
        let generation = generation();
        if self.of.load(Ordering::Relaxed) != generation {
            self.count.store(0, Ordering::Relaxed);
            self.of.store(generation, Ordering::Relaxed);
        }
        &self.count
    }

    /// Counts; attached. Only without the GIL does that take more than a load and a store.
    #[inline]
    fn add(&self, change: i64) {
        let count = self.count();
        if cfg!(Py_GIL_DISABLED) {
            count.fetch_add(change, Ordering::Relaxed);
        } else {
            count.store(count.load(Ordering::Relaxed) + change, Ordering::Relaxed);
        }
    }

    #[inline]
    fn is_mine(&self) -> bool {
        self.count().load(Ordering::Relaxed) > 0 && self.owner.load(Ordering::Relaxed) == thread_token()
    }

    /// It has become this thread's.
    #[inline]
    fn taken(&self, inner: &Inner) {
        self.add(1);
        self.owner.store(thread_token(), Ordering::Relaxed);
        let site = site::kept(mode());
        inner.lock.note_site(Site::to_word(site), || long(site));
    }
}

/// So many places have their text kept.
const TEXTS: usize = 4096;

/// "path/file.py:12".
fn long(site: Option<Site>) -> Cow<'static, str> {
    static KNOWN: [OnceLock<String>; TEXTS] = [const { OnceLock::new() }; TEXTS];
    let Some(site) = site else { return Cow::Borrowed("") };
    let make = || {
        let place = site.place();
        format!("{}:{}", place.file, place.line)
    };
    match KNOWN.get(Site::to_word(Some(site)) as usize) {
        Some(known) => Cow::Borrowed(known.get_or_init(make)),
        None => Cow::Owned(make()),
    }
}

impl Inner {
    /// What others are told that a waiter waits for.
    fn awaited(&self) -> Awaited {
        let place = self.lock.place();
        match self.lock.kind() {
            Kind::Owned if self.recursive => Awaited::RLock(place),
            Kind::Owned => Awaited::Lock(place),
            Kind::Counted(_) => Awaited::Unit(place),
        }
    }

    fn kind(&self) -> trace::Kind {
        match self.lock.kind() {
            Kind::Owned if self.recursive => trace::Kind::RLock,
            Kind::Owned => trace::Kind::Lock,
            Kind::Counted(_) => trace::Kind::Semaphore,
        }
    }
}

/// What the core calls a semaphore of the standard library's kind.
fn kind_of(kind: i32, maxvalue: i64, owned: bool) -> PyResult<Kind> {
    match kind {
        RECURSIVE_MUTEX => Ok(Kind::Owned),
        SEMAPHORE if maxvalue == 1 && owned => Ok(Kind::Owned),
        SEMAPHORE if (1..=i64::from(MOST)).contains(&maxvalue) => Ok(Kind::Counted(maxvalue as u32)),
        SEMAPHORE => Err(PyValueError::new_err("maxvalue out of range")),
        _ => Err(PyValueError::new_err("unrecognized kind")),
    }
}

/// Takes it without waiting, if that is possible.
#[inline(always)]
fn try_acquire(this: Me<'_>, inner: &Inner) -> bool {
    if inner.recursive && this.is_mine() {
        this.add(1);
        return true;
    }
    let taken = inner.lock.try_take();
    if taken {
        this.taken(inner);
    }
    taken
}

fn acquire(py: Python<'_>, this: Me<'_>, patience: Patience) -> PyResult<bool> {
    let inner = this.inner()?;
    if try_acquire(this, inner) {
        return Ok(true);
    }
    // Who does not wait is told that it is taken, whatever has become of the owner: programs find out so who comes first.
    let Patience::Until(deadline) = patience else { return Ok(false) };
    acquire_slow(py, this, inner, deadline)
}

#[cold]
fn acquire_slow(py: Python<'_>, this: Me<'_>, inner: &Inner, deadline: Deadline) -> PyResult<bool> {
    args::check(deadline)?;
    let host = PyHost::new();
    let result = host.detached(|| {
        let sought = Sought::seen_by_all(inner.kind(), inner.awaited(), Some(inner.lock.arena()));
        let mut watch = Watch::new(&host, sought, deadline);
        let mut parking = Parking::new(inner.kind(), &inner.lock, this.address(), deadline, &host);
        parking.watch(&mut watch);
        inner.lock.take(&mut parking)
    });
    match result {
        Ok(Taken::Free) => {
            this.taken(inner);
            Ok(true)
        }
        Ok(Taken::From(dead)) => recovered(py, this, inner, dead).map(|()| true),
        Err(Stop::TimedOut) => match inner.lock.try_recover() {
            Some(dead) => recovered(py, this, inner, dead).map(|()| true),
            None => Ok(false),
        },
        Err(Stop::Interrupted) => Err(fetch(py)),
    }
}

/// The lock was taken from a process that has ended: warns. If that raises, the lock is free again.
#[cold]
fn recovered(py: Python<'_>, this: Me<'_>, inner: &Inner, dead: Dead) -> PyResult<()> {
    this.taken(inner);
    let told = || -> PyResult<()> {
        let Some(tell) = get_hook(py, &ON_RECOVERED) else { return Ok(()) };
        let (pid, site) = (dead.pid.into_bound_py_any(py)?, dead.site.into_bound_py_any(py)?);
        gil::release(gil::call(&tell, &[&this.bound(py), &pid, &site])?);
        Ok(())
    };
    told().inspect_err(|_| {
        this.add(-1);
        inner.lock.release();
    })
}

unsafe extern "C" fn py_acquire(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    if count == 0 && keywords.is_null() { acquire_plain(this) } else { acquire_as_told(this, (args, count, keywords)) }
}

/// `__enter__()`, and `acquire()` without arguments.
#[inline(always)]
fn acquire_plain(this: Me<'_>) -> *mut ffi::PyObject {
    match this.inner.get() {
        Some(inner) if try_acquire(this, inner) => boolean(true),
        _ => acquire_by_waiting(this),
    }
}

/// Apart, as what has arguments, so that the path above needs little room.
#[cold]
fn acquire_by_waiting(this: Me<'_>) -> *mut ffi::PyObject {
    entry(|py| Ok(boolean(acquire(py, this, Patience::Until(Deadline::NEVER))?)))
}

#[inline(never)]
fn acquire_as_told(this: Me<'_>, fast: Fast) -> *mut ffi::PyObject {
    entry(|py| {
        let [block, timeout] = args::fast(py, "acquire", ["block", "timeout"], 2, fast)?;
        let block = args::truth(block.as_ref(), true)?;
        let patience = if block { patience(timeout.as_ref())? } else { Patience::None };
        Ok(boolean(acquire(py, this, patience)?))
    })
}

unsafe extern "C" fn py_enter(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    acquire_plain(unsafe { Me::from_ptr(object) })
}

/// Whether it could be given back.
#[inline(always)]
fn try_release(this: Me<'_>) -> bool {
    let Some(inner) = this.inner.get() else { return false };
    if inner.recursive {
        if !this.is_mine() {
            return false;
        }
        if this.count().load(Ordering::Relaxed) > 1 {
            this.add(-1);
            return true;
        }
    }
    // Before it is free: the next owner counts too.
    this.add(-1);
    let released = inner.lock.release();
    if !released {
        this.add(1);
    }
    released
}

#[inline(always)]
fn release(this: Me<'_>) -> *mut ffi::PyObject {
    if try_release(this) { none() } else { not_released(this) }
}

#[cold]
fn not_released(this: Me<'_>) -> *mut ffi::PyObject {
    entry(|_| {
        Err(match this.inner()?.recursive && !this.is_mine() {
            true => PyAssertionError::new_err("attempt to release recursive lock not owned by thread"),
            false => PyValueError::new_err("semaphore or lock released too many times"),
        })
    })
}

unsafe extern "C" fn py_release(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    release(unsafe { Me::from_ptr(object) })
}

unsafe extern "C" fn py_exit(
    object: *mut ffi::PyObject,
    _: *const *mut ffi::PyObject,
    _: ffi::Py_ssize_t,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    release(unsafe { Me::from_ptr(object) })
}

noargs!(py_count, PySemLock, |py, this| { Ok(this.count().load(Ordering::Relaxed).into_bound_py_any(py)?.into_ptr()) });

noargs!(py_is_mine, PySemLock, |_, this| Ok(boolean(this.is_mine())));

noargs!(py_value, PySemLock, |py, this| Ok(this.inner()?.lock.value().into_bound_py_any(py)?.into_ptr()));

noargs!(py_is_zero, PySemLock, |_, this| Ok(boolean(this.inner()?.lock.value() == 0)));

// In a forked child: what the parent has of it is not the child's.
noargs!(py_after_fork, PySemLock, |_, this| {
    this.count().store(0, Ordering::Relaxed);
    Ok(none())
});

noargs!(py_owner, PySemLock, |py, this| Ok(this.inner()?.lock.owner().into_bound_py_any(py)?.into_ptr()));

getter!(py_kind, PySemLock, |py, this| {
    let kind = if this.inner()?.recursive { RECURSIVE_MUTEX } else { SEMAPHORE };
    Ok(kind.into_bound_py_any(py)?.into_ptr())
});

getter!(py_maxvalue, PySemLock, |py, this| Ok(this.inner()?.maxvalue.into_bound_py_any(py)?.into_ptr()));

getter!(py_handle, PySemLock, |py, this| Ok(this.inner()?.lock.place().into_bound_py_any(py)?.into_ptr()));

getter!(py_owned, PySemLock, |_, this| Ok(boolean(this.inner()?.lock.kind() == Kind::Owned)));

unsafe extern "C" fn py_name(_: *mut ffi::PyObject, _: *mut std::ffi::c_void) -> *mut ffi::PyObject {
    none()
}

impl Native for PySemLock {
    type Entry = Entry;
    const NAME: &'static CStr = c"raddle._raddle.SemLock";
    const DOC: &'static CStr = c"SemLock(arena, kind, value, maxvalue, owned, handle=None)\n--\n\n\
        A lock or semaphore that processes share, in the shared memory of an arena: a new one, or with `handle` that of\n\
        another process.\n\n\
        Raises LookupError if the arena is full. Any process and thread may give it back; waits go on without the\n\
        GIL, and signals are handled meanwhile. Follows CPython's `_multiprocessing.SemLock`, and knows its owner if\n\
        `owned`: then it is taken from a process that has ended.";
    const WHICH: Which = Which::Other;
    const DICT: bool = false;
    const SITE: bool = false;
    const SUBCLASS: bool = false;

    fn fresh() -> Self {
        PySemLock {
            inner: OnceLock::new(),
            count: AtomicI64::new(0),
            owner: AtomicUsize::new(0),
            of: AtomicU32::new(generation()),
        }
    }

    fn init(this: Me<'_>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let names = ["arena", "kind", "value", "maxvalue", "owned", "handle"];
        let [Some(arena), Some(kind), Some(value), Some(maxvalue), Some(owned), handle] =
            args::tuple("SemLock", names, 6, args, kwargs)?
        else {
            return Err(PyTypeError::new_err("SemLock() takes at least 5 arguments"));
        };
        let (kind, value, maxvalue) = (kind.extract::<i32>()?, value.extract::<i64>()?, maxvalue.extract::<i64>()?);
        let core = kind_of(kind, maxvalue, args::truth(Some(&owned), true)?)?;
        if value < 0 || value > maxvalue {
            return Err(PyValueError::new_err("invalid value"));
        }
        let arena = &arena.cast::<PyArena>()?.get().arena;
        let lock = match handle.filter(|handle| !handle.is_none()) {
            Some(handle) => SemLock::open(arena, handle.extract::<u32>()?, core)
                .ok_or_else(|| PyValueError::new_err("there is no such lock"))?,
            None => {
                let lock = SemLock::create(arena, core, value as u32)
                    .ok_or_else(|| PyLookupError::new_err("the arena is full"))?;
                if let Some(site) = site::here() {
                    lock.set_name(&site::short(site));
                }
                lock
            }
        };
        this.inner
            .set(Inner { lock, recursive: kind == RECURSIVE_MUTEX, maxvalue })
            .map_err(|_| PyRuntimeError::new_err("SemLock.__init__ has been called before"))
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        methods! {
            fast "acquire" (", block=True, timeout=None") = py_acquire,
                "Take the lock, or a unit, and return True; return False if it could not be had in time.\n\n\
                 Waits without the GIL for at most `timeout` seconds; signals are handled meanwhile. RuntimeWarning if\n\
                 it was taken from a process that has ended.";
            noargs "release" ("") = py_release,
                "Give the lock, or a unit, back, and wake one waiter of whichever process. Never waits.\n\n\
                 ValueError if there is nothing to give back; AssertionError if a re-entrant lock is another's.";
            noargs "__enter__" = py_enter, "Take it.";
            fast "__exit__" = py_exit, "Give it back.";
            noargs "_count" = py_count, "How often this process has taken it less how often it has given it back.";
            noargs "_is_mine" = py_is_mine, "Whether the calling thread has it.";
            noargs "_get_value" = py_value, "How many units there are.";
            noargs "_is_zero" = py_is_zero, "Whether there are none.";
            noargs "_after_fork" = py_after_fork, "To be called in a forked child.";
            noargs "_owner" = py_owner, "`(pid, thread, site)` of the owner of a lock, or None.";
        }
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        vec![
            get::<Self>(c"kind", py_kind, c"0: a re-entrant lock; 1: any other."),
            get::<Self>(c"maxvalue", py_maxvalue, c"The most units."),
            get::<Self>(c"handle", py_handle, c"Its place in the arena."),
            get::<Self>(c"owned", py_owned, c"Whether it has an owner."),
        ]
    }

    fn slots() -> Vec<ffi::PyType_Slot> {
        Vec::new()
    }
}

/// Those who wait for the notifications of a condition. Made for a new condition, or of the place of another process's.
#[pyclass(frozen, module = "raddle._raddle", name = "Waiters")]
pub(crate) struct PyWaiters {
    waiters: Arc<Waiters>,
}

#[pymethods]
impl PyWaiters {
    #[new]
    #[pyo3(signature = (arena, handle=None))]
    fn new(arena: &Bound<'_, PyArena>, handle: Option<u32>) -> PyResult<Self> {
        let arena = &arena.get().arena;
        let waiters = match handle {
            None => Waiters::create(arena).ok_or_else(|| PyLookupError::new_err("the arena is full"))?,
            Some(place) => {
                Waiters::open(arena, place).ok_or_else(|| PyValueError::new_err("there is no such condition"))?
            }
        };
        Ok(Self { waiters: Arc::new(waiters) })
    }

    /// Its place in the arena.
    #[getter]
    fn handle(&self) -> u32 {
        self.waiters.place()
    }

    /// From now on the calling thread gets notifications; until what is given back is gone.
    fn enlist(&self) -> PyResult<PyWaiter> {
        self.waiters.enlist().map(|waiter| PyWaiter { waiter }).map_err(|error| match error.kind() {
            std::io::ErrorKind::StorageFull => {
                PyOSError::new_err((libc::ENOSPC, "more threads wait for conditions than there is room for"))
            }
            _ => failed(error),
        })
    }

    /// Notifies those who have waited longest; how many there were.
    fn notify(&self, n: usize) -> PyResult<usize> {
        self.waiters.notify(n).map_err(failed)
    }

    /// How many wait.
    fn waiting(&self) -> PyResult<usize> {
        self.waiters.waiting().map_err(failed)
    }
}

/// One that waits.
#[pyclass(frozen, module = "raddle._raddle", name = "Waiter")]
pub(crate) struct PyWaiter {
    waiter: Waiter,
}

#[pymethods]
impl PyWaiter {
    /// Waits for the notification, once. False if there was none in time. `about`: what the wait is shown to be for.
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>, about: &Bound<'_, PyAny>) -> PyResult<bool> {
        let deadline = match patience(timeout)? {
            Patience::None => Deadline::at(now()),
            Patience::Until(deadline) => deadline,
        };
        args::check(deadline)?;
        let host = PyHost::new();
        let ended = host.detached(|| {
            let name = about.as_ptr() as usize;
            let (arena, place) = self.waiter.place();
            let lacks = || self.waiter.is_waiting();
            let kind = trace::Kind::Condition;
            let sought =
                Sought { kind, awaited: Awaited::Notice(place), arena: Some(arena), name: &|| None, lacks: &lacks };
            let mut watch = Watch::new(&host, sought, deadline);
            let mut parking = Parking::new(kind, &self.waiter, name, deadline, &host);
            parking.watch(&mut watch);
            self.waiter.wait(&mut parking)
        });
        match ended {
            Ok(()) => Ok(true),
            Err(Stop::TimedOut) => Ok(false),
            Err(Stop::Interrupted) => Err(fetch(py)),
        }
    }
}

/// Adds the types to the module.
pub(crate) fn add(module: &Bound<'_, PyAny>) -> PyResult<()> {
    crate::types::add::<PySemLock>(module, Slot::SemLock)?;
    let ty = crate::types::get(module.py(), Slot::SemLock);
    ty.setattr("SEM_VALUE_MAX", MOST)?;
    // Nothing in the file system has a name for it.
    crate::special::put_attribute(&ty, c"name", py_name)?;
    let module = module.cast::<PyModule>()?;
    module.add_class::<PyArena>()?;
    module.add_class::<PyWaiters>()?;
    module.add_class::<PyWaiter>()
}
