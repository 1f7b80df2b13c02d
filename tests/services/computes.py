"""Run inside a node: many nova-computes with the fake driver, each a process of its own.

Usage: computes.py COUNT ARGUMENT...; every process gets ARGUMENT..., a host name ``fake-NN`` and files of its own. nova
is imported once, before the processes part, since importing it takes seconds of CPU.
"""

from __future__ import annotations

import os
import signal
import sys

import eventlet.hubs
from nova.cmd import compute


def main() -> None:
    count, *arguments = sys.argv[1:]
    children = []
    for number in range(int(count)):
        host = f"fake-{number:02}"
        state = f"/var/lib/nova/{host}"
        os.makedirs(state, exist_ok=True)
        with open(f"{state}/nova.conf", "w") as file:
            file.write(f"[DEFAULT]\nhost = {host}\nstate_path = {state}\nlog_file = /var/log/nova/{host}.log\n")
        child = os.fork()
        if not child:
            eventlet.hubs.use_hub()  # one of its own: with the parent's, it would wake for what others wait for
            sys.argv = ["nova-compute", *arguments, f"--config-file={state}/nova.conf"]
            compute.main()
            return
        children.append(child)

    def end(*_: object) -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    for child in children:
        _, status = os.waitpid(child, 0)
        print(f"process {child} ended with {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
