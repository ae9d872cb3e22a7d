"""Runs one command, and ends it with all that it has started when told to, or when its parent dies.

A test run that is killed leaves nothing behind: the kernel tells this process (parent-death signal), and what
the command has started, also in the background, is its child by adoption (sub-reaper), so all of it is found.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys

import psutil

SET_PARENT_DEATH_SIGNAL, SET_CHILD_SUBREAPER = 1, 36
"""Of Linux's prctl(2)."""

PATIENCE_S = 10.0
"""How long the processes may take to stop by themselves before they are killed."""


def main() -> int:
    """Arguments: process id of the parent, user to run as, folder to remove at the end, command."""
    parent, user, belongings, command = int(sys.argv[1]), sys.argv[2] or None, sys.argv[3], sys.argv[4:]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    libc.prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before it could be watched
        return 1
    try:
        groups: list[str] | None = None if user is None else []
        return subprocess.Popen(command, user=user, group=user, extra_groups=groups).wait()
    except _StoppedError:
        return 0
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        stop_children()
        if belongings:
            shutil.rmtree(belongings, ignore_errors=True)


class _StoppedError(Exception):
    pass


def _stop(number: int, frame: object) -> None:
    raise _StoppedError


def stop_children() -> None:
    """Ask every descendant to stop, eldest first, and kill what is left after a while."""
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        # again and again: a process that stops may leave children that were not ours a moment ago
        for _ in range(3):
            family = psutil.Process().children(recursive=True)
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    ask(process)
            psutil.wait_procs(family, timeout=PATIENCE_S)
            if not psutil.Process().children():
                return
            if ask is psutil.Process.terminate:
                break


if __name__ == "__main__":
    sys.exit(main())
