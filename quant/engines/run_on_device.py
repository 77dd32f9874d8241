"""What runs on a device: one request as JSON on standard input, its answer as the last JSON line on standard output.

The host copies this file to the device as it is. It needs Python 3.8, numpy, and ``onnxruntime`` or ``ai_edge_litert``
(``tflite_runtime`` does as well), or the libraries that the host sends along for ``.pte`` files; no torch, nothing of
this project. Lines before the last one are signs of life, and where nobody reads them any more the process ends.

Requests: ``{"do": "probe"}``; ``time``: the networks of ``files`` in turns on ``example``; ``outputs``: what the
network of ``file`` gives for each of ``inputs``, into ``out``. Times are seconds; paths are relative to this file.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import json
import os
import platform
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_HERE = Path(__file__).resolve().parent
_BEAT_S = 1.0
_said = 0.0


def say(**content: Any) -> None:
    """Write a line; raises BrokenPipeError where the host is gone."""
    print(json.dumps(content), flush=True)


def beat(**content: Any) -> None:
    """Say that this process lives, at most once a second."""
    global _said
    if time.monotonic() - _said > _BEAT_S:
        _said = time.monotonic()
        say(beat=content)


def _litert() -> Any:
    """LiteRT's interpreter, under the name that is installed; None where none is."""
    for name in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        try:
            return __import__(name, fromlist=["Interpreter"])
        except ImportError:
            continue
    return None


def probe() -> dict[str, Any]:
    """Python, the runtimes by name and version, and the cores that this process may use."""
    runtimes = {}
    try:
        import onnxruntime

        runtimes["onnxruntime"] = onnxruntime.__version__
    except ImportError:
        pass
    found = _litert()
    if found is not None:
        package = sys.modules[found.__name__.partition(".")[0]]
        runtimes["litert"] = str(getattr(package, "__version__", "unknown"))
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return {"python": platform.python_version(), "numpy": np.__version__, "runtimes": runtimes, "cores": cores}


def load(
    engine: str, file: Path, threads: int, libraries: list[Path] | None = None
) -> Callable[[np.ndarray], list[np.ndarray]]:
    """The network of a file on its engine: an input of 1 x C x H x W to its outputs, in the file's order."""
    if engine == "xnnpack":
        return _executorch(_libraries(libraries or []), file, threads)
    if engine == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # Threads that spin while they wait would take the core from whatever is timed beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda image: list(session.run(None, {name: image}))
    if engine == "litert":
        interpreter = _litert().Interpreter(model_path=str(file), num_threads=threads)
        interpreter.allocate_tensors()
        taken = interpreter.get_input_details()[0]
        given = [detail["index"] for detail in interpreter.get_output_details()]

        def run(image: np.ndarray) -> list[np.ndarray]:
            if tuple(taken["shape"]) != image.shape:  # channels last
                image = np.ascontiguousarray(image.transpose(0, 2, 3, 1))
            interpreter.set_tensor(taken["index"], image)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in given]

        return run
    raise ValueError(f"no engine {engine!r} here")


def _libraries(paths: list[Path]) -> Any:
    """The last one of some libraries; each needs those before it, which are found by their own names once loaded."""
    return [ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL) for path in paths][-1]


