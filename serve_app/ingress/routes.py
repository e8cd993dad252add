"""The routes: path, method, permission, handler. Everything is also under ``/api``.

``OPEN`` needs no caller; ``PAGE`` is admitted on the request page, with its cost; ``ANY`` is every
caller; each other permission is checked here before the handler runs. A wrong method is told only
to a caller.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from starlette.routing import Route

from serve_app.errors import Forbidden, WrongMethod
from serve_app.ingress import about, docs, responses
from serve_app.ingress.admin import accounts, adapters, desk, keys, ledger, records, tenancy
from serve_app.ingress.admin.asked import NO_STORE
from serve_app.ingress.admission import admitted
from serve_app.ingress.entry import ANY, OPEN, PAGE, Entry
from serve_app.ingress.exchange import Exchange, Receive, Scope, Send
from serve_app.ingress.gate import Gate
from serve_app.ingress.page import inference
from serve_app.ingress.reading.dialects import DIALECTS

_log = logging.getLogger("sluicegate")
PRIVATE = ("/v1/auth/", "/v1/tenants", "/v1/audit", "/v1/usage", "/v1/queue")
"""Paths whose replies, refusals included, are not to be kept by anybody on the way."""

TABLE = (
    Entry("GET", "/health", OPEN, about.health),
    Entry("GET", "/health/live", OPEN, about.health),
    Entry("GET", "/health/ready", OPEN, about.ready),
    Entry("GET", "/metrics", "read_metrics", about.metrics),
    Entry("GET", "/openapi.json", OPEN, docs.reference),
    Entry("GET", "/docs", OPEN, docs.page),
    Entry("GET", "/v1/models", "read_models", about.models),
    Entry("GET", "/v1/models/{model:path}", "read_models", about.model),
    Entry("POST", "/v1/adapters", "write_models", adapters.load_adapter),
    Entry("GET", "/v1/adapters", "write_models", adapters.list_adapters),
    Entry("DELETE", "/v1/adapters/{name:path}", "delete_models", adapters.unload_adapter),
    *(Entry("POST", path, PAGE, inference, path) for path in DIALECTS),
    Entry("POST", "/completions", PAGE, inference, "/v1/completions"),
    Entry("GET", "/v1/responses/{response_id}", PAGE, responses.retrieve, of_kept=True),
    Entry("POST", "/v1/responses/{response_id}/cancel", PAGE, responses.cancel, of_kept=True),
    Entry("POST", "/v1/auth/login", OPEN, accounts.login),
    Entry("POST", "/v1/auth/visitor", OPEN, accounts.visitor),
    Entry("POST", "/v1/auth/logout", ANY, accounts.logout),
    Entry("POST", "/v1/auth/password", ANY, accounts.change_password),
    Entry("GET", "/v1/auth/whoami", ANY, about.whoami),
    Entry("POST", "/v1/auth/api-keys", "manage_keys", keys.create_key),
    Entry("GET", "/v1/auth/api-keys", "manage_keys", keys.list_keys),
    Entry("GET", "/v1/auth/api-keys/{key_id}", "manage_keys", keys.get_key),
    Entry("PATCH", "/v1/auth/api-keys/{key_id}", "manage_keys", keys.change_key),
    Entry("DELETE", "/v1/auth/api-keys/{key_id}", "manage_keys", keys.revoke_key),
    Entry("POST", "/v1/auth/api-keys/{key_id}/rotate", "manage_keys", keys.rotate_key),
    Entry("POST", "/v1/auth/api-keys/{key_id}/capture", "manage_keys", keys.start_capture),
    Entry("DELETE", "/v1/auth/api-keys/{key_id}/capture", "manage_keys", keys.stop_capture),
    Entry("POST", "/v1/auth/revocations", "manage_users", accounts.revoke_token),
    Entry("POST", "/v1/auth/users", "manage_users", accounts.create_user),
    Entry("GET", "/v1/auth/users", "manage_users", accounts.list_users),
    Entry("GET", "/v1/auth/users/{name}", "manage_users", accounts.get_user),
    Entry("PATCH", "/v1/auth/users/{name}", "manage_users", accounts.update_user),
    Entry("DELETE", "/v1/auth/users/{name}", "manage_users", accounts.remove_user),
    Entry("POST", "/v1/tenants", "manage_users", tenancy.create_tenant),
    Entry("GET", "/v1/tenants", "manage_users", tenancy.list_tenants),
    Entry("GET", "/v1/tenants/{tenant}", "manage_users", tenancy.get_tenant),
    Entry("PATCH", "/v1/tenants/{tenant}", "manage_users", tenancy.change_tenant),
    Entry("DELETE", "/v1/tenants/{tenant}", "manage_users", tenancy.remove_tenant),
    Entry("GET", "/v1/usage", ANY, ledger.tell_use),
    Entry("GET", "/v1/audit", "view_audit_logs", records.list_audit),
    Entry("GET", "/v1/queue", "manage_queue", desk.show_lines),
    Entry("POST", "/v1/queue/{model:path}/pause", "manage_queue", desk.pause),
    Entry("POST", "/v1/queue/{model:path}/resume", "manage_queue", desk.resume),
    Entry("POST", "/v1/queue/{model:path}/drain", "manage_queue", desk.drain),
    Entry("GET", "/v1/queue/{model_or_ticket:path}", "manage_queue", desk.show_line),
    Entry("DELETE", "/v1/queue/{model_or_ticket:path}", "manage_queue", desk.cancel),
)
ENDPOINTS = frozenset(entry.engine_path for entry in TABLE if entry.engine_path)
"""The inference paths that a key may be confined to."""


def routes(gate: Gate) -> list[Route]:
    """Return the routes of one gateway, one per path; the first that takes path and method counts.

    A model's name may end like another path: the line of ``org/pause`` is shown, too.
    """
    paths: dict[str, dict[str, Entry]] = {}
    for entry in TABLE:
        paths.setdefault(entry.path, {})[entry.method] = entry
    return [
        _Route(prefix + path, _Methods(gate, path, entries), methods=[*entries])
        for path, entries in paths.items()
        for prefix in ("", "/api")
    ]


class _Route(Route):
    """A route whose endpoint itself tells of a wrong method."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, whichever the method."""
        await self.app(scope, receive, send)


