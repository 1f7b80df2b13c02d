"""Files and hieradata: modes, owners, units, and that hiera and the router read what was meant."""

from __future__ import annotations

import hashlib
import json
import re

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st
from om_agent import model, render
from om_agent.plan import layout, router

from tests.support import helpers

QUICK = hypothesis.settings(max_examples=100, deadline=None)
put = helpers.put
PEM = helpers.with_tls(helpers.dual(), "pem")


def files(raw: object, node: str = "ctl-0", machine: layout.Host | None = None) -> dict[str, render.File]:
    found = helpers.rendered(raw, node, machine).files
    assert len({f.path for f in found}) == len(found), "a file is written twice"
    return {f.path: f for f in found}


def digests(rendered: render.Rendered) -> dict[str, str]:
    return {f.path: hashlib.sha256(f.content or b"").hexdigest() for f in rendered.files}


def hieradata(raw: object, node: str = "ctl-0", machine: layout.Host | None = None) -> dict[str, object]:
    machine = machine or helpers.host("nova", "swift")
    rendered = helpers.rendered(raw, node, machine)
    found = json.loads(render.hieradata(rendered, machine, digests(rendered), ()))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("raw", [helpers.default(), helpers.dual(), PEM, helpers.with_tls(helpers.dual())])
def test_no_secret_is_in_a_file_that_may_be_shown_or_read_by_the_world(raw: helpers.Raw) -> None:
    for f in files(raw).values():
        if not f.secret:
            assert b"secret" not in (f.content or b"") and b"PRIVATE KEY" not in (f.content or b"")
        assert not f.secret or f.mode & 0o007 == 0
        assert f.mode & 0o022 == 0


def test_a_node_without_router_and_broker_has_no_files() -> None:
    alone = {"compute": "none"}
    assert files(put(helpers.dual(), "router.roles", alone), "cmp-0") == {}
    assert list(files(put(PEM, "router.roles", alone), "cmp-0")) == [layout.CA_FILE]


def test_files_of_a_router() -> None:
    found = files(helpers.dual(), "ctl-1")
    base = "/etc/qpid-dispatch/"
    assert [p for p in found if p.startswith(base)] == [
        base + "sasl2/users.sasldb",
        base + "sasl2/qdrouterd.conf",
        *(base + f"mesh/{name}.pem" for name in ("ca", "certificate", "key")),
        base + "qdrouterd.json",
    ]
    users = found[base + "sasl2/users.sasldb"]
    assert users.content is None and [u.name for u in users.users] == ["rpc", "router-admin"]
    key, pem = found[base + "mesh/key.pem"], files(PEM)[base + "tls/key.pem"]
    assert (key.owner, key.group, key.mode, key.secret) == (pem.owner, pem.group, pem.mode, pem.secret)
    assert (key.group, key.mode, key.secret) == ("qdrouterd", 0o640, True)


def test_the_router_file_is_json_with_an_entity_a_line() -> None:
    content = files(helpers.dual(), "ctl-2")["/etc/qpid-dispatch/qdrouterd.json"].content
    assert content is not None
    entities = json.loads(content)
    assert all(len(e) == 2 and isinstance(e[1], dict) for e in entities)
    assert len(content.splitlines()) == len(entities) + 2


def test_sasl_options() -> None:
    content = files(helpers.dual())["/etc/qpid-dispatch/sasl2/qdrouterd.conf"].content
    options = dict(line.split(": ", 1) for line in (content or b"").decode().splitlines() if line[0] != "#")
    assert options["sasldb_path"] == "/etc/qpid-dispatch/sasl2/users.sasldb"
    assert set(options["mech_list"].split()) == {"PLAIN", "EXTERNAL"}


@pytest.mark.parametrize(
    "router",
    [{"engine": "embedded", "mesh_password": "m"}, {**dict.fromkeys(model.MESH_FILES, "/x"), "admin_password": "a"}],
    ids=["no mesh", "the operator's own"],
)
def test_no_certificates_of_the_mesh(router: helpers.Raw) -> None:
    assert not [p for p in files({**helpers.dual(1), "router": router}) if "/mesh/" in p]


def test_pem_is_written_for_each_who_needs_it() -> None:
    found = files(PEM)
    written = [p for p in found if p.endswith(".pem") and "/mesh/" not in p]
    assert written == [
        layout.CA_FILE,
        *(f"/etc/qpid-dispatch/tls/{n}.pem" for n in ("ca", "certificate", "key")),
        *(f"/etc/rabbitmq/tls/{n}.pem" for n in ("ca", "certificate", "key")),
    ]
    assert found["/etc/rabbitmq/tls/key.pem"].group == "rabbitmq"
    assert not [p for p in files(helpers.with_tls(helpers.dual())) if p.endswith(".pem") and "/mesh/" not in p]


def test_units_restart_for_their_files_but_not_for_passwords() -> None:
    units = {u.name: set(u.files) for u in helpers.rendered(helpers.dual(), "ctl-0").units}
    assert set(units) == {"qdrouterd", "rabbitmq-server"}
    assert "/etc/qpid-dispatch/qdrouterd.json" in units["qdrouterd"]
    assert "/etc/qpid-dispatch/sasl2/users.sasldb" not in units["qdrouterd"]
    assert "/etc/rabbitmq/rabbitmq.conf" in units["rabbitmq-server"]


