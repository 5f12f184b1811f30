//! Hand-written heap types: the layout that all of raddle's objects share, and the slots made from it.
//!
//! A type is a [`Native`] implementation: its name, its methods and its core. The functions here allocate,
//! traverse, clear and free it. Methods are plain C functions (`METH_NOARGS`, `METH_FASTCALL`): that is what
//! the interpreter calls without packing arguments.
//!
//! All objects are linked into one registry, so that "what does this thread hold" can be answered without
//! the locks' keeping lists.

use crate::args::Fast;
use crate::error::{entry, entry_or, fetch};
use crate::site;
use pyo3::exceptions::PyTypeError;
use pyo3::types::{PyAnyMethods, PyTypeMethods};
use pyo3::{Bound, PyAny, PyResult, Python, ffi};
use raddle::primitive::Spin;
use raddle::trace::Site;
use std::ffi::{CStr, c_int, c_void};
use std::mem::{offset_of, size_of};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// What every object begins with.
#[repr(C)]
struct Head {
    ob: ffi::PyObject,
    weakrefs: *mut ffi::PyObject,
}

/// What comes next in objects that have a name, or a place in the registry.
#[repr(C)]
pub(crate) struct Entry {
    previous: *mut Entry,
    next: *mut Entry,
    /// The name given, a `str`, or null.
    name: AtomicPtr<ffi::PyObject>,
    /// Where it was created.
    created: AtomicU32,
    /// How many had been created there before.
    serial: u32,
}

/// An [`Entry`], or nothing. All bytes zero is a valid value.
pub(crate) trait MaybeEntry {
    /// The entry, if there is one.
    fn get(&self) -> Option<&Entry>;
}

impl MaybeEntry for Entry {
    #[inline]
    fn get(&self) -> Option<&Entry> {
        Some(self)
    }
}

impl MaybeEntry for () {
    #[inline]
    fn get(&self) -> Option<&Entry> {
        None
    }
}

/// How many objects each place has created: tells those of one line apart by name.
static CREATED: [AtomicU32; 1 << 16] = [const { AtomicU32::new(0) }; 1 << 16];

/// The types that the registry tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Which {
    Lock,
    RLock,
    Condition,
    Semaphore,
    Event,
    Barrier,
    Queue,
    SimpleQueue,
    Scheduler,
    Thread,
    /// Not in the registry.
    Other,
}

/// All of them, in order: each has a list of its own in the registry.
const WHICH: [Which; 10] = [
    Which::Lock,
    Which::RLock,
    Which::Condition,
    Which::Semaphore,
    Which::Event,
    Which::Barrier,
    Which::Queue,
    Which::SimpleQueue,
    Which::Scheduler,
    Which::Thread,
];

/// An object: the head and what the type adds.
#[repr(C)]
pub(crate) struct Object<C: Native> {
    head: Head,
    entry: C::Entry,
    core: C,
}

impl<C: Native> Object<C> {
    /// Whether there is an entry; what wants one has one.
    const LISTED: bool = {
        let listed = size_of::<C::Entry>() > 0;
        assert!(listed || (!C::SITE && matches!(C::WHICH, Which::Other)));
        listed
    };
}

/// An object whose type has [`Native::DICT`].
#[repr(C)]
struct WithDict<C: Native> {
    object: Object<C>,
    dict: *mut ffi::PyObject,
}

/// Takes the `__dict__` of an object, or null if there is none (any more).
///
/// # Safety
/// `object` is an instance of `C`'s type; nobody else uses its `__dict__`.
unsafe fn take_dict<C: Native>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    if !C::DICT {
        return null_mut();
    }
    // SAFETY: the caller's; the layout is that of `make_type`.
    unsafe { std::mem::replace(&mut (*object.cast::<WithDict<C>>()).dict, null_mut()) }
}

/// The same if it has never been asked for: empty, and known to nobody else.
///
/// # Safety
/// As [`take_dict`]; attached.
pub(crate) unsafe fn take_unused_dict<C: Native>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the caller's.
    unsafe {
        let dict = (*object.cast::<WithDict<C>>()).dict;
        let unused = !dict.is_null() && ffi::Py_REFCNT(dict) == 1 && (*dict.cast::<ffi::PyDictObject>()).ma_used == 0;
        if unused { take_dict::<C>(object) } else { null_mut() }
    }
}

