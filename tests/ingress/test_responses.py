"""Responses that an engine keeps: who may have them, and where they are gone on from."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.auth import Caller
from serve_app.errors import Forbidden, NoSuchResponse, UpstreamFailed
from serve_app.ingress import responses
from serve_app.ingress.reading.call import Call, read
from serve_app.model_settings import KEEPS_RESPONSES, Model
from serve_app.queueing import Place, Seat
from serve_app.store import Address

NAME = "resp_" + "0" * 32
HERE, THERE = Address("127.0.0.1", 1, "k"), Address("127.0.0.1", 2, "k")
MODEL = Model(
    name="m",
    aliases=["gpt"],
    adapters=[{"name": "poet", "source": "org/p"}],
    env={KEEPS_RESPONSES: "1"},
)
CALLER = Caller("t", "k", frozenset({"run_inference"}))


class Keeping:
    """What a gateway knows of kept responses, and an engine that answers or does not.

    Args:
        asked: the name that the one response was asked by.
        fails: what sending raises.
    """

    def __init__(self, asked: str, fails: Exception | None = None) -> None:
        self.models = {"m": MODEL}
        self.kept = self.relay = self
        self.place: Place | None = Place("m", asked, "r1", HERE)
        self.sent_to: list[str] = []
        self.noted: dict[str, str] = {}
        self._fails = fails

    def must_start(self, model: Model) -> None:
        """It can."""

    async def find(self, tenant: str, caller: str, named: str) -> Place | None:
        return self.place

    async def note(self, tenant: str, caller: str, named: str, **where: str) -> None:
        self.noted = where

    @asynccontextmanager
    async def send(self, call: Call, seat: Seat, headers: Any) -> AsyncIterator[Any]:
        self.sent_to.append(seat.replica)
        if self._fails is not None:
            raise self._fails
        yield SimpleNamespace(status=200)


def call(asked: str) -> Call:
    fields = {"model": asked, "input": "a", "previous_response_id": NAME}
    return read("/v1/responses", b"{}", fields, dict.fromkeys(("m", "gpt", "poet"), MODEL))


async def sent(gate: Any, asked: Call) -> None:
    """Send it from a seat at another replica."""
    exchange: Any = SimpleNamespace(passed_on=lambda _model: {})
    async with responses.sent(gate, exchange, asked, Seat("r2", THERE, 1, 0.0, "standard"), CALLER):
        pass


@pytest.mark.parametrize(
    ("made_by", "asked", "goes_on"),
    [
        ("m", "m", True),
        ("m", "gpt", True),
        ("gpt", "m", True),
        ("poet", "poet", True),
        ("poet", "m", False),
        ("m", "poet", False),
    ],
)
async def test_it_is_gone_on_from_by_the_same_name(made_by: str, asked: str, goes_on: bool) -> None:
    """An alias is its model; an adapter is another, whose responses are nobody else's."""
    gate: Any = Keeping(made_by)
    if not goes_on:
        with pytest.raises(NoSuchResponse):
            await responses.placed(gate, call(asked), CALLER)
        return
    placed = await responses.placed(gate, call(asked), CALLER)
    await sent(gate, placed)
    assert gate.sent_to == ["r1"]
    assert gate.noted == {"model": "m", "asked": asked, "replica": "r1"}


async def test_what_goes_while_a_request_waits_is_not_found() -> None:
    """The place is looked up again once there is a seat; nothing is sent elsewhere."""
    gate: Any = Keeping("m")
    placed = await responses.placed(gate, call("m"), CALLER)
    gate.place = None
    with pytest.raises(NoSuchResponse) as told:
        await sent(gate, placed)
    assert (told.value.status, told.value.param) == (404, "previous_response_id")
    assert gate.sent_to == []


@pytest.mark.parametrize("cause", [ConnectionRefusedError(), TimeoutError(), None])
async def test_who_keeps_it_may_be_out_of_reach(cause: Exception | None) -> None:
    """Then it is gone, and no other replica is tried; one that answers badly still keeps it."""
    failed = UpstreamFailed("no")
    failed.__cause__ = cause
    gate: Any = Keeping("m", failed)
    placed = await responses.placed(gate, call("m"), CALLER)
    with pytest.raises(NoSuchResponse if cause else UpstreamFailed):
        await sent(gate, placed)


@pytest.mark.parametrize(
    ("models", "asked", "may"),
    [
        (("gpt",), "gpt", True),
        (("poet",), "poet", True),
        (("m",), "gpt", True),
        (("m",), "poet", False),
        (("poet",), "m", False),
    ],
)
async def test_a_caller_of_one_name_has_what_it_made(
    models: tuple[str, ...], asked: str, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Confined to an alias or an adapter it was refused its own responses."""
    caller = Caller("t", "k", frozenset({"run_inference"}), models=frozenset(models))

    @asynccontextmanager
    async def admitted(*_: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(caller=caller)

    class Reached(Exception):
        """The engine was asked."""

    def ask(*_: Any) -> None:
        raise Reached

    monkeypatch.setattr(responses, "admitted", admitted)
    gate: Any = Keeping(asked)
    gate.ask = ask
    exchange: Any = SimpleNamespace(
        query={}, scope={"path_params": {"response_id": NAME}}, passed_on=lambda _model: {}
    )
    with pytest.raises(Reached if may else Forbidden):
        await responses.retrieve(gate, exchange)
