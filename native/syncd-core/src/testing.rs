//! Scratch directories for tests, and pairs of trees that are kept alike.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::actions::{Actions, Verb};
use crate::base::Base;
use crate::control::Control;
use crate::diff::{Diff, Line, diff};
use crate::digest::digest;
use crate::dirs::Root;
use crate::entry::Side;
use crate::exclude::Nothing;
use crate::place::{Aside, Options, Outcomes, Write, place};
use crate::scan::scan;
use crate::tree::{Look, Tree};

/// A directory that goes when it is dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Make one.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("syncd-test-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A source, a target and what a cycle needs.
pub struct Pair {
    scratch: Scratch,
    /// The baseline.
    pub base: Base,
    /// The control block of all calls.
    pub control: Control,
    /// How files are written over.
    pub write: Write,
    /// The journal, and staging.
    pub journal: File,
    staging: File,
}

impl Pair {
    /// Two empty roots.
    pub fn new() -> Self {
        crate::sys::ignore_sigio();
        let scratch = Scratch::new();
        for name in ["source", "target", "staging"] {
            fs::create_dir(scratch.path().join(name)).unwrap();
        }
        let journal = scratch.path().join("journal");
        let journal = OpenOptions::new()
            .append(true)
            .create(true)
            .open(journal)
            .unwrap();
        let staging = File::open(scratch.path().join("staging")).unwrap();
        Pair {
            scratch,
            base: Base::default(),
            control: Control::default(),
            write: Write::Auto,
            journal,
            staging,
        }
    }

    /// A path in the source.
    pub fn source(&self, path: &str) -> PathBuf {
        self.scratch.path().join("source").join(path)
    }

    /// A path in the target.
    pub fn target(&self, path: &str) -> PathBuf {
        self.scratch.path().join("target").join(path)
    }

    /// A path in staging.
    pub fn staging(&self, path: &str) -> PathBuf {
        self.scratch.path().join("staging").join(path)
    }

    /// Write a file, with the directories above it.
    pub fn file(path: &Path, content: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Open one side.
    pub fn root(&self, name: &str) -> Root {
        Root::open(
            self.scratch
                .path()
                .join(name)
                .as_os_str()
                .as_encoded_bytes(),
        )
        .unwrap()
    }

    /// Scan one side.
    pub fn scan(&self, side: Side, scope: Option<&[Look]>) -> Tree {
        let root = self.root(if side == Side::Source {
            "source"
        } else {
            "target"
        });
        scan(
            &root,
            &Nothing,
            side,
            &self.base,
            scope,
            &self.control,
            false,
        )
        .unwrap()
    }

    /// Scan, digest and diff.
    pub fn look(&self, scope: Option<&[Look]>) -> Diff {
        let source = self.scan(Side::Source, scope);
        let target = self.scan(Side::Target, source.scope.as_deref());
        let roots = (self.root("source"), self.root("target"));
        let read = digest(
            &self.base,
            &source,
            &target,
            (&roots.0, &roots.1),
            &self.control,
            false,
        );
        let (source, target) = (read.0.unwrap_or(source), read.1.unwrap_or(target));
        diff(&self.base, &source, &target, Default::default(), false)
    }

    /// The actions of a diff: conflicts are set aside, what only the target has stays.
    pub fn actions(diff: Diff) -> Actions {
        Actions::new(Arc::new(diff), |line| match line {
            Line::Agreed => Verb::Record,
            Line::Changed => Verb::Put,
            Line::Gone => Verb::Remove,
            Line::Conflict => Verb::Replace,
            _ => Verb::Leave,
        })
    }

    /// How the pair is written.
    pub fn options(&self) -> Options<'_> {
        Options {
            staging: self.staging.as_fd(),
            journal: self.journal.as_fd(),
            aside: Aside::At(b"aside"),
            write: self.write,
            direct: false,
            owner: None,
            patient: false,
            prepared: None,
        }
    }

    /// Carry out one slice, and learn from it.
    pub fn place(&mut self, actions: &Actions, start: usize, stop: usize) -> Outcomes {
        let options = self.options();
        let (source, target) = (self.root("source"), self.root("target"));
        let (base, control) = (&self.base, &self.control);
        let outcomes = place(
            &source, &target, &Nothing, base, actions, start, stop, &options, control,
        )
        .unwrap();
        self.base.learn_all(&outcomes.rows);
        outcomes
    }

    /// Everything, in one slice.
    pub fn cycle(&mut self) -> Outcomes {
        let actions = Self::actions(self.look(None));
        self.place(&actions, 0, actions.len())
    }
}
