"""Which stages cells share, and what changes the id of a stage."""

import csv
import re

import pytest

from grid.paths import SEARCH_SPACES
from grid.planning.plan import make_plan
from grid.space.search_space import load_space
from model.errors import InputError
from model.network.spec import NetworkSpec
from tests.grid.planning.plans import cell_of, counts, full


def test_the_full_grid_has_twelve_recipes_and_four_baselines():
    assert [cell.name for cell in full().cells] == [
        "fp32",
        "fp32-fuse_bn",
        "fp32-fuse_bn-channels_last",
        "fp32-finetuned",
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


def test_the_control_of_qat_trains_what_qat_trains_and_is_not_timed():
    plan = full()
    control, qat = cell_of(plan, "fp32-finetuned"), cell_of(plan, "fuse_bn-per_channel-qat")
    assert list(control.nodes) == ["load", "fuse", "equalize", "finetune_float", "evaluate"]
    assert control.nodes["equalize"] == qat.nodes["equalize"]
    by_id = {node.id: node for node in plan.nodes}
    trained, like = by_id[control.nodes["finetune_float"]], by_id[qat.nodes["finetune"]]
    assert trained.settings == like.settings
    assert trained.inputs == like.inputs
    assert dict(by_id[control.nodes["evaluate"]].inputs)["reference"] == cell_of(plan, "fp32").nodes["evaluate"]


def test_there_is_a_control_for_each_budget_and_each_seed_and_none_without_qat(space_of):
    def controls(*overrides, seeds=None):
        plan = make_plan(load_space("full", overrides, seeds), "sha", "data")
        return [cell.name.removeprefix("fp32-finetuned") for cell in plan.cells if "finetuned" in cell.name]

    assert controls("qat.epochs=[1, 2]") == ["-qat.epochs=1", "-qat.epochs=2"]
    assert controls("qat.learned_scales=[false, true]") == ["-qat.learned_scales=off"]
    assert controls("calibrate.images=[8, 16]", "equalize.sweeps=[1, 2]") == ["-calibrate.images=8-equalize.sweeps=1"]
    assert controls(seeds=[3, 5]) == ["-s3", "-s5"]
    assert controls("method=ptq") == []
    assert "finetune_float" not in counts(make_plan(space_of("axes: {method: [qat]}"), "sha", "data"))


def test_the_published_grid_has_every_row_of_the_published_table():
    plan = make_plan(load_space("published"), "sha", "data")
    ours = set()
    for cell in plan.cells:
        method = cell.settings["method"]
        granularity = "none" if method == "fp32" else cell.settings["granularity"]
        ours.add((str(cell.settings["fuse_bn"]).lower(), granularity, method))
    with (SEARCH_SPACES / "published_results.csv").open() as file:
        published = {(row["fuse_bn"], row["granularity"], row["method"]) for row in csv.DictReader(file)}
    assert ours == published
    assert len(ours) == 14


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("fp32", "load evaluate profile"),
        ("fp32-fuse_bn", "load fuse evaluate profile"),
        ("per_channel-ptq", "load equalize calibrate round convert evaluate profile"),
        ("per_tensor-qat", "load equalize finetune convert evaluate profile"),
        (
            "fuse_bn-per_tensor-ptq+qat",
            "load fuse equalize calibrate round finetune convert evaluate profile",
        ),
    ],
)
def test_a_cell_is_the_chain_of_its_method(name, stages):
    assert list(cell_of(full(), name).nodes) == stages.split()


def test_a_group_that_is_off_is_a_shorter_chain():
    nodes = cell_of(full("equalize=false"), "per_channel-ptq").nodes
    assert list(nodes) == ["load", "calibrate", "round", "convert", "evaluate", "profile"]
    nodes = cell_of(full("equalize=false", "rounding=false"), "per_channel-ptq").nodes
    assert list(nodes) == ["load", "calibrate", "convert", "evaluate", "profile"]


def test_a_calibrated_network_is_rounded_then_corrected_then_mixed():
    nodes = cell_of(full("bias_correction=true", "mixed_precision=true"), "per_channel-ptq+qat").nodes
    assert list(nodes)[2:7] == ["calibrate", "round", "correct_bias", "mix", "finetune"]
    by_id = {node.id: node for node in full("bias_correction=true", "mixed_precision=true").nodes}
    for before, after in zip(list(nodes)[:7], list(nodes)[1:8], strict=True):
        assert dict(by_id[nodes[after]].inputs)["network"] == nodes[before]
    for stage in ("correct_bias", "mix"):
        assert dict(by_id[nodes[stage]].inputs)["original"] == nodes["calibrate"], "whose weights are not rounded yet"
    plain = [
        dict(node.inputs)
        for node in full("rounding=false", "bias_correction=true").nodes
        if node.stage == "correct_bias"
    ]
    assert all("original" not in inputs for inputs in plain), "its own weights are"


