//! Values by path, kept as nested directories of sorted names.
//!
//! Directories are shared between handles and copied only when one that is shared is changed, so a
//! copy of a whole tree is one pointer and a change to it costs the directories on its way.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::path;

/// One name of a directory.
#[derive(Debug, Clone)]
pub struct Kid<V> {
    /// Where its name stands: offset << 16 | length.
    name: u64,
    /// Its value; None where only something below has one.
    pub value: Option<V>,
    /// What lies below it.
    pub below: Option<Arc<Dir<V>>>,
}

/// The sorted names of one directory. They stand in one buffer: a name costs no allocation.
#[derive(Debug, Clone)]
pub struct Dir<V> {
    names: Vec<u8>,
    kids: Vec<Kid<V>>,
    waste: usize,
}

impl<V> Default for Dir<V> {
    fn default() -> Self {
        Dir {
            names: Vec::new(),
            kids: Vec::new(),
            waste: 0,
        }
    }
}

impl<V> Dir<V> {
    /// Its names, in order.
    pub fn kids(&self) -> &[Kid<V>] {
        &self.kids
    }

    /// The same, to be changed; the order must stay.
    pub fn kids_mut(&mut self) -> &mut [Kid<V>] {
        &mut self.kids
    }

    /// The name of one of its kids.
    pub fn name(&self, kid: &Kid<V>) -> &[u8] {
        let (at, length) = ((kid.name >> 16) as usize, (kid.name & 0xffff) as usize);
        self.names.get(at..at + length).unwrap_or_default()
    }

    /// Where a name stands, or where it would.
    pub fn find(&self, name: &[u8]) -> Result<usize, usize> {
        // Sorted input appends, and then goes below what it appended.
        let last = self.kids.last().map(|last| self.name(last).cmp(name));
        match last {
            Some(Ordering::Less) => Err(self.kids.len()),
            Some(Ordering::Equal) => Ok(self.kids.len() - 1),
            _ => self.kids.binary_search_by(|kid| self.name(kid).cmp(name)),
        }
    }

    /// The kid of a name.
    pub fn get(&self, name: &[u8]) -> Option<&Kid<V>> {
        self.find(name).ok().and_then(|at| self.kids.get(at))
    }

    /// Add a name that sorts after all the others.
    pub fn append(&mut self, name: &[u8], value: Option<V>) {
        self.insert(self.kids.len(), name, value);
    }

    fn insert(&mut self, at: usize, name: &[u8], value: Option<V>) {
        let length = name.len().min(0xffff);
        let place = (self.names.len() as u64) << 16 | length as u64;
        // Room for an eighth more rather than twice as much: most directories stay as they are.
        if self.names.capacity() - self.names.len() < length {
            self.names.reserve_exact(length + self.names.len() / 8);
        }
        if self.kids.capacity() == self.kids.len() {
            self.kids.reserve_exact(1 + self.kids.len() / 8);
        }
        self.names.extend_from_slice(&name[..length]);
        self.kids.insert(
            at,
            Kid {
                name: place,
                value,
                below: None,
            },
        );
    }

    fn remove(&mut self, at: usize) {
        if at < self.kids.len() {
            let kid = self.kids.remove(at);
            self.waste += (kid.name & 0xffff) as usize;
            if self.waste > 256 && self.waste > self.names.len() / 2 {
                self.tidy();
            }
        }
    }

    /// Rewrite the buffer of names without those that are gone.
    fn tidy(&mut self) {
        let mut names = Vec::with_capacity(self.names.len() - self.waste.min(self.names.len()));
        for kid in &mut self.kids {
            let (at, length) = ((kid.name >> 16) as usize, (kid.name & 0xffff) as usize);
            let place = (names.len() as u64) << 16 | length as u64;
            names.extend_from_slice(self.names.get(at..at + length).unwrap_or_default());
            kid.name = place;
        }
        (self.names, self.waste) = (names, 0);
    }

    /// Drop the kids that hold nothing, and spare room.
    pub fn finish(&mut self) {
        let mut dropped = 0;
        self.kids.retain(|kid| {
            let keep = kid.value.is_some() || kid.below.is_some();
            dropped += if keep {
                0
            } else {
                (kid.name & 0xffff) as usize
            };
            keep
        });
        if dropped > 0 {
            self.waste += dropped;
            self.tidy();
        }
        self.names.shrink_to_fit();
        self.kids.shrink_to_fit();
    }
}

