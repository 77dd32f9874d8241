"""Times by operator as a CSV: a line an operator, of several networks one after the other."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from quant.operator_times.operator_time import OperatorTime

_COLUMNS = ("network", *(field.name for field in fields(OperatorTime)))


def write_operator_times(path: Path, networks: Mapping[str, Sequence[OperatorTime]]) -> None:
    """Write the operators of each network; microseconds to three digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for network, operators in networks.items():
        for one in operators:
            writer.writerow({"network": network, **asdict(one), "us": f"{one.us:.3f}", "calls": f"{one.calls:g}"})
    path.write_text(text.getvalue(), encoding="utf-8")


def read_operator_times(path: Path) -> dict[str, list[OperatorTime]]:
    """What ``write_operator_times`` wrote, by network; raises ValueError, naming the file, for anything else."""
    found: dict[str, list[OperatorTime]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != _COLUMNS:
            raise ValueError(f"{path}: columns {reader.fieldnames}; expected {', '.join(_COLUMNS)}")
        for line in reader:
            times = {"us": float(line.pop("us")), "calls": float(line.pop("calls"))}
            found.setdefault(line.pop("network"), []).append(OperatorTime(**line, **times))  # type: ignore[arg-type]
    return found
