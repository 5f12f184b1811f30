//! Where the calling Python code is, in a few nanoseconds.
//!
//! A site is found by the addresses of the code object and of the instruction, which are read from the
//! interpreter's own frame; only a place seen for the first time is asked for by the public interface. The
//! offsets belong to one minor version each and are checked when the module is loaded; where they are not
//! known or the check fails, the public interface is used every time.

use pyo3::{Python, ffi};
use raddle::trace::{SITES, Site};
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// Whether the offsets below are those of the running interpreter.
static CHECKED: AtomicBool = AtomicBool::new(false);

const SLOTS: usize = 1024;

/// A remembered place. Direct-mapped: a new place takes the slot of an old one.
#[repr(align(16))]
struct Slot {
    /// Inside the memory of a code object that is kept alive, and so that of this code alone. Odd if the place is in
    /// raddle's own Python code, and stands for whoever called it.
    instruction: AtomicUsize,
    site: AtomicU32,
}

static CACHE: [Slot; SLOTS] = [const { Slot { instruction: AtomicUsize::new(0), site: AtomicU32::new(0) } }; SLOTS];

/// The code objects of the places.
static KEPT: [AtomicPtr<ffi::PyObject>; SLOTS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; SLOTS];

/// Where the interpreter notes the thread that is attached, if that is known: its state, without a call or a look into
/// thread-local storage. Null until [`check`] has compared the two, and the offsets below as well.
static HOLDER: AtomicPtr<AtomicPtr<u8>> = AtomicPtr::new(std::ptr::null_mut());

/// The calling thread's state.
#[inline(always)]
pub(crate) fn state() -> *mut u8 {
    // SAFETY: no preconditions.
    noted_state().unwrap_or_else(|| unsafe { ffi::compat::PyThreadState_GetUnchecked().cast() })
}

/// The same where it is had without a call.
#[inline(always)]
fn noted_state() -> Option<*mut u8> {
    let holder = HOLDER.load(Ordering::Relaxed);
    // SAFETY: null, or inside the interpreter's static or the main interpreter's state, neither of which is freed.
    // Whoever takes the GIL writes itself here, and so does a thread that changes its state while attached.
    unsafe { holder.as_ref() }.map(|holder| holder.load(Ordering::Relaxed))
}

#[cfg(not(any(all(Py_3_11, not(Py_3_12)), all(Py_3_13, not(Py_3_14), not(Py_GIL_DISABLED)))))]
fn find_holder() {}

/// Looks up where the interpreter notes the attached thread, in its static: followed there by the main interpreter.
#[cfg(all(Py_3_11, not(Py_3_12)))]
fn find_holder() {
    const CURRENT: usize = 72; // gilstate.tstate_current, in words
    unsafe extern "C" {
        /// Larger than what is read here by far.
        static _PyRuntime: [AtomicPtr<u8>; CURRENT + 2];
    }
    // SAFETY: the interpreter's own static, written before any module loads; these words by atomic accesses, or once.
    unsafe {
        let found = _PyRuntime[CURRENT].load(Ordering::Relaxed) == ffi::compat::PyThreadState_GetUnchecked().cast()
            && _PyRuntime[CURRENT + 1].load(Ordering::Relaxed) == ffi::PyInterpreterState_Main().cast();
        if found {
            HOLDER.store((&raw const _PyRuntime[CURRENT]).cast_mut(), Ordering::Relaxed);
        }
    }
}

/// Looks up where the main interpreter's GIL notes its holder, in the table that 3.13 has for debuggers.
#[cfg(all(Py_3_13, not(Py_3_14), not(Py_GIL_DISABLED)))]
fn find_holder() {
    unsafe extern "C" {
        /// Begins with `_Py_DebugOffsets`.
        static _PyRuntime: [u64; 19];
    }
    const VERSION: usize = 1;
    const STATE_SIZE: usize = 6; // interpreter_state.size
    const STATE_HOLDER: usize = 18; // interpreter_state.gil_runtime_state_holder
    // SAFETY: the interpreter's own static, which begins with this table and is written before any module loads.
    let (offsets, interpreter) = unsafe { (&raw const _PyRuntime, ffi::PyInterpreterState_Get().cast::<u8>()) };
    // SAFETY: as above.
    let offsets = unsafe { *offsets };
    let known = offsets[0].to_ne_bytes() == *b"xdebugpy" && offsets[VERSION] >> 16 == 0x030d;
    let offset = offsets[STATE_HOLDER];
    if !known || offset == 0 || offset + 8 > offsets[STATE_SIZE] || offset % 8 != 0 {
        return;
    }
    // SAFETY: inside the interpreter's state, by its own table; a pointer that only atomic accesses change.
    unsafe {
        let holder = interpreter.add(offset as usize).cast::<AtomicPtr<u8>>();
        if (*holder).load(Ordering::Relaxed) == ffi::compat::PyThreadState_GetUnchecked().cast() {
            HOLDER.store(holder, Ordering::Relaxed);
        }
    }
}

