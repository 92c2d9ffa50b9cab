//! Make directories: those that are put, and those missing on the way.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::PoisonError;

use rustix::fs::{self, AtFlags, Mode};
use rustix::io::Errno;

use super::attributes::Want;
use super::crash;
use super::shop::{Halt, Hand, Placed, Shop, failed};
use crate::dirs::{Dir, LISTING, THROUGH, retry, stat_at, stat_fd};
use crate::entry::{Agreed, Kind, Meta, Side, mirrored};
use crate::error::means_absent;
use crate::path;

impl<'a> Hand<'a> {
    /// The directory of the target that holds a path. Those missing on the way are made as the source
    /// has them; what stands in the way is set aside.
    pub fn parent_made(&mut self, path: &[u8]) -> Placed<Dir<'a>> {
        if let Some(dir) = self.parent(path)? {
            return Ok(dir);
        }
        let shop = self.shop;
        let _one = shop.making.lock().unwrap_or_else(PoisonError::into_inner);
        let above = path::parent(path);
        for step in path::above(path) {
            self.step_made(step)?;
        }
        self.target.forget();
        self.target.get(above).map_err(failed("open"))
    }

    fn step_made(&mut self, step: &[u8]) -> Placed<()> {
        let shop = self.shop;
        let Some(dir) = self.parent(step)? else {
            return Err(Halt::Changed);
        };
        let name = path::split(step).1;
        match retry(|| fs::openat(dir.as_fd(), name, THROUGH, Mode::empty())) {
            Ok(_) => return Ok(()),
            Err(errno) if !means_absent(errno) => return Err(failed("open")(errno)),
            Err(_) => {}
        }
        let theirs = self.source.parent(step).and_then(|(dir, name)| {
            let meta = stat_at(dir.as_fd(), name, false)?;
            Ok((meta, stat_fd(dir.as_fd())?.device != meta.device))
        });
        let (theirs, mount) = match theirs {
            Ok((meta, mount)) if meta.is_dir() => (meta, mount),
            Ok(_) => return Err(Halt::Vanished),
            Err(errno) if means_absent(errno) => return Err(Halt::Vanished),
            Err(errno) => return Err(Halt::Failed(errno, "read", Side::Source)),
        };
        if let Some(meta) = self.look(dir.as_fd(), name)? {
            if meta.is_dir() {
                return Ok(()); // it came meanwhile
            }
            if shop.rules.excluded(step, false) {
                return Err(Halt::Failed(Errno::BUSY, "overlay", Side::Target));
            }
            let slot = shop.set_aside(dir.as_fd(), name, step)?;
            return match shop.make_dir(dir.as_fd(), name, step, &theirs) {
                Ok(made) => {
                    shop.learn_way(step, &theirs, &made, mount);
                    shop.drop_own(slot, step);
                    Ok(())
                }
                Err(halt) => {
                    shop.put_back(slot, dir.as_fd(), name, step);
                    Err(halt)
                }
            };
        }
        match shop.make_dir(dir.as_fd(), name, step, &theirs) {
            Ok(made) => {
                shop.learn_way(step, &theirs, &made, mount);
                Ok(())
            }
            Err(Halt::Changed)
                if self
                    .look(dir.as_fd(), name)?
                    .is_some_and(|meta| meta.is_dir()) =>
            {
                Ok(())
            }
            Err(halt) => Err(halt),
        }
    }
}

impl Shop<'_> {
    /// The baseline learns a directory made on the way: else, where the plan had another thing there, it
    /// would look like the container's.
    fn learn_way(&self, path: &[u8], theirs: &Meta, made: &Meta, mount: bool) {
        let (print, mode) = (&theirs.print, mirrored(theirs.print.mode));
        let mode = u16::try_from(mode).unwrap_or_default();
        let row = Agreed::new(Kind::Dir, mode, print.mtime, print, &made.print);
        self.made(path, row.with_flags(false, mount));
    }

    /// Make a directory as the source has it. Changed if something is there.
    pub fn make_dir(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        theirs: &Meta,
    ) -> Placed<Meta> {
        let mut want = self.want(theirs);
        let last = want.mode;
        if self.obeys_modes() {
            want.mode |= 0o300; // else nothing could be put into it
        }
        match retry(|| fs::mkdirat(dir, name, Mode::from_raw_mode(want.mode))) {
            Ok(()) => crash::pass("publish-mkdir"),
            Err(Errno::EXIST) => return Err(Halt::Changed),
            Err(errno) => return Err(failed("mkdir")(errno)),
        }
        match self.fix_dir(dir, name, &want) {
            Ok(mut meta) => {
                if last != want.mode {
                    self.later(path, last);
                    meta.print.mode = meta.print.mode & !0o1777 | last;
                }
                Ok(meta)
            }
            Err(errno) => {
                let _ = fs::unlinkat(dir, name, AtFlags::REMOVEDIR);
                Err(failed("mkdir")(errno))
            }
        }
    }

    /// Correct owner and permission bits of a directory, where they differ.
    ///
    /// A set-group-ID bit that it has of the directory above it stays: that is the target's own affair.
    pub fn fix_dir(&self, dir: BorrowedFd<'_>, name: &[u8], want: &Want) -> Result<Meta, Errno> {
        let fd = match retry(|| fs::openat(dir, name, LISTING, Mode::empty())) {
            Err(Errno::ACCESS) => retry(|| fs::openat(dir, name, THROUGH, Mode::empty()))?,
            opened => opened?,
        };
        let meta = stat_fd(fd.as_fd())?;
        let kept = meta.print.mode & 0o6000;
        let mode = if mirrored(meta.print.mode) == want.mode {
            meta.print.mode & 0o7777
        } else {
            want.mode | kept
        };
        if self.fix(fd.as_fd(), &Want { mode, ..*want }, &meta)? {
            stat_fd(fd.as_fd())
        } else {
            Ok(meta)
        }
    }
}
