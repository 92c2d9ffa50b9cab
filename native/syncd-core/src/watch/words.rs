//! Words about paths on their way from the watcher's thread to its reader, coalesced.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};

/// Words that nobody reads: past them, looking at everything is cheaper than a list.
pub const MANY: usize = 200_000;

/// What was said of one path. The last word decides whether it is ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Word {
    /// Closed after writing, or moved in; else it may change further.
    pub ready: bool,
    /// A directory to be walked whole.
    pub deep: bool,
    /// It was removed or moved away, and may be there again.
    pub removed: bool,
    /// That was the last word.
    pub gone: bool,
}

/// An old name and the new one.
pub type Move = (Box<[u8]>, Box<[u8]>);

/// All words since the last read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// By path.
    pub words: HashMap<Box<[u8]>, Word>,
    /// Renames of which both names were seen.
    pub moves: Vec<Move>,
    /// A version control lock came or went.
    pub locks: bool,
    /// Track was lost.
    pub rescan: bool,
}

/// Where words wait, with a descriptor that is readable while some do.
#[derive(Debug)]
pub struct Inbox {
    bell: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    hints: Hints,
    full: bool,
    rung: bool,
}

impl Inbox {
    /// An empty one.
    pub fn new() -> rustix::io::Result<Self> {
        Ok(Self {
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            state: Mutex::default(),
        })
    }

    /// Readable while `take` would give something.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Say a word about a path.
    pub fn say(&self, path: &[u8], word: Word) {
        let mut state = self.lock();
        if state.full {
            return;
        }
        if let Some(known) = state.hints.words.get_mut(path) {
            known.ready = word.ready;
            known.gone = word.gone;
            known.deep |= word.deep;
            known.removed |= word.removed;
            return;
        }
        if state.hints.words.len() < MANY {
            state.hints.words.insert(path.into(), word);
        } else {
            state.hints = Hints {
                locks: state.hints.locks,
                rescan: true,
                ..Hints::default()
            };
            state.full = true;
        }
    }

    /// Tell of a rename. What is to be said of both names is said apart.
    pub fn moved(&self, old: &[u8], new: &[u8]) {
        let mut state = self.lock();
        if state.hints.moves.len() < MANY {
            state.hints.moves.push((old.into(), new.into())); // knowing one only saves a copy
        }
    }

    /// Tell that a version control lock came or went.
    pub fn locks(&self) {
        self.lock().hints.locks = true;
    }

    /// Tell that track was lost.
    pub fn rescan(&self) {
        self.lock().hints.rescan = true;
    }

    /// Wake the reader if there is something to read.
    pub fn ring(&self) {
        let mut state = self.lock();
        let hints = &state.hints;
        if !state.rung && (hints.locks || hints.rescan || !hints.words.is_empty()) {
            state.rung = true;
            let _ = write(&self.bell, &1_u64.to_ne_bytes()); // fails only when it rings already
        }
    }

    /// Everything said since the last time.
    pub fn take(&self) -> Hints {
        let mut state = self.lock();
        if std::mem::take(&mut state.rung) {
            let _ = read(&self.bell, &mut [0_u8; 8]);
        }
        std::mem::take(&mut *state).hints
    }

    /// Whether the reader was woken and has not come.
    #[cfg(test)]
    pub fn is_rung(&self) -> bool {
        self.lock().rung
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: Word = Word {
        ready: true,
        deep: false,
        removed: false,
        gone: false,
    };
    const GONE: Word = Word {
        ready: false,
        deep: false,
        removed: true,
        gone: true,
    };

    #[test]
    fn the_last_word_decides() {
        let inbox = Inbox::new().unwrap();
        inbox.say(b"a", GONE);
        inbox.say(b"a", READY);
        inbox.say(b"b", READY);
        inbox.say(b"b", GONE);
        let hints = inbox.take();
        let word = |path: &[u8]| hints.words[path];
        assert_eq!(
            word(b"a"),
            Word {
                removed: true,
                ..READY
            }
        );
        assert_eq!(word(b"b"), GONE);
        assert_eq!(inbox.take(), Hints::default());
    }

    #[test]
    fn a_full_box_becomes_a_rescan() {
        let inbox = Inbox::new().unwrap();
        inbox.locks();
        for n in 0..=MANY {
            inbox.say(n.to_string().as_bytes(), READY);
        }
        inbox.say(b"more", READY);
        let hints = inbox.take();
        assert!(hints.rescan && hints.locks && hints.words.is_empty());
        inbox.say(b"again", READY);
        assert_eq!(inbox.take().words.len(), 1);
    }

    #[test]
    fn the_bell_rings_while_there_are_words() {
        let inbox = Inbox::new().unwrap();
        let rings = || {
            let mut fds = [rustix::event::PollFd::new(
                &inbox,
                rustix::event::PollFlags::IN,
            )];
            rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default())).unwrap() == 1
        };
        inbox.ring();
        assert!(!rings());
        inbox.say(b"a", READY);
        inbox.ring();
        inbox.ring();
        assert!(rings());
        inbox.take();
        assert!(!rings());
    }

    impl AsFd for Inbox {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.fd()
        }
    }
}
