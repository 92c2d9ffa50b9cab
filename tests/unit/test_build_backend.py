"""Which kernel a build makes, and that it never makes a lesser one silently."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import syncd

ROOT = Path(__file__).resolve().parents[2]
NEW = "rustc 99.0.0 (0123abc 2099-01-01)"
OLD = "rustc 1.63.0 (4b91a6ea7 2022-08-08)"


def fake(directory: Path, name: str, script: str) -> None:
    """Put a program of that name into a directory."""
    program = directory / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def backend(path: Path, call: str, kernel: str = "auto") -> subprocess.CompletedProcess[str]:
    """Run one call of the build backend with nothing but `path` to find programs in."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, 'native'); import build_backend as b; {call}"],
        cwd=ROOT,
        env={"PATH": str(path), "SYNCD_KERNEL": kernel, "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize(
    ("rustc", "cargo", "reason"),
    [
        (None, None, "no rustc on PATH"),
        (f"echo '{NEW}'", None, "no cargo on PATH"),
        (f"echo '{OLD}'", "echo cargo 1.63.0", "is older than"),
        ("echo 'error: no default toolchain' >&2; exit 1", "exit 1", "no default toolchain"),
        ("echo mumble", "exit 0", "is older than"),
        (f"echo '{NEW}'", "echo cargo 99.0.0", ""),
    ],
    ids=["nothing", "no cargo", "too old", "proxy without toolchain", "unreadable", "good"],
)
def test_only_a_working_rust_that_is_new_enough_counts(
    tmp_path: Path, rustc: str | None, cargo: str | None, reason: str
) -> None:
    for name, script in (("rustc", rustc), ("cargo", cargo)):
        if script is not None:
            fake(tmp_path, name, script)
    said = backend(tmp_path, "print(b.obstacle())")
    assert said.returncode == 0, said.stderr
    assert reason in said.stdout
    assert bool(said.stdout.strip()) == bool(reason)

    insisted = backend(tmp_path, "b.native()", kernel="native")
    assert insisted.returncode == (1 if reason else 0)
    assert reason in insisted.stderr


def test_a_wish_that_is_no_kernel_is_an_error(tmp_path: Path) -> None:
    refused = backend(tmp_path, "b.native()", kernel="fast")
    assert "SYNCD_KERNEL=fast" in refused.stderr
    assert refused.returncode == 1


def test_without_rust_the_wheel_is_pure_and_says_so_in_one_line(tmp_path: Path) -> None:
    built = backend(tmp_path, f"print(b.build_wheel({str(tmp_path)!r}))")
    assert built.returncode == 0, built.stderr
    assert built.stderr.count("\n") == 1
    assert "WITHOUT the native kernel (no rustc on PATH)" in built.stderr
    assert built.stdout.strip() == f"syncd-{syncd.__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(tmp_path / built.stdout.strip()).namelist()
    assert "syncd/__init__.py" in names
    assert not [name for name in names if name.endswith(".so")]


def test_a_pure_wheel_that_was_asked_for_is_no_news(tmp_path: Path) -> None:
    built = backend(tmp_path, f"b.build_wheel({str(tmp_path)!r})", kernel="pure")
    assert (built.returncode, built.stderr) == (0, "")


def test_a_compiler_that_fails_fails_the_build(tmp_path: Path) -> None:
    fake(tmp_path, "rustc", f"echo '{NEW}'")
    fake(tmp_path, "cargo", '[ "$1" = --version ] && echo cargo 99.0.0 && exit; echo "error: broken" >&2; exit 101')
    built = backend(tmp_path, f"b.build_wheel({str(tmp_path)!r})")
    assert built.returncode != 0
    assert not list(tmp_path.glob("*.whl"))


def test_the_sdist_can_build_the_kernel_again(tmp_path: Path) -> None:
    made = backend(tmp_path, f"print(b.build_sdist({str(tmp_path)!r}))")
    assert made.returncode == 0, made.stderr
    with tarfile.open(tmp_path / made.stdout.strip()) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "native/Cargo.toml",
        "native/Cargo.lock",
        "native/build_backend.py",
        "native/syncd-core/Cargo.toml",
    } <= names
    assert "syncd/__init__.py" in names
    assert not [name for name in names if name.endswith(".so") or name.startswith("native/target")]


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    crates = tomllib.loads((ROOT / "native" / "Cargo.toml").read_text())["workspace"]["package"]
    assert project["version"] == crates["version"] == syncd.__version__
