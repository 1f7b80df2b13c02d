"""The order of om-agent in tripleo's puppet run, with real puppet and the anchors of puppet-openstack."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess

import pytest

from tests.heat import engine
from tests.support import helpers

MANIFEST = engine.HEAT / "deployment/oslo-messaging/apply.pp"

# What the deps class of every service's module declares, and in between a key that its classes remove at each run.
SERVICE = """
anchor {{ '{name}::config::begin': }}
-> exec {{ '{name} loses a key':
  command => 'sed -i /pre_settled/d {root}/{name}.conf && echo {name} loses a key >>{root}/log',
  onlyif  => 'grep -q pre_settled {root}/{name}.conf',
  path    => ['/usr/bin', '/bin'],
}}
~> anchor {{ '{name}::config::end': }}
~> anchor {{ '{name}::service::begin': }}
~> exec {{ '{name} is started':
  command => 'echo {name} is started with "$(cat {root}/{name}.conf)" >>{root}/log',
  path    => ['/usr/bin', '/bin'],
  provider => shell,
}}
-> anchor {{ '{name}::service::end': }}
"""
AGENT = """#!/bin/sh
echo "om-agent $*" >>'{root}/log'
for file in '{root}'/*.conf; do echo pre_settled >"$file"; done
"""


def apply(root: pathlib.Path, step: int, services: str = "") -> list[str]:
    """Apply the manifest twice, as in a role with several messaging services; return the actions in order."""
    if not shutil.which("puppet") or not (helpers.PUPPET_MODULES / "stdlib").is_dir():
        helpers.skip("puppet or its module stdlib is not installed")
    (root / "bin").mkdir()
    (root / "modules").mkdir()
    (root / "modules/stdlib").symlink_to(helpers.PUPPET_MODULES / "stdlib")
    for name, text in (("om-agent", AGENT.format(root=root)), ("systemctl", "#!/bin/sh\n")):
        (root / "bin" / name).write_text(text)
        (root / "bin" / name).chmod(0o755)
    (root / "hiera.yaml").write_text(f"version: 5\nhierarchy: [{{name: all, path: '{root}/data.yaml'}}]\n")
    (root / "data.yaml").write_text(f"step: {step}\n")
    text = MANIFEST.read_text()
    programs = re.sub(r"(?m)('path' +=> )\[.*\]", rf"\1['{root}/bin', '/usr/bin', '/bin']", text)
    (root / "site.pp").write_text(programs * 2 + services)
    options = [f"--{kind}={root}/{kind}" for kind in ("confdir", "vardir", "publicdir", "rundir", "logdir")]
    done = subprocess.run(
        ["puppet", "apply", "--detailed-exitcodes", *options, f"--modulepath={root}/modules",
         f"--hiera_config={root}/hiera.yaml", "--color=false", str(root / "site.pp")],
        capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"], "HOME": str(root)},
    )  # fmt: skip
    assert done.returncode in (0, 2), done.stdout + done.stderr
    log = root / "log"
    return log.read_text().splitlines() if log.exists() else []


def test_a_key_that_a_services_classes_remove_is_there_when_it_starts(tmp_path: pathlib.Path) -> None:
    services = "".join(SERVICE.format(name=name, root=tmp_path) for name in ("nova", "keystone"))
    for name in ("nova", "keystone"):
        (tmp_path / f"{name}.conf").write_text("pre_settled\n")
    said = apply(tmp_path, 4, services)
    for name in ("nova", "keystone"):
        assert f"{name} is started with pre_settled" in said
        assert (
            "om-agent apply"
            in said[said.index(f"{name} loses a key") : said.index(f"{name} is started with pre_settled")]
        )
    assert said.count("om-agent apply") == 3  # as in every step, and once for each


@pytest.mark.parametrize(("step", "runs"), [(1, 0), (2, 1), (5, 1)])
def test_without_services_it_runs_once_and_not_before_step_2(tmp_path: pathlib.Path, step: int, runs: int) -> None:
    assert apply(tmp_path, step) == ["om-agent apply"] * runs
