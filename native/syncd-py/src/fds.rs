//! Descriptors that came from Python.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;

/// The directory that is open as `number`, opened anew: a number cannot vouch that it stays open.
pub fn directory(number: i32) -> std::io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(format!("/proc/self/fd/{number}"))
}
