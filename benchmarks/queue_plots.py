"""What a simulated line did, drawn: who waited how long, and what each tenant was served when.

matplotlib is no part of the gate and is loaded only here.
"""

from collections import Counter, defaultdict
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any

from benchmarks.queue_figures import SERVED, Run
from benchmarks.traces import CLASSES, Request

TENANTS = 10
MISSING = "The plots need matplotlib: pip install 'matplotlib>=3.10', or leave --plots out."


class Plots:
    """PNG files in a folder; ``SystemExit`` if nothing can draw them."""

    def __init__(self, folder: Path) -> None:
        try:
            import_module("matplotlib").use("Agg")
            self._pyplot: Any = import_module("matplotlib.pyplot")
        except ImportError:
            raise SystemExit(MISSING) from None
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._waits: dict[int, dict[str, list[float]]] = defaultdict(dict)

    def add(self, policy: str, asked: list[Request], run: Run) -> None:
        """Draw the service of a policy, and keep its waits for :meth:`write`."""
        for class_ in {request.class_ for request in asked}:
            self._waits[class_][policy] = sorted(
                (run.when_us[at] - request.at_us) / 1e6
                for at, request in enumerate(asked)
                if request.class_ == class_ and run.how[at] == SERVED
            )
        self._service(policy, asked, run)

    def write(self) -> None:
        """Draw the waits of all policies, a picture for each class."""
        figure, axes = self._pyplot.subplots(
            1, len(self._waits), figsize=(6 * len(self._waits), 4), squeeze=False
        )
        for axis, (class_, policies) in zip(axes[0], sorted(self._waits.items()), strict=True):
            for policy, waits in policies.items():
                axis.plot(waits, [(at + 1) / len(waits) for at in range(len(waits))], label=policy)
            axis.set(title=CLASSES[class_].name, xlabel="wait, s", ylabel="of those served")
            axis.set(xscale="symlog", xlim=(0, None), ylim=(0, 1))
            axis.legend()
        self._save(figure, "waits")

    def _service(self, policy: str, asked: list[Request], run: Run) -> None:
        """Draw what those tenants were served that asked for most."""
        wanted: Counter[str] = Counter()
        seated: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for at, request in enumerate(asked):
            wanted[request.tenant] += request.cost
            if run.how[at] == SERVED:
                told = run.when_us[at] / 1e6, request.cost / request.weight
                seated[request.tenant].append(told)
        figure, axis = self._pyplot.subplots(figsize=(8, 5))
        for tenant, _ in wanted.most_common(TENANTS):
            served = sorted(seated[tenant])
            costs = list(accumulate(cost for _, cost in served))
            axis.plot([when_s for when_s, _ in served], costs, label=tenant)
        axis.set(title=policy, xlabel="time, s", ylabel="cost served per weight, tokens")
        axis.legend()
        self._save(figure, f"service-{policy.replace(' ', '-')}")

    def _save(self, figure: Any, name: str) -> None:
        figure.tight_layout()
        figure.savefig(self._folder / f"{name}.png", dpi=120)
        self._pyplot.close(figure)
