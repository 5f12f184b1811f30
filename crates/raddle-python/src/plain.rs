//! Pickles of plain objects, written and read without the pickle module: most arguments and results are plain.
//!
//! Plain are None, bool, int of 64 bits, float, str, bytes, tuples of these, and one list or dict of them: objects of
//! exactly these types, of which pickle keeps nothing but the value. What is written is a pickle like any other (protocol 4), and
//! everything else is left to the pickle module: source, the documentation of `pickletools`.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

/// The largest pickle that is written, in bytes.
pub(crate) const MOST: usize = 2000;
/// How deep tuples may be nested.
const DEEPEST: usize = 8;

const HEAD: [u8; 2] = [0x80, 4];
const NONE: u8 = b'N';
const TRUE: u8 = 0x88;
const FALSE: u8 = 0x89;
const INT_1: u8 = b'K';
const INT_2: u8 = b'M';
const INT_4: u8 = b'J';
const LONG: u8 = 0x8a;
const FLOAT: u8 = b'G';
const TEXT_1: u8 = 0x8c;
const TEXT_4: u8 = b'X';
const BYTES_1: u8 = b'C';
const BYTES_4: u8 = b'B';
const EMPTY_TUPLE: u8 = b')';
const TUPLE_1: u8 = 0x85;
const TUPLE_2: u8 = 0x86;
const TUPLE_3: u8 = 0x87;
const TUPLE: u8 = b't';
const EMPTY_LIST: u8 = b']';
const APPENDS: u8 = b'e';
const EMPTY_DICT: u8 = b'}';
const SET_ITEMS: u8 = b'u';
const MARK: u8 = b'(';
const STOP: u8 = b'.';

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    limit: usize,
    /// Whether there is a list or a dict. Of two one might be in the object twice, and is to be one again.
    container: bool,
}

/// Appends the pickle of an object, if it is plain. False, and nothing, if it is not.
pub(crate) fn encode(object: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> bool {
    let before = out.len();
    out.extend(HEAD);
    let mut writer = Writer { limit: before + MOST, out, container: false };
    let plain = writer.put(object, 0);
    if plain {
        out.push(STOP);
    } else {
        out.truncate(before);
    }
    plain
}

impl Writer<'_> {
    fn put(&mut self, object: &Bound<'_, PyAny>, depth: usize) -> bool {
        if object.is_none() {
            self.out.push(NONE);
        } else if let Ok(number) = object.cast_exact::<PyInt>() {
            return self.integer(number);
        } else if let Ok(text) = object.cast_exact::<PyString>() {
            return self.text(text);
        } else if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            return self.tuple(tuple, depth);
        } else if let Ok(value) = object.cast_exact::<PyBool>() {
            self.out.push(if value.is_true() { TRUE } else { FALSE });
        } else if let Ok(number) = object.cast_exact::<PyFloat>() {
            self.out.push(FLOAT);
            self.out.extend(number.value().to_be_bytes());
        } else if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            return self.sized(bytes.as_bytes(), BYTES_1, BYTES_4);
        } else if let Ok(list) = object.cast_exact::<PyList>() {
            return self.list(list, depth);
        } else if let Ok(dict) = object.cast_exact::<PyDict>() {
            return self.dict(dict, depth);
        } else {
            return false;
        }
        true
    }

    fn integer(&mut self, number: &Bound<'_, PyInt>) -> bool {
        let mut overflow = 0;
        // SAFETY: an int; attached.
        let value = unsafe { ffi::PyLong_AsLongLongAndOverflow(number.as_ptr(), &mut overflow) };
        if overflow != 0 {
            return false;
        }
        if let Ok(small) = u8::try_from(value) {
            self.out.extend([INT_1, small]);
        } else if let Ok(small) = u16::try_from(value) {
            self.out.push(INT_2);
            self.out.extend(small.to_le_bytes());
        } else if let Ok(small) = i32::try_from(value) {
            self.out.push(INT_4);
            self.out.extend(small.to_le_bytes());
        } else {
            self.out.extend([LONG, 8]);
            self.out.extend(value.to_le_bytes());
        }
        true
    }

    fn text(&mut self, text: &Bound<'_, PyString>) -> bool {
        let mut size = 0;
        // SAFETY: a string; attached. The bytes live as long as it does.
        let start = unsafe { ffi::PyUnicode_AsUTF8AndSize(text.as_ptr(), &mut size) };
        if start.is_null() {
            // A lone surrogate.
            crate::error::discard(text.py(), crate::error::fetch(text.py()));
            return false;
        }
        // SAFETY: as above.
        let bytes = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), size as usize) };
        self.sized(bytes, TEXT_1, TEXT_4)
    }

    fn sized(&mut self, bytes: &[u8], short: u8, long: u8) -> bool {
        if self.out.len() + bytes.len() > self.limit {
            return false;
        }
        match u8::try_from(bytes.len()) {
            Ok(size) => self.out.extend([short, size]),
            Err(_) => {
                self.out.push(long);
                self.out.extend((bytes.len() as u32).to_le_bytes());
            }
        }
        self.out.extend_from_slice(bytes);
        true
    }

    fn tuple(&mut self, tuple: &Bound<'_, PyTuple>, depth: usize) -> bool {
        if depth == DEEPEST {
            return false;
        }
        let size = tuple.len();
        if size > 3 {
            self.out.push(MARK);
        }
        for at in 0..size {
            let Ok(item) = tuple.get_borrowed_item(at) else { return false };
            if !self.put(&item, depth + 1) || self.out.len() > self.limit {
                return false;
            }
        }
        self.out.push([EMPTY_TUPLE, TUPLE_1, TUPLE_2, TUPLE_3].get(size).copied().unwrap_or(TUPLE));
        true
    }

    fn list(&mut self, list: &Bound<'_, PyList>, depth: usize) -> bool {
        if depth == DEEPEST || std::mem::replace(&mut self.container, true) {
            return false;
        }
        self.out.push(EMPTY_LIST);
        if list.is_empty() {
            return true;
        }
        self.out.push(MARK);
        for item in list.iter() {
            if !self.put(&item, depth + 1) || self.out.len() > self.limit {
                return false;
            }
        }
        self.out.push(APPENDS);
        true
    }

    fn dict(&mut self, dict: &Bound<'_, PyDict>, depth: usize) -> bool {
        if depth == DEEPEST || std::mem::replace(&mut self.container, true) {
            return false;
        }
        self.out.push(EMPTY_DICT);
        if dict.is_empty() {
            return true;
        }
        self.out.push(MARK);
        for (key, value) in dict.iter() {
            if !self.put(&key, depth + 1) || !self.put(&value, depth + 1) || self.out.len() > self.limit {
                return false;
            }
        }
        self.out.push(SET_ITEMS);
        true
    }
}

