//! Reading files so that no torn content is taken for whole.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, Mode, OFlags};
use rustix::io::{self, Errno};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::control::Control;
use crate::dirs::{retry, stat_fd};
use crate::entry::{Digest, Fingerprint, Kind, Meta};
use crate::error::means_absent;
use crate::sys::probe_lease;

/// Bytes read at once.
pub const CHUNK: usize = 256 << 10;

/// Bytes after which a call looks whether it was cancelled.
pub const BETWEEN_LOOKS: u64 = 8 << 20;

/// Only of what was pinned, so a link is no danger.
const READING: OFlags = OFlags::NONBLOCK
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOCTTY);

/// Holds an entry without opening it.
const PINNING: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Why a file has no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// No regular file is there.
    Absent,
    /// Somebody writes it, or may have.
    Busy,
    /// The call was cancelled.
    Cancelled,
    /// It could not be read.
    Failed(Errno),
    /// What it was copied to could not be written.
    Unwritten(Errno),
}

impl From<Errno> for Unread {
    fn from(errno: Errno) -> Self {
        if means_absent(errno) {
            Unread::Absent
        } else {
            Unread::Failed(errno)
        }
    }
}

/// A file that is open for reading and proved to be regular.
#[derive(Debug)]
pub struct Open {
    /// The descriptor.
    pub fd: OwnedFd,
    /// What it was when it was opened.
    pub meta: Meta,
    lease: Result<(), Errno>,
}

impl Open {
    /// Open the file at a name, or (`seen`) only the one that was seen there. Anything else is not opened
    /// at all, whoever exchanges names meanwhile: opening a FIFO tells its writer, and a hard link may be
    /// a file from anywhere. So the entry is pinned, judged, and opened by its descriptor.
    ///
    /// `patient`: it may be open for writing; the caller reads it again later (see `close`).
    pub fn at(
        dir: BorrowedFd<'_>,
        name: &[u8],
        seen: Option<&Fingerprint>,
        patient: bool,
    ) -> Result<Open, Unread> {
        let pin = retry(|| fs::openat(dir, name, PINNING, Mode::empty()))?;
        let mut meta = stat_fd(pin.as_fd())?;
        if meta.kind() != Kind::File || seen.is_some_and(|seen| *seen != meta.print) {
            return Err(Unread::Absent);
        }
        let fd = open_to_read(pin.as_fd())?;
        let lease = probe_lease(fd.as_fd());
        match lease {
            Ok(()) => {} // granted to regular files only
            Err(Errno::AGAIN) if !patient => return Err(Unread::Busy),
            Err(_) => {
                meta = stat_fd(fd.as_fd())?;
                if meta.kind() != Kind::File {
                    return Err(Unread::Absent);
                }
            }
        }
        Ok(Open { fd, meta, lease })
    }

    /// What the file is now that it was read, and whether somebody holds it open for writing (only
    /// if `patient`: it is to be read again later). Busy if it may have been written meanwhile.
    ///
    /// Equal times alone prove nothing: they are stamped when a write begins. `again` reads once more
    /// where leases are refused, and tells whether that came to the same.
    pub fn close(
        self,
        patient: bool,
        again: impl FnOnce(&Open) -> Result<bool, Unread>,
    ) -> Result<(Meta, bool), Unread> {
        let leases = [self.lease, probe_lease(self.fd.as_fd())];
        let held = leases.contains(&Err(Errno::AGAIN));
        let agrees = if held {
            patient
        } else {
            leases == [Ok(()); 2] || again(&self)?
        };
        if !agrees {
            return Err(Unread::Busy);
        }
        let after = stat_fd(self.fd.as_fd())?;
        let (then, now) = (&self.meta, &after);
        let same = then.print.inode == now.print.inode
            && then.device == now.device
            && then.print.ctime == now.print.ctime
            && then.print.size == now.print.size;
        if same {
            Ok((after, held))
        } else {
            Err(Unread::Busy)
        }
    }
}

/// Open just what a descriptor holds.
pub fn reopen(pin: BorrowedFd<'_>, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", pin.as_raw_fd());
    retry(|| fs::open(&path, flags, Mode::empty()))
}

/// The same for reading. Its access time stays, where that may be asked for: that is the user's, and noting it would cost
/// a write for each file read.
pub fn open_to_read(pin: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    match reopen(pin, READING | OFlags::NOATIME) {
        Err(Errno::PERM) => reopen(pin, READING), // somebody else's
        done => done,
    }
}

