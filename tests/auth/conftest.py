"""Tenants and their keys on a real store."""

import pytest

from serve_app.auth import Keys, TenantRequest, Tenants
from serve_app.store import Store
from tests.auth.owners import KNOWN, OPERATOR


@pytest.fixture
async def tenants(store: Store) -> Tenants:
    """Two tenants, one with a ceiling."""
    made = Tenants(store, KNOWN)
    await made.create(TenantRequest(id="acme", max_class="standard"), by=OPERATOR)
    await made.create(TenantRequest(id="other"), by=OPERATOR)
    return made


@pytest.fixture
def own(store: Store, tenants: Tenants) -> Keys:  # noqa: ARG001 - the tenants must be there
    return Keys(store, KNOWN)
