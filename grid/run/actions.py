"""What can be done with a storage instead of running a grid: one function for each flag."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from grid.report.terminal import summary
from grid.results.comparisons.margins import Margins, parse_margins
from grid.results.measures import measures_of
from grid.results.ranking import Measure
from grid.results.recommend import recommend
from grid.results.target import Target, parse_target
from grid.run.files import RunFiles, pack_of
from grid.run.mlflow_pages import open_pages
from grid.run.options import Options
from grid.run.recorder import Recorder
from grid.run.steps import write_results
from grid.storage.disk import require_writable
from grid.storage.remote import open_storage
from grid.storage.result_store import StageStore
from grid.storage.run_lock import only_driver
from grid.storage.runs import known_run, share_run
from model.errors import InputError
from model.files import write_atomically
from model.network.user_network import OWN, register_network
from model.progress import Progress, duration

_QUIET_S = 5.0
"""Between two lines about the same step of an export."""
_NOISE = 4
"""Images of noise on which an inspected network is calibrated."""


def report(options: Options) -> int:
    """Make the report of a run again, from its folder and the stages in the store."""
    files, store = _finished("--report", str(options.report), options.storage)
    target, margins, headline = _wanted(options, files)
    require_writable(store.root)
    rows = files.rows(store)
    _, evidence = files.write(rows, store, target, margins)
    share_run(files.folder, store.root, store.remote)
    print(summary(rows, recommend(rows, target, evidence), files.folder, headline))
    return 0


def sync(options: Options) -> int:
    """Write to MLflow what a run has and MLflow lacks, such as after its server was down."""
    name = str(options.sync)
    files, store = _finished("--sync", name, options.storage)
    target, margins, _ = _wanted(options, files)
    pack = pack_of(store.root, files.context)
    if pack is None:
        problem = f"has no packed data of {name} any more"
        raise InputError(f"{store.root}/packs", problem, "what the run left there", f"--resume {name} makes it.")
    with only_driver(store.root, name):
        recorder = Recorder(files, store, pack, options.tracking_uri)
        rows = write_results(recorder, target, margins).rows
        share_run(files.folder, store.root, store.remote)
    if recorder.problem:
        raise InputError("--sync", recorder.problem, "an MLflow store that can be written to")
    print(f"{name}: {len(rows)} cells are in MLflow  {recorder.ui_command}")
    return 0


def _wanted(options: Options, files: RunFiles) -> tuple[Target, Margins, Measure]:
    """The target and the margins of the command line, in the metrics of the run's task, and its headline."""
    measures = measures_of(files.task)
    target, margins = parse_target(options.target, measures), parse_margins(options.margin, measures.margins)
    return target, margins, measures.headline


def export(options: Options) -> int:
    """Write the network of a cell as files for one engine or all, with one card and a script that runs them."""
    from grid.run.export.agreement import Agreement, agreement_text
    from grid.run.export.cell import AGREEMENT, CARD, SCRIPT, export_cell

    run, _, cell = str(options.export).partition("/")
    files, store = _finished("--export", run, options.storage)
    out = Path(options.out)
    if options.network:
        register_network(Path(options.network))
    card = export_cell(files, store, cell, options.engine, out, options.task, _told)
    for file in card["files"]:
        print(f"{out / file['name']}  {file['bytes'] / 1e6:.2f} MB  sha256 {file['sha256']}")
    for engine, reason in card.get("left_out", {}).items():
        print(f"no file for {engine}: {reason}")
    given = "INPUT" if files.task.name.startswith(OWN) else "IMAGE"
    print(f"card       {out / CARD}\nrun it     python {out / SCRIPT} {given}")
    if "agreement" in card:
        headline = files.task.headline
        measured = {file["engine"]["name"]: file for file in card["files"]}
        pairs = [Agreement(**pair) for pair in card["agreement"]]
        figures = {
            name: (measured.get(name) or card[name])["metrics"][headline.name]
            for pair in pairs
            for name in (pair.one, pair.other)
        }
        print(f"agreement  {out / AGREEMENT}, over {card['test_images']} test pictures")
        print("\n".join(agreement_text(pairs, headline.title or headline.name, figures)))
    return 0


def _told(step: str) -> Progress:
    """Says on standard error what an export does, and every few seconds how far that is."""
    started = said = time.monotonic()
    print(f"{step} ...", file=sys.stderr)

    def heard(figures: dict[str, float]) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= _QUIET_S:
            said = now
            left = (now - started) * (figures["steps"] / figures["step"] - 1)
            print(f"{step}: {figures['step']} of {figures['steps']}, {duration(left)} left", file=sys.stderr)

    return heard


def inspect(options: Options) -> int:
    """Say what of a network would run in int8 on each engine, in text and as a page in the storage."""
    import torch  # and, for this alone, torchvision, timm and torch.fx

    from grid.report.html import html_page
    from grid.report.inspection import inspection_page, inspection_text
    from model.network.named import named_network
    from quant.graph import UnsupportedNetworkError
    from quant.inspection.inspection import inspect_network

    name, size = str(options.inspect_network), options.input_size
    root = open_storage(options.storage)[0]
    root.mkdir(parents=True, exist_ok=True)
    require_writable(root)
    folder = root / "inspections"
    images = torch.randn(_NOISE, 3, size, size, generator=torch.Generator().manual_seed(0))
    network = named_network(name, size, "--inspect-network")
    try:
        found = inspect_network(network, images, progress=lambda step: print(f"{step} ...", file=sys.stderr))
    except UnsupportedNetworkError as error:
        problem = f"cannot become an int8 network ({error})"
        raise InputError(name, problem, hint="docs/own.md says what is possible.") from error
    plain = Path(name).stem if name.endswith(".py") else name.replace("/", "-")
    file = f"{plain}-{size}.html"
    page = write_atomically(
        folder / file,
        html_page(inspection_page(Path(name).name if name.endswith(".py") else name, size, found), folder),
    )
    print(f"{inspection_text(found)}\n\npage  {page}")
    return 0


ACTIONS: dict[str, Callable[[Options], int]] = {
    "report": report,
    "sync": sync,
    "export": export,
    "inspect_network": inspect,
    "ui": open_pages,
}
"""By ``Options.action``; each returns the exit status and raises InputError."""


def _finished(flag: str, name: str, storage: str) -> tuple[RunFiles, StageStore]:
    """The files of a run and its store; with a storage by URI, all that this machine lacks of them is fetched."""
    files, store = RunFiles.load(known_run(flag, name, storage)), StageStore(*open_storage(storage))
    store.verify_all(node for cell in files.plan.cells for node in cell.nodes.values())
    if store.remote is not None:
        store.remote.pull_files("packs")
    return files, store
