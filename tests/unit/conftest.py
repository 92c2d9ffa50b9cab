"""What unit tests share: directories of their own, and a kernel body."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.kernel.contract import Kernel
from syncd.kernel.pure import PureKernel


@pytest.fixture
def kernel() -> Kernel:
    """The body whose source is the specification."""
    return PureKernel()


@pytest.fixture
def xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state and a runtime directory below the returned one, for this process and its children."""
    for name in ("state", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path
