//! Control blocks and roots.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Shared between a running call and the thread that watches it.
#[pyclass(frozen, module = "syncd._native")]
#[derive(Default)]
pub struct Control {
    /// The core's.
    pub inner: Arc<syncd_core::control::Control>,
}

#[pymethods]
impl Control {
    #[getter]
    fn cancelled(&self) -> bool {
        self.inner.is_cancelled()
    }

    #[setter]
    fn set_cancelled(&self, cancelled: bool) {
        self.inner.set_cancelled(cancelled);
    }

    #[getter]
    fn entries(&self) -> u64 {
        self.inner.entries()
    }

    #[setter]
    fn set_entries(&self, entries: u64) {
        self.inner.set_entries(entries);
    }

    #[getter]
    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }

    #[setter]
    fn set_bytes(&self, bytes: u64) {
        self.inner.set_bytes(bytes);
    }
}

/// A directory opened as one side.
#[pyclass(frozen, module = "syncd._native")]
pub struct Root {
    inner: Mutex<Option<Arc<syncd_core::dirs::Root>>>,
    #[pyo3(get)]
    device: u64,
    #[pyo3(get)]
    inode: u64,
}

impl Root {
    /// A handle.
    pub fn new(root: syncd_core::dirs::Root) -> Self {
        let (device, inode) = (root.device, root.inode);
        Root {
            inner: Mutex::new(Some(Arc::new(root))),
            device,
            inode,
        }
    }

    /// The core's root, which stays open while it is used.
    pub fn open(&self) -> PyResult<Arc<syncd_core::dirs::Root>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner
            .clone()
            .ok_or_else(|| PyValueError::new_err("the root is closed"))
    }
}

#[pymethods]
impl Root {
    #[getter]
    fn fd(&self) -> PyResult<i32> {
        Ok(self.open()?.fd.as_raw_fd())
    }

    fn close(&self) {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}
