//! The priority queue's heap: comparisons run outside the lock and may fail, block or come back.
//!
//! The order of items is foreign code (a Python `__lt__`). Calling it under the queue's lock would hang the queue when
//! it blocks, deadlock when it uses the queue, and leave half a sift behind when it raises. So an operation is planned
//! step by step: under the lock it takes clones of the next two items to compare; outside, it asks for the answer;
//! under the lock again it goes on, and changes the heap only when every answer is in. What it planned on is covered by
//! a version: if another operation committed in between, it starts again.
//!
//! **Algorithm.** CPython's `heapq`, comparison by comparison: a push appends and sifts towards the root while `new <
//! parent`; a pop moves the last item to the root, bubbles the smaller child up to a leaf (the right one unless `left <
//! right`), then sifts the moved item back up. The layout of the array, and with it the order of equal items, is that of
//! `queue.PriorityQueue`. A path in a binary heap is fixed by its lower end, so a plan is one index, not a list.
//!
//! **Progress.** Every restart was caused by another commit, so the heap as a whole always moves on. An operation that
//! meets more than [`RESTARTS`] of them stops competing and leaves its comparisons to later operations: a push parks its
//! item in a queue of deferred items, a pop takes the root (always the least, no comparison needed) and leaves the item
//! moved there unsettled. Both are what `heapq` would do, only later: whoever comes next first settles the root, then
//! pushes the deferred items in their order, so the layout is still that of the same sequence of `heapq` calls. Slow
//! comparisons are not starved by quick ones, and a comparison that itself puts into the queue ends.
//!
//! **Clones are never dropped by the heap.** Dropping an item may run foreign code too (a finalizer), so no method drops
//! a `T`: clones are handed out in [`Step::Compare`], for the caller to drop after unlocking, and items leave by value.
//! `T::clone` does run under the lock: it must be a reference count or a copy.
//!
//! Not a lock, and never waits: the queue that owns the heap brings the lock, the capacity and the waiting.
//!
//! Long for a file because the tests, which look inside, are more than half of it.

use std::collections::VecDeque;
use std::fmt;

/// Restarts an operation accepts before it leaves its comparisons to later ones.
pub const RESTARTS: u32 = 8;

/// Room for items below which shrinking is not worth it.
const SMALL: usize = 64;

/// What an operation needs next; see [`VersionedHeap::step_push`] and [`VersionedHeap::step_pop`].
#[must_use]
#[derive(Debug)]
pub enum Step<T, R> {
    /// Unlock, find out whether the first item is less than the second, pass that to the plan's `answer`, lock, step on.
    /// Both clones must be dropped while unlocked.
    Compare(T, T),
    /// The operation is committed.
    Done(R),
}

/// A push in progress. Owns its item until the commit; dropping it abandons the push and leaves no trace in the heap.
#[must_use]
#[derive(Debug)]
pub struct PushPlan<T> {
    /// `None` once committed.
    item: Option<T>,
    walk: Walk,
}

impl<T> PushPlan<T> {
    /// A push of `item` that has not begun.
    pub fn new(item: T) -> Self {
        PushPlan { item: Some(item), walk: Walk::new() }
    }

    /// Answer the last [`Step::Compare`]. Ignored when none is open.
    pub fn answer(&mut self, less: bool) {
        self.walk.answer(less);
    }

    /// Abandon the push and take the item back; `None` if it is in the heap already.
    pub fn into_item(self) -> Option<T> {
        self.item
    }
}

/// A pop in progress. Dropping it abandons the pop and leaves no trace in the heap.
#[must_use]
#[derive(Debug)]
pub struct PopPlan {
    walk: Walk,
}

impl PopPlan {
    /// A pop that has not begun.
    pub fn new() -> Self {
        PopPlan { walk: Walk::new() }
    }

    /// Answer the last [`Step::Compare`]. Ignored when none is open.
    pub fn answer(&mut self, less: bool) {
        self.walk.answer(less);
    }
}

impl Default for PopPlan {
    fn default() -> Self {
        Self::new()
    }
}

