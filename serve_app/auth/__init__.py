"""Who is calling: find the credential, judge it, name the caller; keys, tenants, users, tokens.

Words: a *credential* is what a request shows; a *key* is one of ours,
``sg-<tenant id>-<key id>-<secret><checksum>``; a *token* is a JWT, of an *issuer* we believe or of
our own (a *session*); a *caller* is who it turned out to be; a *tenant* owns keys and users; an
*operator* acts for all tenants.

**Decided: keys carry their tenant and a checksum.** The checksum turns typos and noise away without
touching the store; the tenant id gives the hash tag, so a key's record and its limits lie side by
side. Only the SHA-256 of a 256-bit secret is stored: there is nothing to guess, so a slow hash
would only slow us.

**Decided: unknown id and wrong secret look alike**, to the caller and in time: the store compares
the hash, and both leave by the same line.

**Decided: no cache of what may change.** The record of a key or user, its tenant's and the mark of
a revoked token are read by the call that takes its limits. A token's signature cannot change; it is
judged once.

**Decided: a session says who, never what.** Role, models and class of a user are read from its
record at each request, so that a change needs no new login.

**Decided: malformed credentials are counted in memory** and reach the store in batches: noise costs
no store call, and still leads to a block.

**Decided: nobody gives what it lacks.** A key's permissions, models, endpoints, addresses and end
lie within its maker's, and only a caller that could make a key may rotate it. Limits may be wider
than its maker's, since the tenant's bind all; only operators take them off, from keys and users.
"""

from serve_app.auth.attempts import PASSWORDS, Attempts, too_many_attempts
from serve_app.auth.authenticator import LOCAL, Authenticator, identified
from serve_app.auth.blocking import subject
from serve_app.auth.bootstrap import first_admin_key, reveal_path
from serve_app.auth.caller import PERMISSIONS, ROLES, Caller
from serve_app.auth.credential import Credential, How, Kind, find, in_body, missing
from serve_app.auth.grant import Known, class_of, rfc3339
from serve_app.auth.keys.bulk import export_keys, import_keys
from serve_app.auth.keys.key import Key, MadeKey, make, parse
from serve_app.auth.keys.key_record import (
    CaptureRequest,
    KeyChange,
    KeyRecord,
    KeyRequest,
    Rotation,
    unknown_key,
)
from serve_app.auth.keys.keys import PAGE_MAX, Keys
from serve_app.auth.keys.static import StaticKeys
from serve_app.auth.tenants import TenantChange, TenantRequest, Tenants, tenant_of
from serve_app.auth.tokens.claims import Verified
from serve_app.auth.tokens.issuers import Issuers
from serve_app.auth.tokens.revocations import RevocationRequest, Revocations
from serve_app.auth.tokens.sessions import Sessions
from serve_app.auth.tokens.shared_sessions import SharedSessions
from serve_app.auth.users.passwords import Passwords
from serve_app.auth.users.user import LoginRequest, PasswordRequest, UserChange, UserRequest
from serve_app.auth.users.users import Session, Users, refused_login
from serve_app.auth.users.visitors import VisitorRequest, Visitors

__all__ = [
    "LOCAL",
    "PAGE_MAX",
    "PASSWORDS",
    "PERMISSIONS",
    "ROLES",
    "Attempts",
    "Authenticator",
    "Caller",
    "CaptureRequest",
    "Credential",
    "How",
    "Issuers",
    "Key",
    "KeyChange",
    "KeyRecord",
    "KeyRequest",
    "Keys",
    "Kind",
    "Known",
    "LoginRequest",
    "MadeKey",
    "PasswordRequest",
    "Passwords",
    "RevocationRequest",
    "Revocations",
    "Rotation",
    "Session",
    "Sessions",
    "SharedSessions",
    "StaticKeys",
    "TenantChange",
    "TenantRequest",
    "Tenants",
    "UserChange",
    "UserRequest",
    "Users",
    "Verified",
    "VisitorRequest",
    "Visitors",
    "class_of",
    "export_keys",
    "find",
    "first_admin_key",
    "identified",
    "import_keys",
    "in_body",
    "make",
    "missing",
    "parse",
    "refused_login",
    "reveal_path",
    "rfc3339",
    "subject",
    "tenant_of",
    "too_many_attempts",
    "unknown_key",
]
