"""Metadata files become the same raw dict as in os-apply-config, and no error quotes their content."""

from __future__ import annotations

import json
import pathlib
import typing

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st
from om_agent import errors, metadata, metadata_files, model, parse
from om_agent.plan import policy, router

from tests.support import helpers

QUICK = hypothesis.settings(max_examples=200, deadline=None)
CANARY = "Canary7Zq"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.lists(st.dictionaries(st.sampled_from("abcd"), JSON, max_size=4), max_size=4)


def write(directory: pathlib.Path, name: str, content: object) -> str:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(path)


def codes(function: typing.Callable[..., object], *arguments: object) -> list[tuple[str, str]]:
    """(path, code) of every problem that a call raises, none of which quotes the canary."""
    with pytest.raises(errors.InvalidInput) as caught:
        function(*arguments)
    assert CANARY not in str(caught.value)
    return [(p.path, p.code) for p in caught.value.problems]


# -- merging ---------------------------------------------------------------------------------------------------------


@QUICK
@hypothesis.given(DOCUMENTS)
def test_merged_as_os_apply_config_merges(documents: list[dict[str, object]]) -> None:
    theirs = pytest.importorskip("os_apply_config.collect_config")
    merged: object = {}
    for document in documents:
        merged = metadata.merge(merged, document)
    assert merged == theirs.merge_configs(documents)


def test_read_as_os_apply_config_reads(tmp_path: pathlib.Path) -> None:
    theirs = pytest.importorskip("os_apply_config.collect_config")
    documents: list[dict[str, typing.Any]] = [
        {"a": {"x": 1, "l": [1, 2]}, "b": 1},
        {"a": {"y": {"z": None}, "l": [3]}, "b": {"c": 1}},
        {"a": {"y": {"q": 1}}, "b": None},
    ]
    paths = [write(tmp_path, f"{i}.json", d) for i, d in enumerate(documents)]
    assert metadata.read(paths) == theirs.collect_config(paths)


def test_merging_leaves_its_arguments_alone() -> None:
    first: dict[str, typing.Any] = {"a": {"b": [1]}}
    metadata.merge(first, {"a": {"c": 2}})
    assert first == {"a": {"b": [1]}}


@pytest.mark.parametrize("content", [b"", b'""', b"''", b"\n", b"null", b"# nothing\n", b"---\n"])
def test_an_empty_file_adds_nothing(tmp_path: pathlib.Path, content: bytes) -> None:
    assert metadata.read([write(tmp_path, "a.json", {"a": 1}), write(tmp_path, "b.json", content)]) == {"a": 1}


def test_every_file_that_cannot_be_used_is_named(tmp_path: pathlib.Path) -> None:
    bad = [write(tmp_path, "a.json", b"{"), write(tmp_path, "b.json", [1]), str(tmp_path / "none.json")]
    assert codes(metadata.read, [*bad, write(tmp_path, "good.json", {})]) == [
        (bad[0], "not-json"),
        (bad[1], "not-a-mapping"),
        (bad[2], "unreadable"),
    ]


# -- one file --------------------------------------------------------------------------------------------------------

