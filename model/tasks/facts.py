"""What is said about a task without its code: in packs, plans, rows and reports."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class MetricFacts:
    """A metric's name, whether more of it is better, what tables call it, and up to which difference it is equal.

    ``margin`` is that difference, in parts of the figure where it ``margin_is_relative``; half a percentage point where
    a task says nothing, and 1 % of a metric of which less is better.
    """

    name: str
    higher_is_better: bool
    title: str = ""
    margin: float = 0.005
    margin_is_relative: bool = False


@dataclass(frozen=True)
class TaskFacts:
    """A task's name, what its code is known by, its metrics (the headline first), classes and monitor (``Task``).

    ``identity`` is a part of all ids; it is empty for depth, whose ids are older than tasks. ``classes`` is empty where
    the targets are none.
    """

    name: str
    identity: str
    metrics: tuple[MetricFacts, ...]
    classes: tuple[str, ...] = ()
    monitor: str = ""

    @property
    def headline(self) -> MetricFacts:
        """The metric that decides."""
        return self.metrics[0]

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def read(cls, text: str) -> "TaskFacts":
        """What ``text`` has written; raises ValueError, KeyError or TypeError for anything else."""
        document: Mapping[str, Any] = json.loads(text)
        metrics = tuple(MetricFacts(**one) for one in document["metrics"])
        if not metrics:
            raise ValueError("a task without metrics")
        classes, monitor = tuple(map(str, document["classes"])), str(document.get("monitor", ""))
        return cls(str(document["name"]), str(document["identity"]), metrics, classes, monitor)


DEPTH_FACTS = TaskFacts(
    "depth",
    "",
    (
        MetricFacts("ssim", True, "SSIM", 0.001),
        MetricFacts("mse", False, "MSE", 0.02, True),
        MetricFacts("abs_rel", False, "abs rel", 0.01, True),
        MetricFacts("rmse_m", False, "RMSE m", 0.01, True),
        MetricFacts("delta1", True, "δ1", 0.002),
    ),
)
"""Of packs, plans and rows that name no task."""
