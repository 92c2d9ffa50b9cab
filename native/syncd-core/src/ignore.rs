//! Ignore rules, read exactly as git 2.39 reads them; the twin of `kernel/pure/rules.py`, which
//! says what the grammar is.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{FileType, Mode, OFlags};

use crate::exclude::Excluder;
use crate::glob::Shape;
use crate::path;

/// A larger rule file is not read at all.
pub const MAX_SIZE: usize = 1 << 20;

/// Sheets of more rules than this are indexed.
const INDEXED: usize = 8;

/// Where a deciding rule stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The n-th of the sources given as `first`.
    First(usize),
    /// The rule file at this path inside the source.
    Nested(Vec<u8>),
    /// The n-th of the sources given as `last`.
    Last(usize),
    /// No rule: an overlay.
    Overlay,
}

/// Why a path is ignored or not. `path` is the path itself or the ignored directory above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the rule ignores (and does not take back).
    pub ignored: bool,
    /// What the rule matched.
    pub path: Vec<u8>,
    /// Where the rule stands.
    pub origin: Origin,
    /// Its line, counted from 1; 0 for an overlay.
    pub line: usize,
    /// Its text as git prints it.
    pub pattern: Vec<u8>,
}

/// Compiled rules of one source.
#[derive(Debug)]
pub struct Ignore {
    id: u64,                // tells instances apart in the threads' caches
    given: [Arc<Sheet>; 2], // the last ones, the first ones
    nested: Vec<Vec<u8>>,
    overlays: BTreeSet<Vec<u8>>,
    learnt: RwLock<HashMap<Vec<u8>, Found>>,
    entered: RwLock<HashSet<u64>>, // hashes of directories
    hasher: RandomState,
    lessons: AtomicU64, // counts what was learnt: older chains are stale
}

/// The rule files of one directory, one place for each of `Ignore::nested`.
type Found = Vec<Option<Arc<Sheet>>>;

/// The sheets that speak of names in one directory, the strongest first.
#[derive(Debug, Default)]
struct Chain {
    id: u64,
    lessons: u64,
    dir: Vec<u8>,
    sheets: Vec<Arc<Sheet>>,
}

thread_local! {
    /// Walks ask about name after name of one directory.
    static CHAIN: RefCell<Chain> = RefCell::default();
}