DEEP = 100_000
BAD: dict[str, tuple[bytes, str]] = {
    "half an object": (b'{"a": "Canary7Zq"', "not-json"),
    "a comma too many": (b'{"a": "Canary7Zq",}', "not-json"),
    "single quotes": (b"{'a': 'Canary7Zq'", "not-json"),
    "a key twice": (b'{"a": "Canary7Zq", "a": 1}', "duplicate-key"),
    "a key twice, deep": (b'{"x": [{"a": "Canary7Zq", "a": 1}]}', "duplicate-key"),
    "latin-1": ('{"a": "Canary7Zq\xe9"}'.encode("latin-1"), "not-utf8"),
    "UTF-16": ('{"a": "Canary7Zq"}'.encode("utf-16"), "not-utf8"),
    "deep lists": (b"[" * DEEP + b"]" * DEEP, "too-deep"),
    "deep objects": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, "too-deep"),
    "deep enough": (b'{"a":' * 70 + b"1" + b"}" * 70, "too-deep"),
    "YAML alias": (b"a: &x [Canary7Zq]\nb: *x\n", "yaml-alias"),
    "YAML bomb": (b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n", "yaml-alias"),
    "YAML key twice": (b"a: Canary7Zq\na: 2\n", "duplicate-key"),
    "YAML key twice, spelt apart": (b"a: Canary7Zq\n'a': 2\n", "duplicate-key"),
    "YAML key that is a list": (b"? [a]\n: Canary7Zq\n", "not-json"),
    "YAML key of a thousand digits": (b"? 0x" + b"f" * 5000 + b"\n: Canary7Zq\n", "not-json"),
    "YAML tab": (b"a:\n\t- Canary7Zq\n", "not-json"),
    "YAML object": (b"a: !!python/object/apply:os.system [Canary7Zq]\n", "not-json"),
    "YAML text that calls itself a mapping": (b"a: !!map Canary7Zq\n", "not-json"),
    "YAML number that is none": (b"a: !!int Canary7Zq\n", "no-value"),
    "YAML two documents": (b"a: Canary7Zq\n---\nb: 1\n", "not-json"),
    "YAML no such day": (b"a: 2026-13-45\n", "no-value"),
    "YAML 5000 digits": (b"a: " + b"9" * 5000 + b"\n", "no-value"),
    "YAML octal": (b"port: 05672\n", "yaml-number"),
    "YAML octal that is none": (b"port: 0\nlist: [1, 010]\n", "yaml-number"),
    "YAML base 60": (b"password: 22:22\n", "yaml-number"),
    "YAML base 60 with a fraction": (b"password: 190:20:30.15\n", "yaml-number"),
    "YAML base 2": (b"port: 0b101\n", "yaml-number"),
    "YAML underscore": (b"port: 5_672\n", "yaml-number"),
    "YAML underscore in a fraction": (b"port: 5_6.72\n", "yaml-number"),
    "YAML octal as a key": (b"010: Canary7Zq\n", "yaml-number"),
    "YAML merge key": (b"<<: {a: Canary7Zq}\n", "not-json"),
    "YAML control character": (b"a: Canary7Zq\x01\n", "not-json"),
    "YAML deep": (b"a: " + b"[" * 3000 + b"]" * 3000, "too-deep"),
}


@pytest.mark.parametrize("libyaml", [True, False])
@pytest.mark.parametrize(("data", "code"), BAD.values(), ids=BAD.keys())
def test_a_file_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, data: bytes, code: str, libyaml: bool) -> None:
    if not libyaml:
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert codes(metadata_files.parse_text, data, "m.json") == [("m.json", code)]


def test_the_place_of_a_fault_is_told() -> None:
    with pytest.raises(errors.InvalidInput, match="line 2, column 8"):
        metadata_files.parse_text(b'{\n  "a": x\n}', "m")
    with pytest.raises(errors.InvalidInput, match="line 2 refers"):
        metadata_files.parse_text(b"a: 1\nb: *x\n", "m")
    with pytest.raises(errors.InvalidInput, match="line 2, column 5 looks like a number or a date"):
        metadata_files.parse_text(b"a: 1\nb: [2026-13-45]\n", "m")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "-" + "9" * 100_000])
def test_a_number_that_is_none_is_told_by_its_key(number: str) -> None:
    text = f'{{"{metadata.KEY}": {{"rpc": {{"password": "x", "port": {number}}}, "nodes": [{{"name": "a"}}]}}}}'
    raw = metadata.select(typing.cast("dict[str, object]", metadata_files.parse_text(text.encode(), "m")), "a")
    with pytest.raises(errors.InvalidInput, match=r"^rpc\.port: a number that is not finite stands where a whole"):
        parse.deployment(raw)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b"a: {b: [1, two]}\n", {"a": {"b": [1, "two"]}}),
        (b"{a: 1}", None),
        (b"[]", []),
        (
            b"a: [0, 5672, -1, 1.5, 0.5, 0x1f, '05672', \"22:22\", 09, 1_a]",
            {"a": [0, 5672, -1, 1.5, 0.5, 31, "05672", "22:22", "09", "1_a"]},
        ),
        (b"'a'", "a"),
        (b"a: ${x} %{y}\n", {"a": "${x} %{y}"}),
        (b'{"a": 1e999}', {"a": float("inf")}),
        ('{"ключ": "значение"}'.encode(), {"ключ": "значение"}),
    ],
)
def test_what_can_be_read(data: bytes, value: object) -> None:
    if value is None:  # begins as JSON does, so it is told what is wrong with it as JSON
        assert codes(metadata_files.parse_text, data, "m") == [("m", "not-json")]
    else:
        assert metadata_files.parse_text(data, "m") == value


