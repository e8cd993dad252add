"""What a request may cost, before it runs: its prompt weighed and its replies bounded. Pure.

Whatever a body holds, the answer is finite and nothing is raised: what an engine cannot read it
refuses in its own words. Numbers are read as generously as an engine reads them: ``"8"`` is 8.

text       the bytes of its strings as UTF-8; what the protocol itself says is none
media      an image, a sound, a video: a fixed cost each; their bytes are never text
forms      their sound: as long as the whole body, were it unpacked, and no less than that cost
tools      their schemas are rendered into the prompt, so they are text, and a fixed cost each
token ids  are known exactly
grammars   (``response_format`` and its kin) bind the reply and stand in no prompt: nothing
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from serve_app.ingress.reading.dialects import (
    ARGUMENTS,
    DIALECTS,
    LABELS,
    MEDIA,
    NAMES,
    SOUND_BYTES_PER_TOKEN,
    TEXT_SOURCES,
    WORDS,
    Dialect,
)
from serve_app.limits import Demand
from serve_app.model_settings import Model

MESSAGE_TOKENS = 4
"""What a chat template puts around one message."""

CHOICES_MAX = 16_384
"""As many replies as vLLM gives to one prompt at most."""

CAP_MAX = 1_000_000_000
TEXT_MAX = 1_000_000_000_000


@dataclass(frozen=True, slots=True)
class Weighed(Demand):
    """What one request may use, and how long its prompt is.

    Attributes:
        chars: characters of prompt text, a token id counting as one.
        longest: the field with most of them.
        default_cap: output tokens per reply where no cap is named, if the engine fixes them.
    """

    chars: int = 0
    longest: str = ""
    default_cap: int | None = None


@dataclass(slots=True)
class _Scale:
    """What one field weighs."""

    text_bytes: int = 0
    chars: int = 0
    media: int = 0
    ids: int = 0
    prompts: int = 0

    def put(self, texts: list[str]) -> None:
        """Add texts, all at once: a call for each would cost more than the parsing did."""
        text = "".join(texts)
        ascii_only = text.isascii()
        self.text_bytes += len(text if ascii_only else text.encode("utf-8", "surrogatepass"))
        self.chars += len(text)


def weighed(path: str, raw_bytes: int, fields: dict[str, Any], model: Model) -> Weighed:
    """Return what a request may use.

    Args:
        path: the engine's path; of one that is not known, the whole body is text.
        raw_bytes: bytes of the body.
        fields: the object in it.
        model: whose fixed costs count.
    """
    dialect = DIALECTS.get(path)
    if dialect is None:
        return Weighed(raw_bytes, 0, 1, None, raw_bytes, "body")
    weights = {
        name: _weighed(name, fields[name], dialect)
        for name in dialect.carriers
        if fields.get(name) is not None
    }
    scales = weights.values()
    media = sum([one.media for one in scales])
    sound = max(model.image_tokens, raw_bytes // SOUND_BYTES_PER_TOKEN) if dialect.form else 0
    text_bytes = sum([one.text_bytes for one in scales]) + _repeated(fields, weights, dialect)
    return Weighed(
        text_bytes=min(text_bytes, TEXT_MAX),
        fixed_tokens=sum([one.ids for one in scales])
        + media * model.image_tokens
        + sound
        + _counted(fields, dialect.talks) * MESSAGE_TOKENS
        + _counted(fields, dialect.schemas) * model.tool_tokens,
        choices=_choices(fields, weights) if dialect.generates else 0,
        cap=_cap(fields, dialect),
        chars=sum([one.chars for one in scales]),
        longest=max(weights, key=lambda name: weights[name].chars, default=""),
        default_cap=dialect.default_cap,
    )


def _weighed(name: str, value: Any, dialect: Dialect) -> _Scale:
    """Return what the field ``name`` weighs."""
    scale = _Scale()
    if name in dialect.schemas or name in dialect.shown:
        texts: list[str] = []
        _gather(value, texts)
        scale.put(texts)
    elif name in MEDIA:
        scale.media = scale.prompts = _many(value)
    elif name in dialect.prompts:
        _weigh_prompts(value, scale)
    else:
        _weigh(value, scale)
    return scale


def _gather(value: Any, texts: list[str]) -> None:
    """Add every string under ``value`` to ``texts``, names of members too."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        kind = type(one)
        if kind is str:
            texts.append(one)
        elif kind is list:
            waiting += one
        elif kind is dict:
            texts += one
            waiting += one.values()


