"""Run a program that never outlives us: neither it nor anything it starts.

    python -m serve_app.reaper -- PROGRAM [ARG ...]

A small process stands between us and the program. The kernel tells it when we die (however we
die: ``PR_SET_PDEATHSIG``), it adopts whatever the program leaves behind
(``PR_SET_CHILD_SUBREAPER``), and it ends the whole family: SIGTERM, ``GRACE_S`` seconds, SIGKILL.
When the program itself dies, its children are ended almost at once, so a killed vLLM server never
leaves an engine process holding the accelerator.

The death signal follows the *thread* that started the reaper: start it from a thread that lives
as long as the process should.

Source: prctl(2).
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

GRACE_S = 10.0
ORPHANS_GRACE_S = 0.2
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def command(*program: str) -> list[str]:
    """Return the argv that runs ``program`` under a reaper that dies with this process."""
    return [sys.executable, "-m", "serve_app.reaper", str(os.getpid()), "--", *program]


def die_with_parent(sig: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel to send ``sig`` to this process when the thread that started it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(sig), 0, 0, 0)


def adopt_orphans() -> None:
    """Make this process the parent of every descendant that loses its own."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int) -> list[int]:
    """Return the pids below ``pid``, parents before children."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := _parent(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _parent(entry: Path) -> int | None:
    """Return the parent of a process, or None if it is gone or a zombie."""
    try:
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[1])


def end_family(pid: int, grace_s: float = GRACE_S) -> None:
    """End every descendant of ``pid``: SIGTERM, up to ``grace_s`` seconds, then SIGKILL.

    Returns when none is left, at the latest two seconds after the SIGKILL.
    """
    _signal(descendants(pid), signal.SIGTERM)
    _wait_for_none(pid, grace_s)
    _signal(descendants(pid), signal.SIGKILL)
    _wait_for_none(pid, 2.0)


def _signal(pids: list[int], sig: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            continue


def _wait_for_none(pid: int, limit_s: float) -> None:
    """Collect the dead until no descendant is left or the time is up."""
    deadline_s = time.monotonic() + limit_s
    while descendants(pid) and time.monotonic() < deadline_s:
        collect_dead()
        time.sleep(0.02)  # the kernel has no wait for grandchildren
    collect_dead()


def collect_dead() -> dict[int, int]:
    """Reap every zombie child of this process; return exit codes by pid."""
    codes = {}
    try:
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            codes[found[0]] = os.waitstatus_to_exitcode(found[1])
    except ChildProcessError:
        pass
    return codes


def _run(parent: int, program: list[str]) -> int:
    """Run ``program`` until it or we are told to end; leave none of its family."""
    awaited = {
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGCHLD,
    }
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    die_with_parent()
    adopt_orphans()
    if os.getppid() != parent:  # it died before we could ask to be told
        return 1

    def as_child() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, awaited)
        die_with_parent(signal.SIGKILL)

    child = subprocess.Popen(program, process_group=0, preexec_fn=as_child)  # noqa: PLW1509 - no threads here
    code, grace_s = _until_ended(child.pid, awaited)
    end_family(os.getpid(), grace_s)
    return code if code >= 0 else 128 - code


def _until_ended(pid: int, awaited: set[signal.Signals]) -> tuple[int, float]:
    """Wait for the end of ``pid`` or for a signal to stop.

    Returns the exit code, and how long the rest of the family may take: children whose parent is
    dead have nobody to finish for, and whoever watches us waits to hear of it.
    """
    while True:
        told = signal.sigwait(awaited)
        if told != signal.SIGCHLD:
            return 128 + told, GRACE_S
        codes = collect_dead()
        if pid in codes:
            return codes[pid], ORPHANS_GRACE_S


def main() -> None:
    """Enter from the command line; the exit code is the program's."""
    parent, dashes, *program = sys.argv[1:]
    if dashes != "--" or not program:
        sys.exit("usage: python -m serve_app.reaper PARENT_PID -- PROGRAM [ARG ...]")
    sys.exit(_run(int(parent), program))


if __name__ == "__main__":
    main()
