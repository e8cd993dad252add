"""The replicas: start an engine, lock its port, register its seats, drain it, notice its death.

Words: an *engine* is a server process that speaks vLLM's HTTP API: vLLM itself or the simulated
one; a *replica* is the Serve actor that supervises one engine; it *beats* to say how many seats it
offers, and *withdraws* when it offers none any more.

**Decided: the engine is a child process with vLLM's own server**, not vLLM's library. Its command
line and HTTP API are its stable face; every endpoint it has works, and a crash of it is an exit
code. The child's port refuses every path without a key that only the registry knows.

**Decided: bytes do not pass the replica.** The gateway relays straight to the engine; Serve places,
checks, scales and drains the actor.

**Decided: a start that failed is noted until one succeeds**, with the release that it belongs to.
Serve tries three times and then leaves the deployment alone (the application is DEPLOY_FAILED, its
other deployments go on, scale and heal); a note that went by itself would call that "starting".

**Decided: adapters are written down, told to each engine, and followed.** The gateway that is asked
tells the engines, so that it hears at once what cannot be loaded; each replica compares once a
second, so that one which started later, or was cut off, ends up with the same.

**Decided: a replica that lacks an adapter serves the rest.** One whose folder is missing on a node
would else take base model and other adapters down with it. Its log says so each minute; whoever
asks it for the adapter is sent to another replica.

**Decided: nothing here imports torch or vllm.** They live in the child.
"""

from serve_app.engine.command import engine_argv, gpus_per_replica
from serve_app.engine.guard import InternalKeyGuard
from serve_app.engine.process import EngineProcess, EngineStartError, last_words
from serve_app.engine.replica import ModelReplica, engine_log_dir, engine_log_name
from serve_app.engine.sources import check_source, resolve

__all__ = [
    "EngineProcess",
    "EngineStartError",
    "InternalKeyGuard",
    "ModelReplica",
    "check_source",
    "engine_argv",
    "engine_log_dir",
    "engine_log_name",
    "gpus_per_replica",
    "last_words",
    "resolve",
]
