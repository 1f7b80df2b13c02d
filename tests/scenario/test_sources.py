"""The agent checks the other files that a service reads, because their lines override ours."""

from __future__ import annotations

import os
import pathlib
import time

import pytest
from om_agent import parse, sources
from om_agent.observe import messages

from tests.support import helpers

DEBIAN = """\
#!/bin/sh
PROJECT_NAME=nova
NAME=${PROJECT_NAME}-compute
DAEMON_ARGS=""
if [ -f '/etc/nova/nova-compute.conf' ] ; then
\tDAEMON_ARGS="--config-file=/etc/nova/nova-compute.conf"
fi
if [ -z "${CONFIG_FILE}" ] ; then
\tCONFIG_FILE=/etc/${PROJECT_NAME}/${PROJECT_NAME}.conf
fi
DAEMON_ARGS="--config-file=${CONFIG_FILE} ${DAEMON_ARGS}"
[ -r /etc/default/$NAME ] && . /etc/default/$NAME
"""
INIT = {"lib/systemd/system/nova-compute.service": "[Service]\nExecStart=/etc/init.d/nova-compute systemd-start\n"}
BY_SCRIPT = {**INIT, "etc/init.d/nova-compute": DEBIAN}
DEFAULT = {**BY_SCRIPT, "etc/default/nova-compute": 'DAEMON_ARGS="$DAEMON_ARGS --config-dir=/etc/nova/more"\n'}
UWSGI = {
    **INIT,
    "etc/init.d/nova-compute": DEBIAN.replace("nova-compute.conf", "none").replace(
        'DAEMON_ARGS="--config-file=/etc/nova/none"', "UWSGI_PORT=8774"
    ),
}
UNIT = "[Service]\nExecStart=/usr/bin/nova-compute {}\n"
RDO = "--config-file /usr/share/nova/nova-dist.conf --config-file /etc/nova/nova.conf --config-dir /etc/nova/dir"


def unit(arguments: str) -> dict[str, str]:
    return {"usr/lib/systemd/system/nova-compute.service": UNIT.format(arguments)}


CHANGED = "[Service]\nExecStart=\nExecStart=/usr/bin/nova-compute --config-file {} --config-file=/srv/x.conf\n"
DROPIN = {
    **unit(""),
    "etc/systemd/system/nova-compute.service.d/10.conf": CHANGED.format("/etc/nova/nova.conf"),
}
WITHOUT = {
    **unit("--config-file /etc/nova/nova.conf --config-file /srv/x.conf"),
    "etc/systemd/system/nova-compute.service.d/10.conf": "[Service]\nExecStart=\nExecStart=/usr/bin/nova-compute "
    "--config-file /etc/nova/nova.conf\n",
}
VARIABLES = {
    **unit("--config-file /etc/nova/nova.conf $A ${B}"),
    "etc/systemd/system/nova-compute.service.d/10.conf": "[Service]\n"
    'Environment=C=1 A=--config-file=/srv/x.conf "B=--config-dir /srv/more"\nEnvironment=\'\n',
}
FORGOTTEN = {**VARIABLES, "etc/systemd/system/nova-compute.service.d/20.conf": "[Service]\nEnvironment=\n"}
A_FILE = "[Service]\nEnvironment=A=\nEnvironmentFile=-/etc/default/no*\nEnvironmentFile=/missing\n"
FROM_A_FILE = {
    **unit("--config-file /etc/nova/nova.conf $A"),
    "etc/systemd/system/nova-compute.service.d/10.conf": A_FILE,
    "etc/default/nova": "A=--config-file=/srv/x.conf\n",
}
FORGOTTEN_FILE = {
    **FROM_A_FILE,
    "etc/systemd/system/nova-compute.service.d/20.conf": "[Service]\nEnvironmentFile=\n",
}
UNKNOWN = unit("--config-file /etc/nova/nova.conf --config-file $X/x.conf --config-dir=/srv/${Y}")
FOR_ALL = {
    **unit("--config-file /etc/nova/nova.conf $A"),
    "run/systemd/system/service.d/a.conf": "[Service]\nEnvironment=A=--config-file=/srv/x.conf\n",
}
FOR_NOVA = {
    **unit("--config-file /etc/nova/nova.conf $A"),
    "etc/systemd/system/nova-.service.d/a.conf": "[Service]\nEnvironment=A=--config-file=/srv/x.conf\n",
}
NOT_FOR_ALL = {
    **FOR_ALL,
    "usr/lib/systemd/system/nova-compute.service.d/a.conf": "[Service]\nEnvironment=A=--config-file=/srv/y.conf\n",
}
URL = "[DEFAULT]\n\ntransport_url = rabbit://old/\n"
PRE_SETTLED = "[oslo_messaging_amqp]\npre_settled = rpc-call\n"
DRIVER = "[oslo_messaging_notifications]\ndriver = messaging\n"


