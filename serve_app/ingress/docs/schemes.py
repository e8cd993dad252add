"""How a caller shows who it is, as OpenAPI's security schemes (CONTRACT §1)."""

from typing import Any


def _header(name: str, description: str) -> dict[str, str]:
    return {"type": "apiKey", "in": "header", "name": name, "description": description}


SCHEMES: dict[str, dict[str, str]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key or a JWT, as every OpenAI client sends it.",
    },
    "bareToken": _header("Authorization", "A JWT without a scheme."),
    "xApiKey": _header("X-API-Key", "A key, as Anthropic's clients send it."),
    "apikey": _header("apikey", "A key."),
    "serviceTokenId": _header("CF-Access-Client-Id", "A key's id with `.access` behind it …"),
    "serviceTokenSecret": _header("CF-Access-Client-Secret", "… and its secret; both or neither."),
    "accessAssertion": _header("Cf-Access-Jwt-Assertion", "A JWT that Cloudflare Access put in."),
}
"""The ways, in the order in which they are looked for."""

SECURITY: list[dict[str, list[Any]]] = [
    {"bearer": []},
    {"bareToken": []},
    {"xApiKey": []},
    {"apikey": []},
    {"serviceTokenId": [], "serviceTokenSecret": []},
    {"accessAssertion": []},
]
"""One of these; the service token's two headers count together."""