def test_twenty_levels_are_plenty() -> None:
    value: object = 1
    for level in range(40):
        inner: object = [value] if level % 4 == 0 else value
        value = {"a": inner}
    assert metadata_files.parse_text(json.dumps(value).encode(), "m") == value


@pytest.mark.parametrize("name", ["", ".", "\0", "no/such/file"])
def test_what_is_no_file(tmp_path: pathlib.Path, name: str) -> None:
    path = f"{tmp_path}/{name}"
    assert codes(metadata_files.read_file, path) == [(path, "unreadable")]


def test_ten_megabytes(tmp_path: pathlib.Path) -> None:
    big = {f"key{i}": {"value": [CANARY] * 10} for i in range(80_000)}
    path = write(tmp_path, "big.json", {**big, metadata.KEY: helpers.default()})
    assert pathlib.Path(path).stat().st_size > 10_000_000
    assert parse.deployment(metadata.select(metadata.read([path]), "ctl-0")).node == ""
    text = pathlib.Path(path).read_bytes()
    assert codes(metadata_files.parse_text, text[:-1], path) == [(path, "not-json")]
    assert codes(metadata_files.parse_text, text[:-1] + b"\xff", path) == [(path, "not-utf8")]


@QUICK
@hypothesis.given(st.text(alphabet="{}[]:,\"'&*!|>-#\n\t ab0", max_size=40))
def test_no_error_quotes_the_text(text: str) -> None:
    try:
        metadata_files.parse_text(f"{text}{CANARY}".encode(), "m")
    except errors.InvalidInput as e:
        # A key that stands twice is a name, and may be told.
        assert CANARY not in str(e) or [p.code for p in e.problems] == ["duplicate-key"]


# -- where from ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "files"), [("", ()), (":", ()), ("/a", ("/a",)), ("/a:/b", ("/a", "/b")), ("/a::/b:", ("/a", "/b"))]
)
def test_os_config_files(value: str, files: tuple[str, ...]) -> None:
    assert metadata_files.from_environment(value) == files


@pytest.mark.parametrize("place", metadata_files.OS_CONFIG_FILES_PATHS)
def test_the_list_of_os_collect_config(tmp_path: pathlib.Path, place: str) -> None:
    write(tmp_path, place, [str(tmp_path / "a.json"), "/var/lib/os-collect-config/b.json"])
    wanted = (str(tmp_path / "a.json"), str(tmp_path / "var/lib/os-collect-config/b.json"))
    assert metadata_files.from_list_file(tmp_path) == wanted


def test_no_list_and_an_empty_list_are_different(tmp_path: pathlib.Path) -> None:
    assert metadata_files.from_list_file(tmp_path) is None
    write(tmp_path, metadata_files.OS_CONFIG_FILES_PATHS[0], [])
    assert metadata_files.from_list_file(tmp_path) == ()


@pytest.mark.parametrize("content", [{}, [1], "x", [["a"]]])
def test_a_list_that_is_none(tmp_path: pathlib.Path, content: object) -> None:
    path = write(tmp_path, metadata_files.OS_CONFIG_FILES_PATHS[0], content)
    assert codes(metadata_files.from_list_file, tmp_path) == [(path, "wrong-type")]


def test_the_key_comes_first() -> None:
    merged: dict[str, object] = {metadata.KEY: {"a": 1}, "oslo_messaging_rpc_scheme": "amqp", "deployments": [{}]}
    assert metadata.select(merged, "h") == {"a": 1}


def test_an_empty_text_is_no_metadata() -> None:
    """Heat's optional parameters are '' by default."""
    assert metadata.select({metadata.KEY: ""}, "h") is None
    assert metadata.select({metadata.KEY: "", **HIERA}, "ctl-0") is not None
    deployment: dict[str, object] = {"config": {"a": 1}, "inputs": [{"name": metadata.KEY, "value": ""}]}
    assert metadata.from_deployment(deployment) == {"a": 1}


def test_metadata_of_others_says_nothing() -> None:
    assert metadata.select({}, "h") is None
    assert metadata.select({"deployments": [{"group": "script"}], "oslo_messaging_x_y": 1, "rpc": 1}, "h") is None
    assert metadata.select({"deployments": {"group": "om-messaging"}}, "h") is None


def test_the_newest_deployment_of_our_group() -> None:
    def deployment(group: str, name: str) -> dict[str, object]:
        return {"group": group, "config": {metadata.KEY: {"name": name}}}

    listed = [deployment("om-messaging", "old"), deployment("om-messaging", "new"), deployment("script", "other"), 7]
    assert metadata.select({"deployments": listed}, "h") == {"name": "new"}


