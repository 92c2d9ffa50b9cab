//! Lone saves: while nothing else is pending, each is mirrored as soon as it is heard.
//!
//! What is *lone* is decided by `Settle` in `syncd/engine/settle.py`. Here only what is so beyond doubt is
//! taken; every other word goes back to the caller, with nothing done about it.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::actions::Verb;
use crate::base::Base;
use crate::control::Control;
use crate::digest::stat_many;
use crate::dirs::Root;
use crate::exclude::Excluder;
use crate::express::{Ends, express};
use crate::place::{Aside, Options, Outcomes};
use crate::tree::Look;
use crate::watch::{Hints, Watcher};

/// How lone saves are mirrored.
pub struct Way<'a> {
    /// Where both sides stand, and what they have to be.
    pub ends: Ends<'a>,
    /// Rules. A rule file among the words goes back.
    pub rules: &'a dyn Excluder,
    /// What is done in the lines AGREED and CHANGED.
    pub verbs: (Verb, Verb),
    /// How to write, but for `aside`.
    pub options: Options<'a>,
    /// Cancelling and counting.
    pub control: &'a Control,
    /// The number of the cycle that the first save will be.
    pub number: u64,
    /// What a directory for entries set aside is called: a format of strftime, for UTC.
    pub aside: &'a CStr,
    /// So many paths may be named ...
    pub few: usize,
    /// ... within so long.
    pub quiet: Duration,
    /// When the last ones were named.
    pub recent: VecDeque<Duration>,
    /// A save that ends after this moment is told at once; until then, one that is done waits for others.
    pub due: Duration,
}

/// A save that was mirrored. Times are those of the monotonic clock.
#[derive(Debug)]
pub struct Save {
    /// What was looked at.
    pub paths: Vec<Box<[u8]>>,
    /// What came of it.
    pub outcomes: Outcomes,
    /// When it was heard.
    pub since: Duration,
    /// When it was done.
    pub until: Duration,
}

/// What `mirror` did.
#[derive(Debug, Default)]
pub struct Mirrored {
    /// In order.
    pub saves: Vec<Save>,
    /// Words about which nothing was done.
    pub hints: Hints,
    /// Descriptors that are ready.
    pub ready: Vec<i32>,
}

/// Wait in `epoll`, in which `watcher` is listened to, and mirror lone saves.
///
/// Ends when another descriptor of `epoll` is ready, when a save has to be told, when a word is to be decided on (the words
/// come back), or when the call is cancelled. `base` learns what was done.
pub fn mirror(
    watcher: &Watcher,
    epoll: BorrowedFd<'_>,
    base: &mut Base,
    mut way: Way<'_>,
) -> Mirrored {
    let mut done = Mirrored::default();
    let saves = &mut done.saves;
    loop {
        let left = (!saves.is_empty()).then(|| way.due.saturating_sub(now()));
        if left == Some(Duration::ZERO) || way.control.is_cancelled() {
            return done;
        }
        if let Err(ready) = watcher.wait(epoll, left) {
            done.ready = ready;
            return done;
        }
        let since = now();
        let hints = watcher.read();
        let Some(scope) = lone(&hints, base, &mut way, since) else {
            done.hints = hints;
            return done;
        };
        if !way.lacks(&hints) {
            done.hints = hints;
            return done;
        }
        if scope.is_empty() {
            continue; // names that came and went, or none
        }
        let number = way.number + saves.len() as u64;
        let options = Options {
            aside: Aside::Now(way.aside, number),
            ..way.options
        };
        let placed = express(
            &way.ends,
            way.rules,
            base,
            &scope,
            way.verbs,
            &options,
            way.control,
        );
        let Ok(Some(outcomes)) = placed else {
            done.hints = hints; // an error is one of the journal: the caller meets it again
            return done;
        };
        base.learn_all(&outcomes.rows);
        if outcomes.stopped.is_some() {
            done.hints = hints;
            return done;
        }
        let smooth = outcomes.is_smooth();
        let paths = scope.into_iter().map(|look| look.path).collect();
        saves.push(Save {
            paths,
            outcomes,
            since,
            until: now(),
        });
        if !smooth {
            return done;
        }
    }
}

