"""The inspection of a network, as text and as a page: what runs in int8 on each engine, and what that costs."""

from collections.abc import Sequence

from grid.report.document import Cell, Code, Column, Document, Items, Paragraph, Part, Section, Strips, Table
from grid.report.figures.colours import PLACES
from quant.inspection.inspection import Inspection
from quant.inspection.memory import Peak
from quant.inspection.operators import Operator
from quant.inspection.placement import FLOAT, Placement, int8_macs, int8_weights, kinds

_MOST_KINDS = 12
_RANDOM = "Ranges are calibrated on noise, so cautions about ranges are hints."


def headlines(found: Inspection) -> list[str]:
    """One line for each engine."""
    lines = [_headline(found, placement) for placement in found.placements]
    return lines + [f"{engine}: not asked. {reason}" for engine, reason in found.absent.items()]


def _headline(found: Inspection, placement: Placement) -> str:
    macs = sum(one.macs for one in found.operators)
    text = (
        f"{placement.engine}: {_percent(int8_macs(placement, found.operators), macs)} of the MACs and "
        f"{_percent(int8_weights(placement, found.operators), found.weights)} of the weights in int8; "
    )
    behind, conversions = placement.in_float(found.operators), _count(placement.conversions, "conversion")
    if not behind:
        return f"{text}no operator stays in float, {conversions}"
    seconds = sum(one.float_s for one in found.operators)
    names = kinds(behind).split(", ")
    named = ", ".join(names[:4]) + (f" and {_count(len(names) - 4, 'other kind')}" if len(names) > 4 else "")
    verb = "stays" if len(behind) == 1 else "stay"
    return (
        f"{text}{_count(len(behind), 'operator')} {verb} in float ({named}): "
        f"{_percent(sum(one.macs for one in behind), macs)} of the MACs, about "
        f"{_percent(sum(one.float_s for one in behind), seconds, 0)} of the float network's time, {conversions}"
    )


def memory(found: Inspection) -> str:
    """The peaks of live activations, in one line."""
    in_float = f"{_peak(found, found.float_peak)} in the float network"
    if found.int8_peak is None:
        return f"activations alive at once: {in_float}"
    return f"activations alive at once: {_peak(found, found.int8_peak)} in the int8 network, {in_float}"


def _peak(found: Inspection, peak: Peak) -> str:
    modules = {one.name: f"{one.module} ({one.kind})" for one in found.operators}
    return f"at most {peak.size / 1e6:.2f} MB, at {modules.get(peak.operator, 'the input')}"


def inspection_text(found: Inspection) -> str:
    """What a terminal shows: headlines, memory, what stays in float by kind and time, and cautions."""
    lines = [*headlines(found), memory(found)]
    for placement in found.placements:
        lines += ["", f"in float on {placement.engine}", *_by_kind(found, placement)]
    if found.cautions:
        lines += ["", "cautions", *(f"- {caution}" for caution in found.cautions), _RANDOM]
    return "\n".join(lines)


def _by_kind(found: Inspection, placement: Placement) -> list[str]:
    groups: dict[str, list[Operator]] = {}
    for one in placement.in_float(found.operators):
        groups.setdefault(one.kind, []).append(one)
    seconds = sum(one.float_s for one in found.operators)
    costs = sorted(groups.items(), key=lambda item: -sum(one.float_s for one in item[1]))[:_MOST_KINDS]
    return [
        f"  {kind:30} {len(group):4}  {_percent(sum(one.float_s for one in group), seconds):>7} of the float time"
        f"   such as {group[0].module}"
        for kind, group in costs
    ] or ["  nothing"]


