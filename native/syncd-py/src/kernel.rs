//! The kernel: the primitives of `syncd/kernel/contract.py`.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use syncd_core::actions::Verb;
use syncd_core::base::Row;
use syncd_core::entry::{Digest, Seen};
use syncd_core::error::Errno;
use syncd_core::express::{Ends, express};
use syncd_core::place::{Aside, Options, Write};
use syncd_core::{diff, digest, place, scan, state, sys};

use crate::convert::{self, path_of, paths_of, raised};
use crate::handles::{Control, Root};
use crate::place::{Actions, Diff, Outcomes, Prepared, verb_of};
use crate::rules::{Rules, compile_rules};
use crate::tree::{Base, Tree};

pub fn lent<'a>(fd: i32) -> PyResult<BorrowedFd<'a>> {
    sys::lend(fd).ok_or_else(|| PyValueError::new_err("no descriptor"))
}

/// The native body.
#[pyclass(frozen, module = "syncd._native")]
pub struct Kernel;

#[pymethods]
impl Kernel {
    #[new]
    fn new() -> Self {
        sys::ignore_sigio(); // a read lease that a writer breaks sends it, and it would end the process
        Kernel
    }

    #[classattr]
    fn name() -> &'static str {
        "native"
    }

    fn control(&self) -> Control {
        Control::default()
    }

    #[pyo3(signature = (path, covered = None))]
    fn open_root(
        &self,
        py: Python<'_>,
        path: &[u8],
        covered: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Root> {
        let opened = py.detach(|| syncd_core::dirs::Root::open(path));
        let mut root = opened.map_err(|error| raised(py, &error))?;
        if let Some(covered) = covered {
            for path in covered.try_iter()? {
                root.covered.insert(path?.extract()?);
            }
        }
        Ok(Root::new(root))
    }

    fn compile_rules(
        &self,
        first: Vec<Bound<'_, PyAny>>,
        nested: Vec<Vec<u8>>,
        last: Vec<Bound<'_, PyAny>>,
        overlays: Bound<'_, PyAny>,
    ) -> PyResult<Rules> {
        compile_rules(first, nested, last, overlays)
    }

    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (root, rules, side, known, scope, control, force = false))]
    fn scan(
        &self,
        py: Python<'_>,
        root: &Root,
        rules: &Rules,
        side: &Bound<'_, PyAny>,
        known: &Base,
        scope: &Bound<'_, PyAny>,
        control: &Control,
        force: bool,
    ) -> PyResult<Tree> {
        let (root, rules, control) = (root.open()?, rules.excluder(), Arc::clone(&control.inner));
        let (side, known) = (convert::side_of(side)?, known.share()?);
        let (given, other) = match scope.cast::<Tree>() {
            Ok(tree) => (None, Some(Arc::clone(&tree.get().inner))),
            Err(_) => (convert::scope_of(scope)?, None),
        };
        let tree = py.detach(|| {
            let scope = given.as_deref();
            let tree = scan::scan(
                &root,
                &*rules,
                side,
                &known,
                scope.or_else(|| other.as_ref()?.scope.as_deref()),
                &control,
                force,
            );
            drop(known);
            tree
        });
        tree.map(|tree| Tree {
            inner: Arc::new(tree),
        })
        .map_err(|error| raised(py, &error))
    }

    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (base, source, target, roots, control, exact = false))]
    fn digest(
        &self,
        py: Python<'_>,
        base: &Base,
        source: Py<Tree>,
        target: Py<Tree>,
        roots: (PyRef<'_, Root>, PyRef<'_, Root>),
        control: &Control,
        exact: bool,
    ) -> PyResult<(Py<Tree>, Py<Tree>)> {
        let base = base.share()?;
        let roots = (roots.0.open()?, roots.1.open()?);
        let trees = (
            Arc::clone(&source.get().inner),
            Arc::clone(&target.get().inner),
        );
        let control = Arc::clone(&control.inner);
        let (new_source, new_target) = py.detach(|| {
            let read = digest::digest(
                &base,
                &trees.0,
                &trees.1,
                (&roots.0, &roots.1),
                &control,
                exact,
            );
            drop((base, trees));
            read
        });
        let handle = |new: Option<syncd_core::tree::Tree>, old| match new {
            Some(tree) => Py::new(
                py,
                Tree {
                    inner: Arc::new(tree),
                },
            ),
            None => Ok(old),
        };
        Ok((handle(new_source, source)?, handle(new_target, target)?))
    }

    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (base, source, target, removed = None, explained = false))]
    fn diff(
        &self,
        py: Python<'_>,
        base: &Base,
        source: &Tree,
        target: &Tree,
        removed: Option<&Bound<'_, PyAny>>,
        explained: bool,
    ) -> PyResult<Diff> {
        let base = base.share()?;
        let removed: HashSet<Box<[u8]>> = match removed {
            Some(paths) => paths_of(paths)?.into_iter().collect(),
            None => HashSet::new(),
        };
        let (source, target) = (Arc::clone(&source.inner), Arc::clone(&target.inner));
        let diff = py.detach(|| diff::diff(&base, &source, &target, removed, explained));
        Ok(Diff {
            inner: Arc::new(diff),
        })
    }

    fn patch(&self, py: Python<'_>, base: &Base, outcomes: &Outcomes) -> PyResult<Base> {
        let mut inner = base.take()?;
        Ok(Base::new(py.detach(|| {
            inner.learn_all(&outcomes.inner.rows);
            inner
        })))
    }

    fn settle(
        &self,
        py: Python<'_>,
        base: &Base,
        rows: &Bound<'_, PyAny>,
        journal: i32,
    ) -> PyResult<Base> {
        let mut learned: Vec<Row> = Vec::new();
        for row in rows.try_iter()? {
            let (path, row) = row?.extract::<(Bound<'_, PyAny>, Option<Bound<'_, PyAny>>)>()?;
            learned.push((
                path_of(&path)?,
                row.map(|row| convert::agreed_of(&row)).transpose()?,
            ));
        }
        let journal = lent(journal)?;
        let mut inner = base.take()?;
        let settled = py.detach(|| state::settle(&mut inner, &learned, journal));
        match settled {
            Ok(()) => Ok(Base::new(inner)),
            Err(error) => {
                base.give_back(inner);
                Err(raised(py, &error))
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn place(
        &self,
        py: Python<'_>,
        source: &Root,
        target: &Root,
        rules: &Rules,
        base: &Base,
        actions: &Actions,
        start: usize,
        stop: usize,
        options: &Bound<'_, PyAny>,
        control: &Control,
    ) -> PyResult<Outcomes> {
        let (source, target, rules) = (source.open()?, target.open()?, rules.excluder());
        let (base, actions, control) = (
            base.share()?,
            Arc::clone(&actions.inner),
            Arc::clone(&control.inner),
        );
        let given = given(options)?;
        let options = options_of(&given)?;
        let placed = py.detach(|| {
            place::place(
                &source, &target, &*rules, &base, &actions, start, stop, &options, &control,
            )
        });
        placed
            .map(|inner| Outcomes { inner })
            .map_err(|error| raised(py, &error))
    }

    #[allow(clippy::too_many_arguments)]
    fn express(
        &self,
        py: Python<'_>,
        paths: (Vec<u8>, Vec<u8>),
        roots: ((u64, u64), (u64, u64)),
        rules: &Rules,
        base: &Base,
        looked: &Bound<'_, PyAny>,
        deep: &Bound<'_, PyAny>,
        verbs: &Bound<'_, PyAny>,
        options: &Bound<'_, PyAny>,
        control: &Control,
    ) -> PyResult<Option<Outcomes>> {
        let (rules, base, control) = (rules.excluder(), base.share()?, Arc::clone(&control.inner));
        let deep = paths_of(deep)?;
        let look = |path| syncd_core::tree::Look {
            deep: deep.contains(&path),
            path,
        };
        let scope: Vec<_> = paths_of(looked)?.into_iter().map(look).collect();
        let verbs = calm_verbs(verbs)?;
        let given = given(options)?;
        let options = options_of(&given)?;
        let ends = Ends {
            paths: (&paths.0, &paths.1),
            roots,
        };
        let done = py.detach(|| express(&ends, &*rules, &base, &scope, verbs, &options, &control));
        done.map(|done| done.map(|inner| Outcomes { inner }))
            .map_err(|error| raised(py, &error))
    }

    fn prepared(&self) -> Prepared {
        Prepared::default()
    }

    fn prepare(
        &self,
        py: Python<'_>,
        roots: (PyRef<'_, Root>, PyRef<'_, Root>),
        base: &Base,
        paths: &Bound<'_, PyAny>,
        options: &Bound<'_, PyAny>,
        control: &Control,
    ) -> PyResult<()> {
        let (source, target) = (roots.0.open()?, roots.1.open()?);
        let (base, control) = (base.share()?, Arc::clone(&control.inner));
        let (paths, given) = (paths_of(paths)?, given(options)?);
        let options = options_of(&given)?;
        py.detach(|| place::prepare((&source, &target), &base, &paths, &options, &control));
        Ok(())
    }

    #[pyo3(signature = (root, paths, force = false))]
    fn stat_many<'py>(
        &self,
        py: Python<'py>,
        root: &Root,
        paths: &Bound<'py, PyAny>,
        force: bool,
    ) -> PyResult<Vec<Option<Bound<'py, PyAny>>>> {
        let (root, paths) = (root.open()?, paths_of(paths)?);
        let looked = py.detach(|| digest::stat_many(&root, &paths, force));
        let value = |looked: Result<Option<Seen>, Errno>| match looked {
            Ok(Some(seen)) => convert::entry(py, &seen).map(Some),
            Ok(None) => Ok(None),
            Err(errno) => number(py, errno).map(Some),
        };
        looked.into_iter().map(value).collect()
    }

    fn hash_many<'py>(
        &self,
        py: Python<'py>,
        root: &Root,
        paths: &Bound<'py, PyAny>,
        control: &Control,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let (root, paths, control) = (root.open()?, paths_of(paths)?, Arc::clone(&control.inner));
        let hashed = py.detach(|| digest::hash_many(&root, &paths, &control));
        let value = |hashed: Result<Digest, Errno>| match hashed {
            Ok(digest) => Ok(PyBytes::new(py, &digest).into_any()),
            Err(errno) => number(py, errno),
        };
        hashed.into_iter().map(value).collect()
    }

    fn empty_base(&self) -> Base {
        Base::new(syncd_core::base::Base::default())
    }

    fn save_tree(&self, py: Python<'_>, base: &Base, notes: Vec<Vec<u8>>, fd: i32) -> PyResult<()> {
        let (base, fd) = (base.share()?, lent(fd)?);
        py.detach(|| state::save_tree(&base, &notes, fd))
            .map_err(|error| raised(py, &error))
    }

    fn load_tree<'py>(&self, py: Python<'py>, fds: Vec<i32>) -> PyResult<Bound<'py, PyAny>> {
        let fds = fds.into_iter().map(lent).collect::<PyResult<Vec<_>>>()?;
        let loaded = py.detach(|| {
            let loaded = state::load_tree(&fds);
            sys::trim();
            loaded
        });
        let loaded = loaded.map_err(|error| raised(py, &error))?;
        let base = Bound::new(py, Base::new(loaded.base))?.into_any();
        convert::loaded(py, base, &loaded.notes, &loaded.intents, loaded.whole)
    }

    fn former<'py>(
        &self,
        py: Python<'py>,
        fds: Vec<i32>,
        base: &Base,
    ) -> PyResult<Vec<(Bound<'py, PyBytes>, Bound<'py, PyAny>)>> {
        let fds = fds.into_iter().map(lent).collect::<PyResult<Vec<_>>>()?;
        let base = base.share()?;
        py.detach(|| state::former(&fds, &base))
            .map_err(|error| raised(py, &error))?
            .iter()
            .map(|(path, row)| Ok((convert::bytes(py, path), convert::agreed(py, row)?)))
            .collect()
    }

    fn note(&self, py: Python<'_>, journal: i32, note: Vec<u8>) -> PyResult<()> {
        let journal = lent(journal)?;
        py.detach(|| state::note(journal, &note))
            .map_err(|error| raised(py, &error))
    }
}

