"""The sessions of one gate: every gateway signs and believes them under one secret of the store."""

from serve_app.auth.bootstrap import session_secret
from serve_app.auth.caller import Caller
from serve_app.auth.tokens.issuers import Issuers
from serve_app.auth.tokens.sessions import Sessions
from serve_app.errors import StoreUnavailable
from serve_app.store import Store


class SharedSessions:
    """Makes sessions once the store has told the secret.

    Args:
        store: where the secret lies.
        issuers: told to believe the sessions.
    """

    def __init__(self, store: Store, issuers: Issuers) -> None:
        self._store, self._issuers = store, issuers
        self._sessions: Sessions | None = None

    async def open(self) -> None:
        """Fetch the secret unless it is known.

        Raises:
            StoreUnavailable: no session is made or believed yet; ask again.
        """
        if self._sessions is None:
            self._sessions = Sessions(await session_secret(self._store))
            self._issuers.admit(self._sessions)

    def issue(
        self,
        caller: Caller,
        *,
        user: str | None = None,
        limits: str | None = None,
        ttl_s: int,
        now_s: float,
    ) -> tuple[str, int]:
        """Return a new token and when it ends, as :meth:`Sessions.issue` does.

        Raises:
            StoreUnavailable: the secret is not known yet.
        """
        if self._sessions is None:
            raise StoreUnavailable(
                "The state store has not answered yet; try again shortly.", retry_after_s=1.0
            )
        return self._sessions.issue(caller, user=user, limits=limits, ttl_s=ttl_s, now_s=now_s)
