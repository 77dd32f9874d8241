"""Which stages cells share, and what changes the id of a stage."""

import csv
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid import plan as plan_module
from grid.plan import READS_DATA, STAGE_SETTINGS, STAGE_VERSIONS, Cell, Plan, describe, make_plan
from grid.settings import setting_types
from grid.space import FOLDER, SearchSpace, load_space
from grid.stages import StageStore, write_record
from model.network import NetworkSpec

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def space_of(tmp_path):
    """Loads a search space from YAML text."""

    def load(text: str, *overrides: str, seeds=None) -> SearchSpace:
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        return load_space(file, overrides, seeds)

    return load


def full(*overrides: str, checkpoint: str | None = "sha", fingerprint: str = "data") -> Plan:
    return make_plan(load_space("full", overrides), checkpoint, fingerprint)


def cell_of(plan: Plan, name: str) -> Cell:
    return next(cell for cell in plan.cells if cell.name == name)


def counts(plan: Plan) -> Counter:
    return Counter(node.stage for node in plan.nodes)


# ---- cells and chains


def test_the_full_grid_has_twelve_recipes_and_two_baselines():
    assert [cell.name for cell in full().cells] == [
        "fp32",
        "fp32-fuse_bn",
        "per_channel-ptq",
        "fuse_bn-per_channel-ptq",
        "per_channel-qat",
        "fuse_bn-per_channel-qat",
        "per_channel-ptq+qat",
        "fuse_bn-per_channel-ptq+qat",
        "per_tensor-ptq",
        "fuse_bn-per_tensor-ptq",
        "per_tensor-qat",
        "fuse_bn-per_tensor-qat",
        "per_tensor-ptq+qat",
        "fuse_bn-per_tensor-ptq+qat",
    ]


def test_the_published_grid_has_every_row_of_the_published_table():
    plan = make_plan(load_space("published"), "sha", "data")
    ours = set()
    for cell in plan.cells:
        method = cell.settings["method"]
        granularity = "none" if method == "fp32" else cell.settings["granularity"]
        ours.add((str(cell.settings["fuse_bn"]).lower(), granularity, method))
    with (FOLDER / "published_results.csv").open() as file:
        published = {(row["fuse_bn"], row["granularity"], row["method"]) for row in csv.DictReader(file)}
    assert ours == published
    assert len(ours) == 14


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("fp32", "load evaluate profile"),
        ("fp32-fuse_bn", "load fuse evaluate profile"),
        ("per_channel-ptq", "load equalize calibrate convert evaluate profile"),
        ("per_tensor-qat", "load equalize finetune convert evaluate profile"),
        ("fuse_bn-per_tensor-ptq+qat", "load fuse equalize calibrate finetune convert evaluate profile"),
    ],
)
def test_a_cell_is_the_chain_of_its_method(name, stages):
    assert list(cell_of(full(), name).nodes) == stages.split()


def test_equalization_off_is_a_shorter_chain():
    nodes = cell_of(full("equalize=false"), "per_channel-ptq").nodes
    assert list(nodes) == ["load", "calibrate", "convert", "evaluate", "profile"]


def test_without_a_checkpoint_cells_start_from_a_training_of_their_own_network(space_of):
    plan = make_plan(space_of("axes: {network.encoder: [efficientnet_b0, timm/other]}"), None, "data")
    assert counts(plan)["train"] == 2
    assert counts(plan)["load"] == 0


def test_a_checkpoint_serves_the_cells_of_its_network_and_the_others_are_trained(space_of):
    space = space_of("axes: {network.encoder: [efficientnet_b0, timm/other]}")
    plan = make_plan(space, "sha", "data", NetworkSpec())
    roots = {cell.settings["network.encoder"]: next(iter(cell.nodes)) for cell in plan.cells}
    assert roots == {"efficientnet_b0": "load", "timm/other": "train"}


def test_seeds_multiply_what_is_drawn_and_not_the_loaded_baselines(space_of):
    space = space_of("axes: {method: [ptq]}", seeds=[0, 1, 2])
    names = [cell.name for cell in make_plan(space, "sha", "data").cells]
    assert names == ["fp32", "fp32-fuse_bn", *(f"per_channel-ptq-s{seed}" for seed in range(3))]
    trained = [cell.name for cell in make_plan(space, None, "data").cells if cell.settings["method"] == "fp32"]
    assert trained == ["fp32-s0", "fp32-fuse_bn-s0", "fp32-s1", "fp32-fuse_bn-s1", "fp32-s2", "fp32-fuse_bn-s2"]


