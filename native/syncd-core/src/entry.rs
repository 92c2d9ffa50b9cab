//! What stands at one path of one side, and what both sides agreed on.

use rustix::fs::{FileType, Stat, Statx};

/// Which of the two trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The tree that is mirrored.
    Source,
    /// The mirror.
    Target,
}

/// What an entry is. The numbers stand in the baseline file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A regular file.
    File = 1,
    /// A directory.
    Dir = 2,
    /// A symbolic link.
    Link = 3,
    /// A FIFO, socket or device: never read, never mirrored.
    Other = 4,
}

impl Kind {
    /// The kind with a number.
    pub fn from_number(number: u8) -> Option<Kind> {
        match number {
            1 => Some(Kind::File),
            2 => Some(Kind::Dir),
            3 => Some(Kind::Link),
            4 => Some(Kind::Other),
            _ => None,
        }
    }

    /// The kind that `st_mode` tells.
    pub fn of_mode(mode: u32) -> Kind {
        match FileType::from_raw_mode(mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Link,
            _ => Kind::Other,
        }
    }
}

/// The XXH3-128 of a file's bytes, big-endian.
pub type Digest = [u8; 16];

/// What one `lstat` tells of an entry: a doubt rather than a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fingerprint {
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds.
    pub mtime: i64,
    /// Change time in nanoseconds.
    pub ctime: i64,
    /// Inode number.
    pub inode: u64,
    /// `st_mode`.
    pub mode: u32,
}

impl Fingerprint {
    /// Equal but for the change time, which a link or rename of ours moves on.
    pub fn same_but_ctime(&self, other: &Fingerprint) -> bool {
        Fingerprint {
            ctime: other.ctime,
            ..*self
        } == *other
    }
}

/// The permission bits that a mirror keeps: setuid and setgid are not among them.
pub fn mirrored(mode: u32) -> u32 {
    mode & 0o1777
}

/// All that a `stat` tells and the kernel uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// The fingerprint.
    pub print: Fingerprint,
    /// The device it lies on.
    pub device: u64,
    /// Hard links.
    pub links: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Meta {
    /// What it is.
    pub fn kind(&self) -> Kind {
        Kind::of_mode(self.print.mode)
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == Kind::Dir
    }

    /// Owner and group.
    pub fn owner(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }
}

fn nanoseconds(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[allow(clippy::unnecessary_cast, clippy::useless_conversion)] // the fields' types differ by machine
impl From<&Stat> for Meta {
    fn from(stat: &Stat) -> Self {
        Meta {
            print: Fingerprint {
                size: stat.st_size.max(0) as u64,
                mtime: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
                ctime: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
                inode: stat.st_ino as u64,
                mode: stat.st_mode,
            },
            device: stat.st_dev as u64,
            links: stat.st_nlink as u64,
            blocks: stat.st_blocks as u64,
            uid: stat.st_uid,
            gid: stat.st_gid,
        }
    }
}

impl From<&Statx> for Meta {
    fn from(stat: &Statx) -> Self {
        Meta {
            print: Fingerprint {
                size: stat.stx_size,
                mtime: nanoseconds(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec.into()),
                ctime: nanoseconds(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec.into()),
                inode: stat.stx_ino,
                mode: stat.stx_mode.into(),
            },
            device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            links: stat.stx_nlink.into(),
            blocks: stat.stx_blocks,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
        }
    }
}

/// A link's text, behind one thin pointer: links are few.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    bytes: Box<[u8]>,
}

impl Text {
    /// Keep a text.
    pub fn new(bytes: &[u8]) -> Box<Text> {
        Box::new(Text {
            bytes: bytes.into(),
        })
    }

    /// The text.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// One entry as a scan saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The fingerprint.
    pub print: Fingerprint,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What it is.
    pub kind: Kind,
    /// A file with further hard links.
    pub shared: bool,
    /// A directory that is a mount point.
    pub mount: bool,
    /// A link's text.
    pub link: Option<Box<Text>>,
    /// A file's digest, if it is not in doubt.
    pub digest: Option<Digest>,
}

impl Seen {
    /// An entry without digest and link text.
    pub fn new(meta: &Meta) -> Self {
        let kind = meta.kind();
        Seen {
            print: meta.print,
            uid: meta.uid,
            gid: meta.gid,
            kind,
            shared: kind == Kind::File && meta.links > 1,
            mount: false,
            link: None,
            digest: None,
        }
    }

    /// The size, if it is a file.
    pub fn file_size(&self) -> Option<u64> {
        (self.kind == Kind::File).then_some(self.print.size)
    }
}

