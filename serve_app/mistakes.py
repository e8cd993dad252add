"""What is wrong with a block of settings, told to whoever wrote it; passwords are not shown."""

import difflib
from collections.abc import Iterator

from pydantic import BaseModel, ValidationError

from serve_app.redaction import redacted


def told(root: type[BaseModel], err: ValidationError) -> Iterator[str]:
    """Yield one sentence per mistake: the path in serve_config.yaml, what is wrong, the mend."""
    for mistake in err.errors(include_url=False):
        where = ".".join(str(step) for step in ("args", *mistake["loc"]))
        if mistake["type"] == "extra_forbidden":
            known = _names(root, mistake["loc"][:-1])
            near = difflib.get_close_matches(str(mistake["loc"][-1]), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
            yield f"{where}: unknown setting; {hint}"
        else:
            said = mistake["msg"].removeprefix("Value error, ")
            yield f"{where}: {said}{_got(where, mistake['input'])}"


def _got(where: str, value: object) -> str:
    """Return a refused value's mention; of a block or what may hold a secret, nothing."""
    text = repr(value)
    if where.endswith("secret_env"):
        return "; name an environment variable here, not the secret"
    hidden = isinstance(value, dict | list) or "@" in text or "password" in text
    hidden = hidden or redacted(text) != text
    return "" if hidden else f" (got {text[:80]})"


def _names(root: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the settings that exist under ``path``."""
    section = root
    for step in path:
        if isinstance(step, str):
            section = section_of(section, step)
    return [field.alias or name for name, field in section.model_fields.items()]


def section_of(section: type[BaseModel], name: str) -> type[BaseModel]:
    """Return the block of settings that ``name`` opens in ``section``; itself if it opens none."""
    kind = next(
        field.annotation
        for own, field in section.model_fields.items()
        if name in (own, field.alias)
    )
    inner = getattr(kind, "__args__", ()) or (kind,)
    found = [one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)]
    return found[0] if found else section
