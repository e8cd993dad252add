"""Every knob of *who is calling*: ``args.auth`` in ``serve_config.yaml``."""

import ipaddress
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from serve_app.allowance import Limits
from serve_app.section import CallerLimits, ClassName, Section

CARRIED_MAX = 1_024
"""Characters of limits that a token may carry in a header."""

TenantId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
Algorithm = Literal["HS256", "RS256", "PS256", "ES256", "EdDSA"]


class BruteForce(Section):
    """When an address that shows wrong credentials is blocked."""

    max_failed_attempts: int = Field(default=5, ge=1, le=100)
    """Wrong credentials from one address before it is blocked: 30 s, doubling to an hour."""

    ttl_seconds: int = Field(default=900, ge=1, le=86_400)
    """Seconds within which they must come."""


class Anonymous(Section):
    """Callers without a credential."""

    enabled: bool = False
    """Whether a request without a credential is served at all."""

    class_: ClassName = Field(default="anonymous", alias="class")
    """The class in which such a caller waits."""

    limits: CallerLimits = Limits(requests_per_minute=10)
    """Limits of such callers, per address; what stands here replaces all of it."""


class Claims(Section):
    """Where a token says what; dotted paths, e.g. `realm_access.roles`."""

    tenant: str | None = None
    """Claim with the tenant's id, which must be there; null: `tenant` of the issuer."""

    permissions: str | None = None
    """Claim with permissions or roles, none if it is absent; null: `permissions` of the issuer."""

    class_: str | None = Field(default=None, alias="class")
    """Claim with the class."""

    models: str | None = None
    """Claim with the models that may be used, none if it is not there; null: all."""

    limits: str | None = None
    """Claim with limits, an object as in a key; `exempt` is refused."""


class Issuer(Section):
    """Somebody whose JWTs are believed; its key comes from exactly one of three places."""

    issuer: str = Field(min_length=1, max_length=512)
    """The `iss` of its tokens, to the letter."""

    audience: str | list[str]
    """The `aud` that a token must name; of several, one."""

    algorithms: list[Algorithm] = Field(min_length=1)
    """The algorithms that it signs with; every other is refused."""

    secret_env: EnvName | None = None
    """Environment variable that holds the HS256 secret, 32 bytes or more."""

    public_key_file: str | None = None
    """PEM file with its public key."""

    jwks_url: str | None = None
    """Where its key set is; HTTPS, or HTTP on this machine."""

    tenant: TenantId = "default"
    """Tenant of its tokens, if `claims.tenant` is null."""

    permissions: list[str] = ["read_models", "run_inference", "use_streaming"]
    """Permissions of its tokens, if `claims.permissions` is null."""

    claims: Claims = Claims()

    @field_validator("jwks_url")
    @classmethod
    def _safe(cls, url: str | None) -> str | None:
        if url is not None and not is_safe_url(url):
            raise ValueError("must be an https:// URL, or http:// on loopback")
        return url

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        sources = [self.secret_env, self.public_key_file, self.jwks_url]
        if sum(source is not None for source in sources) != 1:
            raise ValueError("needs exactly one of secret_env, public_key_file, jwks_url")
        symmetric = "HS256" in self.algorithms
        if symmetric and len(self.algorithms) > 1:
            raise ValueError("HS256 cannot be mixed with public-key algorithms")
        if symmetric != (self.secret_env is not None):
            raise ValueError("HS256 needs secret_env, and secret_env needs HS256")
        if not self.audience:
            raise ValueError("audience is empty")
        return self


class Login(Section):
    """Users with a password."""

    session_ttl_s: int = Field(default=43_200, ge=60, le=2_592_000)
    """Seconds that a token from `POST /v1/auth/login` is good for."""

    threads: int = Field(default=1, ge=1, le=16)
    """Passwords that one gateway hashes at once, at a lower priority than everything else."""

    max_waiting: int = Field(default=16, ge=1, le=1_000)
    """Logins that may wait for that; one more is refused with 429."""


class Visitor(Section):
    """Web visitors who solved a captcha."""

    siteverify_url: str | None = None
    """The captcha service's verification URL; null: no visitors."""

    secret_env: EnvName = "SLUICEGATE_CAPTCHA_SECRET"
    """Environment variable that holds the captcha service's secret."""

    token_ttl_s: int = Field(default=900, ge=30, le=86_400)
    """Seconds that a visitor's token is good for."""

    class_: ClassName = Field(default="interactive", alias="class")
    """The class in which a visitor waits."""

    limits: CallerLimits = Limits(requests_per_minute=10)
    """Limits of a visitor, carried by its token; what stands here replaces all of it."""

    @field_validator("limits")
    @classmethod
    def _carried(cls, limits: Limits) -> Limits:
        if len(limits.text()) > CARRIED_MAX:
            raise ValueError("are too many to be carried by a token; name fewer models")
        return limits

    @field_validator("siteverify_url")
    @classmethod
    def _safe(cls, url: str | None) -> str | None:
        if url is not None and not is_safe_url(url):
            raise ValueError("must be an https:// URL, or http:// on loopback")
        return url


class Auth(Section):
    """Who may call."""

    disabled: bool = False
    """Serve everyone as one local caller with every permission; also `DISABLE_AUTH=true`."""

    i_know: bool = False
    """Allow `disabled` on an address that others can reach."""

    trusted_proxies: list[str] = []
    """CIDRs of proxies in front of the gate whose `X-Forwarded-For` hops are skipped."""

    body_api_key: bool = False
    """Read the key from the JSON body's `api_key` when no header carries one."""

    brute_force: BruteForce = BruteForce()
    anonymous: Anonymous = Anonymous()
    issuers: list[Issuer] = []
    login: Login = Login()
    visitor: Visitor = Visitor()

    @field_validator("trusted_proxies")
    @classmethod
    def _cidrs(cls, cidrs: list[str]) -> list[str]:
        for cidr in cidrs:
            ipaddress.ip_network(cidr)
        return cidrs

    @field_validator("issuers")
    @classmethod
    def _distinct(cls, issuers: list[Issuer]) -> list[Issuer]:
        names = [one.issuer for one in issuers]
        if len(set(names)) < len(names):
            raise ValueError("an issuer stands here twice")
        return issuers


class Cors(Section):
    """Which web pages may call from a browser; none by default."""

    origins: list[Annotated[str, Field(pattern=r"^(\*|https?://[^/*\s]+)$")]] = []
    """Origins such as `https://app.example`; `*` for every one."""

    methods: list[str] = ["GET", "POST", "PATCH", "DELETE"]
    """Methods that they may use."""

    headers: list[str] = ["*"]
    """Request headers that they may send; `*` for all, as browser SDKs send many of their own."""

    credentials: bool = False
    """Whether cookies and TLS certificates may come along; never with `*`."""

    max_age_s: int = Field(default=600, ge=0, le=86_400)
    """Seconds a browser may remember the answer."""

    @model_validator(mode="after")
    def _no_credentials_for_all(self) -> Self:
        if self.credentials and "*" in self.origins:
            raise ValueError("credentials cannot be allowed for every origin; name the origins")
        return self


def is_safe_url(url: str) -> bool:
    """Return whether nobody on the way can read what is asked of ``url``."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    local = host in ("127.0.0.1", "::1", "localhost")
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and local))
