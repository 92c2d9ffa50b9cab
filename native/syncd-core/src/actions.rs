//! Actions: the rows of a diff to be acted on, in the order in which `place` needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::diff::{ALL, Diff, Item, Line};
use crate::entry::Kind;
use crate::path;

/// What is done at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the words are those of `Verb` in `syncd/model/plan.py`
pub enum Verb {
    Leave,
    Record,
    Put,
    Remove,
    Replace,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    line: Line,
    at: usize,
    verb: Verb,
}

/// Ordered steps. Slices of it are placed one after the other.
#[derive(Debug)]
pub struct Actions {
    diff: Arc<Diff>,
    steps: Vec<Step>,
    /// Modes that directories of the target get when the last step is done.
    pub modes: Mutex<BTreeMap<Vec<u8>, u32>>,
    /// Steps that were done although the slice was cut short before them.
    pub done: Mutex<BTreeSet<usize>>,
    /// Paths that were to leave the target and did not.
    pub undone: Mutex<Vec<Box<[u8]>>>,
}

/// One step.
#[derive(Debug, Clone, Copy)]
pub struct Action<'a> {
    /// Where.
    pub path: &'a [u8],
    /// What is done.
    pub verb: Verb,
    /// What the sides hold there.
    pub item: &'a Item,
}

impl Action<'_> {
    /// The source's entry is to be made in the target.
    pub fn puts(&self) -> bool {
        matches!(self.verb, Verb::Put | Verb::Replace) && self.item.source.is_some()
    }

    /// A directory is to be made.
    pub fn makes_dir(&self) -> bool {
        self.puts() && self.source_kind() == Some(Kind::Dir)
    }

    /// The target's entry is to be removed.
    pub fn removes(&self) -> bool {
        self.verb == Verb::Remove
    }

    /// A directory's row is to be learnt. Its time vouches for what was removed from it, so that comes first.
    pub fn records_dir(&self) -> bool {
        self.verb == Verb::Record && self.source_kind() == Some(Kind::Dir)
    }

    /// What the source holds.
    pub fn source_kind(&self) -> Option<Kind> {
        self.item.source.as_ref().map(|seen| seen.kind)
    }
}

impl Actions {
    /// The rows of `diff` whose line has a verb other than LEAVE, in order.
    pub fn new(diff: Arc<Diff>, verb_of: impl Fn(Line) -> Verb) -> Self {
        let mut steps = Vec::new();
        for line in ALL {
            let verb = verb_of(line);
            if verb != Verb::Leave {
                steps.extend((0..diff.items(line).len()).map(|at| Step { line, at, verb }));
            }
        }
        let actions = Actions {
            diff,
            steps: Vec::new(),
            modes: Mutex::default(),
            done: Mutex::default(),
            undone: Mutex::default(),
        };
        let rank = |step: &Step| match actions.action(step) {
            Some(action) if action.makes_dir() => 0,
            Some(action) if action.removes() => 2,
            Some(action) if action.records_dir() => 3,
            _ => 1,
        };
        let path_of = |step: &Step| actions.action(step).map_or(&[][..], |action| action.path);
        let mut ranked: Vec<(u8, Step)> =
            steps.into_iter().map(|step| (rank(&step), step)).collect();
        ranked.sort_by(|(rank, one), (other_rank, other)| {
            let paths = path::order(path_of(one), path_of(other));
            rank.cmp(other_rank)
                .then(if *rank == 2 { paths.reverse() } else { paths })
        });
        let steps = ranked.into_iter().map(|(_, step)| step).collect();
        Actions { steps, ..actions }
    }

    fn action(&self, step: &Step) -> Option<Action<'_>> {
        let item = self.diff.items(step.line).get(step.at)?;
        Some(Action {
            path: self.diff.path(item),
            verb: step.verb,
            item,
        })
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// A step.
    pub fn get(&self, at: usize) -> Option<Action<'_>> {
        self.steps.get(at).and_then(|step| self.action(step))
    }
}