@pytest.mark.parametrize(
    ("deployment", "value"),
    [
        ({"config": {"a": 1}}, {"a": 1}),
        ({"config": {metadata.KEY: {"a": 1}}}, {"a": 1}),
        ({"config": '{"a": 1}'}, {"a": 1}),
        ({"config": "oslo_messaging:\n  a: 1\n"}, {"a": 1}),
        ({"config": ""}, {}),
        ({}, {}),
        ({"inputs": [{"name": metadata.KEY, "value": {"a": 1}}]}, {"a": 1}),
        ({"inputs": [{"name": metadata.KEY, "value": '{"a": 1}'}]}, {"a": 1}),
        (
            {"config": {"a": {"x": 1}}, "inputs": [{"name": metadata.KEY, "value": {"a": {"y": 2}}}]},
            {"a": {"x": 1, "y": 2}},
        ),
        ({"config": {"a": 1}, "inputs": [{"name": "deploy_action", "value": "CREATE"}, 7, {}]}, {"a": 1}),
        ({"config": [1], "inputs": 7}, [1]),
    ],
)  # fmt: skip
def test_a_deployment(deployment: dict[str, object], value: object) -> None:
    assert metadata.from_deployment(deployment) == value


def test_a_deployment_that_cannot_be_read() -> None:
    assert codes(metadata.from_deployment, {"config": f"{{{CANARY}"}) == [("config", "not-json")]
    inputs = [{"name": metadata.KEY, "value": f"a: {CANARY}: b"}]
    assert codes(metadata.from_deployment, {"inputs": inputs}) == [("inputs.oslo_messaging", "not-json")]
    with pytest.raises(errors.InvalidInput):
        parse.deployment(metadata.from_deployment({"config": "\ud800"}))


# -- tripleo's hiera contract ----------------------------------------------------------------------------------------

HIERA: dict[str, object] = {
    "oslo_messaging_rpc_scheme": "amqp",
    "oslo_messaging_rpc_user_name": "guest",
    "oslo_messaging_rpc_password": "rpc-secret",
    "oslo_messaging_rpc_use_ssl": False,
    "oslo_messaging_rpc_port": 31459,
    "oslo_messaging_rpc_node_names": ["ctl-0.internalapi.localdomain", "ctl-1.internalapi.localdomain"],
    "oslo_messaging_rpc_node_ips": ["172.17.0.11", "172.17.0.12"],
    "oslo_messaging_notify_scheme": "rabbit",
    "oslo_messaging_notify_user_name": "notify",
    "oslo_messaging_notify_password": "notify-secret",
    "oslo_messaging_notify_use_ssl": False,
    "oslo_messaging_notify_port": "5672",
    "oslo_messaging_notify_node_names": ["ctl-0.internalapi.localdomain"],
    "oslo_messaging_router": {"mesh_password": "mesh-secret"},
    "nova::rabbit_password": "another",
}


def test_tripleos_contract() -> None:
    d = parse.deployment(metadata.select(HIERA, "ctl-1"))
    assert (d.rpc.scheme.value, d.rpc.username, d.rpc.password.reveal(), d.rpc.port) == (
        "amqp", "guest", "rpc-secret", 31459,
    )  # fmt: skip
    assert (d.notify.scheme.value, d.notify.username, d.notify.password.reveal()) == (
        "rabbit",
        "notify",
        "notify-secret",
    )
    assert d.rpc.hosts == ("ctl-0.internalapi.localdomain", "ctl-1.internalapi.localdomain")
    assert d.notify.nodes == ("ctl-0.internalapi.localdomain",)
    assert [n.address for n in d.nodes] == ["172.17.0.11", "172.17.0.12"]
    assert d.node == "ctl-1.internalapi.localdomain"
    assert d.router.mesh_password.reveal() == "mesh-secret" and d.router.clients is model.Clients.MESH


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "guest"),
        ({"user_name": "guest@overcloud"}, "guest"),
        ({"user_name": "guest@overcloud", "scheme": "rabbit"}, "guest@overcloud"),
        ({"user_name": "guest@overcloud", "hosts": ["router.example.com"]}, "guest@overcloud"),
    ],
)
def test_a_user_of_our_routers_comes_with_the_realm(given: dict[str, object], name: str) -> None:
    """puppet-tripleo writes the realm into URLs; the agent's URL always has it."""
    data = {**HIERA, **{f"oslo_messaging_rpc_{key}": value for key, value in given.items()}}
    raw = metadata.from_hiera(data, "ctl-1")
    assert typing.cast("dict[str, object]", raw["rpc"])["username"] == name
    if name == "guest":
        assert policy.login(parse.deployment(raw).rpc) == f"guest@{router.REALM}"


