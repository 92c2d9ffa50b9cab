//! Adding and dropping watches.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::inotify::{WatchFlags, add_watch, remove_watch};
use rustix::fs::{AtFlags, FileType, Mode, RawDir, fstat, openat, statat};
use rustix::io::Errno;

use super::{Coverage, Shared, Work};
use crate::dirs::{LISTING, THROUGH, open_below, retry};
use crate::error::means_absent;
use crate::exclude::Excluder;
use crate::path;

/// What the kernel is asked to tell. A file that has no name any more is nobody's.
const WANTED: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::EXCL_UNLINK)
    .union(WatchFlags::ONLYDIR);

/// Room for one read of a directory.
const ROOM: usize = 32 << 10;

/// Directories that a walk keeps open.
const OPEN: usize = 64;

/// The queue is emptied into memory once in so many steps of long work.
const STEPS: u32 = 128;

/// A directory whose directories are being walked.
struct Frame {
    fd: Option<OwnedFd>,
    watched: Result<i32, Errno>,
    names: Vec<u8>, // of directories, each with a slash behind it
    at: usize,
}

impl Frame {
    fn next(&mut self) -> Option<&[u8]> {
        let rest = self.names.get(self.at..)?;
        let length = rest.iter().position(|&b| b == b'/')?;
        self.at += length + 1;
        rest.get(..length)
    }
}

