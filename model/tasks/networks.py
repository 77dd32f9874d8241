"""Which network a task has: one that is named, or its own."""

from pathlib import Path
from types import ModuleType

from model.data.pack import Pack
from model.errors import InputError
from model.network.spec import DEPTH, LIBRARIES, NetworkSpec
from model.network.user_network import register_network
from model.tasks.load import task_module


def network_for(pack: Pack, task: str, name: str | None) -> NetworkSpec:
    """The network ``name`` (own/..., timm/..., torchvision/...) for the inputs and classes of a pack.

    Without a name that of the task: the ``build`` of its file, or the ``NETWORK`` that it names. Raises InputError
    where it has neither, and where the number of outputs of a library's network is not known.
    """
    if pack.task.name == DEPTH:
        return NetworkSpec(name or NetworkSpec.encoder, pack.input_size)
    name = name or network_of_task(task)
    if name.startswith(LIBRARIES) and not pack.task.classes:
        problem = f"its train dataset has no classes, by which {name} gets its outputs"
        raise InputError(task, problem, "a list `classes` of their names there, or a network of your own")
    channels, height, width = pack.input_shape
    plain = (channels, height, width) == (3, pack.input_size, pack.input_size)
    return NetworkSpec(
        name,
        pack.input_size,
        pack.task.name,
        "" if plain else f"{channels}x{height}x{width}",
        len(pack.task.classes),
    )


def network_of_task(task: str) -> str:
    """The name of a task's own network, which is made known where it is a function of its file."""
    built, module = register_task_network(task)
    if built is not None:
        return built
    named = getattr(module, "NETWORK", None)
    if not isinstance(named, str) or not named.startswith(LIBRARIES):
        problem = "has no network: neither a function build nor a NETWORK"
        raise InputError(str(module.__file__), problem, "one of them, or --network", "docs/tasks.md shows whole ones.")
    return named


def register_task_network(task: str) -> tuple[str | None, ModuleType]:
    """Make the network known that a task's file builds; returns its name, None where there is none, and the module."""
    _, _, module = task_module(task)
    if not callable(getattr(module, "build", None)):
        return None, module
    return register_network(Path(str(module.__file__))), module
