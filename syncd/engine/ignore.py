"""Gathers the sources of rules in their order: built-in, `.gitignore`, `.syncdignore`, flags."""

from __future__ import annotations

from syncd.kernel.contract import Kernel, Rules, RuleSource
from syncd.model.change import Batch
from syncd.model.path import any_above
from syncd.model.settings import Settings

VCS = b".git\n.hg\n.svn\n.jj\n"
# Vim's swap files begin with a dot; `*.sw?` would take movie.swf along. Its probe 4913 is never a directory.
TEMPORARY = (
    b"*~\n\\#*\\#\n.\\#*\n.*.sw[a-p]\n.*.sw[a-p]x\n.sw[a-p]\n.sw[a-p]x\n4913\n!4913/\n*___jb_*\n.fuse_hidden*\n.nfs*\n"
)
OWN = b"/.syncd/\n.syncd-[0-9]*\n.*.syncd/\n"

RULE_FILES = frozenset((b".gitignore", b".syncdignore"))


def compile_rules(kernel: Kernel, settings: Settings) -> Rules:
    """The rules of a pair; those inside the source are learnt while it is walked."""
    first = [RuleSource("built-in (editors' temporary files)", TEMPORARY)]
    if not settings.vcs:
        first.insert(0, RuleSource("built-in (version control; --vcs mirrors it)", VCS))
    nested = (b".gitignore", b".syncdignore") if settings.gitignore else (b".syncdignore",)
    last = [RuleSource(name, text) for name, text in settings.ignore_from]
    if settings.ignore:
        last.append(RuleSource("--ignore", "\n".join(settings.ignore).encode("utf-8", "surrogateescape")))
    last.append(RuleSource("built-in (syncd's own files)", OWN))
    return kernel.compile_rules(first, nested, last, settings.overlays)


def takes_rules_away(batch: Batch, rules: Rules) -> bool:
    """Whether a directory that taught rules, or one above it, was moved, removed or replaced: its rules went along.

    One that only came with rules of its own is taken in, too: whoever listed it may have learnt them before.
    """
    gone = batch.removed | batch.deep
    return bool(gone) and any(top in gone or any_above(top, gone) for top in rules.taught())


def names_rule_file(paths: frozenset[bytes], settings: Settings) -> bool:
    """Whether a rule file that is in force is among `paths`."""
    blob = b"\0/".join(paths)  # one search instead of a step per path
    if b"ignore" not in blob:
        return False
    names = RULE_FILES if settings.gitignore else frozenset((b".syncdignore",))
    return any(b"/" + name + b"\0" in b"/" + blob + b"\0" for name in names)