/// One rearrangement of the heap, planned without changing it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Job {
    /// Sift the unsettled root down.
    Settle,
    /// Push the first deferred item.
    Absorb,
    /// Push the plan's own item.
    Place,
    /// Pop.
    Take,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Nothing planned yet.
    Start,
    /// Following the smaller child from the root to a leaf.
    Descend,
    /// Looking for the moving item's place, from the leaf up.
    Climb,
    /// `position` is that place.
    Rest,
}

/// The state of a plan: which rearrangement, how far, on which version.
#[derive(Debug)]
struct Walk {
    /// The heap's version that `phase` and `position` hold for.
    version: u64,
    /// Number of deferred items, counted from the heap's first, that came before this operation: it must not overtake
    /// them. Unset before the first step.
    behind: Option<u64>,
    job: Job,
    phase: Phase,
    position: usize,
    /// Whether a comparison has been handed out and not been used.
    asked: bool,
    answer: Option<bool>,
    restarts: u32,
}

impl Walk {
    fn new() -> Self {
        Walk {
            version: 0,
            behind: None,
            job: Job::Take,
            phase: Phase::Start,
            position: 0,
            asked: false,
            answer: None,
            restarts: 0,
        }
    }

    fn answer(&mut self, less: bool) {
        if self.asked {
            self.answer = Some(less);
        }
    }

    /// Forget what was planned. An answer that has not been used goes with it.
    fn reset(&mut self, version: u64) {
        self.version = version;
        self.phase = Phase::Start;
        self.asked = false;
        self.answer = None;
    }
}

/// A binary heap in `heapq`'s layout whose operations are stepwise, so that comparing needs no lock.
///
/// Guard it with a lock, and either drive [`step_push`](Self::step_push) and [`step_pop`](Self::step_pop) from the
/// queue's own loop, where capacity and shutdown are checked before each step under the same lock, or implement
/// [`Access`] and call [`push`] and [`pop`].
///
/// ```
/// use raddle::queue::heap::{PopPlan, PushPlan, Step, VersionedHeap};
///
/// let mut heap = VersionedHeap::new();
/// for item in [3, 1, 2] {
///     let mut plan = PushPlan::new(item);
///     while let Step::Compare(left, right) = heap.step_push(&mut plan) {
///         plan.answer(left < right);
///     }
/// }
/// let mut plan = PopPlan::new();
/// let least = loop {
///     match heap.step_pop(&mut plan) {
///         Step::Compare(left, right) => plan.answer(left < right),
///         Step::Done(item) => break item,
///     }
/// };
/// assert_eq!(least, Some(1));
/// ```
pub struct VersionedHeap<T> {
    /// A heap, except that the root may be greater than its children while `unsettled`.
    items: Vec<T>,
    /// Pushed, and still to be sifted in, in this order.
    deferred: VecDeque<T>,
    /// Deferred items that have been moved into `items` so far.
    absorbed: u64,
    /// Only with two items or more.
    unsettled: bool,
    /// Changes whenever `items` does.
    version: u64,
}

impl<T> VersionedHeap<T> {
    /// An empty heap. Does not allocate.
    pub const fn new() -> Self {
        VersionedHeap { items: Vec::new(), deferred: VecDeque::new(), absorbed: 0, unsettled: false, version: 0 }
    }

    /// Number of items. O(1).
    pub fn len(&self) -> usize {
        self.items.len() + self.deferred.len()
    }

