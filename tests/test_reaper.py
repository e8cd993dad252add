"""Nothing that was started is left, however it ends: real processes, killed for real."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serve_app import reaper

DEADLINE_S = 10.0

# A program with a child, a child in a session of its own, and an orphan's orphan. Each says who it
# is, in one write, so that no two lines mix.
FAMILY = """
import os, subprocess, sys, time
def child(role, **how):
    code = f"import os, time; os.write(1, b'{role} %d\\\\n' % os.getpid()); time.sleep(600)"
    return subprocess.Popen([sys.executable, "-c", code], **how)
child("child")
child("session", start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        child("orphan")
    os._exit(0)
os.wait3(0)
os.write(1, b"program %d\\n" % os.getpid())
"""
STAYS = FAMILY + "time.sleep(600)"
ROLES = {"program", "child", "session", "orphan"}

# Starts a program under a reaper, as the gate does, and waits for it.
PARENT = """
import subprocess, sys
from serve_app import reaper
sys.exit(subprocess.run(reaper.command(sys.executable, "-c", sys.argv[1])).returncode)
"""


def lives(pid: int) -> bool:
    """Whether ``pid`` runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def soon(true: Callable[[], bool]) -> bool:
    """Whether ``true`` becomes so before the deadline."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not true() and time.monotonic() < deadline_s:
        time.sleep(0.02)  # the kernel tells nobody but a parent
    return true()


class Started:
    """A parent, its reaper, and the family of the program under it."""

    def __init__(self, program: str) -> None:
        self.parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.family: dict[str, int] = {}
        self.reaper = 0

    def gather(self) -> None:
        """Wait until everybody has said who it is."""
        assert self.parent.stdout is not None
        while self.family.keys() != ROLES:
            role, pid = self.parent.stdout.readline().split()
            self.family[role] = int(pid)
        (self.reaper, *_) = reaper.descendants(self.parent.pid)

    def gone(self) -> bool:
        """Whether no member of the family and no reaper is left."""
        return not any(map(lives, [self.reaper, *self.family.values()]))

    def end(self) -> None:
        """Leave nothing behind, whatever a test found."""
        for pid in [self.parent.pid, self.reaper, *self.family.values()]:
            if pid and lives(pid):
                os.kill(pid, signal.SIGKILL)
        self.parent.wait()
        for stream in (self.parent.stdin, self.parent.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def start() -> Iterator[Callable[[str], Started]]:
    began: list[Started] = []

    def starting(program: str) -> Started:
        began.append(Started(program))
        began[-1].gather()
        return began[-1]

    yield starting
    for one in began:
        one.end()


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_the_family_dies_with_the_parent(start, sig: signal.Signals) -> None:
    """However the parent dies, nobody is left: no child, no session of its own, no orphan."""
    started = start(STAYS)
    assert all(map(lives, started.family.values()))
    started.parent.send_signal(sig)
    started.parent.wait()
    assert soon(started.gone)


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSEGV])
def test_the_family_dies_with_the_program(start, sig: signal.Signals) -> None:
    """When the program itself is killed, its children go too, and the parent hears of it."""
    started = start(STAYS)
    os.kill(started.family["program"], sig)
    assert started.parent.wait(DEADLINE_S) not in (0, None)
    assert soon(started.gone)


def test_the_reaper_told_to_stop(start) -> None:
    """SIGTERM to the reaper ends the family, and the exit code says so."""
    started = start(STAYS)
    os.kill(started.reaper, signal.SIGTERM)
    assert started.parent.wait(DEADLINE_S) == 128 + signal.SIGTERM
    assert soon(started.gone)


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_exit_code_is_the_programs(start, code: int) -> None:
    """It is passed on, and what the program left behind is ended first."""
    started = start(FAMILY + f"sys.stdin.readline(); sys.exit({code})")
    assert started.parent.stdin is not None
    started.parent.stdin.close()
    assert started.parent.wait(DEADLINE_S) == code
    assert started.gone()


DEAF = """
import os, subprocess, sys, time
from serve_app import reaper
code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)"
deaf = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
deaf.stdout.readline()
began_s = time.monotonic()
reaper.end_family(os.getpid(), grace_s=0.3)
print(deaf.pid, time.monotonic() - began_s)
"""


def test_who_ignores_sigterm_is_killed() -> None:
    """After the grace, SIGKILL: nobody stays by being deaf."""
    done = subprocess.run([sys.executable, "-c", DEAF], capture_output=True, text=True, check=True)
    pid, took_s = done.stdout.split()
    assert not lives(int(pid))
    assert 0.3 <= float(took_s) < 2.3


def test_a_parent_that_died_before(tmp_path: Path) -> None:
    """A reaper whose parent is not the one it was started for starts nothing."""
    proof = tmp_path / "started"
    argv = reaper.command(sys.executable, "-c", f"open({str(proof)!r}, 'w')")
    argv[argv.index(str(os.getpid()))] = "1"
    assert subprocess.run(argv, check=False).returncode == 1
    assert not proof.exists()


def test_zombies_are_gone() -> None:
    """A dead child that nobody has collected yet is no descendant: it holds nothing any more."""
    with subprocess.Popen(["sleep", "600"]) as child:
        assert child.pid in reaper.descendants(os.getpid())
        os.kill(child.pid, signal.SIGKILL)
        assert soon(lambda: not lives(child.pid))
        assert child.pid not in reaper.descendants(os.getpid())
        assert child.returncode is None


@pytest.mark.parametrize("args", [["1", "--"], ["1", "-x", "true"]])
def test_a_wrong_command_line(args: list[str]) -> None:
    """It says how it is used and starts nothing."""
    argv = [sys.executable, "-m", "serve_app.reaper", *args]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("usage: ")
