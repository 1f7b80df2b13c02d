"""Run inside a node: call every nova-compute with nova's own client, and print how long each took.

Usage: calls.py HOST,... ARGUMENT...; ARGUMENT... is nova's command line. Prints JSON: seconds by host, or the error.
"""

from __future__ import annotations

import json
import sys
import time

from nova import config, context, objects
from nova.compute import rpcapi


def main() -> None:
    hosts, *arguments = sys.argv[1:]
    config.parse_args(["calls", *arguments])
    objects.register_all()
    client = rpcapi.ComputeAPI()
    took: dict[str, object] = {}
    for host in hosts.split(","):
        start = time.monotonic()
        try:
            client.host_power_action(context.get_admin_context(), host, "startup")
            took[host] = round(time.monotonic() - start, 3)
        except Exception as e:
            took[host] = f"{type(e).__name__}: {e}"
    print(json.dumps(took))


if __name__ == "__main__":
    main()
