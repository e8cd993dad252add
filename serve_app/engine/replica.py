"""The Serve actor that supervises one engine.

starting ──healthy──→ serving ──scaled down──→ draining ──empty or too late──→ gone
   └──failed: Serve tries again      └──engine dies: withdrawn at once, Serve starts another
"""

import asyncio
import contextlib
import logging
import secrets
from pathlib import Path

from serve_app.engine.adapters import Adapters
from serve_app.engine.command import engine_argv, engine_env, engine_niceness
from serve_app.engine.offer import Offer
from serve_app.engine.process import HEALTH_S, EngineProcess, EngineStartError
from serve_app.engine.sources import resolve
from serve_app.environment import Secrets, data_dir
from serve_app.errors import StoreUnavailable
from serve_app.log_records import speak_up
from serve_app.model_settings import Model
from serve_app.ports import free_port
from serve_app.proxy import stay_on_node
from serve_app.settings import SettingsError
from serve_app.settings import Store as StoreSettings
from serve_app.store import Address, Store, registry, store_url

BEAT_S = 0.5
BEAT_HEALTH_S = 1.0
LOGS_KEPT = 20
NO_SOURCE = "its source cannot be had, see the log of its replica"
_log = logging.getLogger("sluicegate.engine")


def engine_log_dir(store: StoreSettings) -> Path:
    """Return the folder of the engines' logs."""
    return data_dir(store) / "logs"


def engine_log_name(model: str, replica: str) -> str:
    """Return the name of the log of one replica's engine."""
    return f"engine-{model.replace('/', '_')}-{replica}.log"


class ModelReplica:
    """One replica of one model: a supervised engine and its registration in the line.

    Args:
        model: which model, and how.
        store: how to reach the store.
        ceiling: the share of the model's seats that the line lends at most.
        release: the deployment that it belongs to.
    """

    async def __init__(  # type: ignore[misc]
        self, model: Model, store: StoreSettings, ceiling: float, release: str = ""
    ) -> None:
        speak_up()
        stay_on_node()
        self._model = model
        self._id = secrets.token_hex(8)
        self._failure: str | None = None
        self._seats, self._offer = model.seats, Offer(model.seats)
        url = store_url(Secrets.from_environ().store_url or store.url, data_dir(store))
        self._store = Store(url, timeout_ms=store.timeout_ms)
        try:
            await self._start(store, ceiling)
        except (RuntimeError, SettingsError) as err:
            why = err.outline if isinstance(err, EngineStartError) else NO_SOURCE
            with contextlib.suppress(StoreUnavailable):
                await registry.note_failure(self._store, model.name, release, why)
            raise
        with contextlib.suppress(StoreUnavailable):
            await registry.clear_failure(self._store, model.name)
        adapters = Adapters(self._store, model, self._engine.address)
        await adapters.settle()  # before a seat is offered
        parts = (self._beat(), self._watch(), adapters.follow())
        self._tasks = [asyncio.create_task(part) for part in parts]

    async def _start(self, store: StoreSettings, ceiling: float) -> None:
        """Start the engine and return when it is healthy.

        Raises:
            EngineStartError: it was not in time.
            SettingsError, RuntimeError: its source cannot be had.
        """
        model = self._model
        source = await asyncio.to_thread(resolve, model)
        host = _host()
        address = Address(host, free_port(host), secrets.token_urlsafe(32))
        self._engine = EngineProcess(
            engine_argv(model, source, address, ceiling),
            address,
            env=engine_env(model),
            niceness=engine_niceness(model),
            log=_log_file(engine_log_dir(store), model.name, self._id),
        )
        await self._engine.start(model.start_timeout_s)

    async def _beat(self) -> None:
        """Say that we live and how many seats we offer, until we withdraw.

        An engine that does not answer is offered no more requests, before Serve has judged it; one
        that is full, fewer.
        """
        while True:
            try:
                well, load = await asyncio.gather(
                    self._engine.answers(BEAT_HEALTH_S), self._engine.load(BEAT_HEALTH_S)
                )
                await self._say(min(self._seats, self._offer.seen(load)) if well else 0)
            except StoreUnavailable as err:
                _log.warning("replica %s cannot beat: %s", self._id, err)
            await asyncio.sleep(BEAT_S)  # the rhythm of the heartbeat

    async def _say(self, seats: int) -> int:
        """Register or renew this replica with ``seats``; return how many it lends now."""
        return await registry.beat(
            self._store, self._model.name, self._id, seats, self._engine.address
        )

    async def _watch(self) -> None:
        """Withdraw the moment the engine dies, and let Serve know by the health check."""
        self._failure = await self._engine.ended()
        _log.error("replica %s: %s", self._id, self._failure)
        await self._stop_beating()
        await self._withdraw()

    async def _stop_beating(self) -> None:
        """End the heartbeat; one that is under way must not follow the withdrawal."""
        self._tasks[0].cancel()
        await asyncio.wait([self._tasks[0]])

    async def _withdraw(self) -> None:
        try:
            await registry.withdraw(self._store, self._model.name, self._id)
        except StoreUnavailable as err:
            _log.warning("replica %s is silent from here, not withdrawn: %s", self._id, err)

    async def check_health(self) -> None:
        """Serve's health check.

        Raises:
            RuntimeError: the engine is dead or does not answer; after a few of these Serve ends
                this actor and starts another.
        """
        if self._failure is not None:
            raise RuntimeError(self._failure)
        if self._tasks[0].done():
            raise RuntimeError("the heartbeat has ended; the log says why")
        if not await self._engine.answers(HEALTH_S):
            raise RuntimeError(f"the engine does not answer /health within {HEALTH_S:g} s")

    async def __del__(self) -> None:
        """Drain: lend no more, wait for what runs, end the engine. Serve calls and awaits this."""
        if not hasattr(self, "_tasks"):
            return
        self._tasks[1].cancel()
        self._seats = 0
        try:
            async with asyncio.timeout(self._model.drain_timeout_s):
                while self._failure is None and await self._lends():  # noqa: ASYNC110 - in the store
                    await asyncio.sleep(0.1)
        except TimeoutError:
            _log.warning("replica %s ends before its requests do", self._id)
        await self._stop_beating()
        self._tasks[2].cancel()
        await self._withdraw()
        await self._engine.stop()
        await self._store.close()

    async def _lends(self) -> bool:
        """Return whether a seat of ours is lent; while nobody can tell, it is."""
        try:
            return await self._say(0) > 0
        except StoreUnavailable:
            return True


def _host() -> str:
    """Return this node's address, as the gateways reach it."""
    import ray.util  # noqa: PLC0415 - the engine's child imports this room and needs no Ray

    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def _log_file(folder: Path, model: str, replica: str) -> Path:
    """Return a new log's path, after removing the oldest beyond :data:`LOGS_KEPT`."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileNotFoundError):  # another replica tidies up at the same time
        old = sorted(folder.glob("engine-*.log"), key=lambda log: log.stat().st_mtime)
        for log in old[: -LOGS_KEPT or None]:
            log.unlink(missing_ok=True)
    return folder / engine_log_name(model, replica)
