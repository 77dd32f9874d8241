"""The boundaries of the packages, read from the syntax of every file, so that a new file is held to them too."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("grid", "model", "quant")
FILES = ["runner.py"]
FILES += sorted(str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

ONLY_IN = {
    "ray": (
        "grid/scheduling/tune.py",
        "grid/scheduling/searcher.py",
        "grid/scheduling/worker.py",
        "grid/scheduling/profiler.py",
        "grid/scheduling/metrics.py",
    ),
    "mlflow": ("grid/tracking/mlflow_store.py", "grid/tracking/serving.py"),
    "plotly": ("grid/report/interactive.py",),
    "markdown_it": ("grid/report/html.py", "grid/report/page_tokens.py"),
    "torch.ao": ("quant/engines/",),
    "torchao": ("quant/",),
    "executorch": ("quant/",),
    "onnxruntime": ("quant/",),
}
NEVER_IN = {
    "model/": ("quant", "grid", "runner"),
    "quant/": ("ray", "mlflow", "yaml", "grid", "runner"),
    "grid/": ("runner",),
}
MAY_PRINT = (
    "quant/engines/run_file.py",
    "runner.py",
    "grid/report/report.py",
    "model/__main__.py",
    "model/data/rooms/render.py",
)


@cache
def syntax(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(), file)


def dotted(node: ast.expr) -> str:
    """``a.b.c`` for a chain of attributes, else an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and dotted(node.value):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def imports(tree: ast.Module) -> set[str]:
    """All modules that a file imports, also inside functions, by name, and by attribute (``torch.ao.x`` as used)."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and dotted(node.func).endswith(("import_module", "__import__")):
            found.update(arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))
        elif isinstance(node, ast.Attribute):
            found.update({dotted(node)} if dotted(node).startswith("torch.") else ())
    return found


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def test_the_files_of_all_packages_are_looked_at():
    assert len(FILES) > 40
    assert {
        "grid/scheduling/tune.py",
        "quant/engines/qnnpack.py",
        "model/network/depth_network.py",
        "runner.py",
    } <= set(FILES)


@pytest.mark.parametrize("module", ONLY_IN)
def test_a_heavy_library_is_imported_only_where_it_belongs(module):
    users = [file for file in FILES if any(is_within(name, module) for name in imports(syntax(file)))]
    outside = [file for file in users if not file.startswith(ONLY_IN[module])]
    assert not outside, f"{module} belongs to {' and '.join(ONLY_IN[module])} alone"
    if module in ("ray", "mlflow", "torch.ao"):
        assert users, "the test must be able to see it"


@pytest.mark.parametrize("package", NEVER_IN)
def test_a_package_does_not_know_those_above_it(package):
    offenders = {
        file: [name for name in imports(syntax(file)) if any(is_within(name, banned) for banned in NEVER_IN[package])]
        for file in FILES
        if file.startswith(package)
    }
    assert {file: names for file, names in offenders.items() if names} == {}


def test_imports_inside_the_project_are_absolute():
    """A relative import would slip past the rules above."""
    for file in FILES:
        for node in ast.walk(syntax(file)):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{file}:{node.lineno}"


def printing(tree: ast.Module) -> list[int]:
    """Lines that print: the builtin, and writing to the standard streams."""
    printers = ("print", "sys.stdout.write", "sys.stderr.write", "os.write", "pprint.pprint")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return sorted(call.lineno for call in calls if dotted(call.func) in printers)


def test_only_the_command_lines_and_the_report_print():
    offenders = {file: printing(syntax(file)) for file in FILES if file not in MAY_PRINT}
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


def test_every_way_to_print_is_seen():
    assert printing(ast.parse("def f():\n    print(1)\nimport sys\nsys.stderr.write('x')")) == [2, 4]
    assert printing(ast.parse("console.print(1)\nfootprint(2)")) == []
