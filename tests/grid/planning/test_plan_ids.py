"""What changes the id of a stage, and what does not."""

import contextlib
import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from grid.planning import plan as plan_module
from grid.planning import stage_table
from grid.planning.plan import Cell, Plan, make_plan
from grid.planning.stage_table import STAGES, stage_named, stage_names
from grid.space.search_space import load_space
from grid.space.settings import groups, setting_types
from model.errors import InputError
from model.network.spec import NetworkSpec
from quant.engines.catalog import FLOAT_RUNTIMES, NPUS, ON_DEVICES, REVISIONS
from quant.recipe import BIAS_CORRECTIONS, GRANULARITIES, METHODS, SCHEDULES

ROOT = Path(__file__).resolve().parents[3]


def full(*overrides: str, checkpoint: str | None = "sha", fingerprint: str = "data") -> Plan:
    return make_plan(load_space("full", overrides), checkpoint, fingerprint)


def cell_of(plan: Plan, name: str) -> Cell:
    return next(cell for cell in plan.cells if cell.name == name)


def changed(before: Plan, after: Plan) -> set[str]:
    """The stages of which an id changed, over all cells of the full grid."""
    pairs = zip(before.cells, after.cells, strict=True)
    return {stage for a, b in pairs for stage in a.nodes if a.nodes[stage] != b.nodes[stage]}


TESTED = {"evaluate", "profile"}
QUANTIZED = {"finetune", "convert"} | TESTED
TUNED = {"finetune_float"} | QUANTIZED
CALIBRATED = {"calibrate", "round"} | TUNED
ROUNDED = {"round"} | QUANTIZED
EVERYTHING = set(stage_names()) - {
    "train",
    "merge",
    "widths",
    "correct_bias",
    "mix",
    "analyze",
    "profile_on_device",
    "estimate_npu",
}  # these are off


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("train.epochs=3", set()),
        ("latency.seconds=9", {"profile"}),
        ("qat.epochs=9", TUNED),
        ("calibrate.percentile=99", CALIBRATED),
        ("calibrate.images=9", {"equalize"} | CALIBRATED),
        ("equalize.sweeps=9", {"equalize"} | CALIBRATED),
        ("rounding.damping=9", ROUNDED),
        ("rounding.images=9", ROUNDED),
        ("seed=9", {"equalize"} | CALIBRATED),
        ("network.input_size=64", EVERYTHING),
    ],
)
def test_a_setting_changes_the_stages_that_read_it_and_those_after_them_and_no_other(override, stages):
    assert changed(full(), full(override)) == stages


@pytest.mark.parametrize(
    ("name", "override", "first"),
    [
        ("per_channel-ptq", "seed=9", "calibrate"),
        ("per_channel-ptq", "calibrate.batch_size=9", "calibrate"),
        ("per_channel-qat", "seed=9", "finetune"),
        ("per_channel-qat", "calibrate.weight_range=mse", "finetune"),  # its cold start reads ranges
        ("per_channel-ptq+qat", "qat.distillation=0", "finetune"),
    ],
)
def test_without_equalization_a_setting_enters_at_the_first_stage_that_reads_it(name, override, first):
    before, after = (cell_of(full("equalize=false", *more), name).nodes for more in ((), (override,)))
    assert next(stage for stage in before if before[stage] != after[stage]) == first


def test_the_number_of_training_epochs_matters_where_the_network_is_trained():
    before, after = full(checkpoint=None), full("train.epochs=3", checkpoint=None)
    assert changed(before, after) == (EVERYTHING - {"load"}) | {"train"}


def test_weights_of_fewer_bits_are_told_by_their_own_stage_to_those_behind_it_and_eight_bits_need_none():
    narrow = full("weight_bits=4")
    assert [cell.key for cell in full("weight_bits=8").cells] == [cell.key for cell in full().cells]
    for name in ("per_tensor-ptq", "fuse_bn-per_channel-qat"):
        wide, nodes = cell_of(full(), name).nodes, cell_of(narrow, name).nodes
        assert set(nodes) - set(wide) == {"widths"}
        assert {stage for stage in wide if wide[stage] == nodes[stage]} == {"load", "fuse"} & wide.keys()
    assert cell_of(narrow, "fp32").nodes == cell_of(full(), "fp32").nodes


