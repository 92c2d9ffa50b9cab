//! Swap: put a new entry over an old one, of which a second name is kept until it was looked at.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock};

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::aside::rename_new;
use super::beside::{Bench, Fresh, Miss, Spot, missed};
use super::shop::{Halt, Hand, Shop, lock};
use super::take::SMALL;
use super::{RUN, crash};
use crate::digest::spread;
use crate::dirs::{THROUGH, retry, stat_at, stat_fd};
use crate::entry::{Fingerprint, Kind, Meta};
use crate::error::stops_slice;
use crate::path;
use crate::read::reopen;
use crate::sys::probe_lease;

/// Replaced entries: those that are to be looked at when the slice is in its place, and where second names stand.
#[derive(Default)]
pub struct Olds {
    left: Mutex<Vec<Old>>,
    place: OnceLock<Option<(OwnedFd, Vec<u8>)>>,
}

/// A small entry that was replaced, under its second name.
struct Old {
    path: Box<[u8]>,
    name: Vec<u8>,
    expected: Fingerprint,
}

impl Shop<'_> {
    /// Where second names are to stand. Renames out of staging take turns with all that happens there, so where two
    /// threads are at work links are made in a directory of their own below it (docs/decisions/0010).
    fn olds_dir(&self) -> BorrowedFd<'_> {
        let staging = self.options.staging;
        if !self.crowded {
            return staging;
        }
        let make = || {
            let name = format!("olds-{}", self.number()).into_bytes();
            fs::mkdirat(staging, name.as_slice(), Mode::from(0o700)).ok()?;
            let opened = retry(|| fs::openat(staging, name.as_slice(), THROUGH, Mode::empty()));
            Some((opened.ok()?, name))
        };
        match self.olds.place.get_or_init(make) {
            Some((dir, _)) => dir.as_fd(),
            None => staging, // it is there from a call that was killed, or there is no room
        }
    }

    /// Look at what was replaced and left until now. The paths where it had to be put back.
    pub fn finish_olds(&self) -> Vec<Box<[u8]>> {
        let olds = std::mem::take(&mut *lock(&self.olds.left));
        let finish = |old: &Old, hand: &mut Hand<'_>| hand.finish_left(old);
        let done = spread(&olds, RUN, finish, || Hand::new(self));
        if let Some(Some((_, name))) = self.olds.place.get() {
            let _ = fs::unlinkat(self.options.staging, name.as_slice(), AtFlags::REMOVEDIR); // unless something stays
        }
        let back = |(old, done): (Old, Option<bool>)| (done == Some(false)).then_some(old.path);
        olds.into_iter().zip(done).filter_map(back).collect()
    }
}

