//! Set aside: what is not ours to destroy is renamed into a directory of its own in staging.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::attributes::set_mode;
use super::crash;
use super::shop::{CREATE, Halt, Placed, Shop, failed};
use crate::dirs::{LISTING, THROUGH, read_link, retry, stat_at, stat_fd};
use crate::entry::{Agreed, Kind, Meta};
use crate::nested::Kid;
use crate::path;
use crate::read::hash_at;

/// Longest name a filesystem takes.
const NAME: usize = 255;

/// Collisions after which one gives up.
const TRIES: u32 = 10_000;

/// Where an entry is kept.
#[derive(Debug)]
pub struct Slot {
    dir: OwnedFd,
    name: Vec<u8>,
    /// The same, as a path below staging.
    pub shown: Vec<u8>,
    made: Vec<(OwnedFd, Vec<u8>)>,
}

/// Rename, but never over anything: EEXIST then.
pub fn rename_new(
    from: BorrowedFd<'_>,
    old: &[u8],
    to: BorrowedFd<'_>,
    new: &[u8],
) -> Result<(), Errno> {
    match retry(|| fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE)) {
        Err(Errno::INVAL | Errno::NOSYS) => {}
        done => return done,
    }
    // The filesystem lacks that: claim the name by something empty and rename over it.
    let is_dir = stat_at(from, old, false)?.is_dir();
    if is_dir {
        fs::mkdirat(to, new, Mode::from(0o700))?;
    } else {
        fs::openat(to, new, CREATE | OFlags::WRONLY, Mode::from(0o600))?;
    }
    retry(|| fs::renameat(from, old, to, new)).inspect_err(|_| {
        let _ = fs::unlinkat(
            to,
            new,
            if is_dir {
                AtFlags::REMOVEDIR
            } else {
                AtFlags::empty()
            },
        );
    })
}

/// A name with a number, no longer than names can be.
fn numbered(name: &[u8], number: u32) -> Vec<u8> {
    if number == 0 {
        return name.to_vec();
    }
    let suffix = format!(".{number}");
    let length = name.len().min(NAME - suffix.len());
    [name.get(..length).unwrap_or(name), suffix.as_bytes()].concat()
}

