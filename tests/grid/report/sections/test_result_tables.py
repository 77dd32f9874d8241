"""The main table: letters for what is not told apart, and figures that stand beside a measure."""

from grid.report.sections.result_tables import MOST_GROUPED, rank_letters, results_table
from grid.report.sections.results import further_table
from tests.grid.report.made_up_inputs import made_up_inputs
from tests.grid.report.report_rows import row


def titles_of(inputs) -> list[str]:
    return [column.title for column in results_table(inputs.evidence).columns]


def test_cells_share_a_letter_where_no_test_tells_them_apart():
    losses = {"one": 0.0, "two": 0.0, "low": 0.02, "lower": 0.02}
    groups = rank_letters(made_up_inputs(losses=losses).evidence)
    assert groups["one"] == groups["two"] == "a"
    assert groups["low"] == groups["lower"] == "b"


def test_letters_stand_behind_ssim_and_float_networks_have_none():
    inputs = made_up_inputs()
    titles = titles_of(inputs)
    place = titles.index("SSIM group")
    assert titles[place - 2 : place] == ["test SSIM", "validation SSIM"]
    letters = [line[place].spans[0] for line in results_table(inputs.evidence).rows]
    assert letters == ["–", "a", "b", "c"]


def test_where_nothing_can_be_tested_or_there_are_too_many_cells_there_are_no_letters():
    assert rank_letters(made_up_inputs(scenes=1).evidence) == {}
    assert "SSIM group" not in titles_of(made_up_inputs(scenes=1))
    many = {f"c{number}": 0.0001 * number for number in range(MOST_GROUPED + 1)}
    assert rank_letters(made_up_inputs(scenes=12, losses=many).evidence) == {}


def test_noise_in_metres_stands_behind_the_decibels():
    titles = titles_of(made_up_inputs(sqnr_db=30.0, noise_rms_m=0.0213, noise_to_error=0.06))
    place = titles.index("SQNR dB")
    assert titles[place + 1 : place + 3] == ["noise rms m", "noise / float error"]
    assert "noise rms m" not in titles_of(made_up_inputs())


def test_what_training_changed_stands_in_the_further_figures_where_something_was_trained():
    trained = row("tuned", method="qat", weights_changed=0.0163, best_epoch=2.0, bn_live_steps=16.0)
    table = further_table([row("plain", method="ptq"), trained], ())
    assert [column.title for column in table.columns[-3:]] == ["weights changed", "best epoch", "live BatchNorm steps"]
    assert [[cell.spans[0] for cell in line[-3:]] for line in table.rows] == [["–"] * 3, ["1.6 %", "2", "16"]]
    assert "weights changed" not in [column.title for column in further_table([row("plain", method="ptq")], ()).columns]