@pytest.mark.parametrize("section", ["router", "broker", "tls", "sites"])
def test_a_section_in_hiera_is_one_of_the_metadata(section: str) -> None:
    """The error for an unknown key names the section."""
    data = {**HIERA, f"oslo_messaging_{section}": {"mesh_password": "m", "nonsense": 1}}
    with pytest.raises(errors.InvalidInput) as caught:
        parse.deployment(metadata.from_hiera(data, "ctl-1"))
    assert (section, "unknown-key") in [(p.path, p.code) for p in caught.value.problems]
    wrong = {**HIERA, f"oslo_messaging_{section}": "text"}
    with pytest.raises(errors.InvalidInput) as caught:
        parse.deployment(metadata.from_hiera(wrong, "ctl-1"))
    assert (section, "wrong-type") in [(p.path, p.code) for p in caught.value.problems]


@pytest.mark.parametrize(
    ("hostname", "node"),
    [
        ("ctl-1", "ctl-1.internalapi.localdomain"),
        ("ctl-1.localdomain", "ctl-1.internalapi.localdomain"),
        ("ctl-1.internalapi.localdomain", "ctl-1.internalapi.localdomain"),
        ("ctl-10", "ctl-10"),
        ("ctl", "ctl"),
        ("cmp-0.localdomain", "cmp-0.localdomain"),
    ],
)
def test_this_node_by_its_whole_first_name(hostname: str, node: str) -> None:
    d = parse.deployment(metadata.from_hiera(HIERA, hostname))
    assert d.node == node
    assert bool(d.carried_by(d.by_name()[node], model.Scheme.AMQP)) is node.startswith("ctl-1.")


def test_a_whole_name_before_a_first_name() -> None:
    data = {**HIERA, "oslo_messaging_rpc_node_names": ["ctl.a", "ctl"], "oslo_messaging_rpc_node_ips": None}
    del data["oslo_messaging_notify_node_names"]
    assert metadata.from_hiera(data, "ctl")["node"] == "ctl"


@pytest.mark.parametrize(
    ("names", "addresses", "wrong"),
    [
        (["ctl-0", "ctl-1"], ["10.0.0.1", "10.0.0.2"], []),
        (["ctl-1", "ctl-0"], ["10.0.0.2", "10.0.0.1"], []),
        (["CTL-0.", "ctl-1"], ["::ffff:10.0.0.1", "::ffff:a00:2"], []),
        (["ctl-0", "ctl-1"], ["10.1.0.1", "10.1.0.2"], []),  # another network
        (["ctl-0", "ctl-1"], ["10.0.0.2", "10.0.0.1"], [0, 1]),
        (["ctl-0", "ctl-1"], ["10.1.0.1", "::FFFF:10.0.0.1"], [1]),
        (["ctl-1", "ctl-0"], None, []),
    ],
)
def test_two_nodes_with_each_others_address(names: list[str], addresses: list[str] | None, wrong: list[int]) -> None:
    """Where the halves have lists of two orders, one of the two nodes is reached for the other."""
    data = {
        **HIERA,
        "oslo_messaging_rpc_node_names": ["ctl-0", "ctl-1"],
        "oslo_messaging_rpc_node_ips": ["10.0.0.1", "10.0.0.2"],
        "oslo_messaging_notify_node_names": names,
        "oslo_messaging_notify_node_ips": addresses,
    }
    if wrong:
        expected = [(f"oslo_messaging_notify_node_ips[{i}]", "crossed-node") for i in wrong]
        assert codes(metadata.from_hiera, data, "ctl-0") == expected
    else:
        d = parse.deployment(metadata.from_hiera(data, "ctl-0"))
        assert [n.address for n in d.nodes] == ["10.0.0.1", "10.0.0.2"]


def test_rpc_alone_and_tls() -> None:
    data = {k: v for k, v in HIERA.items() if "notify" not in k}
    data["oslo_messaging_rpc_use_ssl"] = "True"
    prefix = "tripleo::profile::base::qdr::listener_ssl_"
    data |= {prefix + "cert_db": "/ca.pem", prefix + "cert_file": "/node.pem", prefix + "key_file": "/node.key"}
    d = parse.deployment(metadata.select(data, "ctl-0"))
    assert (d.tls.ca_file, d.tls.certificate_file, d.tls.key_file) == ("/ca.pem", "/node.pem", "/node.key")
    assert d.rpc.tls and d.notify.scheme is model.Scheme.AMQP


