//! Errors: what concerns a root or a state file as a whole. Trouble at one path is data.

use std::fmt;

pub use rustix::io::Errno;

use crate::entry::Side;

/// A failed call that concerns a root or a state file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The system's number of the error.
    pub errno: Errno,
    /// The failed step: "open", "list", "journal", ...
    pub op: &'static str,
}

impl Error {
    /// An error of the step `op`.
    pub fn new(errno: Errno, op: &'static str) -> Self {
        Error { errno, op }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.op, self.errno)
    }
}

impl std::error::Error for Error {}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Trouble at one path: the path and all below it are unknown, or an action failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Where.
    pub path: Box<[u8]>,
    /// Why.
    pub errno: Errno,
    /// The failed step.
    pub op: &'static str,
    /// On which side.
    pub side: Side,
}

/// Whether an error below an open root means that nothing is there.
///
/// ELOOP and ENOTDIR: something else stands where a directory should be.
pub fn means_absent(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

/// Whether an error is a fact of the target as a whole rather than of one path.
pub fn stops_slice(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::IO)
}