def test_layers_that_keep_eight_bits_tell_cells_apart_only_where_others_have_fewer():
    plan = full("weight_bits=[8, 4]", "keep_8bit.worst=[0, 2]", "method=ptq")
    names = {cell.name for cell in plan.cells if cell.name.startswith("per_channel")}
    few = {f"per_channel-ptq-weight_bits=4-keep_8bit.worst={count}" for count in (0, 2)}
    assert names == {"per_channel-ptq-weight_bits=8", *few}


@pytest.mark.parametrize("override", ["equalize=true", "equalize=false"])
def test_granularity_enters_behind_folding(override):
    plan = full(override)
    channel, tensor = (cell_of(plan, f"fuse_bn-{name}-ptq").nodes for name in ("per_channel", "per_tensor"))
    assert {stage for stage in channel if channel[stage] == tensor[stage]} == {"load", "fuse"}


def test_ptq_and_ptq_qat_share_their_calibration_and_qat_starts_cold():
    plan = full()
    ptq, both, qat = (cell_of(plan, f"per_tensor-{name}").nodes for name in ("ptq", "ptq+qat", "qat"))
    assert ptq["calibrate"] == both["calibrate"]
    assert both["finetune"] != qat["finetune"]


def test_another_checkpoint_changes_everything_and_other_data_what_looks_at_it():
    assert changed(full(), full(checkpoint="other")) == EVERYTHING
    assert changed(full(), full(fingerprint="other")) == EVERYTHING - {"load"}


def test_a_new_version_of_a_stage_changes_it_and_what_follows(monkeypatch):
    before = full()
    newer = [replace(stage, version=stage.version + (stage.name == "finetune")) for stage in STAGES]
    monkeypatch.setattr(stage_table, "STAGES", tuple(newer))
    after = full()
    assert changed(before, after) == QUANTIZED
    kept = cell_of(after, "per_channel-ptq").nodes
    assert kept == cell_of(before, "per_channel-ptq").nodes


def test_the_engine_enters_with_conversion(monkeypatch):
    monkeypatch.setattr("grid.space.settings.ENGINES", ("qnnpack", "other"))
    assert changed(full(), full("engine=other")) == {"convert"} | TESTED
    assert cell_of(full(), "fp32").nodes == cell_of(full("engine=other"), "fp32").nodes


def test_every_setting_is_read_by_a_stage_or_decides_which_stages_there_are():
    read = [prefix for stage in STAGES for prefix in stage.settings]
    for key in setting_types():
        decides = key in ("merge_branches", "fuse_bn", "method")  # weight_bits decides too, and is read
        assert decides or any(key == one or key.startswith(f"{one}.") for one in read), key


def test_a_node_holds_the_settings_that_it_reads_and_no_others():
    optional = {name for name, (_, optional) in groups().items() if optional}
    plan = full("weight_bits=4", *(f"{name}=true" for name in optional))
    assert {node.stage for node in plan.nodes} == set(stage_names()) - {
        "train",
        "merge",
        "profile_on_device",
        "estimate_npu",
    }
    for node in plan.nodes:
        told = {f"network.{name}" for name in NetworkSpec.TOLD_BY_DATA}
        own = {key for key in node.settings if key != "checkpoint_sha256"} - told
        prefixes = stage_named(node.stage).settings
        read = {key for key in setting_types() if any(key == one or key.startswith(f"{one}.") for one in prefixes)}
        assert own == read - optional
        assert ("checkpoint_sha256" in node.settings) == (node.stage == "load")


def test_keys_follow_the_settings_that_matter():
    before, after = full(), full("qat.epochs=9")
    for old, new in zip(before.cells, after.cells, strict=True):
        assert (old.key != new.key) == (str(old.settings["method"]) in ("qat", "ptq+qat", "fp32-finetuned"))
    assert not {cell.key for cell in before.cells} & {cell.key for cell in full(fingerprint="other").cells}
    assert len({cell.key for cell in before.cells}) == 16


