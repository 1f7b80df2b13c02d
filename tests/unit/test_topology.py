"""The mesh: properties that hold for every overcloud, and known meshes of a few."""

from __future__ import annotations

import collections
import itertools
import math
import tracemalloc
import typing

import hypothesis
import pytest
from hypothesis import strategies as st
from om_agent import errors, parse
from om_agent.plan import topology

from tests.support import helpers

THOROUGH = hypothesis.settings(max_examples=300, deadline=None)
put = helpers.put

NAMES = st.from_regex(r"[a-c][a-c1-2]{0,3}", fullmatch=True)  # many of them contain one another


class Cloud(typing.NamedTuple):
    """Counts of interiors and edges by site, and links between sites by their places, with costs."""

    sites: list[tuple[int, int]]
    links: dict[tuple[int, int], int]
    max_links: int = 6

    def raw(self) -> helpers.Raw:
        nodes = []
        for s, (interiors, edges) in enumerate(self.sites):
            for kind, count in (("ctl", interiors), ("cmp", edges)):
                role = "controller" if kind == "ctl" else "compute"
                nodes += [
                    {"name": f"{kind}-{s}-{i}", "address": f"10.{s}.{len(role)}.{i}", "role": role, "site": f"s{s}"}
                    for i in range(count)
                ]
        links = [{"between": [f"s{a}", f"s{b}"], "cost": cost} for (a, b), cost in self.links.items()]
        raw = put(put(helpers.dual(), "nodes", nodes), "notify.hosts", ["elsewhere"])
        return put(put(raw, "sites.links", links), "router.max_links", self.max_links)

    def mesh(self) -> topology.Mesh:
        return topology.mesh(parse.deployment(self.raw()))


@st.composite
def clouds(draw: st.DrawFn) -> Cloud:
    """Sites joined by a random tree and some links more."""
    count = draw(st.integers(1, 5))
    sites = [(draw(st.integers(1, 5)), draw(st.integers(0, 12))) for _ in range(count)]
    if draw(st.booleans()):
        sites[0] = (draw(st.integers(13, 40)), sites[0][1])
    links = {(draw(st.integers(0, s - 1)), s): draw(st.integers(1, 50)) for s in range(1, count)}
    pairs = list(itertools.combinations(range(count), 2))
    for pair in draw(st.lists(st.sampled_from(pairs), max_size=4)) if pairs else ():
        links[pair] = draw(st.integers(1, 50))
    return Cloud(sites, links, draw(st.integers(2, 8)))


def reached(m: topology.Mesh, gone: str = "", pair: frozenset[str] = frozenset()) -> set[str]:
    """The interiors that are left in one piece with the first of them; an independent way to look."""
    left = {n.name for n in m.interiors} - {gone}
    ways = [{x.source, x.target} for x in m.links if not x.uplink and {x.source, x.target} != pair]
    found = {min(left)} if left else set()
    while True:
        more = {n for way in ways if way <= left and way & found for n in way} | found
        if more == found:
            return found
        found = more


def uplinks(m: topology.Mesh) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {n.name: [] for n in m.edges}
    for link in m.links:
        if link.uplink:
            found[link.source].append(link.target)
    return found


# -- the whole mesh --------------------------------------------------------------------------------------------------


@THOROUGH
@hypothesis.given(clouds())
def test_every_interior_reaches_every_other(cloud: Cloud) -> None:
    m = cloud.mesh()
    assert reached(m) == {n.name for n in m.interiors}


@THOROUGH
@hypothesis.given(clouds())
def test_no_pair_is_connected_twice_and_none_to_itself(cloud: Cloud) -> None:
    m = cloud.mesh()
    pairs = [frozenset((x.source, x.target)) for x in m.links]
    assert len(set(pairs)) == len(pairs) and all(len(p) == 2 for p in pairs)
    assert all(x.source > x.target for x in m.links if not x.uplink)


@THOROUGH
@hypothesis.given(clouds())
def test_a_site_is_a_full_mesh_or_bounded_and_bears_any_loss(cloud: Cloud) -> None:
    m = cloud.mesh()
    for s, (count, _) in enumerate(cloud.sites):
        own = [x for x in m.links if not x.uplink and not x.sites and x.source.startswith(f"ctl-{s}-")]
        degrees = collections.Counter(name for x in own for name in (x.source, x.target))
        if count <= max(12, cloud.max_links + 1):
            assert len(own) == count * (count - 1) // 2
        else:
            assert set(degrees) == {f"ctl-{s}-{i}" for i in range(count)}
            assert min(degrees.values()) >= 2 and max(degrees.values()) <= cloud.max_links
            site = topology.Mesh(tuple(n for n in m.interiors if n.site == f"s{s}"), (), tuple(own))
            assert all(len(reached(site, gone=name)) == count - 1 for name in degrees)


