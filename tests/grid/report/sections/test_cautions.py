"""What a reader is warned of before any figure."""

from grid.report.document import plain_text
from grid.report.sections.cautions import FEW_SCENES, cautions
from grid.results.comparisons.comparison import against_float
from tests.grid.measures import SSIM
from tests.grid.report.made_up_inputs import made_up_inputs
from tests.grid.report.report_rows import row


def warnings_of(inputs) -> str:
    return "\n".join(plain_text(item) for block in cautions(inputs) for item in block.items)


def test_images_of_one_place_decide_nothing_and_it_says_why():
    text = warnings_of(made_up_inputs(scenes=1))
    assert "One test scene decides nothing." in text
    assert "need not hold for another place" in text
    assert "One validation scene" in text


def test_few_scenes_are_named_and_enough_are_not():
    assert f"{FEW_SCENES - 1} places" in warnings_of(made_up_inputs(scenes=FEW_SCENES - 1))
    assert "scene" not in warnings_of(made_up_inputs(scenes=FEW_SCENES))


def test_without_figures_by_image_nothing_is_tested():
    inputs = made_up_inputs()
    del inputs.__dict__["evidence"]
    assert "Nothing is tested." in warnings_of(inputs)


def test_too_few_test_images_are_told_with_how_many_would_do():
    losses = {"good": 0.0005, "fair": 0.0006, "bad": 0.02}
    assert "Few test images" not in warnings_of(made_up_inputs(losses=losses))
    inputs = made_up_inputs(losses=losses, noise=6e-3)
    needed = sorted(one.needed.images for one in against_float(inputs.evidence, SSIM) if one.needed.images)
    assert len(needed) == 2
    told = (
        f"2 of 3 comparisons with float in SSIM are undecided for want of them. About {needed[1]:,} would decide half"
    )
    assert told in warnings_of(inputs)
    assert f"--set data.rooms_test={needed[1]}." in warnings_of(inputs)
    photographs = warnings_of(made_up_inputs(losses=losses, noise=6e-3, origin="photographs"))
    assert told in photographs
    assert "--set" not in photographs


def test_missing_cells_and_seeds_are_counted():
    inputs = made_up_inputs()
    rows = [*inputs.rows, row("gone", status="failed", method="qat"), row("late", status="skipped", method="ptq")]
    inputs = type(inputs)(rows, inputs.context)
    assert "2 of 6 cells failed or were skipped" in warnings_of(inputs)
    assert "failed" not in warnings_of(made_up_inputs())
    seeds = [row(f"a-s{seed}", method="qat", seed=seed, status="ok" if seed else "failed") for seed in range(3)]
    assert "a (2 of 3)" in warnings_of(type(inputs)(seeds, inputs.context))


def test_one_seed_is_told_with_what_to_do():
    assert "--seeds 0,1,2" in warnings_of(made_up_inputs())


def test_training_in_vain_and_simulation_are_told():
    assert "Training changed nothing." in warnings_of(made_up_inputs(weights_changed=0.0))
    assert "Training changed nothing." not in warnings_of(made_up_inputs(weights_changed=0.03, best_epoch=2))
    assert "Simulated in part." in warnings_of(made_up_inputs(simulated_sites=3))
    assert "Simulated" not in warnings_of(made_up_inputs())


def test_a_grid_without_int8_figures_has_no_warnings():
    inputs = made_up_inputs()
    assert cautions(type(inputs)([row("gone", status="failed", method="qat")], inputs.context)) == ()
