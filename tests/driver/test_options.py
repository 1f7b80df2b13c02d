"""What the documentation says of the options, and what the configuration makes of them."""

from __future__ import annotations

import pathlib
import re

import pytest

pytest.importorskip("oslo_config.cfg", reason="oslo.config is not installed")
from oslo_config import cfg
from oslo_messaging_amqp1 import options

PAGE = pathlib.Path(__file__).resolve().parents[2] / "doc/driver.rst"


def shown(default: object) -> str:
    if default in (None, "", []):
        return "none"
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_every_option_is_documented_with_its_default() -> None:
    table = PAGE.read_text().partition("\nOptions\n")[2].partition("\nThree defaults")[0]
    documented = dict(re.findall(r"^``([a-z_]+)`` +(\S+)", table, re.MULTILINE))
    assert documented == {option.name: shown(option.default) for option in options.OPTIONS}


def test_the_url_wins_over_the_file_and_the_file_over_the_default(tmp_path: pathlib.Path) -> None:
    (tmp_path / "service.conf").write_text(f"[{options.GROUP}]\nidle_timeout = 7\nlink_retry_delay = 3\n")
    conf = cfg.ConfigOpts()
    conf([], project="driver", default_config_files=[str(tmp_path / "service.conf")])
    found = options.read(conf, {"idle_timeout": "5", "pre_settled": "notify, rpc-reply"})
    assert (found.idle_timeout, found.link_retry_delay, found.default_send_timeout) == (5, 3, 30)
    assert found.pre_settled == ["notify", "rpc-reply"]
    with pytest.raises(ValueError, match="the transport URL's idle_timeout is not valid"):
        options.read(conf, {"idle_timeout": "soon"})
