"""Which cells are drawn where there is no room for all."""

import math
from collections.abc import Collection, Iterable, Sequence

from grid.results.measures import DEPTH
from grid.results.ranking import Measure, Row, recipe_of, value

MOST = 24
SAME_DB = 90.0
"""Above this a float network is apart from another by the rounding of float32 alone."""


def shortlist(
    rows: Sequence[Row],
    recommended: Collection[str],
    front: Collection[str],
    headline: Measure = DEPTH.headline,
    most: int = MOST,
) -> list[Row]:
    """Return at most ``most`` measured rows in their order, each network and each recipe once.

    Float baselines first, then the recommended recipes, those on the Pareto front, and of the others the best and the
    worst by the headline on validation images (on test images where there are no such figures), more of the best than
    of the worst. A float network that computes the same as the one that all start from is left out.
    """
    once = networks(rows)
    ranked = sorted(once, key=lambda row: -_gain(row, headline))
    floats = [row for row in once if row["method"] == "fp32"]
    int8 = [row for row in ranked if row["method"] != "fp32"]
    ordered = [*floats, *_named(int8, recommended), *_named(int8, front)]
    best, worst = iter(int8), reversed(int8)
    for _ in range(len(int8)):
        ordered += [*(next(best, {}) for _ in range(3)), next(worst, {})]
    kept = list(dict.fromkeys(row["cell"] for row in ordered if row))[:most]
    return [row for row in once if row["cell"] in set(kept)]


def reading_order(
    rows: Sequence[Row], recommended: Collection[str], front: Collection[str], headline: Measure = DEPTH.headline
) -> list[str]:
    """Return the names of all rows as a long table lists them.

    Float baselines, the recommended recipes, those on the Pareto front, the rest by the headline on test images, and
    last what has no figures.
    """

    def place(row: Row) -> tuple[int, float]:
        recipe = recipe_of(row["cell"])
        if row["status"] != "ok":
            return 4, 0.0
        first = (row["method"] == "fp32", recipe in recommended, recipe in front, True).index(True)
        return first, -headline.gain(row)

    return [row["cell"] for row in sorted(rows, key=place)]


def networks(rows: Sequence[Row]) -> list[Row]:
    """Return the measured rows among which ``shortlist`` chooses."""
    return list(_once(row for row in rows if row["status"] == "ok" and not row.get("same_as") and not _is_copy(row)))


def _once(rows: Iterable[Row]) -> Iterable[Row]:
    """The first row of each recipe: of several seeds one is drawn."""
    seen: set[str] = set()
    for row in rows:
        if (recipe := recipe_of(row["cell"])) not in seen:
            seen.add(recipe)
            yield row


def _is_copy(row: Row) -> bool:
    return row["method"] == "fp32" and (value(row, "sqnr_db") or 0.0) > SAME_DB


def _named(rows: Sequence[Row], recipes: Collection[str]) -> list[Row]:
    return [row for row in rows if recipe_of(row["cell"]) in recipes]


def _gain(row: Row, headline: Measure) -> float:
    found = headline.gain(row, "val")
    return found if math.isfinite(found) else headline.gain(row)
