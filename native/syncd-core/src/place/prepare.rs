//! Prepare: what a held burst will put is read, and written into staging, before its time has come.
//!
//! Only a saving. Nothing in the target changes, and what is prepared is used only if the source's file and the one in
//! staging are untouched when it is taken.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use rustix::fs::{self, AtFlags};
use rustix::io::Errno;

use super::shop::{Hand, Shop, lock, new_name};
use super::take::{Load, NOTHING, SMALL, Taken};
use super::{Options, crash};
use crate::actions::{Actions, Verb};
use crate::base::Base;
use crate::control::Control;
use crate::diff::Diff;
use crate::dirs::{Root, stat_at};
use crate::entry::{Kind, Seen};
use crate::exclude::Nothing;
use crate::read::{Open, digest_of, read_small};
use crate::sys::begin_writing;

/// At most so much content, and so many files, are prepared.
const BYTES: u64 = 64 << 20;
const FILES: usize = 20_000;

/// Files that are ready to be put.
#[derive(Debug, Default)]
pub struct Prepared(Mutex<Ready>);

#[derive(Debug, Default)]
struct Ready {
    files: HashMap<Box<[u8]>, Taken>,
    bytes: u64,
}

impl Ready {
    fn take(&mut self, path: &[u8]) -> Option<Taken> {
        let taken = self.files.remove(path)?;
        self.bytes -= taken.size();
        Some(taken)
    }
}

impl Prepared {
    /// Forget everything. `staging` is where it was written. What cannot be removed there is tried again the next time.
    pub fn clear(&self, staging: BorrowedFd<'_>) {
        let left = std::mem::take(&mut *lock(&LEFT));
        left.into_iter().for_each(|number| remove(staging, number));
        let ready = std::mem::take(&mut *lock(&self.0));
        ready
            .files
            .values()
            .for_each(|taken| discard(staging, taken));
    }

    /// How many files are ready, or could not be removed.
    pub fn len(&self) -> usize {
        lock(&self.0).files.len() + lock(&LEFT).len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Taken {
    fn size(&self) -> u64 {
        self.meta.map_or(0, |meta| meta.print.size)
    }
}

/// Numbers of files in staging that could not be removed: the filesystem is read-only, say.
static LEFT: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// Remove what was taken into staging and is not put.
pub fn discard(staging: BorrowedFd<'_>, taken: &Taken) {
    if let Some(number) = taken.load.staged() {
        remove(staging, number);
    }
}

fn remove(staging: BorrowedFd<'_>, number: u64) {
    match fs::unlinkat(staging, new_name(number).as_slice(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(_) => lock(&LEFT).push(number),
    }
}

impl Shop<'_> {
    /// What was prepared for a path, if it is what the scan saw there, and the file in staging was not touched since.
    pub fn prepared(&self, path: &[u8], seen: &Seen) -> Option<Taken> {
        let taken = lock(&self.options.prepared?.0).take(path)?;
        let is_whole = match taken.load {
            Load::Whole(number, print) => stat_at(self.options.staging, &new_name(number), false)
                .is_ok_and(|now| now.print == print),
            _ => true,
        };
        if is_whole && taken.meta.is_some_and(|meta| meta.print == seen.print) {
            return Some(taken);
        }
        discard(self.options.staging, &taken);
        None
    }
}

/// Prepare those of `paths` that are small files and other than the baseline has them. Ends early when there is no room.
pub fn prepare(
    roots: (&Root, &Root),
    base: &Base,
    paths: &[Box<[u8]>],
    options: &Options<'_>,
    control: &Control,
) {
    let Some(prepared) = options.prepared else {
        return;
    };
    let actions = Actions::new(Arc::new(Diff::default()), |_| Verb::Leave);
    let shop = Shop::new(roots.0, roots.1, &Nothing, base, &actions, options, control);
    let mut hand = Hand::new(&shop);
    for path in paths {
        if let Some(old) = lock(&prepared.0).take(path) {
            discard(options.staging, &old);
        }
        let ready = lock(&prepared.0);
        let room = ready.files.len() < FILES && ready.bytes < BYTES;
        drop(ready);
        if !room || control.is_cancelled() {
            return;
        }
        if let Some(taken) = hand.ahead(path) {
            crash::pass("prepared");
            let mut ready = lock(&prepared.0);
            ready.bytes += taken.size();
            ready.files.insert(path.clone(), taken);
        }
    }
}

impl Hand<'_> {
    fn ahead(&mut self, path: &[u8]) -> Option<Taken> {
        let shop = self.shop;
        let (dir, name) = self.source.parent(path).ok()?;
        let file = Open::at(dir.as_fd(), name, None, false).ok()?;
        let row = shop.base.get(path);
        let known =
            |row: &crate::entry::Agreed| row.kind != Kind::File || row.source() == file.meta.print;
        if file.meta.print.size > SMALL || row.is_some_and(known) {
            return None;
        }
        let mut content = Vec::new();
        read_small(&file, &mut content, shop.control).ok()?;
        let digest = digest_of(&content);
        let (meta, _) = file.close(false, |_| Ok(false)).ok()?; // where leases are refused it takes two reads
        if row.is_some_and(|row| row.digest() == Some(digest)) {
            return None;
        }
        let mut taken = Taken {
            meta: Some(meta),
            digest: Some(digest),
            load: Load::Memory(content),
            ..NOTHING
        };
        let want = shop.want(&meta);
        if row.is_some_and(|row| self.fits_in_place(&row.target(), &taken, &want)) {
            return Some(taken);
        }
        let (number, print, fd) = self.stage_whole(&taken, &want)?;
        begin_writing(fd.as_fd());
        taken.load = Load::Whole(number, print);
        Some(taken)
    }
}
