"""A caller: who it is and what it may do. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

from serve_app.errors import AddressForbidden, Forbidden, ModelForbidden

DEFAULT_TENANT = "default"
"""The tenant that always exists."""

Network = IPv4Network | IPv6Network

PERMISSIONS = frozenset(
    {
        "read_models",
        "write_models",
        "delete_models",
        "run_inference",
        "use_streaming",
        "manage_cache",
        "read_metrics",
        "write_config",
        "manage_users",
        "manage_keys",
        "view_audit_logs",
        "manage_queue",
    }
)
CALLER_PERMISSIONS = frozenset({"read_models", "run_inference", "use_streaming"})
ROLES = {
    "admin": PERMISSIONS,
    "operator": PERMISSIONS - {"manage_users", "manage_keys", "write_config"},
    "user": CALLER_PERMISSIONS,
    "viewer": frozenset({"read_models", "read_metrics"}),
}
"""Names for sets of permissions."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a credential turned out to be.

    Attributes:
        tenant: the tenant it belongs to; an operator's caller may act for all.
        key_id: the public id of its key, user or token; stands in logs, names its limits.
        permissions: what it may do, of :data:`PERMISSIONS`.
        models: the models it may use; None for all.
        operator: whether it may act outside its own tenant.
        endpoints: the inference paths it may use; None for all.
        networks: the networks it may call from; None for all.
        class_: the class it waits in; None for its tenant's.
        max_class: the highest class it may wait in; None for its tenant's.
        weight: its share of its tenant's turn; None for 1.
        expires_ms: when it ends, ms since the epoch; 0 for never.
        over_limit_waits: whether a request beyond a limit waits for it, if it may, or is refused.
        exempt: whether no limit binds it, its tenant's neither.
        capture_ends_ms: until when what it sends and gets is written down, ms since the epoch.
    """

    tenant: str
    key_id: str
    permissions: frozenset[str]
    models: frozenset[str] | None = None
    operator: bool = False
    endpoints: frozenset[str] | None = None
    networks: tuple[Network, ...] | None = None
    class_: str | None = None
    max_class: str | None = None
    weight: float | None = None
    expires_ms: int = 0
    over_limit_waits: bool = False
    exempt: bool = False
    capture_ends_ms: int = 0

    def must(self, permission: str) -> None:
        """Return if the caller holds ``permission``.

        Raises:
            Forbidden: it does not.
        """
        if permission not in self.permissions:
            raise Forbidden(f"This caller lacks the permission '{permission}'.")

    def may_use(self, model: str) -> bool:
        """Return whether the caller may use ``model``."""
        return self.models is None or model in self.models

    def must_use(self, model: str) -> None:
        """Return if the caller may use ``model``.

        Raises:
            ModelForbidden: it may not.
        """
        if not self.may_use(model):
            raise ModelForbidden(f"This caller may not use the model '{model}'.", param="model")

    def must_reach(self, endpoint: str) -> None:
        """Return if the caller may use the inference path ``endpoint``.

        Raises:
            Forbidden: it may not.
        """
        if self.endpoints is not None and endpoint not in self.endpoints:
            raise Forbidden(f"This caller may not use '{endpoint}'.")

    def must_come_from(self, address: str) -> None:
        """Return if the caller may call from ``address``; of an unknown one, it may not.

        Raises:
            AddressForbidden: it may not.
        """
        if self.networks is not None and not is_within(address, self.networks):
            raise AddressForbidden(f"This caller may not call from {address}.")

    def must_cover(self, other: "Caller") -> None:
        """Return if this caller may do all that ``other`` may, and from wherever.

        Raises:
            Forbidden: it may not.
        """
        for permission in other.permissions:
            self.must(permission)
        for model in other.models or ():
            self.must_use(model)
        for endpoint in other.endpoints or ():
            self.must_reach(endpoint)
        narrower = (
            (self.models is None or other.models is not None)
            and (self.endpoints is None or other.endpoints is not None)
            and _networks_cover(self.networks, other.networks)
            and (self.operator or not other.operator)
            and (self.operator or self.exempt or not other.exempt)
            and (not self.expires_ms or 0 < other.expires_ms <= self.expires_ms)
        )
        if not narrower:
            raise Forbidden("This caller may do less than what it asks for.")


def _networks_cover(wide: tuple[Network, ...] | None, narrow: tuple[Network, ...] | None) -> bool:
    if wide is None or narrow is None:
        return wide is None
    return all(any(lies_in(one, other) for other in wide) for one in narrow)


def lies_in(narrow: Network, wide: Network) -> bool:
    """Return whether every address of ``narrow`` is one of ``wide``."""
    if isinstance(narrow, IPv4Network):
        return isinstance(wide, IPv4Network) and narrow.subnet_of(wide)
    return isinstance(wide, IPv6Network) and narrow.subnet_of(wide)


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Return whether ``address`` lies in one of ``networks``; what is no address does not."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
