"""The graph of stages: what cells share, what each stage reads, and how it is described."""

import re

import pytest

from grid.planning.plan import make_plan
from grid.run.plan_text import describe
from grid.storage.result_store import StageStore, write_record
from tests.grid.planning.plans import cell_of, counts, full

# ---- the trie


def test_the_full_grid_is_65_nodes_instead_of_106():
    plan = full()
    assert counts(plan) == {
        "load": 1,
        "fuse": 1,
        "equalize": 4,  # its scales of least noise are those of one granularity
        "calibrate": 4,
        "round": 4,
        "finetune": 8,
        "finetune_float": 1,
        "convert": 12,
        "evaluate": 15,
        "profile": 15,  # that of another float runtime is evaluated with the network that it runs
    }
    assert len(plan.nodes) == 65
    assert sum(len(cell.nodes) for cell in plan.cells) == 106


def test_a_node_knows_every_cell_that_needs_it():
    plan = full()
    shared = {stage: [len(n.cells) for n in plan.nodes if n.stage == stage] for stage in counts(plan)}
    assert shared["load"] == [16]
    assert shared["fuse"] == [9]
    assert sorted(shared["equalize"]) == [3, 3, 3, 4]  # one is that of the control of QAT, too
    assert shared["calibrate"] == shared["round"] == [2, 2, 2, 2]
    assert sorted(shared["evaluate"]) == [1] * 13 + [2, 16]  # the float network's test is everyone's reference
    by_id = {node.id: node for node in plan.nodes}
    assert all(len(set(node.cells)) == len(node.cells) for node in plan.nodes)
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
    assert len(seen) == 65


def test_a_test_is_compared_with_the_float_network_and_a_latency_with_the_root():
    plan = full()
    by_id = {node.id: node for node in plan.nodes}
    float_cell = cell_of(plan, "fp32")
    for cell in (cell for cell in plan.cells if "profile" in cell.nodes):
        profile = dict(by_id[cell.nodes["profile"]].inputs)
        assert profile["reference"] == cell.nodes["load"]
        evaluate = dict(by_id[cell.nodes["evaluate"]].inputs)
        assert evaluate["network"] == profile["network"]
        if cell is float_cell:
            assert "reference" not in evaluate
        else:
            assert evaluate["reference"] == float_cell.nodes["evaluate"]
            assert evaluate["network"] == list(cell.nodes.values())[-3]


def test_fine_tuning_learns_from_the_float_network_that_the_cell_starts_from():
    plan = full()
    tuned = [dict(node.inputs) for node in plan.nodes if node.stage == "finetune"]
    assert [inputs["teacher"] for inputs in tuned] == [plan.nodes[0].id] * 8
    before = {node.id: node.stage for node in plan.nodes}
    assert [before[inputs["network"]] for inputs in tuned] == (["equalize"] * 2 + ["round"] * 2) * 2


def test_fine_tuning_from_calibrated_ranges_knows_what_rounding_found_off_the_grid():
    plan = full()
    before = {node.id: node.stage for node in plan.nodes}
    tuned = [dict(node.inputs) for node in plan.nodes if node.stage == "finetune"]
    assert [before.get(inputs.get("rounded", "")) for inputs in tuned] == ([None] * 2 + ["round"] * 2) * 2


def test_the_float_reference_is_planned_without_baselines_too(space_of):
    plan = make_plan(space_of("baselines: false"), "sha", "data")
    assert [cell.name for cell in plan.cells] == ["per_channel-ptq"]
    tests = [node for node in plan.nodes if node.stage == "evaluate"]
    assert [dict(node.inputs).get("reference") for node in tests] == [None, tests[0].id]
    assert tests[0].cells == (plan.cells[0].key,)


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
    assert lines[0] == "4 cells, 1 excluded; 16 stages (20 if not shared); 1 are in the store, 15 to compute"
    assert lines[1] == "1 combinations repeat a cell: they differ in settings that it ignores"
    cells = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("  ")}
    assert cells["per_channel-ptq"] == [
        "load(4)*",
        "equalize(2)",
        "calibrate(1)",
        "round(1)",
        "convert(1)",
        "evaluate(1)",
        "profile(1)",
    ]
    assert cells["per_channel-qat-qat.epochs=2"] == ["excluded:", "too", "long"]
    assert cells["load"] == ["1", "1"]
    assert cells["evaluate"] == ["4", "0"]


# ---- engines


ENGINES = "name: mine\naxes: {engine: [qnnpack, onednn, xnnpack, onnxruntime], method: [ptq]}\n"


@pytest.fixture
def installed(monkeypatch):
    """Pretend that the packages of these engines are here, and those of no other."""

    def only(*engines: str) -> None:
        monkeypatch.setattr(
            "grid.planning.plan.missing", lambda engine: None if engine in ("", *engines) else f"no {engine}"
        )

    return only


def test_engines_share_all_but_the_conversion(space_of, installed):
    installed("qnnpack", "onednn", "xnnpack", "onnxruntime")
    plan = make_plan(space_of(ENGINES), "sha", "data")
    names = [cell.name for cell in plan.cells]
    assert names == [
        "fp32",
        "fp32-fuse_bn",
        "fp32-fuse_bn-engine=xnnpack",
        "fp32-fuse_bn-engine=onnxruntime",
        *(f"per_channel-ptq-engine={engine}" for engine in ("qnnpack", "onednn", "xnnpack", "onnxruntime")),
    ]
    shared = dict.fromkeys(("load", "fuse", "equalize", "calibrate", "round"), 1)
    assert counts(plan) == {**shared, "convert": 6, "evaluate": 8, "profile": 8}
    exported = cell_of(plan, "fp32-fuse_bn-engine=xnnpack")
    assert list(exported.nodes) == ["load", "fuse", "convert", "evaluate", "profile"]
    assert exported.relevant["engine"] == "xnnpack"
    assert "engine" not in cell_of(plan, "fp32-fuse_bn").relevant


def test_an_engine_that_is_not_installed_is_excluded_with_the_reason(space_of, installed):
    installed("qnnpack", "onednn")
    plan = make_plan(space_of(ENGINES), "sha", "data")
    assert {cell.name: cell.excluded for cell in plan.excluded} == {
        "fp32-fuse_bn-engine=xnnpack": "no xnnpack",
        "fp32-fuse_bn-engine=onnxruntime": "no onnxruntime",
        "per_channel-ptq-engine=xnnpack": "no xnnpack",
        "per_channel-ptq-engine=onnxruntime": "no onnxruntime",
    }
    assert not any(node.settings.get("engine") in ("xnnpack", "onnxruntime") for node in plan.nodes)


def test_a_grid_on_one_exporting_engine_has_its_float_network_beside_pytorchs(space_of, installed):
    installed("onnxruntime")
    plan = make_plan(space_of("name: mine\naxes: {method: [ptq]}\nsettings: {engine: onnxruntime}\n"), "sha", "data")
    assert [(cell.name, cell.relevant.get("engine")) for cell in plan.cells] == [
        ("fp32", None),
        ("fp32-fuse_bn", None),
        ("fp32-fuse_bn-engine=onnxruntime", "onnxruntime"),
        ("per_channel-ptq", "onnxruntime"),
    ]
