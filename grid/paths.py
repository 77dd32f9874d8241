"""Where the parts of this repository are that the code itself reads."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEARCH_SPACES = ROOT / "search_spaces"
PUBLISHED_RESULTS = SEARCH_SPACES / "published_results.csv"
ROOMS_CHECKPOINT = ROOT / "checkpoints" / "efficientnet_b0-rooms.safetensors"
ROOMS_CHECKPOINTS = {
    "depth": ROOMS_CHECKPOINT,
    **{task: ROOT / "checkpoints" / f"{task}-rooms.safetensors" for task in ("classification", "segmentation")},
}
"""By task, the networks that were trained on the built-in rooms and ship."""
CODE = tuple(ROOT / package for package in ("grid", "model", "quant"))
RUN_FILE_SCRIPT = ROOT / "quant" / "engines" / "run_file.py"
DEVICE_SCRIPT = ROOT / "quant" / "engines" / "run_on_device.py"
