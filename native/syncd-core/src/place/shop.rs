//! What the threads of one call share, and what each has for itself.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::prepare::discard;
use super::swap::Olds;
use super::take::Taken;
use super::{Dropped, End, Kept, Options};
use crate::actions::Actions;
use crate::base::{Base, Row};
use crate::control::Control;
use crate::dirs::{Dir, Reached, Root, stat_at, stat_fd};
use crate::entry::{Agreed, Meta, Side};
use crate::error::{means_absent, stops_slice};
use crate::exclude::Excluder;
use crate::path;

/// At most so much content is held in memory.
const MEMORY: u64 = 32 << 20;

/// Why an action did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// The target is not what the plan believed.
    Changed,
    /// The source entry is gone, or of another kind.
    Vanished,
    /// Somebody writes the source file.
    Busy,
    /// Trouble at this path.
    Failed(Errno, &'static str, Side),
    /// Trouble of the target as a whole.
    Stop(Errno),
    /// The call was cancelled.
    Cancelled,
}

/// A step of publishing.
pub type Placed<T> = Result<T, Halt>;

/// Trouble of a step on the target.
pub fn failed(op: &'static str) -> impl Fn(Errno) -> Halt + Copy {
    move |errno| {
        if stops_slice(errno) {
            Halt::Stop(errno)
        } else {
            Halt::Failed(errno, op, Side::Target)
        }
    }
}

/// Switches found out while copying.
#[derive(Debug)]
pub struct Able(AtomicBool);

impl Able {
    fn new() -> Self {
        Able(AtomicBool::new(true))
    }

    /// Whether it is worth a try.
    pub fn is(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// It is not.
    pub fn lacks(&self) {
        self.0.store(false, Relaxed);
    }
}

/// What the threads of one call share.
pub struct Shop<'a> {
    /// The source's root.
    pub source: BorrowedFd<'a>,
    /// The target's root.
    pub target: BorrowedFd<'a>,
    /// Rules: asked for overlays.
    pub rules: &'a dyn Excluder,
    /// The baseline.
    pub base: &'a Base,
    /// How to write.
    pub options: &'a Options<'a>,
    /// Cancelling and counting.
    pub control: &'a Control,
    /// Whether the filesystems clone files.
    pub clones: Able,
    /// Whether the kernel copies between them.
    pub copies: Able,
    /// One thread at a time makes directories on the way.
    pub making: Mutex<()>,
    /// Who we are.
    pub me: (u32, u32),
    /// Modes that directories get at the end.
    pub modes: &'a Mutex<BTreeMap<Vec<u8>, u32>>,
    /// Paths that were to leave the target and did not.
    pub undone: &'a Mutex<Vec<Box<[u8]>>>,
    /// Whether more than one thread is at work.
    pub crowded: bool,
    /// What was replaced.
    pub olds: Olds,
    memory: AtomicU64,
    written: AtomicU64,
    removed: AtomicUsize,
    stop: AtomicI32,
    kept: Mutex<Vec<Kept>>,
    dropped: Mutex<Vec<Dropped>>,
    ways: Mutex<Vec<Row>>,
}

