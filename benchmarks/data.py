"""How fast the pack feeds a consumer and a training step, beside copies and a loader that reads every picture alone."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from benchmarks.line import say
from benchmarks.loading import consumer, training
from benchmarks.subject import float_network, rendered
from grid.scheduling.cores import own_cores, pin_process
from model.data.augment import augment
from model.data.batches import Feed
from model.data.pack import Pack
from model.epochs import shuffled_batches
from model.images import IMAGENET_MEAN, IMAGENET_STD, MAX_DEPTH_MM, normalize
from model.tasks.depth import depth_loss

ROOMS = 64
BATCH = 16
EPOCHS = 4  # passes over the rooms that are timed
STEPS = 3
CPU = torch.device("cpu")
KAGGLE_SIZE = (640, 480)  # width, height of its files
AUGMENT = v2.Compose(
    [
        v2.RandomHorizontalFlip(0.5),
        v2.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25, hue=0.05),
        v2.RandomGrayscale(0.05),
    ]
)
"""What ``model.data.augment`` draws, as torchvision has it."""
Batch = tuple[Tensor, Tensor]


class Files(Dataset):
    """The Kaggle layout's pairs of files, each decoded, resized and transformed by PIL and torchvision."""

    def __init__(self, folder: Path, count: int, size: int, augmented: bool) -> None:
        self.folder, self.count, self.size, self.augmented = folder, count, size, augmented
        self.to_float = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
        self.normalize = v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Batch:
        image = Image.open(self.folder / f"{index}.jpg").resize((self.size,) * 2, Image.Resampling.BILINEAR)
        depth = Image.open(self.folder / f"{index}.png").resize((self.size // 4,) * 2, Image.Resampling.NEAREST)
        target = tv_tensors.Mask(np.asarray(depth).astype(np.float32) / MAX_DEPTH_MM)[None]
        if self.augmented:
            image, target = AUGMENT(image, tv_tensors.Mask(target))
        return self.normalize(self.to_float(image).as_subclass(Tensor)), target.as_subclass(Tensor)


def main() -> None:
    cores = own_cores()
    pin_process(cores)  # one torch thread a core
    with tempfile.TemporaryDirectory() as name:
        pack = rendered(Path(name), ROOMS, 1)
        _write_files(pack, Path(name))
        for what, goal in (("augmented", "goal >= 10"), ("plain", "both without augmentation")):
            files = Files(Path(name), ROOMS, pack.input_size, what == "augmented")
            loader = DataLoader(files, BATCH, shuffle=True, num_workers=len(cores), persistent_workers=True)
            per_sample = _rate(loader.__iter__)
            ours = _rate(partial(_from_pack, pack, what == "augmented"))
            say(f"data_pack_{what}", ours, "samples/s", f"the pack, {len(cores)} cores")
            say(f"data_files_{what}", per_sample, "samples/s", f"PIL + torchvision, DataLoader of {len(cores)} workers")
            say(f"data_ratio_{what}", ours / per_sample, "x", f"pack / files on the same cores; {goal}")
        waiting = _waiting(pack)
        say("data_wait_cpu", 100 * waiting, "%", f"share of a training step on {len(cores)} cores spent on its data")
        consumer.measure(pack, Path(name), len(cores))
        if torch.cuda.is_available():
            many = consumer.repeated(pack, Path(name) / "train.h5", training.PICTURES)
            training.measure(float_network(), many, torch.device("cuda"), training.Budget())


def _write_files(pack: Pack, folder: Path) -> None:
    """The rooms as the files of the Kaggle copy: JPEG, and 16-bit PNG in millimetres, both 640x480."""
    images, depths = (
        pack.images("train").permute(0, 2, 3, 1).numpy(),
        pack.targets("train")[:, 0].numpy() * MAX_DEPTH_MM,
    )
    for index, (image, depth) in enumerate(zip(images, depths.round().astype(np.uint16), strict=True)):
        Image.fromarray(image).resize(KAGGLE_SIZE).save(folder / f"{index}.jpg", quality=90)
        Image.fromarray(depth).resize(KAGGLE_SIZE, Image.Resampling.NEAREST).save(folder / f"{index}.png")


def _from_pack(pack: Pack, augmented: bool = True) -> Iterator[Batch]:
    """The batches of an epoch, as ``model.epochs.train_epoch`` makes them."""
    with closing(Feed(pack, "train", CPU).batches(shuffled_batches(ROOMS, 0, BATCH, seed=0))) as batches:
        for images, target in batches:
            if augmented:
                images, target = augment(images, target)
            yield normalize(images), target


def _rate(epoch: Callable[[], Iterator[Batch]]) -> float:
    """Samples per second over some epochs, the first one (workers start, files are read from disk) not counted."""
    sum(len(images) for images, _ in epoch())
    start = time.perf_counter()
    count = sum(len(images) for _ in range(EPOCHS) for images, _ in epoch())
    return count / (time.perf_counter() - start)


def _waiting(pack: Pack) -> float:
    """The share of the time of training steps on the CPU that is spent on data."""
    network = float_network().train()
    optimizer = torch.optim.AdamW(network.parameters())
    batches = chain.from_iterable(_from_pack(pack) for _ in repeat(None))
    ends, waited = [], []
    for _ in range(1 + STEPS):  # the first one warms up
        before = time.perf_counter()
        inputs, target = next(batches)
        waited.append(time.perf_counter() - before)
        optimizer.zero_grad(set_to_none=True)
        depth_loss(network(inputs), target).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        ends.append(time.perf_counter())
    return sum(waited[1:]) / (ends[-1] - ends[0])


if __name__ == "__main__":
    main()
