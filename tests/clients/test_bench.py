"""vLLM's own load generator against the gate, as it comes."""

import json
import subprocess
import sys
from pathlib import Path

from serve_app.engine.sources import resolve
from serve_app.settings import Settings
from tests.clients.asked import SCRIPTS, environment
from tests.running import CONFIG, RunningGate, until

REQUESTS, TOKENS = 16, 12


def tokenizer() -> str:
    """Return the folder of the model that a real gate serves."""
    (model,) = Settings.from_args(CONFIG["applications"][0]["args"]).models
    return resolve(model)


def test_vllm_bench_serve_loads_a_gate(real_gate: RunningGate, tmp_path: Path) -> None:
    """All requests are served to the last token; what it counts is what the gate's ledger says."""
    key = real_gate.new_key()
    asked = {
        "backend": "openai-chat",
        "base-url": real_gate.url,
        "endpoint": "/v1/chat/completions",
        "model": "smollm2-135m",
        "tokenizer": tokenizer(),
        "dataset-name": "random",
        "random-input-len": 24,
        "random-output-len": TOKENS,
        "num-prompts": REQUESTS,
        "max-concurrency": REQUESTS,
        "result-dir": tmp_path,
        "result-filename": "result.json",
    }
    options = [part for name, text in asked.items() for part in (f"--{name}", str(text))]
    flags = ["--ignore-eos", "--save-result", "--disable-tqdm"]
    done = subprocess.run(
        [sys.executable, SCRIPTS / "vllm_bench.py", *options, *flags],
        capture_output=True,
        text=True,
        env=environment(real_gate, key),
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    told = json.loads((tmp_path / "result.json").read_text())
    assert (told["completed"], told["failed"]) == (REQUESTS, 0)
    assert told["total_output_tokens"] == REQUESTS * TOKENS

    def served() -> int:
        with real_gate.client(key) as client:
            return int(client.get("/v1/usage").json()["totals"]["output_tokens"])

    until(lambda: served() >= REQUESTS * TOKENS, 10, "the ledger")
    assert served() % TOKENS == 0
    assert served() // TOKENS - REQUESTS in (0, 1), "the requests, and one that tries the way"
