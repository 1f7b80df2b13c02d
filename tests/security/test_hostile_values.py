"""Whatever the model accepts comes back exactly from the program that reads the file, and adds nothing to it.

Values are made of what some format takes for itself. Each batch is read by the real readers at once, since to start one
takes longer than to read: oslo.config and oslo.messaging behind the puppet module's own editor, PasteDeploy, RabbitMQ's
cuttlefish and Erlang's own parser, a shell, Cyrus SASL.
"""

from __future__ import annotations

import base64
import collections
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import typing

import hypothesis
import pytest
from hypothesis import strategies as st
from om_agent import errors, ini, model, parse, plan, render
from om_agent.apply import sasl_database
from om_agent.plan import broker, driver_options, policy, router

from tests.support import helpers

BATCH = 25
FEW = hypothesis.settings(
    max_examples=4, deadline=None, database=None, phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)  # fmt: skip

# Ends of lines of every kind, quotes, what starts a comment, a section, a variable or an interpolation; characters that
# turn text round, that take no room, that are no text; and words that formats know.
CHARACTERS = "\n\r\0\t\v\f\x1b\x7f\x85\u2028\u2029\u202e\u2066\u200b\u200d\ufeff\xa0\u0301" + (
    "'\"`$%#;[]=\\{}()<>&|*?!,:@/ ~^+-_.aZ0é密\U0001f511"
)
WORDS = [
    "$(id)", "${x}", "$x", "%(here)s", "%{::x}", "%{literal('%')}", "%%", "$$", "\\n", "\\x41", "%0a", "%2F", "#{1+1}",
    "<%= 1 %>", "[DEFAULT]", "\n[DEFAULT]\nk = v", "transport_url", "=", " = ", "; k = v", "}]}", '"},', "-e", "--",
    "../..", "/", "@overcloud", "@@", "true", "0", "null", "guest", "*", "/*", "#", "\r\n", "rabbit://", "",
]  # fmt: skip
HOSTILE = st.lists(st.one_of(st.sampled_from(CHARACTERS), st.sampled_from(WORDS)), min_size=1, max_size=12).map("".join)
LONG = st.builds(lambda s, n: (s * n)[:2000], HOSTILE, st.sampled_from([1, 1, 1, 1, 40, 200]))
# What is accepted often enough: without what every check refuses.
MILD = LONG.map(lambda s: "".join(c for c in s if c.isprintable()))
TEXT = st.one_of(LONG, MILD, MILD)
NAME = st.one_of(TEXT, st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True))
_PLAIN = st.text("/!%&()*+,-.:;<=>?@[]^_{|}~aZ0", max_size=30)
PATH = st.one_of(TEXT, TEXT.map("/".__add__), _PLAIN.map("/".__add__))


def around(block: str) -> st.SearchStrategy[str]:
    """A PEM block among other text."""
    return st.one_of(TEXT, st.builds(lambda a, b: f"{a}\n{block}{b}", TEXT, TEXT))


