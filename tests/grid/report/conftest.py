"""A report of a grid, as a folder and as its page."""

import pytest

from grid.report.inputs import ReportInputs
from grid.report.report import write_report
from tests.grid.report.html_page import Page
from tests.grid.report.report_rows import (
    changed,
    context,
    grid_rows,
    histories_of,
    latency_files,
    row,
    sample_files,
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A run with everything in its report."""
    folder = tmp_path_factory.mktemp("run")
    rows = changed(grid_rows(), "per_channel-qat", reason="")
    rows.append(row("lost", status="failed", reason="out | of * memory", method="qat", fuse_bn=True))
    inputs = ReportInputs(
        rows,
        context(),
        samples=sample_files(folder, rows[:4]),
        histories=histories_of(rows[:-1]),
        latencies=latency_files(folder, rows[:-1]),
        commands={line["cell"]: f"python runner.py --set 'cell={line['cell']}'" for line in rows},
    )
    write_report(folder, inputs)
    return folder


@pytest.fixture(scope="session")
def page(folder):
    return Page((folder / "report.html").read_text())
