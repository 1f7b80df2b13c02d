"""The command for builders of images: elements-path."""

from __future__ import annotations

import argparse
import pathlib
import sysconfig
import typing

from om_agent import errors
from om_agent.cli import output


def add_elements_path(commands: typing.Any) -> None:
    parser = commands.add_parser("elements-path", help="print the directory of this project's image elements")
    parser.set_defaults(run=_elements_path)


def _elements_path(args: argparse.Namespace) -> int:
    """The elements are in the source tree, or where pip puts data."""
    source = pathlib.Path(__file__).resolve().parents[3]
    shared = (pathlib.Path(d) / "share/om-dual-backends" for d in (sysconfig.get_path("data"), "/usr"))
    for directory in (source, *shared):
        if (directory / "elements/om-agent").is_dir():
            output.say(str(directory / "elements"), needed=True)
            return errors.EXIT_OK
    raise errors.ApplyFailed("The elements are not installed. Install om-dual-backends with pip.")