/// One entry of the baseline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// What it is.
    pub kind: Kind,
    /// Whether the source file had further hard links.
    pub shared: bool,
    /// Whether the source directory was a mount point.
    pub mount: bool,
    /// Permission bits.
    pub mode: u16,
    /// The mode in the source's fingerprint.
    source_mode: u32,
    /// The mode in the target's fingerprint.
    target_mode: u32,
    /// Modification time agreed on.
    pub mtime: i64,
    source: [u64; 4],
    target: [u64; 4],
    /// A link's text.
    pub link: Option<Box<Text>>,
    digest: Digest,
    has_digest: bool,
}

fn pack(print: &Fingerprint) -> [u64; 4] {
    [
        print.size,
        print.mtime as u64,
        print.ctime as u64,
        print.inode,
    ]
}

fn unpack(packed: [u64; 4], mode: u32) -> Fingerprint {
    let [size, mtime, ctime, inode] = packed;
    Fingerprint {
        size,
        mtime: mtime as i64,
        ctime: ctime as i64,
        inode,
        mode,
    }
}

impl Agreed {
    /// A row without flags, digest and link text.
    pub fn new(
        kind: Kind,
        mode: u16,
        mtime: i64,
        source: &Fingerprint,
        target: &Fingerprint,
    ) -> Self {
        Agreed {
            kind,
            shared: false,
            mount: false,
            mode,
            source_mode: source.mode,
            target_mode: target.mode,
            mtime,
            source: pack(source),
            target: pack(target),
            link: None,
            digest: [0; 16],
            has_digest: false,
        }
    }

    /// The row with a digest.
    pub fn with_digest(mut self, digest: Option<Digest>) -> Self {
        self.has_digest = digest.is_some();
        self.digest = digest.unwrap_or_default();
        self
    }

    /// The row with a link's text.
    pub fn with_link(mut self, link: Option<Box<Text>>) -> Self {
        self.link = link;
        self
    }

    /// The row with its flags.
    pub fn with_flags(mut self, shared: bool, mount: bool) -> Self {
        (self.shared, self.mount) = (shared, mount);
        self
    }

    /// The digest agreed on.
    pub fn digest(&self) -> Option<Digest> {
        self.has_digest.then_some(self.digest)
    }

    /// The source's fingerprint.
    pub fn source(&self) -> Fingerprint {
        unpack(self.source, self.source_mode)
    }

    /// The target's fingerprint.
    pub fn target(&self) -> Fingerprint {
        unpack(self.target, self.target_mode)
    }

    /// The fingerprint of one side.
    pub fn print(&self, side: Side) -> Fingerprint {
        match side {
            Side::Source => self.source(),
            Side::Target => self.target(),
        }
    }
}

/// What `equal` compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content<'a> {
    /// What it is.
    pub kind: Kind,
    /// A file's digest.
    pub digest: Option<Digest>,
    /// A link's text.
    pub link: Option<&'a [u8]>,
}

impl<'a> From<&'a Seen> for Content<'a> {
    fn from(seen: &'a Seen) -> Self {
        let link = seen.link.as_deref().map(Text::bytes);
        Content {
            kind: seen.kind,
            digest: seen.digest,
            link,
        }
    }
}

impl<'a> From<&'a Agreed> for Content<'a> {
    fn from(agreed: &'a Agreed) -> Self {
        let link = agreed.link.as_deref().map(Text::bytes);
        Content {
            kind: agreed.kind,
            digest: agreed.digest(),
            link,
        }
    }
}

/// Whether both are missing, or of the same kind with the same content. Doubt equals nothing.
pub fn equal(one: Option<Content<'_>>, other: Option<Content<'_>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => {
            one.kind == other.kind
                && match one.kind {
                    Kind::File => one.digest.is_some() && one.digest == other.digest,
                    Kind::Dir => true,
                    Kind::Link => one.link == other.link,
                    Kind::Other => false,
                }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_small() {
        assert!(
            size_of::<Option<Agreed>>() <= 112,
            "{}",
            size_of::<Option<Agreed>>()
        );
        assert!(
            size_of::<Option<Seen>>() <= 88,
            "{}",
            size_of::<Option<Seen>>()
        );
    }

    #[test]
    fn doubt_equals_nothing() {
        let file = Content {
            kind: Kind::File,
            digest: None,
            link: None,
        };
        assert!(!equal(Some(file), Some(file)));
        let sure = Content {
            digest: Some([1; 16]),
            ..file
        };
        assert!(equal(Some(sure), Some(sure)) && !equal(Some(sure), Some(file)));
        assert!(equal(None, None) && !equal(None, Some(sure)));
    }
}
