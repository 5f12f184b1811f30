//! Lock order: which locks have been taken while which others were held, and whether ever the other way.
//!
//! A deadlock needs two threads to meet; the habit that makes it possible can be seen without that. Every
//! "took B while holding A" is an edge from A to B with both sites. An edge that closes a cycle is an
//! inversion, and is told once. Only on request ([`crate::trace::ORDER`]): it costs a look-up per acquire.

use crate::trace::Site;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
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
}

static GRAPH: Mutex<Option<Graph>> = Mutex::new(None);

thread_local! {
    /// What this thread holds, in the order of taking.
    static HELD: RefCell<Vec<(usize, Option<Site>)>> = const { RefCell::new(Vec::new()) };
}

/// The calling thread has taken the lock with this address; tells an inversion the first time.
pub fn acquired(lock: usize, site: Option<Site>) -> Option<Inversion> {
    let held = HELD.try_with(|held| {
        let mut held = held.borrow_mut();
        let before = held.clone();
        held.push((lock, site));
        before
    });
    let held = held.ok()?;
    if held.is_empty() || held.iter().any(|(other, _)| *other == lock) {
        return None;
    }
    let mut graph = GRAPH.lock().unwrap_or_else(PoisonError::into_inner);
    let graph = graph.get_or_insert_with(Graph::default);
    let mut found = None;
    for (other, other_site) in held {
        graph.edges.entry(other).or_default().entry(lock).or_insert((other_site, site));
        if found.is_none() && !graph.told.contains(&(other, lock)) {
            if let Some(earlier) = path(&graph.edges, lock, other) {
                graph.told.insert((other, lock));
                graph.told.insert((lock, other));
                found = Some(Inversion { held: (other, other_site), taken: (lock, site), earlier });
            }
        }
    }
    found
}

/// The calling thread has let go of the lock.
pub fn released(lock: usize) {
    let _ = HELD.try_with(|held| {
        let mut held = held.borrow_mut();
        if let Some(at) = held.iter().rposition(|(other, _)| *other == lock) {
            held.remove(at);
        }
    });
}

/// The lock is gone: its address may come back as another one.
pub fn forget(lock: usize) {
    let mut graph = GRAPH.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(graph) = graph.as_mut() {
        graph.edges.remove(&lock);
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
            let told: Vec<_> = locks.iter().filter_map(|lock| acquired(*lock, None)).collect();
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
