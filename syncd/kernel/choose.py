"""Which body of the kernel runs, and why. Never silent: `chosen` tells both."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, cast

from syncd.errors import UsageError

if TYPE_CHECKING:
    from syncd.kernel.contract import Kernel

ABI = 1  # the face of the native module that this version speaks to
NAMES = ("auto", "native", "pure")

_loaded: dict[str, Kernel] = {}
_chosen = ("none", "no kernel was loaded yet")


def load(name: str = "auto") -> Kernel:
    """The kernel of this process: "native", "pure", or as SYNCD_KERNEL says ("auto", also without it).

    "auto" takes the native body if it was built for this version. Raises UsageError for another word,
    and if the native body is insisted on but cannot be loaded. May be called from any thread.
    """
    global _chosen
    asked, reason = (name, "asked for") if name != "auto" else _from_environment()
    if asked not in NAMES:
        raise UsageError(f"SYNCD_KERNEL: {asked!r} is none of {', '.join(NAMES)}")
    lack = "" if asked == "pure" else _load_native()
    if asked == "native" and lack:
        raise UsageError(f"the native kernel cannot be loaded: {lack}; build it, or set SYNCD_KERNEL=pure")
    body = "pure" if asked == "pure" or lack else "native"
    if body == "pure":
        _load_pure()
    _chosen = (body, reason if asked != "auto" else lack or "built for this version")
    return _loaded[body]


def chosen() -> tuple[str, str]:
    """The body that `load` returned last, and the reason, to be shown."""
    return _chosen


def _from_environment() -> tuple[str, str]:
    return os.environ.get("SYNCD_KERNEL") or "auto", "SYNCD_KERNEL says so"


def _load_native() -> str:
    """Load the native body. Returns what is in the way, "" if nothing."""
    if "native" in _loaded:
        return ""
    try:
        from syncd import _native
    except ImportError as error:
        return f"it is not built ({error})"
    if _native.ABI != ABI:
        return f"it was built for another version (ABI {_native.ABI}, not {ABI})"
    _native.ignore_sigio()
    _loaded["native"] = cast("Kernel", _native.Kernel())
    return ""


def _load_pure() -> None:
    if "pure" not in _loaded:
        from syncd.kernel.pure import PureKernel

        try:
            signal.signal(signal.SIGIO, signal.SIG_IGN)  # a lease that is broken sends it
        except ValueError:
            pass  # only the main thread may; leases are never held, so none is broken but by a rare chance
        _loaded["pure"] = cast("Kernel", PureKernel())
