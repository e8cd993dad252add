"""Every knob (CONTRACT §8): a wrong one stops the start and names itself."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

import serve_app
from serve_app.mistakes import section_of
from serve_app.settings import Settings, SettingsError

REPO = Path(serve_app.__file__).parents[1]


MANY = {"requests_per_minute": 1_000, "concurrency": 1}


MANY = {"requests_per_minute": 1_000, "concurrency": 1}


def model(**more: object) -> dict[str, Any]:
    return {"models": [{"name": "m", **more}]}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        pytest.param({"stor": {}}, "args.stor: unknown setting; did you mean store?", id="section"),
        pytest.param(
            {"store": {"timeout": 1}},
            "args.store.timeout: unknown setting; did you mean timeout_ms?",
            id="without its unit",
        ),
        pytest.param(
            {"queue": {"classes": [{"name": "a", "max_wait": 60}]}},
            "args.queue.classes.0.max_wait: unknown setting; did you mean max_wait_s?",
            id="in a list",
        ),
        pytest.param(
            model(autoscaling={"zzz": 1}),
            "args.models.0.autoscaling.zzz: unknown setting; known here: min_replicas, max_repl",
            id="nothing like it",
        ),
        pytest.param(
            {"queue": {"classes": [{"name": "a", "max_wait_s": "60s"}]}},
            "args.queue.classes.0.max_wait_s: Input should be a valid number (got '60s')",
            id="unit in the value",
        ),
        pytest.param(
            {"store": {"timeout_ms": 0.5}},
            "args.store.timeout_ms: Input should be a valid integer (got 0.5)",
            id="seconds for milliseconds",
        ),
        pytest.param(
            {"store": {"timeout_ms": "500"}},
            "args.store.timeout_ms: Input should be a valid integer (got '500')",
            id="a number as text",
        ),
        pytest.param(
            {"gateway": {"min_replicas": True}},
            "args.gateway.min_replicas: Input should be a valid integer (got True)",
            id="yes is no number",
        ),
        pytest.param(
            {"queue": {"classes": [{"name": "a", "max_wait_s": 0}]}},
            "args.queue.classes.0.max_wait_s: Input should be greater than 0 (got 0)",
            id="no patience",
        ),
        pytest.param(
            {"queue": {"classes": [{"name": "a", "max_wait_s": 86_401}]}},
            "less than or equal to 86400 (got 86401)",
            id="longer than a day",
        ),
        pytest.param({"queue": {"classes": []}}, "args.queue.classes: List should", id="no class"),
        pytest.param(
            {"queue": {"classes": [{"name": "a"}, {"name": "a"}]}},
            "args.queue.classes: two classes have the same name",
            id="a class twice",
        ),
        pytest.param(
            {"queue": {"classes": [{"name": "a"}, {"name": "b", "max_seats": 1.2}]}},
            "args.queue.classes: 'b' has max_seats 1.2 and 'a', which stands above it, only 1;",
            id="a lower class that fills more seats",
        ),
        pytest.param(
            {"queue": {"classes": [{"name": n, "service_tier": "flex"} for n in ("a", "b")]}},
            "args.queue.classes: 'a' and 'b' both claim the service_tier 'flex'; one class may",
            id="a tier twice",
        ),
        pytest.param(
            {"queue": {"classes": [{"name": "a", "service_tier": "cheap"}]}},
            "args.queue.classes.0.service_tier: Input should be 'auto', 'default', 'flex', ",
            id="no tier of OpenAI's",
        ),
        *[
            pytest.param(
                {"queue": {"classes": [{"name": "a", knob: wrong}]}},
                f"args.queue.classes.0.{knob}: Input should be ",
                id=f"{knob} {wrong}",
            )
            for knob, wrong in (
                ("max_seats", 0),
                ("max_seats", 4.1),
                ("max_seats", float("nan")),
                ("promote_after_s", 0),
                ("max_bytes", -1),
                ("max_bytes", 1.5),
            )
        ],
        pytest.param({"queue": {"output_weight": 0}}, "args.queue.output_weight: ", id="free"),
        pytest.param({"queue": {"keep_alive_s": -1}}, "args.queue.keep_alive_s: ", id="alive"),
        pytest.param(
            model(autoscaling={"target_utilization": 80}),
            "args.models.0.autoscaling.target_utilization: Input should be less than or equal to 1",
            id="percent",
        ),
        pytest.param(
            model(autoscaling={"min_replicas": 3, "max_replicas": 2}),
            "args.models.0.autoscaling: min_replicas 3 is above max_replicas 2",
            id="model: more at least than at most",
        ),
        pytest.param(
            {"gateway": {"min_replicas": 2}},
            "args.gateway: min_replicas 2 is above max_replicas 1",
            id="gateway: more at least than at most",
        ),
        pytest.param(
            {"limits": {"default": {"requests_per_minute": -1}}},
            "args.limits.default.requests_per_minute: must be a whole number from 0 to 1000000, "
            "or {limit, burst}; 0 means never (got -1)",
            id="less than never",
        ),
        pytest.param(
            {"limits": {"default": {"request_per_minute": 1}}},
            "args.limits.default.request_per_minute: unknown setting; did you mean requests_per_",
            id="nearly a limit",
        ),
        pytest.param(
            {"limits": {"default": {"models": {"m": {"token_per_day": 1}}}}},
            "args.limits.default.models.m.token_per_day: unknown setting; did you mean tokens_per_",
            id="nearly a model's limit",
        ),
        pytest.param(
            {"limits": {"default": {"tokens_per_minute": {"limit": 0, "burst": 5}}}},
            "args.limits.default.tokens_per_minute.burst: contradicts a limit of 0, which means",
            id="a burst of never",
        ),
        pytest.param(
            {"auth": {"anonymous": {"limits": {"cost_per_day": "5"}}}},
            "args.auth.anonymous.limits.cost_per_day: must be a number from 0 to 1000000",
            id="money as text",
        ),
        pytest.param(
            {"auth": {"anonymous": {"limits": {"exempt": True}}}},
            "args.auth.anonymous.limits.exempt: is for keys and users",
            id="exempt strangers",
        ),
        pytest.param(
            {"auth": {"visitor": {"limits": {"models": {f"m{n}": MANY for n in range(64)}}}}},
            "args.auth.visitor.limits: are too many to be carried by a token",
            id="more than a header holds",
        ),
        pytest.param(
            {"models": []}, "args.models: List should have at least 1 item", id="no model"
        ),
        pytest.param({"models": [{}]}, "args.models.0.name: Field required", id="no name"),
        pytest.param(
            {"models": [{"name": "m"}, {"name": "n"}, {"name": "m"}]},
            "args.models: 'm' is both models.0.name and models.2.name",
            id="two models of one name",
        ),
        pytest.param(
            {"models": [{"name": "m"}, {"name": "n", "aliases": ["o", "m"]}]},
            "args.models: 'm' is both models.0.name and models.1.aliases.1",
            id="an alias that is a model",
        ),
        pytest.param(
            {"models": [{"name": "m", "aliases": ["o"]}, {"name": "n", "aliases": ["o"]}]},
            "args.models: 'o' is both models.0.aliases.0 and models.1.aliases.0",
            id="an alias of two models",
        ),
        pytest.param(
            model(name="m", aliases=["o"], adapters=[{"name": "o", "source": "org/o"}]),
            "args.models: 'o' is both models.0.aliases.0 and models.0.adapters.0.name",
            id="an adapter that is an alias",
        ),
        pytest.param(
            model(aliases=["a b"]), "args.models.0.aliases.0: String should match", id="bad alias"
        ),
        pytest.param(
            model(adapters=[{"name": "a"}]),
            "args.models.0.adapters.0.source: Field required",
            id="an adapter from nowhere",
        ),
        pytest.param(
            model(engine_args={"lora-modules": ["a=/a"]}),
            "args.models.0.engine_args: lora_modules is set by the gate; remove it",
            id="adapters past the gate",
        ),
        pytest.param({"models": [{"name": "a b"}]}, "args.models.0.name: String", id="bad name"),
        pytest.param(
            model(engine="vllmm"),
            "args.models.0.engine: Input should be 'vllm' or 'simulated' (got 'vllmm')",
            id="unknown engine",
        ),
        pytest.param(
            model(engine_args={"port": 1, "api-key": "x", "dtype": "auto"}),
            "args.models.0.engine_args: api_key, port is set by the gate; remove it",
            id="what the gate sets",
        ),
        pytest.param(
            model(prices={"input_per_million": -0.1}),
            "args.models.0.prices.input_per_million: Input should be greater than or equal to 0",
            id="paid to read",
        ),
        *[
            pytest.param(
                model(prices={"output_per_million": price}),
                "args.models.0.prices.output_per_million: Input should be a finite number",
                id=f"a price of {price}",
            )
            for price in (float("nan"), float("inf"))
        ],
        pytest.param(
            model(prices={"cached_per_million": 1}),
            "args.models.0.prices.cached_per_million: unknown setting; did you mean cached_input_",
            id="a price for nothing",
        ),
        pytest.param(
            model(output_cap=0), "args.models.0.output_cap: Input should be greater", id="no output"
        ),
        pytest.param(
            model(image_tokens=-1), "args.models.0.image_tokens: Input should", id="image"
        ),
        pytest.param(model(tool_tokens=0.5), "args.models.0.tool_tokens: Input should", id="tool"),
        pytest.param(
            {"limits": {"max_prompt_chars": -1}},
            "args.limits.max_prompt_chars: Input should be greater than or equal to 0 (got -1)",
            id="less than no prompt",
        ),
        pytest.param(
            {"limits": {"hold_ttl_s": 121}},
            "args.limits.hold_ttl_s: Input should be less than or equal to 120 (got 121)",
            id="held for longer than promised",
        ),
        pytest.param(
            {"limits": {"hold_ttl_s": 4}},
            "args.limits.hold_ttl_s: Input should be greater than or equal to 5 (got 4)",
            id="held for a moment",
        ),
        pytest.param(model(env={"A": 1}), "args.models.0.env.A: Input should be", id="env"),
        pytest.param(
            {"auth": {"trusted_proxies": ["10.0.0.0/33"]}},
            "args.auth.trusted_proxies: '10.0.0.0/33' does not appear to be",
            id="no CIDR",
        ),
        pytest.param(
            {"auth": {"trusted_proxies": ["10.0.0.1/8"]}}, "has host bits set", id="host bits"
        ),
        pytest.param(
            {"store": {"url": "http://h"}}, "args.store.url: String should", id="no Redis"
        ),
        pytest.param({"store": None}, "args.store: Input should be", id="an empty section"),
        pytest.param({"store": ["url"]}, "args.store: Input should be", id="a list for a section"),
        pytest.param(None, "args: Input should be", id="null"),
        pytest.param(["store"], "args: Input should be", id="a list"),
    ],
)
def test_a_wrong_setting_stops_the_start(args, says) -> None:
    """The message names the path in serve_config.yaml, what is wrong, and how to mend it."""
    with pytest.raises(SettingsError) as told:
        Settings.from_args(args)
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_every_mistake_is_told_at_once() -> None:
    """Nobody starts three times to learn of three mistakes."""
    with pytest.raises(SettingsError) as told:
        Settings.from_args({"stor": {}, "limits": {"max_body_bytes": 1}, **model(seats=0)})
    for path in ("args.stor:", "args.limits.max_body_bytes:", "args.models.0.seats:"):
        assert path in str(told.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@host:6379/0",
        "redis://user:hunter2@host",
        "rediss://user:hunter2@host",
        "unix://:hunter2@/run/redis.sock",
        "redis://:hunter2's@host",
        "redis://:p@hunter2@host",
        "redis://:p/hunter2@host",
        "redis://:p hunter2@host",
        "redis://host:6379/0?password=hunter2",
        "redis://host:6379/0?db=1&password=hunter2",
        "redis+cluster://:hunter2@a:1,b:2/",
        "redis+sentinel://user:hunter2@a:1,b:2/main",
        "redis+sentinel://a:1,b:2/main?sentinel_password=hunter2",
        "http://:hunter2@host",
        "redis:/:hunter2@host",
        ":hunter2@host",
    ],
)
def test_a_password_in_the_store_url(url: str) -> None:
    """It is refused, says where it belongs, and is not repeated for a log to keep."""
    with pytest.raises(SettingsError, match=r"args\.store\.url: ") as told:
        Settings.from_args({"store": {"url": url}})
    assert "hunter2" not in str(told.value)
    if url.startswith(("redis://", "rediss://", "unix://", "redis+")):
        assert "SLUICEGATE_STORE_URL" in str(told.value)


@pytest.mark.parametrize(
    "args",
    [
        model(engine_args={"api_key": "hunter2"}),
        {"models": [{"env": {"TOKEN": "hunter2"}}]},
        {"models": [{"name": "m", "env": {"TOKEN": "hunter2"}}] * 2},
        {"store": [{"url": "hunter2"}]},
        {"auth": {"keys": ["hunter2"]}},
    ],
)
def test_a_refused_block_is_not_repeated(args: dict[str, Any]) -> None:
    """Of a whole block only the path is told: what is in it may be a secret."""
    with pytest.raises(SettingsError) as told:
        Settings.from_args(args)
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize(
    "url",
    [
        None,
        "redis://host",
        "rediss://host:6379/0",
        "redis://user@host:6379",
        "unix:///run/r.sock",
        "redis+cluster://a:1,b:2/",
        "rediss+cluster://user@a",
        "redis+sentinel://a:1,b:2/main/3",
    ],
)
def test_a_store_url_without_a_password(url: str | None) -> None:
    """A host, a port, a user and a socket are no secrets."""
    assert Settings.from_args({"store": {"url": url}}).store.url == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis+cluster://a:1/3", "a cluster has no databases"),
        ("redis+sentinel://a:1", "/<service>"),
        ("redis+galaxy://a:1", "should match pattern"),
    ],
)
def test_a_store_url_that_says_too_little_or_too_much(url: str, why: str) -> None:
    """The start stops and says what is wrong with it."""
    with pytest.raises(SettingsError, match=r"args\.store\.url: ") as told:
        Settings.from_args({"store": {"url": url}})
    assert why in str(told.value)


def test_no_settings_are_a_working_gate() -> None:
    """``args: {}`` serves one model, and its settings cannot be changed after the start."""
    settings = Settings.from_args({})
    assert [one.name for one in settings.models] == ["smollm2-135m"]
    assert [one.name for one in settings.queue.classes][:2] == ["interactive", "standard"]
    with pytest.raises(ValueError, match="frozen"):
        settings.store.timeout_ms = 1  # type: ignore[misc]


def test_the_config_file_in_the_repository_is_valid() -> None:
    """serve_config.yaml starts, and says what the defaults say."""
    whole = yaml.safe_load((REPO / "serve_config.yaml").read_text())
    (application,) = whole["applications"]
    assert Settings.from_args(application["args"]) == Settings.from_args({})


def test_the_classes() -> None:
    """CONTRACT §8: highest first, each with its share of the seats, its patience and its tier."""
    queue = Settings.from_args({}).queue
    assert [
        (c.name, c.max_seats, c.max_wait_s, c.promote_after_s, c.max_tickets, c.service_tier)
        for c in queue.classes
    ] == [
        ("interactive", 1.25, 30, 5, 1_000, "priority"),
        ("standard", 1.0, 60, 15, 2_000, None),
        ("batch", 0.95, 600, 60, 10_000, "flex"),
        ("anonymous", 0.5, 30, 60, 200, None),
    ]
    assert queue.ceiling == 1.25


def test_limits_in_a_file_are_those_of_keys() -> None:
    """Every kind, whole money as well, a burst, one model; what is written replaces the default."""
    written = """
      limits:
        default: {tokens_per_day: 5, cost_per_day: 5, requests_per_minute: {limit: 9, burst: 2}}
      auth: {anonymous: {limits: {models: {m: {concurrency: 1}}}}, visitor: {limits: {}}}
    """
    settings = Settings.from_args(yaml.safe_load(written))
    assert settings.limits.default.text() == "r 9 2 0 T 5 5 0 D 5000000000 5000000000 0"
    assert settings.auth.anonymous.limits.text() == "\nm\tc 1 1 0"
    assert settings.auth.visitor.limits.text() == ""


@pytest.mark.parametrize("spelling", ["tensor_parallel_size", "tensor-parallel-size"])
def test_engine_args_are_spelt_with_underscores(spelling: str) -> None:
    """The dashes of vLLM's command line mean the same."""
    settings = Settings.from_args(model(engine_args={spelling: 2}))
    assert settings.models[0].engine_args == {"tensor_parallel_size": 2}


def sections(root: type[BaseModel]) -> set[type[BaseModel]]:
    """``root`` and every block of settings below it."""
    found = {root}
    for name in root.model_fields:
        inner = section_of(root, name)
        if inner is not root:
            found |= sections(inner)
    return found


@pytest.mark.parametrize("section", sorted(sections(Settings), key=str), ids=lambda s: s.__name__)
def test_every_setting_says_what_it_is(section: type[BaseModel]) -> None:
    """Each knob is followed by a sentence; a block's sentence is its own docstring."""
    assert section.__doc__
    silent = [
        name
        for name, field in section.model_fields.items()
        if section_of(section, name) is section
        and not (field.description or "").endswith((".", "…"))
    ]
    assert silent == []
