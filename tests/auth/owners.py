"""Who owns keys in these tests, and limits that keys carry."""

from serve_app.auth import PERMISSIONS, Caller, Known

KNOWN = Known(("interactive", "standard", "batch"), frozenset({"/v1/completions"}))
OPERATOR = Caller("default", "op", PERMISSIONS, operator=True)
ACME = Caller("acme", "acme-admin", PERMISSIONS)
OTHER = Caller("other", "other-admin", PERMISSIONS)

LIMITS = {
    "requests_per_minute": {"limit": 60, "burst": 5},
    "cost_per_day": 0.5,
    "output_cap": 256,
    "shadow": {"tokens_per_minute": 9},
    "models": {"org/m:1": {"concurrency": 2}},
}
TEXT = "r 60 5 0 D 500000000 500000000 0 t 9 9 1 n 256 0 0\norg/m:1\tc 2 2 0"
