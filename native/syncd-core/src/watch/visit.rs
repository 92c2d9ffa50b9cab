//! Watching what a scan walks through.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::{Coverage, Shared, Watcher};
use crate::base::Base;
use crate::control::Control;
use crate::dirs::Root;
use crate::entry::Side;
use crate::error::{Error, Result};
use crate::exclude::Excluder;
use crate::look::{Mark, Visitor};
use crate::scan::{scan, scan_visited};
use crate::tree::Tree;

/// A scan that watches each directory before it lists it. Marks are watches.
struct Visit<'a> {
    shared: &'a Shared,
    root: BorrowedFd<'a>,
}

impl Visitor for Visit<'_> {
    fn enter(&self, above: Mark, dir: BorrowedFd<'_>, path: &[u8]) -> Mark {
        let added = above.and_then(|above| Ok((self.shared.add(dir)?, above))); // several threads at once
        self.shared
            .with_known(|work| work.met(self.root, dir, added, path))
    }

    fn miss(&self, above: Mark, path: &[u8], errno: Errno) {
        self.shared
            .with_known(|work| work.miss(path, errno, above.unwrap_or(0)));
    }
}

impl Watcher {
    /// `cover`, and the scan of all the source, in one walk. Blocks on the disk.
    pub fn scan(
        &self,
        root: &Root,
        rules: &Arc<dyn Excluder + Send>,
        known: &Base,
        control: &Control,
        force: bool,
    ) -> Result<(Coverage, Tree)> {
        let Some(shared) = self.shared() else {
            let tree = scan(root, &**rules, Side::Source, known, None, control, force)?;
            return Ok((Coverage::default(), tree));
        };
        let begun = shared.with_known(|work| work.begin(root.fd(), Arc::clone(rules)));
        begun.map_err(|errno| Error::new(errno, "watch"))?;
        let visit = Visit {
            shared: &shared,
            root: root.fd(),
        };
        let tree = scan_visited(root, &**rules, known, control, force, &visit);
        let whole = tree.is_ok() && !control.is_cancelled();
        let coverage = shared.with_work(|work| work.end(whole));
        Ok((coverage, tree?))
    }
}
