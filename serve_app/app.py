"""The application: joins the rooms and hands them to Ray Serve. ``serve_config.yaml`` names it.

    serve run serve_config.yaml   ->   build(args)   ->   Gateway  +  one ModelReplica deployment
                                                                      per model

**Decided: the gateway holds no state that matters.** It opens a store, a line and a relay when it
starts and gives everything back when it ends; a killed one is reaped by the others.
"""

import asyncio
import logging
import math
import os
import time
from secrets import token_hex
from typing import Any

from ray import serve
from ray.serve import Application

from serve_app import auth, engine
from serve_app.assembly import (
    check_identity,
    holds_of,
    identity_of,
    line_of,
    tell_of,
    write_the_last,
)
from serve_app.environment import Secrets, data_dir, must_be_local
from serve_app.haproxy import HOST_ENV, PROXY_KEY_ENV
from serve_app.ingress import Door, Gate, Relay
from serve_app.limits import Ledger
from serve_app.log_records import speak_up
from serve_app.model_settings import Autoscaling, Model, deployment_name
from serve_app.proxy import stay_on_node
from serve_app.queueing import (
    LOOK_BACK_S,
    REPORT_INTERVAL_S,
    Adapters,
    Kept,
    replicas_for_line,
    report,
)
from serve_app.settings import Settings
from serve_app.store import Store, store_url
from serve_app.telemetry import Audit, Captures, Entry, Metrics

__all__ = ["Gateway", "build", "replicas_for_line"]

NAMELESS_HAPROXY = (
    "HAProxy runs without our shim, so every caller seems to have the proxy's address; set "
    "RAY_SERVE_HAPROXY_BINARY_PATH to the program 'sluicegate-haproxy' and SLUICEGATE_PROXY_KEY to "
    "a random secret"
)
_log = logging.getLogger("sluicegate")
WARN_EVERY_S = 60.0
SHORT = 16


@serve.ingress(None)
class Gateway:
    """One gateway replica: the rooms, joined.

    Args:
        settings: the whole of them.
        release: this deployment, as its replicas know it.
        _models: handles of the model deployments, so that Serve starts those too.

    Raises:
        SettingsError: authentication is disabled on an address that others can reach, or an
            issuer's key is unfit.
    """

    async def __init__(  # type: ignore[misc]
        self, settings: Settings, release: str, *_models: Any
    ) -> None:
        speak_up()
        stay_on_node()
        secrets = Secrets.from_environ()
        folder = data_dir(settings.store)
        self._settings = settings
        disabled = settings.auth.disabled or secrets.disable_auth
        if disabled:
            must_be_local(await asyncio.to_thread(_front_host), settings.auth)
        metrics = Metrics()
        self._store = Store(
            store_url(secrets.store_url or settings.store.url, folder),
            timeout_ms=settings.store.timeout_ms,
            watch=metrics.store_call,
        )
        self._relay = Relay(
            first_byte_timeout_s=settings.gateway.first_byte_timeout_s,
            between_bytes_timeout_s=settings.gateway.between_bytes_timeout_s,
        )
        self._line = line_of(settings, self._store, release)
        holds = self._holds = holds_of(settings, self._store, self._line)
        ledger = self._ledger = Ledger(self._store)
        audit = self._audit = Audit(self._store, keep_days=settings.audit.keep_days)
        self._identity = identity_of(settings, self._store, secrets, audit, os.environ)
        captures = self._captures = Captures(folder / "captures", settings.capture)
        metrics.tell("sluicegate_captures_lost", "Captures that no file holds.", captures.lost)
        metrics.follow(self._store, self._line.gateway, on_loss=settings.store.on_loss)
        tell_of(holds, self._line, metrics)
        self._gate = Gate(
            settings,
            identity=self._identity,
            holds=holds,
            ledger=ledger,
            line=self._line,
            adapters=Adapters(self._store, settings.models),
            kept=Kept(self._store),
            relay=self._relay,
            audit=audit,
            metrics=metrics,
            captures=captures,
            proxy_key=secrets.proxy_key,
        )
        for tend in (
            *(holds.renew, holds.pay, ledger.pay, audit.pay),
            *(self._identity.tend, self._gate.learn_adapters, captures.tend),
        ):
            self._line.tend_also(tend)
        if disabled:
            self._line.tend_also(self._warn)
        elif not (secrets.admin_keys or secrets.api_keys or settings.auth.issuers):
            self._line.tend_also(self._first_admin_key)
        self._bootstrapped, self._warned_s = False, -math.inf
        _say_what_is_weak(secrets)
        await self._line.open()

    async def _warn(self) -> None:
        """Say once a minute that everyone is let in."""
        if time.monotonic() - self._warned_s >= WARN_EVERY_S:
            self._warned_s = time.monotonic()
            _log.warning("AUTHENTICATION IS DISABLED: everyone who reaches this gate may use it")

    async def _first_admin_key(self) -> None:
        """Make the first admin key, as soon as the store answers, where nobody else can call."""
        if self._bootstrapped:
            return
        folder = data_dir(self._settings.store)
        try:
            made = await auth.first_admin_key(self._store, folder)
        except OSError as err:
            _log.error("no admin key could be made: %s; set SLUICEGATE_ADMIN_KEY", err)
            made = False
        if made:
            path = auth.reveal_path(folder)
            _log.warning("An admin key was made. Read it once and delete the file: %s", path)
            await self._audit.write(Entry("key.create", actor="gate", target="first admin key"))
        self._bootstrapped = made is not None

    def __serve_build_asgi_app__(self) -> Door:
        """Return the ASGI application; Serve asks after the constructor."""
        return Door(self._gate)

    async def check_health(self) -> None:
        """Serve's health check.

        Raises:
            RuntimeError: the line is no longer heard or tended; Serve starts another gateway.
        """
        if not self._line.alive:
            raise RuntimeError("the line's tasks have ended; the log says why")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return running and waiting work per model, for the application's policy."""
        figures: dict[str, float] = {}
        for model in self._settings.models:
            load = self._line.loads[model.name]
            capacity = model.seats * model.autoscaling.target_utilization
            figures |= report(
                deployment_name(model.name),
                running=load.running,
                waiting=load.waiting,
                capacity=capacity,
            )
        return figures

    async def __del__(self) -> None:
        """Give everything back; Serve awaits this after the last request."""
        if hasattr(self, "_gate"):
            await self._line.close()
            await write_the_last(self._gate.settling, self._holds, self._ledger)
            await self._captures.close()
            await self._identity.close()
            self._relay.close()
            await self._store.close()