FIELDS: dict[str, st.SearchStrategy[str]] = {
    "rpc.username": TEXT,
    "rpc.password": TEXT,
    "rpc.virtual_host": TEXT,
    "rpc.also_accept.0.username": TEXT,
    "rpc.also_accept.0.password": TEXT,
    "rpc.sasl_mechanism": st.one_of(TEXT, st.sampled_from([m.value for m in model.Mechanism])),
    "rpc.client_certificate_file": PATH,
    "rpc.client_key_file": PATH,
    "notify.username": TEXT,
    "notify.password": TEXT,
    "notify.virtual_host": TEXT,
    "notify.also_accept.0.username": TEXT,
    "notify.also_accept.0.password": TEXT,
    "notify.client_certificate_file": PATH,
    "router.mesh_password": TEXT,
    "router.admin_password": TEXT,
    "broker.erlang_cookie": st.one_of(TEXT, st.text("aZ0_+/=-", min_size=8, max_size=255)),
    "tls.ca_file": PATH,
    "tls.certificate_file": PATH,
    "tls.key_file": PATH,
    "tls.ca": around(helpers.CERTIFICATE),
    "tls.certificate": around(helpers.CERTIFICATE),
    "tls.key": around(helpers.KEY),
    "nodes.0.name": NAME,
    "nodes.0.host": NAME,
    "nodes.0.site": NAME,
    "nodes.0.role": NAME,
    "nodes.1.address": NAME,
    "sites.links.0.between.0": NAME,
    "services": NAME,
    "node": NAME,
}
TLS = {"ca_file": "/etc/ca.pem", "certificate_file": "/etc/node.pem", "key_file": "/etc/node.key"}
PEM = {"ca": helpers.CERTIFICATE, "certificate": helpers.CERTIFICATE, "key": helpers.KEY}
BASES: dict[str, helpers.Raw] = {
    "dual": {**helpers.dual(2), "tls": TLS},
    "rabbit": {**helpers.default(2), "tls": TLS, "notify": {"username": "notify", "password": "notify-secret"}},
    "pem": {**helpers.dual(2), "tls": PEM},
    "former users": helpers.put(
        helpers.put({**helpers.dual(2), "tls": TLS}, "rpc.also_accept", [{"username": "rpc-1", "password": "former"}]),
        "notify.also_accept", [{"username": "notify-1", "password": "former"}],
    ),
    "certificates": {**helpers.dual(2), "tls": TLS},
    "sites": {**helpers.dual(2), "tls": TLS, "sites": {"links": [{"between": ["a", "b"]}]}},
}  # fmt: skip
for _half in ("rpc", "notify"):
    BASES["certificates"][_half] = {
        **{k: v for k, v in BASES["certificates"][_half].items() if k != "password"},
        "sasl_mechanism": "EXTERNAL",
        "client_certificate_file": "/etc/c.pem",
        "client_key_file": "/etc/c.key",
        "tls": True,
    }
for _i, _site in enumerate("aab"):
    BASES["sites"] = helpers.put(BASES["sites"], f"nodes.{_i}.site", _site)


class Example(typing.NamedTuple):
    """Metadata that the model accepted, and what is made of it for the first node."""

    deployment: model.Deployment
    plan: plan.Plan
    rendered: render.Rendered

    def __repr__(self) -> str:
        d = self.deployment  # the whole of it is megabytes, which hypothesis would write out
        texts = [(b.username, b.password.reveal(), b.virtual_host) for b in d.halves]
        return repr((texts, d.router.mesh_password.reveal(), d.router.admin_password.reveal(), d.tls, d.nodes[0]))[:400]

    def text(self, name: str) -> str:
        """The content of the file that ends so."""
        (content,) = [f.content for f in self.rendered.files if f.path.endswith(name)]
        assert content is not None
        return content.decode()


SEEN: collections.Counter[str] = collections.Counter()


def accept(base: str, tls: bool, fields: typing.Mapping[str, str]) -> Example | None:
    """What is made of the values that the model accepts, each taken by itself; None when there are none."""
    raw: helpers.Raw = BASES[base]
    if tls:
        raw = helpers.put(helpers.put(raw, "rpc.tls", True), "notify.tls", True)
        names = {"nodes.0.host": "ctl-0.example.com", "nodes.1.host": "ctl-1.example.com"}
        names.update({"nodes.2.host": "cmp-0.example.com"})
        for path, name in names.items():
            raw = helpers.put(raw, path, name)
    taken = 0
    for path, value in fields.items():
        with_it = helpers.put(raw, path, [value] if path == "services" else value)
        try:
            parse.deployment(with_it, helpers.catalogue())
        except errors.InvalidInput as e:
            assert all(str(p).isprintable() for p in e.problems), "no sentence draws upon the terminal"
            SEEN["refused"] += 1
        else:
            raw, taken = with_it, taken + 1
            SEEN["accepted"] += 1
    if not taken:
        return None
    d = parse.deployment(raw, helpers.catalogue())
    made = plan.build(d, d.nodes[0], helpers.catalogue(), helpers.host())
    return Example(d, made, render.render(made, helpers.host()))


EXAMPLES = st.builds(
    accept,
    st.sampled_from(sorted(BASES)),
    st.booleans(),
    st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=6, unique=True).flatmap(
        lambda paths: st.fixed_dictionaries({p: FIELDS[p] for p in paths})
    ),
).filter(lambda e: e is not None)
BATCHES = st.lists(typing.cast("st.SearchStrategy[Example]", EXAMPLES), min_size=BATCH, max_size=BATCH)


