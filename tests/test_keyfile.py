"""``sluicegate keys import``: what it says of a file that is wrong."""

import dataclasses
import json

import pytest

from serve_app.auth import KeyRecord
from serve_app.keyfile import export_file, import_file
from serve_app.plan import CannotStartError
from serve_app.settings import Settings
from serve_app.store import Store

RECORD = KeyRecord("abcdefghijkl", "k", "default", ["run_inference"], None, {}, 1, 0)


def line(**change: object) -> str:
    """One line of a key file."""
    return json.dumps({"sha256": "0" * 64, "key": {**dataclasses.asdict(RECORD), **change}})


@pytest.fixture
def settings(store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:  # noqa: ARG001 - it is emptied
    monkeypatch.setenv("SLUICEGATE_STORE_URL", store_url)
    return Settings.from_args({})


async def test_limits_go_in_and_come_out(settings: Settings) -> None:
    """A file that was read is written again to the letter."""
    lines = [line(limits={"requests_per_minute": 5}, over_limit="wait")]
    assert (await import_file(settings, lines)).startswith("1 keys written")
    written: list[str] = []
    assert await export_file(settings, written.append) == 1
    assert [json.loads(one) for one in written] == [json.loads(one) for one in lines]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"limits": {"requests_per_minute": 1.5}},
            "line 2: key.limits.requests_per_minute: must be a whole number",
        ),
        (
            {"limits": {"concurrency": {"limit": 5, "burst": 1}}},
            "line 2: key.limits.concurrency.burst: is for limits a minute only",
        ),
        ({"over_limit": "explode"}, "line 2: key.over_limit: Input should be 'refuse' or 'wait'"),
    ],
)
async def test_a_wrong_limit_stops_the_import(settings: Settings, change, says: str) -> None:
    """The line, the member and what is wrong with it, in one sentence."""
    with pytest.raises(CannotStartError) as told:
        await import_file(settings, [line(), line(id="lkjihgfedcba", **change)])
    assert str(told.value).startswith(says)
