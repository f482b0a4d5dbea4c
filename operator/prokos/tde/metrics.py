"""A worker's metrics, which Prometheus scrapes from `PROKOS_METRICS_ADDRESS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

if TYPE_CHECKING:
    from collections.abc import Callable

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Upper bounds of the duration's histogram in seconds: from a warm script to a slow service."""


class WorkerMetrics:
    """What a worker counts; no label holds anything of a task."""

    def __init__(self, executor: str) -> None:
        self._registry = CollectorRegistry()
        labels = {"executor": executor}
        self._started = Counter("prokos_tde_started", "Attempts that began", [*labels], registry=self._registry).labels(
            **labels
        )
        self._ended = Counter(
            "prokos_tde_ended", "Attempts that ended, by outcome", [*labels, "outcome"], registry=self._registry
        )
        self._duration = Histogram(
            "prokos_tde_duration_seconds",
            "From the start of an attempt to its report",
            [*labels],
            buckets=BUCKETS,
            registry=self._registry,
        ).labels(**labels)
        self._running = Gauge("prokos_tde_running", "Attempts that run now", [*labels], registry=self._registry).labels(
            **labels
        )
        self._executor = executor

    def started(self) -> None:
        """An attempt began."""
        self._started.inc()
        self._running.inc()

    def ended(self, outcome: str, seconds: float) -> None:
        """An attempt ended; `outcome` is one of few words."""
        self._running.dec()
        self._duration.observe(seconds)
        self._ended.labels(self._executor, outcome).inc()

    def serve(self, address: str) -> Callable[[], None]:
        """Answer `/metrics` on an address (host:port) until the function that is returned is called."""
        host, _, port = address.rpartition(":")
        server, thread = start_http_server(int(port), host, registry=self._registry)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop
