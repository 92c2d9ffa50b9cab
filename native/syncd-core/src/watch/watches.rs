//! Which watch stands for which directory. Compact: each knows its name and the watch above it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::path;

/// Above a directory that was moved to where nobody knows yet.
const NOWHERE: i32 = -1;

/// No watch: the kernel counts from 1.
const NONE: i32 = 0;

/// The watched directories of one source.
#[derive(Debug, Default)]
pub struct Watches {
    nodes: HashMap<i32, Node>,
    names: HashMap<u64, i32>, // by the hash of the watch above and the name
    hasher: RandomState,
    adrift: Vec<i32>, // taken from their places since somebody asked
}

#[derive(Debug)]
struct Node {
    above: i32, // NONE: it is the root
    first: i32, // of the directories in it, a list linked both ways
    next: i32,
    before: i32,
    seen: u32, // the walk that met it last
    name: Box<[u8]>,
}

impl Watches {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether `wd` is one of them.
    pub fn has(&self, wd: i32) -> bool {
        self.nodes.contains_key(&wd)
    }

    /// All of them, in no order.
    pub fn all(&self) -> impl Iterator<Item = i32> {
        self.nodes.keys().copied()
    }

    /// The watch of the directory `name` in the directory of `above`.
    pub fn child(&self, above: i32, name: &[u8]) -> Option<i32> {
        let wd = *self.names.get(&self.key(above, name))?;
        let node = self.nodes.get(&wd)?;
        (node.above == above && *node.name == *name).then_some(wd)
    }

    /// Whether the place of `wd` is unknown because it was moved away.
    pub fn is_nowhere(&self, wd: i32) -> bool {
        self.nodes
            .get(&wd)
            .is_some_and(|node| node.above == NOWHERE)
    }

    /// Those taken from their places since the last call; some have another place by now, or are gone.
    pub fn adrift(&mut self) -> Vec<i32> {
        std::mem::take(&mut self.adrift)
    }

    /// The walk that met `wd` last.
    pub fn seen(&self, wd: i32) -> Option<u32> {
        self.nodes.get(&wd).map(|node| node.seen)
    }

    /// Whether `wd` stands for `name` in `above`; notes that walk `seen` met it there.
    pub fn meet(&mut self, wd: i32, above: i32, name: &[u8], seen: u32) -> bool {
        match self.nodes.get_mut(&wd) {
            Some(node) if node.above == above && *node.name == *name => {
                node.seen = seen;
                true
            }
            _ => false,
        }
    }

    /// The path of `wd`, written into `out`. False: it has none.
    pub fn path(&self, wd: i32, out: &mut Vec<u8>) -> bool {
        out.clear();
        let mut steps: Vec<&[u8]> = Vec::new();
        let mut at = wd;
        while at != NONE {
            match self.nodes.get(&at) {
                Some(node) if steps.len() <= self.nodes.len() => {
                    steps.push(&node.name);
                    at = node.above;
                }
                _ => return false,
            }
        }
        steps.iter().rev().for_each(|name| path::push(out, name));
        true
    }

    /// Put `wd` at a name, wherever it stood before, with all below it.
    ///
    /// False: `above` is not known, or lies below `wd` itself. What stood at the name is nowhere then.
    pub fn put(&mut self, wd: i32, above: i32, name: &[u8], seen: u32) -> bool {
        let mut up = above;
        while up != NONE {
            match self.nodes.get(&up) {
                Some(node) if up != wd => up = node.above,
                _ => return false,
            }
        }
        if let Some(other) = self.child(above, name).filter(|&other| other != wd) {
            self.detach(other);
        }
        if self.nodes.contains_key(&wd) {
            self.detach(wd);
        }
        let next = match self.nodes.get_mut(&above) {
            Some(node) => std::mem::replace(&mut node.first, wd),
            None => NONE,
        };
        if let Some(node) = self.nodes.get_mut(&next) {
            node.before = wd;
        }
        let first = self.nodes.get(&wd).map_or(NONE, |node| node.first);
        let node = Node {
            above,
            first,
            next,
            before: NONE,
            seen,
            name: name.into(),
        };
        self.nodes.insert(wd, node);
        self.names.insert(self.key(above, name), wd);
        true
    }

