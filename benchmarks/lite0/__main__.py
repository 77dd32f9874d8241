"""EfficientNet-Lite0 with its ImageNet weights in int8, on real photographs: our recipe and others' in one table.

``python -m benchmarks.lite0 --pictures FOLDER`` takes every colour picture under FOLDER, in the order of the numbers in
their names. The first half calibrates, for all tools alike: 64 crops, drawn from ten a picture. The second half is
measured, on ten crops each, against the float network. So pictures of one film are split by time.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.line import say
from benchmarks.lite0 import ours, stock
from benchmarks.lite0.network import SIZE, pretrained
from benchmarks.lite0.pictures import CENTRE, CROPS, ten_crops
from model.errors import InputError
from model.noise import sqnr_db
from quant.engines.catalog import PACKAGES, missing

IMAGES = 64
CLEAR = 0.5
"""A float network's margin between its first and second class, in logits, from which a choice is no near-tie."""
GOAL_DB, GOAL_LEAD_DB, GOAL_AGREEMENT = 30.0, 10.0, 99.0


@dataclass(frozen=True)
class Row:
    """One network beside the float one, over the crops that are measured.

    ``agreement``, ``centre_agreement`` and ``clear_agreement`` are shares with the same top class: of all crops, of
    the centre crops, and of the crops whose float margin is clear. ``lost_margin`` is the largest float margin of a
    crop whose top class changed, in logits.
    """

    name: str
    sqnr_db: float
    centre_sqnr_db: float
    agreement: float
    centre_agreement: float
    clear_agreement: float
    lost_margin: float
    top5: float
    layers: str
    size_mb: float | None
    seconds: float


def compare(name: str, exact: Tensor, found: Tensor, layers: str, size_mb: float | None, seconds: float) -> Row:
    """The row of a network whose logits are ``found`` where the float network's are ``exact``, N x 10 x classes."""
    first, second = exact.topk(2).values.unbind(-1)
    margin, same = first - second, exact.argmax(-1) == found.argmax(-1)
    shared = (exact.topk(5).indices[..., None] == found.topk(5).indices[..., None, :]).any(-1)
    return Row(
        name=name,
        sqnr_db=sqnr_db(exact, found),
        centre_sqnr_db=sqnr_db(exact[:, CENTRE], found[:, CENTRE]),
        agreement=float(same.float().mean()),
        centre_agreement=float(same[:, CENTRE].float().mean()),
        clear_agreement=float(same[margin >= CLEAR].float().mean()),
        lost_margin=float(margin[~same].max()) if not same.all() else 0.0,
        top5=float(shared.float().mean()),
        layers=layers,
        size_mb=size_mb,
        seconds=seconds,
    )


class Table:
    """Measures one network after the other, and keeps the rows."""

    def __init__(self, measured: Tensor, exact: Tensor) -> None:
        self.measured, self.exact = measured, exact
        self.rows: list[Row] = []

    def add(self, name: str, network: ours.Network, layers: str, seconds: float, file: Path | None = None) -> Row:
        """Measure ``network``; ``file`` is what it ships as."""
        found = ours.logits(network, self.measured.flatten(0, 1)).reshape(self.exact.shape)
        size_mb = file.stat().st_size / 1e6 if file else None
        self.rows.append(compare(name, self.exact, found, layers, size_mb, seconds))
        print(markdown(self.rows[-1]), flush=True)
        return self.rows[-1]


