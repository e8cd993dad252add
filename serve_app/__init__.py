"""Sluicegate: one gate in front of GPU model replicas, inside Ray Serve.

    client ─HTTP→ ingress ──┬─→ auth ─────┐
                            ├─→ limits ───┼─→ store ─→ Redis / Valkey
                            ├─→ queueing ─┘      ↑
                            ├─→ telemetry ─┘     │ (registry only)
                            └─HTTP→ vLLM ← engine┘

Each folder is a room: one concept, one door (its ``__init__``), which says what the room is for
and what was decided there. An arrow is an import; none goes back.

    ingress    the wire: routes, the request page, relay, error bodies
    auth       who is calling: keys, tokens, users, permissions, brute force
    limits     how much: GCRA, settlement, the usage ledger
    queueing   when: the line, seats, autoscaling
    engine     the replicas: supervise the engine, register seats, drain
    store      the only room that knows Redis
    telemetry  the access log, the audit, figures

The hall, open to every room: ``errors`` (every refusal), ``settings`` (every knob; those of *who
may call* in ``auth_settings``, of one model in ``model_settings``, what they are made of in
``section``), ``mistakes`` (what is wrong with one), ``environment`` (secrets and where data lies),
``store_place`` (what the URL of a store says), ``allowance`` (how much somebody may use) and
``amount`` (one limit of it), ``redaction`` and ``log_records`` (no secret in any log), ``ports`` (a
free one), ``reaper`` (a child process that never outlives us), ``haproxy`` (the shim in front of
HAProxy), ``proxy`` (the same for Serve's own servers), ``certificate`` (for TLS) and
``ray_environment`` (what all of Ray gets from the launcher).

``app`` joins the rooms into one Serve application, ``assembly`` those of *who is calling*. ``cli``
starts it on one machine: ``plan`` finds what is wrong before anything runs, ``launch`` starts
``serving`` and leaves nothing behind; ``keyfile`` carries keys in and out.
"""

__version__ = "0.1.0"
