"""The picture of the mesh: content, colours, and that Graphviz accepts it."""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree

import pytest
from om_agent import parse, picture
from om_agent.plan import topology

from tests.support import helpers

put = helpers.put


def mesh(raw: helpers.Raw) -> topology.Mesh:
    return topology.mesh(parse.deployment(raw))


def sites() -> helpers.Raw:
    """Two sites, the second with one controller."""
    raw = put(helpers.dual(3, 2), "sites.links", [{"between": ["east", "west"], "cost": 7}])
    for i, site in enumerate(("east", "east", "west", "east", "west")):
        raw = put(raw, f"nodes.{i}.site", site)
    return raw


def edges(text: str) -> set[tuple[str, str]]:
    return set(re.findall(r'^ *"([^"]+)" -- "([^"]+)"', text, re.MULTILINE))


def boxes(text: str) -> dict[str, str]:
    return dict(re.findall(r'^ *"([^"]+)" \[label=("[^"]*",.*)\];$', text, re.MULTILINE))


def test_every_router_and_link_is_drawn() -> None:
    m = mesh(sites())
    text = picture.dot(m)
    assert set(boxes(text)) == {n.name for n in (*m.interiors, *m.edges)}
    assert edges(text) == {(x.target, x.source) for x in m.links}
    assert text.count("subgraph cluster_") == 2 and 'label="east"' in text
    assert text.count("cost 7") == 2 and text.count('style="dashed"') == 2


def test_a_mesh_that_bears_any_loss_says_so() -> None:
    assert "Any one interior router or link can be lost" in picture.dot(mesh(helpers.dual()))


def test_what_dies_with_a_router_is_said() -> None:
    text = picture.dot(mesh(helpers.dual(1, 2)))
    assert "its loss cuts off 2" in boxes(text)["ctl-0"] and "#fff3cd" in boxes(text)["ctl-0"]
    assert "Without ctl-0: cmp-0, cmp-1 cut off" in text
    assert "Any one" not in text


def test_what_dies_with_a_link_is_said() -> None:
    text = picture.dot(mesh(helpers.dual(2, 0)))
    assert "Without ctl-1 - ctl-0: ctl-0 cut off" in text
    assert 'label="its loss cuts off 1"' in text


def test_many_edges_are_one_box_and_numbers() -> None:
    text = picture.dot(mesh(helpers.dual(3, 40)))
    assert len(boxes(text)) == 4 and '"40 edge routers"' in text
    assert edges(text) == {("ctl-0", "ctl-1"), ("ctl-0", "ctl-2"), ("ctl-1", "ctl-2")}
    counts = [int(n) for n in re.findall(r"([0-9]+) uplinks", text)]
    assert sum(counts) == 80 and max(counts) - min(counts) <= 1


def test_live_colours() -> None:
    m = mesh(helpers.dual(2, 1))
    routers = {"ctl-0": picture.UP, "ctl-1": picture.DOWN}
    live = picture.Live(routers, {("ctl-1", "ctl-0"): picture.DOWN, ("cmp-0", "ctl-0"): picture.UP})
    text = picture.dot(m, live)
    assert "Live: 1 up, 1 down, 1 unknown" in text
    assert 'color="#2e7d32"' in boxes(text)["ctl-0"] and 'color="#c62828"' in boxes(text)["ctl-1"]
    assert 'color="#5b6770"' in boxes(text)["cmp-0"], "nobody can tell"
    lines = {pair: line for line in text.splitlines() for pair in edges(line)}
    assert "#c62828" in lines["ctl-0", "ctl-1"] and "#2e7d32" in lines["ctl-0", "cmp-0"]
    assert "#5b6770" in lines["ctl-1", "cmp-0"]


def test_live_edges_that_are_down_are_counted_in_their_box() -> None:
    m = mesh(helpers.dual(3, 40))
    live = picture.Live({n.name: picture.DOWN if n.name == "cmp-7" else picture.UP for n in m.edges}, {})
    assert "40 edge routers\\n1 down" in picture.dot(m, live)