@THOROUGH
@hypothesis.given(clouds())
def test_sites_are_joined_through_two_gateways_where_there_are_two(cloud: Cloud) -> None:
    m = cloud.mesh()
    for (a, b), cost in cloud.links.items():
        links = [x for x in m.links if x.sites == (f"s{a}", f"s{b}")]
        assert {x.cost for x in links} == {cost}
        assert len(links) == max(min(2, cloud.sites[a][0]), min(2, cloud.sites[b][0]))
        for s in (a, b):
            ends = {n for x in links for n in (x.source, x.target) if n.startswith(f"ctl-{s}-")}
            assert len(ends) == min(2, cloud.sites[s][0])


@THOROUGH
@hypothesis.given(clouds())
def test_an_edge_has_two_uplinks_and_they_are_near(cloud: Cloud) -> None:
    m = cloud.mesh()
    for edge, targets in uplinks(m).items():
        site = int(edge.split("-")[1])
        own = [t for t in targets if t.startswith(f"ctl-{site}-")]
        assert len(own) == min(2, cloud.sites[site][0])
        assert len(set(targets)) == min(2, len(m.interiors))


@THOROUGH
@hypothesis.given(clouds())
def test_the_edges_of_a_site_load_its_interiors_within_one(cloud: Cloud) -> None:
    found = uplinks(cloud.mesh())
    for s, (count, _) in enumerate(cloud.sites):
        edges = [e for e in found if e.startswith(f"cmp-{s}-")]
        load = collections.Counter({f"ctl-{s}-{i}": 0 for i in range(count)})
        load.update(t for e in edges for t in found[e] if t.startswith(f"ctl-{s}-"))
        assert max(load.values()) - min(load.values()) <= 1


@THOROUGH
@hypothesis.given(clouds(), st.randoms(use_true_random=False))
def test_the_order_of_the_metadata_is_nothing(cloud: Cloud, random: typing.Any) -> None:
    raw = cloud.raw()
    other = put(raw, "nodes", random.sample(raw["nodes"], len(raw["nodes"])))
    links = random.sample(raw["sites"]["links"], len(raw["sites"]["links"]))
    other["sites"]["links"] = [{**link, "between": link["between"][::-1]} for link in links]
    a, b = (topology.mesh(parse.deployment(r)) for r in (raw, other))
    assert a == b
    for name in ("ctl-0-0", raw["nodes"][-1]["name"]):
        assert a.opened_by(name) == b.opened_by(name)


@THOROUGH
@hypothesis.given(clouds())
def test_losses_are_all_that_partition(cloud: Cloud) -> None:
    m = cloud.mesh()
    found = {frozenset(loss.what) for loss in m.losses}
    every = {n.name for n in m.interiors}
    by_edge = uplinks(m)
    for name in every:
        cut = reached(m, gone=name) != every - {name} or any(set(u) == {name} for u in by_edge.values())
        assert cut == (frozenset((name,)) in found)
    for link in m.links:
        if not link.uplink:
            pair = frozenset((link.source, link.target))
            assert (reached(m, pair=pair) != every) == (pair in found)


@THOROUGH
@hypothesis.given(st.lists(NAMES, min_size=1, max_size=30, unique=True))
def test_names_that_contain_one_another(names: list[str]) -> None:
    nodes = [{"name": name, "address": f"10.0.0.{i}"} for i, name in enumerate(names, 1)]
    m = topology.mesh(parse.deployment(put(put(helpers.dual(), "nodes", nodes), "notify.hosts", ["elsewhere"])))
    assert reached(m) == set(names)
    if len(names) <= topology.FULL_MESH:
        assert len(m.links) == len(names) * (len(names) - 1) // 2


# -- changes ---------------------------------------------------------------------------------------------------------


def moved(before: dict[str, tuple[str, ...]], after: dict[str, tuple[str, ...]]) -> int:
    """How many uplinks are new for edges that were there before."""
    return sum(len(set(after[e]) - set(before[e])) for e in before if e in after)


