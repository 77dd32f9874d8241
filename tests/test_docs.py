"""Every command in the documentation is planned here, run elsewhere, or named with the reason why it is not run."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

import runner
from grid.space.search_space import load_space
from grid.space.settings import setting_types
from tests.grid.tiny import ROOT
from tests.model.data.nyu_files import kaggle

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
FOLDERS = "audit|benchmarks|checkpoints|cluster|docs|grid|model|quant|search_spaces|tests"
PROGRAMS = ("python", "make", "conda", "ray", "mlflow", "pip", "curl", "bash")
ELSEWHERE = {
    "make grid": "the grid itself, tests/runner/test_story.py on a tiny one",
    'make grid ARGS="--seeds 0,1,2"': "options are passed on: tests/grid/run/test_options.py",
    "make test": ".ci/run",
    "make test-all": "by hand, before a release",
    "make lint": ".ci/run",
    'make test ARGS="tests/quant/test_ranges.py"': ".ci/run, with other folders",
    "make bench": "benchmarks/, by hand: a benchmark is no test",
    "make checkpoint": "70 minutes; tests/model/test_training.py trains",
    "make vela": "by hand; tests/quant/engines/litert/test_vela.py uses it where it is there",
    "python -m benchmarks NAME": "by hand, as make bench",
    "python -m quant.engines.executorch_runner aarch64": "tests/grid/stages/devices/test_executorch.py",
    "python -m benchmarks engines": "by hand, as make bench",
    "python -m benchmarks packing": "by hand, as make bench",
    "python -m benchmarks.packing --data nyu_data --packs FOLDER": "by hand, as make bench",
    "python -m benchmarks.lite0 --pictures FOLDER": "tests/benchmarks/lite0/ runs its parts on a small network",
    "python -m benchmarks.zoo [NAME ...]": "two hours; tests/benchmarks/zoo/ runs its training on a small network",
    "python -m benchmarks.made_up_nyu --out nyu_data": "13 minutes; by hand, as make bench",
    "python -m benchmarks.engine_latency --tables FOLDER": "by hand, as make bench",
    "python -m model --network docs/examples/small_depth.py --data rooms --out small_depth.safetensors": (
        "tests/runner/test_own_network.py, on a few pictures"
    ),
    "python -m model --task classification --data IMAGEFOLDER --init random --out mine.safetensors": (
        "tests/model/tasks/ trains each task"
    ),
    "python runner.py --grid encoders": (
        "fifteen networks; tests/grid/space/test_search_space.py loads it, tests/grid/run/test_networks.py builds"
    ),
    "make engines": ".ci/run",
    "make pins": ".ci/run",
    "make audit": "asks the internet; tests/security/test_audit.py judges answers",
    'make audit ARGS="--service osv"': "as make audit",
    "python runner.py --export RUN/CELL --engine all --out exported": "tests/grid/run/export/test_cell.py",
    "python runner.py --export RUN/CELL --engine xnnpack --out exported": "tests/grid/run/export/test_cell.py",
    "python runner.py --export RUN/CELL --engine onnxruntime --task docs/examples/keypoints.py": (
        "tests/runner/test_keypoints.py"
    ),
    "python runner.py --export RUN/CELL --engine onnxruntime --task my_task.py": "as above",
    "python run.py IMAGE": "tests/grid/run/export/test_cell.py",
    "python runner.py --inspect-network docs/examples/small_depth.py": "tests/grid/run/test_inspect.py",
    "python runner.py --inspect-network torchvision/mobilenet_v3_small --input-size 160": "as above, with its file",
    "python runner.py --ui": (
        "tests/security/test_running.py opens the pages, tests/grid/run/test_mlflow_pages.py closes them"
    ),
    "python runner.py --report RUN": "tests/runner/test_story.py",
    'python runner.py --report RUN --target "sqnr_db>=30, minimize size_mb"': "tests/runner/test_story.py",
    "python runner.py --report RUN --margin ssim=0.002,latency=5%": "tests/grid/run/test_files.py",
    "python runner.py --resume RUN": "tests/runner/test_interruption.py",
    "python runner.py --sync RUN": "tests/faults/test_mlflow_down.py",
    "python runner.py --address auto --storage s3://BUCKET/PREFIX --tracking-uri http://MLFLOW:5000": (
        "tests/faults/test_cluster.py"
    ),
    "python -m tests.devices.board up BOARD": "tests/devices/, make faults",
    "python -m tests.devices.board down BOARD": "tests/devices/, make faults",
    "make faults": "three quarters of an hour, by hand; make test and make test-all have a part of it",
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
    'pip install "psycopg[binary]" boto3': "MLflow's own; make faults starts a server on PostgreSQL",
    "mlflow server --host 0.0.0.0 --port 5000 --artifacts-destination s3://BUCKET/mlflow --allowed-hosts MLFLOW:5000": (
        "MLflow's own; tests/faults/mlflow_server.py starts one"
    ),
    "curl -s http://127.0.0.1:PORT/metrics | grep ray_quantization_grid": (
        "tests/grid/scheduling/test_metrics.py reads it"
    ),
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


def picture(path: Path, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, (96, 96))
    image.paste(1 if mode == "L" else (9, 9, 9), (0, 0, 48, 96))
    image.save(path)


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder with pictures, a checkpoint of the example's network, and the files that the docs speak of."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("PATH", "rooms_of_mine"):
        kaggle(folder / name)
    for split, part in itertools.product(("train", "val", "test"), ("one", "two")):
        picture(folder / "IMAGEFOLDER" / split / part / "1.png")
        picture(folder / "MASKED" / split / "images" / f"{part}.png")
        picture(folder / "MASKED" / split / "masks" / f"{part}.png", "L")
        for kind in ("input", "target"):
            picture(folder / "PAIRS" / split / kind / f"{part}.png")
    for name in ("docs", "checkpoints"):
        (folder / name).symlink_to(ROOT / name)
    from model.network.build import build_network
    from model.network.checkpoint import save_checkpoint
    from model.network.spec import NetworkSpec
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


def test_the_search_space_of_the_docs_loads(tmp_path):
    page = ROOT / "docs" / "search-spaces.md"
    block = re.search(r"^    name: mine\n(?:(?:    .*)?\n)+", page.read_text(), re.MULTILINE)
    file = tmp_path / "mine.yaml"
    file.write_text(re.sub(r"^    ", "", block[0], flags=re.MULTILINE))
    space = load_space(file)
    assert (space.name, len(list(space.combinations())), len(space.exclude)) == ("mine", 6, 1)


def test_every_setting_and_every_grid_that_ships_is_in_the_docs():
    text = (ROOT / "docs" / "search-spaces.md").read_text()
    rows = {name for line in text.splitlines() for name in re.findall(r"^\| `([\w.]+)`", line)}
    assert {name.partition(".")[0] for name in setting_types()} <= rows
    assert {file.stem for file in (ROOT / "search_spaces").glob("*.yaml")} <= rows


def test_the_readme_fits_on_three_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def anchors(page: Path) -> set[str]:
    """The names by which links reach the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_links_to_is_there(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def named_paths(text: str) -> set[str]:
    """Paths below the folders of the repository that a text names."""
    return {path for path in re.findall(rf"(?<![\w./-])(?:{FOLDERS})/[\w./-]*[\w/]", text) if "NAME" not in path}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_file_that_a_page_names_is_there(page):
    shown_in_blocks = re.sub(r"^    .*$", "", page.read_text(), flags=re.MULTILINE)
    for code in re.findall(r"`([^`\n]+)`", shown_in_blocks):
        assert [path for path in named_paths(code) if not (ROOT / path).exists()] == []


def test_a_test_that_is_said_to_run_a_command_is_there():
    reasons = " ".join([*ELSEWHERE.values(), *NOT_RUN.values()])
    assert len(named_paths(reasons)) > 5
    assert [path for path in named_paths(reasons) if not (ROOT / path).exists()] == []


def walks() -> list[tuple[list[str], list[str]]]:
    """The lines of the architecture's walks: the files of each, and the functions that are said to be in them."""
    lines = []
    for file, function in re.findall(
        r"^\| (`[\w/.`, ]+) \| (`[^|]+) \| [^|]+ \|$", ARCHITECTURE.read_text(), re.MULTILINE
    ):
        files = re.findall(r"`([^`]+)`", file)
        folder = str(Path(files[0]).parent)
        if all(name.endswith(".py") for name in files):
            whole = [name if "/" in name else f"{folder}/{name}" for name in files]
            lines.append((whole, re.findall(r"`([\w.]+)`", function)))
    return lines


def test_every_step_of_the_walks_is_in_the_file_that_is_named():
    assert len(walks()) > 20
    for files, functions in walks():
        text = "\n".join((ROOT / file).read_text() for file in files)
        for name in (part for function in functions for part in function.split(".")):
            assert re.search(rf"^ *(?:def|class) {name}\b", text, re.MULTILINE), (files, name)
