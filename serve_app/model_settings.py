"""Every knob of one model: ``args.models`` in ``serve_config.yaml``."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from serve_app.section import Fraction, Replicas, Section

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]

Price = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


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


class Prices(Section):
    """What a model's tokens cost, in the currency of the budgets."""

    input_per_million: Price = 0.0
    """Money for a million input tokens."""

    output_per_million: Price = 0.0
    """Money for a million output tokens."""

    cached_input_per_million: Price | None = None
    """Money for a million input tokens that the engine had cached; null: as other input."""


class Adapter(Section):
    """One LoRA adapter of a model."""

    name: ModelName
    """The name that callers ask for; permissions, limits and usage know it by this name."""

    source: str = Field(min_length=1, max_length=1_024)
    """A folder with `adapter_config.json` on every node with replicas, or a Hugging Face id."""


KEEPS_RESPONSES = "VLLM_ENABLE_RESPONSES_API_STORE"


class Model(Section):
    """One model behind the gate."""

    name: ModelName
    """The name that callers ask for."""

    aliases: list[ModelName] = Field(default=[], max_length=64)
    """More names for it; whoever may use the model may use them, and all count as the model."""

    adapters: list[Adapter] = Field(default=[], max_length=256)
    """LoRA adapters that are loaded at the start; more can be loaded later."""

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
    """Requests one replica runs at once; more or fewer by a class's `max_seats`."""

    num_cpus: float = Field(default=0.5, ge=0)
    """CPUs that Ray sets aside for one replica."""

    num_gpus: float | None = Field(default=None, ge=0)
    """GPUs of one replica; null: tensor × pipeline parallel size, or 0 under the CPU build."""

    start_timeout_s: float = Field(default=600.0, gt=0, le=7_200)
    """Seconds from process start to healthy before the start counts as failed."""

    drain_timeout_s: float = Field(default=60.0, ge=0, le=3_600)
    """Seconds that running requests may take to finish when a replica is taken away."""

    autoscaling: Autoscaling = Autoscaling()
    prices: Prices = Prices()
    output_cap: int | None = Field(default=None, ge=1, le=100_000_000)
    """Output tokens that a request is expected to need if it names no cap; null learns them."""

    image_tokens: int = Field(default=1_024, ge=0, le=1_000_000)
    """Input tokens of an image, a video or a sound until the engine tells; a form's has more."""

    tool_tokens: int = Field(default=64, ge=0, le=100_000)
    """Input tokens that a tool counts beside the words of its schema until the engine tells."""

    @property
    def schedules_by_priority(self) -> bool:
        """Whether the engine heeds the ``priority`` of a request; it may refuse one if not."""
        policy = self.engine_args.get("scheduling_policy", "priority")
        return self.engine == "simulated" or policy == "priority"

    @property
    def keeps_responses(self) -> bool:
        """Whether its engine keeps responses: its ``env`` says so, and nothing else may."""
        return self.env.get(KEEPS_RESPONSES, "0") not in ("", "0")

    @property
    def takes_adapters(self) -> bool:
        """Whether its engine runs LoRA adapters: some are named, or `enable_lora` is set."""
        return bool(self.adapters) or self.engine_args.get("enable_lora") is True

    @property
    def names(self) -> dict[str, str]:
        """Every name that the settings give away for it: where each stands, and the name."""
        aliases = {f"aliases.{at}": name for at, name in enumerate(self.aliases)}
        adapters = {f"adapters.{at}.name": one.name for at, one in enumerate(self.adapters)}
        return {"name": self.name, **aliases, **adapters}

    def counted(self, asked: str) -> str:
        """Return the name under which a request for ``asked`` counts.

        An alias is the model; an adapter, whether the settings or somebody later named it, itself.
        """
        return self.name if asked in self.aliases else asked

    @field_validator("engine_args")
    @classmethod
    def _ours_to_set(cls, args: dict[str, Any]) -> dict[str, Any]:
        ours = {"host", "port", "model", "served_model_name", "lora_modules"}
        ours |= {"api_key", "middleware", "uds"}
        spelt = {name.replace("-", "_"): value for name, value in args.items()}
        if taken := sorted(spelt.keys() & ours):
            raise ValueError(f"{', '.join(taken)} is set by the gate; remove it")
        return spelt


SMOLLM2 = Model(
    name="smollm2-135m",
    engine_args={
        "max_model_len": 2048,
        "dtype": "bfloat16",
        "enforce_eager": True,
        "enable_auto_tool_choice": True,
        "tool_call_parser": "hermes",
        "tool_strict_level": "parameter",  # so small a model keeps to no schema by itself
    },
    env={"VLLM_CPU_KVCACHE_SPACE": "1"},
)


def deployment_name(model: str) -> str:
    """Return the name of a model's deployment in Serve."""
    return "model-" + re.sub(r"[^A-Za-z0-9_.-]", "-", model)
