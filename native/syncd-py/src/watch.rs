//! The watcher as Python sees it.

use std::os::fd::AsFd;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyFrozenSet, PyTuple, PyType};
use syncd_core::{sys, watch};

use crate::fds;
use crate::rules::Rules;

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
    fn cover<'py>(
        &self,
        py: Python<'py>,
        root: i32,
        rules: &Rules,
        paths: Option<Vec<Vec<u8>>>,
    ) -> PyResult<(usize, Bound<'py, PyTuple>, i32)> {
        let rules = rules.excluder();
        let coverage = py.detach(|| -> std::io::Result<_> {
            let root = fds::directory(root)?;
            Ok(self.inner.cover(root.as_fd(), rules, paths.as_deref())?)
        });
        let coverage = coverage.map_err(|error| fds::raised(py, &error))?;
        let refused = coverage.refused.iter().map(|path| PyBytes::new(py, path));
        let refused = PyTuple::new(py, refused.collect::<Vec<_>>())?;
        Ok((coverage.watched, refused, coverage.errno))
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

    /// Let go of everything. Twice is harmless.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.inner.close());
    }
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