impl<'a> Hand<'a> {
    fn olds<'b>(&self, bench: Bench<'b>) -> BorrowedFd<'b>
    where
        'a: 'b,
    {
        if bench.own {
            bench.dir
        } else {
            self.shop.olds_dir()
        }
    }

    /// The first name for an old entry that `give` does not find taken.
    fn old_name(
        &self,
        bench: Bench<'_>,
        give: impl Fn(&[u8]) -> Result<(), Errno>,
    ) -> Result<Vec<u8>, Errno> {
        loop {
            let old = bench.old_name(self.shop.number());
            match give(&old) {
                Err(Errno::EXIST) => {} // left by a call that was killed
                done => return done.map(|()| old),
            }
        }
    }

    /// Rename a new entry over an old one, of which a second name is kept until it was looked at.
    pub fn swap(
        &mut self,
        spot: Spot<'_>,
        expected: &Fingerprint,
        bench: Bench<'_>,
        fresh: &Fresh<'_>,
    ) -> Result<Meta, Miss> {
        let olds = self.olds(bench);
        let link =
            |old: &[u8]| retry(|| fs::linkat(spot.dir, spot.name, olds, old, AtFlags::empty()));
        let old = match self.old_name(bench, link) {
            Ok(old) => old,
            Err(Errno::NOENT) => return Err(Miss::Halt(Halt::Changed)),
            Err(errno) if errno == Errno::XDEV || stops_slice(errno) => {
                return Err(missed("link")(errno));
            }
            Err(_) => return self.swap_by_moving(spot, expected, bench, fresh),
        };
        crash::pass("publish-linked");
        if let Err(errno) =
            retry(|| fs::renameat(fresh.dir, fresh.name.as_slice(), spot.dir, spot.name))
        {
            let _ = fs::unlinkat(olds, old.as_slice(), AtFlags::empty());
            return Err(match errno {
                Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST => Miss::Halt(Halt::Changed),
                errno => missed("rename")(errno),
            });
        }
        crash::pass("publish-renamed");
        let meta = fresh.meta(spot)?;
        self.finish_old(spot, expected, bench, old)?;
        Ok(meta)
    }

    /// Finish with a replaced entry whose second name is in a bench: at once, or for a small one after the whole slice, when
    /// everything new is in its place.
    fn finish_old(
        &self,
        spot: Spot<'_>,
        expected: &Fingerprint,
        bench: Bench<'_>,
        old: Vec<u8>,
    ) -> Result<(), Miss> {
        if !bench.own && expected.size <= SMALL {
            lock(&self.shop.olds.left).push(Old {
                path: spot.path.into(),
                name: old,
                expected: *expected,
            });
            return Ok(());
        }
        if self.drop_old(spot.path, expected, self.olds(bench), &old) {
            return Ok(());
        }
        give_back(self.olds(bench), &old, spot).map_err(missed("rename"))?;
        Err(Miss::Halt(Halt::Changed))
    }

    /// The same for a small one, when the slice is in its place. False: it has its name back.
    fn finish_left(&mut self, old: &Old) -> bool {
        let olds = self.shop.olds_dir();
        if self.drop_old(&old.path, &old.expected, olds, &old.name) {
            return true;
        }
        let Ok(Some(dir)) = self.parent(&old.path) else {
            return true; // it stays in staging; the next start sets it aside
        };
        let spot = Spot {
            dir: dir.as_fd(),
            name: path::split(&old.path).1,
            path: &old.path,
        };
        give_back(olds, &old.name, spot).is_err()
    }

    /// Drop a replaced entry if it is what was expected and will stay so, else set it aside. False: it cannot be kept elsewhere.
    fn drop_old(
        &self,
        path: &[u8],
        expected: &Fingerprint,
        dir: BorrowedFd<'_>,
        old: &[u8],
    ) -> bool {
        if stays(dir, old, expected) {
            let _ = fs::unlinkat(dir, old, AtFlags::empty());
            return true;
        }
        let Ok(slot) = self.shop.set_aside(dir, old, path) else {
            return false;
        };
        self.shop.keep(path, &slot.shown);
        true
    }

    /// The same where an entry cannot have two names: for a moment nothing is at its name.
    fn swap_by_moving(
        &mut self,
        spot: Spot<'_>,
        expected: &Fingerprint,
        bench: Bench<'_>,
        fresh: &Fresh<'_>,
    ) -> Result<Meta, Miss> {
        let olds = self.olds(bench);
        let old = self
            .old_name(bench, |old| rename_new(spot.dir, spot.name, olds, old))
            .map_err(|errno| match errno {
                Errno::NOENT => Miss::Halt(Halt::Changed),
                errno => missed("rename")(errno),
            })?;
        crash::pass("publish-linked");
        let same = stat_at(olds, &old, false).is_ok_and(|was| was.print.same_but_ctime(expected));
        let put = if same {
            rename_new(fresh.dir, &fresh.name, spot.dir, spot.name).map_err(|errno| match errno {
                Errno::EXIST | Errno::NOTEMPTY => Miss::Halt(Halt::Changed),
                errno => missed("rename")(errno),
            })
        } else {
            Err(Miss::Halt(Halt::Changed))
        };
        match put {
            Ok(()) => {
                crash::pass("publish-renamed");
                let meta = fresh.meta(spot)?;
                self.finish_old(spot, expected, bench, old)?;
                Ok(meta)
            }
            Err(miss) => {
                if rename_new(olds, &old, spot.dir, spot.name).is_err() {
                    if let Ok(slot) = self.shop.set_aside(olds, &old, spot.path) {
                        self.shop.keep(spot.path, &slot.shown);
                    }
                }
                Err(miss)
            }
        }
    }
}

/// Give a replaced entry its name back: what is there by now is the source's.
fn give_back(dir: BorrowedFd<'_>, old: &[u8], spot: Spot<'_>) -> Result<(), Errno> {
    retry(|| fs::renameat(dir, old, spot.dir, spot.name))
}

/// Whether the entry at a name is the one that was expected and will stay so: nobody holds it open for writing. What
/// is written there later must not vanish with it.
pub fn stays(dir: BorrowedFd<'_>, name: &[u8], expected: &Fingerprint) -> bool {
    let through = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(pin) = retry(|| fs::openat(dir, name, through, Mode::empty())) else {
        return false;
    };
    let Ok(meta) = stat_fd(pin.as_fd()) else {
        return false;
    };
    if !meta.print.same_but_ctime(expected) || meta.kind() != Kind::File {
        return meta.print.same_but_ctime(expected);
    }
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    match reopen(pin.as_fd(), flags) {
        Ok(fd) => probe_lease(fd.as_fd()) != Err(Errno::AGAIN),
        Err(_) => true, // it may not be read
    }
}
