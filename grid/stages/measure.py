"""The two stages that judge a network: accuracy on the test images, and latency beside the float network."""

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from grid.planning.output_files import LATENCIES, OPERATORS, SAMPLES
from grid.planning.stage_table import stage_named
from grid.stages.latency import measure_pair, profile_operators
from grid.stages.work import Outcome, Work, write_outcome
from model.images import MAX_DEPTH_M, normalize
from model.metrics import depth_metrics, sqnr_db
from model.training import predict
from quant.artifact import load_network, size_mb
from quant.state import require_state

PICTURES = 4
_CPU = torch.device("cpu")


@torch.inference_mode()
def evaluate(work: Work) -> Outcome:
    """Test metrics of the network as it ships, of its simulation, and its noise against the float network."""
    network = load_network(work.inputs["network"])
    images, target = work.pack.images("test"), work.pack.depth("test")
    state = require_state(network, "evaluate")
    prediction = _test_prediction(work, network, images)
    metrics: dict[str, Any] = depth_metrics(prediction, target)
    if "reference" in work.inputs:
        reference = torch.from_numpy(np.load(work.inputs["reference"] / "predictions.npy"))
        metrics["sqnr_db"] = sqnr_db(reference, prediction)
    if "simulated" in work.inputs:
        simulation = predict(load_network(work.inputs["simulated"]), images, device=_CPU, progress=work.progress)
        metrics["simulated_ssim"] = depth_metrics(simulation, target)["ssim"]
    metrics["size_mb"] = size_mb(network, work.out)
    np.save(work.out / "predictions.npy", prediction.numpy())
    shown = torch.linspace(0, len(images) - 1, min(PICTURES, len(images))).long()
    np.savez(
        work.out / SAMPLES,
        image=images[shown].permute(0, 2, 3, 1).numpy(),
        truth=target[shown, 0].numpy() * MAX_DEPTH_M,
        prediction=prediction[shown, 0].numpy() * MAX_DEPTH_M,
    )
    return Outcome({"test_images": len(images), **metrics}, state)


def _test_prediction(work: Work, network: nn.Module, images: Tensor) -> Tensor:
    """The network's test predictions; for an int8 network found by its hash if another cell has the same one."""
    graph_hash = _graph_hash(work)
    if graph_hash is None:
        return predict(network, images, device=_CPU, progress=work.progress)

    def compute(folder: Path) -> Outcome:
        predicted = predict(network, images, device=_CPU, progress=work.progress)
        np.save(folder / "predictions.npy", predicted.numpy())
        return Outcome()

    found = _shared_measurement(work, ["predictions", graph_hash, work.pack.fingerprint], compute)
    return torch.from_numpy(np.load(work.store.path(found) / "predictions.npy"))


def _graph_hash(work: Work) -> str | None:
    """The identity of the int8 network to look at, or None for a float network."""
    graph_hash: str | None = work.record("network")["metrics"].get("graph_hash")
    return graph_hash


def _shared_measurement(work: Work, key: list[str], measure: Callable[[Path], Outcome]) -> str:
    """Measure what depends on the effective int8 network alone, once for all cells that share it; its id.

    Cells of equal hash are one network: their accuracy and latency are one measurement. Which cells these are shows
    only when they are converted, so that no plan has it. Its record is not one of a stage: estimates leave it out.
    """
    stage = work.node.stage
    digest = hashlib.sha256(json.dumps([stage, stage_named(stage).version, *key]).encode())
    node_id = digest.hexdigest()[:20]
    with work.store.claim(node_id) as done:
        if not done or not work.store.verify(node_id):
            with work.store.writer(node_id) as out:
                started = time.monotonic()
                write_outcome(out, work.node, measure(out), time.monotonic() - started, f"shared {stage}")
    return node_id


def profile(work: Work) -> Outcome:
    """Latency of the network as it ships, once for all cells that have the same one."""
    graph_hash = _graph_hash(work)
    if graph_hash is None:
        return _measure(work, work.out)
    settings = json.dumps(dict(work.node.settings), sort_keys=True)
    found = _shared_measurement(
        work, [graph_hash, settings, str(work.inputs["reference"].name)], lambda out: _measure(work, out)
    )
    for name in (OPERATORS, LATENCIES):
        shutil.copy(work.store.path(found) / name, work.out)
    record = work.store.record(found)
    return Outcome(record["metrics"], record["asserted"])


@torch.inference_mode()
def _measure(work: Work, out: Path) -> Outcome:
    """Latency beside the float reference, and the profiler's table of operators."""
    network, reference = load_network(work.inputs["network"]), load_network(work.inputs["reference"])
    require_state(network, "evaluate")
    example = normalize(work.pack.images("test", [0]))
    spec = work.group("latency")
    latency = measure_pair(network, reference, example, spec)
    step_ms, table = profile_operators(network, example, spec.threads)
    (out / OPERATORS).write_text(table)
    np.save(out / LATENCIES, latency.times)
    return Outcome(
        {
            "latency_ms_p50": latency.p50_ms,
            "latency_ms_p90": latency.p90_ms,
            "latency_ratio": latency.ratio,
            "latency_ratio_low": latency.ratio_low,
            "latency_ratio_high": latency.ratio_high,
            "reference_ms_p50": latency.reference_p50_ms,
            "pairs": latency.pairs,
            "profiler_step_ms": step_ms,
        },
        {"cpu_model": cpu_model(), "threads": spec.threads},
    )


def cpu_model(file: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, as the kernel gives it."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return "unknown"
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    parts = [found[name] for name in ("CPU implementer", "CPU part") if found.get(name)]  # Arm has no model name
    return found.get("model name") or (" ".join([platform.machine(), *parts]) if parts else "unknown")
