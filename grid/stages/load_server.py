"""The process that fresh loads are forked from: it has imported torch once, has loaded no network, and has one thread.

It answers one request after the other and ends when the process that started it closes the connection.
"""

import contextlib
import ctypes
import dataclasses
import gc
import json
import os
import signal
import time
import traceback
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from grid.space.settings import LatencySpec
from grid.stages.latency import Forward, profile_operators, quiet, time_pairs
from model.network.build import build_network
from model.network.spec import NetworkSpec
from model.network.user_network import register_network
from quant.artifact import load_network
from quant.operator_times.gather import operator_times
from quant.prepare import prepare
from quant.tracing.trace import trace

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Of glibc's ``mallopt``."""


@dataclasses.dataclass(frozen=True)
class LoadRequest:
    """One fresh load: folders of both networks, a file with the input (1x3xSxS, npy), and where and how to time.

    ``number`` is the load's, ``own_network`` the file of a user's network, ``cores`` are those to run on (empty: any),
    ``cache`` is the folder of what ``torch.compile`` has compiled. With ``operators`` profilers look on afterwards:
    torch's, and those of the engines. A load that takes longer than ``timeout_s`` is ended.
    """

    candidate: str
    reference: str
    example: str
    number: int
    latency: dict[str, Any]
    float_runtime: str = "eager"
    own_network: str | None = None
    cores: tuple[int, ...] = ()
    cache: str | None = None
    operators: bool = False
    timeout_s: float = 300.0


def serve(descriptor: int) -> None:
    """Answer the requests that come over the connection with this file descriptor, until it is closed."""
    connection = Connection(descriptor)
    torch.set_num_threads(1)
    prepare(trace(build_network(NetworkSpec())), "per_channel")  # what the first network takes longer than others
    gc.collect()
    gc.freeze()  # loads have the same modules: they need not look through them for garbage
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            request = json.loads(connection.recv_bytes())
            connection.send_bytes(json.dumps(_forked(LoadRequest(**request))).encode())


def _forked(request: LoadRequest) -> dict[str, Any]:
    """What a fork of this process found; ``error`` or ``died`` says why it found nothing."""
    reader, writer = Pipe(duplex=False)
    child = os.fork()
    if not child:
        _run_and_exit(request, writer)
    writer.close()
    content = None
    answered = reader.poll(request.timeout_s)  # the end of the child counts, too
    if answered:
        with contextlib.suppress(EOFError):
            content = reader.recv_bytes()
    else:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    reader.close()
    if not answered:
        return {"died": f"gave no result within {request.timeout_s:g} s and was ended"}
    if content is None:
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return {"died": f"{how}, without a result"}
    found: dict[str, Any] = json.loads(content)
    return found


def _run_and_exit(request: LoadRequest, writer: Connection) -> None:
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        writer.send_bytes(json.dumps(run_load(request)).encode())
        status = 0
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        writer.send_bytes(json.dumps(found).encode())
    finally:
        os._exit(status)


def run_load(request: LoadRequest) -> dict[str, Any]:
    """Load both networks in this process and time them.

    Returns ``times`` (seconds of the pairs), ``ready_s`` (loading, and compiling where it does), and for ``operators``
    ``step_ms`` and ``table``, ``operators`` by network, and ``untold``, why those of a network are missing.
    """
    if request.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request.cores)
    keep_memory()
    gc.disable()
    if request.own_network:
        register_network(Path(request.own_network))
    spec = LatencySpec(**request.latency)
    torch.set_num_threads(spec.threads)
    example = torch.from_numpy(np.load(request.example))
    started = time.monotonic()
    with torch.inference_mode():
        network = load_network(request.candidate)
        candidate = as_run(network, request.float_runtime, request.cache)
        reference = load_network(request.reference)
        candidate(example)
    found: dict[str, Any] = {"ready_s": time.monotonic() - started}
    found["times"] = time_pairs(candidate, reference, example, spec, request.number).tolist()
    if request.operators:
        found["step_ms"], found["table"] = profile_operators(candidate, example, spec.threads)
        compiled = request.float_runtime == "compiled"  # it has fused its operators
        networks = {} if compiled else {"candidate": (network, candidate)}
        with quiet(spec.threads):
            found |= _operators({**networks, "reference": (reference, reference)}, example)
    return found


def _operators(networks: dict[str, tuple[nn.Module, Forward]], example: torch.Tensor) -> dict[str, Any]:
    """``operators`` by network where its engine tells, and ``untold``, what went wrong where it should have told."""
    operators: dict[str, Any] = {}
    untold: dict[str, str] = {}
    for name, (network, run) in networks.items():
        try:
            told = operator_times(network, example, run)
        except Exception as error:  # an engine's profiler may fail in any way, and the latency is measured
            untold[name] = f"{type(error).__name__}: {error}"
        else:
            operators |= {} if told is None else {name: [dataclasses.asdict(one) for one in told]}
    return {"operators": operators, "untold": untold}


def as_run(network: nn.Module, float_runtime: str, cache: str | None = None) -> Forward:
    """The forward of a float network in one of ``FLOAT_RUNTIMES``; ``cache``: a folder for what is compiled."""
    if float_runtime == "channels_last":
        network = network.to(memory_format=torch.channels_last)
        return lambda image: network(image.contiguous(memory_format=torch.channels_last))
    if float_runtime == "compiled":
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        if cache:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        compiled: Forward = torch.compile(network, dynamic=False)
        return compiled
    return network


def keep_memory() -> None:
    """Let the allocator of this process keep what is freed, where it is glibc's.

    By default it may give memory back at the end of a forward and fetch it again in the next one, page by page, or it
    may not: that depends on which block happens to lie last, and is drawn anew with each load. A float EfficientNet-B0
    took 24 ms in one half of the loads and 31 ms, with 3200 page faults, in the other.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 1 << 30)
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_TOP_PAD, 1 << 28)
