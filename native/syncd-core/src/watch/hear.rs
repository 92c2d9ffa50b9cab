//! What events mean.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::{Errno, read};

use super::events::{
    ATTRIB, CLOSE_WRITE, CREATE, DELETE, DELETE_SELF, Event, IGNORED, ISDIR, MOVE_SELF, MOVED_FROM,
    MOVED_TO, Q_OVERFLOW, UNMOUNT, decode,
};
use super::{Word, Work};
use crate::dirs::retry;
use crate::path;

/// Room for one read of the queue.
const ROOM: usize = 64 << 10;

/// Room for the largest event; a read that leaves more has emptied the queue.
const LARGEST: usize = 16 + 256;

/// Bytes of events kept in memory; more are an overflow of our own.
const BACKLOG: usize = 64 << 20;

/// Names moved away whose new names may still be told.
const MOVING: usize = 256;

/// May change further.
const WAITING: Word = Word {
    ready: false,
    deep: false,
    removed: false,
    gone: false,
};
const READY: Word = Word {
    ready: true,
    ..WAITING
};
const DEEP: Word = Word {
    deep: true,
    ..WAITING
};
const ARRIVED: Word = Word {
    ready: true,
    ..DEEP
};
const REMOVED: Word = Word {
    removed: true,
    gone: true,
    ..WAITING
};
const EMPTIED: Word = Word {
    deep: true,
    ..REMOVED
};

