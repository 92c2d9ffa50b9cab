"""Builds syncd: with its Rust kernel where a compiler new enough is found, else as pure Python.

`SYNCD_KERNEL` decides: `auto` (the default) looks for a compiler and says so loudly when there is none;
`native` insists on one; `pure` leaves the Rust kernel out. A compiler that is there but fails is an error in
every case: a broken kernel must never turn into a slow one.

Wheels are made by maturin (native) or hatchling (pure); the sdist is the same for both and made by hatchling.
The optional hooks for metadata alone are left out, because hatchling has none; installers build the wheel once.
Run as a program it says what would be built; with `--body` in one word, and with `--rust` it exits with 0 only if
the compiler would do.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MATURIN = ["maturin>=1.9.4,<2"]
HATCHLING = ["hatchling>=1.27"]

Settings = Mapping[str, Any] | None


class BuildError(Exception):
    """The wish of `SYNCD_KERNEL` cannot be met."""


def version(text: str) -> tuple[int, ...]:
    """The first dotted number in `text`, as numbers; () if there is none."""
    found = re.search(r"\d+(\.\d+)+", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def needed() -> str:
    """The oldest Rust that builds the kernel: `rust-version` of the workspace."""
    manifest = tomllib.loads((ROOT / "native" / "Cargo.toml").read_text(encoding="utf-8"))
    return str(manifest["workspace"]["package"]["rust-version"])


def obstacle() -> str:
    """Why no Rust kernel can be built here, or "" if one can.

    A tool that is there but does not answer (a rustup proxy without a toolchain) counts as absent.
    """
    if not (ROOT / "native" / "Cargo.toml").is_file():
        return "this tree has no Rust kernel in it"
    for tool in ("rustc", "cargo"):
        path = shutil.which(tool)
        if path is None:
            return f"no {tool} on PATH"
        try:
            answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{path} does not run ({error})"
        if answer.returncode:
            return f"{path} does not work ({(answer.stderr.strip().splitlines() or ['no reason given'])[0]})"
        if tool == "rustc" and version(answer.stdout) < version(needed()):
            return f"{answer.stdout.strip()} is older than {needed()}"
    return ""


def native() -> bool:
    """Whether to build the Rust kernel. Raises BuildError if it was insisted on in vain."""
    wish = os.environ.get("SYNCD_KERNEL", "auto") or "auto"
    if wish == "pure":
        return False
    if wish not in ("auto", "native"):
        raise BuildError(f"SYNCD_KERNEL={wish}: expected auto, native or pure")
    why = obstacle()
    if why and wish == "native":
        raise BuildError(f"SYNCD_KERNEL=native, but {why}")
    return not why


def announce() -> None:
    """Say on stderr what is left out, and why. Only where nobody asked for it."""
    if os.environ.get("SYNCD_KERNEL") != "pure":
        rust = needed() if (ROOT / "native" / "Cargo.toml").is_file() else "Rust"
        print(
            f"*** syncd: building WITHOUT the native kernel ({obstacle()}): right, but several times slower. "
            f"Install Rust >= {rust} and build again. ***",
            file=sys.stderr,
            flush=True,
        )


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    return MATURIN if native() else HATCHLING


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    return MATURIN if native() else [*HATCHLING, "editables>=0.5"]


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    return HATCHLING


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    return str(_backend().build_wheel(wheel_directory, config_settings, metadata_directory))


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    if not native():
        _drop_stale_cores()
    return str(_backend().build_editable(wheel_directory, config_settings, metadata_directory))


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    from hatchling import build

    return build.build_sdist(sdist_directory, dict(config_settings or {}))


def _backend() -> Any:
    """The tool that makes this wheel. Says so when it is the lesser one."""
    if native():
        import maturin

        # maturin calls its own program by name; in a virtual environment that is not activated it stands here.
        os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)
        return maturin
    announce()
    from hatchling import build

    return build


def _drop_stale_cores() -> None:
    """Remove compiled cores from the source tree: an editable pure install would go on importing them."""
    for core in (ROOT / "syncd").glob("_native*.so"):
        print(f"*** syncd: removing {core.name} of an earlier native build ***", file=sys.stderr, flush=True)
        core.unlink()


def main() -> int:
    """Tell what would be built; see the module's docstring."""
    if "--rust" in sys.argv[1:]:
        why = obstacle()
        if why:
            print(f"*** syncd: no usable Rust: {why} ***", file=sys.stderr)
        return 1 if why else 0
    if "--body" in sys.argv[1:]:
        print("native" if native() else "pure")
    elif native():
        print("syncd: building with the native kernel")
    else:
        announce()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BuildError as error:
        sys.exit(f"syncd: {error}")
