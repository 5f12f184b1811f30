//! Call sites, interned: a file, a line and a function behind a number of 32 bits.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

/// A place in a program. Equal places are equal numbers; they are never forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site(NonZeroU32);

/// What a [`Site`] stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The source file's path, as the program knows it.
    pub file: Arc<str>,
    /// The line, from 1; 0 where it is not known.
    pub line: u32,
    /// The function's name.
    pub function: Arc<str>,
}

#[derive(Default)]
struct Table {
    places: Vec<Place>,
    numbers: HashMap<Place, Site>,
}

static TABLE: Mutex<Option<Table>> = Mutex::new(None);

impl Site {
    /// The number of a place, which is made on first sight. Takes a global lock: keep the result.
    pub fn intern(file: &str, line: u32, function: &str) -> Site {
        let place = Place { file: file.into(), line, function: function.into() };
        let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
        let table = table.get_or_insert_with(Table::default);
        if let Some(site) = table.numbers.get(&place) {
            return *site;
        }
        table.places.push(place.clone());
        let number = u32::try_from(table.places.len()).unwrap_or(u32::MAX);
        let site = Site(NonZeroU32::new(number).unwrap_or(NonZeroU32::MAX));
        table.numbers.insert(place, site);
        site
    }

    /// What it stands for.
    pub fn place(self) -> Place {
        let table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
        table.as_ref().and_then(|table| table.places.get(self.0.get() as usize - 1)).cloned().unwrap_or_else(|| Place {
            file: "?".into(),
            line: 0,
            function: "?".into(),
        })
    }

    /// As a word for an atomic; 0 stands for no site.
    pub fn to_word(site: Option<Site>) -> u32 {
        site.map_or(0, |site| site.0.get())
    }

    /// Back from [`Site::to_word`].
    pub fn from_word(word: u32) -> Option<Site> {
        NonZeroU32::new(word).map(Site)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_places_have_one_number() {
        let a = Site::intern("a.py", 1, "f");
        assert_eq!(a, Site::intern("a.py", 1, "f"));
        assert_ne!(a, Site::intern("a.py", 2, "f"));
        assert_eq!((&*a.place().file, a.place().line, &*a.place().function), ("a.py", 1, "f"));
        assert_eq!(Site::from_word(Site::to_word(Some(a))), Some(a));
        assert_eq!(Site::from_word(0), None);
    }
}
