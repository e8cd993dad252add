"""What a reply tells of limits: headers that clients obey, and the refusal over a limit. Pure.

    x-ratelimit-{limit,remaining,reset}-{requests,tokens}    OpenAI's; of the tightest of each
    X-RateLimit-{Limit,Remaining,Reset}                      of requests; Reset in epoch seconds
    RateLimit, RateLimit-Policy                              IETF's, of both and of what refuses,
                                                             but not of money
    x-ratelimit-shadow                                       what would have refused

The tightest is the one with the smallest share left. All of it is net of what still runs.
"""

from collections.abc import Iterable

from serve_app.amount import NANOS
from serve_app.auth import rfc3339
from serve_app.errors import ExceedsLimit, GateError, QuotaSpent, RateLimited
from serve_app.limits import Hold, Said

SECOND_US = 1_000_000
LIMIT_HEADERS = (
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "ratelimit",
    "ratelimit-policy",
    "x-ratelimit-shadow",
)
"""Every header that tells of limits."""

ENGINE_HEADERS = (*LIMIT_HEADERS, "x-output-cap", "x-queue-time-ms", "x-served-class")
"""Those that the answer of an engine may carry beside its own."""

REFUSAL_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry", "x-refused-by")
EXPOSED = (*ENGINE_HEADERS, *REFUSAL_HEADERS, "x-next-after", "x-request-id", "request-id")
"""Reply headers that a web page of an allowed origin may read."""

_TOKENS = ("tokens", "input", "output")
_WINDOW_S = {"minute": 60, "day": 86_400, "month": 2_592_000}
_WHO = {"key": "This caller", "tenant": "This tenant"}
_WHAT = {
    "requests": "requests",
    "tokens": "tokens",
    "input": "input tokens",
    "output": "output tokens",
    "cost": "money",
    "seats": "requests at once",
}


def limit_headers(held: Hold) -> dict[str, str]:
    """Return what is left of the tightest limits."""
    requests = _tightest(held, ("requests",))
    tokens = _tightest(held, _TOKENS)
    told: dict[str, str] = {}
    for unit, said in (("requests", requests), ("tokens", tokens)):
        if said is not None:
            told[f"x-ratelimit-limit-{unit}"] = str(said.limit)
            told[f"x-ratelimit-remaining-{unit}"] = str(said.left)
            told[f"x-ratelimit-reset-{unit}"] = span(said.reset_us)
    if requests is not None:
        told["x-ratelimit-limit"] = str(requests.limit)
        told["x-ratelimit-remaining"] = str(requests.left)
        told["x-ratelimit-reset"] = str(_seconds(held.now_us + requests.reset_us))
    named = {one.name: one for one in (requests, tokens, held.refusing) if one is not None}
    listed = [one for one in named.values() if one.kind.period and not one.kind.is_money]
    if listed:
        told["ratelimit-policy"] = ", ".join(map(_policy, listed))
        told["ratelimit"] = ", ".join(map(_left, listed))
    if held.would_refuse:
        told["x-ratelimit-shadow"] = ", ".join(one.name for one in held.would_refuse)
    return told


def _tightest(held: Hold, units: Iterable[str]) -> Said | None:
    """Return the limit on ``units`` that refuses, or of which the smallest share is left."""
    bound = [one for one in held.said if one.kind.unit in units and not one.shadow]
    if held.refusing in bound:
        return held.refusing
    return min(bound, key=lambda one: one.left / max(one.burst, 1), default=None)


def _policy(said: Said) -> str:
    return f'"{said.name}";q={said.limit};w={_WINDOW_S[said.kind.period]}'


def _left(said: Said) -> str:
    return f'"{said.name}";r={said.left};t={_seconds(said.reset_us)}'


def over_limit(held: Hold, said: Said, least_tokens: int) -> GateError:
    """Return the refusal of a request that ``said`` did not let in.

    Args:
        held: what the store said of it.
        said: the limit that refuses.
        least_tokens: input tokens that its prompt has at least.
    """
    scope, _, on_model = said.scope.partition("_")
    who = f"{_WHO[scope]} may"
    if on_model:
        who = f"On the model '{held.model}', {who[0].lower()}{who[1:]}"
    what, kind = _WHAT[said.kind.unit], said.kind
    allowed = f"{_amount(said, said.limit)} {what}"
    per = f" a {kind.period}" if kind.period else ""
    per += f", {said.burst} at once" if said.burst != said.limit else ""
    details = {"scope": said.scope, "limit": kind.name, "allowed": _figure(said, said.limit)}
    details |= {"burst": _figure(said, said.burst), "left": _figure(said, said.left)}
    if said.limit == 0:
        never = f"{who} use no {what}: its {kind.name} is 0."
        return QuotaSpent(never, refused_by=said.name, details=details)
    if said.wait_us < 0:
        why = f"{who} use {allowed}{per}{_too_much(said, least_tokens)}; make it shorter."
        return ExceedsLimit(why, refused_by=said.name, details=details)
    if kind.period in ("day", "month"):
        resets = rfc3339(_seconds(held.now_us + said.wait_us) * 1_000)
        left = f"{_amount(said, said.left)} are left until {resets}"
        spent = f"{who} use {allowed}{per}; {left}, fewer than this request may need."
        return QuotaSpent(spent, refused_by=said.name, details={**details, "resets_at": resets})
    wait = f"the next one like this passes in {span(said.wait_us)}"
    if not kind.period:
        wait = "try again when one of them has ended"
    return RateLimited(
        f"{who} use {allowed}{per}; {wait}.",
        retry_after_s=said.wait_us / SECOND_US,
        refused_by=said.name,
        details={**details, "retry_after_ms": -(-said.wait_us // 1_000)},
    )


def _too_much(said: Said, least_tokens: int) -> str:
    """Return what of a request never fits."""
    if said.kind.unit not in ("tokens", "input"):
        return ", which this request alone exceeds"
    fit = f"{said.burst} fit, those of the reply among them"
    if said.kind.unit == "input":
        fit = f"{said.burst} fit"
    return f"; the prompt has at least {least_tokens}, and {fit}"


def shown(held: Hold, said: Said) -> dict[str, object]:
    """Return one limit as ``whoami`` shows it; one of 0 is never there again."""
    ever = said.limit > 0
    return {
        "limit": said.kind.name,
        "scope": said.scope,
        "model": held.model if said.scope.endswith("_model") else None,
        "shadow": said.shadow,
        "allowed": _figure(said, said.limit),
        "burst": _figure(said, said.burst),
        "remaining": _figure(said, said.left),
        "reset": span(said.reset_us) if ever else None,
        "resets_at": rfc3339(_seconds(held.now_us + said.reset_us) * 1_000) if ever else None,
    }


def span(us: int) -> str:
    """Return a time as OpenAI's headers write it, rounded up: ``850ms``, ``12s``, ``6m0s``."""
    if us < SECOND_US:
        return f"{-(-us // 1_000)}ms"
    minutes, seconds = divmod(_seconds(us), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def _seconds(us: int) -> int:
    return -(-us // SECOND_US)


def _figure(said: Said, units: int) -> float:
    """Return ``units`` as people write them: money in what the prices are in."""
    return units / NANOS if said.kind.is_money else units


def _amount(said: Said, units: int) -> str:
    return f"{_figure(said, units):.10g}" if said.kind.is_money else str(units)
