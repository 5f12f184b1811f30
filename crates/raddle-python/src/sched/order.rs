//! The events of a scheduler in their order: by keys in a heap, or by comparisons in a tree.
//!
//! Everything here happens under the scheduler's lock: no Python code runs and no reference is given up.

use pyo3::{Bound, PyAny, Python, ffi};
use raddle::timer::{DeadlineHeap, Ticket};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

// Keys

/// The place of an event whose time and priority are plain numbers. Orders as its fields do, one after the other.
///
/// A number is the nearest float, as an integer that orders alike, and what an int has beyond that float: rounding
/// never changes the order of two numbers, and where it makes them equal the rest tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    time: i64,
    time_rest: i16,
    priority: i64,
    priority_rest: i16,
    sequence: u64,
}

impl Key {
    const LEAST: Key =
        Key { time: i64::MIN, time_rest: i16::MIN, priority: i64::MIN, priority_rest: i16::MIN, sequence: 0 };
}

/// What an argument is as a number.
#[derive(Clone, Copy, Debug)]
enum Number {
    Exact(i64, i16),
    Nan,
    /// Anything else: it has to be compared by its own methods.
    Foreign,
}

impl Number {
    fn of(object: *mut ffi::PyObject) -> Number {
        // SAFETY: a live object, attached; the type is checked before each access, and exact types run no Python code.
        unsafe {
            if ffi::PyFloat_CheckExact(object) != 0 {
                let value = ffi::PyFloat_AS_DOUBLE(object);
                return if value.is_nan() { Number::Nan } else { Number::Exact(ordered(value), 0) };
            }
            if ffi::PyLong_CheckExact(object) != 0 || ffi::PyBool_Check(object) != 0 {
                let mut overflow = 0;
                let value = ffi::PyLong_AsLongLongAndOverflow(object, &mut overflow);
                if overflow == 0 {
                    let near = value as f64;
                    return Number::Exact(ordered(near), (i128::from(value) - near as i128) as i16);
                }
            }
        }
        Number::Foreign
    }
}