/// Values by path. The root has none here and is not counted.
#[derive(Debug, Clone)]
pub struct Nested<V> {
    top: Arc<Dir<V>>,
    count: usize,
}

impl<V> Default for Nested<V> {
    fn default() -> Self {
        Nested {
            top: Arc::default(),
            count: 0,
        }
    }
}

impl<V> Nested<V> {
    /// A tree of a whole root, and how many values it has.
    pub fn from_dir(top: Dir<V>, count: usize) -> Self {
        Nested {
            top: Arc::new(top),
            count,
        }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The root directory.
    pub fn top(&self) -> &Dir<V> {
        &self.top
    }

    /// What stands at a path other than the root.
    pub fn kid(&self, path: &[u8]) -> Option<&Kid<V>> {
        let (above, name) = path::split(path);
        self.dir(above)?.get(name)
    }

    /// The value at a path.
    pub fn get(&self, path: &[u8]) -> Option<&V> {
        self.kid(path)?.value.as_ref()
    }

    /// The directory at a path, if something lies in it.
    pub fn dir(&self, path: &[u8]) -> Option<&Dir<V>> {
        path::parts(path).try_fold(&*self.top, |dir, name| dir.get(name)?.below.as_deref())
    }

    /// A walk over everything below a path, in order.
    pub fn walk(&self, below: &[u8]) -> Walk<'_, V> {
        let stack = self.dir(below).map(|dir| (dir, 0)).into_iter().collect();
        Walk {
            path: below.to_vec(),
            stack,
            entered: false,
        }
    }
}

impl<V: Clone> Nested<V> {
    /// Set the value at a path other than the root. What lies below it stays.
    pub fn set(&mut self, path: &[u8], value: V) {
        if path.is_empty() {
            return;
        }
        let (above, name) = path::split(path);
        let dir = self.make(above);
        let fresh = match dir.find(name) {
            Ok(at) => dir
                .kids
                .get_mut(at)
                .is_some_and(|kid| kid.value.replace(value).is_none()),
            Err(at) => {
                dir.insert(at, name, Some(value));
                true
            }
        };
        self.count += usize::from(fresh);
    }

    /// Put a directory with all it holds (`count` values, itself not counted) at a path.
    pub fn graft(&mut self, path: &[u8], value: V, below: Dir<V>, count: usize) {
        self.remove(path);
        self.set(path, value);
        if !below.kids.is_empty() {
            self.count += count;
            *Arc::make_mut(self.branch(path)) = below;
        }
    }

    /// Change a value in place.
    pub fn update(&mut self, path: &[u8], change: impl FnOnce(&mut V)) {
        if self.get(path).is_none() {
            return;
        }
        let (above, name) = path::split(path);
        let dir = self.make(above);
        if let Ok(at) = dir.find(name) {
            if let Some(value) = dir.kids.get_mut(at).and_then(|kid| kid.value.as_mut()) {
                change(value);
            }
        }
    }

    /// Forget the value at a path and all below it; at the root, everything.
    pub fn remove(&mut self, path: &[u8]) {
        if path.is_empty() {
            *self = Nested::default();
            return;
        }
        let Some(kid) = self.kid(path) else { return };
        let mut lost = usize::from(kid.value.is_some());
        let mut walk = self.walk(path);
        while let Some((_, kid)) = walk.next() {
            lost += usize::from(kid.value.is_some());
        }
        self.count -= lost.min(self.count);
        let mut path = path;
        loop {
            let (above, name) = path::split(path);
            let dir = self.make(above);
            if let Ok(at) = dir.find(name) {
                dir.remove(at);
            }
            // A directory that only stood for what was in it goes too.
            let emptied = dir.kids.is_empty();
            if !emptied || above.is_empty() {
                return;
            }
            if self.get(above).is_some() {
                self.forget_below(above);
                return;
            }
            path = above;
        }
    }

    /// Forget what lies below a path, not the path.
    pub fn remove_below(&mut self, path: &[u8]) {
        if self.dir(path).is_none() {
            return;
        }
        let mut lost = 0;
        let mut walk = self.walk(path);
        while let Some((_, kid)) = walk.next() {
            lost += usize::from(kid.value.is_some());
        }
        self.count -= lost.min(self.count);
        self.forget_below(path);
    }

