"""A user: what may be asked for one, and what is known of one. Pure.

name   1-128 of a-z 0-9 . _ @ + -, first a letter or digit; one user in the whole gate has it.
       Capitals are lowered, so that a phone's first letter does not matter
id     12 base-62 characters; public, stands in logs, where a name must not: it may be an
       e-mail address
role   one of ``ROLES``, which is all that it may do
"""

import json
import secrets
import string
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StrictBool

from serve_app.allowance import Limits, text_of
from serve_app.auth.caller import ROLES, Caller
from serve_app.auth.grant import Metadata, Strict, small
from serve_app.auth.keys.key import TENANT
from serve_app.auth.record import Record
from serve_app.auth.users.passwords import normalised
from serve_app.section import ClassName

NAME = r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}"
MAX_WEIGHT = 1_000.0
CALLERS_KEPT = 10_000
_ALPHABET = string.digits + string.ascii_letters
_NOT_IN_JSON = ("changed_ms", "revision")
_AUDITED = ("role", "models", "class_", "max_class", "weight", "limits", "disabled", "all_tenants")

Role = Literal["admin", "operator", "user", "viewer"]
Name = Annotated[str, Field(pattern=rf"^{NAME}$"), AfterValidator(str.lower)]
NewPassword = Annotated[str, AfterValidator(normalised), Field(repr=False)]
ShownPassword = Annotated[str, Field(min_length=1, max_length=8_192, repr=False)]
Models = Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=256)]
Weight = Annotated[float, Field(gt=0, le=MAX_WEIGHT)]


class _Given(Strict):
    """What both a new user and a change may name."""

    role: Role = "user"
    disabled: StrictBool = False
    models: Models | None = None
    class_: ClassName | None = Field(default=None, alias="class")
    max_class: ClassName | None = None
    weight: Weight | None = None
    limits: Limits = Limits()
    all_tenants: StrictBool = False
    metadata: Annotated[Metadata, AfterValidator(small), Field(default_factory=dict)]

    def given(self) -> dict[str, Any]:
        """Return the fields that the request names, as a record keeps them."""
        shared = self.model_fields_set & _Given.model_fields.keys()
        told = {name: getattr(self, name) for name in shared}
        if "limits" in told:
            told["limits"] = self.limits.as_written()
        return told


class UserRequest(_Given):
    """The body of ``POST /v1/auth/users``."""

    name: Name
    password: NewPassword
    tenant: str | None = Field(default=None, pattern=rf"^{TENANT}$")


class UserChange(_Given):
    """The body of ``PATCH /v1/auth/users/{name}``: what it names changes, the rest stays.

    With ``revision``, as read, it is refused if anything was changed since.
    """

    password: NewPassword = ""  # not validated; empty is "not named"
    revision: str | None = Field(default=None, max_length=64)


class LoginRequest(Strict):
    """The body of ``POST /v1/auth/login``."""

    username: str = Field(min_length=1, max_length=256, repr=False)
    password: ShownPassword


class PasswordRequest(Strict):
    """The body of ``POST /v1/auth/password``."""

    old_password: ShownPassword
    new_password: NewPassword


@dataclass(frozen=True, slots=True)
class UserRecord(Record):
    """What is known of a user; the password's hash is not.

    Attributes:
        id: public, stands in logs where the name, which may be an e-mail address, must not.
        all_tenants: whether it is the platform's operator and may act for every tenant.
        changed_ms: when it was changed last; the store's own field.
        revision: what it is called between two changes; the store's own field.
    """

    id: str
    name: str = field(repr=False)
    tenant: str
    created_ms: int
    role: str = "user"
    models: list[str] | None = None
    class_: str | None = None
    max_class: str | None = None
    weight: float | None = None
    limits: dict[str, Any] = field(default_factory=dict)
    disabled: bool = False
    all_tenants: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)
    changed_ms: int = 0
    revision: str = ""

    @property
    def key_id(self) -> str:
        """What its caller is called in logs and limits."""
        return f"user-{self.id}"

    def to_json(self) -> str:
        """Return the record as the store keeps it."""
        kept = {name: value for name, value in asdict(self).items() if name not in _NOT_IN_JSON}
        return json.dumps(kept, separators=(",", ":"))

    def public(self) -> dict[str, Any]:
        """Return the record as the admin API shows it, with the permissions of its role."""
        return {**Record.public(self), "permissions": sorted(ROLES.get(self.role, ()))}

    def audited(self) -> dict[str, Any]:
        """Return what the audit keeps of it: what it may do, not what it is called."""
        return {name.rstrip("_"): getattr(self, name) for name in _AUDITED}

    def limits_text(self) -> str:
        """Return its limits as steps read them; empty for the gate's default."""
        return text_of(self.limits)

    def caller(self) -> Caller:
        """Return who shows a session of this user."""
        return Caller(
            self.tenant,
            self.key_id,
            ROLES.get(self.role, frozenset()),
            None if self.models is None else frozenset(self.models),
            self.all_tenants,
            class_=self.class_,
            max_class=self.max_class,
            weight=self.weight,
            exempt=bool(self.limits.get("exempt")),
        )


@lru_cache(CALLERS_KEPT)
def identify_user(attributes: str) -> Caller:
    """Return the caller whose user record holds ``attributes``; the same text, the same caller."""
    return UserRecord.from_json(attributes).caller()


def drawn() -> str:
    """Return 12 random base-62 characters: an id, a revision."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(12))
