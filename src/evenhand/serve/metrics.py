"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from evenhand.core.production import Answer, Release

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one app, in a registry of its own. No label holds what a caller sent."""

    def __init__(self, release: Release) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "evenhand_requests", "Requests answered.", ("route", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "evenhand_request_seconds",
            "From a request's first byte to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.rejected = Counter(
            "evenhand_rejected",
            "Requests that were not scored: queue_full, timeout, client_gone or stopping.",
            ("reason",),
            registry=registry,
        )
        self.decisions = Counter(
            "evenhand_decisions",
            "Posts stored, by decision: hate, normal, or error where scoring failed.",
            ("decision",),
            registry=registry,
        )
        self.batch_rows = Histogram(
            "evenhand_batch_rows", "Posts in a batch.", buckets=_ROWS, registry=registry
        )
        self.scoring_seconds = Histogram(
            "evenhand_scoring_seconds", "To score a batch.", buckets=_SECONDS, registry=registry
        )
        self.store_seconds = Histogram(
            "evenhand_store_seconds", "To store a batch.", buckets=_SECONDS, registry=registry
        )
        self.store_failures = Counter(
            "evenhand_store_failures", "Batches that could not be stored.", registry=registry
        )
        self.scoring_failures = Counter(
            "evenhand_scoring_failures", "Scorings that failed.", registry=registry
        )
        self.monitor_checks = Counter(
            "evenhand_monitor_checks",
            "Background checks of estimates and alarms: ok or failed.",
            ("outcome",),
            registry=registry,
        )
        self.open_alarms = Gauge(
            "evenhand_open_alarms", "Open alarms at the last check.", registry=registry
        )
        self._waiting = Gauge(
            "evenhand_waiting_rows", "Posts that wait to be scored.", registry=registry
        )
        Info("evenhand_release", "What is served.", registry=registry).info(
            {"model": release.model, "release": release.sha256}
        )

    def watch_queue(self, waiting_rows: Callable[[], int]) -> None:
        """Ask this function for the number of waiting posts whenever metrics are read."""
        self._waiting.set_function(waiting_rows)

    def count_decisions(self, answers: Iterable[Answer]) -> None:
        """Count stored answers by decision."""
        for answer in answers:
            self.decisions.labels(answer.decision or "error").inc()

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry)