def test_enough_is_accepted_and_enough_refused() -> None:
    """Else the tests below would look at nothing; counted here by examples of its own."""

    @hypothesis.settings(FEW, max_examples=1)
    @hypothesis.given(BATCHES)
    def count(batch: list[Example]) -> None:
        SEEN["examples"] += len(batch)

    before = SEEN.copy()
    count()
    new = SEEN - before
    assert new["examples"] >= BATCH and new["accepted"] > 20 and new["refused"] > 5, new


# -- services' files -------------------------------------------------------------------------------------------------

# What the puppet module does with a value: the type that it must be of, and the editor that writes it.
EDITOR = helpers.ROOT / "puppet/modules/om_messaging/lib/puppet_x/om_messaging/ini_text.rb"
RUBY = r"""
require 'json'
load ARGV[0]
type = Regexp.new(File.read(ARGV[1])[/Pattern\[\/(.*)\/\]/, 1])
answers = JSON.parse(STDIN.read.force_encoding('UTF-8')).map do |text, settings|
  edited = PuppetX::OmMessaging::IniText.new(text)
  settings.each do |section, key, value|
    raise 'puppet would refuse this value' unless value.nil? || type.match?(value)
    value.nil? ? edited.remove(section, key) : edited.set(section, key, value)
  end
  edited.to_s.force_encoding('UTF-8')
end
puts JSON.generate(answers)
"""
CONF = "[DEFAULT]\ndebug = true\n\n[database]\nconnection = x\n"
PASTE = "[pipeline:main]\npipeline = ceilometer\n\n[filter:ceilometer]\npaste.filter_factory = builtins:dict\n"


