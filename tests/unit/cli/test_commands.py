"""The command line as a person and as a script meet it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from click.testing import CliRunner

from syncd import errors
from syncd.cli import main as module
from syncd.cli.main import COMMANDS, cli, main
from syncd.cli.options import settings
from syncd.cli.running import _judge_cycle
from syncd.control.client import find_pair
from syncd.control.opening import open_pair, resolve
from syncd.kernel.pure import PureKernel
from syncd.model.report import CycleReport, Halt, Problem
from syncd.model.settings import Settings
from syncd.system.dirs import pair_dir
from syncd.system.locks import Holder
from tests.compare import assert_equal


@pytest.fixture
def pair(xdg):
    source, target = xdg / "s", xdg / "t"
    source.mkdir()
    target.mkdir()
    (source / "a").write_text("a")
    (source / "d").mkdir()
    (source / "d" / "b").write_text("b")
    return str(source), str(target)


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "syncd", *arguments], capture_output=True, text=True, env=os.environ | (env or {})
    )


def called(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """`main()` in this process: (exit code, standard output, standard error)."""
    monkeypatch.setattr(sys, "argv", ["syncd", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


# Help -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_has_an_example(name, option):
    done = CliRunner().invoke(cli, [name, option])
    assert done.exit_code == 0
    assert done.output.startswith(f"Usage: cli {name}")
    example = " ".join(done.output.partition("Example: ")[2].split())
    assert f"syncd {name} " in example


def test_the_help_of_the_group_names_every_command_in_order():
    done = CliRunner().invoke(cli, ["-h"])
    assert done.exit_code == 0
    assert "Example: syncd watch" in done.output
    listed = [line.split()[0] for line in done.output.partition("Commands:")[2].splitlines() if line.startswith("  ")]
    assert [name for name in listed if name in COMMANDS] == sorted(COMMANDS)


def test_the_list_of_commands_says_what_their_help_says():
    """The short words of the list are of one mind with the module: each command exists, with a help."""
    for name in COMMANDS:
        command = cli.get_command(None, name)
        assert command is not None
        assert command.name == name
        assert command.help
    assert cli.get_command(None, "no-such") is None


def test_version_names_the_kernel(monkeypatch, capsys):
    code, out, err = called(monkeypatch, capsys, "--version")
    assert (code, err) == (0, "")
    assert out.startswith("syncd ")
    assert "kernel " in out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell):
    done = run("completion", shell)
    assert done.returncode == 0
    assert "_SYNCD_COMPLETE" in done.stdout
    assert f"{shell}_complete" in done.stdout


def test_completion_completes_commands():
    done = run(env={"_SYNCD_COMPLETE": "bash_complete", "COMP_WORDS": "syncd st", "COMP_CWORD": "1"})
    assert (done.returncode, done.stdout) == (0, "plain,status\n")


# Exit codes and errors --------------------------------------------------------------------------------

CODES = {
    "SyncdError": 1,
    "UsageError": 2,
    "NotInSync": 3,
    "NothingRunning": 4,
    "Refused": 5,
    "TargetBusy": 5,
    "FirstMeeting": 5,
    "Halted": 5,
    "TimedOut": 6,
    "Interrupted": 130,
}


def test_every_error_has_its_exit_code_and_stands_in_the_drawing():
    raised = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert {name: kind.exit_code for name, kind in raised.items()} == CODES
    for name, code in CODES.items():
        lines = [line for line in (errors.__doc__ or "").splitlines() if f" {name} " in line]
        assert len(lines) == 1
        assert f" {code}  " in lines[0]


@pytest.mark.parametrize("name", CODES)
def test_an_error_is_one_message_and_its_code(monkeypatch, capsys, name):
    def fail(**_):
        raise getattr(errors, name)("what, where and what to do")

    monkeypatch.setattr(module.cli, "main", fail)
    assert called(monkeypatch, capsys) == (CODES[name], "", "syncd: what, where and what to do\n")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PermissionError(13, "Permission denied", "/x"), 1, "syncd: /x: Permission denied\n"),
        (PermissionError(13, "Permission denied", b"/x\xff"), 1, "syncd: /x\\xff: Permission denied\n"),
        (OSError("odd"), 1, "syncd: odd\n"),
        (KeyboardInterrupt(), 130, "syncd: interrupted\n"),
    ],
)
def test_errors_of_the_system_are_one_message_too(monkeypatch, capsys, error, code, said):
    def fail(**_):
        raise error

    monkeypatch.setattr(module.cli, "main", fail)
    assert called(monkeypatch, capsys) == (code, "", said)


MISSING = ("/no/such/source", "/no/such/target")
USAGE = [
    ("no-such-command",),
    ("watch",),
    ("watch", "only-one"),
    ("watch", *MISSING),
    ("sync", *MISSING),
    ("diff", *MISSING),
    ("verify", *MISSING),
    ("drift", *MISSING),
    ("explain", *MISSING, "x"),
    ("explain", "x"),
    ("pull", *MISSING, "x"),
    ("watch", *MISSING, "--drift", "perhaps"),
    ("watch", *MISSING, "--overlay", "../x"),
    ("watch", *MISSING, "--overlay", "/"),
    ("watch", *MISSING, "--owner", "me"),
    ("watch", *MISSING, "--ignore-from", "/no/such/file"),
    ("flush", *MISSING, "--timeout", "-1"),
    ("completion", "tcsh"),
    ("approve",),
    ("verify", ""),
    ("status", "", "/t"),
    ("status", "/s", ""),
    ("explain", "/t", ""),
]


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_wrong_command_lines_are_told_in_words(xdg, monkeypatch, capsys, arguments):
    code, out, err = called(monkeypatch, capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [("status", *MISSING), ("status", "/t"), ("flush", *MISSING), ("flush", "/t"), ("approve", "abc"), ("diff", "/t")],
    ids=" ".join,
)
def test_where_nothing_runs_the_code_is_four(xdg, monkeypatch, capsys, arguments):
    code, out, err = called(monkeypatch, capsys, *arguments)
    assert (code, out) == (4, "")
    assert err.startswith("syncd: ")
    assert err.count("\n") == 1


def test_an_interrupt_while_it_is_being_loaded_is_no_traceback(tmp_path):
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")
    done = run("--version", env={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (130, "syncd: interrupted\n")
    (script,) = entry_points(group="console_scripts", name="syncd")
    assert script.value == "syncd.__main__:start"


@pytest.mark.parametrize("given", [f"{2**32 - 2}:0", f"0:{2**32 - 2}", f"{2**32 - 1}:0", "0:99999999999"])
def test_an_owner_is_a_number_that_there_can_be(monkeypatch, given):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    if str(2**32 - 2) in given:
        assert ":".join(map(str, settings(owner=given).owner)) == given
    else:
        with pytest.raises(errors.UsageError, match=f"--owner {given}: .* 4294967294"):
            settings(owner=given)


def test_a_closed_pipe_is_no_traceback(pair):
    source, _ = pair
    for number in range(3000):
        with open(f"{source}/{'x' * 200}{number}", "w"):
            pass
    command = f"{sys.executable} -m syncd diff {' '.join(pair)} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


# Reading commands -------------------------------------------------------------------------------------


def sync(pair, *options):
    return run("sync", *pair, *options)


def test_sync_then_verify_then_drift(pair):
    done = sync(pair)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert_equal(*pair)
    assert run("verify", *pair).returncode == 0
    with open(f"{pair[1]}/a", "w") as file:
        file.write("the container's")
    assert run("verify", *pair).returncode == 0
    strict = run("verify", *pair, "--strict")
    assert (strict.returncode, strict.stdout) == (3, "drifted  a\n")
    assert "Traceback" not in strict.stderr
    assert run("drift", pair[1]).stdout == "edited  a\n"
    os.unlink(f"{pair[1]}/d/b")
    assert run("drift", *pair).stdout == "removed  d/b\nedited  a\n"


def test_sync_json_is_one_object_also_when_it_is_a_dry_run(pair):
    for options in (("--json", "--dry-run"), ("--json",)):
        done = sync(pair, *options)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["schema"] == 1
        assert done.stdout.count("\n") == 1
    assert_equal(*pair)


def test_a_first_meeting_is_refused_with_code_five(pair):
    with open(f"{pair[1]}/a", "w") as file:
        file.write("other")
    done = sync(pair)
    assert done.returncode == 5
    assert "--adopt" in done.stderr
    assert "Traceback" not in done.stderr
    with open(f"{pair[1]}/a") as file:
        assert file.read() == "other"
    assert sync(pair, "--adopt").returncode == 0
    assert_equal(*pair)
    assert "set aside  a" in run("drift", pair[1]).stdout


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (("diff",), {"counts", "id", "rows"}),
        (("verify",), {"equal", "entries", "missing", "different", "left_over", "unreadable", "drifted"}),
        (("drift",), {"drift", "set_aside"}),
        (("doctor",), {"facts", "warnings"}),
        (("explain",), {"path", "excluded", "rule", "write", "source", "target", "in_baseline", "watch"}),
        (("pull",), {"dry_run", "pulled", "set_aside", "problems"}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_json_of_every_reading_command_is_one_object(pair, arguments, keys):
    assert sync(pair).returncode == 0
    with open(f"{pair[1]}/made\udcff\n", "w") as file:
        file.write("x")
    more = {"explain": ("a",), "pull": ("a", "--dry-run")}.get(arguments[0], ())
    done = run(*arguments, *pair, *more, "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    assert value["schema"] == 1
    assert keys <= value.keys()
    assert done.stdout.count("\n") == 1


def test_json_of_a_name_that_is_no_text_is_exact(pair):
    assert sync(pair).returncode == 0
    with open(f"{pair[1]}/made\udcff\n", "w"):
        pass
    rows = json.loads(run("drift", *pair, "--json").stdout)["drift"]
    assert rows == [{"path": "made\\xff\\n", "path_b64": "bWFkZf8K", "line": "made"}]


def test_a_target_alone_means_what_was_mirrored_into_it(pair, xdg, monkeypatch):
    """Not what only was refused; and of two that were mirrored, the one that runs or was written last."""
    source, target = pair
    other = xdg / "other"
    other.mkdir()
    (other / "a").write_text("other")
    assert sync(pair).returncode == 0
    assert sync((str(other), target)).returncode == 5
    with open(f"{target}/a", "w") as file:
        file.write("the container's")
    assert run("drift", target).stdout == "edited  a\n"
    assert sync((str(other), target), "--adopt").returncode == 0
    found = find_pair(os.fsencode(target), None)
    assert found == (os.fsencode(other), os.fsencode(target), pair_dir(os.fsencode(other), os.fsencode(target)))
    holder = Holder(1, os.fsencode(source), os.fsencode(target), 0.0)
    monkeypatch.setattr("syncd.system.locks.live_targets", lambda: [holder])
    assert find_pair(os.fsencode(target), None)[0] == os.fsencode(source)


def test_reading_writes_nothing(pair, xdg):
    """Neither in the roots nor below the state directory."""
    for name in ("diff", "verify", "drift"):
        run(name, *pair)
    assert os.listdir(pair[1]) == []
    assert os.listdir(xdg / "state") == []


def test_explain_says_which_rule(pair):
    with open(f"{pair[0]}/.syncdignore", "w") as file:
        file.write("# mine\n*.log\n")
    with open(f"{pair[0]}/x.log", "w"):
        pass
    done = run("explain", *pair, "x.log")
    assert done.returncode == 0, done.stderr
    assert "left out by .syncdignore:2: *.log (matches x.log)" in done.stdout
    assert "nothing watches this pair now" in done.stdout
    assert "no rule speaks of it" in run("explain", *pair, f"{pair[0]}/d/b").stdout


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (b"a", b"a"),
        (b"./a", b"a"),
        (b"d//b/", b"d/b"),
        (b"d/../a", b"a"),
        (b"/s/d/b", b"d/b"),
        (b"/s/", b""),
        (b".", b""),
        (b"../x", None),
        (b"/elsewhere/a", None),
        (b"/s2/a", None),
    ],
)
@pytest.mark.parametrize("command", ["explain", "pull"])
def test_a_path_is_named_as_a_shell_completes_it(command, given, path):
    relative = importlib.import_module(f"syncd.cli.{command}_cmd")._relative
    roots = (b"/s", b"/t") if command == "explain" else (b"/t", b"/s")
    settings = Settings(*roots)
    if path is None:
        with pytest.raises(errors.UsageError, match=r"a path relative|is not below"):
            relative(given, settings)
    else:
        assert relative(given, settings) == path


@pytest.mark.parametrize(
    ("report", "error", "said"),
    [
        (CycleReport(1, True), None, ""),
        (CycleReport(1, True, drift={"made": 3}), None, ""),
        (CycleReport(1, True, busy=(b"a",), problems=(Problem(b"a", 11, "busy"),)), errors.NotInSync, "1 entries"),
        (CycleReport(1, True, problems=(Problem(b"a", 13, "read"),)), errors.NotInSync, "1 entries"),
        (CycleReport(1, True, stopped=28, problems=(Problem(b"", 28, "write"),)), errors.NotInSync, "1 entries"),
        (CycleReport(1, True, halt=Halt("mass", "abc")), errors.Halted, "approve abc"),
    ],
)
def test_the_exit_code_of_one_cycle(report, error, said):
    if error is None:
        _judge_cycle(report)
    else:
        with pytest.raises(error, match=said):
            _judge_cycle(report)


# The running pair -------------------------------------------------------------------------------------


def test_a_target_that_somebody_writes_is_busy(pair):
    settings = resolve(os.fsencode(pair[0]), os.fsencode(pair[1]), Settings(b"", b""))
    opened = open_pair(settings, PureKernel(), print)
    try:
        done = sync(pair)
    finally:
        opened.close()
    assert done.returncode == 5
    assert f"process {os.getpid()}" in done.stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_an_approval_is_for_one_pair(xdg, monkeypatch, capsys, as_json):
    """Where two wait for the same removals, it must be said which is meant; the answer names it."""
    pairs = [(b"/s1", b"/t1"), (b"/s2", b"/t2"), (b"/s3", b"/t3")]
    halts = dict(zip((pair_dir(*pair) for pair in pairs), ("abc", "abc", "abd"), strict=True))
    approved = []

    def ask(state, method, *_, **params):
        if method == "status":
            return {"halt": {"id": halts[state]}}
        approved.append(state)
        return {"removed": 2}

    monkeypatch.setattr("syncd.control.client.ask", ask)
    monkeypatch.setattr("syncd.system.locks.live_targets", lambda: [Holder(1, *pair, 0.0) for pair in pairs])
    code, out, err = called(monkeypatch, capsys, "approve", "abc")
    assert (code, out, approved) == (5, "", [])
    assert "/s1 → /t1\n  /s2 → /t2\n" in err
    assert "/s3" not in err
    options = ["--json"] if as_json else []
    for number, arguments in [(3, ("abd",)), (2, ("abc", "/s2", "/t2"))]:
        code, out, _ = called(monkeypatch, capsys, "approve", *arguments, *options)
        assert (code, approved[-1]) == (0, pair_dir(*pairs[number - 1]))
        if as_json:
            assert json.loads(out)["target"] == {"path": f"/t{number}"}
        else:
            assert out == f"approved: 2 removed (/s{number} → /t{number})\n"


# Colours ----------------------------------------------------------------------------------------------

LIVE = """
from syncd.cli.live import Live
live = Live()
live.progress(1, 1, 10, 10)
live.line("in sync · 3 entries")
live.say("a line")
live.close()
"""


@pytest.mark.parametrize("plain", [True, False])
def test_no_color_is_honoured(plain):
    """On a terminal: only movements of the cursor are left, no colours."""
    env = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "NO_COLOR": "1" if plain else ""}
    done = subprocess.run([sys.executable, "-c", LIVE], capture_output=True, text=True, env=os.environ | env)
    assert done.returncode == 0, done.stderr
    assert "in sync · 3 entries" in done.stderr
    import re

    colours = [code for code in re.findall(r"\x1b\[([0-9;]*)m", done.stderr) if re.search(r"3[0-8]|9[0-7]", code)]
    assert bool(colours) != plain


def test_no_escape_goes_into_a_pipe(pair):
    done = sync(pair, "--verbose")
    assert "\x1b" not in done.stdout + done.stderr
    assert "put a" in done.stderr
