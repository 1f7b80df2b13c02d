"""Transport URLs: what puppet-openstacklib writes, and what oslo.messaging, oslo.config and PasteDeploy read back."""

from __future__ import annotations

import configparser
import json
import pathlib
import shutil
import subprocess
import tempfile
import typing

import hypothesis
import pytest
from hypothesis import strategies as st
from om_agent import model
from om_agent.plan import transport_url

from tests.support import helpers

QUICK = hypothesis.settings(max_examples=100, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))

NASTY = "@:/?#%$\"'{}\\ "
PASSWORDS = [
    "secret", NASTY, *NASTY, "a\nb", "\n", "\t", "a,b", "%41", "%{literal('%')}", "${x}", "$$", "~-._", "+", "&=;!*()",
    "pässwörd", "密码", "\U0001f511", "\x7f", "e\u0301",
]  # fmt: skip


def backend(password: str = "secret", **changes: typing.Any) -> model.Backend:
    values: dict[str, typing.Any] = {
        "half": "rpc",
        "scheme": model.Scheme.RABBIT,
        "port": 5672,
        "username": "user",
        "password": model.Secret(password),
        "virtual_host": "",
        "tls": False,
        "hosts": ("10.0.0.1",),
        "nodes": (),
        **changes,
    }
    return model.Backend(**values)


# Where os_transport_url can say it at all: it encodes neither the virtual host nor the query.
CASES: dict[str, model.Backend] = {
    **{f"password {p!a}": backend(p) for p in PASSWORDS},
    **{f"user {p!a}": backend(username=p) for p in (NASTY, "pässwörd", "a b", "rpc@overcloud")},
    "no password": backend(""),
    "TLS": backend(tls=True),
    "AMQP": backend(scheme=model.Scheme.AMQP, port=31459),
    "AMQP with TLS": backend(scheme=model.Scheme.AMQP, port=31459, tls=True),
    "name": backend(hosts=("ctl-0.internalapi.example.com",)),
    "IPv6": backend(hosts=("fd00:fd00:fd00:2000::10",)),
    "IPv6, loopback": backend(hosts=("::1",)),
    "IPv6, mapped": backend(hosts=("::ffff:10.0.0.1",)),
    "IPv6, in full and capitals": backend(hosts=("FD00:0000:0000:0000:0000:0000:0000:0001",)),
    "three hosts": backend(hosts=("10.0.0.1", "10.0.0.2", "10.0.0.3")),
    "three hosts, nasty": backend(NASTY, hosts=("ctl-1", "ctl-10", "ctl-11"), username=NASTY),
    "three hosts, mixed": backend(hosts=("ctl-0", "10.0.0.2", "fd00::3"), tls=True),
    "three hosts, no password": backend("", hosts=("a", "b", "c")),
    "a router of ours": backend(scheme=model.Scheme.AMQP, nodes=("ctl-0",)),
    "a router of ours, nasty": backend(scheme=model.Scheme.AMQP, nodes=("ctl-0",), username="a%/ b"),
    "a broker of ours": backend(nodes=("ctl-0",)),
    "virtual host": backend(virtual_host="openstack"),
    "virtual host, unreserved": backend(virtual_host="a-b_c.d~e"),
    "another port": backend(port=1),
}

# Puppet's two ways to make a function, and no more of puppet than these functions use.
RUBY = """
require 'json'
FUNCTIONS = {}
SCOPE = Object.new
module Puppet
  class ParseError < StandardError; end
  def self.debug(*); end
  module Functions
    def self.create_function(name, &body)
      made = Class.new(&body)
      made.define_method(:call_function) do |other, *args|
        found = FUNCTIONS[other.to_s]
        found ? found.send(other, *args) : SCOPE.send("function_#{other}", args)
      end
      FUNCTIONS[name.to_s] = made.new
    end
  end
  module Parser
    module Functions
      def self.newfunction(name, *, **, &body)
        SCOPE.define_singleton_method("function_#{name}", &body)
      end
      def self.function(name) = "function_#{name}"
    end
  end
end
ARGV.each { |path| load path }
cases = JSON.parse(STDIN.read.force_encoding('UTF-8'))
puts JSON.generate(cases.map { |c| FUNCTIONS['os_transport_url'].os_transport_url(c) })
"""
# Debian 13's os_transport_url calls the two of stdlib.
FILES = [
    *(helpers.PUPPET_MODULES / f"stdlib/lib/puppet/parser/functions/{name}.rb" for name in ("str2bool", "bool2num")),
    *(
        helpers.PUPPET_MODULES / f"openstacklib/lib/puppet/functions/{name}.rb"
        for name in ("normalize_ip_for_uri", "os_transport_url")
    ),
]


