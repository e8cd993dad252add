"""What happened: one access-log line per request.

**Decided: a line holds names and numbers, never content.** Prompts, keys and replies have no field
here; a credential is named by its public key id.
"""

from serve_app.telemetry.access_log import AccessLog

__all__ = ["AccessLog"]
