//! Tests that go through several modules.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::actions::Verb;
use crate::diff::{Diff, Line};
use crate::entry::{Kind, Side};
use crate::path;
use crate::place::{Outcomes, Status, Write};
use crate::testing::Pair;
use crate::tree::Look;

fn look(path: &str, deep: bool) -> Look {
    Look {
        path: path.as_bytes().into(),
        deep,
    }
}

fn scope(tree: &crate::tree::Tree) -> Vec<(String, bool)> {
    let one = |look: &Look| (String::from_utf8_lossy(&look.path).into_owned(), look.deep);
    tree.scope.iter().flatten().map(one).collect()
}

fn paths(diff: &Diff, line: Line) -> Vec<String> {
    let path = |item| String::from_utf8_lossy(diff.path(item)).into_owned();
    diff.items(line).iter().map(path).collect()
}

fn ends(outcomes: &Outcomes) -> BTreeMap<String, Status> {
    let end = |(path, status): &(Box<[u8]>, Status)| {
        (String::from_utf8_lossy(path).into_owned(), *status)
    };
    outcomes.ends.iter().map(end).collect()
}

fn counts(outcomes: &Outcomes, status: Status) -> usize {
    outcomes
        .ends
        .iter()
        .filter(|(_, end)| *end == status)
        .count()
}

#[test]
fn a_scan_sees_all_kinds_in_order() {
    let pair = Pair::new();
    Pair::file(&pair.source("d/f"), "1");
    Pair::file(&pair.source("d-e"), "22");
    symlink("nowhere", pair.source("l")).unwrap();
    let fifo = pair.source("p");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let tree = pair.scan(Side::Source, None);
    let mut walk = tree.entries.walk(b"");
    let mut seen = Vec::new();
    while let Some((path, kid)) = walk.next() {
        seen.push((
            String::from_utf8_lossy(path).into_owned(),
            kid.value.as_ref().unwrap().kind,
        ));
    }
    let expected = [
        ("d", Kind::Dir),
        ("d/f", Kind::File),
        ("d-e", Kind::File),
        ("l", Kind::Link),
        ("p", Kind::Other),
    ];
    assert_eq!(seen, expected.map(|(path, kind)| (path.to_owned(), kind)));
    assert_eq!(
        (tree.bytes, tree.others.len(), tree.entries.len()),
        (3, 1, 5)
    );
    assert_eq!(
        tree.get(b"l").unwrap().link.as_ref().unwrap().bytes(),
        b"nowhere"
    );
}

#[test]
fn a_wide_scan_is_the_same_on_all_cores() {
    let pair = Pair::new();
    for n in 0..600 {
        Pair::file(&pair.source(&format!("{}/{}/{n}", n % 7, n % 90)), "x");
    }
    let (one, two) = (pair.scan(Side::Source, None), pair.scan(Side::Source, None));
    assert!(one.differing(&two).is_empty());
    assert_eq!(one.entries.len(), two.entries.len());
    assert_eq!(one.bytes, 600);
}

#[test]
fn a_place_stands_for_the_topmost_missing_directory() {
    let mut pair = Pair::new();
    Pair::file(&pair.source("a/b/c/f"), "x");
    pair.cycle();
    fs::remove_dir_all(pair.source("a/b")).unwrap();
    let tree = pair.scan(
        Side::Source,
        Some(&[look("a/b/c/f", false), look("x/y", false)]),
    );
    assert_eq!(
        scope(&tree),
        [("a".to_owned(), false), ("a/b".to_owned(), true)]
    );
    let diff = pair.look(Some(&[look("a/b/c/f", false)]));
    assert_eq!(paths(&diff, Line::Gone), ["a/b", "a/b/c", "a/b/c/f"]);
    assert_eq!(diff.unexplained, 0, "the directory above has another time");
}

#[test]
fn new_directories_on_the_way_are_looked_at() {
    let pair = Pair::new();
    Pair::file(&pair.source("n/m/f"), "x");
    let tree = pair.scan(Side::Source, Some(&[look("n/m/f", false)]));
    let expected = [("n", false), ("n/m", false), ("n/m/f", true)];
    assert_eq!(
        scope(&tree),
        expected.map(|(path, deep)| (path.to_owned(), deep))
    );
    assert_eq!(tree.entries.len(), 3);
}

#[test]
fn a_cancelled_scan_knows_nothing() {
    let pair = Pair::new();
    Pair::file(&pair.source("d/f"), "x");
    pair.control.set_cancelled(true);
    let tree = pair.scan(Side::Source, None);
    assert!(!tree.knows(b"d/f") && !tree.knows(b"anything"));
}

