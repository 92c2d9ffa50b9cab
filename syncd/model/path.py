"""Relative paths.

A path inside syncd is `bytes`: relative to a root, components joined by `/`,
no leading or trailing slash, no empty, `.` or `..` component. The root itself is
`b""`. Bytes are never decoded except to be shown.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Container, Iterator


def check(path: bytes) -> bytes:
    """Return `path` if it is a relative path as defined above, else raise ValueError."""
    if path and any(part in (b"", b".", b"..") for part in path.split(b"/")):
        raise ValueError(f"not a relative path: {path!r}")
    return path


def parent(path: bytes) -> bytes:
    """The directory that holds `path`; of a top-level path, `b""`."""
    return path.rpartition(b"/")[0]


def name(path: bytes) -> bytes:
    """The last component."""
    return path.rpartition(b"/")[2]


def ancestors(path: bytes) -> Iterator[bytes]:
    """The directories above `path`, nearest first, without the root."""
    while path := parent(path):
        yield path


def is_within(path: bytes, top: bytes) -> bool:
    """Whether `path` is `top` or lies below it."""
    return not top or path == top or path.startswith(top + b"/")


def any_above(path: bytes, among: Container[bytes]) -> bool:
    """Whether `path` or a directory above it is in `among`."""
    return path in among or any(above in among for above in ancestors(path))


def display(path: bytes) -> str:
    """`path` as text to show: one line, never failing, not reversible.

    Bytes that are not UTF-8 and control characters appear as backslash escapes.
    """
    text = path.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def path_fields(path: bytes) -> dict[str, str]:
    """`path` for JSON: `path` to be shown and, only where it is not UTF-8, `path_b64` to be exact."""
    try:
        return {"path": path.decode()}
    except UnicodeDecodeError:
        return {"path": display(path), "path_b64": b64encode(path).decode()}
