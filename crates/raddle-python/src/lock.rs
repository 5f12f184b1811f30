//! `Lock` and `RLock`.

use crate::args::{self, Patience, lock_patience};
use crate::error::entry;
use crate::gil::PyHost;
use crate::native::{Entry, Native, This, Which, method_fast, methods, no_pickle};
use crate::types::Slot;
use crate::{observe, site, special};
use pyo3::exceptions::PyRuntimeError;
use pyo3::types::{PyAnyMethods, PyString, PyTypeMethods};
use pyo3::{Bound, PyAny, PyResult, Python, ffi};
use raddle::park::{Deadline, Parking, Stop, now};
use raddle::primitive::thread_token;
use raddle::sync::{RawLock, RawRLock};
use raddle::trace::{Kind, Resource, SITES, Site, mode};
use std::ffi::{CStr, c_void};

/// What `Lock` and `RLock` share.
pub(crate) trait Raw: Native + Resource {
    const KIND: Kind;
    /// How often the thread holds it now; 0 if it could not take it.
    fn try_take(&self, me: usize) -> usize;
    fn take(&self, me: usize, parking: &mut Parking<'_>) -> Result<(), Stop>;
    /// False if this thread may not release it.
    fn give_back(&self, me: usize) -> bool;
    fn not_held() -> pyo3::PyErr;
    fn is_locked(&self) -> bool;
    /// The token of the thread that took it; 0 if it is free, or that thread has ended.
    fn owner(&self) -> usize;
    fn is_left(&self) -> bool;
    fn longest(&self) -> f32;
    fn set_taken_at(&self, site: Option<raddle::trace::Site>);
    fn taken_at(&self) -> Option<raddle::trace::Site>;
    fn forget(&self);
    fn used_by_taker(&self);
    fn depth(&self) -> Option<usize>;
}

macro_rules! raw {
    ($type:ty, $kind:expr, $error:literal, $take:expr, $depth:expr) => {
        impl Raw for $type {
            const KIND: Kind = $kind;
            #[inline]
            fn try_take(&self, me: usize) -> usize {
                let take: fn(&$type, usize) -> usize = $take;
                take(self, me)
            }
            fn take(&self, me: usize, parking: &mut Parking<'_>) -> Result<(), Stop> {
                self.acquire_slow(me, parking)
            }
            #[inline]
            fn give_back(&self, me: usize) -> bool {
                self.release(me).is_ok()
            }
            fn not_held() -> pyo3::PyErr {
                PyRuntimeError::new_err($error)
            }
            fn is_locked(&self) -> bool {
                self.is_locked()
            }
            fn owner(&self) -> usize {
                if self.is_left() { 0 } else { self.owner() }
            }
            fn is_left(&self) -> bool {
                self.is_left()
            }
            fn longest(&self) -> f32 {
                self.longest_wait()
            }
            #[inline]
            fn set_taken_at(&self, site: Option<raddle::trace::Site>) {
                self.set_taken_at(site);
            }
            fn taken_at(&self) -> Option<raddle::trace::Site> {
                self.taken_at()
            }
            #[inline]
            fn used_by_taker(&self) {
                self.usage().own();
            }
            fn forget(&self) {
                self.reset();
            }
            fn depth(&self) -> Option<usize> {
                let depth: fn(&$type) -> Option<usize> = $depth;
                depth(self)
            }
        }
    };
}
raw!(RawLock, Kind::Lock, "release unlocked lock", |lock, me| usize::from(lock.try_acquire(me)), |_| None);
raw!(RawRLock, Kind::RLock, "cannot release un-acquired lock", RawRLock::try_deepen, |lock| Some(lock.depth()));

/// Takes the lock if it can be had at once, and notes that; `waits`: the caller would wait for it.
#[inline(always)]
pub(crate) fn try_acquire<C: Raw>(this: This<'_, C>, waits: bool) -> bool {
    let mode = mode();
    // Looked up before: what is read behind a locked instruction waits for that.
    let site = site::kept(mode);
    let depth = this.try_take(thread_token());
    if depth == 1 {
        note_taken(this, mode, site, waits);
    }
    depth > 0
}

/// The lock has become this thread's: what is noted about that, if anything is.
#[inline(always)]
fn note_taken<C: Raw>(this: This<'_, C>, mode: u8, site: Option<Site>, waits: bool) {
    if mode == 0 {
        return;
    }
    this.set_taken_at(site);
    if mode & !SITES != 0 {
        observe::acquired(C::KIND, this.address(), site, waits);
    }
}

#[inline]
pub(crate) fn given_back<C: Raw>(this: This<'_, C>) {
    if mode() & !SITES != 0 {
        observe::released(C::KIND, this.address());
    }
}

/// Takes the lock, waiting as patiently as asked. `Ok(false)`: not in time.
pub(crate) fn acquire<C: Raw>(py: Python<'_>, this: This<'_, C>, patience: Patience) -> PyResult<bool> {
    if try_acquire(this, patience != Patience::None) {
        return Ok(true);
    }
    match patience {
        Patience::None => Ok(false),
        Patience::Until(deadline) => acquire_slow(py, this, deadline, PyHost::new()),
    }
}

/// Takes the lock back after a wait that released it: whatever happens, it is held afterwards.
pub(crate) fn acquire_unending<C: Raw>(py: Python<'_>, this: This<'_, C>) {
    if !try_acquire(this, true) {
        while !matches!(acquire_slow(py, this, Deadline::NEVER, PyHost::unending()), Ok(true)) {}
    }
}

#[cold]
fn acquire_slow<C: Raw>(py: Python<'_>, this: This<'_, C>, deadline: Deadline, host: PyHost) -> PyResult<bool> {
    let core: &C = &this;
    let me = thread_token();
    let since = now();
    let result = host.detached(|| {
        let mut parking = Parking::new(C::KIND, core, this.address(), deadline, &host);
        core.take(me, &mut parking)
    });
    match result {
        Ok(()) => {
            let mode = mode();
            note_taken(this, mode, site::kept(mode), true);
            Ok(true)
        }
        Err(Stop::TimedOut) => {
            observe::timed_out(py, C::KIND, this.bound(py), Raw::owner(core), core.taken_at(), since);
            Ok(false)
        }
        Err(Stop::Interrupted) => Err(crate::error::fetch(py)),
    }
}

unsafe extern "C" fn py_acquire<C: Raw>(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { This::<C>::from_ptr(object) };
    if count == 0 && keywords.is_null() { acquire_plain(this) } else { acquire_as_told(this, args, count, keywords) }
}

/// With arguments, each in a register. Apart, as [`acquire_by_waiting`] is.
#[inline(never)]
fn acquire_as_told<C: Raw>(
    this: This<'_, C>,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    entry(|py| {
        let names = ["blocking", "timeout"];
        let [blocking, timeout] = args::fast(py, "acquire", names, 2, (args, count, keywords))?;
        let patience = lock_patience(blocking.as_ref(), timeout.as_ref())?;
        Ok(boolean(acquire(py, this, patience)?))
    })
}