@pytest.mark.parametrize(
    ("files", "snippet", "text", "line"),
    [
        (BY_SCRIPT, "etc/nova/nova-compute.conf", URL, 3),
        (BY_SCRIPT, "etc/nova/nova-compute.conf", "[DEFAULT]\ncompute_driver = libvirt\n", None),
        (BY_SCRIPT, "etc/nova/elsewhere.conf", URL, None),
        (DEFAULT, "etc/nova/more/a.conf", URL, 3),
        (DEFAULT, "etc/nova/more/a.ini", URL, None),
        (BY_SCRIPT, "etc/nova/nova.conf.d/a.conf", URL, None),
        (UWSGI, "etc/nova/nova.conf.d/a.conf", URL, 3),
        (unit(""), "etc/nova/nova.conf.d/a.conf", URL, 3),
        (unit(""), "etc/nova/nova-compute.conf", URL, 3),
        (unit(""), "etc/nova/nova-compute.conf.d/a.conf", URL, 3),
        (unit("--config-file /etc/nova/nova.conf"), "etc/nova/nova.conf.d/a.conf", URL, None),
        (unit(RDO), "usr/share/nova/nova-dist.conf", URL, None),
        (unit(RDO), "usr/share/nova/nova-dist.conf", DRIVER, 2),
        (unit(RDO), "usr/share/nova/nova-dist.conf", "[DEFAULT]\nnotification_driver = messaging\n", 2),
        (unit(RDO), "usr/share/nova/nova-dist.conf", "[OSLO_MESSAGING_RABBIT]\nssl = true\n", 2),
        (unit(RDO), "etc/nova/dir/a.conf", URL, 3),
        (DROPIN, "srv/x.conf", URL, 3),
        (WITHOUT, "srv/x.conf", URL, None),
        (VARIABLES, "srv/x.conf", URL, 3),
        (VARIABLES, "srv/more/y.conf", URL, 3),
        (FORGOTTEN, "srv/x.conf", URL, None),
        (FROM_A_FILE, "srv/x.conf", URL, 3),
        (FORGOTTEN_FILE, "srv/x.conf", URL, None),
        (FOR_NOVA, "srv/x.conf", URL, 3),
        (unit(RDO), "usr/share/nova/nova-dist.conf", PRE_SETTLED, 2),
        (unit(RDO), "etc/nova/dir/a.conf", PRE_SETTLED.replace("call", "cast"), 2),
        (UNKNOWN, "$X/x.conf", URL, None),
        (UNKNOWN, "srv/${Y}/x.conf", URL, None),
        (FOR_ALL, "srv/x.conf", URL, 3),
        (NOT_FOR_ALL, "srv/x.conf", URL, None),
        (NOT_FOR_ALL, "srv/y.conf", URL, 3),
        ({}, "etc/nova/nova-compute.conf", URL, None),
    ],
)
def test_a_second_file(
    tmp_path: pathlib.Path, files: dict[str, str], snippet: str, text: str, line: int | None
) -> None:
    node = helpers.machine(tmp_path)
    for name, content in {**files, snippet: text}.items():
        (node.root / name).parent.mkdir(parents=True, exist_ok=True)
        (node.root / name).write_text(content)
    metadata = node.metadata(helpers.dual())
    said = f"{node.root / snippet}:{line}: "
    for command in ("plan", "apply"):
        done = node.run(command, "--node", "cmp-0", metadata)
        assert done.returncode == 0 and (said in done.stderr) is (line is not None), done.stderr
        assert ("in /etc/nova/nova.conf" in done.stderr) is (line is not None)


@pytest.mark.parametrize(
    ("dropin", "read"),
    [
        ("x@.service.d/a.conf", True),
        ("x@one.service.d/a.conf", True),
        ("x@two.service.d/a.conf", False),
        ("x.service.d/a.conf", False),
    ],
)
def test_drop_ins_of_a_template(tmp_path: pathlib.Path, dropin: str, read: bool) -> None:
    texts = {
        "lib/systemd/system/x@.service": "[Service]\nExecStart=/usr/bin/x --config-file /etc/x/x.conf $A\n",
        f"etc/systemd/system/{dropin}": "[Service]\nEnvironment=A=--config-file=/srv/x.conf\n",
    }
    for name, content in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    paths = [source.path for source in sources.other_files("/etc/x/x.conf", ["x@one"], tmp_path)]
    assert ("/srv/x.conf" in paths) is read


@pytest.mark.parametrize(
    ("arguments", "snippet", "refused"),
    [
        (RDO, "etc/nova/dir/a.conf", True),
        (RDO, "usr/share/nova/nova-dist.conf", False),
        ("", "etc/nova/nova-compute.conf", True),
    ],
)
def test_addresses_that_the_router_refuses(tmp_path: pathlib.Path, arguments: str, snippet: str, refused: bool) -> None:
    """Refused as in the service's own file, where they count."""
    node = helpers.machine(tmp_path)
    misfit = "[oslo_messaging_amqp]\naddressing_mode = legacy\n"
    for name, content in {**unit(arguments), snippet: misfit}.items():
        (node.root / name).parent.mkdir(parents=True, exist_ok=True)
        (node.root / name).write_text(content)
    before = node.tree()
    for command in ("plan", "apply"):
        done = node.run(command, "--node", "cmp-0", node.metadata(helpers.dual()))
        assert done.returncode == int(refused), done.stderr
        assert (f"{node.root / snippet}:2: " in done.stderr) is refused
        assert node.tree() == before or not refused
    verified = node.run("verify", "--node", "cmp-0", "--timeout", "1", node.metadata(helpers.dual()))
    assert (f"{node.root / snippet}:2: " in verified.stderr) is refused


