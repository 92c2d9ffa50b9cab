//! Take: read every source entry to be put, before the target is touched.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::fs::{self, AtFlags, Mode, OFlags, SeekFrom};
use rustix::io::{self, Errno};

use super::shop::{CREATE, Halt, Hand, Shop, new_name};
use super::{End, crash};
use crate::actions::{Action, Verb};
use crate::control::Control;
use crate::dirs::{read_link, retry, stat_at, stat_fd};
use crate::entry::{Content, Digest, Fingerprint, Kind, Meta, Seen, Side, Text, equal};
use crate::error::{means_absent, stops_slice};
use crate::read::{CHUNK, Open, Unread, digest_of, each_chunk, hash, read_small};

/// A file of at most this size is held in memory, may be created directly and written in place.
pub const SMALL: u64 = 128 << 10;

/// Between two reads of a file that somebody holds open for writing.
const PAUSE: Duration = Duration::from_millis(30);

/// Blocks of zeros of this size are left out of files with holes.
const BLOCK: usize = 4096;

/// What was taken of a source entry.
#[derive(Debug)]
pub struct Taken {
    /// What the source is. None: nothing was to be taken.
    pub meta: Option<Meta>,
    /// A file's digest.
    pub digest: Option<Digest>,
    /// A link's text.
    pub link: Option<Box<Text>>,
    /// A file's content.
    pub load: Load,
    /// A directory that is a mount point.
    pub mount: bool,
    /// The target holds it already: only mode and time are written.
    pub same: bool,
    /// Somebody holds the file open for writing: it is to be read once more.
    pub held: bool,
}

/// Where content is.
#[derive(Debug)]
pub enum Load {
    /// There is none.
    Nothing,
    /// In memory.
    Memory(Vec<u8>),
    /// In staging, as `new-N`.
    Staged(u64),
    /// In staging, with this fingerprint, and nothing is left to be done to it.
    Whole(u64, Fingerprint),
}

impl Load {
    /// The number of the file in staging.
    pub fn staged(&self) -> Option<u64> {
        match self {
            Load::Staged(number) | Load::Whole(number, _) => Some(*number),
            _ => None,
        }
    }
}

/// Nothing.
pub const NOTHING: Taken = Taken {
    meta: None,
    digest: None,
    link: None,
    load: Load::Nothing,
    mount: false,
    same: false,
    held: false,
};

/// Take the source's entry of an action, if it has one. None: the slice is over before it.
pub fn take(action: &Action<'_>, hand: &mut Hand<'_>) -> Option<Result<Taken, End>> {
    let shop = hand.shop;
    if shop.control.is_cancelled() || shop.stopped().is_some() && !action.removes() {
        return None;
    }
    let (Some(source), false) = (action.item.source.as_deref(), action.removes()) else {
        return Some(Ok(NOTHING));
    };
    let taken = match (source.kind, action.verb) {
        (Kind::File, Verb::Put | Verb::Replace) => take_file(action, hand),
        (Kind::Link, Verb::Put | Verb::Replace) => take_link(action, hand),
        _ => take_as_seen(action, source, hand),
    };
    match taken {
        Ok(taken) => {
            crash::pass("take");
            Some(Ok(taken))
        }
        Err(halt) => shop.end(halt).map(Err),
    }
}

fn source_failed(errno: Errno) -> Halt {
    if means_absent(errno) {
        Halt::Vanished
    } else {
        Halt::Failed(errno, "read", Side::Source)
    }
}

/// What is recorded, and directories, count as the scan saw them: a directory's time has to be that
/// of its listing. Only whether the entry is still there is looked at.
fn take_as_seen(action: &Action<'_>, source: &Seen, hand: &mut Hand<'_>) -> Result<Taken, Halt> {
    let (dir, name) = hand.source.parent(action.path).map_err(source_failed)?;
    let mut meta = stat_at(dir.as_fd(), name, false).map_err(source_failed)?;
    if meta.kind() != source.kind {
        return Err(Halt::Vanished);
    }
    meta.print = source.print;
    let record = action.verb == Verb::Record;
    let (digest, link) = (source.digest, source.link.clone());
    Ok(Taken {
        meta: Some(meta),
        digest,
        link,
        mount: source.mount,
        same: record,
        ..NOTHING
    })
}

fn take_link(action: &Action<'_>, hand: &mut Hand<'_>) -> Result<Taken, Halt> {
    let (dir, name) = hand.source.parent(action.path).map_err(source_failed)?;
    for _ in 0..4 {
        let meta = stat_at(dir.as_fd(), name, false).map_err(source_failed)?;
        if meta.kind() != Kind::Link {
            return Err(Halt::Vanished);
        }
        let text = read_link(dir.as_fd(), name).map_err(|errno| match errno {
            Errno::INVAL => Halt::Vanished,
            errno => source_failed(errno),
        })?;
        // A link's text never changes, but another link may take its name.
        if stat_at(dir.as_fd(), name, false).is_ok_and(|after| after.print == meta.print) {
            let link = Some(Text::new(&text));
            return Ok(Taken {
                meta: Some(meta),
                link,
                ..NOTHING
            });
        }
    }
    Err(Halt::Busy)
}

