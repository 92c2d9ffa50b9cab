//! Digest: read the files whose doubt matters to the table.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rustix::io::Errno;

use crate::base::Base;
use crate::control::Control;
use crate::dirs::{Reached, Root, stat_at};
use crate::entry::{Agreed, Digest, Fingerprint, Kind, Meta, Seen, Side, Text};
use crate::error::{Trouble, means_absent};
use crate::merge::Merge2;
use crate::nested::Dir;
use crate::path;
use crate::read::{Unread, hash_at};
use crate::tree::Tree;
use crate::walk::{cores, helper};

/// One file to be read, and the fingerprint under which the scan saw it.
struct Job {
    path: Box<[u8]>,
    side: Side,
    print: Fingerprint,
}

/// The trees with the digests that the table needs. Those given stay as they are.
pub fn digest(
    base: &Base,
    source: &Tree,
    target: &Tree,
    roots: (&Root, &Root),
    control: &Control,
    exact: bool,
) -> (Option<Tree>, Option<Tree>) {
    let mut wanted = Wanted {
        source,
        target,
        exact,
        jobs: Vec::new(),
    };
    wanted.gather(
        &mut Vec::new(),
        Some(base.rows.top()),
        Some(source.entries.top()),
        Some(target.entries.top()),
    );
    let jobs = wanted.jobs;
    let read = spread(
        &jobs,
        16,
        |job, hand: &mut Hand<'_>| {
            if control.is_cancelled() {
                return Err(Unread::Cancelled);
            }
            let reached = if job.side == Side::Source {
                &mut hand.source
            } else {
                &mut hand.target
            };
            let (dir, name) = reached.parent(&job.path)?;
            hash_at(
                dir.as_fd(),
                name,
                Some(&job.print),
                &mut hand.buffer,
                control,
            )
        },
        || Hand {
            source: Reached::new(roots.0.fd()),
            target: Reached::new(roots.1.fd()),
            buffer: Vec::new(),
        },
    );
    let (mut new_source, mut new_target) = (None, None);
    for (job, read) in jobs.iter().zip(read) {
        let tree = match job.side {
            Side::Source => new_source.get_or_insert_with(|| source.clone()),
            Side::Target => new_target.get_or_insert_with(|| target.clone()),
        };
        match read {
            Some(Ok((digest, meta))) if meta.print == job.print => {
                tree.entries
                    .update(&job.path, |seen| seen.digest = Some(digest));
            }
            Some(Err(Unread::Failed(errno) | Unread::Unwritten(errno))) => {
                tree.troubles.push(Trouble {
                    path: job.path.clone(),
                    errno,
                    op: "read",
                    side: job.side,
                });
            }
            _ => {} // it changed, is being written or is gone: it stays in doubt
        }
    }
    for tree in [&mut new_source, &mut new_target].into_iter().flatten() {
        tree.finish();
    }
    (new_source, new_target)
}

struct Hand<'a> {
    source: Reached<'a>,
    target: Reached<'a>,
    buffer: Vec<u8>,
}

struct Wanted<'a> {
    source: &'a Tree,
    target: &'a Tree,
    exact: bool,
    jobs: Vec<Job>,
}

impl Wanted<'_> {
    fn gather(
        &mut self,
        path: &mut Vec<u8>,
        base: Option<&Dir<Agreed>>,
        source: Option<&Dir<Seen>>,
        target: Option<&Dir<Seen>>,
    ) {
        if self.source.is_unknown(path) || self.target.is_unknown(path) {
            return;
        }
        for (name, source, target) in Merge2::new(source, target) {
            path::push(path, name);
            let kid = base.and_then(|dir| dir.get(name));
            if !self.source.is_unknown(path) && !self.target.is_unknown(path) {
                let row = kid.and_then(|kid| kid.value.as_ref());
                let (s, t) = (
                    source.and_then(|kid| kid.value.as_ref()),
                    target.and_then(|kid| kid.value.as_ref()),
                );
                self.judge(path, row, s, t);
                let below = [source, target].map(|kid| kid.and_then(|kid| kid.below.as_deref()));
                if below[0].is_some() || below[1].is_some() {
                    self.gather(
                        path,
                        kid.and_then(|kid| kid.below.as_deref()),
                        below[0],
                        below[1],
                    );
                }
            }
            path::pop(path);
        }
    }

    fn judge(
        &mut self,
        path: &[u8],
        base: Option<&Agreed>,
        source: Option<&Seen>,
        target: Option<&Seen>,
    ) {
        let doubtful = |seen: Option<&Seen>| {
            seen.is_some_and(|seen| seen.kind == Kind::File && seen.digest.is_none())
        };
        let base = base.filter(|row| row.kind == Kind::File);
        let size = |seen: Option<&Seen>| seen.and_then(Seen::file_size);
        if doubtful(target) {
            let agreed = base.map(|row| row.target().size);
            if size(target) == size(source) || size(target) == agreed {
                self.want(path, Side::Target, target);
            }
        }
        if doubtful(source) {
            let touched = size(source) == base.map(|row| row.source().size);
            let drifted = target.is_none_or(|target| {
                target.digest.is_none() || base.and_then(Agreed::digest) != target.digest
            });
            if touched && (self.exact || drifted) || drifted && size(source) == size(target) {
                self.want(path, Side::Source, source);
            }
        }
    }

    fn want(&mut self, path: &[u8], side: Side, seen: Option<&Seen>) {
        if let Some(seen) = seen {
            self.jobs.push(Job {
                path: path.into(),
                side,
                print: seen.print,
            });
        }
    }
}

