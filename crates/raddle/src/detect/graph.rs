//! The wait-for graph, walked from one waiter.
//!
//! A thread is stuck if it sleeps without a deadline, the word it sleeps on has not changed, and every
//! thread that could end its wait is stuck as well. That is the usual knot for waits with several possible
//! wakers, and a cycle where there is one each. The parties of a deadlock are the threads that reach each
//! other; those who merely wait for one of them are not.
//!
//! The graph is read one thread at a time, while others run. What makes the result true at one instant is
//! that it is read twice: each wait has a number of its own, so if every party is still asleep in the same
//! wait, for the same owner, then it was so all the time in between, and no party could have let anything go.
//! [`Deadlock::same_as`] compares the two; the caller lets time pass between them.
//!
//! In a forked child, a lock may be held by a thread that stayed behind in the parent. It will never release it here:
//! whoever waits for it is a deadlock's only party.

use crate::trace::thread::{Stuck, Thread, Waiting, all, by_token, is_alone, stayed_behind};
use crate::trace::{Claim, Kind, Site};
use std::collections::HashMap;
use std::sync::Arc;

/// Threads that wait for each other, and for nobody else.
#[derive(Clone, Debug)]
pub struct Deadlock {
    /// Whether the rules of the objects alone say so; if not, only what has been seen so far.
    pub proven: bool,
    /// The parties, each waiting for something that the next holds (the last for the first). One that is alone waits
    /// for itself, or for a thread that stayed behind when this process was forked.
    pub parties: Vec<Party>,
}

/// A thread in a deadlock.
#[derive(Clone, Debug)]
pub struct Party {
    /// Its record.
    pub thread: Arc<Thread>,
    /// What it waits for.
    pub waiting: Waiting,
    /// How sure it is that only these can end the wait.
    pub claim: Claim,
    /// Who can end the wait, by token, and where they took what it waits for.
    pub holders: Vec<(usize, Option<Site>)>,
}

impl Deadlock {
    /// Whether both are the same threads in the same waits for the same holders.
    pub fn same_as(&self, other: &Deadlock) -> bool {
        self.key() == other.key() && self.holders() == other.holders()
    }

    /// The numbers of its waits, in ascending order: names this deadlock for ever.
    pub fn key(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.parties.iter().map(|party| party.waiting.number).collect();
        numbers.sort_unstable();
        numbers
    }

    fn holders(&self) -> Vec<(u64, Vec<usize>)> {
        let mut holders: Vec<_> = self
            .parties
            .iter()
            .map(|party| {
                let mut tokens: Vec<usize> = party.holders.iter().map(|holder| holder.0).collect();
                tokens.sort_unstable();
                (party.waiting.number, tokens)
            })
            .collect();
        holders.sort_unstable();
        holders
    }
}

/// A node of the walk: a stuck thread and whom it waits for, as indices.
struct Node {
    thread: Arc<Thread>,
    stuck: Stuck,
    next: Vec<usize>,
    /// All that could end its wait stayed behind in the process that this one was forked from.
    left: bool,
}

impl Node {
    fn party(&self) -> Party {
        Party {
            thread: Arc::clone(&self.thread),
            waiting: self.stuck.waiting,
            claim: self.stuck.claim,
            holders: self.stuck.wakers.iter().map(|waker| (waker.token, waker.site)).collect(),
        }
    }
}

/// Whether this thread, and every thread it waits for, can never go on: as a party of a deadlock, or because
/// it waits for one.
pub fn is_stuck(thread: &Arc<Thread>) -> bool {
    closure(thread).is_some()
}

/// The deadlock that this thread is a party of, if there is one.
pub fn find_from(thread: &Arc<Thread>) -> Option<Deadlock> {
    let mut nodes = closure(thread)?;
    if nodes[0].left {
        return left_behind(nodes.swap_remove(0));
    }
    let component = component_of(&nodes);
    // Alone, and not waiting for itself: it waits for a deadlock of others, or for the dead.
    if component.len() == 1 && !nodes[0].next.contains(&0) {
        return None;
    }
    let parties = in_order(&nodes, &component);
    let kinds: Vec<Kind> = parties.iter().map(|at| nodes[*at].stuck.waiting.kind).collect();
    if !is_deadlock(&kinds) || !is_believable(&nodes, &parties, &kinds) {
        return None;
    }
    let proven = parties.iter().all(|at| nodes[*at].stuck.claim == Claim::Proven);
    Some(Deadlock { proven, parties: parties.into_iter().map(|at| nodes[at].party()).collect() })
}

