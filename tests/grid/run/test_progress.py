"""What is shown while a grid runs: a table on a terminal, a line a finished stage elsewhere."""

import io
import re

import pytest
from rich.console import Console

from grid.planning.plan import Node, Plan
from grid.run.progress import Progress
from grid.storage.result_store import StageStore
from tests.grid.tiny import put, space_of, world


@pytest.fixture
def plan(tmp_path, tmp_path_factory) -> Plan:
    return world(tmp_path_factory).plan(space_of(tmp_path, "{method: [ptq, qat]}"))


@pytest.fixture
def store(tmp_path) -> StageStore:
    return StageStore(tmp_path / "storage")


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=150, height=50, color_system=None)


def text_of(shown: Console) -> str:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


def node_of(plan: Plan, stage: str, cell: str = "per_channel-qat") -> Node:
    wanted = next(one for one in plan.cells if one.name == cell).nodes[stage]
    return next(node for node in plan.nodes if node.id == wanted)


# ---- without a terminal


def test_without_a_terminal_every_finished_stage_is_one_line_and_nothing_else(plan, store):
    shown = console(terminal=False)
    with Progress(plan, store, shown) as progress:
        for number, node in enumerate(plan.nodes, 1):
            progress.started(node)
            put(store, node)
            progress.finished(node)
            lines = text_of(shown).splitlines()
            assert len(lines) == number
            left = r", about \d+ (s|min) left" if number < len(plan.nodes) else ""
            assert re.match(rf"\[{number}/{len(plan.nodes)}{left}\] {node.stage} ", lines[-1])


def test_a_line_names_its_cell_or_counts_them(plan, store):
    shown = console(terminal=False)
    progress = Progress(plan, store, shown)
    for node in (node_of(plan, "finetune"), node_of(plan, "load")):
        put(store, node)
        progress.finished(node)
    lines = text_of(shown).splitlines()
    assert "finetune per_channel-qat:" in lines[0]
    assert "load for 4 cells:" in lines[1]


def test_what_was_in_the_store_before_counts_as_done(plan, store):
    for node in plan.nodes[:3]:
        put(store, node)
    shown = console(terminal=False)
    progress = Progress(plan, store, shown)
    assert progress.to_do == len(plan.nodes) - 3
    put(store, plan.nodes[3])
    progress.finished(plan.nodes[3])
    assert text_of(shown).startswith(f"[4/{len(plan.nodes)}, about ")


def test_news_from_within_a_stage_is_not_a_line_each(plan, store):
    shown = console(terminal=False)
    progress = Progress(plan, store, shown)
    node = node_of(plan, "finetune")
    progress.started(node)
    for step in range(500):
        progress.progressed(node, {"epoch": 1, "epochs": 3, "step": step, "steps": 500, "loss": 0.25})
    lines = text_of(shown).splitlines()
    assert len(lines) <= 1
    head = (
        rf"\[0/{len(plan.nodes)}, about \d+ (s|min) left\] finetune per_channel-qat: epoch 1/3 step \d+/500 loss 0.2500"
    )
    assert all(re.fullmatch(head, line) for line in lines)


def test_a_failure_is_one_line_with_its_reason_however_many_stages_hang_on_it(plan, store):
    shown = console(terminal=False)
    progress = Progress(plan, store, shown)
    reason = "finetune: FloatingPointError: loss became nan at step [1] of [bold]2 (log: /tmp/x.log)"
    for stage in ("finetune", "convert", "evaluate", "profile"):
        progress.failed(node_of(plan, stage), reason, inherited=stage != "finetune")
    (line,) = text_of(shown).splitlines()
    assert line.endswith(f"] FAILED per_channel-qat: {reason}")


def test_a_failed_float_test_is_one_failure_of_its_own_and_is_inherited_by_the_cells_that_compare_with_it(plan, store):
    """The stage that fails and those that need it have the same name."""
    shown, reason = console(terminal=False), "evaluate: RuntimeError: it broke (log: /tmp/x.log)"
    progress = Progress(plan, store, shown)
    progress.failed(node_of(plan, "evaluate", "fp32"), reason, inherited=False)
    for cell in ("per_channel-ptq", "per_channel-qat"):
        progress.failed(node_of(plan, "evaluate", cell), reason, inherited=True)
    (line,) = text_of(shown).splitlines()
    assert line.endswith(f"] FAILED fp32: {reason}")


def test_when_all_is_done_or_given_up_no_time_is_left(plan, store):
    shown = console(terminal=False)
    progress = Progress(plan, store, shown)
    for node in plan.nodes[:-1]:
        put(store, node)
        progress.finished(node)
    progress.failed(plan.nodes[-1], "profile: it broke", inherited=False)
    assert text_of(shown).splitlines()[-1].startswith(f"[{len(plan.nodes) - 1}/{len(plan.nodes)}] FAILED ")


def test_an_attempt_that_failed_and_is_retried_is_a_line_too(plan, store):
    shown = console(terminal=False)
    Progress(plan, store, shown).retried(node_of(plan, "finetune"), "finetune: its machine left the cluster")
    (line,) = text_of(shown).splitlines()
    assert line.endswith("] AGAIN  per_channel-qat: finetune: its machine left the cluster")


