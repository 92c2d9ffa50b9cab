"""Ignore rules, read exactly as git 2.39 reads them (`git check-ignore` is the oracle).

A pattern without a slash (but at its end) is matched against a name, any other against the path
relative to the directory of its rule file. Both are globs, turned into regular expressions here:

    `?`            one byte, never `/`
    `*`            any bytes but `/`
    `[a-z[:alpha:]]`, `[!a]`, `[^a]`   one byte, never `/`
    `**/` `/**`    between slashes or at an end: any number of whole components
    `\\x`           x itself

One oddity of git is kept: it compares the literal beginning of a path pattern first and takes what is
left for the whole pattern, so `a**/b` matches like `a` followed by `**/b`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from syncd.kernel.contract import RuleSource, Verdict
from syncd.kernel.pure.files import open_file
from syncd.model.path import ancestors, is_within, parent

MAX_SIZE = 1 << 20  # a larger rule file is not read at all

_ANY = b"*"  # tokens of a glob that are no single byte
_DEEP = b"**"
_DEEP_DIR = b"**/"
_STARS = {_DEEP: (b".*?", b".*"), _DEEP_DIR: (b"(?:.*?/)??", b"(?:.*/)?")}
_SPECIAL = re.compile(rb"[*?\[\\]")

_CLASSES = {
    b"alnum": b"0-9A-Za-z",
    b"alpha": b"A-Za-z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": b"0-9",
    b"graph": rb"\x21-\x7e",
    b"lower": b"a-z",
    b"print": rb"\x20-\x7e",
    b"punct": rb"\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e",
    b"space": rb" \t\n\r",
    b"upper": b"A-Z",
    b"xdigit": b"0-9A-Fa-f",
}


class Pattern(NamedTuple):
    """One rule. `shown` is its text as git prints it; `literal` is None for a glob."""

    line: int
    shown: bytes
    negated: bool
    only_dirs: bool
    by_name: bool
    literal: bytes | None
    regex: bytes


class PureRules:
    """Compiled rules of one source. See the contract."""

    def __init__(
        self,
        first: Sequence[RuleSource],
        nested: Sequence[bytes],
        last: Sequence[RuleSource],
        overlays: Collection[bytes],
    ) -> None:
        self._first = [RuleFile(source.name, b"", source.text) for source in reversed(first)]
        self._last = [RuleFile(source.name, b"", source.text) for source in reversed(last)]
        self._nested = [(name, dict[bytes, RuleFile]()) for name in nested]
        self._overlays = frozenset(overlays)
        # What was worked out last, with the number of rule files known before that: the thread of a
        # polling watcher teaches and asks beside the engine's.
        self._chain: tuple[bytes, int, list[RuleFile]] = (b"", -1, [])
        self._known = 0

    def excluded(self, path: bytes, is_dir: bool) -> bool:
        """Whether `path` is ignored or an overlay, or lies below one. Judged top-down, as git does."""
        return any(self.excluded_child(step, kind) for step, kind in _steps(path, is_dir))

    def excluded_child(self, path: bytes, is_dir: bool) -> bool:
        """Like `excluded`, for a caller who knows that the directory above is not excluded."""
        if path in self._overlays:
            return True
        found = self._deciding(path, is_dir)
        return found is not None and not found[1].negated

    def explain(self, path: bytes, is_dir: bool) -> Verdict | None:
        """The deciding rule, or None."""
        for step, kind in _steps(path, is_dir):
            if step in self._overlays:
                return Verdict(True, step, "overlay", 0, step)
            found = self._deciding(step, kind)
            if found and (step == path or not found[1].negated):
                file, pattern = found
                return Verdict(not pattern.negated, step, file.source, pattern.line, pattern.shown)
        return None

    def overlay_within(self, path: bytes) -> bool:
        """Whether an overlay lies at or below `path`."""
        return any(is_within(overlay, path) for overlay in self._overlays)

    def teaches(self, path: bytes) -> bool:
        above, _, name = path.rpartition(b"/")
        return any(name == nested for nested, _ in self._nested) and not (above and self.excluded(above, True))

    def taught(self) -> list[bytes]:
        return list({directory for _, learnt in self._nested for directory in learnt})

    def enter(self, directory: bytes, dir_fd: int, names: Collection[bytes]) -> None:
        """Learn the rule files among `names`, the listing of `directory`. Call before judging them.

        The first reading of a file holds. One that cannot be read, is larger than 1 MiB or is no
        regular file has no rules.
        """
        for name, learnt in self._nested:
            if name in names and directory not in learnt:
                text = _read(name, dir_fd)
                if text is not None:
                    path = directory + b"/" + name if directory else name
                    learnt[directory] = RuleFile(path.decode("utf-8", "backslashreplace"), directory, text)
                    self._known += 1

    def _deciding(self, path: bytes, is_dir: bool) -> tuple[RuleFile, Pattern] | None:
        directory = parent(path)
        chain, known = self._chain, self._known
        if chain[:2] != (directory, known):
            chain = self._chain = directory, known, self._files(directory)
        for file in chain[2]:
            pattern = file.last_match(path, is_dir)
            if pattern:
                return file, pattern
        return None

    def _files(self, directory: bytes) -> list[RuleFile]:
        """What speaks of names in `directory`, the strongest first."""
        above = [directory, *ancestors(directory), b""] if directory else [b""]
        nested = [learnt[top] for _, learnt in reversed(self._nested) for top in above if top in learnt]
        return [file for file in (*self._last, *nested, *self._first) if file.patterns]


class RuleFile:
    """The rules of one file that lies in `directory`.

    Most paths match no rule: that is found out by few look-ups over all patterns at once.
    """

    def __init__(self, source: str, directory: bytes, text: bytes) -> None:
        self.source = source
        self.patterns = parse(text)
        self._skip = len(directory) + 1 if directory else 0
        self._names = _Filter(p for p in self.patterns if p.by_name)
        self._paths = _Filter(p for p in self.patterns if not p.by_name)
        self._regexes = {p.line: re.compile(p.regex, re.DOTALL) for p in self.patterns if p.literal is None}

    def last_match(self, path: bytes, is_dir: bool) -> Pattern | None:
        """The last pattern that matches `path`, which lies below the file's directory."""
        name = path[path.rfind(b"/") + 1 :]
        inner = path[self._skip :]
        if not (self._names.may_match(name) or self._paths.may_match(inner)):
            return None
        for pattern in reversed(self.patterns):
            if pattern.only_dirs and not is_dir:
                continue
            text = name if pattern.by_name else inner
            if text == pattern.literal if pattern.literal is not None else self._regexes[pattern.line].fullmatch(text):
                return pattern
        return None


