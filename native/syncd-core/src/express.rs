//! Express: the whole line in one call, for a batch in which there is nothing to decide.

use std::sync::Arc;

use crate::actions::{Actions, Verb};
use crate::base::Base;
use crate::control::Control;
use crate::diff::{self, Line, diff};
use crate::digest::digest;
use crate::dirs::Root;
use crate::entry::{Seen, Side};
use crate::error::Result;
use crate::exclude::Excluder;
use crate::place::{Options, Outcomes, SLICE, place};
use crate::scan::scan;
use crate::tree::{Look, Tree};

/// Lines about which a guard has nothing to say.
const CALM: [Line; 3] = [Line::Same, Line::Agreed, Line::Changed];

/// Look at `scope`, and place what stands in the lines AGREED and CHANGED. None, and nothing was touched,
/// if anything else was seen, or a root cannot be opened or is another directory. An error is only that of a journal that
/// cannot be written.
#[allow(clippy::too_many_arguments)]
pub fn express(
    ends: &Ends<'_>,
    rules: &dyn Excluder,
    base: &Base,
    scope: &[Look],
    verbs: (Verb, Verb),
    options: &Options<'_>,
    control: &Control,
) -> Result<Option<Outcomes>> {
    let Some((source, target)) = ends.open() else {
        return Ok(None);
    };
    let Some(diff) = calm_diff((&source, &target), rules, base, scope, control) else {
        return Ok(None);
    };
    let actions = Actions::new(Arc::new(diff), |line| match line {
        Line::Agreed => verbs.0,
        Line::Changed => verbs.1,
        _ => Verb::Leave,
    });
    if actions.len() > SLICE {
        return Ok(None);
    }
    let stop = actions.len();
    place(
        &source, &target, rules, base, &actions, 0, stop, options, control,
    )
    .map(Some)
}

/// Where both sides stand.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    /// The paths of source and target.
    pub paths: (&'a [u8], &'a [u8]),
    /// Device and inode that are to be found there.
    pub roots: ((u64, u64), (u64, u64)),
}

impl Ends<'_> {
    fn open(&self) -> Option<(Root, Root)> {
        let open = |path: &[u8], wanted| {
            let root = Root::open(path).ok()?;
            ((root.device, root.inode) == wanted).then_some(root)
        };
        Some((
            open(self.paths.0, self.roots.0)?,
            open(self.paths.1, self.roots.1)?,
        ))
    }
}

fn calm_diff(
    roots: (&Root, &Root),
    rules: &dyn Excluder,
    base: &Base,
    scope: &[Look],
    control: &Control,
) -> Option<diff::Diff> {
    let seen = |root, side, scope: Option<&[Look]>| {
        let tree = scan(root, rules, side, base, scope, control, false).ok()?;
        is_plain(&tree).then_some(tree)
    };
    let source = seen(roots.0, Side::Source, Some(scope))?;
    let target = seen(roots.1, Side::Target, source.scope.as_deref())?;
    let (read_source, read_target) = digest(base, &source, &target, roots, control, false);
    let root = |seen: &Seen| base.root.as_ref().map(|row| row.source()) == Some(seen.print);
    if !source.root.as_ref().is_none_or(root) {
        return None; // its times are to be learnt
    }
    let source = read_source.unwrap_or(source);
    let target = read_target.unwrap_or(target);
    if !is_plain(&source) || !is_plain(&target) {
        return None;
    }
    let diff = diff(base, &source, &target, Default::default(), false);
    let all: usize = diff::ALL.iter().map(|line| diff.count(*line)).sum();
    let calm: usize = CALM.iter().map(|line| diff.count(*line)).sum();
    (all == calm).then_some(diff)
}

/// Whether a tree holds nothing that has to be told. Everything at once is never asked for here.
fn is_plain(tree: &Tree) -> bool {
    tree.troubles.is_empty() && tree.others.is_empty() && tree.scope.is_some()
}
