//! In place: new content written into the old file, where nobody can see it torn.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, FallocateFlags, Mode, OFlags};
use rustix::io::{self, Errno};

use super::attributes::{Want, times};
use super::beside::{Spot, errno_of};
use super::prepare::discard;
use super::shop::{Halt, Hand, Placed, failed, new_name};
use super::take::{Load, SMALL, Taken, write_content};
use super::{Write, crash};
use crate::control::Control;
use crate::dirs::{retry, stat_fd};
use crate::entry::{Agreed, Content, Fingerprint, Kind, Meta, Seen, Side, equal};
use crate::read::{Unread, each_chunk, open_to_read, reopen};
use crate::sys::probe_lease;

impl Hand<'_> {
    /// Write a file's new content into the old file. None: that is not to be done here.
    pub fn put_in_place(
        &mut self,
        spot: Spot<'_>,
        target: &Seen,
        base: Option<&Agreed>,
        taken: &Taken,
        want: &Want,
    ) -> Option<Placed<Meta>> {
        let size = self.suits(target, base, taken, want)?;
        let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
        let through = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Pinned, judged and opened by its descriptor: whatever has its name by now is not touched.
        let pin = retry(|| fs::openat(spot.dir, spot.name, through, Mode::empty())).ok()?;
        match stat_fd(pin.as_fd()) {
            Ok(meta) if meta.print == target.print && meta.links == 1 => {}
            Ok(meta) if meta.print == target.print => return None,
            _ => return Some(Err(Halt::Changed)),
        }
        let reader = open_to_read(pin.as_fd()).ok()?;
        probe_lease(reader.as_fd()).ok()?; // somebody has it open for writing
        let fd = reopen(pin.as_fd(), flags | OFlags::WRONLY).ok()?;
        let blocks = match stat_fd(fd.as_fd()) {
            Ok(meta) if meta.print != target.print => return Some(Err(Halt::Changed)),
            Ok(meta) if meta.links == 1 && want.owner.is_none_or(|owner| owner == meta.owner()) => {
                meta.blocks
            }
            _ => return None,
        };
        if size > target.print.size && size > blocks.saturating_mul(512) {
            retry(|| fs::fallocate(&fd, FallocateFlags::KEEP_SIZE, 0, size)).ok()?;
        }
        Some(
            match self.overwrite(fd.as_fd(), target.print.size, taken, want) {
                Ok(meta) => Ok(self.holding(reader.as_fd(), meta, taken)),
                Err(errno) => self.mend(spot, fd, taken, want, errno),
            },
        )
    }

    /// The new size, if a file may be written in place as far as can be told without looking.
    fn suits(
        &self,
        target: &Seen,
        base: Option<&Agreed>,
        taken: &Taken,
        want: &Want,
    ) -> Option<u64> {
        let size = taken.meta?.print.size;
        let agreed = equal(Some(Content::from(target)), base.map(Content::from));
        let suits = target.kind == Kind::File
            && taken.link.is_none()
            && agreed
            && self.fits_in_place(&target.print, taken, want);
        suits.then_some(size)
    }

    /// Whether what was taken may be written into an agreed file with this fingerprint.
    pub fn fits_in_place(&self, print: &Fingerprint, taken: &Taken, want: &Want) -> bool {
        let auto = match self.shop.options.write {
            Write::Replace => return false,
            Write::Auto => true,
            Write::InPlace => false,
        };
        let Some(size) = taken.meta.map(|meta| meta.print.size) else {
            return false;
        };
        let fits =
            size <= SMALL && print.size <= SMALL && size >= print.size && print.mode & 0o111 == 0;
        let memory = matches!(taken.load, Load::Memory(_));
        print.mode & 0o7777 == want.mode && (!auto || fits && memory)
    }

    fn overwrite(
        &mut self,
        fd: BorrowedFd<'_>,
        old: u64,
        taken: &Taken,
        want: &Want,
    ) -> Result<Meta, Errno> {
        let shop = self.shop;
        let size = match &taken.load {
            Load::Memory(content) => {
                if retry(|| io::pwrite(fd, content, 0))? != content.len() {
                    return Err(Errno::NOSPC);
                }
                content.len() as u64
            }
            Load::Staged(number) | Load::Whole(number, _) => {
                let name = new_name(*number);
                let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let from = retry(|| {
                    fs::openat(shop.options.staging, name.as_slice(), flags, Mode::empty())
                })?;
                let write = |chunk: &[u8], offset| {
                    write_content(fd, chunk, offset, false).map_err(Unread::Unwritten)
                };
                each_chunk(from.as_fd(), &mut self.buffer, &Control::default(), write)
                    .map_err(errno_of)?
            }
            Load::Nothing => return Err(Errno::INVAL),
        };
        if old > size {
            retry(|| fs::ftruncate(fd, size))?;
        }
        crash::pass("publish-inplace");
        retry(|| fs::futimens(fd, &times(want.mtime)))?;
        discard(shop.options.staging, taken);
        stat_fd(fd)
    }

    /// Finish beside what was begun in place.
    fn mend(
        &mut self,
        spot: Spot<'_>,
        fd: OwnedFd,
        taken: &Taken,
        want: &Want,
        errno: Errno,
    ) -> Placed<Meta> {
        let torn = stat_fd(fd.as_fd());
        drop(fd); // or it would look as if somebody else held the file open
        let mended = match torn {
            Ok(meta) => self.put_over(spot, &meta.print, taken, want),
            Err(errno) => Err(failed("stat")(errno)),
        };
        mended.map_err(|halt| {
            let errno = match halt {
                Halt::Stop(errno) => {
                    self.shop.stop(errno);
                    errno
                }
                Halt::Failed(errno, ..) => errno,
                _ => errno,
            };
            Halt::Failed(errno, "torn", Side::Target)
        })
    }
}