    /// Whether there is no item. O(1).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of changes so far to what plans are made on.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// All items: `heapq`'s list, then the deferred ones. Unless operations meet, that is `heapq`'s list.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().chain(&self.deferred)
    }

    /// Take out all items, in the order of [`iter`](Self::iter), and give the storage back. Plans in progress restart.
    ///
    /// The caller drops the items after unlocking.
    pub fn take_all(&mut self) -> Vec<T> {
        self.version += 1;
        self.unsettled = false;
        self.absorbed += self.deferred.len() as u64;
        let mut items = std::mem::take(&mut self.items);
        items.extend(std::mem::take(&mut self.deferred));
        items
    }

    /// Finish the plan's rearrangement, which `walk` has brought to rest, and return what it takes out.
    fn commit(&mut self, walk: &mut Walk, item: &mut Option<T>) -> Option<T> {
        let position = walk.position;
        let taken = match walk.job {
            Job::Place => {
                self.items.extend(item.take());
                self.lift(position);
                None
            }
            Job::Absorb => {
                self.items.extend(self.deferred.pop_front());
                self.absorbed += 1;
                if self.deferred.is_empty() {
                    self.deferred = VecDeque::new();
                }
                self.lift(position);
                None
            }
            Job::Settle => {
                self.unsettled = false;
                self.lower(position);
                None
            }
            Job::Take => {
                let taken = self.items.swap_remove(0);
                self.lower(position);
                self.shrink();
                Some(taken)
            }
        };
        self.version += 1;
        walk.reset(self.version);
        taken
    }

    /// Move the last item to `position`, its ancestor or itself, and those between one step down.
    fn lift(&mut self, position: usize) {
        let mut at = self.items.len() - 1;
        while at > position {
            let parent = (at - 1) / 2;
            self.items.swap(at, parent);
            at = parent;
        }
    }

    /// Move the root to `position` and those on the way one step up.
    fn lower(&mut self, mut position: usize) {
        while position > 0 {
            self.items.swap(0, position);
            position = (position - 1) / 2;
        }
    }

    /// Take the root without comparing anything.
    fn take_unsettled(&mut self) -> T {
        let taken = self.items.swap_remove(0);
        self.unsettled = self.items.len() > 1;
        self.version += 1;
        self.shrink();
        taken
    }

    /// Give room back when less than a quarter of it is used.
    fn shrink(&mut self) {
        let room = self.items.capacity();
        if room > SMALL && self.items.len() < room / 4 {
            self.items.shrink_to(room / 2);
        }
    }
}

impl<T: Clone> VersionedHeap<T> {
    /// Carry `plan` on: to its next comparison, or to the commit.
    ///
    /// Call under the lock, first with a new plan and then after each answer. Without an answer it asks the same
    /// comparison again, so a caller may wait in between, and may check capacity right before each call: only a call
    /// that returns [`Step::Done`] adds the item. A push into a place that is right already compares once, so it takes
    /// the lock twice; a push into an empty heap takes it once.
    pub fn step_push(&mut self, plan: &mut PushPlan<T>) -> Step<T, ()> {
        self.begin(&mut plan.walk);
        while plan.item.is_some() {
            if plan.walk.restarts > RESTARTS {
                self.deferred.extend(plan.item.take());
                break;
            }
            if let Some((left, right)) = self.advance(&mut plan.walk, plan.item.as_ref()) {
                return Step::Compare(left, right);
            }
            self.commit(&mut plan.walk, &mut plan.item);
        }
        Step::Done(())
    }

    /// Carry `plan` on: to its next comparison, or to the commit, which hands out the least item.
    ///
    /// `Done(None)` if the heap is empty; a caller that waits for an item can keep the plan. Otherwise as
    /// [`step_push`](Self::step_push). A plan that is done may be used for another pop.
    pub fn step_pop(&mut self, plan: &mut PopPlan) -> Step<T, Option<T>> {
        let walk = &mut plan.walk;
        self.begin(walk);
        let mut taken = None;
        while taken.is_none() && !self.is_empty() {
            if walk.restarts > RESTARTS && self.choose(walk, Job::Take) == Job::Take {
                taken = Some(self.take_unsettled());
                break;
            }
            if let Some((left, right)) = self.advance(walk, None) {
                return Step::Compare(left, right);
            }
            taken = self.commit(walk, &mut None);
        }
        *walk = Walk::new();
        Step::Done(taken)
    }

    /// Start `walk`, or start it again if the heap has changed since its last step.
    fn begin(&self, walk: &mut Walk) {
        if walk.behind.is_none() {
            walk.behind = Some(self.absorbed + self.deferred.len() as u64);
        }
        if walk.version != self.version {
            walk.restarts += u32::from(walk.asked);
            walk.reset(self.version);
        }
    }

    /// What an operation whose own part is `own` has to do next: what others left undone before it came goes first.
    fn choose(&self, walk: &Walk, own: Job) -> Job {
        let overdue = walk.behind.is_some_and(|behind| self.absorbed < behind);
        if self.unsettled {
            Job::Settle
        } else if !self.deferred.is_empty() && (overdue || (own == Job::Take && self.items.is_empty())) {
            Job::Absorb
        } else {
            own
        }
    }

