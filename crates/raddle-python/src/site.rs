//! Where the calling Python code is, in a few nanoseconds.
//!
//! A site is found by the addresses of the code object and of the instruction, which are read from the
//! interpreter's own frame; only a place seen for the first time is asked for by the public interface. The
//! offsets belong to one minor version each and are checked when the module is loaded; where they are not
//! known or the check fails, the public interface is used every time.

use pyo3::{Python, ffi};
use raddle::trace::Site;
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

/// Where the interpreter notes the thread that holds it: the attached thread's state, without a look into
/// thread-local storage. Null until [`check`] has compared the two.
#[cfg(all(Py_3_13, not(Py_3_14), not(Py_GIL_DISABLED)))]
static HOLDER: AtomicPtr<AtomicPtr<u8>> = AtomicPtr::new(std::ptr::null_mut());

/// The calling thread's state.
#[inline(always)]
fn state() -> *mut u8 {
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

/// The frame's code object and instruction, if the interpreter's layout is known.
#[inline(always)]
fn position() -> Option<(*mut ffi::PyObject, usize)> {
    #[cfg(all(Py_3_11, not(Py_3_14), not(Py_GIL_DISABLED), target_pointer_width = "64"))]
    {
        #[cfg(not(Py_3_13))]
        const FROM_STATE: usize = 56; // PyThreadState.cframe
        #[cfg(Py_3_13)]
        const FROM_STATE: usize = 72; // PyThreadState.current_frame
        #[cfg(not(Py_3_12))]
        const CODE: usize = 32; // _PyInterpreterFrame.f_code
        #[cfg(Py_3_12)]
        const CODE: usize = 0; // f_code, from 3.13 f_executable
        const INSTRUCTION: usize = 56; // prev_instr, from 3.13 instr_ptr
        #[cfg(not(Py_3_12))]
        const OWNER: usize = 69;
        #[cfg(Py_3_12)]
        const OWNER: usize = 70;
        const PREVIOUS: usize = if cfg!(Py_3_12) { 8 } else { 48 };
        const OWNED_BY_C_STACK: u8 = 3;

        if !CHECKED.load(Ordering::Relaxed) {
            return None;
        }
        // SAFETY: attached, so the thread state is ours and its frames stay; the offsets have been checked
        // against this interpreter by `check`.
        unsafe {
            let state = state();
            let mut frame = *state.add(FROM_STATE).cast::<*mut u8>();
            #[cfg(all(not(Py_3_12), Py_3_11))]
            {
                frame = *frame.add(8).cast::<*mut u8>(); // _PyCFrame.current_frame, behind use_tracing
            }
            #[cfg(all(Py_3_12, not(Py_3_13)))]
            {
                frame = *frame.cast::<*mut u8>(); // _PyCFrame.current_frame
            }
            while !frame.is_null() && *frame.add(OWNER) == OWNED_BY_C_STACK {
                frame = *frame.add(PREVIOUS).cast::<*mut u8>();
            }
            if frame.is_null() {
                return None;
            }
            Some((*frame.add(CODE).cast::<*mut ffi::PyObject>(), *frame.add(INSTRUCTION).cast::<usize>()))
        }
    }
    #[cfg(not(all(Py_3_11, not(Py_3_14), not(Py_GIL_DISABLED), target_pointer_width = "64")))]
    None
}

/// Where the calling Python code is; `None` where no Python code runs.
#[inline(always)]
pub(crate) fn here() -> Option<Site> {
    let Some((code, instruction)) = position() else {
        return look_up().0;
    };
    let slot = &CACHE[(instruction >> 1) % SLOTS];
    if slot.instruction.load(Ordering::Relaxed) == instruction && slot.code.load(Ordering::Relaxed) == code {
        return Site::from_word(slot.site.load(Ordering::Relaxed));
    }
    remember(slot, code, instruction)
}

#[cold]
fn remember(slot: &Slot, code: *mut ffi::PyObject, instruction: usize) -> Option<Site> {
    let (site, own) = look_up();
    // A place inside raddle stands for whoever called it, which differs from call to call.
    if own {
        return site;
    }
    slot.instruction.store(0, Ordering::Relaxed);
    // SAFETY: the running frame keeps its code alive; the slot takes a reference of its own.
    unsafe { ffi::Py_INCREF(code) };
    let old = slot.code.swap(code, Ordering::Relaxed);
    slot.site.store(Site::to_word(site), Ordering::Relaxed);
    slot.instruction.store(instruction, Ordering::Relaxed);
    // SAFETY: the slot held this reference.
    unsafe { crate::gil::decref(old) };
    site
}

/// Asks the interpreter; also whether frames of raddle's own Python code were passed over.
fn look_up() -> (Option<Site>, bool) {
    let mut passed = false;
    // SAFETY: attached; frame and code are live objects, owned as the comments say.
    unsafe {
        let first = ffi::PyEval_GetFrame();
        if first.is_null() {
            return (None, false);
        }
        let mut frame = first;
        ffi::Py_INCREF(frame.cast());
        loop {
            let code = ffi::PyFrame_GetCode(frame);
            let line = u32::try_from(ffi::PyFrame_GetLineNumber(frame)).unwrap_or(0);
            let file = attribute(code.cast(), c"co_filename");
            let function = attribute(code.cast(), c"co_qualname");
            ffi::Py_DECREF(code.cast());
            let own = is_own(&file);
            let back = if own { ffi::PyFrame_GetBack(frame) } else { std::ptr::null_mut() };
            if back.is_null() {
                ffi::Py_DECREF(frame.cast());
                return (Some(Site::intern(&file, line, &function)), passed);
            }
            passed = true;
            ffi::Py_DECREF(frame.cast());
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
    let Some((code, instruction)) = position() else {
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
