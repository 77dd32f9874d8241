"""Where the time goes: int8 networks beside float, operator by operator."""

from collections.abc import Iterator, Sequence
from functools import partial

from grid.report.cells import in_sentence, name_cell, text_cell
from grid.report.document import Cell, Code, Column, Items, Paragraph, Picture, Section, Spans, Table, spans
from grid.report.formats import DASH
from grid.report.inputs import ReportInputs
from grid.report.operators.picture import PYTORCH, draw_operators
from grid.results.operators.because import WORDS, because
from grid.results.operators.times import Beside, NetworkTimes, beside_float
from grid.results.ranking import LATENCY, Row, is_int8, value
from quant.operator_times.operator_time import CONVERSION, FLOAT, OUTSIDE

MOST_CELLS = 6
_COLUMNS = (
    Column("cell", "name"),
    Column("operators"),
    Column("calls", "number"),
    Column("int8 network, ms", "number"),
    Column("of it in float, ms", "number"),
    Column("float network, ms", "number"),
    Column("difference, ms", "number"),
)


def where_the_time_goes(inputs: ReportInputs) -> Section | None:
    """Return why the recommended network, and the first one of each engine, are faster or slower than float."""
    rows, silent = _shown(inputs)
    shown = [found for row in rows if (found := beside_float(row, inputs.operators))]
    if not shown:
        return None
    about = (
        "Times by operator are what each engine's own profiler tells in the last of a cell's fresh loads, after its "
        "latency was measured: shares of the quieter half of the forwards, here in milliseconds of the cell's latency, "
        "and of the float network's by the ratio. Profiling takes time of its own, most of it outside of operators. "
        "What an int8 network still computes in float is hatched. Every operator, as it was profiled, is in "
        "`operators.csv` of the profile stage."
    )
    sentences = Items(tuple(_sentence(one) for one in shown))
    picture = Picture("operators.png", "Time by kind of operator, int8 beside float", partial(draw_operators, shown))
    table = Table(_COLUMNS, tuple(line for one in shown for line in _lines(one)))
    blocks = (sentences, Paragraph(spans(about)), picture, table)
    return Section(("Where the time goes",), (*blocks, *_silent(silent)))


def _shown(inputs: ReportInputs) -> tuple[list[Row], list[Code]]:
    """The first int8 network of each engine whose operators are told, the recommended one before all; and the others.

    The others are those of engines of which none is told.
    """
    named = {row["cell"]: row for row in inputs.rows if is_int8(row) and not row.get("same_as")}
    timed = [named[name] for name in inputs.names if name in named and value(named[name], LATENCY.column) is not None]
    shown: dict[str, Row] = {}
    for row in timed:
        if row["cell"] in inputs.operators:
            shown.setdefault(str(row["engine"]), row)
    silent = [Code(row["cell"]) for row in timed if str(row["engine"]) not in shown]
    return list(shown.values())[:MOST_CELLS], silent


def _sentence(found: Beside) -> Spans:
    beside: Spans = (Code(found.float_.cell),) if found.float_.cell else (PYTORCH,)
    covered = f"{found.int8.coverage:.0%} and {found.float_.coverage:.0%} of the measured latencies"
    return (
        Code(found.int8.cell),
        " beside ",
        *beside,
        f": {because(found)} As profiled, the operators add up to {covered}.",
    )


def _lines(found: Beside) -> Iterator[tuple[Cell, ...]]:
    """A line a kind, the largest difference first, and then the latencies."""
    int8, float_ = found.int8, found.float_
    for kind, now, before in found.by_kind():
        calls = None if kind == OUTSIDE else sum(one.calls for one in int8.operators if one.kind == kind)
        in_float = None if kind in (CONVERSION, OUTSIDE) else int8.ms(kind, FLOAT)
        yield _line(int8, WORDS[kind], calls, now, in_float, before)
    yield _line(int8, "latency", None, int8.ms(), None, float_.ms())


def _line(
    network: NetworkTimes, words: str, calls: float | None, now: float, in_float: float | None, before: float
) -> tuple[Cell, ...]:
    figures = (_cell(now), _cell(in_float), _cell(before), _cell(now - before, signed=True))
    return (name_cell(network.cell), text_cell(words), _cell(calls, digits=0), *figures)


def _cell(figure: float | None, digits: int = 2, signed: bool = False) -> Cell:
    if not figure:  # what is not there at all
        return Cell((DASH,), figure)
    return Cell((f"{figure:{'+' if signed else ''}.{digits}f}",), figure)


def _silent(cells: Sequence[Code]) -> Iterator[Paragraph]:
    if cells:
        why = ": their engine does not tell, or they were measured by an earlier version."
        yield Paragraph(("No times by operator of ", *in_sentence(list(cells)), why))
