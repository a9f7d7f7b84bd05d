"""The metrics that Prometheus reads at /metrics: requests, their seconds, the queue, and the size of the index.

With several processes, each keeps its numbers in a file of one shared folder (prometheus-client's multiprocess mode);
the process that answers /metrics adds them up. When a process dies, its counts stay, and its current values
(``two_towers_in_flight``, ``two_towers_queue_depth``) are removed.
"""

import os
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from freemvmt.search.retriever import Retriever
from freemvmt.server.http.errors import Refusal
from freemvmt.server.settings import METRICS_VARIABLE

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "two_towers_requests",
            "Requests that were answered.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "two_towers_request_seconds",
            "Seconds from a request's headers to the end of its answer.",
            ["route", "search_method"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._in_flight = self._gauge("in_flight", "Requests under way.", "livesum")
        self._queue = self._gauge("queue_depth", "Requests that wait for a thread.", "livesum")
        self._documents = self._gauge("documents", "Documents that can be found.", "livemostrecent")
        self._size = self._gauge("index_size_bytes", "Bytes of the vectors, as float32.", "livemostrecent")

    def _gauge(self, name: str, description: str, multiprocess_mode: Literal["livesum", "livemostrecent"]) -> Gauge:
        return Gauge(f"two_towers_{name}", description, registry=self._registry, multiprocess_mode=multiprocess_mode)

    def note_queue(self, waiting: int) -> None:
        """Set the number of requests that wait for a thread."""
        self._queue.set(waiting)

    def begin(self) -> None:
        """Count a request as in flight, until ``count`` is called."""
        self._in_flight.inc()

    def count(self, route: str, method: str, search_method: str, status: int, seconds: float) -> None:
        """Count a finished request. The labels come from short lists: a client cannot create ever more of them."""
        self._in_flight.dec()
        method = method if method in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route, search_method).observe(seconds)

    def text(self) -> bytes:
        """The metrics of all processes, in Prometheus's text format; ``Refusal`` (503) when their folder is gone."""
        documents = len(self._retriever)
        self._documents.set(documents)
        self._size.set(4 * documents * int(self._retriever.about["dim"]))
        registry = self._registry
        if folder := os.environ.get(METRICS_VARIABLE):
            registry = CollectorRegistry()
            _remove_gauges_of_dead_processes(Path(folder))
            try:
                MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
            except ValueError:  # some systems clear shared memory when a user logs out
                message = "the numbers of the processes were taken away; start the server again"
                raise Refusal(503, "busy", message, {"Retry-After": "60"}) from None
        return generate_latest(registry)


def _remove_gauges_of_dead_processes(folder: Path) -> None:
    for process in {int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_live*.db")}:
        try:
            os.kill(process, 0)  # signal 0 only asks whether there is such a process
        except ProcessLookupError:
            mark_process_dead(process, str(folder))  # type: ignore[no-untyped-call]
