"""Templates: values stay on their lines, and a known text needs no Jinja2."""

from __future__ import annotations

import builtins
import json
import pathlib
import re
import typing

import jinja2
import pytest
from om_agent import errors, render, templating
from om_agent.plan import broker

from tests.support import helpers

TEMPLATES = helpers.PACKAGE / "templates"
# The tags and expressions that a template may hold: loops over values, and a value, joined if it is a list.
ALLOWED = re.compile(r"\{% (for \w+ in \w+|endfor) %\}|\{\{ \w+(\.\w+)?( \| join\('[^']*'\))? \}\}")
LINE_ENDS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.fixture
def no_jinja2(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without Jinja2."""
    original = builtins.__import__

    def refuse(name: str, *rest: typing.Any) -> typing.Any:
        if name.partition(".")[0] == "jinja2":
            raise ModuleNotFoundError
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    templating._compiled.cache_clear()


@pytest.mark.parametrize("path", sorted(TEMPLATES.iterdir()), ids=lambda path: path.name)
def test_a_template_holds_loops_and_no_other_logic(path: pathlib.Path) -> None:
    assert path.suffix == ".j2"
    assert not re.search(r"\{[{%#]|[}%#]\}", ALLOWED.sub("", path.read_text()))


def test_a_value_that_the_template_lacks_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        templating.text("hiera.yaml", {})


@pytest.mark.parametrize("end", [*LINE_ENDS, "\0"], ids=repr)
@pytest.mark.parametrize("text", ["a{}b = c", "a{}", "{}"])
def test_no_value_adds_a_line(text: str, end: str) -> None:
    value = text.format(end)
    for setting in (broker.Setting("key", value), broker.Setting(value, "value")):
        with pytest.raises(ValueError, match="line break"):
            templating.text("rabbitmq.conf", {}, settings=[broker.Setting("first", "1"), setting])
    with pytest.raises(ValueError, match="line break"):
        templating.text("hiera.yaml", {}, datadir=value)


@pytest.mark.parametrize("value", ["{{ 1 + 1 }}", "{% raw %}", "{# x #}", "<a> & 'b' \"c\"", "", " "])
def test_a_value_is_written_as_it_is(value: str) -> None:
    made = templating.text("rabbitmq.conf", {}, settings=[broker.Setting("key", value)])
    assert made.content.splitlines()[1:] == [f"key = {value}"]


def test_quotes_do_not_end_an_erlang_string() -> None:
    hosts = [broker.InetHost("{127,0,0,1}", broker.erlang_string('a"]}. {x, "\\'))]
    made = templating.text("erl_inetrc", {}, hosts=hosts, options=())
    assert '{host, {127,0,0,1}, ["a\\"]}. {x, \\"\\\\"]}.\n' in made.content


def known_texts(rendered: render.Rendered) -> dict[str, str]:
    return {f.digest: (f.content or b"").decode() for f in rendered.files if f.digest}


def test_a_known_text_needs_no_jinja2(no_jinja2: None, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = helpers.with_tls(helpers.default(), "pem")
    with pytest.raises(errors.NotReady, match="python3-jinja2"):
        helpers.rendered(raw, "ctl-0")
    monkeypatch.undo()
    made = helpers.rendered(raw, "ctl-0")
    monkeypatch.setattr(templating, "_compiled", lambda source: pytest.fail("a known text was made again"))
    assert helpers.rendered(raw, "ctl-0", helpers.host(texts=known_texts(made))) == made


def test_another_value_another_template_or_another_order_has_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(*settings: tuple[str, str], template: str = "rabbitmq.conf") -> str:
        return templating.text(template, {}, settings=[broker.Setting(*s) for s in settings]).digest

    first = digest(("a", "1"), ("b", "2"))
    assert first == digest(("a", "1"), ("b", "2"))
    others = {digest(("b", "2"), ("a", "1")), digest(("a", "1")), digest(("a", "1b"), ("", "2"))}
    monkeypatch.setattr(templating, "_source", lambda template: "changed\n")
    others.add(digest(("a", "1"), ("b", "2")))
    assert len(others | {first}) == 5


def test_no_template_makes_a_secret_file() -> None:
    """The node keeps the texts in its state, where no secret belongs."""
    for raw in (helpers.default(), helpers.with_tls(helpers.dual(), "pem")):
        for file in helpers.rendered(raw, "ctl-0").files:
            assert not (file.digest and file.secret)
            assert "secret" not in json.dumps(known_texts(helpers.rendered(raw, "ctl-0")))
