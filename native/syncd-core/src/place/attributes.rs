//! Owner, mode and times, and directories that may not be written.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::shop::{Shop, lock};
use crate::dirs::{Reached, THROUGH, retry, stat_fd};
use crate::entry::{Meta, mirrored};
use crate::path;

/// What a new entry is to get beside its content.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// Permission bits.
    pub mode: u32,
    /// Modification time.
    pub mtime: i64,
    /// Owner and group; None = whatever it is.
    pub owner: Option<(u32, u32)>,
}

impl Shop<'_> {
    /// What an entry that mirrors `meta` is to get.
    pub fn want(&self, meta: &Meta) -> Want {
        let theirs = self.is_root().then_some(meta.owner());
        Want {
            mode: mirrored(meta.print.mode),
            mtime: meta.print.mtime,
            owner: self.options.owner.or(theirs),
        }
    }

    fn ids((uid, gid): (u32, u32)) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
    }

    /// Whether a refused change of owner is none: nobody asked for it, the source just has it.
    pub fn forgive(&self, errno: Errno) -> Result<(), Errno> {
        let cannot = matches!(
            errno,
            Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS
        );
        if self.options.owner.is_none() && cannot {
            Ok(())
        } else {
            Err(errno)
        }
    }

    /// Give a newly written file its owner, mode and time; what it is then.
    pub fn finish(&self, fd: BorrowedFd<'_>, want: &Want) -> Result<Meta, Errno> {
        if want.owner.is_some_and(|owner| owner != self.me) {
            self.set_owner(fd, want)?;
        }
        retry(|| fs::futimens(fd, &times(want.mtime)))?;
        let mut meta = stat_fd(fd)?;
        if self.fix(fd, want, &meta)? {
            meta = stat_fd(fd)?;
        }
        Ok(meta)
    }

    fn set_owner(&self, fd: BorrowedFd<'_>, want: &Want) -> Result<(), Errno> {
        let Some(owner) = want.owner else {
            return Ok(());
        };
        let (uid, gid) = Self::ids(owner);
        retry(|| fs::fchown(fd, uid, gid)).or_else(|errno| self.forgive(errno))
    }

    /// Correct owner and mode of what an open descriptor holds, where they differ. True: they did.
    pub fn fix(&self, fd: BorrowedFd<'_>, want: &Want, meta: &Meta) -> Result<bool, Errno> {
        let chown = want.owner.is_some_and(|owner| owner != meta.owner());
        if chown {
            self.set_owner(fd, want)?;
        }
        let chmod = meta.print.mode & 0o7777 != want.mode;
        if chmod {
            set_mode(fd, want.mode)?;
        }
        Ok(chown || chmod)
    }

    /// Correct owner and time of a link.
    pub fn finish_link(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        want: &Want,
        meta: &Meta,
    ) -> Result<bool, Errno> {
        let chown = want.owner.filter(|owner| *owner != meta.owner());
        let late = meta.print.mtime != want.mtime;
        if chown.is_none() && !late {
            return Ok(false);
        }
        let through = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = retry(|| fs::openat(dir, name, through, Mode::empty()))?;
        if stat_fd(fd.as_fd())?.print != meta.print {
            return Err(Errno::STALE); // another entry took its name
        }
        if let Some(owner) = chown {
            let (uid, gid) = Self::ids(owner);
            retry(|| fs::chownat(&fd, "", uid, gid, AtFlags::EMPTY_PATH))
                .or_else(|errno| self.forgive(errno))?;
        }
        if late {
            set_time(fd.as_fd(), want.mtime)?;
        }
        Ok(true)
    }

    // --- directories that may not be written --------------------------------------------------

    /// Remember the mode that a directory gets at the end.
    pub fn later(&self, path: &[u8], mode: u32) {
        lock(self.modes).insert(path.to_vec(), mode);
    }

    /// Whether a directory of this mode cannot be worked in by us, though it is ours.
    pub fn is_shut(&self, meta: &Meta) -> bool {
        self.obeys_modes()
            && meta.uid == self.me.0
            && meta.is_dir()
            && meta.print.mode & 0o300 != 0o300
    }

    /// Make a directory of the target, and those above it, such that we can work in them.
    pub fn open_up(&self, path: &[u8]) -> Result<(), Errno> {
        let mut reached = Reached::new(self.target);
        let root = path.is_empty().then_some(path);
        for step in root
            .into_iter()
            .chain(path::above(path))
            .chain((!path.is_empty()).then_some(path))
        {
            let fd = open_dir(&mut reached, step)?;
            let meta = stat_fd(fd.as_fd())?;
            if self.is_shut(&meta) {
                lock(self.modes)
                    .entry(step.to_vec())
                    .or_insert(meta.print.mode & 0o7777);
                set_mode(fd.as_fd(), meta.print.mode & 0o7777 | 0o700)?;
            }
        }
        Ok(())
    }

    /// Give directories the modes that waited for the end.
    pub fn restore_modes(&self) {
        let modes = std::mem::take(&mut *lock(self.modes));
        let mut reached = Reached::new(self.target);
        for (path, mode) in modes.iter().rev() {
            if let Ok(fd) = open_dir(&mut reached, path) {
                let _ = set_mode(fd.as_fd(), *mode); // it may not be ours any more
            }
        }
    }
}

fn open_dir(reached: &mut Reached<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let (dir, name) = reached.parent(path)?;
    let name = if name.is_empty() { b"." } else { name };
    retry(|| fs::openat(dir.as_fd(), name, THROUGH, Mode::empty()))
}

/// Set the mode of what a descriptor holds, also one that is only to go through.
pub fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(mode);
    match retry(|| fs::fchmod(fd, mode)) {
        Err(Errno::BADF) => retry(|| fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), mode)),
        done => done,
    }
}

/// Set the time of what a descriptor holds, also one that is only to go through.
pub fn set_time(fd: BorrowedFd<'_>, mtime: i64) -> Result<(), Errno> {
    match retry(|| fs::futimens(fd, &times(mtime))) {
        Err(Errno::BADF) => {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            retry(|| fs::utimensat(fs::CWD, &path, &times(mtime), AtFlags::empty()))
        }
        done => done,
    }
}

/// Only the modification time.
pub fn times(mtime: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT as _,
        },
        last_modification: Timespec {
            tv_sec: mtime.div_euclid(1_000_000_000),
            tv_nsec: mtime.rem_euclid(1_000_000_000) as _,
        },
    }
}
