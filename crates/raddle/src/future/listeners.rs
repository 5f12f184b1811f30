//! The listeners of a future, in the order in which they came: there is mostly one, which needs no memory of its own.

/// See the module.
#[derive(Debug)]
pub struct Listeners<L> {
    first: Option<L>,
    more: Vec<L>,
}

impl<L> Listeners<L> {
    pub(super) const fn new() -> Self {
        Self { first: None, more: Vec::new() }
    }

    pub(super) fn push(&mut self, listener: L) {
        match self.first {
            // The first goes only together with the others.
            None => self.first = Some(listener),
            Some(_) => self.more.push(listener),
        }
    }

    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Looks at them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &L> {
        self.first.iter().chain(&self.more)
    }
}

impl<L> FromIterator<L> for Listeners<L> {
    fn from_iter<I: IntoIterator<Item = L>>(listeners: I) -> Self {
        let mut listeners = listeners.into_iter();
        Self { first: listeners.next(), more: listeners.collect() }
    }
}

impl<L> IntoIterator for Listeners<L> {
    type Item = L;
    type IntoIter = std::iter::Chain<std::option::IntoIter<L>, std::vec::IntoIter<L>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.more)
    }
}