def test_bias_correction_is_a_stage_of_calibrated_cells_alone_and_can_be_an_axis(space_of):
    space = space_of("axes: {method: [ptq, qat, ptq+qat], bias_correction: [on, off]}", "rounding=false")
    plan = make_plan(space, "sha", "data")
    corrected = {cell.name: "correct_bias" in cell.nodes for cell in plan.cells if "convert" in cell.nodes}
    assert corrected == {
        "per_channel-ptq-bias_correction=on": True,
        "per_channel-ptq-bias_correction=off": False,
        "per_channel-qat": False,  # a cold start has no calibrated network to correct
        "per_channel-ptq+qat-bias_correction=on": True,
        "per_channel-ptq+qat-bias_correction=off": False,
    }
    assert counts(plan)["calibrate"] == 1, "with correction and without share their calibration"


def test_cells_that_differ_only_after_bias_correction_share_it(space_of):
    text = "axes: {method: [ptq, ptq+qat], qat.epochs: [1, 2], latency.warmup: [1, 2], mixed_precision: [off, on]}"
    plan = make_plan(space_of(text, "bias_correction=true"), "sha", "data")
    corrected = [node for node in plan.nodes if node.stage == "correct_bias"]
    assert len(corrected) == 1
    assert set(corrected[0].cells) == {cell.key for cell in plan.cells if cell.settings["method"] != "fp32"}
    assert len(corrected[0].cells) == 2 * 2 + 2 * 2 * 2  # ptq does not read qat.epochs
    apart = make_plan(space_of("axes: {bias_correction.method: [fast, sequential]}"), "sha", "data")
    assert (counts(apart)["calibrate"], counts(apart)["correct_bias"]) == (1, 2)


def test_without_a_checkpoint_cells_start_from_a_training_of_their_own_network(space_of):
    plan = make_plan(space_of("axes: {network.encoder: [efficientnet_b0, timm/other]}"), None, "data")
    assert counts(plan)["train"] == 2
    assert counts(plan)["load"] == 0


def test_a_checkpoint_to_fine_tune_is_loaded_then_trained_and_the_trained_network_is_the_reference():
    plan = full("train.init=checkpoint")
    by_id = {node.id: node for node in plan.nodes}
    cell = cell_of(plan, "per_channel-qat")
    assert list(cell.nodes)[:2] == ["load", "train"]
    trained = cell.nodes["train"]
    assert by_id[trained].inputs == (("network", cell.nodes["load"]),)
    assert dict(by_id[cell.nodes["finetune"]].inputs)["teacher"] == trained
    assert dict(by_id[cell.nodes["profile"]].inputs)["reference"] == trained
    assert cell_of(plan, "fp32").nodes["train"] == trained
    other = full("train.init=checkpoint", checkpoint="other")
    assert cell_of(other, "fp32").nodes["train"] != trained


def test_fine_tuning_without_a_checkpoint_is_an_error():
    with pytest.raises(InputError, match=r"train\.init: 'checkpoint' starts from none"):
        full("train.init=checkpoint", checkpoint=None)


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


def test_the_folded_float_network_alone_has_a_baseline_for_each_runtime_and_only_its_latency_is_its_own(space_of):
    axes = "axes: {float_runtime: [eager, channels_last], engine: [qnnpack, x86], method: [ptq, qat]}"
    plan = make_plan(space_of(axes), "sha", "data")
    names = [cell.name for cell in plan.cells]
    assert names[:3] == ["fp32", "fp32-fuse_bn", "fp32-fuse_bn-channels_last"]
    assert not any("channels_last" in name or "eager" in name for name in [*names[:2], *names[3:]])
    assert (len(names), plan.repeats) == (3 + 4, 0)
    eager, other = (cell_of(plan, name).nodes for name in names[1:3])
    assert {stage for stage in eager if eager[stage] != other[stage]} == {"profile"}
    single = make_plan(space_of("settings: {float_runtime: channels_last}"), "sha", "data")
    assert [cell.name for cell in single.cells][:2] == ["fp32", "fp32-fuse_bn-channels_last"]


def test_a_compiled_baseline_is_excluded_with_the_reason_where_no_compiler_is(space_of, monkeypatch):
    space = space_of("axes: {float_runtime: [eager, compiled]}")
    monkeypatch.setenv("CXX", "no-such-compiler")
    plan = make_plan(space, "sha", "data")
    assert {cell.name: cell.excluded for cell in plan.excluded} == {
        "fp32-fuse_bn-compiled": "torch.compile needs a C++ compiler, and there is no no-such-compiler: "
        "install one, or name yours in CXX"
    }
    monkeypatch.setattr("quant.engines.catalog.shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr("quant.engines.catalog.sysconfig.get_path", lambda name: "/nowhere")
    (left_out,) = make_plan(space, "sha", "data").excluded
    assert "there is no Python.h in /nowhere" in str(left_out.excluded)
