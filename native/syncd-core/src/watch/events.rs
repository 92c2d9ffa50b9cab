//! What the kernel's queue of changes holds. Pure: bytes to events.

/// One word of the kernel about a watched directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// Which watch; -1 when the queue overflowed.
    pub wd: i32,
    /// What happened: bits of this module.
    pub mask: u32,
    /// The same for both names of a rename.
    pub cookie: u32,
    /// The name in the directory; empty if it is the directory itself.
    pub name: &'a [u8],
}

impl Event<'_> {
    /// Whether any of these bits is set.
    pub fn is(&self, bits: u32) -> bool {
        self.mask & bits != 0
    }
}

/// Content changed.
pub const MODIFY: u32 = 0x2;
/// Owner, mode, times or link count changed.
pub const ATTRIB: u32 = 0x4;
/// Closed after writing.
pub const CLOSE_WRITE: u32 = 0x8;
/// Moved away.
pub const MOVED_FROM: u32 = 0x40;
/// Moved in.
pub const MOVED_TO: u32 = 0x80;
/// Made, or linked.
pub const CREATE: u32 = 0x100;
/// Removed.
pub const DELETE: u32 = 0x200;
/// The watched directory itself was removed.
pub const DELETE_SELF: u32 = 0x400;
/// The watched directory itself was moved.
pub const MOVE_SELF: u32 = 0x800;
/// Its filesystem was unmounted.
pub const UNMOUNT: u32 = 0x2000;
/// The queue overflowed: words were lost.
pub const Q_OVERFLOW: u32 = 0x4000;
/// The watch is no more.
pub const IGNORED: u32 = 0x8000;
/// The name is a directory's.
pub const ISDIR: u32 = 0x4000_0000;

/// The events in what was read from the queue. What follows a broken one is passed over.
pub fn decode(mut bytes: &[u8]) -> impl Iterator<Item = Event<'_>> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<16>()?;
        let field = |at: usize| head.get(at..at + 4).and_then(|field| field.try_into().ok());
        let length = usize::try_from(u32::from_ne_bytes(field(12)?)).ok()?;
        let padded = rest.get(..length)?;
        bytes = rest.get(length..)?;
        Some(Event {
            wd: i32::from_ne_bytes(field(0)?),
            mask: u32::from_ne_bytes(field(4)?),
            cookie: u32::from_ne_bytes(field(8)?),
            name: padded.split(|&b| b == 0).next().unwrap_or_default(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(wd: i32, mask: u32, cookie: u32, name: &[u8], length: u32) -> Vec<u8> {
        let mut bytes = wd.to_ne_bytes().to_vec();
        for field in [mask, cookie, length] {
            bytes.extend(field.to_ne_bytes());
        }
        bytes.extend(name);
        bytes
    }

    #[test]
    fn events_follow_each_other() {
        let mut bytes = raw(1, CREATE | ISDIR, 0, b"ab\0\0", 4);
        bytes.extend(raw(-1, Q_OVERFLOW, 0, b"", 0));
        bytes.extend(raw(2, MOVED_TO, 7, b"\xff\n\0\0\0\0\0\0", 8));
        let events: Vec<_> = decode(&bytes)
            .map(|e| (e.wd, e.mask, e.cookie, e.name))
            .collect();
        let want = [
            (1, CREATE | ISDIR, 0, &b"ab"[..]),
            (-1, Q_OVERFLOW, 0, b""),
            (2, MOVED_TO, 7, b"\xff\n"),
        ];
        assert_eq!(events, want);
    }

    #[test]
    fn garbage_ends_it() {
        let whole = raw(1, MODIFY, 0, b"a\0\0\0", 4);
        for cut in 0..whole.len() {
            assert_eq!(decode(&whole[..cut]).count(), 0, "{cut}");
        }
        let mut bytes = whole.clone();
        bytes.extend(raw(1, MODIFY, 0, b"short", u32::MAX));
        bytes.extend(&whole);
        assert_eq!(decode(&bytes).count(), 1);
        assert_eq!(
            decode(&raw(1, MODIFY, 0, b"no end", 6))
                .next()
                .map(|e| e.name),
            Some(&b"no end"[..])
        );
        let mut seed = 1_u64;
        for length in 0..2000 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 60) as u8
                })
                .collect();
            let total: usize = decode(&bytes).map(|event| 16 + event.name.len()).sum();
            assert!(total <= bytes.len());
        }
    }
}
