"""A whole gate, started as its user starts it, on real Ray Serve; and what a story needs of it."""

import asyncio
import copy
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
import redis
import yaml

from serve_app import auth, reaper
from serve_app.ports import free_port
from serve_app.store import Address, Store, keys

ROOT = Path(__file__).parents[1]
CONFIG = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
DEFAULT_PROXY = {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "0"}
ADMIN_KEY = "an-admin-key-for-these-stories-only"


def until(
    told: Callable[[], Any], limit_s: float = 60.0, what: str = "it", every_s: float = 0.1
) -> Any:
    """Return the first true answer of ``told``; fail after ``limit_s``."""
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        if answer := told():
            return answer
        time.sleep(every_s)  # processes tell nobody when they are done
    pytest.fail(f"{what} did not happen in {limit_s:g} s")


def simulated(**changes: Any) -> dict[str, Any]:
    """Return serve_config.yaml with its model on the simulated engine and ``changes`` to it."""
    config = copy.deepcopy(CONFIG)
    (application,) = config["applications"]
    (model,) = application["args"]["models"]
    model |= {"engine": "simulated", "source": "none", "env": {}, "num_cpus": 0.1}
    model |= changes
    application["args"]["gateway"] = {"num_cpus": 0.1}
    patient(config)
    lenient = {"max_failed_attempts": 100, "ttl_seconds": 60}  # all tests share one address
    application["args"]["auth"] = {"brute_force": lenient}
    return config


def patient(config: dict[str, Any]) -> dict[str, Any]:
    """Give the gate of ``config`` patience with its store: the machine under a test is busy."""
    (application,) = config["applications"]
    application["args"].setdefault("store", {}).setdefault("timeout_ms", 2_000)
    return config


@dataclass
class RunningGate:
    """One gate: ``sluicegate run`` as a child of the test."""

    folder: Path
    config: dict[str, Any]
    env: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def data(self) -> Path:
        """The data folder that this gate alone uses."""
        return self.folder / "share" / "sluicegate"

    def start(self) -> "RunningGate":
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "serve_config.yaml"
        path.write_text(yaml.safe_dump(self.config))
        self.printed = self.folder / "printed"
        program = Path(sys.executable).with_name("sluicegate")
        with self.printed.open("wb") as out:
            self.process = subprocess.Popen(
                [program, "run", "--config", path, "--port", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=ROOT,
                env={**os.environ, "XDG_DATA_HOME": str(self.folder / "share"), **self.env},
            )
        return self

    def ready(self, limit_s: float = 120.0) -> "RunningGate":
        def told() -> bool:
            if self.process.poll() is not None:
                pytest.fail(f"the gate ended:\n{self.said()}\n{self.log()}")
            return "is ready at" in self.said()

        until(told, limit_s, "ready")
        return self

    def said(self) -> str:
        return self.printed.read_text()

    def log(self) -> str:
        logs = self.data / "logs" / "serve.log"
        return logs.read_text()[-6_000:] if logs.exists() else "no serve.log"

    @property
    def first_key(self) -> str:
        return re.search(r"shown this once: (\S+)", self.said())[1]  # type: ignore[index]

    @property
    def certificate(self) -> str | None:
        """The path of the certificate that this gate was told of."""
        path = self.config["http_options"].get("ssl_certfile")
        return str(path) if path else None

    @property
    def url(self) -> str:
        return f"http{'s' if self.certificate else ''}://127.0.0.1:{self.port}"

    def client(self, key: str | None = ADMIN_KEY, **more: Any) -> httpx.Client:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        if self.certificate:
            more |= {"verify": ssl.create_default_context(cafile=self.certificate)}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **more)

    def openai(self, key: str = ADMIN_KEY) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120)

    def new_key(self, **request: Any) -> str:
        with self.client() as client:
            made = client.post("/v1/auth/api-keys", json={"name": "a story's", **request})
            assert made.status_code == 201, made.text
            return str(made.json()["key"])

    def made_operator(self) -> str:
        """Make an operator's key past the API, as the bootstrap does; return its id."""

        async def make() -> str:
            store = Store(self.store_url(), timeout_ms=5_000)
            by = auth.Caller("default", "test", auth.PERMISSIONS, operator=True)
            request = auth.KeyRequest(name="an operator's", all_tenants=True)
            _, record = await auth.Keys(store, auth.Known(())).create(request, by=by)
            await store.close()
            return record.id

        return asyncio.run(make())

    def store_url(self) -> str:
        """Return the URL of the embedded store."""
        conf = (self.data / "store" / "valkey.conf").read_text()
        port, password = (re.search(rf"{name} (\S+)", conf)[1] for name in ("port", "requirepass"))  # type: ignore[index]
        return f"redis://:{password}@127.0.0.1:{port}/0"

    def redis(self) -> "redis.Redis[str]":
        return redis.Redis.from_url(self.store_url(), decode_responses=True)

    def replicas(self, model: str = "smollm2-135m") -> dict[str, Address]:
        """Return the registered replicas of ``model``, and where their engines listen."""
        with self.redis() as store:
            found = store.hgetall(keys.line(model)[0])
            return {replica: Address.from_json(info) for replica, info in found.items()}

    def engine(self) -> Address:
        return next(iter(until(self.replicas, 60, "a replica").values()))

    def gauge(self, name: str, at: Address | None = None) -> float:
        at = at or self.engine()
        text = httpx.get(f"{at.url}/metrics", headers=at.headers, timeout=10).text
        found = re.search(rf"^vllm:{name}{{[^}}]*}} ([0-9.e+]+)$", text, re.MULTILINE)
        assert found, f"no gauge {name}"
        return float(found[1])

    def access_lines(self) -> list[dict[str, Any]]:
        logs = (self.data / "logs" / "serve.log").read_text()
        return [json.loads(line) for line in re.findall(r'\{"time":.*\}', logs)]

    def stop(self, sig: signal.Signals = signal.SIGINT, limit_s: float = 60.0) -> int:
        self.process.send_signal(sig)
        return self.process.wait(limit_s)

    def end(self) -> None:
        """Stop it if it still runs, whatever the test found."""
        if self.process is not None and self.process.poll() is None:
            self.stop(signal.SIGTERM)

    def family(self) -> list[int]:
        return reaper.descendants(self.process.pid)

    def actors(self, of: str) -> list[int]:
        """Return the pids of Serve's replicas of whatever deployment has ``of`` in its name."""
        found = []
        for pid in self.family():
            try:
                line = " ".join(psutil.Process(pid).cmdline())
            except psutil.Error:
                continue
            if "ServeReplica" in line and f":{of}" in line:
                found.append(pid)
        return found


def chat(text: str = "Hello", **more: Any) -> dict[str, Any]:
    """Return the body of a chat completion."""
    messages = [{"role": "user", "content": text}]
    return {"model": "smollm2-135m", "messages": messages, "max_tokens": 8, **more}
