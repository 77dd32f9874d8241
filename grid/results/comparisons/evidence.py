"""All that the results say about differences: figures by image, redraws, and how large a difference may be."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from grid.results.comparisons.draws import Draws, alone, draws, kind_of
from grid.results.comparisons.image_tables import TEST, ImageTables
from grid.results.comparisons.margins import Margins
from grid.results.comparisons.roots import root_names, trained_on
from grid.results.comparisons.subjects import Subjects
from grid.results.measures import DEPTH, Measures
from grid.results.ranking import Measure, Row, axes_of, place_of, recipe_of, value


@dataclass(frozen=True)
class Evidence:
    """Rows with their figures by image (``tables``), the equivalence margins, and the measures of their task.

    Rows of earlier versions have no figures by image: then differences are estimates, and none is tested.
    """

    rows: Sequence[Row] = ()
    tables: ImageTables = field(default_factory=ImageTables)
    margins: Margins = field(default_factory=lambda: DEPTH.margins)
    measures: Measures = DEPTH

    def of(self, rows: Sequence[Row]) -> "Evidence":
        """The same for other rows of the same cells, such as those that one processor knows."""
        return self if rows is self.rows else replace(self, rows=rows)

    def subjects(self, names: Sequence[str], measure: Measure, split: str = TEST) -> Subjects:
        """What is known of these cells or recipes (by name, each measured) in a measure, on a split."""
        column = measure.on(split)
        members = [self._members(name) for name in names]
        figures = np.array([_mean([value(row, column) for row in group]) for group in members])
        sample, moved = self.tables.sample(split), self.tables.resampled(measure.by_image, split)
        places = [[sample.cells.get(row["cell"], -1) for row in group] for group in members]
        nothing = np.full(moved.deviations.shape[1], np.nan)
        deviations = [moved.deviations[group].mean(axis=0) if min(group) >= 0 else nothing for group in places]
        known = self.draws(column)
        firsts = [group[0] for group in members]
        spreads = [known.by_kind.get(kind_of(row)) for row in firsts]
        is_given = np.array([row["cell"] not in self._drawn_behind for row in firsts])
        counts = np.array([len(group) for group in members])
        networks = _numbers([tuple(row.get("graph_hash") or row["cell"] for row in group) for group in members])
        redraws = np.array([spread.variance if spread else np.nan for spread in spreads]) / counts
        return Subjects(
            tuple(names),
            measure,
            figures,
            np.stack(deviations),
            np.where(is_given, 0.0, redraws),
            _numbers([kind_of(row) for row in firsts]),
            np.where(is_given, 0, [spread.degrees_of_freedom if spread else 0 for spread in spreads]),
            _numbers([self._roots.get(row["cell"]) for row in firsts]),
            networks,
            _first_of(networks, _numbers([self._drawn(group) for group in members])),
            counts,
            known.of_float.variance if known.of_float else (np.nan if self._trained else 0.0),
            known.of_float.degrees_of_freedom if known.of_float else 0,
            sample.degrees_of_freedom,
            sample.images,
            sample.scenes,
            self.margins[measure.key],
            moved.one_image,
        )

    def _drawn(self, group: Sequence[Row]) -> tuple[tuple[str, ...], ...]:
        """What was drawn, whatever runs it; a row that does not show all that it differs in stands alone."""
        axes = [axis for axis in self._axes if axis not in ("engine", "device")]
        return tuple(place_of(row, axes) if row["cell"] in self._alone else (row["cell"],) for row in group)

    def _members(self, name: str) -> list[Row]:
        """The measured rows of a cell, or of a recipe."""
        return self._by_name.get(name) or self._by_recipe[name]

    @cached_property
    def _by_name(self) -> dict[str, list[Row]]:
        return {row["cell"]: [row] for row in self.rows if row["status"] == "ok"}

    @cached_property
    def _by_recipe(self) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            if row["status"] == "ok":
                found.setdefault(recipe_of(row["cell"]), []).append(row)
        return found

    @cached_property
    def _roots(self) -> dict[str, str | None]:
        return root_names(self.rows)

    @cached_property
    def _drawn_behind(self) -> set[str]:
        return trained_on(self.rows, self._roots)

    @cached_property
    def _trained(self) -> bool:
        """Whether float networks were trained, and may come out otherwise."""
        roots = set(self._roots.values())
        return any(row["cell"] in roots and (value(row, "train_s") or 0.0) > 0 for row in self.rows)

    @cached_property
    def _axes(self) -> tuple[str, ...]:
        return axes_of(self.rows)

    @cached_property
    def _alone(self) -> set[str]:
        return {row["cell"] for row in alone([row for row in self.rows if row["status"] == "ok"], self._axes)}

    @cached_property
    def _draws(self) -> dict[str, Draws]:
        return {}

    def draws(self, column: str) -> Draws:
        """What redraws do to a column."""
        if column not in self._draws:
            self._draws[column] = draws(self.rows, column)
        return self._draws[column]


def _mean(figures: Sequence[float | None]) -> float:
    known = [figure for figure in figures if figure is not None]
    return float(np.mean(known)) if known else float("nan")


def _numbers(keys: Sequence[object]) -> np.ndarray:
    """The same number for the same key."""
    first: dict[object, int] = {}
    return np.array([first.setdefault(key, len(first)) for key in keys])


def _first_of(networks: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The draws, those that came to one network being one."""
    first: dict[int, int] = {}
    return np.array([first.setdefault(int(network), int(draw)) for network, draw in zip(networks, drawn, strict=True)])
