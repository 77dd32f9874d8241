"""Where operators run, on networks whose answer is known; the engines say it themselves."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.engines.catalog import missing
from quant.inspection.inspection import ENGINES
from quant.inspection.operators import Operator, operators
from quant.inspection.placement import FLOAT, FOLDED, INT8, MOVES, Placement, int8_macs, int8_weights, islands
from tests.quant.inspection.small_networks import MACS, SIZE, WEIGHTS, Between, noise, prepared

INSTALLED = [pytest.param(name, marks=pytest.mark.skipif(bool(missing(name)), reason="not here")) for name in ENGINES]


def test_every_operator_has_the_macs_and_weights_that_follow_from_its_shape():
    listed = operators(prepared(Between(nn.Hardswish())), noise(1), passes=2)
    assert {one.name: one.macs for one in listed} == MACS
    assert {one.name: one.weights for one in listed} == WEIGHTS
    assert {one.name: one.kind for one in listed} == {
        "first_0": "conv 3x3 + ReLU",
        "middle": "depthwise conv 3x3",
        "activation": "Hardswish",
        "add": "add",
        "last": "conv 1x1",
    }
    assert next(one for one in listed if one.name == "add").inputs == ("first_0", "activation")
    assert all(one.float_s > 0 for one in listed)


@pytest.mark.skipif(bool(missing("litert")), reason="not here")
def test_litert_has_gelu_in_int8():
    placement = ENGINES["litert"](prepared(Between(nn.GELU())), noise(1))
    assert dict(placement.where) == dict.fromkeys(MACS, INT8)
    assert placement.conversions == 2


@pytest.mark.parametrize("engine", [one for one in INSTALLED if one.values != ("litert",)])
def test_gelu_is_an_island_on_the_others_and_all_else_is_int8(engine):
    network = prepared(Between(nn.GELU()))
    listed, placement = operators(network, noise(1)), ENGINES[engine](network, noise(1))
    assert dict(placement.where) == dict.fromkeys(MACS, INT8) | {"activation": FLOAT}
    assert placement.conversions == 4  # the input, the island twice, the output
    (island,) = islands(placement, listed)
    assert [one.name for one in island.operators] == ["activation"]
    assert (island.conversions, island.values) == (2, 2 * 8 * SIZE * SIZE)
    assert int8_macs(placement, listed) == sum(MACS.values())
    assert int8_weights(placement, listed) == sum(WEIGHTS.values())


@pytest.mark.parametrize("engine", INSTALLED)
def test_a_silu_is_int8_only_where_the_engine_has_its_gate_in_int8(engine):
    placement = ENGINES[engine](prepared(Between(nn.SiLU())), noise(1))
    in_int8 = engine in ("xnnpack", "litert")
    assert placement.where["activation"] == (INT8 if in_int8 else FLOAT)
    assert placement.conversions == 2 if in_int8 else placement.conversions >= 4


class Pooled(nn.Module):
    """Squeeze and excitation, whose pool is a module, and a mean over rows and columns."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.pool, self.gate = nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1)
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = x * torch.sigmoid(self.gate(self.pool(x)))
        return self.last(x.mean((2, 3)))


@pytest.mark.parametrize("engine", INSTALLED)
def test_averages_over_the_picture_are_int8_on_every_engine(engine):
    network = prepared(Pooled())
    placement = ENGINES[engine](network, noise(1))
    assert placement.in_float(operators(network, noise(1))) == []
    assert placement.conversions == 2


class Wired(nn.Module):
    """Splits, shuffles, joins: what moves values, between convolutions; and a norm in float."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.left = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.last = nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.first(x).chunk(2, 1)
        joined = F.max_pool2d(torch.cat([self.left(left), right], 1), 2)
        return self.last(self.norm(joined))


@pytest.mark.parametrize("engine", INSTALLED)
def test_splits_and_joins_stay_in_int8_and_a_norm_does_not(engine):
    network = prepared(Wired())
    listed, placement = operators(network, noise(1)), ENGINES[engine](network, noise(1))
    places = {one.name: placement.of(one) for one in listed}
    assert places["norm"] == FLOAT
    assert {places[name] for name in ("chunk", "getitem", "getitem_1")} <= {MOVES, FOLDED}
    assert [places[name] for name in ("first", "left", "cat", "last")] == [INT8] * 4
    assert [one.name for one in placement.in_float(listed)] == ["norm"]
    found = [[one.name for one in island.operators] for island in islands(placement, listed)]
    # ExecuTorch does not hand a split to XNNPACK: its own kernel gives the parts in float.
    assert found == ([["chunk", "getitem", "getitem_1"], ["norm"]] if engine == "xnnpack" else [["norm"]])


class Normed(nn.Module):
    """Norms over tokens, which ExecuTorch makes other operators of, behind one that moves values and before int8."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.left, self.right = nn.Conv2d(3, 8, 1), nn.LayerNorm(8), nn.LayerNorm(8)
        self.middle, self.last = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.middle(self.left(self.first(x).mean((2, 3))))
        return self.last(torch.tanh(self.right(tokens)))


@pytest.mark.parametrize("engine", INSTALLED)
def test_what_an_engine_writes_in_another_way_is_not_taken_for_folded(engine):
    network = prepared(Normed())
    placement = ENGINES[engine](network, noise(1))
    listed = operators(network, noise(1))
    assert {one.name for one in placement.in_float(listed)} - {"adaptive_avg_pool2d"} == {
        "left",
        "right",
        "tanh_module",
    }


def made_up(name: str, *inputs: str, moves: bool = False) -> Operator:
    return Operator(name, name, name, (1, 10), 0, 0, moves, inputs)


def test_neighbours_in_float_are_one_island_and_those_at_the_ends_are_none():
    listed = [
        made_up("start"),
        made_up("a", "start"),
        made_up("b", "a"),
        made_up("moved", "b", moves=True),
        made_up("c", "moved"),
        made_up("d", "c"),
        made_up("end", "d"),
    ]
    where = {"start": FLOAT, "a": INT8, "b": FLOAT, "moved": FOLDED, "c": FLOAT, "d": INT8, "end": FLOAT}
    (island,) = islands(Placement("x", where, 0), listed)
    assert [one.name for one in island.operators] == ["b", "c"]
    assert (island.conversions, island.values) == (2, 20)