/// Read a source file.
pub(super) fn take_file(action: &Action<'_>, hand: &mut Hand<'_>) -> Result<Taken, Halt> {
    let shop = hand.shop;
    let seen = action.item.source.as_deref();
    if let Some(taken) = seen.and_then(|seen| shop.prepared(action.path, seen)) {
        return Ok(taken);
    }
    let (dir, name) = hand.source.parent(action.path).map_err(source_failed)?;
    let patient = shop.options.patient;
    let file = Open::at(dir.as_fd(), name, None, patient).map_err(unread)?;
    let size = file.meta.print.size;
    let (load, digest) = if size <= SMALL && shop.claim(size) {
        let mut content = Vec::new();
        read_small(&file, &mut content, shop.control).map_err(unread)?;
        let digest = digest_of(&content);
        (Load::Memory(content), digest)
    } else {
        let (number, digest) = stage(&file, hand)?;
        (Load::Staged(number), digest)
    };
    let buffer = &mut hand.buffer;
    let again = |file: &Open| Ok(hash(file.fd.as_fd(), buffer, shop.control)? == digest);
    let mut taken = Taken {
        load,
        digest: Some(digest),
        ..NOTHING
    };
    match file.close(patient, again) {
        Ok((meta, held)) => (taken.meta, taken.held) = (Some(meta), held),
        Err(halt) => {
            shop.discard([&taken].into_iter());
            return Err(unread(halt));
        }
    }
    let (base, target) = (action.item.base.as_deref(), action.item.target.as_deref());
    let agreed = base.is_some_and(|row| row.kind == Kind::File && row.digest() == Some(digest));
    if agreed
        && action.verb == Verb::Put
        && equal(base.map(Content::from), target.map(Content::from))
    {
        shop.discard([&taken].into_iter());
        (taken.load, taken.same) = (Load::Nothing, true);
    }
    Ok(taken)
}

