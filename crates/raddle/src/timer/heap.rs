//! An indexed heap of deadlines: insert, cancel and expire in O(log n).
//!
//! A 4-ary implicit min-heap of small nodes (key, sequence, slot) beside a slab of slots (value, generation, position
//! of the node). A [`Ticket`] names a slot, so that cancelling goes straight to the node and frees the entry at once
//! instead of leaving a tombstone until its deadline.
//!
//! **Order.** By key, then by insertion: the earlier of two equal keys comes out first. The sequence number behind that
//! has 32 bits; when it runs out, every 2^32 insertions, the heap sorts itself and numbers its nodes anew (O(n log n),
//! once). An empty heap starts again at zero.
//!
//! **Memory.** With an 8-byte key and a pointer as value an entry takes 16 bytes of heap and 16.5 of slab. The heap grows
//! by a quarter at a time once it is large, and shrinks when it falls under a quarter of its room. Slots cannot move,
//! since tickets name them; they live in pages of 64, and a page whose last entry goes is given back.
//!
//! **Limits.** No locking of its own, no clock, no waiting: the owner brings all three. Values are never dropped inside,
//! except by [`clear`](DeadlineHeap::clear) and by dropping the heap: every other method hands them back, so that a
//! caller can let go of its lock first. No recursion, except in the sort used by renumbering and
//! [`in_order`](DeadlineHeap::in_order), whose depth is logarithmic.

use std::cmp::Ordering;
use std::fmt;
use std::num::NonZeroU32;

/// Children per node. Four halves the depth of a binary heap, and four nodes of 16 bytes are one cache line.
const ARITY: usize = 4;

/// Slots per page of the slab.
const PAGE: usize = 64;

/// End of a page's free list.
const NONE: u32 = u32::MAX;

/// Up to this many nodes the heap doubles its room; above, it adds a quarter.
const DOUBLING: usize = 1024;

/// Room for nodes below which shrinking is not worth it.
const SMALL: usize = 64;

/// Names one entry of the [`DeadlineHeap`] that issued it.
///
/// Harmless once the entry has gone: the slot may be used again, but then under another generation. Generations have 32
/// bits and are never zero, so a stale ticket stays recognisable for 2^32 - 1 further insertions. A ticket shown to a
/// heap that did not issue it may name an unrelated entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ticket {
    slot: u32,
    generation: NonZeroU32,
}

impl Ticket {
    /// The ticket as one word, never zero: fit for an atomic in which zero means no ticket.
    pub fn to_bits(self) -> u64 {
        (u64::from(self.generation.get()) << 32) | u64::from(self.slot)
    }

    /// The ticket that [`to_bits`](Ticket::to_bits) made into `bits`; `None` if no ticket has these bits.
    pub fn from_bits(bits: u64) -> Option<Ticket> {
        let generation = NonZeroU32::new((bits >> 32) as u32)?;
        Some(Ticket { slot: bits as u32, generation })
    }
}

/// What the heap moves about: the order of an entry, and where the rest of it is.
#[derive(Clone, Copy)]
struct Node<K> {
    key: K,
    /// Order of insertion among equal keys; unique among the nodes present.
    seq: u32,
    slot: u32,
}

impl<K: Ord> Node<K> {
    fn cmp(&self, other: &Node<K>) -> Ordering {
        self.key.cmp(&other.key).then(self.seq.cmp(&other.seq))
    }

    fn before(&self, other: &Node<K>) -> bool {
        self.cmp(other) == Ordering::Less
    }
}

/// The part of an entry that stays where it is.
struct Slot<V> {
    /// `None` while the slot is free.
    value: Option<V>,
    generation: NonZeroU32,
    /// In use: index of the node. Free: offset of the next free slot of the page, or [`NONE`].
    link: u32,
}

struct Page<V> {
    /// At most [`PAGE`] slots; empty, without storage, while nothing of the page is in use.
    slots: Vec<Slot<V>>,
    /// Offset of the first free slot among `slots`, or [`NONE`].
    free: u32,
    /// Slots in use.
    live: u32,
}

