"""A client's script, run as its user runs it against a gate, and what it saw."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients import installed
from tests.running import RunningGate, until

SCRIPTS = Path(__file__).with_name("scripts")
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE")


@dataclass(frozen=True)
class Seen:
    """What the cases of one script saw."""

    cases: dict[str, dict[str, Any]]

    def __call__(self, case: str) -> Any:
        """Return what ``case`` saw; it must not have raised."""
        told = self.cases[case]
        assert "saw" in told, told
        return told["saw"]

    def raised(self, case: str) -> dict[str, Any]:
        """Return what ``case`` raised: its classes and what they tell."""
        told = self.cases[case]
        assert "raised" in told, told
        return dict(told["raised"])

    def took_s(self, case: str) -> float:
        """Return how long ``case`` took by the client's clock."""
        return float(self.cases[case]["took_s"])


def environment(gate: RunningGate, key: str, **more: str) -> dict[str, str]:
    """Return where the gate is and the key, as the SDKs themselves read them."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    places = {"OPENAI_BASE_URL": f"{gate.url}/v1", "ANTHROPIC_BASE_URL": gate.url}
    known = {"OPENAI_API_KEY": key, "ANTHROPIC_API_KEY": key, **more}
    return kept | places | known | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # else it is fetched


SLOW = {"limit": 30, "burst": 1}
"""One request at once and the next after two seconds."""


def limited_keys(gate: RunningGate) -> dict[str, str]:
    """Return keys that the gate refuses, by the names under which the scripts look for them."""
    slow = {"requests_per_minute": SLOW}
    return {
        "KEY_WRONG": "sg-wrong",
        "KEY_READER": gate.new_key(permissions=["read_models"]),
        "KEY_ONE_AT_A_TIME": gate.new_key(limits=slow),
        "KEY_RETRIED": gate.new_key(limits=slow),
        "KEY_SPENT": gate.new_key(limits={"requests_per_day": 1}),
    }


def statuses(gate: RunningGate, key: str, count: int) -> list[int]:
    """Return how the requests of ``key`` ended, the best first, once the log has ``count`` of them.

    A reply is logged when it is settled, and so perhaps after a later refusal.
    """

    def told() -> list[int]:
        key_id = key.split("-")[2]
        return [line["status"] for line in gate.access_lines() if line.get("key_id") == key_id]

    until(lambda: len(told()) >= count, 20, "the log lines")
    return sorted(told())


def ask(program: list[str | Path], cases: list[str], env: dict[str, str]) -> Seen:
    """Run ``cases`` of a script in one process and return what they saw."""
    try:
        done = subprocess.run(
            [*program, *cases], capture_output=True, text=True, env=env, timeout=180, check=False
        )
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"{late}\n{late.stderr!r}")
    assert done.returncode == 0, done.stderr[-4_000:]
    return Seen(json.loads(done.stdout.splitlines()[-1]))


def python_script(name: str, python: Path | str | None = None) -> list[str | Path]:
    """Return how a script runs, in the clients' environment unless another Python is named."""
    return [python or installed.python(), "-X", "utf8", SCRIPTS / name]
