"""The recommendation can be made again from results.csv and per_image.csv alone, by other code than the product's."""

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from grid.results.comparisons.comparison import compare
from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.image_tables import ImageTables
from grid.results.ranking import SQNR
from grid.results.recommend import recommend
from grid.results.results_csv import write_results_csv
from grid.results.target import parse_target
from grid.storage.per_image import ImageFigures, write_cells_images, write_image_figures
from tests.grid.measures import SSIM
from tests.grid.report.report_rows import figures_of, row

MARGINS: dict[str, Callable[[float], float]] = {
    "ssim": lambda figure: 0.001,
    "sqnr_db": lambda figure: 1.5,
    "size_mb": lambda figure: 0.005 * figure,
    "latency": lambda figure: 0.03 * figure,
}
COLUMNS = {"ssim": "val_ssim", "sqnr_db": "val_sqnr_db", "size_mb": "size_mb", "latency": "latency_ratio"}
UP = ("ssim", "sqnr_db")


def written(folder: Path, seeds: int, seed: int) -> tuple[list[dict], dict[str, Path]]:
    """A made-up grid of 12 recipes with figures by image, as a run leaves it."""
    noise, rows, files = np.random.default_rng(seed), [], {}
    scene = {"test": np.repeat(np.arange(20), 4), "val": np.repeat(np.arange(14), 1 + np.arange(14) % 4) + 50}
    common = {split: 0.9 + 0.03 * noise.normal(size=60 + len(found))[found] for split, found in scene.items()}
    for number in range(12 * seeds):
        fuse_bn, coarse, method = number % 2 == 1, number // 2 % 2, ("ptq", "qat", "ptq+qat")[number // 4 % 3]
        place = number // 12
        name = ("fuse_bn-" if fuse_bn else "") + f"{('per_channel', 'per_tensor')[coarse]}-{method}"
        cell = f"{name}-s{place}" if seeds > 1 else name
        gain = {"ptq": 0.0, "qat": 0.0012, "ptq+qat": 0.0006}[method] - 0.0008 * coarse + noise.normal(0, 3e-4)
        tables, loud = {}, 1e-4 * {"ptq": 1, "qat": 6, "ptq+qat": 2}[method] * (1 + coarse) * noise.gamma(20, 1 / 20)
        for split, found in scene.items():
            own = noise.normal(0, 5e-4, 70)[found] + noise.normal(0, 1e-3, len(found))
            figures = {"ssim": common[split] + gain + own, "noise_mse": loud * noise.gamma(3, 1 / 3, len(found))}
            tables[split] = ImageFigures(found, figures)
        files[cell] = write_image_figures(folder / f"{cell}.csv", tables)
        line = row(cell, fuse_bn=fuse_bn, granularity=name, method=method, seed=place, graph_hash=cell)
        line |= figures_of(0.0, 1.6 - 0.2 * coarse, 2.0 + noise.normal(0, 0.02))
        line |= {"granularity": ("per_channel", "per_tensor")[coarse]}
        for split, prefix in (("test", "test_"), ("val", "val_")):
            line[f"{prefix}ssim"] = float(tables[split].figures["ssim"].mean())
        for split, column in (("test", "sqnr_db"), ("val", "val_sqnr_db")):
            line[column] = float(10 * np.log10(0.02 / tables[split].figures["noise_mse"].mean()))
        rows.append(line)
    write_results_csv(rows, folder / "results.csv")
    write_cells_images(folder / "per_image.csv", files)
    return rows, files


def holm(tests: list[tuple[float, str, float, float, float]]) -> Iterator[tuple[str, float, float]]:
    """Of each test (p-value, name, difference, error, degrees) half the width of the interval that Holm leaves it."""
    open_, level = True, 0.0
    for rank, (p, name, difference, error, degrees) in enumerate(sorted(tests)):
        if open_:
            level = 0.05 / (len(tests) - rank)
            open_ = p <= level
        yield name, difference, float(error * stats.t.isf(level / 2, degrees))


