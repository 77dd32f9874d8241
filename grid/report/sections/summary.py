"""What a run was: its cells and data before the first section, its facts and commands in the last ones."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from grid.report.document import MOST_ROWS, Code, CodeBlock, Items, Paragraph, Section
from grid.report.inputs import ReportInputs
from grid.results.ranking import Row
from grid.secrets import masked
from model.tasks.facts import TaskFacts


def opening(rows: Sequence[Row], context: Mapping[str, Any]) -> Paragraph:
    """Return how many cells there are in which state, and what their figures are figures of."""
    counts = Counter(row["status"] for row in rows)
    order = sorted(counts, key=lambda status: (status != "ok", status))
    states = ", ".join(f"{counts[status]} {status}" for status in order)
    text = (
        f"{len(rows)} cells: {states}. Data: {masked(str(context['origin']))}, {context['test_images']} test images. "
        "All figures are for the network that ships (int8 on its engine, on the CPU), over all test images."
    )
    return Paragraph((text,))


def provenance(inputs: ReportInputs) -> Section:
    """Return the facts of the run, without passwords."""
    context = dict(inputs.context)
    if "task" in context:
        context["task"] = _described(inputs.task)
    facts = tuple((f"{name}: ", Code(masked(str(fact)))) for name, fact in context.items())
    return Section(("How this was made",), (Items(facts),))


def _described(task: TaskFacts) -> str:
    """A task in a line; ``plan.json`` has all that is said about it."""
    metrics = ", ".join(metric.name for metric in task.metrics)
    classes = f"; {len(task.classes)} classes" if task.classes else ""
    return f"{task.name} (code {task.identity or 'of this version'}); metrics {metrics}{classes}"


def commands(inputs: ReportInputs) -> Section | None:
    """Return the command of each cell as one block to copy from, without passwords."""
    if not inputs.commands:
        return None
    text = "Each command runs one cell of this grid; results that are already in the store are not computed again."
    cells = inputs.names if len(inputs.commands) > MOST_ROWS else list(inputs.commands)
    shown = [(cell, inputs.commands[cell]) for cell in cells if cell in inputs.commands]
    lines = (f"# {' '.join(cell.split())}\n{masked(command)}" for cell, command in shown)
    return Section(("Repeat a single cell",), (Paragraph((text,)), CodeBlock("\n".join(lines))))
