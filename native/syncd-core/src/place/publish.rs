//! Publish: change the target, one action at a time.

use std::os::fd::AsFd;

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::beside::Spot;
use super::shop::{Halt, Hand, Placed, Shop, failed, set_time};
use super::take::{Load, Taken};
use super::{End, Status, crash};
use crate::actions::{Action, Verb};
use crate::digest::spread;
use crate::dirs::{Dir, retry, stat_fd};
use crate::entry::{Agreed, Content, Fingerprint, Kind, Meta, Seen, Side, equal, mirrored};
use crate::path;

/// What of a slice is ready to be published.
type Ready = Option<Result<Taken, End>>;

/// Carry out a slice: directories, then everything else on all cores, then removals.
pub fn all(shop: &Shop<'_>, slice: &[Action<'_>], taken: Vec<Ready>) -> Vec<Option<End>> {
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
            ready.get(*at).is_some_and(Option::is_some) && slice.get(*at).is_some_and(choose)
        };
        (0..slice.len()).filter(wanted).collect()
    };
    let groups = [
        (chosen(&|action| action.makes_dir()), usize::MAX),
        (
            chosen(&|action| !action.makes_dir() && !action.removes()),
            16,
        ),
        (chosen(&|action| action.removes()), usize::MAX),
    ];
    for (number, (group, run)) in groups.iter().enumerate() {
        let removals = number == 2;
        let act = |at: &usize, hand: &mut Hand<'_>| {
            let over = shop.control.is_cancelled() || !removals && shop.stopped().is_some();
            match (slice.get(*at), ready.get(*at)) {
                (Some(action), Some(Some(taken))) if !over => match hand.publish(action, taken) {
                    Ok(end) => Some(end),
                    Err(halt) => shop.end(halt),
                },
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
    let left = ready
        .iter()
        .zip(&ends)
        .filter(|(_, end)| !matches!(end, Some(End::Set(..))));
    shop.discard(left.filter_map(|(taken, _)| taken.as_ref()));
    ends
}

/// The row that both sides agree on now.
fn row(source: &Fingerprint, target: &Fingerprint, kind: Kind, taken: &Taken) -> Agreed {
    let mode = u16::try_from(mirrored(source.mode)).unwrap_or_default();
    Agreed::new(kind, mode, source.mtime, source, target)
        .with_digest(taken.digest)
        .with_link(taken.link.clone())
}

impl Hand<'_> {
    fn publish(&mut self, action: &Action<'_>, taken: &Taken) -> Placed<End> {
        if action.removes() {
            return self.remove(action);
        }
        match (action.verb, &action.item.source) {
            (Verb::Put | Verb::Replace, Some(source)) => self.put(action, source, taken),
            (Verb::Replace, None) => self.clear(action),
            _ => self.record(action, action.item.source.as_deref(), None),
        }
    }

    // --- puts ---------------------------------------------------------------------------------

    fn put(&mut self, action: &Action<'_>, source: &Seen, taken: &Taken) -> Placed<End> {
        let shop = self.shop;
        let Some(meta) = &taken.meta else {
            return Err(Halt::Vanished);
        };
        if taken.same {
            return self.record(action, Some(source), Some((meta, taken)));
        }
        let dir = self.parent_made(action.path)?;
        let spot = Spot {
            dir: dir.as_fd(),
            name: path::split(action.path).1,
            path: action.path,
        };
        let target = action.item.target.as_deref();
        let placed = match target {
            Some(target) if action.verb == Verb::Replace => {
                self.put_instead(spot, target, false, |hand| {
                    hand.put_there(spot, source.kind, taken, meta)
                })?
            }
            Some(target) => match (source.kind, target.kind) {
                (Kind::Dir, _) | (_, Kind::Dir | Kind::Other) => {
                    self.put_instead(spot, target, true, |hand| {
                        hand.put_there(spot, source.kind, taken, meta)
                    })?
                }
                _ => {
                    let want = shop.want(meta);
                    match self.put_in_place(spot, target, action.item.base.as_deref(), taken, &want)
                    {
                        Some(placed) => placed?,
                        None => self.put_over(spot, &target.print, taken, &want)?,
                    }
                }
            },
            None => self.put_there(spot, source.kind, taken, meta)?,
        };
        if source.kind == Kind::File {
            shop.wrote(meta.print.size);
        }
        let shared = source.kind == Kind::File && meta.links > 1;
        let row =
            row(&meta.print, &placed.print, source.kind, taken).with_flags(shared, source.mount);
        Ok(End::Set(Status::Done, Box::new(row)))
    }

    /// Put an entry where nothing is.
    fn put_there(
        &mut self,
        spot: Spot<'_>,
        kind: Kind,
        taken: &Taken,
        meta: &Meta,
    ) -> Placed<Meta> {
        match kind {
            Kind::Dir => self.shop.make_dir(spot.dir, spot.name, spot.path, meta),
            _ => {
                let want = self.shop.want(meta);
                self.put_new(spot, taken, &want)
            }
        }
    }

    /// Set the target's entry aside and put another in its place. What is `ours` of it is dropped then.
    fn put_instead(
        &mut self,
        spot: Spot<'_>,
        target: &Seen,
        ours: bool,
        put: impl FnOnce(&mut Self) -> Placed<Meta>,
    ) -> Placed<Meta> {
        let shop = self.shop;
        self.expect(spot, target)?;
        let slot = shop.set_aside(spot.dir, spot.name, spot.path)?;
        self.target.forget(); // it may have been the directory that is aside now
        match put(self) {
            Ok(meta) => {
                if ours {
                    shop.drop_own(slot, spot.path);
                } else {
                    shop.keep(spot.path, &slot.shown);
                }
                Ok(meta)
            }
            Err(halt) => {
                shop.put_back(slot, spot.dir, spot.name, spot.path);
                Err(halt)
            }
        }
    }

    /// Compare what is at a name with what the scan saw, before it is moved away.
    fn expect(&mut self, spot: Spot<'_>, target: &Seen) -> Placed<()> {
        let Some(meta) = self.look(spot.dir, spot.name)? else {
            return Err(Halt::Changed);
        };
        if !is_as_seen(&meta, target) {
            return Err(Halt::Changed);
        }
        if self.shop.rules.overlay_within(spot.path) {
            return Err(Halt::Failed(Errno::BUSY, "overlay", Side::Target));
        }
        Ok(())
    }

    /// REPLACE without an entry of the source: set the target's aside.
    fn clear(&mut self, action: &Action<'_>) -> Placed<End> {
        let (Some(target), Some(dir)) = (action.item.target.as_deref(), self.parent(action.path)?)
        else {
            return Ok(End::Drop(Status::Done)); // nothing is there, or it went with a directory above
        };
        let spot = Spot {
            dir: dir.as_fd(),
            name: path::split(action.path).1,
            path: action.path,
        };
        if self.look(spot.dir, spot.name)?.is_none() {
            return Ok(End::Drop(Status::Done));
        }
        self.expect(spot, target)?;
        let slot = self.shop.set_aside(spot.dir, spot.name, spot.path)?;
        self.target.forget();
        self.shop.keep(spot.path, &slot.shown);
        Ok(End::Drop(Status::Done))
    }

    // --- records ------------------------------------------------------------------------------

    /// Learn both fingerprints; write mode, owner and time where the target's differ.
    ///
    /// `taken`: the source as it is now, if it was read again; else it counts as the scan saw it.
    fn record(
        &mut self,
        action: &Action<'_>,
        source: Option<&Seen>,
        taken: Option<(&Meta, &Taken)>,
    ) -> Placed<End> {
        let shop = self.shop;
        let target = action.item.target.as_deref();
        let (source, target) = match (source, target) {
            (None, None) => return Ok(End::Drop(Status::Done)),
            (Some(source), Some(target)) => (source, target),
            _ => return Err(Halt::Changed),
        };
        if taken.is_none() && !equal(Some(Content::from(source)), Some(Content::from(target))) {
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
        let theirs = match taken {
            Some((meta, _)) => *meta,
            None => Meta {
                print: source.print,
                device: 0,
                links: 1 + u64::from(source.shared),
                blocks: 0,
                uid: source.uid,
                gid: source.gid,
            },
        };
        if taken.is_none() {
            shop.drop_bits(action.path, theirs.print.mode);
        }
        let placed = self.adjust(action.path, &dir, name, &meta, &theirs)?;
        let nothing = Taken {
            meta: None,
            digest: source.digest,
            link: source.link.clone(),
            load: Load::Nothing,
            same: true,
        };
        let content = taken.map_or(&nothing, |(_, taken)| taken);
        let shared = source.kind == Kind::File && theirs.links > 1;
        let row = row(&theirs.print, &placed.print, source.kind, content)
            .with_flags(shared, source.mount);
        let status = if taken.is_some() {
            Status::Same
        } else {
            Status::Done
        };
        Ok(End::Set(status, Box::new(row)))
    }

    /// Give the target's entry the mode, owner and time of the source's, where they differ.
    fn adjust(
        &mut self,
        path: &[u8],
        dir: &Dir<'_>,
        name: &[u8],
        meta: &Meta,
        theirs: &Meta,
    ) -> Placed<Meta> {
        let shop = self.shop;
        let mut want = shop.want(theirs);
        let owned = want.owner.is_none_or(|owner| owner == meta.owner());
        match meta.kind() {
            Kind::Dir => {
                if owned && mirrored(meta.print.mode) == want.mode {
                    return Ok(*meta);
                }
                let last = want.mode;
                if !shop.is_root() && last & 0o300 != 0o300 {
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
            _ => {
                let late = meta.print.mtime != want.mtime;
                if owned && !late && meta.print.mode & 0o7777 == want.mode {
                    return Ok(*meta);
                }
                let reading = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let through = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = match retry(|| fs::openat(dir.as_fd(), name, reading, Mode::empty())) {
                    Err(Errno::ACCESS) => {
                        retry(|| fs::openat(dir.as_fd(), name, through, Mode::empty()))
                    }
                    opened => opened,
                };
                let fd = fd.map_err(failed("open"))?;
                if stat_fd(fd.as_fd()).map_err(failed("stat"))?.print != meta.print {
                    return Err(Halt::Changed);
                }
                shop.fix(fd.as_fd(), &want, meta).map_err(failed("chmod"))?;
                if late {
                    set_time(fd.as_fd(), want.mtime).map_err(failed("utime"))?;
                }
                stat_fd(fd.as_fd()).map_err(failed("stat"))
            }
        }
    }

    // --- removals -----------------------------------------------------------------------------

    fn remove(&mut self, action: &Action<'_>) -> Placed<End> {
        let gone = Ok(End::Drop(Status::Done));
        let Some(target) = action.item.target.as_deref() else {
            return gone;
        };
        let Some(dir) = self.parent(action.path)? else {
            return gone;
        };
        let name = path::split(action.path).1;
        let Some(meta) = self.look(dir.as_fd(), name)? else {
            return gone;
        };
        if !is_as_seen(&meta, target) {
            return Err(Halt::Changed);
        }
        let flags = if target.kind == Kind::Dir {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        match retry(|| fs::unlinkat(dir.as_fd(), name, flags)) {
            Ok(()) => {
                crash::pass("publish-removed");
                gone
            }
            Err(Errno::NOENT) => gone,
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) if target.kind == Kind::Dir => {
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
