"""A grid that is ready to run: everything that it needs was read, checked and planned."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from grid.devices.address import Device, read_devices
from grid.paths import ROOMS_CHECKPOINTS
from grid.planning.combinations import network_of
from grid.planning.plan import Plan, make_plan
from grid.planning.void_init import require_init_used
from grid.results.comparisons.margins import Margins, parse_margins
from grid.results.measures import measures_of
from grid.results.target import Target, parse_target
from grid.run.costs import Costs
from grid.run.networks import aside, branched_networks, require_task_works, take_network
from grid.run.options import Options, read_seeds
from grid.run.plan_text import describe
from grid.run.progress import say
from grid.scheduling.cores import own_cores
from grid.scheduling.resources import Resources
from grid.space.search_space import Preferred, SearchSpace, load_space, of_task
from grid.space.settings import LOCAL
from grid.stages.work import Context
from grid.storage.copies import kept_copy
from grid.storage.disk import require_writable
from grid.storage.remote import Remote, open_storage
from grid.storage.result_store import StageStore
from grid.storage.runs import checked_run_name
from model.data.pack import Pack
from model.data.task_pack import prepare_data
from model.errors import InputError
from model.network.checkpoint import checkpoint_sha256, load_checkpoint
from model.network.spec import DEPTH, LIBRARIES, NetworkSpec
from model.network.user_network import OWN, register_network
from model.progress import duration
from model.tasks.load import task_facts, task_settings
from model.tasks.networks import network_for, network_of_task
from quant.engines.catalog import ON_DEVICES

_REWRITTEN_S = 0.1  # between two states of a line on a terminal


@dataclass(frozen=True)
class Job:
    """What a run works on.

    ``name`` is that of the run, for which a number is added where it ``is_new`` and taken. ``described`` is the plan
    as text before the run.
    """

    options: Options
    target: Target
    margins: Margins
    resources: Resources
    plan: Plan
    store: StageStore
    pack: Pack
    context: Context
    name: str
    is_new: bool
    described: tuple[str, ...]
    costs: Costs
    console: Console

    @property
    def storage(self) -> Path:
        """The folder of the storage on this machine."""
        return self.store.root

    @property
    def trials(self) -> int:
        """How many stages can run at a time on this machine."""
        return max(len(own_cores()) // max(self.options.cpus_per_trial, 1), 1)

    @property
    def estimate(self) -> str:
        """How long the stages that the store lacks will take."""
        seconds = self.costs.wall_seconds(self.plan, self.to_do(), self.trials)
        return f"about {duration(seconds)} on this machine, {self.trials} stages at a time"

    def to_do(self) -> list[str]:
        """Ids of the stages that the store lacks now."""
        return [node.id for node in self.plan.nodes if not self.store.has(node.id)]

    def say(self, text: str) -> None:
        """Print a text, above the table of a run that is in progress."""
        say(self.console, text)


def prepare(options: Options) -> Job:
    """Read, check and plan a grid, and pack its data; nothing is computed.

    Only a dry run leaves no copies for workers in the storage. Raises InputError for whatever is wrong.
    """
    console = Console(highlight=False)
    measures = measures_of(task_facts(options.task))
    target, margins = parse_target(options.target, measures), parse_margins(options.margin, measures.margins)
    resources = Resources() if options.dry_run else _resources(options)
    seeds = None if options.seeds is None else read_seeds(options.seeds)
    storage, remote = open_storage(options.storage)
    devices = read_devices(options.device)
    named = _named_network(options)
    told = [f"network.encoder={named}"] if named else []
    preferred = Preferred(*task_settings(options.task))
    space = load_space(options.grid, [*told, *options.overrides], seeds, preferred)
    bare = network_of(space.base)
    # What is wrong with a network of depth is told before its data are packed; others are built for the data.
    tried = _tried(options, space, bare, storage) if options.task == DEPTH else None
    store = StageStore(storage, remote)
    require_writable(storage)
    pack = _pack(options, space, storage, remote, console)
    if tried is None:
        bare = network_for(pack, options.task, bare.encoder)
        space = of_task(space, bare)
        tried = _tried(options, space, bare, storage)
        require_task_works(space, pack, options.task)
    network, branched, checkpoint, checkpoint_network = tried
    sha256 = checkpoint_sha256(checkpoint) if checkpoint else None
    plan = make_plan(space, sha256, pack.fingerprint, checkpoint_network, branched)
    _require_devices(plan, devices)
    if not options.resume:  # a run of before this check still ends
        require_init_used(space, plan, options.checkpoint or "the checkpoint that ships")
    if options.checkpoint and checkpoint_network and not any(node.stage == "load" for node in plan.nodes):
        problem = f"holds the network {dataclasses.asdict(checkpoint_network)}, which no cell of this grid has"
        raise InputError(str(checkpoint), problem, "a checkpoint of the grid's network, or --checkpoint none")
    store.verify_all(node.id for node in plan.nodes)  # a damaged result is missing, in the plan that is shown as well
    given = options.resume or options.run_name
    name = given or f"{space.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    stall_s = options.stall_minutes * 60 if options.stall_minutes > 0 else None
    task = kept_copy(Path(options.task), storage / "tasks") if pack.task.name.startswith(OWN) else None
    context = Context(
        storage,
        pack.path,
        checkpoint,
        network=network,
        task=task,
        stall_s=stall_s,
        remote=remote,
        cache=space.pack.cache,
        devices=devices,
    )
    return Job(
        options=options,
        target=target,
        margins=margins,
        resources=resources,
        plan=plan,
        store=store,
        pack=pack,
        context=context if options.dry_run else _provided(context),
        name=name if options.dry_run else checked_run_name(name),
        is_new=given is None,
        described=tuple(describe(plan, store)),
        costs=Costs(store, pack.size("train")),
        console=console,
    )


def _require_devices(plan: Plan, devices: Sequence[Device]) -> None:
    """Raise InputError for a device that no cell can use, or that has no address."""
    known = {device.label for device in devices}
    for label in sorted({str(cell.settings["device"]) for cell in plan.cells} - known - {LOCAL}):
        expected = "one that --device names" if not known else f"one of {', '.join(sorted(known))}"
        raise InputError("device", "has no address", expected, "--device NAME=ssh://user@host", value=repr(label))
    for label in sorted(known - {str(cell.settings["device"]) for cell in plan.cells if cell.nodes}):
        problem = "has nothing to measure: no engine of this grid runs there"
        expected = f"one of {', '.join(ON_DEVICES)}"
        raise InputError(f"--device {label}", problem, expected, f"Add --set engine={ON_DEVICES[0]}.")


def _resources(options: Options) -> Resources:
    return Resources(options.cpus_per_trial, options.gpus_per_trial, options.address, options.retries)


def _named_network(options: Options) -> str | None:
    """The network of the command line: a file, which is made known, or a name; else that of the task."""
    if options.network and options.network.startswith(LIBRARIES):
        return options.network
    if options.network:
        return register_network(Path(options.network))
    named = any(text.partition("=")[0].strip() == "network.encoder" for text in options.set)
    return None if options.task == DEPTH or named else network_of_task(options.task)


def _pack(options: Options, space: SearchSpace, storage: Path, remote: Remote | None, console: Console) -> Pack:
    """The packed data of the grid, which are packed where they are missing."""
    spec = dataclasses.replace(space.pack, skip_bad=space.pack.skip_bad or options.skip_bad)
    progress, fetch = _pack_progress(console), _pack_fetch(storage, remote)
    return Pack(prepare_data(options.task, options.data, storage / "packs", spec, progress, fetch))


def _pack_fetch(storage: Path, remote: Remote | None) -> Callable[[Path], None]:
    """Fetches a pack that another machine has made and shared."""

    def fetch(path: Path) -> None:
        if remote is not None:
            with contextlib.suppress(FileNotFoundError):
                remote.pull_file(path.relative_to(storage).as_posix())

    return fetch


def _provided(context: Context) -> Context:
    """The context with files that every worker reaches: a checkpoint of the storage's own, and uploads to its URI."""
    storage, remote, checkpoint = context.storage, context.remote, context.checkpoint
    context = dataclasses.replace(context, checkpoint=checkpoint and kept_copy(checkpoint, storage / "checkpoints"))
    for file in filter(None, (context.pack, context.checkpoint, context.network, context.task)):
        if remote is not None:
            remote.push_file(file.relative_to(storage).as_posix())
    return context


