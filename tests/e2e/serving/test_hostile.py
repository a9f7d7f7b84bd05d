"""A thousand hostile requests: no fault, no hang, and an answer in our shape to all that can be answered."""

import socket
import threading
from collections import Counter
from pathlib import Path

import httpx
from hostile_client import SILENT, HostileClient

from live_server import running


def test_a_thousand_hostile_requests(own_bundle: Path) -> None:
    with running(own_bundle, body_timeout=2.0) as address:
        port = int(address.rpartition(":")[2])
        clients = [HostileClient(port, seed) for seed in range(4)]
        threads = [threading.Thread(target=client.run, args=(250,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        totals: Counter[str] = Counter()
        for client in clients:
            assert client.seen.hangs == []
            assert client.seen.faults == []
            for counts in client.seen.statuses.values():
                totals += counts
        assert totals.total() == 1000
        assert {"200", "400", "404", "405", "413", "415", "421", "422", "431"} <= set(totals)
        assert totals[SILENT] < 100
        measures = httpx.get(f"{address}/metrics").text
        assert 'status="500"' not in measures
        assert "two_towers_queue_depth 0.0" in measures
        # The bundle is what it was, but for the documents that were soundly added.
        assert httpx.get(f"{address}/documents/d2").is_success
        assert httpx.get(f"{address}/ready").is_success


def test_slow_clients_hold_nobody_up(bundle: Path) -> None:
    """A hundred that dribble their headers or bodies; others are served meanwhile, and they are left in the end."""
    with running(bundle, body_timeout=2.0, read_only=True) as address:
        port = int(address.rpartition(":")[2])
        start = HostileClient(port, seed=0).request("/search", b'{"query": "finance"}')
        connections = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(100)]
        try:
            for number, connection in enumerate(connections):
                connection.sendall(start[: min(20 + number, len(start) - 1)])
            for _ in range(20):
                assert httpx.post(f"{address}/search", json={"query": "finance"}).is_success
            for connection in connections:
                while connection.recv(65536):
                    pass
        finally:
            for connection in connections:
                connection.close()
        assert "two_towers_in_flight 1.0" in httpx.get(f"{address}/metrics").text
