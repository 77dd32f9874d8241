"""What the record of a stage adds to the row of its cell: figures by column."""

from collections.abc import Mapping
from typing import Any

TEST = ("ssim", "mse", "abs_rel", "rmse_m", "delta1")
"""Metrics of records from before there were validation figures."""
NOISE = ("sqnr_db", "noise_rms_m", "noise_to_error")
_IS_PTQ = ": this is PTQ under another name"
TRAINED = ("best_epoch", "weights_changed", "bn_live_steps")
LATENCY = (
    "latency_ms_p50",
    "latency_ms_p90",
    "latency_ratio",
    "latency_ratio_low",
    "latency_ratio_high",
    "profiler_step_ms",
)
OPERATORS = ("time_in_float", "time_in_conversions")
"""Shares of the time of all operators; of int8 networks whose engine tells."""


_SATURATES = "unreliable: this processor's kernels of the engine add pairs of products in 16 bits, which saturate"


def none(record: Mapping[str, Any]) -> dict[str, Any]:
    """No column."""
    return {}


def training(record: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds spent on training; those of several stages add up."""
    return {"train_s": record["seconds"]}


def finetuning(record: Mapping[str, Any]) -> dict[str, Any]:
    """What QAT did to the network that it handed on, beside its seconds, and a note where it did nothing.

    Records of before know the best epoch only.
    """
    figures = {name: record["metrics"].get(name) for name in TRAINED}
    note = {}
    if figures["weights_changed"] == 0:
        note = {"note": f"training changed no integer weight{_IS_PTQ}"}
    elif figures["best_epoch"] == 0:
        note = {"note": f"no epoch was better than the start{_IS_PTQ}"}
    return {"train_s": record["seconds"], **figures, **note}


def widths(record: Mapping[str, Any]) -> dict[str, Any]:
    """The layers that keep 8-bit weights where others have fewer."""
    return {"kept_8bit": " ".join(name for name, bits in record["metrics"]["weight_bits"].items() if bits == 8)}


def mixture(record: Mapping[str, Any]) -> dict[str, Any]:
    """The sites that mixed precision keeps in float, how many it widens, and that this is simulated."""
    asserted = record["asserted"]
    kept = {"kept_float": " ".join(asserted["float_sites"])}
    if not asserted.get("simulated_sites"):
        return kept
    note = f"{asserted['activation_bits']}-bit activations are simulated"
    return {**kept, "simulated_sites": len(asserted["simulated_sites"]), "note": note}


def conversion(record: Mapping[str, Any]) -> dict[str, Any]:
    """The hash of the int8 network, how many quantizers are off in it, and a note where its kernels saturate."""
    sites = sum(count for name, count in record["asserted"].items() if name.endswith("_off"))
    note = {"note": _SATURATES} if record["asserted"].get("saturates") else {}
    return {"graph_hash": record["metrics"].get("graph_hash"), "float_sites": sites, **note}


def accuracy(record: Mapping[str, Any]) -> dict[str, Any]:
    """Test and validation figures of the network as it ships, those of its simulation, its noise and its size.

    Means over images. Records of before have no validation figures.
    """
    metrics = record["metrics"]
    names = tuple(name for name in metrics if f"val_{name}" in metrics and name not in NOISE) or TEST
    figures = {f"test_{name}": metrics[name] for name in names}
    others = (*(f"val_{name}" for name in names), "val_sqnr_db", *NOISE, "size_mb")
    further = {name: figure for name, figure in metrics.items() if name.startswith(("simulated_", "sqnr_db."))}
    return figures | {name: metrics.get(name) for name in others} | further


def latency(record: Mapping[str, Any]) -> dict[str, Any]:
    """Latencies, where the time goes, and the processor that they were measured on."""
    metrics, asserted = record["metrics"], record["asserted"]
    loads = metrics.get("load_ratios", ())  # records of former versions have none
    return (
        {name: metrics[name] for name in LATENCY}
        | {name: metrics.get(name) for name in OPERATORS}
        | {
            "cpu_model": asserted["cpu_model"],
            "timing_class": asserted.get("timing_class"),
            "timing_session": asserted.get("session"),
            "latency_loads": len(loads) or None,
            "load_ratios": " ".join(f"{ratio:.5g}" for ratio in loads) or None,
        }
    )


def on_device(record: Mapping[str, Any]) -> dict[str, Any]:
    """Latencies on a device, to its float reference and to the engine's own float file, and what the device adds."""
    metrics, asserted = record["metrics"], record["asserted"]
    throttled = asserted["throttled"]
    own = {name: figure for name, figure in metrics.items() if name.startswith(("engine_ratio", "device_"))}
    return {
        **latency({**record, "metrics": {"profiler_step_ms": None, **metrics}}),
        **own,
        "timed_beside": asserted["reference"],
        "throttled": throttled or None,
        **({"note": f"throttled: {throttled}"} if throttled else {}),
    }


def npu(record: Mapping[str, Any]) -> dict[str, Any]:
    """What an NPU's compiler estimates, and for which one."""
    return {**record["asserted"], **record["metrics"]}
