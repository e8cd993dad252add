"""The names that clients may ask for: models, their aliases, and adapters. Pure.

A name stands for a :class:`Model`, whose line, seats, prices and engine serve it. Under which name
a request counts, and who may make it, the model itself tells: :meth:`Model.counted`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from serve_app.auth import Caller
from serve_app.errors import NoSuchModel
from serve_app.model_settings import Adapter, Model


def may_ask(caller: Caller, name: str, model: Model) -> bool:
    """Return whether ``caller`` may ask for ``name``, which ``model`` serves.

    Whoever may use a model may use its aliases; its adapters only by their own names.
    """
    return caller.may_use(name) or caller.may_use(model.counted(name))


class Catalogue(Mapping[str, Model]):
    """Every name that a client may ask for, and the model that serves it.

    Args:
        models: in the order in which they are listed.
    """

    def __init__(self, models: list[Model]) -> None:
        self._models = {model.name: model for model in models}
        aliases = {alias: model for model in models for alias in model.aliases}
        self._fixed = self._models | aliases
        self._parents: dict[str, tuple[Model, str]] = {}
        self._named = {one.name: (model, one.source) for model in models for one in model.adapters}
        self.learn([])

    def learn(self, loaded: list[tuple[str, Adapter]]) -> None:
        """Take in which adapters are loaded beside those of the settings, by model.

        One whose name the settings give away, or whose model is no more, is not offered.
        """
        others = {
            one.name: (self._models[model], one.source)
            for model, one in loaded
            if model in self._models and one.name not in self._fixed
        }
        self._parents = others | self._named
        self._all = self._fixed | {name: model for name, (model, _) in self._parents.items()}

    def __getitem__(self, name: str) -> Model:
        """Return the model that serves ``name``."""
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        """Yield every name: models, aliases, adapters."""
        return iter(self._all)

    def __len__(self) -> int:
        """Return how many names there are."""
        return len(self._all)

    def must_have(self, name: str) -> Model:
        """Return the model that serves ``name``.

        Raises:
            NoSuchModel: none does.
        """
        if name not in self._all:
            raise NoSuchModel(f"The model '{name[:128]}' does not exist.", param="model")
        return self._all[name]

    def usable(self, caller: Caller) -> list[str]:
        """Return every name that ``caller`` may ask for."""
        return [name for name, model in self._all.items() if may_ask(caller, name, model)]

    def counting(self, caller: Caller) -> list[str]:
        """Return every name under which a request of ``caller`` may count."""
        return [*dict.fromkeys(self._all[name].counted(name) for name in self.usable(caller))]

    def card(self, name: str) -> dict[str, Any]:
        """Return what is told of ``name``, in vLLM's words: its ``root``, an adapter's ``parent``.

        A folder's path is nobody's business: the root of an adapter is its source's last part.
        """
        model = self._all[name]
        base, source = self._parents.get(name, (None, ""))
        told: dict[str, Any] = {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "sluicegate",
            "root": source.rstrip("/").rpartition("/")[2] if base else model.name,
            "parent": base.name if base else None,
        }
        if "max_model_len" in model.engine_args:
            told["max_model_len"] = model.engine_args["max_model_len"]
        return told
