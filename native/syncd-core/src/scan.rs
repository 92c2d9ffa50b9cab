//! Scan: what stands below a root, or at some places of it.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::base::Base;
use crate::bulk::{self, Group};
use crate::control::Control;
use crate::digest::spread;
use crate::dirs::{Reached, Root, THROUGH, open_below, stat_at, stat_fd};
use crate::entry::{Kind, Meta, Seen, Side};
use crate::error::{Error, Result, means_absent};
use crate::exclude::Excluder;
use crate::look::{RECENT, Visitor, Ways};
use crate::path;
use crate::tree::{Look, Tree, tally};
use crate::walk::{blame, names, walk};

/// Read entries below `root`: everything, or what a scope names. See the contract.
pub fn scan(
    root: &Root,
    rules: &dyn Excluder,
    side: Side,
    known: &Base,
    scope: Option<&[Look]>,
    control: &Control,
    force: bool,
) -> Result<Tree> {
    let ways = Ways {
        root,
        rules,
        side,
        control,
        force,
        visitor: None,
        doubtful: match (side, scope) {
            (Side::Source, Some(_)) => now() - RECENT,
            _ => i64::MAX,
        },
    };
    let mut scan = Scan::new(ways, known);
    match scope {
        Some(scope) if !scope.iter().any(|look| look.deep && look.path.is_empty()) => {
            let (groups, left) = bulk::groups(ways, known, scope);
            let places = match side {
                Side::Source => scan.places(&groups, &left)?,
                Side::Target => in_order(scope),
            };
            let looks = without_repetition(places);
            match side {
                Side::Source => scan.look_at(&looks, groups)?,
                Side::Target => scan.look_at_all(&looks)?,
            }
            scan.tree.scope = Some(looks);
        }
        _ => scan.everything()?,
    }
    scan.end()
}

/// Read everything below the root of a source, and have a visitor go along.
pub fn scan_visited(
    root: &Root,
    rules: &dyn Excluder,
    known: &Base,
    control: &Control,
    force: bool,
    visitor: &dyn Visitor,
) -> Result<Tree> {
    let ways = Ways {
        root,
        rules,
        side: Side::Source,
        control,
        force,
        visitor: Some(visitor),
        doubtful: i64::MAX,
    };
    let mut scan = Scan::new(ways, known);
    scan.everything()?;
    scan.end()
}

type Places = Vec<(Vec<u8>, bool)>;

/// A path that sorts as paths do.
#[derive(PartialEq, Eq)]
struct Key(Vec<u8>);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        path::order(&self.0, &other.0)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Places in order, each once.
fn gather(looks: impl Iterator<Item = (Vec<u8>, bool)>) -> Places {
    let mut places = BTreeMap::<Key, bool>::new();
    for (path, deep) in looks {
        *places.entry(Key(path)).or_default() |= deep;
    }
    places
        .into_iter()
        .map(|(Key(path), deep)| (path, deep))
        .collect()
}

/// The same of a scope, which is most often that of the other side's tree and in order already.
fn in_order(scope: &[Look]) -> Places {
    let places = scope.iter().map(|look| (look.path.to_vec(), look.deep));
    if scope.is_sorted_by(|a, b| path::order(&a.path, &b.path).is_lt()) {
        places.collect()
    } else {
        gather(places)
    }
}

/// The places in order, without those that a deep one takes in.
fn without_repetition(places: Places) -> Vec<Look> {
    let mut looks: Vec<Look> = Vec::with_capacity(places.len());
    let mut taken: Option<Vec<u8>> = None;
    for (path, deep) in places {
        if taken
            .as_ref()
            .is_some_and(|top| path::is_within(&path, top))
        {
            continue;
        }
        if deep {
            taken = Some(path.clone());
        }
        looks.push(Look {
            path: path.into(),
            deep,
        });
    }
    looks
}

struct Scan<'a> {
    ways: Ways<'a>,
    known: &'a Base,
    tree: Tree,
    reached: Reached<'a>,
}

impl<'a> Scan<'a> {
    fn new(ways: Ways<'a>, known: &'a Base) -> Self {
        Scan {
            ways,
            known,
            tree: Tree::new(ways.side, None),
            reached: Reached::new(ways.root.fd()),
        }
    }

    fn end(mut self) -> Result<Tree> {
        self.ways.root.check()?;
        self.tree.finish();
        Ok(self.tree)
    }

