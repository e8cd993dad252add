"""What is wrong with a block of settings or a request's body, told to whoever wrote it.

Passwords are not shown.
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from serve_app.redaction import redacted


def told(root: type[BaseModel], err: ValidationError) -> Iterator[str]:
    """Yield one sentence per mistake: the path in serve_config.yaml, what is wrong, the mend."""
    for mistake in err.errors(include_url=False):
        where = ".".join(str(step) for step in ("args", *mistake["loc"]))
        if mistake["type"] == "extra_forbidden":
            yield f"{where}: unknown setting; {near(root, mistake['loc'])}"
        else:
            yield f"{where}: {said(root, mistake)}{_got(where, mistake['input'])}"


def said(root: type[BaseModel], mistake: ErrorDetails) -> str:
    """Return what is wrong with one member of a ``root``, and how to mend it."""
    if mistake["type"] == "extra_forbidden":
        return f"is not known; {near(root, mistake['loc'])}"
    return mistake["msg"].removeprefix("Value error, ")


def near(root: type[BaseModel], path: Sequence[int | str]) -> str:
    """Return which name an unknown one may have meant, or all that would do."""
    known = _names(root, path[:-1])
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"


def _got(where: str, value: object) -> str:
    """Return a refused value's mention; of a block or what may hold a secret, nothing."""
    text = repr(value)
    if where.endswith("secret_env"):
        return "; name an environment variable here, not the secret"
    hidden = isinstance(value, dict | list) or "@" in text or "password" in text
    hidden = hidden or redacted(text) != text
    return "" if hidden else f" (got {text[:80]})"


def _names(root: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Return the members that exist under ``path``."""
    section = root
    for step in path:
        if isinstance(step, str):
            section = section_of(section, step)
    return [field.alias or name for name, field in section.model_fields.items()]


def section_of(section: type[BaseModel], name: str) -> type[BaseModel]:
    """Return the block that ``name`` opens in ``section``; itself if it opens none."""
    for own, field in section.model_fields.items():
        if name in (own, field.alias):
            return next(_blocks(field.annotation), section)
    return section


def _blocks(kind: Any) -> Iterator[type[BaseModel]]:
    """Yield the blocks that a type may hold."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for inner in get_args(kind):
        yield from _blocks(inner)