impl Work<'_> {
    /// See `Watcher::cover`.
    pub fn cover(
        &mut self,
        root: BorrowedFd<'_>,
        rules: Arc<dyn Excluder + Send>,
    ) -> rustix::io::Result<Coverage> {
        self.begin(root, rules)?;
        self.walk(root, b"", 0);
        Ok(self.end(true))
    }

    /// A walk over everything begins. Until it ends nothing is heard: what it does is as if done at once.
    pub fn begin(
        &mut self,
        root: BorrowedFd<'_>,
        rules: Arc<dyn Excluder + Send>,
    ) -> rustix::io::Result<()> {
        let stat = retry(|| fstat(root))?;
        self.known.identity = Some((stat.st_dev, stat.st_ino));
        self.known.rules = Some(rules);
        self.known.refused.clear();
        self.known.walk = self.known.walk.wrapping_add(1);
        self.known.deaf = true;
        Ok(())
    }

    /// It ended. `whole`: a directory that it did not meet is not there, or excluded.
    pub fn end(&mut self, whole: bool) -> Coverage {
        if whole {
            let all: Vec<i32> = self.known.watches.all().collect();
            self.drop_unmet(&all);
            self.known.moving.clear();
        }
        self.known.deaf = false;
        let refused = std::mem::take(&mut self.known.refused);
        self.pump();
        Coverage {
            watched: self.known.watches.len(),
            errno: reason(refused.iter().map(|&(_, errno)| errno)).map_or(0, Errno::raw_os_error),
            refused: refused.into_iter().map(|(path, _)| path).collect(),
        }
    }

    /// See `Watcher::watch_locks`.
    pub fn watch_locks(&mut self, root: BorrowedFd<'_>, directory: &[u8], names: Vec<Vec<u8>>) {
        let watched =
            open_below(root, directory, THROUGH).and_then(|fd| self.shared.add(fd.as_fd()));
        if let Ok(wd) = watched {
            self.known.locks.insert(wd, names);
        }
    }

    /// Look anew at what stands at `path` in the directory of the watch `above`.
    pub fn refresh(&mut self, root: BorrowedFd<'_>, path: &[u8], above: i32) {
        self.known.walk = self.known.walk.wrapping_add(1);
        match self.walk(root, path, above) {
            Some(top) => self.drop_unmet(&self.known.watches.subtree(top)),
            None => {
                if let Some(wd) = self.known.watches.child(above, path::split(path).1) {
                    self.known.place.0 = 0;
                    self.known.watches.detach(wd);
                }
            }
        }
    }

    /// Drop those of some watches that the last walk did not meet.
    fn drop_unmet(&mut self, among: &[i32]) {
        for &wd in among {
            if self
                .known
                .watches
                .seen(wd)
                .is_some_and(|seen| seen != self.known.walk)
            {
                self.unwatch(wd);
            }
        }
    }

    /// Drop a watch.
    pub fn unwatch(&mut self, wd: i32) {
        self.forget(wd);
        if !self.known.locks.contains_key(&wd) {
            let _ = remove_watch(&self.shared.queue, wd); // it may be gone already
            self.step();
        }
    }

    /// A watch is no more.
    pub fn forget(&mut self, wd: i32) {
        self.known.place.0 = 0;
        self.known.partial.remove(&wd);
        self.known.watches.remove(wd);
    }

    /// Watch the directory `path`, which lies in that of the watch `above`, and all below it.
    ///
    /// None if nothing is watched there: it is absent, or refused.
    fn walk(&mut self, root: BorrowedFd<'_>, path: &[u8], above: i32) -> Option<i32> {
        let mut place = path.to_vec();
        let frame = match open_below(root, path, LISTING) {
            Ok(fd) => self.enter(root, fd, Ok(above), &mut place),
            Err(errno) => {
                self.miss(path, errno, above);
                return None;
            }
        };
        let top = frame.watched.ok();
        let mut frames = vec![frame];
        while let Some(frame) = frames.last_mut() {
            let length = place.len();
            let Some(name) = frame.next() else {
                frames.pop();
                path::pop(&mut place);
                continue;
            };
            path::push(&mut place, name);
            let name = path::split(&place).1;
            if self.shared.closed.load(Ordering::Relaxed) {
                return top;
            }
            let watched = frame.watched;
            let fd = match &frame.fd {
                Some(fd) => fd,
                None => match self.reopen(root, &place[..length], watched) {
                    Ok(fd) => frame.fd.insert(fd),
                    Err(errno) => {
                        frame.at = frame.names.len();
                        place.truncate(length);
                        self.miss(&place, errno, watched.unwrap_or(0));
                        continue;
                    }
                },
            };
            match retry(|| openat(fd, name, LISTING, Mode::empty())) {
                Ok(_) if frames.len() >= path::MAX_DEPTH => {
                    self.refuse(&place, Errno::NAMETOOLONG);
                    place.truncate(length);
                }
                Ok(fd) => {
                    let below = self.enter(root, fd, watched, &mut place);
                    frames.push(below);
                    if let Some(far) = frames.len().checked_sub(OPEN + 1) {
                        frames[far].fd = None;
                    }
                }
                Err(errno) => {
                    self.miss(&place, errno, watched.unwrap_or(0));
                    place.truncate(length);
                }
            }
        }
        top
    }

    /// Open a directory again that a walk went through; it must be the same one.
    fn reopen(
        &mut self,
        root: BorrowedFd<'_>,
        path: &[u8],
        watched: Result<i32, Errno>,
    ) -> rustix::io::Result<OwnedFd> {
        let fd = open_below(root, path, LISTING)?;
        match watched {
            Ok(wd) if self.shared.add(fd.as_fd()) != Ok(wd) => Err(Errno::NOENT), // its own events tell of it
            _ => Ok(fd),
        }
    }

    /// A directory on the way: watch it, list it, learn its rules, pick the directories in it.
    fn enter(
        &mut self,
        root: BorrowedFd<'_>,
        fd: OwnedFd,
        above: Result<i32, Errno>,
        place: &mut Vec<u8>,
    ) -> Frame {
        let added = above.and_then(|above| Ok((self.shared.add(fd.as_fd())?, above)));
        let watched = self.met(root, fd.as_fd(), added, place);
        let mut names = Vec::new();
        if let Err(errno) = self.list(fd.as_fd(), place, &mut names) {
            self.miss(place, errno, watched.unwrap_or(0));
        }
        Frame {
            fd: Some(fd),
            watched,
            names,
            at: 0,
        }
    }

    /// A walk has met an open directory at `place`, with its watch and the one above it, or could not watch it.
    pub fn met(
        &mut self,
        root: BorrowedFd<'_>,
        fd: BorrowedFd<'_>,
        added: Result<(i32, i32), Errno>,
        place: &[u8],
    ) -> Result<i32, Errno> {
        let watched = added.and_then(|(wd, above)| self.put(root, fd, wd, above, place));
        match watched {
            Ok(wd) => {
                self.known.partial.remove(&wd);
            }
            Err(errno) => self.refuse(place, errno),
        }
        self.step();
        watched
    }

    /// Note where a watch stands.
    ///
    /// EEXIST: it stands for another name of the directory (a mount of a part of the source).
    fn put(
        &mut self,
        root: BorrowedFd<'_>,
        fd: BorrowedFd<'_>,
        wd: i32,
        above: i32,
        place: &[u8],
    ) -> Result<i32, Errno> {
        let name = path::split(place).1;
        let known = &mut *self.known;
        if known.watches.meet(wd, above, name, known.walk) {
            return Ok(wd);
        }
        let mut before = Vec::new();
        if known.watches.path(wd, &mut before) && before != place && leads_to(root, &before, fd) {
            return Err(Errno::EXIST);
        }
        known.place.0 = 0;
        if known.watches.put(wd, above, name, known.walk) {
            Ok(wd)
        } else {
            Err(Errno::STALE)
        }
    }

    /// Read a directory. `dirs` gets the directories in it that are not excluded.
    fn list(
        &self,
        fd: BorrowedFd<'_>,
        place: &mut Vec<u8>,
        dirs: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let mut buffer = Vec::with_capacity(ROOM);
        let mut reader = RawDir::new(fd, buffer.spare_capacity_mut());
        let mut names: Vec<u8> = Vec::new();
        let mut ends: Vec<(usize, FileType)> = Vec::new();
        let mut result = Ok(());
        while let Some(entry) = reader.next() {
            match entry {
                Ok(entry) => {
                    let name = entry.file_name().to_bytes();
                    if name != b"." && name != b".." {
                        names.extend_from_slice(name);
                        ends.push((names.len(), entry.file_type()));
                    }
                }
                Err(Errno::INTR) => {}
                Err(errno) => {
                    result = Err(errno);
                    break;
                }
            }
        }
        let starts = std::iter::once(0).chain(ends.iter().map(|&(end, _)| end));
        let entries = starts
            .zip(&ends)
            .map(|(start, &(end, kind))| (&names[start..end], kind));
        let every: Vec<&[u8]> = entries.clone().map(|(name, _)| name).collect();
        let Some(rules) = &self.known.rules else {
            return result;
        };
        rules.enter(place, fd, &every);
        let length = place.len();
        for (name, kind) in entries {
            if kind == FileType::Directory || kind == FileType::Unknown && is_directory(fd, name) {
                path::push(place, name);
                if !rules.excluded_child(place, true) {
                    dirs.extend_from_slice(name);
                    dirs.push(b'/');
                }
                place.truncate(length);
            }
        }
        result
    }

    /// A directory could not be looked into, in the directory of the watch `above`.
    pub fn miss(&mut self, path: &[u8], errno: Errno, above: i32) {
        if !means_absent(errno) {
            self.known.partial.insert(above);
            self.refuse(path, errno);
        }
    }

    fn refuse(&mut self, path: &[u8], errno: Errno) {
        self.known.refused.push((path.to_vec(), errno));
    }

    /// In the middle of long work: the queue must not overflow meanwhile.
    fn step(&mut self) {
        self.known.steps = self.known.steps.wrapping_add(1);
        if self.known.steps % STEPS == 0 {
            self.slurp();
        }
    }
}

impl Shared {
    /// Add the watch of an open directory. The path leads to this very one, whatever its name is now.
    pub fn add(&self, fd: BorrowedFd<'_>) -> Result<i32, Errno> {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        retry(|| add_watch(&self.queue, &*path, WANTED))
    }
}

/// Of several reasons the one to tell: limits first, since they can be raised.
fn reason(reasons: impl Iterator<Item = Errno> + Clone) -> Option<Errno> {
    let limits = [
        Errno::NOSPC,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::EXIST,
    ];
    let told = limits
        .into_iter()
        .find(|limit| reasons.clone().any(|errno| errno == *limit));
    told.or_else(|| reasons.clone().next())
}

/// Whether `path` still leads to an open directory.
fn leads_to(root: BorrowedFd<'_>, path: &[u8], fd: BorrowedFd<'_>) -> bool {
    let other = open_below(root, path, THROUGH).and_then(|other| fstat(&other));
    match (other, fstat(fd)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

fn is_directory(fd: BorrowedFd<'_>, name: &[u8]) -> bool {
    match retry(|| statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
        Err(_) => true, // opening it will tell
    }
}
