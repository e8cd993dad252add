"""What `make` starts, and that it ends."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).resolve().parent.parent / "Makefile"
ENVIRONMENT = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}


def make(*arguments: str, cwd: Path = MAKEFILE.parent) -> subprocess.Popen[str]:
    line = ["make", "--no-print-directory", f"--file={MAKEFILE}", *arguments]
    return subprocess.Popen(
        line, cwd=cwd, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ([], ""),
        (["CONFIG=other.yaml"], "--config 'other.yaml'"),
        (["ENGINE=simulated", "PORT=8001"], "--engine 'simulated' --port '8001'"),
        (["HOST=::1"], "--host '::1'"),
    ],
)
def test_make_run_passes_what_is_said(said: list[str], options: str) -> None:
    """`make run` hands on the options that were given and no other."""
    shown = make("--dry-run", "--old-file=install", "run", *said).communicate(timeout=30)[0]
    assert (
        " ".join(shown.replace("\\\n", " ").split())
        == f"exec .venv/bin/sluicegate run {options}".strip()
    )


PATIENT = """
import pathlib, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("up", flush=True)
signal.sigwait([signal.SIGTERM])
pathlib.Path("ended").touch()
"""


def test_make_run_ends_with_make(tmp_path: Path) -> None:
    """A SIGTERM for make reaches the program, which gets to end in its own way."""
    program = tmp_path / ".venv" / "bin" / "sluicegate"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!{sys.executable}\n{PATIENT}")
    program.chmod(0o755)
    running = make("--old-file=install", "run", cwd=tmp_path)
    assert running.stdout is not None
    assert running.stdout.readline() == "up\n"
    running.send_signal(signal.SIGTERM)
    try:
        running.communicate(timeout=30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    assert (tmp_path / "ended").exists()
