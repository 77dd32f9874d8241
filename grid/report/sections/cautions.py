"""What a reader must know before any figure: where there is too little to decide anything."""

from collections.abc import Sequence

from grid.report.cells import in_sentence
from grid.report.document import Block, Code, Items, Spans, Strong
from grid.report.inputs import ReportInputs
from grid.results.comparisons.image_tables import TEST, VALIDATION
from grid.results.ranking import Row, is_int8, over_seeds, several_seeds, value
from grid.results.untrained import is_untrained
from model.tasks.names import BUILT_IN

FEW_SCENES = 12
_SPLITS = {TEST: "test", VALIDATION: "validation"}


def cautions(inputs: ReportInputs) -> tuple[Block, ...]:
    """Return a list of warnings; nothing where there is nothing to warn of."""
    rows = inputs.rows
    if not any(is_int8(row) for row in rows):
        return ()
    lines = [*_scenes(inputs), *_images(inputs), *_seeds(rows), *_missing(rows), *_simulated(rows), *_untrained(rows)]
    return (Items(tuple(lines)),) if lines else ()


def _scenes(inputs: ReportInputs) -> list[Spans]:
    """Too few scenes to test anything by, or no figures by image at all."""
    tables = inputs.evidence.tables
    if not tables.sample(TEST).images:
        said = " There are no figures by image (these cells are of an earlier version): differences are estimates."
        return [(Strong(("Nothing is tested.",)), said)]
    lines: list[Spans] = []
    show, place = ("show", "place") if inputs.is_depth else ("are of", "scene")
    for split, name in _SPLITS.items():
        images, scenes = tables.sample(split).images, tables.sample(split).scenes
        if scenes == 1:
            what = f"One {name} scene decides nothing."
            said = (
                f" All {images} {name} images {show} one {place}. They resemble each other, and what holds for them "
                f"need not hold for another {place}; how far {place}s differ cannot be seen in one. So there are no "
                "intervals, whatever the differences look like, and all of them are undecided."
            )
            lines.append((Strong((what,)), said))
        elif 1 < scenes < FEW_SCENES:
            said = (
                f" The {images} {name} images {show} {scenes} {place}s. Intervals are over {place}s and so are wide; "
                "expect “undecided”."
            )
            lines.append((Strong((f"Few {name} scenes.",)), said))
    return lines


def _images(inputs: ReportInputs) -> list[Spans]:
    """Too few test images to tell most networks from float, and how many would do."""
    found = inputs.against_float
    wanted = sorted(one.needed.images for one in found if one.needed.images and not one.needed.seeds)
    if 2 * len(wanted) <= len(found):
        return []
    enough, title = wanted[len(wanted) // 2], inputs.measures.headline.title
    said = (
        f" {len(wanted)} of {len(found)} comparisons with float in {title} are undecided for want of them. About "
        f"{enough:,} would decide half of these"
    )
    rendered = inputs.context["origin"] == "rooms" and inputs.task.name in BUILT_IN
    how: Spans = (": ", Code(f"--set data.rooms_test={enough}")) if rendered else ()
    return [(Strong(("Few test images.",)), said, *how, ".")]


def _seeds(rows: Sequence[Row]) -> list[Spans]:
    """One seed, or seeds that have no figures."""
    if not several_seeds(rows):
        said = " How far figures move when a recipe is run again is known in part at most; this shows it: "
        return [(Strong(("One seed.",)), said, Code("--seeds 0,1,2"), ".")]
    short = [row for row in over_seeds(rows) if int(row["seeds"]) < int(row["seeds_planned"])]
    if not short:
        return []
    names = in_sentence([Code(f"{row['cell']} ({row['seeds']} of {row['seeds_planned']})") for row in short])
    return [(Strong(("Seeds are missing.",)), " Their means are over fewer seeds: ", *names, ".")]


def _missing(rows: Sequence[Row]) -> list[Spans]:
    """Cells without figures."""
    gone = [row for row in rows if row["status"] in ("failed", "skipped")]
    if not gone:
        return []
    said = f" {len(gone)} of {len(rows)} cells failed or were skipped; the best may be among them. Reasons are below."
    return [(Strong(("Cells are missing.",)), said)]


def _simulated(rows: Sequence[Row]) -> list[Spans]:
    """Cells whose figures are in part those of a simulation."""
    found = [row for row in rows if is_int8(row) and (value(row, "simulated_sites") or 0.0) > 0]
    if not found:
        return []
    names = in_sentence([Code(str(row["cell"])) for row in found])
    said = " No engine here has activations of 16 bits; of these cells the latency is not that of such an engine: "
    return [(Strong(("Simulated in part.",)), said, *names, ".")]


def _untrained(rows: Sequence[Row]) -> list[Spans]:
    """Cells that were trained in vain."""
    found = [row for row in rows if is_int8(row) and is_untrained(row)]
    if not found:
        return []
    names = in_sentence([Code(str(row["cell"])) for row in found])
    said = " No integer weight moved, or the best epoch is the start; these cells say nothing about QAT: "
    return [(Strong(("Training changed nothing.",)), said, *names, ".")]
