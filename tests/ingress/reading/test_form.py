"""The text fields of a form, read without touching it (CONTRACT §3)."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser

from serve_app.errors import InvalidRequest
from serve_app.ingress.reading.form import MAX_FIELD_BYTES, MAX_PARTS, form_fields

MEDIA = "multipart/form-data; boundary=xyz"
NAME = b'Content-Disposition: form-data; name="%s"'


def part(name: bytes, text: bytes, *more: bytes) -> bytes:
    """One part, with more lines in its head."""
    return b"--xyz\r\n" + b"\r\n".join([NAME % name, *more]) + b"\r\n\r\n" + text + b"\r\n"


END = b"--xyz--\r\n"
SOUND = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a \\"b\\".wav"\r\n'
SOUND += b"Content-Type: audio/wav\r\n\r\n"


@given(
    fields=st.dictionaries(st.from_regex("[a-z_]{1,9}", fullmatch=True), st.text(max_size=99)),
    sound=st.binary(max_size=999),
)
def test_what_an_official_client_writes_is_read(fields: dict[str, str], sound: bytes) -> None:
    """Whatever the fields and the sound, httpx's form (the SDKs') gives back the fields."""
    fields.pop("file", None)
    sent = httpx.Request("POST", "http://x", data=fields, files={"file": ("a.wav", sound)})
    raw = b"".join(sent.stream)  # type: ignore[arg-type]
    assert form_fields(raw, sent.headers["content-type"]) == fields


@pytest.mark.parametrize(
    ("raw", "media", "says"),
    [
        pytest.param(b"{}", MEDIA, "whole multipart", id="no form"),
        pytest.param(b"", MEDIA, "whole multipart", id="empty"),
        pytest.param(END, MEDIA, "whole multipart", id="no part"),
        pytest.param(b"hi\r\n" + part(b"a", b"b") + END, MEDIA, "whole", id="preamble"),
        pytest.param(part(b"a", b"b"), MEDIA, "whole multipart", id="cut off"),
        pytest.param(part(b"a", b"b") + b"--xyz", MEDIA, "whole multipart", id="cut in its end"),
        pytest.param(part(b"a", b"b") + END + b"more", MEDIA, "whole multipart", id="epilogue"),
        pytest.param(part(b"a", b"b") + END, "multipart/form-data", "boundary", id="no boundary"),
        pytest.param(
            part(b"a", b"b") + END, f"{MEDIA}; boundary=abc", "boundary", id="two boundaries"
        ),
        pytest.param(
            part(b"+AG0-odel", b"m") + END, f"{MEDIA}; charset=utf-7", "nothing", id="a charset"
        ),
        pytest.param(part(b"a", b"b") + END, f"{MEDIA}; x=1", "nothing", id="a parameter more"),
        pytest.param(part(b"+AG0-odel", b"m") + END, MEDIA, "letters", id="another's letters"),
        pytest.param(part(b"m\xc3\xb6del", b"m") + END, MEDIA, "letters", id="not ASCII"),
        pytest.param(part(b"", b"m") + END, MEDIA, "letters", id="no letter"),
        pytest.param(part(b"a", b"b") + part(b"a", b"c") + END, MEDIA, "twice", id="twice"),
        pytest.param(
            SOUND.replace(b'"file"', b'"model"') + b"x\r\n" + part(b"model", b"m") + END,
            MEDIA,
            "twice",
            id="as a file and as text",
        ),
        pytest.param(part(b"mod\\el", b"m") + END, MEDIA, "head", id="an escaped name"),
        pytest.param(part(b"a", b"b", NAME % b"model") + END, MEDIA, "head", id="two names"),
        pytest.param(
            part(b"a", b"b").replace(b'name="a"', b"name*=utf-8''model") + END,
            MEDIA,
            "head",
            id="an extended name",
        ),
        pytest.param(
            part(b"a", b"bW9kZWw=", b"Content-Transfer-Encoding: base64") + END,
            MEDIA,
            "head",
            id="encoded",
        ),
        pytest.param(b"--xyz\r\nX: 1\r\n\r\nb\r\n" + END, MEDIA, "head", id="no name"),
        pytest.param(part(b"a", b"\xff") + END, MEDIA, "UTF-8", id="no text"),
        pytest.param(part(b"a", b"x" * (MAX_FIELD_BYTES + 1)) + END, MEDIA, "bytes", id="long"),
        pytest.param(
            b"".join(part(b"a%d" % at, b"") for at in range(MAX_PARTS + 1)) + END,
            MEDIA,
            "parts",
            id="many",
        ),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(raw: bytes, media: str, says: str) -> None:
    """The engine shall see no other model and no other stream than the gate."""
    with pytest.raises(InvalidRequest, match=says):
        form_fields(raw, media)


@given(st.binary(max_size=200), st.text(max_size=60))
def test_rubbish_is_refused_and_nothing_else_happens(raw: bytes, media: str) -> None:
    """Neither a body nor a header can do more than be no form."""
    for kind in (media, MEDIA):
        try:
            form_fields(raw, kind)
        except InvalidRequest:
            continue


def test_a_quoted_boundary_and_a_list_are_read() -> None:
    """Fields whose names end in ``[]`` may come twice, as OpenAI's do."""
    raw = part(b"t[]", b"word") + part(b"t[]", b"segment") + SOUND + b"\r\n--xy\r\n" + END
    told: dict[str, Any] = form_fields(
        raw.replace(b"\r\n" + END, b"\r\n\r\n" + END), 'multipart/form-data; boundary="xyz"'
    )
    assert told == {"t[]": "segment"}


