//! Bulk: many places of a source looked at on all cores, directory by directory.
//!
//! Each directory is opened once, and its own times are taken before anything in it is looked at: they vouch for what
//! is missing in it. What is not the common case is left to the scan.

use std::os::fd::AsFd;

use crate::base::Base;
use crate::digest::spread;
use crate::dirs::{THROUGH, open_below, stat_fd};
use crate::entry::{Kind, Seen, Side};
use crate::error::means_absent;
use crate::look::Ways;
use crate::path;
use crate::tree::Look;

/// Fewer places are no work for two.
const MANY: usize = 256;

/// Directories that one thread takes at a time.
const RUN: usize = 8;

/// Neighbours that one thread looks at, at a time.
pub const NEIGHBOURS: usize = 64;

/// What was seen of the places of one directory.
pub struct Group<'s> {
    /// The directory.
    pub above: &'s [u8],
    /// What it is.
    pub dir: Seen,
    /// What stands at places in it that are no directories. None: nothing.
    pub kids: Vec<(&'s Look, Option<Seen>)>,
    /// Places that are left to be looked at.
    pub left: Vec<&'s Look>,
}

/// Whether so many places are worth it.
pub fn is_many(scope: &[Look]) -> bool {
    scope.len() > MANY
}

/// Look at the places of `scope` that are files in known directories. The groups, and the places that stand in none.
pub fn groups<'s>(
    ways: Ways<'_>,
    known: &Base,
    scope: &'s [Look],
) -> (Vec<Group<'s>>, Vec<&'s Look>) {
    if ways.side != Side::Source || !is_many(scope) || !ways.rules.entered(b"") {
        return (Vec::new(), scope.iter().collect());
    }
    let mut sorted: Vec<&Look> = scope.iter().collect();
    sorted.sort_by(|a, b| path::order(&a.path, &b.path));
    let runs: Vec<&[&Look]> = sorted
        .chunk_by(|a, b| path::parent(&a.path) == path::parent(&b.path))
        .collect();
    let done = spread(&runs, RUN, |run, ()| group(&ways, known, run), || ());
    let (mut groups, mut left) = (Vec::with_capacity(runs.len()), Vec::new());
    for (run, group) in runs.iter().zip(done) {
        match group.flatten() {
            Some(group) => {
                left.extend(&group.left);
                groups.push(group);
            }
            None => left.extend(*run),
        }
    }
    (groups, left)
}

fn group<'s>(ways: &Ways<'_>, known: &Base, run: &[&'s Look]) -> Option<Group<'s>> {
    let above = path::parent(&run.first()?.path);
    let rules = ways.rules;
    let usual = |dir: &[u8]| {
        let row = known.get(dir);
        row.is_some_and(|row| row.kind == Kind::Dir && !row.mount) && rules.entered(dir)
    };
    let plain = !above.is_empty()
        && path::above(above).chain([above]).all(usual)
        && !rules.excluded(above, true)
        && !ways.control.is_cancelled();
    if !plain {
        return None;
    }
    let fd = open_below(ways.root.fd(), above, THROUGH).ok()?;
    let meta = stat_fd(fd.as_fd()).ok()?;
    if meta.device != ways.root.device {
        return None;
    }
    let mut group = Group {
        above,
        dir: Seen::new(&meta),
        kids: Vec::with_capacity(run.len()),
        left: Vec::new(),
    };
    for look in run {
        let (row, name) = (known.get(&look.path), path::split(&look.path).1);
        let excluded = |is_dir| rules.excluded_child(&look.path, is_dir);
        let was_dir = row.is_some_and(|row| row.kind == Kind::Dir);
        match ways.look(fd.as_fd(), name, row) {
            _ if look.deep || was_dir || excluded(false) => group.left.push(look),
            Ok((seen, _)) if seen.kind != Kind::Dir => group.kids.push((look, Some(seen))),
            Err(errno) if means_absent(errno) => group.kids.push((look, None)),
            _ => group.left.push(look),
        }
    }
    Some(group)
}
