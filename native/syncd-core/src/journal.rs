//! Frames and rows of checkpoints and journals: see `save_tree` in the contract.

use std::os::fd::BorrowedFd;

use rustix::fs;
use rustix::io::{self, Errno};
use xxhash_rust::xxh3::xxh3_64;

use crate::base::Row;
use crate::dirs::retry;
use crate::entry::{Agreed, Fingerprint, Kind, Text};
use crate::error::{Error, Result};
use crate::path;

/// What every state file starts with.
pub const MAGIC: &[u8; 8] = b"SYNCDB1\n";

/// Length and checksum before each payload.
pub const HEAD: usize = 12;

/// What a batch was about to make of a path when it was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Where.
    pub path: Box<[u8]>,
    /// None = remove it.
    pub entry: Option<Agreed>,
}

/// A frame that is being written.
#[derive(Debug)]
pub struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    /// A frame of a kind: `N`, `I`, `O` or `E`.
    pub fn new(kind: u8) -> Self {
        let mut bytes = vec![0; HEAD];
        bytes.push(kind);
        Frame { bytes }
    }

    /// Add bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Add a row; None drops the path.
    pub fn row(&mut self, path: &[u8], row: Option<&Agreed>) {
        let out = &mut self.bytes;
        counted(out, path);
        let nothing = Fingerprint::default();
        let (kind, flags, mode, mtime, digest) = row.map_or((0, 0, 0, 0, [0; 16]), |row| {
            let flags = u8::from(row.shared) | u8::from(row.mount) << 1;
            (
                row.kind as u8,
                flags,
                row.mode,
                row.mtime,
                row.digest().unwrap_or_default(),
            )
        });
        out.extend_from_slice(&[kind, flags]);
        out.extend_from_slice(&mode.to_le_bytes());
        out.extend_from_slice(&mtime.to_le_bytes());
        out.extend_from_slice(&digest);
        let (source, target) = row.map_or((nothing, nothing), |row| (row.source(), row.target()));
        for print in [source, target] {
            out.extend_from_slice(&print.size.to_le_bytes());
            out.extend_from_slice(&print.mtime.to_le_bytes());
            out.extend_from_slice(&print.ctime.to_le_bytes());
            out.extend_from_slice(&print.inode.to_le_bytes());
            out.extend_from_slice(&print.mode.to_le_bytes());
        }
        counted(
            out,
            row.and_then(|row| row.link.as_deref())
                .map_or(&[], Text::bytes),
        );
    }

    /// The bytes of the frame, or None if it is longer than a frame can be.
    pub fn finish(mut self) -> Option<Vec<u8>> {
        let payload = self.bytes.get(HEAD..)?;
        let (length, sum) = (u32::try_from(payload.len()).ok()?, xxh3_64(payload));
        self.bytes
            .get_mut(..4)?
            .copy_from_slice(&length.to_le_bytes());
        self.bytes
            .get_mut(4..HEAD)?
            .copy_from_slice(&sum.to_le_bytes());
        Some(self.bytes)
    }
}

fn counted(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX); // no path or link text comes near it
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Append a frame to a journal in one write. If that fails or is cut short, the journal is as before.
pub fn append(journal: BorrowedFd<'_>, frame: Frame) -> Result<()> {
    let failed = |errno| Error::new(errno, "journal");
    let Some(bytes) = frame.finish() else {
        return Err(failed(Errno::FBIG));
    };
    let size = retry(|| fs::fstat(journal)).map_err(failed)?.st_size;
    let data = if size == 0 {
        [&MAGIC[..], &bytes].concat()
    } else {
        bytes
    };
    let written = retry(|| io::write(journal, &data));
    if written == Ok(data.len()) {
        return Ok(());
    }
    if written.is_ok_and(|written| written > 0) {
        // What was cut off would hide all that is written after it.
        let _ = fs::ftruncate(journal, size.max(0) as u64);
    }
    Err(failed(written.err().unwrap_or(Errno::NOSPC)))
}

/// A frame that was cut off, fails its checksum, or says what no frame says.
#[derive(Debug, PartialEq, Eq)]
pub struct Bad;

