"""How a latency is measured: candidate and float reference in turns, batch 1, in several fresh loads."""

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch.profiler import ProfilerActivity, profile, schedule

from grid.space.settings import LatencySpec
from model.errors import InputError

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler's start and stop lines, and its search for a GPU

FEWEST_PAIRS = 5  # a load measures so many even when its time is over: a median needs some
MOST_PAIRS = 1000
PROFILER_STEPS = 10  # wait, warm up and record so many forwards each, as the study did

Forward = Callable[[torch.Tensor], object]


@dataclass(frozen=True)
class Latency:
    """Milliseconds a forward of the candidate, and its ratio to the reference with a 95 % interval.

    ``loads`` are the seconds of each load's pairs [pairs, 2]. ``load_ratios`` are the loads' medians of candidate /
    reference, ``ratio`` is their geometric mean: below 1 the candidate is faster. The interval is Student's t over the
    loads' logarithms, because pairs of one load share what makes it fast or slow: where its memory lies, and what the
    machine does meanwhile (Kalibera and Jones 2013, "Rigorous benchmarking in reasonable time").
    """

    p50_ms: float
    p90_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    reference_p50_ms: float
    load_ratios: tuple[float, ...]
    loads: tuple[np.ndarray, ...]

    @property
    def pairs(self) -> int:
        """How many pairs were measured."""
        return sum(map(len, self.loads))

    @property
    def figures(self) -> dict[str, Any]:
        """What the record of a measurement says, by name."""
        return {
            "latency_ms_p50": self.p50_ms,
            "latency_ms_p90": self.p90_ms,
            "latency_ratio": self.ratio,
            "latency_ratio_low": self.ratio_low,
            "latency_ratio_high": self.ratio_high,
            "load_ratios": list(self.load_ratios),
            "reference_ms_p50": self.reference_p50_ms,
            "pairs": self.pairs,
        }

    @property
    def times(self) -> np.ndarray:
        """Seconds of candidate and reference, and the number of the load: [pairs, 3]."""
        numbers = [np.full((len(times), 1), number) for number, times in enumerate(self.loads)]
        return np.hstack([np.concatenate(self.loads), np.concatenate(numbers)])


def time_pairs(
    candidate: Forward,
    reference: Forward,
    example: torch.Tensor,
    spec: LatencySpec,
    load: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> np.ndarray:
    """Time two networks of one load in turns on one input (1x3xSxS); seconds [pairs, 2].

    The order within each pair is drawn at random. It ends when the load's share of ``spec.seconds`` is over, and never
    because of what it measured. What slows the machine for a while hits both halves of a pair, so the ratio is far
    steadier than the times. ``clock`` returns seconds. Raises InputError when ``example`` is not a batch of one.
    """
    if example.shape[0] != 1:
        raise InputError("latency", f"the example has batch size {example.shape[0]}", "1")
    networks = (candidate, reference)
    draw = np.random.default_rng(load)
    times: list[tuple[float, float]] = []
    with quiet(spec.threads):
        for _ in range(spec.warmup):
            candidate(example)
            reference(example)
        end = clock() + spec.seconds / spec.loads
        while len(times) < MOST_PAIRS and (len(times) < FEWEST_PAIRS or clock() < end):
            pair = [0.0, 0.0]
            for which in draw.permutation(2):
                start = clock()
                networks[which](example)
                pair[which] = clock() - start
            times.append((pair[0], pair[1]))
    return np.array(times)


def summarize(loads: Sequence[np.ndarray]) -> Latency:
    """The latency that the pairs [pairs, 2] of several loads show."""
    ratios = [float(np.exp(np.median(np.log(times[:, 0] / times[:, 1])))) for times in loads]
    ratio, low, high = ratio_interval(ratios)
    times = np.concatenate(loads)
    p50, p90 = np.percentile(times[:, 0], [50, 90]) * 1e3
    reference_p50 = float(np.median(times[:, 1])) * 1e3
    return Latency(float(p50), float(p90), ratio, low, high, reference_p50, tuple(ratios), tuple(loads))


def measure_loads(
    load: Callable[[], tuple[Forward, Forward]],
    example: torch.Tensor,
    spec: LatencySpec,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Time candidate and reference in this process, ``load`` giving both anew for each of ``spec.loads``."""
    return summarize([time_pairs(*load(), example, spec, number, clock) for number in range(spec.loads)])


def ratio_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return (ratio, low, high): the geometric mean and its 95 % bounds by Student's t over the logarithms.

    Of a single ratio the bounds are unknown: 0 and infinity.
    """
    logs = np.log(np.asarray(ratios))
    middle, count = float(logs.mean()), len(logs)
    if count < 2:
        return float(np.exp(middle)), 0.0, float("inf")
    half = float(stdtrit(count - 1, 0.975)) * float(logs.std(ddof=1)) / count**0.5
    return float(np.exp(middle)), float(np.exp(middle - half)), float(np.exp(middle + half))


def profile_operators(network: Forward, example: torch.Tensor, threads: int = 1) -> tuple[float, str]:
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
