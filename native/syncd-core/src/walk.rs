//! A walk over a directory and all below it, on several cores.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

use crate::dirs::{LISTING, obstacle, open_below};
use crate::entry::{Agreed, Seen, Side};
use crate::error::{Error, Result, Trouble, means_absent};
use crate::look::{Mark, TOP, Ways};
use crate::nested::Dir;
use crate::path;
use crate::tree::tally;

/// Room for one read of a directory.
const ROOM: usize = 32 << 10;

/// A second thread starts when this many entries were seen and directories are waiting.
const ALONE: u64 = 300;

/// What a walk found.
#[derive(Debug, Default)]
pub struct Found {
    /// The directory with all below it. None: it is absent, or unknown (see the troubles).
    pub dir: Option<Dir<Seen>>,
    /// Entries in it.
    pub count: usize,
    /// Trouble met.
    pub troubles: Vec<Trouble>,
    /// FIFOs, sockets, devices.
    pub others: Vec<Box<[u8]>>,
    /// Sum of file sizes.
    pub bytes: u64,
}

impl Found {
    /// Take in what another thread met.
    fn take(&mut self, more: Found) {
        self.troubles.extend(more.troubles);
        self.others.extend(more.others);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

/// A directory to be read.
struct Task<'a> {
    slot: usize,
    path: Vec<u8>,
    device: u64,
    known: Option<&'a Dir<Agreed>>,
    above: Mark, // the visitor's, of the directory it lies in
}

/// Where a directory goes when it was read: the kid `at` of the directory `above`.
struct Slot {
    above: usize,
    at: usize,
    dir: Option<Dir<Seen>>,
}

#[derive(Default)]
struct Queue<'a> {
    tasks: Vec<Task<'a>>,
    slots: Vec<Slot>,
    active: usize,
    failed: Option<Error>,
}

struct Pool<'a> {
    queue: Mutex<Queue<'a>>,
    more: Condvar,
    seen: AtomicU64,
}

impl<'a> Pool<'a> {
    fn lock(&self) -> MutexGuard<'_, Queue<'a>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that helps. Its stack is that of a main thread: trees are deep, and it costs nothing.
pub fn helper() -> std::thread::Builder {
    std::thread::Builder::new().stack_size(8 << 20)
}

/// How many threads a call may use. Asked once: it costs the reading of several files.
pub fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    let ask = || std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8));
    *CORES.get_or_init(ask)
}

/// Read the directory at `top`, on `device`, and all below it.
///
/// Err only if it is the root and cannot be read.
pub fn walk(
    ways: &Ways<'_>,
    top: &[u8],
    device: u64,
    known: Option<&Dir<Agreed>>,
) -> Result<Found> {
    let pool = Pool {
        queue: Mutex::default(),
        more: Condvar::new(),
        seen: AtomicU64::new(0),
    };
    {
        let mut queue = pool.lock();
        queue.slots.push(Slot {
            above: 0,
            at: 0,
            dir: None,
        });
        queue.tasks.push(Task {
            slot: 0,
            path: top.to_vec(),
            device,
            known,
            above: TOP,
        });
    }
    let mut found = std::thread::scope(|scope| {
        let help = || {
            let mut reader = Reader::new(ways, &pool);
            reader.run(|| ());
            reader.found
        };
        let mut helpers = Vec::new();
        let mut spread = cores() < 2;
        let mut reader = Reader::new(ways, &pool);
        reader.run(|| {
            if !spread && pool.seen.load(Relaxed) > ALONE && pool.lock().tasks.len() > 1 {
                spread = true;
                let start = |_| helper().spawn_scoped(scope, help).ok();
                helpers.extend((1..cores()).filter_map(start));
            }
        });
        let mut found = reader.found;
        for helper in helpers {
            match helper.join() {
                Ok(more) => found.take(more),
                Err(_) => found
                    .troubles
                    .push(ways.trouble(top, Errno::CANCELED, "scan")),
            }
        }
        found
    });
    let mut queue = pool
        .queue
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = queue.failed {
        return Err(error);
    }
    (found.dir, found.count) = assemble(&mut queue.slots);
    Ok(found)
}

/// Put the directories into each other: the deepest come last, so from the end.
fn assemble(slots: &mut Vec<Slot>) -> (Option<Dir<Seen>>, usize) {
    let mut count = 0;
    while let Some(slot) = slots.pop() {
        let mut dir = slot.dir;
        if let Some(dir) = &mut dir {
            dir.finish();
            count += dir.kids().len();
        }
        if slots.is_empty() {
            return (dir, count);
        }
        let above = slots
            .get_mut(slot.above)
            .and_then(|above| above.dir.as_mut());
        if let Some(kid) = above.and_then(|above| above.kids_mut().get_mut(slot.at)) {
            match dir {
                Some(dir) if !dir.kids().is_empty() => kid.below = Some(dir.into()),
                Some(_) => {}
                None => kid.value = None, // absent or unknown after all
            }
        }
    }
    (None, 0)
}

