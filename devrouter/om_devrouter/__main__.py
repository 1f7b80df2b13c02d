"""``python -m om_devrouter``."""

import sys

from om_devrouter import cli

if __name__ == "__main__":
    sys.exit(cli.main())