impl Work<'_> {
    /// Hear everything that is in the queue; while a walk goes on, keep it.
    pub fn pump(&mut self) {
        if self.known.deaf {
            return self.slurp();
        }
        let adrift = self.known.watches.adrift();
        self.slurp();
        while !self.known.backlog.is_empty() {
            let mut bytes = std::mem::take(&mut self.known.backlog);
            decode(&bytes).for_each(|event| self.hear(event));
            if self.known.backlog.is_empty() && bytes.capacity() <= 2 * ROOM {
                bytes.clear();
                self.known.backlog = bytes;
            }
        }
        adrift.into_iter().for_each(|wd| self.drop_adrift(wd));
    }

    /// Drop what nobody found a place for since the last time. Mostly its own last word did that, but a walk may have
    /// watched a directory behind the rename that took it away. If it comes back, its new name is walked.
    fn drop_adrift(&mut self, wd: i32) {
        if self.known.watches.is_nowhere(wd) {
            for wd in self.known.watches.subtree(wd) {
                self.unwatch(wd);
            }
        }
    }

    /// Empty the queue into memory.
    pub fn slurp(&mut self) {
        let backlog = &mut self.known.backlog;
        loop {
            backlog.reserve(ROOM);
            let room = backlog.spare_capacity_mut().len();
            match read(&self.shared.queue, rustix::buffer::spare_capacity(backlog)) {
                Ok(count) if count + LARGEST <= room => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break, // empty
            }
            if backlog.len() > BACKLOG {
                backlog.clear();
                self.shared.inbox.rescan();
            }
        }
    }

    fn hear(&mut self, event: Event<'_>) {
        if event.is(Q_OVERFLOW | UNMOUNT) {
            self.rescan();
        }
        if let Some(names) = self.known.locks.get(&event.wd) {
            if event.is(IGNORED) {
                self.known.locks.remove(&event.wd);
                self.shared.inbox.locks();
            } else if names.iter().any(|name| name == event.name) {
                self.shared.inbox.locks();
            }
        }
        if !self.known.watches.has(event.wd) {
            return;
        }
        if event.is(IGNORED) {
            self.rescan(); // neither was it removed nor did we drop it: it was lost
            self.forget(event.wd);
        } else if event.is(DELETE_SELF) {
            self.hear_end(event.wd);
        } else if event.name.is_empty() {
            self.hear_self(event);
        } else if self.find_place(event.wd) {
            let path = path::join(&self.known.place.1, event.name);
            if self.excluded(&path, event.is(ISDIR)) {
                return;
            }
            if event.is(MOVED_TO) {
                self.hear_arrival(event.cookie, &path);
            } else if event.is(MOVED_FROM) {
                if self.known.moving.len() >= MOVING {
                    self.known.moving.pop_front();
                }
                self.known.moving.push_back((event.cookie, path.clone()));
            }
            if event.is(ISDIR) {
                self.hear_directory(event, &path);
            } else if event.is(CLOSE_WRITE | MOVED_TO) {
                self.say(&path, READY);
            } else if event.is(DELETE | MOVED_FROM) {
                self.say(&path, REMOVED);
            } else {
                self.say(&path, WAITING);
            }
        }
    }

    /// Whether the directory of a watch has a path; it is in `place` then.
    fn find_place(&mut self, wd: i32) -> bool {
        let (at, path) = &mut self.known.place;
        if *at != wd {
            *at = if self.known.watches.path(wd, path) {
                wd
            } else {
                0
            };
        }
        *at == wd
    }

    /// A watched directory was removed.
    fn hear_end(&mut self, wd: i32) {
        if self.find_place(wd) {
            if self.known.place.1.is_empty() {
                self.rescan();
            } else {
                // Another one may stand there by now.
                let word = Word {
                    gone: false,
                    ..EMPTIED
                };
                self.say(&self.known.place.1, word);
            }
        }
        self.forget(wd);
    }

    /// Something happened to a watched directory itself. The directory above it has mostly told already.
    fn hear_self(&mut self, event: Event<'_>) {
        let wd = event.wd;
        if event.is(MOVE_SELF) && self.known.watches.is_nowhere(wd) {
            self.drop_adrift(wd); // its new name would have been told before this: it has left what is watched
        } else if self.find_place(wd) {
            if event.is(MOVE_SELF) && self.known.place.1.is_empty() {
                self.rescan();
            } else if event.is(ATTRIB) {
                self.say(&self.known.place.1, WAITING); // of the top of a mount only this tells
            }
        }
    }

    /// The second half of a rename.
    fn hear_arrival(&mut self, cookie: u32, path: &[u8]) {
        let moving = &mut self.known.moving;
        let at = moving.iter().rposition(|(other, _)| *other == cookie);
        if let Some((_, old)) = at.and_then(|at| moving.remove(at)) {
            self.shared.inbox.moved(&old, path);
        }
    }

    /// Something happened to a name of a directory.
    fn hear_directory(&mut self, event: Event<'_>, path: &[u8]) {
        let child = self.known.watches.child(event.wd, event.name);
        if event.is(DELETE) {
            self.say(path, EMPTIED);
            if let Some(wd) = child {
                self.forget(wd); // if one was made again, its event follows
            }
        } else if event.is(MOVED_FROM) {
            self.say(path, EMPTIED);
            if child.is_some() {
                self.look(path, event.wd); // two directories may have changed places
            }
        } else if event.is(CREATE | MOVED_TO) {
            if child.is_none() || event.is(MOVED_TO) {
                self.look(path, event.wd);
            }
            let whole = event.is(MOVED_TO); // one that is made now is filled next
            self.say(path, if whole { ARRIVED } else { DEEP });
        } else if child.is_some_and(|wd| !self.known.partial.contains(&wd)) {
            self.say(path, WAITING);
        } else {
            self.look(path, event.wd); // it may have become readable just now
            self.say(path, DEEP);
        }
    }

    /// Watch what stands at a name now, and all below it.
    fn look(&mut self, path: &[u8], above: i32) {
        self.shared.inbox.ring(); // this may take a while
        let Some(root) = self.root.take().or_else(|| self.open_root()) else {
            return self.rescan();
        };
        self.refresh(root.as_fd(), path, above);
        self.root = Some(root);
        // What cannot be read now tells when its mode changes.
        let mut refused = self.known.refused.drain(..);
        if refused.any(|(_, errno)| !matches!(errno, Errno::ACCESS | Errno::PERM)) {
            self.shared.inbox.rescan();
        }
    }

    /// The root by its path, if it is still the one that was covered.
    fn open_root(&self) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = retry(|| open(&*self.known.source, flags, Mode::empty())).ok()?;
        let stat = fstat(&fd).ok()?;
        (self.known.identity == Some((stat.st_dev, stat.st_ino))).then_some(fd)
    }
}
