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
#[repr(align(32))]
struct Slot {
    instruction: AtomicUsize,
    /// Kept alive, so that its address means one thing.
    code: AtomicPtr<ffi::PyObject>,
    site: AtomicU32,
}

static CACHE: [Slot; SLOTS] = [const {
    Slot { instruction: AtomicUsize::new(0), code: AtomicPtr::new(std::ptr::null_mut()), site: AtomicU32::new(0) }
}; SLOTS];

/// Set in a slot's site if the place is in raddle's own Python code, and stands for whoever called it.
const OWN_PLACE: u32 = 1 << 31;

/// Where the interpreter notes the thread that holds it: the attached thread's state, without a look into
/// thread-local storage. Null until [`check`] has compared the two.
#[cfg(all(Py_3_13, not(Py_3_14), not(Py_GIL_DISABLED)))]
static HOLDER: AtomicPtr<AtomicPtr<u8>> = AtomicPtr::new(std::ptr::null_mut());

/// The calling thread's state.
#[inline(always)]
pub(crate) fn state() -> *mut u8 {
    #[cfg(all(Py_3_13, not(Py_3_14), not(Py_GIL_DISABLED)))]
    {
        let holder = HOLDER.load(Ordering::Relaxed);
        if !holder.is_null() {
            // SAFETY: inside the main interpreter's state, which is never freed. Whoever takes the GIL writes itself
            // here, and so does, in `PyThreadState_Swap`, a thread that changes its state while attached.
            return unsafe { (*holder).load(Ordering::Relaxed) };
        }
    }
    // SAFETY: no preconditions.
    unsafe { ffi::compat::PyThreadState_GetUnchecked().cast() }
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
    /// The running one, if the interpreter's layout is known.
    #[inline(always)]
    fn current() -> Option<Frame> {
        use layout::FROM_STATE;
        if !CHECKED.load(Ordering::Relaxed) {
            return None;
        }
        // SAFETY: attached, so the thread state is ours and its frames stay; the offsets have been checked
        // against this interpreter by `check`.
        unsafe {
            let state = state();
            let frame = *state.add(FROM_STATE).cast::<*mut u8>();
            #[cfg(not(Py_3_12))]
            let frame = *frame.add(8).cast::<*mut u8>(); // _PyCFrame.current_frame, behind use_tracing
            #[cfg(all(Py_3_12, not(Py_3_13)))]
            let frame = *frame.cast::<*mut u8>(); // _PyCFrame.current_frame
            Self::first(frame)
        }
    }

    /// The first of Python code, from here outwards.
    ///
    /// # Safety
    /// As in `current`; null or a frame.
    #[inline(always)]
    unsafe fn first(mut frame: *mut u8) -> Option<Frame> {
        // SAFETY: the caller's.
        unsafe {
            while !frame.is_null() && *frame.add(layout::OWNER) == layout::OWNED_BY_C_STACK {
                frame = *frame.add(layout::PREVIOUS).cast::<*mut u8>();
            }
        }
        (!frame.is_null()).then_some(Frame(frame))
    }

    /// The one that called it.
    #[inline(always)]
    fn caller(self) -> Option<Frame> {
        // SAFETY: a frame of this thread, which runs or is suspended in a call.
        unsafe { Self::first(*self.0.add(layout::PREVIOUS).cast::<*mut u8>()) }
    }

    /// Its code object and instruction.
    #[inline(always)]
    fn position(self) -> (*mut ffi::PyObject, usize) {
        // SAFETY: as above.
        unsafe {
            (*self.0.add(layout::CODE).cast::<*mut ffi::PyObject>(), *self.0.add(layout::INSTRUCTION).cast::<usize>())
        }
    }
}

#[cfg(not(all(Py_3_11, not(Py_3_14), not(Py_GIL_DISABLED), target_pointer_width = "64")))]
impl Frame {
    fn current() -> Option<Frame> {
        None
    }

    fn caller(self) -> Option<Frame> {
        None
    }

    fn position(self) -> (*mut ffi::PyObject, usize) {
        (std::ptr::null_mut(), 0)
    }
}