def up_without(m: topology.Mesh, *down: str) -> picture.Live:
    """All is up but for these routers, and the links of these."""
    routers = {n.name: picture.DOWN if n.name in down else picture.UP for n in (*m.interiors, *m.edges)}
    links = {(x.source, x.target): picture.DOWN if {x.source, x.target} & set(down) else picture.UP for x in m.links}
    return picture.Live(routers, links)


def test_redundancy_is_reckoned_with_what_is_up() -> None:
    m = mesh(helpers.dual(3, 2))
    uplinks = {e.name: {x.target for x in m.opened_by(e.name)} for e in m.edges}
    assert "Any one interior router or link can be lost" in picture.dot(m, up_without(m))
    assert "Any one" in picture.dot(m) and picture.data(m)["losses"] == []

    live = up_without(m, "ctl-1")  # two interiors are left, and some edges have one uplink
    text = picture.dot(m, live)
    assert "Any one" not in text and "Down now: 1 interior router" in text
    losses = {tuple(x["of"]): set(x["cuts_off"]) for x in picture.data(m, live)["losses"]}  # type: ignore[attr-defined]
    assert losses["ctl-2", "ctl-0"]
    for name, targets in uplinks.items():
        for target in ("ctl-0", "ctl-2"):
            assert (name in losses.get((target,), ())) is (targets == {"ctl-1", target})

    four = mesh(helpers.dual(4, 0))
    text = picture.dot(four, up_without(four, "ctl-3"))
    assert "Any one more interior router or link can be lost" in text and "Down now: 1 interior router, 3 links" in text


def test_an_uplink_that_is_down_counts() -> None:
    m = mesh(helpers.dual(3, 1))
    lost, left = (x.target for x in m.opened_by("cmp-0"))
    live = up_without(m)
    live = picture.Live(live.routers, {**live.links, ("cmp-0", lost): picture.DOWN})
    assert picture.data(m, live)["losses"] == [{"of": [left], "cuts_off": ["cmp-0"]}]
    assert f"Without {left}: cmp-0 cut off" in picture.dot(m, live)


def test_nothing_is_up() -> None:
    m = mesh(helpers.dual(2, 1))
    text = picture.dot(m, up_without(m, "ctl-0", "ctl-1", "cmp-0"))
    assert "No interior router is up." in text and "Any one" not in text


@pytest.mark.subprocess
@pytest.mark.parametrize("raw", [sites(), helpers.dual(1, 0), helpers.dual(13, 100)], ids=["sites", "one", "many"])
def test_graphviz_draws_it(raw: helpers.Raw) -> None:
    if not shutil.which("dot"):
        helpers.skip("graphviz is not installed")
    m = mesh(raw)
    done = subprocess.run(["dot", "-Tsvg"], input=picture.dot(m).encode(), capture_output=True, timeout=120, check=True)
    assert done.stderr == b""
    titles = {e.text for e in xml.etree.ElementTree.fromstring(done.stdout).iter() if e.tag.endswith("title")}
    assert {n.name for n in m.interiors} <= titles


def test_data() -> None:
    found = picture.data(mesh(put(sites(), "nodes.4.site", "east")))
    assert found["interiors"] == [{"name": "ctl-0", "site": "east"}, {"name": "ctl-1", "site": "east"},
                                  {"name": "ctl-2", "site": "west"}]  # fmt: skip
    assert {"source": "ctl-1", "target": "ctl-0", "kind": "inter-router", "cost": 1} in found["links"]  # type: ignore[operator]
    assert [x["kind"] for x in found["links"]].count("uplink") == 4  # type: ignore[attr-defined]
    assert {"source": "ctl-2", "target": "ctl-0", "kind": "inter-site", "cost": 7} in found["links"]  # type: ignore[operator]
    assert found["losses"] == []
    assert picture.data(mesh(helpers.dual(1, 1)))["losses"] == [{"of": ["ctl-0"], "cuts_off": ["cmp-0"]}]