def test_names_tell_further_axes_and_are_safe_as_file_names(space_of):
    text = "axes: {network.encoder: [timm/a b], equalize: [on, off], qat.epochs: [1, 2], method: [ptq, qat]}"
    names = [cell.name for cell in make_plan(space_of(text), "sha", "data").cells]
    assert "per_channel-qat-equalize=off-qat.epochs=2" in names
    assert "per_channel-ptq-equalize=on" in names  # calibration does not read qat.epochs
    encoders = space_of("axes: {network.encoder: [timm/a b, timm/c]}")
    named = [cell.name for cell in make_plan(encoders, "sha", "data").cells]
    assert "per_channel-ptq-network.encoder=timm_a_b" in named
    assert all(re.fullmatch(r"[\w.=+-]+", name) for name in names + named)
    assert len(set(names)) == len(names)


def test_names_that_would_be_equal_are_told_apart(space_of):
    plan = make_plan(space_of("axes: {network.encoder: [timm/a_b, timm/a b]}"), "sha", "data")
    assert len({cell.name for cell in plan.cells}) == len(plan.cells) == 6


def test_combinations_that_differ_in_what_a_cell_ignores_are_one_cell(space_of):
    space = space_of("axes: {method: [fp32, ptq, qat], qat.epochs: [1, 2, 3]}")
    plan = make_plan(space, "sha", "data")
    assert [cell.name for cell in plan.cells if cell.settings["method"] == "ptq"] == ["per_channel-ptq"]
    assert len([cell for cell in plan.cells if cell.settings["method"] == "qat"]) == 3
    assert plan.repeats == 3 + 2  # fp32 is a baseline already, ptq is there once
    assert "qat.epochs" not in cell_of(plan, "per_channel-ptq").relevant


def test_an_excluded_cell_is_a_row_with_its_reason_and_computes_nothing(space_of):
    text = """
    axes: {granularity: [per_channel, per_tensor], method: [ptq, qat]}
    exclude:
      - {when: {granularity: per_tensor, method: [qat, ptq+qat]}, reason: no engine for it}
      - {when: {method: fp32, fuse_bn: true}, reason: not of interest}
    """
    plan = make_plan(space_of(text), "sha", "data")
    assert {cell.name: cell.excluded for cell in plan.excluded} == {
        "per_tensor-qat": "no engine for it",
        "fp32-fuse_bn": "not of interest",
    }
    assert all(cell.nodes == {} for cell in plan.excluded)
    assert [cell.name for cell in plan.cells] == ["fp32", "per_channel-ptq", "per_channel-qat", "per_tensor-ptq"]
    assert counts(plan)["fuse"] == 0


def test_an_exclusion_by_a_setting_that_a_cell_ignores_does_not_hold_for_it(space_of):
    text = "axes: {method: [ptq, qat]}\nexclude: [{when: {qat.epochs: 10}, reason: long}]"
    assert [cell.name for cell in make_plan(space_of(text), "sha", "data").excluded] == ["per_channel-qat"]


@pytest.mark.parametrize(
    ("value", "excluded"), [("off", "per_channel-ptq-equalize=off"), ("on", "per_channel-ptq-equalize=on")]
)
def test_a_group_that_is_on_or_off_can_be_excluded(space_of, value, excluded):
    text = f"axes: {{equalize: [on, off]}}\nexclude: [{{when: {{equalize: {value}}}, reason: x}}]"
    assert [cell.name for cell in make_plan(space_of(text), "sha", "data").excluded] == [excluded]


# ---- the trie


def test_the_full_grid_is_56_nodes_instead_of_89():
    plan = full()
    assert counts(plan) == {
        "load": 1,
        "fuse": 1,
        "equalize": 2,
        "calibrate": 4,
        "finetune": 8,
        "convert": 12,
        "evaluate": 14,
        "profile": 14,
    }
    assert len(plan.nodes) == 56
    assert sum(len(cell.nodes) for cell in plan.cells) == 89


def test_a_node_knows_every_cell_that_needs_it():
    plan = full()
    shared = {stage: [len(n.cells) for n in plan.nodes if n.stage == stage] for stage in counts(plan)}
    assert shared["load"] == [14]
    assert shared["fuse"] == [7]
    assert shared["equalize"] == [6, 6]
    assert shared["calibrate"] == [2, 2, 2, 2]
    assert sorted(shared["evaluate"]) == [1] * 13 + [14]  # the float network's test is everyone's reference
    by_id = {node.id: node for node in plan.nodes}
    for cell in plan.cells:
        for node in cell.nodes.values():
            needed = [node, *(parent for _, parent in by_id[node].inputs)]
            assert all(cell.key in by_id[one].cells for one in needed)