# Routers of ours know users with a realm, and puppet-tripleo is told the whole name (heat/).
NAMES = {(scheme, external): "{}" for scheme in model.Scheme for external in (True, False)}
NAMES[model.Scheme.AMQP, False] = "{}@overcloud"


def parameters(b: model.Backend) -> dict[str, object]:
    """What puppet-tripleo gives the function."""
    return {
        "transport": b.scheme.value,
        "hosts": list(b.hosts),
        "port": b.port,
        "username": NAMES[b.scheme, b.external].format(b.username),
        "password": b.password.reveal(),
        "virtual_host": b.virtual_host,
        "ssl": "1" if b.tls else "0",
    }


@pytest.fixture(scope="module")
def puppet_urls() -> dict[str, str]:
    """The URL of every case from one run of the real function."""
    ruby = shutil.which("ruby")
    if not ruby:
        helpers.skip("ruby is not installed")
    if not all(path.is_file() for path in FILES):
        helpers.skip(f"the puppet modules openstacklib and stdlib are not in {helpers.PUPPET_MODULES}")
    given = json.dumps([parameters(b) for b in CASES.values()]).encode()
    command = [ruby, "-Ku", "-e", RUBY, *map(str, FILES)]
    result = subprocess.run(command, input=given, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    return dict(zip(CASES, json.loads(result.stdout)))


@pytest.mark.subprocess
@pytest.mark.parametrize("case", CASES)
def test_byte_for_byte_as_puppet_openstacklib(case: str, puppet_urls: dict[str, str]) -> None:
    assert transport_url.url_of(CASES[case]).reveal() == puppet_urls[case]


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize(
    ("b", "query", "url"),
    [
        (backend(), {}, "rabbit://user:secret@10.0.0.1:5672/?ssl=0"),
        (backend(virtual_host="/"), {}, "rabbit://user:secret@10.0.0.1:5672/%2F?ssl=0"),
        (backend(virtual_host="a?b#c"), {}, "rabbit://user:secret@10.0.0.1:5672/a%3Fb%23c?ssl=0"),
        (backend(tls=True), {"k": "a&b=c"}, "rabbit://user:secret@10.0.0.1:5672/?k=a%26b%3Dc&ssl=1"),
        (backend(), {"ssl": "1", "k": "/x y"}, "rabbit://user:secret@10.0.0.1:5672/?k=%2Fx%20y&ssl=0"),
    ],
)
def test_where_the_other_one_is_wrong(b: model.Backend, query: dict[str, str], url: str) -> None:
    assert transport_url.url_of(b, query).reveal() == url


def test_no_hosts_no_url() -> None:
    with pytest.raises(ValueError, match="host"):
        transport_url.url_of(backend(hosts=()))


def test_a_url_is_a_secret() -> None:
    assert "secret" not in repr(transport_url.url_of(backend()))


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=20)
NAMES_AND_IPV4 = st.one_of(st.sampled_from(["ctl-0", "ctl-1.example.com"]), st.ip_addresses(v=4).map(str))
# Python's urlparse, since CVE-2024-11168 was mended, refuses a netloc that mixes IPv6 with others; so does the model.
HOSTS = st.one_of(
    st.lists(NAMES_AND_IPV4, min_size=1, max_size=4, unique=True),
    st.lists(st.ip_addresses(v=6).map(str), min_size=1, max_size=4, unique=True),
)
BACKENDS = st.builds(
    backend,
    TEXT,
    username=TEXT,
    hosts=HOSTS.map(tuple),
    port=st.integers(1, 65535),
    virtual_host=st.one_of(st.just(""), TEXT),
    tls=st.booleans(),
    scheme=st.sampled_from(model.Scheme),
    nodes=st.sampled_from([(), ("ctl-0",)]),
)
QUERIES = st.dictionaries(TEXT, TEXT, max_size=3)


