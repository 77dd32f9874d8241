"""Quantization grid runner: which recipe gives my network the best accuracy, size and latency?"""

import argparse
import dataclasses
import io
import json
import os
import shlex
import subprocess
import sys
import time
import traceback
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers set their own count; idle pools only fight over cores

from rich.console import Console

from grid.paths import ROOMS_CHECKPOINT
from grid.planning.plan import Plan, make_plan
from grid.report.terminal import summary
from grid.results.recommend import Target, first_member, parse_target, recommend
from grid.run.costs import Costs, duration
from grid.run.files import RunFiles, pack_of
from grid.run.options import checked_run_name, known_run, parse, read_seeds, repeating_command, saved
from grid.run.plan_text import describe
from grid.run.progress import Progress
from grid.run.user_network import take_network
from grid.scheduling.cores import own_cores
from grid.secrets import masked
from grid.space.search_space import SearchSpace, load_space
from grid.stages.work import Context
from grid.storage.copies import kept_copy
from grid.storage.disk import needed_mb, require_writable
from grid.storage.remote import opened
from grid.storage.result_store import StageStore
from grid.storage.run_lock import only_driver
from grid.storage.uri import local_root
from grid.tracking.uri import EXPERIMENT, UI_HOST, store_uri, ui_arguments, ui_environment
from model.data.pack import Pack, prepare_pack
from model.errors import InputError
from model.network.checkpoint import checkpoint_sha256, load_checkpoint
from model.network.depth_network import NetworkSpec
from model.network.user_network import register_network

EXIT_OK, EXIT_INCOMPLETE, EXIT_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status (0 only if every planned cell is ok or excluded)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows ASCII alone
    try:
        return run(parse(sys.argv[1:] if arguments is None else arguments))
    except InputError as error:
        print(error, file=sys.stderr)
        return EXIT_INPUT
    except Exception:  # a fault of ours, or of a library, whose message may hold the tracking URI
        print(masked(traceback.format_exc()), file=sys.stderr)
        return EXIT_INCOMPLETE
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept, and the same command goes on from there", file=sys.stderr)
        return EXIT_INTERRUPTED