def show(job: Job) -> None:
    """Print the plan, and how long it will take."""
    print("\n".join([*job.described, "", job.estimate]))


def _tried(
    options: Options, space: SearchSpace, bare: NetworkSpec, storage: Path
) -> tuple[Path | None, frozenset[NetworkSpec], Path | None, NetworkSpec | None]:
    """All networks of the grid, tried: the file of one's own, those with branches, the checkpoint and its network."""
    network = take_network(bare, storage) if bare.encoder.startswith(OWN) else None
    return network, branched_networks(space), *_checkpoint(options, bare)


def _checkpoint(options: Options, bare: NetworkSpec) -> tuple[Path | None, NetworkSpec | None]:
    """The checkpoint to start from and its network, read once here so that a bad one fails before any work."""
    shipped = ROOMS_CHECKPOINTS.get(options.task) if options.data == "rooms" else None
    given = options.checkpoint or (str(shipped) if shipped and shipped.is_file() else "none")
    if given == "none":
        return None, None
    with aside() as process:
        spec = process.submit(_network_of, Path(given), bare).result()
    return Path(given).absolute(), spec


def _network_of(checkpoint: Path, bare: NetworkSpec) -> NetworkSpec:
    """The spec of a checkpoint that was read whole; what this imports and allocates ends with the child."""
    _, spec, _ = load_checkpoint(checkpoint, bare)
    return spec


def _pack_progress(console: Console) -> Callable[[int, int, str], None]:
    """Prints packing progress: a rewritten line on a terminal, every tenth of the way elsewhere."""
    shown = 0.0

    def report(done: int, total: int, text: str) -> None:
        nonlocal shown
        now = time.monotonic()
        if console.is_terminal and (done == total or now - shown > _REWRITTEN_S):
            shown = now
            print(f"\r\x1b[K{text}: {done}/{total} ", end="" if done < total else "\n", flush=True)
        elif not console.is_terminal and (done == total or done % max(total // 10, 1) == 0):
            print(f"{text}: {done}/{total}", flush=True)

    return report