@THOROUGH
@hypothesis.given(st.integers(0, 60), st.integers(2, 12))
def test_a_controller_more_or_less_moves_its_share(edges: int, count: int) -> None:
    names = [f"cmp-{i}" for i in range(edges)]
    less, more = (topology.spread(names, [f"ctl-{i}" for i in range(n)], 2) for n in (count, count + 1))
    share = 2 * edges / (count + 1)
    assert moved(less, more) <= math.floor(share)
    assert moved(more, less) <= math.ceil(share)


def weigh(a: int, b: int) -> int:
    """The finalizer of SplitMix64 for one pair, as its authors write it."""
    bits = (1 << 64) - 1
    x = ((a ^ b) * 0x9E3779B97F4A7C15) & bits
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & bits
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & bits
    return x ^ (x >> 31)


HASHES = st.integers(0, (1 << 64) - 1) | st.sampled_from([0, 1, 1 << 63, (1 << 64) - 1])


@THOROUGH
@hypothesis.given(st.lists(HASHES, max_size=20), HASHES)
def test_hashes_are_mixed_at_once_as_they_are_one_by_one(hashes: list[int], one: int) -> None:
    assert topology._weigher(hashes)(one) == tuple(weigh(h, one) for h in hashes)


def spread_plainly(edges: list[str], interiors: list[str], wanted: int) -> dict[str, tuple[str, ...]]:
    """What `topology.spread` says it does, every pair looked at."""
    order = sorted(interiors, key=topology._natural)
    hashes = {name: topology._hash(name) for name in (*edges, *interiors)}
    having = {name: set(edges) for name in order[:wanted]}
    for count, new in enumerate(order[wanted:], wanted + 1):
        low, extra = divmod(len(edges) * wanted, count)
        having[new] = set()
        for i, donor in enumerate(sorted((n for n in having if n != new), key=lambda name: -len(having[name]))):
            gain = {e: weigh(hashes[e], hashes[new]) - weigh(hashes[e], hashes[donor]) for e in having[donor]}
            willing = sorted(gain.keys() - having[new], key=lambda e: (-gain[e], e))
            moved = willing[: len(having[donor]) - low - (i < extra)]
            having[new] |= set(moved)
            having[donor] -= set(moved)
    chosen = {e: [name for name in order if e in having[name]] for e in edges}
    return {e: tuple(sorted(names, key=lambda n: weigh(hashes[e], hashes[n]))) for e, names in chosen.items()}


@THOROUGH
@hypothesis.given(st.integers(0, 150), st.integers(1, 40), st.integers(1, 2))
def test_edges_are_spread_as_if_every_pair_were_looked_at(edges: int, interiors: int, wanted: int) -> None:
    names, routers = [f"cmp-{i}" for i in range(edges)], [f"ctl-{i}" for i in range(interiors)]
    assert topology.spread(names, routers, wanted) == spread_plainly(names, routers, wanted)


