"""The tables of a report as Markdown; a missing figure is an en dash, the reason stands in the last column."""

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from grid.results.processors import by_processor
from grid.results.ranking import (
    LATENCY,
    MEASURES,
    RECIPE,
    UNKNOWN,
    Measure,
    Row,
    axes_of,
    best,
    contenders,
    effects,
    is_int8,
    over_seeds,
    processor_of,
    seed_spread,
    several_seeds,
    value,
    verdict,
)

DASH = "–"
DIGITS = {
    "test_mse": 5, "test_ssim": 4, "simulated_ssim": 4, "sqnr_db": 2, "size_mb": 3, "test_abs_rel": 4,
    "test_rmse_m": 3, "test_delta1": 4, "latency_ms_p50": 2, "latency_ms_p90": 2, "latency_ratio": 2,
    "latency_ratio_low": 2, "latency_ratio_high": 2, "profiler_step_ms": 2, "train_s": 0,
}  # fmt: skip
ACCURACY_AND_SIZE = tuple(measure for measure in MEASURES if not measure.of_processor)
FIGURE = re.compile(r"(\*\*|≈ )?([-+]?\d|–$)")


def shown(row: Row, column: str) -> str:
    """Return a figure with its usual digits, or an en dash."""
    found = value(row, column)
    return DASH if found is None else f"{found:.{DIGITS[column]}f}"


def ratio_text(row: Row) -> str:
    """Return the latency ratio with its interval, or an en dash."""
    if value(row, "latency_ratio") is None:
        return DASH
    text = f"{shown(row, 'latency_ratio')}x"
    if value(row, "latency_ratio_low") is not None and value(row, "latency_ratio_high") is not None:
        text += f" [{shown(row, 'latency_ratio_low')}, {shown(row, 'latency_ratio_high')}]"
    return text


def word(setting: Any) -> str:
    """Return a setting as in the search space: true, false, a name, or an en dash for none."""
    if setting is None or setting in ("", "none"):
        return DASH
    return str(setting).lower() if isinstance(setting, bool) else str(setting)


