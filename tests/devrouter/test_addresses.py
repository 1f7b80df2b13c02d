"""Names, distributions and the choice of a consumer, as qpid-dispatch does it."""

from __future__ import annotations

import dataclasses

import pytest
from om_devrouter import addresses, config

RULES = (
    config.Address("a", "closest"),
    config.Address("a/b", "multicast"),
    config.Address("openstack.org/om/rpc/multicast", "multicast"),
)


@dataclasses.dataclass
class Consumer:
    name: str
    outstanding: int = 0
    capacity: int = 10


def table(**more: str) -> addresses.AddressTable[Consumer]:
    return addresses.AddressTable("ctl-0", RULES, **more)


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("a", "closest"),
        ("a/x", "closest"),
        ("a/b", "multicast"),
        ("a/b/c/d", "multicast"),
        ("a/bc", "closest"),
        ("ab", "balanced"),
        ("b/a", "balanced"),
        ("openstack.org/om/rpc/multicast/topic", "multicast"),
        ("openstack.org/om/rpc/multicasting", "balanced"),
    ],
)
def test_the_longest_prefix_decides(name: str, distribution: str) -> None:
    assert table().distribution(name) == distribution


def test_the_default_can_be_set() -> None:
    assert table(default="closest").distribution("other") == "closest"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("foo", "M0foo"),
        ("/foo", "M0foo"),
        ("amqp:/foo/bar", "M0foo/bar"),
        ("amqp://host:1/foo/bar", "M0foo/bar"),
        ("amqps://host/foo", "M0foo"),
        ("amqp:/_topo/0/ctl-0/temp.x", "Ltemp.x"),
        ("_topo/0/ctl-0/$management", "L$management"),
        ("_local/foo", "Lfoo"),
        ("_topo/0/other/$management", "M0_topo/0/other/$management"),
        ("$management", "M0$management"),
    ],
)
def test_names_mean_what_they_mean_to_qdrouterd(name: str, key: str) -> None:
    assert table().key(name) == key


def test_a_dynamic_name_is_new_and_local() -> None:
    made = table()
    one, two = made.dynamic_name(), made.dynamic_name()
    assert one != two
    assert made.key(one).startswith("Ltemp.")
    assert made.obtain(one).distribution == "balanced"


def test_an_address_lives_while_it_is_used() -> None:
    made = table()
    address = made.obtain("x")
    assert made.find("/x") is address
    address.consumers.append(Consumer("one"))
    made.forget_unused(address)
    assert made.find("x") is address
    address.consumers.clear()
    made.forget_unused(address)
    assert made.find("x") is None
    management = made.obtain("$management")
    made.forget_unused(management)
    assert made.find("$management") is management and management.reachable


def address(distribution: str, *outstanding: int) -> addresses.Address[Consumer]:
    made: addresses.Address[Consumer] = addresses.Address("M0x", distribution)
    made.consumers = [Consumer("abc"[index], number) for index, number in enumerate(outstanding)]
    return made


def chosen(made: addresses.Address[Consumer]) -> str:
    return "".join(consumer.name for consumer in made.choose())


@pytest.mark.parametrize("distribution", config.DISTRIBUTIONS)
def test_nobody_is_chosen_from_nobody(distribution: str) -> None:
    assert chosen(address(distribution)) == ""


def test_multicast_chooses_all() -> None:
    assert chosen(address("multicast", 0, 99, 5)) == "abc"


def test_closest_takes_turns_whatever_the_load() -> None:
    made = address("closest", 0, 99, 5)
    assert [chosen(made) for _ in range(4)] == ["a", "b", "c", "a"]


def test_balanced_takes_turns_among_the_idle() -> None:
    made = address("balanced", 0, 0, 0)
    assert [chosen(made) for _ in range(4)] == ["a", "b", "c", "a"]


@pytest.mark.parametrize(
    ("outstanding", "name"),
    [((3, 1, 2), "b"), ((2, 2, 1), "c"), ((10, 9, 12), "b"), ((12, 11, 10), "c"), ((1, 0, 0), "b")],
)
def test_balanced_prefers_the_least_busy(outstanding: tuple[int, ...], name: str) -> None:
    assert chosen(address("balanced", *outstanding)) == name


def test_balanced_prefers_whoever_is_below_its_capacity() -> None:
    made = address("balanced", 4, 6)
    made.consumers[0].capacity = 4
    assert chosen(made) == "b"
