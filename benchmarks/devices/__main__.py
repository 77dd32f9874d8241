"""Does the runner of devices give the figures of the profiling actor? Both time the same files on one core, in turns.

Subject: the int8 ONNX file of the default network beside its own float file, in one repetition after the other by the
actor's fresh loads (grid/stages/fresh_loads.py) and by what runs on devices (quant/engines/run_on_device.py, in
processes of this machine, with the same seconds and loads). Prints both pooled ratios, how wide the intervals of single
measurements are, how often they hold the median of the measurements made the same way, and the ratio between both with
its 95 % interval over repetitions. What runs on devices measures a load again in which the float file drifted, and the
actor keeps it; so both are compared without such loads, too.
"""

import argparse
import math
import sys
import tempfile
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import torch

from benchmarks.line import say
from benchmarks.subject import float_network, pictures
from grid.devices.address import PROCESS, Device
from grid.devices.board import Board, File
from grid.devices.measure import DRIFT, measure
from grid.scheduling.cores import own_cores, pinned
from grid.space.settings import LatencySpec
from grid.stages.fresh_loads import measure_fresh
from grid.stages.latency import Latency, ratio_interval, summarize
from model.network.spec import NetworkSpec
from quant.artifact import Form, save_network
from quant.calibrate import calibrate
from quant.engines.exported import ExportedNetwork, export, file_name
from quant.recipe import CalibrateSpec
from quant.tracing.trace import fuse_bn

REPETITIONS = 12
ENGINE = "onnxruntime"
SPEC = LatencySpec()


def main(repetitions: int) -> None:
    """Measure in turns, and print what both show."""
    with pinned(own_cores()[:1]), tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        example = _write(folder)
        cores = tuple(own_cores()[:1])
        device = Device("runner", PROCESS, "", cores=cores, python=sys.executable, folder=str(folder / "there"))
        found: dict[str, list[Latency]] = {"actor": [], "runner": []}
        for number in range(repetitions):
            for who in ("actor", "runner") if number % 2 else ("runner", "actor"):
                found[who].append(_by_actor(folder, example) if who == "actor" else _by_runner(device, folder))
    _print(found)


@torch.no_grad()
def _write(folder: Path) -> np.ndarray:
    """Both files, each in a folder of its own; returns an input."""
    images, _ = pictures(folder / "rooms", 4, 1)
    fused = fuse_bn(float_network())
    int8 = calibrate(fused, "per_channel", CalibrateSpec(activation_range="minmax"), images)
    for name, network in {"float": fused, "int8": int8}.items():
        (folder / name).mkdir()
        file = folder / name / file_name(ENGINE)
        export(network, ENGINE, images[:1], file)
        form = Form(NetworkSpec(), fused=True, form=name, granularity="per_channel", engine=ENGINE)
        save_network(folder / name, ExportedNetwork(ENGINE, file), form)
    example = images[:1].numpy()
    np.save(folder / "image.npy", example)
    return example


def _by_actor(folder: Path, example: np.ndarray) -> Latency:
    with tempfile.TemporaryDirectory() as scratch:
        return measure_fresh(folder / "int8", folder / "float", example, SPEC, Path(scratch)).latency


def _by_runner(device: Device, folder: Path) -> Latency:
    files = [File(folder / name / file_name(ENGINE), ENGINE) for name in ("int8", "float")]
    return summarize(measure(Board(device), files, folder / "image.npy", SPEC).loads)


def _steady(measured: Latency) -> Latency:
    """The same measurement without the loads in which the float file drifted, as devices measure those again."""
    canary = [float(np.median(times[:, 1])) for times in measured.loads]
    return summarize([times for times, one in zip(measured.loads, canary, strict=True) if one <= DRIFT * min(canary)])


def _print(found: dict[str, list[Latency]]) -> None:
    steady = {who: [_steady(one) for one in measured] for who, measured in found.items()}
    for who, measured in found.items():
        logs = np.log([one.ratio for one in measured])
        middle = math.exp(float(np.median(logs)))
        held = [one.ratio_low <= middle <= one.ratio_high for one in measured]
        widths = [50 * (one.ratio_high - one.ratio_low) / one.ratio for one in measured]
        loads = sum(len(one.loads) for one in measured)
        drifting = loads - sum(len(one.loads) for one in steady[who])
        what = f"{len(measured)} measurements of {SPEC.loads} loads, int8 by its own float file"
        holding = f"{sum(held)} of {len(held)} hold {middle:.4f}, their median"
        say(f"ratio by the {who}", math.exp(logs.mean()), "ratio", what)
        say(f"spread by the {who}", 100 * stdev(logs), "%", "standard deviation of measurements")
        say(f"half width by the {who}", fmean(widths), "%", "mean half of the interval of one measurement")
        say(f"coverage by the {who}", 100 * fmean(held), "%", holding)
        say(f"drifting loads by the {who}", 100 * drifting / loads, "%", f"{drifting} of {loads} loads")
    _compare("runner by actor", found)
    _compare("runner by actor, steady loads", steady)


def _compare(name: str, found: dict[str, list[Latency]]) -> None:
    pairs = zip(found["runner"], found["actor"], strict=True)
    ratio, low, high = ratio_interval([runner.ratio / actor.ratio for runner, actor in pairs])
    say(name, ratio, "ratio", f"95 % interval {low:.4f} to {high:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, metavar="N")
    main(parser.parse_args().repetitions)
