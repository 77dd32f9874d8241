"""A cell to write, and the child runs of a grid, for the tests of tracking."""

from grid.tracking.mlflow_store import CellRun, Tracking


def write(tracking: Tracking, parent: str, key: str = "k1", **given) -> str:
    cell = {
        "name": "per_channel-ptq",
        "params": {"method": "ptq", "fuse_bn": False, "equalize": None, "qat.travel": 1e-4},
        "metrics": {"test_ssim": 0.8, "sqnr_db": None},
        "history": [{"epoch": 1, "val_ssim": 0.7}, {"epoch": 2, "val_ssim": 0.75, "loss": None}],
        "tags": {"granularity": "per_channel"},
    }
    return tracking.write_cell(parent, CellRun(key, **{**cell, **given}))


def children(tracking: Tracking, parent: str) -> list:
    return tracking.client.search_runs([tracking.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
