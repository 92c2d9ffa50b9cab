//! What one scan saw of one root.

use std::collections::HashSet;

use crate::entry::{Kind, Seen, Side};
use crate::error::Trouble;
use crate::nested::{Dir, Nested};
use crate::path;

/// One place to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Where.
    pub path: Box<[u8]>,
    /// Whether everything below is taken in.
    pub deep: bool,
}

/// What one scan saw of one root.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Whose it is.
    pub side: Side,
    /// The entries.
    pub entries: Nested<Seen>,
    /// The root itself, if it was looked at.
    pub root: Option<Seen>,
    /// Each makes its path and all below it unknown. In order.
    pub troubles: Vec<Trouble>,
    /// What was looked at, in order; None = everything.
    pub scope: Option<Vec<Look>>,
    /// FIFOs, sockets, devices.
    pub others: Vec<Box<[u8]>>,
    /// Sum of the sizes of its files.
    pub bytes: u64,
    unknown: HashSet<Box<[u8]>>,
}

impl Tree {
    /// A tree that saw nothing yet.
    pub fn new(side: Side, scope: Option<Vec<Look>>) -> Self {
        Tree {
            side,
            entries: Nested::default(),
            root: None,
            troubles: Vec::new(),
            scope,
            others: Vec::new(),
            bytes: 0,
            unknown: HashSet::new(),
        }
    }

    /// Put things in order after the last trouble was added.
    pub fn finish(&mut self) {
        self.troubles.sort_by(|a, b| path::order(&a.path, &b.path));
        self.troubles
            .dedup_by(|later, first| later.path == first.path);
        self.unknown = self
            .troubles
            .iter()
            .map(|trouble| trouble.path.clone())
            .collect();
        self.others.sort_by(|a, b| path::order(a, b));
        self.others.dedup();
    }

    /// The entry at a path; the root's if it was looked at.
    pub fn get(&self, path: &[u8]) -> Option<&Seen> {
        if path.is_empty() {
            self.root.as_ref()
        } else {
            self.entries.get(path)
        }
    }

    /// Whether anything at all is unknown.
    pub fn has_unknown(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// Whether trouble stands at just this path.
    pub fn is_unknown(&self, path: &[u8]) -> bool {
        self.unknown.contains(path)
    }

    /// Whether neither a path nor a directory above it is unknown.
    pub fn knows(&self, path: &[u8]) -> bool {
        self.unknown.is_empty()
            || !(self.is_unknown(path)
                || self.is_unknown(b"")
                || path::above(path).any(|above| self.is_unknown(above)))
    }

    /// Whether something below a path is unknown.
    pub fn unknown_below(&self, path: &[u8]) -> bool {
        let upto = |trouble: &Trouble| path::order(&trouble.path, path).is_le();
        let next = self.troubles.partition_point(upto);
        let next = self.troubles.get(next);
        next.is_some_and(|trouble| path::is_within(&trouble.path, path))
    }

    /// The look at just this path.
    pub fn look(&self, path: &[u8]) -> Option<&Look> {
        let scope = self.scope.as_deref()?;
        let at = scope
            .binary_search_by(|look| path::order(&look.path, path))
            .ok()?;
        scope.get(at)
    }

    /// Whether a path is in the scope.
    pub fn covers(&self, path: &[u8]) -> bool {
        let deep = |above: &[u8]| self.look(above).is_some_and(|look| look.deep);
        self.scope.is_none()
            || self.look(path).is_some()
            || deep(b"")
            || path::above(path).any(deep)
    }

    /// Paths of this and `other` whose fingerprints or presence differ, in order. What either does
    /// not know, or did not look at, is left out.
    pub fn differing(&self, other: &Tree) -> Vec<Box<[u8]>> {
        let mut found = Vec::new();
        let mut path = Vec::new();
        self.compare(
            other,
            &mut path,
            Some(self.entries.top()),
            Some(other.entries.top()),
            &mut found,
        );
        found
    }

    fn compare(
        &self,
        other: &Tree,
        path: &mut Vec<u8>,
        mine: Option<&Dir<Seen>>,
        theirs: Option<&Dir<Seen>>,
        found: &mut Vec<Box<[u8]>>,
    ) {
        if self.is_unknown(path) || other.is_unknown(path) {
            return;
        }
        for (name, mine, theirs) in crate::merge::Merge2::new(mine, theirs) {
            path::push(path, name);
            let prints = [mine, theirs].map(|kid| {
                kid.and_then(|kid| kid.value.as_ref())
                    .map(|seen| seen.print)
            });
            let unknown = self.is_unknown(path) || other.is_unknown(path);
            if prints[0] != prints[1] && !unknown && self.covers(path) && other.covers(path) {
                found.push(path.as_slice().into());
            }
            let below = [mine, theirs].map(|kid| kid.and_then(|kid| kid.below.as_deref()));
            if below[0].is_some() || below[1].is_some() {
                self.compare(other, path, below[0], below[1], found);
            }
            path::pop(path);
        }
    }
}

/// Add up what a value contributes to the sums of a tree.
pub fn tally(seen: &Seen, path: &[u8], others: &mut Vec<Box<[u8]>>, bytes: &mut u64) {
    match seen.kind {
        Kind::File => *bytes = bytes.saturating_add(seen.print.size),
        Kind::Other => others.push(path.into()),
        Kind::Dir | Kind::Link => {}
    }
}
