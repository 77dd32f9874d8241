"""``python -m quant.engines.executorch_runner aarch64``: build what runs ``.pte`` files on such a device."""

import argparse
import sys

from model.errors import InputError
from quant.engines.executorch_runner.build import PLATFORMS, build

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m quant.engines.executorch_runner", description=__doc__)
    parser.add_argument("machine", choices=PLATFORMS, help="what `uname -m` says on the device")
    try:
        built = build(parser.parse_args().machine)
    except InputError as error:
        sys.exit(str(error))
    size_mb = sum(file.stat().st_size for file in built) / 1e6
    print(f"{built[0].parent}: {size_mb:.1f} MB in {len(built)} libraries; devices get them with the first network")