/// Gives memory that [`end`] has left a `__dict__` for the next object: a reference of the caller's, or null.
///
/// # Safety
/// As [`again`]; the type has [`Native::DICT`].
pub(crate) unsafe fn put_dict<C: Native>(object: *mut ffi::PyObject, dict: *mut ffi::PyObject) {
    // SAFETY: the caller's.
    unsafe { (*object.cast::<WithDict<C>>()).dict = dict };
}

/// What `tp_traverse` passes on.
pub(crate) struct Visit {
    visit: ffi::visitproc,
    arg: *mut c_void,
}

impl Visit {
    /// Visits one reference; an answer other than 0 ends the traversal.
    pub(crate) fn call(&self, object: *mut ffi::PyObject) -> c_int {
        if object.is_null() {
            return 0;
        }
        // SAFETY: the collector gave the function and its argument, and waits for this call.
        unsafe { (self.visit)(object, self.arg) }
    }
}

/// A type of the module.
pub(crate) trait Native: Sized + 'static {
    /// [`Entry`], or `()` where objects are many and nobody asks for their names.
    type Entry: MaybeEntry;

    /// The type's full name.
    const NAME: &'static CStr;
    /// Its documentation; the part up to `--` is the signature.
    const DOC: &'static CStr;
    /// Which it is in the registry.
    const WHICH: Which;
    /// Whether instances have a `__dict__`, and so take part in garbage collection.
    const DICT: bool;

    /// How `__dict__` is got and set.
    const DICT_ACCESS: (ffi::getter, ffi::setter) = (ffi::PyObject_GenericGetDict, ffi::PyObject_GenericSetDict);

    /// Whether an object knows where it was made, and has its name from that.
    const SITE: bool = true;

    /// Whether its slots have a finalizer.
    const FINALIZES: bool = false;

    /// The type it is a subtype of, which has the same layout.
    const BASE: Option<crate::types::Slot> = None;

    /// Whether programs may subclass it.
    const SUBCLASS: bool = true;
    /// Whether programs may call it; if not, something else makes instances.
    const CALLABLE: bool = true;

    /// A core as it is before `__init__`.
    fn fresh() -> Self;

    /// `__init__`.
    ///
    /// # Errors
    /// What `__init__` raises.
    fn init(_this: This<'_, Self>, _args: &Bound<'_, PyAny>, _kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        Ok(())
    }

    /// Visits the references of the core.
    fn traverse(&self, _visit: &Visit) -> c_int {
        0
    }

    /// Drops references that may be part of a cycle. May run Python code.
    fn clear(&self) {}

    /// Its methods.
    fn methods() -> Vec<ffi::PyMethodDef>;

    /// Its attributes.
    fn attributes() -> Vec<ffi::PyGetSetDef>;

    /// What the standard library's type does not have. A subclass may use these names for its own.
    fn additions() -> Vec<(&'static CStr, ffi::getter)> {
        Vec::new()
    }

    /// Further slots.
    fn slots() -> Vec<ffi::PyType_Slot> {
        Vec::new()
    }
}

/// A borrowed object of a known type, while attached.
pub(crate) struct This<'a, C: Native> {
    object: &'a Object<C>,
}

impl<C: Native> Clone for This<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<C: Native> Copy for This<'_, C> {}

impl<C: Native> std::ops::Deref for This<'_, C> {
    type Target = C;
    #[inline]
    fn deref(&self) -> &C {
        &self.object.core
    }
}

impl<'a, C: Native> This<'a, C> {
    /// The object behind a pointer.
    ///
    /// # Safety
    /// `object` is an instance of `C`'s type (or of a subclass), alive for `'a`.
    #[inline]
    pub(crate) unsafe fn from_ptr(object: *mut ffi::PyObject) -> Self {
        // SAFETY: as above; all instances have this layout.
        Self { object: unsafe { &*object.cast::<Object<C>>() } }
    }