def two_values(key: str) -> str | None:
    """An axis for a setting, whatever its type; None where no two of the values tried here are good."""
    tried = ["[true, false]", "[64, 96]", "[8, 4]", "[9, 16]"]
    tried += ["[0.5, 0.75]", "[98, 99]", "[random, imagenet]", "[mse, minmax]"]
    tried += ["[weights, activations]", f"[{', '.join(GRANULARITIES)}]", f"[{', '.join(METHODS)}]"]
    tried += [f"[{', '.join(FLOAT_RUNTIMES[:2])}]"]
    tried += [f"[{', '.join(ON_DEVICES)}]", "[local, board]"] if key.startswith("device") else []
    tried += [f"[{', '.join(NPUS[:2])}]"]
    tried += [f"[{', '.join(BIAS_CORRECTIONS)}]", f"[{', '.join(SCHEDULES)}]"]
    for values in tried:
        with contextlib.suppress(InputError):
            load_space("full", [f"{key}={values}"])
            return values
    return None


AXES = {key: values for key in setting_types() if (values := two_values(key))}


def test_nearly_every_setting_is_varied_below():
    assert len(AXES) >= len(setting_types()) - 3


@pytest.mark.parametrize("checkpoint", ["sha", None])
@pytest.mark.parametrize("key", AXES)
def test_no_two_nodes_read_the_same_whatever_is_varied(key, checkpoint):
    plan = full(f"{key}={AXES[key]}", checkpoint=checkpoint)
    contents = {(node.stage, json.dumps(node.settings, sort_keys=True), node.inputs) for node in plan.nodes}
    assert len(contents) == len({node.id for node in plan.nodes}) == len(plan.nodes)
    assert len({cell.name for cell in plan.cells}) == len({cell.key for cell in plan.cells}) == len(plan.cells)


def test_ids_are_the_same_in_another_process():
    code = "from grid.planning.plan import *; from grid.space.search_space import *;"
    code += "p = make_plan(load_space('full'), 'sha', 'data');"
    code += "print(*[n.id for n in p.nodes], *[c.key for c in p.cells])"
    environment = {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    plan = full()
    assert found.stdout.split() == [node.id for node in plan.nodes] + [cell.key for cell in plan.cells]


def test_ten_thousand_cells_are_planned_with_one_hash_a_cell_and_one_a_node(tmp_path, monkeypatch):
    file = tmp_path / "many.yaml"
    file.write_text(
        """
        max_cells: 10000
        baselines: false
        axes:
          granularity: [per_channel, per_tensor]
          method: [ptq+qat]
          qat.epochs: [1, 2, 3, 4, 5]
          calibrate.images: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
          latency.warmup: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
          seed: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        """
    )
    space = load_space(file)
    hashed: Counter = Counter()
    real = plan_module._digest

    def counting(content) -> str:
        hashed[content[0]] += 1
        return real(content)

    monkeypatch.setattr(plan_module, "_digest", counting)
    plan = make_plan(space, "sha", "data")
    assert len(plan.cells) == 10_000
    assert hashed.pop("cell") == 10_000
    assert hashed == Counter(node.stage for node in plan.nodes)
    assert (hashed["finetune"], hashed["round"]) == (1000, 200)
    assert hashed["equalize"] == hashed["calibrate"] == 2 * 10 * 10, "granularities, images, seeds"


def test_a_new_revision_of_an_engine_changes_its_conversions_and_no_other(monkeypatch):
    def ids():
        plan = full("engine=[qnnpack, x86]", "method=ptq")
        return {cell.name: cell.nodes for cell in plan.cells}

    before = ids()
    monkeypatch.setitem(REVISIONS, "x86", REVISIONS["x86"] + 1)
    after = ids()
    for name, nodes in before.items():
        expected = {"convert", "evaluate", "profile"} if name.endswith("engine=x86") else set()
        assert {stage for stage in nodes if nodes[stage] != after[name][stage]} == expected


def test_a_setting_that_came_later_is_in_no_id_at_the_value_that_is_as_before():
    plan, compiled = full(checkpoint=None), full("train.compile=true", checkpoint=None)
    (node,) = (node for node in plan.nodes if node.stage == "train")
    later = {"train.compile", *(f"network.{name}" for name in NetworkSpec.TOLD_BY_DATA)}
    own = {key: value for key, value in node.settings.items() if key not in later}
    text = json.dumps(own, sort_keys=True, separators=(",", ":"))
    content = json.dumps(["train", stage_named("train").version, text, "data", []], separators=(",", ":"))
    assert node.settings["train.compile"] is False
    assert node.id == hashlib.sha256(content.encode()).hexdigest()[:20]
    assert "train" in changed(plan, compiled)