/// A frame of the interpreter: its own, not the object that Python sees.
#[derive(Clone, Copy)]
struct Frame(*mut u8);

#[cfg(all(Py_3_11, not(Py_3_14), not(Py_GIL_DISABLED), target_pointer_width = "64"))]
mod layout {
    #[cfg(not(Py_3_13))]
    pub(super) const FROM_STATE: usize = 56; // PyThreadState.cframe
    #[cfg(Py_3_13)]
    pub(super) const FROM_STATE: usize = 72; // PyThreadState.current_frame
    #[cfg(not(Py_3_12))]
    pub(super) const CODE: usize = 32; // _PyInterpreterFrame.f_code
    #[cfg(Py_3_12)]
    pub(super) const CODE: usize = 0; // f_code, from 3.13 f_executable
    pub(super) const INSTRUCTION: usize = 56; // prev_instr, from 3.13 instr_ptr
    #[cfg(not(Py_3_12))]
    pub(super) const OWNER: usize = 69;
    #[cfg(Py_3_12)]
    pub(super) const OWNER: usize = 70;
    pub(super) const PREVIOUS: usize = if cfg!(Py_3_12) { 8 } else { 48 };
    pub(super) const OWNED_BY_C_STACK: u8 = 3;
}

#[cfg(all(Py_3_11, not(Py_3_14), not(Py_GIL_DISABLED), target_pointer_width = "64"))]
impl Frame {
    /// The running one, if the interpreter's layout is known. It may be the C stack's: see [`Frame::first`].
    #[inline(always)]
    fn running() -> Option<Frame> {
        // SAFETY: the calling thread's state, with the offsets checked.
        if CHECKED.load(Ordering::Relaxed) { unsafe { Self::of(state()) } } else { None }
    }

    /// The same where it is had without a call, if there is a way to that.
    #[inline(always)]
    fn at_hand() -> Option<Frame> {
        if cfg!(all(Py_3_12, not(Py_3_13))) {
            return Self::running();
        }
        // SAFETY: noted once the offsets have been checked.
        unsafe { Self::of(noted_state()?) }
    }

    /// The running one of a thread.
    ///
    /// # Safety
    /// Attached, the state of the calling thread, so that its frames stay; the offsets have been checked against this
    /// interpreter by [`check`].
    #[inline(always)]
    unsafe fn of(state: *mut u8) -> Option<Frame> {
        use layout::FROM_STATE;
        // SAFETY: the caller's.
        unsafe {
            let frame = *state.add(FROM_STATE).cast::<*mut u8>();
            #[cfg(not(Py_3_12))]
            let frame = *frame.add(8).cast::<*mut u8>(); // _PyCFrame.current_frame, behind use_tracing
            #[cfg(all(Py_3_12, not(Py_3_13)))]
            let frame = *frame.cast::<*mut u8>(); // _PyCFrame.current_frame
            (!frame.is_null()).then_some(Frame(frame))
        }
    }

    /// The first of Python code, from here outwards.
    fn first(self) -> Option<Frame> {
        let mut frame = self.0;
        // SAFETY: a frame of this thread, which runs or is suspended in a call, and so are those before it.
        unsafe {
            while !frame.is_null() && *frame.add(layout::OWNER) == layout::OWNED_BY_C_STACK {
                frame = *frame.add(layout::PREVIOUS).cast::<*mut u8>();
            }
        }
        (!frame.is_null()).then_some(Frame(frame))
    }

    /// The one that called it.
    fn caller(self) -> Option<Frame> {
        // SAFETY: as above.
        let frame = unsafe { *self.0.add(layout::PREVIOUS).cast::<*mut u8>() };
        if frame.is_null() { None } else { Frame(frame).first() }
    }

    /// The instruction it is at: of its code, if it is of Python code.
    #[inline(always)]
    fn instruction(self) -> usize {
        // SAFETY: as above.
        unsafe { *self.0.add(layout::INSTRUCTION).cast::<usize>() }
    }