/// `__enter__`: a lock taken for a block of code is given back by its taker.
unsafe extern "C" fn py_enter<C: Raw>(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { This::<C>::from_ptr(object) };
    this.used_by_taker();
    acquire_plain(this)
}

/// `acquire()` without arguments.
#[inline(always)]
fn acquire_plain<C: Raw>(this: This<'_, C>) -> *mut ffi::PyObject {
    let mode = mode();
    // Half of it on either side of the locked instruction, which waits for what is read before it and is waited for
    // by what is read behind it.
    let instruction = if mode == SITES { site::instruction() } else { 0 };
    match this.try_take(thread_token()) {
        0 => return acquire_by_waiting(this),
        1 if mode != 0 => match site::seen(instruction) {
            None => return acquire_noted(this, mode),
            site => this.set_taken_at(site),
        },
        _ => {}
    }
    boolean(true)
}

/// The lock is taken, and more is to be noted, or the place has not been seen. Apart, as all but the plain path is: so
/// that that one needs no stack.
#[inline(never)]
fn acquire_noted<C: Raw>(this: This<'_, C>, mode: u8) -> *mut ffi::PyObject {
    note_taken(this, mode, site::kept(mode), true);
    boolean(true)
}

#[cold]
#[inline(never)]
fn acquire_by_waiting<C: Raw>(this: This<'_, C>) -> *mut ffi::PyObject {
    entry(|py| Ok(boolean(acquire_slow(py, this, Deadline::NEVER, PyHost::new())?)))
}