def test_inputs_come_before_the_nodes_that_need_them():
    seen: set[str] = set()
    for node in full().nodes:
        assert {parent for _, parent in node.inputs} <= seen
        assert re.fullmatch("[0-9a-f]{20}", node.id)
        seen.add(node.id)
    assert len(seen) == 56


def test_a_test_is_compared_with_the_float_network_and_a_latency_with_the_root():
    plan = full()
    by_id = {node.id: node for node in plan.nodes}
    float_cell = cell_of(plan, "fp32")
    for cell in plan.cells:
        profile = dict(by_id[cell.nodes["profile"]].inputs)
        assert profile["reference"] == cell.nodes["load"]
        evaluate = dict(by_id[cell.nodes["evaluate"]].inputs)
        assert evaluate["network"] == profile["network"]
        if cell is float_cell:
            assert "reference" not in evaluate
        else:
            assert evaluate["reference"] == float_cell.nodes["evaluate"]
            assert evaluate["network"] == list(cell.nodes.values())[-3]


def test_the_float_reference_is_planned_without_baselines_too(space_of):
    plan = make_plan(space_of("baselines: false"), "sha", "data")
    assert [cell.name for cell in plan.cells] == ["per_channel-ptq"]
    tests = [node for node in plan.nodes if node.stage == "evaluate"]
    assert [dict(node.inputs).get("reference") for node in tests] == [None, tests[0].id]
    assert tests[0].cells == (plan.cells[0].key,)


# ---- ids


def changed(before: Plan, after: Plan) -> set[str]:
    """The stages of which an id changed, over all cells of the full grid."""
    pairs = zip(before.cells, after.cells, strict=True)
    return {stage for a, b in pairs for stage in a.nodes if a.nodes[stage] != b.nodes[stage]}


TESTED = {"evaluate", "profile"}
QUANTIZED = {"finetune", "convert"} | TESTED
EVERYTHING = set(STAGE_SETTINGS) - {"train"}


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("train.epochs=3", set()),
        ("latency.seconds=3", {"profile"}),
        ("qat.epochs=9", QUANTIZED),
        ("calibrate.percentile=99", {"calibrate"} | QUANTIZED),
        ("calibrate.images=9", {"equalize", "calibrate"} | QUANTIZED),
        ("equalize.iterations=9", {"equalize", "calibrate"} | QUANTIZED),
        ("seed=9", {"equalize", "calibrate"} | QUANTIZED),
        ("network.input_size=64", EVERYTHING),
    ],
)
def test_a_setting_changes_the_stages_that_read_it_and_those_after_them_and_no_other(override, stages):
    assert changed(full(), full(override)) == stages


def test_the_number_of_training_epochs_matters_where_the_network_is_trained():
    before, after = full(checkpoint=None), full("train.epochs=3", checkpoint=None)
    assert changed(before, after) == (EVERYTHING - {"load"}) | {"train"}


def test_granularity_enters_behind_equalization():
    plan = full()
    channel, tensor = (cell_of(plan, f"{name}-ptq").nodes for name in ("per_channel", "per_tensor"))
    assert {stage for stage in channel if channel[stage] == tensor[stage]} == {"load", "equalize"}


def test_ptq_and_ptq_qat_share_their_calibration_and_qat_starts_cold():
    plan = full()
    ptq, both, qat = (cell_of(plan, f"per_tensor-{name}").nodes for name in ("ptq", "ptq+qat", "qat"))
    assert ptq["calibrate"] == both["calibrate"]
    assert both["finetune"] != qat["finetune"]


def test_another_checkpoint_changes_everything_and_other_data_what_looks_at_it():
    assert changed(full(), full(checkpoint="other")) == EVERYTHING
    assert changed(full(), full(fingerprint="other")) == EVERYTHING - {"load"}
    assert cell_of(full(), "fp32").nodes["profile"] == cell_of(full(fingerprint="b"), "fp32").nodes["profile"]


def test_a_new_version_of_a_stage_changes_it_and_what_follows(monkeypatch):
    before = full()
    monkeypatch.setitem(STAGE_VERSIONS, "finetune", 2)
    after = full()
    assert changed(before, after) == QUANTIZED
    kept = cell_of(after, "per_channel-ptq").nodes
    assert kept == cell_of(before, "per_channel-ptq").nodes


def test_the_engine_enters_with_conversion(monkeypatch):
    monkeypatch.setattr("grid.settings.ENGINES", ("qnnpack", "other"))
    assert changed(full(), full("engine=other")) == {"convert"} | TESTED
    assert cell_of(full(), "fp32").nodes == cell_of(full("engine=other"), "fp32").nodes


