"""How often verdicts are wrong (pairs of recipes that differ in nothing but a redraw), and how often they find.

Recipes of ``DRAWS`` seeds each, all int8 PTQ but for the bits of the weights, are computed by
``grid.stages.run.run_cell`` on the shipped network at 128 x 128; a seed draws the calibration images and with them
equalization, ranges and rounding. Any two networks of one recipe are an A/A pair, judged as the report judges two cells
of a grid:

* ``one seed``: every pair of networks. Nothing is known of redraws: better or worse is beyond the margin alone.
* ``three seeds``: pairs of recipes with three networks each, drawn without a network in common.

Planted: the same pairs with a constant added to the figure of each image of one side, twice the half width of the
interval that the pair has, and no margin; found where the word is *better*.
"""

import itertools
import multiprocessing
import os
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from benchmarks.line import say
from benchmarks.subject import smaller
from grid.planning.plan import Cell, Plan, make_plan
from grid.results.comparisons.comparison import Comparison, compare
from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.image_tables import TEST, ImageTables
from grid.results.comparisons.margins import Margin
from grid.results.comparisons.resampling import NOISE, sample_of
from grid.results.comparisons.verdicts import BETTER, EQUIVALENT, UNDECIDED, WORSE
from grid.results.measures import DEPTH
from grid.results.ranking import SQNR, Measure, Row
from grid.results.rows import cell_row
from grid.scheduling.cores import own_cores
from grid.space.search_space import load_space
from grid.stages.run import run_cell
from grid.stages.work import Context
from grid.storage.per_image import ImageFigures, read_image_figures
from grid.storage.result_store import StageStore
from model.data.pack import Pack, prepare_pack
from model.network.checkpoint import checkpoint_sha256

SIZE = 128
DRAWS = 15
PAIRS = 600
SPACE = f"""
name: redraws
baselines: false
axes:
  weight_bits: [8, 4]
  seed: {list(range(DRAWS))}
settings:
  method: ptq
  fuse_bn: true
  network: {{input_size: {SIZE}}}
  calibrate: {{images: 48, weight_range: mse}}
  rounding: {{images: 48}}
data: {{input_size: {SIZE}, rooms_train: 512, rooms_val: 1, rooms_test: 128}}
"""


@dataclass(frozen=True)
class Network:
    """What is known of one network: its row, and its figures by test image."""

    row: Row
    figures: ImageFigures


def main() -> None:
    words: dict[str, Counter[str]] = {}
    for bits, networks in computed().items():
        for measure in (DEPTH.headline, SQNR):
            for seeds, counted in print_figures(f"{measure.key}_{bits}bit", measure, networks).items():
                words.setdefault(seeds, Counter()).update(counted)
    for seeds, counted in words.items():
        of = f"all {counted.total()} A/A pairs together; goal <= 5"
        say(f"verdicts_wrong_{seeds}", 100 * (counted[BETTER] + counted[WORSE]) / counted.total(), "%", of)


