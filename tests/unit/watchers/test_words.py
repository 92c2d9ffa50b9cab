"""Words, the inbox, and small parts of watchers."""

import select
import subprocess
import sys

import pytest

from syncd.model.change import Hints
from syncd.watchers import words as module
from syncd.watchers.joined import tops
from syncd.watchers.words import Inbox, Words


def test_the_last_word_decides():
    words = Words()
    words.say(b"a", ready=True)
    words.say(b"b", deep=True, removed=True)
    words.say(b"a")
    words.say(b"b", ready=True)
    words.moved(b"x", b"b")
    assert words.hints() == Hints(
        ready=frozenset({b"b"}),
        waiting=frozenset({b"a"}),
        deep=frozenset({b"b"}),
        removed=frozenset({b"b"}),
        moves=((b"x", b"b"),),
    )


def test_hints_are_added_in_order():
    words = Words()
    words.add(Hints(ready=frozenset({b"a", b"c"}), deep=frozenset({b"a"}), locks=True))
    words.add(Hints(waiting=frozenset({b"a"}), removed=frozenset({b"a"}), rescan=True, moves=((b"a", b"b"),)))
    assert words.hints() == Hints(
        ready=frozenset({b"c"}),
        waiting=frozenset({b"a"}),
        deep=frozenset({b"a"}),
        removed=frozenset({b"a"}),
        moves=((b"a", b"b"),),
        locks=True,
        rescan=True,
    )


def is_readable(fd):
    return bool(select.select([fd], [], [], 0)[0])


def test_the_inbox_is_readable_while_something_lies_in_it():
    inbox = Inbox()
    assert not is_readable(inbox.fd)
    inbox.put(1)
    inbox.put(2)
    assert is_readable(inbox.fd)
    assert inbox.take() == ([1, 2], False)
    assert not is_readable(inbox.fd)
    assert inbox.take() == ([], False)
    inbox.close()
    inbox.close()
    inbox.put(3)
    assert inbox.take() == ([], False)


def test_a_full_inbox_says_so_once(monkeypatch):
    monkeypatch.setattr(module, "MANY", 2)
    inbox = Inbox()
    for number in range(4):
        inbox.put(number)
    assert inbox.take() == ([0, 1], True)
    inbox.put(5)
    assert inbox.take() == ([5], False)
    inbox.close()


@pytest.mark.parametrize(
    ("paths", "want"),
    [
        ((), ()),
        ((b"b", b"a"), (b"a", b"b")),
        ((b"a/b/c", b"a", b"ab", b"a/b"), (b"a", b"ab")),
        ((b"a", b"", b"b/c"), (b"",)),
    ],
)
def test_the_tops_of_some_directories(paths, want):
    assert tops(paths) == want


ABSENT = """
class Finder:
    def find_spec(name, *_):
        assert name != "asyncore"
sys.meta_path.insert(0, Finder)
"""
LOADED = """
import types
sys.modules["asyncore"] = types.SimpleNamespace(file_dispatcher=type("Dispatcher", (), {}))
"""


@pytest.mark.parametrize(("before", "loaded"), [(ABSENT, False), (LOADED, True)], ids=["absent", "loaded before"])
def test_pyinotify_needs_no_asyncore(before, loaded):
    """Python 3.12 has none; where a program has one, it is left alone."""
    code = f"""
import sys
{before}
from syncd.watchers.rawqueue import Queue
queue = Queue()
assert queue.fd >= 0
assert ("asyncore" in sys.modules) == {loaded}
queue.close()
queue.close()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
