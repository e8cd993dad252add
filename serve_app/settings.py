"""Every knob, with its unit, range, default and a sentence. Read once, checked once, then frozen.

The tree mirrors ``args`` in ``serve_config.yaml``. Secrets are not settings: they come from the
environment only (:mod:`serve_app.environment`), so that no config file, config map or commit holds
one.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from serve_app.auth_settings import Auth, Cors
from serve_app.mistakes import told
from serve_app.section import ClassName, Fraction, RateLimits, Seconds, Section
from serve_app.store_place import SCHEME, place_of

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]


class Replicas(Section):
    """A number of replicas, from the fewest to the most."""

    min_replicas: int
    max_replicas: int

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}"
            )
        return self


class Store(Section):
    """Where keys, limits and the line live."""

    url: str | None = Field(default=None, pattern=f"^{SCHEME}")
    """Redis or Valkey URL without a password; null starts the embedded Valkey on this node."""

    data_dir: str | None = None
    """Folder of the embedded Valkey and of engine logs; null means `~/.local/share/sluicegate`."""

    timeout_ms: int = Field(default=100, ge=10, le=10_000)
    """Milliseconds one store call may take before it is refused with 503."""

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

    default: RateLimits = RateLimits()
    max_body_bytes: int = Field(default=10_485_760, ge=1_024, le=1_073_741_824)
    """Bytes of a request body; more is refused with 413 before it is read."""


class QueueClass(Section):
    """One class of the line."""

    name: ClassName
    """The name that keys, tokens and `x-served-class` use."""

    max_wait_s: Seconds = 60.0
    """Seconds a request may wait for a seat before it is refused with 429."""

    max_tickets: int = Field(default=2_000, ge=0, le=1_000_000)
    """Requests that may wait at once when one of this class comes; then it is refused with 429."""


class Queue(Section):
    """When."""

    classes: list[QueueClass] = Field(
        default=[
            QueueClass(name="interactive", max_wait_s=30.0, max_tickets=1_000),
            QueueClass(name="standard", max_wait_s=60.0, max_tickets=2_000),
            QueueClass(name="batch", max_wait_s=600.0, max_tickets=10_000),
            QueueClass(name="anonymous", max_wait_s=30.0, max_tickets=200),
        ],
        min_length=1,
        max_length=16,
    )
    """The classes of the line, highest first; this version seats them first come first served."""

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: list[QueueClass]) -> list[QueueClass]:
        names = [one.name for one in classes]
        if len(set(names)) < len(names):
            raise ValueError("two classes have the same name")
        return classes


class Audit(Section):
    """The record of who changed what."""

    keep_days: int = Field(default=90, ge=1, le=3_650)
    """Days that an entry is kept."""


class Simulated(Section):
    """The latency model of the simulated engine, in the field's terms."""

    prefill_tokens_per_s: float = Field(default=8_000.0, gt=0)
    """Prompt tokens the engine reads a second, shared by the prompts it reads at once."""

    decode_ms: float = Field(default=20.0, ge=0)
    """Milliseconds of a decode step for one sequence."""

    decode_ms_per_sequence: float = Field(default=0.5, ge=0)
    """Milliseconds that each further sequence in the batch adds to a decode step."""

    kv_tokens: int = Field(default=65_536, ge=16)
    """Tokens the KV cache holds; when it is full the youngest sequence is preempted."""

    kv_block_tokens: int = Field(default=16, ge=1)
    """Tokens in one KV block."""

    start_s: float = Field(default=0.2, ge=0, le=600)
    """Seconds from start to healthy."""

    fail_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of requests answered 500 before the first byte."""

    break_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of streams cut off in the middle."""


class Autoscaling(Replicas):
    """How many replicas a model has."""

    min_replicas: int = Field(default=1, ge=0, le=10_000)
    """Replicas kept when nobody calls; 0 lets the model sleep and wakes it by the line."""

    max_replicas: int = Field(default=2, ge=1, le=10_000)
    """Replicas at most."""

    target_utilization: Fraction = 0.8
    """Share of the seats that running and waiting requests should fill."""

    upscale_delay_s: float = Field(default=5.0, ge=0, le=86_400)
    """Seconds the line must call for more before a replica is added."""

    downscale_delay_s: float = Field(default=120.0, ge=0, le=86_400)
    """Seconds the seats must stand empty before a replica is drained."""


class Model(Section):
    """One model behind the gate."""

    name: ModelName
    """The name that callers ask for."""

    source: str = "builtin:smollm2-135m-instruct"
    """`builtin:<name>`, a local folder, or a Hugging Face id."""

    engine: Literal["vllm", "simulated"] = "vllm"
    """Which engine runs it."""

    engine_args: dict[str, Any] = {}
    """vLLM's own options, with underscores: `max_model_len`, `dtype`, `tensor_parallel_size` …"""

    env: dict[str, str] = {}
    """Environment variables of the engine process, e.g. `VLLM_CPU_KVCACHE_SPACE`. No secrets."""

    simulated: Simulated = Simulated()
    seats: int = Field(default=8, ge=1, le=4_096)
    """Requests one replica runs at once."""

    num_cpus: float = Field(default=0.5, ge=0)
    """CPUs that Ray sets aside for one replica."""

    num_gpus: float | None = Field(default=None, ge=0)
    """GPUs of one replica; null: tensor × pipeline parallel size, or 0 under the CPU build."""

    start_timeout_s: float = Field(default=600.0, gt=0, le=7_200)
    """Seconds from process start to healthy before the start counts as failed."""

    drain_timeout_s: float = Field(default=60.0, ge=0, le=3_600)
    """Seconds that running requests may take to finish when a replica is taken away."""

    autoscaling: Autoscaling = Autoscaling()

    @field_validator("engine_args")
    @classmethod
    def _ours_to_set(cls, args: dict[str, Any]) -> dict[str, Any]:
        ours = {"host", "port", "model", "served_model_name", "api_key", "middleware", "uds"}
        spelt = {name.replace("-", "_"): value for name, value in args.items()}
        if taken := sorted(spelt.keys() & ours):
            raise ValueError(f"{', '.join(taken)} is set by the gate; remove it")
        return spelt


class Gateway(Replicas):
    """The ingress replicas."""

    min_replicas: int = Field(default=1, ge=1, le=1_000)
    """Gateway replicas kept."""

    max_replicas: int = Field(default=1, ge=1, le=1_000)
    """Gateway replicas at most."""

    num_cpus: float = Field(default=0.5, ge=0)
    """CPUs that Ray sets aside for one gateway replica."""

    first_byte_timeout_s: Seconds = 300.0
    """Seconds a replica may be silent, before its first byte (then 504) or between bytes."""


SMOLLM2 = Model(
    name="smollm2-135m",
    engine_args={"max_model_len": 2048, "dtype": "bfloat16", "enforce_eager": True},
    env={"VLLM_CPU_KVCACHE_SPACE": "1"},
)


class Settings(Section):
    """Built from ``args`` in serve_config.yaml; ``args: {}`` is a working gate."""

    store: Store = Store()
    auth: Auth = Auth()
    limits: Limits = Limits()
    queue: Queue = Queue()
    models: list[Model] = Field(default=[SMOLLM2], min_length=1)
    gateway: Gateway = Gateway()
    audit: Audit = Audit()
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
        names = [model.name for model in models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the name {twice[0]} is used twice")
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


def deployment_name(model: str) -> str:
    """Return the name of a model's deployment in Serve."""
    return "model-" + re.sub(r"[^A-Za-z0-9_.-]", "-", model)


class SettingsError(ValueError):
    """A setting is unknown, has the wrong unit or an impossible value; the start stops."""
