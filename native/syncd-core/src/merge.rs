//! Walks over the names of several directories at once.

use crate::nested::{Dir, Kid};

/// A cursor over one directory that may be missing.
struct Cursor<'a, V> {
    dir: Option<&'a Dir<V>>,
    at: usize,
}

impl<'a, V> Cursor<'a, V> {
    fn new(dir: Option<&'a Dir<V>>) -> Self {
        Cursor { dir, at: 0 }
    }

    fn name(&self) -> Option<&'a [u8]> {
        let dir = self.dir?;
        dir.kids().get(self.at).map(|kid| dir.name(kid))
    }

    /// The kid, if it has this name; then go on.
    fn take(&mut self, name: &[u8]) -> Option<&'a Kid<V>> {
        if self.name() != Some(name) {
            return None;
        }
        let kid = self.dir?.kids().get(self.at);
        self.at += 1;
        kid
    }
}

fn least<'a>(one: Option<&'a [u8]>, other: Option<&'a [u8]>) -> Option<&'a [u8]> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// A walk over the names of two directories.
pub struct Merge2<'a, A, B>(Cursor<'a, A>, Cursor<'a, B>);

/// One name and what stands there in each of two directories.
pub type Pair<'a, A, B> = (&'a [u8], Option<&'a Kid<A>>, Option<&'a Kid<B>>);

impl<'a, A, B> Merge2<'a, A, B> {
    /// Begin.
    pub fn new(one: Option<&'a Dir<A>>, other: Option<&'a Dir<B>>) -> Self {
        Merge2(Cursor::new(one), Cursor::new(other))
    }
}

impl<'a, A, B> Iterator for Merge2<'a, A, B> {
    type Item = Pair<'a, A, B>;

    fn next(&mut self) -> Option<Self::Item> {
        let name = least(self.0.name(), self.1.name())?;
        Some((name, self.0.take(name), self.1.take(name)))
    }
}

/// A walk over the names of three directories.
pub struct Merge3<'a, A, B>(Cursor<'a, A>, Cursor<'a, B>, Cursor<'a, B>);

/// One name and what stands there in each of three directories.
pub type Triple<'a, A, B> = (
    &'a [u8],
    Option<&'a Kid<A>>,
    Option<&'a Kid<B>>,
    Option<&'a Kid<B>>,
);

impl<'a, A, B> Merge3<'a, A, B> {
    /// Begin.
    pub fn new(
        one: Option<&'a Dir<A>>,
        two: Option<&'a Dir<B>>,
        three: Option<&'a Dir<B>>,
    ) -> Self {
        Merge3(Cursor::new(one), Cursor::new(two), Cursor::new(three))
    }
}

impl<'a, A, B> Iterator for Merge3<'a, A, B> {
    type Item = Triple<'a, A, B>;

    fn next(&mut self) -> Option<Self::Item> {
        let name = least(least(self.0.name(), self.1.name()), self.2.name())?;
        Some((
            name,
            self.0.take(name),
            self.1.take(name),
            self.2.take(name),
        ))
    }
}