/// Do `work` on each item, on all cores when there are more than a few of them, in runs of
/// neighbours. An item is None if its thread was lost.
pub fn spread<I: Sync, O: Send, H>(
    items: &[I],
    run: usize,
    work: impl Fn(&I, &mut H) -> O + Sync,
    hand: impl Fn() -> H + Sync,
) -> Vec<Option<O>> {
    let mut done: Vec<Option<O>> = Vec::with_capacity(items.len());
    if items.len() <= 4 * run || cores() < 2 {
        let mut hand = hand();
        done.extend(items.iter().map(|item| Some(work(item, &mut hand))));
        return done;
    }
    done.resize_with(items.len(), || None);
    let next = AtomicUsize::new(0);
    let each = || {
        let mut hand = hand();
        let mut mine = Vec::new();
        loop {
            let start = next.fetch_add(run, Relaxed);
            let Some(rest) = items.get(start..) else {
                return mine;
            };
            if rest.is_empty() {
                return mine;
            }
            for (at, item) in rest.iter().take(run).enumerate() {
                mine.push((start + at, work(item, &mut hand)));
            }
        }
    };
    std::thread::scope(|scope| {
        let start = |_| helper().spawn_scoped(scope, each).ok();
        let helpers: Vec<_> = (1..cores()).filter_map(start).collect();
        let mut all = each();
        for helper in helpers {
            all.extend(helper.join().unwrap_or_default());
        }
        for (at, value) in all {
            if let Some(place) = done.get_mut(at) {
                *place = Some(value);
            }
        }
    });
    done
}

/// The digest of each file, or an errno (ENOENT: none there; EAGAIN: it is being written).
pub fn hash_many(
    root: &Root,
    paths: &[Box<[u8]>],
    control: &Control,
) -> Vec<Result<Digest, Errno>> {
    #[allow(clippy::borrowed_box)] // it is what a slice of them lends
    let hash = |path: &Box<[u8]>, (reached, buffer): &mut (Reached<'_>, Vec<u8>)| {
        if control.is_cancelled() {
            return Err(Unread::Cancelled);
        }
        let (dir, name) = reached.parent(path)?;
        if name.is_empty() {
            return Err(Unread::Absent);
        }
        let (digest, _) = hash_at(dir.as_fd(), name, None, buffer, control)?;
        control.add_entries(1);
        Ok(digest)
    };
    let read = spread(paths, 16, hash, || (Reached::new(root.fd()), Vec::new()));
    let number = |unread| match unread {
        Unread::Absent => Errno::NOENT,
        Unread::Busy => Errno::AGAIN,
        Unread::Cancelled => Errno::CANCELED,
        Unread::Failed(errno) | Unread::Unwritten(errno) => errno,
    };
    read.into_iter()
        .map(|read| read.unwrap_or(Err(Unread::Cancelled)).map_err(number))
        .collect()
}

/// `lstat` of each path: an entry, None if absent, or the errno that makes it unknown.
pub fn stat_many(
    root: &Root,
    paths: &[Box<[u8]>],
    force: bool,
) -> Vec<Result<Option<Seen>, Errno>> {
    let mut reached = Reached::new(root.fd());
    let mut look = |path: &[u8]| -> rustix::io::Result<Seen> {
        if path.is_empty() {
            let meta: Meta = crate::dirs::stat_fd(root.fd())?;
            return Ok(Seen::new(&meta));
        }
        let (dir, name) = reached.parent(path)?;
        let mut seen = Seen::new(&stat_at(dir.as_fd(), name, force)?);
        if seen.kind == Kind::Link {
            seen.link = Some(Text::new(&crate::dirs::read_link(dir.as_fd(), name)?));
        }
        Ok(seen)
    };
    let judge = |looked: rustix::io::Result<Seen>| match looked {
        Ok(seen) => Ok(Some(seen)),
        Err(errno) if means_absent(errno) => Ok(None),
        Err(errno) => Err(errno),
    };
    paths.iter().map(|path| judge(look(path))).collect()
}