/// Lock; a thread that was lost leaves nothing half-done.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Shop<'a> {
    /// The means of one call.
    pub fn new(
        source: &'a Root,
        target: &'a Root,
        rules: &'a dyn Excluder,
        base: &'a Base,
        actions: &'a Actions,
        options: &'a Options<'a>,
        control: &'a Control,
    ) -> Self {
        Shop {
            source: source.fd(),
            target: target.fd(),
            rules,
            base,
            options,
            control,
            clones: Able::new(),
            copies: Able::new(),
            making: Mutex::default(),
            me: (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
            modes: &actions.modes,
            undone: &actions.undone,
            crowded: false,
            olds: Olds::default(),
            memory: AtomicU64::new(0),
            written: AtomicU64::new(0),
            removed: AtomicUsize::new(0),
            stop: AtomicI32::new(0),
            kept: Mutex::default(),
            dropped: Mutex::default(),
            ways: Mutex::default(),
        }
    }

    /// Whether entries may be given to others.
    pub fn is_root(&self) -> bool {
        self.me.0 == 0
    }

    /// Whether permission bits count for us.
    pub fn obeys_modes(&self) -> bool {
        !self.is_root() || crate::sys::binds_root()
    }

    /// What stopped the slice.
    pub fn stopped(&self) -> Option<Errno> {
        match self.stop.load(Relaxed) {
            0 => None,
            number => Some(Errno::from_raw_os_error(number)),
        }
    }

    /// Stop the slice; the first reason counts.
    pub fn stop(&self, errno: Errno) {
        let _ = self
            .stop
            .compare_exchange(0, errno.raw_os_error(), Relaxed, Relaxed);
    }

    /// Claim memory for content. False: there is no more.
    pub fn claim(&self, bytes: u64) -> bool {
        let fits = self.memory.fetch_add(bytes, Relaxed) + bytes <= MEMORY;
        if !fits {
            self.memory.fetch_sub(bytes, Relaxed);
        }
        fits
    }

    /// Count bytes written into the target.
    pub fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes, Relaxed);
    }

    /// Bytes written into the target.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Count an entry that left the target.
    pub fn removed(&self) {
        self.removed.fetch_add(1, Relaxed);
    }

    /// Entries that left the target.
    pub fn all_removed(&self) -> usize {
        self.removed.load(Relaxed)
    }

    /// Tell that an entry is kept aside.
    pub fn keep(&self, path: &[u8], place: &[u8]) {
        lock(&self.kept).push((path.into(), place.into()));
    }

    /// Tell of a directory that was made on the way to another entry.
    pub fn made(&self, path: &[u8], row: Agreed) {
        lock(&self.ways).push((path.into(), Some(row)));
    }

    /// What the baseline learns of directories made on the way.
    pub fn ways(&self) -> Vec<Row> {
        std::mem::take(&mut *lock(&self.ways))
    }

    /// Tell of bits that are not mirrored.
    pub fn drop_bits(&self, path: &[u8], mode: u32) {
        if mode & 0o6000 != 0 {
            lock(&self.dropped).push((path.into(), mode & 0o6000));
        }
    }

    /// What was set aside and which bits were dropped, in order of paths.
    pub fn kept_and_dropped(&self) -> (Vec<Kept>, Vec<Dropped>) {
        let mut kept = std::mem::take(&mut *lock(&self.kept));
        let mut dropped = std::mem::take(&mut *lock(&self.dropped));
        kept.sort_by(|a, b| path::order(&a.0, &b.0));
        dropped.sort_by(|a, b| path::order(&a.0, &b.0));
        (kept, dropped)
    }

    /// How an action that did not come to its end is told. None: it is as if it had not begun.
    pub fn end(&self, halt: Halt) -> Option<End> {
        match halt {
            Halt::Changed => Some(End::Left(super::Status::Changed)),
            Halt::Vanished => Some(End::Left(super::Status::Vanished)),
            Halt::Busy => Some(End::Left(super::Status::Busy)),
            Halt::Failed(errno, op, side) => Some(End::Failed(errno, op, side)),
            Halt::Stop(errno) => {
                self.stop(errno);
                None
            }
            Halt::Cancelled => None,
        }
    }

    /// Another number for a temporary name.
    pub fn number(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Relaxed)
    }

    /// Remove the staged files of actions that are not carried out.
    pub fn discard<'t>(&self, taken: impl Iterator<Item = &'t Taken>) {
        taken.for_each(|taken| discard(self.options.staging, taken));
    }
}

/// The name of a new entry in staging.
pub fn new_name(number: u64) -> Vec<u8> {
    format!("new-{number}").into_bytes()
}

/// What one thread has for itself.
pub struct Hand<'a> {
    /// What all share.
    pub shop: &'a Shop<'a>,
    /// The last directory of the source.
    pub source: Reached<'a>,
    /// The last directory of the target.
    pub target: Reached<'a>,
    /// Room for content.
    pub buffer: Vec<u8>,
}

impl<'a> Hand<'a> {
    /// A thread's means.
    pub fn new(shop: &'a Shop<'a>) -> Self {
        let (source, target) = (Reached::new(shop.source), Reached::new(shop.target));
        Hand {
            shop,
            source,
            target,
            buffer: Vec::new(),
        }
    }

    /// The directory of the target that holds a path, open to be worked in. None: it is not there.
    pub fn parent(&mut self, path: &[u8]) -> Placed<Option<Dir<'a>>> {
        let above = path::parent(path);
        if let Some(dir) = self
            .target
            .last(above)
            .filter(|_| !above.is_empty() || !self.shop.obeys_modes())
        {
            return Ok(Some(dir));
        }
        let mut dir = self.target.get(above);
        if dir.as_ref().is_err_and(|errno| *errno == Errno::ACCESS) && self.shop.obeys_modes() {
            self.shop.open_up(above).map_err(failed("open"))?;
            dir = self.target.get(above);
        }
        match dir {
            Ok(dir) => {
                if self.shop.obeys_modes() {
                    let meta = stat_fd(dir.as_fd()).map_err(failed("open"))?;
                    if self.shop.is_shut(&meta) {
                        self.shop.open_up(above).map_err(failed("open"))?;
                    }
                }
                Ok(Some(dir))
            }
            Err(errno) if means_absent(errno) => Ok(None),
            Err(errno) => Err(failed("open")(errno)),
        }
    }

    /// What the target holds at a name of a directory. None: nothing.
    pub fn look(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Placed<Option<Meta>> {
        match stat_at(dir, name, false) {
            Ok(meta) => Ok(Some(meta)),
            Err(errno) if means_absent(errno) => Ok(None),
            Err(errno) => Err(failed("check")(errno)),
        }
    }
}

/// For descriptors of new files.
pub const CREATE: OFlags = OFlags::CREATE
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