def _weigh(value: Any, scale: _Scale) -> None:
    """Put on the scale what messages say, and nothing of what the protocol says."""
    waiting, texts = [value], [""]
    while waiting:
        one = waiting.pop()
        kind = type(one)
        if kind is str:
            texts.append(one)
        elif kind is list:
            waiting += one
        elif kind is dict:
            scale.media += _sort(one, texts, waiting)
    scale.put(texts)


def _sort(members: dict[str, Any], texts: list[str], waiting: list[Any]) -> int:
    """Sort the members of a message or its part; return how many are media."""
    media = 0
    for name, inner in members.items():
        if name not in NAMES:
            if name in MEDIA:
                written = _written(inner) if name == "source" else None
                media += inner is not None and written is None
                waiting.append(written)
                continue
            texts.append(name)
        if type(inner) is str:
            if name not in LABELS or inner not in WORDS:
                texts.append(inner)
        elif name in ARGUMENTS and type(inner) is dict:
            _gather(inner, texts)
        else:
            waiting.append(inner)
    return media


def _written(source: Any) -> Any:
    """Return the text of a document that is written out; None of a file."""
    if type(source) is not dict or type(source.get("type")) is not str:
        return None
    return source.get(TEXT_SOURCES.get(source["type"], ""))


def _weigh_prompts(value: Any, scale: _Scale) -> None:
    """Put a prompt on the scale: a text, token ids, or a list of either."""
    scale.prompts = 1
    if isinstance(value, list):
        if value and isinstance(value[0], int | float):
            scale.ids = len(value)
        else:
            scale.prompts = max(1, len(value))
            scale.ids = sum([len(one) for one in value if type(one) is list])
            _weigh([one for one in value if type(one) is not list], scale)
    else:
        _weigh(value, scale)
    scale.chars += scale.ids


def _many(value: Any) -> int:
    """Return how many things ``value`` is: a list's members, else one."""
    return len(value) if isinstance(value, list) else 1


def _counted(fields: dict[str, Any], names: Iterable[str]) -> int:
    """Return how many things the named fields hold."""
    return sum(_many(fields[name]) for name in names if fields.get(name) is not None)


def _repeated(fields: dict[str, Any], weights: dict[str, _Scale], dialect: Dialect) -> int:
    """Return the bytes of a query that an engine reads again with each further document."""
    if not dialect.queries:
        return 0
    queries = [name for name in dialect.queries if name in weights]
    if _counted(fields, queries) != 1:
        return 0
    documents = _counted(fields, (name for name in dialect.texts if name not in queries))
    return max(0, documents - 1) * sum(weights[name].text_bytes for name in queries)


def _choices(fields: dict[str, Any], weights: dict[str, _Scale]) -> int:
    """Return how many replies are asked for: to each prompt one, or more."""
    prompts = max([one.prompts for one in weights.values()], default=1)
    each = max(_whole(fields.get(name)) or 1 for name in ("n", "best_of"))
    return min(max(1, each) * max(1, prompts), CHOICES_MAX)


def _cap(fields: dict[str, Any], dialect: Dialect) -> int | None:
    """Return how many tokens each reply may have, the larger if two fields say it."""
    told = [_whole(fields.get(name)) for name in dialect.caps]
    named = [min(max(0, cap), CAP_MAX) for cap in told if cap is not None]
    return max(named, default=None)


def _whole(value: Any) -> int | None:
    """Return the whole number that an engine may read in ``value``; None if there is none."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return _whole(_float(value))
    return int(value) if isinstance(value, float) and math.isfinite(value) else None


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
