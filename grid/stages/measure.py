"""The stage that times a network beside the float network."""

import json
import platform
import shutil
from pathlib import Path

import numpy as np

from grid.planning.output_files import LATENCIES, OPERATOR_TIMES, OPERATORS
from grid.stages.fresh_loads import measure_fresh
from grid.stages.shared_measurement import graph_hash_of, shared_measurement
from grid.stages.work import Outcome, Work
from model.images import to_network
from quant.artifact import load_network
from quant.operator_times.operator_time import CONVERSION, FLOAT, share_of
from quant.operator_times.table import write_operator_times
from quant.state import require_state
from quant.timing_class import timing_class


def profile(work: Work) -> Outcome:
    """Latency of the network as it ships, once for all cells that have the same one."""
    graph_hash = graph_hash_of(work)
    if graph_hash is None:
        return _measure(work, work.out)
    settings = json.dumps(dict(work.node.settings), sort_keys=True)
    found = shared_measurement(
        work, [graph_hash, settings, str(work.inputs["reference"].name)], lambda out: _measure(work, out)
    )
    for name in (OPERATORS, OPERATOR_TIMES, LATENCIES):
        if (file := work.store.path(found) / name).exists():  # an earlier version had no times by operator
            shutil.copy(file, work.out)
    record = work.store.record(found)
    return Outcome(record["metrics"], record["asserted"])


def _measure(work: Work, out: Path) -> Outcome:
    """Latency beside the float reference, and the profiler's table of operators."""
    network = load_network(work.inputs["network"])
    require_state(network, "evaluate")
    example = to_network(work.pack.images("test", [0]))
    spec, runtime = work.group("latency"), str(work.node.settings["float_runtime"])
    own_network = work.context.network
    found = measure_fresh(
        work.inputs["network"], work.inputs["reference"], example.numpy(), spec, work.scratch, runtime, own_network,
        work.progress,
    )  # fmt: skip
    latency = found.latency
    (out / OPERATORS).write_text(found.table)
    write_operator_times(out / OPERATOR_TIMES, found.operators)
    np.save(out / LATENCIES, latency.times)
    metrics = latency.figures | {"ready_s": list(found.ready_s), "profiler_step_ms": found.step_ms}
    if graph_hash_of(work) and (told := found.operators.get("candidate")):
        metrics |= {"time_in_float": share_of(FLOAT, told), "time_in_conversions": share_of(CONVERSION, told)}
    known = work.record("network")["metrics"].get("timing_class")
    asserted = {
        "cpu_model": cpu_model(),
        "threads": spec.threads,
        "timing_class": timing_class(network, tuple(example.shape), runtime, known),
        "session": work.node.id,
        "untold": dict(found.untold),
    }
    return Outcome(metrics, asserted)


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
