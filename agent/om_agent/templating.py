"""The text of a file, from a template and the values that are put into it.

The templates are in ``templates/`` and look like the files that they make: they hold loops, ``join`` and no other
logic. Values are quoted for the file's reader before they come here (see `om_agent.render`), so that a text depends on
nothing but its template and its values.

A run of the agent that changes nothing must stay cheap, and importing Jinja2 and compiling the templates would add a
fifth to its CPU time. So the node keeps the texts of its last apply, each with a digest of what it was made from
(`om_agent.plan.layout.Host.texts`). Jinja2 is imported only for a text that the node does not have yet.
"""

from __future__ import annotations

import functools
import hashlib
import json
import pkgutil
import typing

from om_agent import errors, kinds

if typing.TYPE_CHECKING:
    import jinja2

# How Jinja2 reads a template: a line that holds only a tag leaves nothing in the text.
_OPTIONS: dict[str, typing.Any] = {"keep_trailing_newline": True, "lstrip_blocks": True, "trim_blocks": True}

Value = typing.Union[str, typing.Sequence["Value"]]


class Text(typing.NamedTuple):
    """What a template and its values come to.

    :param digest: SHA-256 of the template and the values.
    """

    content: str
    digest: str


def text(template: str, known: typing.Mapping[str, str], **values: Value) -> Text:
    """Return the text that ``template`` makes of ``values``.

    :param template: the name of a file in ``templates/``, without its suffix ``.j2``.
    :param known: texts that were made earlier, by digest.
    :raises ValueError: when a value would break out of its line.
    :raises om_agent.errors.NotReady: when Jinja2 is needed and is not installed.
    """
    for value in values.values():
        _check_lines(value)
    source = _source(template)
    inputs = json.dumps([_OPTIONS, source, values])
    digest = hashlib.sha256(inputs.encode()).hexdigest()
    content = known.get(digest)
    if content is None:
        content = _compiled(source).render(values)
    return Text(content, digest)


def _check_lines(value: Value) -> None:
    """Refuse a value with a line break in it: the rest would be another line of the file.

    The metadata's checks let no such value through, so this is the last line of defence.
    """
    if not isinstance(value, str):
        for part in value:
            _check_lines(part)
    elif "\0" in value or len(f"{value}.".splitlines()) > 1:
        raise ValueError("a value for a template holds a line break")


def _source(template: str) -> str:
    content = pkgutil.get_data("om_agent", f"templates/{template}.j2")
    assert content is not None  # only a loader that cannot read data returns None
    return content.decode()


@functools.cache
def _compiled(source: str) -> jinja2.Template:
    try:
        import jinja2
    except ModuleNotFoundError:
        raise errors.NotReady([kinds.problem("jinja2", "no-jinja2")]) from None
    except ImportError as e:
        raise errors.CannotLoad("jinja2", e) from None
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, **_OPTIONS)
    return environment.from_string(source)
