//! Diffs, actions and outcomes.

use std::sync::Arc;

use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use syncd_core::actions::Verb;
use syncd_core::diff::{ALL, LINES};
use syncd_core::place::Status;
use syncd_core::{actions, diff, place};

use crate::convert;
use crate::tree::LARGE;

/// Every path in scope, sorted into the lines of the table.
#[pyclass(frozen, module = "syncd._native")]
pub struct Diff {
    /// The core's.
    pub inner: Arc<diff::Diff>,
}

const STATUSES: [Status; 7] = [
    Status::Done,
    Status::Same,
    Status::Kept,
    Status::Changed,
    Status::Vanished,
    Status::Busy,
    Status::Failed,
];

/// A verb.
pub fn verb_of(word: &str) -> PyResult<Verb> {
    Ok(match word {
        "leave" => Verb::Leave,
        "record" => Verb::Record,
        "put" => Verb::Put,
        "remove" => Verb::Remove,
        "replace" => Verb::Replace,
        _ => return Err(PyValueError::new_err(format!("no verb: {word}"))),
    })
}

impl Drop for Diff {
    fn drop(&mut self) {
        let rows: usize = ALL.iter().map(|line| self.inner.items(*line).len()).sum();
        if rows > LARGE && Arc::strong_count(&self.inner) == 1 {
            self.inner = Arc::default();
            syncd_core::sys::trim();
        }
    }
}

#[pymethods]
impl Diff {
    fn count(&self, line: &str) -> PyResult<usize> {
        Ok(self.inner.count(convert::line_of(line)?))
    }

    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = PyDict::new(py);
        for line in ALL {
            counts.set_item(convert::line(py, line)?, self.inner.count(line))?;
        }
        Ok(counts)
    }

    fn bytes(&self, line: &str) -> PyResult<u64> {
        Ok(self.inner.bytes(convert::line_of(line)?))
    }

    #[pyo3(signature = (line, start = 0, stop = -1))]
    fn rows<'py>(
        &self,
        py: Python<'py>,
        line: &str,
        start: usize,
        stop: isize,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let items = self.inner.items(convert::line_of(line)?);
        let stop = usize::try_from(stop)
            .unwrap_or(items.len())
            .min(items.len());
        let chosen = items.get(start..stop).unwrap_or_default();
        let row = |item: &diff::Item| {
            let sides = (
                item.base.as_deref(),
                item.source.as_deref(),
                item.target.as_deref(),
            );
            convert::row(py, self.inner.path(item), sides.0, sides.1, sides.2)
        };
        chosen.iter().map(row).collect()
    }

    #[getter]
    fn unexplained(&self) -> usize {
        self.inner.unexplained
    }

    #[getter]
    fn id(&self) -> &str {
        &self.inner.id
    }

    fn actions(&self, py: Python<'_>, verbs: &Bound<'_, PyAny>) -> PyResult<Actions> {
        let mut chosen = [Verb::Leave; LINES];
        for pair in verbs.call_method0("items")?.try_iter()? {
            let (line, verb): (String, String) = pair?.extract()?;
            chosen[convert::line_of(&line)? as usize] = verb_of(&verb)?;
        }
        let diff = Arc::clone(&self.inner);
        let actions = py.detach(|| actions::Actions::new(diff, |line| chosen[line as usize]));
        Ok(Actions {
            inner: Arc::new(actions),
        })
    }
}

/// Ordered steps.
#[pyclass(frozen, module = "syncd._native")]
pub struct Actions {
    /// The core's.
    pub inner: Arc<actions::Actions>,
}

impl Drop for Actions {
    fn drop(&mut self) {
        if self.inner.len() > LARGE && Arc::strong_count(&self.inner) == 1 {
            self.inner = Arc::new(actions::Actions::new(Arc::default(), |_| Verb::Leave));
            syncd_core::sys::trim();
        }
    }
}

#[pymethods]
impl Actions {
    fn __len__(&self) -> usize {
        self.inner.len()
    }

    fn __bool__(&self) -> bool {
        true
    }

    fn path<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyBytes>> {
        let action = self.inner.get(index);
        let action = action.ok_or_else(|| PyIndexError::new_err("no such action"))?;
        Ok(convert::bytes(py, action.path))
    }
}

/// How the actions of one slice ended.
#[pyclass(frozen, module = "syncd._native")]
pub struct Outcomes {
    /// The core's.
    pub inner: place::Outcomes,
}

impl Outcomes {
    fn ended(&self, status: Status) -> usize {
        self.inner
            .ends
            .iter()
            .filter(|(_, end)| *end == status)
            .count()
    }
}

#[pymethods]
impl Outcomes {
    #[getter]
    fn next(&self) -> usize {
        self.inner.next
    }

    #[getter]
    fn stopped(&self) -> i32 {
        self.inner.stopped.map_or(0, |errno| errno.raw_os_error())
    }

    #[getter]
    fn done(&self) -> usize {
        self.ended(Status::Done)
    }

    #[getter]
    fn same(&self) -> usize {
        self.ended(Status::Same)
    }

    #[getter]
    fn smooth(&self) -> bool {
        self.inner.is_smooth()
    }

    #[getter]
    fn puts(&self) -> usize {
        self.inner.puts
    }

    #[getter]
    fn removed(&self) -> usize {
        self.inner.removed
    }

    #[getter]
    fn bytes(&self) -> u64 {
        self.inner.bytes
    }

    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = PyDict::new(py);
        for status in STATUSES {
            let count = self.ended(status);
            if count > 0 {
                counts.set_item(convert::status(py, status)?, count)?;
            }
        }
        Ok(counts)
    }

    fn paths<'py>(&self, py: Python<'py>, status: &str) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let words = [
            "done", "same", "kept", "changed", "vanished", "busy", "failed",
        ];
        let at = words.iter().position(|word| *word == status);
        let status = at
            .and_then(|at| STATUSES.get(at))
            .ok_or_else(|| PyValueError::new_err("no status"))?;
        let ended = self.inner.ends.iter().filter(|(_, end)| end == status);
        Ok(ended.map(|(path, _)| convert::bytes(py, path)).collect())
    }

    #[getter]
    fn troubles<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        convert::troubles(py, &self.inner.troubles)
    }

    #[getter]
    fn aside<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let pair = |(path, place): &(Box<[u8]>, Box<[u8]>)| {
            (convert::bytes(py, path), convert::bytes(py, place))
        };
        self.inner.aside.iter().map(pair).collect()
    }

    #[getter]
    fn dropped<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, u32)> {
        self.inner
            .dropped
            .iter()
            .map(|(path, bits)| (convert::bytes(py, path), *bits))
            .collect()
    }
}

/// What was made ready for `place`.
#[pyclass(frozen, module = "syncd._native")]
#[derive(Default)]
pub struct Prepared {
    /// The core's.
    pub inner: syncd_core::place::Prepared,
}

#[pymethods]
impl Prepared {
    fn __len__(&self) -> usize {
        self.inner.len()
    }

    /// Forget everything; what stands in `staging` is removed.
    fn clear(&self, py: Python<'_>, staging: i32) -> PyResult<()> {
        let staging = crate::kernel::lent(staging)?;
        py.detach(|| self.inner.clear(staging));
        Ok(())
    }
}