/// The verbs of the lines AGREED and CHANGED.
pub fn calm_verbs(verbs: &Bound<'_, PyAny>) -> PyResult<(Verb, Verb)> {
    let verb = |line| place_verb(&verbs.get_item(line)?);
    Ok((verb("agreed")?, verb("changed")?))
}

/// A verb.
fn place_verb(value: &Bound<'_, PyAny>) -> PyResult<Verb> {
    verb_of(value.cast::<PyString>()?.to_str()?)
}

/// The fields of a `PlaceOptions`.
pub type Given = (
    i32,
    i32,
    Vec<u8>,
    String,
    bool,
    Option<(u32, u32)>,
    bool,
    Option<Py<Prepared>>,
);

pub fn given(options: &Bound<'_, PyAny>) -> PyResult<Given> {
    let given: Given = options.extract()?;
    if syncd_core::path::is_valid(&given.2) && !given.2.is_empty() {
        Ok(given)
    } else {
        Err(PyValueError::new_err("`aside` is no relative path"))
    }
}

pub fn options_of(given: &Given) -> PyResult<Options<'_>> {
    let (staging, journal, aside, write, direct, owner, patient, prepared) = given;
    Ok(Options {
        staging: lent(*staging)?,
        journal: lent(*journal)?,
        aside: Aside::At(aside),
        write: match write.as_str() {
            "auto" => Write::Auto,
            "replace" => Write::Replace,
            "inplace" => Write::InPlace,
            _ => return Err(PyValueError::new_err(format!("no way to write: {write}"))),
        },
        direct: *direct,
        owner: *owner,
        patient: *patient,
        prepared: prepared.as_ref().map(|prepared| &prepared.get().inner),
    })
}

fn number(py: Python<'_>, errno: Errno) -> PyResult<Bound<'_, PyAny>> {
    Ok(errno.raw_os_error().into_pyobject(py)?.into_any())
}