/// A wait for what only a thread could release that is not in this process. A plain lock may be released by others;
/// but by nobody, if there is nobody else.
fn left_behind(node: Node) -> Option<Deadlock> {
    if !matches!(node.stuck.waiting.kind, Kind::Lock | Kind::RLock | Kind::Semaphore) {
        return None;
    }
    let claim = node.stuck.claim;
    let proven = claim == Claim::Proven || is_alone();
    (proven || claim > Claim::Possible).then(|| Deadlock { proven, parties: vec![node.party()] })
}

/// Every deadlock there is now, each once.
pub fn find_all() -> Vec<Deadlock> {
    let mut found: Vec<Deadlock> = Vec::new();
    for thread in all() {
        if let Some(deadlock) = find_from(&thread) {
            if !found.iter().any(|other| other.key() == deadlock.key()) {
                found.push(deadlock);
            }
        }
    }
    found
}

/// Whether a cycle through these waits is one that its parties cannot get out of.
///
/// A thread that waits for a plain lock it took itself is not: a lock is often handed to another thread
/// to release, and nothing shows that none will. A cycle of empty queues and joins is not either, since
/// anybody may put an item; one with a full queue in it is.
fn is_deadlock(kinds: &[Kind]) -> bool {
    if kinds.len() == 1 {
        return matches!(kinds[0], Kind::RLock | Kind::Join | Kind::Future | Kind::Submit);
    }
    !kinds.contains(&Kind::QueueGet) || kinds.contains(&Kind::QueuePut)
}

/// Whether a cycle in which something is held that nobody has been seen to give back is one all the same.
///
/// Such a lock or semaphore may be a gate, which another thread is about to open. It is believed where the
/// threads block each other on different locks, as those who take several do. Elsewhere it is a stall if
/// nobody is left who could open it, and nothing at all if somebody is.
fn is_believable(nodes: &[Node], parties: &[usize], kinds: &[Kind]) -> bool {
    if parties.iter().all(|at| nodes[*at].stuck.claim > Claim::Possible) {
        return true;
    }
    let mut objects: Vec<usize> = parties.iter().map(|at| nodes[*at].stuck.object).collect();
    objects.sort_unstable();
    objects.dedup();
    objects.len() > 1 && kinds.iter().all(|kind| matches!(kind, Kind::Lock | Kind::RLock | Kind::Semaphore))
}

/// All threads that this one waits for, directly or not, if every one of them is stuck.
fn closure(thread: &Arc<Thread>) -> Option<Vec<Node>> {
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut nodes: Vec<Node> = Vec::new();
    let mut open = vec![Arc::clone(thread)];
    places.insert(thread.id(), 0);
    while let Some(thread) = open.pop() {
        let stuck = thread.stuck()?;
        if stuck.claim == Claim::Unknown || stuck.wakers.is_empty() {
            return None;
        }
        let at = places[&thread.id()];
        let mut next = Vec::new();
        let here = || stuck.wakers.iter().filter(|waker| !stayed_behind(waker.token, waker.epoch));
        for waker in here() {
            // A thread without a record runs, as far as anybody knows.
            let other = by_token(waker.token, waker.epoch)?;
            let fresh = places.len();
            let place = *places.entry(other.id()).or_insert(fresh);
            if place == fresh {
                open.push(other);
            }
            next.push(place);
        }
        while nodes.len() <= at {
            nodes.push(Node { thread: Arc::clone(&thread), stuck: placeholder(), next: Vec::new(), left: false });
        }
        let left = here().next().is_none();
        nodes[at] = Node { thread, stuck, next, left };
    }
    Some(nodes)
}

/// Fills a place whose thread is still to be looked at.
fn placeholder() -> Stuck {
    let waiting = Waiting { kind: Kind::Sleep, host: 0, since: 0, timed: true, number: 0 };
    Stuck { waiting, object: 0, wakers: Vec::new(), claim: Claim::Unknown }
}