/// Where the calling Python code is; `None` where no Python code runs.
#[inline(always)]
pub(crate) fn here() -> Option<Site> {
    let Some(frame) = Frame::current() else {
        return look_up();
    };
    let word = place(frame, 0);
    if word & OWN_PLACE == 0 { Site::from_word(word) } else { caller_of(frame, word) }
}

/// The same if sites are kept: `mode` is that of [`raddle::trace`].
#[inline(always)]
pub(crate) fn kept(mode: u8) -> Option<Site> {
    if mode & SITES != 0 { here() } else { None }
}

/// Of raddle's own code: the first place outside of it, or else the outermost.
fn caller_of(mut frame: Frame, mut word: u32) -> Option<Site> {
    let mut depth = 0;
    while word & OWN_PLACE != 0
        && let Some(caller) = frame.caller()
    {
        frame = caller;
        depth += 1;
        word = place(frame, depth);
    }
    Site::from_word(word & !OWN_PLACE)
}

/// The site of a frame, so many calls out from the running one, as a word that may be marked.
#[inline(always)]
fn place(frame: Frame, depth: usize) -> u32 {
    let (code, instruction) = frame.position();
    let slot = &CACHE[(instruction >> 1) % SLOTS];
    if slot.instruction.load(Ordering::Relaxed) == instruction && slot.code.load(Ordering::Relaxed) == code {
        return slot.site.load(Ordering::Relaxed);
    }
    remember(slot, code, instruction, depth)
}

#[cold]
fn remember(slot: &Slot, code: *mut ffi::PyObject, instruction: usize, depth: usize) -> u32 {
    // SAFETY: attached; the frame is borrowed from the interpreter, and owned from there on.
    let word = unsafe {
        let mut frame = ffi::PyEval_GetFrame();
        ffi::Py_XINCREF(frame.cast());
        for _ in 0..depth {
            if !frame.is_null() {
                let back = ffi::PyFrame_GetBack(frame);
                ffi::Py_DECREF(frame.cast());
                frame = back;
            }
        }
        if frame.is_null() {
            return 0;
        }
        let (site, own) = describe(frame);
        ffi::Py_DECREF(frame.cast());
        Site::to_word(Some(site)) | if own { OWN_PLACE } else { 0 }
    };
    slot.instruction.store(0, Ordering::Relaxed);
    // SAFETY: the frame keeps its code alive; the slot takes a reference of its own.
    unsafe { ffi::Py_INCREF(code) };
    let old = slot.code.swap(code, Ordering::Relaxed);
    slot.site.store(word, Ordering::Relaxed);
    slot.instruction.store(instruction, Ordering::Relaxed);
    // SAFETY: the slot held this reference.
    unsafe { crate::gil::decref(old) };
    word
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

/// Asks the interpreter.
fn look_up() -> Option<Site> {
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
    #[cfg(all(Py_3_13, not(Py_3_14), not(Py_GIL_DISABLED)))]
    find_holder();
    CHECKED.store(true, Ordering::Relaxed);
    let Some((code, instruction)) = Frame::current().map(Frame::position) else {
        CHECKED.store(false, Ordering::Relaxed);
        return false;
    };
    // SAFETY: attached; the frame is borrowed, the code a new reference. `PyFrame_GetLasti` is the byte offset
    // of the instruction in the code's own copy of its bytecode, which lies inside the code object.
    let right = unsafe {
        let frame = ffi::PyEval_GetFrame();
        if frame.is_null() {
            false
        } else {
            let real = ffi::PyFrame_GetCode(frame);
            let inside = instruction > code as usize && instruction < code as usize + (1 << 20);
            ffi::Py_DECREF(real.cast());
            real.cast() == code && inside
        }
    };
    CHECKED.store(right, Ordering::Relaxed);
    right
}

/// "file.py:12", with the file's own name only.
pub(crate) fn short(site: Site) -> String {
    let place = site.place();
    let file = place.file.rsplit('/').next().unwrap_or(&place.file);
    format!("{file}:{}", place.line)
}
