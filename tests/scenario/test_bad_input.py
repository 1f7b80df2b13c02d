"""Invalid input: the message names the problem, the exit code is the documented one, nothing changes."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import typing

import pytest

from tests.support import helpers

put = helpers.put


@pytest.fixture
def node(tmp_path: pathlib.Path) -> helpers.Machine:
    return helpers.machine(tmp_path)


def apply(node: helpers.Machine, *more: str, name: str = "ctl-0") -> subprocess.CompletedProcess[str]:
    return node.run("apply", "--metadata", str(node.base / "metadata.json"), "--node", name, *more)


def refused(node: helpers.Machine, content: object, said: str, code: int = 2, name: str = "ctl-0") -> str:
    """Check that apply fails with this code and changes nothing; return its output."""
    node.metadata(content)
    before = node.tree()
    result = apply(node, name=name)
    assert result.returncode == code, result.stderr
    assert said in result.stderr and result.stdout == ""
    assert node.tree() == before
    assert node.puppet_runs() == []
    return result.stderr


BYTES: dict[str, tuple[bytes, str]] = {
    "half an object": (b'{"oslo_messaging": {"rpc": {"password": "Canary', "line 1, column"),
    "two documents": (b"{}{}", "line 1, column 3"),
    "NaN": (b'{"oslo_messaging": NaN}', "a number that is not finite stands where a mapping is needed"),
    "a key twice": (b'{"oslo_messaging": {"rpc": "Canary", "rpc": 1}}', '"rpc" stands twice'),
    "not UTF-8": (b'{"a": "Canary\xff"}', "not UTF-8"),
    "binary": (bytes(range(256)), "not UTF-8"),
    "a list": (b"[]", "this is a list"),
    "a number": (b"7", "this is a single value"),
    "empty": (b"", "no oslo_messaging key"),
    "null": (b"null", "no oslo_messaging key"),
    "nothing of messaging": (b'{"nova": {"password": "Canary"}}', "no oslo_messaging key"),
    "deep": (b"[" * 200_000, "nested too deeply"),
    "an alias": (b"a: &a Canary\nb: *a\n", "line 2 refers to an anchor"),
    "10 MB of nothing": (b'{"oslo_messaging": {"rpc": "' + b"Canary" * 1_700_000, "neither JSON nor YAML"),
}


@pytest.mark.parametrize(("content", "said"), BYTES.values(), ids=BYTES.keys())
def test_a_file_that_cannot_be_used(node: helpers.Machine, content: bytes, said: str) -> None:
    assert "Canary" not in refused(node, content, said)


WRONG: tuple[object, ...] = (True, 7, 1.5, "Canary", [], ["Canary"], {}, {"Canary key": "x"}, [[None]])
# What is as good as nothing, or right.
RIGHT = {("rpc.password", "Canary")}
NULL_IS_MISSING = ("rpc", "rpc.password", "nodes", "nodes.0")
CASES = [(key, wrong) for key in (*NULL_IS_MISSING, "services", "") for wrong in WRONG]
CASES = [(key, wrong) for key, wrong in CASES if (key, str(wrong)) not in RIGHT]


@pytest.mark.parametrize(("key", "wrong"), [*CASES, *((key, None) for key in NULL_IS_MISSING)])
def test_wrong_types(node: helpers.Machine, key: str, wrong: object) -> None:
    said = refused(node, put(helpers.dual(), key, wrong) if key else wrong, "error: ")
    if key != "services" and not isinstance(wrong, dict):  # names of services and of keys are told
        assert "Canary" not in said


def test_everything_wrong_at_once_is_told_at_once(node: helpers.Machine) -> None:
    raw = {"rpc": {"port": []}, "notify": 7, "router": [], "broker": "x", "tls": 1, "sites": [], "nodes": {}, "x": 1}
    said = refused(node, raw, "error: ")
    for path in ("rpc.port", "rpc.password", "notify", "router", "broker", "tls", "sites", "nodes", "oslo_messaging"):
        assert f"error: {path}: " in said


def test_several_files_each_named(node: helpers.Machine) -> None:
    paths = [node.metadata(b"{", "a.json"), node.metadata(b"[]", "b.json"), str(node.base / "none.json")]
    before = node.tree()
    result = node.run("apply", "--metadata", *paths)
    assert result.returncode == 2
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == paths
    assert node.tree() == before


def test_a_file_of_os_collect_config_that_is_gone(node: helpers.Machine) -> None:
    before = node.tree()
    result = node.run("apply", OS_CONFIG_FILES=str(node.base / "gone.json"))
    assert result.returncode == 2 and "gone.json" in result.stderr
    assert node.tree() == before


@pytest.mark.parametrize("command", ["validate", "apply"])
def test_a_pipe_in_the_place_of_metadata(node: helpers.Machine, command: str) -> None:
    """The agent refuses the pipe by name, and does not wait for a writer."""
    path = str(node.base / "fifo")
    os.mkfifo(path)
    done = node.run(command, path) if command == "validate" else node.run(command, OS_CONFIG_FILES=path)
    assert done.returncode == 2 and f"{path}: the file cannot be read: it is a named pipe" in done.stderr


def test_metadata_from_a_pipe_with_a_writer(node: helpers.Machine) -> None:
    text = json.dumps({"oslo_messaging": helpers.dual()}).encode()
    assert node.run("validate", "/dev/stdin", stdin=text).returncode == 0
    script = f"{shlex.quote(node.python)} -m om_agent validate <(sleep 0.3; cat {node.metadata(helpers.dual())})"
    done = subprocess.run(
        ["bash", "-c", script], cwd=node.base, env=node.environment(), capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0 and b"valid: " in done.stdout, done.stderr


def test_ten_megabytes_of_others_metadata_do_no_harm(node: helpers.Machine) -> None:
    raw = {f"key-{i}": "x" * 1000 for i in range(10_000)}
    path = node.metadata(json.dumps({**raw, "oslo_messaging": helpers.default()}).encode())
    assert pathlib.Path(path).stat().st_size > 10_000_000
    assert apply(node).returncode == 0


def test_ten_megabytes_of_metadata_that_is_wrong(node: helpers.Machine) -> None:
    raw = put(helpers.default(), "nodes", [{"name": f"n {i}", "address": "x" * 5000} for i in range(2100)])
    said = refused(node, raw, "error: nodes[2099].name")
    assert "x" * 100 not in said


@pytest.mark.parametrize("name", ["ctl", "ctl-", "tl-1", "ctl-1.example.com", "ctl-100"])
def test_this_node_is_not_in_nodes(node: helpers.Machine, name: str) -> None:
    raw = put(helpers.dual(), "nodes", [{"name": n} for n in ("ctl-1", "ctl-10", "ctl-11")])
    refused(node, raw, f'this node, "{name}", is not in nodes', name=name)


def test_nobody_said_which_node_this_is(node: helpers.Machine) -> None:
    node.metadata(put(helpers.dual(), "nodes", [{"name": "surely-no-host-has-this-name"}]))
    before = node.tree()
    result = node.run("apply", "--metadata", str(node.base / "metadata.json"))
    assert result.returncode == 2 and "is not in nodes" in result.stderr
    assert node.tree() == before


def test_an_absent_service(node: helpers.Machine) -> None:
    said = refused(node, put(helpers.dual(), "services", ["nova", "heat"]), "services[1]")
    assert 'the metadata names "heat"' in said and f"{node.root}/etc/heat" in said


def test_an_absent_section(node: helpers.Machine) -> None:
    (node.root / "etc/swift/proxy-server.conf").write_text("[pipeline:main]\npipeline = healthcheck\n")
    said = refused(node, put(helpers.dual(), "services", ["swift"]), "services[0]")
    assert "[filter:ceilometer]" in said


def test_an_unknown_service(node: helpers.Machine) -> None:
    refused(
        node, put(helpers.dual(), "services", ["nova", "nva"]), 'services[1]: "nva" is not in the service catalogue'
    )


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_a_service_file_that_is_none(node: helpers.Machine, kind: str) -> None:
    path = node.root / "etc/nova/nova.conf"
    path.unlink()
    if kind == "link":
        path.symlink_to("../neutron/neutron.conf")
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    node.metadata(helpers.dual())
    before = shallow(node)
    result = apply(node)
    assert result.returncode == 1 and "not a regular file" in result.stderr and str(path) in result.stderr
    assert shallow(node) == before


def shallow(node: helpers.Machine) -> dict[str, int]:
    """Return only the modes, for trees with unreadable files."""
    paths = (p for p in node.root.rglob("*") if not str(p.relative_to(node.root)).startswith(helpers.STATE))
    return {str(p): p.lstat().st_mode for p in paths}


def test_a_certificate_that_is_not_there(node: helpers.Machine) -> None:
    said = refused(node, helpers.with_tls(helpers.dual()), "/etc/pki/tls/node.key", code=1)
    assert "tls.key_file" in said and "tls.ca_file" in said


def test_a_directory_in_the_place_of_a_file_of_ours(node: helpers.Machine) -> None:
    (node.root / "etc/rabbitmq/rabbitmq.conf").mkdir(parents=True)
    refused(node, helpers.dual(), "etc/rabbitmq/rabbitmq.conf", code=1)


def test_a_file_in_the_place_of_a_directory_of_ours(node: helpers.Machine) -> None:
    (node.root / "etc/rabbitmq").write_text("")
    refused(node, helpers.dual(), "etc/rabbitmq", code=1)


def test_a_missing_module(node: helpers.Machine) -> None:
    shutil.rmtree(node.modules / "om_messaging")
    refused(node, helpers.dual(), "the puppet module om_messaging is not in any of", code=1)


# On a machine that has puppet outside PATH the agent would find it.
WITHOUT_PUPPET = """
import sys
from om_agent import cli, proc
from om_agent.apply import puppet
puppet._PUPPET_DIRECTORIES = ()
find = proc.find
proc.find = lambda name, more=(): find(name)
sys.exit(cli.main(sys.argv[1:]))
"""


def bare(node: helpers.Machine, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Return the agent's output on a machine that has only the programs of the fake node."""
    command = [sys.executable, "-c", WITHOUT_PUPPET, *arguments]
    environment = node.environment(PATH=str(node.bin))
    return subprocess.run(command, env=environment, cwd=node.base, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("lacking", "codes"),
    [
        (("bin/puppet",), ["no-puppet"]),
        (("agent/om_agent/puppet/modules/om_messaging",), ["no-module"]),
        (("bin/puppet", "agent/om_agent/puppet/modules/om_messaging"), ["no-puppet", "no-module"]),
        (("bin/saslpasswd2",), ["no-saslpasswd"]),
    ],
)
def test_plan_foretells_what_apply_lacks(node: helpers.Machine, lacking: tuple[str, ...], codes: list[str]) -> None:
    """``plan && apply`` stops before any change, with the reason, and still shows the diff."""
    arguments = ("--root", str(node.root), "--node", "ctl-0", node.metadata(helpers.dual()))
    for name in lacking:
        path = node.base / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    before = node.tree()
    planned, applied = bare(node, "plan", *arguments), bare(node, "apply", *arguments)
    assert (planned.returncode, applied.returncode) == (1, 1)
    refused = [line for line in applied.stderr.splitlines() if line.startswith("error: ")]
    assert len(refused) == len(codes) and set(refused) <= set(planned.stderr.splitlines())
    assert "apply will refuse this" in planned.stderr and "transport_url" in planned.stdout
    told = json.loads(bare(node, "plan", "--json", *arguments).stdout)["problems"]
    assert [p["code"] for p in told if p["severity"] == "error"] == codes
    assert node.tree() == before


