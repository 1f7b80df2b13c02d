"""The bootable image from power-on to a verified RPC, with no help of the kernel (TCG): slow."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess

import pytest

from tests.image import material

UNITS = ["om-agent-apply", "om-devrouter", "rabbitmq-server"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_power_on_to_rpc(image: pathlib.Path, tmp_path: pathlib.Path) -> None:
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not installed")
    disk, order, results = tmp_path / "disk.qcow2", tmp_path / "order", tmp_path / "results"
    backing = ["-F", "qcow2", "-b", str(image / "image.qcow2")]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(disk)], check=True)
    todo = {
        "metadata": material.metadata(nodes=[{"name": "qemu", "address": material.ADDRESS}], node="qemu"),
        "units": UNITS,
        "program": material.RPC,
        "arguments": ["/etc/heat/heat.conf", "10"],
    }
    order.write_bytes(json.dumps(todo).encode().ljust(64 * 1024, b"\0"))
    command = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048", "-nodefaults",
        "-no-reboot", "-display", "none", "-monitor", "none", "-serial", f"file:{tmp_path}/serial.log",
        # Without bootindex the BIOS may try the other disk.
        "-drive", f"file={disk},if=none,id=root,format=qcow2", "-device", "virtio-blk-pci,drive=root,bootindex=0",
        "-drive", f"file={order},if=none,id=order,format=raw,readonly=on",
        "-device", "virtio-blk-pci,drive=order,serial=om-image-test",
        "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
        "-chardev", f"file,id=results,path={results}",
        "-device", "virtserialport,chardev=results,name=om-image-test",
    ]  # fmt: skip
    try:
        subprocess.run(command, timeout=1700, check=True)
    except subprocess.TimeoutExpired:
        pytest.fail("no power-off in time: " + (tmp_path / "serial.log").read_text(errors="replace")[-3000:])
    said = json.loads(results.read_text())
    print({k: v for k, v in said.items() if k != "said"})
    assert said["up"] and said["status"] == 0, said
    assert json.loads(said["said"]) == {"url": "amqp", "answers": list(range(10))}
