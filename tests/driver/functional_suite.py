"""Run oslo.messaging's own functional suite, as its wheel has it, in the Python of an environment.

``python functional_suite.py batch|others``: the batch of notifications has a run of its own, because it needs another
configuration. Prints what unittest prints, and as the last line the skipped tests with their reasons, as JSON.
"""

from __future__ import annotations

import collections.abc
import json
import pathlib
import sys
import tempfile
import unittest

from oslo_config import cfg

MODULES = ("oslo_messaging.tests.functional.test_functional", "oslo_messaging.tests.functional.notify.test_logger")
BATCH = "test_simple_batch"
SETTINGS = "[oslo_messaging_amqp]\npre_settled = notify\n"


def cases(suite: unittest.TestSuite) -> collections.abc.Iterator[unittest.TestCase]:
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from cases(each)
        else:
            yield each


def main(batch: bool) -> int:
    # The suite reads options neither from its URL, which it takes for Kafka's, too, nor, when they are lists, from the
    # environment.
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "functional.conf")
        path.write_text(SETTINGS if batch else "")
        cfg.CONF(["--config-file", str(path)], project="functional")
    every = cases(unittest.defaultTestLoader.loadTestsFromNames(MODULES))
    chosen = [case for case in every if (BATCH in case.id()) == batch]
    result = unittest.TextTestRunner(verbosity=2).run(unittest.TestSuite(chosen))
    skipped = {".".join(case.id().split(".")[-2:]): reason for case, reason in result.skipped}
    print(json.dumps({"run": result.testsRun, "skipped": skipped}))
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] == "batch"))
