"""The plan alone: a dry run, and the settings behind a flag."""

import subprocess
import sys

from tests.grid.tiny import ROOT
from tests.runner.desk import CELLS, EXCLUDED, quietly


def test_a_dry_run_prints_cells_and_stages_and_starts_nothing(at):
    code = (
        "import sys, runner\n"
        "status = runner.main(sys.argv[1:])\n"
        "sys.exit(status or 10 * ('ray' in sys.modules) or 20 * ('mlflow' in sys.modules))"
    )
    command = [sys.executable, "-c", code, *at.arguments("--set", "fuse_bn=true", "--dry-run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    counts = "4 cells, 2 excluded; 17 stages (26 if not shared); 0 are in the store, 17 to compute"
    assert done.stdout.startswith(counts)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for cell in CELLS:
        assert any(line.startswith(f"{cell} load(4) ") for line in lines)
    for cell in EXCLUDED:
        assert f"{cell} excluded: one granularity is enough here" in lines
    assert "finetune(1)" in done.stdout
    assert at.runs() == set()
    assert not (at.storage / "mlflow.db").exists()


def test_the_flag_for_an_analysis_is_the_setting_and_plans_one_for_each_int8_cell(at):
    _, plain = quietly(at.arguments("--dry-run"))
    _, by_flag = quietly(at.arguments("--analyze", "--dry-run"))
    _, by_setting = quietly(at.arguments("--set", "analyze=true", "--dry-run"))
    assert by_flag == by_setting
    planned = [line.split()[:2] for line in by_flag.splitlines() if line.startswith("  analyze")]
    assert planned == [["analyze", str(plain.count(" convert("))]]
    assert "analyze" not in plain
