"""Every way a request can be refused.

A leaf fixes status and code; ``ingress`` turns it into a reply and knows no other errors.
    GateError
      Refused               before anything was reserved
        InvalidRequest      400 invalid_request           param names the field
          UnknownTenant     400 unknown_tenant
        BodyTooLarge        413 request_too_large
        WrongMediaType      415 unsupported_media_type
        NotFound            404
          NoSuchRoute           not_found
          NoSuchModel           model_not_found
          NoSuchKey             key_not_found
          NoSuchTenant          tenant_not_found
          NoSuchUser            user_not_found
        WrongMethod         405 method_not_allowed        Allow
        AlreadyExists       409 already_exists
        InUse               409 in_use
        Unauthenticated     401 WWW-Authenticate
          MissingCredentials    missing_credentials
          InvalidKey            invalid_api_key
          InvalidToken          invalid_token
          TokenExpired          token_expired
          InvalidLogin          invalid_login
        Forbidden           403 permission_denied
          ModelForbidden    403 model_not_allowed
          AddressForbidden  403 address_not_allowed
        TooManyAttempts     429 too_many_failed_attempts  retry_after_s
        RateLimited         429 rate_limit_exceeded       retry_after_s
        QueueFull           429 queue_full                retry_after_s
        StoreUnavailable    503 state_store_unavailable   retry_after_s
        IssuerUnavailable   503 issuer_unavailable        retry_after_s
        ShuttingDown        503 shutting_down             retry_after_s
      Dropped               after it had a place: place and request count were given back
        QueueTimeout        429 queue_timeout             retry_after_s
        NoCapacity          503 no_capacity               retry_after_s
        UpstreamFailed      502 upstream_failed           retry_after_s
        UpstreamTimeout     504 upstream_timeout
      Internal              500 internal_error            our fault; the log knows more
"""

from typing import ClassVar

SERVER_ERROR, _OTHERS = 500, ("server_error", "invalid_request_error")
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class GateError(Exception):
    """Base class; raise a leaf. ``str(err)`` is shown to the caller, so it holds no secret.

    Attributes:
        retry_after_s: seconds until the same request may pass; None if waiting does not help.
        param: the request field at fault.
        refused_by: scope or reason, for ``x-refused-by`` on 429 and 503.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"

    def __init_subclass__(cls) -> None:
        cls.type = _TYPES.get(cls.status, _OTHERS[cls.status < SERVER_ERROR])

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        param: str | None = None,
        refused_by: str | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.param = param
        self.refused_by = refused_by or self.code


class Refused(GateError):
    """Turned away before anything was reserved."""


class InvalidRequest(Refused):
    """The request cannot be understood; ``param`` names the field."""

    status = 400
    code = "invalid_request"


class UnknownTenant(InvalidRequest):
    """The request names a tenant that does not exist."""

    code = "unknown_tenant"


class BodyTooLarge(Refused):
    """The body is larger than ``limits.max_body_bytes``."""

    status = 413
    code = "request_too_large"


class WrongMediaType(Refused):
    """The body is not JSON."""

    status = 415
    code = "unsupported_media_type"


class NotFound(Refused):
    """What the request names does not exist."""

    status = 404


class NoSuchRoute(NotFound):
    """No route has this path."""

    code = "not_found"


class NoSuchModel(NotFound):
    """No model has this name."""

    code = "model_not_found"


class NoSuchKey(NotFound):
    """No key has this id."""

    code = "key_not_found"


class NoSuchTenant(NotFound):
    """No tenant has this id."""

    code = "tenant_not_found"


class NoSuchUser(NotFound):
    """No user has this name."""

    code = "user_not_found"


class WrongMethod(Refused):
    """The path exists, the method does not; ``allow`` lists those that do."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class AlreadyExists(Refused):
    """The name is taken."""

    status = 409
    code = "already_exists"


class InUse(Refused):
    """It cannot go while something belongs to it."""

    status = 409
    code = "in_use"


class Unauthenticated(Refused):
    """The caller is unknown."""

    status = 401


class MissingCredentials(Unauthenticated):
    """The request carries no credential."""

    code = "missing_credentials"


class InvalidKey(Unauthenticated):
    """The key is malformed, unknown, revoked or expired; which of them is not told."""

    code = "invalid_api_key"


class InvalidToken(Unauthenticated):
    """The JWT is malformed, not of an issuer we know, or revoked."""

    code = "invalid_token"


class TokenExpired(Unauthenticated):
    """The JWT was good once."""

    code = "token_expired"


class InvalidLogin(Unauthenticated):
    """User name and password do not fit, or the captcha was not solved; which is not told."""

    code = "invalid_login"


class Forbidden(Refused):
    """The caller is known and may not do this."""

    status = 403
    code = "permission_denied"


class ModelForbidden(Forbidden):
    """The caller is known and may not use this model."""

    code = "model_not_allowed"


class AddressForbidden(Forbidden):
    """The caller is known and may not call from this address."""

    code = "address_not_allowed"


class TooManyAttempts(Refused):
    """This address has shown too many wrong credentials; a valid key is served all the same."""

    status = 429
    code = "too_many_failed_attempts"


class RateLimited(Refused):
    """A rate is used up; the same request passes after ``retry_after_s``."""

    status = 429
    code = "rate_limit_exceeded"


class QueueFull(Refused):
    """As many requests wait as may wait."""

    status = 429
    code = "queue_full"


class StoreUnavailable(Refused):
    """Redis or Valkey does not answer; nobody is let in unchecked."""

    status = 503
    code = "state_store_unavailable"


class IssuerUnavailable(Refused):
    """The keys of the token's issuer could never be fetched, so nobody can judge the token."""

    status = 503
    code = "issuer_unavailable"


class ShuttingDown(Refused):
    """This gateway takes no new requests."""

    status = 503
    code = "shutting_down"


class Dropped(GateError):
    """Turned away after it had a place; place and request count were given back."""


class QueueTimeout(Dropped):
    """No seat came free within the class's ``max_wait_s``."""

    status = 429
    code = "queue_timeout"


class NoCapacity(Dropped):
    """The model has no replica and none came in time."""

    status = 503
    code = "no_capacity"


class UpstreamFailed(Dropped):
    """Every replica tried failed before its first byte."""

    status = 502
    code = "upstream_failed"


class UpstreamTimeout(Dropped):
    """The replica was silent too long before its first byte."""

    status = 504
    code = "upstream_timeout"


class Internal(GateError):
    """Our fault."""