    /// Bring `walk` to its next comparison, and return clones for it, or to rest. `item` is the one to push, if any.
    fn advance(&self, walk: &mut Walk, item: Option<&T>) -> Option<(T, T)> {
        if walk.phase == Phase::Start {
            walk.job = self.choose(walk, if item.is_some() { Job::Place } else { Job::Take });
            (walk.phase, walk.position) = match walk.job {
                Job::Place | Job::Absorb => (Phase::Climb, self.items.len()),
                Job::Settle | Job::Take => (Phase::Descend, 0),
            };
        }
        let items = &self.items;
        loop {
            let at = walk.position;
            let (left, right) = match walk.phase {
                Phase::Descend => {
                    // A pop moves the last item away first.
                    let end = items.len() - usize::from(walk.job == Job::Take);
                    let left = 2 * at + 1;
                    if left + 1 < end {
                        (&items[left], &items[left + 1])
                    } else {
                        if left < end {
                            walk.position = left;
                        }
                        walk.phase = Phase::Climb;
                        continue;
                    }
                }
                Phase::Climb if at > 0 => {
                    let above = (at - 1) / 2;
                    match walk.job {
                        Job::Place => (item?, &items[above]),
                        Job::Absorb => (self.deferred.front()?, &items[above]),
                        // On the way down each item of the path moved one step up: the parent's place holds `at`'s.
                        Job::Settle => (&items[0], &items[at]),
                        Job::Take => (items.last()?, &items[at]),
                    }
                }
                Phase::Climb | Phase::Rest | Phase::Start => {
                    walk.phase = Phase::Rest;
                    return None;
                }
            };
            let Some(less) = walk.answer.take() else {
                walk.asked = true;
                return Some((left.clone(), right.clone()));
            };
            walk.asked = false;
            match (walk.phase, less) {
                (Phase::Descend, true) => walk.position = 2 * at + 1,
                (Phase::Descend, false) => walk.position = 2 * at + 2,
                (_, true) => walk.position = (at - 1) / 2,
                (_, false) => walk.phase = Phase::Rest,
            }
        }
    }
}

impl<T> Default for VersionedHeap<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for VersionedHeap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VersionedHeap")
            .field("len", &self.len())
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// The way to a [`VersionedHeap`] behind its owner's lock.
pub trait Access<T> {
    /// Run `f` with the lock held. It must have been released when this returns.
    fn with<R>(&self, f: impl FnOnce(&mut VersionedHeap<T>) -> R) -> R;
}

/// Push `item`, comparing with `less` while the lock is not held. O(log n) comparisons, unless other operations meet.
///
/// `less` may fail, block, and use the same heap.
///
/// # Errors
/// The error of `less`, with the item. The heap holds what it held.
///
/// ```
/// use raddle::queue::heap::{Access, VersionedHeap, pop, push};
/// use std::sync::Mutex;
///
/// struct Guarded(Mutex<VersionedHeap<f64>>);
///
/// impl Access<f64> for Guarded {
///     fn with<R>(&self, f: impl FnOnce(&mut VersionedHeap<f64>) -> R) -> R {
///         f(&mut self.0.lock().unwrap())
///     }
/// }
///
/// let less = |a: &f64, b: &f64| a.partial_cmp(b).map(|order| order.is_lt()).ok_or("not comparable");
/// let heap = Guarded(Mutex::new(VersionedHeap::new()));
/// push(&heap, 2.0, less).unwrap();
/// push(&heap, 1.0, less).unwrap();
/// assert_eq!(push(&heap, f64::NAN, less).unwrap_err().0, "not comparable");
/// assert_eq!(pop(&heap, less), Ok(Some(1.0)));
/// assert_eq!(pop(&heap, less), Ok(Some(2.0)));
/// assert_eq!(pop(&heap, less), Ok(None));
/// ```
pub fn push<T, A, E>(access: &A, item: T, mut less: impl FnMut(&T, &T) -> Result<bool, E>) -> Result<(), (E, T)>
where
    T: Clone,
    A: Access<T> + ?Sized,
{
    let mut plan = PushPlan::new(item);
    loop {
        match access.with(|heap| heap.step_push(&mut plan)) {
            Step::Done(()) => return Ok(()),
            Step::Compare(left, right) => match less(&left, &right) {
                Ok(answer) => plan.answer(answer),
                // The plan still has the item, since it was not done; without one the push would have succeeded.
                Err(error) => return plan.into_item().map_or(Ok(()), |item| Err((error, item))),
            },
        }
    }
}

