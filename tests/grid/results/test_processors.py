"""Latencies of different processors are never ranked: each has its own best, front, effects and recommendation."""

import platform

import pytest

from grid.results import ranking
from grid.results.comparisons.groups import best, pareto_front
from grid.results.effects import effects
from grid.results.processors import by_processor, is_elsewhere
from grid.results.ranking import LATENCY, SIZE, processor_of
from grid.results.recommend import recommend
from grid.results.target import parse_target
from grid.stages.measure import cpu_model
from tests.grid.measures import SSIM
from tests.grid.report.report_rows import figures_of, row

OLD, NEW = "Old CPU @ 2.20GHz", "New CPU"
UNTIMED = dict.fromkeys(key for key in figures_of(0.8, 1.4, 2.0) if ranking.is_latency(key))


def cell(name: str, cpu: str | None, ssim: float, size: float, ratio: float, **given) -> dict:
    """An int8 row."""
    settings = {"method": "ptq", "fuse_bn": True, "granularity": "per_tensor", "graph_hash": name, "cpu_model": cpu}
    return row(name, **settings | figures_of(ssim, size, ratio) | given)


def untimed(name: str, ssim: float = 0.99, **given) -> dict:
    return cell(name, None, ssim, 1.0, 1.0, **UNTIMED, **given)


ROWS = [
    cell("a", OLD, 0.85, 1.4, 2.5),
    cell("b", OLD, 0.84, 1.4, 2.0),
    cell("c", NEW, 0.83, 1.4, 0.9),
    cell("d", NEW, 0.86, 1.6, 0.5),
]


def answers(text: str, rows: list[dict] = ROWS) -> dict[str, str | None]:
    return {name: one.cell for name, one in recommend(rows, parse_target(text)).by_processor.items()}


# ---- rows as a processor knows them


def test_with_one_processor_the_rows_are_left_as_they_are():
    rows = [*ROWS[:2], untimed("u")]
    assert by_processor(rows) == {OLD: rows}
    assert by_processor([untimed("u")]) == {"": [untimed("u")]}
    unnamed = [{**line, "cpu_model": None} for line in ROWS]
    assert by_processor(unnamed) == {ranking.UNKNOWN: unnamed}


def test_a_row_without_a_latency_is_no_row_of_another_processor():
    failed = untimed("f", status="failed", reason="profile: no cores")
    assert processor_of(failed) is None
    assert processor_of({**failed, "cpu_model": NEW, "latency_ratio": float("nan")}) is None
    assert list(by_processor([failed, *ROWS[:2]])) == [OLD]
    assert not is_elsewhere(failed)


def test_a_view_keeps_every_row_and_all_that_is_no_latency():
    views = by_processor(ROWS)
    assert list(views) == [OLD, NEW]
    for name, view in views.items():
        assert [line["cell"] for line in view] == ["a", "b", "c", "d"]
        for line, own in zip(view, ROWS, strict=True):
            there = own["cpu_model"] == name
            assert is_elsewhere(line) is not there
            assert line == (own if there else own | UNTIMED)


def test_a_network_that_was_timed_on_two_processors_stands_in_both_views():
    rows = [*ROWS, cell("twin", NEW, 0.85, 1.4, 0.7, graph_hash="a", same_as="a")]
    old, new = by_processor(rows).values()
    assert {line["cell"]: line["same_as"] for line in old if line["same_as"]} == {"twin": "a"}
    assert {line["cell"]: line["same_as"] for line in new if line["same_as"]} == {"a": "twin"}
    assert "twin" in [line["cell"] for line in ranking.contenders(new)]


# ---- ranking


def test_among_latencies_of_several_processors_none_is_the_best_and_none_ties():
    assert best(ROWS, LATENCY) is None
    assert best(ROWS[:2], LATENCY) == ("b", [])
    assert best(ROWS, SIZE) == ("a", ["b", "c"])
    equal = [cell("a", OLD, 0.85, 1.4, 2.0), cell("b", NEW, 0.85, 1.4, 2.0)]
    assert best(equal, LATENCY) is None
    assert best([*ROWS[:2], untimed("u")], LATENCY) == ("b", []), "a row without a latency changes nothing"


def test_a_cell_is_beaten_in_latency_by_cells_of_its_own_processor_alone():
    measures = (SSIM, SIZE, LATENCY)
    worse_there = cell("e", NEW, 0.80, 1.6, 0.6)
    worse_than_old = cell("e", NEW, 0.80, 1.6, 3.0)
    assert pareto_front([*ROWS, worse_there], measures) == ["a", "b", "c", "d"]
    assert pareto_front([*ROWS[:2], worse_than_old], measures) == ["a", "b", "e"]
    assert pareto_front([*ROWS[:2], worse_than_old], (SSIM, SIZE)) == ["a"], "sizes compare everywhere"


def test_a_pair_on_two_processors_has_no_difference_of_latencies():
    def pair(method: str, first: str, second: str) -> list[dict]:
        plain = cell(f"{method}-plain", first, 0.80, 1.6, 2.0, method=method, fuse_bn=False)
        return [plain, cell(f"{method}-fused", second, 0.82, 1.5, 1.5, method=method)]

    rows = pair("ptq", OLD, OLD) + pair("qat", OLD, NEW)
    (effect,) = (one for one in effects(rows) if one.axis == "fuse_bn")
    assert effect.pairs == len(effect.headline) == len(effect.size_mb) == 2
    assert effect.latency_ratio == pytest.approx((-0.5,))


