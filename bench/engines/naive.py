"""naive.py (watchdog | watchfiles) SOURCE TARGET: the twenty lines people write around a watching library.

It copies what an event names (shutil.copy2 beside, os.replace) and removes what is gone. It is fast to write, checks
nothing, and is what a mirror made by hand is like. TARGET must equal SOURCE; it says "ready".
"""

from __future__ import annotations

import os
import queue
import shutil
import sys
from collections.abc import Iterator


def paths_of_watchdog(source: str) -> Iterator[str]:
    """Every path that an event names, as it comes."""
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers import Observer

    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()

    class Handler(FileSystemEventHandler):
        """Passes on both names of every event that may have changed something."""

        def on_any_event(self, event: FileSystemEvent) -> None:
            if event.event_type in ("closed", "moved", "deleted", "created") and not (
                event.event_type == "created" and not event.is_directory
            ):
                for path in (event.src_path, event.dest_path):
                    if path:
                        waiting.put(os.fsdecode(path))

    observer = Observer()
    observer.schedule(Handler(), source, recursive=True)
    observer.start()
    print("ready", flush=True)
    while True:
        yield waiting.get()


def paths_of_watchfiles(source: str) -> Iterator[str]:
    """Every path of every set of changes."""
    from watchfiles import watch

    # A path named after the set was taken comes in the next one; nothing is filtered.
    for index, changes in enumerate(
        watch(source, debounce=50, step=5, watch_filter=None, yield_on_timeout=True, rust_timeout=200)
    ):
        if index == 0:
            print("ready", flush=True)
        for _, path in changes:
            yield path


def mirror(source: str, target: str, path: str) -> None:
    """Make the target's entry what the source's is now."""
    relative = os.path.relpath(path, source)
    if relative.split(os.sep)[0] == ".git":
        return
    into = os.path.join(target, relative)
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.copytree(path, into, symlinks=True, dirs_exist_ok=True)
        else:
            beside = os.path.join(target, ".naive")
            shutil.copy2(path, beside, follow_symlinks=False)
            os.makedirs(os.path.dirname(into), exist_ok=True)
            os.replace(beside, into)
    except FileNotFoundError:
        if not os.path.lexists(path):
            if os.path.isdir(into) and not os.path.islink(into):
                shutil.rmtree(into)
            elif os.path.lexists(into):
                os.unlink(into)


def main() -> None:
    """Mirror until killed."""
    library, source, target = sys.argv[1:]
    for path in {"watchdog": paths_of_watchdog, "watchfiles": paths_of_watchfiles}[library](os.path.realpath(source)):
        mirror(os.path.realpath(source), target, path)


if __name__ == "__main__":
    main()
