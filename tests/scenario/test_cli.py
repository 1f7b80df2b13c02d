"""The command line as a program, under a temporary root, with a fake puppet."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
import typing

import pytest
from om_agent import ini

from tests.support import helpers, trees

put = helpers.put
SECRETS = ("rpc-secret", "notify-secret", "old-secret")


@pytest.fixture
def node(tmp_path: pathlib.Path) -> helpers.Machine:
    return helpers.machine(tmp_path)


def apply(node: helpers.Machine, raw: object, *more: str) -> subprocess.CompletedProcess[str]:
    return node.run("apply", "--metadata", node.metadata(raw), "--node", "ctl-0", *more)


def keys(node: helpers.Machine, path: str) -> ini.Keys:
    return ini.read((node.root / path).read_text())


def value(node: helpers.Machine, path: str, section: str, key: str) -> list[str]:
    return [v.text for v in keys(node, path).get((section, key), [])]


# -- validate --------------------------------------------------------------------------------------------------------


def test_validate(node: helpers.Machine) -> None:
    result = node.run("validate", node.metadata(helpers.dual()))
    assert (result.returncode, result.stdout) == (0, "valid: 4 nodes, rpc over amqp, notifications over rabbit\n")
    assert "warning: rpc.tls: rpc runs without TLS" in result.stderr


def test_validate_json(node: helpers.Machine) -> None:
    result = node.run("validate", "--json", node.metadata(helpers.dual(controllers=2)))
    problems = json.loads(result.stdout)["problems"]
    assert result.returncode == 0 and result.stderr == ""
    assert [(p["severity"], p["path"], p["code"]) for p in problems] == [
        ("warning", "rpc.tls", "plaintext"),
        ("warning", "notify.tls", "plaintext"),
        ("warning", "sites.links", "lone-link"),
    ]
    assert set(problems[0]) == {"severity", "path", "code", "message", "remedy"}


def test_validate_names_every_problem(node: helpers.Machine) -> None:
    path = node.metadata(put(put(helpers.dual(), "rpc.port", "x"), "nodes.1.place", "x"))
    result = node.run("validate", path)
    assert (result.returncode, result.stdout) == (2, "")
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == ["nodes[1]", "rpc.port"]
    as_json = node.run("validate", "--json", path)
    assert as_json.returncode == 2
    assert [p["code"] for p in json.loads(as_json.stdout)["problems"]] == ["unknown-key", "wrong-type"]


def test_validate_names_unknown_services_and_nodes(node: helpers.Machine) -> None:
    result = node.run("validate", node.metadata(put(helpers.dual(), "services", ["nova", "nva"])))
    assert result.returncode == 2 and "services[1]" in result.stderr
    result = node.run("validate", "--node", "ctl", node.metadata(helpers.dual()))
    assert result.returncode == 2 and '"ctl"' in result.stderr


def test_validate_merges_files(node: helpers.Machine) -> None:
    first = node.metadata(put(helpers.default(), "rpc.port", "x"))
    second = node.metadata({"rpc": {"port": 5673}}, "second.json")
    assert node.run("validate", first, second).returncode == 0
    assert node.run("validate", second, first).returncode == 2


def test_help_has_exit_codes_and_examples(node: helpers.Machine) -> None:
    command = node.command("x")[:-3]
    result = subprocess.run([*command, "--help"], env=node.environment(), capture_output=True, text=True, check=True)
    assert "exit codes:" in result.stdout and "examples:" in result.stdout and "om-agent apply --wait" in result.stdout
    assert "3  verify or status found messaging degraded or broken, or drain left edge routers" in result.stdout
    assert "verify or status could not inspect the node" in result.stdout
    assert subprocess.run(command, env=node.environment(), capture_output=True, check=False).returncode == 2


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["validate"], ["apply", "--wait", "x"], ["plan", "--root", "/none"]]
)
def test_a_wrong_command_is_invalid_input(node: helpers.Machine, arguments: list[str]) -> None:
    command = [*node.command("x")[:-3], *arguments]
    result = subprocess.run(command, env=node.environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "usage:" in result.stderr


# -- plan ------------------------------------------------------------------------------------------------------------


def test_plan_shows_what_apply_would_do_and_does_nothing(node: helpers.Machine) -> None:
    before = trees.snapshot(node.root)
    path = node.metadata(helpers.dual())
    result = node.run("plan", path, "--node", "ctl-0")
    assert result.returncode == 0
    assert result.stdout.startswith("ctl-0 (controller, interior router and broker): ")
    for secret in SECRETS:
        assert secret not in result.stdout + result.stderr
    planned = json.loads(node.run("plan", "--json", path, "--node", "ctl-0").stdout)
    assert trees.snapshot(node.root) == before and node.puppet_runs() == []
    done = json.loads(apply(node, helpers.dual(), "--json").stdout)
    assert {**done, "problems": planned["problems"]} == planned and set(done) == {"node", "changes"}
    assert {problem["severity"] for problem in planned["problems"]} == {"warning"}


@pytest.mark.parametrize("what", ["a hard link", "a directory in the way", "both"])
def test_a_plan_that_apply_would_refuse_ends_as_apply_would(node: helpers.Machine, what: str) -> None:
    """``plan && apply`` stops, and the output has the reason for programs."""
    expected = set()
    if what != "a directory in the way":
        os.link(node.root / "etc/neutron/neutron.conf", node.base / "another")
        expected.add("hard-link")
    if what != "a hard link":
        nova = node.root / "etc/nova/nova.conf"
        nova.unlink()
        nova.mkdir()
        expected.add("not-a-file")
    path = node.metadata(helpers.dual())
    plain = node.run("plan", path, "--node", "ctl-0")
    done = node.run("plan", path, "--node", "ctl-0", "--json")
    refused = node.run("apply", path, "--node", "ctl-0")
    assert plain.returncode == done.returncode == refused.returncode == 1, plain.stderr
    assert "apply will refuse this. Fix the errors above first" in plain.stderr
    told = json.loads(done.stdout)
    assert {p["code"] for p in told["problems"] if p["severity"] == "error"} == expected
    assert told["changes"] and told["node"] == "ctl-0"


@pytest.mark.parametrize("command", ["plan", "apply"])
def test_a_file_that_no_service_can_have_written_is_named_and_left(node: helpers.Machine, command: str) -> None:
    nova = node.root / "etc/nova/nova.conf"
    with nova.open("r+b") as file:
        file.truncate(16 * 2**20 + 1)
    before = trees.snapshot(node.root / "etc")
    result = node.run(command, node.metadata(helpers.dual()), "--node", "ctl-0")
    assert result.returncode == 1
    assert f"{nova}: the file is larger than 16 MiB" in result.stderr
    assert "defect" not in result.stderr
    assert trees.snapshot(node.root / "etc") == before and node.puppet_runs() == []


def test_a_plan_of_nothing(node: helpers.Machine) -> None:
    apply(node, helpers.dual())
    result = node.run("plan", node.metadata(helpers.dual()), "--node", "ctl-0")
    assert (result.returncode, result.stdout) == (0, "ctl-0 (controller, interior router and broker): nothing to do\n")


def test_a_plan_without_metadata_is_no_failure_since_apply_would_do_nothing(node: helpers.Machine) -> None:
    planned, done = (node.run(command, OS_CONFIG_FILES="") for command in ("plan", "apply"))
    assert (planned.returncode, planned.stdout) == (done.returncode, done.stdout)
    assert planned.returncode == 0 and "no messaging metadata" in planned.stdout
    assert json.loads(node.run("plan", "--json").stdout) == {"changes": [], "problems": []}


@pytest.mark.parametrize("command", ["verify", "status", "drain", "topology", "capacity"])
def test_what_has_nothing_to_say_without_metadata_is_invalid_input(node: helpers.Machine, command: str) -> None:
    result = node.run(command, OS_CONFIG_FILES="")
    assert (result.returncode, result.stdout) == (2, "")
    assert "there is no oslo_messaging key" in result.stderr


# -- apply -----------------------------------------------------------------------------------------------------------


def test_apply_and_again(node: helpers.Machine) -> None:
    result = apply(node, helpers.dual(), "--verbose")
    assert result.returncode == 0 and result.stdout.startswith("ctl-0: applied, ")
    (url,) = value(node, "etc/nova/nova.conf", "DEFAULT", "transport_url")
    assert url.startswith("amqp://rpc%40overcloud:rpc-secret@172.17.0.11:31459/")
    (url,) = value(node, "etc/swift/proxy-server.conf", "filter:ceilometer", "url")
    assert url.startswith("rabbit://notify:notify-secret@")
    assert value(node, "etc/neutron/neutron.conf", "oslo_messaging_rabbit", "ssl") == []
    before = trees.snapshot(node.root)
    assert before["etc/nova/nova.conf"].mode == 0o640
    assert "etc/qpid-dispatch/qdrouterd.json" in before and "etc/rabbitmq/rabbitmq.conf" in before

    again = apply(node, helpers.dual())
    assert (again.returncode, again.stdout) == (0, "ctl-0: nothing to do, the messaging configuration is right\n")
    assert trees.snapshot(node.root) == before
    assert len(node.puppet_runs()) == 1


def test_no_secret_is_on_a_command_line_in_an_environment_or_in_what_is_said(node: helpers.Machine) -> None:
    result = apply(node, helpers.dual(), "--verbose")
    told = json.dumps(node.puppet_runs()) + result.stdout + result.stderr
    for secret in SECRETS:
        assert secret not in told
    (_, environment), *_ = node.puppet_runs()
    assert set(environment) - {"LC_CTYPE"} == {"HOME", "LC_ALL", "PATH"}


def test_json(node: helpers.Machine) -> None:
    changes = json.loads(apply(node, helpers.dual(), "--json").stdout)["changes"]
    assert {"action": "create", "path": "/etc/rabbitmq/rabbitmq.conf"} in changes
    detail = {"action": "change", "path": "/etc/neutron/neutron.conf", "detail": "[DEFAULT] transport_url"}
    assert detail in changes
    assert json.loads(apply(node, helpers.dual(), "--json").stdout) == {"node": "ctl-0", "changes": []}


def test_to_another_backend_and_back(node: helpers.Machine) -> None:
    apply(node, helpers.default())
    first = {path: keys(node, path) for path in ("etc/nova/nova.conf", "etc/neutron/neutron.conf")}
    assert apply(node, helpers.dual()).returncode == 0
    assert keys(node, "etc/nova/nova.conf") != first["etc/nova/nova.conf"]
    assert apply(node, helpers.default()).returncode == 0
    assert {path: keys(node, path) for path in first} == first
    assert not (node.root / "etc/qpid-dispatch/qdrouterd.json").exists()


def test_a_compute_node(node: helpers.Machine) -> None:
    result = node.run("apply", "--metadata", node.metadata(helpers.dual()), "--node", "cmp-0")
    assert result.returncode == 0
    assert not (node.root / "etc/rabbitmq").exists()
    entities = json.loads((node.root / "etc/qpid-dispatch/qdrouterd.json").read_text())
    assert [a["mode"] for kind, a in entities if kind == "router"] == ["edge"]
    (url,) = value(node, "etc/nova/nova.conf", "DEFAULT", "transport_url")
    assert url.startswith("amqp://rpc%40overcloud:")


def test_names_that_contain_one_another(node: helpers.Machine) -> None:
    names = ["ctl-10", "ctl-1", "ctl-11"]
    raw = put(helpers.dual(), "nodes", [{"name": n, "address": f"10.0.0.{i}"} for i, n in enumerate(names, 1)])
    assert node.run("apply", "--metadata", node.metadata(raw), "--node", "ctl-1").returncode == 0
    entities = json.loads((node.root / "etc/qpid-dispatch/qdrouterd.json").read_text())
    assert [a["id"] for kind, a in entities if kind == "router"] == ["ctl-1"]
    assert [a for kind, a in entities if kind == "connector"] == []


@pytest.mark.parametrize("mode", ["fail", "lie"])
def test_puppet_fails(node: helpers.Machine, mode: str) -> None:
    before = node.tree()
    node.mode(mode)
    result = apply(node, helpers.dual())
    assert result.returncode == 1 and result.stdout == ""
    assert "Everything is as it was before" in result.stderr
    assert ("No space left in the middle" in result.stderr) is (mode == "fail")
    assert node.tree() == before
    node.mode("good")
    assert apply(node, helpers.dual()).returncode == 0


def test_a_failed_second_apply_keeps_the_first(node: helpers.Machine) -> None:
    apply(node, helpers.default())
    before = node.tree()
    node.mode("fail")
    assert apply(node, helpers.dual()).returncode == 1
    assert node.tree() == before
    node.mode("good")
    assert "nothing to do" in apply(node, helpers.default()).stdout


def test_puppet_takes_too_long(node: helpers.Machine) -> None:
    before = node.tree()
    node.mode("hang")
    result = apply(node, helpers.dual(), "--puppet-timeout", "2")
    assert result.returncode == 1 and "had not finished after 2 s" in result.stderr
    assert node.tree() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_during_puppet(node: helpers.Machine, number: signal.Signals) -> None:
    before = node.tree()
    node.mode("hang")
    process = node.start("apply", "--metadata", node.metadata(helpers.dual()), "--node", "ctl-0")
    node.wait_for_puppet()
    assert node.tree() != before
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "interrupted; the node is as it was before" in err
    assert node.tree() == before


def test_killed_during_puppet(node: helpers.Machine) -> None:
    """The next run restores the files before it does anything else, whatever its metadata."""
    before = node.tree()
    node.mode("slow")
    process = node.start("apply", "--metadata", node.metadata(helpers.dual()), "--node", "ctl-0")
    node.wait_for_puppet()
    process.kill()
    process.communicate(timeout=60)
    assert node.tree() != before
    result = node.run("apply", OS_CONFIG_FILES="")
    assert result.returncode == 0 and "interrupted run" in result.stderr
    assert node.tree() == before


# -- where metadata comes from ---------------------------------------------------------------------------------------


def collected(node: helpers.Machine, *documents: object) -> None:
    """Write the files that os-collect-config leaves behind."""
    paths = []
    for number, document in enumerate(documents):
        file = node.root / f"var/lib/os-collect-config/{number}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(document))
        paths.append(f"/var/lib/os-collect-config/{number}.json")
    path = node.root / "var/lib/os-collect-config/os_config_files.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(paths))
    new.rename(path)


def hieradata(node: helpers.Machine) -> None:
    path = node.root / "etc/puppet/hieradata/all_nodes.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"oslo_messaging_rpc_password": "x", "oslo_messaging_rpc_node_names": ["ctl-0"]}))


@pytest.mark.parametrize("listed", ["", ":"])
def test_an_empty_list_means_keep_the_present_state(node: helpers.Machine, listed: str) -> None:
    hieradata(node)
    before = node.tree()
    result = node.run("apply", OS_CONFIG_FILES=listed)
    assert result.returncode == 0 and "nothing was changed" in result.stdout
    assert json.loads(node.run("apply", "--json", OS_CONFIG_FILES=listed).stdout) == {"changes": []}
    assert node.tree() == before and node.puppet_runs() == []


def test_an_empty_list_of_os_collect_config_means_the_same(node: helpers.Machine) -> None:
    hieradata(node)
    collected(node)
    before = node.tree()
    assert "nothing was changed" in node.run("apply").stdout
    assert node.tree() == before


def test_after_an_apply_an_empty_list_keeps_what_is_there(node: helpers.Machine) -> None:
    apply(node, helpers.dual())
    before = node.tree()
    assert node.run("apply", OS_CONFIG_FILES="").returncode == 0
    assert node.tree() == before


def test_nothing_at_all_is_no_failure(node: helpers.Machine) -> None:
    before = node.tree()
    result = node.run("apply")
    assert result.returncode == 0 and "no messaging metadata" in result.stdout
    assert node.tree() == before


def test_os_config_files(node: helpers.Machine) -> None:
    files = [node.metadata(helpers.default()), node.metadata({"node": "ctl-1"}, "second.json")]
    result = node.run("apply", OS_CONFIG_FILES=":".join(files))
    assert result.returncode == 0 and result.stdout.startswith("ctl-1: applied")


def test_the_list_of_os_collect_config_is_below_the_root(node: helpers.Machine) -> None:
    collected(node, {"oslo_messaging": helpers.default()}, {"oslo_messaging": {"node": "ctl-2"}})
    assert node.run("apply").stdout.startswith("ctl-2: applied")


def test_tripleos_hieradata_comes_last(node: helpers.Machine) -> None:
    hieradata(node)
    collected(node, {})
    result = node.run("apply", "--no-services")
    assert result.returncode == 0 and "applied" in result.stdout


def test_metadata_that_appears_while_waiting(node: helpers.Machine) -> None:
    process = node.start("apply", "--wait", "60")
    assert process.stderr
    assert "waiting up to 60 s" in process.stderr.readline()
    time.sleep(1)
    collected(node, {"oslo_messaging": put(helpers.default(), "node", "ctl-0")})
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and out.startswith("ctl-0: applied")


def test_waiting_ends(node: helpers.Machine) -> None:
    before = node.tree()
    result = node.run("apply", "--wait", "0.5")
    assert result.returncode == 1 and "no messaging metadata after" in result.stderr
    assert node.tree() == before


def test_waiting_keeps_nobody_out(node: helpers.Machine) -> None:
    waiting = node.start("apply", "--wait", "60")
    assert waiting.stderr and "waiting" in waiting.stderr.readline()
    assert apply(node, helpers.default(), "--lock-timeout", "5").returncode == 0
    waiting.communicate(timeout=60)  # a node that was made right by another run has nothing to wait for
    assert waiting.returncode == 0


# -- several at once -------------------------------------------------------------------------------------------------


def test_two_at_once(node: helpers.Machine) -> None:
    node.mode("slow")
    path = node.metadata(helpers.dual())
    both = [node.start("apply", "--metadata", path, "--node", "ctl-0") for _ in range(2)]
    said = sorted(process.communicate(timeout=60)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said[0].startswith("ctl-0: applied") and "nothing to do" in said[1]
    assert len(node.puppet_runs()) == 1


def test_the_second_gives_up(node: helpers.Machine) -> None:
    node.mode("hang")
    path = node.metadata(helpers.dual())
    first = node.start("apply", "--metadata", path, "--node", "ctl-0")
    node.wait_for_puppet()
    during = node.tree()
    result = apply(node, helpers.dual(), "--lock-timeout", "0.3")
    assert result.returncode == 1 and "Another om-agent" in result.stderr
    assert node.tree() == during
    first.terminate()
    first.communicate(timeout=60)
    assert first.returncode == 1


# -- hook ------------------------------------------------------------------------------------------------------------


def hook(node: helpers.Machine, stdin: bytes, *more: str) -> dict[str, typing.Any]:
    result = node.run("hook", "--node", "ctl-0", *more, stdin=stdin)
    assert result.returncode == 0
    answer = json.loads(result.stdout)
    assert {"deploy_stdout", "deploy_stderr", "deploy_status_code"} <= set(answer)
    for secret in SECRETS:
        assert secret not in result.stdout + result.stderr
    return typing.cast("dict[str, typing.Any]", answer)


def deployment(raw: object, **inputs: object) -> bytes:
    given = {"deploy_action": "CREATE", "oslo_messaging": json.dumps(raw), "verify_timeout": "0", **inputs}
    listed = [{"name": name, "value": value} for name, value in given.items()]
    return json.dumps({"id": "1", "group": "om-messaging", "config": "", "inputs": listed}).encode()


def external() -> helpers.Raw:
    """Metadata of a node that runs no backend."""
    rpc = {"scheme": "amqp", "tls": False, "password": "rpc-secret", "hosts": ["198.51.100.1"]}
    return {"rpc": rpc, "nodes": helpers.nodes(1, 0)}


def router_alone() -> helpers.Raw:
    """Metadata of a node that has a router for both halves, where nobody has started one."""
    raw = helpers.put(helpers.dual(1, 0), "nodes.0.address", "127.0.49.77")
    del raw["broker"]
    return {**raw, "notify": {"scheme": "amqp"}}


def bare(node: helpers.Machine) -> helpers.Machine:
    """A node without services, where with `external` metadata nothing needs to run."""
    for service in ("nova", "neutron", "swift"):
        shutil.rmtree(node.root / "etc" / service)
    return node


def test_hook(node: helpers.Machine) -> None:
    answer = hook(bare(node), deployment(external()))
    assert (answer["deploy_status_code"], answer["deploy_stderr"]) == (0, ""), answer
    assert answer["deploy_stdout"].startswith("ctl-0: applied") and answer["node"] == "ctl-0"
    assert "messaging works" in answer["deploy_stdout"]
    assert int(answer["changes"]) > 0 and answer["mesh"] == "none"
    assert "problem" not in answer, "Heat takes an error output for a failure, whatever its value"
    assert all(isinstance(value, str) for name, value in answer.items() if name != "deploy_status_code")
    again = hook(node, deployment(external()))
    assert {**again, "deploy_stdout": ""} == {**answer, "deploy_stdout": ""}, "the same outputs for the same metadata"


def test_hook_names_metadata_without_telling_it(node: helpers.Machine, tmp_path: pathlib.Path) -> None:
    """The same name for the same metadata, another for other metadata, and another on another node."""
    first = hook(bare(node), deployment(external()))["generation"]
    assert re.fullmatch("[0-9a-f]{12}", first)
    other = helpers.put(external(), "rpc.password", "other-rpc-secret")
    assert hook(node, deployment(other))["generation"] != first
    assert hook(node, deployment(external()))["generation"] == first
    (tmp_path / "second").mkdir()
    second = bare(helpers.machine(tmp_path / "second"))
    assert hook(second, deployment(external()))["generation"] != first


def test_hook_fails_when_messaging_does_not_work(node: helpers.Machine) -> None:
    """apply succeeds but no router runs: the stack's status reason gets the problem and its remedy."""
    answer = hook(node, deployment(router_alone()))
    assert answer["deploy_status_code"] == 3
    assert (node.root / "etc/qpid-dispatch/qdrouterd.json").exists()
    assert answer["deploy_stdout"].startswith("ctl-0: applied")
    down = "router on ctl-0: no router listens at 127.0.49.77:31459. Run systemctl status qdrouterd"
    assert answer["problem"].startswith(down) and answer["deploy_stderr"].startswith(down)
    assert answer["mesh"].startswith("broken: router on ctl-0: no router listens at ")
    assert int(answer["changes"]) > 0 and answer["generation"]