SET = "[Service]\nEnvironment=LANG=C \\\n  OS_DEFAULT__TRANSPORT_URL={}\n"
BY_DROPIN = {**unit("--config-file /etc/nova/nova.conf"), "etc/systemd/system/nova-.service.d/a.conf": SET}
BY_FILE = {
    **unit("--config-file /etc/nova/nova.conf"),
    "etc/systemd/system/nova-compute.service.d/a.conf": "[Service]\nEnvironmentFile=/etc/default/nova-compute\n",
    "etc/default/nova-compute": "OS_DEFAULT__DEBUG=1\n\nOS_DEFAULT__TRANSPORT_URL={}\n",
}


@pytest.mark.parametrize(("files", "place"), [(BY_DROPIN, list(BY_DROPIN)[-1]), (BY_FILE, "etc/default/nova-compute")])
def test_an_option_in_the_environment(tmp_path: pathlib.Path, files: dict[str, str], place: str) -> None:
    """oslo.config takes it before all files."""
    node = helpers.machine(tmp_path)
    for name, content in files.items():
        (node.root / name).parent.mkdir(parents=True, exist_ok=True)
        (node.root / name).write_text(content.replace("{}", "rabbit://u:env-secret@old/"))
    done = node.run("plan", "--node", "cmp-0", node.metadata(helpers.dual()))
    assert done.returncode == 0 and f"{node.root / place}:3: nova-compute" in done.stderr, done.stderr
    assert "[DEFAULT] transport_url here overrides" in done.stderr and "env-secret" not in done.stderr
    (node.root / place).write_text(
        (node.root / place).read_text().replace("OS_DEFAULT__TRANSPORT_URL", "OS_OSLO_MESSAGING_AMQP__ADDRESSING_MODE")
    )
    assert node.run("apply", "--node", "cmp-0", node.metadata(helpers.dual())).returncode == 1


API = "lib/systemd/system/nova-api.service"
WSGI = {API: "[Service]\nExecStart=/usr/bin/uwsgi --ini /srv/api.ini\n"}
DEBIAN_API = {
    API: "[Service]\nExecStart=/etc/init.d/nova-api systemd-start\n",
    "etc/init.d/nova-api": "UWSGI_PORT=8774\nUWSGI_INI_PATH=/etc/nova/nova-api-uwsgi.ini\n",
}
DROP = "etc/systemd/system/nova-api.service.d/a.conf"