/// A min-heap of `(key, value)` from which any entry can be removed by its ticket.
///
/// `K` is a deadline, or a tuple that begins with one. Its `Ord` must be a total order and must not panic: a panic in
/// the middle of a move leaves the heap safe to drop but in no useful order.
///
/// ```
/// use raddle::timer::heap::DeadlineHeap;
///
/// let mut heap = DeadlineHeap::new();
/// let late = heap.insert(30, "late");
/// heap.insert(10, "early");
/// assert_eq!(heap.peek(), Some((&10, &"early")));
/// assert_eq!(heap.remove(late), Some("late"));
/// assert_eq!(heap.remove(late), None);
/// assert_eq!(heap.pop_due(9), None);
/// assert_eq!(heap.pop_due(10), Some((10, "early")));
/// assert!(heap.is_empty());
/// ```
pub struct DeadlineHeap<K: Ord + Copy, V> {
    /// Heap order by (key, seq): no node comes before its parent, `nodes[(i - 1) / ARITY]`.
    nodes: Vec<Node<K>>,
    pages: Vec<Page<V>>,
    /// Pages that have a free slot, each once. The last one serves the next insertion.
    roomy: Vec<u32>,
    /// Storage of the last page that emptied, kept so that a heap going between zero and one does not allocate.
    spare: Vec<Slot<V>>,
    /// The next sequence number; above every `seq` in `nodes`.
    seq: u32,
    /// Generation of the last insertion. One counter for the whole heap, so that pages can come and go.
    generation: u32,
}

impl<K: Ord + Copy, V> DeadlineHeap<K, V> {
    /// An empty heap. Does not allocate.
    pub const fn new() -> Self {
        DeadlineHeap {
            nodes: Vec::new(),
            pages: Vec::new(),
            roomy: Vec::new(),
            spare: Vec::new(),
            seq: 0,
            generation: 0,
        }
    }

    /// Number of entries. O(1).
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no entry. O(1).
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Add an entry behind all entries of an equal key. O(log n), O(1) when it is among the last to expire.
    ///
    /// # Panics
    /// With about 2^32 entries present, or when memory runs out.
    pub fn insert(&mut self, key: K, value: V) -> Ticket {
        if self.nodes.is_empty() {
            self.seq = 0;
        } else if self.seq == u32::MAX {
            self.renumber();
        }
        self.grow();
        let ticket = self.claim(value);
        let node = Node { key, seq: self.seq, slot: ticket.slot };
        self.seq += 1;
        self.nodes.push(node);
        self.sift_up(self.nodes.len() - 1, node);
        ticket
    }

    /// Take out the entry that `ticket` names; `None` if it has gone already. O(log n).
    pub fn remove(&mut self, ticket: Ticket) -> Option<V> {
        let position = self.find(ticket)?.link as usize;
        self.detach(position).map(|(_, value)| value)
    }

    /// The entry that `ticket` names; `None` if it has gone. O(1).
    pub fn get(&self, ticket: Ticket) -> Option<(&K, &V)> {
        let slot = self.find(ticket)?;
        Some((&self.nodes[slot.link as usize].key, slot.value.as_ref()?))
    }

    /// The first entry. O(1).
    pub fn peek(&self) -> Option<(&K, &V)> {
        let first = self.nodes.first()?;
        Some((&first.key, self.slot(first.slot).value.as_ref()?))
    }

    /// Take out the first entry. O(log n).
    pub fn pop(&mut self) -> Option<(K, V)> {
        self.detach(0)
    }

    /// Take out the first entry if its key is `now` or before. O(log n), O(1) when nothing is due.
    pub fn pop_due(&mut self, now: K) -> Option<(K, V)> {
        if self.nodes.first()?.key <= now { self.detach(0) } else { None }
    }

    /// Drop all entries and give the storage back; their tickets become stale. O(n).
    ///
    /// Runs the values' destructors: [`take_all`](DeadlineHeap::take_all) leaves that to the caller.
    pub fn clear(&mut self) {
        drop(self.take_all());
    }

