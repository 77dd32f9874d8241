"""A LightningDataModule as a task's data: what is taken of it, in the order in which a Trainer calls it."""

import pytest
import torch

from model.data.pack import Pack, PackSpec
from model.data.task_pack import prepare_data
from model.errors import InputError

TASK = """
import torch
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

CALLS = []


class Digits:  # as LightningDataModule, which is not installed here, without its Trainer
    def prepare_data(self):
        CALLS.append("prepare_data")

    def setup(self, stage):
        CALLS.append(stage)
        items = [TensorDataset(torch.full((n, 1, 8, 8), n / 9.0), torch.arange(n) % 2) for n in (6, 4, 3)]
        if stage == "fit":
            self.train, self.val = items[:2]
        else:
            self.test = items[2]

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=2, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return [DataLoader(self.val, batch_size=2)]

    def test_dataloader(self):
        return {"only": DataLoader(self.test)}


def datasets(data):
    return Digits()


def loss(outputs, targets):
    return torch.nn.functional.cross_entropy(outputs, targets)


def metrics():
    return {"top1": MulticlassAccuracy(2)}


def build(input_size):
    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 8), torch.nn.Flatten())
"""


def pack_of(folder, text: str) -> Pack:
    file = folder / "digits.py"
    file.write_text(text)
    return Pack(prepare_data(str(file), "here", folder / "packs", PackSpec()))


def test_all_items_of_each_split_are_packed_in_their_order(tmp_path):
    pack = pack_of(tmp_path, TASK)
    assert [pack.size(split) for split in ("train", "val", "test")] == [6, 4, 3]
    for split, count in (("train", 6), ("val", 4), ("test", 3)):
        assert torch.equal(pack.images(split), torch.full((count, 1, 8, 8), count / 9.0))
        assert pack.targets(split).tolist() == [number % 2 for number in range(count)]


def test_it_is_prepared_and_set_up_before_its_loaders_are_asked_for(tmp_path):
    said = "        raise ValueError(CALLS)"
    with pytest.raises(InputError, match=r"\['prepare_data', 'fit', 'test'\]"):
        pack_of(tmp_path, TASK.replace('        return {"only"', said + '\n        return {"only"'))


@pytest.mark.parametrize("count", [0, 2])
def test_loaders_other_than_one_for_a_split_are_refused(tmp_path, count):
    several = TASK.replace("[DataLoader(self.val, batch_size=2)]", f"{count} * [DataLoader(self.val)]")
    with pytest.raises(InputError, match=f"val_dataloader gives {count} loaders, and one is expected"):
        pack_of(tmp_path, several)
