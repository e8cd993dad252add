"""What a tool makes of our own document is answered as it says (CONTRACT §2, §3, §5).

Schemathesis reads ``/openapi.json`` and asks each route for what it may and may not be asked.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import ADMIN_KEY, RunningGate, simulated

EXAMPLES, SEED = 12, 1
LIMIT_S = 420
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
CONFIG = """\
[checks.not_a_server_error]
expected-statuses = ["2xx", "4xx", "503"]  # a model that was paused by the request before
"""


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[RunningGate]:
    """A gate that is asked for everything, pauses and removals included; nobody shares it."""
    config = simulated(simulated={"decode_ms": 1, "decode_ms_per_sequence": 0})
    config["applications"][0]["args"]["limits"] = {"default": {"requests_per_minute": 1_000_000}}
    env = {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY}
    running = RunningGate(tmp_path / "gate", config, env).start()
    try:
        yield running.ready()
    finally:
        running.end()


@pytest.mark.timeout(LIMIT_S + 180)
def test_each_route_answers_as_the_document_says(alone: RunningGate, tmp_path: Path) -> None:
    """No 500, no status, header or shape that is not told, nobody waits long, no stack trace."""
    pytest.importorskip("schemathesis", reason="schemathesis is not installed: make install-dev")
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    url = f"http://127.0.0.1:{alone.port}"
    asked = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--url", url),
        *("--header", f"Authorization: Bearer {ADMIN_KEY}", "--header", "x-max-wait-s: 1"),
        *("--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS)),
        *("--max-examples", str(EXAMPLES), "--seed", str(SEED), "--continue-on-failure"),
        *("--request-timeout", "20", "--max-response-time", "15", "--no-color", "--no-shrink"),
    ]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        asked, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    lines = alone.access_lines()
    assert len(lines) > 1_000
    assert [one for one in lines if one["status"] == 500] == []
    assert "Traceback" not in alone.log()