class _Filter:
    """Whether any of some patterns matches a text."""

    def __init__(self, patterns: Iterator[Pattern]) -> None:
        every = list(patterns)
        self._literals = frozenset(p.literal for p in every if p.literal is not None)
        globs = [p.regex for p in every if p.literal is None]
        self._globs = re.compile(b"|".join(b"(?:%b)" % g for g in globs), re.DOTALL) if globs else None

    def may_match(self, text: bytes) -> bool:
        return text in self._literals or (self._globs is not None and self._globs.fullmatch(text) is not None)


def parse(text: bytes) -> list[Pattern]:
    """The rules of a rule file's text, without those that can never match anything."""
    text = text.removeprefix(b"\xef\xbb\xbf")
    patterns = []
    for number, line in enumerate(text.split(b"\n"), 1):
        if line and not line.startswith(b"#"):
            line = line.removesuffix(b"\r").partition(b"\0")[0]
            pattern = _pattern(number, _trim(line))
            if pattern:
                patterns.append(pattern)
    return patterns


def _trim(line: bytes) -> bytes:
    """`line` without its trailing spaces; a backslash keeps the byte after it."""
    end = i = 0
    while i < len(line):
        if line[i] == ord("\\"):
            i += 1
            if i == len(line):
                return line  # git leaves all as it is before a lone backslash at the end
            end = i + 1
        elif line[i] != ord(" "):
            end = i + 1
        i += 1
    return line[:end]


def _pattern(number: int, shown: bytes) -> Pattern | None:
    """The rule of one trimmed line; None if it can never match."""
    glob = shown.removeprefix(b"!")
    negated = shown.startswith(b"!")
    only_dirs = glob.endswith(b"/")
    if only_dirs:
        glob = glob[:-1]
    by_name = b"/" not in glob
    glob = glob.removeprefix(b"/")
    if not glob:
        return None
    if not _SPECIAL.search(glob):
        return Pattern(number, shown, negated, only_dirs, by_name, glob, b"")
    tokens = _tokens(glob)
    if tokens is None:
        return None
    return Pattern(number, shown, negated, only_dirs, by_name, None, _regex(tokens))