unsafe extern "C" fn py_release<C: Raw>(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { This::<C>::from_ptr(object) };
    if this.give_back(thread_token()) {
        given_back(this);
        return none();
    }
    not_held::<C>()
}

#[cold]
fn not_held<C: Raw>() -> *mut ffi::PyObject {
    entry(|_| Err(C::not_held()))
}

unsafe extern "C" fn py_locked<C: Raw>(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    boolean(unsafe { This::<C>::from_ptr(object) }.is_locked())
}

unsafe extern "C" fn py_reinit<C: Raw>(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    unsafe { This::<C>::from_ptr(object) }.forget();
    none()
}

unsafe extern "C" fn py_repr<C: Raw>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a slot of the type.
        let this = unsafe { This::<C>::from_ptr(object) };
        let ty = this.bound(py).get_type();
        let module = ty.module()?;
        let mut text = format!(
            "<{} {}.{} object {}",
            if this.is_locked() { "locked" } else { "unlocked" },
            module,
            ty.qualname()?,
            PyString::new(py, &this.name(py)?).repr()?
        );
        if this.is_locked() {
            text += &match Raw::is_left(&*this) {
                true => " owner=<ended>".to_owned(),
                false => format!(" owner={}", observe::thread_name(py, Raw::owner(&*this)).repr()?),
            };
            if let Some(depth) = this.depth() {
                text += &format!(" count={depth}");
            }
        } else if let Some(depth) = this.depth() {
            text += &format!(" owner=0 count={depth}");
        }
        let (waiters, longest) = observe::waiters(this.address());
        let longest = longest.max(this.longest());
        if waiters > 0 {
            text += &format!(" waiters={waiters}");
        }
        if waiters > 0 || longest >= SHOWN {
            text += &format!(" longest_wait={longest:.2}s");
        }
        text += &format!(" at {:#x}>", this.address());
        Ok(PyString::new(py, &text).into_ptr())
    })
}

/// A longest wait from which on it is shown, in seconds: what two decimals can say.
const SHOWN: f32 = 0.005;

unsafe extern "C" fn py_owner<C: Raw>(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: an attribute of the type.
        let this = unsafe { This::<C>::from_ptr(object) };
        Ok(observe::thread_object(py, Raw::owner(&*this))?.into_ptr())
    })
}

unsafe extern "C" fn py_longest<C: Raw>(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    let this = unsafe { This::<C>::from_ptr(object) };
    observe::longest_wait(this.address(), this.longest())
}

fn lock_methods<C: Raw>() -> Vec<ffi::PyMethodDef> {
    methods! {
        fast "acquire" (", blocking=True, timeout=-1") = py_acquire::<C>,
            "Take the lock and return True; return False if it could not be had in time.\n\n\
             Waits without the GIL for at most `timeout` seconds (-1: without limit); signals are handled\n\
             meanwhile. `blocking=False` does not wait. Follows CPython's `threading` locks.";
        noargs "release" ("") = py_release::<C>,
            "Release the lock and wake one waiter. Never waits.\n\n\
             RuntimeError if it is not held (an RLock: not held by this thread).";
        noargs "_at_fork_reinit" ("") = py_reinit::<C>, "Make the lock free, in a forked child.";
        noargs "__reduce__" = no_pickle, "Locks cannot be pickled.";
    }
}

fn lock_additions<C: Raw>() -> Vec<(&'static CStr, ffi::getter)> {
    vec![(c"owner", py_owner::<C>), (c"waiters", observe::py_waiters), (c"longest_wait", py_longest::<C>)]
}

fn repr_slot<C: Raw>() -> Vec<ffi::PyType_Slot> {
    vec![ffi::PyType_Slot { slot: ffi::Py_tp_repr, pfunc: py_repr::<C> as *mut c_void }]
}

