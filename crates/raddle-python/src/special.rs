//! `__enter__` and `__exit__` without a new object for each `with`.
//!
//! Up to 3.13, a `with` statement looks both up on the type and binds them: for a method of a C type that makes two
//! objects, which costs more than taking and releasing the lock. A [`Special`] stands in the type's dictionary in
//! place of such a method; binding it hands out a recycled [`Bound`]. Called through the type, as
//! `contextlib.ExitStack` does, it takes the object as its first argument.
//!
//! The free list is the process's: the module loads in the main interpreter only. Without the GIL there is none.

use crate::error::{entry, fetch};
use pyo3::exceptions::PyTypeError;
use pyo3::types::PyAnyMethods;
use pyo3::{Bound as PyBound, PyAny, PyResult, Python, ffi};
use std::ffi::{CStr, c_int, c_void};
use std::mem::{offset_of, size_of};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A method of a lock: the object is known to be of the right type.
type Method = unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject) -> *mut ffi::PyObject;

/// What stands in the type.
#[repr(C)]
struct Special {
    ob: ffi::PyObject,
    vectorcall: Option<ffi::vectorcallfunc>,
    method: Method,
    /// The type it belongs to, borrowed: the type owns this object.
    owner: *mut ffi::PyTypeObject,
    name: *mut ffi::PyObject,
}

/// What a `with` statement calls.
#[repr(C)]
struct Bound {
    ob: ffi::PyObject,
    vectorcall: Option<ffi::vectorcallfunc>,
    /// The object, or in the free list the next free one.
    object: *mut ffi::PyObject,
    special: *mut Special,
}

/// An attribute that gives way to one of the instance's own: `self.name = ...` in a subclass is the subclass's.
#[repr(C)]
struct Attribute {
    ob: ffi::PyObject,
    getter: ffi::getter,
}

static ATTRIBUTE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(null_mut());
static SPECIAL: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(null_mut());
static BOUND: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(null_mut());
/// Changed by attached threads only, which under the GIL is one at a time.
static FREE: AtomicPtr<Bound> = AtomicPtr::new(null_mut());

const RECYCLES: bool = !cfg!(Py_GIL_DISABLED);

unsafe extern "C" fn bound_call(
    callable: *mut ffi::PyObject,
    _args: *const *mut ffi::PyObject,
    _count: usize,
    _keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the vectorcall of a Bound, whose object is of the special's type. `__exit__` ignores its arguments.
    unsafe {
        let bound = callable.cast::<Bound>();
        ((*(*bound).special).method)((*bound).object, null_mut())
    }
}

unsafe extern "C" fn bound_dealloc(object: *mut ffi::PyObject) {
    // SAFETY: the last reference is gone. The object it held goes first, then the memory is kept or freed.
    unsafe {
        let bound = object.cast::<Bound>();
        let held = (*bound).object;
        if RECYCLES {
            (*bound).object = FREE.load(Ordering::Relaxed).cast();
            FREE.store(bound, Ordering::Relaxed);
            // An instance owns a reference to its type; `PyObject_Init` takes it again.
            ffi::Py_DECREF(ffi::Py_TYPE(object).cast());
        } else {
            free(object);
        }
        crate::gil::decref(held);
    }
}

unsafe fn free(object: *mut ffi::PyObject) {
    // SAFETY: the caller's; a heap type's instance owns a reference to its type.
    unsafe {
        let ty = ffi::Py_TYPE(object);
        if let Some(free) = (*ty).tp_free {
            free(object.cast());
        }
        ffi::Py_DECREF(ty.cast());
    }
}

unsafe extern "C" fn special_get(
    special: *mut ffi::PyObject,
    object: *mut ffi::PyObject,
    _ty: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a descriptor slot; `object` is null or an instance of the type that has the descriptor. A recycled
    // Bound is dead: nobody refers to it.
    unsafe {
        if object.is_null() || object == ffi::Py_None() {
            return ffi::Py_NewRef(special);
        }
        let free = FREE.load(Ordering::Relaxed);
        let bound = if RECYCLES && !free.is_null() {
            FREE.store((*free).object.cast(), Ordering::Relaxed);
            ffi::PyObject_Init(free.cast(), BOUND.load(Ordering::Relaxed));
            free
        } else {
            let ty = BOUND.load(Ordering::Relaxed);
            let fresh = ffi::PyType_GenericAlloc(ty, 0).cast::<Bound>();
            if fresh.is_null() {
                return null_mut();
            }
            (*fresh).vectorcall = Some(bound_call);
            fresh
        };
        (*bound).object = ffi::Py_NewRef(object);
        (*bound).special = special.cast();
        bound.cast()
    }
}

