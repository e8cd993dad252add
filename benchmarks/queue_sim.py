"""The order of the line against others, in virtual time: who waits how long, and who gets what.

    .venv/bin/python -m benchmarks.queue_sim                   # all policies on one trace
    .venv/bin/python -m benchmarks.queue_sim --full            # a million requests, ours only
    .venv/bin/python -m benchmarks.queue_sim --trace FILE      # recorded requests, as JSON lines
    .venv/bin/python -m benchmarks.queue_sim --plots FOLDER    # waits and service, as PNG

The policies are told in ``benchmarks/policies.py``, the requests in ``benchmarks/traces.py`` and
the figures in ``benchmarks/queue_figures.py``. ``ours`` is the gate's own code, step by step; what
is simulated is time, the replicas and the clients, none of whom comes again. A request keeps its
seat for as long as its tokens take, longer while more seats are lent than there are.
"""

import argparse
import random
import time
from array import array
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path

from rich.console import Console

from benchmarks import queue_figures, queue_plots
from benchmarks.policies import POLICIES, Policy
from benchmarks.queue_figures import REFUSED, SERVED, TIMED_OUT, WAITING, Run
from benchmarks.traces import CLASSES, Request, drawn, recorded, requests

SMALL, FULL = (200_000, 200, 50), (1_000_000, 1_000, 1_000)
"""Requests, tenants and replicas."""

TEND_US = 1_000_000
END, PATIENCE, TEND = range(3)
"""What comes next: a seat is given back, a request has waited too long, or a second has passed."""


@dataclass(slots=True)
class Simulation:
    """A line in virtual time.

    Attributes:
        asked: the requests in the order of arrival.
        policy: decides who goes next.
        seats: of all replicas; while more are lent, each takes longer in proportion.
        run: how each request ended.
        lent: seats lent now.
        open: requests that wait or run.
        due: what comes next: when, what, and to whom.
    """

    asked: list[Request]
    policy: Policy
    seats: int
    run: Run = field(init=False)
    lent: int = 0
    open: int = 0
    due: list[tuple[int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        many = len(self.asked)
        self.run = Run(array("b", [WAITING]) * many, array("q", [0]) * many)

    def go(self) -> Run:
        """Return how each request ended, and when."""
        run, due = self.run, self.due
        heappush(due, (self.asked[0].at_us if self.asked else 0, TEND, 0))
        for at, request in enumerate(self.asked):
            while due[0][0] <= request.at_us:
                self._step()
            if self.policy.enter(at, request, request.at_us):
                self.open += 1
            else:
                run.end(at, REFUSED, request.at_us)
            self._note(request.at_us)
            if run.how[at] == WAITING:
                heappush(due, (request.deadline_us, PATIENCE, at))
        while self.open:
            self._step()
        return run

    def _step(self) -> None:
        """Do what is due next."""
        now_us, what, at = heappop(self.due)
        if what == END:
            self.lent -= 1
            self.open -= 1
            self.policy.leave(at, self.asked[at].cost, now_us)
        elif what == TEND:
            self.policy.tend(now_us)
            heappush(self.due, (now_us + TEND_US, TEND, 0))
        elif self.run.how[at] == WAITING:
            self.policy.leave(at, -1, now_us)
        else:
            return
        self._note(now_us)

    def _note(self, now_us: int) -> None:
        """Write down who was seated and who was dropped in the last step."""
        policy, run = self.policy, self.run
        for at in policy.seated:
            run.end(at, SERVED, now_us)
            self.lent += 1
            lasts_us = self.asked[at].service_us * max(self.lent, self.seats) // self.seats
            heappush(self.due, (now_us + lasts_us, END, at))
        for at in policy.dropped:
            if run.how[at] == WAITING:
                run.end(at, TIMED_OUT, now_us)
                self.open -= 1
        policy.seated.clear()
        policy.dropped.clear()


def asked_for(args: argparse.Namespace) -> list[Request]:
    """Return the requests of a trace, or those that are drawn."""
    draw = random.Random(args.seed)
    if args.trace:
        rows = list(recorded(args.trace))
    else:
        seats = args.replicas * args.seats
        rows = list(drawn(args.requests, args.tenants, seats=seats, load=args.load, draw=draw))
    return requests(rows, draw)


def parsed(argv: list[str] | None = None) -> argparse.Namespace:
    """Return what was asked for on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue_sim")
    parser.add_argument("--full", action="store_true", help="a million requests, ours only")
    parser.add_argument("--requests", type=int)
    parser.add_argument("--tenants", type=int)
    parser.add_argument("--replicas", type=int)
    parser.add_argument("--seats", type=int, default=16, help="of each replica")
    parser.add_argument("--load", type=float, default=1.2, help="of the seats, at first")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trace", type=Path, help="requests as JSON lines")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, metavar="POLICY")
    parser.add_argument("--plots", type=Path, help="a folder for the plots; needs matplotlib")
    args = parser.parse_args(argv)
    size = FULL if args.full else SMALL
    args.requests, args.tenants, args.replicas = (
        given or usual
        for given, usual in zip((args.requests, args.tenants, args.replicas), size, strict=True)
    )
    args.policies = args.policies or (["ours"] if args.full else list(POLICIES))
    return args


def main(argv: list[str] | None = None) -> None:
    """Simulate, and print what came of it."""
    args, console = parsed(argv), Console(width=160)
    plots = queue_plots.Plots(args.plots) if args.plots else None
    began_s = time.perf_counter()
    asked = asked_for(args)
    lasted_s = (asked[-1].at_us - asked[0].at_us) / 1e6 if asked else 0.0
    console.print(
        f"{len(asked):,} requests in {lasted_s:,.0f} s by {len({one.tenant for one in asked}):,} "
        f"tenants, {args.replicas:,} replicas with {args.seats} seats; "
        f"drawn in {time.perf_counter() - began_s:.1f} s"
    )
    told = queue_figures.table()
    for name in args.policies:
        policy = POLICIES[name]([one.rule for one in CLASSES], args.replicas, args.seats)
        began_s, busy_s = time.perf_counter(), time.process_time()
        run = Simulation(asked, policy, args.replicas * args.seats).go()
        took_s, busy_s = time.perf_counter() - began_s, time.process_time() - busy_s
        console.print(f"{name}: simulated in {took_s:.1f} s, {busy_s:.1f} s of one core")
        queue_figures.add_rows(told, name, asked, run)
        if plots:
            plots.add(name, asked, run)
    console.print(told)
    if plots:
        plots.write()


if __name__ == "__main__":
    main()
