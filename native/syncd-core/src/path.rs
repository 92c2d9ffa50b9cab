//! Relative paths: bytes, components joined by `/`; the root is empty.

use std::cmp::Ordering;

/// No path has more components: a directory that deep is unknown.
///
/// Every path that a program can name by one string has fewer components.
pub const MAX_DEPTH: usize = 4096;

/// A longer component is in no filesystem.
pub const MAX_NAME: usize = 4096;

/// The directory that holds `path`, and the last component.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// The directory that holds `path`.
pub fn parent(path: &[u8]) -> &[u8] {
    split(path).0
}

/// The components, none for the root.
pub fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|part| !part.is_empty())
}

/// The paths of the directories above `path`, from the top, without the root and without itself.
pub fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|&(_, &b)| b == b'/');
    slashes.map(|(at, _)| &path[..at])
}

/// How many components there are.
pub fn depth(path: &[u8]) -> usize {
    if path.is_empty() {
        0
    } else {
        1 + path.iter().filter(|&&b| b == b'/').count()
    }
}

/// `dir` and a name in it.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    path.extend_from_slice(dir);
    push(&mut path, name);
    path
}

/// Go down by one name.
pub fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Go up to the directory above.
pub fn pop(path: &mut Vec<u8>) {
    let length = parent(path).len();
    path.truncate(length);
}

/// The order of paths: component by component, a directory directly before what it holds.
pub fn order(one: &[u8], other: &[u8]) -> Ordering {
    let rank = |b: u8| if b == b'/' { 0 } else { b };
    match one.iter().zip(other).position(|(a, b)| a != b) {
        Some(at) => rank(one[at]).cmp(&rank(other[at])),
        None => one.len().cmp(&other.len()),
    }
}

/// Whether `path` is `top` or lies below it.
pub fn is_within(path: &[u8], top: &[u8]) -> bool {
    top.is_empty() || path.starts_with(top) && matches!(path.get(top.len()), None | Some(b'/'))
}

/// Whether `path` can be one: no empty, `.` or `..` component, no NUL, and within the limits.
pub fn is_valid(path: &[u8]) -> bool {
    let bad = |part: &[u8]| {
        matches!(part, b"" | b"." | b"..") || part.len() > MAX_NAME || part.contains(&0)
    };
    path.is_empty() || depth(path) <= MAX_DEPTH && !path.split(|&b| b == b'/').any(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_comes_directly_before_what_it_holds() {
        let mut paths: Vec<&[u8]> = vec![b"a-b", b"a/b", b"a", b"", b"a/b/c", b"a\x01", b"b"];
        paths.sort_by(|a, b| order(a, b));
        assert_eq!(
            paths,
            [&b""[..], b"a", b"a/b", b"a/b/c", b"a\x01", b"a-b", b"b"]
        );
    }

    #[test]
    fn validity() {
        for (path, valid) in [
            (&b""[..], true),
            (b"a/b", true),
            (b"/a", false),
            (b"a/", false),
            (b"a/../b", false),
            (b"a\0", false),
        ] {
            assert_eq!(is_valid(path), valid, "{path:?}");
        }
    }

    #[test]
    fn within() {
        assert!(is_within(b"a/b", b"a") && is_within(b"a", b"a") && is_within(b"x", b""));
        assert!(!is_within(b"ab", b"a"));
        assert_eq!(above(b"a/b/c").collect::<Vec<_>>(), [&b"a"[..], b"a/b"]);
    }
}