/// An integer that orders as the float does; the two zeros are one.
fn ordered(value: f64) -> i64 {
    let bits = (value + 0.0).to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// Where an event belongs.
pub(super) enum Rank {
    Key(Key),
    /// Behind the last.
    Last,
    /// Where its comparisons say.
    Foreign,
}

impl Rank {
    pub(super) fn of(time: *mut ffi::PyObject, priority: *mut ffi::PyObject, sequence: u64) -> Rank {
        let (priority, priority_rest) = match Number::of(priority) {
            Number::Exact(number, rest) => (number, rest),
            Number::Nan => (i64::MAX, i16::MAX),
            Number::Foreign => return Rank::Foreign,
        };
        match Number::of(time) {
            Number::Exact(time, time_rest) => Rank::Key(Key { time, time_rest, priority, priority_rest, sequence }),
            Number::Nan => Rank::Last,
            Number::Foreign => Rank::Foreign,
        }
    }
}

// The tree

const NIL: u32 = u32::MAX;

struct Node {
    held: Held,
    sequence: u64,
    parent: u32,
    /// Smaller and greater child.
    children: [u32; 2],
    /// Of the subtree; 1 for a leaf.
    height: u8,
    /// Whether the time is a NaN: never compared, it belongs to the node before it.
    is_nan: bool,
}

/// Events sorted by comparisons that others make: an AVL tree with parent links, so that an event can be taken out by
/// its node, and so that as few comparisons as possible are asked for. All operations in O(log n); no recursion.
struct Tree {
    nodes: Vec<Node>,
    /// Nodes to use again.
    free: Vec<u32>,
    root: u32,
    /// The node without a smaller one, or [`NIL`].
    first: u32,
    /// Counts changes, on from the tree before: what a search knows of an old tree does not pass for the new one.
    version: u64,
}

impl Tree {
    fn new(version: u64) -> Tree {
        Tree { nodes: Vec::new(), free: Vec::new(), root: NIL, first: NIL, version }
    }

    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    fn height(&self, at: u32) -> u8 {
        if at == NIL { 0 } else { self.node(at).height }
    }

    /// Works a height out anew; whether it was another one.
    fn measure(&mut self, at: u32) -> bool {
        let [left, right] = self.node(at).children;
        let height = 1 + self.height(left).max(self.height(right));
        std::mem::replace(&mut self.nodes[at as usize].height, height) != height
    }

    fn link(&mut self, parent: u32, side: usize, child: u32) {
        if parent == NIL {
            self.root = child;
        } else {
            self.nodes[parent as usize].children[side] = child;
        }
        if child != NIL {
            self.nodes[child as usize].parent = parent;
        }
    }

    /// The outermost node on one side of a subtree.
    fn end(&self, mut at: u32, side: usize) -> u32 {
        while at != NIL && self.node(at).children[side] != NIL {
            at = self.node(at).children[side];
        }
        at
    }

    /// The neighbour on one side.
    fn beside(&self, mut at: u32, side: usize) -> u32 {
        if self.node(at).children[side] != NIL {
            return self.end(self.node(at).children[side], 1 - side);
        }
        loop {
            let parent = self.node(at).parent;
            if parent == NIL || self.node(parent).children[1 - side] == at {
                return parent;
            }
            at = parent;
        }
    }

    fn side_of(&self, at: u32) -> usize {
        let parent = self.node(at).parent;
        usize::from(parent != NIL && self.node(parent).children[1] == at)
    }

    /// Puts a node in its parent's place.
    fn rotate_up(&mut self, at: u32) {
        let parent = self.node(at).parent;
        let (side, above, above_side) = (self.side_of(at), self.node(parent).parent, self.side_of(parent));
        let inner = self.node(at).children[1 - side];
        self.link(parent, side, inner);
        self.link(at, 1 - side, parent);
        self.link(above, above_side, at);
        self.measure(parent);
        self.measure(at);
    }

    /// After a change below `at`: the heights of two siblings differ by 1 at most again.
    fn balance(&mut self, mut at: u32) {
        while at != NIL {
            let [left, right] = self.node(at).children.map(|child| self.height(child));
            if left.abs_diff(right) <= 1 {
                if !self.measure(at) {
                    return;
                }
            } else {
                let side = usize::from(right > left);
                let high = self.node(at).children[side];
                let [inner, outer] = [1 - side, side].map(|side| self.node(high).children[side]);
                if self.height(inner) > self.height(outer) {
                    self.rotate_up(inner);
                    self.rotate_up(inner);
                } else {
                    self.rotate_up(high);
                }
                at = self.node(at).parent;
            }
            at = self.node(at).parent;
        }
    }

    /// Adds a node as a leaf below `parent`, which has no child on that side.
    fn insert(&mut self, parent: u32, side: usize, held: Held, sequence: u64) -> u32 {
        self.version += 1;
        let node = Node { held, sequence, parent, children: [NIL; 2], height: 1, is_nan: held.is_nan() };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        };
        if parent == self.first && side == 0 || parent == NIL {
            self.first = at;
        }
        self.link(parent, side, at);
        self.balance(parent);
        at
    }

    fn push(&mut self, held: Held, sequence: u64) -> u32 {
        self.insert(self.end(self.root, 1), 1, held, sequence)
    }

    fn remove(&mut self, at: u32) -> Held {
        self.version += 1;
        if at == self.first {
            self.first = self.beside(at, 1);
        }
        let [left, right] = self.node(at).children;
        let (parent, side) = (self.node(at).parent, self.side_of(at));
        if left == NIL || right == NIL {
            self.link(parent, side, if left == NIL { right } else { left });
            self.balance(parent);
        } else {
            // The next one takes its place.
            let next = self.end(right, 0);
            let mut changed = next;
            if next != right {
                changed = self.node(next).parent;
                self.link(changed, 0, self.node(next).children[1]);
                self.link(next, 1, right);
            }
            self.link(next, 0, left);
            self.link(parent, side, next);
            self.nodes[next as usize].height = self.node(at).height;
            self.balance(changed);
        }
        self.free.push(at);
        self.node(at).held
    }

    /// The node that stands for another one in comparisons: itself or, for a NaN, the next before it that is none.
    fn stand_in(&self, mut at: u32) -> u32 {
        while at != NIL && self.node(at).is_nan {
            at = self.beside(at, 0);
        }
        at
    }

    fn in_order(&self) -> impl Iterator<Item = (u32, &Node)> {
        let mut at = self.first;
        std::iter::from_fn(move || {
            (at != NIL).then(|| {
                let found = (at, self.node(at));
                at = self.beside(at, 1);
                found
            })
        })
    }
}

