"""Files of tests/integration run beside all others (tests/conftest.py), so that none may use another's addresses."""

from __future__ import annotations

import collections
import re

from tests.support import helpers

# Of 127.0.0.0/24 tests use ports that the kernel chooses.
NETWORK = re.compile(r"\b127\.0\.([1-9]\d*)\b")


def test_integration_tests_have_networks_of_their_own() -> None:
    users = collections.defaultdict(set)
    for path in (helpers.ROOT / "tests").rglob("*.py"):
        for network in NETWORK.findall(path.read_text()):
            users[network].add(str(path.relative_to(helpers.ROOT)))
    shared = [sorted(files) for files in users.values() if len(files) > 1]
    assert [files for files in shared if any("integration" in file for file in files)] == []
    assert len(users) > 20  # the pattern finds them
