"""The boundaries of the packages: rules about folders, which follow imports through, and hold for new files too."""

import ast

import pytest

from tests.import_graph import dotted, imported_modules, imports, is_within, loaded_with, modules, product, syntax

ONLY_IN = {
    "ray": ("grid/scheduling/",),
    "mlflow": ("grid/tracking/",),
    "plotly": ("grid/report/",),
    "matplotlib": ("grid/report/", "grid/stages/", "model/data/rooms/"),
    "jinja2": ("grid/report/",),
    "torch.ao": ("quant/",),
    "torchao": ("quant/",),
    "executorch": ("quant/",),
    "onnx": ("quant/",),
    "onnxruntime": ("quant/",),
    "ai_edge_litert": ("quant/",),
    "litert_torch": ("quant/",),
}
"""Libraries, and the folders that may import them."""

PLANNED = ("grid", "grid/space", "grid/planning")
COMPUTED = (*PLANNED, "grid/storage", "grid/devices", "grid/stages")
FINISHED = (*COMPUTED, "grid/results", "grid/report")
MAY_IMPORT = {
    "model": (),
    "quant": ("model",),
    "grid": (),
    "grid/space": ("grid", "model", "quant"),
    "grid/planning": ("grid", "grid/space", "model", "quant"),
    "grid/storage": (*PLANNED, "model", "quant"),
    "grid/devices": ("grid", "grid/space", "grid/storage", "model"),
    "grid/stages": (*PLANNED, "grid/storage", "grid/devices", "model", "quant"),
    "grid/scheduling": (*COMPUTED, "model", "quant"),
    "grid/results": (*COMPUTED, "model", "quant"),
    "grid/report": (*COMPUTED, "grid/results", "model", "quant"),
    "grid/tracking": ("grid", "grid/storage", "model", "quant"),
    "grid/run": (*FINISHED, "grid/scheduling", "grid/tracking", "model", "quant"),
    "runner.py": (*FINISHED, "grid/scheduling", "grid/tracking", "grid/run", "model", "quant"),
}
"""From the bottom up: a folder imports itself and what is named here, and nothing imports back up."""

MAY_PRINT = (
    "runner.py",
    "grid/report/",
    "grid/run/",
    "model/__main__.py",
    "quant/engines/executorch_runner/__main__.py",
    "quant/engines/run_file.py",  # the script beside an exported network
    "quant/engines/run_on_device.py",  # the script that answers from a device
)
LOADS_RAY = ("grid.scheduling.",)
LOADS_MLFLOW = ("grid.tracking.",)
LOADS_TORCH_AO = ("quant.engines.saturation",)


def folder_of(file: str) -> str:
    """The folder of MAY_IMPORT that a file belongs to."""
    return max((one for one in MAY_IMPORT if file == one or file.startswith(f"{one}/")), key=len)


def test_the_files_of_all_packages_are_looked_at():
    assert len(product()) > 100
    known = {"grid/scheduling/tune.py", "quant/engines/qnnpack.py", "model/network/depth_network.py", "runner.py"}
    assert known <= set(product())
    assert {folder_of(file) for file in product()} == MAY_IMPORT.keys()


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_heavy_library_is_imported_only_where_it_belongs(library):
    users = [file for file in product() if any(is_within(name, library) for name in imports(syntax(file)))]
    assert [file for file in users if not file.startswith(ONLY_IN[library])] == []
    if library in ("ray", "mlflow", "torch.ao", "executorch", "onnxruntime"):
        assert users, "the test must be able to see it"


def test_every_folder_imports_only_those_below_it():
    back_up = {}
    for file in product():
        own = folder_of(file)
        for module in imported_modules(file):
            other = folder_of(modules()[module])
            if other != own and other not in MAY_IMPORT[own]:
                back_up.setdefault(f"{own} -> {other}", []).append(f"{file} imports {module}")
    assert back_up == {}


def test_the_order_of_folders_has_no_circle():
    order = list(MAY_IMPORT)
    for folder, others in MAY_IMPORT.items():
        assert all(order.index(other) < order.index(folder) for other in others), folder


@pytest.mark.parametrize(
    ("library", "where"),
    [("ray", LOADS_RAY), ("mlflow", LOADS_MLFLOW), ("torch.ao", LOADS_TORCH_AO)],
    ids=["ray", "mlflow", "torch.ao"],
)
def test_importing_anything_else_does_not_load_a_heavy_library(library, where):
    """``--help``, ``--report``, ``--dry-run`` and refusals answer at once, ``--sync`` starts no Ray.

    And without ``torch.ao`` all works but PyTorch's own int8 engines.
    """
    loads = {}
    for module in modules():
        for name, file in loaded_with(module).items():
            if is_within(name, library):
                loads[module] = f"{module} loads {library} through {file}"
    assert [line for module, line in loads.items() if not module.startswith(where)] == []
    assert loads, "the test must be able to see it"


def test_imports_inside_the_project_are_absolute():
    """A relative import would slip past the rules above."""
    for file in product():
        for node in ast.walk(syntax(file)):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{file}:{node.lineno}"


def printing(tree: ast.Module) -> list[int]:
    """Lines that print: the builtin, and writing to the standard streams."""
    printers = ("print", "sys.stdout.write", "sys.stderr.write", "os.write", "pprint.pprint")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return sorted(call.lineno for call in calls if dotted(call.func) in printers)


def test_only_the_command_lines_and_the_report_print():
    offenders = {file: printing(syntax(file)) for file in product() if not file.startswith(MAY_PRINT)}
    assert {file: lines for file, lines in offenders.items() if lines} == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import ray", {"ray"}),
        ("def f():\n    from ray.tune import run", {"ray.tune.run"}),
        ("import importlib\nimportlib.import_module('mlflow.pyfunc')", {"importlib", "mlflow.pyfunc"}),
        ("import torch\ntorch.ao.nn", {"torch", "torch.ao", "torch.ao.nn"}),
        ("from torch import ao", {"torch.ao"}),
    ],
)
def test_every_way_to_import_is_seen(text, expected):
    assert imports(ast.parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f():\n    import ray", set()),
        ("class A:\n    import ray", {"ray"}),
        ("try:\n    import ray\nexcept ImportError:\n    pass", {"ray"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ray", {"typing.TYPE_CHECKING"}),
    ],
)
def test_what_importing_a_file_imports_is_told_from_what_calling_it_does(text, expected):
    assert imports(ast.parse(text), inside_functions=False) == expected


def test_every_way_to_print_is_seen():
    assert printing(ast.parse("def f():\n    print(1)\nimport sys\nsys.stderr.write('x')")) == [2, 4]
    assert printing(ast.parse("console.print(1)\nfootprint(2)")) == []