def plain(text: Any) -> str:
    """Return text that cannot break a Markdown table: one line, no bare pipes."""
    return " ".join(str(text).split()).replace("|", "\\|")


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; columns of figures are right-aligned."""
    figures = [all(FIGURE.match(cells[number]) for cells in lines) for number in range(len(header))]
    rule = ["--:" if right else ":--" for right in figures]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines))


def note(row: Row, limit: int = 120) -> str:
    """Return why a row has no figures of its own, or nothing."""
    if row.get("same_as"):
        return f"same as `{plain(row['same_as'])}`"
    if row["status"] == "ok":
        return plain(row.get("reason") or "")
    reason = plain(row.get("reason") or "no reason given")
    return f"**{row['status']}**: {reason if len(reason) <= limit else reason[: limit - 1] + '…'}"


def results(rows: Sequence[Row]) -> str:
    """Return the main table: one line a cell, the best int8 value of a column bold, ties with it marked ``≈``.

    With several seeds the bold values are those of ``seeds_table``, and none is bold here. Each processor has columns
    of its own for its latencies, with a best value of its own.
    """
    marks = {} if several_seeds(rows) else _marks(contenders(rows), rows, ACCURACY_AND_SIZE)
    further = [axis for axis in axes_of(rows) if axis not in RECIPE]
    header = ["#", "cell", "fuse BN", "granularity", "method", *further, "MSE", "SSIM", "SQNR dB", "size MB"]
    lines = []
    for number, row in enumerate(rows, 1):
        cells = [str(number), f"`{plain(row['cell'])}`", *(word(row.get(key)) for key in (*RECIPE, *further))]
        for measure in ACCURACY_AND_SIZE:
            cells.append(_marked(shown(row, measure.column), marks.get((row["cell"], measure.column))))
        lines.append(cells)
    for where, view in _views(rows):
        header += [f"p50 ms{where}", f"x float [95 % CI]{where}"]
        marks = {} if several_seeds(rows) else _marks(contenders(view), view, (LATENCY,))
        for cells, row in zip(lines, view, strict=True):
            cells += [shown(row, "latency_ms_p50"), _marked(ratio_text(row), marks.get((row["cell"], LATENCY.column)))]
    return markdown([*header, "note"], [[*cells, note(row)] for cells, row in zip(lines, rows, strict=True)])


def _views(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """The rows as each processor knows them, behind what its columns are called; nothing where there is but one."""
    views = by_processor(rows)
    return [(f" on {plain(name)}" if len(views) > 1 else "", view) for name, view in views.items()]


def seeds_table(rows: Sequence[Row]) -> str:
    """Return the table over seeds: mean and standard deviation of each recipe, best and ties marked."""
    recipes = over_seeds(rows)
    header = ["#", "recipe", "seeds"]
    lines = [[str(number), f"`{plain(row['cell'])}`", str(row["seeds"])] for number, row in enumerate(recipes, 1)]
    shares = [("", rows, ACCURACY_AND_SIZE), *((where, view, (LATENCY,)) for where, view in _views(rows))]
    for where, view, measures in shares:
        header += [f"{measure.title}{where}" for measure in measures]
        merged = over_seeds(view)
        marks = _marks(contenders(merged), view, measures)
        for cells, row in zip(lines, merged, strict=True):
            for measure in measures:
                text, deviation = shown(row, measure.column), value(row, f"{measure.column}_std")
                if deviation is not None:
                    text += f" ± {deviation:.{DIGITS[measure.column]}f}"
                cells.append(_marked(text, marks.get((row["cell"], measure.column))))
    return markdown(header, lines)


def _marks(candidates: Sequence[Row], rows: Sequence[Row], measures: Sequence[Measure]) -> dict[tuple[str, str], str]:
    """``best`` or ``tie`` by (cell, column)."""
    marks = {}
    for measure in measures:
        found = best(candidates, measure, seed_spread(rows, measure.column))
        if found:
            marks[found[0], measure.column] = "best"
            marks |= {(cell, measure.column): "tie" for cell in found[1]}
    return marks


def _marked(text: str, mark: str | None) -> str:
    return {"best": f"**{text}**", "tie": f"≈ {text}"}.get(mark or "", text)


def trust_table(rows: Sequence[Row]) -> str:
    """Return what was checked of each int8 cell: simulated against real SSIM, and which network it is."""
    lines = []
    for row in rows:
        if is_int8(row):
            real, simulated = value(row, "test_ssim"), value(row, "simulated_ssim")
            gap = DASH if real is None or simulated is None else f"{real - simulated:+.4f}"
            same = f"same as `{plain(row['same_as'])}`" if row.get("same_as") else ""
            figures = [shown(row, "simulated_ssim"), shown(row, "test_ssim"), gap]
            lines.append([f"`{plain(row['cell'])}`", *figures, word(row.get("graph_hash"))[:12], same])
    return markdown(["cell", "simulated SSIM", "int8 SSIM", "gap", "network hash", ""], lines)


def further_table(rows: Sequence[Row]) -> str:
    """Return the depth metrics and timings that the main table has no room for."""
    header = ["cell", "abs rel", "RMSE m", "δ1"]
    measured = [row for row in rows if row["status"] == "ok"]
    depth = ("test_abs_rel", "test_rmse_m", "test_delta1")
    lines = [[f"`{plain(row['cell'])}`", *(shown(row, name) for name in depth)] for row in measured]
    for where, view in _views(measured):
        header += [f"p90 ms{where}", f"profiler step ms{where}"]
        for cells, row in zip(lines, view, strict=True):
            cells += [shown(row, "latency_ms_p90"), shown(row, "profiler_step_ms")]
    lines = [[*cells, shown(row, "train_s")] for cells, row in zip(lines, measured, strict=True)]
    return markdown([*header, "training s"], lines)


def effects_table(rows: Sequence[Row]) -> str:
    """Return what each axis does: paired differences between cells equal in all else.

    SSIM with the 95 % interval of the mean difference (from three pairs on), SQNR in dB, size in MB, latency in
    float latencies, by processor.
    """
    lines = []
    views = _views(rows)
    for effect, *timed in zip(effects(rows), *(effects(view) for _, view in views), strict=True):
        step = f"{word(effect.start)} → {word(effect.to)}"
        pairs = f"{effect.pairs}" + (f" ({effect.identical} identical)" if effect.identical else "")
        interval = " … ".join(_signed(bound, 4) for bound in effect.ssim_interval or ()) or DASH
        spans = [_span(effect.sqnr_db, 2), _span(effect.size_mb, 3), *(_span(one.latency_ratio, 2) for one in timed)]
        lines.append([effect.axis, step, pairs, verdict(effect), _span(effect.ssim, 4), interval, *spans])
    header = ["axis", "step", "pairs", "SSIM shows", "Δ SSIM mean [min, max]", "95 % of its mean"]
    header += [f"Δ {title} mean [min, max]" for title in ("SQNR dB", "size MB")]
    header += [f"Δ x float latency mean [min, max]{where}" for where, _ in views]
    return markdown(header, lines) if lines else "No two int8 cells differ in one axis alone."


def _span(differences: Sequence[float], digits: int) -> str:
    if not differences:
        return DASH
    spread = statistics.fmean(differences), min(differences), max(differences)
    mean, low, high = (_signed(figure, digits) for figure in spread)
    return mean if len(differences) == 1 else f"{mean} [{low}, {high}]"


def _signed(figure: float, digits: int) -> str:
    """With its sign; what rounds to nothing is +0, whichever side it comes from."""
    return f"{round(figure, digits) + 0.0:+.{digits}f}"


def published_table(rows: Sequence[Row], published: Sequence[Mapping[str, Any]]) -> str:
    """Return each published row with our figures in front; a recipe we did not run has en dashes.

    Where several of our cells are that recipe (a further axis), the first one stands there.
    """
    recipes = over_seeds(filter(_comparable, rows))
    ours = {_recipe(row): row for row in reversed(recipes)}
    several = len(by_processor(rows)) > 1
    lines = []
    for theirs in published:
        mine = ours.get(_recipe(theirs), {})
        fuse, granularity, method = _recipe(theirs)
        cells = [fuse, granularity, method, f"`{plain(mine['cell'])}`" if mine else DASH]
        for column in ("test_mse", "test_ssim", "size_mb"):
            cells += [shown(mine, column), shown(dict(theirs), column)]
        step_ms = shown(mine, "profiler_step_ms")
        if several and step_ms != DASH:
            step_ms += f" on {plain(processor_of(mine) or UNKNOWN)}"
        cells += [step_ms, _milliseconds(theirs.get("latency_ms")), plain(theirs["source"])]
        lines.append(cells)
    header = ["fuse BN", "granularity", "method", "our cell"]
    for title in ("MSE", "SSIM", "size MB", "profiler step ms"):
        header += [title, "published"]
    return markdown([*header, "source"], lines)


def _comparable(row: Row) -> bool:
    return row["status"] == "ok" and row["engine"] in (None, "", "qnnpack") and row["encoder"] == "efficientnet_b0"


def _recipe(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return word(row["fuse_bn"]).lower(), word(row["granularity"]), word(row["method"])


def _milliseconds(text: Any) -> str:
    return DASH if text in (None, "") else f"{float(text):.2f}"


def tie_rules(measures: Sequence[Measure], noise: Mapping[str, float]) -> str:
    """Say below which difference two values are called a tie."""
    parts = []
    for measure in measures:
        if measure is LATENCY:
            parts.append("latency: overlapping intervals")
        elif measure.tie_relative:
            parts.append(f"{measure.name}: {measure.tie_relative:.1%}".replace("%", " %"))
        else:
            parts.append(f"{measure.name}: {max(measure.tie, noise.get(measure.column, 0.0)):.3g}")
    return "; ".join(parts)
