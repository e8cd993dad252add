"""vLLM's JSON and SSE frames, field by field in its order.

Source: vLLM 0.32, entrypoints/openai/{chat_completion,completion}/{protocol,serving}.py and
entrypoints/serve/engine/protocol.py. Stream chunks leave out what vLLM never sets, whole replies
write it as null, as ``exclude_unset`` does there.
"""

import json
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from serve_app.engine.simulated.names import Names
from serve_app.engine.simulated.request import Ask, Refusal

VERSION = "0.32.0+simulated"
FINGERPRINT = f"vllm-{VERSION}"
DONE = b"data: [DONE]\n\n"
_MARK = "\0"  # json writes it as six ASCII bytes that no word of a reply has
_CUT = json.dumps(_MARK)[1:-1]


@dataclass(frozen=True, slots=True)
class Dialect:
    """What sets the two completion APIs apart on the wire."""

    prefix: str
    whole: str
    chunk: str
    chat: bool


CHAT = Dialect("chatcmpl-", "chat.completion", "chat.completion.chunk", True)
COMPLETION = Dialect("cmpl-", "text_completion", "text_completion", False)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every frame of one reply repeats."""

    dialect: Dialect
    reply_id: str
    created: int
    model: str

    def wrap(self, kind: str, choices: list[dict[str, Any]], **more: object) -> dict[str, Any]:
        """Return one object of the reply."""
        head = {"id": self.reply_id, "object": kind, "created": self.created, "model": self.model}
        return {**head, "choices": choices, **more}


def usage(ask: Ask, generated: int) -> dict[str, Any]:
    """Return the usage fields that a stream shows."""
    total = ask.prompt_tokens + generated
    return {
        "prompt_tokens": ask.prompt_tokens,
        "total_tokens": total,
        "completion_tokens": generated,
    }


def whole(envelope: Envelope, ask: Ask) -> bytes:
    """Return the body of a reply in one piece."""
    dialect, reply = envelope.dialect, ask.reply
    text = "".join(reply.pieces)
    end = {
        "logprobs": None,
        "finish_reason": reply.finish_reason,
        "stop_reason": reply.stop_reason,
        "token_ids": None,
    }
    details = {"prompt_tokens_details": None, "completion_tokens_details": None}
    used = {**usage(ask, len(reply.pieces)), **details}
    said = {"message": _message(text)} if dialect.chat else {"text": text}
    prompt = dict.fromkeys(("prompt_logprobs", "prompt_token_ids"))
    choice = {"index": 0, **said, **end, **({} if dialect.chat else prompt), "routed_experts": None}
    tail = {**prompt, "prompt_text": None} if dialect.chat else {}
    tail |= dict.fromkeys(("kv_transfer_params", "ec_transfer_params", "metrics"))
    more = {"service_tier": None, "system_fingerprint": FINGERPRINT, "usage": used, **tail}
    return _compact(envelope.wrap(dialect.whole, [choice], **more))


def _message(text: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
    return {"role": "assistant", "content": text, **nothing}


class Frames:
    """The SSE frames of one streamed reply.

    The frame of a token is written once with a mark in place of the word and then cut there,
    because a benchmark asks for tens of thousands of them a second.
    """

    __slots__ = ("_after", "_ask", "_before", "_envelope", "_last")

    def __init__(self, envelope: Envelope, ask: Ask) -> None:
        self._envelope = envelope
        self._ask = ask
        self._last = len(ask.reply.pieces)
        frame = self._token(_MARK, None).decode()
        before, _, after = frame.rpartition(_CUT)
        self._before, self._after = before.encode(), after.encode()

    def between(self, seen: int, generated: int) -> bytes:
        """Return the frames after the first ``seen`` tokens up to ``generated``.

        The first token brings the opening along, the last one the closing.
        """
        frames = [] if seen else [self._opening()]
        frames += [self._at(number) for number in range(seen + 1, generated + 1)]
        if generated == self._last:
            frames.append(self._closing())
        return b"".join(frames)

    def _at(self, number: int) -> bytes:
        """Return the frame of the token with this number, from 1."""
        piece = self._ask.reply.pieces[number - 1]
        if number == self._last or self._ask.continuous_usage:
            return self._token(piece, number)
        return b"%b%b%b" % (self._before, piece.encode(), self._after)

    def _token(self, piece: str, number: int | None) -> bytes:
        """Return a token's frame; ``number`` None means one in the middle, without usage."""
        chat, reply = self._envelope.dialect.chat, self._ask.reply
        final = number == self._last
        said: dict[str, Any] = {"delta": {"content": piece}} if chat else {"text": piece}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": None}
        if final:
            choice["finish_reason"] = reply.finish_reason
        if final or not chat:
            choice["stop_reason"] = reply.stop_reason if final else None
        if not chat:
            choice["prompt_token_ids"] = None
        choice["token_ids"] = None
        more: dict[str, Any] = {}
        if number is not None and self._ask.continuous_usage:
            more["usage"] = self._so_far(number)
        if final and not self._ask.include_usage:
            more["system_fingerprint"] = FINGERPRINT
        return self._frame([choice], **more)

    def _opening(self) -> bytes:
        """Return the chunk that names the role; only a chat has one."""
        if not self._envelope.dialect.chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        more = {"usage": self._so_far(0)} if self._ask.continuous_usage else {}
        return self._frame([choice], **more, prompt_token_ids=None, prompt_text=None)

    def _so_far(self, number: int) -> dict[str, Any]:
        """Return the usage that a frame before the last one tells."""
        details = {"completion_tokens_details": None} if self._envelope.dialect.chat else {}
        return {**usage(self._ask, number), **details}

    def _closing(self) -> bytes:
        if not self._ask.include_usage:
            return DONE
        used = usage(self._ask, self._last)
        return self._frame([], usage=used, system_fingerprint=FINGERPRINT) + DONE

    def _frame(self, choices: list[dict[str, Any]], **more: object) -> bytes:
        chunk = self._envelope.wrap(self._envelope.dialect.chunk, choices, **more)
        return b"data: %b\n\n" % _compact(chunk)


def error(refusal: Refusal) -> bytes:
    """Return the body of a refusal: vLLM's ErrorResponse."""
    told = {
        "message": str(refusal),
        "type": refusal.kind,
        "param": refusal.param,
        "code": refusal.status,
    }
    return _compact({"error": told})


def not_found(status: HTTPStatus) -> bytes:
    """Return the body for a path or a method that does not exist: FastAPI's own."""
    return _compact({"detail": status.phrase})


def models(names: Names, max_model_len: int) -> bytes:
    """Return the body of /v1/models: a card for each name of the model, then for each adapter."""
    cards = [
        _card(name, names.model, None, max_model_len) for name in (names.model, *names.aliases)
    ]
    cards += [_card(name, at, names.model, None) for name, at in names.adapters.items()]
    return _compact({"object": "list", "data": cards})


def _card(name: str, root: str, parent: str | None, max_model_len: int | None) -> dict[str, Any]:
    created = int(time.time())
    permission = {
        "id": f"modelperm-{name}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": root,
        "parent": parent,
        "max_model_len": max_model_len,
        "permission": [permission],
    }


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
