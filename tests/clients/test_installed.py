"""Tests of clients are skipped for one reason only: nothing can be had from an index."""

import sys
from pathlib import Path

import pytest

from tests.clients import installed

GET = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--dest"]


def install(folder: Path) -> None:
    """Ask for a package that does not exist, with the probe that the clients' are tried by."""
    wanted = [*GET, str(folder), "sluicegate-is-in-no-index==0.0.1"]
    installed.install(wanted, [*GET, str(folder), "pip"], "No package index for Python")


def test_without_an_index_it_is_a_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that reaches none cannot install, whatever is asked for."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="No package index"):
        install(tmp_path)


def test_with_an_index_what_is_wrong_is_a_failure(tmp_path: Path) -> None:
    """What cannot be installed though the index answers is our mistake."""
    with pytest.raises(pytest.fail.Exception, match="is-in-no-index"):
        install(tmp_path)
