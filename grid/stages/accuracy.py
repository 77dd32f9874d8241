"""The stage that judges a network's accuracy: on the test images, and on the validation images that choose by it."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from grid.planning.output_files import PER_IMAGE, SAMPLES
from grid.stages.shared_measurement import graph_hash_of, shared_measurement
from grid.stages.work import Outcome, Work
from grid.storage.per_image import ImageFigures, read_image_figures, write_image_figures
from grid.storage.predictions import FILES, load_predictions, save_predictions
from grid.storage.samples import Samples, save_samples
from model.images import MAX_DEPTH_M
from model.noise import nested_noise, signal, sqnr_db
from model.tasks.depth import DEPTH
from model.tasks.nested import Nested, each, leaves
from model.tasks.panels import panels_of
from model.tasks.task import Task, image_figures, metric_means
from model.training import predict
from quant.artifact import load_network, size_mb
from quant.state import require_state

PICTURES = 4
WORST, MEDIAN, EVENLY = "worst of float", "median of float", "evenly spread"
_OF_EACH_KIND = 2
_CPU = torch.device("cpu")


@torch.inference_mode()
def evaluate(work: Work) -> Outcome:
    """Test and validation metrics of the network as it ships, of its simulation, and its noise against the float root.

    Figures are means over images; those of each image are in ``per_image.csv``.
    """
    network = load_network(work.inputs["network"])
    state = require_state(network, "evaluate")
    predicted = _predictions(work, network)
    tables = {split: _image_figures(work, split, outputs) for split, outputs in predicted.items()}
    write_image_figures(work.out / PER_IMAGE, tables)
    metrics = _means(tables["test"]) | {f"val_{name}": figure for name, figure in _means(tables["val"]).items()}
    if "reference" in work.inputs:
        metrics |= _noise(work, tables, predicted)
    if "simulated" in work.inputs:
        simulated = load_network(work.inputs["simulated"])
        simulation = predict(simulated, work.pack.images("test"), device=_CPU, progress=work.progress)
        headline = work.task.headline
        metrics[f"simulated_{headline}"] = metric_means(work.task, simulation, work.pack.targets("test"))[headline]
    metrics["size_mb"] = size_mb(network, work.out)
    save_predictions(work.out, "test", predicted["test"])
    if "reference" not in work.inputs:
        save_predictions(work.out, "val", predicted["val"])
    if work.task is DEPTH:
        _save_samples(work, predicted["test"])
    elif work.task.show is not None:
        _save_panels(work, predicted["test"])
    return Outcome({"test_images": work.pack.size("test"), "val_images": work.pack.size("val"), **metrics}, state)


def _image_figures(work: Work, split: str, outputs: Nested) -> ImageFigures:
    figures = image_figures(work.task, outputs, work.pack.targets(split))
    if "reference" in work.inputs:
        figures["noise_mse"], _ = nested_noise(_reference(work, split), outputs)
    return ImageFigures(work.pack.scenes(split).numpy(), {name: found.numpy() for name, found in figures.items()})


def _reference(work: Work, split: str) -> Nested:
    """The float root's predictions."""
    return load_predictions(work.inputs["reference"], split)


def _means(table: ImageFigures) -> dict[str, Any]:
    """Means over the images that have the figure; those of noise are told in other units."""
    return {name: float(np.nanmean(figures)) for name, figures in table.figures.items() if name != "noise_mse"}


def _noise(work: Work, tables: Mapping[str, ImageFigures], predicted: Mapping[str, Nested]) -> dict[str, float]:
    """The noise in dB below the float root's variance, over all outputs and by output.

    Of depth also in metres, and in parts of the float root's own rms error.
    """
    noise = {split: float(table.figures["noise_mse"].mean()) for split, table in tables.items()}
    variance = {split: signal(_reference(work, split)) for split in predicted}
    decibels = {split: 10.0 * math.log10(variance[split] / max(found, 1e-30)) for split, found in noise.items()}
    figures = {"sqnr_db": decibels["test"], "val_sqnr_db": decibels["val"]}
    reference, own = leaves(_reference(work, "test")), leaves(predicted["test"])
    figures |= {f"sqnr_db.{name}": sqnr_db(one, own[name]) for name, one in reference.items() if name}
    if work.task is not DEPTH:
        return figures
    error_m = image_figures(DEPTH, reference[""], work.pack.targets("test"))["rmse_m"].numpy()
    rms_m = math.sqrt(noise["test"]) * MAX_DEPTH_M
    return figures | {"noise_rms_m": rms_m, "noise_to_error": rms_m / math.sqrt(float(np.nanmean(error_m**2)))}