/// The way of one new event down the tree. What has been compared once is not compared again.
pub(super) struct Search {
    sequence: u64,
    at: u32,
    version: u64,
    /// By the sequence of the other: whether the new event is before it.
    answers: Vec<(u64, bool)>,
    restarts: u32,
}

enum Next {
    /// Compare with this event.
    Compare(Held, u64),
    /// Insert here.
    At(u32, usize),
}

impl Search {
    pub(super) fn new(sequence: u64) -> Search {
        Search { sequence, at: NIL, version: 0, answers: Vec::with_capacity(24), restarts: 0 }
    }

    /// Tells whether the new event is before the other one.
    pub(super) fn answer(&mut self, other: u64, before: bool) {
        self.answers.push((other, before));
    }

    /// How often the tree has changed on the way.
    pub(super) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Whether the new event is before that one, if it has been compared.
    fn known(&self, sequence: u64) -> Option<bool> {
        if self.restarts == 0 {
            // On the first way down only the last event is met twice.
            let both = [self.answers.last(), self.answers.first()];
            return both.into_iter().flatten().find(|answer| answer.0 == sequence).map(|answer| answer.1);
        }
        self.answers.iter().find(|answer| answer.0 == sequence).map(|answer| answer.1)
    }

    fn step(&mut self, tree: &Tree) -> Next {
        if self.at == NIL || self.version != tree.version {
            self.restarts += u32::from(self.version != tree.version && !self.answers.is_empty());
            self.version = tree.version;
            // Most events are the last to run when they are entered.
            let end = tree.end(tree.root, 1);
            let last = tree.stand_in(end);
            if last == NIL {
                return Next::At(end, 1);
            }
            let last = tree.node(last);
            match self.known(last.sequence) {
                None => return Next::Compare(last.held.clone_ref(), last.sequence),
                Some(false) => return Next::At(end, 1),
                Some(true) => self.at = tree.root,
            }
        }
        loop {
            let before = match tree.stand_in(self.at) {
                NIL => false,
                other => {
                    let other = tree.node(other);
                    match self.known(other.sequence) {
                        Some(before) => before,
                        None => return Next::Compare(other.held.clone_ref(), other.sequence),
                    }
                }
            };
            let side = usize::from(!before);
            let child = tree.node(self.at).children[side];
            if child == NIL {
                return Next::At(self.at, side);
            }
            self.at = child;
        }
    }
}

// The queue

/// A reference to an event: the queue's own, or one on its way out of it. Given up by hand, outside the lock.
#[derive(Clone, Copy)]
pub(super) struct Held(pub(super) *mut ffi::PyObject);

// SAFETY: the pointer is only used by threads that are attached.
unsafe impl Send for Held {}

impl Held {
    pub(super) fn clone_ref(&self) -> Held {
        // SAFETY: attached, and the queue keeps the event alive.
        unsafe { ffi::Py_INCREF(self.0) };
        *self
    }