def test_plan_names_everything_at_once(node: helpers.Machine) -> None:
    """apply stops at the first kind of problem, but plan reports all kinds at once."""
    (node.bin / "puppet").unlink()
    (node.root / "etc/nova/nova.conf").write_text("no setting\n")
    planned = bare(node, "plan", "--root", str(node.root), "--node", "ctl-0", node.metadata(helpers.dual()))
    assert planned.returncode == 1 and "puppet is not installed" in planned.stderr
    assert "nova.conf:1: oslo.config rejects" in planned.stderr


def test_a_node_that_is_right_needs_no_puppet(node: helpers.Machine) -> None:
    arguments = ("--root", str(node.root), "--node", "ctl-0", node.metadata(helpers.dual()))
    assert bare(node, "apply", *arguments).returncode == 0
    for name in ("puppet", "saslpasswd2"):
        (node.bin / name).unlink()
    planned, applied = bare(node, "plan", *arguments), bare(node, "apply", *arguments)
    assert (planned.returncode, applied.returncode) == (0, 0), planned.stderr + applied.stderr


def test_missing_puppet(node: helpers.Machine) -> None:
    (node.bin / "puppet").unlink()
    path = node.metadata(helpers.dual())
    before = node.tree()
    command = [sys.executable, "-c", WITHOUT_PUPPET, "apply", "--root", str(node.root), "--metadata", path]
    environment = node.environment(PATH=str(node.bin))
    result = subprocess.run(
        [*command, "--node", "ctl-0"], env=environment, cwd=node.base, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1, result.stderr
    assert "puppet is not installed" in result.stderr
    assert node.tree() == before


def test_a_puppet_that_cannot_be_started(node: helpers.Machine) -> None:
    (node.bin / "puppet").write_text("#!/no/such/interpreter\n")
    refused(node, helpers.dual(), "cannot be started", code=1)


def test_a_root_that_is_no_directory(node: helpers.Machine) -> None:
    command = [sys.executable, "-m", "om_agent", "apply", "--root", str(node.base / "none")]
    result = subprocess.run(command, env=node.environment(), cwd=node.base, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "is not a directory" in result.stderr


# -- as an ordinary user ---------------------------------------------------------------------------------------------

NOBODY = 65534


def python_for(identity: dict[str, typing.Any]) -> str:
    """A Python with PyYAML that an ordinary user may start: this one can be in root's own home directory."""
    for path in (sys.executable, "/usr/bin/python3"):
        probe = [path, "-c", "import sys, yaml; sys.exit(sys.version_info < (3, 9))"]
        try:
            if not subprocess.run(probe, cwd="/", capture_output=True, check=False, **identity).returncode:
                return path
        except OSError:
            continue
    return helpers.skip("an ordinary user can run no Python with PyYAML here")


@pytest.fixture
def ordinary() -> typing.Iterator[tuple[helpers.Machine, dict[str, typing.Any]]]:
    """A machine owned by an ordinary user, and a command prefix that runs programs as that user."""
    root = os.geteuid() == 0
    identity: dict[str, typing.Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if root else {}
    # pytest's own temporary directories are closed to others.
    with tempfile.TemporaryDirectory(prefix="om-agent-test-") as directory:
        base = pathlib.Path(directory)
        machine = helpers.machine(base, python_for(identity))
        for path in (base, *base.rglob("*")) if root else ():
            os.chown(path, NOBODY, NOBODY)
        yield machine, identity


def run_as(
    machine: helpers.Machine, identity: dict[str, typing.Any], *arguments: str
) -> subprocess.CompletedProcess[str]:
    path = machine.metadata(helpers.dual())
    command = machine.command("apply", "--metadata", path, "--node", "ctl-0", *arguments)
    pipes: dict[str, typing.Any] = {"capture_output": True, "text": True, "check": False}
    return subprocess.run(command, env=machine.environment(), cwd=machine.base, **pipes, **identity)


def test_an_ordinary_user_can_work_below_a_root_of_their_own(
    ordinary: tuple[helpers.Machine, dict[str, typing.Any]],
) -> None:
    result = run_as(*ordinary)
    assert result.returncode == 0, result.stderr


def test_a_read_only_file(ordinary: tuple[helpers.Machine, dict[str, typing.Any]]) -> None:
    machine, identity = ordinary
    path = machine.root / "etc/nova/nova.conf"
    path.chmod(0o440)
    before = machine.tree()
    result = run_as(machine, identity)
    assert result.returncode == 1 and f"{path}: the file cannot be written by this user" in result.stderr
    assert machine.tree() == before


@pytest.mark.parametrize("closed", ["etc", "etc/nova", "var/lib"])
def test_a_read_only_directory(ordinary: tuple[helpers.Machine, dict[str, typing.Any]], closed: str) -> None:
    machine, identity = ordinary
    before = machine.tree()
    (machine.root / closed).chmod(0o555)
    try:
        result = run_as(machine, identity)
    finally:
        (machine.root / closed).chmod(0o755)
    assert result.returncode == 1 and closed in result.stderr
    assert "Traceback" not in result.stderr and "defect" not in result.stderr
    assert machine.tree() == before


# -- files of services that cannot be edited -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "line", "said"),
    [
        ("nova/nova.conf", "[DEFAULT]\ndebug = true\nthis is no setting\n", 3, "there is no = or :"),
        ("nova/nova.conf", "[DEFAULT]\n\n  debug = true\n", 3, "a continued line has no key before it"),
        ("nova/nova.conf", "debug = true\n[DEFAULT]\n", 1, "before the first section"),
        ("nova/nova.conf", "\ufeff[DEFAULT]\ndebug = true\n", 1, "begins with a byte order mark"),
        ("nova/nova.conf", "\ufeff# a = b\n[DEFAULT]\n", 1, "begins with a byte order mark"),
        ("nova/nova.conf", "[DEFAULT]\n# caf\udce9\n", 2, "the byte E9 in it is not UTF-8"),
        ("nova/nova.conf", "\udcff\udcfe[\0D\0", 1, "the byte FF in it is not UTF-8"),
        ("swift/proxy-server.conf", "\ufeff[filter:ceilometer]\nx = a\n", 1, "begins with a byte order mark"),
        ("swift/proxy-server.conf", "\ufeff\n[filter:ceilometer]\nx = a\n", 1, "begins with a byte order mark"),
        ("swift/proxy-server.conf", "[filter:ceilometer]\nx = \udce9\n", 2, "the byte E9 in it is not UTF-8"),
        ("nova/nova.conf", "[DEFAULT]\n# a note\rtransport_url = rabbit://\n", 2, "carriage return"),
        ("nova/nova.conf", "[DEFAULT\ndebug = true\n", 1, "closing bracket"),
        ("swift/proxy-server.conf", "[filter:ceilometer]\nurl = a\nurl = b\n", 3, "the key occurs twice"),
        (
            "swift/proxy-server.conf",
            "[filter:ceilometer]\nx = a\n[filter: ceilometer]\n",
            3,
            "the section occurs twice",
        ),
        ("swift/proxy-server.conf", "[DEFAULT]\nurl = a\n[filter:ceilometer]\nx = a\n", 2, "uses url in section"),
        ("swift/proxy-server.conf", "[filter:ceilometer]\nx = a\nget url = b\n", 3, "uses get url in section"),
        ("swift/proxy-server.conf", "[DEFAULT]\nget url = b\n[filter:ceilometer]\n", 2, "uses get url in section"),
        ("swift/proxy-server.conf", "[filter:ceilometer]\nget   driver : b\n", 2, "uses get   driver in section"),
    ],
)
def test_a_file_that_its_reader_rejects_or_reads_otherwise(
    node: helpers.Machine, file: str, text: str, line: int, said: str
) -> None:
    (node.root / "etc" / file).write_text(text, "utf-8", "surrogateescape")
    told = refused(node, helpers.dual(), said, code=1)
    assert f"{file}:{line}: " in told
    planned = node.run("plan", str(node.base / "metadata.json"), "--node", "ctl-0")
    assert f"{file}:{line}: " in planned.stderr


PASTE = """\
[filter:ceilometer] # notifications
\tpaste.filter_factory = x
\turl: rabbit://old/

\t\t?ssl=0
\tdriver : x
"""


def test_a_paste_file_in_another_style_is_read_by_its_own_rules(node: helpers.Machine) -> None:
    (node.root / "etc/swift/proxy-server.conf").write_text(PASTE)
    node.metadata(helpers.dual())
    planned = node.run("plan", str(node.base / "metadata.json"), "--node", "ctl-0", "--json")
    keys = [c for c in json.loads(planned.stdout)["changes"] if "proxy-server" in c["path"] and "filter" in c["detail"]]
    assert [c["action"] for c in keys] == ["change", "change"]


@pytest.mark.parametrize(
    "text", ["\ufeff[DEFAULT]\ntransport_url = rabbit://old/\n", "[DEFAULT\n", "[DEFAULT]\n# \udce9\n"]
)
def test_a_second_file_that_oslo_config_rejects(node: helpers.Machine, text: str) -> None:
    """oslo.config reads none of its keys, and the service does not start."""
    unit = node.root / "usr/lib/systemd/system/nova-compute.service"
    unit.parent.mkdir(parents=True, exist_ok=True)
    unit.write_text("[Service]\nExecStart=/usr/bin/nova-compute\n")
    (node.root / "etc/nova/nova-compute.conf").write_text(text, "utf-8", "surrogateescape")
    metadata = node.metadata(helpers.dual())
    for command in ("plan", "apply"):
        done = node.run(command, "--node", "cmp-0", metadata)
        assert done.returncode == 0 and "oslo.config rejects this line" in done.stderr, done.stderr
    assert node.run("verify", "--node", "cmp-0", "--timeout", "1", metadata).returncode == 3


# -- filters of a paste file -----------------------------------------------------------------------------------------

FILTER = """\
[pipeline:main]
pipeline = {name} proxy-server

[filter:{name}]
{use}
control_exchange = swift
url = rabbit://old:old-secret@old/

[filter:auth]
use = egg:swift#keystoneauth
url = http://keystone/
"""


@pytest.mark.parametrize(
    ("name", "use", "filled"),
    [
        ("ceilometer", "use = egg:x", True),
        ("telemetry", "paste.filter_factory = ceilometermiddleware.swift:filter_factory", True),
        ("telemetry", "use = egg:ceilometermiddleware#swift", True),
        ("telemetry", "use : call:ceilometermiddleware.swift:filter_factory", True),
        ("telemetry", "use = egg:my_ceilometermiddleware", False),
        ("tele metry", "use = egg:ceilometermiddleware#swift", False),  # a name that hiera or puppet might not take
        ("audit", "paste.filter_factory = oslo_messaging.notify.middleware:RequestNotifier.factory", False),
    ],
)
def test_a_filter_of_another_name(node: helpers.Machine, name: str, use: str, filled: bool) -> None:
    """It is found by what it uses; one that is not ours is reported when it has a transport of its own."""
    file = node.root / "etc/swift/proxy-server.conf"
    file.write_text(FILTER.format(name=name, use=use))
    metadata = node.metadata(helpers.dual())
    done = node.run("apply", "--node", "ctl-0", metadata)
    assert done.returncode == 0 and "old-secret" not in done.stderr, done.stderr
    told = f"{file}:7: [filter:{name}] url gives swift a second transport URL"
    assert (told in done.stderr) is not filled, done.stderr
    text = file.read_text()
    assert ("old-secret" in text) is not filled and "url = http://keystone/" in text
    assert text.count("driver = messagingv2") == int(filled) and done.stderr.count("second transport") == int(
        not filled
    )


def test_each_filter_that_uses_it_is_filled_in(node: helpers.Machine) -> None:
    use = "use = egg:ceilometermiddleware#swift\n"
    file = node.root / "etc/swift/proxy-server.conf"
    file.write_text(f"[filter:ceilometer]\n{use}[filter:b]\n{use}[filter:a]\n{use}transport_url = kafka://old/\n")
    done = node.run("apply", "--node", "ctl-0", node.metadata(helpers.dual()))
    assert done.returncode == 0 and f"{file}:7: [filter:a] transport_url gives swift" in done.stderr, done.stderr
    assert file.read_text().count("\nurl = rabbit://") == 3
    again = node.run("plan", "--node", "ctl-0", "--json", node.metadata(helpers.dual()))
    assert json.loads(again.stdout)["changes"] == []


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("transport_url = rabbit://old/", True),
        ("set transport_url = amqp://old/", True),
        ("url : kombu+rabbit://old/", True),
        ("url = http://old/", False),
        ("# url = rabbit://old/", False),
        ("connection = rabbit://old/", False),
    ],
)
def test_a_paste_file_of_another_service(node: helpers.Machine, row: str, told: bool) -> None:
    file = node.root / "etc/nova/api-paste.ini"
    file.write_text(f"[filter:audit]\npaste.filter_factory = keystonemiddleware.audit:filter_factory\n{row}\n")
    for command in ("plan", "apply"):
        done = node.run(command, "--node", "ctl-0", node.metadata(helpers.dual()))
        assert done.returncode == 0 and (f"{file}:3: [filter:audit]" in done.stderr) is told, done.stderr
        assert ("gives nova a second transport URL" in done.stderr) is told
