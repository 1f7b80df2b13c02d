"""The image-building configuration, read by the real tripleo-common together with its own."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest

from tests.support import helpers

OURS = helpers.ROOT / "elements/overcloud-messaging/overcloud-images.yaml"
PROGRAM = """
import json, sys
from tripleo_common.image import base
print(json.dumps(base.BaseImageManager(sys.argv[1:]).load_config_files("disk_images")))
"""


@pytest.fixture(scope="module")
def python() -> pathlib.Path:
    """A Python with tripleo-common, which tools/image installs."""
    if not os.environ.get("OM_IMAGE_PYTHON"):
        pytest.skip("make image-test runs this")
    return pathlib.Path(os.environ["OM_IMAGE_PYTHON"])


def load(python: pathlib.Path, *files: pathlib.Path) -> dict[str, dict[str, list[str]]]:
    command = [str(python), "-W", "ignore", "-c", PROGRAM, *map(str, files)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return {image["imagename"]: image for image in json.loads(result.stdout)}


@pytest.mark.parametrize("theirs", ["overcloud-images-python3.yaml", "overcloud-images-centos9.yaml"])
def test_elements_are_added_to_overcloud_full(python: pathlib.Path, theirs: str) -> None:
    base = python.parents[1] / "share/tripleo-common/image-yaml" / theirs
    files = [base] if "python3" in theirs else [base.with_name("overcloud-images-python3.yaml"), base]
    alone = load(python, *files)
    both = load(python, *files, OURS)
    assert both["overcloud-full"]["elements"] == [*alone["overcloud-full"]["elements"], "overcloud-messaging"]
    alone["overcloud-full"]["elements"] = both["overcloud-full"]["elements"]
    assert both == alone  # nothing else is changed
