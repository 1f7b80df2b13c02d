"""``om-devrouter -c FILE.json``: the wiring, the only user of argparse and signals."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import om_devrouter
from om_devrouter import config, errors

if TYPE_CHECKING:
    from om_devrouter import engine

#: qdrouterd's level names -> those of logging.
_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "notice": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "none": logging.CRITICAL + 1,
}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="om-devrouter",
        description="A small single AMQP 1.0 router that reads the JSON configuration of qdrouterd. "
        "For development only.",
        epilog="Example: om-devrouter -c /etc/qpid-dispatch/qdrouterd.json",
    )
    parser.add_argument("-c", "--config", metavar="FILE", required=True, help="configuration file (JSON)")
    parser.add_argument("--version", action="version", version=f"om-devrouter {om_devrouter.__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the router until SIGTERM or SIGINT.

    :return: 0 after a stop that was asked for, 1 when the router cannot start
    """
    arguments = build_parser().parse_args(argv)
    try:
        return _serve(config.parse(_text(arguments.config)))
    except errors.DevRouterError as exc:
        print(f"om-devrouter: {exc}", file=sys.stderr)
        return 1


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except OSError as exc:
        raise errors.DevRouterError(f"Cannot read {path}: {exc.strerror}.") from None
    except ValueError:
        raise errors.DevRouterError(f"Cannot read {path}: it is not UTF-8 text.") from None


def _serve(settings: config.Config) -> int:
    try:
        from om_devrouter import engine
    except ImportError as exc:
        raise errors.DevRouterError(f"This needs python-qpid-proton: {exc}.") from None
    logging.basicConfig(
        stream=sys.stderr,
        level=_LEVELS.get(settings.log_level or "", logging.INFO),
        format="%(asctime)s %(levelname)s %(message)s",
    )
    # Before the first listener accepts: whoever can connect may also want to stop it.
    loops: list[engine.Engine] = []

    def stop(*_: object) -> None:
        if not loops:
            sys.exit(0)
        loops[0].stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    loop = engine.Engine(settings)
    loops.append(loop)
    shown = [f"{where} ({listener.name})" for where, listener in loop.endpoints]
    shown += _start_status(settings, loop)
    print(errors.FOR_DEVELOPMENT, file=sys.stderr, flush=True)
    print(f"listening on {', '.join(shown)}", flush=True)
    loop.run()
    return 0


def _start_status(settings: config.Config, loop: engine.Engine) -> list[str]:
    from om_devrouter import connection, engine, status, views

    shown = []
    for listener in settings.listeners:
        if listener.http:
            sock = engine.bind(listener)
            shown.append(f"{connection.endpoint(sock.getsockname())} ({listener.name}, http)")
            status.StatusServer(sock, listener, lambda: loop.alive_at, lambda: views.metric_lines(loop.router)).start()
    return shown
