"""Keys of drivers that this project never configured belong to the operator and never change."""

from __future__ import annotations

import json
import pathlib

import pytest

from tests.support import helpers

OWN = "[DEFAULT]\ndebug = true\n\n[oslo_messaging_amqp]\nsasl_mechanisms = ANONYMOUS\nssl = true\n"
DUAL = helpers.dual()


@pytest.fixture()
def node(tmp_path: pathlib.Path) -> helpers.Machine:
    made = helpers.machine(tmp_path)
    for name in ("ceilometer", "nova"):
        file = made.root / "etc" / name / f"{name}.conf"
        file.parent.mkdir(exist_ok=True)
        file.write_text(OWN)
    return made


def amqp_keys(node: helpers.Machine, name: str) -> set[str]:
    text = (node.root / "etc" / name / f"{name}.conf").read_text()
    section = text.rpartition("[oslo_messaging_amqp]\n")[2].partition("[")[0]
    return {line.partition(" = ")[0] for line in section.splitlines() if line}


def test_the_metrics_router_of_ceilometer_keeps_its_keys(node: helpers.Machine) -> None:
    for raw in (DUAL, helpers.default(), DUAL):
        assert node.run("apply", "--node", "cmp-0", node.metadata(raw)).returncode == 0
        assert amqp_keys(node, "ceilometer") == {"sasl_mechanisms", "ssl"}
    assert "idle_timeout" in amqp_keys(node, "nova")


def test_rabbitmq_for_both_leaves_the_other_driver_alone(node: helpers.Machine) -> None:
    assert node.run("apply", "--node", "cmp-0", node.metadata(helpers.default())).returncode == 0
    assert amqp_keys(node, "nova") == {"sasl_mechanisms", "ssl"}


@pytest.mark.parametrize("old", [False, True])
def test_what_was_made_of_a_driver_goes(node: helpers.Machine, old: bool) -> None:
    assert node.run("apply", "--node", "cmp-0", node.metadata(DUAL)).returncode == 0
    state = node.root / helpers.STATE / "state.json"
    if old:  # an older agent did not note whose keys these are; its hieradata says what it wrote
        left = json.loads(state.read_text())
        assert set(left["drivers"]["/etc/nova/nova.conf"]) == {"oslo_messaging_amqp", "oslo_messaging_rabbit"}
        del left["drivers"]
        state.write_text(json.dumps(left))
    assert node.run("apply", "--node", "cmp-0", node.metadata(helpers.default())).returncode == 0
    assert amqp_keys(node, "nova") == set()
    again = node.run("apply", "--node", "cmp-0", node.metadata(helpers.default()), "--json")
    assert json.loads(again.stdout)["changes"] == []  # they are removed once, not asked for for ever
    assert json.loads(state.read_text())["drivers"]["/etc/nova/nova.conf"] == ["oslo_messaging_rabbit"]
    nova = node.root / "etc/nova/nova.conf"
    nova.write_text(nova.read_text() + "\n[oslo_messaging_amqp]\nssl = true\n")  # the operator's, from now on
    assert node.run("apply", "--node", "cmp-0", node.metadata(helpers.default())).returncode == 0
    assert amqp_keys(node, "nova") == {"ssl"}


BLANK = "[DEFAULT]\ndebug = true\n\n[oslo_messaging_amqp]\n\n[oslo_messaging_notifications]\n# none\n\n[vnc]"


@pytest.mark.parametrize("text", [BLANK, BLANK.replace("g_amqp", "g_AMQP"), "", helpers.NOVA])
def test_there_and_back_leaves_blank_sections_as_they_were(node: helpers.Machine, text: str) -> None:
    nova = node.root / "etc/nova/nova.conf"
    nova.write_text(text)
    seen = []
    for raw in (helpers.default(), DUAL, helpers.default(), DUAL):
        assert node.run("apply", "--node", "cmp-0", node.metadata(raw)).returncode == 0
        again = node.run("apply", "--node", "cmp-0", node.metadata(raw), "--json")
        assert json.loads(again.stdout)["changes"] == []
        seen.append(nova.read_text())
    assert seen[0] == seen[2] and seen[1] == seen[3]
    headers = [line for line in seen[0].splitlines() if line.startswith("[")]
    assert [h for h in headers if h in text] == [line for line in text.splitlines() if line.startswith("[")]
    assert ("[oslo_messaging_amqp]" in seen[0].lower()) is ("[oslo_messaging_amqp]" in text.lower())


def test_a_blank_section_that_comes_later_is_the_operators(node: helpers.Machine) -> None:
    """The agent had added a section of that name, and had removed it."""
    nova = node.root / "etc/nova/nova.conf"
    nova.write_text("[DEFAULT]\n")
    for raw in (DUAL, helpers.default()):
        assert node.run("apply", "--node", "cmp-0", node.metadata(raw)).returncode == 0
    assert "amqp]" not in nova.read_text()
    nova.write_text(nova.read_text() + "\n[oslo_messaging_amqp]\n")
    before = nova.read_text()
    for raw in (DUAL, helpers.default()):
        assert node.run("apply", "--node", "cmp-0", node.metadata(raw)).returncode == 0
    assert nova.read_text() == before


@pytest.mark.parametrize(
    ("line", "fits"),
    [
        ("addressing_mode = legacy", False),
        ("addressing_mode = routable", True),
        ("rpc_address_prefix = cloud1/rpc", False),
        ("rpc_address_prefix = openstack.org/om/rpc", True),
        ("notify_address_prefix: x", False),
        ("multicast_address = many", False),
        ("unicast_address = one", False),
        ("anycast_address = any\n  more", False),
        ("pseudo_vhost = false", True),
    ],
)
def test_addresses_that_the_router_refuses(node: helpers.Machine, line: str, fits: bool) -> None:
    file = node.root / "etc/nova/nova.conf"
    metadata = node.metadata(DUAL)
    assert node.run("apply", "--node", "cmp-0", metadata).returncode == 0
    file.write_text(file.read_text().replace("[oslo_messaging_amqp]\n", f"[Oslo_Messaging_AMQP]\n{line}\n"))
    key = line.partition(" ")[0].rstrip(":")
    done = {name: node.run(name, "--node", "cmp-0", metadata) for name in ("plan", "apply")}
    assert all((f"[oslo_messaging_amqp] {key}" in d.stderr) is not fits for d in done.values())
    assert done["apply"].returncode == (0 if fits else 1)
    if not fits:
        verified = node.run("verify", "--node", "cmp-0", "--timeout", "60", metadata)
        assert (
            verified.returncode == 3
            and f"nova.conf:{file.read_text().splitlines().index(line.splitlines()[0]) + 1}: " in verified.stderr
        )


def test_older_names_of_our_keys_go(node: helpers.Machine) -> None:
    """oslo.config adds up both names of the driver: notifications went out twice, and noop still sent."""
    nova = node.root / "etc/nova/nova.conf"
    nova.write_text("[DEFAULT]\nnotification_driver = messaging\nnotification_topics = mine\ndebug = true\n")
    assert node.run("apply", "--node", "cmp-0", node.metadata(helpers.default())).returncode == 0
    assert "notification_driver" not in nova.read_text() and "notification_topics = mine" in nova.read_text()
