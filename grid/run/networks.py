"""The networks of a grid, tried before any work: what cannot be built, and what has branches to merge.

One of the user's own is kept where every node finds it.
"""

import ctypes
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from grid.planning.combinations import network_of
from grid.scheduling.cores import own_cores
from grid.space.search_space import SearchSpace
from grid.storage.copies import kept_copy
from model.data.pack import Pack
from model.errors import InputError
from model.network.spec import NetworkSpec
from model.network.user_network import OWN, own_network, register_network
from model.tasks.load import load_task, task_module

_PR_SET_PDEATHSIG = 1
"""See prctl(2)."""


def aside(count: int = 1) -> ProcessPoolExecutor:
    """Processes for what imports torchvision and timm, whose memory ends with them; they know own networks too."""
    return ProcessPoolExecutor(count, multiprocessing.get_context("fork"), _end_with_parent)


def branched_networks(space: SearchSpace) -> frozenset[NetworkSpec]:
    """Build every network of the grid once, on all cores; returns those with branches that can be merged.

    Raises one InputError that shows all networks that cannot be built, each where it was written.
    """
    others = [spec for spec in _networks(space) if spec.encoder != NetworkSpec.encoder]  # the default one has none
    if not others:
        return frozenset()
    with aside(min(len(others), len(own_cores()))) as processes:
        found = dict(zip(others, processes.map(_branched, others), strict=True))
    written = {entry.value: entry for entry in space.written if entry.key == "network.encoder"}
    errors = [
        written[spec.encoder].located(answer) if spec.encoder in written else answer
        for spec, answer in found.items()
        if isinstance(answer, InputError)
    ]
    if errors:
        raise InputError.all(errors)
    return frozenset(spec for spec, answer in found.items() if answer is True)


def _networks(space: SearchSpace) -> list[NetworkSpec]:
    varied = [key for key, _ in space.axes if key.startswith("network.")]
    return list(dict.fromkeys(network_of(settings) for settings in space.combinations(varied)))


def require_task_works(space: SearchSpace, pack: Pack, task: str) -> None:
    """Try the task (a built-in one's name, or a Python file) with every network of the grid on its first images.

    Raises InputError naming the file where its code fails or gives what cannot be used.
    """
    # Spawned, because autograd does not go on in a fork of a process that has used it.
    spawn = multiprocessing.get_context("spawn")
    for spec in _networks(space):
        file = own_network(spec.encoder).file if spec.encoder.startswith(OWN) else None
        try:
            with ProcessPoolExecutor(1, spawn, _end_with_parent) as process:
                process.submit(_try, spec, pack, task, file).result()
        except BrokenProcessPool:
            problem = f"ends the process in which it is tried with {spec.encoder}"
            raise InputError(task, problem, "code that goes on") from None


def _try(spec: NetworkSpec, pack: Pack, task: str, network: Path | None) -> None:
    from model.network.build import build_network
    from model.tasks.trial import try_task

    if network is not None:
        register_network(network)
    _, _, module = task_module(task)
    try_task(load_task(pack.task, Path(task)), Path(str(module.__file__)), build_network(spec), pack)


def _branched(spec: NetworkSpec) -> bool | InputError:
    from model.network.build import build_network, example_image
    from quant.tracing.branches import has_branches

    try:
        return has_branches(build_network(spec).eval(), example_image(spec))
    except InputError as error:
        return error


def _end_with_parent() -> None:
    """Have Linux end this process with its parent: a forked one waits for ever for work from a killed driver."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def take_network(spec: NetworkSpec, storage: Path) -> Path:
    """Try the registered network ``own/...`` on the whole way to int8; returns a copy of its file in the storage.

    The user's file may change while the grid runs. Raises InputError where the network cannot be built or quantized.
    """
    from model.network.build import build_network  # torchvision, timm and torch.fx: 0.2 GB, for this alone
    from quant.graph import UnsupportedNetworkError
    from quant.quantizable import require_quantizable

    own = own_network(spec.encoder)
    try:
        require_quantizable(build_network(spec), spec.shape)
    except UnsupportedNetworkError as error:
        problem, expected = f"its network cannot be quantized ({error})", "fixed sizes, and no branch on tensor values"
        raise InputError(str(own.file), problem, expected, "docs/own.md says what is possible.") from error
    kept = kept_copy(own.file, storage / "networks")
    register_network(kept)
    return kept


def kept_file(storage: Path, name: str, sha256: str, kind: str = "networks") -> Path:
    """Where a storage keeps the file of the network ``own/...``, or of the task where ``kind`` is tasks."""
    return storage / kind / sha256[:12] / f"{name.removeprefix(OWN)}.py"
