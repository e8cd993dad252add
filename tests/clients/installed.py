"""The clients' own environments: `.venv-clients` from clients.lock, node_modules from npm's lock.

They are kept in the checkout and made again when a lock changes; `make clean` removes them.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from requirements import plan

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "clients.lock"
VENV = ROOT / ".venv-clients"
NODE = ROOT / "tests" / "clients" / "node"
INSTALL_S, PROBE_S = 240, 60
PIP = ("install", "--no-deps", "--no-compile", "--only-binary", ":all:", "--require-hashes")
NPM = ("--no-audit", "--no-fund", "--ignore-scripts")


def python() -> Path:
    """Return the Python of an environment that holds what clients.lock names."""
    interpreter = VENV / "bin" / "python"
    with _locked():
        made_from = _digest(LOCK, Path(sys.executable).resolve())
        if not _is_current(VENV, made_from):
            shutil.rmtree(VENV, ignore_errors=True)
            _make_venv()
            pip = [str(interpreter), "-m", "pip"]
            probe = [*pip, "download", "--no-deps", "--no-cache-dir", "--dest", str(VENV), "pip"]
            install([*pip, *PIP, "-r", str(LOCK)], probe, "No package index for Python")
            _stamp(VENV).write_text(made_from)
    return interpreter


def node() -> Path:
    """Return the Node that the clients of package-lock.json are installed for."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if not found or not npm:
        pytest.skip("Node and npm are not installed here.")
    modules = NODE / "node_modules"
    with _locked():
        made_from = _digest(NODE / "package-lock.json", Path(found).resolve())
        if not _is_current(modules, made_from):
            probe = [npm, "view", "openai", "version", "--prefer-online"]
            install([npm, "ci", *NPM], probe, "No package registry for Node")
            _stamp(modules).write_text(made_from)
    return Path(found)


def _make_venv() -> None:
    base = str(getattr(sys, "_base_executable", sys.executable))
    has_ensurepip = importlib.util.find_spec("ensurepip") is not None
    makers = plan.venv_makers(base, has_ensurepip, shutil.which("virtualenv"), shutil.which("uv"))
    said = [done.stderr for maker in makers if (done := _run([*maker, str(VENV)])).returncode]
    if not (VENV / "bin" / "python").exists():
        pytest.fail(f"{VENV} could not be made: {said}")


def install(command: list[str], probe: list[str], unreachable: str) -> None:
    """Install; only where nothing at all can be had from an index is the test skipped."""
    done = _run(command)
    if done.returncode == 0:
        return
    if _run(probe, PROBE_S).returncode:
        pytest.skip(f"{unreachable} can be reached from here.")
    pytest.fail(f"{' '.join(command)} failed:\n{done.stdout[-2_000:]}\n{done.stderr[-4_000:]}")


def _run(command: list[str], limit_s: float = INSTALL_S) -> "subprocess.CompletedProcess[str]":
    environment = plan.tool_environment(os.environ)
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=NODE,
            env=environment,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return subprocess.CompletedProcess(command, 124, "", f"not done after {late.timeout:g} s")


@contextmanager
def _locked() -> Iterator[None]:
    with VENV.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest(lock: Path, interpreter: Path) -> str:
    return hashlib.sha256(lock.read_bytes() + str(interpreter).encode()).hexdigest()


def _stamp(folder: Path) -> Path:
    return folder / "sluicegate-stamp"


def _is_current(folder: Path, made_from: str) -> bool:
    return _stamp(folder).exists() and _stamp(folder).read_text() == made_from
