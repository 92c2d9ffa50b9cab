//! Compiled rules as Python sees them.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString, PyType};
use syncd_core::exclude::Excluder;
use syncd_core::ignore::{Ignore, Origin, Verdict};

use crate::fds;

/// Compiled rules of one source.
#[pyclass(frozen, module = "syncd._native")]
pub struct Rules {
    inner: Arc<Ignore>,
    first: Vec<Py<PyAny>>, // names of the sources
    last: Vec<Py<PyAny>>,
}

impl Rules {
    /// What the core asks.
    pub fn excluder(&self) -> Arc<dyn Excluder + Send> {
        Arc::clone(&self.inner) as Arc<dyn Excluder + Send>
    }

    fn name<'py>(&self, py: Python<'py>, origin: &Origin) -> PyResult<Bound<'py, PyAny>> {
        let given =
            |names: &[Py<PyAny>], at: usize| names.get(at).map(|name| name.bind(py).clone());
        let name = match origin {
            Origin::First(at) => given(&self.first, *at),
            Origin::Last(at) => given(&self.last, *at),
            Origin::Overlay => None,
            Origin::Nested(path) => {
                let path = PyBytes::new(py, path);
                let text = PyString::from_encoded_object(
                    &path,
                    Some(c"utf-8"),
                    Some(c"backslashreplace"),
                )?;
                Some(text.into_any())
            }
        };
        Ok(name.unwrap_or_else(|| PyString::new(py, "overlay").into_any()))
    }
}

#[pymethods]
impl Rules {
    /// Whether `path` is ignored or an overlay, or lies below one.
    fn excluded(&self, path: &[u8], is_dir: bool) -> bool {
        self.inner.excluded(path, is_dir)
    }

    /// Like `excluded`, for a caller who knows that the directory above is not excluded.
    fn excluded_child(&self, path: &[u8], is_dir: bool) -> bool {
        self.inner.excluded_child(path, is_dir)
    }

    /// Whether an overlay lies at or below `path`.
    fn overlay_within(&self, path: &[u8]) -> bool {
        self.inner.overlay_within(path)
    }

    /// Whether a file at `path` would be read as a rule file, also if it is ignored itself.
    fn teaches(&self, path: &[u8]) -> bool {
        self.inner.teaches(path)
    }

    /// The directories whose rule files were read.
    fn taught<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        let taught = self.inner.taught();
        taught.iter().map(|dir| PyBytes::new(py, dir)).collect()
    }

    /// The deciding rule, or None.
    fn explain<'py>(
        &self,
        py: Python<'py>,
        path: &[u8],
        is_dir: bool,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        static VERDICT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let Some(verdict) = self.inner.explain(path, is_dir) else {
            return Ok(None);
        };
        let source = self.name(py, &verdict.origin)?;
        let Verdict {
            ignored,
            path,
            line,
            pattern,
            ..
        } = verdict;
        let class = VERDICT.import(py, "syncd.kernel.contract", "Verdict")?;
        let (path, pattern) = (PyBytes::new(py, &path), PyBytes::new(py, &pattern));
        class
            .call1((ignored, path, source, line, pattern))
            .map(Some)
    }

    /// Learn the rule files among `names`, the listing of `directory`, which is open as `dir_fd`.
    fn enter(
        &self,
        py: Python<'_>,
        directory: &[u8],
        dir_fd: i32,
        names: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let names = names.try_iter()?.map(|name| name?.extract());
        let names = names.collect::<PyResult<Vec<Vec<u8>>>>()?;
        let done = py.detach(|| {
            let dir = fds::directory(dir_fd)?;
            let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
            self.inner.enter(directory, dir.as_fd(), &names);
            Ok(())
        });
        done.map_err(|error| fds::raised(py, &error))
    }
}

/// Compile rules: each of `first` and `last` has a `name` and a `text`.
#[pyfunction]
pub fn compile_rules(
    first: Vec<Bound<'_, PyAny>>,
    nested: Vec<Vec<u8>>,
    last: Vec<Bound<'_, PyAny>>,
    overlays: Bound<'_, PyAny>,
) -> PyResult<Rules> {
    let names = |sources: &[Bound<'_, PyAny>]| {
        let names = sources
            .iter()
            .map(|source| Ok(source.getattr("name")?.unbind()));
        names.collect::<PyResult<Vec<_>>>()
    };
    let texts = |sources: &[Bound<'_, PyAny>]| {
        let texts = sources
            .iter()
            .map(|source| source.getattr("text")?.extract());
        texts.collect::<PyResult<Vec<Vec<u8>>>>()
    };
    let overlays = overlays.try_iter()?.map(|overlay| overlay?.extract());
    let overlays = overlays.collect::<PyResult<BTreeSet<Vec<u8>>>>()?;
    let (first_texts, last_texts) = (texts(&first)?, texts(&last)?);
    Ok(Rules {
        inner: Arc::new(Ignore::new(
            first_texts.iter().map(Vec::as_slice),
            nested,
            last_texts.iter().map(Vec::as_slice),
            overlays,
        )),
        first: names(&first)?,
        last: names(&last)?,
    })
}
