"""What the gate takes and gives, told to machines (``/openapi.json``) and to people (``/docs``).

Words: a *shape* is what a JSON object looks like; a *row* is what the document says of one route
beyond what its entry knows.

**Decided: the document is read from the code**: routes and permissions from the table of routes,
sentences from the handlers' docstrings, shapes from pydantic's models, refusals from the tree of
errors. What is left is one row per route in :mod:`serve_app.ingress.docs.described`, and a test
names the route that has none.

**Decided: the page is ours.** Swagger UI, ReDoc and their kin are a megabyte of script and more
that somebody else ships; the one that Python packages carry without a framework is of a version
that does not read OpenAPI 3.1. Both paths are open to everyone, and a caller types a key in there:
so it is a few hundred lines that can be read, one reply with nothing to load beside the document,
and a policy that forbids the browser all else.

**Decided: the key stays in the page's memory**: in no URL, cookie, storage or ``curl`` line, and
it is sent to this gate only.
"""

from serve_app.ingress.docs.published import page, reference

__all__ = ["page", "reference"]
