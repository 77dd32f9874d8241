"""Tasks of the user's own: one message names the file, the line and what is wrong, before any work is spent."""

import pytest

import runner
from grid.run.job import prepare
from grid.run.options import parse
from tests.bad_input.answers import refusal

TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics.classification import MulticlassAccuracy


def datasets(data):
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8) % 2
    return {split: TensorDataset(images, labels) for split in ("train", "val", "test")}


def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets)


def metrics():
    metric = MulticlassAccuracy(2)
    return {"top1": metric}


def augment(inputs, targets):
    return inputs.flip(3), targets


class Network(nn.Sequential):
    def forward(self, images):
        return super().forward(images)


def build(input_size):
    return Network(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""
ITEMS = "TensorDataset(images, labels)"
METRICS = 'def metrics():\n    metric = MulticlassAccuracy(2)\n    return {"top1": metric}'
LOSS = "def loss(outputs, targets):\n    return nn.functional.cross_entropy(outputs, targets)"
AUGMENT = "def augment(inputs, targets):\n    return inputs.flip(3), targets"
ACCURACY = "MulticlassAccuracy(2)"
ENTROPY = "    return nn.functional.cross_entropy(outputs, targets)"
FORWARD = "super().forward(images)"
DATACLASS = "import dataclasses\n@dataclasses.dataclass\nclass Answer:\n    logits: object\n"
BAD = {
    "raises on import": ("\n\ndef datasets", "\n1 / 0  # here\ndef datasets", "does not run (ZeroDivisionError"),
    "no Python": ("def loss(", "def loss(:", "does not run (SyntaxError"),
    "no datasets": ("def datasets", "def data_sets", "has no function datasets"),
    "no metrics": ("def metrics", "def metric", "has no function metrics"),
    "metrics raise": (ACCURACY, "1 / 0  # here", "metrics() fails (ZeroDivisionError"),
    "no metric": (METRICS, "def metrics():  # here\n    return {}", "gives an empty dict"),
    "metrics are a list": (METRICS, "def metrics():  # here\n    return [3]", "gives a list"),
    "metric without direction": (ACCURACY, "torchmetrics.SumMetric()", "whether more of it is better"),
    "metric of another kind": (ACCURACY, "3", "metric 'top1' of metrics(), line 19, is a int"),
    "metric is a class": (ACCURACY, "MulticlassAccuracy", "is the class MulticlassAccuracy"),
    "name of a metric": ('"top1"', '"top 1"', "has the name 'top 1'"),
    "unknown monitor": (
        "def metrics",
        "MONITOR = 'loss'\n\n\ndef metrics",
        "has MONITOR = 'loss'; expected one of top1",
    ),
    "unknown setting": ("def metrics", "SETTINGS = {'qat.epoch': 2}\n\n\ndef metrics", "qat.epoch is an unknown key"),
    "wrong setting": ("def metrics", "SETTINGS = {'qat.travel': 'far'}\n\n\ndef metrics", "qat.travel"),
    "settings are a list": ("def metrics", "SETTINGS = [2]\n\n\ndef metrics", "has SETTINGS = [2]"),
    "monitor is no name": ("def metrics", "MONITOR = ['top1']\n\n\ndef metrics", "has MONITOR = ['top1']"),
    "no loss": ("def loss", "def losses", "has no function loss"),
    "loss raises": (
        ENTROPY,
        "    raise RuntimeError('oh no')  # here",
        "loss fails on the first images (RuntimeError: oh",
    ),
    "loss does not fit": ("arange(8) % 2", "arange(8) + 2", "Target 2 is out of bounds"),
    "loss ends the program": (ENTROPY, "    raise SystemExit(0)  # here", "loss fails on the first images (SystemExit"),
    "loss of each image": (
        LOSS,
        "def loss(outputs, targets):  # here\n    return outputs.mean(1)",
        "gives float32 [2]",
    ),
    "loss is no tensor": (
        LOSS,
        "def loss(outputs, targets):  # here\n    return 3.0",
        "gives a float",
    ),
    "loss is not finite": (
        LOSS,
        "def loss(outputs, targets):  # here\n    return (0 * outputs).sum() / 0",
        "is nan on the first images",
    ),
    "loss without gradient": (
        LOSS,
        "def loss(outputs, targets):  # here\n    return outputs.argmax(1).float().mean()",
        "has no gradient",
    ),
    "gradient is not finite": (
        LOSS,
        "def loss(outputs, targets):  # here\n    return (0 * outputs).sum().sqrt()",
        "gradient of loss",
    ),
    "nothing to learn": ("Network(nn.Conv2d(1, 2, 3), nn.ReLU(),", "Network(nn.AvgPool2d(3),", "nothing to learn"),
    "data sets raise": (
        " images, labels = torch",
        " 1 / 0  # here\n    images, labels = torch",
        "fails (ZeroDivisionError",
    ),
    "no split test": ('"val", "test"', '"val", "tests"', "gives 'train', 'val', 'tests', and no 'test'"),
    "data sets are numbers": (ITEMS + " for split in", "0 for split in", "the train dataset is a int"),
    "empty split": (
        ITEMS,
        "TensorDataset(images[split == 'val' and 8 :], labels[split == 'val' and 8 :])",
        "val dataset is empty",
    ),
    "no length": (ITEMS, "iter(())", "the train dataset is a tuple_iterator"),
    "items without target": (ITEMS, "TensorDataset(images)", "item 0 of train is 1 values"),
    "items of three": (ITEMS, "TensorDataset(images, labels, labels)", "item 0 of train is 3 values"),
    "items are tensors": (ITEMS, "images", "item 0 of train is a Tensor"),
    "items raise": (
        ITEMS,
        "Bad()",
        "item 0 of train fails (ZeroDivisionError",
        "import torch\nclass Bad(torch.utils.data.Dataset):\n    __len__ = lambda self: 8\n"
        "    def __getitem__(self, index):\n        return 1 / 0  # here\n",
    ),
    "images without channels": ("8, 1, 8, 8", "8, 8, 8", "the input of item 0 of train is float32 of shape [8, 8]"),
    "inputs are integers": (ITEMS, "TensorDataset(images.long(), labels)", "is int64 of shape [1, 8, 8]"),
    "inputs are truths": (ITEMS, "TensorDataset(images > 0, labels)", "is bool of shape [1, 8, 8]"),
    "inputs are text": (ITEMS, "[('a cat', 1)] * 8", "the input of item 0 of train is a str, 'a cat'"),
    "inputs are not finite": (ITEMS, "TensorDataset(images / 0, labels)", "64 values that are not finite"),
    "inputs of two sizes": (
        ITEMS,
        "[(image[:, : 8 - (n == 5)], 0) for n, image in enumerate(images)]",
        "item 5 of train is image float32 [1, 7, 8]",
    ),
    "targets of two shapes": (
        ITEMS,
        "[(image, labels[: 1 + (n == 6)]) for n, image in enumerate(images)]",
        "item 6 of train is image",
    ),
    "targets are text": (
        ITEMS,
        "[(image, 'cat') for image in images]",
        "the target of item 0 of train is a str, 'cat'",
    ),
    "one target is text": (
        ITEMS,
        "[(image, {'kind': 'cat', 'size': 1}) for image in images]",
        "the target kind of item 0 of train is a str",
    ),
    "targets are nothing": (
        ITEMS,
        "[(image, None) for image in images]",
        "the target of item 0 of train is a NoneType",
    ),
    "no network": ("def build", "def builds", "neither a function build nor a NETWORK"),
    "network without classes": ("def build", 'NETWORK = "timm/lcnet_050"\n\ndef other', "dataset has no classes"),
    "build raises": (
        "    return Network(",
        "    1 / 0  # here\n    return Network(",
        "fails at 8 pixels (ZeroDivisionError",
    ),
    "build gives nothing": ("    return Network(", "    Network(", "returned a NoneType, not a torch.nn.Module"),
    "forward raises": (FORWARD, f"{FORWARD} / self.x  # here", "has no attribute 'x'"),
    "forward takes other images": ("Conv2d(1,", "Conv2d(3,", "expected input[1, 1, 8, 8] to have 3 channels"),
    "forward gives a dataclass": (FORWARD, f"Answer({FORWARD})", "gives a Answer", DATACLASS),
    "forward gives nested tuples": (FORWARD, f"({FORWARD}, [images])", "gives a tuple that holds a list"),
    "forward gives an empty dict": (FORWARD, "{}", "gives a dict without any"),
    "forward forgets the images": (
        FORWARD,
        f"{FORWARD}.mean()",
        "the output of the network is float32 [] for 2 images",
    ),
    "metric does not fit": (ACCURACY, "torchmetrics.MeanSquaredError()", "metric 'top1' fails on the first images"),
    "metric raises": (ACCURACY, "ImageMetric(lambda a, b: 1 / 0, True)  # here", "metric 'top1' fails on the first"),
    "metric of all images": (
        ACCURACY,
        "ImageMetric(lambda a, b: (a.argmax(1) == b).float().mean(), True)  # here",
        "gives float64 [] for 2 images; expected a figure of each image alone: [2]",
    ),
    "metric is a figure of each class": (ACCURACY, "MulticlassAccuracy(2, average=None)", "metric 'top1' fails"),
    "metric needs several images": (
        ACCURACY,
        "Spread()",
        "metric 'top1' (Spread) has no figure of a single image",
        "class Spread(torchmetrics.R2Score):\n    def update(self, a, b):\n        super().update(a[:, 0], b)\n",
    ),
    "augment raises": ("    return inputs.flip(3)", "    1 / 0  # here\n    return inputs.flip(3)", "augment fails on"),
    "augment gives images alone": (
        AUGMENT,
        "def augment(inputs, targets):  # here\n    return inputs.flip(3)",
        "gives a Tensor",
    ),
    "augment changes shapes": (
        AUGMENT,
        "def augment(inputs, targets):  # here\n    return inputs[..., 1:], targets",
        "turns inputs of float32 [2, 1, 8, 8] into float32 [2, 1, 8, 7]",
    ),
    "augment loses targets": (
        "inputs.flip(3), targets",
        "inputs.flip(3), targets[:1]",
        "loss of what augment gives fails",
    ),
}
FILES = {"a folder.py": "cannot be read", "a.txt": "is unknown", "nowhere.py": "cannot be read", "depht": "is unknown"}
INPUTS = len(BAD) + len(FILES) + 1


def written(folder, old, new, more=""):
    """The task with one thing wrong, and the line that is to be named, where there is one."""
    assert TASK.count(old) == 1
    text = "import torchmetrics\nfrom model.tasks.task import ImageMetric\n" + more + TASK.replace(old, new)
    file = folder / "mine.py"
    file.write_text(text)
    return file, next((number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# here")), None)


def arguments(folder, task):
    return ["--grid", "smoke", "--task", str(task), "--storage", str(folder / "storage"), "--dry-run"]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_task_is_refused_by_its_file_and_line(tmp_path, name):
    old, new, problem, *more = BAD[name]
    file, line = written(tmp_path, old, new, *more)
    message = refusal(lambda: prepare(parse(arguments(tmp_path, file))))
    assert message.startswith(f"{file}: ")
    assert problem in message
    assert line is None or f"line {line}" in message
    assert not list((tmp_path / "storage").glob("stages/*"))


@pytest.mark.parametrize("name", FILES)
def test_a_name_without_a_task_is_refused(tmp_path, name):
    (tmp_path / "a folder.py").mkdir()
    task = tmp_path / name if "." in name else name
    assert FILES[name] in refusal(lambda: prepare(parse(arguments(tmp_path, task))))


def test_the_task_without_anything_wrong_is_planned_and_a_wrong_one_ends_with_status_2(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(TASK)
    assert runner.main(arguments(tmp_path, file)) == 0
    file.write_text(TASK.replace(ENTROPY, "    return outputs"))
    assert runner.main(arguments(tmp_path, file)) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"{file}: loss, line 13, gives float32 [2, 2]; expected a scalar of the outputs")
    assert shown.count("\n") == 1