/// One thread of a walk.
struct Reader<'a, 'w> {
    ways: &'w Ways<'w>,
    pool: &'w Pool<'a>,
    room: Vec<u8>,
    names: Vec<u8>,
    spots: Vec<Spot>,
    found: Found,
}

/// One name as a listing gave it.
#[derive(Clone, Copy)]
struct Spot {
    at: usize,
    length: usize,
    kind: FileType,
}

impl<'a, 'w> Reader<'a, 'w> {
    fn new(ways: &'w Ways<'w>, pool: &'w Pool<'a>) -> Self {
        let room = Vec::with_capacity(ROOM);
        Reader {
            ways,
            pool,
            room,
            names: Vec::new(),
            spots: Vec::new(),
            found: Found::default(),
        }
    }

    fn run(&mut self, mut between: impl FnMut()) {
        loop {
            let task = {
                let mut queue = self.pool.lock();
                loop {
                    if let Some(task) = queue.tasks.pop() {
                        queue.active += 1;
                        break task;
                    }
                    if queue.active == 0 {
                        return;
                    }
                    queue = self
                        .pool
                        .more
                        .wait(queue)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            };
            let (slot, done) = (task.slot, self.read(task));
            let mut queue = self.pool.lock();
            queue.active -= 1;
            match done {
                Ok(Some((dir, below))) => {
                    for (at, mut task) in below.into_iter().rev() {
                        task.slot = queue.slots.len();
                        queue.slots.push(Slot {
                            above: slot,
                            at,
                            dir: None,
                        });
                        queue.tasks.push(task);
                    }
                    if let Some(slot) = queue.slots.get_mut(slot) {
                        slot.dir = Some(dir);
                    }
                }
                Ok(None) => {}
                Err(error) => queue.failed = Some(error),
            }
            if !queue.tasks.is_empty() || queue.active == 0 {
                self.pool.more.notify_all();
            }
            drop(queue);
            between();
        }
    }

    /// Read one directory. None: it is absent or unknown.
    #[allow(clippy::type_complexity)]
    fn read(&mut self, task: Task<'a>) -> Result<Option<(Dir<Seen>, Vec<(usize, Task<'a>)>)>> {
        let ways = self.ways;
        if ways.control.is_cancelled() {
            self.found
                .troubles
                .push(ways.trouble(&task.path, Errno::CANCELED, "scan"));
            return Ok(None);
        }
        if path::depth(&task.path) >= path::MAX_DEPTH {
            self.found
                .troubles
                .push(ways.trouble(&task.path, Errno::NAMETOOLONG, "scan"));
            if let Some(visitor) = ways.visitor {
                visitor.miss(task.above, &task.path, Errno::NAMETOOLONG);
            }
            return Ok(None);
        }
        match self.visit(&task) {
            Ok(read) => Ok(Some(read)),
            Err(errno) if task.path.is_empty() => Err(Error::new(errno, "list")),
            Err(errno) => {
                // A moment ago it was a directory: what stands there now was not looked at.
                let errno = if matches!(errno, Errno::NOTDIR | Errno::LOOP) {
                    Errno::AGAIN
                } else {
                    errno
                };
                if errno != Errno::NOENT {
                    self.found
                        .troubles
                        .push(ways.trouble(&task.path, errno, "scan"));
                }
                Ok(None)
            }
        }
    }

