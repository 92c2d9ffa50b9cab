use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::event::Timespec;
use rustix::event::{PollFd, PollFlags, poll};

use super::*;
use crate::dirs::Root;
use crate::ignore::Ignore;
use crate::testing::Scratch;

struct Scene {
    scratch: Scratch,
    rules: Arc<Ignore>,
    watcher: Watcher,
}

impl Scene {
    fn new(dirs: &[&str]) -> Self {
        let scratch = Scratch::new();
        for dir in dirs {
            fs::create_dir_all(scratch.path().join("source").join(dir)).unwrap();
        }
        let source = scratch.path().join("source");
        let rules: &[u8] = b"ignored\n/new/b\n";
        let scene = Self {
            rules: Arc::new(Ignore::new(
                [rules],
                vec![b".ignore".to_vec()],
                [],
                BTreeSet::new(),
            )),
            watcher: Watcher::new(source.as_os_str().as_encoded_bytes()).unwrap(),
            scratch,
        };
        scene.cover();
        scene.watcher.read();
        scene
    }

    fn path(&self, path: &str) -> PathBuf {
        self.scratch.path().join("source").join(path)
    }

    fn root(&self) -> Root {
        Root::open(self.path("").as_os_str().as_encoded_bytes()).unwrap()
    }

    fn cover(&self) -> Coverage {
        let rules = Arc::clone(&self.rules) as Arc<dyn Excluder + Send>;
        self.watcher.cover(self.root().fd(), rules).unwrap()
    }

    fn ready(&self) -> Vec<String> {
        let hints = self.watcher.read();
        let ready = hints.words.iter().filter(|(_, word)| word.ready);
        let mut paths: Vec<_> = ready
            .map(|(path, _)| String::from_utf8_lossy(path).into_owned())
            .collect();
        paths.sort();
        paths
    }
}

fn wait_for(watcher: &Watcher) -> bool {
    let shared = watcher.shared().unwrap();
    let bell = shared.inbox.fd();
    let limit = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    poll(
        &mut [PollFd::from_borrowed_fd(bell, PollFlags::IN)],
        Some(&limit),
    ) == Ok(1)
}

#[test]
fn the_thread_rings() {
    let scene = Scene::new(&["d", "ignored"]);
    fs::write(scene.path("ignored/f"), "").unwrap();
    fs::write(scene.path("d/f"), "").unwrap();
    assert!(wait_for(&scene.watcher));
    let mut ready = false;
    while !ready {
        assert!(wait_for(&scene.watcher));
        let hints = scene.watcher.read();
        assert!(hints.words.keys().all(|path| **path == *b"d/f"));
        ready = hints.words.values().any(|word| word.ready);
    }
}

#[test]
fn once_somebody_listens_the_thread_works_only_when_it_is_called() {
    let scene = Scene::new(&["d"]);
    let reader = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    scene.watcher.listen(reader.as_fd()).unwrap();
    let rung = || scene.watcher.shared().unwrap().inbox.is_rung();
    let wakes = |tv_sec| {
        let limit = Timespec { tv_sec, tv_nsec: 0 };
        let mut fds = [PollFd::new(&reader, PollFlags::IN)];
        poll(&mut fds, Some(&limit)).unwrap() == 1
    };
    assert!(!wakes(0));

    fs::write(scene.path("d/f"), "").unwrap();
    assert!(wakes(10), "the reader is told by the queue itself");
    assert!(!rung());
    assert_eq!(scene.ready(), ["d/f"]);
    assert!(!wakes(0));

    scene.watcher.attend(true).unwrap();
    scene.watcher.attend(true).unwrap(); // twice is harmless
    fs::write(scene.path("d/g"), "").unwrap();
    assert!(
        wait_for(&scene.watcher),
        "the thread took it from the queue"
    );
    assert!(wakes(10));
    scene.watcher.attend(false).unwrap();
    scene.watcher.attend(false).unwrap();
    assert_eq!(scene.ready(), ["d/g"]);
    scene.watcher.close();
    scene.watcher.attend(true).unwrap();
}

#[test]
fn new_trees_are_watched_and_their_rules_learnt() {
    let scene = Scene::new(&["d"]);
    let outside = scene.scratch.path().join("t");
    fs::create_dir_all(outside.join("a/b")).unwrap();
    fs::write(outside.join(".ignore"), "secret\n").unwrap();
    fs::rename(&outside, scene.path("d/t")).unwrap();
    let hints = scene.watcher.read();
    assert!(hints.words[&b"d/t"[..]].deep);
    fs::write(scene.path("d/t/a/b/f"), "").unwrap();
    fs::write(scene.path("d/t/a/secret"), "").unwrap();
    assert_eq!(scene.ready(), ["d/t/a/b/f"]);
}

#[test]
fn a_renamed_tree_speaks_under_its_new_name() {
    let scene = Scene::new(&["a/b/c", "d"]);
    fs::rename(scene.path("a"), scene.path("d/e")).unwrap();
    fs::write(scene.path("d/e/b/c/f"), "").unwrap();
    let hints = scene.watcher.read();
    assert_eq!(hints.moves, [(b"a"[..].into(), b"d/e"[..].into())]);
    assert!(hints.words[&b"d/e"[..]].deep && hints.words[&b"a"[..]].removed);
    fs::write(scene.path("d/e/b/c/g"), "").unwrap();
    assert_eq!(scene.ready(), ["d/e/b/c/g"]);
    fs::rename(scene.path("d/e"), scene.path("new")).unwrap(); // where b is ignored
    scene.watcher.read();
    fs::write(scene.path("new/b/c/f"), "").unwrap();
    fs::write(scene.path("new/f"), "").unwrap();
    assert_eq!(scene.ready(), ["new/f"]);
    assert_eq!(scene.cover().watched, 3);
}

