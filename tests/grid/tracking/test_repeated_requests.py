"""A request whose answer was lost is asked for again: what it makes is there once all the same."""

from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from grid.tracking.logged_models import MODEL_TAG, ModelArtifact
from grid.tracking.mlflow_store import Tracking
from tests.grid.tracking.tracking_cells import children, write

MAKE = ("create_run", "create_logged_model", "log_outputs")


def done_twice(client: MlflowClient, name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every request of this kind is done twice, and the client hears of the second; returns what was done."""
    real, done = getattr(client, name), []

    def twice(*arguments: Any, **named: Any) -> Any:
        real(*arguments, **named)
        done.append(name)
        return real(*arguments, **named)

    monkeypatch.setattr(client, name, twice)
    return done


@pytest.mark.parametrize("name", MAKE)
def test_what_was_made_twice_is_there_once(name, tracking, int8, monkeypatch):
    folder, images, _ = int8
    done = done_twice(tracking.client, name, monkeypatch)
    parent = tracking.parent("full-1", {}, {})
    run_id = write(tracking, parent, model=ModelArtifact(folder, images[:1], "h"))
    tracking.close(parent)
    assert done
    runs = tracking.client.search_runs([tracking.experiment_id])
    assert sorted(run.info.run_id for run in runs) == sorted([parent, run_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    (model,) = tracking.client.search_logged_models([tracking.experiment_id])
    run = tracking.client.get_run(run_id)
    assert run.data.tags[MODEL_TAG] == f"models:/{model.model_id}"
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]


@pytest.mark.parametrize("name", MAKE)
def test_what_was_made_and_never_answered_is_found_by_the_next_try(name, tracking, int8, monkeypatch):
    folder, images, _ = int8
    parent = tracking.parent("full-1", {}, {})
    real = getattr(tracking.client, name)

    def unanswered(*arguments: Any, **named: Any) -> None:
        real(*arguments, **named)
        raise MlflowException("the connection broke")

    model = ModelArtifact(folder, images[:1], "h")
    with monkeypatch.context() as patch:
        patch.setattr(tracking.client, name, unanswered)
        if name == "log_outputs":
            write(tracking, parent, model=model)  # that it is done can be seen
        else:
            with pytest.raises(MlflowException):
                write(tracking, parent, model=model)
    run_id = write(tracking, parent, model=model)
    assert [run.info.run_id for run in children(tracking, parent)] == [run_id]
    assert len(tracking.client.search_logged_models([tracking.experiment_id])) == 1


def test_of_two_runs_of_a_cell_that_an_earlier_driver_left_the_ended_one_is_kept(tracking, database, tmp_path, request):
    parent = tracking.parent("full-1", {}, {})
    ended = write(tracking, parent)
    tags = {"mlflow.parentRunId": parent, "grid.cell": "k1"}
    tracking.client.create_run(tracking.experiment_id, start_time=1, tags=tags)
    again = Tracking(database, request.node.name, tmp_path / "files")
    assert write(again, parent) == ended
    assert [run.info.run_id for run in children(again, parent)] == [ended]


def test_an_experiment_that_another_driver_makes_at_the_same_moment_is_taken(database, tmp_path, request, monkeypatch):
    real = MlflowClient.get_experiment_by_name
    asked = []

    def before_the_other(client: MlflowClient, name: str) -> Any:
        asked.append(name)
        if len(asked) > 1:
            return real(client, name)
        client.create_experiment(name)
        return None

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", before_the_other)
    found = Tracking(database, request.node.name, tmp_path / "files")
    monkeypatch.undo()
    assert found.experiment_id == Tracking(database, request.node.name, tmp_path / "files").experiment_id
