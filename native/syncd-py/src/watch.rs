//! The watcher as Python sees it.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyFrozenSet, PyTuple, PyType};
use syncd_core::express::Ends;
use syncd_core::lone::{self, Way};
use syncd_core::{sys, watch};

use crate::convert::raised;
use crate::fds;
use crate::handles::{Control, Root};
use crate::kernel::{calm_verbs, given, lent, options_of};
use crate::place::Outcomes;
use crate::rules::Rules;
use crate::tree::{Base, Tree};

/// The fields of a `Lone`.
type Given<'py> = (
    (Vec<u8>, Vec<u8>),
    ((u64, u64), (u64, u64)),
    Bound<'py, Rules>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Bound<'py, Control>,
    u64,
    usize,
    f64,
    Vec<f64>,
    f64,
);

/// The fields of a `Coverage`.
type Covered<'py> = (usize, Bound<'py, PyTuple>, i32);

/// The fields of a `Save`.
type Save<'py> = (Bound<'py, PyFrozenSet>, Outcomes, f64, f64);

/// The fields of a `Mirrored`.
type Done<'py> = (Base, Vec<Save<'py>>, Bound<'py, PyAny>, Vec<i32>);

/// A moment, or how long something takes, from Python's seconds.
fn time(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Watches one source with inotify. See `syncd/watchers/native.py`.
#[pyclass(frozen, module = "syncd._native")]
pub struct Watcher {
    inner: watch::Watcher,
}

#[pymethods]
impl Watcher {
    #[new]
    fn new(py: Python<'_>, source: &[u8]) -> PyResult<Self> {
        let inner = watch::Watcher::new(source).map_err(|error| fds::raised(py, &error))?;
        Ok(Self { inner })
    }

    /// Readable while `read` has something to say and nobody listens; -1 when closed.
    #[getter]
    fn fd(&self) -> i32 {
        self.inner.fd()
    }

    /// Watch directories below `root`, an open descriptor. The fields of a `Coverage`.
    fn cover<'py>(&self, py: Python<'py>, root: i32, rules: &Rules) -> PyResult<Covered<'py>> {
        let rules = rules.excluder();
        let coverage = py.detach(|| -> std::io::Result<_> {
            let root = fds::directory(root)?;
            Ok(self.inner.cover(root.as_fd(), rules)?)
        });
        covered(py, coverage.map_err(|error| fds::raised(py, &error))?)
    }

    /// The same, and a scan of the source in the same walk.
    fn scan<'py>(
        &self,
        py: Python<'py>,
        root: &Root,
        rules: &Rules,
        known: &Base,
        control: &Control,
        force: bool,
    ) -> PyResult<(Covered<'py>, Tree)> {
        let (root, rules, control) = (root.open()?, rules.excluder(), Arc::clone(&control.inner));
        let known = known.share()?;
        let done = py.detach(|| {
            let done = self.inner.scan(&root, &rules, &known, &control, force);
            drop(known);
            done
        });
        let (coverage, tree) = done.map_err(|error| raised(py, &error))?;
        let inner = Arc::new(tree);
        Ok((covered(py, coverage)?, Tree { inner }))
    }

    /// Watch one directory for these names only.
    fn watch_locks(
        &self,
        py: Python<'_>,
        root: i32,
        directory: &[u8],
        names: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let names = names.try_iter()?.map(|name| name?.extract());
        let names = names.collect::<PyResult<_>>()?;
        let done = py.detach(|| {
            let root = fds::directory(root)?;
            self.inner.watch_locks(root.as_fd(), directory, names);
            Ok(())
        });
        done.map_err(|error| fds::raised(py, &error))
    }

    /// Have an epoll report while `read` has something.
    fn listen(&self, py: Python<'_>, epoll: i32) -> PyResult<()> {
        let epoll = sys::lend(epoll).ok_or_else(|| PyValueError::new_err("no descriptor"))?;
        let done = self.inner.listen(epoll);
        done.map_err(|error| fds::raised(py, &error))
    }

    /// Have the thread empty the queue, or rest.
    fn attend(&self, py: Python<'_>, on: bool) -> PyResult<()> {
        let done = self.inner.attend(on);
        done.map_err(|error| fds::raised(py, &error))
    }

    /// All words so far: a `Hints`. Everything that happened before the call is in it.
    fn read<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let words = py.detach(|| self.inner.read());
        hints(py, words)
    }

    /// Wait in an epoll and mirror lone saves. The fields of a `Mirrored`.
    fn mirror<'py>(
        &self,
        py: Python<'py>,
        epoll: i32,
        base: &Base,
        way: Given<'py>,
    ) -> PyResult<Done<'py>> {
        let (paths, roots, rules, verbs, options, control, number, few, quiet, recent, due) = way;
        let given = given(&options)?;
        let aside = CString::new(given.2.as_slice())?;
        let (rules, control) = (rules.get().excluder(), Arc::clone(&control.get().inner));
        let way = Way {
            ends: Ends {
                paths: (&paths.0, &paths.1),
                roots,
            },
            rules: &*rules,
            verbs: calm_verbs(&verbs)?,
            options: options_of(&given)?,
            control: &control,
            number,
            aside: &aside,
            few,
            quiet: time(quiet)?,
            recent: recent.into_iter().map(time).collect::<PyResult<_>>()?,
            due: time(due)?,
        };
        let epoll = lent(epoll)?;
        let mut inner = base.take()?;
        let (inner, done) = py.detach(|| {
            let done = lone::mirror(&self.inner, epoll, &mut inner, way);
            (inner, done)
        });
        let save = |save: lone::Save| {
            let paths = save.paths.iter().map(|path| PyBytes::new(py, path));
            let paths = PyFrozenSet::new(py, paths.collect::<Vec<_>>())?;
            let outcomes = Outcomes {
                inner: save.outcomes,
            };
            let (since, until) = (save.since.as_secs_f64(), save.until.as_secs_f64());
            Ok((paths, outcomes, since, until))
        };
        let saves = done.saves.into_iter().map(save).collect::<PyResult<_>>()?;
        Ok((Base::new(inner), saves, hints(py, done.hints)?, done.ready))
    }

    /// Let go of everything. Twice is harmless.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.inner.close());
    }
}

