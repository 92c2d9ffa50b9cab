//! Place: carry out actions. The one module that writes a target.
//!
//! In four steps: *take* reads every source file to be put, *intents* are journalled in one write,
//! *publish* changes the target, *outcomes* are journalled in one write.
//!
//! # Crash tests
//!
//! If the environment variable `SYNCD_CRASH_AT` is `<step>:<n>` when the first slice is placed, the
//! process kills itself (SIGKILL) right after the n-th passage of that step, counted over the
//! process; with `<step>:<n>:stop` it stops itself (SIGSTOP). Steps:
//!
//! | step | passed when |
//! | --- | --- |
//! | `prepared` | one source file of a held burst was read, and written into staging if it goes beside |
//! | `take` | one source entry was taken (read, or looked at) |
//! | `intents` | the intents of a slice are in the journal |
//! | `publish-linked` | an old entry got its second name in staging |
//! | `publish-renamed` | a new entry got its final name (also one created there directly) |
//! | `publish-inplace` | new content was written into an old file, its times not yet |
//! | `publish-mkdir` | a directory was made |
//! | `publish-removed` | an entry was removed |
//! | `publish-aside` | an entry was set aside |
//! | `outcomes` | the outcomes of a slice are in the journal |

mod aside;
mod attributes;
mod beside;
mod crash;
mod inplace;
mod make;
mod prepare;
mod publish;
mod shop;
mod swap;
mod take;

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::actions::{Action, Actions};
use crate::base::{Base, Row};
use crate::control::Control;
use crate::digest::spread;
use crate::dirs::Root;
use crate::entry::{Agreed, Fingerprint, Side};
use crate::error::{Result, Trouble};
use crate::exclude::Excluder;
use crate::journal::{Frame, append};
use crate::sys::utc;
pub use prepare::{Prepared, prepare};
use shop::{Hand, Shop, lock};
use take::{Taken, take, take_held};

/// Neighbours that one thread works on at a time; up to four such runs are worth no second thread.
const RUN: usize = 16;

/// At most so many actions are placed in one call.
pub const SLICE: usize = 2_000;

/// How a file is written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// In place where that is safe enough, else beside.
    Auto,
    /// Always beside.
    Replace,
    /// In place also where the file is large or executable.
    InPlace,
}

/// The name of a directory for entries set aside.
#[derive(Debug, Clone, Copy)]
pub enum Aside<'a> {
    /// This one.
    At(&'a [u8]),
    /// One that tells the time when it is needed (a format of strftime, for UTC), and a number.
    Now(&'a CStr, u64),
}

impl Aside<'_> {
    fn name(self) -> Vec<u8> {
        match self {
            Aside::At(name) => name.to_vec(),
            Aside::Now(format, number) => {
                [&utc(format)[..], format!("-{number}").as_bytes()].concat()
            }
        }
    }
}

/// How `place` writes. See the contract.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// A directory that shares a mount with the target.
    pub staging: BorrowedFd<'a>,
    /// A file opened with O_APPEND.
    pub journal: BorrowedFd<'a>,
    /// Where entries are set aside, relative to `staging`.
    pub aside: Aside<'a>,
    /// How files are written over.
    pub write: Write,
    /// The target is empty and nobody reads it yet.
    pub direct: bool,
    /// Owner and group of every entry.
    pub owner: Option<(u32, u32)>,
    /// A file that somebody holds open for writing is taken if two reads of it agree.
    pub patient: bool,
    /// What was made ready before, or is to be.
    pub prepared: Option<&'a Prepared>,
}

/// How one action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the words are those of `Status` in the contract
pub enum Status {
    Done,
    Same,
    Kept,
    Changed,
    Vanished,
    Busy,
    Failed,
}

/// How the actions of one slice ended.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Where the next slice starts.
    pub next: usize,
    /// What stopped the slice.
    pub stopped: Option<Errno>,
    /// Entries that were put.
    pub puts: usize,
    /// Entries that left the target.
    pub removed: usize,
    /// Bytes written into the target.
    pub bytes: u64,
    /// The actions that ended, in order.
    pub ends: Vec<(Box<[u8]>, Status)>,
    /// What the baseline learns of them.
    pub rows: Vec<Row>,
    /// One for each that failed.
    pub troubles: Vec<Trouble>,
    /// What was set aside: the path, and where it is kept below staging.
    pub aside: Vec<Kept>,
    /// setuid and setgid bits that were not mirrored.
    pub dropped: Vec<Dropped>,
}

impl Outcomes {
    /// Whether all was done, and nothing of it needs to be told.
    pub fn is_smooth(&self) -> bool {
        let well = |(_, end): &(_, Status)| matches!(end, Status::Done | Status::Same);
        self.ends.iter().all(well) && self.aside.is_empty() && self.dropped.is_empty()
    }
}

/// A path, and where what stood there is kept below staging.
pub type Kept = (Box<[u8]>, Box<[u8]>);

/// A path, and the mode bits that were not mirrored.
pub type Dropped = (Box<[u8]>, u32);

