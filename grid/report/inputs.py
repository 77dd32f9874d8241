"""What a report is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from grid.report.document import MOST_ROWS, Table
from grid.report.shortlist import reading_order, shortlist
from grid.results.comparisons.comparison import Comparison, against_float
from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.image_tables import ImageTables
from grid.results.comparisons.margins import Margins
from grid.results.effects import Effect, effects
from grid.results.measures import Measures, measures_of
from grid.results.processors import by_processor
from grid.results.ranking import Row
from grid.results.recommend import Recommendation, front_of, recommend
from grid.results.target import Target, parse_target
from model.data.pack import Pack
from model.tasks.facts import DEPTH_FACTS, TaskFacts


@dataclass(frozen=True)
class ReportInputs:
    """The rows of a run, measured or not, and where the report finds what they do not hold.

    ``context`` holds at least ``run``, ``origin`` (of the data) and ``test_images``; all of it is listed at the end.
    ``target`` decides which cell is recommended. ``published`` is a CSV of another study's rows on NYUv2, which stand
    beside ours only when the origin is one of NYUv2. The other mappings are by cell: ``samples`` to its
    ``samples.npz``, ``predictions`` to its ``predictions.npy``, ``references`` to that of the float network that it was
    made from, ``images`` to its figures by image (``per_image.csv``; cells of earlier versions have none),
    ``analyses`` to the folder of its per-layer analysis, ``histories`` to the figures of each epoch, ``latencies`` to
    its ``latencies.npy`` (seconds [pairs, 2] of candidate and float network), ``operators`` to its ``operators.csv``,
    which float networks have, too, ``commands`` to the command line that runs it again. ``margins`` are up to which
    difference two cells are equivalent; ``pack`` holds the data, where they are still there; ``task`` is what was
    learned from them.
    """

    rows: Sequence[Row]
    context: Mapping[str, Any]
    target: Target = field(default_factory=lambda: parse_target(""))
    published: Path | None = None
    samples: Mapping[str, Path] = field(default_factory=dict)
    predictions: Mapping[str, Path] = field(default_factory=dict)
    references: Mapping[str, Path] = field(default_factory=dict)
    images: Mapping[str, Path] = field(default_factory=dict)
    margins: Margins = field(default_factory=lambda: measures_of(DEPTH_FACTS).margins)
    analyses: Mapping[str, Path] = field(default_factory=dict)
    histories: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    latencies: Mapping[str, Path] = field(default_factory=dict)
    operators: Mapping[str, Path] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)
    pack: Pack | None = None
    task: TaskFacts = DEPTH_FACTS

    @cached_property
    def measures(self) -> Measures:
        """What ranks the rows."""
        return measures_of(self.task)

    @property
    def is_depth(self) -> bool:
        """Whether figures in metres mean anything."""
        return self.task.name == DEPTH_FACTS.name

    @cached_property
    def evidence(self) -> Evidence:
        """What the rows and their figures by image say about differences."""
        return Evidence(self.rows, ImageTables(self.images), self.margins, self.measures)

    @cached_property
    def against_float(self) -> Sequence[Comparison]:
        """Each int8 network against float in the headline."""
        return against_float(self.evidence, self.measures.headline)

    @cached_property
    def answer(self) -> Recommendation:
        """Which cell to take."""
        return recommend(self.rows, self.target, self.evidence)

    @cached_property
    def effects(self) -> Sequence[Effect]:
        """What each step along each axis does."""
        return effects(self.rows, self.evidence)

    @cached_property
    def fronts(self) -> Mapping[str, Sequence[str]]:
        """The cells on the Pareto front, by processor."""
        views = by_processor(self.rows)
        if len(views) == 1:
            return dict.fromkeys(views, self.answer.front)
        return {name: front_of(view, self.evidence) for name, view in views.items()}

    @cached_property
    def shortlist(self) -> list[Row]:
        """The cells that are drawn where there is no room for all."""
        return shortlist(self.rows, self._recommended, self._front, self.measures.headline)

    def in_order(self, table: Table, rows: Sequence[Row] | None = None) -> Table:
        """Return a table of ``rows`` (None: all cells) with the most interesting first, if it is a long one."""
        if len(table.rows) <= MOST_ROWS:
            return table
        return table.ordered(
            self.names if rows is None else reading_order(rows, self._recommended, self._front, self.measures.headline)
        )

    @cached_property
    def names(self) -> list[str]:
        """The names of all cells, the most interesting first."""
        return reading_order(self.rows, self._recommended, self._front, self.measures.headline)

    @cached_property
    def _recommended(self) -> set[str]:
        answers = self.answer.by_processor.values() or [self.answer]
        return {one.cell for one in answers if one.cell}

    @cached_property
    def _front(self) -> set[str]:
        return {cell for cells in self.fronts.values() for cell in cells}
