//! Diff: every path sorted into the lines of the table, in one walk over three trees. No I/O.

use std::collections::HashSet;
use std::ops::Range;

use xxhash_rust::xxh3::Xxh3;

use crate::base::Base;
use crate::entry::{Agreed, Content, Kind, Seen, equal, mirrored};
use crate::merge::Merge3;
use crate::nested::{Dir, Kid};
use crate::path;
use crate::tree::Tree;

/// The lines of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // the words are those of `Line` in `syncd/model/change.py`
pub enum Line {
    Same,
    Agreed,
    Changed,
    Gone,
    Lost,
    Edited,
    Made,
    Conflict,
    Unknown,
}

/// How many lines there are.
pub const LINES: usize = 9;

/// The lines in their order.
pub const ALL: [Line; LINES] = [
    Line::Same,
    Line::Agreed,
    Line::Changed,
    Line::Gone,
    Line::Lost,
    Line::Edited,
    Line::Made,
    Line::Conflict,
    Line::Unknown,
];

/// One path of a line with what the three sides hold there.
#[derive(Debug)]
pub struct Item {
    path: Range<usize>,
    /// What was agreed on.
    pub base: Option<Box<Agreed>>,
    /// What the source holds; something that is never mirrored counts as nothing.
    pub source: Option<Box<Seen>>,
    /// What the target holds.
    pub target: Option<Box<Seen>>,
}

/// Every path in scope, sorted into the lines of the table.
#[derive(Debug, Default)]
pub struct Diff {
    paths: Vec<u8>,
    items: [Vec<Item>; LINES],
    counts: [usize; LINES],
    bytes: [u64; LINES],
    /// Rows of GONE that nothing vouches for.
    pub unexplained: usize,
    /// Hex digest over the paths of GONE; empty when there are none.
    pub id: String,
}

impl Diff {
    /// How many paths stand in a line.
    pub fn count(&self, line: Line) -> usize {
        self.counts[line as usize]
    }

    /// Bytes of the source's files in a line (for GONE: of the baseline's target).
    pub fn bytes(&self, line: Line) -> u64 {
        self.bytes[line as usize]
    }

    /// The rows of a line in order. SAME has none.
    pub fn items(&self, line: Line) -> &[Item] {
        &self.items[line as usize]
    }

    /// The path of a row.
    pub fn path(&self, item: &Item) -> &[u8] {
        self.paths.get(item.path.clone()).unwrap_or_default()
    }
}

/// Sort every path in the scope of `source` by the table.
pub fn diff(
    base: &Base,
    source: &Tree,
    target: &Tree,
    removed: HashSet<Box<[u8]>>,
    explained: bool,
) -> Diff {
    let mut sorter = Sorter {
        base,
        source,
        target,
        removed,
        out: Diff::default(),
        gone: Xxh3::new(),
        path: Vec::new(),
    };
    let everywhere = State {
        known: true,
        vouched: explained || sorter.removed.contains(&b""[..]),
        trace: false,
    };
    match &source.scope {
        None => {
            let state = sorter.enter(everywhere, base.root.as_deref(), source.root.as_ref());
            sorter.below(
                state,
                Some(base.rows.top()),
                Some(source.entries.top()),
                Some(target.entries.top()),
            );
        }
        Some(scope) => {
            for look in scope {
                if !look.path.is_empty() {
                    sorter.place(everywhere, &look.path, look.deep);
                }
            }
        }
    }
    sorter.finish()
}

/// What is known about the directory above a path.
#[derive(Clone, Copy)]
struct State {
    /// Neither side has trouble there or above.
    known: bool,
    /// A removal was seen there or above.
    vouched: bool,
    /// The nearest directory still in the source is that of the baseline at another time.
    trace: bool,
}

struct Sorter<'a> {
    base: &'a Base,
    source: &'a Tree,
    target: &'a Tree,
    removed: HashSet<Box<[u8]>>,
    out: Diff,
    gone: Xxh3,
    path: Vec<u8>,
}

impl<'a> Sorter<'a> {
    /// The state below a directory, whose path is `self.path`, given that above it.
    fn enter(&self, above: State, base: Option<&Agreed>, source: Option<&Seen>) -> State {
        let trace = match (base, source) {
            (base, Some(seen)) if seen.kind == Kind::Dir => {
                base.is_some_and(|row| left_a_trace(row, seen))
            }
            _ if self.path.is_empty() => false,
            _ => above.trace,
        };
        State {
            trace,
            ..self.mark(above)
        }
    }

