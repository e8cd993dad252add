"""Start the gate on one machine, tell when it is ready, and leave nothing behind.

    reaper ── serve run ── Ray ── HAProxy, gateway, store, engines

Told to stop, Serve shuts down in order; then the reaper ends whoever is left.

What Ray and Serve print goes to a log file; the terminal shows what a person waits for.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from serve_app import reaper
from serve_app.auth import reveal_path
from serve_app.certificate import trusting
from serve_app.engine import engine_log_dir, engine_log_name, last_words
from serve_app.environment import Secrets, data_dir
from serve_app.plan import Plan
from serve_app.ray_environment import environment

READY_LIMIT_S = 900.0
FAILED_TO_DEPLOY = b"failed to deploy"  # what Serve answers for an application that is given up
SHUTDOWN_S = 20.0


def run(plan: Plan) -> int:
    """Serve until told to stop; return the exit code. Nothing that was started is left."""
    told: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        told.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, note)
    folder = data_dir(plan.settings.store)
    (folder / "logs").mkdir(parents=True, exist_ok=True, mode=0o700)
    log = folder / "logs" / "serve.log"
    scratch = Path(tempfile.mkdtemp(prefix="sluicegate-"))
    try:
        serving = _start(plan, scratch, log)
        try:
            return _until_stopped(plan, serving, log, told)
        finally:
            _stop(serving, told)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _start(plan: Plan, scratch: Path, log: Path) -> "subprocess.Popen[bytes]":
    """Start ``serve run`` under a reaper, in a process group that the terminal does not signal."""
    config, env = scratch / "serve_config.yaml", environment(plan.host, plan.certificate, scratch)
    haproxy = env["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    config.write_text(yaml.safe_dump(plan.config_for(haproxy=haproxy)))
    _say(f"Starting; what Ray and Serve print is in {log}")
    with suppress(FileNotFoundError):
        log.replace(log.with_suffix(".log.1"))  # the last run's, for whoever asks why it ended
    with log.open("wb") as out:
        return subprocess.Popen(
            reaper.command(sys.executable, "-m", "serve_app.serving", str(config)),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=env,
            process_group=0,
        )


def _until_stopped(
    plan: Plan, serving: "subprocess.Popen[bytes]", log: Path, told: list[int]
) -> int:
    """Wait for ready, say so, and wait for the end."""
    deadline_s, began_s = time.monotonic() + READY_LIMIT_S, time.time()
    seen: dict[str, Any] = {}
    ready = False
    while not told:
        if serving.poll() is not None:
            return _fail(f"Serve ended: {_why(log)}")
        if not ready:
            health = _health(plan)
            seen = _progress(seen, health)
            served, why = _served(health), _failure(plan, health, began_s)
            if why and not served:
                return _fail(why)
            if health.get("failed"):
                return _fail(f"the gate did not start: {_why(log)}")
            ready = health.get("status") in ("ready", "degraded")
            if ready:
                _banner(plan, served[0], why)
            elif time.monotonic() > deadline_s:
                return _fail(f"not ready after {READY_LIMIT_S:g} s; see {log}")
        time.sleep(0.2)  # a person waits; nothing tells us
    return 0


def _health(plan: Plan) -> dict[str, Any]:
    """Return what ``/health/ready`` says; empty while nobody answers."""
    ours = trusting(plan.certificate) if plan.certificate else None
    try:
        with urllib.request.urlopen(f"{plan.url}/health/ready", timeout=2, context=ours) as reply:
            said = json.load(reply)
    except urllib.error.HTTPError as err:
        with err:
            raw = err.read()
            said = {"failed": True} if FAILED_TO_DEPLOY in raw else _json(raw)
    except OSError:
        return {}
    return said if isinstance(said, dict) else {}


def _json(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except ValueError:
        return {}


def _progress(seen: dict[str, Any], health: dict[str, Any]) -> dict[str, Any]:
    """Say what has changed since the last look."""
    models = health.get("models", {})
    for name, state in models.items():
        if seen.get("models", {}).get(name) != state:
            _say(f"model {name}: {state}")
    return health or seen


def _served(health: dict[str, Any]) -> list[str]:
    """Return the models that are served, or may yet be."""
    return [name for name, state in health.get("models", {}).items() if state != "failing"]


def _failure(plan: Plan, health: dict[str, Any], began_s: float) -> str | None:
    """Return why a model is failing, by its engine's log of this run; None if none is."""
    logs = [
        log
        for model in health.get("models", {}).keys() - set(_served(health))
        for log in engine_log_dir(plan.settings.store).glob(engine_log_name(model, "*"))
        if log.stat().st_mtime >= began_s
    ]
    if not logs:
        return None
    log = max(logs, key=_mtime)
    words = last_words(log, lines=40) or ["it said nothing"]
    said = [line for line in words if "Error" in line] or words
    return f"a model failed to start: {said[-1]}; see {log}"


