"""The command for builders of images: elements-path."""

from __future__ import annotations

import argparse
import pathlib
import typing

from om_agent import errors
from om_agent.cli import output


def add_elements_path(commands: typing.Any) -> None:
    parser = commands.add_parser("elements-path", help="print the directory of this project's image elements")
    parser.set_defaults(run=_elements_path)


def _elements_path(args: argparse.Namespace) -> int:
    """Print where the elements are: in the agent's own package, which links to them in a source tree."""
    directory = (pathlib.Path(__file__).parents[1] / "elements").resolve()
    if not (directory / "om-agent").is_dir():
        raise errors.ApplyFailed("The elements are not installed. Install om-dual-backends with pip.")
    output.say(str(directory), needed=True)
    return errors.EXIT_OK