HEAD = (
    "| network | SQNR, dB (centre) | same top class (centre) | same where the float margin is clear "
    "| largest margin lost | top 5 shared | int8 layers | MB | s |\n|:--|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def markdown(row: Row) -> str:
    """The row in the table of ``HEAD``."""
    size = "" if row.size_mb is None else f"{row.size_mb:.2f}"
    return (
        f"| {row.name} | {row.sqnr_db:.2f} ({row.centre_sqnr_db:.2f}) "
        f"| {100 * row.agreement:.1f} % ({100 * row.centre_agreement:.1f}) | {100 * row.clear_agreement:.1f} % "
        f"| {row.lost_margin:.2f} | {100 * row.top5:.1f} % | {row.layers} | {size} | {row.seconds:.0f} |"
    )


def timed(step: Callable[..., object], *arguments: object) -> tuple[object, float]:
    """What ``step`` gives, and its seconds."""
    started = time.monotonic()
    return step(*arguments), time.monotonic() - started


def measure(crops: Tensor, folder: Path, images: int = IMAGES) -> list[Row]:
    """Print the table for crops of pictures, N x 10 x 3 x 224 x 224; files are written into ``folder``."""
    half = len(crops) // 2
    drawn = torch.randperm(half * CROPS, generator=torch.Generator().manual_seed(0))[:images]
    calibration, measured = crops[:half].flatten(0, 1)[drawn], crops[half:]
    network = pretrained()
    exact = ours.logits(network, measured.flatten(0, 1)).reshape(*measured.shape[:2], -1)
    margin = exact.topk(2).values.diff(dim=-1).neg()
    print(
        f"{len(calibration)} crops of {half} pictures calibrate, {CROPS} of {len(measured)} are measured; the float "
        f"margin is below {CLEAR} in {100 * float((margin < CLEAR).float().mean()):.0f} % of them.\n\n{HEAD}",
        flush=True,
    )
    table = Table(measured, exact)
    table.add("float", network, "0", 0.0)
    _ours(table, calibration, folder)
    _others(table, calibration, folder)
    return table.rows


def _ours(table: Table, calibration: Tensor, folder: Path) -> None:
    (prepared, typical), spent = timed(ours.calibrated, pretrained(), calibration)  # type: ignore[misc]
    table.add("activations alone in int8", ours.float_weights(prepared), "0", spent)
    table.add("ours, nearest weights, simulated", prepared, "all", spent)
    corrected, more = timed(ours.corrected, prepared, typical)
    table.add("ours, corrected biases, simulated", corrected, "all", spent + more)  # type: ignore[arg-type]
    rounded, more = timed(ours.rounded, prepared, typical)
    spent += more
    table.add("ours, simulated", rounded, "all", spent)  # type: ignore[arg-type]
    network, layers = ours.on_qnnpack(rounded)  # type: ignore[arg-type]
    table.add("ours, qnnpack", network, str(layers), spent)
    for engine in PACKAGES:
        if missing(engine):
            continue
        path = folder / f"{engine}.bin"
        (network, layers), more = timed(ours.exported, rounded, engine, SIZE, path)  # type: ignore[misc]
        table.add(f"ours, {engine}", network, str(layers), spent + more, path)


def _others(table: Table, calibration: Tensor, folder: Path) -> None:
    if missing("onnxruntime") is None:
        source, path = folder / "float.onnx", folder / "stock.onnx"
        _, first = timed(stock.float_onnx, pretrained(), calibration[:1], source)
        for name, settings in stock.ORT_SETTINGS.items():
            network, spent = timed(stock.onnxruntime, source, calibration, path, settings)
            layers = stock.int8_layers(path)
            table.add(f"ONNX Runtime, {name}", network, str(layers), first + spent, path)  # type: ignore[arg-type]
    if missing("xnnpack") is None:
        for backend in ("x86", "xnnpack"):
            network, spent = timed(stock.pt2e, pretrained(), calibration, backend)
            layers = stock.int8_layers_of_graph(network)  # type: ignore[arg-type]
            table.add(f"pt2e, {backend}, simulated", network, str(layers), spent)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lite0", description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=Path, required=True, metavar="FOLDER", help="photographs, JPEG or PNG")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        crops = ten_crops(options.pictures)
    except InputError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(crops, Path(folder))
    print()
    summary({row.name: row for row in rows})


def summary(rows: dict[str, Row]) -> None:
    """Print the goals' figures: of the default engine, and against ONNX Runtime on ONNX Runtime."""
    ours_row, simulated = rows["ours, qnnpack"], rows["ours, simulated"]
    say("lite0 sqnr_db", ours_row.sqnr_db, "dB", f"the float network, on qnnpack; goal {GOAL_DB:g}")
    say("lite0 agreement", 100 * ours_row.agreement, "%", f"the float network's top class; goal {GOAL_AGREEMENT:g}")
    engines = [row for engine in ("qnnpack", *PACKAGES) if (row := rows.get(f"ours, {engine}"))]
    apart = max(abs(row.sqnr_db - simulated.sqnr_db) for row in engines)
    say("lite0 engine and simulation", apart, "dB", f"largest difference of {len(engines)} engines; goal 1")
    if others := [row.sqnr_db for name, row in rows.items() if name.startswith("ONNX Runtime")]:
        lead = rows["ours, onnxruntime"].sqnr_db - max(others)
        say(
            "lite0 lead", lead, "dB", f"the best of {len(others)} settings of ONNX Runtime's own; goal {GOAL_LEAD_DB:g}"
        )


if __name__ == "__main__":
    main()
