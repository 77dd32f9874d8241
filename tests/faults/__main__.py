"""``python -m tests.faults --kills 50 --seed 1``: kill whatever a grid is made of, and count what is lost."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.faults.harness import run
from tests.grid.tiny import _world

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        toll = run(_world(Path(scratch) / "world"), Path(scratch), asked.kills, asked.seed)
    print(toll.text())
    sys.exit(1 if toll.losses else 0)
