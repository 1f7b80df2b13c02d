"""The arguments that several commands share, the checks of their values, and the options that they give."""

from __future__ import annotations

import argparse
import os
import pathlib
import re

from om_agent import deployments, workflow

_DEFAULTS = workflow.Options()


def options(args: argparse.Namespace) -> workflow.Options:
    """Return the options of the steps, from the command line and the environment."""
    given = vars(args)
    return workflow.Options(
        files=(*given.get("files", ()), *given.get("metadata", ())),
        collected=os.environ.get("OS_CONFIG_FILES"),
        node=given.get("node"),
        root=given.get("root", _DEFAULTS.root),
        relocate=given.get("relocate", False),
        manage_services=given.get("services"),
        reconcile=given.get("reconcile"),
        lock_seconds=given.get("lock_timeout", _DEFAULTS.lock_seconds),
        puppet_seconds=given.get("puppet_timeout", _DEFAULTS.puppet_seconds),
    )


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add the metadata files."""
    parser.add_argument("files", nargs="*", metavar="FILE", help="JSON or YAML file (default: the same as for apply)")


def add_root(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add the directory that replaces ``/``."""
    parser.add_argument("--root", type=_root, default=_DEFAULTS.root, metavar="DIR", help=help_text)


def add_node_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select the node, its root directory, and whether the agent manages its units."""
    parser.add_argument(
        "--node",
        help="name of this node in the metadata (default: the node key of the metadata, then the host name)",
    )
    add_root(parser, "use DIR as the root directory instead of /")
    parser.add_argument(
        "--relocate",
        action="store_true",
        help="also put DIR into the paths inside the files, so that programs outside a chroot find them",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--services",
        dest="services",
        action="store_true",
        default=None,
        help="restart the units whose configuration changed (default on a machine that systemd runs)",
    )
    group.add_argument("--no-services", dest="services", action="store_false", help="do not touch any unit")


def add_reconcile_options(parser: argparse.ArgumentParser) -> None:
    """Add whether the agent may change the running router and broker."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--reconcile",
        dest="reconcile",
        action="store_true",
        default=None,
        help="change the running router and broker without a restart where possible (default where the agent manages"
        " units)",
    )
    group.add_argument(
        "--no-reconcile",
        dest="reconcile",
        action="store_false",
        help="restart the router and the broker for every change",
    )


def add_apply_options(parser: argparse.ArgumentParser) -> None:
    """Add how the agent changes the node, and how long it waits."""
    add_reconcile_options(parser)
    parser.add_argument(
        "--lock-timeout",
        type=seconds,
        default=_DEFAULTS.lock_seconds,
        metavar="SECONDS",
        help="wait up to SECONDS for another om-agent process to finish (default: %(default).0f)",
    )
    parser.add_argument(
        "--puppet-timeout",
        type=seconds,
        default=_DEFAULTS.puppet_seconds,
        metavar="SECONDS",
        help="stop puppet after SECONDS (default: %(default).0f)",
    )


def seconds(text: str) -> float:
    """Return the number of seconds that ``text`` gives."""
    value = deployments.seconds_of(text)
    if value is None:
        raise argparse.ArgumentTypeError(f"expected a number of seconds from 0 to {deployments.MAX_SECONDS}")
    return value


def _root(text: str) -> pathlib.Path:
    """Return the absolute path of a root directory that puppet and RabbitMQ can work in."""
    path = pathlib.Path(os.path.abspath(text))
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a directory")
    if not re.fullmatch(r"[^$%,:\\\s]*", str(path)):
        raise argparse.ArgumentTypeError(
            "puppet and RabbitMQ cannot work in a directory with white space or $ % , : \\ in its path"
        )
    return path