EDGES: dict[str, object] = {
    **HIERA,
    "oslo_messaging_rpc_edge_node_names": ["cmp-0.internalapi.localdomain", "ctl-0.internalapi.localdomain"],
    "oslo_messaging_rpc_edge_node_ips": ["172.17.0.51", "172.17.0.11"],
}


@pytest.mark.parametrize(
    ("hostname", "mode"), [("ctl-0", "interior"), ("ctl-1", "interior"), ("cmp-0", "edge"), ("cmp-1", "none")]
)
def test_edges_in_hiera(hostname: str, mode: str) -> None:
    """With edges, clients use the local router; who is neither edge nor interior has none. Interior comes first."""
    d = parse.deployment(metadata.from_hiera(EDGES, hostname))
    assert d.router.clients is model.Clients.LOCAL
    assert d.by_name()[d.node].router.value == mode
    assert [n.address for n in d.nodes][:3] == ["172.17.0.11", "172.17.0.12", "172.17.0.51"]


@pytest.mark.parametrize("hostname", ["ctl-0", "cmp-0", "cmp-1"])
def test_the_router_section_of_hiera_comes_before_what_edges_mean(hostname: str) -> None:
    router = {"mesh_password": "mesh-secret", "clients": "mesh", "engine": "skrouterd"}
    d = parse.deployment(metadata.from_hiera({**EDGES, "oslo_messaging_router": router}, hostname))
    assert d.router.clients is model.Clients.MESH and d.router.engine is model.Engine.SKROUTERD
    local = {**HIERA, "oslo_messaging_router": {**router, "clients": "local"}}
    d = parse.deployment(metadata.from_hiera(local, "cmp-1"))
    assert d.by_name()["cmp-1"].router is model.RouterMode.NONE  # and not an edge that nobody asked for


def test_roles_of_the_router_section_stay() -> None:
    router = {"mesh_password": "mesh-secret", "roles": {"storage": "none"}}
    raw = metadata.from_hiera({**EDGES, "oslo_messaging_router": router}, "cmp-1")
    assert typing.cast("dict[str, object]", raw["router"])["roles"] == {"client": "none", "storage": "none"}


@pytest.mark.parametrize("half", ["rpc", "notify"])
def test_external_hosts_in_hiera(half: str) -> None:
    """``node_names`` are there too, for puppet-tripleo, and are no nodes of this overcloud."""
    hosts = ["one.example.com", "two.example.com"]
    data = {**HIERA, f"oslo_messaging_{half}_hosts": hosts, f"oslo_messaging_{half}_node_names": hosts}
    d = parse.deployment(metadata.from_hiera(data, "cmp-0"))
    external = getattr(d, half)
    assert external.external and external.hosts == tuple(hosts)
    assert not set(hosts) & set(d.by_name())
    both = {**data, "oslo_messaging_rpc_hosts": hosts, "oslo_messaging_notify_hosts": hosts}
    d = parse.deployment(metadata.from_hiera(both, "cmp-0"))
    assert [n.name for n in d.nodes] == ["cmp-0"] and d.rpc.external and d.notify.external


def test_sites_in_hiera() -> None:
    sites = {"ctl-0": "dc1", "ctl-1.internalapi.localdomain": "dc2", "cmp-0": "dc1", "elsewhere": "dc3"}
    more = {"oslo_messaging_node_sites": sites, "oslo_messaging_sites": {"links": [{"between": ["dc1", "dc2"]}]}}
    d = parse.deployment(metadata.from_hiera({**EDGES, **more}, "cmp-0"))
    assert [n.site for n in d.nodes] == ["dc1", "dc2", "dc1"]
    assert [link.between for link in d.site_links] == [("dc1", "dc2")]
    for nothing in typing.cast("list[object]", [None, "", {}]):
        d = parse.deployment(metadata.from_hiera({**EDGES, "oslo_messaging_node_sites": nothing}, "cmp-0"))
        assert {n.site for n in d.nodes} == {""}
    for value in ("dc1", ["dc1"], 7):
        wrong = {**EDGES, "oslo_messaging_node_sites": value}
        assert codes(metadata.from_hiera, wrong, "cmp-0") == [("oslo_messaging_node_sites", "wrong-type")]


