"""What each route of an engine takes and gives; the rows of all others are in ``described``."""

from collections.abc import Mapping
from typing import Any

from serve_app.ingress.docs import shapes
from serve_app.ingress.docs import shapes_engine as engine
from serve_app.ingress.docs.row import FORM, JSON, STREAM, Described

_HELLO = {"model": "smollm2-135m", "max_tokens": 64}
_CHAT = {**_HELLO, "messages": [{"role": "user", "content": "Hello!"}]}
_COMPLETION = Described(
    shapes.Answer,
    media=(JSON, STREAM),
    body=shapes.AskedCompletion,
    example={**_HELLO, "prompt": "Once upon a time"},
    sentence="Continue a text, whole or as a stream.",
)

ENGINES: Mapping[tuple[str, str], Described] = {
    ("POST", "/v1/chat/completions"): Described(
        shapes.Answer,
        media=(JSON, STREAM),
        body=shapes.AskedChat,
        example=_CHAT,
        sentence="Continue a conversation, whole or as a stream.",
    ),
    ("POST", "/v1/completions"): _COMPLETION,
    ("POST", "/completions"): _COMPLETION,
    ("POST", "/v1/responses"): Described(
        dict[str, Any],
        media=(JSON, STREAM),
        body=engine.AskedResponse,
        example={"model": "smollm2-135m", "input": "Hello!", "max_output_tokens": 64},
        sentence="Answer, in OpenAI's Responses API, whole or as a stream.",
    ),
    ("POST", "/v1/messages"): Described(
        dict[str, Any],
        media=(JSON, STREAM),
        body=engine.AskedMessage,
        example=_CHAT,
        sentence="Continue a conversation, in Anthropic's Messages API, whole or as a stream.",
    ),
    ("POST", "/v1/messages/count_tokens"): Described(
        engine.TokenCount,
        body=engine.CountedMessage,
        example={"model": "smollm2-135m", "messages": _CHAT["messages"]},
        sentence="Count the tokens of a conversation, in Anthropic's API.",
    ),
    ("POST", "/v1/embeddings"): Described(
        dict[str, Any],
        body=engine.AskedEmbedding,
        example={"model": "minilm", "input": ["Once upon a time"]},
        sentence="Embed texts; a model that pools.",
    ),
    ("POST", "/v1/score"): Described(
        dict[str, Any],
        body=engine.AskedScore,
        example={"model": "minilm", "text_1": "a cat", "text_2": ["a kitten", "a car"]},
        sentence="Tell how alike texts are; a model that pools.",
    ),
    ("POST", "/v1/rerank"): Described(
        dict[str, Any],
        body=engine.AskedRerank,
        example={"model": "minilm", "query": "a cat", "documents": ["a car", "a kitten"]},
        sentence="Put documents in order by a query; a model that pools.",
    ),
    ("POST", "/v1/audio/transcriptions"): Described(
        dict[str, Any],
        media=(JSON, STREAM),
        body=engine.AskedTranscript,
        body_media=FORM,
        example={"model": "whisper", "file": "…"},
        sentence="Write down what is said; a model that hears.",
    ),
    ("POST", "/tokenize"): Described(
        engine.TokenIds,
        body=engine.AskedTokens,
        example={"model": "smollm2-135m", "prompt": "Once upon a time"},
        sentence="Turn a text or a conversation into token ids.",
    ),
    ("POST", "/detokenize"): Described(
        engine.Text,
        body=engine.AskedText,
        example={"model": "smollm2-135m", "tokens": [11, 12]},
        sentence="Turn token ids into text.",
    ),
}
