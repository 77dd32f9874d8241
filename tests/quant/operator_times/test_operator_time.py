"""Names of operators, their medians over forwards, and the table that keeps them."""

import pytest

from quant.operator_times.operator_time import (
    CONVERSION,
    FLOAT,
    INT8,
    KINDS,
    OUTSIDE,
    OperatorTime,
    kind_of_convolution,
    kind_of_name,
    of_quieter_half,
    share_of,
)
from quant.operator_times.table import read_operator_times, write_operator_times

NAMES = {
    "convolution": ("aten::conv2d", "quantized::conv2d_relu", "QLinearConv", "Conv", "Convolution (NHWC, QC8) IGEMM"),
    "depthwise": ("Convolution (NHWC, F32) DWConv", "DepthwiseConv2d"),
    "linear": ("aten::linear", "aten::addmm", "QGemm", "MatMul", "Fully Connected (NC, QS8, QC8W) GEMM"),
    "normalization": ("aten::batch_norm", "aten::layer_norm", "LayerNormalization"),
    "activation": ("aten::silu_", "QLinearSigmoid", "QuickGelu", "aten::_softmax", "HardSwish", "Clamp (NC, F32)"),
    "elementwise": ("aten::add", "quantized::mul", "QLinearAdd", "Multiply (ND)"),
    "pool": ("aten::adaptive_avg_pool2d", "QLinearGlobalAveragePool", "Mean (ND) Reduce2"),
    "resize": ("aten::upsample_bilinear2d", "Resize", "Resize Bilinear (NHWC)"),
    "data movement": ("quantized::cat", "QLinearConcat", "ReorderInput", "Transpose (ND, X8)", "Copy (NC, X32)"),
    "conversion": ("aten::dequantize", "aten::quantize_per_tensor", "DequantizeLinear", "Convert (NC)"),
    "other": ("aten::item", "Shape"),
}


def one(operator="Conv", number_format=INT8, us=1.0, layer="a", kind="convolution") -> OperatorTime:
    return OperatorTime(operator, kind, number_format, layer, us)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != OUTSIDE])
def test_every_engine_names_its_operators_so_that_their_kind_is_seen(kind):
    assert {name: kind_of_name(name) for name in NAMES[kind]} == dict.fromkeys(NAMES[kind], kind)


def test_a_convolution_is_depthwise_linear_or_neither_by_its_groups_and_its_kernel():
    assert kind_of_convolution(8, 8, (3, 3)) == "depthwise"
    assert kind_of_convolution(8, 1, (1, 1)) == "linear"
    assert kind_of_convolution(8, 1, (3, 3)) == "convolution"
    assert kind_of_convolution(8, 2, (1, 1)) == "convolution", "grouped"
    assert kind_of_convolution(1, 1, (3, 3)) == "convolution", "one channel is no depthwise convolution"


def test_operators_are_means_of_the_quieter_half_and_add_up_to_a_forward():
    forwards = [(14, [one(us=2), one(us=10)]), (950, [one(us=900), one(us=11)]), (26, [one(us=4), one("b", us=16)])]
    assert of_quieter_half(forwards) == [
        OperatorTime("Conv", "convolution", INT8, "a", (2 + 10 + 4) / 2, 1.5),
        OperatorTime("b", "convolution", INT8, "a", 16 / 2, 0.5),
        OperatorTime("", OUTSIDE, "", "", (2 + 6) / 2, 1.0),
    ]


def test_shares_are_of_the_time_of_a_forward():
    times = [one(us=6), one(number_format=FLOAT, us=3), one(number_format=CONVERSION, us=1)]
    assert share_of(FLOAT, times) == pytest.approx(0.3)
    assert share_of(CONVERSION, times) == pytest.approx(0.1)
    assert share_of(FLOAT, []) == 0


def test_a_table_gives_back_what_was_written_and_another_file_is_named(tmp_path):
    networks = {"candidate": [one(us=1.25), one("a,b\n", layer="")], "reference": [one(number_format=FLOAT)]}
    write_operator_times(tmp_path / "operators.csv", networks)
    assert read_operator_times(tmp_path / "operators.csv") == networks
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other\.csv: columns"):
        read_operator_times(tmp_path / "other.csv")
