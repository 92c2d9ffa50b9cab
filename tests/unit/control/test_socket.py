"""Client and server over a real socket, on both event loops. The engine is a small stand-in."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from syncd.control import server as module
from syncd.control.client import ask, find_pair
from syncd.control.loop import new_event_loop
from syncd.control.runner import Flushed
from syncd.control.server import LINE_LIMIT, Server
from syncd.control.status import State, Status
from syncd.errors import NothingRunning, SyncdError, TimedOut, UsageError
from syncd.model.report import CycleReport, Halt, Problem
from syncd.system.dirs import make_pair_dir, pair_dir, socket_path

SOURCE, TARGET = b"/somewhere/s\xff", b"/somewhere/t"


class Engine:
    """Answers at once in place of the engine's thread; `busy` never answers."""

    def __init__(self):
        self.status = Status(SOURCE, TARGET, "pure", "inotify", "the default", state=State.IN_SYNC, cycles=3, pid=7)
        self.pair = SimpleNamespace(control=SimpleNamespace(entries=11, bytes=22))
        self.flushed = Flushed(cycles=2)
        self.done = CycleReport(4, True, put=1, removed=2)
        self.approved = []
        self.deadlines = []
        self.busy = False
        self.futures = []

    def ask(self, command):
        answer: Future = Future()
        self.futures.append(answer)
        if not self.busy:
            answer.set_running_or_notify_cancel()
            try:
                answer.set_result(command())
            except SyncdError as error:
                answer.set_exception(error)
        return answer

    def flush(self, deadline):
        self.deadlines.append(deadline)
        return self.flushed

    def sync(self):
        return self.done

    def look_at_target(self):
        pass

    def approve(self, identity):
        self.approved.append(identity)
        return self.done

    def last_hint(self, path):
        return 5.0 if path == b"a" else None

    def last_write(self, path):
        return None


@pytest.fixture(params=["uvloop", "asyncio"])
def loop_name(request, monkeypatch):
    monkeypatch.setenv("SYNCD_LOOP", request.param)
    return request.param


@contextmanager
def serving(engine, state):
    """A server in a thread of its own."""
    ready, end = threading.Event(), []
    errors = []

    async def body():
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: errors.append(context))
        end.append(lambda: loop.call_soon_threadsafe(stop.set))
        server = Server(engine, socket_path(state))
        await server.start()
        ready.set()
        try:
            await stop.wait()
        finally:
            await server.close()

    def run():
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(body())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        end[0]()
        thread.join(10)
        assert not thread.is_alive()
    assert not errors


@pytest.fixture
def state(xdg):
    return make_pair_dir(SOURCE, TARGET)


@pytest.fixture
def engine(state, loop_name):
    engine = Engine()
    with serving(engine, state):
        yield engine


@contextmanager
def line_to(state):
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(10)
        line.connect(str(socket_path(state)))
        yield line


def answers(state, *requests):
    """The answers to raw lines of one connection."""
    with line_to(state) as line, line.makefile("rb") as reader:
        out = []
        for request in requests:
            line.sendall(request + b"\n")
            out.append(json.loads(reader.readline()))
        return out


