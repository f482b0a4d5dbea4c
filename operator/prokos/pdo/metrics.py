"""The PDO's metrics in Prometheus' text format, read off its state when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from prokos.pdo.beat import Heartbeat
    from prokos.pdo.service import Pdo


class PdoCollector:
    """Implements prometheus_client's collector."""

    def __init__(self, pdo: Pdo, heartbeat: Heartbeat) -> None:
        self._pdo = pdo
        self._heartbeat = heartbeat

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        tasks = CounterMetricFamily("prokos_pdo_tasks", "Tasks that came to a state, since the start", labels=["state"])
        for state, count in sorted(self._pdo.journal.counts.items()):
            tasks.add_metric([state], count)
        yield tasks
        flights = GaugeMetricFamily(
            "prokos_pdo_in_flight", "Tasks taken here that have not ended, up to a lease long", labels=["executor"]
        )
        for executor, count in sorted(self._pdo.flights.by_executor().items()):
            flights.add_metric([executor], count)
        yield flights
        beats = GaugeMetricFamily("prokos_pdo_beat", "Number of the last beat served here", labels=["shard"])
        times = GaugeMetricFamily(
            "prokos_pdo_beat_timestamp_seconds", "When the last beat was served here", labels=["shard"]
        )
        for shard, (number, at) in sorted(self._heartbeat.last.items()):
            beats.add_metric([str(shard)], number)
            times.add_metric([str(shard)], at)
        yield beats
        yield times
        registered = GaugeMetricFamily("prokos_registered", "What is registered", labels=["kind"])
        registered.add_metric(["executor"], len(self._pdo.registry.executors))
        registered.add_metric(["process"], len(self._pdo.registry.processes))
        registered.add_metric(["jobType"], len(self._pdo.registry.job_types))
        yield registered


def render_metrics(pdo: Pdo, heartbeat: Heartbeat) -> bytes:
    """The text that Prometheus scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PdoCollector(pdo, heartbeat))
    return generate_latest(registry)