    /// What the type adds, for as long as the object is borrowed.
    #[inline]
    pub(crate) fn core(self) -> &'a C {
        &self.object.core
    }

    /// The object as the interpreter knows it.
    #[inline]
    pub(crate) fn as_ptr(self) -> *mut ffi::PyObject {
        std::ptr::from_ref(self.object).cast_mut().cast()
    }

    /// The object as a safe reference.
    pub(crate) fn bound<'py>(self, py: Python<'py>) -> Bound<'py, PyAny> {
        // SAFETY: the pointer is a live object.
        unsafe { Bound::from_borrowed_ptr(py, self.as_ptr()) }
    }

    /// Its address, by which the core knows it.
    #[inline]
    pub(crate) fn address(self) -> usize {
        self.as_ptr() as usize
    }

    /// Gives it a name; null takes it away.
    pub(crate) fn set_name(self, name: Option<&Bound<'_, PyAny>>) {
        let name = name.map_or(null_mut(), |name| name.clone().into_ptr());
        let old = self.object.entry.get().map_or(name, |entry| entry.name.swap(name, Ordering::AcqRel));
        // SAFETY: the entry owned a reference to the old name, if there was one.
        unsafe { ffi::Py_XDECREF(old) };
    }

    /// Its name: the one given, else where it was created.
    pub(crate) fn name(self, py: Python<'_>) -> PyResult<String> {
        let Some(entry) = self.object.entry.get() else { return Ok("?".to_owned()) };
        let name = entry.name.load(Ordering::Acquire);
        if !name.is_null() {
            // SAFETY: the entry holds a reference.
            return Ok(unsafe { Bound::from_borrowed_ptr(py, name) }.str()?.to_string());
        }
        Ok(match Site::from_word(entry.created.load(Ordering::Relaxed)) {
            Some(site) if entry.serial > 0 => format!("{}#{}", site::short(site), entry.serial + 1),
            Some(site) => site::short(site),
            None => "?".to_owned(),
        })
    }
}

/// The first of each list.
struct Registry([*mut Entry; WHICH.len()]);
// SAFETY: the lists are only followed under their lock, and their members unlink themselves before they go.
unsafe impl Send for Registry {}

static REGISTRY: Spin<Registry> = Spin::new(Registry([null_mut(); WHICH.len()]));

/// Calls `look` for every object of the module, under the registry's lock: nothing foreign may run in it.
pub(crate) fn for_each(mut look: impl FnMut(Which, *mut ffi::PyObject)) {
    let registry = REGISTRY.lock();
    for (which, first) in WHICH.into_iter().zip(registry.0) {
        let mut at = first;
        while !at.is_null() {
            // SAFETY: members are alive while they are linked, and the lock keeps them linked; before the entry is the
            // head, where the object begins.
            at = unsafe {
                look(which, at.byte_sub(size_of::<Head>()).cast());
                (*at).next
            };
        }
    }
}

/// The core behind a pointer that [`for_each`] or the core gave.
///
/// # Safety
/// As [`This::from_ptr`].
pub(crate) unsafe fn core<'a, C: Native>(object: *mut ffi::PyObject) -> &'a C {
    // SAFETY: passed on.
    unsafe { &(*object.cast::<Object<C>>()).core }
}

/// The core of an object that nobody else has seen yet.
///
/// # Safety
/// As [`This::from_ptr`], and there is no other reference to the core.
pub(crate) unsafe fn core_mut<'a, C: Native>(object: *mut ffi::PyObject) -> &'a mut C {
    // SAFETY: the caller's.
    unsafe { &mut (*object.cast::<Object<C>>()).core }
}

/// A new instance of `ty`, which is `C`'s type or a subclass.
pub(crate) fn allocate<C: Native>(py: Python<'_>, ty: *mut ffi::PyTypeObject) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: `ty` is a live heap type with a tp_alloc; the result is zeroed memory of tp_basicsize, which the
    // writes below make an `Object<C>`.
    unsafe {
        let alloc = (*ty).tp_alloc.unwrap_or(ffi::PyType_GenericAlloc);
        let object = alloc(ty, 0).cast::<Object<C>>();
        if object.is_null() {
            return Err(fetch(py));
        }
        begin(object);
        Ok(object.cast())
    }
}

/// Makes an object of memory that is zero behind the object's head.
///
/// # Safety
/// `object` is a new object of `C`'s type or a subclass, zeroed but for the interpreter's part of the head; nobody
/// else has seen it.
unsafe fn begin<C: Native>(object: *mut Object<C>) {
    // SAFETY: the caller's.
    unsafe {
        (&raw mut (*object).core).write(C::fresh());
        if !Object::<C>::LISTED {
            return;
        }
        let entry = (&raw mut (*object).entry).cast::<Entry>();
        if C::SITE {
            let site = Site::to_word(site::here());
            *(*entry).created.get_mut() = site;
            (*entry).serial = CREATED[site as usize % CREATED.len()].fetch_add(1, Ordering::Relaxed);
        }
        if C::WHICH != Which::Other {
            let mut registry = REGISTRY.lock();
            let first = &mut registry.0[C::WHICH as usize];
            (*entry).next = *first;
            if !first.is_null() {
                (**first).previous = entry;
            }
            *first = entry;
        }
    }
}

