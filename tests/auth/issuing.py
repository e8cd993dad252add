"""An issuer of JWTs on this machine: it signs, publishes its key set over HTTP, and rotates."""

import asyncio
import base64
import functools
import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from serve_app.auth_settings import Issuer

NOW_S = 1_800_000_000.0
AUDIENCE = "https://gate.example"
KINDS = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
Claims = dict[str, Any]


@functools.cache
def private_key(kind: str, number: int = 0) -> Any:
    """Return one of the private keys of a kind; the same for the same number."""
    del number
    if kind == "RSA":
        return rsa.generate_private_key(65_537, 2_048)
    if kind == "EC":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def pem(key: Any) -> bytes:
    """Return the public half of ``key`` as PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(key: Any, **members: Any) -> dict[str, Any]:
    """Return the public half of ``key`` as a JWK with ``members`` beside it."""
    writer: Any = {
        rsa.RSAPrivateKey: RSAAlgorithm,
        ec.EllipticCurvePrivateKey: ECAlgorithm,
        ed25519.Ed25519PrivateKey: OKPAlgorithm,
    }
    (found,) = [writer[kind] for kind in writer if isinstance(key, kind)]
    told = found.to_jwk(key.public_key(), as_dict=True)
    told.pop("key_ops", None)
    return told | members


def base64url(data: bytes | str | dict[str, Any]) -> str:
    """Return a segment of a token; an object is written as JSON first."""
    if isinstance(data, dict):
        data = json.dumps(data)
    plain = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return base64.urlsafe_b64encode(plain).rstrip(b"=").decode()


def compact(
    header: bytes | str | dict[str, Any],
    payload: bytes | str | dict[str, Any],
    sign: Callable[[bytes], bytes] = lambda _: b"nobody's",
) -> str:
    """Return a token put together by hand: any header, any payload, any signature."""
    signed = f"{base64url(header)}.{base64url(payload)}"
    return f"{signed}.{base64url(sign(signed.encode()))}"


def signer(algorithm: str, key: Any) -> Callable[[bytes], bytes]:
    """Return what signs bytes with ``key``."""
    found = jwt.get_algorithm_by_name(algorithm)
    return lambda signed: found.sign(signed, key)


def claims(issuer: str, **changes: Any) -> Claims:
    """Return the claims of a good token, made at ``NOW_S``, with changes; None takes one away."""
    told = {
        "iss": issuer,
        "aud": AUDIENCE,
        "sub": "ada@example.com",
        "iat": int(NOW_S),
        "exp": int(NOW_S) + 300,
    }
    return {name: value for name, value in (told | changes).items() if value is not None}


async def until(told: Callable[[], Any]) -> None:
    """Wait until ``told`` is true."""
    for _ in range(500):
        if told():
            return
        await asyncio.sleep(0.01)  # another thread, or the loop, is at it
    pytest.fail("it never came")


@dataclass
class Answer:
    """What the key set's URL answers instead of the set."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class LocalIssuer:
    """An issuer whose key set is behind a real HTTP server on loopback.

    Attributes:
        name: its ``iss``.
        url: where its key set is.
        requests: how often that was asked for.
        answer: what it answers; None for the key set.
        open: cleared, it takes requests and answers none of them.
        published: the keys in its set, as JWKs.
        signing: the name and the private key it signs with, by algorithm.
    """

    def __init__(self, *algorithms: str, tls: ssl.SSLContext | None = None) -> None:
        self.requests = 0
        self.answer: Answer | None = None
        self.open = threading.Event()
        self.open.set()
        self.published: list[dict[str, Any]] = []
        self.signing: dict[str, tuple[str, Any]] = {}
        self._made = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.name = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_port}/"
        self.url = f"{self.name}jwks.json"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        for algorithm in algorithms or ("RS256",):
            self.rotate(algorithm)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open.set()
        self.stop()

    def stop(self) -> None:
        """Take the URL down; connections to it are refused."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def rotate(self, algorithm: str = "RS256", *, keep: bool = False) -> str:
        """Sign with a new key from now on, publish it, and return its name; drop the old one."""
        self._made += 1
        kid, key = f"key-{self._made}", private_key(KINDS[algorithm], self._made)
        if not keep and algorithm in self.signing:
            old, _ = self.signing[algorithm]
            self.published = [one for one in self.published if one.get("kid") != old]
        self.published.append(jwk(key, kid=kid, use="sig", alg=algorithm))
        self.signing[algorithm] = kid, key
        return kid

    def token(self, algorithm: str = "RS256", **changes: Any) -> str:
        """Return a good token with changes to its claims."""
        return self.sign(claims(self.name, **changes), algorithm)

    def sign(self, told: Claims, algorithm: str = "RS256", **headers: Any) -> str:
        """Return a token that says what it is told; a header that is None is left out."""
        kid, key = self.signing[algorithm]
        named = {name: value for name, value in ({"kid": kid} | headers).items() if value}
        return jwt.encode(told, key, algorithm, named)

    def settings(self, *algorithms: str, **changes: Any) -> Issuer:
        """Return the block of settings that believes this issuer."""
        told = {
            "issuer": self.name,
            "audience": AUDIENCE,
            "algorithms": list(algorithms or self.signing),
            "jwks_url": self.url,
        }
        return Issuer.model_validate(told | changes)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.requests += 1
                issuer.open.wait(30)
                told = issuer.answer or Answer(body=json.dumps({"keys": issuer.published}).encode())
                try:
                    self.send_response(told.status)
                    for name, value in told.headers.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(told.body)))
                    self.end_headers()
                    self.wfile.write(told.body)
                except OSError:
                    pass  # whoever asked has gone

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
