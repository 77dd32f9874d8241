"""Tables of more rows than are seen at once: what comes first, where the others are, and what chooses among them."""

import re

import pytest

from grid.planning.output_files import ANALYSIS_CSV
from grid.report.cells import name_cell, text_cell
from grid.report.document import MOST_ROWS, Column, Document, Section, Table
from grid.report.html import html_page
from grid.report.inputs import ReportInputs
from grid.report.markdown import markdown_text
from grid.report.report import report
from grid.report.sections.noise import noise
from grid.report.shortlist import reading_order
from grid.report.terminal import FEW_ROWS, summary
from tests.grid.report.html_page import Page, is_safe, page_of
from tests.grid.report.report_rows import context, grid_rows, many_rows, row, text_of
from tests.grid.report.test_html import EVIL


def long_document(rows: int) -> Document:
    columns = (Column("cell", "name"), Column("kind", filter="kind"))
    lines = tuple((name_cell(f"cell-{number}"), text_cell(f"k{number % 3}")) for number in range(rows))
    return Document("R", (), (Section(("S",), (Table(columns, lines),)),))


def parts(html: str) -> tuple[str, str]:
    """What is seen at once of the only table, and its template."""
    seen, template = html.split("<template>")
    return seen[seen.index("<tbody>") :], template[: template.index("</template>")]


def test_the_page_shows_the_first_rows_of_a_long_table_and_has_all_others_behind_them(tmp_path):
    html = html_page(long_document(MOST_ROWS + 7), tmp_path)
    seen, further = parts(html)
    names = [re.findall(r"<code>(cell-\d+)</code>", part) for part in (seen, further)]
    assert names[0] == [f"cell-{number}" for number in range(MOST_ROWS)]
    assert names[1] == [f"cell-{number}" for number in range(MOST_ROWS, MOST_ROWS + 7)]
    assert f"<noscript><p>The first {MOST_ROWS} of 107 rows;" in html
    is_safe(Page(html), scripts=1)


def test_a_table_that_is_seen_at_once_has_no_pages_and_no_filters(tmp_path):
    html = html_page(long_document(MOST_ROWS), tmp_path)
    assert "<template>" not in html
    assert '<table class="sortable">' in html
    assert "data-filter" not in html.split("<script>")[0]


def test_markdown_shows_the_first_rows_of_a_long_table_and_says_how_many_there_are():
    text = markdown_text(long_document(1234))
    assert text.count("`cell-") == MOST_ROWS
    assert "The first 100 of 1,234 rows; report.html has all." in text
    assert "The first" not in markdown_text(long_document(MOST_ROWS))


def test_a_long_table_of_results_is_chosen_from_by_every_axis_and_by_status(tmp_path):
    rows = [*many_rows(150), row("lost", status="failed", reason="out of memory", method="qat", fuse_bn=True)]
    html = page_of(rows, tmp_path)
    results = html[html.index('<h2 id="results">') :]
    axes = ["fuse BN", "granularity", "method", "qat.epochs", "calibrate.outlier_ratio"]
    assert re.findall(r'data-filter="([^"]*)"', results.split("</thead>")[0]) == [*axes, "status"]
    assert results.split("</template>")[0].count('data-choice="ok"') == 152
    assert results.split("</template>")[0].count('data-choice="failed"') == 1


def test_what_comes_first_in_a_long_table_is_what_a_reader_looks_for():
    rows = [row("lost", status="failed", reason="x", method="qat", fuse_bn=True), *grid_rows()]
    names = reading_order(rows, {"per_tensor-ptq"}, {"per_tensor-qat", "per_channel-ptq"})
    assert names[:3] == ["fp32", "fp32-fuse_bn", "per_tensor-ptq"]
    assert set(names[3:5]) == {"per_tensor-qat", "per_channel-ptq"}
    ssim = {line["cell"]: line["test_ssim"] for line in rows}
    assert names[5:-1] == sorted(names[5:-1], key=lambda name: -ssim[name])
    assert names[-1] == "lost"


def test_tables_of_one_long_grid_have_one_order_and_the_recommended_cell_is_seen_at_once():
    inputs = ReportInputs(many_rows(150), context())
    document = report(inputs)
    tables = [block for section in document.sections for block in section.blocks if isinstance(block, Table)]
    long = [table for table in tables if len(table.rows) > MOST_ROWS]
    orders = []
    for table in long:
        (place,) = (place for place, column in enumerate(table.columns) if column.kind == "name")
        orders.append([line[place].spans[0].text for line in table.rows if "fp32" not in line[place].spans[0].text])
    assert len(orders) == 3, "results, trust, further figures"
    assert orders[0] == orders[1] == orders[2]
    assert orders[0][0] == inputs.answer.cell
    assert {line["cell"] for line in inputs.rows} == {line[1].spans[0].text for line in long[0].rows}


