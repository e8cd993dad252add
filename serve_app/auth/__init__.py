"""Who is calling: find the credential, name the caller, make and revoke keys.

Words: a *credential* is what a request shows; a *key* is one of ours,
``sg-<tenant id>-<key id>-<secret><checksum>``; a *caller* is who it turned out to be, with the
permissions and models it may use.

**Decided: keys carry their tenant and a checksum.** The checksum turns typos and noise away without
touching the store; the tenant id gives the hash tag, so a key's record and its limits lie side by
side. Only the SHA-256 of a 256-bit secret is stored: there is nothing to guess, so a slow hash
would only slow us.

**Decided: unknown id and wrong secret look alike**, to the caller and in time: the store compares
the hash, and both leave by the same line.

**Decided: no cache.** The key's record is read by the call that takes its limits.
"""

from serve_app.auth.bootstrap import first_admin_key, reveal_path
from serve_app.auth.caller import DEFAULT_TENANT, PERMISSIONS, Caller
from serve_app.auth.credential import Credential, StaticKeys, find
from serve_app.auth.key import KEY_PREFIX, Key, MadeKey, make, parse
from serve_app.auth.keys import PAGE_MAX, KeyRecord, KeyRequest, Keys, identify, unknown_key

__all__ = [
    "DEFAULT_TENANT",
    "KEY_PREFIX",
    "PAGE_MAX",
    "PERMISSIONS",
    "Caller",
    "Credential",
    "Key",
    "KeyRecord",
    "KeyRequest",
    "Keys",
    "MadeKey",
    "StaticKeys",
    "find",
    "first_admin_key",
    "identify",
    "make",
    "parse",
    "reveal_path",
    "unknown_key",
]
