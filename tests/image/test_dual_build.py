"""Whether an image for dual backends can be built: the element's own check, with the image's own apt."""

from __future__ import annotations

import pathlib
import shutil

from tests.image import material, test_router_packages
from tests.support import helpers

root = test_router_packages.root
SCRIPT = "install.d/00-oslo-messaging-amqp"


def check(root: pathlib.Path, python: str) -> tuple[int, str]:
    """Run the script in the image; returns its exit code and what it said."""
    (root / "tmp/install.d").mkdir()
    shutil.copy2(helpers.ROOT / "elements/oslo-messaging-amqp" / SCRIPT, root / "tmp" / SCRIPT)
    given = {"DISTRO_NAME": "debian", "DIB_RELEASE": material.RELEASE, "DIB_OSLO_MESSAGING_PYTHON": python}
    result = test_router_packages.inside(root, f"/tmp/{SCRIPT}", **given)
    return result.returncode, result.stdout


def test_a_release_without_the_driver_is_refused(root: pathlib.Path) -> None:
    status, said = check(root, "/usr/bin/python3")
    if material.DUAL:
        assert (status, said) == (0, "")
    else:
        assert status == 1
        assert said.startswith("ERROR: oslo-messaging-amqp: oslo.messaging ")
        assert f"of debian {material.RELEASE} has no AMQP 1.0 driver" in said
        assert "overcloud-rabbitmq" in said and "DIB_RELEASE=bookworm" in said


def test_another_python_is_left_to_the_later_check(root: pathlib.Path) -> None:
    assert check(root, "/opt/venv/bin/python") == (0, "")
