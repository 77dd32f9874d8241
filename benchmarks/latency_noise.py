"""Do latency intervals cover? Twelve int8 networks of one timing class, measured again and again in fresh processes.

All of them run the same operators on the same shapes, so they have one latency ratio, and what differs is noise. A
repetition is a process that times each network once, as a grid does. Prints in how many of the measurements the 95 %
interval holds the value pooled over all repetitions: that of a network's loads alone, that of a network as a grid shows
one that is alone in its class (with what measurements of the grid differ by), and that of the class (one a repetition,
pooled over its networks); how wide the intervals are, and what they cost. ``--keep FOLDER`` keeps each repetition and
goes on from those that are there: a quiet machine may not stay quiet for a quarter of an hour.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from benchmarks.line import say
from benchmarks.subject import float_network, pictures
from grid.results.timing import between_measurements, pooled_interval
from grid.scheduling.cores import own_cores, pinned
from grid.space.settings import LatencySpec
from grid.stages.fresh_loads import measure_fresh
from model.network.spec import NetworkSpec
from quant.artifact import Form, load_network, save_network
from quant.calibrate import calibrate
from quant.engines.qnnpack import convert
from quant.prepare import QuantConv
from quant.recipe import CalibrateSpec
from quant.timing_class import timing_class
from quant.tracing.trace import fuse_bn

NETWORKS, REPETITIONS = 12, 5
SPEC = LatencySpec()


def main(keep: Path, repetitions: int) -> None:
    """Measure the repetitions that ``keep`` lacks, up to so many, and print what all of them show."""
    if not (keep / "example.npy").is_file():
        _write_networks(keep)
    for number in range(repetitions):
        if not (keep / f"repetition{number}.json").is_file():
            command = [sys.executable, "-m", "benchmarks.latency_noise", "--keep", str(keep), "--measure", str(number)]
            subprocess.run(command, check=True, timeout=1200)
    _print([json.loads(file.read_text()) for file in sorted(keep.glob("repetition*.json"))])


@torch.no_grad()
def _write_networks(folder: Path) -> None:
    """Twelve networks with other weights, one after the other per channel and per tensor, and their float network."""
    images, _ = pictures(folder / "rooms", 4, 1)
    network = float_network()
    _save(folder / "float", network, Form(NetworkSpec(), fused=False, form="float"))
    draw = torch.Generator().manual_seed(0)
    classes = set()
    for number in range(NETWORKS):
        granularity = ("per_channel", "per_tensor")[number % 2]
        prepared = calibrate(fuse_bn(network), granularity, CalibrateSpec(activation_range="minmax"), images)
        for module in prepared.modules():
            if isinstance(module, QuantConv):
                weight = module.conv.weight
                weight.mul_(1 + 0.05 * torch.randn(weight.shape, generator=draw))
        int8 = convert(prepared)
        form = Form(NetworkSpec(), fused=True, form="int8", granularity=granularity, engine="qnnpack")
        _save(folder / f"network{number}", int8, form)
        classes.add(timing_class(load_network(folder / f"network{number}"), tuple(images[:1].shape)))
    assert len(classes) == 1, "other operators"
    np.save(folder / "example.npy", images[:1].numpy())


def _save(folder: Path, network: Any, form: Form) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_network(folder, network, form)


def _measure(keep: Path, number: int) -> None:
    """One repetition: every network once, in an order of its own."""
    example, found = np.load(keep / "example.npy"), []
    with pinned(own_cores()[:1]), tempfile.TemporaryDirectory() as scratch:
        for network in np.random.default_rng(number).permutation(NETWORKS):
            started = time.monotonic()
            one = measure_fresh(keep / f"network{network}", keep / "float", example, SPEC, Path(scratch))
            figures = {"network": int(network), "load_ratios": one.latency.load_ratios, "pairs": one.latency.pairs}
            figures |= {"ratio": one.latency.ratio, "low": one.latency.ratio_low, "high": one.latency.ratio_high}
            found.append(figures | {"seconds": time.monotonic() - started})
    (keep / f"repetition{number}.json").write_text(json.dumps(found))


def _print(repetitions: list[list[dict[str, Any]]]) -> None:
    every = [one for found in repetitions for one in found]
    pooled = float(np.exp(fmean(np.log(one["ratio"]) for one in every)))
    loads = [(one["ratio"], one["low"], one["high"]) for one in every]
    single, whole = [], []
    for found in repetitions:
        sessions = [one["load_ratios"] for one in found]
        between = between_measurements([sessions])
        single += [pooled_interval([one], between) for one in sessions]
        whole.append(pooled_interval(sessions))
    what = f"{len(repetitions)} repetitions of {NETWORKS} networks, {SPEC.loads} loads each; pooled value {pooled:.3f}"
    kinds = {"loads alone": loads, "one network": single, "class": whole}
    for name, intervals in kinds.items():
        goal = "; goal >= 90" if name == "one network" else ""
        held = [low <= pooled <= high for _, low, high in intervals]
        say(
            f"latency_coverage {name}",
            100 * fmean(held),
            "%",
            f"{sum(held)} of {len(held)} 95 % intervals{goal}; {what}",
        )
        widths = [50 * (high - low) / ratio for ratio, low, high in intervals]
        say(f"latency_half_width {name}", fmean(widths), "%", "mean half of the interval")
    say(
        "latency_spread loads", _spread(np.log(one["load_ratios"]) for one in every), "%", "standard deviation of loads"
    )
    between = _spread([np.array([np.log(one["ratio"]) for one in found]) for found in repetitions])
    say("latency_spread networks", between, "%", "of networks within a repetition")
    say("latency_seconds", fmean(one["seconds"] for one in every), "s", "a network, all its loads")


def _spread(groups: Iterable[np.ndarray]) -> float:
    """The pooled standard deviation within groups of logarithms, in percent."""
    return 100 * float(np.sqrt(fmean(float(np.var(group, ddof=1)) for group in groups)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where networks and repetitions are kept")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, metavar="N")
    parser.add_argument("--measure", type=int, metavar="N", help="measure one repetition and end")
    given = parser.parse_args()
    if given.measure is not None:
        _measure(given.keep, given.measure)
    elif given.keep is not None:
        main(given.keep, given.repetitions)
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder), given.repetitions)
