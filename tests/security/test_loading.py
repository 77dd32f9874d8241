"""What is read is data: no file that the code loads can run code of its own, read from the syntax of every file."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("grid", "model", "quant", "benchmarks", "audit")
FILES = [ROOT / "runner.py", *(path for name in FOLDERS for path in sorted((ROOT / name).rglob("*.py")))]
PICKLES = ("pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal", "jsonpickle")
RUNS_TEXT = ("eval", "exec", "compile", "os.system", "os.popen", "importlib.util.spec_from_file_location")
YAML = ("yaml.load", "yaml.load_all", "yaml.compose")

REASONS = {
    ("quant/artifact.py", "import pickle.UnpicklingError"): "the name of an error, nothing is unpickled",
    (
        "model/network/user_network.py",
        "importlib.util.spec_from_file_location",
    ): "--network FILE runs the file that the user names",
}
"""Uses that are as they should be, and why."""


def text_of(node: ast.expr) -> str:
    """``a.b.c`` for a chain of attributes, else an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and text_of(node.value):
        return f"{text_of(node.value)}.{node.attr}"
    return ""


def full_names(tree: ast.Module) -> dict[str, str]:
    """What the names of a file's imports stand for: ``np`` -> ``numpy``, ``load`` -> ``torch.load``."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom):
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def risks(tree: ast.Module) -> list[tuple[int, str]]:
    """Lines at which a file could run code that it reads, with what does it there."""
    found = []
    names = full_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, f"import {alias.name}") for alias in node.names if _pickles(alias.name)]
        elif isinstance(node, ast.ImportFrom) and _pickles(node.module or ""):
            found += [(node.lineno, f"import {node.module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call):
            first, dot, rest = text_of(node.func).partition(".")
            called = names.get(first, first) + dot + rest
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            if _may_run_code(called, given):
                found.append((node.lineno, called))
    return found


def _pickles(module: str) -> bool:
    return module.partition(".")[0] in PICKLES


def _may_run_code(called: str, given: dict[str | None, ast.expr]) -> bool:
    if called == "torch.load":
        return not _is(given.get("weights_only"), True)
    if called in YAML:
        return not text_of(given["Loader"]).endswith("SafeLoader") if "Loader" in given else True
    if called.startswith("yaml."):
        return called.startswith(("yaml.unsafe_", "yaml.full_"))
    if called in ("torch.jit.load", "torch.hub.load", "pandas.read_pickle", "torch.package.PackageImporter"):
        return True
    if called in RUNS_TEXT:
        return True
    return not all(_is(given.get(name, ast.Constant(False)), False) for name in ("allow_pickle", "shell"))


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_no_file_loads_what_could_run_code_but_for_the_reasons_above():
    found = [
        (str(path.relative_to(ROOT)), line, what)
        for path in FILES
        for line, what in risks(ast.parse(path.read_text(), str(path)))
    ]
    assert [(file, line, what) for file, line, what in found if (file, what) not in REASONS] == []
    assert {(file, what) for file, _, what in found} == set(REASONS), "no reason outlives its use"
    assert len(FILES) > 100


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import torch\ntorch.load(f)", "torch.load"),
        ("import torch\ntorch.load(f, weights_only=False)", "torch.load"),
        ("import torch\ntorch.load(f, weights_only=flag)", "torch.load"),
        ("from torch import load\nload(f)", "torch.load"),
        ("import torch as t\nt.load(f)", "torch.load"),
        ("import pickle", "import pickle"),
        ("def f():\n    from joblib import load", "import joblib.load"),
        ("import cloudpickle.fast", "import cloudpickle.fast"),
        ("import numpy as np\nnp.load(f, allow_pickle=True)", "numpy.load"),
        ("import yaml\nyaml.load(f)", "yaml.load"),
        ("import yaml\nyaml.load(f, Loader=yaml.FullLoader)", "yaml.load"),
        ("from yaml import unsafe_load\nunsafe_load(f)", "yaml.unsafe_load"),
        ("eval(text)", "eval"),
        ("exec(text)", "exec"),
        ("import subprocess\nsubprocess.run(text, shell=True)", "subprocess.run"),
        ("from subprocess import Popen\nPopen(text, shell=yes)", "subprocess.Popen"),
        ("import os\nos.system(text)", "os.system"),
        ("import pandas as pd\npd.read_pickle(f)", "pandas.read_pickle"),
    ],
)
def test_every_way_to_run_what_is_read_is_seen(text, what):
    assert [found for _, found in risks(ast.parse(text))] == [what]


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.load(f, weights_only=True)",
        "import numpy as np\nnp.load(f)\nnp.load(f, allow_pickle=False)",
        "import yaml\nyaml.safe_load(f)\nyaml.compose(f, Loader=yaml.SafeLoader)",
        "network.eval()\nimport re\nre.compile(x)",
        "import subprocess\nsubprocess.run([a], shell=False)",
    ],
)
def test_what_only_reads_data_is_not_reported(text):
    assert risks(ast.parse(text)) == []