impl Ignore {
    /// Compile rules; the last match wins in the order of the arguments. Paths of `overlays` are exact.
    pub fn new<'a>(
        first: impl IntoIterator<Item = &'a [u8]>,
        nested: Vec<Vec<u8>>,
        last: impl IntoIterator<Item = &'a [u8]>,
        overlays: BTreeSet<Vec<u8>>,
    ) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let given = |texts: &mut dyn Iterator<Item = &'a [u8]>, origin: fn(usize) -> Origin| {
            let patterns = texts.enumerate().flat_map(|(n, text)| parse(text, n));
            Arc::new(Sheet::new(b"", Place::Given(origin), patterns.collect()))
        };
        Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            given: [
                given(&mut last.into_iter(), Origin::Last),
                given(&mut first.into_iter(), Origin::First),
            ],
            nested,
            overlays,
            learnt: RwLock::default(),
            entered: RwLock::default(),
            hasher: RandomState::new(),
            lessons: AtomicU64::new(0),
        }
    }

    /// The deciding rule, or `None` if no rule speaks of the path or ignores a directory above it.
    pub fn explain(&self, path: &[u8], is_dir: bool) -> Option<Verdict> {
        steps(path, is_dir).find_map(|(step, is_dir)| {
            if self.overlays.contains(step) {
                return Some(Verdict {
                    ignored: true,
                    path: step.to_vec(),
                    origin: Origin::Overlay,
                    line: 0,
                    pattern: step.to_vec(),
                });
            }
            self.deciding(step, is_dir, |found| {
                let (sheet, pattern) = found?;
                (!pattern.negated || step.len() == path.len()).then(|| Verdict {
                    ignored: !pattern.negated,
                    path: step.to_vec(),
                    origin: match &sheet.place {
                        Place::Given(origin) => origin(pattern.source),
                        Place::Nested(path) => Origin::Nested(path.clone()),
                    },
                    line: pattern.line,
                    pattern: pattern.shown.to_vec(),
                })
            })
        })
    }

    /// Show `then` the last rule that matches `path`.
    fn deciding<R>(
        &self,
        path: &[u8],
        is_dir: bool,
        then: impl FnOnce(Option<(&Sheet, &Pattern)>) -> R,
    ) -> R {
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
        let lessons = self.lessons.load(Ordering::Acquire);
        if lessons == 0 {
            return then(last_match(&self.given, path, name, is_dir));
        }
        let dir = &path[..path.len().saturating_sub(name.len() + 1)];
        CHAIN.with_borrow_mut(|chain| {
            if (chain.id, chain.lessons, &*chain.dir) != (self.id, lessons, dir) {
                *chain = self.chain(dir, lessons);
            }
            then(last_match(&chain.sheets, path, name, is_dir))
        })
    }

    fn chain(&self, dir: &[u8], lessons: u64) -> Chain {
        let learnt = self.learnt.read().unwrap_or_else(PoisonError::into_inner);
        let mut above: Vec<&Found> = steps(dir, true)
            .filter_map(|(step, _)| learnt.get(step))
            .collect();
        above.reverse();
        above.extend(learnt.get(&b""[..]));
        let nested = (0..self.nested.len()).rev().flat_map(|place| {
            above
                .iter()
                .filter_map(move |found| found.get(place)?.as_ref())
        });
        let [last, first] = &self.given;
        let all = std::iter::once(last).chain(nested).chain([first]);
        Chain {
            id: self.id,
            lessons,
            dir: dir.to_vec(),
            sheets: all.filter(|s| !s.patterns.is_empty()).cloned().collect(),
        }
    }

    /// The directories whose rule files were read.
    pub fn taught(&self) -> Vec<Vec<u8>> {
        let learnt = self.learnt.read().unwrap_or_else(PoisonError::into_inner);
        learnt.keys().cloned().collect()
    }

    fn knows(&self, dir: &[u8], place: usize) -> bool {
        let learnt = self.learnt.read().unwrap_or_else(PoisonError::into_inner);
        learnt
            .get(dir)
            .is_some_and(|found| matches!(found.get(place), Some(Some(_))))
    }

    fn learn(&self, dir: &[u8], place: usize, sheet: Sheet) {
        let mut learnt = self.learnt.write().unwrap_or_else(PoisonError::into_inner);
        let found = learnt
            .entry(dir.to_vec())
            .or_insert_with(|| vec![None; self.nested.len()]);
        if let Some(slot) = found.get_mut(place) {
            slot.get_or_insert_with(|| Arc::new(sheet));
        }
        self.lessons.fetch_add(1, Ordering::Release);
    }
}

impl Excluder for Ignore {
    fn teaches(&self, path: &[u8]) -> bool {
        let (above, name) = path::split(path);
        self.nested.iter().any(|nested| **nested == *name)
            && (above.is_empty() || !self.excluded(above, true))
    }

    /// The first reading of a rule file holds. One that cannot be read, is larger than 1 MiB or is no
    /// regular file has no rules.
    fn enter(&self, dir: &[u8], dirfd: BorrowedFd<'_>, names: &[&[u8]]) {
        for (place, name) in self.nested.iter().enumerate() {
            if !names.contains(&&**name) || self.knows(dir, place) {
                continue;
            }
            let Some(text) = read(dirfd, name) else {
                continue;
            };
            let mut path = dir.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            self.learn(
                dir,
                place,
                Sheet::new(dir, Place::Nested(path), parse(&text, 0).collect()),
            );
        }
        if !self.nested.is_empty() {
            let mut entered = self.entered.write().unwrap_or_else(PoisonError::into_inner);
            entered.insert(self.hasher.hash_one(dir));
        }
    }