def edited(batch: list[Example], service: str, text: str) -> list[str]:
    """The service's file of each example, as the puppet module's editor leaves it; the hieradata is read as
    JSON, and what hiera would put in its place is undone."""
    ruby = shutil.which("ruby")
    if not ruby:
        helpers.skip("ruby is not installed")
    asked = []
    for example in batch:
        content = render.hieradata(example.rendered, helpers.host(), digests(example), ())
        # As hiera gives it: it writes the two characters where it finds them spelt out.
        plain = content.decode().replace("%{literal('%')}{", "%{")
        data = json.loads(plain, object_pairs_hook=unique)
        assert set(data) == {f"om_messaging::{k}" for k in ("config_files", "units", "manage_service", "state_dir")}
        assert "%{" not in content.decode().replace("%{literal('%')}{", "")
        files = {p: f for p, f in data["om_messaging::config_files"].items() if f"/{service}/" in p}
        (wanted,) = files.values()
        asked.append([text, [[s, k, v] for s, keys in wanted["settings"].items() for k, v in keys.items()]])
    command = [ruby, "-Ku", "-e", RUBY, str(EDITOR), str(EDITOR.parents[3] / "types/value.pp")]
    done = subprocess.run(command, input=json.dumps(asked).encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return [str(text) for text in json.loads(done.stdout)]


def digests(example: Example) -> dict[str, str]:
    return {f.path: "0" * 64 for f in example.rendered.files}


def unique(pairs: list[tuple[str, typing.Any]]) -> dict[str, typing.Any]:
    """For a JSON reader: no key twice, which readers understand differently."""
    assert len({k for k, _ in pairs}) == len(pairs), pairs
    return dict(pairs)


def services_of(batch: list[Example], name: str) -> list[Example]:
    return [e for e in batch if any(c.service == name for c in e.rendered.config_files)]


def assert_url(parsed: typing.Any, backend: model.Backend, hosts: typing.Sequence[str]) -> None:
    assert parsed.transport == backend.scheme.value
    assert (parsed.virtual_host or "") == backend.virtual_host
    password = backend.password.reveal()
    wanted = [(h, backend.port, policy.login(backend), password) for h in hosts]
    assert [(h.hostname, h.port, h.username, h.password or "") for h in parsed.hosts] == wanted


def hosts_of(example: Example, backend: model.Backend) -> tuple[str, ...]:
    """Those that the node's services connect to."""
    own = backend.scheme is model.Scheme.AMQP and not backend.external
    return (example.plan.node.host,) if own else backend.hosts


@FEW
@hypothesis.given(BATCHES)
def test_oslo_reads_the_very_values_and_no_other_keys(
    tmp_path_factory: pytest.TempPathFactory, batch: list[Example]
) -> None:
    cfg = pytest.importorskip("oslo_config.cfg")
    messaging = pytest.importorskip("oslo_messaging")
    batch = services_of(batch, "nova")
    path = tmp_path_factory.getbasetemp() / "nova.conf"
    for example, text in zip(batch, edited(batch, "nova", CONF)):
        path.write_text(text)
        d = example.deployment
        conf = cfg.ConfigOpts()
        conf.register_opts([cfg.StrOpt("transport_url"), cfg.BoolOpt("debug")])
        conf.register_opt(cfg.StrOpt("transport_url"), group="oslo_messaging_notifications")
        for group in ("oslo_messaging_amqp", "oslo_messaging_rabbit"):
            texts = ("ssl_ca_file", "ssl_cert_file", "ssl_key_file")
            conf.register_opts([*map(cfg.StrOpt, texts), cfg.BoolOpt("ssl")], group=group)
        conf(args=[], default_config_files=[str(path)], default_config_dirs=[])
        assert conf.debug is True
        for b, url in ((d.rpc, conf.transport_url), (d.notify, conf.oslo_messaging_notifications.transport_url)):
            assert_url(messaging.TransportURL.parse(cfg.ConfigOpts(), url), b, hosts_of(example, b))
        for b in d.halves:
            group = conf["oslo_messaging_amqp" if b.scheme is model.Scheme.AMQP else "oslo_messaging_rabbit"]
            assert group.ssl_ca_file == (driver_options.ca_path(d.tls, helpers.host()) or None if b.tls else None)
            assert (group.ssl_cert_file, group.ssl_key_file) == (b.client_files or (None, None))
        (file,) = [c for c in example.rendered.config_files if c.service == "nova"]
        ours = {(s.section, s.key): s.value.reveal() for s in file.settings if s.value}
        found = ini.read(text)
        assert set(found) == {("DEFAULT", "debug"), ("database", "connection"), *ours}
        assert {k: [v.text for v in found[k]] for k in ours} == {k: [v] for k, v in ours.items()}
        parser = cfg.ConfigParser(str(path), {})
        parser.parse()
        assert {(s, k) for s, keys in parser.sections.items() for k in keys} == set(found)
        SEEN["oslo"] += 1


@FEW
@hypothesis.given(BATCHES)
def test_paste_reads_the_very_values_and_no_other_keys(
    tmp_path_factory: pytest.TempPathFactory, batch: list[Example]
) -> None:
    loadwsgi = pytest.importorskip("paste.deploy.loadwsgi")
    cfg, messaging = pytest.importorskip("oslo_config.cfg"), pytest.importorskip("oslo_messaging")
    batch = services_of(batch, "swift")
    path = tmp_path_factory.getbasetemp() / "proxy-server.conf"
    for example, text in zip(batch, edited(batch, "swift", PASTE)):
        path.write_text(text)
        context = loadwsgi.loadcontext(loadwsgi.FILTER, f"config:{path}", name="ceilometer")
        assert set(context.local_conf) == {"url", "driver"}
        d = example.deployment
        url = messaging.TransportURL.parse(cfg.ConfigOpts(), context.local_conf["url"])
        assert_url(url, d.notify, d.notify.hosts)
        query = {"ssl": "1" if d.notify.tls else "0"}
        ca = driver_options.ca_path(d.tls, helpers.host())
        query.update({"ssl_ca_file": ca} if d.notify.tls and ca else {})
        query.update(dict(zip(("ssl_cert_file", "ssl_key_file"), d.notify.client_files)))
        query.update({"rabbit_login_method": "EXTERNAL"} if d.notify.client_files else {})
        assert url.query == query
        assert loadwsgi.ConfigLoader(str(path)).parser.sections() == ["pipeline:main", "filter:ceilometer"]


# -- the broker ------------------------------------------------------------------------------------------------------

ERLANG = """
{ok, _} = application:ensure_all_started(cuttlefish),
[A, B | Files] = init:get_plain_arguments(),
Schema = cuttlefish_schema:files([A, B]),
Text = fun(V) -> base64:encode(unicode:characters_to_binary(V)) end,
[begin
   Conf = cuttlefish_conf:file(F ++ "/rabbitmq.conf"),
   [io:format("key ~s ~s~n", [Text(lists:join(".", K)), Text(V)]) || {K, V} <- Conf],
   io:format("stage ~s~n", [case catch cuttlefish_generator:map(Schema, Conf) of
     {error, Stage, _} -> atom_to_list(Stage); L when is_list(L) -> "well"; _ -> "crash" end]),
   {ok, Terms} = file:consult(F ++ "/erl_inetrc"),
   [io:format("term ~s~n", [Text(io_lib:format("~w", [T]))]) || T <- Terms],
   {ok, [Plugins]} = file:consult(F ++ "/enabled_plugins"),
   io:format("plugins ~w~nend~n", [Plugins])
 end || F <- Files],
halt().
"""
SERVER = pathlib.Path("/usr/lib/rabbitmq/lib")


def erlang(directories: list[pathlib.Path]) -> list[list[list[str]]]:
    """What RabbitMQ's own programs read in the files of each directory: words, a list for each."""
    schemas = {p.name: p for p in SERVER.glob("*/plugins/*/priv/schema/rabbit*.schema")}
    if not shutil.which("erl") or not {"rabbit.schema", "rabbitmq_prometheus.schema"} <= set(schemas):
        helpers.skip("RabbitMQ is not installed")
    two = [str(schemas["rabbit.schema"]), str(schemas["rabbitmq_prometheus.schema"])]
    code = [a for p in SERVER.glob("*/plugins/*/ebin") for a in ("-pa", str(p))]
    command = ["erl", "+pc", "unicode", "-noinput", *code, "-eval", ERLANG, "-extra", *two, *map(str, directories)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    lines = done.stdout.splitlines()
    known = [line.split(" ") for line in lines if line.partition(" ")[0] in ("key", "stage", "term", "plugins", "end")]
    found: list[list[list[str]]] = [[]]
    for words in known:
        if words == ["end"]:
            found.append([])
        else:
            found[-1].append(words)
    assert len(found) == len(directories) + 1, done.stdout[-2000:] + done.stderr[-2000:]
    return found[:-1]


def decoded(text: str) -> str:
    return base64.b64decode(text).decode()


@FEW
@hypothesis.given(BATCHES)
def test_rabbitmq_reads_the_very_values_and_no_other_keys(
    tmp_path_factory: pytest.TempPathFactory, batch: list[Example]
) -> None:
    batch = [e for e in batch if e.plan.broker]
    base = tmp_path_factory.mktemp("rabbit")
    directories = [base / str(i) for i in range(len(batch))]
    for example, directory in zip(batch, directories):
        directory.mkdir()
        for name in ("rabbitmq.conf", "erl_inetrc", "enabled_plugins", "rabbitmq-env.conf"):
            (directory / name).write_text(example.text(f"/{name}"))
    for example, found in zip(batch, erlang(directories)):
        planned = example.plan.broker
        assert planned
        keys = [(decoded(w[1]), decoded(w[2])) for w in found if w[0] == "key"]
        assert sorted(keys) == sorted(planned.settings)
        # The files are not there, which is what stops it: neither its grammar nor a variable in the place of a value.
        assert [w[1] for w in found if w[0] == "stage"] == ["validation"], found
        terms = [decoded(w[1]) for w in found if w[0] == "term"]
        hosts = [(broker.erlang_address(a), list(n.encode())) for a, n in planned.inet_hosts]
        names = [f"{{host,{address},[{name}]}}".replace(" ", "") for address, name in hosts]
        assert [t for t in terms if t.startswith("{host")] == names
        assert {t for t in terms if not t.startswith("{host")} <= {"{lookup,[file,native]}", "{inet6,true}"}
        assert [w[1] for w in found if w[0] == "plugins"] == [f"[{','.join(planned.plugins)}]"]
        SEEN["rabbit"] += 1
    assert_environment(batch, directories)


def assert_environment(batch: list[Example], directories: list[pathlib.Path]) -> None:
    """The server's scripts read it into a shell; it sets its variables and does nothing else."""
    script = 'for d; do (cd "$d"; set -a; . ./rabbitmq-env.conf; exec env -0); printf "\\0"; done'
    command = ["env", "-i", f"PATH={pathlib.Path('/usr/bin')}:/bin", "sh", "-euc", script, "sh", *map(str, directories)]
    done = subprocess.run(command, capture_output=True, check=True)
    assert not done.stderr
    for example, part in zip(batch, done.stdout.decode().split("\0\0")):
        found = dict(line.split("=", 1) for line in part.strip("\0").split("\0"))
        assert example.plan.broker
        shell = {"PATH", "PWD", "OLDPWD", "SHLVL", "_"}
        assert {k: v for k, v in found.items() if k not in shell} == dict(example.plan.broker.environment)
    assert {p.name for d in directories for p in d.iterdir()} == {
        "rabbitmq.conf", "erl_inetrc", "enabled_plugins", "rabbitmq-env.conf"
    }  # fmt: skip


@FEW
@hypothesis.given(BATCHES)
def test_json_documents_hold_the_very_values_and_nothing_else(batch: list[Example]) -> None:
    for example in batch:
        d = example.deployment
        assert_certificates_alone(example)
        if example.plan.broker:
            read = json.loads(example.text("/definitions.json"), object_pairs_hook=unique)
            assert set(read) == {"users", "vhosts", "permissions", "policies"}
            halves = [b for b in d.halves if b.scheme is model.Scheme.RABBIT]
            passwords = {a.username: a.password.reveal() for b in halves for a in b.accounts.values()}
            assert {u["name"] for u in read["users"]} == set(passwords)
            assert {v["name"] for v in read["vhosts"]} == {b.virtual_host or "/" for b in halves}
            for user in read["users"]:
                hashed = base64.b64decode(user["password_hash"])
                given = passwords[user["name"]].encode()
                made = hashed[:4] + hashlib.sha256(hashed[:4] + given).digest()
                assert hashed == (made if given else b"") and user["tags"] == []  # without one there is a certificate
            assert {(p["user"], p["vhost"]) for p in read["permissions"]} == {
                (a.username, b.virtual_host or "/") for b in halves for a in b.accounts.values()
            }
        if example.plan.router:
            entities = json.loads(example.text("/qdrouterd.json"), object_pairs_hook=unique)
            assert [(kind, a) for kind, a in entities] == [(kind, a) for kind, a in example.plan.router.entities]
            assert {kind for kind, _ in entities} <= set(router._KNOWN)
            groups = [g for kind, a in entities if kind == "vhost" for g in a["groups"].items()]
            for name, group in groups:
                users = group.get("users", "")
                assert users == "" or users.count(",") == 0 or name != "operator", users
            shown = json.dumps(entities, ensure_ascii=False)
            for secret in (d.rpc.password, d.router.mesh_password, d.router.admin_password):
                assert len(secret.reveal()) < 12 or secret.reveal() not in shown


def assert_certificates_alone(example: Example) -> None:
    """Of what is given as text, whatever stands around it."""
    tls = example.deployment.tls
    assert {tls.ca.strip(), tls.certificate.strip()} <= {"", helpers.CERTIFICATE.strip()}
    for file in example.rendered.files:
        if file.path.endswith(("/tls/ca.pem", "/tls/certificate.pem")):
            assert file.content and file.content.decode().strip() == helpers.CERTIFICATE.strip()


# -- Cyrus SASL ------------------------------------------------------------------------------------------------------

# Logs in as a server does, with libsasl2 itself: options by a callback, passwords by the database.
LOGIN = """
import ctypes, json, sys
lib = ctypes.CDLL("libsasl2.so.2")
GETOPT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p,
                          ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(ctypes.c_uint))
options = {b"pwcheck_method": b"auxprop", b"auxprop_plugin": b"sasldb", b"log_level": b"0"}
kept = {}
@GETOPT
def getopt(context, plugin, name, value, length):
    if name not in options:
        return -1
    kept[name] = ctypes.c_char_p(options[name])
    value[0] = kept[name]
    if length:
        length[0] = len(options[name])
    return 0
class Callback(ctypes.Structure):
    _fields_ = [("id", ctypes.c_ulong), ("proc", ctypes.c_void_p), ("context", ctypes.c_void_p)]
callbacks = (Callback * 2)(Callback(1, ctypes.cast(getopt, ctypes.c_void_p), None), Callback(0, None, None))
assert lib.sasl_server_init(callbacks, b"om-test") == 0
answers = []
for path, user, realm, password in json.load(sys.stdin):
    options[b"sasldb_path"] = path.encode()
    connection = ctypes.c_void_p()
    made = lib.sasl_server_new(b"amqp", b"host", realm.encode(), None, None, None, 0, ctypes.byref(connection))
    assert made == 0, made
    user, password = user.encode(), password.encode()
    answers.append(lib.sasl_checkpass(connection, user, len(user), password, len(password)))
    lib.sasl_dispose(ctypes.byref(connection))
print(json.dumps(answers))
"""


@FEW
@hypothesis.given(BATCHES)
def test_cyrus_lets_in_who_has_the_password_and_nobody_else(
    tmp_path_factory: pytest.TempPathFactory, batch: list[Example]
) -> None:
    if not shutil.which("saslpasswd2") or not shutil.which("sasldblistusers2"):
        helpers.skip("Cyrus SASL's programs are not installed")
    base = tmp_path_factory.mktemp("sasl")
    asked, wanted = [], []
    for i, example in enumerate([e for e in batch if e.plan.router][:8]):
        assert example.plan.router
        users = example.plan.router.users
        path = base / f"{i}.sasldb"
        path.write_bytes(sasl_database.make_sasl_database(users, base / "making"))
        listed = subprocess.run(["sasldblistusers2", "-f", path], capture_output=True, check=True).stdout.decode()
        assert sorted(listed.splitlines()) == sorted(f"{u.name}@{u.realm}: userPassword" for u in users)
        for user in users:
            password = user.password.reveal()
            for given, right in ((password, 0), (password + "x", -13), (password[:-1] + "\x01", -13)):
                asked.append((str(path), user.name, user.realm, given))
                wanted.append(right)
        options = dict(line.split(": ", 1) for line in example.text("sasl2/qdrouterd.conf").splitlines()[1:])
        assert options["sasldb_path"] == "/etc/qpid-dispatch/sasl2/users.sasldb"
        assert set(options) == {"pwcheck_method", "auxprop_plugin", "sasldb_path", "mech_list"}
    command = [sys.executable, "-c", LOGIN]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == wanted
    SEEN["logins"] += len(wanted)


# -- what was found this way -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/etc/$(load_definitions)",  # RabbitMQ puts in another key's value, or does not start
        "/etc/é.pem",  # RabbitMQ opens another file
        "/etc/\u202egpj.mep",  # shows as another name in a terminal
        "/etc/\x9b31m",  # one character that starts a command to a terminal
        "/etc/a`id`",
        "/etc/a\u2028b",
        "/etc/a\x85b",
        "/etc/\ufeffa",
    ],
)
@pytest.mark.parametrize("key", ["ca_file", "certificate_file", "key_file"])
def test_paths_that_not_every_reader_understands(path: str, key: str) -> None:
    raw = helpers.put(helpers.with_tls(helpers.default()), f"tls.{key}", path)
    with pytest.raises(errors.InvalidInput) as told:
        parse.deployment(raw, helpers.catalogue())
    assert [(p.path, p.code) for p in told.value.problems] == [(f"tls.{key}", "bad-text")]
    assert path not in str(told.value) and str(told.value).isprintable()


@pytest.mark.parametrize(
    ("external", "key"), [(True, "rpc.username"), (False, "rpc.username"), (False, "rpc.also_accept.0.username")]
)
def test_no_user_of_a_router_is_everybody(external: bool, key: str) -> None:
    """Where a user has no realm behind his name, engines take that one for whoever has a certificate of the CA."""
    raw = helpers.put(helpers.with_tls(helpers.dual()), "rpc.also_accept", [{"username": "rpc-2", "password": "b"}])
    for i, node in enumerate(raw["nodes"]):
        raw = helpers.put(raw, f"nodes.{i}.host", f"{node['name']}.example.com")
    if external:
        raw["rpc"].update(sasl_mechanism="EXTERNAL", client_certificate_file="/etc/c.pem", client_key_file="/etc/c.key")
        del raw["rpc"]["password"], raw["rpc"]["also_accept"]
    parse.deployment(raw, helpers.catalogue())
    with pytest.raises(errors.InvalidInput) as told:
        parse.deployment(helpers.put(raw, key, "*"), helpers.catalogue())
    path = key.replace(".0.", "[0].")
    assert [(p.path, p.code) for p in told.value.problems] == [(path, "router-everybody")]