def put(root: pathlib.Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


@pytest.mark.parametrize(
    ("files", "value"),
    [
        ({"etc/systemd/system.conf": "[Manager]\nDefaultEnvironment=OS_DEFAULT__X=1 B=2\n"}, "1"),
        ({"usr/lib/systemd/system.conf": "[Manager]\nDefaultEnvironment=OS_DEFAULT__X=1\n"}, "1"),
        (
            {
                "etc/systemd/system.conf": "[Manager]\n#DefaultEnvironment=\n",
                "usr/lib/systemd/system.conf": "[Manager]\nDefaultEnvironment=OS_DEFAULT__X=1\n",
            },
            None,
        ),
        (
            {
                "etc/systemd/system.conf": "[Manager]\nDefaultEnvironment=OS_DEFAULT__X=1\n",
                "run/systemd/system.conf.d/a.conf": "[Manager]\nDefaultEnvironment=OS_DEFAULT__X=2\n",
            },
            "2",
        ),
        (
            {
                "etc/systemd/system.conf": "[Manager]\nDefaultEnvironment=OS_DEFAULT__X=1\n",
                "etc/systemd/system.conf.d/a.conf": "[Manager]\nDefaultEnvironment=\n",
            },
            None,
        ),
        (
            {
                "etc/systemd/system.conf": "[Manager]\nDefaultEnvironment=OS_DEFAULT__X=1\n",
                DROP: "[Service]\nEnvironment=OS_DEFAULT__X=3\n",
            },
            "3",
        ),
        (
            {
                "etc/systemd/system.conf": "[Manager]\nDefaultEnvironment=OS_DEFAULT__X=1\n",
                DROP: "[Service]\nUnsetEnvironment=A OS_DEFAULT__X\n",
            },
            None,
        ),
        ({DROP: "[Service]\nEnvironment=OS_DEFAULT__X=1\nUnsetEnvironment=OS_DEFAULT__X=2\n"}, "1"),
        ({DROP: "[Service]\nEnvironment=OS_DEFAULT__X=a%%40b\n"}, "a%40b"),
        ({"srv/api.ini": "[uwsgi]\nenv = OS_DEFAULT__X=a%%40b=\n"}, "a%40b="),
        ({"srv/api.ini": "[uwsgi]\nhost = h\n  env=OS_DEFAULT__X=0\nenv=OS_DEFAULT__X=%(host)/\n"}, "h/"),
        ({"srv/api.ini": "[uwsgi]\n;env = OS_DEFAULT__X=1\n[other]\nenv = OS_DEFAULT__X=1\n"}, None),
        ({"srv/api.ini": "[uwsgi]\nenv = OS_DEFAULT__X = 1\n"}, None),  # uWSGI makes the blank a part of the name
        (
            {API: "[Service]\nExecStart=/usr/bin/uwsgi --ini /srv/a.ini:b\n", "srv/a.ini": "[b]\nenv=OS_DEFAULT__X=1"},
            "1",
        ),
        ({API: "[Service]\nExecStart=/usr/bin/uwsgi --env OS_DEFAULT__X=1 --ini /srv/a.ini\n"}, "1"),
        (
            {"srv/api.ini": "[uwsgi]\nini = /b.ini\n", "b.ini": "[uwsgi]\nini = /srv/api.ini\nenv=OS_DEFAULT__X=1\n"},
            "1",
        ),
        ({"srv/api.ini": "[uwsgi]\nini=/b\nini=/b\nenv=OS_DEFAULT__X=2\n", "b": "[uwsgi]\nenv=OS_DEFAULT__X=1\n"}, "2"),
        (
            {"srv/api.ini": "[uwsgi]\nenv = A=1\nenv=OS_DEFAULT__X=$(HOST)/$(NO)\n", DROP: "Environment=HOST=h\n"},
            "h/$(NO)",
        ),
        ({**DEBIAN_API, "etc/nova/nova-api-uwsgi.ini": "[uwsgi]\nenv = OS_DEFAULT__X=1\n"}, "1"),
        ({**DEBIAN_API, "etc/default/nova-api": "export OS_DEFAULT__X='1'\n"}, "1"),
        ({**DEBIAN_API, "etc/default/nova-api": "OS_DEFAULT__X=1\n"}, None),  # the daemon gets no other
        ({"etc/default/nova-api": "export OS_DEFAULT__X=1\n"}, None),  # nobody sources it
    ],
)
def test_where_the_environment_comes_from(tmp_path: pathlib.Path, files: dict[str, str], value: str | None) -> None:
    """How uWSGI reads its file; observed with 2.0.21."""
    put(tmp_path, {**WSGI, **files})
    found = {v.name: v.value for v in sources.variables(["nova-api"], tmp_path)}
    assert found.get("OS_DEFAULT__X") == value


def test_an_init_script_alone_is_a_unit(tmp_path: pathlib.Path) -> None:
    """systemd makes one of it, which has DefaultEnvironment= and drop-ins too."""
    put(tmp_path, {"etc/init.d/nova-api": "", "etc/systemd/system.conf": "DefaultEnvironment=OS_DEFAULT__X=1\n"})
    assert [v.path for v in sources.variables(["nova-api", "nova-compute"], tmp_path)] == ["/etc/systemd/system.conf"]


def test_what_apachectl_sources(tmp_path: pathlib.Path) -> None:
    """Apache hands its own environment on (run: 2.4), and SetEnv does not make one."""
    unit = "[Service]\nExecStart=/usr/sbin/apachectl start\n"
    put(tmp_path, {"lib/systemd/system/apache2.service": unit})
    put(tmp_path, {"etc/apache2/sites-enabled/nova.conf": "SetEnv OS_DEFAULT__A 1\n"})
    put(tmp_path, {"etc/apache2/envvars": "# export OS_DEFAULT__X=2\nexport OS_DEFAULT__X=1\n# OS_DEFAULT__X=\n"})
    (found,) = sources.variables(["apache2"], tmp_path)
    assert (found.key, found.value, found.path, found.line) == ("x", "1", "/etc/apache2/envvars", 2)


def env(value: str) -> dict[str, str]:
    return {**WSGI, DROP: f"[Service]\nEnvironment={value}\n"}


BOTH = "OS_NOVA_CONFIG_DIR=/srv OS_NOVA_CONFIG_FILES=/etc/nova/nova.conf;api.conf"


@pytest.mark.parametrize(
    ("files", "after"),
    [
        (env(BOTH), {"/srv/api.conf": True}),
        (env("OS_NOVA_CONFIG_FILES=first.conf;nova.conf"), {"/etc/nova/first.conf": False}),
        (env("OS_NOVA_CONFIG_FILES="), {"/usr/share/nova/nova-dist.conf": False, "/etc/nova/nova-api.conf": True}),
        (env("OS_NOVA_CONFIG_DIR=/srv"), {"/srv/api-paste.ini": True, "/srv/nova.conf": True}),
        (env("OS_NOVA_CONFIG_DIR=/etc/nova"), {"/etc/nova/api-paste.ini": False}),
        (env("OS_GLANCE_CONFIG_DIR=/srv"), {"/etc/nova/nova-api.conf": True, "/srv/glance-api.conf": None}),
        ({**WSGI, "srv/api.ini": "[uwsgi]\nenv = OS_NOVA_CONFIG_FILES=nova.conf;b.conf\n"}, {"/etc/nova/b.conf": True}),
        (
            {**DEBIAN_API, "etc/nova/nova-api-uwsgi.ini": f"[uwsgi]\nenv = {BOTH.split()[1]}\n"},
            {"/etc/nova/api.conf": True},
        ),
        (
            {
                **WSGI,
                "srv/api.ini": "[uwsgi]\npyargv = --config-file=/etc/nova/nova.conf --config-dir /srv/d\n",
                "srv/d/a.conf": "",
            },
            {"/srv/d/a.conf": True, "/etc/nova/nova-api.conf": None},
        ),
        # No WSGI program: its own main() does not look at the variables.
        (
            {API: "[Service]\nExecStart=/usr/bin/nova-api\nEnvironment=OS_NOVA_CONFIG_DIR=/srv\n"},
            {"/srv/nova.conf": None},
        ),
    ],
)
def test_files_that_the_environment_names(
    tmp_path: pathlib.Path, files: dict[str, str], after: dict[str, bool | None]
) -> None:
    put(tmp_path, files)
    found = {s.path: s.after for s in sources.other_files("/etc/nova/nova.conf", ["nova-api"], tmp_path)}
    assert {path: found.get(path) for path in after} == after
    assert ("/usr/share/nova/nova-dist.conf" in found) is ("/etc/nova/nova-api.conf" in found)


@pytest.mark.parametrize(
    ("own", "unit", "variable", "read"),
    [
        (
            "/etc/neutron/neutron.conf",
            "neutron-api",
            "OS_NEUTRON_CONFIG_FILES=neutron.conf;x.ini",
            "/etc/neutron/x.ini",
        ),
        ("/etc/neutron/neutron.conf", "neutron-api", "OS_NEUTRON_CONFIG_DIR=/srv", "/srv/plugins/ml2/ml2_conf.ini"),
        ("/etc/keystone/keystone.conf", "apache2", "OS_KEYSTONE_CONFIG_DIR=/srv", "/srv/keystone.conf"),
        ("/etc/keystone/keystone.conf", "apache2", "OS_KEYSTONE_CONFIG_FILES=/srv/k;x", "/srv/k"),
        ("/etc/glance/glance-api.conf", "glance-api", "OS_GLANCE_CONFIG_DIR=/srv", "/srv/glance-image-import.conf"),
        ("/etc/designate/designate.conf", "designate-api", "OS_DESIGNATE_CONFIG_DIR=/srv", "/srv/designate.conf"),
        ("/etc/masakari/masakari.conf", "masakari-api", "OS_MASAKARI_CONFIG_DIR=/srv", "/srv/masakari.conf"),
        ("/etc/ironic/ironic.conf", "ironic-conductor", "IRONIC_CONFIG_FILE=/srv/i.conf", "/srv/i.conf"),
        ("/etc/ironic/ironic.conf", "ironic-conductor", "IRONIC_CONFIG_DIR=/srv", "/srv/snippet.conf"),
    ],
)
def test_variables_of_each_project(tmp_path: pathlib.Path, own: str, unit: str, variable: str, read: str) -> None:
    programs = {"apache2": "/usr/sbin/apachectl start", "ironic-conductor": "/usr/bin/ironic-conductor"}
    program = programs.get(unit, "/usr/bin/uwsgi")
    put(tmp_path, {f"lib/systemd/system/{unit}.service": f"[Service]\nExecStart={program}\nEnvironment={variable}\n"})
    put(tmp_path, {"srv/snippet.conf": ""})
    assert {s.path: s.after for s in sources.other_files(own, [unit], tmp_path)}.get(read) is True


def test_a_service_that_does_not_read_our_file(tmp_path: pathlib.Path) -> None:
    node = helpers.machine(tmp_path)
    put(node.root, {**env("OS_NOVA_CONFIG_DIR=/srv"), "srv/nova.conf": "[DEFAULT]\n"})
    metadata = node.metadata(helpers.dual())
    for command in ("plan", "apply"):
        done = node.run(command, "--node", "cmp-0", metadata)
        assert done.returncode == 0 and f"{node.root / DROP}:2: nova-api reads the files" in done.stderr, done.stderr
        assert "OS_NOVA_CONFIG_DIR names here, and does not read /etc/nova/nova.conf" in done.stderr
    verified = node.run("verify", "--node", "cmp-0", "--timeout", "1", metadata)
    assert verified.returncode == 3 and f"{node.root / DROP}:2: nova-api reads" in verified.stderr
    (node.root / "srv/nova.conf").unlink()
    (node.root / "srv/nova.conf").symlink_to("../etc/nova/nova.conf")
    assert node.run("plan", "--node", "cmp-0", metadata).stderr.count("nova-api") == 0
    put(node.root, {**env("OS_NOVA_CONFIG_FILES=nova.conf;b.conf"), "etc/nova/b.conf": URL})
    done = node.run("plan", "--node", "cmp-0", metadata)
    assert f"{node.root}/etc/nova/b.conf:3: nova-api also reads" in done.stderr and "and not" not in done.stderr


def test_variables_that_are_no_options(tmp_path: pathlib.Path) -> None:
    unit = "[Service]\nEnvironment=OS_CLOUD=x OS_A_B__C_D__E=1 OS__X=2 os_a__b=3 OS_DEFAULT__X=\n"
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system/x.service").write_text(unit)
    found = {(v.section, v.key): v.value for v in sources.variables(["x", "y"], tmp_path)}
    assert found == {("a_b", "c_d__e"): "1", ("DEFAULT", "x"): ""}


def test_blank_lines_take_no_quadratic_time(tmp_path: pathlib.Path) -> None:
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system/x.service").write_text("[Service]\nEnvironmentFile=/etc/x\n")
    (tmp_path / "etc/x").write_text("OS_DEFAULT__X=1" + "\n" * 20_000 + "x\n")
    begun = time.process_time()
    (found,) = sources.variables(["x"], tmp_path)
    assert found.line == 1 and time.process_time() - begun < 2


def test_verify_calls_it_a_fault(tmp_path: pathlib.Path) -> None:
    node = helpers.machine(tmp_path)
    for name, content in {**BY_SCRIPT, "etc/nova/nova-compute.conf": URL}.items():
        (node.root / name).parent.mkdir(parents=True, exist_ok=True)
        (node.root / name).write_text(content)
    done = node.run("verify", "--node", "cmp-0", "--timeout", "1", node.metadata(helpers.default()))
    assert done.returncode == 3 and "error: " in done.stderr
    assert "nova-compute.conf:3: nova-compute also reads this file" in done.stderr


@pytest.mark.parametrize(
    ("service", "text"),
    [
        ("ceilometer", "[notification]\nmessaging_urls = rabbit://old/\n"),
        ("octavia", "[oslo_messaging]\nevent_stream_transport_url = rabbit://old/\n"),
        ("murano", "[rabbitmq]\nhost = old\n"),
        ("nova", "[audit_middleware_notifications]\ntransport_url = rabbit://old/\n"),
    ],
)
def test_a_transport_of_its_own(tmp_path: pathlib.Path, service: str, text: str) -> None:
    node = helpers.machine(tmp_path)
    file = node.root / f"etc/{service}/{service}.conf"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    for command in ("plan", "apply"):
        done = node.run(command, "--node", "cmp-0", node.metadata(helpers.dual()))
        assert done.returncode == 0 and "second transport URL" in done.stderr
        assert "rabbit://old" not in done.stderr


def test_a_message_is_tried_out_with_the_files_that_the_service_reads(tmp_path: pathlib.Path) -> None:
    """Only files with messaging keys, in the order of their precedence."""
    texts = {
        **unit(RDO),
        "usr/share/nova/nova-dist.conf": DRIVER,
        "etc/nova/nova.conf": URL,
        "etc/nova/dir/a.conf": URL,
        "etc/nova/dir/b.conf": "[DEFAULT]\ndebug = true\n",
    }
    for name, content in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    d = parse.deployment(helpers.default())
    jobs = list(messages._jobs(d, helpers.plan_for(helpers.default(), "cmp-0", helpers.host("nova")), tmp_path, ()))
    names = ("usr/share/nova/nova-dist.conf", "etc/nova/nova.conf", "etc/nova/dir/a.conf")
    assert [job.config for job in jobs] == [tuple(str(tmp_path / name) for name in names)]


def test_one_url_is_tried_out_once(tmp_path: pathlib.Path) -> None:
    """One URL is tested once, even if many services have it and read the same file before their own."""
    for service in ("nova", "neutron"):
        texts = {
            f"etc/{service}/{service}.conf": URL,
            "srv/first.conf": DRIVER,
            f"usr/lib/systemd/system/{service}-{'compute' if service == 'nova' else 'server'}.service": "[Service]\n"
            f"ExecStart=/usr/bin/x --config-file /srv/first.conf --config-file /etc/{service}/{service}.conf\n",
        }
        for name, content in texts.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
    d = parse.deployment(helpers.default())
    planned = helpers.plan_for(helpers.default(), "cmp-0", helpers.host("nova", "neutron"))
    (job,) = messages._jobs(d, planned, tmp_path, ())
    assert job.config[0] == str(tmp_path / "srv/first.conf") and len(job.config) == 2


NEUTRON = {
    "etc/neutron/neutron.conf": "[DEFAULT]\n",
    "lib/systemd/system/neutron-api.service": "[Service]\nExecStart=/etc/init.d/neutron-api systemd-start\n",
    "etc/init.d/neutron-api": "UWSGI_PORT=9696\nUWSGI_INI_PATH=/etc/neutron/neutron-api-uwsgi.ini\n",
}
BY_NAME = {
    "etc/neutron/neutron.conf": "[DEFAULT]\n",
    "etc/systemd/system/neutron-api.service": "[Service]\nExecStart=/usr/bin/uwsgi --ini /srv/api.ini\n",
}
INI = "[uwsgi]\n# threads = 64\nenable-threads = true\nthreads = {}\nprocesses = 8\n"


@pytest.mark.parametrize(
    ("files", "ini", "threads", "told"),
    [
        (NEUTRON, "etc/neutron/neutron-api-uwsgi.ini", "32", True),
        (NEUTRON, "etc/neutron/neutron-api-uwsgi.ini", "1", False),
        (NEUTRON, "etc/neutron/neutron-api-uwsgi.ini", "many", False),
        (NEUTRON, "etc/neutron/other.ini", "32", False),
        ({**NEUTRON, "etc/default/neutron-api": "UWSGI_INI_PATH=/srv/api.ini\n"}, "srv/api.ini", "32", True),
        (BY_NAME, "srv/api.ini", "2", True),
        ({"etc/neutron/neutron.conf": ""}, "etc/neutron/neutron-api-uwsgi.ini", "32", False),
        ({**NEUTRON, "etc/init.d/neutron-api": "UWSGI_PORT=9696\n"}, "etc/neutron/neutron-api-uwsgi.ini", "32", False),
    ],
)
def test_threads_of_uwsgi(tmp_path: pathlib.Path, files: dict[str, str], ini: str, threads: str, told: bool) -> None:
    for name, content in {**files, ini: INI.format(threads)}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    found = sources.threads(["neutron-api", "neutron-rpc-server"], tmp_path)
    assert found == ((sources.Threaded(f"/{ini}", 4, int(threads)),) if told else ())


@pytest.mark.parametrize("over_router", [True, False])
def test_threads_that_eventlet_and_uwsgi_both_make(tmp_path: pathlib.Path, over_router: bool) -> None:
    """Such threads are harmless with RabbitMQ."""
    node = helpers.machine(tmp_path)
    ini = "etc/neutron/neutron-api-uwsgi.ini"
    for name, content in {**NEUTRON, ini: INI.format(32)}.items():
        (node.root / name).parent.mkdir(parents=True, exist_ok=True)
        (node.root / name).write_text(content)
    metadata = node.metadata(helpers.dual() if over_router else helpers.default())
    said = f"{node.root / ini}:4: uWSGI serves neutron-api with 32 threads"
    done = node.run("apply", "--node", "cmp-0", metadata)
    assert done.returncode == 0 and (said in done.stderr) is over_router, done.stderr
    verified = node.run("verify", "--node", "cmp-0", "--timeout", "1", metadata)
    assert (f"error: {said}" in verified.stderr) is over_router, verified.stderr


NUL_UNITS = (
    "/usr/bin/uwsgi --ini /etc/a\0b.ini",
    "x --config-file /etc/a\0.conf --config-dir /etc/\0b/",
    "/usr/bin/a\0b",
)
CHAIN = {"etc/u.ini": "".join(f"[s{i}]\nini = /etc/u.ini:s{i + 1}\nthreads = 2\n" for i in range(3000))}
HUGE = "9" * 6000
TOWER = f'Environment="A=--config-file=/srv/x.conf {"$A" * 400}"\nExecStart=/usr/bin/nova-api $A\n'
UWSGI_TOWER = f"[uwsgi]\na = {'%(a)' * 100}{'x' * 3000}\n" + f"env = OS_DEFAULT__HOST={'%(a)' * 400}\n"


@pytest.mark.parametrize(
    ("said", "files"),
    [
        *((f"ExecStart={command}\n", {}) for command in NUL_UNITS),
        ("EnvironmentFile=/etc/a\0b\nEnvironmentFile=/" + "a" * 5000 + "\nExecStart=/usr/bin/nova-api\n", {}),
        ("ExecStart=/usr/bin/uwsgi --ini /etc/u.ini:s0\n", CHAIN),
        ("ExecStart=/usr/bin/uwsgi --ini /etc/u.ini\n", {"etc/u.ini": f"[uwsgi]\nthreads = {HUGE}\n"}),
        (f"ExecStart=/etc/init.d/{'a' * 5000} --config-file /{'b' * 5000}\n", {}),
        (TOWER, {}),
        ("ExecStart=/usr/bin/uwsgi --ini /etc/u.ini\n", {"etc/u.ini": UWSGI_TOWER}),
        ("ExecStart=/usr/bin/uwsgi --ini /etc/u.ini\n", {"etc/u.ini": f"[uwsgi]\na = x{' ' * 500_000}y\n"}),
        ("Environment=A=1\n" * 50_000 + "ExecStart=/usr/bin/nova-api\n" * 10, {}),
        ("".join(f"Environment=OS_A__B{i}=1\n" for i in range(20_000)) + "ExecStart=/usr/bin/nova-api\n", {}),
        ("".join(f"UnsetEnvironment=A{i}\nEnvironment=B{i}=1\n" for i in range(20_000)), {}),
    ],
    ids=range(13),
)
def test_a_unit_that_nobody_writes(tmp_path: pathlib.Path, said: str, files: dict[str, str]) -> None:
    """A malformed unit neither ends nor delays a run."""
    _write(tmp_path, {"usr/lib/systemd/system/nova-api.service": f"[Service]\n{said}", **files})
    began = time.monotonic()
    own, units = "/etc/nova/nova.conf", ("nova-api",)
    for source in sources.other_files(own, units, tmp_path):
        assert "\0" not in source.path
    sources.variables(units, tmp_path)
    sources.elsewhere([own], units, tmp_path)
    for one in sources.threads(units, tmp_path):
        assert one.threads < 10**9
    assert time.monotonic() - began < 20


def _write(root: pathlib.Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def test_a_long_chain_of_sections_is_read_to_a_bound(tmp_path: pathlib.Path) -> None:
    _write(tmp_path, {"usr/lib/systemd/system/x.service": "[Service]\nExecStart=/usr/bin/uwsgi --ini /etc/u.ini:s0\n"})
    _write(tmp_path, {"etc/u.ini": "[s0]\nini = /etc/u.ini:s1\n[s1]\nini = /etc/u.ini:s0\nthreads = 4\n"})
    assert [one.threads for one in sources.threads(["x"], tmp_path)] == [4]


@pytest.mark.parametrize("size", [2**20 - 100, 2**20 + 1])
def test_a_unit_of_a_megabyte(tmp_path: pathlib.Path, size: int) -> None:
    """A larger one is not read, and its lines do not count."""
    text = "[Service]\nExecStart=/usr/bin/x --config-file /etc/x/x.conf --config-file /srv/x.conf\n"
    _write(tmp_path, {"usr/lib/systemd/system/x.service": text + "#" * (size - len(text))})
    paths = [source.path for source in sources.other_files("/etc/x/x.conf", ["x"], tmp_path)]
    assert ("/srv/x.conf" in paths) is (size <= 2**20)


def test_a_file_beside_the_own_one_that_is_too_large(tmp_path: pathlib.Path) -> None:
    text = "[Service]\nExecStart=/usr/bin/x --config-file /etc/x/x.conf --config-file /srv/{}.conf\n"
    _write(tmp_path, {"srv/big.conf": "", "usr/lib/systemd/system/x.service": text.format("big")})
    os.truncate(tmp_path / "srv/big.conf", 16 * 2**20 + 1)
    assert sources.other_files("/etc/x/x.conf", ["x"], tmp_path) == ()
    os.truncate(tmp_path / "srv/big.conf", 16 * 2**20)
    assert [s.path for s in sources.other_files("/etc/x/x.conf", ["x"], tmp_path)] == ["/srv/big.conf"]


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("ExecStart=/usr/bin/env OS_DEFAULT__X=1 A=b /usr/bin/nova-compute", "1"),
        ("ExecStart=env OS_DEFAULT__X='a b' nova-compute", "a b"),
        ("ExecStart=/usr/bin/nova-compute env OS_DEFAULT__X=1", None),
        ("EnvironmentFile=-/etc/default/%p\nExecStart=/usr/bin/x", "file"),
        ("EnvironmentFile=-/etc/default/%N\nExecStart=/usr/bin/x", "file"),
        ("EnvironmentFile=-/etc/default/%%p\nExecStart=/usr/bin/x", None),
    ],
)
def test_env_and_the_units_own_name(tmp_path: pathlib.Path, said: str, value: str | None) -> None:
    _write(tmp_path, {"etc/systemd/system/x.service": f"[Service]\n{said}\n"})
    _write(tmp_path, {"etc/default/x": "OS_DEFAULT__X=file\n"})
    assert [v.value for v in sources.variables(["x"], tmp_path)] == ([] if value is None else [value])


