"""One cell as MLflow keeps it; nothing here imports MLflow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from grid.tracking.values import Scalar


@dataclass(frozen=True)
class ModelArtifact:
    """An int8 network to log: its folder, which ``quant.artifact.load_network`` reads, and its graph's hash.

    ``example`` is an input as the pack has it, [1,C,H,W], ``source`` the file of a network of the user's own,
    ``recipe`` all of its settings.
    """

    folder: Path
    example: np.ndarray
    graph_hash: str
    source: Path | None = None
    recipe: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class CellRun:
    """One cell as MLflow keeps it: ``history`` has one dict an epoch with its ``epoch``; a metric may be None.

    ``status`` is ok, failed, excluded or skipped. The metrics are linked with the logged model.
    """

    key: str
    name: str
    params: Mapping[str, Scalar]
    metrics: Mapping[str, float | None]
    history: Sequence[Mapping[str, float | None]] = ()
    artifacts: Sequence[Path] = ()
    model: ModelArtifact | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    status: str = "ok"
    reason: str = ""
