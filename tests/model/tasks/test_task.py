"""Metrics are taken image by image, whether they are ours or torchmetrics'."""

import dataclasses

import pytest
import torch
from torchmetrics import MeanAbsoluteError
from torchmetrics.classification import MulticlassAccuracy

from grid.results.measures import measures_of
from model.epochs import best_epoch
from model.tasks.depth import DEPTH
from model.tasks.facts import DEPTH_FACTS, MetricFacts, TaskFacts
from model.tasks.load import facts_of
from model.tasks.task import ImageMetric, Task, image_figures, metric_means


def task(**metrics) -> Task:
    return Task(
        "own/mine", "sha", torch.nn.functional.l1_loss, metrics, lambda x, y: (x, y), torch.nn.functional.l1_loss
    )


def test_a_metric_of_torchmetrics_is_computed_of_each_image_alone():
    outputs, targets = torch.eye(3)[[0, 1, 2, 2]], torch.tensor([0, 1, 0, 2])
    figures = image_figures(task(top1=MulticlassAccuracy(3, average="micro")), outputs, targets)
    assert figures["top1"].tolist() == [1.0, 1.0, 0.0, 1.0]
    assert metric_means(task(top1=MulticlassAccuracy(3, average="micro")), outputs, targets) == {"top1": 0.75}


def test_metrics_see_all_outputs_of_a_network_with_several():
    metric = ImageMetric(lambda outputs, targets: (outputs["a"] - targets["a"]).abs().mean(1), higher_is_better=False)
    figures = image_figures(task(error=metric), {"a": torch.ones(2, 3), "b": torch.ones(2)}, {"a": torch.zeros(2, 3)})
    assert figures["error"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_output_that_is_not_finite_is_no_result(value):
    with pytest.raises(FloatingPointError, match="1 predicted values are not finite"):
        image_figures(DEPTH, torch.tensor([[[[value]]]]), torch.zeros(1, 1, 1, 1))


def test_the_headline_is_the_first_metric_and_its_direction_tells_which_epoch_is_better():
    up, down = MulticlassAccuracy(3), MeanAbsoluteError()
    assert task(top1=up, error=down).headline == "top1"
    assert task(top1=up).gain({"top1": 0.5}) == 0.5
    assert task(error=down).gain({"error": 0.5}) == -0.5
    history = [{"epoch": 1, "val_top1": 0.6, "val_error": 0.4}, {"epoch": 2, "val_top1": 0.5, "val_error": 0.3}]
    assert best_epoch(history, task=task(top1=up, error=down))["epoch"] == 1
    assert best_epoch(history, task=task(error=down, top1=up))["epoch"] == 2


def test_a_monitor_chooses_the_epoch_and_the_headline_stays_what_it_is():
    watched = dataclasses.replace(task(top1=MulticlassAccuracy(3), error=MeanAbsoluteError()), monitor="error")
    history = [{"epoch": 1, "val_top1": 0.6, "val_error": 0.4}, {"epoch": 2, "val_top1": 0.5, "val_error": 0.3}]
    assert best_epoch(history, task=watched)["epoch"] == 2
    assert watched.headline == "top1"
    assert watched.score({"error": 0.3}, prefix="") == -0.3
    assert watched.choosing(history[1]) == {"val_top1": 0.5, "val_error": 0.3}
    assert facts_of(watched).monitor == "error"
    assert measures_of(facts_of(watched)).monitor.key == "error"
    assert measures_of(facts_of(task(top1=MulticlassAccuracy(3)))).monitor.key == "top1"


def test_the_facts_of_depth_are_those_of_its_code():
    found = facts_of(DEPTH)
    assert [(one.name, one.higher_is_better) for one in found.metrics] == [
        (one.name, one.higher_is_better) for one in DEPTH_FACTS.metrics
    ]
    assert (found.name, found.identity) == (DEPTH_FACTS.name, DEPTH_FACTS.identity)


def test_facts_come_back_from_text_as_they_were():
    facts = TaskFacts(
        "own/mine", "abc", (MetricFacts("top1", True), MetricFacts("error", False)), ("cat", "dog"), "error"
    )
    assert TaskFacts.read(facts.text()) == facts
    for text in ("{}", "[]", '{"name": "a", "identity": "", "metrics": [], "classes": []}'):
        with pytest.raises((ValueError, KeyError, TypeError)):
            TaskFacts.read(text)
