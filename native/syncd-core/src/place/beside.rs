//! Files and links: created directly, written in place, or written beside and renamed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::{self, Errno};

use super::aside::rename_new;
use super::attributes::Want;
use super::crash;
use super::shop::{CREATE, Halt, Hand, Placed, failed, new_name};
use super::take::{Load, Taken, copy_file, is_sparse, write_content};
use crate::control::Control;
use crate::dirs::{retry, stat_at, stat_fd};
use crate::entry::{Fingerprint, Meta, Side};
use crate::read::{Unread, hash};

/// Where an entry goes.
#[derive(Clone, Copy)]
pub struct Spot<'p> {
    /// The directory.
    pub dir: BorrowedFd<'p>,
    /// The name in it.
    pub name: &'p [u8],
    /// The path, as the action has it.
    pub path: &'p [u8],
}

/// Where temporary names stand: in staging or, where that is another mount, beside the entry.
#[derive(Clone, Copy)]
pub struct Bench<'p> {
    /// The directory.
    pub dir: BorrowedFd<'p>,
    /// It is the entry's own.
    pub own: bool,
}

impl Bench<'_> {
    fn new_name(&self, number: u64) -> Vec<u8> {
        if self.own {
            format!(".syncd-{number}").into_bytes()
        } else {
            new_name(number)
        }
    }

    /// For an old entry.
    pub fn old_name(&self, number: u64) -> Vec<u8> {
        if self.own {
            format!(".syncd-{number}")
        } else {
            format!("old-{number}")
        }
        .into_bytes()
    }
}

/// A new entry under its temporary name.
pub struct Fresh<'p> {
    /// The directory it stands in.
    pub dir: BorrowedFd<'p>,
    /// Its name there.
    pub name: Vec<u8>,
    number: u64,
    fd: Option<OwnedFd>,
    written: Option<Fingerprint>, // as it was when it was whole
}

impl Fresh<'_> {
    fn discard(&self) {
        let _ = fs::unlinkat(self.dir, self.name.as_slice(), AtFlags::empty());
    }

    /// The same, unless it is of use elsewhere.
    fn discard_unless(&self, keep: bool) {
        if !keep {
            self.discard();
        }
    }

    /// What it is under its final name. Its fingerprint is zeros, so that the next scan is in doubt, if
    /// somebody wrote it as soon as it had that name.
    pub fn meta(&self, spot: Spot<'_>) -> Placed<Meta> {
        let meta = match &self.fd {
            Some(fd) => stat_fd(fd.as_fd()),
            None => stat_at(spot.dir, spot.name, false),
        };
        let mut meta = meta.map_err(failed("stat"))?;
        if self
            .written
            .is_some_and(|written| !meta.print.same_but_ctime(&written))
        {
            meta.print = Fingerprint::default();
        }
        Ok(meta)
    }
}

/// A failure of which is to be known whether staging is just on another mount.
pub enum Miss {
    OtherMount,
    Halt(Halt),
}

impl From<Halt> for Miss {
    fn from(halt: Halt) -> Self {
        Miss::Halt(halt)
    }
}

/// Trouble of a step that needs both to be on one mount.
pub fn missed(op: &'static str) -> impl Fn(Errno) -> Miss {
    move |errno| {
        if errno == Errno::XDEV {
            Miss::OtherMount
        } else {
            Miss::Halt(failed(op)(errno))
        }
    }
}

