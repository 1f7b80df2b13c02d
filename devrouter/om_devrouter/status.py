"""The http listener: ``/healthz`` and ``/metrics``, in a daemon thread that never touches proton."""

from __future__ import annotations

import http.server
import logging
import socket
import threading
import time
from typing import Any, Callable

from om_devrouter import config

LOG = logging.getLogger(__name__)

#: The router's loop comes round every second; one silent for so many seconds is not healthy.
STUCK_AFTER = 5.0


class StatusServer(http.server.ThreadingHTTPServer):
    """Serves an already bound socket.

    :param alive_at: tells when the router's loop last came round, in seconds, monotonic
    :param metrics: gives the lines of the metrics page
    """

    daemon_threads = True

    def __init__(
        self,
        sock: socket.socket,
        listener: config.Listener,
        alive_at: Callable[[], float],
        metrics: Callable[[], list[str]],
    ) -> None:
        super().__init__(sock.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        sock.setblocking(True)
        self.socket = sock
        self._listener = listener
        self._alive_at = alive_at
        self._metrics = metrics

    def start(self) -> None:
        """Serve from now on, until the process ends."""
        threading.Thread(target=self.serve_forever, name="http", daemon=True).start()

    def page(self, path: str) -> tuple[int, str]:
        """The status and the text of a page."""
        path = path.partition("?")[0]
        if path == "/healthz" and self._listener.healthz:
            healthy = time.monotonic() - self._alive_at() < STUCK_AFTER
            return (200, "OK\n") if healthy else (503, "the router does not respond\n")
        if path == "/metrics" and self._listener.metrics:
            return 200, "\n".join(self._metrics()) + "\n"
        return 404, "not found\n"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: StatusServer
    timeout = 10  # seconds; a client that says nothing does not keep its thread for ever

    def do_GET(self) -> None:  # the name is http.server's
        status, text = self.server.page(self.path)
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def version_string(self) -> str:
        return "om-devrouter"

    def log_message(self, format: str, *args: Any) -> None:
        LOG.debug(format, *args)

    def log_error(self, format: str, *args: Any) -> None:
        LOG.debug(format, *args)
