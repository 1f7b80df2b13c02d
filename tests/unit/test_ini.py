"""Files of others are read as oslo.config reads them and as the puppet module edits them."""

from __future__ import annotations

import json
import pathlib
import random
import shutil
import subprocess
import typing

import hypothesis
import pytest
from hypothesis import strategies as st
from om_agent import ini

from tests import helpers

QUICK = hypothesis.settings(max_examples=300, deadline=None)
INI_TEXT = helpers.ROOT / "puppet/modules/om_messaging/lib/puppet_x/om_messaging/ini_text.rb"

LINES = (
    "[DEFAULT]", "[oslo_messaging_rabbit]", "[ DEFAULT ]", "[a]b]", "[x] ",
    "ssl = true", "ssl=true", "ssl: true", "ssl  =  true  ", "ssl =", "SSL = true",
    "ssl true = yes = no", "url = a:b=c",
    "transport_url = rabbit://u:p%40@[fd00::1]:5672/?ssl=0#x;y", "transport_url : x", "k = \"in quotes", "ssl = a\r",
    " continued", "\tcontinued", "  # not a comment for oslo", "", "  ", "# ssl = false", ";ssl = false", "#", "k = é",
)  # fmt: skip

Found = dict[tuple[str, str], list[str]]


def as_oslo(text: str) -> Found | None:
    """What oslo.config's own parser finds, lines of one value joined; None when it refuses the file."""
    iniparser: typing.Any = pytest.importorskip("oslo_config.iniparser")
    found: Found = {}

    class Parser(iniparser.BaseParser):  # type: ignore[misc]
        section = ""

        def assignment(self, key: str, value: list[str]) -> None:
            found.setdefault((self.section, key), []).append("\n".join(value))

        def new_section(self, section: str) -> None:
            self.section = section

        def comment(self, comment: str) -> None:
            pass

        def parse_exc(self, *args: object) -> Exception:
            return ValueError(*args)

        def error_no_section_name(self, line: str) -> typing.NoReturn:
            raise ValueError(line)

        error_no_section_end_bracket = error_invalid_assignment = error_no_section_name
        error_unexpected_continuation = error_empty_key = error_no_section_name

    try:
        Parser().parse(text.split("\n"))
    except ValueError:
        return None
    return found


def several_lines(keys: ini.Keys, section: str, key: str) -> bool:
    """Return whether the key stands more than once or over several lines."""
    values = keys.get((section, key), [])
    return len(values) > 1 or any(v.continued for v in values)


def single_lines(found: Found) -> Found:
    return {key: values for key, values in found.items() if not any("\n" in v for v in values)}


@QUICK
@hypothesis.given(st.lists(st.sampled_from(LINES), max_size=12).map("\n".join))
def test_a_file_is_read_as_oslo_config_reads_it(text: str) -> None:
    theirs = as_oslo(text)
    hypothesis.assume(theirs is not None)
    assert theirs is not None
    ours = ini.read(text)
    assert set(ours) == set(theirs)
    for key, values in single_lines(theirs).items():
        if not any(v.continued for v in ours[key]):
            assert [v.text for v in ours[key]] == values
    for key, values in theirs.items():
        assert several_lines(ours, *key) == (len(values) > 1 or any("\n" in v for v in values))


@QUICK
@hypothesis.given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    for section, key in ini.read(text):
        assert key == key.strip() and isinstance(section, str)


@pytest.mark.parametrize(
    ("text", "key", "held"),
    [
        ("[s]\nk = v\n", "k", True),
        ("[s]\nk=v", "k", True),
        ("[s]\r\nk = v\r\n", "k", True),
        ("[s]\nk = v # c", "k", False),
        ("[s]\nk = v\n  w", "k", False),
        ("[s]\nk = v\n  # w", "k", False),
        ("[s]\nk = v\n\n# w", "k", True),
        ("[s]\nk = v\n[t]\nk = w", "k", True),
        ("[s]\nk = v\n[s]\nk = v", "k", False),
        ("[s]\nk = V", "k", False),
        ("[s]\n#k = v", "k", False),
        ("[t]\nk = v", "k", False),
        ("k = v\n[s]\n", "k", False),
        ("[s]\nkk = v\n", "k", False),
        ("", "k", False),
    ],
)
def test_holds(text: str, key: str, held: bool) -> None:
    assert ini.holds(ini.read(text), "s", key, "v") is held