def _predictions(work: Work, network: nn.Module) -> dict[str, Nested]:
    """The network's predictions by split; for an int8 network found by its hash if another cell has the same one."""
    graph_hash = graph_hash_of(work)
    if graph_hash is None:
        return _predicted(work, network)

    def compute(folder: Path) -> Outcome:
        for split, outputs in _predicted(work, network).items():
            save_predictions(folder, split, outputs)
        return Outcome()

    found = shared_measurement(work, ["predictions", graph_hash, work.pack.fingerprint], compute)
    return {split: load_predictions(work.store.path(found), split) for split in FILES}


def _predicted(work: Work, network: nn.Module) -> dict[str, Nested]:
    return {split: predict(network, work.pack.images(split), device=_CPU, progress=work.progress) for split in FILES}


def _save_samples(work: Work, prediction: Tensor) -> None:
    """Keep a few test images with truth and prediction in metres, for pictures."""
    shown = torch.linspace(0, len(prediction) - 1, min(PICTURES, len(prediction))).long()
    images, target = work.pack.images("test", shown.tolist()), work.pack.targets("test", shown.tolist())
    np.savez(
        work.out / SAMPLES,
        image=images.permute(0, 2, 3, 1).numpy(),
        truth=target[:, 0].numpy() * MAX_DEPTH_M,
        prediction=prediction[shown, 0].numpy() * MAX_DEPTH_M,
    )


def _save_panels(work: Work, outputs: Nested) -> None:
    """Keep the task's pictures of a few test images; of its code's errors what they say, as pictures stop no grid."""
    task, pack = work.task, work.pack
    figures = read_image_figures(work.inputs.get("reference", work.out) / PER_IMAGE)["test"].figures
    chosen = chosen_images(task, figures, pack.size("test"))
    places, samples = list(chosen), Samples(tuple(chosen), tuple(chosen.values()))
    images, targets = pack.images("test", places), pack.targets("test", places)
    try:
        truth = panels_of(task, images, None, targets, pack.task.classes)
        found = panels_of(task, images, each(lambda tensor: tensor[places], outputs), targets, pack.task.classes)
        samples = dataclasses.replace(samples, truth=truth, found=found)
    except Exception as error:  # whatever the user's code raises
        samples = dataclasses.replace(samples, problem=f"{type(error).__name__}: {str(error)[:200]}")
    save_samples(work.out / SAMPLES, samples)


def chosen_images(task: Task, figures: Mapping[str, np.ndarray], count: int) -> dict[int, str]:
    """Which of ``count`` test images are shown, each with the reason; ``figures`` [N] are those of the float root.

    The same for all networks of a float root: those on which it is worst by the headline (of equal ones by the further
    metrics), its median one, and evenly spread ones. An image without a figure is none of the worst.
    """
    signs = {name: 1.0 if metric.higher_is_better else -1.0 for name, metric in task.metrics.items()}
    keys = [np.nan_to_num(sign * figures[name], nan=np.inf) for name, sign in signs.items() if name in figures]
    ranked = np.lexsort(keys[::-1]).tolist() if keys else []
    chosen = dict.fromkeys(ranked[:_OF_EACH_KIND], WORST)
    middle = ranked[len(ranked) // 2 :][:1]
    chosen |= dict.fromkeys([place for place in middle if place not in chosen], MEDIAN)
    rest = [place for place in range(count) if place not in chosen]
    spread = np.linspace(0, len(rest) - 1, min(_OF_EACH_KIND + 1, len(rest))).round().astype(int)
    return chosen | dict.fromkeys([rest[place] for place in spread.tolist()], EVENLY)
