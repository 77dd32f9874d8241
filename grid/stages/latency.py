"""How a latency is measured: candidate and float reference in turns, in one process, batch 1."""

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile, schedule

from grid.space.settings import LatencySpec
from model.errors import InputError

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler's start and stop lines, and its search for a GPU

EARLY_STOP_PAIRS = 20  # an interval of fewer pairs is too rough to stop on
FEWEST_PAIRS = 5  # measured even when the time is over: an interval needs some
MOST_PAIRS = 1000
PRECISION = 0.01  # half width of the ratio's interval, relative to the ratio, at which measuring stops
RESAMPLES = 1000
PROFILER_STEPS = 10  # wait, warm up and record so many forwards each, as the study did


@dataclass(frozen=True)
class Latency:
    """Milliseconds a forward of the candidate, and its ratio to the reference with a 95 % interval.

    ``ratio`` is the median over pairs of candidate / reference: below 1 the candidate is faster. ``times`` are the
    seconds of all pairs [pairs, 2].
    """

    p50_ms: float
    p90_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    reference_p50_ms: float
    times: np.ndarray

    @property
    def pairs(self) -> int:
        """How many pairs were measured."""
        return len(self.times)


def measure_pair(
    candidate: Callable[[torch.Tensor], object],
    reference: Callable[[torch.Tensor], object],
    example: torch.Tensor,
    spec: LatencySpec,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Time two networks in turns on one input (1x3xSxS), the order within each pair drawn at random.

    Stops when the ratio is known to +-1 % (from 20 pairs on), when ``spec.seconds`` are over, or at 1000
    pairs. What slows the machine for a while hits both halves of a pair, so the ratio is far steadier than
    the times.
    ``clock`` returns seconds. Raises InputError when ``example`` is not a batch of one.
    """
    if example.shape[0] != 1:
        raise InputError("latency", f"the example has batch size {example.shape[0]}", "1")
    networks = (candidate, reference)
    draw = np.random.default_rng(0)
    times: list[tuple[float, float]] = []
    next_look = EARLY_STOP_PAIRS
    with quiet(spec.threads):
        for _ in range(spec.warmup):
            candidate(example)
            reference(example)
        end = clock() + spec.seconds
        while len(times) < MOST_PAIRS:
            pair = [0.0, 0.0]
            for which in draw.permutation(2):
                start = clock()
                networks[which](example)
                pair[which] = clock() - start
            times.append((pair[0], pair[1]))
            if len(times) >= FEWEST_PAIRS and clock() >= end:
                break
            if len(times) >= next_look:
                ratio, low, high = ratio_interval(np.array(times))
                if (high - low) / 2 < PRECISION * ratio:
                    break
                next_look = int(len(times) * 1.25)
                for network in networks:  # the look has emptied the caches
                    network(example)
    seconds = np.array(times)
    ratio, low, high = ratio_interval(seconds)
    p50, p90 = np.percentile(seconds[:, 0], [50, 90]) * 1e3
    reference_p50 = float(np.median(seconds[:, 1])) * 1e3
    return Latency(float(p50), float(p90), ratio, low, high, reference_p50, seconds)


def ratio_interval(times: np.ndarray) -> tuple[float, float, float]:
    """Return (ratio, low, high) of paired times [pairs, 2]: exp of the median log ratio and its 95 % bounds.

    Percentile bootstrap over pairs (Efron 1979) with a fixed seed: equal times give equal bounds.
    """
    logs = np.log(times[:, 0] / times[:, 1])
    picks = np.random.default_rng(0).integers(0, len(logs), size=(RESAMPLES, len(logs)))
    low, high = np.percentile(np.median(logs[picks], axis=1), [2.5, 97.5])
    return float(np.exp(np.median(logs))), float(np.exp(low)), float(np.exp(high))


def profile_operators(network: torch.nn.Module, example: torch.Tensor, threads: int = 1) -> tuple[float, str]:
    """Return the study's own figure and the operator table of torch's profiler for one input (1x3xSxS).

    The figure is the mean CPU total of ``ProfilerStep*`` in ms over 10 forwards, after 10 waiting and 10
    warm-up ones; the profiler's own cost is in it. The table is sorted by CPU total.
    """
    steps = PROFILER_STEPS
    with (
        quiet(threads),
        profile(
            activities=[ProfilerActivity.CPU],
            schedule=schedule(wait=steps, warmup=steps, active=steps, repeat=1),
            acc_events=True,
        ) as profiler,
    ):
        for _ in range(3 * steps):
            network(example)
            profiler.step()
    averages = profiler.key_averages()
    recorded = [event for event in averages if event.key.startswith("ProfilerStep")]
    count = sum(event.count for event in recorded)
    if not count:
        raise RuntimeError("torch's profiler recorded no ProfilerStep: its schedule has changed")
    step_ms = sum(event.cpu_time_total for event in recorded) / count / 1e3
    return step_ms, averages.table(sort_by="cpu_time_total", row_limit=40, max_name_column_width=48)


@contextmanager
def quiet(threads: int) -> Iterator[None]:
    """Run the body without autograd and garbage collection on ``threads`` torch threads, then undo that."""
    threads_before, collecting = torch.get_num_threads(), gc.isenabled()
    gc.collect()
    gc.disable()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads_before)
        if collecting:
            gc.enable()
