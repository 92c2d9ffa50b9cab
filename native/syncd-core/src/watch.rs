//! Watches the directories of a source with inotify.
//!
//! A thread of its own empties the kernel's queue while its reader is busy, so that a checkout of
//! thousands of files does not overflow it. A reader that listens does that by itself and calls the thread
//! only for long work (`attend`): for a lone save no thread stands between the kernel and the reader.
//! Whoever holds `Known` may work on the queue: the thread, `cover` and `read`. So events are heard in
//! order, and each call finds all that came before it.
//!
//! A directory is watched before it is listed, and its events are heard after both; so the walk of a scan can
//! watch what it lists (`Watcher::scan`). So what the table
//! of watches says of a name may be ahead of an event about it, never behind one that was heard; where
//! they disagree, the name is looked at anew.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fs::inotify::{CreateFlags, init};
use rustix::io::{Errno, write};

use crate::exclude::Excluder;

pub mod events;
mod hear;
#[cfg(test)]
mod tests;
mod visit;
mod walk;
mod watches;
mod words;

pub use words::{Hints, MANY, Move, Word};

use watches::Watches;
use words::Inbox;

/// What `cover` came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    /// Directories watched in all.
    pub watched: usize,
    /// Directories that could not be watched.
    pub refused: Vec<Vec<u8>>,
    /// Why: of several reasons a limit, since that can be raised. 0 = nothing was refused.
    pub errno: i32,
}

/// Watches one source. Any thread may call anything.
pub struct Watcher {
    shared: Mutex<Option<Arc<Shared>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    known: Mutex<Known>,
    inbox: Inbox,
    queue: OwnedFd,
    waits: OwnedFd, // the thread's epoll, of `queue` and `wake`
    wake: OwnedFd,  // readable when the thread shall end
    closed: AtomicBool,
}