    fn forget_below(&mut self, path: &[u8]) {
        let (above, name) = path::split(path);
        let dir = self.make(above);
        if let Ok(at) = dir.find(name) {
            if let Some(kid) = dir.kids.get_mut(at) {
                kid.below = None;
            }
        }
    }

    /// The directory at a path, made where it is missing, ours alone.
    fn make(&mut self, path: &[u8]) -> &mut Dir<V> {
        Arc::make_mut(self.branch(path))
    }

    fn branch(&mut self, path: &[u8]) -> &mut Arc<Dir<V>> {
        let mut arc = &mut self.top;
        for name in path::parts(path) {
            let dir = Arc::make_mut(arc);
            let at = match dir.find(name) {
                Ok(at) => at,
                Err(at) => {
                    dir.insert(at, name, None);
                    at
                }
            };
            arc = dir.kids[at].below.get_or_insert_with(Arc::default);
        }
        arc
    }
}

/// A walk in order. Each step lends the path.
pub struct Walk<'a, V> {
    path: Vec<u8>,
    stack: Vec<(&'a Dir<V>, usize)>,
    entered: bool,
}

impl<'a, V> Walk<'a, V> {
    /// The next path with what stands there.
    #[allow(clippy::should_implement_trait)] // it lends its path
    pub fn next(&mut self) -> Option<(&[u8], &'a Kid<V>)> {
        loop {
            if std::mem::take(&mut self.entered) {
                path::pop(&mut self.path);
            }
            let (dir, at) = self.stack.last_mut()?;
            let Some(kid) = dir.kids.get(*at) else {
                self.stack.pop();
                self.entered = !self.stack.is_empty();
                continue;
            };
            *at += 1;
            path::push(&mut self.path, dir.name(kid));
            match kid.below.as_deref() {
                Some(below) => self.stack.push((below, 0)),
                None => self.entered = true,
            }
            return Some((&self.path, kid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(tree: &Nested<u32>, below: &[u8]) -> Vec<String> {
        let mut walk = tree.walk(below);
        let mut found = Vec::new();
        while let Some((path, kid)) = walk.next() {
            if kid.value.is_some() {
                found.push(String::from_utf8_lossy(path).into_owned());
            }
        }
        found
    }

    fn tree(paths: &[&str]) -> Nested<u32> {
        let mut tree = Nested::default();
        for (number, path) in paths.iter().enumerate() {
            tree.set(path.as_bytes(), number as u32);
        }
        tree
    }

    #[test]
    fn set_get_walk() {
        let tree = tree(&["b/c/d", "a", "a-b", "a/x", "b"]);
        assert_eq!(tree.len(), 5);
        assert_eq!(paths(&tree, b""), ["a", "a/x", "a-b", "b", "b/c/d"]);
        assert_eq!(paths(&tree, b"b"), ["b/c/d"]);
        assert_eq!(tree.get(b"b/c"), None);
        assert_eq!(tree.get(b"b/c/d"), Some(&0));
    }

    #[test]
    fn removal_takes_what_is_below_and_empty_steps_above() {
        let mut tree = tree(&["b/c/d", "a", "a/x", "a/y/z"]);
        tree.remove(b"b/c/d");
        assert!(tree.kid(b"b").is_none());
        tree.remove(b"a/y");
        assert_eq!(
            (tree.len(), paths(&tree, b"")),
            (2, vec!["a".into(), "a/x".into()])
        );
        tree.remove(b"a/x");
        assert!(tree.kid(b"a").is_some_and(|kid| kid.below.is_none()));
        tree.remove(b"");
        assert!(tree.is_empty());
    }

    #[test]
    fn a_copy_keeps_its_own() {
        let old = tree(&["a/x", "b/y"]);
        let mut new = old.clone();
        new.set(b"a/x", 7);
        new.remove(b"b");
        assert_eq!((old.get(b"a/x"), old.len()), (Some(&0), 2));
        assert_eq!((new.get(b"a/x"), new.len()), (Some(&7), 1));
    }

    #[test]
    fn many_removals_keep_names_right() {
        let mut tree = Nested::default();
        for n in 0..1000u32 {
            tree.set(format!("{n:04}").as_bytes(), n);
        }
        for n in (0..1000u32).filter(|n| n % 10 != 0) {
            tree.remove(format!("{n:04}").as_bytes());
        }
        assert_eq!(tree.len(), 100);
        assert_eq!(tree.get(b"0990"), Some(&990));
    }
}