/// A new Lock.
pub(crate) fn new(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let lock = crate::native::allocate::<RawLock>(py, crate::types::pointer(Slot::Lock).cast())?;
    // SAFETY: a new reference.
    Ok(unsafe { Bound::from_owned_ptr(py, lock) })
}

/// `Lock(*, name=None)` where the type cannot be called.
unsafe extern "C" fn make_lock(
    _module: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    entry(|py| {
        let lock = new(py)?;
        if count > 0 || !keywords.is_null() {
            let [name] = args::fast(py, "Lock", ["name"], 0, (args, count, keywords))?;
            // SAFETY: the object made above.
            unsafe { This::<RawLock>::from_ptr(lock.as_ptr()) }.set_name(args::name(name.as_ref())?);
        }
        Ok(lock.into_ptr())
    })
}

/// Adds both types, and what makes a Lock, to the module.
pub(crate) fn add(module: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = module.py();
    crate::types::keep(module, Slot::Lock, crate::native::make_type::<RawLock>(py)?.cast())?;
    module.setattr("LockType", crate::types::get(py, Slot::Lock))?;
    if !RawLock::CALLABLE {
        let row = method_fast(c"Lock", make_lock, <RawLock as Native>::DOC);
        let row: *mut ffi::PyMethodDef = Box::leak(Box::new(row));
        let name = PyString::new(py, "raddle.threading");
        // SAFETY: the row is leaked, so that it outlives the function.
        let function = unsafe { ffi::PyCFunction_NewEx(row, std::ptr::null_mut(), name.as_ptr()) };
        if function.is_null() {
            return Err(crate::error::fetch(py));
        }
        // SAFETY: a new reference.
        module.setattr("Lock", unsafe { Bound::<PyAny>::from_owned_ptr(py, function) })?;
        module.delattr("lock")?;
    }
    crate::types::add::<RawRLock>(module, Slot::RLock)?;
    let lock = crate::types::get(py, Slot::Lock);
    special::put(&lock, "__enter__", py_enter::<RawLock>)?;
    special::put(&lock, "__exit__", py_release::<RawLock>)?;
    let rlock = crate::types::get(py, Slot::RLock);
    special::put(&rlock, "__enter__", py_enter::<RawRLock>)?;
    special::put(&rlock, "__exit__", py_release::<RawRLock>)
}

impl Native for RawLock {
    type Entry = Entry;
    // Before 3.13 `threading.Lock` is a function, and the type of a lock cannot be called: see `make_lock`.
    const NAME: &'static CStr = if cfg!(Py_3_13) { c"raddle.threading.Lock" } else { c"raddle.threading.lock" };
    const DOC: &'static CStr = c"Lock(*, name=None)\n--\n\n\
        A lock that knows its owner, its waiters and their longest wait.\n\n\
        Any thread may release it. Not re-entrant, not fair. Usable from any number of threads and from\n\
        finalizers and signal handlers (release never waits). In a forked child it is as the parent left it.\n\
        Follows CPython's `threading.Lock`.";
    const WHICH: Which = Which::Lock;
    const DICT: bool = false;
    const SUBCLASS: bool = false;
    const CALLABLE: bool = cfg!(Py_3_13);

    fn fresh() -> Self {
        RawLock::new()
    }

    fn init(this: This<'_, Self>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let [name] = args::tuple("Lock", ["name"], 0, args, kwargs)?;
        this.set_name(args::name(name.as_ref())?);
        Ok(())
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        let mut methods = lock_methods::<Self>();
        methods.extend(methods! {
            noargs "locked" ("") = py_locked::<Self>, "Whether the lock is held.";
            fast "acquire_lock" = py_acquire::<Self>, "An old name of acquire.";
            noargs "release_lock" = py_release::<Self>, "An old name of release.";
            noargs "locked_lock" = py_locked::<Self>, "An old name of locked.";
        });
        methods
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        Vec::new()
    }

    fn additions() -> Vec<(&'static CStr, ffi::getter)> {
        lock_additions::<Self>()
    }

    fn slots() -> Vec<ffi::PyType_Slot> {
        repr_slot::<Self>()
    }
}

