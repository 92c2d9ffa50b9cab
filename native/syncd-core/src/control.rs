//! What a running call and the thread that watches it share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// A cancel flag and two counters.
#[derive(Debug, Default)]
pub struct Control {
    cancelled: AtomicBool,
    entries: AtomicU64,
    bytes: AtomicU64,
}

impl Control {
    /// Whether somebody asked for the end.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// Ask for the end, or take that back.
    pub fn set_cancelled(&self, cancelled: bool) {
        self.cancelled.store(cancelled, Relaxed);
    }

    /// Entries seen or done so far.
    pub fn entries(&self) -> u64 {
        self.entries.load(Relaxed)
    }

    /// Set the count of entries.
    pub fn set_entries(&self, entries: u64) {
        self.entries.store(entries, Relaxed);
    }

    /// Count entries.
    pub fn add_entries(&self, entries: u64) {
        self.entries.fetch_add(entries, Relaxed);
    }

    /// Bytes read or copied so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Set the count of bytes.
    pub fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Relaxed);
    }

    /// Count bytes.
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }
}
