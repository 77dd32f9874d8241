"""The report of a run: its sections in their order, as one document, written as Markdown and as a page."""

from collections.abc import Callable
from pathlib import Path

from matplotlib import rc_context

from grid.report.devices.section import devices
from grid.report.document import Document, Section, pictures
from grid.report.html import html_page
from grid.report.inputs import ReportInputs
from grid.report.markdown import markdown_text
from grid.report.sections.against_float import against_float_network
from grid.report.sections.axes import which_axis_matters
from grid.report.sections.cautions import cautions
from grid.report.sections.effects import axis_effects
from grid.report.sections.noise import noise
from grid.report.sections.pictures import latencies, learning
from grid.report.sections.placement import placement
from grid.report.sections.predictions import noise_by_depth, predictions
from grid.report.sections.published import published
from grid.report.sections.recommendation import recommendation
from grid.report.sections.results import further_figures, results, seeds, tradeoff, without_figures
from grid.report.sections.summary import commands, opening, provenance
from grid.report.sections.trust import trust
from model.files import write_atomically

SECTIONS: tuple[Callable[[ReportInputs], Section | None], ...] = (
    recommendation,
    which_axis_matters,
    against_float_network,
    tradeoff,
    devices,
    seeds,
    results,
    without_figures,
    axis_effects,
    published,
    trust,
    predictions,
    noise_by_depth,
    latencies,
    learning,
    noise,
    placement,
    further_figures,
    provenance,
    commands,
)


def report(inputs: ReportInputs) -> Document:
    """Return what the report says; a section with nothing to say is left out."""
    sections = (section(inputs) for section in SECTIONS)
    title = f"Grid {inputs.context['run']}"
    first = (opening(inputs.rows, inputs.context), *cautions(inputs))
    return Document(title, first, tuple(one for one in sections if one))


def write_report(folder: Path, inputs: ReportInputs) -> tuple[Path, Path]:
    """Write the pictures, ``report.md`` and ``report.html`` into ``folder``; returns the paths of the last two."""
    document = report(inputs)
    folder.mkdir(parents=True, exist_ok=True)
    with rc_context({"text.parse_math": False}):  # a name with dollars in it is no formula
        for picture in pictures((*document.opening, *document.sections)):
            picture.draw(folder / picture.file)
    text = write_atomically(folder / "report.md", markdown_text(document))
    return text, write_atomically(folder / "report.html", html_page(document, folder))