impl Way<'_> {
    /// Whether the source lacks the names that are said to have gone: of one that was exchanged with another that word is
    /// the last one, and something stands there.
    fn lacks(&self, hints: &Hints) -> bool {
        let gone = hints.words.iter().filter(|(_, word)| word.gone);
        let gone: Vec<_> = gone.map(|(path, _)| path.clone()).collect();
        if gone.is_empty() {
            return true;
        }
        let Ok(source) = Root::open(self.ends.paths.0) else {
            return false;
        };
        let looked = stat_many(&source, &gone, false);
        looked.iter().all(|looked| matches!(looked, Ok(None)))
    }
}

/// What to look at, if the words are only those of a few saves, and of names that came and went unknown. None: they are to be
/// decided on.
fn lone(hints: &Hints, base: &Base, way: &mut Way<'_>, now: Duration) -> Option<Vec<Look>> {
    if hints.locks || hints.rescan || hints.words.len() > 2 * way.few {
        return None;
    }
    let is_known = |path: &[u8]| base.get(path).is_some();
    let mut scope = Vec::new();
    for (path, word) in &hints.words {
        match (word.ready, word.gone) {
            _ if word.deep => return None,
            (true, false) if !word.removed && !way.rules.teaches(path) => scope.push(Look {
                path: path.clone(),
                deep: false,
            }),
            (false, true) if !is_known(path) => {}
            _ => return None,
        }
    }
    if hints.moves.iter().any(|(old, _)| is_known(old)) {
        return None;
    }
    while (way.recent.front()).is_some_and(|named| *named + way.quiet < now) {
        way.recent.pop_front();
    }
    way.recent.extend(scope.iter().map(|_| now));
    (way.recent.len() <= way.few).then_some(scope)
}

