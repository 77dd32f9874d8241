"""The rules of measuring: pairs cancel drift, the interval is over loads, the process is left as it was."""

import gc

import numpy as np
import pytest
import torch
from torch import nn

from grid.space.settings import LatencySpec
from grid.stages.latency import (
    FEWEST_PAIRS,
    MOST_PAIRS,
    measure_loads,
    profile_operators,
    quiet,
    ratio_interval,
    summarize,
    time_pairs,
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
    return measure_loads(
        lambda: (candidate, reference), EXAMPLE, spec or LatencySpec(seconds=4.8, loads=3), clock=machine
    )


def test_the_ratio_and_the_milliseconds_are_those_of_the_networks():
    machine = Machine()
    found = measure(machine, machine.network("c", 0.030), machine.network("r", 0.020))
    assert found.ratio == pytest.approx(1.5)
    assert (found.p50_ms, found.p90_ms, found.reference_p50_ms) == pytest.approx((30.0, 30.0, 20.0))
    assert found.ratio_low == pytest.approx(found.ratio_high)
    assert found.load_ratios == pytest.approx([1.5] * 3)


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


def test_a_load_measures_for_its_share_of_the_time_whatever_it_finds():
    for jitter in (0.0, 0.5):
        machine = Machine()
        spec = LatencySpec(seconds=4, loads=4)
        found = measure(machine, machine.network("cc", 0.01, jitter), machine.network("r", 0.01, jitter), spec)
        assert len(found.loads) == 4
        spent = [times.sum() for times in found.loads]
        assert spent == pytest.approx([1.0] * 4, abs=0.1)


def test_the_time_is_kept_but_never_at_the_price_of_a_handful_of_pairs():
    machine = Machine()
    slow = measure(machine, machine.network("c", 60.0), machine.network("r", 60.0), LatencySpec(seconds=1))
    assert [len(times) for times in slow.loads] == [FEWEST_PAIRS] * 5
    fast = time_pairs(lambda x: None, lambda x: None, EXAMPLE, LatencySpec(seconds=1000), clock=Machine())
    assert len(fast) == MOST_PAIRS


def test_warm_up_calls_are_not_measured():
    machine = Machine()
    left = iter([5.0] * 3)

    def cold(image: torch.Tensor) -> None:
        machine.now += next(left, 0.01)

    found = measure(machine, cold, machine.network("r", 0.01), LatencySpec(warmup=3))
    assert found.p90_ms == pytest.approx(10)


def made_up_loads(noise: np.random.Generator, loads: int, between: float, pairs: int = 10) -> list[np.ndarray]:
    """Seconds of loads whose true ratio is 1, but for what each load has of its own."""
    own = noise.normal(0, between, loads)
    return [np.exp(noise.normal((shift, 0.0), 0.02, (pairs, 2))) for shift in own]


@pytest.mark.parametrize("between", [0.0, 0.03, 0.3])
def test_about_95_of_100_intervals_hold_the_true_ratio_however_much_loads_differ(between):
    noise = np.random.default_rng(1)
    found = [summarize(made_up_loads(noise, 5, between)) for _ in range(400)]
    assert 370 <= sum(one.ratio_low <= 1.0 <= one.ratio_high for one in found) <= 392


def test_more_loads_narrow_the_interval_and_more_pairs_of_one_load_do_not():
    noise = np.random.default_rng(2)

    def width(loads: int, pairs: int) -> float:
        found = [summarize(made_up_loads(noise, loads, 0.05, pairs)) for _ in range(60)]
        return float(np.mean([one.ratio_high - one.ratio_low for one in found]))

    usual = width(5, 10)
    assert width(20, 10) < 0.5 * usual
    assert width(5, 80) > 0.8 * usual


def test_the_times_say_which_load_they_are_of():
    found = summarize(made_up_loads(np.random.default_rng(0), 3, 0.1))
    assert found.times.shape == (30, 3)
    for number, ratio in enumerate(found.load_ratios):
        own = found.times[found.times[:, 2] == number]
        assert float(np.median(own[:, 0] / own[:, 1])) == pytest.approx(ratio, rel=0.02)


def test_a_single_load_has_no_interval():
    assert ratio_interval([2.0]) == (pytest.approx(2.0), 0.0, float("inf"))


def test_a_network_against_itself_has_a_ratio_of_about_one():
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)).eval()
    found = measure_loads(lambda: (network, network), torch.rand(1, 3, 64, 64), LatencySpec(seconds=1.0))
    assert 0.8 < found.ratio < 1.25
    assert found.p50_ms <= found.p90_ms


def test_the_process_is_left_as_it_was_and_nothing_is_collected_while_measuring():
    seen = []
    threads = torch.get_num_threads()

    def look(image: torch.Tensor) -> None:
        seen.append((gc.isenabled(), torch.is_inference_mode_enabled(), torch.get_num_threads()))

    time_pairs(look, look, EXAMPLE, LatencySpec(seconds=0.01, threads=2))
    assert set(seen) == {(False, True, 2)}
    assert gc.isenabled()
    assert torch.get_num_threads() == threads
    with pytest.raises(ZeroDivisionError), quiet(2):
        _ = 1 / 0
    assert gc.isenabled()
    assert torch.get_num_threads() == threads


def test_only_a_batch_of_one_is_measured():
    with pytest.raises(InputError, match="batch size 2"):
        time_pairs(lambda x: x, lambda x: x, torch.zeros(2, 3, 8, 8), LatencySpec())


@pytest.mark.parametrize(("field", "value"), [("seconds", -1.0), ("warmup", -2), ("threads", 0), ("loads", 2)])
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
