"""The engine thread of one pair: waits in one poll, runs cycles, answers commands.

It waits on the watcher's descriptor, on the mount table, on commands and on the next thing due; with
nothing pending it waits without a timeout. It is the only thread that touches the source or the target.
"""

from __future__ import annotations

import errno
import os
import queue
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from syncd.control.locks import LockWatch
from syncd.control.remembered import FEW, Remembered
from syncd.control.status import State, Status, merge_problems
from syncd.engine.cycle import Announce, cycle, express, look_ahead, mirror_lone
from syncd.engine.ignore import names_rule_file, takes_rules_away
from syncd.engine.moves import candidates
from syncd.engine.pair import Pair
from syncd.engine.scan import Sight
from syncd.engine.settle import Settle
from syncd.engine.watch import Watch
from syncd.errors import SyncdError
from syncd.model.change import NONE, Batch, Hints
from syncd.model.path import any_above
from syncd.model.report import CycleReport, Halt, Problem
from syncd.system.mounts import Mount, mount_of, mounts_below, open_changes, unique_mount_id

if TYPE_CHECKING:
    from concurrent.futures import Future

LAGS = 1000  # lags kept for the percentiles
BUSY_FIRST, BUSY_MOST = 0.25, 5.0  # seconds between looks at a file that somebody keeps writing
RETRY_FIRST, RETRY_MOST = 1.0, 30.0  # seconds between tries on a full target, a root or a place that fails
AGAIN_MOST = 8  # looks in a row at what was not as it was seen, before it becomes a problem
AGAIN_PAUSE = 0.005  # seconds before the third of them; each is twice as long as the one before

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # signals that end a run in order

TELL = 0.2  # seconds between two tellings of lone saves; the first of them is told at once

EVERYTHING = Batch(everything=True)
SOURCES = 5  # descriptors the engine waits for: the watcher has up to three


class Flushed(NamedTuple):
    """The answer to a flush: what is not in the target although it was there before the call."""

    missing: tuple[bytes, ...] = ()
    halt: Halt | None = None
    problems: tuple[Problem, ...] = ()
    timed_out: bool = False
    cycles: int = 0