/// The monotonic clock, as Python's `time.monotonic` tells it.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::{self, File};
    use std::os::fd::{AsFd, AsRawFd, OwnedFd};
    use std::sync::Arc;

    use rustix::event::{EventfdFlags, epoll, eventfd};

    use super::*;
    use crate::ignore::Ignore;
    use crate::testing::Pair;

    /// A pair whose source is watched; `other` is in the same epoll.
    struct Scene {
        pair: Pair,
        watcher: Watcher,
        rules: Arc<Ignore>,
        epoll: OwnedFd,
        other: OwnedFd,
        few: usize,
        due: Duration,
    }

    impl Scene {
        fn new() -> Self {
            let mut pair = Pair::new();
            for name in ["a", "b", "c", "d/e", "d/z", ".rules"] {
                Pair::file(&pair.source(name), "old");
            }
            pair.cycle();
            pair.cycle(); // its row tells the root's times
            let root = pair.scan(crate::entry::Side::Source, None).root.unwrap();
            let row = crate::entry::Agreed::new(
                crate::entry::Kind::Dir,
                0,
                0,
                &root.print,
                &Default::default(),
            );
            pair.base.learn(b"", Some(row));
            let source = pair.source("");
            let watcher = Watcher::new(source.as_os_str().as_encoded_bytes()).unwrap();
            let nested = vec![b".rules".to_vec()];
            let rules = Arc::new(Ignore::new([&b"ignored"[..]], nested, [], BTreeSet::new()));
            let its = Arc::clone(&rules) as Arc<dyn Excluder + Send>;
            watcher.cover(pair.root("source").fd(), its).unwrap();
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
            let other = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
            let data = epoll::EventData::new_u64(other.as_raw_fd() as u64);
            epoll::add(&epoll, &other, data, epoll::EventFlags::IN).unwrap();
            watcher.listen(epoll.as_fd()).unwrap();
            Scene {
                pair,
                watcher,
                rules,
                epoll,
                other,
                few: 8,
                due: Duration::ZERO,
            }
        }

        fn save(&self, name: &str, content: &str) {
            Pair::file(&self.pair.source(name), content);
        }

        fn target(&self, name: &str) -> String {
            fs::read_to_string(self.pair.target(name)).unwrap()
        }

        fn mirror(&mut self, recent: &[Duration]) -> Mirrored {
            let (source, target) = (self.pair.source(""), self.pair.target(""));
            let identity = |side| {
                let root = self.pair.root(side);
                (root.device, root.inode)
            };
            let way = Way {
                ends: Ends {
                    paths: (
                        source.as_os_str().as_encoded_bytes(),
                        target.as_os_str().as_encoded_bytes(),
                    ),
                    roots: (identity("source"), identity("target")),
                },
                rules: &*self.rules,
                verbs: (Verb::Record, Verb::Put),
                options: self.pair.options(),
                control: &self.pair.control,
                number: 7,
                aside: c"aside/%Y",
                few: self.few,
                quiet: Duration::from_secs(30),
                recent: recent.iter().copied().collect(),
                due: self.due,
            };
            let mut base = self.pair.base.clone();
            let done = mirror(&self.watcher, self.epoll.as_fd(), &mut base, way);
            self.pair.base = base;
            done
        }

        /// Mirror; nothing is done and these words come back.
        fn refuses(&mut self, words: &[&str]) {
            let done = self.mirror(&[]);
            let mut told: Vec<_> = (done.hints.words.keys())
                .map(|path| String::from_utf8(path.to_vec()).unwrap())
                .collect();
            told.sort();
            assert_eq!(
                (done.saves.len(), told),
                (0, words.iter().map(|w| (*w).to_string()).collect())
            );
        }
    }

    #[test]
    fn a_save_is_mirrored_and_learnt() {
        let mut scene = Scene::new();
        for content in ["first", "2nd", "a third one"] {
            scene.save("d/e", content);
            let done = scene.mirror(&[]);
            assert_eq!(scene.target("d/e"), content);
            let [save] = &done.saves[..] else {
                panic!("{done:?}")
            };
            assert_eq!(save.paths, [Box::from(&b"d/e"[..])]);
            assert!(save.outcomes.is_smooth() && save.since < save.until);
            assert!(done.hints.words.is_empty() && done.ready.is_empty());
        }
        assert_eq!(scene.pair.look(None).count(crate::diff::Line::Same), 7);
    }

    #[test]
    fn saves_are_told_together_when_another_descriptor_is_ready() {
        let mut scene = Scene::new();
        scene.due = now() + Duration::from_secs(3600);
        let names = ["d/e", "d/z"].map(|name| scene.pair.source(name));
        let fresh = ["e", "z"].map(|name| scene.pair.staging(name));
        let target = scene.pair.target("d/z");
        let wake = scene.other.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            for (fresh, name) in fresh.iter().zip(&names) {
                Pair::file(fresh, "new");
                fs::rename(fresh, name).unwrap(); // one word that is ready, whenever it is heard
            }
            while fs::read(&target).unwrap() != b"new" {
                std::thread::yield_now();
            }
            rustix::io::write(&wake, &1_u64.to_ne_bytes()).unwrap();
        });
        let done = scene.mirror(&[]);
        writer.join().unwrap();
        let told: BTreeSet<_> = (done.saves.iter())
            .flat_map(|save| save.paths.clone())
            .collect();
        assert_eq!(
            told,
            [Box::from(&b"d/e"[..]), Box::from(&b"d/z"[..])].into()
        );
        assert_eq!(done.ready, [scene.other.as_raw_fd()]);
    }

    #[test]
    fn names_that_came_and_went_are_nothing() {
        let mut scene = Scene::new();
        scene.save("temporary", "new");
        fs::rename(scene.pair.source("temporary"), scene.pair.source("a")).unwrap();
        scene.save("passing", "");
        fs::remove_file(scene.pair.source("passing")).unwrap();
        // The root's times are new, and a lone save teaches none.
        scene.refuses(&["a", "passing", "temporary"]);
        scene.save("d/passing", "");
        fs::remove_file(scene.pair.source("d/passing")).unwrap();
        scene.save("d/temporary", "new");
        fs::rename(scene.pair.source("d/temporary"), scene.pair.source("d/e")).unwrap();
        assert_eq!(scene.mirror(&[]).saves.len(), 1);
        assert_eq!(scene.target("d/e"), "new");
    }

    #[test]
    fn a_name_that_was_exchanged_is_not_taken_for_one_that_went() {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let mut scene = Scene::new();
        scene.save("d/other", "new");
        let names = [scene.pair.source("d/e"), scene.pair.source("d/other")];
        renameat_with(CWD, &names[0], CWD, &names[1], RenameFlags::EXCHANGE).unwrap();
        scene.refuses(&["d/e", "d/other"]);
        fs::remove_file(scene.pair.source("d/other")).unwrap();
        scene.save("d/third", "new");
        let names = [scene.pair.source("d/third"), scene.pair.source("d/fourth")];
        std::os::unix::fs::symlink("x", &names[1]).unwrap();
        scene.watcher.read();
        renameat_with(CWD, &names[0], CWD, &names[1], RenameFlags::EXCHANGE).unwrap();
        scene.refuses(&["d/fourth", "d/third"]);
    }

    #[test]
    fn what_is_to_be_decided_comes_back_untouched() {
        let mut scene = Scene::new();
        scene.save(".rules", "a");
        scene.refuses(&[".rules"]);
        fs::remove_file(scene.pair.source("c")).unwrap();
        scene.save("a", "new");
        scene.refuses(&["a", "c"]);
        fs::create_dir(scene.pair.source("d/new")).unwrap();
        scene.refuses(&["d/new"]);
        fs::rename(scene.pair.source("d/e"), scene.pair.source("d/f")).unwrap();
        scene.refuses(&["d/e", "d/f"]);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(scene.pair.source("b"), mode).unwrap();
        scene.refuses(&["b"]);
        assert_eq!(
            (scene.target("a"), scene.target("d/e")),
            ("old".into(), "old".into())
        );
        assert!(scene.pair.target("c").exists() && !scene.pair.target("d/new").exists());
    }

    #[test]
    fn a_conflict_and_a_journal_that_cannot_be_written_come_back() {
        let mut scene = Scene::new();
        Pair::file(&scene.pair.target("d/e"), "theirs");
        scene.save("d/e", "new");
        scene.refuses(&["d/e"]);
        assert_eq!(scene.target("d/e"), "theirs");
        scene.pair.journal = File::open("/dev/null").unwrap();
        scene.save("a", "new");
        scene.refuses(&["a"]);
        assert_eq!(scene.target("a"), "old");
    }

    #[test]
    fn a_crowd_comes_back() {
        let mut scene = Scene::new();
        scene.few = 2;
        for name in ["a", "b", "c"] {
            scene.save(name, "new");
        }
        scene.refuses(&["a", "b", "c"]);
        scene.save("a", "newer");
        let before = now();
        assert_eq!(scene.mirror(&[before, before]).hints.words.len(), 1);
        scene.save("a", "newest");
        let long_ago = Duration::ZERO;
        assert_eq!(scene.mirror(&[long_ago, before]).saves.len(), 1);
    }

    #[test]
    fn what_has_to_be_told_ends_it_and_a_kept_entry_has_the_time_in_its_name() {
        let mut scene = Scene::new();
        scene.due = now() + Duration::from_secs(3600);
        scene.pair.write = crate::place::Write::Replace;
        let held = fs::OpenOptions::new()
            .append(true)
            .open(scene.pair.target("a"))
            .unwrap();
        scene.save("a", "new");
        let done = scene.mirror(&[]);
        drop(held);
        let kept = &done.saves[0].outcomes.aside[0].1;
        assert!(kept.starts_with(b"aside/20") && kept.ends_with(b"-7/a"));
        assert_eq!(scene.target("a"), "new");
    }

    #[test]
    fn one_that_is_cancelled_ends() {
        let mut scene = Scene::new();
        scene.pair.control.set_cancelled(true);
        scene.save("a", "new");
        assert!(scene.mirror(&[]).saves.is_empty());
    }
}