def run(asked: argparse.Namespace) -> int:
    """One grid from the search space to the report, or one of the other things to do with a storage."""
    console = Console(highlight=False)
    target = parse_target(asked.target)
    if asked.ui is not None:
        return _open_ui(asked)
    if asked.report:
        return _report(asked, target, console)
    if asked.sync:
        return _sync(asked, target, console)
    if asked.export:
        return _export(asked, console)
    seeds = None if asked.seeds is None else read_seeds(asked.seeds)
    storage, remote = opened(asked.storage)
    own = register_network(Path(asked.network)) if asked.network else None
    overrides = [*([f"network.encoder={own}"] if own else []), *asked.set, *(["analyze=true"] if asked.analyze else [])]
    space = load_space(asked.grid, overrides, seeds)
    network = take_network(own, space.pack.input_size, storage) if own else None
    checkpoint, checkpoint_network = _checkpoint(asked, space)
    store = StageStore(storage, remote)
    require_writable(storage)
    pack = Pack(prepare_pack(asked.data, storage / "packs", _pack_spec(space, asked), _pack_progress(console)))
    plan = make_plan(space, checkpoint and checkpoint_sha256(checkpoint), pack.fingerprint, checkpoint_network)
    if asked.checkpoint and checkpoint_network and not any(node.stage == "load" for node in plan.nodes):
        problem = f"holds the network {dataclasses.asdict(checkpoint_network)}, which no cell of this grid has"
        raise InputError(str(checkpoint), problem, "a checkpoint of the grid's network, or --checkpoint none")
    store.verify_all(node.id for node in plan.nodes)  # a damaged result is missing, in the plan that is shown as well
    costs, trials = Costs(store, pack.size("train")), max(len(own_cores()) // max(asked.cpus_per_trial, 1), 1)
    described = describe(plan, store)
    to_do = [node.id for node in plan.nodes if not store.has(node.id)]
    estimate = f"about {duration(costs.wall_seconds(plan, to_do, trials))} on this machine, {trials} stages at a time"
    if asked.dry_run:
        print("\n".join([*described, "", estimate]))
        return EXIT_OK
    console.print(f"plan       {described[0]}", f"           {estimate}", sep="\n", markup=False, soft_wrap=True)
    progress = Progress(plan, store, console, costs, trials)
    stall_s = asked.stall_minutes * 60 if asked.stall_minutes > 0 else None
    kept = checkpoint and kept_copy(checkpoint, storage / "checkpoints")
    context = Context(storage, pack.path, kept, network=network, stall_s=stall_s, remote=remote)
    for file in filter(None, (context.pack, context.checkpoint, context.network)):
        if remote is not None:
            remote.push_file(file.relative_to(storage).as_posix())
    named = asked.resume or asked.run_name
    wanted = checked_run_name(named or f"{space.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    with only_driver(storage, wanted, new=named is None) as run_name:
        return _run_plan(asked, target, run_name, plan, described, store, pack, context, progress)


def _finished(asked: argparse.Namespace, flag: str, run_name: str) -> tuple[RunFiles, StageStore]:
    """The files of a run and its store; with a storage by URI, all that this machine lacks of them is fetched."""
    files, store = RunFiles.load(known_run(flag, run_name, asked.storage)), StageStore(*opened(asked.storage))
    store.verify_all(node for cell in files.plan.cells for node in cell.nodes.values())
    if store.remote is not None:
        store.remote.pull_files("packs")
    return files, store


def _report(asked: argparse.Namespace, target: Target, console: Console) -> int:
    """Make the report of a run again, from its folder and the stages in the store."""
    files, store = _finished(asked, "--report", asked.report)
    require_writable(store.root)
    files.write(store, target)
    _share(asked.report, store)
    rows = files.rows(store)
    console.print(summary(rows, recommend(rows, target), files.folder), markup=False, soft_wrap=True)
    return EXIT_OK


def _export(asked: argparse.Namespace, console: Console) -> int:
    """Write the network of a cell as a file for an engine, with its card and a script that runs it."""
    from grid.run.export import CARD, SCRIPT, export_cell

    _, store = _finished(asked, "--export", asked.export.partition("/")[0])
    out = Path(asked.out)
    if asked.network:
        register_network(Path(asked.network))
    file = export_cell(store.root, asked.export, asked.engine, out)
    found = json.loads((out / CARD).read_text())
    console.print(f"{file}  {file.stat().st_size / 1e6:.2f} MB  sha256 {found['file']['sha256']}", soft_wrap=True)
    if found["metrics"]:
        console.print(f"test SSIM  {found['metrics']['ssim']:.4f} over {found['metrics']['test_images']} pictures")
    console.print(f"card       {out / CARD}\nrun it     python {out / SCRIPT} IMAGE", soft_wrap=True, markup=False)
    return EXIT_OK


def _sync(asked: argparse.Namespace, target: Target, console: Console) -> int:
    """Write to MLflow what a run has and MLflow lacks, such as after its server was down."""
    from grid.run.recorder import Recorder

    files, store = _finished(asked, "--sync", asked.sync)
    pack = pack_of(store.root, files.context)
    if pack is None:
        problem = f"has no packed data of {asked.sync} any more"
        raise InputError(f"{store.root}/packs", problem, "what the run left there", f"--resume {asked.sync} makes it.")
    with only_driver(store.root, asked.sync):
        recorder = Recorder(files, store, pack, asked.tracking_uri, target)
        rows = recorder.finish(files.failures)
        _share(asked.sync, store)
    if recorder.problem:
        raise InputError("--sync", recorder.problem, "an MLflow store that can be written to")
    console.print(f"{asked.sync}: {len(rows)} cells are in MLflow  {recorder.ui_command}", soft_wrap=True, markup=False)
    return EXIT_OK


def _open_ui(asked: argparse.Namespace) -> int:
    """Serve the MLflow pages on this machine until Ctrl-C."""
    storage = local_root(asked.storage)
    uri = asked.tracking_uri or store_uri(storage)
    if uri.startswith("http"):
        raise InputError("--ui", f"{masked(uri)} is a server with pages of its own", "a database")
    if uri == store_uri(storage) and not (storage / "mlflow.db").is_file():
        raise InputError("--ui", f"{asked.storage} holds no runs", "a storage in which a grid has run")
    from grid.tracking.mlflow_store import runs_page  # imports mlflow, as the server will

    print(f"MLflow     http://{UI_HOST}:{asked.ui}{runs_page(uri, EXPERIMENT)}  (Ctrl-C ends it)", flush=True)
    return subprocess.run(ui_arguments(asked.ui), env=os.environ | ui_environment(uri), check=False).returncode


def _run_plan(
    asked: argparse.Namespace,
    target: Target,
    run_name: str,
    plan: Plan,
    described: list[str],
    store: StageStore,
    pack: Pack,
    context: Context,
    progress: Progress,
) -> int:
    from grid.run.recorder import (  # imports mlflow: seconds that a wrong command need not wait for
        Recorder,
        run_context,
    )
    from grid.scheduling.tune import Ended, Resources, cluster, run_plan

    def say(text: str) -> None:
        progress.console.print(text, markup=False, soft_wrap=True)

    def left_over() -> str:
        to_do = sum(not store.has(node.id) for node in plan.nodes)
        return f"{to_do} stages are left, about {needed_mb(store, to_do):.0f} MB."

    resources = Resources(asked.cpus_per_trial, asked.gpus_per_trial, asked.address, asked.retries)
    run_dir = store.root / run_name
    files = RunFiles(run_dir, plan, run_context(plan, pack, run_name, repeating_command(asked)))
    recorder = Recorder(files, store, pack, asked.tracking_uri, target, say)
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "run.json").write_text(json.dumps(saved(asked, run_name), indent=1), encoding="utf-8")
    (run_dir / "plan.txt").write_text("\n".join(described) + "\n", encoding="utf-8")
    files.save()
    _share(run_name, store)
    say(f"run        {run_dir}\nMLflow     {recorder.ui_command}")
    ended, interrupted = Ended({}), False
    try:
        with progress:
            for restarts in range(resources.retries + 1) if progress.to_do else ():
                with cluster(resources) as dashboard:
                    say(f"dashboard  {dashboard.how_to_open()}")
                    say(f"metrics    {' '.join(dashboard.metrics_urls)}")
                    ended = run_plan(plan, context, resources, recorder.beside(progress))
                if not ended.ray_died:
                    break
                say("Ray died" + ("; it is started again" if restarts < resources.retries else ""))
        # Tune takes Ctrl-C as the end of its work and returns as if all were well.
        left = [node for node in plan.nodes if not store.has(node.id) and node.id not in ended.failures]
        interrupted = bool(left) and not ended.stopped
    except KeyboardInterrupt:
        interrupted = True
    where = f" --storage {shlex.quote(masked(asked.storage))}" if asked.storage != "results" else ""
    where += f" --tracking-uri {shlex.quote(masked(asked.tracking_uri))}" if asked.tracking_uri else ""
    go_on = f"Finished stages are kept. Go on with: python runner.py --resume {run_name}{where}"
    try:
        rows = recorder.finish(ended.failures)
        _share(run_name, store)
    except OSError as error:
        say(f"STOPPED: {ended.stopped or f'{run_dir} cannot be written to ({error})'}. {left_over()} {go_on}")
        return EXIT_INCOMPLETE
    found = recommend(rows, target)
    say(summary(rows, found, run_dir))
    if asked.register and not found.cell:
        say(f"not registered: {found.refusal or 'no cell meets the target'}")
    elif asked.register and found.cell and not interrupted and not recorder.problem:
        say(f"registered {recorder.register(first_member(rows, found.cell), asked.register)}")
    if ended.stopped:
        say(f"STOPPED: {ended.stopped}. {left_over()}")
    if recorder.problem:
        say(f"MLflow lacks results. Write them with: python runner.py --sync {run_name}{where}")
    bad = [row for row in rows if row["status"] not in ("ok", "excluded")]
    if interrupted or bad:
        say(go_on)
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_INCOMPLETE if bad or recorder.problem else EXIT_OK


def _share(run_name: str, store: StageStore) -> None:
    """Upload a run's folder where the storage is a URI."""
    if store.remote is not None:
        store.remote.push_folder(run_name)


def _checkpoint(asked: argparse.Namespace, space: SearchSpace) -> tuple[Path | None, NetworkSpec | None]:
    """The checkpoint to start from and its network, read once here so that a bad one fails before any work."""
    given = asked.checkpoint or (str(ROOMS_CHECKPOINT) if asked.data == "rooms" else "none")
    if given == "none":
        return None, None
    bare = NetworkSpec(str(space.base["network.encoder"]), space.pack.input_size)
    _, spec, _ = load_checkpoint(Path(given), bare)
    return Path(given).absolute(), spec


def _pack_spec(space: SearchSpace, asked: argparse.Namespace):
    return dataclasses.replace(space.pack, skip_bad=space.pack.skip_bad or asked.skip_bad)


def _pack_progress(console: Console):
    """Prints packing progress: a rewritten line on a terminal, every tenth of the way elsewhere."""

    def report(done: int, total: int, text: str) -> None:
        if console.is_terminal:
            print(f"\r{text}: {done}/{total} ", end="" if done < total else "\n", flush=True)
        elif done == total or done % max(total // 10, 1) == 0:
            print(f"{text}: {done}/{total}", flush=True)

    return report


if __name__ == "__main__":
    sys.exit(main())
