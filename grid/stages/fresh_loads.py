"""Latency in fresh loads: each a process of its own, forked by a server that this process starts once."""

import atexit
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np

from grid.space.settings import LatencySpec
from grid.stages.latency import Latency, summarize
from grid.stages.load_server import LoadRequest
from grid.stages.work import StageError
from model.progress import Progress, ignore_progress
from quant.operator_times.operator_time import OperatorTime

_START_S = 120.0  # importing torch from a cold disk
_SERVE = "import sys; from grid.stages.load_server import serve; serve(int(sys.argv[1]))"


@dataclasses.dataclass(frozen=True)
class FreshLatency:
    """A latency in fresh loads, with torch's own figure and table of operators of the last one.

    ``ready_s`` are the seconds that each load took until its first forward was over. ``operators`` are those of the
    ``candidate`` and of the ``reference`` where their engines tell; ``untold`` says what went wrong where they do not.
    """

    latency: Latency
    step_ms: float
    table: str
    ready_s: tuple[float, ...]
    operators: Mapping[str, Sequence[OperatorTime]]
    untold: Mapping[str, str]


class LoadServer:
    """A running ``grid.stages.load_server``."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        paths = [str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        # No library may start threads when it is imported: a process with threads cannot be forked safely.
        environment |= {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
        command = [sys.executable, "-c", _SERVE, str(theirs.fileno())]
        self.process = subprocess.Popen(
            command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
        )
        theirs.close()

    def ask(self, request: LoadRequest) -> dict[str, Any]:
        """The answer to one request; raises ChildProcessError where the server dies or hangs, and ends it."""
        patience_s = request.timeout_s + _START_S
        try:
            self.connection.send_bytes(json.dumps(dataclasses.asdict(request)).encode())
            if self.connection.poll(patience_s):
                answer: dict[str, Any] = json.loads(self.connection.recv_bytes())
                return answer
            how = f"gave no answer within {patience_s:g} s"
        except (EOFError, OSError):
            how = f"ended with {self.process.wait()}"
        self.stop()
        raise ChildProcessError(f"profile: the process that forks loads {how}")

    def stop(self) -> None:
        """End it, and a load of it that runs."""
        self.connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


_servers: dict[int, LoadServer] = {}
"""By process id: a fork does not speak for its parent."""


def measure_fresh(
    candidate: Path,
    reference: Path,
    example: np.ndarray,
    spec: LatencySpec,
    scratch: Path,
    float_runtime: str = "eager",
    own_network: Path | None = None,
    progress: Progress = ignore_progress,
) -> FreshLatency:
    """Time the networks of two folders in ``spec.loads`` fresh loads on an input (1x3xSxS), on this thread's cores.

    Files that the loads share go to ``scratch``. Raises StageError with what a load raised; ChildProcessError, an
    OSError, where one died or hung.
    """
    np.save(scratch / "example.npy", example)
    cores = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
    request = LoadRequest(
        str(candidate),
        str(reference),
        str(scratch / "example.npy"),
        0,
        dataclasses.asdict(spec),
        float_runtime,
        None if own_network is None else str(own_network),
        cores,
        str(scratch / "compiled"),
        timeout_s=300.0 + 20 * spec.seconds / spec.loads + (900.0 if float_runtime == "compiled" else 0.0),
    )
    found = []
    for number in range(spec.loads):
        last = number == spec.loads - 1
        answer = running_server().ask(dataclasses.replace(request, number=number, operators=last))
        where = f"profile: load {number + 1} of {spec.loads} of {candidate.name} beside {reference.name}"
        if "error" in answer:
            raise StageError(f"{where}: {answer['error']}\n{answer['traceback']}")
        if "died" in answer:
            raise ChildProcessError(f"{where} {answer['died']}")
        found.append(answer)
        progress({"step": number + 1, "steps": spec.loads})
    latency = summarize([np.array(answer["times"]) for answer in found])
    last_load = found[-1]
    operators = {name: [OperatorTime(**one) for one in told] for name, told in last_load["operators"].items()}
    ready_s = tuple(answer["ready_s"] for answer in found)
    return FreshLatency(latency, last_load["step_ms"], last_load["table"], ready_s, operators, last_load["untold"])


def running_server() -> LoadServer:
    """This process's server, started when there is none."""
    server = _servers.get(os.getpid())
    if server is None or server.process.poll() is not None:
        server = _servers[os.getpid()] = LoadServer()
    return server


@atexit.register
def stop_servers() -> None:
    """End the server of this process, if it has one."""
    server = _servers.pop(os.getpid(), None)
    if server is not None:
        server.stop()