class Again:
    """The recommendation from the two files of a run."""

    def __init__(self, folder: Path) -> None:
        rows = pd.read_csv(folder / "results.csv")
        self.rows = rows[(rows.status == "ok") & (rows.method != "fp32")].copy()
        self.rows["recipe"] = [re.sub(r"-s\d+$", "", cell) for cell in self.rows.cell]
        images = pd.read_csv(folder / "per_image.csv").query("split == 'val'")
        self.sums = images.groupby(["cell", "scene"])[["ssim", "noise_mse"]].sum()
        self.figures = self.rows.groupby("recipe", sort=False)[[*COLUMNS.values()]].mean()
        self.method = self.rows.groupby("recipe", sort=False).method.first()
        self.moved = functools.cache(self._moved)
        self.sizes = images[images.cell == self.rows.cell.iloc[0]].groupby("scene").size().to_numpy()
        self.scenes = len(self.sizes)
        squares = self.sizes.astype(float) ** 2
        self.degrees = squares.sum() ** 2 / (squares**2).sum() - 1
        self.drawn = np.random.default_rng(0).multinomial(self.scenes, np.full(self.scenes, 1 / self.scenes), 2000)

    def _moved(self, cell: str, metric: str) -> np.ndarray:
        """The figure of a cell with each of 2000 drawings of the scenes."""
        sums = self.sums.loc[cell, {"ssim": "ssim", "sqnr_db": "noise_mse"}[metric]].to_numpy()
        mean = (self.drawn * sums).sum(axis=1) / (self.drawn * self.sizes).sum(axis=1)
        return mean if metric == "ssim" else -10 * np.log10(mean)

    def of_recipe(self, recipe: str, metric: str) -> np.ndarray:
        cells = self.rows[self.rows.recipe == recipe].cell
        return np.mean([self.moved(cell, metric) for cell in cells], axis=0)

    def redraws(self, method: str, metric: str) -> tuple[float, int]:
        """The variance of a mean over seeds, and its degrees of freedom; twins of ptq where there is one seed."""
        own = self.rows[self.rows.method == method]
        seeds = self.rows.groupby("recipe").size().max()
        groups = [group for _, group in own.groupby("recipe")]
        if seeds == 1:
            groups = [group for _, group in own.groupby("granularity")] if method == "ptq" else []
        squares = sum(((group[COLUMNS[metric]] - group[COLUMNS[metric]].mean()) ** 2).sum() for group in groups)
        degrees = sum(len(group) - 1 for group in groups)
        return (squares / degrees / seeds, degrees) if degrees else (np.nan, 0)

    def spread(self, difference: np.ndarray, methods: Iterable[str], metric: str) -> tuple[float, float]:
        """The standard error of a figure or difference, and its degrees of freedom."""
        parts = [(difference.var(ddof=1) * self.scenes / (self.scenes - 1), self.degrees)]
        methods = list(methods)
        known = [(*self.redraws(one, metric), one) for one in set(methods)]
        if all(degrees for _, degrees, _ in known):
            parts += [(variance * methods.count(one), degrees) for variance, degrees, one in known]
        total = sum(variance for variance, _ in parts)
        return np.sqrt(total), total**2 / sum(variance**2 / degrees for variance, degrees in parts)

    def as_good(self, names: list[str], metric: str) -> list[str]:
        """The best and those that by Holm's procedure are not worse, and lose at most the margin or surely three.

        Where redraws are not known all of the interval has to lie beyond the margin to make it worse.
        """
        sign, figures = (1 if metric in UP else -1), self.figures[COLUMNS[metric]]
        first = max(names, key=lambda name: sign * figures[name])
        losses = {name: sign * (figures[first] - figures[name]) for name in names if name != first}
        margin = MARGINS[metric](figures[first])
        if metric not in UP:  # sizes are exact, and no latency within the margin is told apart
            return [first, *(name for name, loss in losses.items() if loss <= margin)]
        tests = []
        for name, loss in losses.items():
            moved = self.of_recipe(name, metric) - self.of_recipe(first, metric)
            error, degrees = self.spread(moved, (self.method[name], self.method[first]), metric)
            tests.append((2 * stats.t.sf(loss / error, degrees), name, loss, error, degrees))
        found = [first]
        for name, loss, half in holm(tests):
            known = all(self.redraws(self.method[one], metric)[1] for one in (name, first))
            worse = loss - half > (0.0 if known else margin) and loss + half >= margin
            if not worse and (loss <= margin or loss + half <= 3 * margin):
                found.append(name)
        return found

    def keeps(self, name: str, bounds: dict[str, float]) -> int:
        """2 where all intervals keep the lower bounds, 1 where the estimates do, else 0."""
        states = [2]
        for metric, bound in bounds.items():
            error, degrees = self.spread(self.of_recipe(name, metric), [self.method[name]], metric)
            figure, half = self.figures.loc[name, COLUMNS[metric]], error * stats.t.isf(0.025, degrees)
            states.append(2 if figure - half >= bound else 1 if figure >= bound else 0)
        return min(states)

    def choose(self, objective: str, bounds: dict[str, float]) -> str | None:
        states = {name: self.keeps(name, bounds) for name in self.figures.index}
        if not max(states.values()):
            return None
        left = [name for name, state in states.items() if state == max(states.values())]
        for metric in dict.fromkeys([objective, "ssim", "size_mb", "latency"]):
            good = self.as_good(left, metric)
            left = [name for name in left if name in good]
        left = [name for name in left if self.method[name] == "ptq"] or left
        figures = self.figures.loc[left, COLUMNS[objective if objective in UP else "ssim"]]
        return str(figures.idxmax())