/// The digest of bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    xxh3_128(bytes).to_be_bytes()
}

/// Read a file of the size it had when it was opened; Busy if it has another by now.
pub fn read_small(file: &Open, buffer: &mut Vec<u8>, control: &Control) -> Result<(), Unread> {
    let size = usize::try_from(file.meta.print.size).map_err(|_| Unread::Failed(Errno::FBIG))?;
    buffer.clear();
    buffer.resize(size + 1, 0); // one more tells the end without another read
    let mut filled = 0;
    while filled <= size {
        let read = retry(|| io::pread(&file.fd, &mut buffer[filled..], filled as u64))?;
        filled += read;
        if read == 0 || filled == size {
            break;
        }
    }
    if filled != size {
        return Err(Unread::Busy);
    }
    buffer.truncate(size);
    control.add_bytes(size as u64);
    Ok(())
}

/// The digest of an open file, read from its start.
pub fn hash(fd: BorrowedFd<'_>, buffer: &mut Vec<u8>, control: &Control) -> Result<Digest, Unread> {
    let mut state = Xxh3::new();
    each_chunk(fd, buffer, control, |chunk, _| {
        state.update(chunk);
        Ok(())
    })?;
    Ok(state.digest128().to_be_bytes())
}

/// Give each piece of an open file, and where it stands, to `take`.
pub fn each_chunk(
    fd: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    control: &Control,
    mut take: impl FnMut(&[u8], u64) -> Result<(), Unread>,
) -> Result<u64, Unread> {
    buffer.clear();
    buffer.resize(CHUNK, 0);
    let mut offset = 0;
    let mut next_look = BETWEEN_LOOKS;
    loop {
        let read = retry(|| io::pread(fd, &mut buffer[..], offset)).map_err(Unread::Failed)?;
        if read == 0 {
            return Ok(offset);
        }
        take(buffer.get(..read).unwrap_or_default(), offset)?;
        offset += read as u64;
        control.add_bytes(read as u64);
        if offset >= next_look {
            next_look = offset + BETWEEN_LOOKS;
            if control.is_cancelled() {
                return Err(Unread::Cancelled);
            }
        }
    }
}

/// The digest of the file at a name (see `Open::at`), and what the file was when it was read.
pub fn hash_at(
    dir: BorrowedFd<'_>,
    name: &[u8],
    seen: Option<&Fingerprint>,
    buffer: &mut Vec<u8>,
    control: &Control,
) -> Result<(Digest, Meta), Unread> {
    let file = Open::at(dir, name, seen, false)?;
    let digest = if file.meta.print.size < CHUNK as u64 {
        read_small(&file, buffer, control)?;
        digest_of(buffer)
    } else {
        hash(file.fd.as_fd(), buffer, control)?
    };
    let (meta, _) = file.close(false, |file| {
        Ok(hash(file.fd.as_fd(), buffer, control)? == digest)
    })?;
    Ok((digest, meta))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dirs::Root;
    use crate::testing::Scratch;

    #[test]
    fn digests_and_refusals() {
        crate::sys::ignore_sigio();
        let scratch = Scratch::new();
        let path = |name: &str| scratch.path().join(name);
        let large = vec![7u8; CHUNK * 3 + 5];
        std::fs::write(path("large"), &large).unwrap();
        std::fs::write(path("empty"), "").unwrap();
        std::os::unix::fs::symlink("large", path("link")).unwrap();
        fs::mknodat(
            fs::CWD,
            path("fifo"),
            fs::FileType::Fifo,
            Mode::from(0o600),
            0,
        )
        .unwrap();
        let root = Root::open(scratch.path().as_os_str().as_encoded_bytes()).unwrap();
        let control = Control::default();
        let mut buffer = Vec::new();
        let mut of = |name: &[u8]| {
            hash_at(root.fd(), name, None, &mut buffer, &control).map(|(digest, _)| digest)
        };
        assert_eq!(of(b"large"), Ok(digest_of(&large)));
        assert_eq!(of(b"empty"), Ok(digest_of(b"")));
        for name in [&b"link"[..], b"fifo", b"missing"] {
            assert_eq!(of(name), Err(Unread::Absent));
        }
        let writer = std::fs::OpenOptions::new()
            .append(true)
            .open(path("large"))
            .unwrap();
        assert_eq!(of(b"large"), Err(Unread::Busy));
        drop(writer);
    }
}
