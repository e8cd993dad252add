"""Requests for a simulated line: drawn at random from a seed, or read from a file.

Drawn: every tenant calms and bursts by itself (a Markov-modulated Poisson process), the popular
ones ask far more than the others (Zipf), and lengths are heavy-tailed around means that differ two
hundredfold. The load is what is asked for over what the seats can do: :data:`EASY_LOAD` after the
first :data:`BUSY_SHARE` of the requests, so that the line also empties.

A file has one JSON object a line: ``at_s, tenant, key, class, input_tokens, output_tokens``.
"""

import json
import math
import random
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from serve_app.queueing.order.state import Rule


@dataclass(frozen=True, slots=True)
class Class:
    """A class as the settings have it by default; the share of the requests drawn for it."""

    name: str
    rule: Rule
    max_wait_s: float
    share: float = 0.0


CLASSES = [
    Class("interactive", Rule(1_250_000, 5_000_000, 1_000), 30.0, 0.4),
    Class("standard", Rule(1_000_000, 15_000_000, 2_000), 60.0, 0.4),
    Class("batch", Rule(950_000, 60_000_000, 10_000), 600.0, 0.2),
    Class("anonymous", Rule(500_000, 60_000_000, 200), 30.0),
]
PREFILL_TOKENS_PER_S, DECODE_S = 10_000.0, 0.02
OUTPUT_WEIGHT = 2
"""A token of a reply costs as much as two of a prompt."""

BUSY_SHARE, EASY_LOAD = 0.7, 0.6
ZIPF = 1.0
BURST, BURST_S, CALM_S = 6.0, 10.0, 50.0
"""How many times more often a tenant asks in a burst; how long that lasts, and the calm."""

MEAN_OUTPUT, MEAN_INPUT, SIGMA, PARETO = (10, 2_000), (50, 2_000), 1.0, 1.8
TOP_TOKENS = 8_192
KEYS = 3
HEAVY_EVERY, HEAVY_WEIGHT = 10, 2.0
"""Each tenth tenant has twice the weight."""

GUESS_AT, GUESS_SIGMA = 0.95, 0.2
"""The expected output of a request is what 95 of 100 of its tenant's do not exceed, and noise."""


@dataclass(slots=True)
class Request:
    """One request.

    Attributes:
        at_us, deadline_us: when it comes, and until when it waits.
        class_: 0 for the highest.
        weight: its tenant's.
        cost: what it really costs, tokens; those of the reply count :data:`OUTPUT_WEIGHT` times.
        guess: what it is expected to cost.
        tokens: read and written.
        service_us: how long it keeps a seat.
    """

    at_us: int
    deadline_us: int
    class_: int
    tenant: str
    key: str
    weight: float
    cost: int
    guess: int
    tokens: int
    service_us: int


@dataclass(frozen=True, slots=True)
class Row:
    """A request as a file has it."""

    at_s: float
    tenant: str
    key: str
    class_: int
    input_tokens: int
    output_tokens: int
    weight: float = 1.0


def service_s(row: Row) -> float:
    """Return how long a request keeps a seat: its prefill, and a step for each token it writes."""
    return row.input_tokens / PREFILL_TOKENS_PER_S + row.output_tokens * DECODE_S


def requests(rows: list[Row], draw: random.Random) -> list[Request]:
    """Return the requests in the order in which they come, each with what is expected of it."""
    outputs: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        outputs[row.tenant].append(row.output_tokens)
    p95 = {whose: sorted(told)[int(len(told) * GUESS_AT)] for whose, told in outputs.items()}
    return [_request(row, p95[row.tenant], draw) for row in sorted(rows, key=lambda one: one.at_s)]


def _request(row: Row, p95: int, draw: random.Random) -> Request:
    output = p95 * draw.lognormvariate(0, GUESS_SIGMA)
    at_us = int(row.at_s * 1e6)
    return Request(
        at_us=at_us,
        deadline_us=at_us + int(CLASSES[row.class_].max_wait_s * 1e6),
        class_=row.class_,
        tenant=row.tenant,
        key=row.key,
        weight=row.weight,
        cost=row.input_tokens + OUTPUT_WEIGHT * row.output_tokens,
        guess=row.input_tokens + int(OUTPUT_WEIGHT * output),
        tokens=row.input_tokens + row.output_tokens,
        service_us=max(int(service_s(row) * 1e6), 1),
    )


