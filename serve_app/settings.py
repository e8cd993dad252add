"""Every knob, with its unit, range, default and a sentence. Read once, checked once, then frozen.

The tree mirrors ``args`` in ``serve_config.yaml``. Secrets are not settings: they come from the
environment only (:mod:`serve_app.environment`), so that no config file, config map or commit holds
one.
"""

import re
from itertools import combinations, pairwise
from typing import Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from serve_app import allowance
from serve_app.auth_settings import Auth, Cors
from serve_app.mistakes import told
from serve_app.model_settings import SMOLLM2, Model, deployment_name
from serve_app.section import CallerLimits, ClassName, Replicas, Seconds, Section
from serve_app.store_place import SCHEME, place_of


class Store(Section):
    """Where keys, limits and the line live."""

    url: str | None = Field(default=None, pattern=f"^{SCHEME}")
    """Redis or Valkey URL without a password; null starts the embedded Valkey on this node."""

    data_dir: str | None = None
    """Folder of the embedded Valkey and of engine logs; null means `~/.local/share/sluicegate`."""

    timeout_ms: int = Field(default=100, ge=10, le=10_000)
    """Milliseconds one store call may take before it is refused with 503."""

    on_loss: Literal["closed", "local"] = "closed"
    """While the store is away: `closed` refuses, `local` lets callers seen lately go on."""

    grace_s: float = Field(default=30.0, ge=1, le=3_600)
    """Seconds after which a caller was seen too long ago to go on without the store."""

    @field_validator("url")
    @classmethod
    def _no_password(cls, url: str | None) -> str | None:
        if url and re.search(r"(?s)://.*:.*@|[?&](sentinel_)?password=", url):
            raise ValueError("holds a password; put the URL into SLUICEGATE_STORE_URL instead")
        if url:
            place_of(url)
        return url


class Limits(Section):
    """How much."""

    default: CallerLimits = allowance.Limits(requests_per_minute=600)
    """Limits of a caller that names none of that kind; what stands here replaces all of it."""

    max_body_bytes: int = Field(default=10_485_760, ge=1_024, le=1_073_741_824)
    """Bytes of a request body; more is refused with 413 before it is read."""

    max_prompt_chars: int = Field(default=10_000, ge=0, le=1_000_000_000)
    """Characters of a prompt, a token id counts as one; more is refused with 400. 0 is no limit."""

    hold_ttl_s: int = Field(default=120, ge=5, le=120)
    """Seconds after which what a gateway held that died is given back."""


class QueueClass(Section):
    """One class of the line."""

    name: ClassName
    """The name that keys, tokens and `x-served-class` use."""

    max_seats: float = Field(default=1.0, gt=0, le=4)
    """Share of a replica's nominal seats up to which this class is still seated; may be above 1."""

    max_wait_s: Seconds = 60.0
    """Seconds a request may wait for a seat before it is refused with 429."""

    promote_after_s: Seconds = 15.0
    """Seconds a tenant may go unserved before its next request counts one class higher; repeats."""

    max_tickets: int = Field(default=2_000, ge=0, le=1_000_000)
    """Requests that may wait at once when one of this class comes; then it is refused with 429."""

    max_bytes: int = Field(default=268_435_456, ge=0, le=1_099_511_627_776)
    """Bytes of request bodies of this class that may wait at once; then it is refused with 429."""

    service_tier: Literal["auto", "default", "flex", "priority", "scale"] | None = None
    """OpenAI's `service_tier` that asks for this class; null: none does."""


class Queue(Section):
    """When."""

    classes: list[QueueClass] = Field(
        default=[
            QueueClass(
                name="interactive",
                max_seats=1.25,
                max_wait_s=30.0,
                promote_after_s=5.0,
                max_tickets=1_000,
                service_tier="priority",
            ),
            QueueClass(name="standard"),
            QueueClass(
                name="batch",
                max_seats=0.95,
                max_wait_s=600.0,
                promote_after_s=60.0,
                max_tickets=10_000,
                service_tier="flex",
            ),
            QueueClass(
                name="anonymous",
                max_seats=0.5,
                max_wait_s=30.0,
                promote_after_s=60.0,
                max_tickets=200,
            ),
        ],
        min_length=1,
        max_length=16,
    )
    """The classes of the line, highest first; none may fill more seats than a higher one."""

    output_weight: float = Field(default=2.0, gt=0, le=100)
    """What an output token counts in fairness, in input tokens."""

    keep_alive_s: float = Field(default=0.0, ge=0, le=3_600)
    """Seconds between comments sent into a stream that still waits in line; 0 sends none."""

    @property
    def ceiling(self) -> float:
        """The share of its nominal seats that a replica lends at most: that of the first class."""
        return self.classes[0].max_seats

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: list[QueueClass]) -> list[QueueClass]:
        names = [one.name for one in classes]
        if len(set(names)) < len(names):
            raise ValueError("two classes have the same name")
        for one, other in combinations(classes, 2):
            if one.service_tier is not None and one.service_tier == other.service_tier:
                raise ValueError(
                    f"'{one.name}' and '{other.name}' both claim the service_tier "
                    f"'{one.service_tier}'; one class may"
                )
        return classes

    @field_validator("classes")
    @classmethod
    def _falling(cls, classes: list[QueueClass]) -> list[QueueClass]:
        for higher, lower in pairwise(classes):
            if lower.max_seats > higher.max_seats:
                raise ValueError(
                    f"'{lower.name}' has max_seats {lower.max_seats:g} and '{higher.name}', which "
                    f"stands above it, only {higher.max_seats:g}; list the highest class first"
                )
        return classes


