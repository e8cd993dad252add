"""A whole gate on a Redis Cluster, and behind Sentinel: nobody sees the odds."""

from collections.abc import Callable

import pytest

from tests.running import ADMIN_KEY, RunningGate, chat, simulated

LIMITS = {"requests_per_minute": 2, "tokens_per_day": 1_000, "models": {"smollm2-135m": {}}}


@pytest.mark.parametrize("kind", ["cluster_url", "sentinel_url"])
def test_a_gate_on_another_store(
    gates: Callable[..., RunningGate], request: pytest.FixtureRequest, kind: str
) -> None:
    """Keys, limits of key and tenant in one step, the line, the ledger: as on one server."""
    env = {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY, "SLUICEGATE_STORE_URL": request.getfixturevalue(kind)}
    gate = gates(simulated(), env).start().ready()
    with gate.client() as admin:
        for tenant in ("t1", "t2", "t3", "t4"):  # on more than one primary
            made = admin.post("/v1/tenants", json={"id": tenant, "limits": LIMITS})
            assert made.status_code == 201, made.text
            key = gate.new_key(tenant=tenant)
            with gate.client(key) as client:
                told = [client.post("/v1/chat/completions", json=chat()) for _ in range(3)]
                assert [one.status_code for one in told] == [200, 200, 429]
                assert told[2].headers["x-refused-by"] == "tenant:requests_per_minute"
                used = client.get("/v1/usage", params={"group_by": "tenant"}).json()["data"]
            assert [(row["tenant"], row["requests"], row["refused"]) for row in used] in (
                [(tenant, 2, 0)],  # the refusal is written a moment later
                [(tenant, 2, 1)],
            )
    assert gate.stop() == 0