def inspection_page(name: str, input_size: int, found: Inspection) -> Document:
    """The page for the network ``name`` at ``input_size`` pixels."""
    macs = sum(one.macs for one in found.operators)
    seconds = sum(one.float_s for one in found.operators)
    about = (
        f"One image of {input_size} x {input_size}: {macs / 1e6:,.1f} million MACs (multiplications and additions), "
        f"{found.weights / 1e6:,.2f} million weights, {seconds * 1e3:.1f} ms in float on one thread of this machine. "
        "Where an operator runs is read from the graph of each engine."
    )
    return Document(f"{name} in int8", (Paragraph((about,)), in_short(found)), details(found, ranges_of_noise=True))


def in_short(found: Inspection) -> Items:
    """A line for each engine, and one for memory."""
    return Items(tuple((line,) for line in (*headlines(found), memory(found))))


def details(found: Inspection, *, ranges_of_noise: bool) -> tuple[Section, ...]:
    """The operators as strips and as a table, and cautions."""
    by_macs, by_time = (_strips(found, measure) for measure in ("macs", "float_s"))
    sections = [
        Section(
            ("From input to output",),
            (
                Section(("By MACs: the wider, the more it computes",), (by_macs,)),
                Section(("By the time of the float network",), (by_time,)),
            ),
        )
    ]
    if found.cautions:
        items = Items(tuple((caution,) for caution in found.cautions))
        sections.append(Section(("Cautions",), (items, Paragraph((_RANDOM,))) if ranges_of_noise else (items,)))
    sections.append(Section(("All operators",), (Paragraph((_TABLE,)), _table(found))))
    return tuple(sections)


_TABLE = (
    "A convolution is one operator with its BatchNorm and activation. Folded: the engine has made it part of "
    "another one. Time: median of several passes of the float network, operator by operator."
)


def _strips(found: Inspection, measure: str) -> Strips:
    strips = []
    total = sum(getattr(one, measure) for one in found.operators)
    for placement in found.placements:
        parts, shares = [], dict.fromkeys(PLACES, 0.0)
        for one in found.operators:
            width, place = float(getattr(one, measure)), placement.of(one)
            shares[place] += width
            text = f"{one.module}: {one.kind}, {place}, {_percent(width, total)}"
            parts.append(Part(text, width, PLACES[place]))
        said = ", ".join(f"{_percent(part, total)} {place}" for place, part in shares.items() if part)
        strips.append((f"{placement.engine}: {said}", tuple(parts)))
    return Strips(tuple(strips), tuple(PLACES.items()))


def _table(found: Inspection) -> Table:
    figures = ("MACs, million", "weights", "activation, kB in int8", "float time, ms")
    columns = (
        *(Column("#", "number"), Column("module", "name"), Column("operator", filter="operator")),
        *(Column(placement.engine, filter=placement.engine) for placement in found.placements),
        *(Column("output"), *(Column(title, "number") for title in figures)),
    )
    rows = [_row(number, one, found.placements) for number, one in enumerate(found.operators, 1)]
    return Table(columns, tuple(rows))


def _row(number: int, one: Operator, placements: Sequence[Placement]) -> tuple[Cell, ...]:
    return (
        _number(number, f"{number}"),
        Cell((Code(one.module),)),
        Cell((one.kind,)),
        *(Cell((place,), mark="best" if place == FLOAT else "") for place in (p.of(one) for p in placements)),
        Cell((" x ".join(map(str, one.shape)),)),
        _number(one.macs, f"{one.macs / 1e6:,.2f}"),
        _number(one.weights, f"{one.weights:,}"),
        _number(one.values, f"{one.values / 1e3:,.1f}"),
        _number(one.float_s, f"{one.float_s * 1e3:.3f}"),
    )


def _number(figure: float, text: str) -> Cell:
    return Cell((text,), figure)


def _percent(part: float, whole: float, digits: int = 1) -> str:
    share = 100 * part / whole if whole else 0.0
    step = 10.0**-digits
    if 0 < share < step / 2:
        return f"under {step:.{digits}f} %"
    if 100 - step / 2 <= share and part < whole:
        return f"over {100 - step:.{digits}f} %"
    return f"{share:.{digits}f} %"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