fn covered(py: Python<'_>, coverage: watch::Coverage) -> PyResult<Covered<'_>> {
    let refused = coverage.refused.iter().map(|path| PyBytes::new(py, path));
    let refused = PyTuple::new(py, refused.collect::<Vec<_>>())?;
    Ok((coverage.watched, refused, coverage.errno))
}

fn hints(py: Python<'_>, hints: watch::Hints) -> PyResult<Bound<'_, PyAny>> {
    static NONE: PyOnceLock<Py<PyFrozenSet>> = PyOnceLock::new();
    static HINTS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static NEW: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class = HINTS.import(py, "syncd.model.change", "Hints")?;
    let new = NEW.get_or_try_init(py, || {
        let new = py.get_type::<PyTuple>().getattr("__new__")?;
        PyResult::Ok(new.unbind()) // a named tuple's own `__new__` is a Python function, and all fields are given
    })?;
    let set = |paths: Vec<_>| match paths.is_empty() {
        true => NONE.import(py, "syncd.model.change", "NONE").cloned(),
        false => PyFrozenSet::new(py, paths),
    };
    let (mut ready, mut waiting) = (Vec::new(), Vec::new());
    let (mut deep, mut removed, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for (path, word) in &hints.words {
        let path = PyBytes::new(py, path);
        if word.deep {
            deep.push(path.clone());
        }
        if word.removed {
            removed.push(path.clone());
        }
        if word.gone {
            gone.push(path.clone());
        }
        if word.ready { &mut ready } else { &mut waiting }.push(path);
    }
    let pair =
        |(old, new): &watch::Move| PyTuple::new(py, [PyBytes::new(py, old), PyBytes::new(py, new)]);
    let moves = hints.moves.iter().map(pair).collect::<PyResult<Vec<_>>>()?;
    let fields = (
        set(ready)?,
        set(waiting)?,
        set(deep)?,
        set(removed)?,
        PyTuple::new(py, moves)?,
        hints.locks,
        hints.rescan,
        set(gone)?,
    );
    new.bind(py).call1((class, fields))
}