/// Reads what is left of a message.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(size)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// The operand that its size stands before, in as many bytes.
    fn sized(&mut self, short: bool) -> Option<&'a [u8]> {
        let size = if short { self.array::<1>()?[0].into() } else { u32::from_le_bytes(self.array()?) as usize };
        self.take(size)
    }
}

/// The object of a pickle that [`encode`] has written, and the bytes behind it are not looked at. None if it is another
/// pickle, or none at all: the pickle module is to say what it is.
pub(crate) fn decode<'py>(py: Python<'py>, bytes: &[u8]) -> Option<Bound<'py, PyAny>> {
    let mut reader = Reader { rest: bytes.strip_prefix(&HEAD)? };
    let (mut stack, mut marks) = (Vec::<Bound<'py, PyAny>>::new(), Vec::<usize>::new());
    loop {
        let object = match reader.array::<1>()?[0] {
            STOP => break,
            MARK => {
                marks.push(stack.len());
                continue;
            }
            NONE => py.None().into_bound(py),
            TRUE => PyBool::new(py, true).to_owned().into_any(),
            FALSE => PyBool::new(py, false).to_owned().into_any(),
            INT_1 => integer(py, reader.array::<1>()?[0].into())?,
            INT_2 => integer(py, u16::from_le_bytes(reader.array()?).into())?,
            INT_4 => integer(py, i32::from_le_bytes(reader.array()?).into())?,
            LONG if reader.array::<1>()?[0] == 8 => integer(py, i64::from_le_bytes(reader.array()?))?,
            FLOAT => PyFloat::new(py, f64::from_be_bytes(reader.array()?)).into_any(),
            what @ (TEXT_1 | TEXT_4) => {
                let text = std::str::from_utf8(reader.sized(what == TEXT_1)?).ok()?;
                PyString::new(py, text).into_any()
            }
            what @ (BYTES_1 | BYTES_4) => PyBytes::new(py, reader.sized(what == BYTES_1)?).into_any(),
            EMPTY_TUPLE => PyTuple::empty(py).into_any(),
            what @ (TUPLE_1 | TUPLE_2 | TUPLE_3) => {
                let from = stack.len().checked_sub(usize::from(what - TUPLE_1) + 1)?;
                if marks.last().is_some_and(|mark| from < *mark) {
                    return None;
                }
                PyTuple::new(py, stack.drain(from..)).ok()?.into_any()
            }
            TUPLE => {
                let from = marks.pop().filter(|from| *from <= stack.len())?;
                PyTuple::new(py, stack.drain(from..)).ok()?.into_any()
            }
            EMPTY_LIST => PyList::empty(py).into_any(),
            APPENDS => {
                let from = marks.pop().filter(|from| (1..=stack.len()).contains(from))?;
                if marks.last().is_some_and(|mark| from <= *mark) {
                    return None;
                }
                let list = stack[from - 1].cast_exact::<PyList>().ok()?.clone();
                for item in stack.drain(from..) {
                    list.append(item).ok()?;
                }
                continue;
            }
            EMPTY_DICT => PyDict::new(py).into_any(),
            SET_ITEMS => {
                let from = marks.pop().filter(|from| (1..=stack.len()).contains(from))?;
                if marks.last().is_some_and(|mark| from <= *mark) || (stack.len() - from) % 2 == 1 {
                    return None;
                }
                let dict = stack[from - 1].cast_exact::<PyDict>().ok()?.clone();
                let mut items = stack.drain(from..);
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    if let Err(error) = dict.set_item(key, value) {
                        // A key that has no hash.
                        crate::error::discard(py, error);
                        return None;
                    }
                }
                drop(items);
                continue;
            }
            _ => return None,
        };
        stack.push(object);
    }
    (stack.len() == 1 && marks.is_empty()).then(|| stack.pop())?
}

fn integer(py: Python<'_>, value: i64) -> Option<Bound<'_, PyAny>> {
    value.into_pyobject(py).ok().map(Bound::into_any)
}

/// The pickle of an object, if it is plain; else None.
#[pyfunction]
pub(crate) fn plain_dumps<'py>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, PyBytes>> {
    let mut out = Vec::new();
    encode(object, &mut out).then(|| PyBytes::new(object.py(), &out))
}

/// The object of such a pickle in a tuple; else None.
#[pyfunction]
pub(crate) fn plain_loads<'py>(py: Python<'py>, data: &[u8]) -> Option<(Bound<'py, PyAny>,)> {
    decode(py, data).map(|object| (object,))
}