@pytest.mark.parametrize("action", ["DELETE", "SUSPEND"])
def test_hook_leaves_the_node_alone_when_its_deployment_goes(node: helpers.Machine, action: str) -> None:
    before = node.tree()
    answer = hook(node, deployment(helpers.dual(), deploy_action=action))
    assert answer["deploy_status_code"] == 0 and "keeps its present state" in answer["deploy_stdout"]
    assert node.tree() == before


BAD_STDIN = {
    "nothing": b"",
    "half": b"{",
    "a list": b"[]",
    "null": b"null",
    "latin-1": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "deep and whole": b'{"a":' * 500 + b"1" + b"}" * 500,
    "an empty deployment": b"{}",
    "no messaging": b'{"config": "echo hello", "inputs": []}',
    "config that cannot be read": b'{"config": "{"}',
    "inputs of another kind": b'{"inputs": {"oslo_messaging": 1}}',
    "wrong metadata": deployment({"rpc": {"port": []}}),
    "a number": deployment(7),
    "a time that is none": deployment(helpers.dual(), verify_timeout="soon"),
}


@pytest.mark.parametrize("stdin", BAD_STDIN.values(), ids=BAD_STDIN.keys())
def test_hook_with_bad_input(node: helpers.Machine, stdin: bytes) -> None:
    before = node.tree()
    answer = hook(node, stdin)
    assert answer["deploy_status_code"] == 2 and answer["deploy_stderr"]
    assert answer["problem"].splitlines()[0] in answer["deploy_stderr"].replace("\n", " ") + " "
    assert node.tree() == before


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        *((text, "there is nothing on standard input") for text in (b"", b" \n")),
        *((text, "is not JSON") for text in (b"{", b"hello", b"config: {}", b"\xff\xfe", b'{"a": "\xff"}', b"7 8")),
        (b"[]", "is a list, where"),
        *((text, "is a single value, where") for text in (b"null", b'"x"', b"7", b"-1.5", b"true", b"false")),
        (b"{}", "is not a heat-config deployment"),
    ],
)
def test_hook_says_what_came_in_the_place_of_a_deployment(node: helpers.Machine, stdin: bytes, said: str) -> None:
    problem = hook(node, stdin)["problem"]
    assert said in problem and "top-level key" not in problem
    assert "Give the deployment's JSON as heat-config does; for plain metadata use om-agent apply." in problem


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--root"], "argument --root: expected one argument"),
        (["--root", "/nowhere/at all"], "argument --root: /nowhere/at all is not a directory"),
        (["--lock-timeout", "soon"], "argument --lock-timeout: expected a number of seconds from 0 to 604800"),
        (["--services", "--no-services"], "argument --no-services: not allowed with argument --services"),
    ],
)
def test_hook_answers_when_its_arguments_are_wrong(node: helpers.Machine, more: list[str], said: str) -> None:
    before = node.tree()
    answer = hook(node, deployment(helpers.dual()), *more)
    assert answer["deploy_status_code"] == 2 and f"does not take: {said}. Fix OM_AGENT_ARGS" in answer["problem"]
    assert node.tree() == before
    assert node.run("signal", *more).returncode == 2, "without a deployment there is nobody to tell"
    assert node.run("hook", "--help").stdout.startswith("usage:")


