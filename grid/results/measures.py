"""What ranks the rows of a task: its metrics, the noise of quantization, size and latency."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from grid.results.comparisons.margins import COSTS, Margin, Margins
from grid.results.ranking import LATENCY, LATENCY_MS, SIZE, SQNR, Measure, Row, value
from model.tasks.facts import DEPTH_FACTS, MetricFacts, TaskFacts


@dataclass(frozen=True)
class Measures:
    """The measures of a task: ``headline`` is its first metric, ``others`` are the further ones.

    ``monitor``, which may be the headline, chooses among what the headline does not tell apart (``model.tasks.task``).
    """

    headline: Measure
    others: tuple[Measure, ...]
    margins: Margins
    monitor: Measure

    @property
    def accuracy(self) -> tuple[Measure, ...]:
        """What the main table shows beside costs: a second metric where there is one, the headline, and the noise."""
        return (*self.others[:1], self.headline, SQNR)

    @property
    def main(self) -> tuple[Measure, ...]:
        """All columns of the main table that are compared."""
        return (*self.accuracy, SIZE, LATENCY)

    @property
    def front(self) -> tuple[Measure, ...]:
        """What a cell on the Pareto front is not beaten in."""
        return self.headline, SIZE, LATENCY

    @property
    def deciding(self) -> tuple[Measure, ...]:
        """What tells cells apart, in this order."""
        return *dict.fromkeys((self.headline, self.monitor)), SIZE, LATENCY

    def choosing(self, measure: Measure, rows: Sequence[Row], split: str) -> Measure:
        """What chooses where ``measure`` is too coarse: the monitor of a headline, if all rows have it, else itself."""
        has = all(value(row, self.monitor.on(split)) is not None for row in rows)
        return self.monitor if measure == self.headline and has else measure

    @cached_property
    def named(self) -> Mapping[str, Measure]:
        """What a target may name. ``latency`` is the ratio to the float network, ``latency_ms`` the milliseconds."""
        metrics, costs = (self.headline, *self.others), (SQNR, SIZE, LATENCY, LATENCY_MS)
        return {measure.key: measure for measure in (*metrics, *costs)}


def measures_of(task: TaskFacts) -> Measures:
    """The measures of the rows of a task."""
    headline, *others = map(_measure, task.metrics)
    margins = {metric.name: Margin(metric.margin, metric.margin_is_relative) for metric in task.metrics}
    monitor = next((measure for measure in others if measure.key == task.monitor), headline)
    return Measures(headline, tuple(others), {**margins, **COSTS}, monitor)


def _measure(metric: MetricFacts) -> Measure:
    name, title = metric.name, metric.title or metric.name
    return Measure(name, f"test_{name}", title, title, metric.higher_is_better, name)


DEPTH = measures_of(DEPTH_FACTS)
"""Of rows that name no task."""
