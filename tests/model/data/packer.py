"""A packer to be killed: packs an NYUv2 folder, and stops at a picture until it is told to go on."""

import sys
import time
from pathlib import Path

from model.data import packing
from model.data.pack import prepare_pack
from tests.model.data.nyu_files import SPEC


def main(data: str, packs: str, stop_at: str) -> None:
    packing.MARK_S = 0.0

    def stop(done: int, total: int, text: str) -> None:
        time.sleep(0.03)  # for marks, which are written aside
        if done == int(stop_at):
            print("stopped", flush=True)
            sys.stdin.readline()

    prepare_pack(data, Path(packs), SPEC, stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