/// Take out the least item, comparing with `less` while the lock is not held; `None` if the heap is empty.
///
/// `less` may fail, block, and use the same heap. O(log n) comparisons, unless other operations meet.
///
/// # Errors
/// The error of `less`. The heap holds what it held.
pub fn pop<T, A, E>(access: &A, mut less: impl FnMut(&T, &T) -> Result<bool, E>) -> Result<Option<T>, E>
where
    T: Clone,
    A: Access<T> + ?Sized,
{
    let mut plan = PopPlan::new();
    loop {
        match access.with(|heap| heap.step_pop(&mut plan)) {
            Step::Done(item) => return Ok(item),
            Step::Compare(left, right) => plan.answer(less(&left, &right)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::convert::Infallible;
    use std::rc::Rc;

    /// Compared by the first field; the second tells equal items apart.
    type Item = (u64, u64);

    fn by_key(a: &Item, b: &Item) -> Result<bool, Infallible> {
        Ok(a.0 < b.0)
    }

    /// A heap behind a lock that refuses to be taken twice, and counts.
    struct Guarded<T> {
        heap: RefCell<VersionedHeap<T>>,
        takings: Cell<u32>,
    }

    impl<T> Guarded<T> {
        fn new() -> Self {
            Guarded { heap: RefCell::new(VersionedHeap::new()), takings: Cell::new(0) }
        }
    }

    impl<T> Access<T> for Guarded<T> {
        fn with<R>(&self, f: impl FnOnce(&mut VersionedHeap<T>) -> R) -> R {
            self.takings.set(self.takings.get() + 1);
            f(&mut self.heap.borrow_mut())
        }
    }

    impl Guarded<Item> {
        fn push(&self, item: Item) {
            let Ok(()) = push(self, item, by_key);
        }

        fn pop(&self) -> Option<Item> {
            let Ok(item) = pop(self, by_key);
            item
        }

        fn drain(&self) -> Vec<Item> {
            std::iter::from_fn(|| self.pop()).collect()
        }

        fn check(&self) {
            let heap = self.heap.borrow();
            let items = &heap.items;
            for at in 1..items.len() {
                let above = (at - 1) / 2;
                assert!(items[above].0 <= items[at].0 || (above == 0 && heap.unsettled));
            }
        }
    }

    /// `heapq` on a plain list, which also writes down what it compares.
    #[derive(Default)]
    struct Model {
        items: Vec<Item>,
        compared: Vec<(Item, Item)>,
    }

    impl Model {
        fn less(&mut self, a: Item, b: Item) -> bool {
            self.compared.push((a, b));
            a.0 < b.0
        }

        fn towards_root(&mut self, mut at: usize) {
            let item = self.items[at];
            while at > 0 {
                let above = (at - 1) / 2;
                if !self.less(item, self.items[above]) {
                    break;
                }
                self.items[at] = self.items[above];
                at = above;
            }
            self.items[at] = item;
        }

        fn push(&mut self, item: Item) {
            self.items.push(item);
            self.towards_root(self.items.len() - 1);
        }

        fn pop(&mut self) -> Option<Item> {
            let last = self.items.pop()?;
            if self.items.is_empty() {
                return Some(last);
            }
            let least = std::mem::replace(&mut self.items[0], last);
            let mut at = 0;
            loop {
                let mut child = 2 * at + 1;
                if child >= self.items.len() {
                    break;
                }
                if child + 1 < self.items.len() && !self.less(self.items[child], self.items[child + 1]) {
                    child += 1;
                }
                self.items[at] = self.items[child];
                at = child;
            }
            self.items[at] = last;
            self.towards_root(at);
            Some(least)
        }
    }

    fn numbers(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        }
    }

    /// The sums were computed with CPython 3.13's `heapq`, running the same operations on the same numbers.
    #[test]
    fn agrees_with_cpython() {
        for (keys, sum, comparisons) in [(50, 0xf503_a886_f276_fb1d, 202_257), (1000, 0x87fa_03ac_d037_2d50, 203_544)] {
            let heap = Guarded::new();
            let compared = Cell::new(0);
            let less = |a: &Item, b: &Item| {
                compared.set(compared.get() + 1);
                by_key(a, b)
            };
            let mut next = numbers(12345);
            let mut digest = 0xcbf2_9ce4_8422_2325_u64;
            let mut mix = |(_, tag): Item| digest = (digest ^ tag).wrapping_mul(0x100_0000_01b3);
            let mut tag = 0;
            for _ in 0..20_000 {
                let number = next();
                if number % 5 < 3 || heap.heap.borrow().is_empty() {
                    let Ok(()) = push(&heap, ((number >> 8) % keys, tag), less);
                    tag += 1;
                } else {
                    let Ok(item) = pop(&heap, less);
                    item.into_iter().for_each(&mut mix);
                }
            }
            heap.heap.borrow().iter().copied().for_each(&mut mix);
            while let Ok(Some(item)) = pop(&heap, less) {
                mix(item);
            }
            assert_eq!(tag, 11_940);
            assert_eq!(digest, sum);
            assert_eq!(compared.get(), comparisons);
        }
    }

    #[test]
    fn compares_what_heapq_compares() {
        let heap = Guarded::new();
        let mut model = Model::default();
        let compared = RefCell::new(Vec::new());
        let less = |a: &Item, b: &Item| {
            compared.borrow_mut().push((*a, *b));
            by_key(a, b)
        };
        let mut next = numbers(3);
        for tag in 0..3000 {
            if next() % 9 < 5 {
                let item = (next() % 12, tag);
                let Ok(()) = push(&heap, item, less);
                model.push(item);
            } else {
                let Ok(item) = pop(&heap, less);
                assert_eq!(item, model.pop());
            }
            assert_eq!(heap.heap.borrow().items, model.items);
            assert_eq!(*compared.borrow(), model.compared);
        }
    }

    #[test]
    fn takes_the_lock_once_more_than_it_compares() {
        let heap = Guarded::new();
        let cost = |f: &dyn Fn()| {
            heap.takings.set(0);
            f();
            heap.takings.get()
        };
        assert_eq!(cost(&|| heap.push((1, 0))), 1);
        assert_eq!(cost(&|| heap.push((2, 0))), 2);
        assert_eq!(cost(&|| heap.push((3, 0))), 2);
        assert_eq!(cost(&|| heap.push((4, 0))), 2);
        assert_eq!(cost(&|| assert_eq!(heap.pop(), Some((1, 0)))), 3);
        assert_eq!(cost(&|| assert_eq!(heap.drain().len(), 3)), 5);
        assert_eq!(cost(&|| assert_eq!(heap.pop(), None)), 1);
    }

    #[test]
    fn a_failing_comparison_changes_nothing() {
        let heap = Guarded::new();
        let mut model = Model::default();
        let mut next = numbers(4);
        for tag in 0..3000 {
            let before = heap.heap.borrow().items.clone();
            let mut left = next() % 12;
            let less = |a: &Item, b: &Item| {
                left = left.checked_sub(1).ok_or("refused")?;
                Ok::<bool, &str>(a.0 < b.0)
            };
            let failed = if next() % 9 < 5 {
                let item = (next() % 12, tag);
                match push(&heap, item, less) {
                    Ok(()) => {
                        model.push(item);
                        false
                    }
                    Err((error, back)) => {
                        assert_eq!((error, back), ("refused", item));
                        true
                    }
                }
            } else {
                match pop(&heap, less) {
                    Ok(item) => {
                        assert_eq!(item, model.pop());
                        false
                    }
                    Err(error) => {
                        assert_eq!(error, "refused");
                        true
                    }
                }
            };
            if failed {
                assert_eq!(heap.heap.borrow().items, before);
            }
            assert_eq!(heap.heap.borrow().items, model.items);
        }
    }

    #[test]
    fn a_comparison_may_push_and_pop() {
        let heap = Guarded::new();
        for key in 0..20 {
            heap.push((key, 0));
        }
        let calls = Cell::new(0);
        let meddle = |a: &Item, b: &Item| {
            calls.set(calls.get() + 1);
            match calls.get() {
                1 => heap.push((0, 1)),
                2 => assert_eq!(heap.pop().map(|item| item.0), Some(0)),
                3 => heap.push((30, 0)),
                _ => {}
            }
            by_key(a, b)
        };
        let Ok(()) = push(&heap, (10, 1), meddle);
        assert!(calls.get() > 3);
        assert!(heap.heap.borrow().deferred.is_empty());
        heap.check();
        assert_eq!(heap.drain().len(), 22);
    }

    #[test]
    fn a_push_whose_comparisons_always_push_ends() {
        let heap = Guarded::new();
        for key in 0..20 {
            heap.push((key, 0));
        }
        let calls = Cell::new(0);
        let Ok(()) = push(&heap, (0, 7), |a, b| {
            calls.set(calls.get() + 1);
            heap.push((100, calls.get()));
            by_key(a, b)
        });
        assert_eq!(calls.get(), u64::from(RESTARTS) + 1);
        assert_eq!(heap.heap.borrow().deferred, [(0, 7)]);
        assert_eq!(heap.heap.borrow().len(), 21 + calls.get() as usize);
        assert_eq!(heap.heap.borrow().iter().last(), Some(&(0, 7)));
        let keys: Vec<u64> = heap.drain().iter().map(|item| item.0).collect();
        assert!(keys.is_sorted());
        assert_eq!(keys.len(), 21 + calls.get() as usize);
    }

    #[test]
    fn a_pop_whose_comparisons_always_push_ends() {
        let heap = Guarded::new();
        let mut model = Model::default();
        for tag in 0..20 {
            heap.push((tag / 3, tag));
            model.push((tag / 3, tag));
        }
        for round in 0..30 {
            let calls = Cell::new(0);
            let Ok(item) = pop(&heap, |a, b| {
                calls.set(calls.get() + 1);
                let new = (100, 100 * round + calls.get());
                heap.push(new);
                model.push(new);
                by_key(a, b)
            });
            assert_eq!(item, model.pop());
            assert!(calls.get() <= u64::from(RESTARTS) + 1);
            assert!(heap.heap.borrow().unsettled);
            heap.check();
        }
        let expected: Vec<Item> = std::iter::from_fn(|| model.pop()).collect();
        assert_eq!(heap.drain(), expected);
    }

    #[test]
    fn deferred_items_keep_heapq_order() {
        let heap = Guarded::new();
        let mut model = Model::default();
        let mut next = numbers(5);
        for tag in 0..2000 {
            let item = (next() % 6, tag);
            match next() % 8 {
                0..=2 => {
                    heap.push(item);
                    model.push(item);
                }
                3 => {
                    heap.heap.borrow_mut().deferred.push_back(item);
                    model.push(item);
                }
                4 => {
                    // What a pop does that has met too many other operations.
                    let mut plan = PopPlan::new();
                    plan.walk.restarts = RESTARTS + 1;
                    let item = loop {
                        match heap.with(|heap| heap.step_pop(&mut plan)) {
                            Step::Done(item) => break item,
                            Step::Compare(a, b) => plan.answer(a.0 < b.0),
                        }
                    };
                    assert_eq!(item, model.pop());
                }
                _ => assert_eq!(heap.pop(), model.pop()),
            }
            heap.check();
            assert_eq!(heap.heap.borrow().len(), model.items.len());
        }
        let expected: Vec<Item> = std::iter::from_fn(|| model.pop()).collect();
        assert_eq!(heap.drain(), expected);
    }

    #[test]
    fn an_operation_does_not_wait_for_items_deferred_after_it_began() {
        let heap = Guarded::new();
        for key in 10..20 {
            heap.push((key, 0));
        }
        // Each comparison parks another item, so that working all of them off would never end.
        let Ok(item) = pop(&heap, |a, b| {
            heap.heap.borrow_mut().deferred.push_back((1, 0));
            by_key(a, b)
        });
        assert_eq!(item, Some((10, 0)));
        assert_eq!(heap.pop(), Some((1, 0)));
    }

    #[test]
    fn an_unanswered_plan_asks_again() {
        let heap = Guarded::new();
        heap.push((1, 0));
        let mut plan = PushPlan::new((0, 0));
        plan.answer(true);
        for _ in 0..3 {
            let step = heap.with(|heap| heap.step_push(&mut plan));
            assert!(matches!(step, Step::Compare((0, 0), (1, 0))));
        }
        plan.answer(true);
        assert!(matches!(heap.with(|heap| heap.step_push(&mut plan)), Step::Done(())));
        assert!(matches!(heap.with(|heap| heap.step_push(&mut plan)), Step::Done(())));
        assert_eq!(plan.into_item(), None);
        assert_eq!(heap.drain(), [(0, 0), (1, 0)]);
    }

    #[test]
    fn a_stale_answer_is_not_used() {
        let heap = Guarded::new();
        heap.push((5, 0));
        let mut plan = PushPlan::new((3, 0));
        assert!(matches!(heap.with(|heap| heap.step_push(&mut plan)), Step::Compare((3, 0), (5, 0))));
        heap.push((1, 0));
        plan.answer(true);
        // Below (1, 0) now, not below (5, 0).
        assert!(matches!(heap.with(|heap| heap.step_push(&mut plan)), Step::Compare((3, 0), (1, 0))));
        drop(plan);
        assert_eq!(heap.drain(), [(1, 0), (5, 0)]);
    }

    #[test]
    fn take_all_restarts_plans() {
        let heap = Guarded::new();
        for key in 0..8 {
            heap.push((key, 0));
        }
        heap.heap.borrow_mut().deferred.push_back((9, 0));
        let mut plan = PopPlan::new();
        assert!(matches!(heap.with(|heap| heap.step_pop(&mut plan)), Step::Compare(..)));
        assert_eq!(heap.with(VersionedHeap::take_all).len(), 9);
        plan.answer(true);
        assert!(matches!(heap.with(|heap| heap.step_pop(&mut plan)), Step::Done(None)));
        heap.push((4, 0));
        assert!(matches!(heap.with(|heap| heap.step_pop(&mut plan)), Step::Done(Some((4, 0)))));
    }

    /// Complains when a clone is dropped while the lock is held.
    struct Witness(u64, Rc<Guarded<Witness>>);

    impl Clone for Witness {
        fn clone(&self) -> Self {
            Witness(self.0, Rc::clone(&self.1))
        }
    }

    impl Drop for Witness {
        fn drop(&mut self) {
            assert!(self.1.heap.try_borrow().is_ok(), "dropped under the lock");
        }
    }

    #[test]
    fn nothing_is_dropped_under_the_lock() {
        let heap = Rc::new(Guarded::new());
        let mut next = numbers(6);
        let depth = Cell::new(0);
        for _ in 0..2000 {
            let mut left = next() % 16;
            let less = |a: &Witness, b: &Witness| -> Result<bool, ()> {
                left = left.checked_sub(1).ok_or(())?;
                if depth.get() == 0 && left & 3 == 0 {
                    depth.set(1);
                    let plain = |a: &Witness, b: &Witness| Ok::<bool, ()>(a.0 < b.0);
                    let result = push(&*heap, Witness(left, Rc::clone(&heap)), plain);
                    depth.set(0);
                    result.map_err(|_| ())?;
                }
                Ok(a.0 < b.0)
            };
            if next() & 1 == 0 {
                let _ = push(&*heap, Witness(next() % 20, Rc::clone(&heap)), less);
            } else {
                let _ = pop(&*heap, less);
            }
        }
        let left = heap.with(VersionedHeap::take_all);
        assert_eq!(heap.heap.borrow().len(), 0);
        drop(left);
        assert_eq!(Rc::strong_count(&heap), 1);
    }

    #[test]
    fn storage_shrinks_with_the_heap() {
        let heap = Guarded::new();
        for key in 0..10_000 {
            heap.push((key, 0));
        }
        while heap.heap.borrow().len() > 10 {
            heap.pop();
        }
        assert!(heap.heap.borrow().items.capacity() <= SMALL);
    }
}