def test_seeds_have_a_mean_latency_only_within_one_processor():
    rows = [
        cell("a-s0", OLD, 0.80, 1.4, 2.0, seed=0),
        cell("a-s1", NEW, 0.90, 1.4, 1.0, seed=1),
        cell("a-s2", NEW, 0.88, 1.4, 1.2, seed=2),
    ]
    (mixed,) = ranking.over_seeds(rows)
    assert mixed["test_ssim"] == pytest.approx(0.86)
    assert {mixed[column] for column in UNTIMED} == {None}
    old, new = (ranking.over_seeds(view)[0] for view in by_processor(rows).values())
    assert (processor_of(old), old["latency_ratio"]) == (OLD, pytest.approx(2.0))
    assert (processor_of(new), new["latency_ratio"]) == (NEW, pytest.approx(1.1))
    assert old["test_ssim"] == new["test_ssim"] == pytest.approx(0.86)


# ---- recommendation


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("minimize latency", "b", "d"),
        ("minimize latency_ms", "b", "d"),
        ("ssim>=0.845, minimize latency", "a", "d"),
        ("latency<=0.6, maximize ssim", None, "d"),
        ("latency_ms<=1000, size_mb<=1.5", "a", "c"),
    ],
)
def test_a_target_on_latency_has_an_answer_for_each_processor(text, old, new):
    assert answers(text) == {OLD: old, NEW: new}
    assert recommend(ROWS, parse_target(text)).cell is None


def test_a_target_without_latency_has_one_answer():
    found = recommend(ROWS, parse_target("size_mb<=1.7"))
    assert (found.cell, found.by_processor, found.refusal) == ("d", {}, "")
    assert set(found.front) == {"a", "b", "c", "d"}
    assert f"latency 0.5 on {NEW}" in found.reasons[0]


def test_a_processor_answers_only_for_cells_that_were_timed_there_and_says_so():
    found = recommend([*ROWS, untimed("f", status="failed")], parse_target("ssim>=0.845, minimize latency"))
    told = "\n".join(found.by_processor[OLD].reasons)
    assert "1 of 2 int8 cells probably keep ssim>=0.845" in told
    assert "Nearest rejected: `b`" in told
    assert "Not considered, as not timed on this processor: 2 of 4 int8 cells." in told
    assert "`d`" not in told


def test_a_float_network_of_another_processor_is_no_better_answer():
    fp32 = row("fp32", method="fp32", fuse_bn=False, cpu_model=NEW, **figures_of(0.87, 5.0, 0.1))
    found = recommend([fp32, *ROWS], parse_target("minimize latency"))
    assert "float network" not in "\n".join(found.by_processor[OLD].reasons)
    assert "float network `fp32`" in "\n".join(found.by_processor[NEW].reasons)


def test_a_processor_that_timed_no_int8_network_has_no_answer():
    fp32 = row("fp32", method="fp32", fuse_bn=False, cpu_model=NEW, **figures_of(0.87, 5.0, 1.0))
    found = recommend([fp32, *ROWS[:2]], parse_target("minimize latency"))
    assert (found.cell, found.by_processor) == ("b", {})


def test_a_tie_in_all_else_is_not_told_apart_by_latencies_of_two_processors():
    rows = [cell("slow", OLD, 0.8500, 1.4, 3.0), cell("quick", OLD, 0.8501, 1.4, 2.0)]
    rows += [cell("other", NEW, 0.8499, 1.4, 0.5)]
    found = recommend(rows, parse_target("maximize ssim"))
    told = "\n".join(found.reasons)
    assert found.cell == "quick"
    assert "latency (2 of 3 left)" in told, "`slow` loses on its own processor, the others do not meet"
    assert "Not told apart from `other`" in told
    assert "A tie in all" not in told


def test_there_is_one_cell_to_register_only_where_all_processors_name_the_same_network():
    apart = recommend(ROWS, parse_target("ssim>=0.845, minimize latency"))
    assert apart.refusal.endswith(f"do not agree on ssim>=0.845, minimize latency: a on {OLD}, d on {NEW}")
    some = recommend(ROWS, parse_target("latency<=0.6"))
    assert f"no cell on {OLD}, d on {NEW}" in some.refusal
    twin = cell("twin", NEW, 0.85, 1.4, 0.4, graph_hash="b", same_as="b")
    agreed = recommend([*ROWS, twin], parse_target("minimize latency"))
    assert {one.cell for one in agreed.by_processor.values()} == {"b", "twin"}
    assert (agreed.cell, agreed.refusal) == ("b", "")


def test_recipes_of_several_seeds_agree_where_each_processor_timed_some_of_their_seeds():
    rows = [
        {**line, "cell": f"{line['cell']}-s{seed}", "seed": seed, "cpu_model": (OLD, NEW)[seed]}
        for line in ROWS
        for seed in (0, 1)
    ]
    found = recommend(rows, parse_target("minimize latency"))
    assert answers("minimize latency", rows) == {OLD: "d", NEW: "d"}
    assert found.cell == "d"
    assert recommend([], parse_target("minimize latency")).refusal == "no cell keeps minimize latency"


X86 = "processor\t: 0\nmodel name\t: Some Xeon @ 2.50GHz\nflags\t: fpu\n\nprocessor\t: 1\n"
ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [(X86, "Some Xeon @ 2.50GHz"), (ARM, f"{platform.machine()} 0x41 0xd0c"), ("", "unknown"), (None, "unknown")],
)
def test_a_processor_is_named_as_the_kernel_does_also_one_without_a_model_name(tmp_path, text, name):
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    assert cpu_model(file) == name