    pub(super) fn into_bound(self, py: Python<'_>) -> Bound<'_, PyAny> {
        // SAFETY: the reference is handed over.
        unsafe { Bound::from_owned_ptr(py, self.0) }
    }

    fn is_nan(&self) -> bool {
        // SAFETY: a live event, whose first item is its time; reading a float runs no code.
        unsafe {
            let time = ffi::PyTuple_GET_ITEM(self.0, 0);
            ffi::PyFloat_Check(time) != 0 && ffi::PyFloat_AS_DOUBLE(time).is_nan()
        }
    }
}

/// Sequence numbers spread over a table.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only for sequence numbers")
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

enum Sorted {
    Keys(DeadlineHeap<Key, Held>),
    Tree(Tree),
}

pub(super) struct Queue {
    sorted: Sorted,
    /// Not before any key since the queue was empty: where a NaN goes.
    latest: Key,
    /// By sequence: the bits of the ticket, or the node. Made at the first cancel.
    places: Option<HashMap<u64, u64, BuildHasherDefault<Spread>>>,
    /// Where the next tree begins to count.
    version: u64,
}

impl Queue {
    pub(super) const fn new() -> Queue {
        Queue { sorted: Sorted::Keys(DeadlineHeap::new()), latest: Key::LEAST, places: None, version: 1 }
    }

    /// Leaves an empty queue in its place.
    pub(super) fn take(&mut self) -> Queue {
        let mut new = Queue::new();
        new.version = match &self.sorted {
            Sorted::Keys(_) => self.version,
            Sorted::Tree(tree) => tree.version + 1,
        };
        std::mem::replace(self, new)
    }

    pub(super) fn is_empty(&self) -> bool {
        match &self.sorted {
            Sorted::Keys(heap) => heap.is_empty(),
            Sorted::Tree(tree) => tree.root == NIL,
        }
    }

    /// The first event, not another reference to it, and its sequence.
    pub(super) fn first(&self) -> Option<(Held, u64)> {
        match &self.sorted {
            Sorted::Keys(heap) => heap.peek().map(|(key, held)| (*held, key.sequence)),
            Sorted::Tree(tree) => {
                let first = tree.nodes.get(tree.first as usize)?;
                Some((first.held, first.sequence))
            }
        }
    }

    /// Takes the first event out, if it is this one.
    pub(super) fn take_first(&mut self, sequence: u64) -> Option<Held> {
        if self.first()?.1 != sequence {
            return None;
        }
        let held = match &mut self.sorted {
            Sorted::Keys(heap) => heap.pop()?.1,
            Sorted::Tree(tree) => tree.remove(tree.first),
        };
        self.gone(sequence);
        Some(held)
    }

    /// Where an event is.
    fn place(&mut self, sequence: u64) -> Option<u64> {
        let sorted = &self.sorted;
        let places = self.places.get_or_insert_with(|| match sorted {
            Sorted::Keys(heap) => heap.iter().map(|(ticket, key, _)| (key.sequence, ticket.to_bits())).collect(),
            Sorted::Tree(tree) => tree.in_order().map(|(at, node)| (node.sequence, u64::from(at))).collect(),
        });
        places.get(&sequence).copied()
    }

    /// The event with this sequence, not another reference to it.
    pub(super) fn find(&mut self, sequence: u64) -> Option<Held> {
        let place = self.place(sequence)?;
        match &self.sorted {
            Sorted::Keys(heap) => heap.get(Ticket::from_bits(place)?).map(|(_, held)| *held),
            Sorted::Tree(tree) => Some(tree.node(place as u32).held),
        }
    }

    /// Takes the event with this sequence out.
    pub(super) fn remove(&mut self, sequence: u64) -> Option<Held> {
        let place = self.place(sequence)?;
        let held = match &mut self.sorted {
            Sorted::Keys(heap) => heap.remove(Ticket::from_bits(place)?)?,
            Sorted::Tree(tree) => tree.remove(place as u32),
        };
        self.gone(sequence);
        Some(held)
    }