    /// Take out all entries, in no particular order, and give the storage back; their tickets become stale. O(n).
    pub fn take_all(&mut self) -> Vec<(K, V)> {
        let nodes = std::mem::take(&mut self.nodes);
        let mut pages = std::mem::take(&mut self.pages);
        self.roomy = Vec::new();
        self.spare = Vec::new();
        let take = |node: Node<K>| {
            let slot = &mut pages[node.slot as usize / PAGE].slots[node.slot as usize % PAGE];
            slot.value.take().map(|value| (node.key, value))
        };
        nodes.into_iter().filter_map(take).collect()
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (Ticket, &K, &V)> {
        self.nodes.iter().filter_map(|node| self.entry(node))
    }

    /// All entries in the order in which [`pop`](DeadlineHeap::pop) would give them. O(n log n), allocates.
    pub fn in_order(&self) -> Vec<(Ticket, &K, &V)> {
        let mut nodes: Vec<&Node<K>> = self.nodes.iter().collect();
        nodes.sort_unstable_by(|a, b| a.cmp(b));
        nodes.into_iter().filter_map(|node| self.entry(node)).collect()
    }

    fn entry<'a>(&'a self, node: &'a Node<K>) -> Option<(Ticket, &'a K, &'a V)> {
        let slot = self.slot(node.slot);
        let ticket = Ticket { slot: node.slot, generation: slot.generation };
        Some((ticket, &node.key, slot.value.as_ref()?))
    }

    // The heap.

    /// Make room for one more node.
    fn grow(&mut self) {
        let len = self.nodes.len();
        if len == self.nodes.capacity() {
            self.nodes.reserve_exact(if len < DOUBLING { len.max(4) } else { len / 4 });
        }
    }

    /// Give room back when less than a quarter of it is used, or none.
    fn shrink(&mut self) {
        let room = self.nodes.capacity();
        let sparse = room > SMALL && self.nodes.len() < room / 4;
        if !(sparse || self.nodes.is_empty() && self.pages.len() > SMALL / PAGE) {
            return;
        }
        if sparse {
            self.nodes.shrink_to(room / 2);
        }
        while self.pages.pop_if(|page| page.live == 0).is_some() {}
        let pages = self.pages.len();
        self.roomy.retain(|&page| (page as usize) < pages);
        self.pages.shrink_to(2 * pages);
        self.roomy.shrink_to(2 * pages);
    }

    /// Number the nodes 0, 1, 2, ... in their order. A sorted array is a heap already.
    #[cold]
    fn renumber(&mut self) {
        self.nodes.sort_unstable_by(|a, b| a.cmp(b));
        for position in 0..self.nodes.len() {
            let node = Node { seq: position as u32, ..self.nodes[position] };
            self.place(position, node);
        }
        self.seq = self.nodes.len() as u32;
    }

    /// Take the entry at `position` out of heap and slab.
    fn detach(&mut self, position: usize) -> Option<(K, V)> {
        let last = self.nodes.pop()?;
        let gone = match self.nodes.get(position) {
            None => last,
            Some(&gone) => {
                if position > 0 && last.before(&self.nodes[(position - 1) / ARITY]) {
                    self.sift_up(position, last);
                } else {
                    self.sift_down(position, last);
                }
                gone
            }
        };
        let value = self.release(gone.slot);
        self.shrink();
        value.map(|value| (gone.key, value))
    }

    /// Bring `node` from `position`, whose content is void, towards the root.
    fn sift_up(&mut self, mut position: usize, node: Node<K>) {
        while position > 0 {
            let parent = (position - 1) / ARITY;
            let above = self.nodes[parent];
            if !node.before(&above) {
                break;
            }
            self.place(position, above);
            position = parent;
        }
        self.place(position, node);
    }

    /// Bring `node` from `position`, whose content is void, towards the leaves.
    fn sift_down(&mut self, mut position: usize, node: Node<K>) {
        loop {
            let start = position * ARITY + 1;
            let Some(&(mut least)) = self.nodes.get(start) else {
                break;
            };
            let end = (start + ARITY).min(self.nodes.len());
            let mut child = start;
            for (at, other) in self.nodes[start..end].iter().enumerate().skip(1) {
                if other.before(&least) {
                    least = *other;
                    child = start + at;
                }
            }
            if !least.before(&node) {
                break;
            }
            self.place(position, least);
            position = child;
        }
        self.place(position, node);
    }

    fn place(&mut self, position: usize, node: Node<K>) {
        self.nodes[position] = node;
        self.slot_mut(node.slot).link = position as u32;
    }

    // The slab.

    fn slot(&self, slot: u32) -> &Slot<V> {
        &self.pages[slot as usize / PAGE].slots[slot as usize % PAGE]
    }