# ---- on a terminal


def table_of(plan: Plan, store: StageStore, *events) -> str:
    shown = console(terminal=True)
    with Progress(plan, store, shown) as progress:
        for name, *arguments in events:
            if name == "finished":
                put(store, arguments[0])
            getattr(progress, name)(*arguments)
    return text_of(shown)


def line_of(table: str, cell: str) -> str:
    return [line for line in table.splitlines() if f"│ {cell} " in line][-1]


def test_the_table_shows_which_cell_is_in_which_phase(plan, store):
    node = node_of(plan, "finetune")
    news = {"epoch": 2, "epochs": 3, "loss": 0.125}
    table = table_of(plan, store, ("started", node), ("progressed", node, news))
    assert "finetune" in line_of(table, "per_channel-qat")
    assert "epoch 2/3 loss 0.1250" in line_of(table, "per_channel-qat")
    assert "waiting" in line_of(table, "per_channel-ptq")
    assert "1 finetune" in table


def test_the_table_shows_a_cell_with_all_its_stages_as_ok(plan, store):
    done = [("finished", node_of(plan, stage, "fp32")) for stage in ("load", "evaluate", "profile")]
    table = table_of(plan, store, *done)
    assert "3/3" in line_of(table, "fp32")
    assert "ok" in line_of(table, "fp32")
    assert "ok" not in line_of(table, "fp32-fuse_bn")


@pytest.mark.parametrize(
    "reason",
    [
        "finetune: KeyError: '[red]x[/red]' is no [key]",
        "finetune: unbalanced [/bold] tag",
        "finetune: ends in a backslash \\",
        "finetune: [" * 40,
        "finetune: [link=file:///etc]a[/link]",
    ],
)
def test_the_table_shows_a_reason_with_brackets_as_text(plan, store, reason):
    table = table_of(plan, store, ("failed", node_of(plan, "finetune"), reason, False))
    line = line_of(table, "per_channel-qat")
    assert "failed" in line
    plain = reason.replace("[", "(")[:40].rstrip()
    assert plain in line.replace("[", "(")


def test_the_table_shows_an_inherited_failure_as_such(plan, store):
    reason = "evaluate: RuntimeError: it broke"
    own = ("failed", node_of(plan, "evaluate", "fp32"), reason, False)
    inherited = ("failed", node_of(plan, "evaluate"), reason, True)
    table = table_of(plan, store, own, inherited)
    assert f" {reason} " in line_of(table, "fp32")
    assert "inherited" not in line_of(table, "fp32")
    assert f"inherited: {reason}" in line_of(table, "per_channel-qat")


def test_the_table_of_a_large_grid_shows_what_runs_and_what_failed_last_in_the_lines_of_the_terminal(
    tmp_path, tmp_path_factory, store
):
    axes = f"{{method: [ptq, qat], seed: {list(range(100))}}}"
    plan = world(tmp_path_factory).plan(space_of(tmp_path, axes))
    assert len(plan.cells) > 200
    running, lost = (node_of(plan, "finetune", f"per_channel-qat-s{seed}") for seed in (90, 70))
    reason = "finetune: it broke"
    table = table_of(plan, store, ("started", running), ("failed", lost, reason, False))
    lines = table.splitlines()
    assert "finetune" in line_of(table, "per_channel-qat-s90")
    assert reason in line_of(table, "per_channel-qat-s70")
    assert not any("│ per_channel-qat-s10 " in line for line in lines)
    assert f"and {len(plan.cells) - 2} more cells; of all, 0 are ok and 1 failed" in table
    many = [("started", node_of(plan, "finetune", f"per_channel-qat-s{seed}")) for seed in range(100)]
    last = table_of(plan, store, *many).rpartition("stages done")[2]
    assert len(last.splitlines()) < 50, "the height of the terminal"


def test_an_event_looks_at_the_cells_of_its_node_alone(plan, store, monkeypatch):
    progress = Progress(plan, store, console(terminal=False))
    monkeypatch.setattr(progress, "look_again", float("inf"))  # the time left is looked at now and then
    monkeypatch.setattr(progress, "plan", Plan((), plan.nodes, (), 0))
    for node in plan.nodes:
        put(store, node)
        progress.started(node)
        progress.finished(node)
    assert progress.ok == len(plan.cells)


def test_a_store_that_has_it_all_starts_no_table(plan, store):
    for node in plan.nodes:
        put(store, node)
    assert table_of(plan, store) == ""


def test_the_time_left_is_shown_from_the_start_and_learns_from_what_was_measured(plan, store):
    assert re.search(r"about \d+ (s|min) left", table_of(plan, store, ("started", plan.nodes[0])))
    shown = console(terminal=True)
    progress = Progress(plan, store, shown)
    before = progress._left_seconds()
    first, *others = [node for node in plan.nodes if node.stage == "evaluate"]
    put(store, first, seconds=1000.0)  # far slower than the shipped figures
    progress.finished(first)
    assert progress._left_seconds() > before + 500 * len(others)
