"""Metrics as text, in the format of Prometheus or of OpenMetrics.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import exposition as prometheus
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from fitserve.observe.definitions import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fitserve.observe.definitions import Definition
    from fitserve.observe.siblings import Totals


def render(totals: Totals, *, is_openmetrics: bool) -> bytes:
    """Write the numbers of all series, those of one metric beside each other, under its help and type."""
    by_metric: dict[str, dict[tuple[str, ...], list[float]]] = {}
    for (metric, labels), values in sorted(totals.items()):
        by_metric.setdefault(metric, {})[labels] = values
    families = _Families([_family(definition, by_metric.get(definition.name, {})) for definition in METRICS])
    if is_openmetrics:
        return bytes(openmetrics.generate_latest(families))  # type: ignore[no-untyped-call]
    return prometheus.generate_latest(families)


class _Families(Collector):
    """What prometheus_client takes for a registry."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _family(definition: Definition, series: Mapping[tuple[str, ...], list[float]]) -> Metric:
    name, labels = definition.name, definition.labels
    if definition.kind == "histogram":
        bounds = [*map(repr, definition.bounds), "+Inf"]
        histogram = HistogramMetricFamily(name, definition.help, labels=labels)
        for values, cells in series.items():
            histogram.add_metric(values, list(zip(bounds, accumulate(cells[:-1]), strict=True)), cells[-1])
        return histogram
    if definition.kind == "info":
        info = InfoMetricFamily(name.removesuffix("_info"), definition.help)
        for values, cells in series.items():
            if cells[0]:
                info.add_metric((), dict(zip(labels, values, strict=True)))
        return info
    family = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
    numbers = family(name, definition.help, labels=labels)
    for values, cells in series.items():
        numbers.add_metric(values, cells[0])
    return numbers