class Runner:
    """Runs one pair until stopped. `run` is the thread's body; the rest may be called by any thread."""

    def __init__(
        self, pair: Pair, watch: Watch, status: Status, on_report: Callable[[CycleReport], None], *, once: bool = False
    ) -> None:
        self.pair = pair
        self.once = once
        self.watch = watch
        self.status = status
        self.announce: Announce | None = None
        self.hurry = True  # False: even a lone save is announced
        self.cut = False  # a cycle was stopped before its end: there may be much that is not on the disk yet
        self.error: BaseException | None = None
        self.started = threading.Event()  # the first full cycle has ended, or the thread has
        self._on_report = on_report
        self._settle = Settle(pair.settings.timing)
        self._locks = LockWatch(pair)
        pair.hear = self._removals
        self._notes = status.notes
        self._message: str | None = None  # the watcher's
        self._busy: dict[bytes, tuple[float, float]] = {}  # path -> due, delay
        self._retry: tuple[float, float] | None = None  # a full target, a missing root: due, delay
        self._troubled: tuple[float, float] | None = None  # places that could not be read or written: due, delay
        self._ahead: tuple[Batch, Sight] | None = None  # what a burst that is soon due looks like
        self._again: frozenset[bytes] = frozenset()
        self._again_due = 0.0  # when that is to be done (monotonic)
        self._tries: dict[bytes, int] = {}  # how often in a row these were to be looked at again
        self._named = NONE  # what a look at everything did not look at as closely as a word on it asks for
        self._told: frozenset[bytes] = frozenset()  # removals told to cycles that left something undone
        self._commands: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stop = False
        self._stopping = threading.Event()
        self._ending = threading.Lock()
        self._ended = False
        self._then: Callable[[], object] | None = None
        self._told_at = 0.0  # when lone saves were last told (monotonic)
        self._hinted = Remembered()
        self._written = Remembered()
        self._lags: deque[float] = deque(maxlen=LAGS)

    # For other threads -------------------------------------------------------------------------------

    def ask(self, command: Callable[[], Any]) -> Future[Any]:
        """Run `command` in the engine thread, between cycles; the future has its answer."""
        from concurrent.futures import Future  # late: it loads logging, and no command comes during the start

        answer: Future[Any] = Future()
        self._commands.put((command, answer))
        os.eventfd_write(self._wake, 1)
        return answer

    def on_end(self, then: Callable[[], object]) -> None:
        """Call `then` once when the thread ends (now, if it has)."""
        with self._ending:
            self._then = then
            if self._ended:
                then()

    def last_hint(self, path: bytes) -> float | None:
        """When a watcher last spoke of `path`, in seconds since 1970; None if it is not remembered."""
        return self._hinted.last(path)

    def last_write(self, path: bytes) -> float | None:
        """When a cycle last looked at `path` after a hint and wrote what it found."""
        return self._written.last(path)

    def stop(self) -> None:
        """End after what is being placed; the thread then returns. A second call changes nothing."""
        self._stop = True
        self._stopping.set()
        self.pair.control.cancelled = True
        self.watch.watcher.cancel()
        os.eventfd_write(self._wake, 1)

    # The thread --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Watch and mirror until `stop`. An error that ends it stands in `error`."""
        mounts = -1
        try:
            mounts = open_changes()
            with select.epoll() as epoll:
                epoll.register(mounts, select.EPOLLPRI)  # takes the word of earlier changes away, so look afterwards
                self._mounts = self._mounts_that_matter()
                if self.once:
                    self._run_once()
                    return
                self._full_cycle(EVERYTHING)
                self.started.set()
                self.watch.watcher.listen(epoll)
                epoll.register(self._wake, select.EPOLLIN)
                while not self._stop:
                    for fd in self._wait(epoll, self._work()):
                        if fd == self._wake:
                            self._answer()
                        elif fd == mounts:
                            self._mounts_changed(mounts)
                        else:
                            self._hear_at_work()
        except BaseException as error:  # noqa: BLE001 - the thread that waits for it raises it
            self.error = error
        finally:
            if mounts >= 0:
                os.close(mounts)
            self._show(state=State.STOPPED)
            self._refuse_commands()
            self.watch.watcher.close()
            self.started.set()
            with self._ending:
                self._ended = True
                if self._then is not None:
                    self._then()

    def _run_once(self) -> None:
        """One full cycle, and looks at what changed under it; told as one."""
        on_report, self._on_report = self._on_report, lambda _: None
        done = self._full_cycle(EVERYTHING)
        try:
            while self._again and not self._stopping.wait(self._again_due - time.monotonic()):
                again, self._again = self._again | self._troubled_places(), NONE
                done = self._as_one(done, self._cycle(Batch(again, deep=again)))
        finally:
            on_report(done)

    def _due(self) -> float | None:
        """When something is to be done that no descriptor tells of; None: never."""
        dues = [self._again_due if self._again else None, self._settle.due(), self._second_look_due, self._locks.due]
        retry = None if self._settle.held else self._retry
        dues += [later[0] for later in (*self._busy.values(), retry, self._troubled) if later is not None]
        return min((due for due in dues if due is not None), default=None)

    @property
    def _is_at_rest(self) -> bool:
        """Nothing is left from before, and nothing is known to be wrong."""
        return not (
            self._settle or self._busy or self._again or self._tries or self._retry or self._troubled or self._told
            or self._locks.due or self.pair.doubted or self.status.problems or self.status.halt
        )  # fmt: skip

    def _hear_at_work(self) -> None:
        """Take in what the watcher has to say, between cycles. A lone save waits for nothing."""
        self._act_on(self.watch.watcher.read())

    def _act_on(self, hints: Hints) -> None:
        hints, now = self._understand(hints)
        if (lone := self._settle.lone(hints, now)) is not None:
            self._cycle(lone)
            return
        self._settle.offer(hints, now)
        if hints.ready and self._settle.holds_burst:
            with self.watch.attended():
                self.pair.prepare(hints.ready)

    def _wait(self, epoll: select.epoll, due: float | None) -> list[int]:
        """Wait for a descriptor, or until `due`; those that are ready."""
        if due is None and (ready := self._mirror_lone(epoll)) is not None:
            return ready
        left = None if due is None else max(0.0, due - time.monotonic())
        return [fd for fd, _ in epoll.poll(left, SOURCES)]

    def _mirror_lone(self, epoll: select.epoll) -> list[int] | None:
        """Wait; the watcher, if it can, mirrors lone saves meanwhile. None, at once: not now.

        They are told five times a second at most: to tell of one costs as much as to mirror it.
        """
        mirror = self.watch.watcher.mirror
        if mirror is None or not self.hurry or not self._is_at_rest:
            return None
        recent = self._settle.recent(time.monotonic())
        if (mirrored := mirror_lone(self.pair, mirror, epoll, recent, self._told_at + TELL)) is None:
            return None
        saves, hints, ready = mirrored
        for done, batch in saves:
            self._settle.passed(batch.paths, batch.since)
            self._hinted.note(batch.paths, batch.since)
            if done is not saves[-1][0]:  # which is then the status; all before it went smoothly
                self._written.note(batch.paths, batch.since)
                if done.lag is not None:
                    self._lags.append(done.lag)
                self._on_report(done)
        if saves:
            self._after(*saves[-1])
            self._told_at = time.monotonic()
        if hints:
            self._act_on(hints)
        return ready

    def _hear(self, *, barrier: bool) -> None:
        """Take it in and do nothing; with `barrier`, all that happened before the call."""
        self._settle.offer(*self._understand(self.watch.watcher.drain() if barrier else self.watch.watcher.read()))

    def _understand(self, hints: Hints) -> tuple[Hints, float]:
        """What is to be made of a watcher's words, and when they came."""
        now = time.monotonic()
        if hints.ready or hints.waiting or hints.rescan:
            self._ahead = None
        if hints.locks:
            with self.pair.roots() as roots:
                if not isinstance(roots, Halt):
                    self.watch.watch_locks(roots[0])
        if hints.locks or self._locks.due is not None:
            self._look_at_locks(now)
        if hints.moves:
            hints = self._with_moves(hints)
        if hints.gone:
            hints = self._without_passing(hints)
        if hints.ready:
            self._hinted.note(hints.ready, now)
        if hints.waiting:
            self._hinted.note(hints.waiting, now)
        return hints, now

    def _with_moves(self, hints: Hints) -> Hints:
        """A large file that may have been moved waits for the word on its old name, to be looked at together."""
        new = frozenset(new for _, new in candidates(self.pair.baseline.base, hints.moves))
        return hints._replace(ready=hints.ready - new, waiting=hints.waiting | (hints.ready & new))

    def _without_passing(self, hints: Hints) -> Hints:
        """Temporary names that came and went cost no cycle: neither the baseline nor a problem knows them."""
        if len(hints.gone) > FEW or self.status.problems or self._busy or self._again:
            return hints
        unknown = [path for path in hints.gone if self.pair.baseline.base.get(path) is None]
        gone = self.pair.lacking(unknown) if unknown else NONE  # an exchanged name is said to have gone, too
        self._settle.forget(gone)
        return hints._replace(waiting=hints.waiting - gone, deep=hints.deep - gone, removed=hints.removed - gone)

    def _removals(self) -> frozenset[bytes]:
        """Removals told until now. A sweep of a polled source would tell none, so none is asked for."""
        self._hear(barrier=self.watch.watcher.bound == 0)
        return self._settle.removed | self._told

    def _look_at_locks(self, now: float) -> None:
        self._settle.hold(self._locks.look(now), now)
        if self._locks.held_by != self.status.held_by:
            self._show(held_by=self._locks.held_by)

    def _work(self) -> float | None:
        """Run every cycle that is ready. When the next one is due (monotonic); None: nothing is pending."""
        if self._is_at_rest:
            self._forget_prepared()
            self._show_state()
            return None
        while not self._stop:
            now = time.monotonic()
            if self._locks.due is not None and now >= self._locks.due:
                self._look_at_locks(now)
            if (early := self._settle.soon(now)) is not None:
                if self._look_ahead(early):
                    continue
                now = time.monotonic()
            batch = self._settle.take(now)
            if batch is None:
                batch = self._overdue(now)
            if batch is None:
                break
            self._cycle(batch)
        self._show_state()
        return self._due()

    def _look_ahead(self, batch: Batch) -> bool:
        """Look at what a lock kept back while that has to stay quiet: a word that comes until then undoes it.

        True: one came while it looked.
        """
        if self._ahead is not None or self._needs_everything(batch):
            return False
        with self.watch.attended():
            if (sight := look_ahead(self.pair, batch)) is not None:
                self._ahead = batch, sight
        self._hear(barrier=False)
        return sight is not None and self._ahead is None

    def _show_state(self) -> None:
        """What came since the last cycle, or passed without one, is to be seen, too."""
        if (state := self._state(self.status.halt)) is not self.status.state and not self._stop:
            self._show(state=state)

    def _state(self, halt: Halt | None) -> State:
        if halt:
            return State.HALTED
        if self._busy or self._retry:
            return State.WAITING
        return State.SETTLING if self._settle or self._again else State.IN_SYNC

    @property
    def _second_look_due(self) -> float | None:
        """When a doubted absence is looked at once more: not while a root cannot be looked at."""
        return None if self._retry else self.pair.second_look_due

    def _overdue(self, now: float) -> Batch | None:
        if self._retry and now >= self._retry[0] and not self._settle.held:  # everything: also what a lock keeps back
            return EVERYTHING
        if self._again and now >= self._again_due:
            again, self._again = self._again, NONE
            return Batch(again, deep=again)
        if not self._retry and (doubted := self.pair.overdue(now)):
            return Batch(doubted)
        late = frozenset(path for path, (due, _) in self._busy.items() if now >= due)
        if late:
            return Batch(late)
        if self._troubled and now >= self._troubled[0]:
            places = self._troubled_places()
            return Batch(places, deep=places)
        return None

    def _troubled_places(self) -> frozenset[bytes]:
        """Where something could not be read or written. No event may tell when that is over."""
        return frozenset(problem.path for problem in self.status.problems if problem.path and problem.op != "busy")

    def _needs_everything(self, batch: Batch) -> bool:
        return (
            batch.everything
            or self.status.halt is not None
            or self._retry is not None
            or names_rule_file(batch.paths, self.pair.settings)
            or takes_rules_away(batch, self.pair.rules)
        )

    def _cycle(self, batch: Batch) -> CycleReport:
        ahead, self._ahead = self._ahead, None
        if self._needs_everything(batch):
            return self._everything(batch)
        patient = bool(self._busy) and batch.paths <= self._busy.keys()
        sight = ahead[1] if ahead is not None and ahead[0] == batch else None
        done = self._try(batch, patient=patient, sight=sight)
        if done.halt is not None:  # judged again as a whole, so that its id names every removal
            return self._everything(batch)
        return self._after(done, batch)

    def _everything(self, batch: Batch) -> CycleReport:
        """A full cycle, and a look at what was named: only that reads a file that changed twice in one tick."""
        self._named |= batch.paths
        done = self._full_cycle(batch._replace(everything=True))
        if not self._named or done.halt or done.stopped or self._stop:
            return done
        named, self._named = Batch(self._named), NONE
        also = self._try(named)
        if also.halt is not None:
            return self._full_cycle(EVERYTHING)
        return self._as_one(done, self._after(also, named))

    def _as_one(self, done: CycleReport, later: CycleReport) -> CycleReport:
        one = done.followed_by(later)._replace(problems=self.status.problems)
        self._show(last=one)
        return one

    def _full_cycle(self, batch: Batch) -> CycleReport:
        """Watch everything anew and look at everything."""
        self._show(state=State.STARTING if self.status.cycles == 0 else State.APPLYING)
        self.pair.recompile()
        done = self._try(batch)
        self._look_at_locks(time.monotonic())
        root_fails = done.halt is not None and not done.halt.id
        if (identity := self.pair.guard.approved) and not root_fails and not self.pair.doubted:
            self.pair.guard.approved = ""  # it must not let through what comes later
            done = done._replace(
                notes=(*done.notes, f"no removals wait for the approval {identity}; see: syncd status")
            )
        return self._after(done, batch)

    def _try(self, batch: Batch, *, patient: bool = False, sight: Sight | None = None) -> CycleReport:
        """One cycle. No descriptor left, a state directory without room: that halts a watch and does not end it."""
        try:
            if self.hurry and (done := express(self.pair, batch, patient=patient)) is not None:
                return done
            watch = self.watch if batch.everything else None
            with self.watch.attended():
                wait = self._stopping.wait if self.once else None
                return cycle(
                    self.pair, batch, patient=patient, announce=self.announce, sight=sight, watch=watch, wait=wait
                )
        except (OSError, SyncdError) as error:  # the latter of `announce`: a first copy that comes later does not fit
            if self.once or self.status.cycles == 0:
                raise
            self._named |= batch.paths
            return self._failed(error, full=batch.everything)

    def _failed(self, error: OSError | SyncdError, *, full: bool) -> CycleReport:
        return CycleReport(self.pair.number, full, halt=Halt(f"a cycle failed: {error}"))

    def _after(self, done: CycleReport, batch: Batch) -> CycleReport:
        now = time.monotonic()
        self.cut = self._stop
        self._forget_prepared()
        if done.put or done.removed:
            self._written.note(batch.paths, now)
        if done.is_smooth and self._is_at_rest:
            if done.lag is not None:
                self._lags.append(done.lag)
            self._show(state=State.IN_SYNC, cycles=done.number, last=done, last_at=time.time(), entries=done.entries)
            self._on_report(done)
            return done
        if self._busy or done.busy:
            self._after_busy(done, batch, now)
        if self._tries or done.again:
            done = self._give_up(done, batch)
        self._again = done.again if batch.everything else (self._again - batch.paths) | done.again
        self._told = self._told | batch.removed if done.again or done.halt else frozenset()
        # A halt that names removals ends by a change or by a person; another one, when a root is there again.
        self._retry = _later(self._retry, now) if done.stopped or (done.halt and not done.halt.id) else None
        before = self._troubled_places() if self.status.problems else NONE
        if (message := self.watch.watcher.message) != self._message:
            self._message = message
            self._show(notes=(*self._notes, message) if message else self._notes)
            done = done._replace(notes=(*done.notes, message)) if message else done
        self._tell(done, batch)
        if not self.status.problems or not (troubled := self._troubled_places()):
            self._troubled = None
        elif self._troubled is None or not troubled <= before:
            self._troubled = _later(None, now)
        elif now >= self._troubled[0]:
            self._troubled = _later(self._troubled, now)
        return done

    def _forget_prepared(self) -> None:
        """What was made ready for a burst and not used is of no use after it."""
        if len(self.pair.prepared) and not self._settle.holds_burst:
            self.pair.prepared.clear(self.pair.staging.fd)

    def _give_up(self, done: CycleReport, batch: Batch) -> CycleReport:
        """What was never as it was seen becomes a problem, which is looked at less and less often."""
        for path in [path for path in self._tries if path not in done.again and _covers(batch, path)]:
            del self._tries[path]
        for path in done.again:
            self._tries[path] = self._tries.get(path, 0) + 1
        stuck = frozenset(path for path in done.again if path and self._tries[path] > AGAIN_MOST)
        most = min(max(self._tries.values(), default=0), AGAIN_MOST)
        self._again_due = time.monotonic() + AGAIN_PAUSE * 2 ** (most - 2) if most > 1 else 0.0
        problems = (Problem(path, errno.EEXIST, "write", "target") for path in sorted(stuck))
        return done._replace(again=done.again - stuck, problems=(*done.problems, *problems))

    def _after_busy(self, done: CycleReport, batch: Batch, now: float) -> None:
        """When the files that somebody holds open are looked at once more."""
        for path in [path for path in self._busy if path not in done.busy and _covers(batch, path)]:
            del self._busy[path]
        for path in done.busy:
            delay = min(self._busy[path][1] * 2, BUSY_MOST) if path in self._busy else BUSY_FIRST
            self._busy[path] = (now + delay, delay)

    def _tell(self, done: CycleReport, batch: Batch) -> None:
        old = self.status
        if done.lag is not None:
            self._lags.append(done.lag)
        now = time.time()
        problems = done.problems if done.full or not old.problems else merge_problems(old.problems, done, batch)
        self._show(
            state=State.APPLYING if done.cut else self._state(done.halt), cycles=done.number, last=done, last_at=now, lags=self._lags,
            entries=old.entries if done.halt else done.entries, problems=problems, busy=tuple(self._busy),
            drift=done.drift if done.full else old.drift, drift_at=now if done.full else old.drift_at,
            others=len(done.others) if done.full else old.others, halt=done.halt,
            bound=self.watch.watcher.bound, watched=self.watch.coverage.watched,
        )  # fmt: skip
        self._on_report(done)

    def _show(self, **values: Any) -> None:
        self.status = self.status._replace(**values)

    def _mounts_changed(self, fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        os.read(fd, 1)
        try:
            now = self._mounts_that_matter()
        except OSError:
            now = ()  # no descriptor is left; a later look finds a difference
        if now != self._mounts or self.status.halt is not None:
            self._mounts = now
            self._cycle(EVERYTHING)

    def _mounts_that_matter(self) -> tuple[Mount | int | None, ...]:
        """What holds the two roots, and what is mounted below them.

        With numbers that are not given twice: one filesystem may have gone and another one come between two looks.
        """
        roots = self.pair.settings.source, self.pair.settings.target
        numbers = [unique_mount_id(root) if os.path.exists(root) else 0 for root in roots]
        return *numbers, *(mount_of(root) for root in roots), *(mount for root in roots for mount in mounts_below(root))

    # Commands (in the engine thread) -----------------------------------------------------------------

    def _answer(self) -> None:
        os.eventfd_read(self._wake)
        while not self._commands.empty() and not self._stop:
            command, answer = self._commands.get()
            if not answer.set_running_or_notify_cancel():
                continue  # who asked did not wait for it
            try:
                with self.watch.attended():
                    answer.set_result(command())
            except SyncdError as error:
                answer.set_exception(error)
            except Exception as error:
                answer.set_exception(error)
                raise

    def _refuse_commands(self) -> None:
        while not self._commands.empty():
            answer = self._commands.get()[1]
            if answer.set_running_or_notify_cancel():
                answer.set_exception(SyncdError("the watch is ending"))

    def flush(self, deadline: float) -> Flushed:
        """The barrier: what was written before the call is readable in the target afterwards.

        Runs cycles until nothing is pending or the monotonic `deadline` passes. In the engine thread.
        Raises SyncdError when the run is ended before that.
        """
        try:
            return self._flush(deadline)
        except OSError as error:
            return Flushed(halt=self._after(self._failed(error, full=True), EVERYTHING).halt)

    def _flush(self, deadline: float) -> Flushed:
        self._hear(barrier=True)
        cycles = 0
        changed = self.pair.recheck(list(self._busy))
        batch = self._settle.flush()
        troubled = self._troubled_places()
        extra = changed | self._again | frozenset(self.pair.doubted) | troubled
        extra |= self._busy.keys()  # one that is equal by now has to be taken back, too
        self._again = NONE
        if extra:
            batch = batch or Batch()
            batch = batch._replace(paths=batch.paths | extra, deep=batch.deep | troubled)
        if batch is None and (self.status.halt or self._retry or self.pair.has_lost_target):
            batch = EVERYTHING
        while batch is not None:
            done = self._cycle(batch)
            cycles += 1
            if done.cut:
                raise SyncdError("the watch is ending")
            if done.halt:
                return Flushed(halt=done.halt, cycles=cycles)
            if done.stopped:
                return Flushed(problems=done.problems, cycles=cycles)
            batch = Batch(self._again, deep=self._again) if self._again else None
            self._again = NONE
            if batch is not None and self._stopping.wait(self._again_due - time.monotonic()):
                raise SyncdError("the watch is ending")
            if batch is None and self.pair.links_changed and (extra := self.pair.recheck([])):
                batch = Batch(extra)
            if time.monotonic() > deadline:
                return Flushed(timed_out=True, cycles=cycles)
            wait = self._next_look()
            if batch is None and wait is not None:
                if wait >= deadline:
                    break
                if self._stopping.wait(max(0.0, wait - time.monotonic())):
                    raise SyncdError("the watch is ending")
                batch = self._overdue(max(wait, time.monotonic()))
        missing = (*self._busy, *self.pair.doubted)
        return Flushed(missing=missing, problems=self.status.problems, cycles=cycles)

    def _next_look(self) -> float | None:
        """When a busy file or a doubted absence is looked at once more."""
        dues = [due for due, _ in self._busy.values()]
        if (second := self._second_look_due) is not None:
            dues.append(second)
        return min(dues, default=None)

    def approve(self, identity: str) -> CycleReport:
        """Let exactly the set of removals `identity` through. In the engine thread."""
        self.pair.guard.approved = identity
        return self._cycle(EVERYTHING)

    def look_at_target(self) -> None:
        """A cycle, which halts, if the target is not at its path any more. In the engine thread."""
        if self.pair.has_lost_target:
            self._cycle(EVERYTHING)

    def sync(self) -> CycleReport:
        """One full cycle now. In the engine thread."""
        self._hear(barrier=True)
        return self._cycle((self._settle.flush() or EVERYTHING)._replace(everything=True))


def _covers(batch: Batch, path: bytes) -> bool:
    """Whether a cycle of the batch looked at the path."""
    return batch.everything or path in batch.paths or any_above(path, batch.deep)


def _later(before: tuple[float, float] | None, now: float) -> tuple[float, float]:
    """When to try again, and after what delay: each is twice as long as the one before."""
    delay = min(before[1] * 2, RETRY_MOST) if before else RETRY_FIRST
    return now + delay, delay
