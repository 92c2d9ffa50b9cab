"""Place: carry out a slice of actions. Take, intents, publish, outcomes."""

from __future__ import annotations

import errno
import time

from syncd.kernel.contract import Control, Intent, PlaceOptions, Root, Status, Trouble
from syncd.kernel.pure import journal
from syncd.kernel.pure.call import Call, Ended, Full, PureOutcomes, crash_point
from syncd.kernel.pure.diff import Action, PureActions
from syncd.kernel.pure.files import Cancelled
from syncd.kernel.pure.publish import publish
from syncd.kernel.pure.rules import PureRules
from syncd.kernel.pure.take import Taken, take, take_again
from syncd.kernel.pure.tree import PureBase
from syncd.kernel.pure.way import finish_modes
from syncd.model.plan import Verb

MOST = 2000  # actions in one slice
PAUSE = 0.03  # seconds between two reads of a file that somebody holds open

Ready = dict[int, tuple[Action, Taken | None]]


def place(
    source: Root,
    target: Root,
    rules: PureRules,
    base: PureBase,
    actions: PureActions,
    start: int,
    stop: int,
    options: PlaceOptions,
    control: Control,
) -> PureOutcomes:
    """Carry out actions start … stop: see the contract."""
    stop = min(stop, len(actions), start + MOST)
    outcomes = PureOutcomes(next=start)
    call = Call(source, target, rules, base, actions, options, control, outcomes, crash_point())
    try:
        ready, untaken = take_all(call, start, stop)
        if ready:
            journal.append(options.journal, journal.intents_frame(intent(*each) for each in ready.values()))
            call.crash("intents")
        outcomes.next = publish_all(call, ready, untaken)
        finish(call, ready, stop)
    finally:
        call.tidy()
    return outcomes


def take_all(call: Call, start: int, stop: int) -> tuple[Ready, int]:
    """The actions that can go on, and the first that could not be taken for want of room (else `stop`).

    Of the actions after that one only removals go on. A cancel leaves nothing to go on.
    """
    ready: Ready = {}
    untaken = stop
    for index in range(start, stop):
        action = call.actions.steps[index]
        if call.control.cancelled:
            return {}, start
        if index > untaken and action.verb is not Verb.REMOVE:
            continue
        try:
            taken = take(call, action)
            ready[index] = action, taken
            if taken:
                call.crash("take")
        except Cancelled:
            return {}, start
        except Full as full:
            call.outcomes.stopped = full.number
            untaken = index
        except Ended as end:
            note_end(call, index, action, end)
    try:
        take_held(call, ready)
    except Cancelled:
        return {}, start
    return ready, untaken


def take_held(call: Call, ready: Ready) -> None:
    """Read the files that somebody holds open once more, after one pause for all of them."""
    held = [(index, action, taken) for index, (action, taken) in ready.items() if taken and taken.held]
    if held:
        time.sleep(PAUSE)
    for index, action, taken in held:
        try:
            take_again(call, action.row.path, taken)
        except Ended as end:
            del ready[index]
            note_end(call, index, action, end)


def intent(action: Action, taken: Taken | None) -> Intent:
    """What the journal says about an action before it is done."""
    if taken is None:
        return Intent(action.row.path, 0, None, None)
    return Intent(action.row.path, taken.entry.kind, taken.entry.digest, taken.entry.link)


def publish_all(call: Call, ready: Ready, untaken: int) -> int:
    """Carry out what is ready; where the next slice has to start.

    Once the target takes no more, only removals go on: they may make room.
    """
    following = untaken
    outcomes = call.outcomes
    for index, (action, taken) in ready.items():
        path = action.row.path
        if call.control.cancelled:
            return min(following, index)
        if outcomes.stopped and action.verb is not Verb.REMOVE:
            following = min(following, index)
            continue
        try:
            status, row = publish(call, action, taken)
        except Cancelled:
            return min(following, index)
        except Full as full:
            outcomes.stopped = full.number
            following = min(following, index)
        except Ended as end:
            note_end(call, index, action, end)
        else:
            outcomes.ends[index] = path, status, None
            outcomes.learnt.append((path, row))
            call.control.entries += 1
    return following


def note_end(call: Call, index: int, action: Action, end: Ended) -> None:
    if action.row.source is None:
        call.actions.undone.append(action.row.path)
    trouble = None
    if end.status is Status.FAILED:
        trouble = Trouble(action.row.path, end.number, end.op, end.side)
    call.outcomes.ends[index] = action.row.path, end.status, trouble


def finish(call: Call, ready: Ready, stop: int) -> None:
    """Set the modes of directories if nothing follows, and write the outcomes to the journal.

    If these cannot be written the slice counts as stopped; the outcomes are true all the same.
    """
    outcomes, steps = call.outcomes, call.actions.steps
    for index in [each for each in outcomes.ends if each >= outcomes.next]:
        if steps[index].verb is not Verb.REMOVE:
            del outcomes.ends[index]  # it did not get its turn, so it comes again
    outcomes.troubles = [trouble for _, (_, _, trouble) in sorted(outcomes.ends.items()) if trouble]
    if outcomes.next < stop or outcomes.next == len(steps) or outcomes.stopped:
        finish_modes(call)
    if ready:
        try:
            journal.append(call.options.journal, journal.outcomes_frame(outcomes.rows()))
        except OSError as error:
            outcomes.stopped = outcomes.stopped or error.errno or errno.EIO
        call.crash("outcomes")