def test_a_units_digest_depends_on_every_file_and_not_on_their_order() -> None:
    unit = render.Unit("u", ("/b", "/a"))
    first = render.unit_digest(unit, {"/a": "1", "/b": "2", "/c": "3"})
    assert first == render.unit_digest(render.Unit("u", ("/a", "/b")), {"/b": "2", "/a": "1"})
    assert (
        len({first, render.unit_digest(unit, {"/a": "2", "/b": "2"}), render.unit_digest(unit, {"/a": "1", "/b": "1"})})
        == 3
    )
    assert re.fullmatch("[0-9a-f]{64}", first)


def test_what_is_required_is_named_once() -> None:
    required = helpers.rendered(helpers.with_tls(helpers.dual()), "ctl-0").requires
    assert len(set(required)) == len(required)
    assert {r.path for r in required} == {"/etc/pki/tls/ca.pem", "/etc/pki/tls/node.pem", "/etc/pki/tls/node.key"}
    clients = put(helpers.with_tls(helpers.dual()), "router.clients", "mesh")
    compute = helpers.rendered(clients, "cmp-0").requires
    assert [(r.path, r.what, r.key) for r in compute] == [("/etc/pki/tls/ca.pem", "the clients", "tls.ca_file")]


# -- hieradata -------------------------------------------------------------------------------------------------------


def test_hieradata() -> None:
    machine = helpers.host("nova", target="/mnt", gids={"nova": 42}, manage_services=True)
    data = hieradata(helpers.dual(), machine=machine)
    assert set(data) == {f"om_messaging::{n}" for n in ("config_files", "units", "manage_service", "state_dir")}
    files_ = data["om_messaging::config_files"]
    assert isinstance(files_, dict) and list(files_) == ["/mnt/etc/nova/nova.conf"]
    nova = files_["/mnt/etc/nova/nova.conf"]
    assert (nova["mode"], nova["group"]) == ("0640", "42") and "owner" not in nova
    assert "nova-compute" in nova["units"]
    assert nova["settings"]["oslo_messaging_amqp"]["ssl"] is None
    assert data["om_messaging::manage_service"] is True
    assert data["om_messaging::state_dir"] == "/mnt/var/lib/om-agent/units"


@pytest.mark.parametrize(("mode", "text"), [(0o640, "0640"), (0o600, "0600"), (0o0, "0000"), (0o4750, "4750")])
def test_a_mode_as_puppet_takes_it(mode: int, text: str) -> None:
    machine = helpers.host("nova", existing={"/etc/nova/nova.conf": (mode, 0, 0)})
    files_ = hieradata(helpers.dual(), machine=machine)["om_messaging::config_files"]
    assert isinstance(files_, dict) and files_["/etc/nova/nova.conf"]["mode"] == text


def test_units_that_run_no_more_are_stopped() -> None:
    rendered = helpers.rendered(helpers.default(), "ctl-0")
    data = json.loads(render.hieradata(rendered, helpers.host(), digests(rendered), ["qdrouterd"]))
    units = data["om_messaging::units"]
    assert units["qdrouterd"] == {"enable": False, "ensure": "stopped"}
    assert units["rabbitmq-server"]["enable"] is True and len(units["rabbitmq-server"]["config_digest"]) == 64


def hiera(text: str) -> str:
    """Hiera's interpolation, as far as this project uses it; anything else would be an empty text."""
    return re.sub(r"%\{(.*?)\}", lambda m: "%" if m.group(1) == "literal('%')" else "", text)


@QUICK
@hypothesis.given(st.text(alphabet="%{}ax", max_size=12))
def test_hiera_reads_back_what_is_escaped_for_it(text: str) -> None:
    raw = put(put(helpers.with_tls(helpers.dual()), "tls.ca_file", "/" + text), "services", ["nova"])
    raw = put(raw, "router.clients", "mesh")
    machine = helpers.host("nova")
    rendered = helpers.rendered(raw, "cmp-0", machine)
    data = json.loads(hiera(render.hieradata(rendered, machine, {}, ()).decode()))
    settings = data["om_messaging::config_files"]["/etc/nova/nova.conf"]["settings"]
    assert settings["oslo_messaging_amqp"]["ssl_ca_file"] == "/" + text


def test_hiera_config() -> None:
    content = render.hiera_config(helpers.host(target='/mnt/with "quotes" and %')).content
    config = yaml.safe_load(content or b"")
    assert config["version"] == 5
    assert config["defaults"] == {
        "datadir": '/mnt/with "quotes" and %/etc/om-agent/hieradata',
        "data_hash": "json_data",
    }
    assert [level["path"] for level in config["hierarchy"]] == ["messaging.json"]


def test_a_fingerprint_tells_other_users_and_nothing_else() -> None:
    users = tuple(
        router.SaslUser(name, "overcloud", model.Secret(name + "-secret")) for name in ("rpc", "router-admin")
    )
    other = (users[0], router.SaslUser("router-admin", "overcloud", model.Secret("another")))
    prints = {render.fingerprint(u, k) for u in (users, users[:1], users[::-1], other) for k in (b"a", b"b")}
    assert len(prints) == 8
    assert render.fingerprint(users, b"a") == render.fingerprint(tuple(users), b"a")


def test_the_same_plan_gives_the_same_bytes() -> None:
    assert helpers.rendered(PEM, "ctl-1") == helpers.rendered(PEM, "ctl-1")