def test_the_units_own_name_in_a_path(tmp_path: pathlib.Path) -> None:
    _write(tmp_path, {"etc/systemd/system/x.service": "[Service]\nExecStart=/usr/bin/x --config-file /srv/%p.conf\n"})
    _write(tmp_path, {"srv/x.conf": URL})
    assert "/srv/x.conf" in [s.path for s in sources.other_files("/etc/x/x.conf", ["x"], tmp_path)]


@pytest.mark.parametrize("lines", [1, 1001])
def test_a_thousand_environment_files_are_read_at_most(tmp_path: pathlib.Path, lines: int) -> None:
    pattern = "/etc/x.d/*" if lines == 1 else "/etc/x.d/0001"
    _write(tmp_path, {"etc/systemd/system/x.service": "[Service]\n" + f"EnvironmentFile={pattern}\n" * lines})
    _write(tmp_path, {f"etc/x.d/{n:04}": f"OS_DEFAULT__X{n}=1\n" for n in range(1, 1005)})
    assert len(sources.variables(["x"], tmp_path)) == (999 if lines == 1 else 1)


@pytest.mark.parametrize("said", ["--config-dir /../../../out", "--config-dir /link", "--config-file /link/a.conf"])
def test_nothing_is_read_outside_of_the_root(tmp_path: pathlib.Path, said: str) -> None:
    root = tmp_path / "root"
    text = f"[Service]\nEnvironmentFile=/../out/e*\nEnvironmentFile=/link/e\nExecStart=/usr/bin/x {said} $A\n"
    _write(root, {"usr/lib/systemd/system/x.service": text})
    _write(tmp_path, {"out/a.conf": URL, "out/e": "OS_DEFAULT__DEBUG=1\nA=--config-file /srv/x.conf\n"})
    (root / "link").symlink_to(tmp_path / "out")
    paths = {source.path for source in sources.other_files("/etc/x/x.conf", ["x"], root)}
    assert paths <= {"/usr/share/x/x-dist.conf"}  # the usual one
    assert sources.variables(["x"], root) == ()
    (root / "out").mkdir()  # below the root it is read
    _write(root, {"out/e": "OS_DEFAULT__DEBUG=1\n"})
    assert [v.path for v in sources.variables(["x"], root)] == ["/out/e"]


@pytest.mark.parametrize("place", ["etc/fifo", "etc/passwd", "etc/os-release"])
@pytest.mark.parametrize("said", ["EnvironmentFile=/etc/fifo\nExecStart=/usr/bin/x", "ExecStart=uwsgi --ini /etc/fifo"])
def test_a_pipe_keeps_nobody_waiting(tmp_path: pathlib.Path, place: str, said: str) -> None:
    node = helpers.machine(tmp_path)
    _write(node.root, {"usr/lib/systemd/system/nova-compute.service": f"[Service]\n{said}\n"})
    os.mkfifo(node.root / place)
    done = node.run("plan", "--node", "cmp-0", node.metadata(helpers.dual()))
    assert done.returncode == 0, done.stderr
