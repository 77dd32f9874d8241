"""results.csv: every row, the columns of the design first, and never half a file."""

import csv

import pytest

from grid.results.results_csv import write_results_csv
from tests.grid.measures import RESULT_COLUMNS
from tests.grid.report.report_rows import grid_rows, row


def test_csv_has_the_columns_of_the_design_first_and_every_row(tmp_path):
    rows = [{**row, "qat.epochs": 2} for row in grid_rows()] + [{"cell": "broken", "status": "failed", "reason": "no"}]
    write_results_csv(rows, tmp_path / "new" / "results.csv")
    with open(tmp_path / "new" / "results.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert tuple(read[0])[: len(RESULT_COLUMNS)] == RESULT_COLUMNS
    assert [row["cell"] for row in read] == [row["cell"] for row in rows]
    assert (read[0]["fuse_bn"], read[1]["fuse_bn"], read[0]["granularity"]) == ("false", "true", "")
    assert float(read[2]["test_ssim"]) == rows[2]["test_ssim"]
    assert (read[0]["qat.epochs"], read[-1]["qat.epochs"], read[-1]["test_ssim"]) == ("2", "", "")


def test_csv_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = write_results_csv(grid_rows(), tmp_path / "results.csv")
    before = path.read_text()
    with pytest.raises(UnicodeEncodeError):
        write_results_csv([row("\ud800")], path)
    assert path.read_text() == before