@pytest.mark.loop
class TestServer:
    def test_status(self, engine, state):
        answer = ask(state, "status")
        assert answer["schema"] == 1
        assert answer["source"] == {"path": "/somewhere/s\\xff", "path_b64": "L3NvbWV3aGVyZS9z/w=="}
        assert (answer["state"], answer["in_sync"], answer["pid"]) == ("in sync", True, 7)
        assert answer["progress"] == {"entries": 11, "bytes": 22}
        assert answer["line"].startswith("in sync")

    def test_the_socket_is_this_users_only(self, engine, state):
        path = socket_path(state)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_another_users_questions_are_not_answered(self, engine, state, monkeypatch):
        monkeypatch.setattr(module, "_is_own", lambda line: False)
        with pytest.raises(NothingRunning, match="ended before"):
            ask(state, "status")

    @pytest.mark.parametrize("request_", [
        b"garbage", b"", b"[]", b"1", b"null", b'"status"', b"\xff\xfe", b'{"method": ["status"]}', b"[" * 100_000,
        b'{"method": "flush", "params": {"limit": "soon"}}', b'{"method": "explain", "params": {"path": "xyz"}}',
        b'{"method": "explain"}', b'{"method": "approve", "params": [1]}',
    ], ids=lambda line: repr(line[:40]))  # fmt: skip
    def test_a_line_that_is_no_request_is_said_to_be_none(self, engine, state, request_):
        """And the connection goes on."""
        wrong, right = answers(state, request_, b'{"id": 9, "method": "status"}')
        assert wrong["error"]["code"] == -32600
        assert wrong["jsonrpc"] == "2.0"
        assert right["id"] == 9
        assert right["result"]["schema"] == 1

    def test_an_unknown_method(self, engine, state):
        (answer,) = answers(state, b'{"jsonrpc": "2.0", "id": "x", "method": "stop"}')
        assert answer == {
            "jsonrpc": "2.0", "id": "x", "error": {"code": -32601, "message": "no such method: stop"},
        }  # fmt: skip
        with pytest.raises(SyncdError, match="no such method: stop") as caught:
            ask(state, "stop")
        assert caught.value.exit_code == 1

    def test_an_oversized_line_ends_only_its_own_connection(self, engine, state):
        with line_to(state) as line:
            try:
                line.sendall(b"x" * (2 * LINE_LIMIT + 10) + b"\n")
                assert line.recv(1) == b""
            except ConnectionError:
                pass
        assert ask(state, "status")["schema"] == 1

    def test_who_hangs_up_or_says_nothing_disturbs_nobody(self, engine, state):
        with line_to(state) as silent:
            with line_to(state) as line:
                line.sendall(b'{"method": "status"')
            with line_to(state) as line:
                line.sendall(b'{"method": "status"}\n')
            assert ask(state, "status")["schema"] == 1
            silent.sendall(b'{"id": 1, "method": "status"}\n')
            assert silent.recv(1) == b"{"

    def test_flush(self, engine, state):
        before = time.monotonic()
        assert ask(state, "flush", limit=30.0) == {"schema": 1, "flushed": True, "cycles": 2}
        assert before + 30 <= engine.deadlines[0] <= time.monotonic() + 30

    @pytest.mark.parametrize(
        ("flushed", "code", "said"),
        [
            (Flushed(missing=(b"a", b"b\n")), 3, r"not in the target: a; b\\n"),
            (Flushed(problems=(Problem(b"p", 13, "read"),)), 3, "p: read failed"),
            (Flushed(halt=Halt("mass removal", "abc")), 5, "mass removal.*syncd approve abc"),
            (Flushed(timed_out=True), 6, "writes keep coming"),
        ],
    )
    def test_flushes_that_end_otherwise(self, engine, state, flushed, code, said):
        engine.flushed = flushed
        with pytest.raises(SyncdError, match=said) as caught:
            ask(state, "flush", limit=1.0)
        assert caught.value.exit_code == code

    @pytest.mark.parametrize(("cycles", "said"), [(0, "the first copy is still running"), (1, "a cycle is still")])
    def test_a_flush_that_gets_no_answer_in_time(self, engine, state, monkeypatch, cycles, said):
        monkeypatch.setattr(module, "SPARE", 0.01)
        engine.busy = True
        engine.status = Status(SOURCE, TARGET, "pure", "inotify", "", cycles=cycles)
        with pytest.raises(SyncdError, match=said) as caught:
            ask(state, "flush", limit=0.01)
        assert caught.value.exit_code == 6

    def test_sync(self, engine, state):
        assert ask(state, "sync") == engine.done.as_json()

    def test_approve_takes_only_the_id_that_waits(self, engine, state):
        with pytest.raises(SyncdError, match="nothing waits") as caught:
            ask(state, "approve", id="abc")
        assert caught.value.exit_code == UsageError.exit_code
        engine.status = Status(SOURCE, TARGET, "pure", "inotify", "", halt=Halt("mass", "abc", 5))
        with pytest.raises(SyncdError, match="the one that waits is abc"):
            ask(state, "approve", id="abd")
        assert engine.approved == []
        assert ask(state, "approve", id="abc")["removed"] == 2
        assert engine.approved == ["abc"]

    def test_approve_of_a_source_that_changed_meanwhile(self, engine, state):
        engine.status = Status(SOURCE, TARGET, "pure", "inotify", "", halt=Halt("mass", "abc", 5))
        engine.done = CycleReport(5, True, halt=Halt("mass", "def", 6))
        with pytest.raises(SyncdError, match=r"changed meanwhile.*approve def") as caught:
            ask(state, "approve", id="abc")
        assert caught.value.exit_code == 5

    def test_explain(self, engine, state):
        engine.status = Status(
            SOURCE, TARGET, "pure", "inotify", "", busy=(b"a",), problems=(Problem(b"a", 5, "read"),)
        )
        answer = ask(state, "explain", path=b"a".hex())
        assert (answer["path"], answer["busy"], answer["last_hint"], answer["last_write"]) == ("a", True, 5.0, None)
        assert len(answer["problems"]) == 1

    def test_the_socket_goes_at_the_end(self, state, loop_name):
        with serving(Engine(), state):
            assert ask(state, "status")["schema"] == 1
        assert not socket_path(state).exists()
        with pytest.raises(NothingRunning, match="no watch is running"):
            ask(state, "status")

    def test_a_dead_ones_socket_is_replaced(self, state, loop_name):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(socket_path(state)))
        with pytest.raises(NothingRunning):
            ask(state, "status")
        with serving(Engine(), state):
            assert ask(state, "status")["schema"] == 1


@pytest.mark.parametrize(("uid", "own"), [(os.getuid(), True), (0, True), (12345, False)])
def test_the_peer_is_this_user_or_root(uid, own):
    credentials = SimpleNamespace(getsockopt=lambda *_: module.struct.pack("3i", 1, uid, 1))
    assert module._is_own(credentials) == own


def test_the_peer_of_a_real_socket_is_known():
    one, other = socket.socketpair()
    with one, other:
        assert module._is_own(one)


# Client against sockets that misbehave -----------------------------------------------------------------


@contextmanager
def saying(state, text):
    """A socket that answers every line with `text` (None: not at all) and hangs up."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path(state)))
        listener.listen()
        done = threading.Event()

        def answer():
            line, _ = listener.accept()
            with line:
                line.recv(65536)
                if text is None:
                    done.wait(10)
                else:
                    line.sendall(text)

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        done.set()
        thread.join(10)


@pytest.mark.parametrize("text", [b"", b'{"jsonrpc": "2.0", "resu'])
def test_a_watch_that_ends_while_it_answers(state, text):
    with saying(state, text), pytest.raises(NothingRunning, match="ended before it answered"):
        ask(state, "status")


def test_a_watch_that_does_not_answer(state):
    with saying(state, None), pytest.raises(TimedOut, match=r"within 0\.05 s"):
        ask(state, "status", 0.05)


def test_a_pair_is_found_by_its_target(xdg):
    source, target = os.fsencode(xdg / "s"), os.fsencode(xdg / "t")
    with pytest.raises(NothingRunning, match="name it as: SOURCE TARGET"):
        find_pair(target, None)
    state = make_pair_dir(source, target)
    assert find_pair(target, None) == (source, target, state)
    assert find_pair(source, target) == (source, target, pair_dir(source, target))