/// Makes an object again, of the memory of one that [`end`] has taken apart; the type takes part in garbage
/// collection, and the object is not tracked yet.
///
/// # Safety
/// `object` is memory of an instance of exactly `ty`, which is `C`'s type or a subclass; nobody else has it.
#[inline]
pub(crate) unsafe fn again<C: Native>(ty: *mut ffi::PyTypeObject, object: *mut ffi::PyObject) {
    // SAFETY: the caller's; `end` has left nothing in the head, the core or the dict that would have to be given back.
    unsafe {
        ffi::PyObject_Init(object, ty);
        let object = object.cast::<Object<C>>();
        (*object).head.weakrefs = null_mut();
        (&raw mut (*object).entry).write_bytes(0, 1);
        begin(object);
    }
}

unsafe extern "C" fn tp_new<C: Native>(
    ty: *mut ffi::PyTypeObject,
    _args: *mut ffi::PyObject,
    _kwargs: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    entry(|py| allocate::<C>(py, ty))
}

unsafe extern "C" fn tp_init<C: Native>(
    object: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    kwargs: *mut ffi::PyObject,
) -> c_int {
    entry_or(-1, |py| {
        // SAFETY: the interpreter passes an instance, a tuple, and a dict or null.
        unsafe {
            let args = Bound::from_borrowed_ptr(py, args);
            let kwargs = Bound::from_borrowed_ptr_or_opt(py, kwargs);
            C::init(This::from_ptr(object), &args, kwargs.as_ref())?;
        }
        Ok(0)
    })
}

unsafe extern "C" fn tp_dealloc<C: Native>(object: *mut ffi::PyObject) {
    // SAFETY: the last reference is gone; a finalizer that makes a new one ends this.
    if C::FINALIZES && !unsafe { crate::gil::finalize(object) } {
        return;
    }
    // SAFETY: the last reference is gone, and the memory is that of an instance of its type.
    unsafe {
        if C::DICT {
            ffi::PyObject_GC_UnTrack(object.cast());
        }
        end::<C>(object);
        let ty = ffi::Py_TYPE(object);
        if let Some(free) = (*ty).tp_free {
            free(object.cast());
        }
        ffi::Py_DECREF(ty.cast());
    }
}

/// Takes an object apart that nobody refers to any more, and that is not tracked: what is left is memory.
///
/// # Safety
/// `object` is an instance of `C`'s type or a subclass, whose last reference is gone.
pub(crate) unsafe fn end<C: Native>(object: *mut ffi::PyObject) {
    // SAFETY: the caller's; the parts are released in the order the interpreter asks for, and the object is unlinked
    // before its memory goes.
    unsafe {
        let this = object.cast::<Object<C>>();
        if !(*this).head.weakrefs.is_null() {
            crate::gil::clear_weakrefs(object);
        }
        if C::WHICH != Which::Other {
            let entry = (&raw mut (*this).entry).cast::<Entry>();
            let registry = &mut REGISTRY.lock();
            match (*entry).previous.is_null() {
                true => registry.0[C::WHICH as usize] = (*entry).next,
                false => (*(*entry).previous).next = (*entry).next,
            }
            if !(*entry).next.is_null() {
                (*(*entry).next).previous = (*entry).previous;
            }
        }
    }
    // SAFETY: as above; the registry's lock is free again.
    unsafe {
        let this = object.cast::<Object<C>>();
        if raddle::trace::mode() & raddle::trace::ORDER != 0 {
            raddle::detect::forget(object as usize);
        }
        std::ptr::drop_in_place(&raw mut (*this).core);
        if let Some(entry) = (*this).entry.get() {
            crate::gil::decref(entry.name.load(Ordering::Relaxed));
        }
        crate::gil::decref(take_dict::<C>(object));
    }
}

