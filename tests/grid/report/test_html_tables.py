"""Tables and plots of the page: what sorts, what stays in sight, what its key names."""

import json
import re

import pytest

from grid.report.cells import count_cell, name_cell, text_cell
from grid.report.document import Column, Document, Section, Table
from grid.report.figures import colours
from grid.report.figures.interactive import plots
from grid.report.figures.panels import FRONT_OF_ALL, FRONT_OF_PLOT, trade_off
from grid.report.html import html_page
from grid.report.inputs import ReportInputs
from grid.report.report import write_report
from grid.results.ranking import compared
from tests.grid.report.html_page import Entry, Page, is_safe, page_of
from tests.grid.report.report_rows import (
    changed,
    context,
    grid_rows,
    histories_of,
    latency_files,
    many_rows,
    sample_files,
)


def test_every_table_scrolls_and_sorts_and_its_figures_are_known_as_such(folder, page):
    tables = page.of("table")
    rules = [line for line in (folder / "report.md").read_text().splitlines() if re.match(r"\| :?--", line)]
    assert len(tables) == len(rules) >= 4
    assert all(table == {"class": "sortable"} for table in tables)
    assert [attributes["class"] for attributes in page.of("div")].count("table") == len(tables)
    headers = [attributes.get("class", "") for attributes in page.of("th")]
    assert sum("number" in classes for classes in headers) == sum(rule.count("--:") for rule in rules)
    assert sum("name" in classes.split() for classes in headers) == len(tables)
    assert "table.sortable" in page.scripts[0]


def test_the_column_that_stays_in_sight_is_that_of_the_names(tmp_path):
    table = Table(
        (Column("#", "number"), Column("cell", "name"), Column("note")),
        ((count_cell(1), name_cell("a"), text_cell("b")),),
    )
    page = Page(html_page(Document("R", (), (Section(("S",), (table,)),)), tmp_path))
    assert [cell.get("class") for cell in page.of("th")] == ["number", "name", None]
    assert [cell.get("class") for cell in page.of("td")] == ["number", "name", None]


def test_a_column_of_figures_is_sorted_by_what_they_are_and_not_by_what_is_shown(tmp_path):
    rows = changed(grid_rows(), "per_channel-ptq", test_ssim=0.83004, latency_ratio=None)
    cells = results_of(Page(page_of(rows, tmp_path)))
    assert cells["per_channel-ptq"]["test SSIM"] == ("0.8300", "0.83004")
    assert cells["per_channel-ptq"]["x float [95 % CI]"] == ("–", None)
    assert cells["fp32"]["x float [95 % CI]"] == ("1.00x [0.99, 1.01]", "1")


def table_of_results(page: Page) -> list[list[Entry]]:
    """Its lines, the header first."""
    return next(lines for lines in page.tables if [entry.text for entry in lines[0][:2]] == ["#", "cell"])


def results_of(page: Page) -> dict[str, dict[str, tuple[str, str | None]]]:
    """Text and sorted figure of the table of results, by cell and title."""
    header, *lines = table_of_results(page)
    titles = [entry.text for entry in header]
    return {
        line[1].text: {
            title: (entry.text, entry.attributes.get("data-figure")) for title, entry in zip(titles, line, strict=True)
        }
        for line in lines
    }


def test_a_further_axis_of_numbers_is_sorted_as_numbers_and_another_one_as_text(tmp_path):
    rows = [
        {**line, "qat.epochs": number, "equalize.objective": "noise" if number % 2 else None}
        for number, line in enumerate(grid_rows())
    ]
    page = Page(page_of(changed(rows, "fp32", **{"qat.epochs": None}), tmp_path))
    cells = results_of(page)
    assert cells["fp32-fuse_bn"]["qat.epochs"] == ("1", "1")
    assert cells["fp32-fuse_bn"]["equalize.objective"] == ("noise", None)
    assert cells["fp32"]["qat.epochs"] == ("–", None)
    classes = {entry.text: entry.attributes.get("class") for entry in table_of_results(page)[0]}
    assert (classes["qat.epochs"], classes["equalize.objective"]) == ("number", None)


def test_the_key_names_every_trace_once_and_switches_both_plots(page):
    buttons = {button["value"]: button["style"].removeprefix("--colour: ") for button in page.of("button")}
    of_forests = ["undecided"]
    assert list(buttons) == [*of_forests, "fp32", "ptq", "qat", "ptq+qat", FRONT_OF_PLOT, FRONT_OF_ALL]
    assert {name: buttons[name] for name in colours.METHODS} == colours.METHODS
    for plot in plots(trade_off(grid_rows())):
        assert sorted([*of_forests, *(trace["name"] for trace in plot["data"])]) == sorted(buttons)
        assert not plot["layout"]["showlegend"]


def test_with_several_seeds_the_plots_show_recipes(tmp_path):
    rows = [{**line, "seed": seed, "cell": f"{line['cell']}-s{seed}"} for line in grid_rows() for seed in (0, 1)]
    html = page_of(rows, tmp_path)
    shown = json.loads(html.split("const PLOTS = ")[1].split(";\n")[0])
    plots_of_cells = [plot for plot in shown if "shapes" not in plot["layout"]]
    texts = [text for plot in plots_of_cells for trace in plot["data"] for text in trace.get("text", [])]
    assert len(compared(rows)) == 14
    assert len(texts) == 2 * 14


def test_a_report_without_figures_has_no_plots_and_is_small(tmp_path):
    rows = [{"cell": "a", "status": "failed", "reason": "out of memory", "method": "ptq", "fuse_bn": False}]
    html = page_of(rows, tmp_path)
    assert len(html) < 50_000
    is_safe(Page(html), scripts=1)


@pytest.mark.slow
def test_a_page_of_200_cells_stays_below_10_mb(tmp_path):
    rows = many_rows(200)
    inputs = ReportInputs(
        rows,
        context(),
        samples=sample_files(tmp_path, rows),
        histories=histories_of(rows, 30),
        latencies=latency_files(tmp_path, rows),
        commands={line["cell"]: "python runner.py --grid full --set a=b " * 4 for line in rows},
    )
    _, path = write_report(tmp_path, inputs)
    assert path.stat().st_size < 10_000_000
    page = Page(path.read_text())
    first = [picture["alt"].split(maxsplit=1)[0] for picture in page.of("img")[:2]]
    assert first == ["Axes", "Differences"], "the most important pictures are in it"
    assert all(line["cell"] in page.text for line in rows)
    assert page.elements.count(("table", {"class": "sortable paged"})) == page.text.count("The first 100 of 20") == 3
