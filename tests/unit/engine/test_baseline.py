"""Checkpoint and journals on disk: kept twice, replayed in order, never trusted when damaged, never fatal."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from syncd.engine import baseline as module
from syncd.engine.baseline import Baseline
from syncd.kernel.contract import Intent
from syncd.kernel.pure import journal
from tests.fakes import agreed

RUN = {"boot": "b", "mount": 7}


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def rows(baseline: Baseline) -> dict[bytes, bytes]:
    """Path -> digest."""
    return {path: row.digest for path, row in baseline.base.rows()}


def digest(number: int) -> bytes:
    return bytes([number]) * 16


def fill(baseline: Baseline, **named: int) -> None:
    baseline.settle([(name.encode(), agreed(digest(number))) for name, number in named.items()])


@pytest.fixture
def make(kernel, tmp_path):
    """Opens the baseline of one directory again and again, and closes what is left open."""
    made: list[Baseline] = []

    def make(*, opened: bool = False, reading: bool = False) -> Baseline:
        baseline = Baseline(kernel, tmp_path / "pair", reading=reading)
        made.append(baseline)
        if opened:
            baseline.open(RUN)
        return baseline

    yield make
    for baseline in made:
        baseline.close(clean=False)


def spoil(path: Path) -> None:
    """Damage the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def two_generations(make) -> Path:
    """baseline.N and its journal, twice; a, b and c were written one after the other, a twice."""
    one = make(opened=True)
    fill(one, a=1)
    one.checkpoint()
    fill(one, b=2)
    one.checkpoint()
    fill(one, c=3, a=9)
    one.close(clean=False)
    return one.directory


WHOLE = {b"a": digest(9), b"b": digest(2), b"c": digest(3)}


def test_a_new_pair_knows_nothing(make, tmp_path):
    baseline = make()
    assert (baseline.known, baseline.whole, baseline.intents, baseline.notes) == (False, True, [], {})
    assert len(baseline.base) == 0
    assert oct((tmp_path / "pair").stat().st_mode)[-3:] == "700"
    assert files(tmp_path / "pair") == []


def test_reading_makes_nothing(make, tmp_path):
    baseline = make(reading=True)
    assert len(baseline.base) == 0
    assert not baseline.known
    assert not (tmp_path / "pair").exists()


def test_what_was_learnt_is_there_after_a_kill(make):
    one = make(opened=True)
    fill(one, a=1, b=2)
    one.settle([(b"a", None)])
    fill(one, b=3)
    two = make()
    assert (two.known, two.whole) == (True, True)
    assert rows(two) == {b"b": digest(3)}
    assert two.notes == {"run": RUN, "clean": False}


def test_dropping_a_directory_drops_what_it_holds(make):
    one = make(opened=True)
    one.settle([(b"d", agreed()), (b"d/x", agreed()), (b"dx", agreed())])
    one.settle([(b"d", None)])
    assert rows(make()).keys() == {b"dx"}


def test_notes_are_kept_and_the_last_one_counts(make):
    one = make(opened=True)
    one.note(met=True, vcs=[1])
    one.note(vcs=[2], odd="\udcff")
    one.checkpoint()
    one.note(target=5)
    two = make()
    assert two.notes == {"run": RUN, "clean": False, "met": True, "vcs": [2], "odd": "\udcff", "target": 5}


def test_clean_is_said_by_a_clean_end_only(make):
    one = make(opened=True)
    fill(one, a=1)
    one.close(clean=True, run={"boot": "c"})
    two = make()
    assert two.notes["clean"] is True
    assert two.notes["run"] == {"boot": "c"}
    two.open(RUN)
    assert make().notes["clean"] is False
    two.close(clean=False)
    three = make()
    assert three.notes["clean"] is False
    assert rows(three) == {b"a": digest(1)}


def test_close_twice_or_without_open_is_harmless(make):
    baseline = make()
    baseline.close(clean=True)
    baseline.open(RUN)
    baseline.close(clean=True)
    baseline.close(clean=True)
    assert make().notes["clean"] is True


def test_a_checkpoint_stands_beside_the_one_before(make):
    directory = two_generations(make)
    numbers = sorted(int(name.split(".")[1]) for name in files(directory) if name.startswith("baseline."))
    assert len(numbers) == 2
    assert files(directory) == sorted(f"{kind}.{n}" for kind in ("baseline", "journal") for n in numbers)
    baseline = make()
    assert rows(baseline) == WHOLE
    assert baseline.whole