NAMES = st.sampled_from(
    [b"model", b"stream", b"Model", b"+AG0-odel", b"t[]", b"a.b", b"%6dodel", b"model ", b"\xffm"]
)
HEADS = st.sampled_from(
    [
        b"Content-Type: text/plain; charset=utf-7",
        b"X-Name: model",
        b"content-disposition: form-data; name=model",
        b" folded",
        b"A:b\nContent-Disposition: form-data; name=model",
    ]
)
TEXTS = st.sampled_from(
    [b"small", b"", b"+AG0-", b"--xyz", b"\r\n", b"\r\n--xy", b"\xc3\xbc", b"\0"]
)
PARTS = st.builds(lambda name, text, more: part(name, text, *more), NAMES, TEXTS, st.lists(HEADS))
PARAMETERS = st.sampled_from(
    [
        "",
        "; charset=utf-7",
        "; charset=utf-16",
        ";charset=latin-1",
        "; boundary=abc",
        "; boundary*=utf-8''abc",
        '; x="; boundary=abc"',
        ", multipart/form-data; boundary=abc",
        "; ",
        " ",
        "\t",
    ]
)


async def engines_fields(raw: bytes, media: str) -> dict[str, str]:
    """The text fields that an engine reads, whose server is Starlette."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield raw

    headers = Headers({"content-type": media})
    form = await MultiPartParser(headers, pieces()).parse()
    try:
        return {name: value for name, value in form.items() if isinstance(value, str)}
    finally:
        await form.close()


@given(
    parts=st.lists(PARTS | st.just(SOUND + b"RIFF\r\n"), min_size=1, max_size=3),
    parameter=st.just("") | PARAMETERS,
)
def test_an_engine_reads_the_same_fields(parts: list[bytes], parameter: str) -> None:
    """What is not refused has one reading: ours is the engine's, names and texts."""
    raw, media = b"".join(parts) + END, MEDIA + parameter
    try:
        ours = form_fields(raw, media)
    except InvalidRequest:
        return
    try:
        assert asyncio.run(engines_fields(raw, media)) == ours
    except MultiPartException:
        return  # the engine refuses it, too
