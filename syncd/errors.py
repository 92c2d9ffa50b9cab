"""Every error syncd raises on purpose, and its exit code.

    SyncdError                1  something failed
    ├── UsageError            2  the command line or a setting is wrong
    ├── NotInSync             3  source and target differ
    ├── NothingRunning        4  no watch holds this pair, or none is known
    ├── Refused               5  going on might lose something; a person decides
    │   ├── TargetBusy        5  another syncd writes this target
    │   ├── FirstMeeting      5  a target nobody has mirrored yet holds other content
    │   └── Halted            5  a guard stopped the pair
    ├── TimedOut              6  the answer did not come in time
    └── Interrupted         130  the user stopped it before it was done

An exit code of 0 is success. Trouble at one path is not an error: it is a
`model.report.Problem`, and the cycle goes on.
"""

from __future__ import annotations


class SyncdError(Exception):
    """Something failed. The message says what, where, and what to do next."""

    exit_code = 1


class UsageError(SyncdError):
    """The command line or a setting is wrong."""

    exit_code = 2


class NotInSync(SyncdError):
    """Source and target differ, or the answer is stale."""

    exit_code = 3


class NothingRunning(SyncdError):
    """No watch holds this pair, or no pair with this TARGET is known."""

    exit_code = 4


class Refused(SyncdError):
    """Going on might lose something: a person has to decide."""

    exit_code = 5


class TargetBusy(Refused):
    """Another syncd writes this target."""


class FirstMeeting(Refused):
    """A target that was never mirrored holds content unlike the source's."""


class Halted(Refused):
    """A guard stopped the pair; nothing was applied."""


class TimedOut(SyncdError):
    """The answer did not come in time."""

    exit_code = 6


class Interrupted(SyncdError):
    """The user stopped it before it was done."""

    exit_code = 130