    #[allow(clippy::type_complexity)]
    fn visit(
        &mut self,
        task: &Task<'a>,
    ) -> rustix::io::Result<(Dir<Seen>, Vec<(usize, Task<'a>)>)> {
        let ways = self.ways;
        let mut near = task.above;
        let listed = open_below(ways.root.fd(), &task.path, LISTING).and_then(|dir| {
            if let Some(visitor) = ways.visitor {
                near = visitor.enter(task.above, dir.as_fd(), &task.path);
            }
            self.list(dir.as_fd(), task, near)
        });
        if let (Err(errno), Some(visitor)) = (&listed, ways.visitor) {
            visitor.miss(near, &task.path, *errno);
        }
        listed
    }

    #[allow(clippy::type_complexity)]
    fn list(
        &mut self,
        fd: BorrowedFd<'_>,
        task: &Task<'a>,
        mark: Mark,
    ) -> rustix::io::Result<(Dir<Seen>, Vec<(usize, Task<'a>)>)> {
        let ways = self.ways;
        self.read_names(fd)?;
        let (names, spots) = (&self.names, &self.spots);
        let name_of = |spot: &Spot| {
            names
                .get(spot.at..spot.at + spot.length)
                .unwrap_or_default()
        };
        if ways.side == Side::Source {
            let names: Vec<&[u8]> = spots.iter().map(name_of).collect();
            ways.rules.enter(&task.path, fd, &names);
        }
        let mut known = task.known.map(|dir| (dir, 0)); // a cursor: both are in order
        let (mut dir, mut below) = (Dir::default(), Vec::new());
        let (mut others, mut bytes) = (Vec::new(), 0);
        let mut troubles = Vec::new();
        let mut path = task.path.clone();
        for spot in spots {
            let name = name_of(spot);
            let agreed = known.as_mut().and_then(|(dir, at)| {
                while dir.kids().get(*at).is_some_and(|kid| dir.name(kid) < name) {
                    *at += 1;
                }
                dir.kids().get(*at).filter(|kid| dir.name(kid) == name)
            });
            path::push(&mut path, name);
            let told = (spot.kind != FileType::Unknown).then_some(spot.kind == FileType::Directory);
            if !told.is_some_and(|is_dir| ways.rules.excluded_child(&path, is_dir)) {
                let row = agreed.and_then(|kid| kid.value.as_ref());
                match ways.look(fd, name, row) {
                    _ if ways.root.covered.contains(&path) => {
                        troubles.push(ways.trouble(&path, Errno::BUSY, "mount"));
                    }
                    Ok((mut seen, meta)) => {
                        let is_dir = meta.is_dir();
                        if told == Some(is_dir) || !ways.rules.excluded_child(&path, is_dir) {
                            if !is_dir {
                                tally(&seen, &path, &mut others, &mut bytes);
                                dir.append(name, Some(seen));
                            } else if let Err(errno) =
                                ways.judge_mount(&mut seen, meta.device, task.device, row)
                            {
                                troubles.push(ways.trouble(&path, errno, "mount"));
                            } else {
                                let known = agreed.and_then(|kid| kid.below.as_deref());
                                let task = Task {
                                    slot: 0,
                                    path: path.clone(),
                                    device: meta.device,
                                    known,
                                    above: mark,
                                };
                                below.push((dir.kids().len(), task));
                                dir.append(name, Some(seen));
                            }
                        }
                    }
                    Err(errno) if means_absent(errno) => {}
                    Err(errno) => troubles.push(ways.trouble(&path, errno, "scan")),
                }
            }
            path::pop(&mut path);
            if ways.control.is_cancelled() {
                troubles.push(ways.trouble(&task.path, Errno::CANCELED, "scan"));
                break;
            }
        }
        let count = dir.kids().len() as u64;
        ways.control.add_entries(count);
        self.pool.seen.fetch_add(count, Relaxed);
        self.found.troubles.append(&mut troubles);
        self.found.others.append(&mut others);
        self.found.bytes = self.found.bytes.saturating_add(bytes);
        Ok((dir, below))
    }

    /// The names of a directory, in order.
    fn read_names(&mut self, fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
        self.names.clear();
        self.spots.clear();
        let mut listing = RawDir::new(fd, self.room.spare_capacity_mut());
        while let Some(entry) = listing.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            let name = entry.file_name().to_bytes();
            if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
                continue;
            }
            let (at, length) = (self.names.len(), name.len());
            self.names.extend_from_slice(name);
            self.spots.push(Spot {
                at,
                length,
                kind: entry.file_type(),
            });
        }
        let names = &self.names;
        let name_of = |spot: &Spot| {
            names
                .get(spot.at..spot.at + spot.length)
                .unwrap_or_default()
        };
        self.spots
            .sort_unstable_by(|a, b| name_of(a).cmp(name_of(b)));
        self.spots.dedup_by(|a, b| name_of(a) == name_of(b)); // a listing may repeat a name that moved
        Ok(())
    }
}

/// The names of one directory, for the rules of a source.
pub fn names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let fd = open_below(dir, b"", LISTING)?;
    let mut room = Vec::with_capacity(ROOM);
    let mut listing = RawDir::new(&fd, room.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = listing.next() {
        match entry {
            Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
            Ok(entry) => names.push(entry.file_name().to_bytes().to_vec()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(names)
}

/// The directory on the way to `path` that is in the way, if the walk there failed.
pub fn blame<'p>(root: BorrowedFd<'_>, path: &'p [u8], errno: Errno) -> (Errno, &'p [u8]) {
    obstacle(root, path).map_or((errno, path), |(errno, at)| {
        (errno, path.get(..at).unwrap_or(path))
    })
}
