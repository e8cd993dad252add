"""The names that clients may ask for: what they stand for, who may use them, what is told."""

import pytest

from serve_app.auth import Caller
from serve_app.errors import ModelForbidden, NoSuchModel
from serve_app.ingress.reading.call import Call
from serve_app.ingress.reading.catalogue import Catalogue, may_ask
from serve_app.ingress.reading.demand import Weighed
from serve_app.model_settings import Adapter, Model

POET = Adapter(name="poet", source="/models/loras/poet/")
SMALL = Model(name="small", aliases=["gpt-4o-mini"], adapters=[POET])
LARGE = Model(name="org/large", engine_args={"max_model_len": 4_096})
LATER = Adapter(name="later", source="org/later-lora")
NAMES = ["small", "org/large", "gpt-4o-mini", "later", "poet"]


@pytest.fixture
def catalogue() -> Catalogue:
    made = Catalogue([SMALL, LARGE])
    made.learn([("org/large", LATER)])
    return made


def caller(*models: str) -> Caller:
    permissions = frozenset({"run_inference"})
    return Caller("acme", "k", permissions, frozenset(models) if models else None)


def test_every_name_stands_for_a_model(catalogue: Catalogue) -> None:
    """Names, aliases and adapters, those loaded later too; any other is unknown."""
    assert sorted(catalogue) == sorted(NAMES)
    assert len(catalogue) == len(NAMES)
    served = {name: catalogue[name].name for name in catalogue}
    assert served == {"gpt-4o-mini": "small", "poet": "small", "later": "org/large"} | {
        name: name for name in ("small", "org/large")
    }
    with pytest.raises(NoSuchModel, match="'nobody' does not exist"):
        catalogue.must_have("nobody")


@pytest.mark.parametrize(
    ("models", "usable"),
    [
        ((), NAMES),
        (("small",), ["small", "gpt-4o-mini"]),
        (("gpt-4o-mini",), ["gpt-4o-mini"]),
        (("poet",), ["poet"]),
        (("org/large", "later"), ["org/large", "later"]),
        (("nobody",), []),
    ],
)
def test_who_may_ask_for_what(catalogue: Catalogue, models: tuple[str, ...], usable) -> None:
    """A model's own name opens its aliases; an alias opens itself; an adapter is named itself."""
    assert catalogue.usable(caller(*models)) == usable
    for name, model in catalogue.items():
        call = Call(model, "/v1/completions", b"{}", False, False, Weighed(0, 0, 0), asked=name)
        assert may_ask(caller(*models), name, model) == (name in usable)
        if name in usable:
            call.must_be_allowed(caller(*models))
        else:
            with pytest.raises(ModelForbidden):
                call.must_be_allowed(caller(*models))


def test_what_counts_apart(catalogue: Catalogue) -> None:
    """An alias is counted as its model, once; an adapter as itself."""
    assert catalogue.counting(caller()) == ["small", "org/large", "later", "poet"]
    assert catalogue.counting(caller("gpt-4o-mini")) == ["small"]


def test_what_is_told(catalogue: Catalogue) -> None:
    """In vLLM's words; where an adapter lies on a node is nobody's business."""
    told = {name: (catalogue.card(name)["root"], catalogue.card(name)["parent"]) for name in NAMES}
    assert told == {
        "small": ("small", None),
        "gpt-4o-mini": ("small", None),
        "poet": ("poet", "small"),
        "org/large": ("org/large", None),
        "later": ("later-lora", "org/large"),
    }
    assert catalogue.card("later")["max_model_len"] == 4_096
    assert "max_model_len" not in catalogue.card("small")


def test_what_is_loaded_later_takes_no_name_away(catalogue: Catalogue) -> None:
    """A name that the settings give away keeps its meaning; without its model nothing is served."""
    stolen = [Adapter(name=name, source="org/thief") for name in ("small", "gpt-4o-mini", "poet")]
    catalogue.learn([*(("org/large", one) for one in stolen), ("gone", LATER)])
    assert sorted(catalogue) == sorted(set(NAMES) - {"later"})
    assert {catalogue[one.name].name for one in stolen} == {"small"}
    catalogue.learn([])
    assert "later" not in catalogue
