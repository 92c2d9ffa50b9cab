//! Directories below a root, reached by descriptor and never through a link.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use crate::entry::Meta;
use crate::error::{Error, Result};
use crate::path;

/// Longest path given to the system at once.
const PIECE: usize = 4000;

/// To go through, not to be read.
pub const THROUGH: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// To be listed.
pub const LISTING: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

static LACKS_OPENAT2: AtomicBool = AtomicBool::new(false);

/// A directory opened as one side.
#[derive(Debug)]
pub struct Root {
    /// O_PATH | O_DIRECTORY.
    pub fd: OwnedFd,
    /// Its device.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// Where something is mounted over what belongs to it: that is out of sight.
    pub covered: BTreeSet<Vec<u8>>,
}

impl Root {
    /// Open a directory by a path of the user's; links in it are followed.
    pub fn open(path: &[u8]) -> Result<Root> {
        let failed = |errno| Error::new(errno, "open");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = retry(|| fs::open(path, flags, Mode::empty())).map_err(failed)?;
        let meta = stat_fd(fd.as_fd()).map_err(failed)?;
        Ok(Root {
            fd,
            device: meta.device,
            inode: meta.print.inode,
            covered: BTreeSet::new(),
        })
    }

    /// The mount that covers a path, if one does.
    pub fn cover<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        if self.covered.is_empty() {
            return None;
        }
        path::above(path)
            .chain(Some(path))
            .find(|above| self.covered.contains(*above))
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// An error if the root itself was removed: all in it looks absent then.
    pub fn check(&self) -> Result<Meta> {
        let meta = stat_fd(self.fd()).map_err(|errno| Error::new(errno, "stat"))?;
        if meta.links == 0 {
            Err(Error::new(Errno::NOENT, "root"))
        } else {
            Ok(meta)
        }
    }
}

/// Do it again while a signal interrupts it.
pub fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

/// What an open descriptor holds.
pub fn stat_fd(fd: BorrowedFd<'_>) -> rustix::io::Result<Meta> {
    retry(|| fs::fstat(fd)).map(|stat| Meta::from(&stat))
}

/// What stands at a name, never through a link. `force` asks the file's server.
pub fn stat_at(dir: BorrowedFd<'_>, name: &[u8], force: bool) -> rustix::io::Result<Meta> {
    if force {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_FORCE_SYNC;
        match retry(|| fs::statx(dir, name, flags, StatxFlags::BASIC_STATS)) {
            Err(Errno::NOSYS | Errno::INVAL) => {}
            done => return done.map(|stat| Meta::from(&stat)),
        }
    }
    retry(|| fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)).map(|stat| Meta::from(&stat))
}

/// The text of a link.
pub fn read_link(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Vec<u8>> {
    retry(|| fs::readlinkat(dir, name, Vec::new())).map(|text| text.into_bytes())
}

/// Open a directory below `root`; the root itself if `path` is empty.
pub fn open_below(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    if path.len() <= PIECE {
        return open_piece(root, if path.is_empty() { b"." } else { path }, flags);
    }
    let mut dir: Option<OwnedFd> = None;
    let mut rest = path;
    while !rest.is_empty() {
        let (piece, after) = cut(rest);
        let flags = if after.is_empty() { flags } else { THROUGH };
        dir = Some(open_piece(
            dir.as_ref().map_or(root, AsFd::as_fd),
            piece,
            flags,
        )?);
        rest = after;
    }
    dir.ok_or(Errno::NOENT)
}

/// As much of a path as may be given at once, and the rest.
fn cut(path: &[u8]) -> (&[u8], &[u8]) {
    if path.len() <= PIECE {
        return (path, &[]);
    }
    let slash = |&b: &u8| b == b'/';
    let at = path[..PIECE]
        .iter()
        .rposition(slash)
        .or_else(|| path.iter().position(slash));
    at.map_or((path, &[]), |at| (&path[..at], &path[at + 1..]))
}

fn open_piece(dir: BorrowedFd<'_>, piece: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..4 {
        if LACKS_OPENAT2.load(Relaxed) {
            break;
        }
        match fs::openat2(dir, piece, flags, Mode::empty(), resolve) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::NOSYS) => LACKS_OPENAT2.store(true, Relaxed),
            Err(Errno::PERM) => break, // some sandboxes say so of calls they do not know
            done => return done,
        }
    }
    open_steps(dir, piece, flags).map_err(|(errno, _)| errno)
}