def test_a_damaged_checkpoint_costs_reading_more_not_knowing_less(make):
    directory = two_generations(make)
    spoil(max(directory.glob("baseline.*")))
    baseline = make()
    assert rows(baseline) == WHOLE
    assert baseline.known
    assert not baseline.whole


def test_a_missing_checkpoint_is_as_a_damaged_one(make):
    directory = two_generations(make)
    max(directory.glob("baseline.*")).unlink()
    baseline = make()
    assert rows(baseline) == WHOLE


def test_all_damaged_is_empty_and_not_whole(make):
    directory = two_generations(make)
    for path in directory.glob("baseline.*"):
        spoil(path)
    baseline = make()
    assert (len(baseline.base), baseline.whole, baseline.known, baseline.notes) == (0, False, True, {})


def test_journals_without_any_checkpoint_say_nothing(make):
    directory = two_generations(make)
    for path in directory.glob("baseline.*"):
        path.unlink()
    baseline = make()
    assert (len(baseline.base), baseline.whole, baseline.known) == (0, False, True)


@pytest.mark.parametrize("which", ["baseline", "journal"])
def test_a_damaged_baseline_is_never_appended_to(make, which):
    directory = two_generations(make)
    spoil(max(directory.glob(f"{which}.*")))
    before = {path: path.read_bytes() for path in directory.iterdir()}
    baseline = make(opened=True)
    known = rows(baseline)
    fill(baseline, z=7)
    again = make()
    assert again.whole
    assert rows(again) == known | {b"z": digest(7)}
    assert all(path.read_bytes() == data for path, data in before.items() if path.exists())


@pytest.mark.parametrize("which", ["baseline", "journal"])
def test_truncated_at_every_byte(make, which):
    """Whatever is cut off, what is read is what stood there at some time, and nothing is raised."""
    directory = two_generations(make)
    path = max(directory.glob(f"{which}.*"))
    data = path.read_bytes()
    older = {b"a": digest(1), b"b": digest(2)}
    for size in range(len(data)):
        path.write_bytes(data[:size])
        baseline = make(reading=True)
        assert rows(baseline) in (WHOLE, older)
        if which == "baseline":
            assert not baseline.whole
            assert rows(baseline) == WHOLE
    path.write_bytes(data)
    assert make().whole


def test_every_single_damaged_byte_is_noticed_or_harmless(make):
    """In the newest checkpoint and its journal; rows that were never agreed on do not come up."""
    directory = two_generations(make)
    older = {b"a": digest(1), b"b": digest(2)}
    for path in (max(directory.glob("baseline.*")), max(directory.glob("journal.*"))):
        data = path.read_bytes()
        for at in range(len(data)):
            path.write_bytes(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :])
            baseline = make(reading=True)
            assert not baseline.whole
            assert rows(baseline) in (WHOLE, older)
        path.write_bytes(data)


def test_open_intents_are_found_and_closed_ones_are_not(make):
    one = make(opened=True)
    done, cut_off = Intent(b"done", 1, digest(1), None), Intent(b"cut", 0, None, None)
    journal.append(one.journal, journal.intents_frame([done]))
    fill(one, done=1)
    journal.append(one.journal, journal.intents_frame([cut_off]))
    two = make()
    assert two.intents == [cut_off]
    assert two.whole


def test_a_note_that_is_no_json_is_damage(make):
    one = make(opened=True)
    one.kernel.note(one.journal, b"\xff{")
    two = make()
    assert not two.whole
    assert two.notes["run"] == RUN


def test_forget_begins_anew_and_is_no_damage(make):
    directory = two_generations(make)
    baseline = make()
    baseline.forget()
    assert (len(baseline.base), baseline.known, baseline.notes, baseline.intents) == (0, False, {}, [])
    assert baseline.whole
    baseline.open(RUN)
    fill(baseline, new=1)
    assert rows(make()) == {b"new": digest(1)}
    assert len(files(directory)) <= 4


def test_a_kill_between_forget_and_open_forgets_nothing(make):
    two_generations(make)
    make().forget()
    assert rows(make()) == WHOLE