/// How one action ended, with what the baseline learns.
#[derive(Debug)]
enum End {
    Set(Status, Box<Agreed>),
    Drop(Status),
    Left(Status),
    Failed(Errno, &'static str, Side),
}

/// Carry out the actions from `start` to before `stop`.
#[allow(clippy::too_many_arguments)]
pub fn place(
    source: &Root,
    target: &Root,
    rules: &dyn Excluder,
    base: &Base,
    actions: &Actions,
    start: usize,
    stop: usize,
    options: &Options<'_>,
    control: &Control,
) -> Result<Outcomes> {
    let stop = stop.min(actions.len()).min(start.saturating_add(SLICE));
    let done = std::mem::take(&mut *lock(&actions.done));
    let slice: Vec<(usize, Action<'_>)> = (start..stop)
        .filter(|at| !done.contains(at))
        .filter_map(|at| Some((at, actions.get(at)?)))
        .collect();
    *lock(&actions.done) = done;
    let mut shop = Shop::new(source, target, rules, base, actions, options, control);
    shop.crowded = slice.len() > 4 * RUN;
    let taken = spread(
        &slice,
        RUN,
        |(_, action), hand| take(action, hand),
        || Hand::new(&shop),
    );
    let mut taken: Vec<Ready> = taken.into_iter().map(Option::flatten).collect();
    take_held(&shop, &slice, &mut taken);
    let noted = note_intents(&slice, &taken, options).inspect_err(|_| {
        shop.discard(
            taken
                .iter()
                .flatten()
                .filter_map(|taken| taken.as_ref().ok()),
        );
    })?;
    let ends = publish::all(&shop, &slice, taken);
    let mut outcomes = gather(&shop, &slice, ends, stop, actions);
    if outcomes.next == actions.len() || outcomes.next < stop || outcomes.stopped.is_some() {
        shop.restore_modes();
    }
    if noted {
        let mut frame = Frame::new(b'O');
        for (path, row) in &outcomes.rows {
            frame.row(path, row.as_ref());
        }
        match append(options.journal, frame) {
            Ok(()) => crash::pass("outcomes"),
            // What was done is done; but nothing more before it can be written down.
            Err(error) => outcomes.stopped = outcomes.stopped.or(Some(error.errno)),
        }
    }
    Ok(outcomes)
}

/// What was taken for each action of a slice. None: the slice was over before it.
type Ready = Option<std::result::Result<Taken, End>>;

/// Journal what the slice is about to do. False: nothing.
fn note_intents(
    slice: &[(usize, Action<'_>)],
    taken: &[Ready],
    options: &Options<'_>,
) -> Result<bool> {
    let mut frame = Frame::new(b'I');
    let mut any = false;
    let nothing = Fingerprint::default();
    for ((_, action), taken) in slice.iter().zip(taken) {
        let Some(Ok(taken)) = taken else { continue };
        any = true;
        let row = action
            .source_kind()
            .filter(|_| taken.meta.is_some())
            .map(|kind| {
                Agreed::new(kind, 0, 0, &nothing, &nothing)
                    .with_digest(taken.digest)
                    .with_link(taken.link.clone())
            });
        frame.row(action.path, row.as_ref());
    }
    if any {
        append(options.journal, frame)?;
        crash::pass("intents");
    }
    Ok(any)
}

/// Put together how the actions ended.
fn gather(
    shop: &Shop<'_>,
    slice: &[(usize, Action<'_>)],
    ends: Vec<Option<End>>,
    stop: usize,
    actions: &Actions,
) -> Outcomes {
    let untouched = slice.iter().zip(&ends).find(|(_, end)| end.is_none());
    let mut out = Outcomes {
        next: untouched.map_or(stop, |((at, _), _)| *at),
        stopped: shop.stopped(),
        bytes: shop.written(),
        removed: shop.all_removed(),
        ..Outcomes::default()
    };
    for ((at, action), end) in slice.iter().zip(ends) {
        let Some(end) = end else { continue };
        let learns = matches!(end, End::Set(..) | End::Drop(_));
        if *at > out.next {
            if !learns && !action.removes() {
                continue; // it comes again
            }
            lock(&actions.done).insert(*at);
        }
        let path = || Box::from(action.path);
        let status = match end {
            End::Set(status, row) => {
                out.puts += usize::from(status == Status::Done);
                shop.drop_bits(action.path, row.source().mode);
                out.rows.push((path(), Some(*row)));
                status
            }
            End::Drop(status) => {
                out.rows.push((path(), None));
                status
            }
            End::Left(status) => status,
            End::Failed(errno, op, side) => {
                out.troubles.push(Trouble {
                    path: path(),
                    errno,
                    op,
                    side,
                });
                Status::Failed
            }
        };
        shop.control.add_entries(u64::from(learns));
        out.ends.push((path(), status));
    }
    out.rows.extend(shop.ways()); // after the rows of the plan, which had something else there
    (out.aside, out.dropped) = shop.kept_and_dropped();
    out
}
