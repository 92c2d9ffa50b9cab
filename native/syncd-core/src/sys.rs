//! System calls that rustix lacks. The only file with `unsafe`.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::OnceLock;

use rustix::io::Errno;

fn last_error() -> Errno {
    let number = std::io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO);
    Errno::from_raw_os_error(number)
}

fn set_lease(fd: BorrowedFd<'_>, kind: i32) -> Result<(), Errno> {
    loop {
        // SAFETY: F_SETLEASE takes an int and touches no memory of ours; the descriptor is borrowed.
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, kind) } == 0 {
            return Ok(());
        }
        match last_error() {
            Errno::INTR => {}
            errno => return Err(errno),
        }
    }
}

/// Take a read lease and give it back at once: succeeds while nobody can write the file.
///
/// EAGAIN: somebody has it open for writing, or mapped. Any other error: leases are refused here.
/// It is never held, as writers would block on it.
pub fn probe_lease(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    set_lease(fd, libc::F_RDLCK)?;
    set_lease(fd, libc::F_UNLCK)
}

/// A descriptor that the caller of the whole program keeps open while it is used.
///
/// One that is closed meanwhile makes calls fail, or meet another file: no memory is at stake.
pub fn lend<'a>(fd: RawFd) -> Option<BorrowedFd<'a>> {
    // SAFETY: it is not -1; that it stays open is promised by the contract of every call that takes it.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Ignore SIGIO in the whole process: a lease that is broken sends it, and it would end the process.
pub fn ignore_sigio() {
    // SAFETY: SIG_IGN is a valid disposition for SIGIO; no handler of ours is installed.
    unsafe {
        libc::signal(libc::SIGIO, libc::SIG_IGN);
    }
}

/// Give free memory back to the system. For use after large values were dropped.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only looks at the allocator's own free lists, under its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Have the system begin to write a file's content to the disk; says nothing about errors.
///
/// ext4 finds a place on the disk for new content at a rename over another file at the latest: this lets it be found before.
pub fn begin_writing(fd: BorrowedFd<'_>) {
    // SAFETY: sync_file_range takes numbers and touches no memory of ours; the descriptor is borrowed.
    unsafe {
        libc::sync_file_range(fd.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE);
    }
}

/// The present time in UTC, in a format of strftime. Empty if it takes more than 255 bytes.
pub fn utc(format: &CStr) -> Vec<u8> {
    let mut text = vec![0_u8; 256];
    // SAFETY: `fields` is plain numbers and a pointer that may be null; the calls write no further than `fields` and
    // the length given, and read the format up to its end.
    let length = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut fields: libc::tm = std::mem::zeroed();
        if libc::gmtime_r(&raw const now, &raw mut fields).is_null() {
            0
        } else {
            libc::strftime(
                text.as_mut_ptr().cast(),
                text.len(),
                format.as_ptr(),
                &raw const fields,
            )
        }
    };
    text.truncate(length);
    text
}

/// End this process at once, as kill -9 does, or stop it before another step of this thread. For tests.
pub fn kill_self(stop: bool) {
    let signal = if stop { libc::SIGSTOP } else { libc::SIGKILL };
    // SAFETY: raise touches no memory of ours.
    unsafe {
        libc::raise(signal);
    }
}

/// Whether permission bits count also for root, who then lacks `CAP_DAC_OVERRIDE`. Asked of the kernel once.
pub fn binds_root() -> bool {
    const DAC_OVERRIDE: u64 = 1 << 1; // linux/capability.h
    static BINDS: OnceLock<bool> = OnceLock::new();
    *BINDS.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let effective = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
        effective.is_some_and(|bits| bits & DAC_OVERRIDE == 0)
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_time_is_told_in_a_format() {
        assert!(utc(c"a/%Y%m%dT%H%M%SZ").starts_with(b"a/20"));
        assert_eq!(utc(c"%%").as_slice(), b"%");
        assert!(utc(&std::ffi::CString::new("x".repeat(300)).unwrap()).is_empty());
    }

    #[test]
    fn a_writer_is_noticed() {
        ignore_sigio();
        let dir = crate::testing::Scratch::new();
        let path = dir.path().join("f");
        std::fs::write(&path, "x").unwrap();
        let reader = std::fs::File::open(&path).unwrap();
        assert_eq!(probe_lease(reader.as_fd()), Ok(()));
        let writer = std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap();
        assert_eq!(probe_lease(reader.as_fd()), Err(Errno::AGAIN));
        drop(writer);
        assert_eq!(probe_lease(reader.as_fd()), Ok(()));
    }
}