impl Native for RawRLock {
    type Entry = Entry;
    const NAME: &'static CStr = c"raddle.threading.RLock";
    const DOC: &'static CStr = c"RLock(*, name=None)\n--\n\n\
        A lock that its owner may take again, and releases as often.\n\n\
        Only the owner may release it, so that a cycle of them is a proven deadlock.\n\
        Follows CPython's `threading.RLock`.";
    const WHICH: Which = Which::RLock;
    const DICT: bool = false;

    fn fresh() -> Self {
        RawRLock::new()
    }

    /// Anything but `name` is ignored, as the standard library ignores all; from 3.13 on it is deprecated.
    fn init(this: This<'_, Self>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let name = kwargs.and_then(|kwargs| kwargs.get_item("name").ok());
        let given = args.len()? + kwargs.map_or(Ok(0), |kwargs| kwargs.len())?;
        if cfg!(Py_3_13) && given > usize::from(name.is_some()) {
            let py = args.py();
            let category = py.get_type::<pyo3::exceptions::PyDeprecationWarning>();
            let text = c"Passing arguments to RLock is deprecated and will be removed in 3.15";
            pyo3::PyErr::warn(py, &category, text, 1)?;
        }
        this.set_name(args::name(name.as_ref())?);
        Ok(())
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        let mut methods = lock_methods::<Self>();
        methods.extend(methods! {
            noargs "_is_owned" ("") = rlock_is_owned, "Whether this thread holds it.";
            noargs "_recursion_count" ("") = rlock_recursion_count, "How often this thread holds it.";
            noargs "_release_save" ("") = rlock_release_save, "Let go altogether, for a Condition.";
            o "_acquire_restore" = rlock_acquire_restore,
                "_acquire_restore($self, state, /)\n--\n\nTake it back as often, for a Condition.";
        });
        if cfg!(Py_3_14) {
            methods.extend(methods! { noargs "locked" = py_locked::<Self>, "Whether the lock is held."; });
        }
        methods
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        Vec::new()
    }

    fn additions() -> Vec<(&'static CStr, ffi::getter)> {
        lock_additions::<Self>()
    }

    fn slots() -> Vec<ffi::PyType_Slot> {
        repr_slot::<Self>()
    }
}

unsafe extern "C" fn rlock_is_owned(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    boolean(unsafe { This::<RawRLock>::from_ptr(object) }.is_owned_by(thread_token()))
}

unsafe extern "C" fn rlock_recursion_count(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { This::<RawRLock>::from_ptr(object) };
    let depth = if this.is_owned_by(thread_token()) { RawRLock::depth(&this) } else { 0 };
    // SAFETY: attached.
    unsafe { ffi::PyLong_FromSize_t(depth) }
}

unsafe extern "C" fn rlock_release_save(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        let this = unsafe { This::<RawRLock>::from_ptr(object) };
        let me = thread_token();
        let depth = this.release_all(me).map_err(|_| RawRLock::not_held())?;
        given_back(this);
        Ok(pyo3::IntoPyObjectExt::into_bound_py_any((depth, me), py)?.into_ptr())
    })
}

unsafe extern "C" fn rlock_acquire_restore(
    object: *mut ffi::PyObject,
    state: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type, and its argument.
        let (this, state) =
            unsafe { (This::<RawRLock>::from_ptr(object), Bound::<PyAny>::from_borrowed_ptr(py, state)) };
        let (depth, _) = state.extract::<(usize, usize)>()?;
        acquire_unending(py, this);
        this.restore(depth);
        Ok(none())
    })
}

/// `True` or `False`, a new reference.
#[inline]
pub(crate) fn boolean(value: bool) -> *mut ffi::PyObject {
    // SAFETY: no preconditions.
    singleton(unsafe { if value { ffi::Py_True() } else { ffi::Py_False() } })
}

/// `None`, a new reference.
#[inline]
pub(crate) fn none() -> *mut ffi::PyObject {
    // SAFETY: no preconditions.
    singleton(unsafe { ffi::Py_None() })
}

/// A new reference to an object that lives for ever; from 3.12 on its references are not counted (PEP 683).
#[inline]
fn singleton(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: attached.
    if cfg!(Py_3_12) { object } else { unsafe { ffi::Py_NewRef(object) } }
}