/// Has the core fetch the memory of an object that is soon to be made: a hint. That memory may not have been used for
/// long, and a future is made in less time than it takes to come.
#[inline]
fn fetch_ahead(object: *mut ffi::PyObject) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..3 {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: no preconditions: the address is not read from.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(object.cast::<i8>().wrapping_add(line * 64)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = object;
}

/// Memory of objects of the same type that [`end`] has taken apart, linked by their heads. Used attached only, and of
/// no use without the GIL.
pub(crate) struct Pile {
    top: AtomicPtr<ffi::PyObject>,
    len: AtomicUsize,
}

impl Pile {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Self { top: AtomicPtr::new(null_mut()), len: AtomicUsize::new(0) }
    }

    /// How many are there.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Puts one on top.
    ///
    /// # Safety
    /// `object` is what [`end`] has left of an object.
    #[inline]
    pub(crate) unsafe fn put(&self, object: *mut ffi::PyObject) {
        // SAFETY: the caller's; there are no weak references any more.
        unsafe { (*object.cast::<Head>()).weakrefs = self.top.load(Ordering::Relaxed) };
        self.top.store(object, Ordering::Relaxed);
        self.len.store(self.len() + 1, Ordering::Relaxed);
    }

    /// Takes the topmost.
    #[inline]
    pub(crate) fn take(&self) -> Option<*mut ffi::PyObject> {
        let object = self.top.load(Ordering::Relaxed);
        if object.is_null() {
            return None;
        }
        // SAFETY: what was put here stays as it was.
        let next = unsafe { (*object.cast::<Head>()).weakrefs };
        fetch_ahead(next);
        self.top.store(next, Ordering::Relaxed);
        self.len.store(self.len() - 1, Ordering::Relaxed);
        Some(object)
    }
}

unsafe extern "C" fn tp_traverse<C: Native>(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the collector passes a live instance and its own function.
    unsafe {
        let this = object.cast::<Object<C>>();
        let visit = Visit { visit, arg };
        let dict = if C::DICT { (*object.cast::<WithDict<C>>()).dict } else { null_mut() };
        for reference in [ffi::Py_TYPE(object).cast(), dict] {
            let stop = visit.call(reference);
            if stop != 0 {
                return stop;
            }
        }
        (*this).core.traverse(&visit)
    }
}

unsafe extern "C" fn tp_clear<C: Native>(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: the collector passes a live instance.
    unsafe {
        let this = object.cast::<Object<C>>();
        crate::gil::decref(take_dict::<C>(object));
        (*this).core.clear();
    }
    0
}

/// The type object of a [`Native`], made once per process.
///
/// Leaked pieces are the type's for as long as the interpreter lives.
pub(crate) fn make_type<C: Native>(py: Python<'_>) -> PyResult<*mut ffi::PyTypeObject> {
    let member = |name: &'static CStr, offset: usize| ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: offset as ffi::Py_ssize_t,
        flags: ffi::Py_READONLY,
        doc: std::ptr::null(),
    };
    let mut members = vec![member(c"__weaklistoffset__", offset_of!(Head, weakrefs))];
    let mut attributes = C::attributes();
    if C::DICT {
        members.push(member(c"__dictoffset__", offset_of!(WithDict<C>, dict)));
        attributes.push(ffi::PyGetSetDef {
            name: c"__dict__".as_ptr(),
            get: Some(C::DICT_ACCESS.0),
            set: Some(C::DICT_ACCESS.1),
            doc: std::ptr::null(),
            closure: null_mut(),
        });
    }
    members.push(zeroed());
    attributes.push(zeroed());
    let mut methods = C::methods();
    methods.push(method_noargs(c"__class_getitem__", class_getitem, c"For annotations."));
    let last = methods.len() - 1;
    methods[last].ml_flags = ffi::METH_O | ffi::METH_CLASS;
    methods.push(ffi::PyMethodDef::zeroed());

    let mut slots = C::slots();
    let mut slot = |slot: c_int, function: *mut c_void| slots.push(ffi::PyType_Slot { slot, pfunc: function });
    slot(ffi::Py_tp_doc, C::DOC.as_ptr().cast_mut().cast());
    if C::CALLABLE {
        slot(ffi::Py_tp_new, tp_new::<C> as *mut c_void);
        slot(ffi::Py_tp_init, tp_init::<C> as *mut c_void);
    }
    slot(ffi::Py_tp_dealloc, tp_dealloc::<C> as *mut c_void);
    slot(ffi::Py_tp_methods, methods.leak().as_mut_ptr().cast());
    slot(ffi::Py_tp_members, members.leak().as_mut_ptr().cast());
    slot(ffi::Py_tp_getset, attributes.leak().as_mut_ptr().cast());
    let mut flags = ffi::Py_TPFLAGS_DEFAULT;
    if C::SUBCLASS {
        flags |= ffi::Py_TPFLAGS_BASETYPE;
    }
    if !C::CALLABLE {
        flags |= ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    }
    if C::DICT {
        flags |= ffi::Py_TPFLAGS_HAVE_GC;
        slot(ffi::Py_tp_traverse, tp_traverse::<C> as *mut c_void);
        slot(ffi::Py_tp_clear, tp_clear::<C> as *mut c_void);
    }
    slots.push(ffi::PyType_Slot { slot: 0, pfunc: null_mut() });
    let mut spec = ffi::PyType_Spec {
        name: C::NAME.as_ptr(),
        basicsize: if C::DICT { size_of::<WithDict<C>>() } else { size_of::<Object<C>>() } as c_int,
        itemsize: 0,
        flags: flags as std::ffi::c_uint,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the spec and all it points to are valid; what the type keeps has been leaked.
    let ty = unsafe {
        match C::BASE {
            Some(base) => {
                let bases = crate::observe::tuple(py, &[crate::types::get(py, base)])?;
                ffi::PyType_FromSpecWithBases(&mut spec, bases.as_ptr())
            }
            None => ffi::PyType_FromSpec(&mut spec),
        }
    };
    if ty.is_null() {
        return Err(fetch(py));
    }
    // SAFETY: a live type object, whose reference is kept for as long as the process lives.
    let bound = unsafe { Bound::<PyAny>::from_borrowed_ptr(py, ty) };
    if C::BASE.is_none() && Object::<C>::LISTED {
        crate::special::put_attribute(&bound, c"name", name::<C>)?;
    }
    for (name, getter) in C::additions() {
        crate::special::put_attribute(&bound, name, getter)?;
    }
    Ok(ty.cast())
}

