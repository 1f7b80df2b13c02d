"""Services under load, restarted whenever their file changes, as puppet would restart them; nothing may be lost."""

from __future__ import annotations

import collections.abc
import dataclasses

from testbed import overcloud, processes, workers

_EXCHANGE = "nova"
_TOPIC = "conductor"
_FOREVER = 600.0  # seconds, and messages; what ends it is a restart
_MANY = 1_000_000


@dataclasses.dataclass
class Node:
    """What runs on one node; each of them as it was last started."""

    host: overcloud.Host
    client: workers.Client
    server: workers.Server | None
    listener: workers.Listener | None
    config: bytes


class Services:
    """A client on every node, and servers and listeners on some.

    :param kinds: what clients send: call, cast, notify; of each a thread.
    """

    def __init__(
        self,
        supervisor: processes.Supervisor,
        hosts: collections.abc.Sequence[overcloud.Host],
        servers: collections.abc.Collection[str],
        listeners: collections.abc.Collection[str] = (),
        kinds: collections.abc.Sequence[str] = ("call",),
    ) -> None:
        self._supervisor = supervisor
        self._kinds = tuple(kinds)
        self._sent: list[workers.Sent] = []
        self._got: dict[str, set[str]] = {kind: set() for kind in kinds}
        self.restarts = 0
        # Listeners first: of a notification that no queue waits for, nobody ever hears.
        self._nodes = {h.name: self._node(h, h.name in servers, h.name in listeners) for h in hosts}
        self._target = next(n.server for n in self._nodes.values() if n.server)
        for node in self._nodes.values():
            self._expect(node.listener, node.server, node.client)

    def begin(self) -> None:
        """Let all clients send."""
        for node in self._nodes.values():
            self._begin(node.client)

    def restart_if_changed(self, name: str) -> bool:
        """Restart what is on a node when the file that it reads is another one now.

        Nobody sends while an RPC server is restarted: oslo.messaging 14.3.1 acknowledges what reaches a server that is
        stopping and does not do it, whatever it was stopped for (65 of 13900 calls and casts in three restarts).
        """
        node = self._nodes[name]
        if node.host.service_file(_EXCHANGE).read_bytes() == node.config:
            return False
        waiting = [n for n in self._nodes.values() if n is node or node.server]
        for one in waiting:
            self._pause(one.client)
        self._supervisor.end(node.client.process)
        self._end_servers(node)
        new = self._nodes[name] = self._node(node.host, bool(node.server), bool(node.listener))
        self._expect(new.listener, new.server, new.client)
        for one in waiting:
            self._begin(self._nodes[one.host.name].client)
        self.restarts += 1
        return True

    def end(self) -> tuple[dict[str, int], list[str]]:
        """End everything; returns how many of each kind were sent, and what was lost."""
        for node in self._nodes.values():
            self._pause(node.client)
        for node in self._nodes.values():
            self._end_servers(node)
        failed = [f"{one.ident}: {one.error}" for one in self._sent if one.error]
        lost = [one.ident for one in self._sent if not one.error and one.ident not in self._got[one.kind]]
        return {kind: sum(one.kind == kind for one in self._sent) for kind in self._kinds}, failed + lost

    def _node(self, host: overcloud.Host, serves: bool, listens: bool) -> Node:
        config = host.service_file(_EXCHANGE).read_bytes()
        listener = workers.Listener(self._supervisor, host, _EXCHANGE, [_EXCHANGE]) if listens else None
        server = workers.Server(self._supervisor, host, _EXCHANGE, _TOPIC) if serves else None
        return Node(host, workers.Client(self._supervisor, host, _EXCHANGE), server, listener, config)

    def _expect(self, *started: workers.Worker | None) -> None:
        for worker in started:
            if worker:
                worker.expect("ready", workers.READY_SECONDS)

    def _begin(self, client: workers.Client) -> None:
        client.begin(self._kinds, _MANY, _FOREVER, self._target, interval=0.1, timeout=20.0)

    def _pause(self, client: workers.Client) -> None:
        """Let it finish what it is at, as a service does that is told to stop."""
        client.enough()
        self._sent += client.result()

    def _end_servers(self, node: Node) -> None:
        for worker in (node.server, node.listener):
            if worker:
                for kind, names in worker.finish().items():
                    self._got[kind] |= set(names)
                self._supervisor.end(worker.process)
