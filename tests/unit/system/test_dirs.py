import os
import stat

import pytest

from syncd.errors import Refused, SyncdError
from syncd.system import dirs


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(dirs, "TEMPORARY", tmp_path / "tmp")
    (tmp_path / "tmp").mkdir()
    return tmp_path


@pytest.mark.parametrize("given", ["", "relative/state"])
def test_state_without_a_variable(home, monkeypatch, given):
    monkeypatch.setenv("XDG_STATE_HOME", given)
    monkeypatch.setenv("HOME", str(home))
    assert dirs.state_home() == home / ".local" / "state" / "syncd"


def test_a_user_without_a_home_is_told_what_to_set(home, monkeypatch):
    def nobody(number):
        raise KeyError(number)

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(SyncdError, match="set HOME or XDG_STATE_HOME"):
        dirs.state_home()


@pytest.mark.parametrize(
    ("target", "starts"),
    [(b"shop", "shop-"), (b"a b\n\xff", "a_b_-"), (b"x" * 200, "x" * 40 + "-")],
)
def test_the_directory_of_a_pair(home, target, starts):
    source, target = os.fsencode(home / "src"), os.fsencode(home) + b"/" + target
    state = dirs.pair_dir(source, target)
    assert state.parent == home / "state" / "syncd"
    assert state.name.startswith(starts)
    assert len(state.name) == len(starts) + 16
    assert not state.exists()


def test_spellings_of_a_pair_are_one(home):
    (home / "real").mkdir()
    (home / "link").symlink_to("real")
    one = dirs.pair_dir(os.fsencode(home / "real"), os.fsencode(home / "t"))
    assert dirs.pair_dir(os.fsencode(home / "link"), os.fsencode(home) + b"/real/../t") == one
    assert dirs.pair_dir(os.fsencode(home / "other"), os.fsencode(home / "t")) != one
    assert dirs.pair_dir(os.fsencode(home / "real"), os.fsencode(home / "u")) != one


def test_the_root_has_a_name(home):
    assert dirs.pair_dir(b"/", b"/").name.startswith("root-")


def test_a_target_is_found_again(home):
    target = os.fsencode(home) + b"/t\xff"
    assert dirs.find_by_target(target) == []
    states = [dirs.make_pair_dir(os.fsencode(home) + source, target) for source in (b"/a\xfe", b"/b")]
    dirs.make_pair_dir(os.fsencode(home / "a"), os.fsencode(home / "elsewhere"))
    (dirs.state_home() / "broken-1").mkdir()
    (dirs.state_home() / "broken-1" / "pair.json").write_text("{")
    os.utime(states[0], ns=(2**60, 2**60))
    os.utime(states[1], ns=(0, 0))
    assert dirs.find_by_target(target) == [
        (os.fsencode(home) + b"/a\xfe", target, states[0]),
        (os.fsencode(home) + b"/b", target, states[1]),
    ]
    assert stat.S_IMODE(states[0].stat().st_mode) == 0o700
    assert dirs.make_pair_dir(os.fsencode(home) + b"/b", target) == states[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away needs root")
@pytest.mark.parametrize("mapped", [True, False])
def test_a_state_directory_of_another_user_is_refused(home, monkeypatch, mapped):
    """But for a share on which everything of this user's has another number."""
    state = dirs.make_pair_dir(b"/s", b"/t")
    os.chown(state, 12345, 12345)
    if mapped:
        monkeypatch.setattr(dirs, "_owner_in", lambda _: 12345)
        assert dirs.make_pair_dir(b"/s", b"/t") == state
    else:
        with pytest.raises(Refused, match="belongs to user 12345"):
            dirs.make_pair_dir(b"/s", b"/t")
    assert [path.name for path in state.iterdir()] == ["pair.json"]


def test_the_runtime_directory_is_made(home, monkeypatch):
    made = dirs.runtime_dir()
    if made != home / "tmp" / f"syncd-{os.getuid()}":
        assert made == dirs.Path(f"/run/user/{os.getuid()}/syncd")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home))
    assert dirs.runtime_dir() == dirs.runtime_dir() == home / "syncd"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away needs root")
def test_a_variable_of_another_user_counts_for_nothing(home, monkeypatch):
    theirs = home / "theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(theirs))
    assert theirs not in dirs.runtime_dir().parents


@pytest.mark.parametrize("trap", ["link", "file", "open", "theirs"])
def test_a_trap_is_refused(home, monkeypatch, trap):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home))
    path = home / "syncd"
    if trap == "link":
        (home / "elsewhere").mkdir()
        path.symlink_to("elsewhere")
    elif trap == "file":
        path.touch()
    else:
        path.mkdir(mode=0o700)
        path.chmod(0o770 if trap == "open" else 0o700)
        if trap == "theirs":
            if os.geteuid() != 0:
                pytest.skip("giving a directory away needs root")
            os.chown(path, 12345, 12345)
    with pytest.raises(Refused, match=str(path)):
        dirs.runtime_dir()


@pytest.mark.parametrize("deep", [False, True])
def test_a_socket_path_is_short(home, monkeypatch, deep):
    base = home / ("d" * 80) if deep else home
    base.mkdir(exist_ok=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    monkeypatch.setattr(dirs, "SOCKET_LIMIT", len(os.fsencode(home)) + 40)
    one, two = (dirs.socket_path(home / name) for name in ("one", "two" * 50))
    assert one != two
    assert one == dirs.socket_path(home / "one")
    assert len(os.fsencode(one)) <= dirs.SOCKET_LIMIT
    assert (one.parent == home / "tmp" / f"syncd-{os.getuid()}") == deep
