"""The one exception of this package, and the sentences that people read.

* ``DevRouterError``: the router cannot start; ``str()`` of it is one sentence without secrets.
"""

from __future__ import annotations

FOR_DEVELOPMENT = "om-devrouter: for development only; use qdrouterd or skrouterd in production."
ONE_ROUTER = "om-devrouter is one router only; use qdrouterd for a mesh."


class DevRouterError(Exception):
    """Why the router does not start: one sentence for people, never a secret nor a file's contents."""
