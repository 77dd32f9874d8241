"""The built-in tasks: their data, their metrics against others' implementations, and that each can be trained."""

import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index
from torchmetrics.functional.image import peak_signal_noise_ratio

from model.data.pack import Pack, PackSpec
from model.data.rooms.labels import FURNITURE, SURFACES
from model.data.task_pack import prepare_data
from model.epochs import TrainingRun, augmented
from model.images import IMAGENET_MEAN, IMAGENET_STD, normalize
from model.network.build import build_network
from model.network.spec import NetworkSpec
from model.tasks import classification, restoration, segmentation
from model.tasks.load import load_task
from model.tasks.names import BUILT_IN
from model.tasks.networks import network_for
from model.training import TrainSpec, predict, train

SPEC = PackSpec(input_size=64, rooms_train=8, rooms_val=4, rooms_test=4)
TASKS = [name for name in BUILT_IN if name != "depth"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def packs(tmp_path_factory) -> dict[str, Pack]:
    folder = tmp_path_factory.mktemp("packs")
    return {task: Pack(prepare_data(task, "rooms", folder, SPEC)) for task in BUILT_IN}


def test_all_tasks_see_the_same_rooms_and_have_ids_of_their_own(packs):
    images = packs["depth"].images("test")
    assert torch.equal(packs["classification"].images("test"), images)
    assert torch.equal(packs["segmentation"].images("test"), images)
    assert torch.equal(packs["restoration"].targets("test"), images)
    assert len({pack.fingerprint for pack in packs.values()}) == len(BUILT_IN)
    assert all(torch.equal(pack.scenes("val"), packs["depth"].scenes("val")) for pack in packs.values())


def test_targets_are_what_the_task_says(packs):
    assert packs["classification"].targets("train").dtype == torch.int64
    assert packs["classification"].task.classes == FURNITURE
    masks = packs["segmentation"].targets("train")
    assert masks.shape == (8, 64, 64)
    assert int(masks.max()) < len(SURFACES) == len(packs["segmentation"].task.classes)
    assert packs["restoration"].targets("train", [1]).shape == (1, 3, 64, 64)


@pytest.mark.parametrize("name", TASKS)
def test_a_network_of_each_task_is_trained_and_judged(packs, name):
    pack = packs[name]
    task, spec = load_task(pack.task, None), network_for(pack, name, None)
    assert spec.task == name
    torch.manual_seed(0)
    network = build_network(spec)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    history = train(network, TrainSpec(epochs=2, batch_size=4, init="random"), TrainingRun(pack, 0, CPU, task=task))
    assert {f"val_{metric}" for metric in task.metrics} <= history[0].keys()
    assert any(not torch.equal(value, before[name]) for name, value in network.state_dict().items())
    outputs = predict(network, pack.images("test"), device=CPU)
    assert torch.isfinite(task.loss(outputs, pack.targets("test")))
    assert torch.isfinite(task.distillation(outputs, outputs))


@pytest.mark.parametrize("name", TASKS)
def test_inputs_and_targets_of_a_training_batch_are_mirrored_together(packs, name):
    pack = packs[name]
    images, targets = pack.images("train"), pack.targets("train")
    torch.manual_seed(3)
    inputs, moved = augmented(load_task(pack.task, None), images, targets)
    assert inputs.dtype == torch.float32
    assert inputs.shape == images.shape
    mirrored = [torch.equal(one, other.flip(-1)) for one, other in zip(moved, targets, strict=True)]
    kept = [torch.equal(one, other) for one, other in zip(moved, targets, strict=True)]
    if name == "classification":
        assert torch.equal(moved, targets)
    else:
        assert any(mirrored)
        assert any(kept)
        assert all(one or other for one, other in zip(mirrored, kept, strict=True))
    if name == "restoration":
        for place, flipped in enumerate(mirrored):
            expected = normalize(images[place : place + 1].flip(-1) if flipped else images[place : place + 1])
            assert torch.equal(inputs[place : place + 1], expected)


def test_top1_is_the_accuracy_of_torchmetrics():
    torch.manual_seed(0)
    outputs, targets = torch.randn(50, 4), torch.randint(0, 4, (50,))
    figures = classification.metrics()["top1"].figures(outputs, targets)
    assert float(figures.double().mean()) == pytest.approx(float(multiclass_accuracy(outputs, targets, 4, "micro")))


def test_miou_of_an_image_is_the_jaccard_index_over_the_classes_that_it_or_its_prediction_has():
    torch.manual_seed(0)
    outputs, targets = torch.randn(3, 5, 8, 8), torch.randint(0, 3, (3, 8, 8), dtype=torch.uint8)
    targets[0, :2] = segmentation.IGNORED
    found = segmentation.image_miou(outputs, targets)
    for place in range(3):
        known = targets[place] != segmentation.IGNORED
        own, truth = outputs[place].argmax(0)[known], targets[place].long()[known]
        by_class = multiclass_jaccard_index(own, truth, 5, average="none")
        there = sorted(set(own.tolist()) | set(truth.tolist()))
        assert float(found[place]) == pytest.approx(float(by_class[there].mean()), abs=1e-6)


def test_pixels_to_be_ignored_count_for_nothing():
    targets = torch.zeros(1, 4, 4, dtype=torch.uint8)
    targets[:, 2:] = segmentation.IGNORED
    outputs = torch.zeros(1, 2, 4, 4)
    outputs[:, 1, 2:] = 5.0
    outputs[:, 0, :2] = 5.0
    assert float(segmentation.pixel_accuracy(outputs, targets)) == 1.0
    assert float(segmentation.loss(outputs, targets)) < 0.01


def test_psnr_is_that_of_torchmetrics_on_images_from_0_to_1():
    torch.manual_seed(0)
    targets = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD))
    restored = (targets / 255.0 + 0.05 * torch.randn(targets.shape)).clamp(0, 1)
    found = restoration.psnr_db((restored - mean) / std, targets)
    for place in range(2):
        expected = peak_signal_noise_ratio(restored[place], targets[place] / 255.0, data_range=1.0)
        assert float(found[place]) == pytest.approx(float(expected), abs=1e-3)


def test_a_network_of_a_library_gets_the_classes_and_the_channels_of_the_data():
    spec = NetworkSpec("timm/mobilenetv3_small_050", 32, "classification", "1x32x40", 7)
    assert build_network(spec).eval()(torch.zeros(2, 1, 32, 40)).shape == (2, 7)
    spec = NetworkSpec("torchvision/mobilenet_v3_small", 32, "classification", "", 5)
    assert build_network(spec).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
