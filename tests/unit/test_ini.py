"""The agent reads other programs' files exactly like oslo.config and the puppet module."""

from __future__ import annotations

import configparser
import io
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
from om_agent.ini import editor, syntax

from tests.support import helpers

QUICK = hypothesis.settings(max_examples=300, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
INI_TEXT = helpers.ROOT / "puppet/modules/om_messaging/lib/puppet_x/om_messaging/ini_text.rb"

LINES = (
    "[DEFAULT]", "[oslo_messaging_rabbit]", "[ DEFAULT ]", "[a]b]", "[x] ",
    "ssl = true", "ssl=true", "ssl: true", "ssl  =  true  ", "ssl =", "SSL = true",
    "ssl true = yes = no", "url = a:b=c",
    "transport_url = rabbit://u:p%40@[fd00::1]:5672/?ssl=0#x;y", "transport_url : x", "k = \"in quotes", "ssl = a\r",
    "[Oslo_Messaging_RABBIT]", "[default]", "\u00a0ssl = true\u2003", "ssl\u00a0=\u00a0true\u00a0", "[DEFAULT]\u00a0",
    "\u00a0", "k = \"whole\"", "k = 'whole'", "k = '", "\x1cssl = x\x1f", "[x\u3000]\u3000",
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
            if not self.section:
                raise ValueError("Section must be started before assignment")
            found.setdefault((self.section, key), []).append("\n".join(value))

        def new_section(self, section: str) -> None:
            self.section = section if section == "DEFAULT" else section.lower()  # cfg._normalize_group_name

        def comment(self, comment: str) -> None:
            pass

        def parse_exc(self, *args: object) -> Exception:
            return ValueError(*args)

        def error_no_section_name(self, line: str) -> typing.NoReturn:
            raise ValueError(line)

        error_no_section_end_bracket = error_invalid_assignment = error_no_section_name
        error_unexpected_continuation = error_empty_key = error_no_section_name

    try:
        Parser().parse(io.StringIO(text, newline=None).readlines())
    except ValueError:
        return None
    return found


def several_lines(keys: ini.Keys, section: str, key: str) -> bool:
    """Return whether the key stands more than once or over several lines."""
    values = keys.get((section, key), [])
    return len(values) > 1 or any(v.continued for v in values)


def single_lines(found: Found) -> Found:
    return {key: values for key, values in found.items() if not any("\n" in v for v in values)}


PASTE_LINES = (
    "[DEFAULT]", "[filter:ceilometer]", "  [filter:ceilometer]", "[filter: ceilometer]", "[filter:ceilometer ]",
    "[filter:\u00a0ceilometer\u2003]", "[filter :ceilometer]", "[filter\u3000: ceilometer]", "[ ceilometer ]",
    "[a] # comment", "[a]b]", "[]",
    "url = rabbit://u:p%%40@[fd00::1]:5672/?ssl=0#x", "url: x", "\turl = x", "  url = x", "    url=x", "driver : y",
    "  driver = y", "paste.filter_factory = ceilometermiddleware.swift:filter_factory", "  topic=x",
    "        continued", "\tcontinued", "    # url = x", "# url = x", ";driver = y", "", "  ", "set debug = x",
    "novalue", "\u00a0url = x", "url\u00a0=\u00a0x\u00a0", "  \u2003", "= x", "k = \"v\"", "u = a\r", "[b]\r",
)  # fmt: skip


def as_paste(text: str) -> Found | None:
    """What ConfigParser, PasteDeploy's parser, finds; None when it refuses the file."""
    parser = configparser.RawConfigParser(default_section="\0none")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_file(io.StringIO(text, newline=None))
        strict = configparser.RawConfigParser()  # takes a second [DEFAULT], which PasteDeploy does
        strict.optionxform = str  # type: ignore[assignment,method-assign]
        strict.read_file(io.StringIO(text, newline=None))
    except configparser.Error:
        return None
    names = {name: ini.section_name(name, ini.PASTE) for name in parser.sections()}
    if len(set(names.values())) < len(names):  # loadwsgi.find_config_section: ambiguous
        return None
    return {(names[s], key): [value] for s in parser.sections() for key, value in parser.items(s)}


READERS: dict[str, tuple[typing.Callable[[str], Found | None], tuple[str, ...]]] = {
    ini.OSLO: (as_oslo, LINES),
    ini.PASTE: (as_paste, PASTE_LINES),
}
TEXTS = st.sampled_from(tuple(READERS)).flatmap(
    lambda style: st.tuples(st.just(style), st.lists(st.sampled_from(READERS[style][1]), max_size=12).map("\n".join))
)


@QUICK
@hypothesis.given(TEXTS)
def test_a_file_is_read_as_its_reader_reads_it(given: tuple[str, str]) -> None:
    style, text = given
    theirs = READERS[style][0](text)
    twice = style == ini.PASTE and text.count("[DEFAULT]") > 1  # the parser of the comparison takes it once
    hypothesis.assume(not twice)
    assert (theirs is None) == (ini.fault(text, style) is not None)
    hypothesis.assume(theirs is not None)
    assert theirs is not None
    ours = ini.read(text, style)
    assert set(ours) == set(theirs)
    for key, values in single_lines(theirs).items():
        if not any(v.continued for v in ours[key]):
            assert [v.text for v in ours[key]] == values


EDITS = {
    ini.OSLO: [("DEFAULT", "url"), ("oslo_messaging_rabbit", "ssl"), ("oslo_messaging_amqp", "ssl"), ("x", "k")],
    ini.PASTE: [("filter:ceilometer", "url"), ("filter:ceilometer", "driver")],
}


@QUICK
@hypothesis.given(TEXTS, st.lists(st.sampled_from(["rabbit://u:p@h/?a=b", "x # y", "[z]", "1", None]), min_size=4))
def test_after_an_edit_the_reader_finds_ours_and_everything_else_unchanged(
    given: tuple[str, str], values: list[str | None]
) -> None:
    style, text = given
    theirs = READERS[style][0]
    before = theirs(text)
    hypothesis.assume(before is not None and ini.fault(text, style) is None)
    assert before is not None
    if style == ini.PASTE:  # the agent edits no file without the section
        hypothesis.assume("filter:ceilometer" in {line.name for line in syntax.lines(text, style)})
    wanted = [(*key, value) for key, value in zip(EDITS[style], values)]
    result = ini.edit(text, wanted, style)
    after = theirs(result)
    assert after is not None, result
    ours = {key[:2]: key[2] for key in wanted}
    assert {k: v for k, v in after.items() if k not in ours} == {k: v for k, v in before.items() if k not in ours}
    for key, value in ours.items():
        assert after.get(key) == (None if value is None else [value])
    assert ini.misread(text, result, wanted, style) is None
    assert ini.edit(result, wanted, style) == result


KEYS = (
    ("DEFAULT", "transport_url"), ("DEFAULT", "ssl"), ("DEFAULT", "url"), ("oslo_messaging_rabbit", "ssl"),
    ("x", "ssl"), ("oslo_messaging_amqp", "ssl"),
)  # fmt: skip
FREE = tuple(line for line in LINES if not {key for _, key in KEYS} & {line.partition(c)[0].strip() for c in "=:"})


@QUICK
@hypothesis.given(st.lists(st.sampled_from([*FREE, "[x]", "[oslo_messaging_amqp]"]), max_size=12).map("\n".join))
def test_keys_that_come_and_go_leave_the_file_as_it_was(text: str) -> None:
    hypothesis.assume(ini.fault(text) is None)
    keys = [*KEYS, ("oslo_messaging_notifications", "driver")]
    assert not {key for _, key in ini.read(text)} & {key for _, key in keys}
    added = {section for section, _ in keys} - ini.section_names(text)
    filled = ini.edit(text, [(*key, "v") for key in keys], removable=added)
    assert ini.edit(filled, [(*key, None) for key in keys], removable=added) == text


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
        ("[S]\nk = v\n", "k", True),
        ("[s]\nk = 'v'\n", "k", True),
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
answers = cases.map do |text, edits, style, removable|
  before = PuppetX::OmMessaging::IniText.new(text, style)
  gets = edits.map { |section, key, _| before.get(section, key)&.force_encoding('UTF-8') }
  edits.each do |section, key, value|
    value.nil? ? before.remove(section, key, removable.include?(section)) : before.set(section, key, value)
  end
  [gets, before.to_s.force_encoding('UTF-8')]
end
puts JSON.generate(answers)
"""
VALUES = ("rabbit://u:p%40@h:1/?ssl=0", "a = b", "$$x", "x # y", "[z]", "é", "1", "")


class Edited(typing.NamedTuple):
    text: str
    edits: list[tuple[str, str, str | None]]
    style: str
    removable: list[str]
    gets: list[str | None]
    result: str


Case = tuple[str, list[tuple[str, str, typing.Optional[str]]], str, list[str]]


def corpus() -> list[Case]:
    """Files that their readers accept, each with edits; the same in every run."""
    chance = random.Random(7)
    # Nothing is left of this one before something is added to it.
    gone: list[tuple[str, str, str | None]] = [("s", "ssl", None), ("t", "k", "v")]
    cases: list[Case] = [("[s]\nssl = true", gone, ini.OSLO, ["s"])]
    for style, keys in ((ini.OSLO, KEYS), (ini.PASTE, (("filter:ceilometer", "url"), ("filter:ceilometer", "driver")))):
        reader, rows = READERS[style]
        wanted = 400
        while wanted:
            text = "\n".join(chance.choices(rows, k=chance.randrange(12)))
            edited = style == ini.OSLO or "filter:ceilometer" in {line.name for line in syntax.lines(text, style)}
            if edited and reader(text) is not None and ini.fault(text, style) is None:
                values: list[str | None] = [*VALUES, None]
                edits = [(*key, chance.choice(values)) for key in keys]
                edits += [(*key, None) for key in keys if chance.random() < 0.3]
                removable = [section for section, _ in keys if style == ini.OSLO and chance.random() < 0.5]
                cases.append((text, edits, style, removable))
                wanted -= 1
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
    return [Edited(*case, *answer) for case, answer in zip(cases, answers)]


@pytest.mark.subprocess
def test_a_file_is_read_as_the_puppet_module_reads_it(edited: list[Edited]) -> None:
    for case in edited:
        keys = ini.read(case.text, case.style)
        for (section, key, _), got in zip(case.edits, case.gets):
            name = ini.section_name(section, case.style)
            ours = keys.get((name, key), [])
            assert bool(ours) == (got is not None), case
            if got is not None and not several_lines(keys, name, key):
                assert ours[0].text == got, case


@pytest.mark.subprocess
def test_the_puppet_module_edits_as_the_agent_foretells(edited: list[Edited]) -> None:
    for case in edited:
        assert ini.edit(case.text, case.edits, case.style, case.removable) == case.result, case


@pytest.mark.subprocess
def test_what_the_puppet_module_writes_is_read_by_both(edited: list[Edited]) -> None:
    for case in edited:
        keys, theirs = ini.read(case.result, case.style), READERS[case.style][0](case.result)
        assert theirs is not None, case
        for (section, key), value in {edit[:2]: edit[2] for edit in case.edits}.items():
            assert ini.holds(keys, section, key, value, case.style), case
            name = ini.section_name(section, case.style)
            assert theirs.get((name, key)) == (None if value is None else [value]), case


def test_the_corpus_is_worth_something() -> None:
    cases = corpus()
    assert sum(bool(ini.read(text, style)) for text, _, style, _ in cases) > 400
    assert any(several_lines(ini.read(text), *key) for text, _, style, _ in cases if style == ini.OSLO for key in KEYS)
    kept = [ini.edit(*case) != ini.edit(*case[:3], [section for section, _ in KEYS]) for case in cases]
    assert sum(kept) > 20  # where it matters whose section it is
    assert pathlib.Path(INI_TEXT).is_file()


@QUICK
@hypothesis.given(
    rows=st.lists(st.sampled_from(LINES), max_size=12),
    edits=st.lists(
        st.tuples(
            st.sampled_from(("DEFAULT", "oslo_messaging_rabbit", "new", "x")),
            st.sampled_from(("ssl", "url", "k", "transport_url")),
            st.sampled_from((*VALUES, None)),
        ),
        max_size=8,
    ),
    odd=st.sampled_from(("", "\ufeff", "\udcff")),
)
def test_an_edit_knows_all_lines_after_each_change(
    rows: list[str], edits: list[tuple[str, str, str | None]], odd: str
) -> None:
    """It looks at those alone that changed: what it knows is what a look at the whole text shows."""
    edited = editor.Editor("\n".join((f"{odd}{rows[0]}", *rows[1:]) if rows else ()), ini.OSLO, ["new", "x"])
    for section, key, value in edits:
        if value is None:
            edited.remove(section, key)
        else:
            edited.set(section, key, value)
        assert tuple(edited.lines) == syntax.lines("\n".join(edited.rows))
        assert edited.heads == [i for i, line in enumerate(edited.lines) if line.kind == syntax.HEADER]


def test_a_large_file_is_looked_at_a_few_times_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent parses a large file a few times, not once for each key."""
    looked = 0
    row = syntax._oslo_line

    def count(*given: typing.Any) -> syntax.Line:
        nonlocal looked
        looked += 1
        return row(*given)

    monkeypatch.setattr(syntax, "_oslo_line", count)
    text = "[DEFAULT]\n" + "".join(f"key{i} = value\n" for i in range(20_000)) + "[s]\nold = 1\n"
    wanted = [("DEFAULT", f"new{i}", "1") for i in range(40)] + [("s", "old", None), ("t", "k", "v")]
    assert ini.fault(text) is None
    edited = ini.edit(text, wanted)
    assert ini.misread(text, edited, wanted, ini.OSLO) is None
    assert looked < 3 * 20_000
