"""The rules of measuring: pairs cancel drift, the interval is honest, the process is left as it was."""

import gc

import numpy as np
import pytest
import torch
from torch import nn

from grid.space.settings import LatencySpec
from grid.stages.latency import (
    EARLY_STOP_PAIRS,
    FEWEST_PAIRS,
    MOST_PAIRS,
    measure_pair,
    profile_operators,
    quiet,
    ratio_interval,
)
from model.errors import InputError

EXAMPLE = torch.zeros(1, 3, 8, 8)


class Machine:
    """A clock that only calls of its networks move; ``drift`` slows the machine down by that factor a second."""

    def __init__(self, drift: float = 0.0) -> None:
        self.now = 0.0
        self.drift = drift
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def network(self, name: str, seconds: float, jitter: float = 0.0):
        noise = np.random.default_rng(len(name))

        def run(image: torch.Tensor) -> None:
            self.calls.append(name)
            self.now += seconds * (1 + self.drift * self.now) * np.exp(jitter * noise.normal())

        return run


def measure(machine: Machine, candidate, reference, spec: LatencySpec | None = None):
    return measure_pair(candidate, reference, EXAMPLE, spec or LatencySpec(), clock=machine)


def test_the_ratio_and_the_milliseconds_are_those_of_the_networks():
    machine = Machine()
    found = measure(machine, machine.network("c", 0.030), machine.network("r", 0.020))
    assert found.ratio == pytest.approx(1.5)
    assert (found.p50_ms, found.p90_ms, found.reference_p50_ms) == pytest.approx((30.0, 30.0, 20.0))
    assert found.ratio_low == pytest.approx(found.ratio_high)


def test_the_ratio_survives_a_machine_that_becomes_ever_slower():
    machine = Machine(drift=0.5)
    found = measure(machine, machine.network("candidate", 0.030, 0.05), machine.network("r", 0.020, 0.05))
    assert found.p90_ms > 1.3 * found.p50_ms, "the machine did slow down"
    assert found.ratio == pytest.approx(1.5, rel=0.03)
    assert found.ratio_low < 1.5 < found.ratio_high


def test_p90_tells_of_slow_calls_that_p50_does_not_show():
    machine = Machine()
    count = iter(range(10_000))

    def sometimes_slow(image: torch.Tensor) -> None:
        machine.now += 0.1 if next(count) % 5 == 0 else 0.01

    found = measure(machine, sometimes_slow, machine.network("r", 0.01))
    assert found.p50_ms == pytest.approx(10)
    assert found.p90_ms == pytest.approx(100)


def test_candidate_and_reference_take_turns_in_an_order_drawn_for_each_pair():
    machine = Machine()
    measure(machine, machine.network("c", 0.1, 0.5), machine.network("r", 0.1, 0.5), LatencySpec(warmup=0))
    pairs = list(zip(machine.calls[::2], machine.calls[1::2], strict=True))
    assert all(set(pair) == {"c", "r"} for pair in pairs)
    assert len(set(pairs)) == 2, "both orders occur"


def test_measuring_stops_early_once_the_ratio_is_known_to_one_percent():
    machine = Machine()
    steady = measure(machine, machine.network("c", 0.01), machine.network("r", 0.01), LatencySpec(seconds=100))
    assert steady.pairs == EARLY_STOP_PAIRS
    machine = Machine()
    noisy = measure(
        machine, machine.network("cc", 0.01, 0.1), machine.network("r", 0.01, 0.1), LatencySpec(seconds=100)
    )
    assert noisy.pairs > EARLY_STOP_PAIRS
    assert (noisy.ratio_high - noisy.ratio_low) / 2 < 0.01 * noisy.ratio or noisy.pairs == MOST_PAIRS


def test_the_time_is_kept_but_never_at_the_price_of_a_handful_of_pairs():
    machine = Machine()
    limited = measure(machine, machine.network("cc", 0.1, 1.0), machine.network("r", 0.1, 1.0), LatencySpec(seconds=3))
    assert FEWEST_PAIRS <= limited.pairs < EARLY_STOP_PAIRS
    machine = Machine()
    slow = measure(machine, machine.network("c", 60.0), machine.network("r", 60.0), LatencySpec(seconds=1))
    assert slow.pairs == FEWEST_PAIRS


def test_warm_up_calls_are_not_measured():
    machine = Machine()
    left = iter([5.0] * 3)

    def cold(image: torch.Tensor) -> None:
        machine.now += next(left, 0.01)

    found = measure(machine, cold, machine.network("r", 0.01), LatencySpec(warmup=3))
    assert found.p90_ms == pytest.approx(10)


def test_the_interval_is_reproducible_and_narrows_with_more_pairs():
    noise = np.random.default_rng(0)
    times = np.exp(noise.normal(0, 0.2, (400, 2)))
    assert ratio_interval(times) == ratio_interval(times)
    ratio, low, high = ratio_interval(times)
    assert low < ratio < high
    assert np.mean([_width(times[start : start + 20]) for start in range(0, 400, 20)]) > 2 * _width(times)


def _width(times: np.ndarray) -> float:
    _, low, high = ratio_interval(times)
    return high - low


def test_about_95_of_100_intervals_hold_the_true_ratio():
    noise = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        _, low, high = ratio_interval(np.exp(noise.normal(0, 0.1, (40, 2))))
        held += low <= 1.0 <= high
    assert 180 <= held <= 199


def test_a_network_against_itself_has_a_ratio_of_about_one():
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)).eval()
    found = measure_pair(network, network, torch.rand(1, 3, 64, 64), LatencySpec(seconds=2.0))
    assert 0.8 < found.ratio < 1.25
    assert found.p50_ms <= found.p90_ms


def test_the_process_is_left_as_it_was_and_nothing_is_collected_while_measuring():
    seen = []
    threads = torch.get_num_threads()

    def look(image: torch.Tensor) -> None:
        seen.append((gc.isenabled(), torch.is_inference_mode_enabled(), torch.get_num_threads()))

    measure_pair(look, look, EXAMPLE, LatencySpec(seconds=0.01, threads=2))
    assert set(seen) == {(False, True, 2)}
    assert gc.isenabled()
    assert torch.get_num_threads() == threads
    with pytest.raises(ZeroDivisionError), quiet(2):
        _ = 1 / 0
    assert gc.isenabled()
    assert torch.get_num_threads() == threads


def test_only_a_batch_of_one_is_measured():
    with pytest.raises(InputError, match="batch size 2"):
        measure_pair(lambda x: x, lambda x: x, torch.zeros(2, 3, 8, 8), LatencySpec())


@pytest.mark.parametrize(("field", "value"), [("seconds", -1.0), ("warmup", -2), ("threads", 0)])
def test_a_wrong_spec_names_its_setting_and_value(field, value):
    with pytest.raises(InputError, match=rf"latency.{field}: {value}"):
        LatencySpec(**{field: value})


def test_the_profiler_figure_is_the_mean_of_ten_forwards_and_the_table_names_the_operators():
    calls = []

    class Counted(nn.Conv2d):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            return super().forward(image)

    step_ms, table = profile_operators(Counted(3, 4, 3), torch.rand(1, 3, 32, 32))
    assert len(calls) == 30, "10 waiting, 10 warm-up, 10 recorded"
    line = next(line for line in table.splitlines() if "ProfilerStep*" in line)
    assert line.split()[-1] == "10"
    assert "aten::conv2d" in table
    shown = line.split()[-2]
    scale = {"us": 1e-3, "ms": 1.0}[shown[-2:]]
    assert float(shown[:-2]) * scale == pytest.approx(step_ms, rel=0.01)
