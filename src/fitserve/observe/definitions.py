"""Every metric: its name, labels and buckets. docs/reference/metrics.md lists the same.

Names follow https://prometheus.io/docs/practices/naming/: base units, ``_total`` on counters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SECONDS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Bounds of durations: the fastest answers of a small model take some 50 µs, the slowest seconds."""

ROWS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0)
"""Bounds of numbers of rows."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric.

    Attributes:
        name: as it is written in the text format.
        kind: ``info`` is a gauge that is always 1; what it tells stands in its labels.
        help: one sentence.
        labels: names; their values are few, whatever callers send.
        bounds: of the buckets of a histogram, each counting what is not larger.
        merge: how gauges of several processes become one number. Counters and histograms are added up.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    merge: Literal["sum", "min", "max"] = "sum"

    @property
    def n_cells(self) -> int:
        """How many numbers one series has: of a histogram one a bucket, one for what is larger, and the sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1

    @property
    def is_kept(self) -> bool:
        """Whether it still counts when its process has ended."""
        return self.kind in {"counter", "histogram"}


METRICS = (
    Definition(
        "fitserve_requests_total", "counter", "Requests answered. Status 499: the client left before.",
        ("route", "status", "model", "version"),
    ),
    Definition(
        "fitserve_request_seconds", "histogram", "From a request's arrival to the end of its reply.",
        ("route", "model", "version"), SECONDS,
    ),
    Definition(
        "fitserve_phase_seconds", "histogram", "Parts of a prediction: decode, queue, predict, encode.",
        ("phase", "model", "version"), SECONDS,
    ),
    Definition("fitserve_in_flight", "gauge", "Requests that are being answered."),
    Definition("fitserve_rows_total", "counter", "Rows that went through a model.", ("model", "version")),
    Definition(
        "fitserve_batch_rows", "histogram", "Rows in one call of a model.", ("model", "version"), ROWS,
    ),
    Definition(
        "fitserve_batch_jobs", "histogram", "Requests that shared one call of a model.", ("model", "version"), ROWS,
    ),
    Definition(
        "fitserve_inference_seconds", "histogram", "One call of a model, by the form that computed it.",
        ("model", "version", "form"), SECONDS,
    ),
    Definition("fitserve_queue_rows", "gauge", "Rows that wait for a model."),
    Definition("fitserve_cache_events_total", "counter", "What became of rows in the response cache.", ("event",)),
    Definition("fitserve_cache_bytes", "gauge", "Bytes that the response cache holds, in all processes."),
    Definition(
        "fitserve_rejections_total", "counter", "Requests refused, by the type of the problem.", ("reason",),
    ),
    Definition(
        "fitserve_model_info", "info", "A model version that is loaded.",
        ("model", "version", "format", "digest", "model_type"), merge="max",
    ),
    Definition("fitserve_build_info", "info", "Versions of fitserve and Python.", ("version", "python"), merge="max"),
    Definition(
        "fitserve_start_time_seconds", "gauge", "When the oldest process that serves began, as Unix time.", merge="min",
    ),
    Definition(
        "fitserve_process_cpu_seconds_total", "counter", "Processor time of all serving processes, as last scraped.",
    ),
    Definition(
        "fitserve_process_resident_memory_bytes", "gauge",
        "Resident memory of all serving processes; pages that they share count in each.",
    ),
    Definition("fitserve_workers", "gauge", "Processes that serve."),
)  # fmt: skip

BY_NAME = {definition.name: definition for definition in METRICS}
