"""What the engine answers to: the model's names and its LoRA adapters, loaded and unloaded.

Source: vLLM 0.32, entrypoints/openai/models/serving.py.
"""

from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

import msgspec

from serve_app.engine.simulated.request import Refusal

T = TypeVar("T")


class Loading(msgspec.Struct):
    """The body of /v1/load_lora_adapter."""

    lora_name: str
    lora_path: str


class Unloading(msgspec.Struct):
    """The body of /v1/unload_lora_adapter."""

    lora_name: str


@dataclass(slots=True)
class Names:
    """The names of one engine.

    Attributes:
        model: the first of the model's names; its replies carry it, whatever they were asked under.
        aliases: the others.
        takes_adapters: whether there may be adapters at all.
        adapters: name -> where it came from.
    """

    model: str
    aliases: tuple[str, ...] = ()
    takes_adapters: bool = False
    adapters: dict[str, str] = field(default_factory=dict)

    @property
    def served(self) -> frozenset[str]:
        """The names of the model itself."""
        return frozenset((self.model, *self.aliases))

    def load(self, raw: bytes) -> str:
        """Load an adapter and return what vLLM says.

        Raises:
            Refusal: the name is taken, or nothing is there.
        """
        asked = _decoded(raw, Loading)
        name, taken = asked.lora_name, None
        if name in self.served:
            taken = f"The lora adapter '{name}' conflicts with a served base model."
        if name in self.adapters:
            taken = f"The lora adapter '{name}' has already been loaded."
        if taken:
            raise Refusal(taken, kind="InvalidUserInput")
        if asked.lora_path.startswith("/") and not Path(asked.lora_path).is_dir():
            said = f"Loading lora {name} failed: No adapter found for {asked.lora_path}"
            raise Refusal(said, status=HTTPStatus.NOT_FOUND, kind="NotFoundError")
        self.adapters[name] = asked.lora_path
        return f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, raw: bytes) -> str:
        """Unload an adapter and return what vLLM says.

        Raises:
            Refusal: there is none of that name.
        """
        name = _decoded(raw, Unloading).lora_name
        if self.adapters.pop(name, None) is None:
            said = f"The lora adapter '{name}' cannot be found."
            raise Refusal(said, status=HTTPStatus.NOT_FOUND, kind="NotFoundError")
        return f"Success: LoRA adapter '{name}' removed successfully."


def _decoded(raw: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as err:
        raise Refusal(f"1 validation error:\n  {err}", kind="Bad Request") from None