impl Watcher {
    /// Watch nothing yet. `source` is the path under which the root is found again later.
    pub fn new(source: &[u8]) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            known: Mutex::new(Known {
                source: source.to_vec(),
                ..Known::default()
            }),
            inbox: Inbox::new()?,
            queue: init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            waits: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            wake: eventfd(0, EventfdFlags::CLOEXEC)?,
            closed: AtomicBool::new(false),
        });
        wait_for(&shared.waits, &shared.wake)?;
        wait_for(&shared.waits, &shared.queue)?;
        let its = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("syncd-inotify".into());
        let thread = builder.stack_size(512 << 10).spawn(move || its.run())?;
        Ok(Self {
            shared: Mutex::new(Some(shared)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Have `reader`, an epoll in which the reader waits from now on, report while `read` has something.
    /// The thread rests from now on.
    pub fn listen(&self, reader: BorrowedFd<'_>) -> std::io::Result<()> {
        let Some(shared) = self.shared() else {
            return Ok(());
        };
        wait_for(reader, shared.inbox.fd())?;
        wait_for(reader, &shared.queue)?;
        self.attend(false)
    }

    /// Have the thread empty the queue, or rest.
    pub fn attend(&self, on: bool) -> std::io::Result<()> {
        let Some(shared) = self.shared() else {
            return Ok(());
        };
        let done = if on {
            wait_for(&shared.waits, &shared.queue)
        } else {
            epoll::delete(&shared.waits, &shared.queue)
        };
        match done {
            Err(Errno::EXIST | Errno::NOENT) => Ok(()), // it does, or it rests
            done => Ok(done?),
        }
    }

    /// The number of the descriptor that is readable while `read` has something, after some time; -1 when closed.
    pub fn fd(&self) -> i32 {
        self.shared()
            .map_or(-1, |shared| shared.inbox.fd().as_raw_fd())
    }

    /// Watch every directory, but none that `rules` exclude. `root` is the source's root as it is now. Blocks on the disk.
    pub fn cover(
        &self,
        root: BorrowedFd<'_>,
        rules: Arc<dyn Excluder + Send>,
    ) -> rustix::io::Result<Coverage> {
        match self.shared() {
            Some(shared) => shared.with_work(|work| work.cover(root, rules)),
            None => Ok(Coverage::default()),
        }
    }

    /// Watch one directory for these names only. One that is not there is passed over.
    pub fn watch_locks(&self, root: BorrowedFd<'_>, directory: &[u8], names: Vec<Vec<u8>>) {
        if let Some(shared) = self.shared() {
            shared.with_work(|work| work.watch_locks(root, directory, names));
        }
    }

    /// All words so far; everything that happened before the call is in it. Waits for `cover` and the thread.
    pub fn read(&self) -> Hints {
        let Some(shared) = self.shared() else {
            return Hints::default();
        };
        shared.with_known(|work| work.pump());
        shared.inbox.take()
    }

    /// Wait in `epoll` until a word may have come. Otherwise the descriptors that are ready, none of them if `timeout` is over:
    /// some are so only once, and not for who looks again.
    pub fn wait(
        &self,
        epoll: BorrowedFd<'_>,
        timeout: Option<Duration>,
    ) -> std::result::Result<(), Vec<i32>> {
        let Some(shared) = self.shared() else {
            return Err(Vec::new());
        };
        let mut events = Vec::with_capacity(8);
        let timeout = timeout.map(|left| Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        });
        while let Err(Errno::INTR) =
            epoll::wait(epoll, spare_capacity(&mut events), timeout.as_ref())
        {}
        // Python sets the lower half of the data only.
        let fds = events.iter().map(|event| event.data.u64() as u32 as i32);
        let own = [shared.inbox.fd().as_raw_fd(), shared.queue.as_raw_fd()];
        if events.is_empty() || !fds.clone().all(|fd| own.contains(&fd)) {
            return Err(fds.collect());
        }
        Ok(())
    }

    /// Let go of everything and wait for the thread. Twice is harmless.
    pub fn close(&self) {
        self.end();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    fn end(&self) {
        let shared = self
            .shared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(shared) = shared {
            shared.closed.store(true, Ordering::Relaxed);
            let _ = write(&shared.wake, &1_u64.to_ne_bytes());
        }
    }

    fn shared(&self) -> Option<Arc<Shared>> {
        self.shared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Watcher {
    /// The thread ends by itself: it may be in the middle of a walk.
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    /// The thread.
    fn run(&self) {
        let mut events = Vec::with_capacity(2);
        while !self.closed.load(Ordering::Relaxed) {
            events.clear();
            match epoll::wait(&self.waits, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => self.with_work(|work| work.pump()),
                Err(_) => return self.inbox.rescan(), // out of memory at most
            }
        }
    }

    /// Work on the queue, then wake the reader.
    fn with_work<R>(&self, then: impl FnOnce(&mut Work<'_>) -> R) -> R {
        let result = self.with_known(then);
        self.inbox.ring();
        result
    }

    /// Work on the queue.
    fn with_known<R>(&self, then: impl FnOnce(&mut Work<'_>) -> R) -> R {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        then(&mut Work {
            known: &mut known,
            shared: self,
            root: None,
        })
    }
}

/// Have an epoll report while `what` is readable. The data is the descriptor's number, as Python expects it.
fn wait_for(epoll: impl AsFd, what: impl AsFd) -> rustix::io::Result<()> {
    let number = u64::try_from(what.as_fd().as_raw_fd()).unwrap_or_default();
    let data = epoll::EventData::new_u64(number);
    epoll::add(epoll, what, data, epoll::EventFlags::IN)
}

/// What is known between calls. Holds no descriptor below the source.
#[derive(Default)]
struct Known {
    source: Vec<u8>,
    identity: Option<(u64, u64)>, // of the root
    rules: Option<Arc<dyn Excluder + Send>>,
    watches: Watches,
    partial: HashSet<i32>, // directories in which something could not be looked into
    locks: HashMap<i32, Vec<Vec<u8>>>, // directories of which these names are locks
    moving: VecDeque<(u32, Vec<u8>)>, // names moved away, by cookie
    backlog: Vec<u8>,      // read from the queue, not heard yet
    refused: Vec<(Vec<u8>, Errno)>, // in the present call
    deaf: bool,            // while a walk over everything goes on
    walk: u32,             // counts walks
    steps: u32,            // counts long work
    place: (i32, Vec<u8>), // the directory of the last event, and its path
}

/// A call that works on the queue or on the watches.
struct Work<'a> {
    known: &'a mut Known,
    shared: &'a Shared,
    root: Option<OwnedFd>, // once an event had to be looked into
}

impl Work<'_> {
    fn say(&self, path: &[u8], word: Word) {
        self.shared.inbox.say(path, word);
    }

    fn rescan(&self) {
        self.shared.inbox.rescan();
    }

    fn excluded(&self, path: &[u8], is_dir: bool) -> bool {
        let rules = self.known.rules.as_ref();
        // A rule file that is ignored itself is none of the source's, but what it says has changed.
        rules.is_none_or(|rules| {
            rules.excluded_child(path, is_dir) && (is_dir || !rules.teaches(path))
        })
    }
}