    fn slot_mut(&mut self, slot: u32) -> &mut Slot<V> {
        &mut self.pages[slot as usize / PAGE].slots[slot as usize % PAGE]
    }

    /// The slot that `ticket` names, unless the ticket is stale.
    fn find(&self, ticket: Ticket) -> Option<&Slot<V>> {
        let slot = self.pages.get(ticket.slot as usize / PAGE)?.slots.get(ticket.slot as usize % PAGE)?;
        (slot.generation == ticket.generation && slot.value.is_some()).then_some(slot)
    }

    /// Put `value` into a free slot. The slot's `link` is not set yet.
    fn claim(&mut self, value: V) -> Ticket {
        let generation = NonZeroU32::new(self.generation.wrapping_add(1)).unwrap_or(NonZeroU32::MIN);
        self.generation = generation.get();
        let number = match self.roomy.last() {
            Some(&number) => number,
            None => {
                let number = self.pages.len() as u32;
                assert!(number < NONE / PAGE as u32, "a deadline heap cannot hold 2^32 entries");
                self.pages.push(Page { slots: Vec::new(), free: NONE, live: 0 });
                self.roomy.push(number);
                number
            }
        };
        let page = &mut self.pages[number as usize];
        let offset = if page.free != NONE {
            let offset = page.free;
            let slot = &mut page.slots[offset as usize];
            page.free = slot.link;
            slot.value = Some(value);
            slot.generation = generation;
            offset
        } else {
            if page.slots.capacity() == 0 {
                page.slots = std::mem::take(&mut self.spare);
                // The first page grows step by step: most heaps are small.
                if number > 0 {
                    page.slots.reserve_exact(PAGE);
                }
            }
            page.slots.push(Slot { value: Some(value), generation, link: 0 });
            page.slots.len() as u32 - 1
        };
        page.live += 1;
        if page.live as usize == PAGE {
            self.roomy.pop();
        }
        Ticket { slot: number * PAGE as u32 + offset, generation }
    }

    /// Take the value out of `slot` and free the slot; with the last of its page, the page's storage.
    fn release(&mut self, slot: u32) -> Option<V> {
        let (number, offset) = (slot / PAGE as u32, slot % PAGE as u32);
        let page = &mut self.pages[number as usize];
        let free = &mut page.slots[offset as usize];
        let value = free.value.take();
        free.link = page.free;
        page.free = offset;
        if page.live as usize == PAGE {
            self.roomy.push(number);
        }
        page.live -= 1;
        if page.live == 0 {
            page.free = NONE;
            let mut slots = std::mem::take(&mut page.slots);
            slots.clear();
            if slots.capacity() > self.spare.capacity() {
                self.spare = slots;
            }
        }
        value
    }
}

