//! What a walk asks about names that are not mirrored.

use std::os::fd::BorrowedFd;

/// Rules that exclude paths: ignored ones and overlays.
///
/// Paths are relative to the root, components joined by `/`; the root itself is empty.
pub trait Excluder: Sync {
    /// A walk of the source has listed `dir`, open as `dirfd`, and is about to judge its `names`.
    ///
    /// Rule files among them are read now. Called only for directories that are not excluded, after
    /// every directory above was entered. Several threads may call it for unlike directories.
    fn enter(&self, dir: &[u8], dirfd: BorrowedFd<'_>, names: &[&[u8]]);

    /// Whether `dir` was entered before. A partial scan enters only directories that were not.
    fn entered(&self, dir: &[u8]) -> bool {
        let _ = dir;
        true
    }

    /// Whether the last component of `path` is excluded, given that nothing above it is.
    fn excluded_child(&self, path: &[u8], is_dir: bool) -> bool;

    /// Whether `path` is excluded or lies below something excluded; judged from the top.
    fn excluded(&self, path: &[u8], is_dir: bool) -> bool;

    /// Whether an overlay is at `path` or below it.
    fn overlay_within(&self, path: &[u8]) -> bool;

    /// Whether a file at `path` would be read as a rule file, also if it is excluded itself.
    fn teaches(&self, path: &[u8]) -> bool {
        let _ = path;
        false
    }
}

/// Excludes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

impl Excluder for Nothing {
    fn enter(&self, _: &[u8], _: BorrowedFd<'_>, _: &[&[u8]]) {}

    fn excluded_child(&self, _: &[u8], _: bool) -> bool {
        false
    }

    fn excluded(&self, _: &[u8], _: bool) -> bool {
        false
    }

    fn overlay_within(&self, _: &[u8]) -> bool {
        false
    }
}