class Audit(Section):
    """The record of who changed what."""

    keep_days: int = Field(default=90, ge=1, le=3_650)
    """Days that an entry is kept."""


class Capture(Section):
    """Full requests and replies of single keys, while an operator has asked for them."""

    max_minutes: int = Field(default=60, ge=0, le=60)
    """Minutes that one capture of a key may last; 0 lets nobody capture."""

    max_body_bytes: int = Field(default=1_048_576, ge=0, le=16_777_216)
    """Bytes kept of a captured request's body, and of its reply's; the rest is left out."""

    max_bytes: int = Field(default=268_435_456, ge=1_048_576, le=1_099_511_627_776)
    """Bytes of all captures in this node's data folder; the oldest files go first."""

    keep_days: int = Field(default=7, ge=1, le=365)
    """Days that a file of captures is kept."""


class Gateway(Replicas):
    """The ingress replicas."""

    min_replicas: int = Field(default=1, ge=1, le=1_000)
    """Gateway replicas kept."""

    max_replicas: int = Field(default=1, ge=1, le=1_000)
    """Gateway replicas at most."""

    num_cpus: float = Field(default=0.5, ge=0)
    """CPUs that Ray sets aside for one gateway replica."""

    first_byte_timeout_s: Seconds = 300.0
    """Seconds a replica may be silent before its first byte; then 504."""

    between_bytes_timeout_s: Seconds = 120.0
    """Seconds a replica may be silent between two bytes; then the reply breaks off."""


class Settings(Section):
    """Built from ``args`` in serve_config.yaml; ``args: {}`` is a working gate."""

    store: Store = Store()
    auth: Auth = Auth()
    limits: Limits = Limits()
    queue: Queue = Queue()
    models: list[Model] = Field(default=[SMOLLM2], min_length=1)
    gateway: Gateway = Gateway()
    audit: Audit = Audit()
    capture: Capture = Capture()
    cors: Cors = Cors()

    @model_validator(mode="after")
    def _known_classes(self) -> Self:
        known = [one.name for one in self.queue.classes]
        anonymous, visitor = self.auth.anonymous, self.auth.visitor
        used = {"anonymous": anonymous.class_} if anonymous.enabled else {}
        if visitor.siteverify_url is not None:
            used["visitor"] = visitor.class_
        for where, name in used.items():
            if name not in known:
                raise ValueError(
                    f"auth.{where}.class: there is no class '{name}' in queue.classes; "
                    f"known: {', '.join(known)}"
                )
        return self

    @field_validator("models")
    @classmethod
    def _distinct(cls, models: list[Model]) -> list[Model]:
        taken: dict[str, str] = {}
        for at, model in enumerate(models):
            for where, name in model.names.items():
                if name in taken:
                    raise ValueError(
                        f"'{name}' is both {taken[name]} and models.{at}.{where}; each model, "
                        "alias and adapter needs a name of its own"
                    )
                taken[name] = f"models.{at}.{where}"
        names = [model.name for model in models]
        if len({deployment_name(name) for name in names}) < len(names):
            raise ValueError("two names differ only in characters that Serve does not tell apart")
        return models

    @classmethod
    def from_args(cls, args: object) -> Self:
        """Return settings from the ``args`` of serve_config.yaml.

        Raises:
            SettingsError: naming the path of every wrong key and how to mend it.
        """
        try:
            return cls.model_validate(args)
        except ValidationError as err:
            raise SettingsError("; ".join(told(cls, err))) from None


class SettingsError(ValueError):
    """A setting is unknown, has the wrong unit or an impossible value; the start stops."""