#[test]
fn locks_are_told_apart() {
    let scene = Scene::new(&["ignored/x", "d"]);
    let root = scene.root();
    for dir in [&b"ignored"[..], b"d", b"absent"] {
        scene
            .watcher
            .watch_locks(root.fd(), dir, vec![b"index.lock".to_vec()]);
    }
    fs::write(scene.path("ignored/other"), "").unwrap();
    assert_eq!(scene.watcher.read(), Hints::default());
    fs::write(scene.path("ignored/index.lock"), "").unwrap();
    let hints = scene.watcher.read();
    assert!(hints.locks && hints.words.is_empty());
    fs::write(scene.path("d/index.lock"), "").unwrap();
    let hints = scene.watcher.read();
    assert!(hints.locks && hints.words.len() == 1);
    fs::remove_dir_all(scene.path("ignored")).unwrap();
    assert!(scene.watcher.read().locks);
}

#[test]
fn the_end_of_the_root_is_a_rescan() {
    for end in [
        (|source: &Path| fs::remove_dir_all(source).unwrap()) as fn(&Path),
        |source| fs::rename(source, source.with_extension("gone")).unwrap(),
    ] {
        let scene = Scene::new(&["d"]);
        end(&scene.path(""));
        assert!(scene.watcher.read().rescan);
    }
    let scene = Scene::new(&["d"]);
    let source = scene.path("");
    fs::rename(
        scene.scratch.path().join("source"),
        scene.scratch.path().join("old"),
    )
    .unwrap();
    scene.watcher.read();
    fs::create_dir_all(source.join("e")).unwrap();
    fs::create_dir(scene.scratch.path().join("old/e")).unwrap(); // not the one at this path now
    assert!(scene.watcher.read().rescan);
    assert_eq!(scene.cover().watched, 2);
    fs::write(scene.path("e/f"), "").unwrap();
    assert_eq!(scene.ready(), ["e/f"]);
}

#[test]
fn closing_ends_the_thread() {
    let scene = Scene::new(&["d"]);
    let shared = Arc::downgrade(&scene.watcher.shared().unwrap());
    scene.watcher.close();
    scene.watcher.close();
    assert!(shared.upgrade().is_none());
    assert_eq!(
        (scene.watcher.fd(), scene.watcher.read()),
        (-1, Hints::default())
    );
}

#[test]
fn what_is_decoded_from_garbage_harms_nothing() {
    let scene = Scene::new(&["a/b", "d"]);
    let shared = scene.watcher.shared().unwrap();
    let mut seed = 7_u64;
    let mut next = move |below: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..3000 {
        let mut bytes = Vec::new();
        for _ in 0..4 {
            let name: &[u8] = [&b"a"[..], b"b", b"d", b"", b"..", b"a/b"][next(6) as usize];
            bytes.extend((next(6) as i32 - 1).to_ne_bytes());
            bytes.extend((1_u32 << next(32) | 1 << next(32)).to_ne_bytes());
            bytes.extend((next(3) as u32).to_ne_bytes());
            bytes.extend((name.len() as u32 + 1).to_ne_bytes());
            bytes.extend(name);
            bytes.push(0);
        }
        shared.with_work(|work| {
            work.known.backlog = bytes;
            work.pump();
        });
    }
    scene.watcher.read();
    assert_eq!(scene.cover().watched, 4);
    fs::write(scene.path("a/b/f"), "").unwrap();
    assert!(scene.watcher.read().words.contains_key(&b"a/b/f"[..]));
}

#[test]
fn a_watch_set_behind_a_rename_goes() {
    let scene = Scene::new(&["a"]);
    let shared = scene.watcher.shared().unwrap();
    shared.with_known(|work| {
        fs::create_dir(scene.path("b")).unwrap();
        let walked = fs::File::open(scene.path("b")).unwrap();
        fs::rename(scene.path("b"), scene.path("ignored")).unwrap();
        let top = work.known.watches.child(0, b"").unwrap();
        let added = shared.add(walked.as_fd()).map(|wd| (wd, top));
        let watched = work.met(scene.root().fd(), walked.as_fd(), added, b"b");
        assert!(watched.is_ok());
    });
    scene.watcher.read();
    scene.watcher.read();
    assert_eq!(shared.with_known(|work| work.known.watches.len()), 2);
    fs::rename(scene.path("ignored"), scene.path("back")).unwrap();
    scene.watcher.read();
    fs::write(scene.path("back/x"), "").unwrap();
    assert_eq!(scene.ready(), ["back/x"]);
}

#[test]
fn an_ignored_rule_file_is_heard_and_a_directory_of_its_name_is_not() {
    let scene = Scene::new(&["a"]);
    let text: &[u8] = b".ignore\n";
    let rules = Ignore::new([text], vec![b".ignore".to_vec()], [], BTreeSet::new());
    let root = scene.root();
    let covered = scene.watcher.cover(root.fd(), Arc::new(rules));
    assert_eq!(covered.unwrap().watched, 2);
    fs::create_dir(scene.path("a/.ignore")).unwrap();
    fs::write(scene.path("a/.ignore/x"), "").unwrap();
    fs::write(scene.path(".ignore"), "").unwrap();
    assert_eq!(scene.ready(), [".ignore"]);
    let shared = scene.watcher.shared().unwrap();
    assert_eq!(shared.with_known(|work| work.known.watches.len()), 2);
}
