"""A caller: who it is and what it may do."""

from dataclasses import dataclass

from serve_app.errors import Forbidden, ModelForbidden

DEFAULT_TENANT = "default"
"""The tenant that always exists."""

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


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a credential turned out to be.

    Attributes:
        tenant: the tenant it belongs to; an operator's caller may act for all.
        key_id: the public id of the key it showed.
        permissions: what it may do, of :data:`PERMISSIONS`.
        models: the models it may use; None for all.
        operator: whether it may act outside its own tenant.
    """

    tenant: str
    key_id: str
    permissions: frozenset[str]
    models: frozenset[str] | None = None
    operator: bool = False

    def must(self, permission: str) -> None:
        """Return if the caller holds ``permission``.

        Raises:
            Forbidden: it does not.
        """
        if permission not in self.permissions:
            raise Forbidden(f"This key lacks the permission '{permission}'.")

    def may_use(self, model: str) -> bool:
        """Return whether the caller may use ``model``."""
        return self.models is None or model in self.models

    def must_use(self, model: str) -> None:
        """Return if the caller may use ``model``.

        Raises:
            ModelForbidden: it may not.
        """
        if not self.may_use(model):
            raise ModelForbidden(f"This key may not use the model '{model}'.", param="model")