def recorded(path: Path) -> Iterator[Row]:
    """Yield the requests of a file; a class that is unknown raises ``ValueError``."""
    names = [one.name for one in CLASSES]
    with path.open(encoding="utf-8") as lines:
        for line in filter(str.strip, lines):
            told = json.loads(line)
            yield Row(
                float(told["at_s"]),
                told["tenant"],
                told["key"],
                names.index(told["class"]),
                int(told["input_tokens"]),
                int(told["output_tokens"]),
                float(told.get("weight", 1.0)),
            )


def drawn(
    number: int, tenants: int, *, seats: int, load: float, draw: random.Random
) -> Iterator[Row]:
    """Yield ``number`` requests of ``tenants``, at first ``load`` times what ``seats`` can do."""
    wanted = [1 / rank**ZIPF for rank in range(1, tenants + 1)]
    asked = [0] * tenants
    for whose in draw.choices(range(tenants), wanted, k=number):
        asked[whose] += 1
    rows = [row for whose, many in enumerate(asked) for row in _of(whose, many, draw)]
    work_s = sum(map(service_s, rows))
    busy_s = work_s * BUSY_SHARE / seats / load
    easy_s = work_s * (1 - BUSY_SHARE) / seats / EASY_LOAD
    times = (at for many in asked for at in arrivals(many, busy_s, easy_s, draw))
    for row, at_s in zip(rows, times, strict=True):
        yield replace(row, at_s=at_s)


def _of(whose: int, many: int, draw: random.Random) -> Iterator[Row]:
    """Yield what a tenant asks, not yet when; every other one's lengths have Pareto's tail."""
    output, input_ = (
        math.exp(draw.uniform(math.log(low), math.log(high)))
        for low, high in (MEAN_OUTPUT, MEAN_INPUT)
    )
    shares = [one.share for one in CLASSES]
    weight = 1.0 if (whose + 1) % HEAVY_EVERY else HEAVY_WEIGHT
    for class_ in draw.choices(range(len(CLASSES)), shares, k=many):
        tokens = [length(mean, draw, pareto=whose % 2 == 1) for mean in (input_, output)]
        yield Row(0.0, f"t{whose}", f"k{draw.randrange(KEYS)}", class_, *tokens, weight)


def length(mean: float, draw: random.Random, *, pareto: bool) -> int:
    """Return a length in tokens, heavy-tailed around ``mean``."""
    if pareto:
        drawn_at = mean * (PARETO - 1) / PARETO * draw.paretovariate(PARETO)
    else:
        drawn_at = mean * draw.lognormvariate(-SIGMA * SIGMA / 2, SIGMA)
    return min(max(round(drawn_at), 1), TOP_TOKENS)


def arrivals(many: int, busy_s: float, easy_s: float, draw: random.Random) -> list[float]:
    """Return when a tenant's ``many`` requests come, seconds, in no order.

    Of a Poisson process of which the number is known, the times are independent, each as likely as
    its rate at that time: drawn on the integral of the rate, and turned back into time.
    """
    edges, rates, at_s = [0.0], [], 0.0
    bursting = draw.random() < BURST_S / (BURST_S + CALM_S)
    while at_s < busy_s + easy_s:
        end_s = at_s + draw.expovariate(1 / (BURST_S if bursting else CALM_S))
        for until_s in sorted({min(end_s, busy_s), min(end_s, busy_s + easy_s)}):
            if until_s > at_s:
                pace = BUSY_SHARE / busy_s if until_s <= busy_s else (1 - BUSY_SHARE) / easy_s
                edges.append(until_s)
                rates.append(pace * (BURST if bursting else 1.0))
                at_s = until_s
        at_s, bursting = max(at_s, end_s), not bursting
    spans = zip(edges, edges[1:], rates, strict=False)
    sums = [0.0, *accumulate((end - begin) * rate for begin, end, rate in spans)]
    times = []
    for _ in range(many):
        drawn_at = draw.uniform(0.0, sums[-1])
        step = min(bisect(sums, drawn_at), len(rates)) - 1
        times.append(edges[step] + (drawn_at - sums[step]) / rates[step])
    return times
