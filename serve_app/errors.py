"""Every way a request can be refused.

A leaf fixes status and code; ``ingress`` turns it into a reply and knows no other errors.
    GateError
      Refused               before anything was reserved
        InvalidRequest      400 invalid_request           param names the field
          UnknownTenant     400 unknown_tenant
          PromptTooLong     400 prompt_too_long
          ExceedsLimit      400 request_exceeds_limit     never fits; refused_by names the limit
        BodyTooLarge        413 request_too_large
        WrongMediaType      415 unsupported_media_type
        NotFound            404
          NoSuchRoute           not_found
          NoSuchModel           model_not_found
          NoSuchKey             key_not_found
          NoSuchTenant          tenant_not_found
          NoSuchUser            user_not_found
          NoSuchTicket          ticket_not_found
          NoSuchResponse        response_not_found
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
        QuotaSpent          429 insufficient_quota        not to be retried; reset in details
        QueueFull           429 queue_full                retry_after_s
        QueueWaitTooLong    429 queue_wait_too_long       retry_after_s
        StoreUnavailable    503 state_store_unavailable   retry_after_s
        IssuerUnavailable   503 issuer_unavailable        retry_after_s
        ShuttingDown        503 shutting_down             retry_after_s
      Dropped               after it had a place: place and request count were given back
        QueueTimeout        429 queue_timeout             retry_after_s
        QueueCancelled      429 queue_cancelled           not to be retried
        NoCapacity          503 no_capacity               retry_after_s
        UpstreamFailed      502 upstream_failed           retry_after_s
        UpstreamTimeout     504 upstream_timeout
      Internal              500 internal_error            our fault; the log knows more
"""

from typing import Any, ClassVar

SERVER_ERROR, _OTHERS = 500, ("server_error", "invalid_request_error")
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class GateError(Exception):
    """Base class; raise a leaf. ``str(err)`` is shown to the caller, so it holds no secret.

    Attributes:
        retry_after_s: seconds until the same request may pass; None if waiting does not help.
        param: the request field at fault.
        refused_by: scope or reason, for ``x-refused-by`` on 429 and 503.
        details: figures behind the refusal, for machines; None if there are none.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"

    def __init_subclass__(cls, status: int | None = None, code: str | None = None) -> None:
        cls.status = cls.status if status is None else status
        if code is not None:
            cls.code = code
        cls.type = _TYPES.get(cls.status, _OTHERS[cls.status < SERVER_ERROR])

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        param: str | None = None,
        refused_by: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.param = param
        self.refused_by = refused_by or self.code
        self.details = details


class Refused(GateError):
    """Turned away before anything was reserved."""


class InvalidRequest(Refused, status=400, code="invalid_request"):
    """The request cannot be understood; ``param`` names the field."""


class UnknownTenant(InvalidRequest, code="unknown_tenant"):
    """The request names a tenant that does not exist."""


class PromptTooLong(InvalidRequest, code="prompt_too_long"):
    """The prompt has more characters than ``limits.max_prompt_chars``."""


class ExceedsLimit(InvalidRequest, code="request_exceeds_limit"):
    """The prompt alone is larger than a limit can ever hold; waiting does not help."""


class BodyTooLarge(Refused, status=413, code="request_too_large"):
    """The body is larger than ``limits.max_body_bytes``."""


class WrongMediaType(Refused, status=415, code="unsupported_media_type"):
    """The body is not JSON."""


class NotFound(Refused, status=404):
    """What the request names does not exist."""


class NoSuchRoute(NotFound, code="not_found"):
    """No route has this path."""


class NoSuchModel(NotFound, code="model_not_found"):
    """No model has this name."""


class NoSuchKey(NotFound, code="key_not_found"):
    """No key has this id."""


class NoSuchTenant(NotFound, code="tenant_not_found"):
    """No tenant has this id."""


class NoSuchUser(NotFound, code="user_not_found"):
    """No user has this name."""


class NoSuchTicket(NotFound, code="ticket_not_found"):
    """No request waits in line with this ticket, or not any more."""


class NoSuchResponse(NotFound, code="response_not_found"):
    """No replica keeps a response of this name for this caller, or not any more."""


class WrongMethod(Refused, status=405, code="method_not_allowed"):
    """The path exists, the method does not; ``allow`` lists those that do."""

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class AlreadyExists(Refused, status=409, code="already_exists"):
    """The name is taken."""


class InUse(Refused, status=409, code="in_use"):
    """It cannot go while something belongs to it."""


class Unauthenticated(Refused, status=401):
    """The caller is unknown."""


class MissingCredentials(Unauthenticated, code="missing_credentials"):
    """The request carries no credential."""


class InvalidKey(Unauthenticated, code="invalid_api_key"):
    """The key is malformed, unknown, revoked or expired; which of them is not told."""


class InvalidToken(Unauthenticated, code="invalid_token"):
    """The JWT is malformed, not of an issuer we know, or revoked."""


class TokenExpired(Unauthenticated, code="token_expired"):
    """The JWT was good once."""


class InvalidLogin(Unauthenticated, code="invalid_login"):
    """User name and password do not fit, or the captcha was not solved; which is not told."""


class Forbidden(Refused, status=403, code="permission_denied"):
    """The caller is known and may not do this."""


class ModelForbidden(Forbidden, code="model_not_allowed"):
    """The caller is known and may not use this model."""


class AddressForbidden(Forbidden, code="address_not_allowed"):
    """The caller is known and may not call from this address."""


class TooManyAttempts(Refused, status=429, code="too_many_failed_attempts"):
    """This address has shown too many wrong credentials; a valid key is served all the same."""


class RateLimited(Refused, status=429, code="rate_limit_exceeded"):
    """A rate is used up; the same request passes after ``retry_after_s``."""


class QuotaSpent(Refused, status=429, code="insufficient_quota"):
    """A budget or a quota of the day or month is spent, or nothing was allowed at all."""


class QueueFull(Refused, status=429, code="queue_full"):
    """As many requests wait as may wait."""


class QueueWaitTooLong(Refused, status=429, code="queue_wait_too_long"):
    """It would wait longer than it may, as fast as seats come free now."""


class StoreUnavailable(Refused, status=503, code="state_store_unavailable"):
    """Redis or Valkey does not answer; nobody is let in unchecked."""


class IssuerUnavailable(Refused, status=503, code="issuer_unavailable"):
    """The keys of the token's issuer could never be fetched, so nobody can judge the token."""


class ShuttingDown(Refused, status=503, code="shutting_down"):
    """This gateway takes no new requests."""


class Dropped(GateError):
    """Turned away after it had a place; place and request count were given back.

    Attributes:
        waited_ms: it waited in line for nothing; None if it did not.
    """

    waited_ms: float | None = None


class QueueTimeout(Dropped, status=429, code="queue_timeout"):
    """No seat came free within the class's ``max_wait_s``."""


class QueueCancelled(Dropped, status=429, code="queue_cancelled"):
    """An operator took the request out of the line."""


class NoCapacity(Dropped, status=503, code="no_capacity"):
    """The model has no replica and none came in time."""


class UpstreamFailed(Dropped, status=502, code="upstream_failed"):
    """Every replica tried failed before its first byte."""


class UpstreamTimeout(Dropped, status=504, code="upstream_timeout"):
    """The replica was silent too long before its first byte."""


class Internal(GateError):
    """Our fault."""