    fn everything(&mut self) -> Result<()> {
        let root = self.ways.root.check()?;
        self.tree.root = Some(Seen::new(&root));
        let found = walk(&self.ways, b"", root.device, Some(self.known.rows.top()))?;
        self.tree.entries =
            crate::nested::Nested::from_dir(found.dir.unwrap_or_default(), found.count);
        self.tree.troubles = found.troubles;
        self.tree.others = found.others;
        self.tree.bytes = found.bytes;
        Ok(())
    }

    // --- the places of a source ---------------------------------------------------------------

    fn places(&mut self, groups: &[Group<'_>], left: &[&Look]) -> Result<Places> {
        let mut looks = Vec::with_capacity(left.len() * 2);
        for group in groups {
            looks.push((group.above.to_vec(), false));
            looks.extend(
                group
                    .kids
                    .iter()
                    .map(|(look, _)| (look.path.to_vec(), true)),
            );
        }
        for look in left {
            if look.path.is_empty() {
                looks.push((Vec::new(), false));
            } else {
                self.resolve(&look.path, look.deep, &mut looks)?;
            }
        }
        Ok(gather(looks.into_iter()))
    }

    /// One place, the directory above it, and the directories on the way that `known` lacks.
    fn resolve(&mut self, path: &[u8], deep: bool, looks: &mut Vec<(Vec<u8>, bool)>) -> Result<()> {
        if self.resolve_known(path, deep, looks)? {
            return Ok(());
        }
        let first = looks.len();
        let mut dir: Option<OwnedFd> = None;
        for reached in path::above(path).chain([path]) {
            let last = reached.len() == path.len();
            let (above, name) = path::split(reached);
            let from = dir.as_ref().map_or(self.ways.root.fd(), AsFd::as_fd);
            self.teach(above, from)?;
            let meta = match self.meet(reached, stat_at(from, name, self.ways.force))? {
                Met::There(meta) => Some(meta),
                Met::Absent => None,
                Met::Unknown => {
                    looks.extend([(path.to_vec(), deep), (path::parent(path).to_vec(), false)]);
                    return Ok(());
                }
            };
            let is_dir = meta.as_ref().is_some_and(Meta::is_dir);
            if self.leaves(reached, meta.as_ref(), last) {
                looks.truncate(first);
                return Ok(());
            }
            if last {
                looks.push((path.to_vec(), deep || !is_dir || !self.known.has_dir(path)));
                looks.push((above.to_vec(), false));
                return Ok(());
            }
            let Some(meta) = meta.filter(|_| is_dir) else {
                if self.known.get(reached).is_some() {
                    looks.extend([(reached.to_vec(), true), (above.to_vec(), false)]);
                }
                return Ok(());
            };
            let row = self.known.get(reached);
            let device = stat_fd(from)
                .map_err(|errno| Error::new(errno, "stat"))?
                .device;
            let judged = self
                .ways
                .judge_mount(&mut Seen::new(&meta), meta.device, device, row);
            if let Err(errno) = judged {
                self.tree
                    .troubles
                    .push(self.ways.trouble(reached, errno, "mount"));
                looks.extend([(path.to_vec(), deep), (path::parent(path).to_vec(), false)]);
                return Ok(());
            }
            if !self.known.has_dir(reached) {
                looks.push((reached.to_vec(), false));
            }
            match self.meet(reached, open_below(from, name, THROUGH))? {
                Met::There(fd) => dir = Some(fd),
                Met::Absent | Met::Unknown => {
                    // It was there a moment ago: look again when the next word on it comes.
                    self.tree
                        .troubles
                        .push(self.ways.trouble(reached, Errno::AGAIN, "scan"));
                    looks.extend([(path.to_vec(), deep), (path::parent(path).to_vec(), false)]);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The common case: all directories on the way are there, known, and nothing special.
    fn resolve_known(
        &mut self,
        path: &[u8],
        deep: bool,
        looks: &mut Vec<(Vec<u8>, bool)>,
    ) -> Result<bool> {
        let above = path::parent(path);
        let rules = self.ways.rules;
        let usual = |dir: &[u8]| {
            self.known
                .get(dir)
                .is_some_and(|row| row.kind == Kind::Dir && !row.mount)
                && rules.entered(dir)
        };
        if !rules.entered(b"") || !(above.is_empty() || path::above(path).all(usual)) {
            return Ok(false);
        }
        let Ok((dir, name)) = self.reached.parent(path) else {
            return Ok(false);
        };
        let meta = match stat_at(dir.as_fd(), name, self.ways.force) {
            Ok(meta) => Some(meta),
            Err(errno) if means_absent(errno) => None,
            Err(_) => return Ok(false),
        };
        let is_dir = meta.as_ref().is_some_and(Meta::is_dir);
        if is_dir && self.known.get(path).is_some_and(|row| row.mount) {
            return Ok(false);
        }
        let excluded_above = !above.is_empty() && rules.excluded(above, true);
        if !excluded_above && !self.leaves(path, meta.as_ref(), true) {
            looks.push((path.to_vec(), deep || !is_dir || !self.known.has_dir(path)));
            looks.push((above.to_vec(), false));
        }
        Ok(true)
    }

    /// Whether a place is none of ours, by what stands there or by what `known` has there.
    fn leaves(&self, path: &[u8], meta: Option<&Meta>, last: bool) -> bool {
        let rules = self.ways.rules;
        if !last {
            return rules.excluded_child(path, true);
        }
        let known = self.known.get(path).map(|row| row.kind == Kind::Dir);
        match meta.map(Meta::is_dir) {
            None => rules.excluded_child(path, known.unwrap_or(false)),
            Some(is_dir) => {
                rules.excluded_child(path, is_dir)
                    && known.is_none_or(|was_dir| rules.excluded_child(path, was_dir))
            }
        }
    }

    /// Let the rules read what a directory holds, if nobody did before.
    fn teach(&mut self, path: &[u8], dir: BorrowedFd<'_>) -> Result<()> {
        let rules = self.ways.rules;
        let seen = rules.entered(path) && (path.is_empty() || self.known.has_dir(path));
        if self.ways.side != Side::Source || seen {
            return Ok(());
        }
        if let Met::There(names) = self.meet(path, names(dir))? {
            let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
            if let Met::There(fd) = self.meet(path, open_below(dir, b"", crate::dirs::LISTING))? {
                rules.enter(path, fd.as_fd(), &names);
            }
        }
        Ok(())
    }

    // --- looking ------------------------------------------------------------------------------

    /// Look at all places of a source that are not in the groups, and take those in.
    fn look_at(&mut self, looks: &[Look], groups: Vec<Group<'_>>) -> Result<()> {
        let mut seen: HashMap<&[u8], Option<Seen>> = HashMap::new();
        for group in groups {
            seen.extend(
                group
                    .kids
                    .into_iter()
                    .map(|(look, seen)| (&*look.path, seen)),
            );
            // Of several looks at one directory the first counts: what came into it later is not known yet.
            let dir = seen.entry(group.above).or_default();
            if dir
                .as_ref()
                .is_none_or(|dir| group.dir.print.ctime < dir.print.ctime)
            {
                *dir = Some(group.dir);
            }
        }
        for look in looks {
            match seen.remove(&*look.path) {
                Some(Some(seen)) if look.deep == (seen.kind != Kind::Dir) => {
                    self.take_in(&look.path, seen);
                }
                Some(None) => {}
                _ => self.place(look)?,
            }
        }
        Ok(())
    }

    /// Look at all places of a target.
    fn look_at_all(&mut self, looks: &[Look]) -> Result<()> {
        let part = || Scan {
            ways: self.ways,
            known: self.known,
            tree: Tree::new(self.ways.side, None),
            reached: Reached::new(self.ways.root.fd()),
        };
        let peek = |look: &Look, part: &mut Scan<'_>| part.peek(look);
        let mut seen = Vec::new();
        if bulk::is_many(looks) {
            seen = spread(looks, bulk::NEIGHBOURS, peek, part);
        }
        let mut seen = seen.into_iter();
        for look in looks {
            match seen.next().flatten().flatten() {
                Some(seen) => self.take_in(&look.path, seen),
                None => self.place(look)?,
            }
        }
        Ok(())
    }

    /// What stands at one place, if it is a usual directory or no directory, and no trouble.
    fn peek(&mut self, look: &Look) -> Option<Seen> {
        let covered = self.ways.root.cover(&look.path).is_some();
        if look.path.is_empty() || covered || self.ways.control.is_cancelled() {
            return None;
        }
        if let (false, Some(seen)) = (look.deep, self.usual_dir(&look.path)) {
            return Some(seen);
        }
        let (above, name) = path::split(&look.path);
        let dir = self.reached.get(above).ok()?;
        let row = self.known.get(&look.path);
        let (seen, meta) = self.ways.look(dir.as_fd(), name, row).ok()?;
        let plain = !meta.is_dir() && !self.ways.rules.excluded_child(&look.path, false);
        plain.then_some(seen)
    }

    fn take_in(&mut self, path: &[u8], seen: Seen) {
        tally(&seen, path, &mut self.tree.others, &mut self.tree.bytes);
        self.tree.entries.set(path, seen);
        self.ways.control.add_entries(1);
    }

    /// Look at one place as it stands.
    fn place(&mut self, look: &Look) -> Result<()> {
        let path = &look.path;
        if self.ways.control.is_cancelled() {
            self.tree
                .troubles
                .push(self.ways.trouble(path, Errno::CANCELED, "scan"));
            return Ok(());
        }
        if path.is_empty() {
            self.tree.root = Some(Seen::new(&self.ways.root.check()?));
            return Ok(());
        }
        if let Some(top) = self.ways.root.cover(path) {
            let troubles = &mut self.tree.troubles;
            if !troubles.iter().any(|trouble| *trouble.path == *top) {
                troubles.push(self.ways.trouble(top, Errno::BUSY, "mount"));
            }
            return Ok(());
        }
        if let (false, Some(seen)) = (look.deep, self.usual_dir(path)) {
            self.take_in(path, seen);
            return Ok(());
        }
        let (above, name) = path::split(path);
        let dir = match self.reached.get(above) {
            Ok(dir) => dir,
            Err(errno) => {
                let (errno, at) = blame(self.ways.root.fd(), above, errno);
                self.meet::<()>(at, Err(errno))?;
                self.went(look);
                return Ok(());
            }
        };
        let row = self.known.get(path);
        let looked = self.ways.look(dir.as_fd(), name, row);
        let device = match (&looked, row) {
            (Ok((seen, _)), _) if seen.kind == Kind::Dir => {
                stat_fd(dir.as_fd()).map(|meta| meta.device)
            }
            _ => Ok(0),
        };
        let (mut seen, meta) = match self.meet(path, looked)? {
            Met::There(looked) => looked,
            Met::Absent => {
                self.went(look);
                return Ok(());
            }
            Met::Unknown => return Ok(()),
        };
        let is_dir = meta.is_dir();
        if self.ways.rules.excluded_child(path, is_dir) {
            return Ok(());
        }
        if is_dir {
            let Met::There(device) = self.meet(path, device)? else {
                return Ok(());
            };
            if let Err(errno) = self.ways.judge_mount(&mut seen, meta.device, device, row) {
                self.tree
                    .troubles
                    .push(self.ways.trouble(path, errno, "mount"));
                return Ok(());
            }
            if look.deep {
                return self.below(path, seen, meta.device);
            }
        }
        if !is_dir {
            self.went(look);
        }
        self.take_in(path, seen);
        Ok(())
    }

    /// The common case of a directory: known, nothing special, and what it holds is looked at next. None: it is not
    /// that.
    fn usual_dir(&mut self, path: &[u8]) -> Option<Seen> {
        let row = self.known.get(path);
        if !row.is_some_and(|row| row.kind == Kind::Dir && !row.mount) {
            return None;
        }
        let dir = self.reached.get(path).ok()?;
        let meta = stat_fd(dir.as_fd()).ok()?;
        let usual =
            meta.device == self.ways.root.device && !self.ways.rules.excluded_child(path, true);
        usual.then(|| Seen::new(&meta))
    }

    /// A directory of `known` stood there when the places were resolved and is gone by now. What it held is not in
    /// scope, so nothing may be made of its absence; the next look takes it in.
    fn went(&mut self, look: &Look) {
        if self.ways.side == Side::Source && !look.deep && self.known.has_dir(&look.path) {
            let trouble = self.ways.trouble(&look.path, Errno::AGAIN, "scan");
            self.tree.troubles.push(trouble);
        }
    }

    fn below(&mut self, path: &[u8], seen: Seen, device: u64) -> Result<()> {
        let known = self.known.rows.dir(path);
        let mut found = walk(&self.ways, path, device, known)?;
        self.tree.bytes = self.tree.bytes.saturating_add(found.bytes);
        self.tree.others.append(&mut found.others);
        self.tree.troubles.append(&mut found.troubles);
        if let Some(dir) = found.dir {
            self.tree.entries.graft(path, seen, dir, found.count);
            self.ways.control.add_entries(1);
        }
        Ok(())
    }

    /// Absent is not unknown: only the latter is trouble. What concerns the root is neither.
    fn meet<T>(&mut self, path: &[u8], done: rustix::io::Result<T>) -> Result<Met<T>> {
        match done {
            Ok(value) => Ok(Met::There(value)),
            Err(errno) if path.is_empty() => Err(Error::new(errno, "scan")),
            Err(errno) if means_absent(errno) => Ok(Met::Absent),
            Err(errno) => {
                self.tree
                    .troubles
                    .push(self.ways.trouble(path, errno, "scan"));
                Ok(Met::Unknown)
            }
        }
    }
}

/// The time as files have it, in nanoseconds since 1970.
fn now() -> i64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec)
}

/// What came of a step.
enum Met<T> {
    There(T),
    Absent,
    Unknown,
}
