//! State files: checkpoints and the journals after them.

use std::os::fd::BorrowedFd;

use rustix::io::{self, Errno};

use crate::base::{Base, Row};
use crate::dirs::retry;
use crate::entry::Agreed;
use crate::error::{Error, Result};
use crate::journal::{Bad, Frame, Intent, MAGIC, Reader, Step, append, rows};

const ROWS_A_FRAME: usize = 4096;

/// A baseline read back.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The rows.
    pub base: Base,
    /// The notes in the order of writing.
    pub notes: Vec<Vec<u8>>,
    /// Intents without outcomes.
    pub intents: Vec<Intent>,
    /// False: a record was cut off or failed its checksum.
    pub whole: bool,
}

/// Read a checkpoint and the journals after it, in order.
pub fn load_tree(fds: &[BorrowedFd<'_>]) -> Result<Loaded> {
    let mut loaded = Loaded {
        whole: true,
        ..Loaded::default()
    };
    for (number, fd) in fds.iter().enumerate() {
        let reader = Reader::new(*fd)?;
        let read = if number == 0 {
            checkpoint(reader, &mut loaded)?
        } else {
            journal(reader, &mut loaded)?
        };
        if read.is_err() {
            if number == 0 {
                loaded = Loaded::default();
            }
            loaded.whole = false;
            return Ok(loaded);
        }
    }
    Ok(loaded)
}

fn checkpoint(mut reader: Reader<'_>, loaded: &mut Loaded) -> Step<()> {
    if reader.magic()?.is_err() {
        return Ok(Err(Bad));
    }
    let (mut count, mut ended) = (0u64, false);
    loop {
        let (kind, body) = match reader.frame()? {
            Ok(None) => return Ok(if ended { Ok(()) } else { Err(Bad) }),
            Ok(Some(_)) if ended => return Ok(Err(Bad)),
            Ok(Some(frame)) => frame,
            Err(Bad) => return Ok(Err(Bad)),
        };
        match kind {
            b'N' => loaded.notes.push(body.to_vec()),
            b'O' => match rows(body) {
                Ok(rows) => {
                    count += rows.len() as u64;
                    for (path, row) in rows {
                        loaded.base.learn(&path, row);
                    }
                }
                Err(Bad) => return Ok(Err(Bad)),
            },
            b'E' if body == count.to_le_bytes() => ended = true,
            _ => return Ok(Err(Bad)),
        }
    }
}

fn journal(mut reader: Reader<'_>, loaded: &mut Loaded) -> Step<()> {
    if reader.is_empty() {
        return Ok(Ok(()));
    }
    if reader.magic()?.is_err() {
        return Ok(Err(Bad));
    }
    loop {
        let (kind, body) = match reader.frame()? {
            Ok(None) => return Ok(Ok(())),
            Ok(Some(frame)) => frame,
            Err(Bad) => return Ok(Err(Bad)),
        };
        match (kind, rows(if kind == b'N' { &[] } else { body })) {
            (b'N', _) => loaded.notes.push(body.to_vec()),
            (b'O', Ok(rows)) => {
                loaded.intents.clear();
                for (path, row) in rows {
                    loaded.base.learn(&path, row);
                }
            }
            (b'I', Ok(rows)) => loaded
                .intents
                .extend(rows.into_iter().map(|(path, entry)| Intent { path, entry })),
            _ => return Ok(Err(Bad)),
        }
    }
}

/// Rows that state files once set at paths where `base` has none, in the order of writing. Each file is read to its end or its
/// first bad frame.
pub fn former(fds: &[BorrowedFd<'_>], base: &Base) -> Result<Vec<(Box<[u8]>, Agreed)>> {
    let mut found = Vec::new();
    for fd in fds {
        let mut reader = Reader::new(*fd)?;
        let mut good = reader.magic()?.is_ok();
        while good {
            let Ok(Some((kind, body))) = reader.frame()? else {
                break;
            };
            let rows = if kind == b'O' {
                rows(body)
            } else {
                Ok(Vec::new())
            };
            good = rows.is_ok();
            let set = rows.into_iter().flatten();
            found.extend(
                set.filter(|(path, _)| base.get(path).is_none())
                    .filter_map(|(path, row)| Some((path, row?))),
            );
        }
    }
    Ok(found)
}

/// Write a checkpoint to an empty open file.
pub fn save_tree(base: &Base, notes: &[Vec<u8>], fd: BorrowedFd<'_>) -> Result<()> {
    let mut pending = MAGIC.to_vec();
    for note in notes {
        put(&mut pending, Frame::new(b'N').raw(note))?;
    }
    let (mut count, mut held) = (0u64, 0);
    let mut frame = Frame::new(b'O');
    let mut walk = base.rows.walk(b"");
    let mut root = base.root.as_deref();
    loop {
        let (path, row) = match root.take() {
            Some(row) => (&b""[..], row),
            None => match walk.next() {
                Some((path, kid)) => match &kid.value {
                    Some(row) => (path, row),
                    None => continue,
                },
                None => break,
            },
        };
        frame.row(path, Some(row));
        (count, held) = (count + 1, held + 1);
        if held == ROWS_A_FRAME {
            put(
                &mut pending,
                std::mem::replace(&mut frame, Frame::new(b'O')),
            )?;
            write_all(fd, &pending)?;
            pending.clear();
            held = 0;
        }
    }
    if held > 0 {
        put(&mut pending, frame)?;
    }
    put(&mut pending, Frame::new(b'E').raw(&count.to_le_bytes()))?;
    write_all(fd, &pending)
}

fn put(pending: &mut Vec<u8>, frame: Frame) -> Result<()> {
    let bytes = frame.finish().ok_or(Error::new(Errno::FBIG, "save"))?;
    pending.extend_from_slice(&bytes);
    Ok(())
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let written = retry(|| io::write(fd, bytes)).map_err(|errno| Error::new(errno, "save"))?;
        if written == 0 {
            return Err(Error::new(Errno::IO, "save"));
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Append a note to a journal.
pub fn note(journal: BorrowedFd<'_>, note: &[u8]) -> Result<()> {
    append(journal, Frame::new(b'N').raw(note))
}

/// Set or drop single rows, journalled in one write before the baseline is touched.
pub fn settle(base: &mut Base, rows: &[Row], journal: BorrowedFd<'_>) -> Result<()> {
    let mut frame = Frame::new(b'O');
    for (path, row) in rows {
        frame.row(path, row.as_ref());
    }
    append(journal, frame)?;
    base.learn_all(rows);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::os::fd::AsFd;

    use super::*;
    use crate::entry::{Agreed, Fingerprint, Kind, Text};
    use crate::testing::Scratch;

    fn row(kind: Kind, n: u64) -> Agreed {
        let print = Fingerprint {
            size: n,
            mtime: -5,
            ctime: 6,
            inode: n,
            mode: 0o100_644,
        };
        Agreed::new(
            kind,
            0o644,
            -5,
            &print,
            &Fingerprint {
                inode: n + 1,
                ..print
            },
        )
        .with_digest((kind == Kind::File).then_some([n as u8; 16]))
        .with_link((kind == Kind::Link).then(|| Text::new(b"to")))
        .with_flags(n % 2 == 1, kind == Kind::Dir)
    }

    fn open(scratch: &Scratch, name: &str) -> File {
        let path = scratch.path().join(name);
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .unwrap()
    }

    fn all(base: &Base) -> Vec<(Vec<u8>, Agreed)> {
        let mut found: Vec<_> = base
            .root
            .iter()
            .map(|row| (Vec::new(), (**row).clone()))
            .collect();
        let mut walk = base.rows.walk(b"");
        while let Some((path, kid)) = walk.next() {
            found.extend(kid.value.clone().map(|row| (path.to_vec(), row)));
        }
        found
    }

    fn sample() -> Base {
        let mut base = Base::default();
        base.learn(b"", Some(row(Kind::Dir, 0)));
        base.learn(b"d", Some(row(Kind::Dir, 1)));
        for n in 0..5000u64 {
            base.learn(format!("d/{n}").as_bytes(), Some(row(Kind::File, n)));
        }
        base.learn(b"ghost/l", Some(row(Kind::Link, 3)));
        base
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let scratch = Scratch::new();
        let file = open(&scratch, "checkpoint");
        let base = sample();
        save_tree(&base, &[b"one".to_vec(), Vec::new()], file.as_fd()).unwrap();
        let loaded = load_tree(&[file.as_fd()]).unwrap();
        assert!(loaded.whole);
        assert_eq!(loaded.notes, [b"one".to_vec(), Vec::new()]);
        assert_eq!(all(&loaded.base), all(&base));
        assert_eq!(loaded.base.rows.len(), base.rows.len());
    }

    #[test]
    fn a_journal_cut_anywhere_gives_a_prefix() {
        let scratch = Scratch::new();
        let checkpoint = open(&scratch, "checkpoint");
        save_tree(&Base::default(), &[], checkpoint.as_fd()).unwrap();
        let file = open(&scratch, "journal");
        let mut base = Base::default();
        for n in 0..3u64 {
            settle(
                &mut base,
                &[(Box::from(&b"f"[..]), Some(row(Kind::File, n)))],
                file.as_fd(),
            )
            .unwrap();
            note(file.as_fd(), &[n as u8]).unwrap();
        }
        let bytes = std::fs::read(scratch.path().join("journal")).unwrap();
        for cut in 0..=bytes.len() {
            std::fs::write(scratch.path().join("cut"), &bytes[..cut]).unwrap();
            let cut_file = open(&scratch, "cut");
            let loaded = load_tree(&[checkpoint.as_fd(), cut_file.as_fd()]).unwrap();
            assert!(loaded.base.rows.len() <= 1 && loaded.notes.len() <= 3);
            assert_eq!(loaded.whole && cut == bytes.len(), cut == bytes.len());
        }
        for flip in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[flip] ^= 0x41;
            std::fs::write(scratch.path().join("bad"), &bad).unwrap();
            let bad_file = open(&scratch, "bad");
            assert!(
                !load_tree(&[checkpoint.as_fd(), bad_file.as_fd()])
                    .unwrap()
                    .whole,
                "{flip}"
            );
        }
    }

    #[test]
    fn a_bad_checkpoint_is_nothing() {
        let scratch = Scratch::new();
        let file = open(&scratch, "checkpoint");
        save_tree(&sample(), &[b"n".to_vec()], file.as_fd()).unwrap();
        let bytes = std::fs::read(scratch.path().join("checkpoint")).unwrap();
        for cut in [
            0,
            4,
            8,
            20,
            bytes.len() / 2,
            bytes.len() - 21,
            bytes.len() - 1,
        ] {
            std::fs::write(scratch.path().join("cut"), &bytes[..cut]).unwrap();
            let loaded = load_tree(&[open(&scratch, "cut").as_fd()]).unwrap();
            assert!(
                !loaded.whole && loaded.base.rows.is_empty() && loaded.notes.is_empty(),
                "{cut}"
            );
        }
    }
}