fn zeroed<T>() -> T {
    // SAFETY: used for the C tables above only, whose end is a row of zeros.
    unsafe { std::mem::zeroed() }
}

unsafe extern "C" fn class_getitem(class: *mut ffi::PyObject, item: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: both are live objects.
    unsafe { ffi::Py_GenericAlias(class, item) }
}

unsafe extern "C" fn name<C: Native>(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: the attribute is looked up on an instance.
        let name = unsafe { This::<C>::from_ptr(object) }.name(py)?;
        Ok(pyo3::types::PyString::new(py, &name).into_ptr())
    })
}

/// The type of `reduce_ex`-less objects refuses to be pickled, as the standard library's locks do.
pub(crate) unsafe extern "C" fn no_pickle(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a live object.
        let object = unsafe { Bound::from_borrowed_ptr(py, object) };
        let name = object.get_type().name()?;
        Err(PyTypeError::new_err(format!("cannot pickle '{name}' object")))
    })
}

/// A row of a method table: no arguments.
pub(crate) fn method_noargs(name: &'static CStr, function: ffi::PyCFunction, doc: &'static CStr) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: function },
        ml_flags: ffi::METH_NOARGS,
        ml_doc: doc.as_ptr(),
    }
}

/// A row of a method table: one positional argument.
pub(crate) fn method_o(name: &'static CStr, function: ffi::PyCFunction, doc: &'static CStr) -> ffi::PyMethodDef {
    ffi::PyMethodDef { ml_flags: ffi::METH_O, ..method_noargs(name, function, doc) }
}

/// A row of a method table: positional and keyword arguments, unpacked.
pub(crate) fn method_fast(
    name: &'static CStr,
    function: ffi::PyCFunctionFastWithKeywords,
    doc: &'static CStr,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: doc.as_ptr(),
    }
}

/// A C string from literals.
macro_rules! c_text {
    ($($part:literal),*) => {
        const {
            match std::ffi::CStr::from_bytes_with_nul(concat!($($part,)* "\0").as_bytes()) {
                Ok(text) => text,
                Err(_) => panic!("a text has a zero byte in it"),
            }
        }
    };
}
pub(crate) use c_text;

