"""The bootable image from power-on to a verified RPC, in qemu without KVM (TCG), so it is slow."""

from __future__ import annotations

import json
import pathlib
import subprocess

import pytest

from tests.image import conftest, expected, material


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_power_on_to_rpc(image: pathlib.Path, machine: conftest.Machine) -> None:
    try:
        machine.process.wait(3300)
    except subprocess.TimeoutExpired:
        pytest.fail("no power-off in time: " + machine.last_words())
    results = machine.directory / "results"
    assert results.stat().st_size, "powered off without a word: " + machine.last_words()
    said = json.loads(results.read_text())
    print({k: v for k, v in said.items() if k != "said"})
    assert said["up"] and said["status"] == 0, said
    assert json.loads(said["said"]) == {"url": material.RPC_SCHEME, "answers": list(range(10))}
    raw = machine.directory / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(machine.directory / "disk"), str(raw)], check=True)
    partitions = ["partx", "--show", "--noheadings", "--output", "START", str(raw)]
    sector = int(subprocess.run(partitions, capture_output=True, text=True, check=True).stdout.split()[0])
    read = expected.from_partition(f"{raw}?offset={512 * sector}")
    assert expected.differences(read, image / "tree", "qemu", material.QEMU["oslo_messaging"]) == []