/// Read once more the files that somebody holds open, after one pause for all of them.
pub fn take_held(
    shop: &Shop<'_>,
    slice: &[(usize, Action<'_>)],
    taken: &mut [Option<Result<Taken, End>>],
) {
    let is_held =
        |taken: &Option<Result<Taken, End>>| matches!(taken, Some(Ok(taken)) if taken.held);
    if !taken.iter().any(is_held) {
        return;
    }
    std::thread::sleep(PAUSE);
    let mut hand = Hand::new(shop);
    for ((_, action), place) in slice.iter().zip(taken) {
        let Some(Ok(held)) = place else { continue };
        if !held.held {
            continue;
        }
        if let Err(halt) = is_as_taken(action, held, &mut hand) {
            shop.discard([&*held].into_iter());
            *place = shop.end(halt).map(Err);
        }
    }
}

fn is_as_taken(action: &Action<'_>, held: &Taken, hand: &mut Hand<'_>) -> Result<(), Halt> {
    let (dir, name) = hand.source.parent(action.path).map_err(source_failed)?;
    let file = Open::at(dir.as_fd(), name, None, true).map_err(unread)?;
    let digest = hash(file.fd.as_fd(), &mut hand.buffer, hand.shop.control).map_err(unread)?;
    let print = stat_fd(file.fd.as_fd()).map_err(source_failed)?.print;
    let same = held.digest == Some(digest) && held.meta.is_some_and(|meta| meta.print == print);
    if same { Ok(()) } else { Err(Halt::Busy) }
}

fn unread(unread: Unread) -> Halt {
    match unread {
        Unread::Absent => Halt::Vanished,
        Unread::Busy => Halt::Busy,
        Unread::Cancelled => Halt::Cancelled,
        Unread::Failed(errno) => Halt::Failed(errno, "read", Side::Source),
        Unread::Unwritten(errno) if stops_slice(errno) => Halt::Stop(errno),
        Unread::Unwritten(errno) => Halt::Failed(errno, "stage", Side::Target),
    }
}

/// Copy an open file into staging; its number there and its digest.
fn stage(file: &Open, hand: &mut Hand<'_>) -> Result<(u64, Digest), Halt> {
    let shop = hand.shop;
    let staging = shop.options.staging;
    loop {
        let number = shop.number();
        let name = new_name(number);
        let created = retry(|| {
            fs::openat(
                staging,
                name.as_slice(),
                CREATE | OFlags::RDWR,
                Mode::from(0o600),
            )
        });
        let copy = match created {
            Ok(copy) => copy,
            Err(Errno::EXIST) => continue, // left by a call that was killed
            Err(errno) => return Err(unread(Unread::Unwritten(errno))),
        };
        return match copy_file(
            file.fd.as_fd(),
            &file.meta,
            copy.as_fd(),
            shop,
            &mut hand.buffer,
        ) {
            Ok(digest) => Ok((number, digest)),
            Err(halt) => {
                let _ = fs::unlinkat(staging, name.as_slice(), AtFlags::empty());
                Err(unread(halt))
            }
        };
    }
}

/// Copy a file's content into an empty one, holes as holes; the digest of the copy.
pub fn copy_file(
    from: BorrowedFd<'_>,
    meta: &Meta,
    to: BorrowedFd<'_>,
    shop: &Shop<'_>,
    buffer: &mut Vec<u8>,
) -> Result<Digest, Unread> {
    let size = meta.print.size;
    if shop.clones.is() {
        match fs::ioctl_ficlone(to, from) {
            Ok(()) => {
                shop.control.add_bytes(size);
                return hash(to, buffer, &Control::default());
            }
            Err(errno) if stops_slice(errno) => return Err(Unread::Unwritten(errno)),
            Err(Errno::TXTBSY | Errno::INTR) => {}
            Err(_) => shop.clones.lacks(),
        }
    }
    let sparse = is_sparse(meta);
    if shop.copies.is() && copy_ranges(from, size, sparse, to, shop)? {
        return hash(to, buffer, &Control::default());
    }
    let mut state = xxhash_rust::xxh3::Xxh3::new();
    let end = each_chunk(from, buffer, shop.control, |chunk, offset| {
        state.update(chunk);
        write_content(to, chunk, offset, sparse).map_err(Unread::Unwritten)
    })?;
    if end != size {
        return Err(Unread::Busy);
    }
    if sparse {
        retry(|| fs::ftruncate(to, size)).map_err(Unread::Unwritten)?;
    }
    Ok(state.digest128().to_be_bytes())
}

/// Let the kernel copy all that is no hole. False: it cannot, and nothing was written.
fn copy_ranges(
    from: BorrowedFd<'_>,
    size: u64,
    sparse: bool,
    to: BorrowedFd<'_>,
    shop: &Shop<'_>,
) -> Result<bool, Unread> {
    let mut offset = 0;
    let mut looked = 0;
    if sparse {
        retry(|| fs::ftruncate(to, size)).map_err(Unread::Unwritten)?;
    }
    while offset < size {
        let mut end = size;
        if sparse {
            offset = match fs::seek(from, SeekFrom::Data(offset)) {
                Ok(data) => data,
                Err(Errno::NXIO) => break, // only a hole is left
                Err(_) => offset,
            };
            end = fs::seek(from, SeekFrom::Hole(offset))
                .unwrap_or(size)
                .min(size);
        }
        while offset < end {
            let (mut read, mut write) = (offset, offset);
            let room =
                usize::try_from((end - offset).min(crate::read::BETWEEN_LOOKS)).unwrap_or(CHUNK);
            match fs::copy_file_range(from, Some(&mut read), to, Some(&mut write), room) {
                Ok(0) if offset == 0 => {
                    shop.copies.lacks(); // some filesystems say so of all their files
                    return Ok(false);
                }
                Ok(0) => return Err(Unread::Busy), // it became shorter
                Ok(copied) => {
                    offset += copied as u64;
                    looked += copied as u64;
                    shop.control.add_bytes(copied as u64);
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) if stops_slice(errno) => return Err(Unread::Unwritten(errno)),
                Err(_) => {
                    shop.copies.lacks();
                    return Ok(false); // what was copied is written once more
                }
            }
            if looked >= crate::read::BETWEEN_LOOKS {
                looked = 0;
                if shop.control.is_cancelled() {
                    return Err(Unread::Cancelled);
                }
            }
        }
    }
    Ok(true)
}

/// Whether a file has holes.
pub fn is_sparse(meta: &Meta) -> bool {
    meta.blocks.saturating_mul(512) < meta.print.size
}

/// Write content at an offset; if `sparse`, without its blocks of zeros.
pub fn write_content(
    fd: BorrowedFd<'_>,
    content: &[u8],
    offset: u64,
    sparse: bool,
) -> Result<(), Errno> {
    if !sparse {
        return write_all(fd, content, offset);
    }
    let is_zero = |block: &[u8]| block.iter().all(|&b| b == 0);
    for (number, block) in content.chunks(BLOCK).enumerate() {
        if !is_zero(block) {
            write_all(fd, block, offset + (number * BLOCK) as u64)?;
        }
    }
    Ok(())
}

/// Write all of `content` at an offset.
pub fn write_all(fd: BorrowedFd<'_>, mut content: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !content.is_empty() {
        let written = retry(|| io::pwrite(fd, content, offset))?;
        if written == 0 {
            return Err(Errno::IO);
        }
        content = content.get(written..).unwrap_or_default();
        offset += written as u64;
    }
    Ok(())
}