/// `Lock.__enter__(lock)`.
unsafe extern "C" fn special_call(
    callable: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: usize,
    _keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the vectorcall of a Special; the arguments are live.
    unsafe {
        let special = callable.cast::<Special>();
        let count = ffi::PyVectorcall_NARGS(count) as usize;
        if count == 0 || ffi::PyObject_TypeCheck(*args, (*special).owner) == 0 {
            return entry(|py| {
                let owner = PyBound::<PyAny>::from_borrowed_ptr(py, (*special).owner.cast());
                let name = PyBound::<PyAny>::from_borrowed_ptr(py, (*special).name);
                Err(PyTypeError::new_err(format!(
                    "descriptor '{name}' requires a '{}' object as its first argument",
                    owner.getattr("__qualname__")?
                )))
            });
        }
        ((*special).method)(*args, null_mut())
    }
}

unsafe extern "C" fn special_repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a slot of the type; the fields are live.
        let (owner, name) = unsafe {
            let special = object.cast::<Special>();
            let owner = PyBound::<PyAny>::from_borrowed_ptr(py, (*special).owner.cast());
            (owner, PyBound::<PyAny>::from_borrowed_ptr(py, (*special).name))
        };
        let text = format!("<method '{name}' of '{}' objects>", owner.getattr("__qualname__")?);
        Ok(pyo3::types::PyString::new(py, &text).into_ptr())
    })
}

unsafe extern "C" fn special_name(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    unsafe { ffi::Py_NewRef((*object.cast::<Special>()).name) }
}

unsafe extern "C" fn bound_self(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    unsafe { ffi::Py_NewRef((*object.cast::<Bound>()).object) }
}

unsafe extern "C" fn bound_name(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    unsafe { ffi::Py_NewRef((*(*object.cast::<Bound>()).special).name) }
}

type Slots = Vec<(c_int, *mut c_void)>;