def test_the_number_of_a_row_is_that_of_the_grid_wherever_the_row_stands():
    inputs = ReportInputs(many_rows(150), context())
    (section,) = (one for one in report(inputs).sections if one.anchor == "results")
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    numbers = {line[1].spans[0].text: line[0].figure for line in table.rows}
    assert numbers == {line["cell"]: number for number, line in enumerate(inputs.rows, 1)}


def test_many_reasons_are_counted_by_their_kind_and_each_is_still_there():
    lost = [
        row(f"lost-{number}", status="failed", method="qat", fuse_bn=True, reason=f"qat: MemoryError: {number} bytes")
        for number in range(130)
    ]
    text = text_of([*grid_rows(), *lost, row("other", status="skipped", method="qat", reason="round did not run")])
    section = text.split("\n## Cells without figures\n")[1].split("\n## ")[0]
    assert "- 130 failed: qat: MemoryError" in section
    assert "- 1 skipped: round did not run" in section
    assert "| `lost-0` | failed | qat: MemoryError: 0 bytes |" in section
    assert "The first 100 of 131 rows" in section


def test_of_many_commands_markdown_has_those_of_the_best_cells():
    rows = many_rows(150)
    inputs = ReportInputs(rows, context(), commands={line["cell"]: f"run {line['cell']}" for line in rows})
    block = markdown_text(report(inputs)).split("```sh\n")[1].split("\n```")[0].splitlines()
    assert block[0::2][:MOST_ROWS] == [f"# {name}" for name in inputs.names[:MOST_ROWS]]
    assert block[-1] == "# and 104 further lines, in report.html"


@pytest.mark.parametrize("text", EVIL)
def test_nothing_in_the_rows_behind_the_first_ones_is_obeyed(tmp_path, text):
    rows = [*many_rows(150), row("x", status="failed", reason=text, method="qat", fuse_bn=True, granularity=text)]
    html = page_of(rows, tmp_path)
    is_safe(Page(html), scripts=3)
    assert Page(html).text.count(text) >= 2


def test_of_many_cells_the_terminal_names_the_best_and_how_many_more_there_are(tmp_path):
    rows = many_rows(150)
    answer = ReportInputs(rows, context()).answer
    text = summary(rows, answer, tmp_path)
    assert len(text.splitlines()) < 60
    assert f"and {152 - FEW_ROWS} further cells" in text
    assert str(answer.cell) in text
    assert "further cells" not in summary(grid_rows(), ReportInputs(grid_rows(), context()).answer, tmp_path)


def test_the_terminal_tells_why_a_cell_failed_even_where_another_has_the_same_network(tmp_path):
    rows = grid_rows()
    rows[2] |= {"status": "failed", "reason": "pi: its disk is full", "same_as": rows[3]["cell"]}
    rows[4] |= {"note": "throttled: hot", "same_as": rows[3]["cell"]}
    lines = summary(rows, ReportInputs(rows, context()).answer, tmp_path).splitlines()
    failed, hot = (next(line for line in lines if line.startswith(f"{rows[place]['cell']} ")) for place in (2, 4))
    assert failed.endswith("  pi: its disk is full")
    assert hot.endswith(f"same as {rows[3]['cell']}; throttled: hot")


def test_of_many_analyzed_cells_those_of_the_shortlist_have_a_section(tmp_path):
    rows = many_rows(60)
    (tmp_path / ANALYSIS_CSV).write_text("rank\n")
    inputs = ReportInputs(rows, context(), analyses=dict.fromkeys((line["cell"] for line in rows[2:]), tmp_path))
    section = noise(inputs)
    shown = [block.title[0].text for block in section.blocks if isinstance(block, Section)]
    assert shown == [line["cell"] for line in inputs.shortlist if line["method"] != "fp32"]
    assert f"{60 - len(shown)} of the analyzed cells are left out" in str(section.blocks[1])
    few = dict(list(inputs.analyses.items())[:3])
    assert len(noise(ReportInputs(rows, context(), analyses=few)).blocks) == 1 + 3
