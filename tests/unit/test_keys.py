"""Each key of the metadata is declared once, and the declaration fits the model and itself."""

from __future__ import annotations

import dataclasses
import enum
import typing

import pytest
from om_agent import errors, fields, model
from om_agent.parse import keys, mapping, values

KEYS = dict(keys.every())
SCALARS = {path: key for path, key in KEYS.items() if not isinstance(key.value, (mapping.Nested, mapping.Mappings))}

# The fields of the model that come from the keys of a section under another name, or from several of them.
RENAMED = {
    "rpc": {"sasl_mechanism": "mechanism", **dict.fromkeys(model.CLIENT_FILES, "client_files")},
    "router": dict.fromkeys(model.MESH_FILES, "mesh_files"),
    "broker": {"mirrored_queues": "queues"},
    "nodes[]": {"interior": "router"},
    "": {"sites": "site_links"},
}
OSLO = {
    "driver": "notification_driver",
    "delivery": "delivery",
    "response_timeout": "rpc_response_timeout",
    "idle_timeout": "amqp_idle_timeout",
    "heartbeat": "rabbit_heartbeat",
}
MODELS: dict[str, typing.Any] = {
    "rpc": model.Backend,
    "notify": model.Backend,
    "rpc.also_accept[]": model.Account,
    "router": model.Router,
    "broker": model.Broker,
    "tls": model.Tls,
    "nodes[]": model.Node,
    "sites.links[]": model.SiteLink,
    "": model.Deployment,
}
HALVES = ("rpc", "notify")
# Fields that no key of the section fills: they are found, or come from other sections.
FOUND = {
    "rpc": {"half"},
    "": {"oslo", "findings"},
}
# Keys that fill no field of their own section: roles go to the nodes.
ELSEWHERE = {"rpc": set(OSLO), "notify": set(OSLO), "router": {"roles"}}


def names_below(section: str) -> set[str]:
    """The names of the keys of one section."""
    prefix = f"{section}." if section else ""
    rest = [path[len(prefix) :] for path in KEYS if path.startswith(prefix)]
    return {name for name in rest if "." not in name}


@pytest.mark.parametrize("section", MODELS)
def test_every_field_of_the_model_has_a_declaration_and_every_declaration_a_field(section: str) -> None:
    alike = "rpc" if section in HALVES else section
    renamed = RENAMED.get(alike, {})
    filled = {renamed.get(name, name) for name in names_below(section) - ELSEWHERE.get(section, set())}
    fields_of_model = {field.name for field in dataclasses.fields(MODELS[section])}
    assert filled == fields_of_model - FOUND.get(alike, set())


def test_what_services_are_told_has_declarations() -> None:
    assert set(model.Oslo._fields) == set(OSLO.values())
    assert set(OSLO) <= names_below("rpc") | names_below("notify")


def test_every_secret_of_the_model_is_declared_secret() -> None:
    for section, of_model in MODELS.items():
        secret = {field.name for field in dataclasses.fields(of_model) if field.type == "Secret"}
        assert secret == {name for name in names_below(section) if KEYS[f"{section}.{name}".lstrip(".")].secret}


@pytest.mark.parametrize("path", [path for path, key in KEYS.items() if key.secret])
def test_a_secret_is_a_text_that_no_message_may_repeat(path: str) -> None:
    key = KEYS[path]
    assert isinstance(key.value, values.Text) and not key.echo
    assert key.default in (None, model.Secret(""))


def test_no_message_may_repeat_a_mapping_or_a_text_into_which_secrets_are_pasted() -> None:
    silent = {path for path, key in KEYS.items() if not key.echo and not key.secret}
    assert {"rpc", "nodes", "rpc.also_accept", "tls.ca", "tls.certificate", "rpc.hosts", "nodes[].host"} <= silent
    assert {"rpc.port", "rpc.tls", "rpc.scheme", "router.engine", "tls.ciphers", "tls.ca_file"}.isdisjoint(silent)


@pytest.mark.parametrize("path", SCALARS)
def test_a_default_is_a_value_that_may_be_written(path: str) -> None:
    key = SCALARS[path]
    default = key.default
    if default in (None, "", (), {}, model.Secret("")):
        return
    problems: list[errors.Problem] = []
    raw = default.value if isinstance(default, enum.Enum) else default
    read = mapping.Mapping({key.name: raw}, (key,), "", problems)
    assert problems == [] and read[key.name] == default and read.has(key.name)


@pytest.mark.parametrize("path", KEYS)
def test_a_declaration_has_a_sentence_for_the_reference(path: str) -> None:
    key = KEYS[path]
    assert key.text.endswith(".") and key.text[0].isupper() | key.text.startswith("``"), path
    assert not key.default_text.endswith(".") and key.value.allowed()


@pytest.mark.parametrize("path", [path for path, key in SCALARS.items() if getattr(key.value, "check", None)])
def test_what_a_check_does_not_accept_is_said_in_its_own_words(path: str) -> None:
    check: fields.Check = typing.cast("typing.Any", SCALARS[path].value).check
    assert not check.good("\0") and check.wanted


def test_names_are_declared_once_in_a_section() -> None:
    paths = [path for path, _ in keys.every()]
    assert len(paths) == len(set(paths))


def test_a_key_that_is_not_declared_cannot_be_read() -> None:
    read = mapping.Mapping({}, keys.TOP, "", [])
    with pytest.raises(KeyError):
        read["passwrd"]
