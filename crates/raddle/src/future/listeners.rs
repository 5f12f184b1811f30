//! The listeners of a future, in the order in which they came: there is mostly one, which needs no memory of its own.

/// See the module.
#[derive(Debug)]
pub struct Listeners<L>(Kept<L>);

#[derive(Debug)]
enum Kept<L> {
    None,
    One(L),
    Many(Vec<L>),
}

impl<L> Listeners<L> {
    pub(super) const fn new() -> Self {
        Self(Kept::None)
    }

    #[inline]
    pub(super) fn push(&mut self, listener: L) {
        match &self.0 {
            Kept::None => self.0 = Kept::One(listener),
            Kept::One(_) | Kept::Many(_) => self.push_another(listener),
        }
    }

    #[cold]
    fn push_another(&mut self, listener: L) {
        match self {
            Self(Kept::Many(all)) => all.push(listener),
            _ => {
                let mut all: Vec<L> = self.take().into_iter().collect();
                all.push(listener);
                self.0 = Kept::Many(all);
            }
        }
    }

    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new())
    }

    /// Takes out the listener, if there is exactly one.
    #[inline]
    pub(super) fn take_only(&mut self) -> Option<L> {
        if !matches!(self.0, Kept::One(_)) {
            return None;
        }
        match std::mem::replace(&mut self.0, Kept::None) {
            Kept::One(listener) => Some(listener),
            Kept::None | Kept::Many(_) => None,
        }
    }

    fn as_slice(&self) -> &[L] {
        match &self.0 {
            Kept::None => &[],
            Kept::One(listener) => std::slice::from_ref(listener),
            Kept::Many(all) => all,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// Looks at them, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, L> {
        self.as_slice().iter()
    }
}

impl<L> FromIterator<L> for Listeners<L> {
    fn from_iter<I: IntoIterator<Item = L>>(listeners: I) -> Self {
        let mut all = Self::new();
        listeners.into_iter().for_each(|listener| all.push(listener));
        all
    }
}

impl<L> IntoIterator for Listeners<L> {
    type Item = L;
    type IntoIter = std::iter::Chain<std::option::IntoIter<L>, std::vec::IntoIter<L>>;

    fn into_iter(self) -> Self::IntoIter {
        let (one, many) = match self.0 {
            Kept::None => (None, Vec::new()),
            Kept::One(listener) => (Some(listener), Vec::new()),
            Kept::Many(all) => (None, all),
        };
        one.into_iter().chain(many)
    }
}
