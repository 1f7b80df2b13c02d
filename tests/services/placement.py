"""Run inside a node: stand in for placement, which nova-compute asks for its versions before it starts.

It has no providers and makes none: nova-compute logs that, and goes on. Usage: placement.py PORT
"""

from __future__ import annotations

import http.server
import json
import sys

_LINKS = [{"rel": "self", "href": ""}]
_VERSION = {"id": "v1.0", "min_version": "1.0", "max_version": "1.39", "status": "CURRENT", "links": _LINKS}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the question for versions, and nothing else."""

    def do_GET(self) -> None:
        known = self.path in ("", "/")
        body = json.dumps({"versions": [_VERSION]} if known else {"errors": [{"status": 404}]}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
