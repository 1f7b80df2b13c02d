"""``python -m testbed.peers``: one RPC server with many callers, and one caller of many servers, in one process.

The driver's engine (pyngus) opens one session for every link. A server has one link for each caller that it answers,
and a caller has one for each server that it calls, so both have as many sessions on one connection as they have peers.

The program prints one line of JSON: how many callers got their answer, how many servers answered, and the first error
of each kind. Configuration is one service's file, as it is for the service.
"""

from __future__ import annotations

import argparse
import collections.abc
import concurrent.futures
import json
import os
import resource
import typing

import oslo_messaging

from testbed import workload

_TOPIC = "peers"
_THREADS = 8
_CALL_SECONDS = 20.0


class _Endpoint:
    def echo(self, context: dict[str, str], word: str) -> str:
        """Return the word."""
        return word


def _client(transport: typing.Any, server: str) -> typing.Any:
    target = oslo_messaging.Target(topic=_TOPIC, server=server)
    # Before 14.1 (Debian 12 has 14.0.3) clients were made by their class.
    make = getattr(oslo_messaging, "get_rpc_client", None) or oslo_messaging.RPCClient
    return make(transport, target, timeout=_CALL_SECONDS)


def _call(client: typing.Any, word: str) -> str:
    """Call once; returns '' or the kind of error."""
    try:
        answer = client.call({}, "echo", word=word)
    except Exception as e:  # the result is how many succeed
        return type(e).__name__
    return "" if answer == word else "wrong answer"


def _all(clients: collections.abc.Sequence[typing.Any]) -> dict[str, typing.Any]:
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        results = list(pool.map(_call, clients, map(str, range(len(clients)))))
    failed = [error for error in results if error]
    return {"good": len(results) - len(failed), "errors": sorted(set(failed))}


def run(config: str, count: int) -> dict[str, typing.Any]:
    """Call one server from ``count`` connections, then ``count`` servers from one connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 10 * count + 200)), hard))
    conf = workload.read_config(config, "peers")
    serving = oslo_messaging.get_rpc_transport(conf)
    names = [f"srv{i}" for i in range(count)]
    servers = []
    for name in names:
        target = oslo_messaging.Target(topic=_TOPIC, server=name)
        server = oslo_messaging.get_rpc_server(serving, target, [_Endpoint()], executor="threading")
        server.start()
        servers.append(server)
    one = oslo_messaging.get_rpc_transport(conf)
    servers_called = _all([_client(one, name) for name in names])
    callers = [oslo_messaging.get_rpc_transport(conf) for _ in names]
    callers_served = _all([_client(transport, names[0]) for transport in callers])
    again = _all([_client(one, names[-1])])
    return {"servers called": servers_called, "callers served": callers_served, "still connected": again}


def main() -> None:
    """Run, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m testbed.peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", required=True, metavar="FILE", help="the service's file")
    parser.add_argument("--count", type=int, required=True, help="how many callers, and how many servers")
    args = parser.parse_args()
    print(json.dumps(run(args.config, args.count)), flush=True)
    os._exit(0)  # hundreds of drivers would take a minute to close their connections one by one


if __name__ == "__main__":
    main()