def test_holds_nothing() -> None:
    assert ini.holds(ini.read("[s]\nj = v"), "s", "k", None)
    assert not ini.holds(ini.read("[s]\nk ="), "s", "k", None)
    assert ini.holds(ini.read("[s]\nk ="), "s", "k", "")


@pytest.mark.parametrize("text", ["[s]\nk = v\nk = v", "[s]\nk = v\n  w", "[s]\nk = v\n[t]\n[s]\nk = v"])
def test_a_key_of_several_lines_is_not_as_it_should_be(text: str) -> None:
    assert not ini.holds(ini.read(text), "s", "k", "v")


# -- the puppet module's own editor ----------------------------------------------------------------------------------

EDITOR = """
require 'json'
require %s
cases = JSON.parse(STDIN.read.force_encoding('UTF-8'))
answers = cases.map do |text, edits|
  before = PuppetX::OmMessaging::IniText.new(text)
  gets = edits.map { |section, key, _| before.get(section, key)&.force_encoding('UTF-8') }
  edits.each { |section, key, value| value.nil? ? before.remove(section, key) : before.set(section, key, value) }
  [gets, before.to_s.force_encoding('UTF-8')]
end
puts JSON.generate(answers)
"""
KEYS = (
    ("DEFAULT", "transport_url"), ("DEFAULT", "ssl"), ("DEFAULT", "url"), ("oslo_messaging_rabbit", "ssl"),
    ("x", "ssl"), ("oslo_messaging_amqp", "ssl"),
)  # fmt: skip
VALUES = ("rabbit://u:p%40@h:1/?ssl=0", "a = b", "$$x", "x # y", "[z]", "é", "1", "")


class Edited(typing.NamedTuple):
    text: str
    edits: list[tuple[str, str, str | None]]
    gets: list[str | None]
    result: str


def corpus() -> list[tuple[str, list[tuple[str, str, str | None]]]]:
    """Files that oslo.config accepts, each with edits; the same in every run."""
    chance = random.Random(7)
    cases: list[tuple[str, list[tuple[str, str, str | None]]]] = []
    while len(cases) < 400:
        text = "\n".join(chance.choices(LINES, k=chance.randrange(12)))
        if as_oslo(text) is not None:
            values: list[str | None] = [*VALUES, None]
            cases.append((text, [(*key, chance.choice(values)) for key in KEYS]))
    return cases


@pytest.fixture(scope="module")
def edited() -> list[Edited]:
    ruby = shutil.which("ruby")
    if not ruby:
        helpers.skip("ruby is not installed")
    cases = corpus()
    command = [ruby, "-Ku", "-e", EDITOR % json.dumps(str(INI_TEXT))]
    result = subprocess.run(command, input=json.dumps(cases).encode(), capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    answers = json.loads(result.stdout)
    return [Edited(text, edits, *answer) for (text, edits), answer in zip(cases, answers)]


@pytest.mark.subprocess
def test_a_file_is_read_as_the_puppet_module_reads_it(edited: list[Edited]) -> None:
    for case in edited:
        keys = ini.read(case.text)
        for (section, key, _), got in zip(case.edits, case.gets):
            ours = keys.get((section, key), [])
            assert bool(ours) == (got is not None), case
            if got is not None and not several_lines(keys, section, key):
                assert ours[0].text == got, case


@pytest.mark.subprocess
def test_what_the_puppet_module_writes_is_read_by_both(edited: list[Edited]) -> None:
    for case in edited:
        keys, theirs = ini.read(case.result), as_oslo(case.result)
        assert theirs is not None, case
        for section, key, value in case.edits:
            assert ini.holds(keys, section, key, value), case
            assert theirs.get((section, key)) == (None if value is None else [value]), case


def test_the_corpus_is_worth_something() -> None:
    cases = corpus()
    assert sum(bool(ini.read(text)) for text, _ in cases) > 200
    assert any(several_lines(ini.read(text), *key) for text, _ in cases for key in KEYS)
    assert pathlib.Path(INI_TEXT).is_file()
