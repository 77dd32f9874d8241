"""Each int8 network against the float network that it was made from: who lost accuracy, and how sure that is."""

from collections import Counter
from collections.abc import Sequence
from functools import partial

from grid.report.document import Block, Paragraph, Picture, Plot, Section
from grid.report.figures.colours import VERDICTS
from grid.report.figures.forest import MOST_LINES, Line, draw_forest, forest
from grid.report.inputs import ReportInputs
from grid.results.comparisons.comparison import ESTIMATES, NETWORKS, Comparison, against_float


def against_float_network(inputs: ReportInputs) -> Section | None:
    """Return the differences to float in the headline with their intervals, sorted; nothing where there are none."""
    headline = inputs.measures.headline
    found = inputs.against_float
    margin, better = inputs.margins[headline.key], headline.higher_is_better
    lines = [Line(one.cell, one.estimate, one.low, one.high, word_of(one), words(one)) for one in found]
    amount = max((one.margin for one in found), default=0.0)
    way = f"{'right' if better else 'left'} is better"
    label = f"test {headline.title} less that of the float network it was made from ({way})"
    shown = forest(lines, amount, label, better)
    if shown is None:
        return None
    text = (
        f"Each line is one comparison: a point for the difference in {headline.title} on the test images, a bar for "
        "its interval. "
        f"The band is the margin, {margin}: a difference within it does not matter. Better or worse: the interval "
        "leaves out 0 and reaches beyond the band. Equivalent: it lies within the band. Undecided: anything else. The "
        "same images are compared, scene by scene, and intervals are corrected for the number of lines (Holm): the "
        "chance of one false word among all of them is 5 %."
    )
    if not inputs.is_depth:
        text += " A scene is what the data say belongs together; where they say nothing, each image is one."
    blocks: list[Block] = [Paragraph((f"{text} {_counts(found)}{_by_monitor(inputs)}",))]
    if len(found) > len(shown.lines):
        more = f"Of {len(found)} comparisons the {MOST_LINES * 3 // 4} best and the {MOST_LINES // 4} worst are drawn."
        blocks.append(Paragraph((more,)))
    picture = Picture("against-float.png", "Differences to float with their intervals", partial(draw_forest, shown))
    return Section(("Against float",), (*blocks, Plot(shown, picture)))


def _by_monitor(inputs: ReportInputs) -> str:
    """The verdicts in the task's monitor, where that is not its headline."""
    headline, monitor = inputs.measures.headline, inputs.measures.monitor
    found = against_float(inputs.evidence, monitor) if monitor != headline else []
    if not found:
        return ""
    return (
        f" In {monitor.title}, by which epochs and cells are chosen (margin {inputs.margins[monitor.key]}; a family of "
        f"its own): {_verdicts(found)}."
    )


def word_of(found: Comparison) -> str:
    """The verdict; undecided where nothing was tested."""
    return "undecided" if found.scope == ESTIMATES else found.verdict


def words(found: Comparison) -> str:
    """The verdict with what limits it."""
    if found.same_network:
        return "the same network"
    if found.scope == ESTIMATES:
        return "undecided: not tested"
    if found.verdict == "undecided":
        needed = str(found.needed)
        return f"undecided; {needed} would decide" if needed else "undecided"
    return f"{found.verdict}, these networks" if found.scope == NETWORKS else found.verdict


def _verdicts(found: Sequence[Comparison]) -> str:
    counts = Counter(map(word_of, found))
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])


def _counts(found: Sequence[Comparison]) -> str:
    text = f"Of {len(found)} comparisons: {_verdicts(found)}."
    if any(one.scope == NETWORKS for one in found):
        text += (
            " “These networks”: how much a recipe's network changes when it is made again is not known here, so the "
            "verdict is about this network and not about its recipe, and better or worse is said only where the whole "
            "interval lies beyond the band; several seeds tell more."
        )
    return text