    fn gone(&mut self, sequence: u64) {
        if let Some(places) = &mut self.places {
            places.remove(&sequence);
        }
        if !self.is_empty() {
            return;
        }
        let is_large = self.places.as_ref().is_some_and(|places| places.capacity() > 1000);
        if is_large || matches!(self.sorted, Sorted::Tree(_)) {
            drop(self.take());
        }
        self.latest = Key::LEAST;
    }

    /// Adds an event with a key, if all have one. True if it is the first now.
    pub(super) fn insert(&mut self, held: Held, rank: &Rank, sequence: u64) -> Option<bool> {
        let Sorted::Keys(heap) = &mut self.sorted else { return None };
        let key = match rank {
            Rank::Key(key) => *key,
            Rank::Last => Key { sequence, ..self.latest },
            Rank::Foreign => return None,
        };
        self.latest = self.latest.max(key);
        let ticket = heap.insert(key, held);
        if let Some(places) = &mut self.places {
            places.insert(sequence, ticket.to_bits());
        }
        Some(heap.peek().is_some_and(|(first, _)| first.sequence == sequence))
    }

    /// The tree, made from the keys if there is none yet.
    fn tree(&mut self) -> &mut Tree {
        if let Sorted::Keys(heap) = &mut self.sorted {
            let mut tree = Tree::new(self.version);
            for (_, key, held) in heap.in_order() {
                tree.push(*held, key.sequence);
            }
            drop(heap.take_all());
            self.places = None;
            self.sorted = Sorted::Tree(tree);
        }
        match &mut self.sorted {
            Sorted::Tree(tree) => tree,
            Sorted::Keys(_) => unreachable!("made above"),
        }
    }

    /// One step of adding an event to the tree: a comparison to make, or whether it is the first now.
    pub(super) fn step(&mut self, held: Held, search: &mut Search) -> Result<bool, (Held, u64)> {
        let is_nan = held.is_nan();
        let tree = self.tree();
        let next = if is_nan { Next::At(tree.end(tree.root, 1), 1) } else { search.step(tree) };
        match next {
            Next::Compare(other, sequence) => Err((other, sequence)),
            Next::At(parent, side) => {
                let node = tree.insert(parent, side, held, search.sequence);
                let is_first = tree.first == node;
                if let Some(places) = &mut self.places {
                    places.insert(search.sequence, u64::from(node));
                }
                Ok(is_first)
            }
        }
    }

    /// New references to all events.
    pub(super) fn copy(&self) -> Copied {
        match &self.sorted {
            Sorted::Keys(heap) => Copied::Keys(heap.iter().map(|(_, key, held)| (*key, held.clone_ref())).collect()),
            Sorted::Tree(tree) => {
                Copied::Sorted(tree.in_order().map(|(_, node)| (node.sequence, node.held.clone_ref())).collect())
            }
        }
    }

    pub(super) fn for_each(&self, mut look: impl FnMut(Held)) {
        match &self.sorted {
            Sorted::Keys(heap) => heap.iter().for_each(|(_, _, held)| look(*held)),
            Sorted::Tree(tree) => tree.in_order().for_each(|(_, node)| look(node.held)),
        }
    }
}

/// All events of a queue at one moment, to be sorted outside the lock.
pub(super) enum Copied {
    Keys(Vec<(Key, Held)>),
    Sorted(Vec<(u64, Held)>),
}

impl Copied {
    /// In the order in which they would run.
    pub(super) fn in_order(self) -> Vec<(u64, Held)> {
        match self {
            Copied::Keys(mut events) => {
                events.sort_unstable_by_key(|(key, _)| *key);
                events.into_iter().map(|(key, held)| (key.sequence, held)).collect()
            }
            Copied::Sorted(events) => events,
        }
    }
}