    /// Take `wd` from its place; it is nowhere then, and so is all below it.
    pub fn detach(&mut self, wd: i32) {
        let Some(node) = self.nodes.get_mut(&wd) else {
            return;
        };
        self.adrift.push(wd);
        let above = std::mem::replace(&mut node.above, NOWHERE);
        let next = std::mem::replace(&mut node.next, NONE);
        let before = std::mem::replace(&mut node.before, NONE);
        let key = self.hasher.hash_one((above, &*node.name));
        if self.names.get(&key) == Some(&wd) {
            self.names.remove(&key);
        }
        if let Some(node) = self.nodes.get_mut(&next) {
            node.before = before;
        }
        if let Some(node) = self.nodes.get_mut(&before) {
            node.next = next;
        } else if let Some(node) = self.nodes.get_mut(&above) {
            if node.first == wd {
                node.first = next;
            }
        }
    }

    /// Forget `wd`. What lies below it is nowhere then.
    pub fn remove(&mut self, wd: i32) {
        self.detach(wd);
        if let Some(node) = self.nodes.remove(&wd) {
            let mut below = node.first;
            while below != NONE {
                let next = self.nodes.get(&below).map_or(NONE, |node| node.next);
                self.detach(below);
                below = next;
            }
        }
    }

    /// `wd` and all below it, each after what is above it.
    pub fn subtree(&self, wd: i32) -> Vec<i32> {
        let mut found = Vec::new();
        let mut waiting = vec![wd];
        while let Some(wd) = waiting.pop() {
            let Some(node) = self.nodes.get(&wd) else {
                continue;
            };
            found.push(wd);
            let mut below = node.first;
            while let Some(node) = self.nodes.get(&below) {
                waiting.push(below);
                below = node.next;
            }
        }
        found
    }

    fn key(&self, above: i32, name: &[u8]) -> u64 {
        self.hasher.hash_one((above, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(watches: &Watches, wd: i32) -> Option<String> {
        let mut out = Vec::new();
        watches
            .path(wd, &mut out)
            .then(|| String::from_utf8(out).unwrap())
    }

    fn tree() -> Watches {
        let mut watches = Watches::default();
        for (wd, above, name) in [
            (1, 0, ""),
            (2, 1, "a"),
            (3, 2, "b"),
            (4, 3, "c"),
            (5, 1, "d"),
            (6, 2, "e"),
        ] {
            assert!(watches.put(wd, above, name.as_bytes(), 0));
        }
        watches
    }

    #[test]
    fn a_move_takes_all_along() {
        let mut watches = tree();
        assert_eq!(path(&watches, 4).as_deref(), Some("a/b/c"));
        watches.detach(3);
        assert!(watches.is_nowhere(3));
        assert_eq!((path(&watches, 4), watches.child(2, b"b")), (None, None));
        assert!(watches.put(3, 5, b"x", 1));
        assert_eq!(path(&watches, 4).as_deref(), Some("d/x/c"));
        assert_eq!(watches.child(5, b"x"), Some(3));
        assert!(watches.put(2, 5, b"a", 1)); // without being taken away first
        assert_eq!(path(&watches, 6).as_deref(), Some("d/a/e"));
        assert_eq!(watches.child(1, b"a"), None);
    }

    #[test]
    fn no_directory_comes_below_itself() {
        let mut watches = tree();
        assert!(!watches.put(2, 4, b"x", 1));
        assert!(!watches.put(7, 9, b"x", 1));
        assert_eq!(path(&watches, 4).as_deref(), Some("a/b/c"));
    }

    #[test]
    fn one_name_one_watch() {
        let mut watches = tree();
        assert!(watches.put(9, 1, b"a", 1));
        assert_eq!(watches.child(1, b"a"), Some(9));
        assert!(watches.is_nowhere(2));
        watches.remove(2);
        assert_eq!(
            (watches.has(2), watches.is_nowhere(3), watches.is_nowhere(6)),
            (false, true, true)
        );
        assert_eq!(watches.len(), 6);
    }

    #[test]
    fn lists_stay_whole() {
        let mut watches = Watches::default();
        assert!(watches.put(1, 0, b"", 0));
        for wd in 2..50 {
            assert!(watches.put(wd, 1, &[b'n', wd as u8], 0));
        }
        for wd in (2..50).filter(|wd| wd % 3 == 0) {
            watches.remove(wd);
        }
        let mut found = watches.subtree(1);
        found.sort_unstable();
        let want: Vec<i32> = (1..50).filter(|wd| *wd == 1 || wd % 3 != 0).collect();
        assert_eq!(found, want);
    }
}
