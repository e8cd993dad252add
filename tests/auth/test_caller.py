"""What a caller may do."""

import pytest

from serve_app.auth import PERMISSIONS, Caller
from serve_app.errors import Forbidden, ModelForbidden

READER = Caller("acme", "k1", frozenset({"read_models", "run_inference"}), frozenset({"small"}))
EVERYONE = Caller("acme", "k2", PERMISSIONS)


@pytest.mark.parametrize("permission", sorted(PERMISSIONS))
def test_a_permission_is_held_or_named_as_missing(permission: str) -> None:
    """A caller may do what it holds; the refusal names what it lacks."""
    EVERYONE.must(permission)
    if permission in READER.permissions:
        READER.must(permission)
    else:
        with pytest.raises(Forbidden, match=f"'{permission}'") as told:
            READER.must(permission)
        assert (told.value.status, told.value.code) == (403, "permission_denied")


@pytest.mark.parametrize(
    ("models", "model", "may"),
    [
        pytest.param(None, "any", True, id="no list is all"),
        pytest.param({"small"}, "small", True, id="listed"),
        pytest.param({"small"}, "large", False, id="not listed"),
        pytest.param({"small"}, "Small", False, id="names are exact"),
        pytest.param(set(), "small", False, id="an empty list is none"),
    ],
)
def test_models(models, model: str, may: bool) -> None:
    """None allows every model, an empty list allows none; the refusal names the model."""
    listed = None if models is None else frozenset(models)
    caller = Caller("acme", "k1", PERMISSIONS, listed)
    assert caller.may_use(model) == may
    if may:
        caller.must_use(model)
    else:
        with pytest.raises(ModelForbidden, match=f"'{model}'") as told:
            caller.must_use(model)
        assert (told.value.code, told.value.param) == ("model_not_allowed", "model")