    /// The state at a path, given that above it.
    fn mark(&self, above: State) -> State {
        let trouble = |tree: &Tree| tree.has_unknown() && tree.is_unknown(&self.path);
        State {
            known: above.known && !trouble(self.source) && !trouble(self.target),
            vouched: above.vouched
                || !self.removed.is_empty() && self.removed.contains(&self.path[..]),
            trace: above.trace,
        }
    }

    /// Sort one place of a partial scan.
    fn place(&mut self, top: State, place: &[u8], deep: bool) {
        let mut state = State {
            known: self.source.knows(place) && self.target.knows(place),
            ..top
        };
        let base = self.base.rows.kid(place);
        let (source, target) = (
            self.source.entries.kid(place),
            self.target.entries.kid(place),
        );
        let theirs = source.and_then(|kid| kid.value.as_ref());
        if theirs.is_none_or(|seen| seen.kind == Kind::Other)
            || base.is_some_and(|kid| kid.below.is_some())
        {
            state.vouched |= path::above(place).any(|above| self.removed.contains(above));
            state.trace = self.trace_above(place);
        } // else nothing is missing in the source, here or below
        self.path = place.to_vec();
        self.entry(state, base, source, target, deep);
        self.path.clear();
    }

    /// Whether the nearest directory above a place that is still in the source tells of a removal.
    fn trace_above(&self, place: &[u8]) -> bool {
        let mut above = path::parent(place);
        loop {
            if !self.source.covers(above) {
                return false;
            }
            if let Some(seen) = self.source.get(above).filter(|seen| seen.kind == Kind::Dir) {
                return self
                    .base
                    .get(above)
                    .is_some_and(|row| left_a_trace(row, seen));
            }
            if above.is_empty() {
                return false;
            }
            above = path::parent(above);
        }
    }

    fn below(
        &mut self,
        state: State,
        base: Option<&'a Dir<Agreed>>,
        source: Option<&'a Dir<Seen>>,
        target: Option<&'a Dir<Seen>>,
    ) {
        for (name, base, source, target) in Merge3::new(base, source, target) {
            path::push(&mut self.path, name);
            self.entry(state, base, source, target, true);
            path::pop(&mut self.path);
        }
    }

    /// Sort the path at hand and, if `deep`, what is below it.
    fn entry(
        &mut self,
        above: State,
        base: Option<&'a Kid<Agreed>>,
        source: Option<&'a Kid<Seen>>,
        target: Option<&'a Kid<Seen>>,
        deep: bool,
    ) {
        let state = self.mark(above);
        let row = base.and_then(|kid| kid.value.as_ref());
        let theirs = source.and_then(|kid| kid.value.as_ref());
        let ours = target.and_then(|kid| kid.value.as_ref());
        self.sort(
            state,
            row,
            theirs.filter(|seen| seen.kind != Kind::Other),
            ours,
        );
        let below = (
            base.and_then(|kid| kid.below.as_deref()),
            source.and_then(|kid| kid.below.as_deref()),
            target.and_then(|kid| kid.below.as_deref()),
        );
        if deep && (below.0.is_some() || below.1.is_some() || below.2.is_some()) {
            let state = self.enter(above, row, theirs);
            self.below(state, below.0, below.1, below.2);
        }
    }

    /// Whether the directory at hand holds something unknown: it can not be removed, and its rows must not go.
    fn holds_unknown(&self, base: Option<&Agreed>) -> bool {
        let below = |tree: &Tree| tree.has_unknown() && tree.unknown_below(&self.path);
        base.is_some_and(|row| row.kind == Kind::Dir) && (below(self.source) || below(self.target))
    }