def test_heat_is_told_once_of_a_line_in_a_file(node: helpers.Machine) -> None:
    """apply finds it, and verify finds it again; Heat hears of it once."""
    text = "[audit_middleware_notifications]\ntransport_url = rabbit://old/\n"
    (node.root / "etc/nova/nova.conf").write_text(text)
    (node.root / "etc/nova/nova-compute.conf").write_text("[oslo_messaging_amqp]\nidle_timeout = 1\n")
    unit = node.root / "lib/systemd/system/nova-compute.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/usr/bin/nova-compute\n")
    answer = hook(node, deployment(helpers.dual()))
    said = answer["deploy_stdout"] + answer["deploy_stderr"]
    assert said.count("[audit_middleware_notifications] transport_url") == 1, said
    assert said.count("nova-compute.conf:2: ") == answer["deploy_stderr"].count("nova-compute.conf:2: ") == 1, said


def test_hook_when_apply_fails(node: helpers.Machine) -> None:
    before = node.tree()
    node.mode("fail")
    answer = hook(node, deployment(helpers.dual()))
    assert answer["deploy_status_code"] == 1 and "as it was before" in answer["deploy_stderr"]
    assert node.tree() == before


def test_hook_without_standard_input(node: helpers.Machine) -> None:
    command = [*node.command("hook"), "--node", "ctl-0"]
    shell = ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *command]
    result = subprocess.run(shell, env=node.environment(), cwd=node.base, capture_output=True, check=False)
    assert result.returncode == 0 and json.loads(result.stdout)["deploy_status_code"] != 0


