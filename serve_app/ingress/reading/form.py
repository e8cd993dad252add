"""The text fields of a multipart form, read where they lie: the body itself is never changed. Pure.

Stricter than engines are: where two readers could understand a form differently, it is refused, so
that no engine sees a model or a stream that the gate did not see.
"""

import re
from collections.abc import Iterator

from serve_app.errors import InvalidRequest

FORM = "multipart/form-data"
MAX_PARTS, MAX_HEAD_BYTES, MAX_FIELD_BYTES = 256, 8_192, 65_536

_MEDIA = re.compile(
    r"""multipart/form-data\ *;\ *
    boundary=(?:"([\w'()+,./:=?-]{1,70})"|([\w'+.-]{1,70}))\ *""",
    re.IGNORECASE | re.VERBOSE | re.ASCII,
)
"""One parameter and no other: a ``charset`` would have an engine read other names than we do."""

_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,256}")
_DISPOSITION = re.compile(
    r'form-data; *name="([^"\\\r\n]*)"(?P<file>; *filename="(?:[^"\\\r\n]|\\.)*")? *', re.IGNORECASE
)
_HEAD_END = b"\r\n\r\n"


def form_fields(raw: bytes, media_type: str) -> dict[str, str]:
    """Return the text fields of the form ``raw``; a file's bytes are skipped, not copied.

    Args:
        raw: the whole body.
        media_type: its ``Content-Type``, which names the boundary.

    Raises:
        InvalidRequest: it is no such form, two readers might see two forms in it, or a field stands
            in it twice.
    """
    told = _MEDIA.fullmatch(media_type)
    if told is None:
        raise InvalidRequest("The 'Content-Type' must name the form's boundary, and nothing else.")
    boundary = told[1] or told[2]
    fields: dict[str, str] = {}
    seen: set[str] = set()
    for head, begin, end in _parts(raw, b"--" + boundary.encode()):
        name, is_file = _named(head)
        if name in seen and not name.endswith("[]"):
            raise InvalidRequest(
                f"The form carries '{name[:64]}' twice; send one.", param=name[:64]
            )
        seen.add(name)
        if not is_file:
            fields[name] = _text(raw, name, begin, end)
    return fields


def _parts(raw: bytes, mark: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the parts of a form: each one's head, and from where to where its content goes."""
    broken = InvalidRequest("The body is not a whole multipart form.")
    if not raw.startswith(mark + b"\r\n"):
        raise broken
    at = len(mark) + 2
    for _ in range(MAX_PARTS):
        head_end = raw.find(_HEAD_END, at, at + MAX_HEAD_BYTES)
        begin = head_end + len(_HEAD_END)
        end = raw.find(b"\r\n" + mark, begin)
        if head_end < 0 or end < 0:
            raise broken
        yield raw[at:head_end], begin, end
        at = end + 2 + len(mark) + 2
        after = raw[at - 2 : at]
        if after == b"--" and not raw[at:].strip(b"\r\n"):
            return
        if after != b"\r\n":
            raise broken
    raise InvalidRequest(f"The form has more than {MAX_PARTS} parts.")


def _named(head: bytes) -> tuple[str, bool]:
    """Return the name of a part, and whether it is a file."""
    lines = [line.partition(":") for line in head.decode("utf-8", "replace").split("\r\n")]
    told = {name.lower(): value.strip(" \t") for name, _, value in lines}
    found = _DISPOSITION.fullmatch(told.get("content-disposition", ""))
    plain = told.get("content-transfer-encoding", "binary").lower() in ("7bit", "8bit", "binary")
    if found is None or len(told) < len(lines) or not plain:
        raise InvalidRequest("A part of the form has a head that cannot be read.")
    if not _NAME.fullmatch(found[1]):
        raise InvalidRequest("A field's name may have letters, digits and '_', '-', '.', '[', ']'.")
    return found[1], found["file"] is not None


def _text(raw: bytes, name: str, begin: int, end: int) -> str:
    """Return a field's text."""
    if end - begin > MAX_FIELD_BYTES:
        told = f"The form's field '{name[:64]}' has more than {MAX_FIELD_BYTES} bytes."
        raise InvalidRequest(told, param=name[:64])
    try:
        return raw[begin:end].decode()
    except UnicodeDecodeError:
        told = f"The form's field '{name[:64]}' is not UTF-8."
        raise InvalidRequest(told, param=name[:64]) from None
