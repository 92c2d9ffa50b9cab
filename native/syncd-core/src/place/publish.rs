//! Publish: change the target, one action at a time.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{Want, set_time};
use super::beside::Spot;
use super::shop::{Halt, Hand, Placed, Shop, failed, lock};
use super::swap::stays;
use super::take::{Load, Taken, take_file};
use super::{End, RUN, Ready, Status, crash};
use crate::actions::{Action, Verb};
use crate::control::Control;
use crate::digest::spread;
use crate::dirs::{Dir, THROUGH, open_below, retry, stat_fd};
use crate::entry::{Agreed, Content, Digest, Fingerprint, Kind, Meta, Seen, Side, equal, mirrored};
use crate::path;
use crate::read::{hash, open_to_read};
use crate::walk::names;

/// Carry out a slice: directories, then everything else on all cores, then removals (files on all cores, then directories
/// from below), then the times of directories; at last look at what was replaced.
pub fn all(shop: &Shop<'_>, slice: &[(usize, Action<'_>)], taken: Vec<Ready>) -> Vec<Option<End>> {
    let mut ends: Vec<Option<End>> = Vec::with_capacity(slice.len());
    let mut ready: Vec<Option<Taken>> = Vec::with_capacity(slice.len());
    for taken in taken {
        let (end, taken) = match taken {
            Some(Ok(taken)) => (None, Some(taken)),
            Some(Err(end)) => (Some(end), None),
            None => (None, None),
        };
        ends.push(end);
        ready.push(taken);
    }
    let chosen = |choose: &dyn Fn(&Action<'_>) -> bool| -> Vec<usize> {
        let wanted = |at: &usize| {
            ready.get(*at).is_some_and(Option::is_some)
                && slice.get(*at).is_some_and(|(_, action)| choose(action))
        };
        (0..slice.len()).filter(wanted).collect()
    };
    let groups = [
        (chosen(&|action| action.makes_dir()), usize::MAX),
        (
            chosen(&|action| !action.makes_dir() && !action.removes() && !action.records_dir()),
            RUN,
        ),
        (
            chosen(&|action| action.removes() && drops_file(action)),
            RUN,
        ),
        (
            chosen(&|action| action.removes() && !drops_file(action)),
            usize::MAX,
        ),
        (chosen(&|action| action.records_dir()), usize::MAX),
    ];
    for (number, (group, run)) in groups.iter().enumerate() {
        let removals = number == 2 || number == 3;
        let act = |at: &usize, hand: &mut Hand<'_>| {
            let over = shop.control.is_cancelled() || !removals && shop.stopped().is_some();
            match (slice.get(*at), ready.get(*at)) {
                (Some((_, action)), Some(Some(taken))) if !over => {
                    match hand.publish(action, taken) {
                        Ok(end) => Some(end),
                        Err(halt) => {
                            if action.item.source.is_none() {
                                lock(shop.undone).push(action.path.into());
                            }
                            shop.end(halt)
                        }
                    }
                }
                _ => None,
            }
        };
        let done = match run {
            &usize::MAX => {
                let mut hand = Hand::new(shop);
                group.iter().map(|at| act(at, &mut hand)).collect()
            }
            run => spread(group, *run, act, || Hand::new(shop))
                .into_iter()
                .map(Option::flatten)
                .collect::<Vec<_>>(),
        };
        for (at, end) in group.iter().zip(done) {
            if let Some(place) = ends.get_mut(*at) {
                *place = end;
            }
        }
    }
    for path in shop.finish_olds() {
        let at = slice.iter().position(|(_, action)| *action.path == *path);
        if let Some(place) = at.and_then(|at| ends.get_mut(at)) {
            *place = Some(End::Left(Status::Changed));
        }
    }
    let left = ready
        .iter()
        .zip(&ends)
        .filter(|(_, end)| !matches!(end, Some(End::Set(..))));
    shop.discard(left.filter_map(|(taken, _)| taken.as_ref()));
    ends
}

/// Whether an action does no more than remove what is no directory: that needs no order.
fn drops_file(action: &Action<'_>) -> bool {
    let target = action.item.target.as_deref();
    action.verb == Verb::Remove && target.is_some_and(|seen| seen.kind != Kind::Dir)
}

