"""Which body of the kernel runs, and why. Never silent: `--version`, `status` and `doctor` name it."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from typing import cast

from syncd.errors import SyncdError, UsageError
from syncd.kernel.contract import Kernel

ABI = 5  # what this Python expects of the native body; a stale build differs


@cache
def chosen() -> tuple[str, str]:
    """("native" or "pure", the reason). Raises UsageError for an unknown SYNCD_KERNEL."""
    wanted = os.environ.get("SYNCD_KERNEL", "auto")
    if wanted not in ("auto", "native", "pure"):
        raise UsageError(f"SYNCD_KERNEL={wanted}: it can be auto, native or pure")
    if wanted != "auto":
        return wanted, f"SYNCD_KERNEL={wanted}"
    if importlib.util.find_spec("syncd._native") is not None:
        return "native", "built in"
    return "pure", "this installation has no native one"


@cache
def load(name: str = "auto") -> Kernel:
    """The kernel `name`; "auto" asks `chosen`. Raises SyncdError where the native one cannot be used."""
    body = chosen()[0] if name == "auto" else name
    if body == "pure":
        from syncd.kernel.pure import PureKernel

        return PureKernel()
    try:
        from syncd import _native
    except ImportError as error:
        raise SyncdError(
            f"the native kernel cannot be loaded ({error}); reinstall syncd, or set SYNCD_KERNEL=pure"
        ) from error
    if _native.ABI != ABI:
        raise SyncdError("the native kernel is of another version of syncd; reinstall it")
    return cast("Kernel", _native.Kernel())