def test_hook_that_is_ended(node: helpers.Machine) -> None:
    before = node.tree()
    node.mode("hang")
    command = [*node.command("hook"), "--node", "ctl-0"]
    (node.base / "stdin").write_bytes(deployment(helpers.dual()))
    with open(node.base / "stdin", "rb") as stdin:
        pipes: dict[str, typing.Any] = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=node.base, env=node.environment(), **pipes)
    node.wait_for_puppet()
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and json.loads(out)["deploy_status_code"] == 1
    assert node.tree() == before


def test_a_reader_that_goes_away_is_no_failure(node: helpers.Machine) -> None:
    command = [*node.command("plan"), node.metadata(helpers.dual()), "--node", "ctl-0"]
    shell = ["/bin/bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "bash", *command]
    result = subprocess.run(shell, env=node.environment(), cwd=node.base, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "Traceback" not in result.stderr


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "2>/dev/full", "2>&-", "<&-"])
@pytest.mark.parametrize(("command", "code"), [("apply", 0), ("validate", 0), ("hook", 0), ("bad", 2)])
def test_that_nobody_hears_it_changes_nothing(node: helpers.Machine, redirection: str, command: str, code: int) -> None:
    path = node.metadata(helpers.dual() if command != "bad" else {"rpc": 1})
    arguments = {
        "apply": ["apply", "--node", "ctl-0", "--metadata", path],
        "validate": ["validate", path],
        "hook": ["hook"],
        "bad": ["validate", "--json", path],
    }[command]
    words = node.command(*arguments)
    shell = ["sh", "-c", f'"$@" {redirection}', "sh", *words]
    done = subprocess.run(shell, env=node.environment(), cwd=node.base, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "defect" not in done.stderr


@pytest.mark.parametrize("arguments", [["topology", "--format", "dot"], ["capacity"], ["plan", "--node", "ctl-0"]])
def test_a_disk_that_is_full_keeps_the_only_thing_that_was_asked_for(
    node: helpers.Machine, arguments: list[str]
) -> None:
    command = [*node.command(*arguments), node.metadata(helpers.dual())]
    shell = ["sh", "-c", '"$@" >/dev/full', "sh", *command]
    done = subprocess.run(shell, env=node.environment(), cwd=node.base, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "om-agent: The output could not be written (no space left on device)." in done.stderr


# -- the mesh on paper -----------------------------------------------------------------------------------------------


def test_topology_as_text_for_graphviz_and_for_programs(node: helpers.Machine) -> None:
    path = node.metadata(helpers.dual(3, 2))
    result = node.run("topology", "--format", "dot", path)
    assert result.returncode == 0 and result.stdout.startswith("graph mesh {\n") and '"cmp-1"' in result.stdout
    assert "plaintext" not in result.stdout and "rpc.tls" in result.stderr
    data = json.loads(node.run("topology", "--format", "json", path).stdout)
    assert set(data) == {"interiors", "edges", "links", "losses"}
    assert set(data["links"][0]) == {"source", "target", "kind", "cost"}


def test_topology_as_a_picture(node: helpers.Machine) -> None:
    if not shutil.which("dot"):
        helpers.skip("graphviz is not installed")
    result = node.run("topology", node.metadata(helpers.dual(3, 2)))
    assert result.returncode == 0
    assert "<svg " in result.stdout and result.stdout.rstrip().endswith("</svg>")


def test_topology_without_graphviz(node: helpers.Machine) -> None:
    result = node.run("topology", node.metadata(helpers.dual(3, 2)), PATH=str(node.bin))
    assert (result.returncode, result.stdout) == (1, "")
    assert "Graphviz is not installed" in result.stderr


@pytest.mark.parametrize("raw", [helpers.default(), put(helpers.dual(1), "router.engine", "embedded")])
def test_topology_without_a_mesh(node: helpers.Machine, raw: helpers.Raw) -> None:
    result = node.run("topology", node.metadata(raw))
    assert (result.returncode, result.stdout) == (2, "")
    assert "nothing to draw" in result.stderr


def test_topology_of_a_node_that_does_not_answer(node: helpers.Machine) -> None:
    raw = put(helpers.dual(1, 1), "nodes.0.address", "127.0.0.1")
    raw = put(raw, "rpc.port", 1)
    result = node.run("topology", "--live", "--node", "ctl-0", node.metadata(raw))
    assert result.returncode == 1 and result.stdout == ""
    assert "cannot query the router at 127.0.0.1:" in result.stderr


def test_capacity(node: helpers.Machine) -> None:
    path = node.metadata(helpers.dual(3, 2))
    result = node.run("capacity", "--processes", "compute=50", path)
    assert result.returncode == 0
    assert "23 nodes, with 10 times as many" in result.stdout
    sizes = json.loads(node.run("capacity", "--json", "--processes", "compute=50", path).stdout)
    assert [(s["times"], s["nodes"]) for s in sizes] == [(1, 5), (10, 23)]
    (edge,) = [n for n in sizes[0]["needs"] if n["kind"] == "edge"]
    assert edge["clients"] == 50


@pytest.mark.parametrize("text", ["compute", "=5", "compute=", "compute=-1", "compute=x", "compute=1.5"])
def test_capacity_of_no_number(node: helpers.Machine, text: str) -> None:
    result = node.run("capacity", "--processes", text, node.metadata(helpers.dual()))
    assert (result.returncode, result.stdout) == (2, "")
    assert "expected a role and a number" in result.stderr


def test_capacity_of_a_role_that_no_node_has(node: helpers.Machine) -> None:
    result = node.run("capacity", "--processes", "computer=5", node.metadata(helpers.dual()))
    assert (result.returncode, result.stdout) == (2, "")
    assert '--processes: no node has the role "computer". Use a role of nodes: compute, controller.' in result.stderr


def test_capacity_of_what_is_elsewhere(node: helpers.Machine) -> None:
    raw = put(put(helpers.dual(), "rpc.hosts", ["r"]), "notify.hosts", ["n"])
    result = node.run("capacity", node.metadata(raw))
    assert result.returncode == 0
    assert result.stdout == "4 nodes: both halves are external, so no router and no broker here needs anything\n"


def test_the_defaults_of_capacity_are_in_its_help(node: helpers.Machine) -> None:
    said = " ".join(node.run("capacity", "--help").stdout.split())
    assert "(default: controller 100, compute 6, any other 6)" in said
    document = " ".join((helpers.ROOT / "doc/operations.rst").read_text().split())
    assert "controller 100, compute 6, any other 6" in document


# -- resync ----------------------------------------------------------------------------------------------------------


def test_resync_looks_at_no_service(node: helpers.Machine) -> None:
    """Its unit has none of root's rights, so that it may not look into a directory that is glance's alone."""
    closed = node.root / "etc/glance"
    closed.mkdir()
    closed.chmod(0)
    metadata = node.metadata(put(helpers.dual(controllers=1), "router.engine", "embedded"))
    command = node.command("resync", "--node", "ctl-0", "--stay", metadata)
    unprivileged = [] if os.geteuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    environment = node.environment()
    result = subprocess.run(
        [*unprivileged, *command], cwd=node.base, env=environment, capture_output=True, text=True, check=False
    )
    closed.chmod(0o755)
    assert (result.returncode, result.stderr) == (0, "")
