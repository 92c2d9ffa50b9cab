"""Both bodies judge ignore rules as git does. `git check-ignore` is the oracle."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from syncd.kernel.contract import RuleSource, Verdict
from syncd.kernel.pure.rules import MAX_SIZE, PureRules

pytestmark = pytest.mark.kernel


@pytest.fixture
def compile_rules(kernel) -> Callable[..., PureRules]:
    return kernel.compile_rules


def teach(rules: PureRules, top: str | bytes, directory: bytes = b"") -> None:
    """Let `rules` enter one directory, as a walk does."""
    path = os.path.join(os.fsencode(top), directory)
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        rules.enter(directory, fd, os.listdir(path))
    finally:
        os.close(fd)


# --- one line, one path: what git says --------------------------------------------------------------

IGNORED, FREE, BACK = True, None, False  # ignored; no rule speaks of it; a negation is the last word

LINES = [
    # a name
    (b"a", b"a", IGNORED),
    (b"a", b"x/y/a", IGNORED),
    (b"a", b"ab", FREE),
    (b"a", b"A", FREE),
    (b"a", b"a/b", IGNORED),  # below an ignored directory
    (b"a/", b"a", FREE),  # asked as a file
    (b"a/", b"a/b", IGNORED),
    (b"a/", b"x/a/b", IGNORED),
    (b"\xff", b"x/\xff", IGNORED),
    (b"long-long-name", b"l", FREE),
    # anchored
    (b"/a", b"a", IGNORED),
    (b"/a", b"x/a", FREE),
    (b"x/a", b"x/a", IGNORED),
    (b"x/a", b"y/x/a", FREE),
    (b"/x/a/", b"x/a/b", IGNORED),
    (b"x//a", b"x/a", FREE),
    # comments and blanks
    (b"#a", b"#a", FREE),
    (b"\\#a", b"#a", IGNORED),
    (b" #a", b" #a", IGNORED),
    (b"", b"a", FREE),
    (b"   ", b"   ", FREE),
    (b"/", b"a", FREE),
    (b"//", b"a", FREE),
    # negation
    (b"a\n!a", b"a", BACK),
    (b"!a\na", b"a", IGNORED),
    (b"!", b"a", FREE),
    (b"*\n!", b"a", IGNORED),
    (b"\\!a", b"!a", IGNORED),
    (b"!!a", b"!a", BACK),
    (b"x\n!x/a", b"x/a", IGNORED),  # its directory is ignored, whatever is said later
    (b"x/*\n!x/a", b"x/a", BACK),
    (b"*\n!*/\n!*.c", b"x/a.c", BACK),
    (b"*\n!*/\n!*.c", b"x/a.o", IGNORED),
    (b"!x", b"x/a", FREE),  # only the path itself can be taken back
    # ends of lines
    (b"a  ", b"a", IGNORED),
    (b"a\\ ", b"a ", IGNORED),
    (b"a\\  ", b"a ", IGNORED),
    (b"a\\ ", b"a", FREE),
    (b"a \\", b"a \\", FREE),  # a lone backslash at the end: broken
    (b"a\\", b"a\\", FREE),
    (b"a\\", b"a", FREE),
    (b"a\\\\", b"a\\", IGNORED),
    (b"a\r", b"a", IGNORED),
    (b"a \r", b"a", IGNORED),
    (b"a\r\r", b"a\r", IGNORED),
    (b"a\t", b"a", FREE),
    (b"a\0b", b"a", IGNORED),
    (b"\xef\xbb\xbfa", b"a", IGNORED),
    (b"b\n\xef\xbb\xbfa", b"a", FREE),
    # stars
    (b"*", b"x/.a", IGNORED),
    (b"*.o", b"x/.o", IGNORED),
    (b"a*", b"xa", FREE),
    (b"a*z", b"abczz", IGNORED),
    (b"x/*", b"x/a", IGNORED),
    (b"x*a", b"x/a", FREE),
    (b"/*", b"x/a", IGNORED),  # by its directory
    (b"/*/a", b"x/a", IGNORED),
    (b"/*/a", b"x/y/a", FREE),
    (b"**", b"x/a", IGNORED),
    (b"**/a", b"a", IGNORED),
    (b"**/a", b"x/y/a", IGNORED),
    (b"**/x/a", b"y/x/a", IGNORED),
    (b"x/**", b"x", FREE),
    (b"x/**", b"x/a", IGNORED),
    (b"x/**/a", b"x/a", IGNORED),
    (b"x/**/a", b"x/y/z/a", IGNORED),
    (b"x/**/a", b"y/x/a", FREE),
    (b"/**/a", b"x/a", IGNORED),
    (b"x/**/", b"x/y", FREE),  # asked as a file
    (b"x/**/", b"x/y/a", IGNORED),
    (b"x**/a", b"xy/z/a", IGNORED),  # an oddity: the literal beginning is compared apart
    (b"[x]**/a", b"xy/z/a", FREE),
    (b"y/x**/a", b"y/xz/a", IGNORED),
    (b"**a/b", b"x/ya/b", FREE),
    (b"x/***/a", b"x/y/z/a", IGNORED),
    (b"x/**\\/a", b"x/y/a", IGNORED),
    (b"x/**\\/a", b"x/a", FREE),
    # one byte
    (b"?", b"x/a", IGNORED),
    (b"?", b"\xff", IGNORED),
    (b"x?a", b"x/a", FREE),
    (b"/x?a", b"x/a", FREE),
    (b"\\a", b"a", IGNORED),
    (b"\\*", b"*", IGNORED),
    (b"\\*", b"a", FREE),
    # brackets
    (b"[ab]", b"b", IGNORED),
    (b"[!ab]", b"c", IGNORED),
    (b"[^ab]", b"a", FREE),
    (b"[a-c]x", b"bx", IGNORED),
    (b"[c-a]", b"b", FREE),
    (b"[a-]", b"-", IGNORED),
    (b"[-a]", b"-", IGNORED),
    (b"[]]", b"]", IGNORED),
    (b"[!]]", b"]", FREE),
    (b"[]-a]", b"_", IGNORED),
    (b"[\\]]", b"]", IGNORED),
    (b"[\\-x]", b"-", IGNORED),
    (b"[a-\\c]", b"b", IGNORED),
    (b"[ab", b"[ab", FREE),
    (b"[ab", b"a", FREE),
    (b"[", b"[", FREE),
    (b"[]", b"[]", FREE),
    (b"[!]", b"[!]", FREE),
    (b"[a\\", b"a", FREE),
    (b"/x[/]a", b"x/a", FREE),
    (b"/x[!b]a", b"x/a", FREE),
    (b"[\x80-\xff]", b"\xc3", IGNORED),
    (b"[[:alpha:]]", b"q", IGNORED),
    (b"[[:alpha:]_]", b"_", IGNORED),
    (b"[![:digit:]]", b"7", FREE),
    (b"[[:space:]]", b"\v", FREE),  # git's own idea of space
    (b"[[:space:]]", b"\r", IGNORED),
    (b"[[:punct:]]", b"~", IGNORED),
    (b"[[:graph:]]", b" ", FREE),
    (b"[[:alpha:]-z]", b"-", IGNORED),  # a class begins no range
    (b"[[:nope:]a]", b"a", FREE),
    (b"[[:]", b":", IGNORED),
    (b"[[:a]", b"[", IGNORED),
    (b"[[::]]", b":]", FREE),
    (b"[:alpha:]", b"p", IGNORED),
]


@pytest.mark.parametrize(("text", "path", "want"), LINES)
def test_line(compile_rules, text: bytes, path: bytes, want: bool | None) -> None:
    rules = compile_rules([RuleSource("config", text)], [], [], [])
    verdict = rules.explain(path, False)
    assert (verdict and verdict.ignored) is want
    assert rules.excluded(path, False) is (want is IGNORED)


def test_the_table_is_what_git_says(tmp_path: Path) -> None:
    cases = [Case({b"": text}, {*prefixes(path)}, [(path, False)]) for text, path, _ in LINES]
    for (text, path, want), answers in zip(LINES, ask_git(tmp_path, cases), strict=True):
        assert verdict_of(answers[0]) is want, (text, path)


# --- order, layers, overlays -----------------------------------------------------------------------


def test_last_match_wins_across_sources(compile_rules, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "one").write_bytes(b"*.a\n!keep.a\n")
    (tmp_path / "d/one").write_bytes(b"!x.a\n*.b\n")
    (tmp_path / "d/two").write_bytes(b"!y.b\n")
    rules = compile_rules(
        [RuleSource("defaults", b"*~\n*.x"), RuleSource("file", b"!t~\n")],
        [b"one", b"two"],
        [RuleSource("flags", b"!z.b\nkeep.a\n")],
        [],
    )
    teach(rules, tmp_path)
    teach(rules, tmp_path, b"d")
    want = {
        b"s~": (True, "defaults", 1, b"*~"),
        b"t~": (False, "file", 1, b"!t~"),
        b"d/t~": (False, "file", 1, b"!t~"),
        b"x.a": (True, "one", 1, b"*.a"),
        b"d/x.a": (False, "d/one", 1, b"!x.a"),
        b"d/y.b": (False, "d/two", 1, b"!y.b"),
        b"d/z.b": (False, "flags", 1, b"!z.b"),
        b"keep.a": (True, "flags", 2, b"keep.a"),
        b"w.b": None,
        b"d/w.b": (True, "d/one", 2, b"*.b"),
    }
    found = {path: rules.explain(path, False) for path in want}
    assert found == {path: w and Verdict(w[0], path, *w[1:]) for path, w in want.items()}


def test_explain_names_the_ignored_directory_above(compile_rules) -> None:
    rules = compile_rules([RuleSource("config", b"\n/x/out/\n!a\n")], [], [], [])
    assert rules.explain(b"x/out/b/a", False) == Verdict(True, b"x/out", "config", 2, b"/x/out/")
    assert rules.explain(b"x/out", False) is None
    assert rules.explain(b"", True) is None
    assert not rules.excluded(b"", True)


def test_overlays(compile_rules) -> None:
    rules = compile_rules([RuleSource("config", b"!web/mods\nweb/x\n")], [], [], [b"web/mods", b"env", b"web/x/y"])
    assert rules.explain(b"web/mods/a", False) == Verdict(True, b"web/mods", "overlay", 0, b"web/mods")
    assert rules.explain(b"web/x/y", True) == Verdict(True, b"web/x", "config", 2, b"web/x")
    assert rules.excluded(b"env", True)
    assert rules.excluded(b"env/a/b", False)
    assert rules.excluded_child(b"env", False)
    assert not rules.excluded(b"x/env", True)
    within = {
        path: rules.overlay_within(path) for path in (b"", b"web", b"web/mods", b"web/mods/a", b"we", b"env", b"e")
    }
    assert within == {
        b"": True,
        b"web": True,
        b"web/mods": True,
        b"web/mods/a": False,
        b"we": False,
        b"env": True,
        b"e": False,
    }
    assert not compile_rules([], [], [], []).overlay_within(b"")


def test_child_is_judged_alone(compile_rules) -> None:
    rules = compile_rules([RuleSource("config", b"out\n*.o\n")], [], [], [])
    assert rules.excluded_child(b"x/out", True)
    assert rules.excluded_child(b"x/a.o", False)
    assert not rules.excluded_child(b"out/a", False)


# --- nested files -------------------------------------------------------------------------------------


def test_what_is_no_rule_file(compile_rules, tmp_path: Path) -> None:
    for name in ("link", "fifo", "dir", "huge", "fine"):
        (tmp_path / name).mkdir()
    (tmp_path / "rules").write_bytes(b"a\n")
    (tmp_path / "link/.ignore").symlink_to("../rules")
    os.mkfifo(tmp_path / "fifo/.ignore")
    (tmp_path / "dir/.ignore").mkdir()
    (tmp_path / "huge/.ignore").write_bytes(b"a\n" + b"#" * MAX_SIZE)
    (tmp_path / "fine/.ignore").write_bytes(b"a\n".ljust(MAX_SIZE, b"\n"))
    rules = compile_rules([], [b".ignore"], [], [])
    for name in (b"link", b"fifo", b"dir", b"huge", b"fine"):
        teach(rules, tmp_path, name)
        assert rules.excluded(name + b"/a", False) is (name == b"fine"), name


def test_first_reading_holds(compile_rules, tmp_path: Path) -> None:
    rules = compile_rules([], [b".ignore"], [], [])
    teach(rules, tmp_path)
    (tmp_path / ".ignore").write_bytes(b"a\n")
    teach(rules, tmp_path)
    (tmp_path / ".ignore").write_bytes(b"b\n")
    teach(rules, tmp_path)
    assert rules.excluded(b"a", False)
    assert not rules.excluded(b"b", False)


def test_two_rules_do_not_mix(compile_rules, tmp_path: Path) -> None:
    one, two = (compile_rules([], [b".ignore"], [], []) for _ in range(2))
    for rules, line in ((one, b"a\n"), (two, b"b\n")):
        (tmp_path / ".ignore").write_bytes(line)
        teach(rules, tmp_path)
    found = [[rules.excluded(path, False) for path in (b"a", b"b")] for rules in (one, two, one)]
    assert found == [[True, False], [False, True], [True, False]]


def test_odd_source_names_are_shown(compile_rules, tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    with open(os.fsencode(tmp_path) + b"/\xff/.ignore", "wb") as file:
        file.write(b"a")
    rules = compile_rules([], [b".ignore"], [], [])
    teach(rules, tmp_path, b"\xff")
    assert rules.explain(b"\xff/a", False) == Verdict(True, b"\xff/a", "\\xff/.ignore", 1, b"a")


def test_hostile_patterns_take_no_time(compile_rules) -> None:
    lines = [b"*a" * 60 + b"b", b"x/" + b"**/*a" * 40 + b"b", b"[!b]*" * 60 + b"b"]
    rules = compile_rules([RuleSource("config", b"\n".join(lines))], [], [], [])
    assert not rules.excluded(b"x/" + b"/".join([b"a" * 250] * 8), False)


# --- random rule files against git -----------------------------------------------------------------


class Case(NamedTuple):
    """A directory of its own: rule files by directory, directories, questions."""

    files: dict[bytes, bytes]
    dirs: set[bytes]
    asked: list[tuple[bytes, bool]]


Answer = tuple[bytes, bytes, bytes]  # source, line, pattern; all empty if no rule speaks of the path


def prefixes(path: bytes) -> Iterator[bytes]:
    """The directories above a path."""
    while path := path.rpartition(b"/")[0]:
        yield path


def verdict_of(answer: Answer) -> bool | None:
    return not answer[2].startswith(b"!") if answer[2] else None


def ask_git(top: Path, cases: list[Case]) -> list[list[Answer]]:
    """What git says of every question, from one process."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(top / "none"), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "init", "-q", top], check=True, env=environ)
    (top / ".git/info/exclude").unlink(missing_ok=True)
    asked = []
    for number, case in enumerate(cases):
        root = os.fsencode(top) + b"/%d/" % number
        for directory in sorted({b"", *case.dirs}):
            os.mkdir(root + directory)
        for directory, text in case.files.items():
            with open(os.path.join(root, directory, b".gitignore"), "wb") as file:
                file.write(text)
        asked += [b"%d/%b\0" % (number, path) for path, _ in case.asked]
    command = ["git", "check-ignore", "--no-index", "-v", "-n", "-z", "--stdin"]
    done = subprocess.run(command, cwd=top, env=environ, input=b"".join(asked), capture_output=True, check=False)
    assert done.returncode in (0, 1)
    fields = iter(done.stdout.split(b"\0"))
    answers = []
    for number, case in enumerate(cases):
        answers.append([])
        for path, _ in case.asked:
            source, line, pattern, name = (next(fields) for _ in range(4))
            assert name == b"%d/%b" % (number, path)
            answers[-1].append((source.removeprefix(b"%d/" % number), line, pattern))
    return answers


