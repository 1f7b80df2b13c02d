"""Graphviz's program ``dot``: it turns a picture in Graphviz's language into SVG."""

from __future__ import annotations

from om_agent import errors, kinds, proc

_SECONDS = 120.0  # a mesh of 128 interior routers took 9 s on a busy machine


def svg(text: str) -> str:
    """Return a picture in Graphviz's language as SVG.

    :raises om_agent.errors.NotReady: when Graphviz is not installed.
    :raises om_agent.errors.ProcessFailed: when ``dot`` fails.
    """
    program = proc.find("dot")
    if not program:
        raise errors.NotReady([kinds.problem("dot", "no-graphviz")])
    result = proc.run([program, "-Tsvg"], _SECONDS, stdin=text.encode())
    if result.returncode:
        raise errors.ProcessFailed(
            f"dot failed (exit code {result.returncode}). Run om-agent topology --format dot, and give its output to"
            " dot to see the error."
        )
    return result.stdout.rstrip("\n")