fn make(
    py: Python<'_>,
    name: &'static CStr,
    size: usize,
    vectorcall: usize,
    mut slots: Slots,
    attributes: Vec<(&'static CStr, ffi::getter)>,
) -> PyResult<*mut ffi::PyTypeObject> {
    // SAFETY: rows of zeros end C tables.
    let (end_of_members, end_of_attributes): (ffi::PyMemberDef, ffi::PyGetSetDef) = unsafe { std::mem::zeroed() };
    let members = vec![
        ffi::PyMemberDef {
            name: c"__vectorcalloffset__".as_ptr(),
            type_code: ffi::Py_T_PYSSIZET,
            offset: vectorcall as ffi::Py_ssize_t,
            flags: ffi::Py_READONLY,
            doc: std::ptr::null(),
        },
        end_of_members,
    ];
    let mut rows: Vec<ffi::PyGetSetDef> = attributes
        .into_iter()
        .map(|(name, get)| ffi::PyGetSetDef {
            name: name.as_ptr(),
            get: Some(get),
            set: None,
            doc: std::ptr::null(),
            closure: null_mut(),
        })
        .collect();
    rows.push(end_of_attributes);
    slots.push((ffi::Py_tp_members, members.leak().as_mut_ptr().cast()));
    slots.push((ffi::Py_tp_getset, rows.leak().as_mut_ptr().cast()));
    slots.push((ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void));
    finish(py, name, size, slots, ffi::Py_TPFLAGS_HAVE_VECTORCALL)
}

/// A type without members of its own.
fn make_plain(py: Python<'_>, name: &'static CStr, size: usize, slots: Slots) -> PyResult<*mut ffi::PyTypeObject> {
    finish(py, name, size, slots, 0)
}

fn finish(
    py: Python<'_>,
    name: &'static CStr,
    size: usize,
    slots: Slots,
    flags: std::ffi::c_ulong,
) -> PyResult<*mut ffi::PyTypeObject> {
    let mut slots: Vec<ffi::PyType_Slot> =
        slots.into_iter().map(|(slot, pfunc)| ffi::PyType_Slot { slot, pfunc }).collect();
    slots.push(ffi::PyType_Slot { slot: 0, pfunc: null_mut() });
    let flags = flags | ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    let mut spec = ffi::PyType_Spec {
        name: name.as_ptr(),
        basicsize: size as c_int,
        itemsize: 0,
        flags: flags as std::ffi::c_uint,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the spec and all it points to are valid; what the type keeps has been leaked.
    let ty = unsafe { ffi::PyType_FromSpec(&mut spec) };
    if ty.is_null() { Err(fetch(py)) } else { Ok(ty.cast()) }
}

/// Makes the two helper types, once.
fn types(py: Python<'_>) -> PyResult<*mut ffi::PyTypeObject> {
    let special = SPECIAL.load(Ordering::Acquire);
    if !special.is_null() {
        return Ok(special);
    }
    let bound = make(
        py,
        c"raddle._raddle.bound_special",
        size_of::<Bound>(),
        offset_of!(Bound, vectorcall),
        vec![(ffi::Py_tp_dealloc, bound_dealloc as *mut c_void)],
        vec![(c"__self__", bound_self), (c"__name__", bound_name)],
    )?;
    BOUND.store(bound, Ordering::Release);
    let special = make(
        py,
        c"raddle._raddle.special",
        size_of::<Special>(),
        offset_of!(Special, vectorcall),
        vec![(ffi::Py_tp_descr_get, special_get as *mut c_void), (ffi::Py_tp_repr, special_repr as *mut c_void)],
        vec![(c"__name__", special_name)],
    )?;
    SPECIAL.store(special, Ordering::Release);
    Ok(special)
}

/// Puts a method that takes no notice of its arguments into a type, as a [`Special`].
pub(crate) fn put(ty: &PyBound<'_, PyAny>, name: &str, method: Method) -> PyResult<()> {
    let py = ty.py();
    let kind = types(py)?;
    // SAFETY: a fresh instance, whose fields are all set; the type lives as long as the process.
    let special = unsafe {
        let special = ffi::PyType_GenericAlloc(kind, 0).cast::<Special>();
        if special.is_null() {
            return Err(fetch(py));
        }
        (*special).vectorcall = Some(special_call);
        (*special).method = method;
        (*special).owner = ty.as_ptr().cast();
        (*special).name = pyo3::types::PyString::intern(py, name).into_ptr();
        PyBound::<PyAny>::from_owned_ptr(py, special.cast())
    };
    ty.setattr(name, special)
}

unsafe extern "C" fn attribute_get(
    attribute: *mut ffi::PyObject,
    object: *mut ffi::PyObject,
    _ty: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a descriptor slot; `object` is null or an instance of the type that has the descriptor.
    unsafe {
        if object.is_null() || object == ffi::Py_None() {
            return ffi::Py_NewRef(attribute);
        }
        ((*attribute.cast::<Attribute>()).getter)(object, null_mut())
    }
}

/// Puts an attribute into a type that instances may have one of their own in place of.
pub(crate) fn put_attribute(ty: &PyBound<'_, PyAny>, name: &CStr, getter: ffi::getter) -> PyResult<()> {
    let py = ty.py();
    let mut kind = ATTRIBUTE.load(Ordering::Acquire);
    if kind.is_null() {
        let slots = vec![(ffi::Py_tp_descr_get, attribute_get as *mut c_void)];
        kind = make_plain(py, c"raddle._raddle.attribute", size_of::<Attribute>(), slots)?;
        ATTRIBUTE.store(kind, Ordering::Release);
    }
    // SAFETY: a fresh instance, whose field is set.
    let attribute = unsafe {
        let attribute = ffi::PyType_GenericAlloc(kind, 0).cast::<Attribute>();
        if attribute.is_null() {
            return Err(fetch(py));
        }
        (*attribute).getter = getter;
        PyBound::<PyAny>::from_owned_ptr(py, attribute.cast())
    };
    ty.setattr(name.to_str().unwrap_or_default(), attribute)
}