def _executorch(runner: Any, file: Path, threads: int) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A ``.pte`` file on ExecuTorch, by the functions of ``executorch_runner/runner.cpp``."""

    def call(name: str, *arguments: Any) -> None:
        status = getattr(runner, f"executorch_{name}")(*arguments)
        if status:
            raise RuntimeError(f"ExecuTorch's error {status:#x} ({name})")

    network = ctypes.c_void_p()
    call("load", str(file).encode(), threads, ctypes.byref(network))

    def output(place: int) -> np.ndarray:
        sizes, rank, values = (ctypes.c_int32 * 16)(), ctypes.c_int(), ctypes.POINTER(ctypes.c_float)()
        call("output", network, place, ctypes.byref(values), sizes, ctypes.byref(rank))
        return np.ctypeslib.as_array(values, tuple(sizes[: rank.value])).copy()

    def run(image: np.ndarray) -> list[np.ndarray]:
        image, count = np.ascontiguousarray(image, np.float32), ctypes.c_int()
        sizes = (ctypes.c_int32 * image.ndim)(*image.shape)
        values = image.ctypes.data_as(ctypes.c_void_p)
        call("run", network, values, sizes, image.ndim, ctypes.byref(count))
        return [output(place) for place in range(count.value)]

    return run


def _loaded(one: dict[str, Any], threads: int) -> Callable[[np.ndarray], list[np.ndarray]]:
    """The network of a request."""
    return load(one["engine"], _HERE / one["path"], threads, [_HERE / path for path in one.get("libraries", [])])


def keep_memory() -> None:
    """Let glibc keep what is freed: whether it gives memory back is drawn anew with each process, and costs time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 1 << 28)):
            mallopt(option, value)


def timed(request: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each network of ``files`` in each round [rounds, files]; the order within a round is random."""
    keep_memory()
    gc.disable()
    example = np.load(_HERE / request["example"])
    started = time.monotonic()
    networks = []
    for one in request["files"]:
        networks.append(_loaded(one, request["threads"]))
        beat(loaded=len(networks))
    networks[0](example)
    ready_s = time.monotonic() - started
    for _ in range(request["warmup"]):
        for network in networks:
            network(example)
            beat()
    order = random.Random(request["number"])
    rounds: list[list[float]] = []
    end = time.perf_counter() + request["seconds"]
    while len(rounds) < request["most"] and (len(rounds) < request["fewest"] or time.perf_counter() < end):
        times = [0.0] * len(networks)
        for place in order.sample(range(len(networks)), len(networks)):
            start = time.perf_counter()
            networks[place](example)
            times[place] = time.perf_counter() - start
        rounds.append(times)
        beat(rounds=len(rounds))
    return {"times": rounds, "ready_s": ready_s}


def outputs(request: dict[str, Any]) -> dict[str, Any]:
    """Write the outputs for every input, float32, as ``output_0`` [N, ...] and so on into a .npz file.

    ``memory_mb`` is by how much loading and running the network raised what this process holds at most.
    """
    inputs = np.load(_HERE / request["inputs"], mmap_mode="r")
    one = request["file"]
    if one["engine"] == "onnxruntime":
        import onnxruntime  # noqa: F401  # not part of the network's memory
    elif one["engine"] == "xnnpack":
        _libraries([_HERE / path for path in one["libraries"]])
    else:
        _litert()
    before = _peak_mb()
    network = _loaded(one, request["threads"])
    found: list[list[np.ndarray]] = []
    memory_mb = 0.0
    for place in range(len(inputs)):
        found.append(network(np.ascontiguousarray(inputs[place : place + 1], dtype=np.float32)))
        memory_mb = memory_mb or max(_peak_mb() - before, 0.0)
        beat(images=place + 1)
    stacked = {f"output_{place}": np.concatenate(parts) for place, parts in enumerate(zip(*found))}  # noqa: B905
    np.savez(_HERE / request["out"], **stacked)  # type: ignore[arg-type]
    return {"out": request["out"], "memory_mb": memory_mb}


def _peak_mb() -> float:
    """The most memory that this process has held, in MB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def main() -> int:
    """Serve the request; an error becomes the answer ``{"error": ...}``."""
    request = json.loads(sys.stdin.read())
    try:
        if request["do"] == "probe":
            say(answer=probe())
            return 0
        if request.get("cores"):
            os.sched_setaffinity(0, request["cores"])
        with open(_HERE / "lock", "w") as lock:
            while True:  # another host may measure
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    beat(waiting=True)
                    time.sleep(0.1)
            say(answer=timed(request) if request["do"] == "time" else outputs(request))
    except BrokenPipeError:
        os._exit(1)  # nobody listens
    except Exception as error:
        say(error=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