    fn sort(
        &mut self,
        state: State,
        base: Option<&Agreed>,
        source: Option<&Seen>,
        target: Option<&Seen>,
    ) {
        let nothing = base.is_none() && source.is_none() && target.is_none();
        let line = match state.known {
            true if nothing => return,
            true => match line_of(base, source, target) {
                Line::Gone if self.holds_unknown(base) => Line::Unknown,
                line => line,
            },
            // Names on the way to something deeper are no paths of their own.
            false
                if nothing
                    && !self.source.is_unknown(&self.path)
                    && !self.target.is_unknown(&self.path) =>
            {
                return;
            }
            false => Line::Unknown,
        };
        let at = line as usize;
        self.out.counts[at] += 1;
        let size = match line {
            Line::Gone => base
                .filter(|row| row.kind == Kind::File)
                .map(|row| row.target().size),
            _ => source.and_then(Seen::file_size),
        };
        self.out.bytes[at] = self.out.bytes[at].saturating_add(size.unwrap_or(0));
        if line == Line::Same {
            return;
        }
        if line == Line::Gone {
            self.gone.update(&self.path);
            self.gone.update(b"\0");
            self.out.unexplained += usize::from(!state.vouched && !state.trace);
        }
        let start = self.out.paths.len();
        self.out.paths.extend_from_slice(&self.path);
        self.out.items[at].push(Item {
            path: start..self.out.paths.len(),
            base: base.cloned().map(Box::new),
            source: source.cloned().map(Box::new),
            target: target.cloned().map(Box::new),
        });
    }

    /// Add the troubles at paths where no side has anything, which the walk did not meet.
    fn finish(mut self) -> Diff {
        let met: HashSet<&[u8]> = self
            .out
            .items(Line::Unknown)
            .iter()
            .map(|item| self.out.path(item))
            .collect();
        let mut missed: Vec<Box<[u8]>> = Vec::new();
        for trouble in self.source.troubles.iter().chain(&self.target.troubles) {
            let path = &trouble.path;
            if !path.is_empty() && !met.contains(&path[..]) && self.source.covers(path) {
                missed.push(path.clone());
            }
        }
        drop(met);
        missed.sort_by(|a, b| path::order(a, b));
        missed.dedup();
        if !missed.is_empty() {
            for path in missed {
                let start = self.out.paths.len();
                self.out.paths.extend_from_slice(&path);
                let path = start..self.out.paths.len();
                self.out.items[Line::Unknown as usize].push(Item {
                    path,
                    base: None,
                    source: None,
                    target: None,
                });
                self.out.counts[Line::Unknown as usize] += 1;
            }
            let paths = std::mem::take(&mut self.out.paths);
            let of = |item: &Item| paths.get(item.path.clone()).unwrap_or_default();
            self.out.items[Line::Unknown as usize].sort_by(|a, b| path::order(of(a), of(b)));
            self.out.paths = paths;
        }
        if self.out.count(Line::Gone) > 0 {
            self.out.id = format!("{:032x}", self.gone.digest128());
        }
        self.out
    }
}

/// Whether a directory of the source is that of the baseline at another time: something was removed,
/// or made, in it.
fn left_a_trace(base: &Agreed, source: &Seen) -> bool {
    let then = base.source();
    base.kind == Kind::Dir && then.inode == source.print.inode && then.mtime != source.print.mtime
}

/// The table.
fn line_of(base: Option<&Agreed>, source: Option<&Seen>, target: Option<&Seen>) -> Line {
    let (b, s, t) = (
        base.map(Content::from),
        source.map(Content::from),
        target.map(Content::from),
    );
    if equal(s, t) {
        return match (base, source, target) {
            (Some(row), Some(source), Some(target))
                if equal(s, b) && nothing_to_learn(row, source, target) =>
            {
                Line::Same
            }
            _ => Line::Agreed,
        };
    }
    if equal(t, b) {
        return if s.is_some() {
            Line::Changed
        } else {
            Line::Gone
        };
    }
    if equal(s, b) {
        return match (b, t) {
            (None, _) => Line::Made,
            (Some(_), Some(_)) => Line::Edited,
            (Some(_), None) => Line::Lost,
        };
    }
    Line::Conflict
}

/// Whether the baseline has both fingerprints, the mode and the mtime.
fn nothing_to_learn(base: &Agreed, source: &Seen, target: &Seen) -> bool {
    if base.source() != source.print || mirrored(source.print.mode) != u32::from(base.mode) {
        return false;
    }
    if base.kind == Kind::Dir {
        return mirrored(target.print.mode) == u32::from(base.mode);
    }
    target.print == base.target() && source.print.mtime == base.mtime
}