#[test]
fn what_is_placed_is_the_same_then() {
    let mut pair = Pair::new();
    for n in 0..300 {
        Pair::file(
            &pair.source(&format!("d{}/f{n}", n % 5)),
            &format!("content {n}"),
        );
    }
    Pair::file(&pair.source("large"), &"l".repeat(300_000));
    symlink("d0", pair.source("link")).unwrap();
    fs::set_permissions(pair.source("large"), fs::Permissions::from_mode(0o4751)).unwrap();
    let outcomes = pair.cycle();
    assert_eq!(counts(&outcomes, Status::Done), 307);
    assert_eq!(outcomes.dropped, [(b"large"[..].into(), 0o4000)]);
    let diff = pair.look(None);
    assert_eq!(diff.count(Line::Same), 307);
    assert_eq!(fs::read(pair.target("d3/f8")).unwrap(), b"content 8");
    assert_eq!(
        fs::metadata(pair.target("large")).unwrap().mode() & 0o7777,
        0o751
    );
    assert_eq!(fs::read_dir(pair.staging("")).unwrap().count(), 0);
}

#[test]
fn small_files_are_written_in_place_and_others_beside() {
    let mut pair = Pair::new();
    Pair::file(&pair.source("f"), "old");
    pair.cycle();
    let inode = |pair: &Pair| fs::metadata(pair.target("f")).unwrap().ino();
    for (write, content, same) in [
        (Write::Auto, "newer", true),
        (Write::Auto, "s", false),
        (Write::InPlace, "", true),
        (Write::Replace, "r", false),
    ] {
        let before = inode(&pair);
        pair.write = write;
        Pair::file(&pair.source("f"), content);
        assert_eq!(counts(&pair.cycle(), Status::Done), 1);
        assert_eq!(fs::read_to_string(pair.target("f")).unwrap(), content);
        assert_eq!(inode(&pair) == before, same, "{write:?}");
        assert_eq!(pair.look(None).count(Line::Same), 1);
    }
}

#[test]
fn a_writer_in_the_target_is_not_written_over_in_place() {
    let mut pair = Pair::new();
    Pair::file(&pair.source("f"), "old");
    pair.cycle();
    let writer = fs::OpenOptions::new()
        .append(true)
        .open(pair.target("f"))
        .unwrap();
    Pair::file(&pair.source("f"), "new");
    pair.cycle();
    assert_eq!(fs::read_to_string(pair.target("f")).unwrap(), "new");
    assert_ne!(
        fs::metadata(pair.target("f")).unwrap().ino(),
        writer.metadata().unwrap().ino()
    );
}

#[test]
fn what_changed_since_the_scan_is_not_touched() {
    let mut pair = Pair::new();
    Pair::file(&pair.source("f"), "old");
    Pair::file(&pair.source("g"), "old");
    pair.cycle();
    Pair::file(&pair.source("f"), "new");
    fs::remove_file(pair.source("g")).unwrap();
    let actions = Pair::actions(pair.look(None));
    Pair::file(&pair.target("f"), "theirs");
    Pair::file(&pair.target("g"), "theirs");
    let outcomes = pair.place(&actions, 0, 2);
    assert_eq!(
        ends(&outcomes),
        [("f".into(), Status::Changed), ("g".into(), Status::Changed)].into()
    );
    assert_eq!(fs::read_to_string(pair.target("f")).unwrap(), "theirs");
    assert!(pair.target("g").exists());
}

#[test]
fn a_change_of_kind_keeps_what_is_not_ours() {
    let mut pair = Pair::new();
    Pair::file(&pair.source("d/ours"), "1");
    Pair::file(&pair.source("f"), "2");
    pair.cycle();
    Pair::file(&pair.target("d/theirs"), "3");
    fs::remove_dir_all(pair.source("d")).unwrap();
    Pair::file(&pair.source("d"), "file now");
    fs::remove_file(pair.source("f")).unwrap();
    Pair::file(&pair.source("f/inside"), "4");
    let outcomes = pair.cycle();
    assert_eq!(outcomes.aside, [(b"d"[..].into(), b"aside/d"[..].into())]);
    assert_eq!(
        fs::read_to_string(pair.staging("aside/d/theirs")).unwrap(),
        "3"
    );
    assert!(!pair.staging("aside/d/ours").exists() && !pair.staging("aside/f").exists());
    assert_eq!(fs::read_to_string(pair.target("f/inside")).unwrap(), "4");
    assert_eq!(pair.look(None).count(Line::Same), 3);
}

#[test]
fn a_conflict_is_set_aside_under_a_free_name() {
    let mut pair = Pair::new();
    for round in 0..3 {
        Pair::file(&pair.source("x/f"), &format!("source {round}"));
        Pair::file(&pair.target("x/f"), &format!("target's own {round}"));
        pair.cycle();
        assert_eq!(
            fs::read_to_string(pair.target("x/f")).unwrap(),
            format!("source {round}")
        );
    }
    for (name, round) in [("f", 0), ("f.1", 1), ("f.2", 2)] {
        let kept = fs::read_to_string(pair.staging(&format!("aside/x/{name}"))).unwrap();
        assert_eq!(kept, format!("target's own {round}"));
    }
}