def test_what_is_lost_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Findings and picture both say it."""
    d = parse.deployment(helpers.dual(1, 1))
    m = topology.mesh(d)
    topology.mesh_findings(d, m)
    monkeypatch.setattr(topology, "_losses", None)
    assert [loss.cut for loss in m.losses] == [("cmp-0",)]


@THOROUGH
@hypothesis.given(st.integers(0, 60), st.lists(NAMES, min_size=3, max_size=8, unique=True), st.data())
def test_one_in_the_middle_moves_little_more(edges: int, interiors: list[str], data: st.DataObject) -> None:
    names = [f"cmp-{i}" for i in range(edges)]
    gone = data.draw(st.sampled_from(interiors))
    before = topology.spread(names, interiors, 2)
    after = topology.spread(names, [n for n in interiors if n != gone], 2)
    share = math.ceil(2 * edges / len(interiors))
    assert moved(before, after) <= 2 * (share + len(interiors))


@THOROUGH
@hypothesis.given(st.integers(13, 60), st.integers(2, 8))
def test_an_interior_more_changes_few_links_of_a_thinned_site(count: int, max_links: int) -> None:
    before, after = (
        {frozenset((x.source, x.target)) for x in Cloud([(n, 0)], {}, max_links).mesh().links}
        for n in (count, count + 1)
    )
    assert len(before ^ after) <= 3 * (max_links // 2) + 2 * (max_links // 2)


# -- a few that are known --------------------------------------------------------------------------------------------


def findings(raw: helpers.Raw) -> list[tuple[str, str]]:
    d = parse.deployment(raw)
    return [(p.path, p.code) for p in topology.mesh_findings(d, topology.mesh(d))]


def test_one_controller_is_legitimate_and_said() -> None:
    d = parse.deployment(helpers.dual(1, 7))
    (finding,) = topology.mesh_findings(d, topology.mesh(d))
    assert (finding.path, finding.code, finding.severity) == ("nodes[0]", "lone-interior", errors.WARNING)
    assert "ctl-0" in finding.message and "cmp-0, cmp-1, cmp-2, cmp-3, cmp-4 and 2 more" in finding.message
    assert findings(helpers.dual(1, 0)) == []


def test_redundancy_can_be_required() -> None:
    required = put(helpers.dual(1), "router.require_redundancy", True)
    with pytest.raises(errors.InvalidInput) as caught:
        findings(required)
    assert [(p.path, p.code, p.severity) for p in caught.value.problems] == [("nodes[0]", "lone-interior", "error")]
    assert findings(put(helpers.dual(3), "router.require_redundancy", True)) == []


def test_who_is_cut_off_is_named() -> None:
    d = parse.deployment(Cloud([(2, 1), (1, 2), (2, 1)], {(0, 1): 1, (1, 2): 1}).raw())
    found = {p.message: p for p in topology.mesh_findings(d, topology.mesh(d))}
    (middle,) = [m for m in found if "ctl-1-0" in m.split(",")[0]]
    assert "ctl-0-0, ctl-0-1" in middle or "ctl-2-0, ctl-2-1" in middle


def test_a_big_site_is_thinned_and_that_is_said() -> None:
    assert findings(Cloud([(12, 0)], {}).raw()) == []
    assert findings(Cloud([(13, 0)], {}).raw()) == [("nodes", "thinned")]
    assert findings(Cloud([(13, 0)], {}, 12).raw()) == []


@pytest.mark.parametrize(
    ("count", "max_links", "told"),
    [(15, 13, "thinned"), (15, 14, "crowded"), (15, 127, "crowded"), (16, 15, "crowded"), (128, 127, "crowded"),
     (128, 13, "flooded"), (128, 14, "crowded"), (14, 127, ""), (12, 127, ""),
     (49, 6, "thinned"), (50, 6, "flooded"), (50, 4, "flooded"), (50, 3, "thinned"), (50, 2, "thinned")],
)  # fmt: skip
def test_more_links_than_routers_bear_are_told(count: int, max_links: int, told: str) -> None:
    raw = put(Cloud([(count, 0)], {}, max_links).raw(), "router.engine", "skrouterd")
    assert [code for _, code in findings(raw)] == [told] * bool(told)


def test_an_odd_number_of_links_counts_as_one_less_and_is_told_so() -> None:
    seven, six = (Cloud([(20, 0)], {}, n) for n in (7, 6))
    assert seven.mesh() == six.mesh()
    d = parse.deployment(seven.raw())
    assert "connects to 6 others at most" in topology.mesh_findings(d, topology.mesh(d))[0].message


def test_rabbit_or_external_routers_have_no_mesh() -> None:
    for raw in (helpers.default(), put(helpers.dual(), "rpc.hosts", ["elsewhere"])):
        assert topology.mesh(parse.deployment(raw)) == topology.Mesh((), (), ())
        assert findings(raw) == []


def test_the_second_uplink_of_a_lone_site_goes_to_the_nearest() -> None:
    m = Cloud([(1, 5), (2, 0), (2, 0)], {(0, 1): 10, (0, 2): 3, (1, 2): 1}).mesh()
    assert {t.split("-")[1] for targets in uplinks(m).values() for t in targets} == {"0", "2"}
    m = Cloud([(1, 5), (2, 0), (2, 0)], {(0, 1): 10, (0, 2): 30, (1, 2): 1}).mesh()
    assert {t.split("-")[1] for targets in uplinks(m).values() for t in targets} == {"0", "1"}


def test_a_site_of_edges_alone_uses_the_nearest() -> None:
    m = Cloud([(0, 3), (1, 0), (3, 0)], {(0, 1): 1, (1, 2): 1}).mesh()
    for targets in uplinks(m).values():
        assert sorted(t.split("-")[1] for t in targets) == ["1", "2"]


def test_memory_grows_no_faster_than_the_overcloud() -> None:
    """Time is for benchmarks; what is held says as much about the shape of the work."""
    peaks = []
    for size in (20, 200):
        d = parse.deployment(Cloud([(2, size)] * 10, {(a, a + 1): 1 for a in range(9)}).raw())
        tracemalloc.start()
        topology.mesh(d)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 15 * peaks[0]