def computed() -> dict[str, list[Network]]:
    """All networks by the bits of their weights."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "space.yaml").write_text(SPACE)
        space = load_space(folder / "space.yaml")
        checkpoint = folder / "checkpoint.safetensors"
        spec = smaller(checkpoint, SIZE)
        pack = Pack(prepare_pack("rooms", folder / "packs", space.pack))
        plan = make_plan(space, checkpoint_sha256(checkpoint), pack.fingerprint, spec)
        plan = replace(plan, nodes=tuple(node for node in plan.nodes if node.stage != "profile"))
        cells = [replace(cell, nodes={s: n for s, n in cell.nodes.items() if s != "profile"}) for cell in plan.cells]
        context = Context(folder / "store", pack.path, checkpoint)
        with ProcessPoolExecutor(len(own_cores()), multiprocessing.get_context("spawn")) as pool:
            for done in [pool.submit(compute, plan, cell, context) for cell in cells]:
                done.result()
        store = StageStore(folder / "store")
        found: dict[str, list[Network]] = {}
        for cell in cells:
            row = cell_row(cell, ["weight_bits"], store, {})
            figures = read_image_figures(store.path(cell.nodes["evaluate"]) / "per_image.csv")[TEST]
            found.setdefault(str(row["weight_bits"]), []).append(Network(row, figures))
    return found


def compute(plan: Plan, cell: Cell, context: Context) -> None:
    """Compute one cell in this process, on one core."""
    torch.set_num_threads(1)
    run_cell(plan, cell, context)


def print_figures(name: str, measure: Measure, networks: Sequence[Network]) -> dict[str, Counter[str]]:
    """Print how many A/A pairs are told apart and how many planted differences found; the words of the A/A pairs."""
    told: dict[str, Counter[str]] = {}
    draw = random.Random(0)
    pairs = [((one,), (other,)) for one, other in itertools.combinations(networks, 2)]
    triples = []
    for _ in range(PAIRS):
        drawn = draw.sample(list(networks), 6)
        triples.append((tuple(drawn[:3]), tuple(drawn[3:])))
    for seeds, kind in (("one_seed", pairs), ("three_seeds", triples)):
        found = [judged(measure, *pair) for pair in kind]
        words = told[seeds] = Counter(comparison.verdict for comparison in found)
        wrong = words[BETTER] + words[WORSE]
        halves = sorted(_half(comparison) for comparison in found)
        say(
            f"verdicts_wrong_{name}_{seeds}",
            100 * wrong / len(found),
            "%",
            f"better or worse of {len(found)} A/A pairs ({words[EQUIVALENT]} equivalent, {words[UNDECIDED]} undecided; "
            f"margin {DEPTH.margins[measure.key]}, median half width {halves[len(halves) // 2]:.2g}); goal <= 5",
        )
        excluded = sum(abs(one.estimate) > _half(one) for one in found)
        say(f"verdicts_apart_{name}_{seeds}", 100 * excluded / len(found), "%", "of these intervals exclude 0")
        planted = [
            judged(measure, *pair, 2 * _half(one), Margin(0.0)).verdict for pair, one in zip(kind, found, strict=True)
        ]
        share = 100 * planted.count(BETTER) / len(planted)
        say(f"verdicts_found_{name}_{seeds}", share, "%", "of planted differences of two half widths; goal >= 80")
    return told


def _half(comparison: Comparison) -> float:
    assert comparison.low is not None
    assert comparison.high is not None
    return (comparison.high - comparison.low) / 2


def judged(
    measure: Measure,
    one: Sequence[Network],
    other: Sequence[Network],
    planted: float = 0.0,
    margin: Margin | None = None,
) -> Comparison:
    """``other`` against ``one`` as a report that knows nothing else compares them, after ``planted`` was added."""
    rows, tables = [], {}
    for name, side, extra in (("one", one, 0.0), ("other", other, planted)):
        for seed, network in enumerate(side):
            cell = f"{name}-s{seed}" if len(side) > 1 else name
            shifted = {measure.column: network.row[measure.column] + extra}
            rows.append({**network.row, "cell": cell, "seed": seed, "of.recipe": name, **shifted})
            tables[cell] = _shifted(network.figures, measure, extra)
    margins = {**DEPTH.margins, measure.key: margin or DEPTH.margins[measure.key]}
    evidence = Evidence(rows, ImageTables(samples={TEST: sample_of(tables)}), margins)
    return compare(evidence, [("other", "one")], measure)[0]


def _shifted(figures: ImageFigures, measure: Measure, extra: float) -> ImageFigures:
    """The figures with ``extra`` more in each image; decibels are a factor of the noise."""
    old = figures.figures[measure.by_image]
    new = old * 10 ** (-extra / 10) if measure.by_image == NOISE else old + extra
    return ImageFigures(figures.scene, {**figures.figures, measure.by_image: new})


if __name__ == "__main__":
    main()