#[test]
fn removed_directories_stay_while_they_hold_something() {
    let mut pair = Pair::new();
    Pair::file(&pair.source("d/f"), "1");
    Pair::file(&pair.source("e/f"), "1");
    pair.cycle();
    Pair::file(&pair.target("e/theirs"), "2");
    fs::remove_dir_all(pair.source("d")).unwrap();
    fs::remove_dir_all(pair.source("e")).unwrap();
    let outcomes = pair.cycle();
    assert_eq!(ends(&outcomes)["e"], Status::Kept);
    assert_eq!((counts(&outcomes, Status::Done), outcomes.removed), (3, 3));
    assert!(!pair.target("d").exists() && pair.target("e/theirs").exists());
    assert!(pair.base.rows.is_empty());
}

#[test]
fn slices_go_on_where_they_were_cut() {
    let mut pair = Pair::new();
    for n in 0..10 {
        Pair::file(&pair.source(&format!("f{n}")), "x");
    }
    let actions = Pair::actions(pair.look(None));
    pair.control.set_cancelled(true);
    let outcomes = pair.place(&actions, 0, 10);
    assert_eq!((outcomes.next, outcomes.ends.len()), (0, 0));
    pair.control.set_cancelled(false);
    assert_eq!(pair.place(&actions, 0, 4).next, 4);
    assert_eq!(pair.place(&actions, 4, 99).next, 10);
    assert_eq!(pair.look(None).count(Line::Same), 10);
}

#[test]
fn actions_are_in_the_order_of_need() {
    let mut pair = Pair::new();
    Pair::file(&pair.source("old/a/f"), "1");
    pair.cycle();
    fs::remove_dir_all(pair.source("old")).unwrap();
    Pair::file(&pair.source("new/a/f"), "2");
    Pair::file(&pair.source("a"), "3");
    let actions = Pair::actions(pair.look(None));
    let order: Vec<_> = (0..actions.len())
        .filter_map(|at| actions.get(at))
        .map(|action| {
            (
                String::from_utf8_lossy(action.path).into_owned(),
                action.verb,
            )
        })
        .collect();
    let expected = [
        ("new", Verb::Put),
        ("new/a", Verb::Put),
        ("a", Verb::Put),
        ("new/a/f", Verb::Put),
        ("old/a/f", Verb::Remove),
        ("old/a", Verb::Remove),
        ("old", Verb::Remove),
    ];
    assert_eq!(order, expected.map(|(path, verb)| (path.to_owned(), verb)));
}

#[test]
fn a_busy_source_is_not_taken() {
    let mut pair = Pair::new();
    Pair::file(&pair.source("f"), "half");
    let actions = Pair::actions(pair.look(None));
    let writer = fs::OpenOptions::new()
        .append(true)
        .open(pair.source("f"))
        .unwrap();
    assert_eq!(ends(&pair.place(&actions, 0, 1))["f"], Status::Busy);
    drop(writer);
    assert_eq!(ends(&pair.place(&actions, 0, 1))["f"], Status::Done);
}

#[test]
fn missing_directories_on_the_way_are_made_and_links_set_aside() {
    let mut pair = Pair::new();
    Pair::file(&pair.source("a/b/f"), "1");
    pair.cycle();
    fs::remove_dir_all(pair.target("a")).unwrap();
    symlink("/tmp", pair.target("a")).unwrap();
    Pair::file(&pair.source("a/b/f"), "2");
    let actions = Pair::actions(pair.look(Some(&[look("a/b/f", false)])));
    let outcomes = pair.place(&actions, 0, actions.len());
    assert_eq!(
        fs::read_to_string(pair.target("a/b/f")).unwrap(),
        "2",
        "{outcomes:?}"
    );
    assert!(
        fs::symlink_metadata(pair.staging("aside/a"))
            .unwrap()
            .is_symlink()
    );
}

#[test]
fn a_tree_deeper_than_any_path_is_walked() {
    let mut pair = Pair::new();
    let mut dir = fs::File::open(pair.source("")).unwrap();
    for _ in 0..60 {
        use rustix::fs::{Mode, OFlags, mkdirat, openat};
        mkdirat(&dir, &[b'n'; 100][..], Mode::from(0o755)).unwrap();
        dir = openat(&dir, &[b'n'; 100][..], OFlags::RDONLY, Mode::empty())
            .unwrap()
            .into();
    }
    assert_eq!(counts(&pair.cycle(), Status::Done), 60);
    let tree = pair.scan(Side::Target, None);
    assert_eq!(tree.entries.len(), 60);
    let mut walk = tree.entries.walk(b"");
    let mut depth = 0;
    while let Some((path, _)) = walk.next() {
        depth = depth.max(path::depth(path));
    }
    assert_eq!(depth, 60);
}
