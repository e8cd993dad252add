"""The simulated line: its figures mean what they say, and each policy is what it is called."""

import json
import random
import sys
from array import array
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import queue_sim
from benchmarks.policies import POLICIES
from benchmarks.queue_figures import (
    REFUSED,
    SERVED,
    TIMED_OUT,
    Run,
    Served,
    by_tenant,
    figures,
    jain,
    percentile,
    union,
)
from benchmarks.queue_sim import Simulation
from benchmarks.traces import (
    BUSY_SHARE,
    CLASSES,
    Request,
    Row,
    drawn,
    length,
    recorded,
    requests,
    service_s,
)
from serve_app.queueing.order.state import Rule

INTERACTIVE, STANDARD, BATCH = range(3)
SECOND_US = 1_000_000
NEVER_US = 10**15


def asked(
    at_s: float, tenant: str = "t", class_: int = INTERACTIVE, *, tokens: int = 50
) -> Request:
    """A request that keeps a seat for a fiftieth of a second per token."""
    (made,) = requests([Row(at_s, tenant, "k", class_, 0, tokens)], random.Random(1))
    return made


def simulate(
    policy: str,
    told: list[Request],
    *,
    seats: int = 1,
    replicas: int = 1,
    rules: list[Rule] | None = None,
) -> Run:
    rules = rules or [one.rule for one in CLASSES]
    return Simulation(told, POLICIES[policy](rules, replicas, seats), replicas * seats).go()


def overload(number: int, seed: int = 7) -> list[Request]:
    """Requests for 4 replicas with 8 seats."""
    draw = random.Random(seed)
    return requests(list(drawn(number, 40, seats=32, load=1.3, draw=draw)), draw)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_ends_once(policy: str) -> None:
    """Served, timed out or refused, each once, none before it came or after its deadline."""
    told = overload(10_000)
    run = simulate(policy, told, seats=8, replicas=4)
    assert set(run.how) <= {SERVED, TIMED_OUT, REFUSED}
    assert {SERVED, TIMED_OUT} <= set(run.how)
    for at, request in enumerate(told):
        assert request.at_us <= run.when_us[at] <= request.deadline_us
        assert run.how[at] != TIMED_OUT or run.when_us[at] == request.deadline_us


