"""What a cell of a grid costs the driver, in a grid of a hundred cells and in one of two thousand.

The stages do nothing but leave a record, a few bytes of a network and the files that a cell's row, report and MLflow
run are made of. What is left is planning, Tune, the writing of the store, rows and MLflow, with a logged model a cell.
Each grid runs in a fresh process as ``runner.py`` runs it, with four stages of its own a cell. A cell costs the
wall time from the start of the first stage to the closed MLflow run, less the report (a figure of its own), over
the cells. Memory is that of the driver alone, at the end of the last stage and after the report: its private pages, and
all that are resident, of which those of shared libraries (torch, Ray, MLflow) are a large part from the start.
"""

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.line import say
from benchmarks.thousands.grid import grid

SIZES = (100, 2000)


def main() -> None:
    costs = {}
    for cells in SIZES:
        with tempfile.TemporaryDirectory() as name:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                figures = pool.submit(grid, Path(name), cells).result()
        costs[cells] = figures["cost_s"]
        of = f"{cells} cells, {figures['stages']} stages, MLflow with a model a cell"
        say(f"thousands_cost_s_a_cell_{cells}", figures["cost_s"], "s", f"{of}; goal < 0.6")
        say(f"thousands_plan_s_{cells}", figures["plan_s"], "s", of)
        say(f"thousands_mlflow_left_s_{cells}", figures["mlflow_s"], "s", "in the cost: MLflow, after the last stage")
        say(f"thousands_report_s_{cells}", figures["report_s"], "s", "rows, results.csv, pages and pictures at the end")
        for when in ("start", "end", "report"):
            private, resident = figures[f"{when}_private_mb"], figures[f"{when}_resident_mb"]
            say(f"thousands_driver_{when}_mb_{cells}", private, "MB", f"private pages; {resident:.0f} MB are resident")
    few, many = SIZES
    say("thousands_cost_ratio", costs[many] / costs[few], "x", f"a cell of {many} to a cell of {few}; goal <= 1.2")


if __name__ == "__main__":
    main()