@QUICK
@hypothesis.given(BACKENDS, QUERIES)
def test_oslo_messaging_reads_the_same(b: model.Backend, query: dict[str, str]) -> None:
    messaging = pytest.importorskip("oslo_messaging")
    config = pytest.importorskip("oslo_config.cfg")
    parsed = messaging.TransportURL.parse(config.ConfigOpts(), transport_url.url_of(b, query).reveal())
    assert parsed.transport == b.scheme.value
    assert (parsed.virtual_host or "") == b.virtual_host
    name = NAMES[b.scheme, b.external].format(b.username)
    wanted = [(h, b.port, name, b.password.reveal()) for h in b.hosts]
    assert [(h.hostname, h.port, h.username, h.password) for h in parsed.hosts] == wanted
    assert parsed.query == {**query, "ssl": "1" if b.tls else "0"}


@QUICK
@hypothesis.given(BACKENDS, QUERIES)
def test_a_url_is_plain_ascii_without_anything_a_file_or_hiera_would_take_for_itself(
    b: model.Backend, query: dict[str, str]
) -> None:
    url = transport_url.url_of(b, query).reveal()
    assert url.isascii() and url.isprintable()
    assert not set(url) & set(" \"'\\${}#;|<>")


@QUICK
@hypothesis.given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1, max_size=30))
def test_oslo_config_reads_back_what_is_escaped_for_it(value: str) -> None:
    """Any value of one line that is not in quotes, dollars and all."""
    config = pytest.importorskip("oslo_config.cfg")
    hypothesis.assume(not (value[0] == value[-1] and value[0] in "\"'"))
    hypothesis.assume(
        "\\$" not in value
    )  # cannot be said in oslo.config (cfg.py _substitute), nor in any of our values
    assert read_oslo(config, transport_url.escape_oslo(value)) == value


def read_oslo(config: typing.Any, written: str) -> str:
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "nova.conf"
        path.write_text(f"[DEFAULT]\ntransport_url = {written}\n")
        conf = config.ConfigOpts()
        conf.register_opt(config.StrOpt("transport_url"))
        conf(args=[], default_config_files=[str(path)], default_config_dirs=[])
        return str(conf.transport_url)


@QUICK
@hypothesis.given(BACKENDS)
def test_oslo_config_reads_back_the_url(b: model.Backend) -> None:
    config = pytest.importorskip("oslo_config.cfg")
    url = transport_url.url_of(b).reveal()
    assert read_oslo(config, transport_url.escape_oslo(url)) == url


PASTE = """\
[app:main]
paste.app_factory = tests.support.helpers:none

[filter:ceilometer]
paste.filter_factory = ceilometermiddleware.swift:filter_factory
url = {url}
"""


def read_paste(written: str) -> str:
    loadwsgi = pytest.importorskip("paste.deploy.loadwsgi")
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "proxy-server.conf"
        path.write_text(PASTE.format(url=written))
        loader = loadwsgi.ConfigLoader(str(path))
        return str(loader.parser.get("filter:ceilometer", "url"))


@QUICK
@hypothesis.given(BACKENDS, QUERIES)
def test_paste_deploy_reads_back_the_url(b: model.Backend, query: dict[str, str]) -> None:
    url = transport_url.url_of(b, query).reveal()
    assert read_paste(transport_url.escape_paste(url)) == url


def test_paste_would_refuse_what_is_not_escaped() -> None:
    url = transport_url.url_of(backend("a@b")).reveal()
    with pytest.raises((configparser.InterpolationError, ValueError)):
        read_paste(url)
