"""What Prometheus reads at /metrics: requests, their seconds, the queue, and the size of what is searched."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from freemvmt.server.service import Service

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The measures of one server, in a registry of its own."""

    def __init__(self, service: Service) -> None:
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
        self._gauge("two_towers_in_flight", "Requests under way.").set_function(lambda: self.in_flight)
        self._gauge("two_towers_queue_depth", "Requests that wait for a thread.").set_function(
            lambda: service.reading.waiting + service.writing.waiting
        )
        self._gauge("two_towers_documents", "Documents that can be found.").set_function(lambda: len(service.retriever))
        self._gauge("two_towers_index_size_bytes", "Bytes of the vectors, as float32.").set_function(
            lambda: 4 * len(service.retriever) * int(service.retriever.about["dim"])
        )
        self.in_flight = 0

    def _gauge(self, name: str, says: str) -> Gauge:
        return Gauge(name, says, registry=self._registry)

    def count(self, route: str, method: str, search_method: str, status: int, seconds: float) -> None:
        """One request is done. Labels come from short lists, so that no client can add to them without end."""
        method = method if method in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route, search_method).observe(seconds)

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return generate_latest(self._registry)
