"""The inspection as text and as a page."""

import re

from grid.report.html import html_page
from grid.report.inspection import headlines, inspection_page, inspection_text
from grid.report.markdown import markdown_text
from quant.inspection.inspection import Inspection
from quant.inspection.memory import Peak
from quant.inspection.operators import Operator
from quant.inspection.placement import Placement

OPERATORS = (
    Operator("a", "stem.<conv>", "conv 3x3 + ReLU", (1, 8, 4, 4), 900, 90, False, (), 0.003),
    Operator("b", "norm", "LayerNorm", (1, 8, 4, 4), 0, 0, False, ("a",), 0.001),
    Operator("c", "flat", "flatten", (1, 128), 0, 0, True, ("b",), 0.0),
    Operator("d", "attention", "matmul", (1, 8), 100, 0, False, ("c",), 0.0),
)
FOUND = Inspection(
    OPERATORS,
    100,
    (
        Placement("qnnpack", {"a": "int8", "b": "float", "c": "float", "d": "float"}, 4),
        Placement("xnnpack", {"a": "int8", "b": "int8", "c": "folded", "d": "int8"}, 1),
    ),
    {"onnxruntime": "onnxruntime needs onnx: pip install -r requirements-engines.txt"},
    Peak(2_000_000, "b"),
    Peak(8_000_000, "input"),
    ("Something <b>costs</b>.",),
)


def test_a_headline_says_what_is_in_int8_what_stays_behind_and_what_that_costs():
    assert headlines(FOUND) == [
        "qnnpack: 90.0 % of the MACs and 90.0 % of the weights in int8; 2 operators stay in float (1 LayerNorm, "
        "1 matmul): 10.0 % of the MACs, about 25 % of the float network's time, 4 conversions",
        "xnnpack: 100.0 % of the MACs and 90.0 % of the weights in int8; no operator stays in float, 1 conversion",
        "onnxruntime: not asked. onnxruntime needs onnx: pip install -r requirements-engines.txt",
    ]


def test_the_text_has_memory_float_operators_by_kind_and_cautions():
    text = inspection_text(FOUND)
    assert (
        "at most 2.00 MB, at norm (LayerNorm) in the int8 network, at most 8.00 MB, at the input in the float" in text
    )
    assert re.search(r"LayerNorm +1 +25\.0 % of the float time +such as norm", text)
    assert "- Something <b>costs</b>." in text


def test_the_page_has_a_strip_for_each_engine_and_a_row_for_each_operator(tmp_path):
    page = html_page(inspection_page("own/mine", 32, FOUND), tmp_path)
    assert page.count("<svg ") == 4  # two engines, by MACs and by time
    widths = re.findall(
        r'<rect x="[\d.]+" width="([\d.]+)" height="1" fill="(#\w+)"(?: class="wide")?><title>([^<]+)</title>', page
    )
    assert widths[:2] == [
        ("900.000", "#1f78b4", "stem.&lt;conv&gt;: conv 3x3 + ReLU, int8, 90.0 %"),
        ("100.000", "#d95f02", "attention: matmul, float, 10.0 %"),
    ]
    assert page.count("<tr>") == 1 + len(OPERATORS)
    assert "<b>costs</b>" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_small_parts_are_not_rounded_to_none_or_all(tmp_path):
    nearly = Inspection(
        (
            Operator("a", "a", "conv", (1,), 999_999, 1, False, ()),
            Operator("b", "b", "matmul", (1,), 1, 0, False, ("a",)),
        ),
        1,
        (Placement("qnnpack", {"a": "int8", "b": "float"}, 2),),
        {},
        Peak(1, "a"),
        Peak(1, "a"),
        (),
    )
    (line,) = headlines(nearly)
    assert line.startswith("qnnpack: over 99.9 % of the MACs and 100.0 %")
    assert "under 0.1 % of the MACs" in line


def test_strips_are_lines_in_markdown():
    assert "- qnnpack: 90.0 % int8, 10.0 % float" in markdown_text(inspection_page("own/mine", 32, FOUND))