def _say_what_is_weak(secrets: Secrets) -> None:
    if any(len(key) < SHORT for key in (*secrets.admin_keys, *secrets.api_keys)):
        _log.warning("a static key has fewer than %d characters and may be guessed", SHORT)
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1" and not os.environ.get(PROXY_KEY_ENV):
        _log.warning(NAMELESS_HAPROXY)


def _front_host() -> str:
    """Return the address that the proxy listens on, as far as a gateway can tell."""
    from ray.serve.context import _get_global_client  # noqa: PLC0415 - Serve has no public way

    client: Any = _get_global_client()
    told = os.environ.get(HOST_ENV) or client.http_config.host
    return told or "0.0.0.0"  # the widest guess


def build(args: dict[str, Any]) -> Application:
    """Return the Serve application that ``args`` of serve_config.yaml describe.

    Raises:
        SettingsError: a setting is wrong, or a model's source cannot be there.
    """
    settings = Settings.from_args(args)
    check_identity(settings, os.environ)
    for model in settings.models:
        engine.check_source(model)
    release = token_hex(4)
    replicas = [_replicas(model, settings, release) for model in settings.models]
    gateway: Any = serve.deployment(Gateway)
    gateway = gateway.options(
        name="Gateway",
        ray_actor_options={"num_cpus": settings.gateway.num_cpus},
        autoscaling_config={
            "min_replicas": settings.gateway.min_replicas,
            "max_replicas": settings.gateway.max_replicas,
            "target_ongoing_requests": 256,
            "metrics_interval_s": REPORT_INTERVAL_S,
            "look_back_period_s": LOOK_BACK_S,
        },
        max_ongoing_requests=100_000,
        graceful_shutdown_timeout_s=60,
        logging_config={"enable_access_log": False},
    )
    application: Application = gateway.bind(settings, release, *replicas)
    return application


def _replicas(model: Model, settings: Settings, release: str) -> Application:
    """Return the deployment of one model."""
    deployment: Any = serve.deployment(engine.ModelReplica)
    deployment = deployment.options(
        name=deployment_name(model.name),
        ray_actor_options={
            "num_cpus": model.num_cpus,
            "num_gpus": engine.gpus_per_replica(model),
        },
        autoscaling_config=_autoscaling(model.autoscaling),
        health_check_period_s=1,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=model.drain_timeout_s + 20,
        logging_config={"enable_access_log": False},
    )
    ceiling = settings.queue.ceiling
    application: Application = deployment.bind(model, settings.store, ceiling, release)
    return application


def _autoscaling(scaling: Autoscaling) -> dict[str, Any]:
    return {
        "min_replicas": scaling.min_replicas,
        "max_replicas": scaling.max_replicas,
        "upscale_delay_s": scaling.upscale_delay_s,
        "downscale_delay_s": scaling.downscale_delay_s,
        "metrics_interval_s": REPORT_INTERVAL_S,
        "look_back_period_s": LOOK_BACK_S,
    }