@pytest.mark.parametrize(("seeds", "times"), [(1, 4), (3, 2)])
@pytest.mark.parametrize(
    ("text", "objective", "bounds"),
    [
        ("maximize ssim", "ssim", {}),
        ("minimize latency", "latency", {}),
        ("ssim>=0.898, maximize sqnr_db", "sqnr_db", {"ssim": 0.898}),
        ("sqnr_db>=20, minimize size_mb", "size_mb", {"sqnr_db": 20.0}),
    ],
)
def test_the_recommendation_follows_from_the_two_files_alone(tmp_path, seeds, times, text, objective, bounds):
    taken = set()
    for seed in range(times):
        folder = tmp_path / str(seed)
        folder.mkdir()
        rows, files = written(folder, seeds, seed)
        found = recommend(rows, parse_target(text), Evidence(rows, ImageTables(files)))
        assert found.cell == Again(folder).choose(objective, bounds), seed
        taken.add(found.cell)
    assert len(taken) > 1, "otherwise any rule would do"


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("measure", [SSIM, SQNR])
def test_the_intervals_of_a_family_follow_from_the_two_files_alone(tmp_path, seeds, measure):
    rows, files = written(tmp_path, seeds, 7)
    again, first = Again(tmp_path), "per_channel-ptq"
    names = [name for name in again.figures.index if name != first]
    found = compare(Evidence(rows, ImageTables(files)), [(name, first) for name in names], measure, "val")
    column = COLUMNS[measure.key]
    tests = []
    for name in names:
        moved = again.of_recipe(name, measure.key) - again.of_recipe(first, measure.key)
        difference = again.figures.loc[name, column] - again.figures.loc[first, column]
        error, degrees = again.spread(moved, (again.method[name], again.method[first]), measure.key)
        tests.append((2 * stats.t.sf(abs(difference) / error, degrees), name, difference, error, degrees))
    halves = {name: half for name, _, half in holm(tests)}
    assert {one.cell: (one.high or 0.0) - one.estimate for one in found} == pytest.approx(halves, rel=1e-6)
