//! Compiled rules as Python sees them.
//!
//! This body knows overlays and rules that are one plain name; it stands in until the full
//! grammar is there.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use pyo3::prelude::*;
use syncd_core::exclude::Excluder;

/// Overlays and plain names.
#[derive(Debug, Default)]
struct Plain {
    names: BTreeSet<Vec<u8>>,
    overlays: BTreeSet<Vec<u8>>,
}

impl Excluder for Plain {
    fn enter(&self, _: &[u8], _: BorrowedFd<'_>, _: &[&[u8]]) {}

    fn excluded_child(&self, path: &[u8], _: bool) -> bool {
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
        self.names.contains(name) || self.overlays.contains(path)
    }

    fn excluded(&self, path: &[u8], is_dir: bool) -> bool {
        (0..path.len())
            .filter(|&at| path[at] == b'/')
            .any(|at| self.excluded_child(&path[..at], true))
            || self.excluded_child(path, is_dir)
    }

    fn overlay_within(&self, path: &[u8]) -> bool {
        path.is_empty() && !self.overlays.is_empty()
            || self.overlays.iter().any(|overlay| {
                overlay.starts_with(path) && matches!(overlay.get(path.len()), None | Some(b'/'))
            })
    }
}

/// Compiled rules of one source.
#[pyclass(frozen, module = "syncd._native")]
pub struct Rules {
    inner: Arc<dyn Excluder + Send>,
}

impl Rules {
    /// What the core asks.
    pub fn excluder(&self) -> Arc<dyn Excluder + Send> {
        Arc::clone(&self.inner)
    }
}

#[pymethods]
impl Rules {
    /// Whether `path` is excluded.
    fn excluded(&self, path: &[u8], is_dir: bool) -> bool {
        self.inner.excluded(path, is_dir)
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
    let _ = nested;
    let mut plain = Plain::default();
    for source in first.iter().chain(&last) {
        let text: Vec<u8> = source.getattr("text")?.extract()?;
        let lines = text.split(|&b| b == b'\n').map(<[u8]>::to_vec);
        plain.names.extend(lines.filter(|line| !line.is_empty()));
    }
    for overlay in overlays.try_iter()? {
        plain.overlays.insert(overlay?.extract()?);
    }
    Ok(Rules {
        inner: Arc::new(plain),
    })
}