/// The nodes that node 0 reaches and that reach it, itself included.
fn component_of(nodes: &[Node]) -> Vec<usize> {
    let mut back = vec![Vec::new(); nodes.len()];
    for (at, node) in nodes.iter().enumerate() {
        for next in &node.next {
            back[*next].push(at);
        }
    }
    let mut reaches = vec![false; nodes.len()];
    let mut open = vec![0];
    reaches[0] = true;
    while let Some(at) = open.pop() {
        for before in &back[at] {
            if !reaches[*before] {
                reaches[*before] = true;
                open.push(*before);
            }
        }
    }
    // The walk started at node 0, so that it reaches every node.
    (0..nodes.len()).filter(|at| reaches[*at]).collect()
}

/// A component in the order of its waits: each party waits for the one behind it, where there is a choice
/// for one that has not been named.
fn in_order(nodes: &[Node], component: &[usize]) -> Vec<usize> {
    let mut order = vec![0];
    let mut at = 0;
    loop {
        let next = nodes[at].next.iter().find(|next| component.contains(next) && !order.contains(next));
        match next {
            Some(next) => {
                order.push(*next);
                at = *next;
            }
            None => break,
        }
    }
    order.extend(component.iter().filter(|at| !order.contains(at)).copied().collect::<Vec<_>>());
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::park::{Alone, Deadline, Parking};
    use crate::primitive::thread_token;
    use crate::sync::{Event, RawLock, RawRLock};
    use std::time::{Duration, Instant};

    fn eventually(mut check: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if check() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    fn two_threads(first: &'static RawRLock, second: &'static RawRLock, limit: Duration) {
        static READY: Event = Event::new();
        let take = |mine: &'static RawRLock, other: &'static RawRLock| {
            move || {
                let me = thread_token();
                assert!(mine.try_acquire(me));
                READY.wait();
                let mut parking = Parking::new(Kind::RLock, other, 0, Deadline::after(limit), &Alone);
                if other.acquire_slow(me, &mut parking).is_ok() {
                    other.release(me).unwrap();
                }
                drop(parking);
                mine.release(me).unwrap();
            }
        };
        let threads = [std::thread::spawn(take(first, second)), std::thread::spawn(take(second, first))];
        assert!(eventually(|| first.is_locked() && second.is_locked()));
        READY.set();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn timed_waits_are_no_deadlock() {
        static A: RawRLock = RawRLock::new();
        static B: RawRLock = RawRLock::new();
        let watch = std::thread::spawn(|| {
            for _ in 0..200 {
                // But for the one that the next test leaves behind.
                assert!(find_all().iter().all(|found| found.parties.iter().any(|party| party.waiting.host == 7)));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        two_threads(&A, &B, Duration::from_millis(150));
        watch.join().unwrap();
    }

    /// Leaves two threads asleep for ever; they end with the test process.
    #[test]
    fn two_locks_in_opposite_order_are_found_with_their_parties() {
        static LOCKS: [RawRLock; 2] = [RawRLock::new(), RawRLock::new()];
        static TAKEN: RawLock = RawLock::new();
        let _ = &TAKEN;
        for first in 0..2usize {
            std::thread::spawn(move || {
                let me = thread_token();
                assert!(LOCKS[first].try_acquire(me));
                assert!(eventually(|| LOCKS[1 - first].is_locked()));
                let other = &LOCKS[1 - first];
                let mut parking = Parking::new(Kind::RLock, other, 7, Deadline::NEVER, &Alone);
                let _ = other.acquire_slow(me, &mut parking);
            });
        }
        let ours = |found: Vec<Deadlock>| found.into_iter().find(|d| d.parties.iter().any(|p| p.waiting.host == 7));
        assert!(eventually(|| ours(find_all()).is_some()));
        let one = ours(find_all()).unwrap();
        let two = ours(find_all()).unwrap();
        assert!(one.same_as(&two) && one.proven && one.parties.len() == 2);
        assert_eq!(one.parties[0].holders[0].0, one.parties[1].thread.token());
        assert_eq!(one.parties[1].holders[0].0, one.parties[0].thread.token());
    }
}