@pytest.mark.parametrize("policy", POLICIES)
def test_a_seed_tells_all(policy: str) -> None:
    """The same seed is the same trace and the same end of each request; another one is not."""
    runs = [simulate(policy, overload(2_000, seed), seats=8, replicas=4) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.parametrize("policy", sorted(POLICIES.keys() - {"by process"}))
def test_one_line_lends_all_seats_and_no_more(policy: str) -> None:
    """As many are served at once as there are seats, for as long as anybody waits."""
    told = [asked(0, f"t{number}", STANDARD) for number in range(9)]
    run = simulate(policy, told, seats=4)
    assert sorted(run.when_us) == [0] * 4 + [SECOND_US] * 4 + [2 * SECOND_US]


def test_lines_by_process_leave_seats_empty() -> None:
    """A gateway knows only its own seats: a request waits for one beside those of another."""
    told = [asked(0, f"t{number}", STANDARD) for number in range(4)]
    when_us = sorted(simulate("by process", told, seats=4).when_us)
    assert when_us[0] == 0
    assert when_us[-1] >= SECOND_US


def test_first_come_is_first_served() -> None:
    """Neither class nor tenant counts."""
    classes = [BATCH, BATCH, STANDARD, INTERACTIVE, BATCH, INTERACTIVE]
    told = [asked(at / 10, f"t{at % 2}", class_) for at, class_ in enumerate(classes)]
    run = simulate("first come", told)
    assert list(run.when_us) == sorted(run.when_us)
    assert set(run.how) == {SERVED}


def test_strict_priority_starves_and_ours_does_not() -> None:
    """While more interactive requests come than there are seats, batch is served only by aging."""
    told = [asked(at / 4, "chatty") for at in range(1_000)]
    told[100] = replace(asked(25, "patient"), class_=BATCH, deadline_us=625 * SECOND_US)
    waits_s = {
        policy: (simulate(policy, told).when_us[100] - told[100].at_us) / SECOND_US
        for policy in ("strict", "round robin", "ours")
    }
    promoted_s = 2 * CLASSES[BATCH].rule.promote_us / SECOND_US
    assert waits_s["strict"] > 220
    assert waits_s["round robin"] > 220
    assert waits_s["ours"] <= promoted_s + 3


def test_round_robin_gives_each_tenant_one_request_in_turn() -> None:
    """Two tenants that wait alternate, however many requests each has; ours counts tokens."""
    told = [asked(0, "many") for _ in range(6)] + [asked(0, "few") for _ in range(2)]
    run = simulate("round robin", told, rules=[Rule()] * len(CLASSES))
    first = sorted(range(8), key=lambda at: run.when_us[at])
    assert [told[at].tenant for at in first] == ["many", "many", "few", "many", "few"] + [
        "many"
    ] * 3


@pytest.fixture(scope="module")
def ten_tenants() -> list[Request]:
    """Ten that ask equally often from the first moment on, of 10 to 2,000 tokens in the mean."""
    draw = random.Random(3)
    means = [10 * 200 ** (tenant / 9) for tenant in range(10)]
    rows = [
        Row(0.0, f"t{tenant}", "k", INTERACTIVE, 0, length(mean, draw, pareto=False))
        for tenant, mean in enumerate(means)
        for _ in range(5_000)
    ]
    draw.shuffle(rows)
    return [replace(one, deadline_us=NEVER_US) for one in requests(rows, draw)]


@pytest.mark.parametrize(
    ("policy", "low", "high"),
    [("ours", 0.99, 1.0), ("first come", 0.0, 0.6), ("round robin", 0.0, 0.6)],
)
def test_fair_is_fair_in_tokens(
    policy: str, low: float, high: float, ten_tenants: list[Request]
) -> None:
    """All wait, and each gets the same service from ours; by requests, the long ones get it all."""
    run = simulate(policy, ten_tenants, seats=8, rules=[Rule(max_tickets=NEVER_US)] * len(CLASSES))
    flows = by_tenant(ten_tenants, run, range(len(ten_tenants)))
    cut_us = 1_000 * SECOND_US
    assert all(flow.waited[0][1] >= cut_us for flow in flows)
    first = [Served([(0, cut_us)], flow.seated) for flow in flows]
    assert low <= (jain(first, cut_us) or 0.0) <= high


@pytest.mark.parametrize(
    ("costs", "index"),
    [((100, 100, 100, 100), 1.0), ((100, 0, 0, 0), 0.25), ((100, 50), 0.9), ((0, 0), None)],
)
def test_jain(costs: tuple[int, ...], index: float | None) -> None:
    """1 if all got the same, one nth if one of n got it all, nothing said if nobody got any."""
    flows = [Served([(0, 10)], [(5, cost)] if cost else []) for cost in costs]
    assert jain(flows, 10) == index


def test_jain_counts_only_who_waited_through_a_window() -> None:
    """Who did not wait from begin to end of a window could not have been served more in it."""
    flows = [Served([(0, 20)], [(5, 8), (15, 8)]), Served([(0, 20)], [(5, 8), (15, 8)])]
    assert jain([*flows, Served([(1, 20)], [(5, 800), (15, 8)])], 10) == 1.0
    assert jain([Served([(1, 9)], []), flows[0]], 10) is None


def test_starvation_is_the_longest_wait_between_two_seats_of_a_flow() -> None:
    """From when it begins to wait, and until it no longer does."""
    flow = Served([(0, 10), (50, 90)], [(4, 1), (10, 1), (30, 1), (60, 1)])
    assert list(flow.gaps()) == [4, 6, 0, 10, 30]


def test_union_and_percentile() -> None:
    """Times that overlap or touch are one; a percentile is a value that was there."""
    assert union([(5, 7), (0, 3), (2, 4), (4, 5), (9, 9)]) == [(0, 7), (9, 9)]
    shares = (0.5, 0.95, 0.99, 1.0)
    assert [percentile(list(range(1, 101)), share) for share in shares] == [50, 95, 99, 100]
    assert percentile([], 0.5) == 0


def test_figures_of_a_run() -> None:
    """Two are served, the second a second later; the third is turned away."""
    told = [asked(0), asked(1), asked(2, tokens=500)]
    run = Run(array("b", [SERVED, SERVED, REFUSED]), array("q", [0, 2 * SECOND_US, 2 * SECOND_US]))
    got = figures(told, run, INTERACTIVE)
    assert got.waits_s == (0.0, 1.0, 1.0, 1.0)
    assert got.ended == (2, 0, 1)
    assert got.goodput == pytest.approx(50.0)
    assert got.starved_s == 1.0
    assert got.jain is None


def test_a_request_ends_only_once() -> None:
    """A second end is a mistake of the simulation, and told."""
    run = simulate("ours", [asked(0)])
    with pytest.raises(RuntimeError, match="request 0 ended twice"):
        run.end(0, REFUSED, 1)


def test_the_drawn_load_is_the_load() -> None:
    """What the first requests ask for, over their time, is the load times the seats."""
    rows = sorted(
        drawn(20_000, 100, seats=100, load=1.2, draw=random.Random(5)), key=lambda one: one.at_s
    )
    busy = rows[: int(len(rows) * BUSY_SHARE)]
    assert len(rows) == 20_000
    assert sum(map(service_s, busy)) / busy[-1].at_s / 100 == pytest.approx(1.2, rel=0.1)
    assert {one.class_ for one in rows} == {INTERACTIVE, STANDARD, BATCH}


def test_a_recorded_trace(tmp_path: Path) -> None:
    """Lines become requests in the order of their times, whatever their order in the file."""
    told = {"tenant": "acme", "key": "k1", "class": "batch", "input_tokens": 7}
    lines = [json.dumps(told | {"at_s": at_s, "output_tokens": 5}) for at_s in (2.5, 1)]
    (tmp_path / "trace").write_text("\n\n".join(lines))
    first, second = requests(list(recorded(tmp_path / "trace")), random.Random(1))
    assert (first.at_us, second.at_us) == (SECOND_US, 2_500_000)
    assert (first.tenant, first.key, first.class_) == ("acme", "k1", BATCH)
    assert (first.tokens, first.cost) == (12, 17)
    assert first.deadline_us == 601 * SECOND_US


def test_the_table_has_a_row_for_each_policy_and_class(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As Markdown, in the order of the policies."""
    queue_sim.main(["--requests", "500", "--tenants", "5", "--replicas", "1"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    names = [f"{policy}: {one.name}" for policy in POLICIES for one in CLASSES[:3]]
    assert [row.split("|")[1].strip() for row in rows] == names


def test_plots_want_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without it one line says how to get it, before anything is simulated."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match=r"pip install 'matplotlib>=3\.10'"):
        queue_sim.main(["--requests", "5", "--plots", str(tmp_path)])
