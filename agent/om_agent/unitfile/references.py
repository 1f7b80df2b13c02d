"""Text that refers to variables: replace the references by values. Pure."""

from __future__ import annotations

import re
import typing

_MAX_LENGTH = 128 * 1024  # characters; the kernel accepts no longer argument (MAX_ARG_STRLEN, execve(2))
_MAX_ROUNDS = 4
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


def expand(text: str, variables: typing.Mapping[str, str], limit: int = _MAX_LENGTH) -> str:
    """Return ``text`` with the values of the variables that are known.

    It does a few rounds, since a value may refer to other variables.

    :param limit: maximum length of the result. A round with a longer result is left out: variables that refer to each
        other would make the text grow without end.
    """
    for _ in range(_MAX_ROUNDS):
        expanded = substitute(_VARIABLE, text, lambda match: variables.get(match[1]), limit)
        if expanded is None:
            return text
        text = expanded
    return text


def substitute(
    pattern: re.Pattern[str],
    text: str,
    look_up: typing.Callable[[re.Match[str]], str | None],
    limit: int = _MAX_LENGTH,
) -> str | None:
    """Return ``text`` with each match of ``pattern`` replaced; None when the result is too long.

    :param look_up: returns the replacement of a match; None to keep the match.
    """
    pieces: list[str] = []
    length = 0
    end = 0
    for match in pattern.finditer(text):
        value = look_up(match)
        if value is None:
            continue
        pieces += (text[end : match.start()], value)
        length += match.start() - end + len(value)
        end = match.end()
        if length > limit:
            return None
    if not pieces:
        return text
    return "".join((*pieces, text[end:]))
