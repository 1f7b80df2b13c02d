"""The restrictions of units on a booted node, as systemd and the kernel show them; see doc/security.rst."""

from __future__ import annotations

import resource

from testbed import image_node
from tests.image import material
from tests.image.material import BROKER, ROUTER, WATCH

OWNERS = {ROUTER: material.WHERE.user, WATCH: "root", BROKER: "rabbitmq"}
# The one directory that a unit can write.
OWN_DIRECTORIES = {WATCH: "/run/om-router-watch", BROKER: "/var/lib/rabbitmq"}
SYSTEM_DIRECTORIES = ("/etc", "/etc/om-agent", "/usr/bin", "/var/lib/om-agent", "/run", "/run/systemd/system")


def router_runs_as_the_image_says(node: image_node.Node) -> None:
    """The unit's drop-in has effect."""
    shown = node.run("systemctl", "show", "--property=ExecStart,LimitNOFILE,Restart,User", ROUTER)
    assert f" -c {material.WHERE.config} " in shown
    assert {"LimitNOFILE=65536", "Restart=on-failure", f"User={material.WHERE.user}"} <= set(shown.splitlines())
    process = node.unit(ROUTER).main_pid
    limit = min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])  # this machine's own may be lower
    assert process and str(limit) in node.run("grep", "Max open files", f"/proc/{process}/limits").split()


def process_is_limited(node: image_node.Node, unit: str) -> None:
    """No capabilities, no new privileges, a filter of system calls, no core dump; the right user."""
    process = f"/proc/{node.unit(unit).main_pid}"
    status = dict(line.split(":\t", 1) for line in node.run("cat", f"{process}/status").splitlines())
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")  # 2: a filter
    assert {status[key] for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert "Max core file size 0 0" in " ".join(node.run("cat", f"{process}/limits").split())
    assert node.run("stat", "--format=%U", process).strip() == OWNERS[unit]


def process_writes_its_own_files_only(node: image_node.Node, unit: str) -> None:
    """In the mount namespace of the unit not even root could write elsewhere."""
    inside = ("nsenter", f"--target={node.unit(unit).main_pid}", "--mount")
    own = OWN_DIRECTORIES.get(unit)
    for directory in (*SYSTEM_DIRECTORIES, *OWN_DIRECTORIES.values()):
        if node.call(*inside, "test", "-d", directory)[0] != 0:
            continue  # the other unit does not run here
        status, said = node.call(*inside, "touch", f"{directory}/om-image-test")
        assert status == 0 if own == directory else "Read-only file system" in said, (directory, said)
    if own:
        node.run("rm", f"{own}/om-image-test")
    node.run("touch", "/tmp/om-image-test", "/root/om-image-test")
    for path in ("/tmp/om-image-test", "/root/om-image-test", "/dev/kmsg"):
        assert node.call(*inside, "test", "-e", path)[0] != 0, path
    if unit != WATCH:  # root sees all processes, and the watch is root's
        owner = OWNERS[unit]
        other = ("setpriv", f"--reuid={owner}", f"--regid={owner}", "--clear-groups")
        assert node.call(*inside, *other, "ls", "/proc/self")[0] == 0
        assert node.call(*inside, *other, "ls", "/proc/1")[0] != 0


def watch_follows_router(node: image_node.Node) -> None:
    """The watch starts, stops and restarts with its router."""

    def watching() -> int:
        return node.unit(WATCH).main_pid

    before = watching()
    assert before > 0
    node.run("systemctl", "restart", ROUTER)
    node.wait_active(ROUTER, WATCH)
    assert watching() != before
    node.run("systemctl", "stop", ROUTER)
    assert {node.unit(name).state for name in (ROUTER, WATCH)} == {"inactive"}
    node.run("systemctl", "start", ROUTER)
    node.wait_active(ROUTER, WATCH)
    assert node.unit(WATCH).started >= node.unit(ROUTER).active
