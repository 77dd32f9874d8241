"""One recipe on every engine that is installed, timed in turns with PyTorch's float network and the engine's own."""

import copy
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.line import say
from benchmarks.subject import float_network, pictures
from grid.space.settings import LatencySpec
from grid.stages.latency import measure_loads
from model.noise import sqnr_db
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.engines.catalog import PACKAGES, TORCH, missing
from quant.engines.exported import ExportedNetwork, export, file_name
from quant.equalization.equalize import equalize
from quant.recipe import CalibrateSpec, EqualizeSpec
from quant.tracing.trace import fuse_bn

SPEC = LatencySpec(seconds=10.0)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        images, test = pictures(Path(folder), 16, 8)
        network = float_network()
        equalized = equalize(fuse_bn(network), EqualizeSpec(images=8), images, "per_channel")
        prepared = calibrate(equalized, "per_channel", CalibrateSpec(), images)
        torch.set_num_threads(SPEC.threads)  # QNNPACK's pool of threads stays as it is at its first use
        for engine in TORCH:
            _figures(f"int8 {engine}", qnnpack.convert(prepared, engine), network, test, "PyTorch's float network")
        for engine in PACKAGES:
            reason = missing(engine)
            if reason:
                print(f"{reason}: not measured", flush=True)
                continue
            files = {}
            for name, source in (("int8", prepared), ("float", network)):
                path = Path(folder, f"{name}-{file_name(engine)}")
                export(source, engine, test[:1], path)
                files[name] = ExportedNetwork(engine, path)
            _figures(f"int8 {engine}", files["int8"], network, test, "PyTorch's float network; goal of the best 0.55")
            _figures(f"float {engine}", files["float"], network, test, "PyTorch's float network")
            goal = "; goal 0.6" if engine == "xnnpack" else ""
            _figures(f"int8 {engine} by its float", files["int8"], files["float"], test, f"its own float file{goal}")
            say(f"size int8 {engine}", files["int8"].path.stat().st_size / 1e6, "MB", "goal 1.9")


def _figures(name: str, candidate: nn.Module, reference: nn.Module, test: Tensor, against: str) -> None:
    with torch.inference_mode():
        noise = sqnr_db(reference(test), candidate(test))
    found = measure_loads(lambda: (_anew(candidate), _anew(reference)), test[:1], SPEC)
    interval = f"{found.ratio_low:.3f} to {found.ratio_high:.3f}, {found.p50_ms:.1f} ms"
    say(f"latency {name}", found.ratio, "ratio", f"{against}, {interval}")
    say(f"sqnr_db {name}", noise, "dB", against.partition(";")[0])


def _anew(network: nn.Module) -> nn.Module:
    """A load of its own, in other memory."""
    if isinstance(network, ExportedNetwork):
        return ExportedNetwork(network.engine, network.path)
    return copy.deepcopy(network)


if __name__ == "__main__":
    main()