    /// Its code object, if it is of Python code.
    fn code(self) -> *mut ffi::PyObject {
        // SAFETY: as above.
        unsafe { *self.0.add(layout::CODE).cast::<*mut ffi::PyObject>() }
    }
}

#[cfg(not(all(Py_3_11, not(Py_3_14), not(Py_GIL_DISABLED), target_pointer_width = "64")))]
impl Frame {
    fn running() -> Option<Frame> {
        None
    }

    fn at_hand() -> Option<Frame> {
        None
    }

    fn first(self) -> Option<Frame> {
        None
    }

    fn caller(self) -> Option<Frame> {
        None
    }

    fn instruction(self) -> usize {
        0
    }

    fn code(self) -> *mut ffi::PyObject {
        std::ptr::null_mut()
    }
}

/// Where the calling Python code is; `None` where no Python code runs.
#[inline(always)]
pub(crate) fn here() -> Option<Site> {
    seen(instruction()).or_else(look)
}

/// The same if sites are kept: `mode` is that of [`raddle::trace`].
#[inline(always)]
pub(crate) fn kept(mode: u8) -> Option<Site> {
    if mode & SITES != 0 { here() } else { None }
}

/// The instruction that the calling Python code is at, or 0: half of [`here`], for [`seen`] to complete.
#[inline(always)]
pub(crate) fn instruction() -> usize {
    Frame::at_hand().map_or(0, Frame::instruction)
}

/// The place of an instruction, if that is remembered and not raddle's own; `None` says nothing.
#[inline(always)]
pub(crate) fn seen(instruction: usize) -> Option<Site> {
    // A frame of the C stack is at no instruction of a code object, and those alone are remembered.
    let slot = &CACHE[slot_of(instruction)];
    if slot.instruction.load(Ordering::Relaxed) != instruction {
        return None;
    }
    Site::from_word(slot.site.load(Ordering::Relaxed))
}

/// Where the calling Python code is: of raddle's own, the first place outside of it, or else the outermost.
#[cold]
fn look() -> Option<Site> {
    let Some(running) = Frame::running() else {
        return ask();
    };
    let mut frame = running.first()?;
    let mut depth = 0;
    loop {
        let (site, own) = place(frame, depth);
        match frame.caller() {
            Some(caller) if own => frame = caller,
            _ => return site,
        }
        depth += 1;
    }
}

/// The site of a frame of Python code, so many calls out from the running one, and whether it is in raddle's own.
fn place(frame: Frame, depth: usize) -> (Option<Site>, bool) {
    let instruction = frame.instruction();
    let slot = &CACHE[slot_of(instruction)];
    let remembered = slot.instruction.load(Ordering::Relaxed);
    if remembered & !1 == instruction {
        return (Site::from_word(slot.site.load(Ordering::Relaxed)), remembered != instruction);
    }
    // SAFETY: attached; the frame object is borrowed from the interpreter, and owned from there on.
    let (site, own) = unsafe {
        let mut object = ffi::PyEval_GetFrame();
        ffi::Py_XINCREF(object.cast());
        for _ in 0..depth {
            if !object.is_null() {
                let back = ffi::PyFrame_GetBack(object);
                ffi::Py_DECREF(object.cast());
                object = back;
            }
        }
        if object.is_null() {
            return (None, false);
        }
        let described = describe(object);
        ffi::Py_DECREF(object.cast());
        described
    };
    // SAFETY: attached; the frame keeps its code alive.
    unsafe {
        if is_inside(frame.code(), instruction) {
            remember(frame.code(), instruction, site, own);
        }
    }
    (Some(site), own)
}

/// # Safety
/// Attached; a live code object, and an instruction inside it.
unsafe fn remember(code: *mut ffi::PyObject, instruction: usize, site: Site, own: bool) {
    let index = slot_of(instruction);
    let slot = &CACHE[index];
    slot.instruction.store(0, Ordering::Relaxed);
    // SAFETY: the caller's; the table takes a reference of its own.
    unsafe { ffi::Py_INCREF(code) };
    let old = KEPT[index].swap(code, Ordering::Relaxed);
    slot.site.store(Site::to_word(Some(site)), Ordering::Relaxed);
    slot.instruction.store(instruction | usize::from(own), Ordering::Relaxed);
    // SAFETY: the table held this reference.
    unsafe { crate::gil::decref(old) };
}