impl<K: Ord + Copy, V> Default for DeadlineHeap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Copy + fmt::Debug, V> fmt::Debug for DeadlineHeap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineHeap")
            .field("len", &self.len())
            .field("first", &self.peek().map(|(key, _)| key))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::size_of;
    use std::ptr::NonNull;
    use std::rc::Rc;

    impl<K: Ord + Copy, V> DeadlineHeap<K, V> {
        /// Bytes allocated, without the allocator's own.
        fn footprint(&self) -> usize {
            let slots: usize = self.pages.iter().map(|page| page.slots.capacity()).sum();
            self.nodes.capacity() * size_of::<Node<K>>()
                + self.pages.capacity() * size_of::<Page<V>>()
                + (slots + self.spare.capacity()) * size_of::<Slot<V>>()
                + self.roomy.capacity() * size_of::<u32>()
        }

        fn check(&self) {
            for (position, node) in self.nodes.iter().enumerate() {
                assert_eq!(self.slot(node.slot).link as usize, position);
                assert!(self.slot(node.slot).value.is_some());
                assert!(node.seq < self.seq);
                assert!(position == 0 || self.nodes[(position - 1) / ARITY].before(node));
            }
            let mut live = 0;
            for (number, page) in self.pages.iter().enumerate() {
                let used = page.slots.iter().filter(|slot| slot.value.is_some()).count();
                assert_eq!(used, page.live as usize);
                assert!(page.slots.len() <= PAGE);
                live += used;
                let listed = self.roomy.iter().filter(|&&roomy| roomy as usize == number).count();
                assert_eq!(listed, usize::from(used < PAGE));
                let mut free = 0;
                let mut next = page.free;
                while next != NONE {
                    free += 1;
                    next = page.slots[next as usize].link;
                }
                assert_eq!(free, page.slots.len() - used);
                assert!(used > 0 || page.slots.capacity() == 0);
            }
            assert_eq!(live, self.len());
            assert!(self.roomy.iter().all(|&page| (page as usize) < self.pages.len()));
        }
    }

    /// Deterministic numbers for the tests below; the seed is the argument.
    fn numbers(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        }
    }

    #[test]
    fn equal_keys_leave_in_order_of_insertion() {
        let mut heap = DeadlineHeap::new();
        for value in 0..500 {
            heap.insert(value % 3, value);
            heap.check();
        }
        let listed: Vec<i32> = heap.in_order().into_iter().map(|(_, _, &value)| value).collect();
        let popped: Vec<i32> = std::iter::from_fn(|| heap.pop()).map(|(_, value)| value).collect();
        let mut expected: Vec<i32> = (0..500).collect();
        expected.sort_by_key(|value| value % 3);
        assert_eq!(popped, expected);
        assert_eq!(listed, expected);
    }

    #[test]
    fn order_survives_renumbering() {
        let mut heap = DeadlineHeap::new();
        let mut tickets: Vec<Ticket> = (0..40).map(|value| heap.insert(value % 4, value)).collect();
        heap.seq = u32::MAX - 3;
        tickets.extend((40..80).map(|value| heap.insert(value % 4, value)));
        assert!(heap.seq < 100);
        heap.check();
        for (value, ticket) in tickets.iter().enumerate() {
            assert_eq!(heap.get(*ticket), Some((&(value as i32 % 4), &(value as i32))));
        }
        let popped: Vec<i32> = std::iter::from_fn(|| heap.pop()).map(|(_, value)| value).collect();
        let mut expected: Vec<i32> = (0..80).collect();
        expected.sort_by_key(|value| value % 4);
        assert_eq!(popped, expected);
    }

    #[test]
    fn a_stale_ticket_is_harmless() {
        let mut heap = DeadlineHeap::new();
        let first = heap.insert(1, 'a');
        assert_eq!(heap.remove(first), Some('a'));
        let second = heap.insert(2, 'b');
        assert_eq!(second.slot, first.slot);
        assert_eq!(heap.remove(first), None);
        assert_eq!(heap.get(first), None);
        assert_eq!(heap.get(second), Some((&2, &'b')));
        assert_eq!(heap.pop(), Some((2, 'b')));
        assert_eq!(heap.remove(second), None);
        heap.insert(3, 'c');
        heap.clear();
        assert_eq!(heap.remove(first), None);
        let third = heap.insert(4, 'd');
        assert_eq!(heap.remove(second), None);
        assert_eq!(heap.remove(third), Some('d'));
    }

    #[test]
    fn generations_skip_zero() {
        let mut heap = DeadlineHeap::new();
        heap.generation = u32::MAX - 1;
        let tickets: Vec<Ticket> = (0..3).map(|key| heap.insert(key, key)).collect();
        let generations: Vec<u32> = tickets.iter().map(|ticket| ticket.generation.get()).collect();
        assert_eq!(generations, [u32::MAX, 1, 2]);
        for ticket in tickets {
            assert_eq!(Ticket::from_bits(ticket.to_bits()), Some(ticket));
        }
        assert_eq!(Ticket::from_bits(7), None);
        assert_eq!(size_of::<Option<Ticket>>(), 8);
    }

    #[test]
    fn pop_due_stops_at_the_first_entry_that_is_not() {
        let mut heap = DeadlineHeap::new();
        for key in [5, 1, 4, 2, 3] {
            heap.insert(key, ());
        }
        let due: Vec<i32> = std::iter::from_fn(|| heap.pop_due(3)).map(|(key, ())| key).collect();
        assert_eq!(due, [1, 2, 3]);
        assert_eq!(heap.peek(), Some((&4, &())));
        assert_eq!(heap.len(), 2);
    }

    #[test]
    fn removing_frees_the_value_at_once() {
        let mut heap = DeadlineHeap::new();
        let value = Rc::new(());
        let tickets: Vec<Ticket> = (0..300).map(|key| heap.insert(key, Rc::clone(&value))).collect();
        for (gone, ticket) in tickets.into_iter().enumerate() {
            drop(heap.remove(ticket));
            assert_eq!(Rc::strong_count(&value), 300 - gone);
        }
        heap.insert(1, Rc::clone(&value));
        heap.clear();
        assert_eq!(Rc::strong_count(&value), 1);
    }

    #[test]
    fn an_entry_takes_at_most_forty_bytes() {
        let value = NonNull::from(&0_u64);
        let mut heap = DeadlineHeap::new();
        let mut next = numbers(1);
        for len in 1..200_000_usize {
            heap.insert(next(), value);
            if len >= 4096 {
                assert!(heap.footprint() <= 40 * len, "{} bytes for {len} entries", heap.footprint());
            }
        }
    }

    #[test]
    fn storage_shrinks_with_the_heap() {
        let value = NonNull::from(&0_u64);
        let mut heap = DeadlineHeap::new();
        let mut next = numbers(2);
        let mut tickets: Vec<Ticket> = (0..100_000).map(|_| heap.insert(next(), value)).collect();
        let full = heap.footprint();
        while tickets.len() > 100 {
            assert!(heap.remove(tickets.swap_remove(next() as usize % tickets.len())).is_some());
        }
        heap.check();
        // The survivors may each hold one page, and a page number costs 32 bytes.
        assert!(heap.footprint() < 100 * PAGE * 16 + full / 30, "{}", heap.footprint());
        for ticket in tickets {
            assert!(heap.remove(ticket).is_some());
        }
        heap.check();
        assert!(heap.footprint() < 8 * 1024, "{}", heap.footprint());
    }

    #[test]
    fn a_small_heap_does_not_allocate_again() {
        let mut heap = DeadlineHeap::new();
        heap.insert(1, 1_u64);
        heap.pop();
        let before = heap.footprint();
        for round in 0..1000 {
            heap.insert(round, 1);
            assert_eq!(heap.footprint(), before);
            heap.pop();
        }
        assert!(before < 512, "{before}");
    }

    #[test]
    fn random_operations_agree_with_a_sorted_list() {
        for seed in 0..8 {
            let mut next = numbers(seed);
            let mut heap = DeadlineHeap::new();
            let mut model: Vec<(u64, u64, Ticket)> = Vec::new();
            for step in 0..4000 {
                match next() % 8 {
                    0..=3 => {
                        let key = next() % 200;
                        let ticket = heap.insert(key, step);
                        let at = model.partition_point(|&(other, _, _)| other <= key);
                        model.insert(at, (key, step, ticket));
                    }
                    4 | 5 if !model.is_empty() => {
                        let (_, value, ticket) = model.remove(next() as usize % model.len());
                        assert_eq!(heap.remove(ticket), Some(value), "seed {seed}, step {step}");
                        assert_eq!(heap.remove(ticket), None, "seed {seed}, step {step}");
                    }
                    6 => {
                        let expected = (!model.is_empty()).then(|| model.remove(0));
                        assert_eq!(
                            heap.pop(),
                            expected.map(|(key, value, _)| (key, value)),
                            "seed {seed}, step {step}"
                        );
                    }
                    _ => {
                        let now = next() % 50;
                        let due = model.first().is_some_and(|&(key, _, _)| key <= now);
                        let expected = due.then(|| model.remove(0));
                        assert_eq!(
                            heap.pop_due(now),
                            expected.map(|(key, value, _)| (key, value)),
                            "seed {seed}, step {step}"
                        );
                    }
                }
                if step % 64 == 0 {
                    heap.check();
                    assert_eq!(heap.iter().count(), model.len());
                }
            }
            heap.check();
            let left: Vec<(u64, u64)> = heap.in_order().into_iter().map(|(_, &key, &value)| (key, value)).collect();
            let expected: Vec<(u64, u64)> = model.iter().map(|&(key, value, _)| (key, value)).collect();
            assert_eq!(left, expected, "seed {seed}");
            let mut taken = heap.take_all();
            taken.sort_unstable();
            let mut sorted = expected;
            sorted.sort_unstable();
            assert_eq!(taken, sorted);
            heap.check();
        }
    }
}
