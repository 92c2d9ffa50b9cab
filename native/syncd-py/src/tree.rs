//! Trees and baselines.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use syncd_core::{base, tree};

use crate::convert;

/// Handles of more entries than this give their memory back when they go.
pub const LARGE: usize = 10_000;

/// What one scan saw of one root.
#[pyclass(frozen, module = "syncd._native")]
pub struct Tree {
    /// The core's.
    pub inner: Arc<tree::Tree>,
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.inner.entries.len() > LARGE && Arc::strong_count(&self.inner) == 1 {
            self.inner = Arc::new(tree::Tree::new(self.inner.side, None));
            syncd_core::sys::trim();
        }
    }
}

#[pymethods]
impl Tree {
    #[getter]
    fn troubles<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        convert::troubles(py, &self.inner.troubles)
    }

    #[getter]
    fn others<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.inner
            .others
            .iter()
            .map(|path| convert::bytes(py, path))
            .collect()
    }

    #[getter]
    fn scope<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.inner
            .scope
            .as_deref()
            .map(|scope| convert::looks(py, scope))
            .transpose()
    }

    #[getter]
    fn bytes(&self) -> u64 {
        self.inner.bytes
    }

    fn __len__(&self) -> usize {
        self.inner.entries.len()
    }

    fn __bool__(&self) -> bool {
        true
    }

    fn get<'py>(&self, py: Python<'py>, path: &[u8]) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.inner
            .get(path)
            .map(|seen| convert::entry(py, seen))
            .transpose()
    }

    #[pyo3(signature = (below = None))]
    fn rows(&self, below: Option<&[u8]>) -> Rows {
        let mut paths = Vec::new();
        let mut walk = self.inner.entries.walk(below.unwrap_or_default());
        while let Some((path, kid)) = walk.next() {
            if kid.value.is_some() {
                paths.push(path.into());
            }
        }
        Rows::new(paths, Values::Tree(Arc::clone(&self.inner)))
    }

    fn differing<'py>(&self, py: Python<'py>, other: &Tree) -> Vec<Bound<'py, PyBytes>> {
        let paths = py.detach(|| self.inner.differing(&other.inner));
        paths.iter().map(|path| convert::bytes(py, path)).collect()
    }
}

/// What both sides last agreed on.
#[pyclass(frozen, module = "syncd._native")]
pub struct Base {
    inner: Mutex<Option<base::Base>>,
}

impl Base {
    /// A handle.
    pub fn new(base: base::Base) -> Self {
        Base {
            inner: Mutex::new(Some(base)),
        }
    }

    fn with<T>(&self, use_it: impl FnOnce(&base::Base) -> T) -> PyResult<T> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.as_ref().map(use_it).ok_or_else(used)
    }

    /// The core's, shared: it costs nothing.
    pub fn share(&self) -> PyResult<base::Base> {
        self.with(base::Base::clone)
    }

    /// The core's, to be changed in place. This handle is of no use from then on.
    pub fn take(&self) -> PyResult<base::Base> {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or_else(used)
    }

    /// Give back what was taken: nothing was changed.
    pub fn give_back(&self, base: base::Base) {
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = Some(base);
    }
}

fn used() -> PyErr {
    PyValueError::new_err("this baseline was patched: its handle must not be used again")
}

#[pymethods]
impl Base {
    fn __len__(&self) -> PyResult<usize> {
        self.with(|base| base.rows.len())
    }

    fn __bool__(&self) -> bool {
        true
    }

    fn get<'py>(&self, py: Python<'py>, path: &[u8]) -> PyResult<Option<Bound<'py, PyAny>>> {
        let base = self.share()?; // no lock is held while Python values are built
        base.get(path)
            .map(|row| convert::agreed(py, row))
            .transpose()
    }

    #[pyo3(signature = (below = None))]
    fn rows(&self, below: Option<&[u8]>) -> PyResult<Rows> {
        let base = self.share()?;
        let mut paths = Vec::new();
        let mut walk = base.rows.walk(below.unwrap_or_default());
        while let Some((path, kid)) = walk.next() {
            if kid.value.is_some() {
                paths.push(path.into());
            }
        }
        drop(walk);
        Ok(Rows::new(paths, Values::Base(base)))
    }

    fn shared<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let base = self.share()?;
        let paths = py.detach(|| base.shared());
        Ok(paths.iter().map(|path| convert::bytes(py, path)).collect())
    }
}

enum Values {
    Tree(Arc<tree::Tree>),
    Base(base::Base),
}

/// An iterator over rows. It keeps what it goes over as it was.
#[pyclass(module = "syncd._native")]
pub struct Rows {
    paths: std::vec::IntoIter<Box<[u8]>>,
    values: Values,
}

impl Rows {
    fn new(paths: Vec<Box<[u8]>>, values: Values) -> Self {
        Rows {
            paths: paths.into_iter(),
            values,
        }
    }
}

#[pymethods]
impl Rows {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    #[allow(clippy::type_complexity)]
    fn __next__<'py>(
        &mut self,
        py: Python<'py>,
    ) -> PyResult<Option<(Bound<'py, PyBytes>, Option<Bound<'py, PyAny>>)>> {
        let Some(path) = self.paths.next() else {
            return Ok(None);
        };
        let value = match &self.values {
            Values::Tree(tree) => tree.get(&path).map(|seen| convert::entry(py, seen)),
            Values::Base(base) => base.get(&path).map(|row| convert::agreed(py, row)),
        };
        Ok(Some((convert::bytes(py, &path), value.transpose()?)))
    }
}