/// How an action ended after which both sides agree.
fn agreed(status: Status, kind: Kind, source: &Meta, target: &Fingerprint, taken: &Taken) -> End {
    let mode = u16::try_from(mirrored(source.print.mode)).unwrap_or_default();
    let row = Agreed::new(kind, mode, source.print.mtime, &source.print, target)
        .with_digest(taken.digest)
        .with_link(taken.link.clone())
        .with_flags(kind == Kind::File && source.links > 1, taken.mount);
    End::Set(status, Box::new(row))
}

impl Hand<'_> {
    fn publish(&mut self, action: &Action<'_>, taken: &Taken) -> Placed<End> {
        if action.verb == Verb::Record || taken.same {
            return self.record(action, taken);
        }
        match (&taken.meta, action.source_kind()) {
            (Some(meta), Some(kind)) => self.put(action, kind, meta, taken),
            _ => self.remove(action),
        }
    }

    // --- puts ---------------------------------------------------------------------------------

    fn put(&mut self, action: &Action<'_>, kind: Kind, meta: &Meta, taken: &Taken) -> Placed<End> {
        let dir = self.parent_made(action.path)?;
        let spot = Spot {
            dir: dir.as_fd(),
            name: path::split(action.path).1,
            path: action.path,
        };
        let want = self.shop.want(meta);
        let placed = match action.item.target.as_deref() {
            None if kind == Kind::Dir => {
                self.shop.make_dir(spot.dir, spot.name, spot.path, meta)?
            }
            None => self.put_new(spot, taken, &want, |_| Ok(()))?,
            Some(target) => {
                let apart = kind == Kind::Dir || matches!(target.kind, Kind::Dir | Kind::Other);
                if action.verb == Verb::Replace || apart {
                    self.put_instead(
                        spot,
                        target,
                        action.verb != Verb::Replace,
                        kind,
                        meta,
                        taken,
                    )?
                } else {
                    let base = action.item.base.as_deref();
                    match self.put_in_place(spot, target, base, taken, &want) {
                        Some(placed) => placed?,
                        None => self.put_over(spot, &target.print, taken, &want)?,
                    }
                }
            }
        };
        if kind == Kind::File {
            self.shop.wrote(meta.print.size);
        }
        Ok(agreed(Status::Done, kind, meta, &placed.print, taken))
    }

    /// Set the target's entry aside and put another in its place. What is `ours` of it is dropped then.
    fn put_instead(
        &mut self,
        spot: Spot<'_>,
        target: &Seen,
        ours: bool,
        kind: Kind,
        meta: &Meta,
        taken: &Taken,
    ) -> Placed<Meta> {
        let shop = self.shop;
        self.expect(spot, target)?;
        let plain = kind != Kind::Dir && matches!(target.kind, Kind::File | Kind::Link);
        if plain && !ours && !shop.options.direct {
            // At each moment one of the two is at the name, also after a kill.
            if let Some(slot) = shop.link_aside(spot.dir, spot.name, spot.path) {
                let put = self.put_onto(spot, &target.print, taken, &shop.want(meta));
                match &put {
                    Ok(_) => shop.keep(spot.path, &slot.shown),
                    Err(_) => slot.unlink(),
                }
                return put;
            }
        }
        let mut slot = None;
        let mut clear = |hand: &mut Self| {
            if slot.is_none() {
                slot = Some(shop.set_aside(spot.dir, spot.name, spot.path)?);
                hand.target.forget(); // it may have been the directory that is aside now
            }
            Ok(())
        };
        let put = if kind == Kind::Dir {
            clear(self).and_then(|()| shop.make_dir(spot.dir, spot.name, spot.path, meta))
        } else {
            self.put_new(spot, taken, &shop.want(meta), clear)
        };
        match (&put, slot) {
            (_, None) => {}
            (Ok(_), Some(slot)) if ours => shop.drop_own(slot, spot.path),
            (Ok(_), Some(slot)) => shop.keep(spot.path, &slot.shown),
            (Err(_), Some(slot)) => shop.put_back(slot, spot.dir, spot.name, spot.path),
        }
        put
    }

    /// Compare what is at a name with what the scan saw, before it is moved away.
    fn expect(&mut self, spot: Spot<'_>, target: &Seen) -> Placed<()> {
        let Some(meta) = self.look(spot.dir, spot.name)? else {
            return Err(Halt::Changed);
        };
        if !is_as_seen(&meta, target) {
            return Err(Halt::Changed);
        }
        // What is no directory holds no overlay.
        if meta.is_dir() && self.shop.rules.overlay_within(spot.path) {
            return Err(Halt::Failed(Errno::BUSY, "overlay", Side::Target));
        }
        Ok(())
    }

    // --- records ------------------------------------------------------------------------------

    /// Learn both fingerprints, after the target got the source's mode and time.
    fn record(&mut self, action: &Action<'_>, taken: &Taken) -> Placed<End> {
        let sides = (action.item.source.as_deref(), action.item.target.as_deref());
        let (source, target, theirs) = match (sides, &taken.meta) {
            ((None, None), _) => return Ok(End::Drop(Status::Same)),
            ((Some(source), Some(target)), Some(theirs)) => (source, target, theirs),
            _ => return Err(Halt::Changed),
        };
        let same = equal(Some(Content::from(source)), Some(Content::from(target)));
        if action.verb == Verb::Record && !same {
            return Err(Halt::Changed);
        }
        let Some(dir) = self.parent(action.path)? else {
            return Err(Halt::Changed);
        };
        let name = path::split(action.path).1;
        let Some(meta) = self.look(dir.as_fd(), name)? else {
            return Err(Halt::Changed);
        };
        if !is_as_seen(&meta, target) {
            return Err(Halt::Changed);
        }
        let want = self.shop.want(theirs);
        let other = meta.print.mtime != want.mtime || meta.print.mode & 0o7777 != want.mode;
        let placed = if meta.kind() == Kind::File && meta.links > 1 && other {
            self.part(
                action,
                Spot {
                    dir: dir.as_fd(),
                    name,
                    path: action.path,
                },
                target,
                &want,
            )?
        } else {
            let digest = taken.digest.or(target.digest);
            self.adjust(action.path, &dir, name, &meta, theirs, digest)?
        };
        Ok(agreed(
            Status::Same,
            source.kind,
            theirs,
            &placed.print,
            taken,
        ))
    }

    /// Put a file anew whose other hard links, which may be anywhere, must not get its mode and time.
    fn part(
        &mut self,
        action: &Action<'_>,
        spot: Spot<'_>,
        target: &Seen,
        want: &Want,
    ) -> Placed<Meta> {
        let taken = take_file(action, self)?;
        if taken.digest != target.digest || matches!(taken.load, Load::Nothing) {
            self.shop.discard([&taken].into_iter());
            return Err(Halt::Changed);
        }
        let put = self.put_over(spot, &target.print, &taken, want);
        if put.is_err() {
            self.shop.discard([&taken].into_iter());
        }
        put
    }

    /// Give the target's entry the mode and time of the source's, where they differ. Its owner stays:
    /// the content is not written, and a change of owner in the target is the target's affair.
    fn adjust(
        &mut self,
        path: &[u8],
        dir: &Dir<'_>,
        name: &[u8],
        meta: &Meta,
        theirs: &Meta,
        digest: Option<Digest>,
    ) -> Placed<Meta> {
        let shop = self.shop;
        let mut want = Want {
            owner: None,
            ..shop.want(theirs)
        };
        match meta.kind() {
            Kind::Dir => {
                if mirrored(meta.print.mode) == want.mode {
                    return Ok(*meta);
                }
                let last = want.mode;
                if shop.obeys_modes() && last & 0o300 != 0o300 {
                    want.mode |= 0o300;
                    shop.later(path, last);
                }
                let mut meta = shop
                    .fix_dir(dir.as_fd(), name, &want)
                    .map_err(failed("chmod"))?;
                meta.print.mode = meta.print.mode & !0o1777 | last;
                Ok(meta)
            }
            Kind::Link => {
                if shop
                    .finish_link(dir.as_fd(), name, &want, meta)
                    .map_err(failed("utime"))?
                {
                    return self.look(dir.as_fd(), name)?.ok_or(Halt::Changed);
                }
                Ok(*meta)
            }
            _ => self.adjust_file(dir, name, meta, &want, digest),
        }
    }

    /// Whether a directory of the target holds, at any depth, an ignored name or an overlay: these are not
    /// moved.
    fn holds_excluded(&self, path: &[u8]) -> Placed<bool> {
        let mut pending = vec![path.to_vec()];
        while let Some(path) = pending.pop() {
            let dir = open_below(self.shop.target, &path, THROUGH).map_err(failed("open"))?;
            for name in names(dir.as_fd()).map_err(failed("list"))? {
                let Some(meta) = self.look(dir.as_fd(), &name)? else {
                    continue;
                };
                let mut below = path.clone();
                path::push(&mut below, &name);
                if self.shop.rules.excluded(&below, meta.is_dir()) {
                    return Ok(true);
                }
                if meta.is_dir() {
                    pending.push(below);
                }
            }
        }
        Ok(false)
    }

    fn adjust_file(
        &mut self,
        dir: &Dir<'_>,
        name: &[u8],
        meta: &Meta,
        want: &Want,
        digest: Option<Digest>,
    ) -> Placed<Meta> {
        let late = meta.print.mtime != want.mtime;
        if !late && meta.print.mode & 0o7777 == want.mode {
            return Ok(*meta);
        }
        let through = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = retry(|| fs::openat(dir.as_fd(), name, through, Mode::empty()))
            .map_err(failed("open"))?;
        if stat_fd(fd.as_fd()).map_err(failed("stat"))?.print != meta.print {
            return Err(Halt::Changed);
        }
        self.shop
            .fix(fd.as_fd(), want, meta)
            .map_err(failed("chmod"))?;
        if late {
            set_time(fd.as_fd(), want.mtime).map_err(failed("utime"))?;
        }
        let after = stat_fd(fd.as_fd()).map_err(failed("stat"))?;
        let written =
            after.print.size != meta.print.size || !late && after.print.mtime != meta.print.mtime;
        // Setting the time would hide what somebody wrote. A file that may not be read is believed.
        let other = late
            && open_to_read(fd.as_fd())
                .is_ok_and(|reader| self.reads_otherwise(reader.as_fd(), digest));
        if written || other {
            Err(Halt::Changed)
        } else {
            Ok(after)
        } // somebody writes it just now
    }

    /// Whether something below was to be removed and was not: its row must not go with its directory's.
    fn holds_undone(&self, path: &[u8]) -> bool {
        let undone = lock(self.shop.undone);
        undone.iter().any(|each| path::is_within(each, path))
    }

    fn reads_otherwise(&mut self, fd: BorrowedFd<'_>, digest: Option<Digest>) -> bool {
        let read = hash(fd, &mut self.buffer, &Control::default());
        read.is_ok_and(|read| Some(read) != digest)
    }

    // --- removals -----------------------------------------------------------------------------

    /// Remove what the scan saw or, unless the verb is REMOVE, set it aside. What is gone already is as
    /// planned: it went by itself, or with a directory above.
    fn remove(&mut self, action: &Action<'_>) -> Placed<End> {
        let gone = Ok(End::Drop(Status::Done));
        let Some(dir) = self.parent(action.path)? else {
            return gone;
        };
        let spot = Spot {
            dir: dir.as_fd(),
            name: path::split(action.path).1,
            path: action.path,
        };
        let Some(meta) = self.look(spot.dir, spot.name)? else {
            return gone;
        };
        let Some(target) = action
            .item
            .target
            .as_deref()
            .filter(|seen| is_as_seen(&meta, seen))
        else {
            return Err(Halt::Changed);
        };
        // What somebody writes later into a file that he holds open must not vanish with it.
        let held = target.kind == Kind::File && !stays(spot.dir, spot.name, &target.print);
        if action.verb != Verb::Remove || held {
            if meta.is_dir() && self.holds_excluded(action.path)? {
                return Ok(End::Drop(Status::Kept)); // what is in it goes by its own rows
            }
            self.expect(spot, target)?;
            let slot = self.shop.set_aside(spot.dir, spot.name, spot.path)?;
            self.target.forget();
            self.shop.keep(spot.path, &slot.shown);
            self.shop.removed();
            return gone;
        }
        let is_dir = target.kind == Kind::Dir;
        let flags = if is_dir {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        match retry(|| fs::unlinkat(spot.dir, spot.name, flags)) {
            Ok(()) => {
                crash::pass("publish-removed");
                self.shop.removed();
                gone
            }
            Err(Errno::NOENT) => gone,
            Err(Errno::NOTEMPTY | Errno::EXIST) if is_dir && !self.holds_undone(action.path) => {
                Ok(End::Drop(Status::Kept))
            }
            Err(Errno::NOTDIR | Errno::ISDIR) => Err(Halt::Changed),
            Err(errno) => Err(failed("remove")(errno)),
        }
    }
}

/// Whether an entry is what the scan saw. Of a directory only the kind counts.
fn is_as_seen(meta: &Meta, seen: &Seen) -> bool {
    match seen.kind {
        Kind::Dir => meta.is_dir(),
        _ => meta.print == seen.print,
    }
}