@pytest.mark.parametrize("key", [k for k in EDGES if k.startswith("oslo_messaging")])
@pytest.mark.parametrize("value", [7, "x y", [], {}, [[]], [None], None, True, f"{CANARY} \0"])
def test_nonsense_in_hiera_is_a_problem_and_no_crash(key: str, value: object) -> None:
    try:
        parse.deployment(metadata.select({**EDGES, key: value}, "ctl-0"))
    except errors.InvalidInput as e:
        assert e.problems and CANARY not in str(e)


def test_hieradata_in_the_order_of_hiera_yaml(tmp_path: pathlib.Path) -> None:
    base = tmp_path / metadata_files.HIERADATA_DIR
    for name in ("all_nodes", "controller", "heat_config_x", "unlisted"):
        write(base, f"{name}.json", {})
    write(base, "notes.txt", b"")
    named = {p.stem: str(p) for p in base.glob("*.json")}
    assert metadata_files.hieradata_files(tmp_path) == tuple(named[n] for n in sorted(named))
    config = b'---\n:backends: [json]\n:hierarchy:\n- "%{::uuid}"\n- heat_config_x\n- controller\n- gone\n- all_nodes\n'
    write(tmp_path, "etc/puppet/hiera.yaml", config)
    assert metadata_files.hieradata_files(tmp_path) == tuple(
        named[n] for n in ("all_nodes", "controller", "heat_config_x")
    )


def test_the_strongest_level_of_the_hierarchy_wins(tmp_path: pathlib.Path) -> None:
    base = tmp_path / metadata_files.HIERADATA_DIR
    write(base, "a.json", {**HIERA, "oslo_messaging_rpc_port": 1})
    write(base, "z.json", {"oslo_messaging_rpc_port": 2})
    write(tmp_path, "etc/puppet/hiera.yaml", b":hierarchy: [a, z]\n")
    assert metadata.read(metadata_files.hieradata_files(tmp_path))["oslo_messaging_rpc_port"] == 1


def test_no_hieradata(tmp_path: pathlib.Path) -> None:
    assert metadata_files.hieradata_files(tmp_path) == ()
    (tmp_path / metadata_files.HIERADATA_DIR).mkdir(parents=True)
    assert metadata_files.hieradata_files(tmp_path) == ()


# -- names in another case, and names that are not enough ------------------------------------------------------------

UPPER = {
    **EDGES,
    "oslo_messaging_rpc_node_names": ["CTL-0.InternalAPI.localdomain", "CTL-1.InternalAPI.localdomain"],
    "oslo_messaging_rpc_edge_node_names": ["CMP-0.InternalAPI.localdomain", "ctl-0.internalapi.localdomain"],
    "oslo_messaging_notify_node_names": ["ctl-0.internalapi.localdomain."],
    "oslo_messaging_node_sites": {"Ctl-0": "dc1", "CTL-1.internalapi.localdomain": "dc2", "cmp-0": "dc1"},
    "oslo_messaging_sites": {"links": [{"between": ["dc1", "dc2"]}]},
}


@pytest.mark.parametrize(
    ("hostname", "node", "mode"),
    [
        ("ctl-0", "CTL-0.InternalAPI.localdomain", "interior"),
        ("CTL-1", "CTL-1.InternalAPI.localdomain", "interior"),
        ("ctl-1.internalapi.localdomain", "CTL-1.InternalAPI.localdomain", "interior"),
        ("Cmp-0.localdomain", "CMP-0.InternalAPI.localdomain", "edge"),
        ("cmp-1", "cmp-1", "none"),
    ],
)
def test_names_in_hiera_have_no_case(hostname: str, node: str, mode: str) -> None:
    d = parse.deployment(metadata.from_hiera(UPPER, hostname))
    assert d.node == node and model.local_node(d, [d.node]).router.value == mode
    assert [n.name for n in d.nodes][:3] == [
        "CTL-0.InternalAPI.localdomain", "CTL-1.InternalAPI.localdomain", "CMP-0.InternalAPI.localdomain",
    ]  # fmt: skip
    assert d.notify.nodes == ("CTL-0.InternalAPI.localdomain",)
    assert [n.site for n in d.nodes][:3] == ["dc1", "dc2", "dc1"]


