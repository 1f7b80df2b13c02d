"""``python -m om_agent`` is the same as ``om-agent``."""

import sys

from om_agent import cli

sys.exit(cli.main(sys.argv[1:]))