/// Open one component at a time. On failure also tells how much of the path was the matter.
fn open_steps(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> std::result::Result<OwnedFd, (Errno, usize)> {
    let mut dir: Option<OwnedFd> = None;
    let mut end = 0;
    loop {
        let rest = &path[end..];
        let length = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
        let last = length == rest.len();
        let flags = if last {
            flags | OFlags::NOFOLLOW
        } else {
            THROUGH
        };
        let from = dir.as_ref().map_or(root, AsFd::as_fd);
        let opened = retry(|| fs::openat(from, &rest[..length], flags, Mode::empty()));
        let opened = opened.map_err(|errno| (errno, end + length))?;
        if last {
            return Ok(opened);
        }
        dir = Some(opened);
        end += length + 1;
    }
}

/// Which directory on the way cannot be opened, and why. None if all can, by now.
pub fn obstacle(root: BorrowedFd<'_>, path: &[u8]) -> Option<(Errno, usize)> {
    if path.is_empty() {
        return open_piece(root, b".", THROUGH)
            .err()
            .map(|errno| (errno, 0));
    }
    open_steps(root, path, THROUGH).err()
}

/// A directory that was reached.
#[derive(Debug, Clone)]
pub enum Dir<'a> {
    /// A root.
    Root(BorrowedFd<'a>),
    /// One below it.
    Below(Arc<OwnedFd>),
}

impl AsFd for Dir<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Dir::Root(fd) => *fd,
            Dir::Below(fd) => fd.as_fd(),
        }
    }
}

/// The last directories that were reached, for calls on many paths in order.
#[derive(Debug)]
pub struct Reached<'a> {
    root: BorrowedFd<'a>,
    last: Vec<(Vec<u8>, Arc<OwnedFd>)>,
}

/// A directory and the one above it.
const REACHED: usize = 2;

impl<'a> Reached<'a> {
    /// Nothing below `root` was reached yet.
    pub fn new(root: BorrowedFd<'a>) -> Self {
        Reached {
            root,
            last: Vec::new(),
        }
    }

    /// The directory, if it is one of the last that were reached.
    pub fn last(&self, path: &[u8]) -> Option<Dir<'a>> {
        if path.is_empty() {
            return Some(Dir::Root(self.root));
        }
        let found = self.last.iter().find(|(known, _)| known == path);
        found.map(|(_, fd)| Dir::Below(Arc::clone(fd)))
    }

    /// A directory, to go through.
    pub fn get(&mut self, path: &[u8]) -> rustix::io::Result<Dir<'a>> {
        if let Some(dir) = self.last(path) {
            return Ok(dir);
        }
        let fd = Arc::new(open_below(self.root, path, THROUGH)?);
        if self.last.len() == REACHED {
            self.last.remove(0);
        }
        self.last.push((path.to_vec(), Arc::clone(&fd)));
        Ok(Dir::Below(fd))
    }

    /// The directory that holds a path, and the name in it.
    pub fn parent<'p>(&mut self, path: &'p [u8]) -> rustix::io::Result<(Dir<'a>, &'p [u8])> {
        let (above, name) = path::split(path);
        Ok((self.get(above)?, name))
    }

    /// Forget them: what stands there may be another directory by now.
    pub fn forget(&mut self) {
        self.last.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn no_link_is_followed_and_long_paths_work() {
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.path().join("d")).unwrap();
        symlink("d", scratch.path().join("l")).unwrap();
        let root = Root::open(scratch.path().as_os_str().as_encoded_bytes()).unwrap();
        assert!(open_below(root.fd(), b"d", LISTING).is_ok());
        assert!(matches!(
            open_below(root.fd(), b"l", LISTING),
            Err(Errno::LOOP | Errno::NOTDIR)
        ));
        assert_eq!(
            open_below(root.fd(), b"d/x", LISTING).err(),
            Some(Errno::NOENT)
        );
        assert_eq!(obstacle(root.fd(), b"d/x/y").map(|(_, at)| at), Some(3));

        let mut long = Vec::new();
        let mut dir = open_below(root.fd(), b"", THROUGH).unwrap();
        for _ in 0..40 {
            let name = [b'n'; 200];
            fs::mkdirat(&dir, &name[..], Mode::from(0o755)).unwrap();
            dir = fs::openat(&dir, &name[..], THROUGH, Mode::empty()).unwrap();
            path::push(&mut long, &name);
        }
        let found = open_below(root.fd(), &long, LISTING).unwrap();
        assert_eq!(
            stat_fd(found.as_fd()).unwrap().print.inode,
            stat_fd(dir.as_fd()).unwrap().print.inode
        );
    }
}