NAMES = [
    *(b"a", b"b", b"ab", b"abc", b"foo", b"bar", b"foo.o", b"a.o", b"#x", b"!x", b" a", b"\xff"),
    *(b"a ", b"x\\", b"[a]", b"*", b"a-b", b"B", b"]", b"^", b"bar.c", b"foo ", b"-", b".a", b"aaaab", b"\r"),
]
INSIDE = [
    *(b"a", b"b", b"-", b"]", b"\\]", b"\\", b"a-c", b"A-Z", b"[:alpha:]", b"[:punct:]", b"[:foo:]", b"[:", b"["),
    *(b"^", b"!", b"/", b"\xff", b"z-a", b"\\-", b"[:upper:]-", b":]", b"\x80-\xfe", b"[:space:]", b"[:xdigit:]"),
]
ODD = [
    *(b"", b"!", b"/", b"//", b"\\", b"#", b"# c", b"!/", b"!#x", b"\\#x", b"\\!x", b"**", b"***", b"**/", b"/**"),
    *(b"/**/", b" ", b"\r", b"a\0b", b"!!a", b"*/", b"/*", b"!*", b"!*/", b"\xef\xbb\xbfa", b"!**/", b"\\ ", b"a\\/"),
]


def some_atom(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(NAMES)
    if kind < 0.5:
        return b"*"
    if kind < 0.58:
        return b"?"
    if kind < 0.68:
        return b"**"
    if kind < 0.78:
        inside = b"".join(rng.choice(INSIDE) for _ in range(rng.randint(0, 3)))
        return b"[" + rng.choice([b"", b"", b"!", b"^"]) + inside + rng.choice([b"]", b"]", b"]", b""])
    if kind < 0.85:
        return b"\\" + rng.choice([b"a", b"*", b"!", b"#", b" ", b"\\", b"/", b""])
    return rng.choice([b"a", b"b", b"o", b".", b"f", b"c", b"a" * 300])


def some_line(rng: random.Random) -> bytes:
    if rng.random() < 0.04:
        return rng.choice(ODD)
    line = b"".join(some_atom(rng) + b"/" * (rng.random() < 0.3) for _ in range(rng.randint(1, 4)))
    if rng.random() < 0.2:
        line = b"/" + line
    if rng.random() < 0.1:
        line = line.replace(b"/", b"/**/", 1)
    if rng.random() < 0.25:
        line = b"!" + line
    if rng.random() < 0.1:
        line += b" " * rng.randint(1, 2)
    return line + b"\r" * (rng.random() < 0.05)


def some_text(rng: random.Random) -> bytes:
    count = rng.randint(1, 5) if rng.random() < 0.8 else rng.randint(6, 40)  # many lines have an index of their own
    bom = b"\xef\xbb\xbf" * (rng.random() < 0.05)
    return bom + b"\n".join(some_line(rng) for _ in range(count)) + b"\n" * (rng.random() < 0.8)


def some_case(rng: random.Random) -> Case:
    dirs: set[bytes] = set()
    for _ in range(4):
        path = b"/".join(rng.choice(NAMES[:12]) for _ in range(rng.randint(1, 3)))
        dirs.update((path, *prefixes(path)))
    files = {directory: some_text(rng) for directory in sorted(dirs) if rng.random() < 0.15}
    asked = [(path, True) for path in sorted(dirs)]
    for _ in range(10):
        above = rng.choice([b"", *sorted(dirs)])
        path = (above + b"/" if above else b"") + rng.choice(NAMES)
        if path not in dirs:
            asked.append((path, False))
    return Case({b"": some_text(rng), **files}, dirs, asked)


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 300), *(pytest.param(n, 500, marks=pytest.mark.slow) for n in range(1, 11))]
)
def test_random_rule_files_agree_with_git(tmp_path: Path, compile_rules, seed: int, count: int) -> None:
    rng = random.Random(seed)
    cases = [some_case(rng) for _ in range(count)]
    for number, (case, answers) in enumerate(zip(cases, ask_git(tmp_path, cases), strict=True)):
        rules = compile_rules([], [b".gitignore"], [], [])
        for directory in case.files:  # also ignored ones: their rules must not be heard
            teach(rules, f"{tmp_path}/{number}", directory)
        for (path, is_dir), answer in zip(case.asked, answers, strict=True):
            found = rules.explain(path, is_dir)
            said = (b"", b"", b"")
            if found:
                said = found.source.encode(), b"%d" % found.line, found.pattern
                assert found.ignored is not found.pattern.startswith(b"!")
            want = answer[0].decode("utf-8", "backslashreplace").encode(), *answer[1:]
            assert said == want, (path, is_dir, case.files)
            assert rules.excluded(path, is_dir) is (verdict_of(answer) is True)