class _Methods:
    """The ASGI endpoint of one path."""

    def __init__(self, gate: Gate, path: str, entries: dict[str, Entry]) -> None:
        self._gate, self._path, self._entries = gate, path, entries

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        exchange: Exchange = scope["exchange"]
        scope["route_path"] = self._path
        if self._path.startswith(PRIVATE):
            exchange.headers_out |= NO_STORE
        method = "GET" if exchange.method == "HEAD" else exchange.method
        entry = self._entries.get(method)
        if entry is None:
            async with admitted(self._gate, exchange):
                allow = ", ".join(sorted(self._entries))
                raise WrongMethod(f"{self._path} takes {allow}.", allow=allow)
        scope["engine_path"], scope["table"] = entry.engine_path, TABLE
        scope["by_engine"] = entry.by_engine
        answering = self._answered(entry, exchange)
        if entry.permission == PAGE or entry.method == "GET":
            await answering
        else:
            await _to_its_end(answering)

    async def _answered(self, entry: Entry, exchange: Exchange) -> None:
        if entry.permission in (OPEN, PAGE):
            await entry.handler(self._gate, exchange)  # type: ignore[call-arg]
            return
        async with admitted(self._gate, exchange) as bill:
            try:
                if entry.permission != ANY:
                    bill.caller.must(entry.permission)
                await entry.handler(self._gate, exchange, bill.caller)  # type: ignore[call-arg]
            except Forbidden as err:
                action = f"{entry.method} {entry.path}"
                await self._gate.noted(exchange, bill.caller, action=action, result=err.code)
                raise


async def _to_its_end(changing: Coroutine[Any, Any, None]) -> None:
    """Let a change and its entry in the audit be done, also for a client that hangs up."""
    task = asyncio.create_task(changing)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_heard)
        raise


def _heard(task: asyncio.Task[None]) -> None:
    """Take note of how a change ended that nobody waits for any more."""
    if not task.cancelled() and (err := task.exception()) is not None:
        _log.info("a change ended after its client had left: %s", err)
