"""Version control locks: young ones hold, old ones are named and no longer count."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from syncd.control.locks import LockWatch
from syncd.model.report import Halt
from syncd.model.settings import Timing
from tests.fakes import FakeRoot, entry

GIT, HG = b".git/index.lock", b".hg/wlock"
PATIENCE = Timing().left_behind


class Repository:
    """What stands at the lock names: path -> inode (or an errno)."""

    def __init__(self):
        self.there: dict[bytes, int] = {}
        self.broken: dict[bytes, int] = {}
        self.halted = False
        self.kernel = SimpleNamespace(stat_many=self.stat_many)
        self.settings = SimpleNamespace(source=b"/source", timing=Timing())

    def stat_many(self, root, paths):
        assert isinstance(root, FakeRoot)
        return [self.broken.get(p) or (entry(self.there[p]) if p in self.there else None) for p in paths]

    @contextmanager
    def roots(self):
        yield Halt("gone") if self.halted else (FakeRoot(), FakeRoot())


@pytest.fixture
def repository():
    return Repository()


@pytest.fixture
def locks(repository):
    return LockWatch(repository)


def test_nothing_there_holds_nothing(locks):
    assert not locks.look(0.0)
    assert (locks.held_by, locks.due) == ("", None)


@pytest.mark.parametrize("path", [GIT, HG, b".jj/working_copy/working_copy.lock"])
def test_a_lock_holds_until_it_goes(repository, locks, path):
    repository.there[path] = 1
    assert locks.look(5.0)
    assert (locks.held_by, locks.due) == (path.decode(), 5.0 + PATIENCE)
    assert locks.look(5.0 + PATIENCE - 0.01)
    repository.there.clear()
    assert not locks.look(15.0)
    assert (locks.held_by, locks.due) == ("", None)


def test_a_rebase_that_waits_for_a_person_holds_nothing(repository, locks):
    repository.there[b".git/rebase-merge"] = 1
    assert not locks.look(0.0)


def test_after_ten_seconds_a_lock_no_longer_counts_and_is_named(repository, locks):
    repository.there[GIT] = 1
    locks.look(0.0)
    assert not locks.look(PATIENCE)
    assert locks.due is None
    assert locks.held_by == ".git/index.lock (left behind; it no longer counts)"
    assert not locks.look(1000.0)


def test_age_is_counted_from_when_this_run_first_saw_the_inode(repository, locks):
    repository.there[GIT] = 1
    locks.look(0.0)
    repository.there[GIT] = 2
    assert locks.look(9.0)
    assert locks.look(18.9)
    assert not locks.look(19.0)


def test_an_old_lock_does_not_hide_a_young_one(repository, locks):
    repository.there[GIT] = 1
    locks.look(0.0)
    repository.there[HG] = 7
    assert locks.look(10.0)
    assert locks.due == 10.0 + PATIENCE
    assert locks.held_by == ".git/index.lock (left behind; it no longer counts), .hg/wlock"


def test_what_cannot_be_read_or_a_source_that_is_gone_holds_nothing(repository, locks):
    repository.broken[GIT] = 13
    assert not locks.look(0.0)
    repository.halted = True
    assert not locks.look(0.0)