def test_every_setting_is_read_by_a_stage_or_decides_which_stages_there_are():
    read = [prefix for prefixes in STAGE_SETTINGS.values() for prefix in prefixes]
    for key in setting_types():
        decides = key in ("fuse_bn", "method")
        assert decides or any(key == one or key.startswith(f"{one}.") for one in read), key
    assert set(STAGE_VERSIONS) == set(STAGE_SETTINGS) >= set(READS_DATA)


def test_a_node_holds_the_settings_that_it_reads_and_no_others():
    for node in full().nodes:
        own = {key for key in node.settings if key != "checkpoint_sha256"}
        prefixes = STAGE_SETTINGS[node.stage]
        assert own == {k for k in setting_types() if any(k == p or k.startswith(f"{p}.") for p in prefixes)} - {
            "equalize"
        }
        assert ("checkpoint_sha256" in node.settings) == (node.stage == "load")


def test_keys_follow_the_settings_that_matter():
    before, after = full(), full("qat.epochs=9")
    for old, new in zip(before.cells, after.cells, strict=True):
        assert (old.key != new.key) == ("qat" in str(old.settings["method"]))
    assert not {cell.key for cell in before.cells} & {cell.key for cell in full(fingerprint="other").cells}
    assert len({cell.key for cell in before.cells}) == 14


@given(st.sampled_from(sorted(set(setting_types()) - {"network.encoder"})), st.booleans())
def test_cells_share_a_node_exactly_when_all_that_it_reads_is_equal(key, loads):
    """Every stage's id is a function of its own settings and inputs, whatever setting is varied."""
    values = {bool: "[true, false]", int: "[64, 96]", float: "[0.5, 0.75]"}
    words = {"granularity": "[per_channel, per_tensor]", "method": "[ptq, qat]", "engine": "[qnnpack]"}
    words |= {"equalize.ranges": "[weights, activations]", "calibrate.activation_range": "[mse, minmax]"}
    words |= {"calibrate.weight_range": "[mse, minmax]", "train.init": "[imagenet, random]"}
    words |= {"calibrate.percentile": "[99, 98]", "network.input_size": "[64]"}
    override = f"{key}={words[key] if key in words else values[setting_types()[key]]}"
    plan = full(override, checkpoint="sha" if loads else None)
    by_content = {(n.stage, tuple(sorted(n.settings.items(), key=str)), n.inputs): n.id for n in plan.nodes}
    assert len(by_content) == len(plan.nodes) == len({node.id for node in plan.nodes})


def test_ids_are_the_same_in_another_process():
    code = "from grid.plan import *; from grid.space import *; p = make_plan(load_space('full'), 'sha', 'data');"
    code += "print(*[n.id for n in p.nodes], *[c.key for c in p.cells])"
    environment = {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    plan = full()
    assert found.stdout.split() == [node.id for node in plan.nodes] + [cell.key for cell in plan.cells]


def test_ten_thousand_cells_are_planned_with_one_hash_a_cell_and_one_a_node(space_of, monkeypatch):
    space = space_of(
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
    hashed = Counter()
    real = plan_module._digest

    def counting(content) -> str:
        hashed[content[0]] += 1
        return real(content)

    monkeypatch.setattr(plan_module, "_digest", counting)
    plan = make_plan(space, "sha", "data")
    assert len(plan.cells) == 10_000
    assert hashed.pop("cell") == 10_000
    assert hashed == counts(plan)
    assert counts(plan)["finetune"] == 1000
    assert counts(plan)["equalize"] == 100


# ---- the dry run


def test_the_description_tells_cells_sharing_exclusions_and_what_is_done(space_of, tmp_path):
    text = "axes: {method: [ptq, qat], qat.epochs: [1, 2]}\nexclude: [{when: {qat.epochs: 2}, reason: too long}]"
    plan = make_plan(space_of(text), "sha", "data")
    store = StageStore(tmp_path / "results")
    first = plan.nodes[0]
    with store.writer(first.id) as folder:
        empty = {"metrics": {}, "asserted": {}, "history": [], "seconds": 0.0}
        write_record(folder, {"stage": first.stage, "settings": {}, "inputs": [], **empty})
    lines = describe(plan, store)
    assert lines[0] == "4 cells, 1 excluded; 16 stages (19 if not shared); 1 are in the store, 15 to compute"
    assert lines[1] == "1 combinations repeat a cell: they differ in settings that it ignores"
    cells = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("  ")}
    assert cells["per_channel-ptq"] == [
        "load(4)*",
        "equalize(2)",
        "calibrate(1)",
        "convert(1)",
        "evaluate(1)",
        "profile(1)",
    ]
    assert cells["per_channel-qat-qat.epochs=2"] == ["excluded:", "too", "long"]
    assert cells["load"] == ["1", "1"]
    assert cells["evaluate"] == ["4", "0"]
