"""Every command in the README and in docs/: planned here, run elsewhere, or named with the reason why it is not."""

import re
import shlex
from pathlib import Path

import pytest

import runner
from grid.space.search_space import load_space
from tests.grid.tiny import ROOT
from tests.model.data.nyu_files import kaggle

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("python", "make", "conda", "ray", "mlflow", "pip", "curl", "bash")
ELSEWHERE = {
    "make grid": "the grid itself, tests/test_runner.py on a tiny one",
    'make grid ARGS="--seeds 0,1,2"': "options are passed on: tests/test_runner.py",
    "make test": ".ci/run",
    "make bench": "benchmarks/, by hand: a benchmark is no test",
    "make checkpoint": "70 minutes; tests/model/test_training.py trains",
    "python -m benchmarks NAME": "by hand, as make bench",
    "python -m benchmarks engines": "by hand, as make bench",
    "python -m benchmarks.engine_latency --tables FOLDER": "by hand, as make bench",
    "python -m model --network docs/examples/small_depth.py --data rooms --out small_depth.safetensors": (
        "tests/test_own_network.py, on a few pictures"
    ),
    "make engines": ".ci/run",
    "make pins": ".ci/run",
    "make audit": "asks the internet; tests/security/test_audit.py judges answers",
    'make audit ARGS="--service osv"': "as make audit",
    "python runner.py --export RUN/CELL --engine xnnpack --out exported": "tests/grid/test_export.py",
    "python runner.py --ui": "tests/test_runner.py opens the pages",
    "python runner.py --report RUN": "tests/test_runner.py",
    'python runner.py --report RUN --target "sqnr_db>=30, minimize size_mb"': "tests/test_runner.py",
    "python runner.py --resume NAME": "tests/test_runner.py",
    "python runner.py --sync RUN": "tests/faults/test_mlflow_down.py",
    "python runner.py --address auto --storage s3://BUCKET/PREFIX --tracking-uri http://MLFLOW:5000": (
        "tests/faults/test_cluster.py"
    ),
    "make faults": "half an hour, by hand; make test has a part of it",
    "python -m tests.bad_input": "counts the inputs of tests/bad_input/",
    'python runner.py --address auto --storage "s3://BUCKET/PREFIX?endpoint_override=HOST:9000&scheme=http"': (
        "tests/faults/test_cluster.py"
    ),
    "python runner.py --grid smoke --address 127.0.0.1:6379 --storage file:///tmp/shared": "as above",
    "python -m model": "the name of a command, above",
}
NOT_RUN = {
    "conda env create -f environment.yml && conda activate quantization-grid && python runner.py --grid full": (
        "no conda here; the file names requirements.txt and nothing else"
    ),
    "ray metrics launch-prometheus": "downloads from GitHub",
    "ray metrics shutdown-prometheus": "goes with the former",
    "ray start": "Ray's own",
    "ray start --head": "Ray's own",
    "ray start --head --metrics-export-port=8080": "Ray's own",
    "ray get-auth-token": "Ray's own",
    "ray get-auth-token --generate": "Ray's own",
    "ray start --head --port=6379": "Ray's own; tests/faults/test_cluster.py starts five nodes",
    "ray start --address=HEAD:6379": "as above",
    "ray start --address=HEAD:6379 --resources '{\"profiler\": 1}'": "as above",
    "ray stop": "Ray's own",
    "ray up cluster/ray-cluster.yaml": "rents machines; tests/test_cluster_files.py checks the file",
    "ray down cluster/ray-cluster.yaml": "as above",
    'ray exec cluster/ray-cluster.yaml "cd /opt/quantization-grid && python runner.py --address auto --storage '
    's3://BUCKET/PREFIX"': "as above",
    "pip install psycopg2-binary": "PostgreSQL's own",
    "mlflow server --host 0.0.0.0 --port 5000 --artifacts-destination s3://BUCKET/mlflow --allowed-hosts MLFLOW:5000": (
        "MLflow's own; tests/faults/mlflow_server.py starts one"
    ),
    "curl -s http://127.0.0.1:PORT/metrics | grep ray_quantization_grid": "tests/grid/test_ray_metrics.py reads it",
}


def commands(page: Path) -> list[str]:
    """Commands in indented blocks (with lines that a backslash continues) and between single backticks."""
    text = page.read_text()
    blocks = re.findall(r"^    (\S(?:.*\\\n)*.*)$", text, re.MULTILINE)
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^    .*$", "", text, flags=re.MULTILINE))
    found = [re.sub(r"\s+", " ", re.sub(r"\s{2,}# .*$", "", one.replace("\\\n", " "))) for one in (*blocks, *inline)]
    return [one.strip() for one in found if one.split()[0] in PROGRAMS and len(one.split()) > 1]


ALL = sorted({command for page in PAGES for command in commands(page)})
PLANNED = [command for command in ALL if command not in {**ELSEWHERE, **NOT_RUN}]


def test_the_lists_hold_nothing_that_the_docs_have_lost():
    assert {**ELSEWHERE, **NOT_RUN}.keys() <= set(ALL)


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder with pictures, a checkpoint of the example's network, and the files that the docs speak of."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("PATH", "rooms_of_mine"):
        kaggle(folder / name)
    for name in ("docs", "checkpoints"):
        (folder / name).symlink_to(ROOT / name)
    from model.network.checkpoint import save_checkpoint
    from model.network.depth_network import NetworkSpec, build_network
    from model.network.user_network import register_network

    spec = NetworkSpec(register_network(ROOT / "docs" / "examples" / "small_depth.py"))
    save_checkpoint(build_network(spec), spec, folder / "small_depth.safetensors", {})
    return folder


@pytest.mark.parametrize("command", PLANNED)
def test_a_command_of_the_docs_plans_its_grid(desk, monkeypatch, capsys, command):
    program, script, *arguments = shlex.split(command)
    assert (program, script) == ("python", "runner.py")
    monkeypatch.chdir(desk)
    if "--data" not in arguments:
        arguments += [part for split in ("train", "val", "test") for part in ("--set", f"data.rooms_{split}=2")]
    assert runner.main([*arguments, "--dry-run"]) == 0, capsys.readouterr().err
    assert re.search(r"[1-9]\d* cells", capsys.readouterr().out)


def test_the_search_space_of_the_readme_loads(tmp_path):
    block = re.search(r"^    name: mine\n(?:(?:    .*)?\n)+", (ROOT / "README.md").read_text(), re.MULTILINE)
    file = tmp_path / "mine.yaml"
    file.write_text(re.sub(r"^    ", "", block[0], flags=re.MULTILINE))
    space = load_space(file)
    assert (space.name, len(list(space.combinations())), len(space.exclude)) == ("mine", 6, 1)


def test_what_the_docs_link_to_is_there():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert "://" in link or (page.parent / link).exists(), f"{page.name}: {link}"