/// Reads the fields of a payload.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> std::result::Result<&'a [u8], Bad> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Bad)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> std::result::Result<[u8; N], Bad> {
        self.take(N)?.try_into().map_err(|_| Bad)
    }

    fn number(&mut self) -> std::result::Result<u64, Bad> {
        self.array().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> std::result::Result<i64, Bad> {
        self.array().map(i64::from_le_bytes)
    }

    fn counted(&mut self) -> std::result::Result<&'a [u8], Bad> {
        let length = u32::from_le_bytes(self.array()?);
        self.take(usize::try_from(length).map_err(|_| Bad)?)
    }

    fn print(&mut self) -> std::result::Result<Fingerprint, Bad> {
        Ok(Fingerprint {
            size: self.number()?,
            mtime: self.time()?,
            ctime: self.time()?,
            inode: self.number()?,
            mode: u32::from_le_bytes(self.array()?),
        })
    }

    fn row(&mut self) -> std::result::Result<Row, Bad> {
        let path = self.counted()?;
        let [kind, flags] = self.array()?;
        let mode = u16::from_le_bytes(self.array()?);
        let mtime = self.time()?;
        let digest = self.array()?;
        let (source, target) = (self.print()?, self.print()?);
        let link = self.counted()?;
        if !path::is_valid(path) {
            return Err(Bad);
        }
        let kind = match (kind, Kind::from_number(kind)) {
            (0, _) => return Ok((path.into(), None)),
            (_, Some(kind)) if kind != Kind::Other => kind,
            _ => return Err(Bad),
        };
        let row = Agreed::new(kind, mode, mtime, &source, &target)
            .with_digest((kind == Kind::File).then_some(digest))
            .with_link((kind == Kind::Link).then(|| Text::new(link)))
            .with_flags(flags & 1 != 0, flags & 2 != 0);
        Ok((path.into(), Some(row)))
    }
}

/// The rows of a frame's body.
pub fn rows(body: &[u8]) -> std::result::Result<Vec<Row>, Bad> {
    let mut fields = Fields(body);
    let mut rows = Vec::new();
    while !fields.0.is_empty() {
        rows.push(fields.row()?);
    }
    Ok(rows)
}

/// Reads the frames of a state file, one at a time.
pub struct Reader<'a> {
    fd: BorrowedFd<'a>,
    offset: u64,
    size: u64,
    payload: Vec<u8>,
}

/// What a read of frames came to.
pub type Step<T> = Result<std::result::Result<T, Bad>>;

impl<'a> Reader<'a> {
    /// Begin with a file, whose size is taken now.
    pub fn new(fd: BorrowedFd<'a>) -> Result<Self> {
        let stat = retry(|| fs::fstat(fd)).map_err(|errno| Error::new(errno, "load"))?;
        let size = stat.st_size.max(0) as u64;
        Ok(Reader {
            fd,
            offset: 0,
            size,
            payload: Vec::new(),
        })
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Pass the first bytes, which every file starts with.
    pub fn magic(&mut self) -> Step<()> {
        let mut magic = [0; MAGIC.len()];
        let whole = self.fill(&mut magic)?;
        Ok(if whole && &magic == MAGIC {
            Ok(())
        } else {
            Err(Bad)
        })
    }

    /// The kind and body of the next frame. None at the end of the file.
    pub fn frame(&mut self) -> Step<Option<(u8, &[u8])>> {
        if self.offset >= self.size {
            return Ok(Ok(None));
        }
        let mut head = [0; HEAD];
        if !self.fill(&mut head)? {
            return Ok(Err(Bad));
        }
        let [a, b, c, d, sum @ ..] = head;
        let length = u32::from_le_bytes([a, b, c, d]);
        if u64::from(length) > self.size.saturating_sub(self.offset) {
            return Ok(Err(Bad));
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        payload.resize(length as usize, 0);
        let whole = self.fill(&mut payload)?;
        self.payload = payload;
        if !whole || xxh3_64(&self.payload) != u64::from_le_bytes(sum) {
            return Ok(Err(Bad));
        }
        Ok(self
            .payload
            .split_first()
            .map(|(kind, body)| Some((*kind, body)))
            .ok_or(Bad))
    }

    /// Fill all of `buffer`. False: the file ends before.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = buffer.get_mut(filled..).unwrap_or_default();
            let read = retry(|| io::pread(self.fd, &mut *rest, self.offset));
            match read.map_err(|errno| Error::new(errno, "load"))? {
                0 => return Ok(false),
                read => {
                    filled += read;
                    self.offset += read as u64;
                }
            }
        }
        Ok(true)
    }
}