impl Shop<'_> {
    /// Rename the entry at a name of a directory, which stands at `path`, into the directory for that.
    pub fn set_aside(&self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Placed<Slot> {
        let mut last = Errno::NOENT;
        for _ in 0..4 {
            let give = |to: BorrowedFd<'_>, free: &[u8]| rename_new(dir, name, to, free);
            match self.try_aside(path, give) {
                // Another thread removed a directory there that had become empty.
                Err(Errno::NOENT) if stat_at(dir, name, false).is_ok() => last = Errno::NOENT,
                Err(Errno::NOENT) => return Err(Halt::Changed),
                Err(errno) => {
                    last = errno;
                    break;
                }
                Ok(slot) => {
                    crash::pass("publish-aside");
                    return Ok(slot);
                }
            }
        }
        Err(failed("aside")(last))
    }

    /// Give the file or link at a name a second one there; the first stays until something is renamed over it. None:
    /// the filesystem or the file takes no link.
    pub fn link_aside(&self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Option<Slot> {
        let give = |to: BorrowedFd<'_>, free: &[u8]| {
            retry(|| fs::linkat(dir, name, to, free, AtFlags::empty()))
        };
        let slot = self.try_aside(path, give).ok()?;
        crash::pass("publish-aside");
        Some(slot)
    }

    /// Make a directory for what stood at `path`, and have the entry given a free name in it.
    fn try_aside(
        &self,
        path: &[u8],
        give: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<(), Errno>,
    ) -> Result<Slot, Errno> {
        let mut here = retry(|| fs::openat(self.options.staging, ".", THROUGH, Mode::empty()))?;
        let (mut shown, mut made) = (Vec::new(), Vec::new());
        let top = self.options.aside.name();
        for part in path::parts(&top).chain(path::parts(path::parent(path))) {
            let (below, taken, fresh) = enter(here.as_fd(), part)?;
            path::push(&mut shown, &taken);
            let above = std::mem::replace(&mut here, below);
            if fresh {
                made.push((above, taken));
            }
        }
        for number in 0..TRIES {
            let free = numbered(path::split(path).1, number);
            match give(here.as_fd(), &free) {
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::ISDIR | Errno::NOTDIR) => {}
                Err(errno) => return Err(errno),
                Ok(()) => {
                    path::push(&mut shown, &free);
                    return Ok(Slot {
                        dir: here,
                        name: free,
                        shown,
                        made,
                    });
                }
            }
        }
        Err(Errno::EXIST)
    }

    /// Put an entry back where it was, if nothing else is there by now. Otherwise it is told as kept.
    pub fn put_back(&self, slot: Slot, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) {
        if rename_new(slot.dir.as_fd(), &slot.name, dir, name).is_ok() {
            slot.tidy();
        } else {
            self.keep(path, &slot.shown);
        }
    }

    /// Drop from an entry set aside what the baseline has and nobody changed. What is left is kept.
    pub fn drop_own(&self, slot: Slot, path: &[u8]) {
        if let Some(kid) = self.base.rows.kid(path) {
            self.drop_entry(slot.dir.as_fd(), &slot.name, kid, &mut path.to_vec());
        }
        if stat_at(slot.dir.as_fd(), &slot.name, false) == Err(Errno::NOENT) {
            slot.tidy();
        } else {
            self.keep(path, &slot.shown);
        }
    }

    fn drop_entry(&self, dir: BorrowedFd<'_>, name: &[u8], kid: &Kid<Agreed>, path: &mut Vec<u8>) {
        let Ok(meta) = stat_at(dir, name, false) else {
            return;
        };
        if self.rules.excluded_child(path, meta.is_dir()) {
            return; // the rules were changed: it is none of ours any more
        }
        let row = kid.value.as_ref();
        if !meta.is_dir() {
            if row.is_some_and(|row| self.is_own(dir, name, &meta, row)) {
                let _ = fs::unlinkat(dir, name, AtFlags::empty());
            }
            return;
        }
        let Ok(fd) = retry(|| fs::openat(dir, name, THROUGH, Mode::empty())) else {
            return;
        };
        let mode = meta.print.mode & 0o7777;
        let shut = self.is_shut(&meta) && set_mode(fd.as_fd(), mode | 0o700).is_ok();
        if let Some(below) = kid.below.as_deref() {
            for kid in below.kids() {
                path::push(path, below.name(kid));
                self.drop_entry(fd.as_fd(), below.name(kid), kid, path);
                path::pop(path);
            }
        }
        let ours = row.is_some_and(|row| row.kind == Kind::Dir);
        let gone = ours && fs::unlinkat(dir, name, AtFlags::REMOVEDIR).is_ok();
        if shut && !gone {
            let _ = set_mode(fd.as_fd(), mode);
        }
    }

    /// Whether an entry that is no directory is what the baseline has: by its looks, else by content.
    fn is_own(&self, dir: BorrowedFd<'_>, name: &[u8], meta: &Meta, row: &Agreed) -> bool {
        let print = row.target();
        match row.kind {
            kind if kind != meta.kind() => false,
            Kind::Link => read_link(dir, name)
                .is_ok_and(|text| row.link.as_deref().is_some_and(|link| link.bytes() == text)),
            Kind::File if print == meta.print => true,
            Kind::File if print.size == meta.print.size && row.digest().is_some() => {
                let read = hash_at(dir, name, Some(&meta.print), &mut Vec::new(), self.control);
                read.is_ok_and(|(digest, _)| row.digest() == Some(digest))
            }
            _ => false,
        }
    }
}

impl Slot {
    /// Drop the second name that `link_aside` gave: the entry has its first one.
    pub fn unlink(self) {
        let _ = fs::unlinkat(self.dir.as_fd(), self.name.as_slice(), AtFlags::empty());
        self.tidy();
    }

    /// Remove the directories that were made for an entry that is not kept after all.
    fn tidy(self) {
        for (dir, name) in self.made.iter().rev() {
            let _ = fs::unlinkat(dir, name.as_slice(), AtFlags::REMOVEDIR);
        }
    }
}

/// Go into a directory of staging, made if missing. If something else has the name, a numbered one.
fn enter(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(OwnedFd, Vec<u8>, bool), Errno> {
    for number in 0..TRIES {
        let free = numbered(name, number);
        let fresh = match retry(|| fs::mkdirat(dir, free.as_slice(), Mode::from(0o700))) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(errno),
        };
        let opened =
            retry(|| fs::openat(dir, free.as_slice(), OFlags::PATH | LISTING, Mode::empty()));
        match opened {
            // Something set aside has this name; it may have any mode, and is no place of ours.
            Ok(fd) if fresh || is_ours(&fd) => return Ok((fd, free, fresh)),
            Ok(_) | Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EXIST)
}

fn is_ours(fd: &OwnedFd) -> bool {
    let me = rustix::process::geteuid().as_raw();
    stat_fd(fd.as_fd()).is_ok_and(|meta| meta.uid == me && meta.print.mode & 0o777 == 0o700)
}