def _mtime(log: Path) -> float:
    return log.stat().st_mtime


def _why(log: Path) -> str:
    """Return the line of Serve's log that says most."""
    said = [line for line in last_words(log, lines=60) if "Error" in line or "error" in line]
    return f"{said[-1] if said else 'it said nothing'}; see {log}"


def _banner(plan: Plan, model: str, why: str | None) -> None:
    """Say that it is ready, the admin key if it is new, and a line to paste, for ``model``.

    If another one is failing, ``why`` tells it.
    """
    if why:
        _say(f"\nOf several models, {why}")
    disabled = plan.settings.auth.disabled or Secrets.from_environ().disable_auth
    path = reveal_path(data_dir(plan.settings.store))
    key = path.read_text().strip() if path.exists() else None
    if key is not None:
        path.unlink()
        _say(f"\nAdmin key, shown this once: {key}")
    elif disabled:
        _say("\nAuthentication is disabled: everyone who reaches this gate may use it.")
    elif Secrets.from_environ().admin_keys:
        _say("\nAdmin key: the one in SLUICEGATE_ADMIN_KEY")
    else:
        _say(
            "\nAdmin key: the one shown at the first start. Lost it? Start again with "
            "SLUICEGATE_ADMIN_KEY=<a long random text>"
        )
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 32,
    }
    shown = f'    -H "Authorization: Bearer {key or _variable()}" \\\n'
    _say(
        f"\n  curl {_reaching(plan)}/v1/chat/completions \\\n"
        f"{'' if disabled else shown}"
        f'    -H "Content-Type: application/json" \\\n'
        f"    -d '{json.dumps(body)}'\n"
    )
    _say(f"Sluicegate is ready at {plan.url}")


def _variable() -> str:
    """Return what stands for the key in a line to paste."""
    one = len(Secrets.from_environ().admin_keys) == 1
    return "$SLUICEGATE_ADMIN_KEY" if one else "<your key>"


def _reaching(plan: Plan) -> str:
    """Return how curl reaches the gate from here; over TLS by a name that the certificate knows."""
    if plan.certificate is None:
        return plan.url
    trust, names = f"--cacert {shlex.quote(str(plan.certificate.cert))}", plan.certificate.names
    if plan.address in names or not names:
        return f"{trust} {plan.url}"
    name = names[0].replace("*", "www")
    return f"{trust} --connect-to ::{plan.address}: https://{name}:{plan.port}"


def _stop(serving: "subprocess.Popen[bytes]", told: list[int]) -> None:
    """Let Serve shut down in order, then end whoever is left; a second signal skips the order."""
    signals = len(told)
    if serving.poll() is None:
        _say("Stopping")
        with suppress(ProcessLookupError):
            os.kill(_serve_pid(serving), signal.SIGINT)
        deadline_s = time.monotonic() + SHUTDOWN_S
        while serving.poll() is None and time.monotonic() < deadline_s and len(told) == signals:
            time.sleep(0.05)  # Popen.wait would not see a second signal
        serving.terminate()
        serving.wait()


def _serve_pid(serving: "subprocess.Popen[bytes]") -> int:
    """Return the pid of ``serve run``, the reaper's child.

    Raises:
        ProcessLookupError: it has ended.
    """
    for pid in reaper.descendants(serving.pid):
        return pid
    raise ProcessLookupError


def _fail(why: str) -> int:
    sys.stderr.write(f"sluicegate: {why}\n")
    return 1


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
