"""What the gate says of itself: health and models."""

from typing import Any

from serve_app.auth import Caller
from serve_app.errors import NoSuchModel
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate
from serve_app.settings import Model


async def health(_gate: Gate, exchange: Exchange) -> None:
    """Answer that this gateway lives."""
    await exchange.reply(200, {"status": "ok"})


async def ready(gate: Gate, exchange: Exchange) -> None:
    """Answer 200 if the store answers and every model has a replica or may sleep, else 503."""
    states = {name: _state(gate, model) for name, model in gate.models.items()}
    fine = gate.line.tended and not {"starting", "failing"} & set(states.values())
    said = {
        "status": "ready" if fine else "not ready",
        "store": "ok" if gate.line.tended else "unavailable",
        "models": states,
    }
    await exchange.reply(200 if fine else 503, said)


def _state(gate: Gate, model: Model) -> str:
    load = gate.line.loads[model.name]
    if load.replicas:
        return "ready"
    if load.failing:
        return "failing"
    return "asleep" if model.autoscaling.min_replicas == 0 else "starting"


async def models(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """List the models that the caller may use."""
    usable = [_shown(model) for name, model in gate.models.items() if caller.may_use(name)]
    await exchange.reply(200, {"object": "list", "data": usable})


async def model(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Show one model.

    Raises:
        NoSuchModel: there is none of that name.
        ModelForbidden: the caller may not use it.
    """
    name = exchange.scope["path_params"]["model"]
    if name not in gate.models:
        raise NoSuchModel(f"The model '{name[:128]}' does not exist.", param="model")
    caller.must_use(name)
    await exchange.reply(200, _shown(gate.models[name]))


def _shown(model: Model) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "sluicegate",
    }
    if "max_model_len" in model.engine_args:
        shown["max_model_len"] = model.engine_args["max_model_len"]
    return shown