def test_a_journal_that_cannot_be_opened_raises_before_anything_else(make, monkeypatch):
    directory = two_generations(make)
    before = {name: (directory / name).read_bytes() for name in files(directory)}
    baseline = make()

    def refuse(*_args, **_more):
        raise PermissionError(13, "refused")

    monkeypatch.setattr(module.os, "open", refuse)
    with pytest.raises(PermissionError):
        baseline.open(RUN)
    monkeypatch.undo()
    assert {name: (directory / name).read_bytes() for name in files(directory)} == before
    baseline.close(clean=True)
    assert rows(make()) == WHOLE


@pytest.mark.parametrize("what", ["journal", "flush", "write"])
def test_after_a_checkpoint_that_failed_the_old_files_go_on(make, monkeypatch, what):
    """What is learnt afterwards must not be hidden by a checkpoint that came to nothing."""
    baseline = make(opened=True)
    fill(baseline, a=1)

    def refuse(*_args, **_more):
        raise OSError(28, "no room")

    if what == "journal":
        monkeypatch.setattr(baseline, "_open_journal", refuse)
    elif what == "flush":
        monkeypatch.setattr("syncd.system.savefile.flush_directory", refuse)
    else:
        monkeypatch.setattr(baseline.kernel, "save_tree", refuse)
    with pytest.raises(OSError, match="no room"):
        baseline.checkpoint()
    monkeypatch.undo()
    fill(baseline, a=2, b=3)
    again = make()
    assert rows(again) == {b"a": digest(2), b"b": digest(3)}
    assert again.whole
    baseline.checkpoint()
    assert rows(make()) == {b"a": digest(2), b"b": digest(3)}


def test_a_checkpoint_is_written_when_the_journal_outgrew_it(make, monkeypatch):
    monkeypatch.setattr(module, "SMALLEST", 2000)
    baseline = make(opened=True)
    baseline.checkpoint_if_due()
    assert baseline.generation == 1
    baseline.settle([(f"f{number}".encode(), agreed()) for number in range(100)])
    baseline.checkpoint_if_due()
    assert baseline.generation == 2
    fill(baseline, a=1)
    baseline.checkpoint_if_due()
    assert baseline.generation == 2


def test_a_checkpoint_for_which_there_is_no_room_ends_nothing(make, monkeypatch):
    monkeypatch.setattr(module, "SMALLEST", 2000)
    baseline = make(opened=True)
    tried = []

    def refuse(*_args):
        tried.append(1)
        raise OSError(28, "no room")

    monkeypatch.setattr(baseline.kernel, "save_tree", refuse)
    baseline.settle([(f"f{number}".encode(), agreed()) for number in range(100)])
    for _ in range(3):
        baseline.checkpoint_if_due()
    assert len(tried) == 1, "it is not tried at every cycle"
    baseline.settle([(f"g{number}".encode(), agreed()) for number in range(110)])
    monkeypatch.undo()
    monkeypatch.setattr(module, "SMALLEST", 2000)
    baseline.checkpoint_if_due()
    assert baseline.generation == 2
    assert len(rows(make())) == 210


def test_a_reader_goes_on_while_a_watch_writes_checkpoints(make, kernel, monkeypatch):
    """The files that a reader found are gone when it opens them: it looks again."""
    directory = two_generations(make)
    writer = make(opened=True)
    real = Baseline._files
    pending = [True]

    def listed(self):
        found = real(self)
        if pending and self is not writer:
            pending.clear()
            writer.checkpoint()
            writer.checkpoint()
        return found

    monkeypatch.setattr(Baseline, "_files", listed)
    assert rows(Baseline(kernel, directory, reading=True)) == WHOLE


def test_other_files_beside_are_left_alone(make):
    directory = two_generations(make)
    for name in ("baseline.x", "journal.1.old", "pair.json", "baseline.-1"):
        (directory / name).write_text("mine")
    baseline = make(opened=True)
    assert rows(baseline) == WHOLE
    baseline.checkpoint()
    baseline.checkpoint()
    assert {"baseline.x", "journal.1.old", "pair.json", "baseline.-1"} <= set(files(directory))


def test_notes_are_written_as_json(make):
    one = make(opened=True)
    one.note(met=True)
    assert json.dumps({"met": True}).encode() in (one.directory / f"journal.{one.generation}").read_bytes()
    assert os.fstat(one.journal).st_size == (one.directory / f"journal.{one.generation}").stat().st_size