/// A method table. A row is what the method takes (`noargs`, `o` or `fast`), its name, its signature behind `$self`
/// where it has one to show, the C function, and its documentation.
macro_rules! methods {
    ($($kind:ident $name:literal $(($signature:literal))? = $function:expr, $doc:literal;)*) => {
        vec![$(
            $crate::native::methods!(@ $kind)(
                $crate::native::c_text!($name),
                $function,
                $crate::native::c_text!($($name, "($self, /", $signature, ")\n--\n\n",)? $doc),
            )
        ),*]
    };
    (@ noargs) => { $crate::native::method_noargs };
    (@ o) => { $crate::native::method_o };
    (@ fast) => { $crate::native::method_fast };
}
pub(crate) use methods;

/// The body of a method without arguments, or of an attribute: gives a new reference.
pub(crate) type Body<C> = fn(Python<'_>, This<'_, C>) -> PyResult<*mut ffi::PyObject>;
/// The same with one argument.
pub(crate) type BodyOfOne<C> = fn(Python<'_>, This<'_, C>, Bound<'_, PyAny>) -> PyResult<*mut ffi::PyObject>;
/// The same with arguments as they came.
pub(crate) type BodyOfFast<C> = fn(Python<'_>, This<'_, C>, Fast) -> PyResult<*mut ffi::PyObject>;

/// Defines the C function of a method without arguments of a type, from its [`Body`].
macro_rules! noargs {
    ($name:ident, $type:ty, $body:expr) => {
        unsafe extern "C" fn $name(
            object: *mut pyo3::ffi::PyObject,
            _: *mut pyo3::ffi::PyObject,
        ) -> *mut pyo3::ffi::PyObject {
            let body: $crate::native::Body<$type> = $body;
            // SAFETY: called as a method of the type.
            unsafe { $crate::native::run::<$type>(object, body) }
        }
    };
}
pub(crate) use noargs;

/// Defines the C function of a method with one argument, from its [`BodyOfOne`].
macro_rules! one {
    ($name:ident, $type:ty, $body:expr) => {
        unsafe extern "C" fn $name(
            object: *mut pyo3::ffi::PyObject,
            argument: *mut pyo3::ffi::PyObject,
        ) -> *mut pyo3::ffi::PyObject {
            let body: $crate::native::BodyOfOne<$type> = $body;
            // SAFETY: called as a method of the type, with a live argument.
            unsafe {
                $crate::native::run::<$type>(object, |py, this| {
                    body(py, this, pyo3::Bound::from_borrowed_ptr(py, argument))
                })
            }
        }
    };
}
pub(crate) use one;

/// Defines the C function of a method with arguments, from its [`BodyOfFast`].
macro_rules! fast {
    ($name:ident, $type:ty, $body:expr) => {
        unsafe extern "C" fn $name(
            object: *mut pyo3::ffi::PyObject,
            args: *const *mut pyo3::ffi::PyObject,
            count: pyo3::ffi::Py_ssize_t,
            keywords: *mut pyo3::ffi::PyObject,
        ) -> *mut pyo3::ffi::PyObject {
            let body: $crate::native::BodyOfFast<$type> = $body;
            // SAFETY: called as a method of the type.
            unsafe { $crate::native::run::<$type>(object, |py, this| body(py, this, (args, count, keywords))) }
        }
    };
}
pub(crate) use fast;

/// Defines the C function of an attribute of a type, from its [`Body`].
macro_rules! getter {
    ($name:ident, $type:ty, $body:expr) => {
        unsafe extern "C" fn $name(
            object: *mut pyo3::ffi::PyObject,
            _: *mut std::ffi::c_void,
        ) -> *mut pyo3::ffi::PyObject {
            let body: $crate::native::Body<$type> = $body;
            // SAFETY: called for an attribute of the type.
            unsafe { $crate::native::run::<$type>(object, body) }
        }
    };
}
pub(crate) use getter;

/// Runs the body of a C function on its object.
///
/// # Safety
/// As [`This::from_ptr`].
#[inline]
pub(crate) unsafe fn run<C: Native>(
    object: *mut ffi::PyObject,
    body: impl FnOnce(Python<'_>, This<'_, C>) -> PyResult<*mut ffi::PyObject>,
) -> *mut ffi::PyObject {
    // SAFETY: the caller's.
    let this = unsafe { This::from_ptr(object) };
    entry(|py| body(py, this))
}

/// A row of an attribute table.
pub(crate) fn get<C: Native>(name: &'static CStr, getter: ffi::getter, doc: &'static CStr) -> ffi::PyGetSetDef {
    ffi::PyGetSetDef { name: name.as_ptr(), get: Some(getter), set: None, doc: doc.as_ptr(), closure: null_mut() }
}
