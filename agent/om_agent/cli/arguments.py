"""Arguments that several commands share, what their texts may be, and the options that they make."""

from __future__ import annotations

import argparse
import os
import pathlib
import re

from om_agent import deployments, workflow

_DEFAULTS = workflow.Options()


def options(args: argparse.Namespace) -> workflow.Options:
    """Return what the command line and the environment say of the node to work on."""
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
    """Add the metadata's files."""
    parser.add_argument("files", nargs="*", metavar="FILE", help="JSON or YAML (default: as for apply)")


def add_root(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add the directory that stands for ``/``."""
    parser.add_argument("--root", type=_root, default=_DEFAULTS.root, metavar="DIR", help=help_text)


def add_node_options(parser: argparse.ArgumentParser) -> None:
    """Add which node is meant, where it is, and whether its units are touched."""
    parser.add_argument("--node", help="the node's name in the metadata (default: its node key, then the host name)")
    add_root(parser, "work below DIR instead of /")
    parser.add_argument("--relocate", action="store_true",
                        help="put DIR into the paths inside the files too, so that programs outside a chroot find"
                             " them")  # fmt: skip
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--services", dest="services", action="store_true", default=None,
                       help="restart the units whose configuration changed (default: where systemd runs)")  # fmt: skip
    group.add_argument("--no-services", dest="services", action="store_false", help="leave every unit alone")


def add_reconcile_options(parser: argparse.ArgumentParser) -> None:
    """Add whether what runs may be changed while it runs."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--reconcile", dest="reconcile", action="store_true", default=None,
                       help="change router and broker while they run, where that is possible (default: where units are"
                            " managed)")  # fmt: skip
    group.add_argument("--no-reconcile", dest="reconcile", action="store_false",
                       help="restart router and broker for every change")  # fmt: skip


def add_apply_options(parser: argparse.ArgumentParser) -> None:
    """Add how what is not right is made so."""
    add_reconcile_options(parser)
    parser.add_argument("--lock-timeout", type=seconds, default=_DEFAULTS.lock_seconds, metavar="SECONDS",
                        help="wait so long for another agent (default: %(default).0f)")  # fmt: skip
    parser.add_argument("--puppet-timeout", type=seconds, default=_DEFAULTS.puppet_seconds, metavar="SECONDS",
                        help="end puppet after so long (default: %(default).0f)")  # fmt: skip


def seconds(text: str) -> float:
    """Return a number of seconds."""
    value = deployments.seconds_of(text)
    if value is None:
        raise argparse.ArgumentTypeError(f"a number of seconds from 0 to {deployments.MAX_SECONDS} is needed")
    return value


def _root(text: str) -> pathlib.Path:
    path = pathlib.Path(os.path.abspath(text))
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a directory")
    if not re.fullmatch(r"[^$%,:\\\s]*", str(path)):
        raise argparse.ArgumentTypeError(
            "puppet and RabbitMQ cannot work in a directory with white space or $ % , : \\"
        )
    return path