impl Hand<'_> {
    /// Put a file or link where nothing is after `clear`, which is called when the new one is whole.
    pub fn put_new(
        &mut self,
        spot: Spot<'_>,
        taken: &Taken,
        want: &Want,
        mut clear: impl FnMut(&mut Self) -> Placed<()>,
    ) -> Placed<Meta> {
        if self.shop.options.direct {
            if let Load::Memory(content) = &taken.load {
                clear(self)?;
                return self.create(spot, content, taken, want);
            }
        }
        self.on_benches(spot, |hand, bench| {
            let fresh = hand.prepare(bench, taken, want)?;
            if let Err(halt) = clear(hand) {
                fresh.discard();
                return Err(Miss::Halt(halt));
            }
            if let Err(errno) = rename_new(fresh.dir, &fresh.name, spot.dir, spot.name) {
                fresh.discard_unless(errno == Errno::XDEV && taken.load.staged().is_some());
                return Err(match errno {
                    Errno::EXIST | Errno::NOTEMPTY => Miss::Halt(Halt::Changed),
                    errno => missed("rename")(errno),
                });
            }
            crash::pass("publish-renamed");
            Ok(fresh.meta(spot)?)
        })
    }

    /// Put a file or link over the file or link that `expected` is the fingerprint of.
    pub fn put_over(
        &mut self,
        spot: Spot<'_>,
        expected: &Fingerprint,
        taken: &Taken,
        want: &Want,
    ) -> Placed<Meta> {
        self.on_benches(spot, |hand, bench| {
            let as_believed = |meta: &Meta| meta.print == *expected;
            let fresh = hand.prepare_over(bench, spot, taken, want, as_believed)?;
            let done = hand.swap(spot, expected, bench, &fresh);
            if let Err(miss) = &done {
                let again = matches!(miss, Miss::OtherMount) && taken.load.staged().is_some();
                fresh.discard_unless(again);
            }
            done
        })
    }

    /// Put a file or link over one that has a second name elsewhere and that `expected` is the fingerprint of.
    pub fn put_onto(
        &mut self,
        spot: Spot<'_>,
        expected: &Fingerprint,
        taken: &Taken,
        want: &Want,
    ) -> Placed<Meta> {
        self.on_benches(spot, |hand, bench| {
            let as_believed = |meta: &Meta| meta.print.same_but_ctime(expected);
            let fresh = hand.prepare_over(bench, spot, taken, want, as_believed)?;
            let name = fresh.name.as_slice();
            if let Err(errno) = retry(|| fs::renameat(fresh.dir, name, spot.dir, spot.name)) {
                fresh.discard_unless(errno == Errno::XDEV && taken.load.staged().is_some());
                return Err(match errno {
                    Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST => Miss::Halt(Halt::Changed),
                    errno => missed("rename")(errno),
                });
            }
            crash::pass("publish-renamed");
            Ok(fresh.meta(spot)?)
        })
    }

    /// A new entry, for a name at which the old one is still what was believed.
    fn prepare_over<'b>(
        &mut self,
        bench: Bench<'b>,
        spot: Spot<'_>,
        taken: &Taken,
        want: &Want,
        as_believed: impl Fn(&Meta) -> bool,
    ) -> Result<Fresh<'b>, Miss> {
        let fresh = self.prepare(bench, taken, want)?;
        match self.look(spot.dir, spot.name) {
            Ok(Some(meta)) if as_believed(&meta) => Ok(fresh),
            done => {
                fresh.discard();
                Err(Miss::Halt(done.err().unwrap_or(Halt::Changed)))
            }
        }
    }

    /// Try with staging and, if that is on another mount, with the entry's own directory.
    fn on_benches(
        &mut self,
        spot: Spot<'_>,
        mut put: impl FnMut(&mut Self, Bench<'_>) -> Result<Meta, Miss>,
    ) -> Placed<Meta> {
        let staging = Bench {
            dir: self.shop.options.staging,
            own: false,
        };
        match put(self, staging) {
            Ok(meta) => return Ok(meta),
            Err(Miss::Halt(halt)) => return Err(halt),
            Err(Miss::OtherMount) => {}
        }
        match put(
            self,
            Bench {
                dir: spot.dir,
                own: true,
            },
        ) {
            Ok(meta) => Ok(meta),
            Err(Miss::Halt(halt)) => Err(halt),
            Err(Miss::OtherMount) => Err(Halt::Failed(Errno::XDEV, "rename", Side::Target)),
        }
    }

    /// Create a file under its final name.
    fn create(
        &mut self,
        spot: Spot<'_>,
        content: &[u8],
        taken: &Taken,
        want: &Want,
    ) -> Placed<Meta> {
        let mode = Mode::from_raw_mode(want.mode & 0o777);
        let fd = match retry(|| fs::openat(spot.dir, spot.name, CREATE | OFlags::RDWR, mode)) {
            Ok(fd) => fd,
            Err(Errno::EXIST) => return Err(Halt::Changed),
            Err(errno) => return Err(failed("create")(errno)),
        };
        let _ = fs::fcntl_setfl(&fd, OFlags::NOATIME); // `holding` reads it: that is nobody's access
        let written = self.fill(fd.as_fd(), content, taken, want);
        match written {
            Ok(meta) => {
                crash::pass("publish-renamed");
                Ok(self.holding(fd.as_fd(), meta, taken))
            }
            Err(errno) => {
                let _ = fs::unlinkat(spot.dir, spot.name, AtFlags::empty());
                Err(failed("write")(errno))
            }
        }
    }

    /// What was just written, as `meta`: with a fingerprint of zeros, so that the next scan is in doubt, if
    /// another content is in it. Setting the time hid what somebody wrote a moment before.
    pub fn holding(&mut self, fd: BorrowedFd<'_>, mut meta: Meta, taken: &Taken) -> Meta {
        let holds = match &taken.load {
            Load::Memory(content) => {
                self.buffer.clear();
                self.buffer.resize(content.len() + 1, 0);
                retry(|| io::pread(fd, &mut self.buffer[..], 0))
                    .is_ok_and(|read| self.buffer.get(..read) == Some(content.as_slice()))
            }
            _ => hash(fd, &mut self.buffer, &Control::default()).ok() == taken.digest,
        };
        if !holds {
            meta.print = Fingerprint::default();
        }
        meta
    }

    fn fill(
        &self,
        fd: BorrowedFd<'_>,
        content: &[u8],
        taken: &Taken,
        want: &Want,
    ) -> Result<Meta, Errno> {
        let sparse = taken.meta.as_ref().is_some_and(is_sparse);
        write_content(fd, content, 0, sparse)?;
        if sparse {
            retry(|| fs::ftruncate(fd, content.len() as u64))?;
        }
        self.shop.finish(fd, want)
    }

    /// Write a file into staging whole: its number there and what it is then.
    pub fn stage_whole(
        &mut self,
        taken: &Taken,
        want: &Want,
    ) -> Option<(u64, Fingerprint, OwnedFd)> {
        let staging = Bench {
            dir: self.shop.options.staging,
            own: false,
        };
        let fresh = self.prepare(staging, taken, want).ok()?;
        Some((fresh.number, fresh.written?, fresh.fd?))
    }

    /// Make a new entry under a temporary name.
    fn prepare<'p>(
        &mut self,
        bench: Bench<'p>,
        taken: &Taken,
        want: &Want,
    ) -> Result<Fresh<'p>, Miss> {
        let shop = self.shop;
        if let (Load::Whole(number, print), false) = (&taken.load, bench.own) {
            return Ok(Fresh {
                dir: bench.dir,
                name: new_name(*number),
                number: *number,
                fd: None,
                written: Some(*print),
            });
        }
        if let (Load::Staged(number), false) = (&taken.load, bench.own) {
            let name = new_name(*number);
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = retry(|| fs::openat(bench.dir, name.as_slice(), flags, Mode::empty()))
                .map_err(missed("stage"))?;
            let meta = shop.finish(fd.as_fd(), want).map_err(missed("stage"))?;
            return Ok(Fresh {
                dir: bench.dir,
                name,
                number: *number,
                fd: Some(fd),
                written: Some(meta.print),
            });
        }
        loop {
            let number = shop.number();
            let mut fresh = Fresh {
                dir: bench.dir,
                name: bench.new_name(number),
                number,
                fd: None,
                written: None,
            };
            let made = match &taken.link {
                Some(text) => {
                    retry(|| fs::symlinkat(text.bytes(), fresh.dir, fresh.name.as_slice()))
                }
                None => {
                    let mode = Mode::from_raw_mode(want.mode & 0o777);
                    retry(|| {
                        fs::openat(
                            fresh.dir,
                            fresh.name.as_slice(),
                            CREATE | OFlags::WRONLY,
                            mode,
                        )
                    })
                    .map(|fd| fresh.fd = Some(fd))
                }
            };
            match made {
                Ok(()) => {}
                Err(Errno::EXIST) => continue, // left by a call that was killed
                Err(errno) => return Err(missed("write")(errno)),
            }
            let filled = match (&fresh.fd, &taken.load) {
                (Some(fd), Load::Memory(content)) => {
                    self.fill(fd.as_fd(), content, taken, want).map(Some)
                }
                (Some(fd), Load::Staged(number) | Load::Whole(number, _)) => {
                    self.copy_staged(*number, fd.as_fd(), want).map(Some)
                }
                (Some(fd), Load::Nothing) => shop.finish(fd.as_fd(), want).map(Some),
                (None, _) => stat_at(fresh.dir, &fresh.name, false)
                    .and_then(|meta| shop.finish_link(fresh.dir, &fresh.name, want, &meta))
                    .map(|_| None), // a link is never written, only replaced
            };
            return match filled {
                Ok(meta) => {
                    fresh.written = meta.map(|meta| meta.print);
                    Ok(fresh)
                }
                Err(errno) => {
                    fresh.discard();
                    Err(missed("write")(errno))
                }
            };
        }
    }

    /// Copy a staged file to another mount.
    fn copy_staged(&mut self, number: u64, to: BorrowedFd<'_>, want: &Want) -> Result<Meta, Errno> {
        let shop = self.shop;
        let name = new_name(number);
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from =
            retry(|| fs::openat(shop.options.staging, name.as_slice(), flags, Mode::empty()))?;
        let meta = stat_fd(from.as_fd())?;
        copy_file(from.as_fd(), &meta, to, shop, &mut self.buffer).map_err(errno_of)?;
        let meta = shop.finish(to, want)?;
        let _ = fs::unlinkat(shop.options.staging, name.as_slice(), AtFlags::empty());
        Ok(meta)
    }
}

/// The number of what kept a copy from being made.
pub fn errno_of(unread: Unread) -> Errno {
    match unread {
        Unread::Failed(errno) | Unread::Unwritten(errno) => errno,
        Unread::Cancelled => Errno::CANCELED,
        Unread::Absent | Unread::Busy => Errno::AGAIN,
    }
}