    fn entered(&self, dir: &[u8]) -> bool {
        let entered = self.entered.read().unwrap_or_else(PoisonError::into_inner);
        self.nested.is_empty() || entered.contains(&self.hasher.hash_one(dir))
    }

    fn excluded_child(&self, path: &[u8], is_dir: bool) -> bool {
        if !self.overlays.is_empty() && self.overlays.contains(path) {
            return true;
        }
        self.deciding(path, is_dir, |found| {
            found.is_some_and(|(_, pattern)| !pattern.negated)
        })
    }

    fn excluded(&self, path: &[u8], is_dir: bool) -> bool {
        steps(path, is_dir).any(|(step, is_dir)| self.excluded_child(step, is_dir))
    }

    fn overlay_within(&self, path: &[u8]) -> bool {
        self.overlays.iter().any(|overlay| {
            path.is_empty()
                || overlay
                    .strip_prefix(path)
                    .is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
        })
    }
}

/// What the first of `sheets` that speaks of `path` says.
fn last_match<'a>(
    sheets: &'a [Arc<Sheet>],
    path: &[u8],
    name: &[u8],
    is_dir: bool,
) -> Option<(&'a Sheet, &'a Pattern)> {
    sheets.iter().find_map(|sheet| {
        let pattern = sheet.last_match(path, name, is_dir)?;
        Some((&**sheet, pattern))
    })
}

/// The directories above `path` from the top, then `path`, each with whether it is a directory.
fn steps(path: &[u8], is_dir: bool) -> impl Iterator<Item = (&[u8], bool)> {
    let ends = path.iter().enumerate().filter(|&(_, &b)| b == b'/');
    let above = ends.map(move |(end, _)| (&path[..end], true));
    above.chain((!path.is_empty()).then_some((path, is_dir)))
}

fn read(dir: BorrowedFd<'_>, name: &[u8]) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty()).ok()?;
    let state = rustix::fs::fstat(&file).ok()?;
    let size = usize::try_from(state.st_size).ok()?;
    if FileType::from_raw_mode(state.st_mode) != FileType::RegularFile || size > MAX_SIZE {
        return None;
    }
    let mut text = Vec::with_capacity(size + 1);
    while text.len() <= MAX_SIZE {
        text.reserve(1);
        match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut text)) {
            Ok(0) => return Some(text),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    None
}

/// Where the rules of a sheet come from.
#[derive(Debug)]
enum Place {
    Given(fn(usize) -> Origin),
    Nested(Vec<u8>),
}

/// Rules that are relative to one directory.
#[derive(Debug)]
struct Sheet {
    skip: usize, // length of the directory with its slash
    place: Place,
    patterns: Vec<Pattern>,
    index: Option<Box<Index>>,
}

/// Which patterns can match a name that ends in a byte, the last pattern first.
#[derive(Debug)]
struct Index {
    starts: [u32; 257],
    patterns: Vec<u32>,
}

impl Sheet {
    fn new(dir: &[u8], place: Place, patterns: Vec<Pattern>) -> Self {
        Self {
            skip: if dir.is_empty() { 0 } else { dir.len() + 1 },
            place,
            index: (patterns.len() > INDEXED).then(|| Box::new(Index::new(&patterns))),
            patterns,
        }
    }

    /// The last pattern that matches `path`, which lies below the directory and ends in `name`.
    fn last_match(&self, path: &[u8], name: &[u8], is_dir: bool) -> Option<&Pattern> {
        let inner = path.get(self.skip..).unwrap_or_default();
        let matches = |pattern: &&Pattern| {
            let text = if pattern.by_name { name } else { inner };
            (is_dir || !pattern.only_dirs) && pattern.shape.matches(text)
        };
        match &self.index {
            None => self.patterns.iter().rev().find(matches),
            Some(index) => index
                .ending_in(*path.last()?)
                .filter_map(|at| self.patterns.get(at as usize))
                .find(matches),
        }
    }
}

