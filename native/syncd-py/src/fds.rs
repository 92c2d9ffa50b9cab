//! Descriptors that came from Python.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;

use pyo3::prelude::*;
use syncd_core::error::Errno;

use crate::convert::os_error;

/// The directory that is open as `number`, opened anew: a number cannot vouch that it stays open.
pub fn directory(number: i32) -> std::io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(format!("/proc/self/fd/{number}"))
}

/// An OSError with its number, which pyo3's own conversion leaves out.
pub fn raised(py: Python<'_>, error: &std::io::Error) -> PyErr {
    os_error(py, Errno::from_io_error(error).unwrap_or(Errno::IO))
}
