//! Lock order: which locks have been taken while which others were held, and whether ever the other way.
//!
//! A deadlock needs two threads to meet; the habit that makes it possible can be seen without that. Every
//! "took B while holding A" is an edge from A to B with both sites. An edge that closes a cycle is an
//! inversion, and is told once. Only on request ([`crate::trace::ORDER`]): it costs a look-up per acquire.

use crate::trace::Site;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Two locks that have been taken in both orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inversion {
    /// The lock held now, and where it was taken.
    pub held: (usize, Option<Site>),
    /// The lock taken now, and where.
    pub taken: (usize, Option<Site>),
    /// Where, at an earlier time, the one taken now was held while a lock that leads to the other was taken.
    pub earlier: (Option<Site>, Option<Site>),
}

type Edges = HashMap<usize, HashMap<usize, (Option<Site>, Option<Site>)>>;

#[derive(Default)]
struct Graph {
    edges: Edges,
    told: HashSet<(usize, usize)>,
    /// Locks released by a thread that had not taken them, and when: their takers hold them no longer.
    strays: HashMap<usize, u64>,
}

/// Orders acquires and stray releases.
static CLOCK: AtomicU64 = AtomicU64::new(1);

#[derive(Clone, Copy)]
struct Held {
    lock: usize,
    site: Option<Site>,
    at: u64,
}

static GRAPH: Mutex<Option<Graph>> = Mutex::new(None);

thread_local! {
    /// What this thread holds, in the order of taking.
    static HELD: RefCell<Vec<Held>> = const { RefCell::new(Vec::new()) };
}

/// The calling thread has taken the lock with this address; tells an inversion the first time.
///
/// `waited`: whether it would have waited for it. A lock that was only tried is held like any other, but
/// trying cannot block.
pub fn acquired(lock: usize, site: Option<Site>, waited: bool) -> Option<Inversion> {
    let taken = Held { lock, site, at: CLOCK.fetch_add(1, Ordering::Relaxed) };
    let mut graph = GRAPH.lock().unwrap_or_else(PoisonError::into_inner);
    let graph = graph.get_or_insert_with(Graph::default);
    let held = HELD.try_with(|held| {
        let mut held = held.borrow_mut();
        held.retain(|held| graph.strays.get(&held.lock).is_none_or(|stray| *stray < held.at));
        let before = held.clone();
        held.push(taken);
        before
    });
    let held = held.ok()?;
    if !waited || held.iter().any(|other| other.lock == lock) {
        return None;
    }
    let mut found = None;
    for other in held {
        graph.edges.entry(other.lock).or_default().entry(lock).or_insert((other.site, site));
        if found.is_none() && !graph.told.contains(&(other.lock, lock)) {
            if let Some(earlier) = path(&graph.edges, lock, other.lock) {
                graph.told.insert((other.lock, lock));
                graph.told.insert((lock, other.lock));
                found = Some(Inversion { held: (other.lock, other.site), taken: (lock, site), earlier });
            }
        }
    }
    found
}

/// The calling thread has let go of the lock, whoever took it.
pub fn released(lock: usize) {
    let own = HELD.try_with(|held| {
        let mut held = held.borrow_mut();
        let at = held.iter().rposition(|other| other.lock == lock);
        at.map(|at| held.remove(at)).is_some()
    });
    if own == Ok(false) {
        let mut graph = GRAPH.lock().unwrap_or_else(PoisonError::into_inner);
        let at = CLOCK.fetch_add(1, Ordering::Relaxed);
        graph.get_or_insert_with(Graph::default).strays.insert(lock, at);
    }
}

/// The lock is gone: its address may come back as another one.
pub fn forget(lock: usize) {
    let mut graph = GRAPH.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(graph) = graph.as_mut() {
        graph.edges.remove(&lock);
        graph.strays.remove(&lock);
        for targets in graph.edges.values_mut() {
            targets.remove(&lock);
        }
        graph.told.retain(|(one, other)| *one != lock && *other != lock);
    }
}

/// The sites of the first edge of a path between two locks, if there is one.
fn path(edges: &Edges, from: usize, to: usize) -> Option<(Option<Site>, Option<Site>)> {
    let mut seen = HashSet::from([from]);
    for (first, sites) in edges.get(&from)? {
        let mut open = vec![*first];
        while let Some(at) = open.pop() {
            if at == to {
                return Some(*sites);
            }
            if seen.insert(at) {
                open.extend(edges.get(&at).into_iter().flatten().map(|(next, _)| *next));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inversion_is_told_once() {
        let take = |locks: &[usize]| {
            let told: Vec<_> = locks.iter().filter_map(|lock| acquired(*lock, None, true)).collect();
            locks.iter().for_each(|lock| released(*lock));
            told.len()
        };
        assert_eq!(take(&[11, 12, 13]), 0);
        assert_eq!(take(&[11, 13]), 0);
        assert_eq!(take(&[13, 11]), 1);
        assert_eq!(take(&[13, 11]), 0);
        forget(13);
        assert_eq!(take(&[13, 11]), 0);
    }
}