#[inline(always)]
fn slot_of(instruction: usize) -> usize {
    (instruction >> 1) % SLOTS // instructions are at even addresses
}

/// Whether an instruction is in the memory of a code object.
///
/// # Safety
/// Attached; a live object of the type `code`, or null.
unsafe fn is_inside(code: *mut ffi::PyObject, instruction: usize) -> bool {
    if code.is_null() {
        return false;
    }
    // SAFETY: the caller's. A code object ends with its instructions, and its type says where they begin.
    let (begin, length) = unsafe {
        let ty = ffi::Py_TYPE(code);
        let begin = code as usize + (*ty).tp_basicsize.cast_unsigned();
        (begin, ffi::Py_SIZE(code).cast_unsigned() * (*ty).tp_itemsize.cast_unsigned())
    };
    (begin..begin + length).contains(&instruction)
}

/// The site of a frame, and whether it is in raddle's own code.
///
/// # Safety
/// Attached; a live frame object.
unsafe fn describe(frame: *mut ffi::PyFrameObject) -> (Site, bool) {
    // SAFETY: the caller's; the code is a new reference, given back.
    unsafe {
        let code = ffi::PyFrame_GetCode(frame);
        let line = u32::try_from(ffi::PyFrame_GetLineNumber(frame)).unwrap_or(0);
        let file = attribute(code.cast(), c"co_filename");
        let function = attribute(code.cast(), c"co_qualname");
        ffi::Py_DECREF(code.cast());
        (Site::intern(&file, line, &function), is_own(&file))
    }
}

/// The same by the public interface alone.
fn ask() -> Option<Site> {
    // SAFETY: attached; the frame is borrowed from the interpreter, and owned from there on.
    unsafe {
        let mut frame = ffi::PyEval_GetFrame();
        if frame.is_null() {
            return None;
        }
        ffi::Py_INCREF(frame.cast());
        loop {
            let (site, own) = describe(frame);
            let back = if own { ffi::PyFrame_GetBack(frame) } else { std::ptr::null_mut() };
            ffi::Py_DECREF(frame.cast());
            if back.is_null() {
                return Some(site);
            }
            frame = back;
        }
    }
}

/// Whether a file stands for whoever called it.
fn is_own(file: &str) -> bool {
    OWN.get().is_some_and(|own| own.iter().any(|beginning| file.starts_with(beginning.as_str())))
}

static OWN: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();

/// Says which files (by the beginnings of their paths) make locks for others: raddle's own, `threading`, `queue`.
pub(crate) fn set_own(beginnings: Vec<String>) {
    let _ = OWN.set(beginnings);
}

/// An attribute of a code object that is a `str`.
///
/// # Safety
/// `object` is alive, and the caller attached.
unsafe fn attribute(object: *mut ffi::PyObject, name: &CStr) -> String {
    let mut length = 0;
    // SAFETY: the caller's; the text's bytes live as long as the reference taken here.
    unsafe {
        let value = ffi::PyObject_GetAttrString(object, name.as_ptr());
        let bytes = if value.is_null() { std::ptr::null() } else { ffi::PyUnicode_AsUTF8AndSize(value, &mut length) };
        let text = if bytes.is_null() {
            ffi::PyErr_Clear();
            "?".to_owned()
        } else {
            String::from_utf8_lossy(std::slice::from_raw_parts(bytes.cast::<u8>(), length as usize)).into_owned()
        };
        ffi::Py_XDECREF(value);
        text
    }
}

/// Compares what the offsets say with what the interpreter says. Called by Python code.
pub(crate) fn check(_py: Python<'_>) -> bool {
    CHECKED.store(true, Ordering::Relaxed);
    // SAFETY: attached; the frame object is borrowed, its code a new reference.
    let right = unsafe {
        let object = ffi::PyEval_GetFrame();
        !object.is_null() && {
            let code: *mut ffi::PyObject = ffi::PyFrame_GetCode(object).cast();
            let frame = Frame::running().and_then(Frame::first);
            let right = frame.is_some_and(|frame| frame.code() == code && is_inside(code, frame.instruction()));
            ffi::Py_DECREF(code);
            right
        }
    };
    CHECKED.store(right, Ordering::Relaxed);
    if right {
        find_holder();
    }
    right
}

/// "file.py:12", with the file's own name only.
pub(crate) fn short(site: Site) -> String {
    let place = site.place();
    let file = place.file.rsplit('/').next().unwrap_or(&place.file);
    format!("{file}:{}", place.line)
}
