"""The figures of one gateway, for Prometheus.

Each gateway counts for itself and answers for itself: of several behind one address, each scrape
meets one of them, and ``sluicegate_gateway_info`` says which.
"""

import math
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serve_app.store import STATES, Store

MEDIA = "text/plain; version=0.0.4; charset=utf-8"
WAITS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600)
BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """What one gateway counts; made before the store, which it then follows."""

    def __init__(self) -> None:
        self._store: Store | None = None
        own = self._registry = CollectorRegistry()
        self._gateway = Gauge(
            "sluicegate_gateway_info", "1 for the gateway that answers.", ["gateway"], registry=own
        )
        self._up = Gauge(
            "sluicegate_store_up", "1 if the state store does all that is asked.", registry=own
        )
        self._state = Gauge(
            "sluicegate_store_state", "1 for the state store's state.", ["state"], registry=own
        )
        self._on_loss = Gauge(
            "sluicegate_store_on_loss", "1 for what happens without it.", ["mode"], registry=own
        )
        self._seconds = Histogram(
            "sluicegate_store_seconds",
            "Seconds of a call of the state store, however it ended.",
            ["step"],
            registry=own,
            buckets=BUCKETS_S,
        )
        self._errors = Counter(
            "sluicegate_store_errors",
            "Calls of the state store that failed, or were refused at once, by its state.",
            ["state"],
            registry=own,
        )
        self._refusals = Counter(
            "sluicegate_refusals", "Requests refused or failed, by code.", ["code"], registry=own
        )

        self._waits = Histogram(
            "sluicegate_queue_seconds",
            "Seconds in line, and in turn for a limit, however that ended.",
            ["model", "class"],
            registry=own,
            buckets=WAITS_S,
        )
        self._each: list[tuple[Gauge, Callable[[], Mapping[tuple[str, ...], float]]]] = []

    def follow(self, store: Store, gateway: str, *, on_loss: str) -> None:
        """Tell the state of ``store``, as ``gateway``, and what happens ``on_loss`` of it."""
        self._store = store
        self._gateway.labels(gateway).set(1)
        self._on_loss.labels(on_loss).set(1)

    def tell(self, name: str, sentence: str, figure: Callable[[], float]) -> None:
        """Tell one more ``figure``, asked for at each scrape."""
        Gauge(name, sentence, registry=self._registry).set_function(figure)

    def tell_each(
        self,
        name: str,
        sentence: str,
        labels: tuple[str, ...],
        figures: Callable[[], Mapping[tuple[str, ...], float]],
    ) -> None:
        """Tell one more kind of ``figures``, one for each set of ``labels``."""
        self._each.append((Gauge(name, sentence, labels, registry=self._registry), figures))

    def waited(self, model: str, class_: str, seconds: float) -> None:
        """Count how long a request waited."""
        self._waits.labels(model, class_).observe(seconds)

    @property
    def store_state(self) -> str:
        """``ok``, or what is the matter with the store."""
        return self._store.state if self._store else STATES[0]

    @property
    def store_message(self) -> str | None:
        """The same for people, with what to do; None if all is well."""
        return self._store.message if self._store else None

    def store_call(self, step: str, seconds: float, state: str) -> None:
        """Count one call of the store; nan seconds for one that was refused at once."""
        if not math.isnan(seconds):
            self._seconds.labels(step).observe(seconds)
        if state != STATES[0]:
            self._errors.labels(state).inc()

    def refused(self, code: str) -> None:
        """Count one request that ended in the error ``code``."""
        self._refusals.labels(code).inc()

    def text(self) -> bytes:
        """Return all figures in Prometheus's text format."""
        now = self.store_state
        self._up.set(now == STATES[0])
        for state in STATES:
            self._state.labels(state).set(state == now)
        for gauge, figures in self._each:
            gauge.clear()
            for labels, figure in figures().items():
                gauge.labels(*labels).set(figure)
        return generate_latest(self._registry)