def _tokens(glob: bytes) -> list[bytes] | None:
    """The glob in pieces: `_ANY`, `_DEEP`, `_DEEP_DIR`, or a regular expression of one byte.

    None if it is broken (a backslash at its end, an open bracket, an unknown class): git then
    matches nothing with it.
    """
    special = _SPECIAL.search(glob)
    i = start = special.start() if special else len(glob)
    tokens = [re.escape(glob[k : k + 1]) for k in range(start)]
    while i < len(glob):
        byte = glob[i : i + 1]
        if byte == b"*":
            end = i + 1
            while glob[end : end + 1] == b"*":
                end += 1
            opened = i == start or glob[i - 1 : i] == b"/"
            if end - i < 2 or not opened:
                tokens.append(_ANY)
            elif glob[end : end + 1] == b"/":
                tokens.append(_DEEP_DIR)
                end += 1
            elif end == len(glob) or glob[end : end + 2] == b"\\/":
                tokens.append(_DEEP)
            else:
                tokens.append(_ANY)
            i = end
        elif byte == b"?":
            tokens.append(b"[^/]")
            i += 1
        elif byte == b"[":
            bracket = _bracket(glob, i + 1)
            if bracket is None:
                return None
            token, i = bracket
            tokens.append(token)
        else:
            if byte == b"\\":
                i += 1
                if i == len(glob):
                    return None
            tokens.append(re.escape(glob[i : i + 1]))
            i += 1
    return tokens


def _bracket(glob: bytes, i: int) -> tuple[bytes, int] | None:
    """The regular expression of a bracket whose inside starts at `i`, and where it ends."""
    negated = glob[i : i + 1] in (b"!", b"^")
    if negated:
        i += 1
    parts: list[bytes] = []
    before = -1  # the byte that may begin a range
    first = True
    while first or glob[i : i + 1] != b"]":
        first = False
        if i >= len(glob):
            return None
        byte = glob[i]
        if byte == ord("-") and before >= 0 and glob[i + 1 : i + 2] not in (b"", b"]"):
            i += 2 if glob[i + 1] == ord("\\") else 1
            if i >= len(glob):
                return None
            if before <= glob[i]:
                parts.append(b"\\x%02x-\\x%02x" % (before, glob[i]))
            before = -1
        elif byte == ord("[") and glob[i + 1 : i + 2] == b":":
            end = glob.find(b"]", i + 2)
            if end < 0:
                return None
            if end > i + 2 and glob[end - 1] == ord(":"):
                members = _CLASSES.get(glob[i + 2 : end - 1])
                if members is None:
                    return None
                parts.append(members)
                before = -1
                i = end
            else:
                parts.append(b"\\x%02x" % byte)
                before = byte
        else:
            if byte == ord("\\"):
                i += 1
                if i >= len(glob):
                    return None
                byte = glob[i]
            parts.append(b"\\x%02x" % byte)
            before = byte
        i += 1
    inside = b"".join(parts)
    if negated:
        return (b"(?!/)[^%b]" % inside if inside else b"[^/]"), i + 1
    return (b"(?!/)[%b]" % inside if inside else b"(?!)"), i + 1


def _regex(tokens: Sequence[bytes]) -> bytes:
    """The regular expression of a glob.

    Whatever stands between two stars is sought leftmost and held (`(?>…)`): a later place could only
    leave the next star less room. So no pattern takes exponential time.
    """
    piece = b""  # what stands before the next star (built from the end)
    chunk = b""  # from the next star on to the next deep one
    behind = b""  # from the next deep star on
    for token in reversed(tokens):
        if token == _ANY:
            chunk = (b"(?>[^/]*?%b)%b" if chunk or behind else b"[^/]*%b%b") % (piece, chunk)
            piece = b""
        elif token in _STARS:
            lazy, greedy = _STARS[token]
            chunk = piece + chunk
            behind = b"(?>%b%b)%b" % (lazy, chunk, behind) if behind else greedy + chunk
            piece = chunk = b""
        else:
            piece = token + piece
    return piece + chunk + behind


def _steps(path: bytes, is_dir: bool) -> Iterator[tuple[bytes, bool]]:
    """The directories above `path` from the top, then `path`, each with whether it is a directory."""
    slash = path.find(b"/")
    while slash >= 0:
        yield path[:slash], True
        slash = path.find(b"/", slash + 1)
    if path:
        yield path, is_dir


def _read(name: bytes, dir_fd: int) -> bytes | None:
    try:
        fd = open_file(dir_fd, name)
    except OSError:
        return None
    try:
        if os.fstat(fd).st_size > MAX_SIZE:
            return None
        with os.fdopen(fd, "rb", closefd=False) as file:
            text = file.read(MAX_SIZE + 1)
    except OSError:
        return None
    finally:
        os.close(fd)
    return text if len(text) <= MAX_SIZE else None