impl Index {
    fn new(patterns: &[Pattern]) -> Self {
        let mut index = Self {
            starts: [0; 257],
            patterns: Vec::new(),
        };
        for byte in 0..=255_u8 {
            let ending = (0..patterns.len())
                .rev()
                .filter(|&at| patterns[at].shape.may_end_in(byte));
            let ending = ending.map(|at| u32::try_from(at).unwrap_or(u32::MAX));
            index.patterns.extend(ending);
            index.starts[usize::from(byte) + 1] =
                u32::try_from(index.patterns.len()).unwrap_or(u32::MAX);
        }
        index
    }

    fn ending_in(&self, byte: u8) -> impl Iterator<Item = u32> {
        let byte = usize::from(byte);
        let range = self.starts[byte] as usize..self.starts[byte + 1] as usize;
        self.patterns.get(range).unwrap_or_default().iter().copied()
    }
}

/// One rule.
#[derive(Debug)]
struct Pattern {
    source: usize,
    line: usize,
    shown: Box<[u8]>,
    negated: bool,
    only_dirs: bool,
    by_name: bool,
    shape: Shape,
}

/// The rules of a text, without those that can never match anything.
fn parse(text: &[u8], source: usize) -> impl Iterator<Item = Pattern> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let lines = text.split(|&b| b == b'\n').enumerate();
    lines.filter_map(move |(number, line)| {
        if matches!(line.first(), None | Some(b'#')) {
            return None;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = line.split(|&b| b == 0).next().unwrap_or_default();
        Pattern::of(trim(line), source, number + 1)
    })
}

/// `line` without its trailing spaces; a backslash keeps the byte after it.
fn trim(line: &[u8]) -> &[u8] {
    let (mut end, mut at) = (0, 0);
    while let Some(&byte) = line.get(at) {
        if byte == b'\\' {
            at += 1;
            if at == line.len() {
                return line; // git leaves all as it is before a lone backslash at the end
            }
            end = at + 1;
        } else if byte != b' ' {
            end = at + 1;
        }
        at += 1;
    }
    &line[..end]
}

impl Pattern {
    /// The rule of one trimmed line; `None` if it can never match.
    fn of(shown: &[u8], source: usize, line: usize) -> Option<Self> {
        let (negated, glob) = strip(shown, |glob| glob.strip_prefix(b"!"));
        let (only_dirs, glob) = strip(glob, |glob| glob.strip_suffix(b"/"));
        let mut by_name = !glob.contains(&b'/');
        let mut glob = glob.strip_prefix(b"/").unwrap_or(glob);
        if let Some(name @ [_, ..]) = glob.strip_prefix(b"**/") {
            if !name.contains(&b'/') {
                (by_name, glob) = (true, name); // the same, and quicker
            }
        }
        if glob.is_empty() {
            return None;
        }
        Some(Self {
            source,
            line,
            shown: shown.into(),
            negated,
            only_dirs,
            by_name,
            shape: Shape::of(glob, by_name)?,
        })
    }
}

fn strip(text: &[u8], cut: impl Fn(&[u8]) -> Option<&[u8]>) -> (bool, &[u8]) {
    cut(text).map_or((false, text), |rest| (true, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_finds_what_a_search_finds() {
        let lines = "*.o\n!a.o\nfoo*\n/bar\nx/*\n*~\n.#*\n[ab]\nbuild/\n**/deep\n!keep.o\n";
        let ignore =
            |text: &'static str| Ignore::new([text.as_bytes()], vec![], [], BTreeSet::new());
        let whole = ignore(lines);
        let single: Vec<Ignore> = lines.lines().map(ignore).collect();
        for path in [
            "b.o", "a.o", "foo", "bar", "q/bar", "x/y", "x/y/z", "t~", ".#q", "b", "build",
            "p/deep", "keep.o",
        ] {
            let found = whole
                .explain(path.as_bytes(), true)
                .map(|verdict| verdict.line);
            let last = single
                .iter()
                .rposition(|one| one.explain(path.as_bytes(), true).is_some());
            assert_eq!(found, last.map(|at| at + 1), "{path}");
        }
    }
}
