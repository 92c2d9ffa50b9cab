//! Look: what one `lstat` of a scan comes to.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::control::Control;
use crate::dirs::{Root, read_link, stat_at};
use crate::entry::{Agreed, Kind, Meta, Seen, Side, Text};
use crate::error::Trouble;
use crate::exclude::Excluder;

/// What one scan goes by.
#[derive(Clone, Copy)]
pub struct Ways<'a> {
    /// The root that is read.
    pub root: &'a Root,
    /// What is passed over.
    pub rules: &'a dyn Excluder,
    /// Whose root it is.
    pub side: Side,
    /// Cancelling and counting.
    pub control: &'a Control,
    /// Ask the files' server.
    pub force: bool,
    /// Who is told of the directories on the way, if anybody.
    pub visitor: Option<&'a dyn Visitor>,
    /// Files that changed at this time or later (nanoseconds since 1970) are in doubt, whatever their fingerprints say.
    pub doubtful: i64,
}

/// What a visitor knows a directory by, or why it does not.
pub type Mark = std::result::Result<i32, Errno>;

/// Goes along with a walk over everything. Several threads may call it.
pub trait Visitor: Sync {
    /// `dir` is open and about to be listed; it stands at `path`, in the directory that it knows by `above`.
    fn enter(&self, above: Mark, dir: BorrowedFd<'_>, path: &[u8]) -> Mark;

    /// A directory could not be looked into, in the one that it knows by `above`.
    fn miss(&self, above: Mark, path: &[u8], errno: Errno);
}

/// Above the root.
pub const TOP: Mark = Ok(0);

/// Files that changed within so many nanoseconds are in doubt when they are named.
pub const RECENT: i64 = 5_000_000_000;

impl Ways<'_> {
    /// Trouble of this scan.
    pub fn trouble(&self, path: &[u8], errno: Errno, op: &'static str) -> Trouble {
        Trouble {
            path: path.into(),
            errno,
            op,
            side: self.side,
        }
    }

    /// What stands at a name. Link texts are read; a digest is taken over from `known`.
    pub fn look(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        known: Option<&Agreed>,
    ) -> rustix::io::Result<(Seen, Meta)> {
        for _ in 0..4 {
            let meta = stat_at(dir, name, self.force)?;
            let mut seen = Seen::new(&meta);
            if seen.kind == Kind::Link {
                match read_link(dir, name) {
                    Ok(text) => seen.link = Some(Text::new(&text)),
                    Err(Errno::INVAL | Errno::NOENT) => continue, // another thing by now
                    Err(errno) => return Err(errno),
                }
            }
            if let Some(known) = known {
                if seen.kind == Kind::File
                    && known.kind == Kind::File
                    && known.print(self.side) == seen.print
                    && seen.print.ctime < self.doubtful
                {
                    seen.digest = known.digest();
                }
            }
            return Ok((seen, meta));
        }
        Err(Errno::AGAIN)
    }

    /// Mark a directory on another device than the one above it. An error: it was a mount point when the
    /// baseline was written and is none now, so what was in it is not gone but out of sight.
    pub fn judge_mount(
        &self,
        seen: &mut Seen,
        device: u64,
        above: u64,
        known: Option<&Agreed>,
    ) -> Result<(), Errno> {
        seen.mount = device != above;
        let lost = self.side == Side::Source && !seen.mount && known.is_some_and(|row| row.mount);
        if lost { Err(Errno::NODEV) } else { Ok(()) }
    }
}