def test_a_site_said_twice_in_hiera() -> None:
    wrong = {**EDGES, "oslo_messaging_node_sites": {"ctl-0": "a", "CTL-0": "b"}}
    assert codes(metadata.from_hiera, wrong, "cmp-0") == [("oslo_messaging_node_sites", "same-name")]


TWO_DOMAINS = {**HIERA, "oslo_messaging_rpc_node_names": ["ctl-0.dc1.example", "CTL-0.dc2.example"]}
del TWO_DOMAINS["oslo_messaging_notify_node_names"]


@pytest.mark.parametrize("hostname", ["ctl-0", "CTL-0", "ctl-0.dc3.example"])
def test_one_short_name_in_two_domains_is_no_name(hostname: str) -> None:
    assert codes(metadata.from_hiera, TWO_DOMAINS, hostname) == [("node", "ambiguous-node")]
    for told in ("ctl-0.DC2.example", "CTL-0.dc2.example."):
        d = parse.deployment(metadata.from_hiera(TWO_DOMAINS, hostname, told))
        assert model.local_node(d, [d.node]).name == "CTL-0.dc2.example"
        d = parse.deployment(metadata.from_hiera({**TWO_DOMAINS, "oslo_messaging_node": told}, hostname))
        assert d.node == "CTL-0.dc2.example"


def test_the_whole_name_in_one_of_two_domains() -> None:
    assert metadata.from_hiera(TWO_DOMAINS, "ctl-0.DC2.example")["node"] == "CTL-0.dc2.example"


@pytest.mark.parametrize("told", ["ctl-7", "ctl-1", "elsewhere"])
def test_a_name_that_somebody_mistyped_is_no_new_client(told: str) -> None:
    """Half of a node's name is none either: compared whole."""
    with pytest.raises(errors.InvalidInput) as caught:
        parse.deployment(metadata.from_hiera(HIERA, "ctl-1", told))
    assert [(p.path, p.code) for p in caught.value.problems] == [("node", "not-in-nodes")]


def test_a_client_may_be_named() -> None:
    d = parse.deployment(metadata.from_hiera(HIERA, "cmp-9.localdomain", "CMP-9"))
    assert d.node == "CMP-9" and not d.carried_by(d.by_name()["CMP-9"], model.Scheme.AMQP)


@pytest.mark.parametrize(
    ("names", "hostname", "found"),
    [
        (["ctl-0", "ctl-1"], "CTL-0.example.com", "ctl-0"),
        (["CTL-0", "ctl-1"], "ctl-0", "CTL-0"),
        (["ctl-0", "ctl-0.dc2"], "ctl-0.dc2.example", None),
        (["ctl-0", "ctl-0.dc2"], "ctl-0.DC2", "ctl-0.dc2"),
        (["ctl-0.dc1", "ctl-0.dc2"], "ctl-0", None),
    ],
)
def test_the_host_among_the_nodes(names: list[str], hostname: str, found: str | None) -> None:
    d = parse.deployment({"rpc": {"password": "x", "hosts": ["h"]}, "nodes": [{"name": n} for n in names]})
    if found is None:
        assert codes(model.node_of_host, d, hostname) == [("node", "ambiguous-node")]
    else:
        assert model.node_of_host(d, hostname).name == found


def test_names_in_the_metadata_have_no_case() -> None:
    raw = helpers.put(helpers.put(helpers.dual(), "rpc.nodes", ["CTL-1."]), "node", "CTL-1")
    d = parse.deployment(raw)
    assert d.rpc.nodes == ("ctl-1",) and d.node == "ctl-1"
    assert codes(parse.deployment, helpers.put(raw, "rpc.nodes", ["ctl-1", "CTL-1"])) == [("rpc.nodes[1]", "same-name")]
    assert codes(parse.deployment, helpers.put(helpers.default(), "rpc.hosts", ["a.b", "A.b."])) == [
        ("rpc.hosts[1]", "same-name")
    ]


@pytest.mark.parametrize(
    ("host", "code"), [("172.17.0.11", "twice"), ("CTL", "same-name"), ("ctl.", "same-name"), ("fd00:0::1", "twice")]
)
def test_two_nodes_with_one_host(host: str, code: str) -> None:
    """The URL would have it twice, and a connector would go to the wrong node."""
    first = {"CTL": "ctl", "ctl.": "ctl", "fd00:0::1": "fd00::1"}.get(host, host)
    raw = helpers.put(helpers.put(helpers.default(), "nodes.0.host", first), "nodes.1.host", host)
    assert ("nodes[1].host", code) in codes(parse.deployment, raw)
