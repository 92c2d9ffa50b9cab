//! The baseline: what both sides last agreed on.

use std::sync::Arc;

use crate::entry::{Agreed, Kind};
use crate::nested::Nested;

/// A row to be set, or dropped with all below it.
pub type Row = (Box<[u8]>, Option<Agreed>);

/// What both sides last agreed on, path by path.
#[derive(Debug, Clone, Default)]
pub struct Base {
    /// The rows.
    pub rows: Nested<Agreed>,
    /// The root's own row, not counted.
    pub root: Option<Arc<Agreed>>,
}

impl Base {
    /// The row at a path.
    pub fn get(&self, path: &[u8]) -> Option<&Agreed> {
        if path.is_empty() {
            self.root.as_deref()
        } else {
            self.rows.get(path)
        }
    }

    /// Whether there is a directory's row at a path.
    pub fn has_dir(&self, path: &[u8]) -> bool {
        self.get(path).is_some_and(|row| row.kind == Kind::Dir)
    }

    /// Set or drop a row. What is no directory holds nothing: setting it drops what lay below.
    pub fn learn(&mut self, path: &[u8], row: Option<Agreed>) {
        match row {
            None => {
                self.rows.remove(path);
                if path.is_empty() {
                    self.root = None;
                }
            }
            Some(row) if path.is_empty() => {
                if row.kind != Kind::Dir {
                    self.rows.remove(path);
                }
                self.root = Some(Arc::new(row));
            }
            Some(row) => {
                let is_dir = row.kind == Kind::Dir;
                self.rows.set(path, row);
                if !is_dir {
                    self.rows.remove_below(path);
                }
            }
        }
    }

    /// Set or drop rows, in order.
    pub fn learn_all(&mut self, rows: &[Row]) {
        for (path, row) in rows {
            self.learn(path, row.clone());
        }
    }

    /// Paths of files whose source had further hard links, in order.
    pub fn shared(&self) -> Vec<Box<[u8]>> {
        let mut found = Vec::new();
        let mut walk = self.rows.walk(b"");
        while let Some((path, kid)) = walk.next() {
            if kid.value.as_ref().is_some_and(|row| row.shared) {
                found.push(path.into());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Fingerprint;

    fn row(kind: Kind) -> Option<Agreed> {
        let print = Fingerprint::default();
        Some(Agreed::new(kind, 0o644, 0, &print, &print))
    }

    #[test]
    fn a_file_holds_nothing() {
        let mut base = Base::default();
        base.learn(b"", row(Kind::Dir));
        base.learn(b"a", row(Kind::Dir));
        base.learn(b"a/b", row(Kind::File));
        base.learn(b"a", row(Kind::Dir));
        assert_eq!(base.rows.len(), 2);
        base.learn(b"a", row(Kind::File));
        assert_eq!(base.rows.len(), 1);
        base.learn(b"a", None);
        assert!(base.rows.is_empty() && base.root.is_some());
        base.learn(b"", None);
        assert!(base.root.is_none());
    }
}
