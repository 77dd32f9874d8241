"""Tiny copies of NYUv2 in its three layouts, for the tests."""

import csv

import h5py
import numpy as np
from PIL import Image

from model.data.pack import Pack, PackSpec, prepare_pack

SPEC = PackSpec(input_size=32)
HEIGHT, WIDTH = 48, 64


def picture(number=0):
    """Red grows to the right, green downwards, and a blue corner top left: no flip or turn keeps it."""
    colour = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colour[..., 0] = np.linspace(0, 255, WIDTH)[None]
    colour[..., 1] = np.linspace(0, 200, HEIGHT)[:, None]
    colour[:12, :16, 2] = 200 + number
    return colour


def metres(number=0):
    """Depth that grows downwards, and less to the right."""
    return (1 + np.linspace(0, 6, HEIGHT)[:, None] + np.linspace(0, 1, WIDTH)[None] + 0.01 * number).astype(np.float32)


def save_depth(path, depth_m, bits):
    if bits == 8:
        Image.fromarray(np.rint(depth_m / 10 * 255).astype(np.uint8)).save(path)
    else:
        Image.fromarray(np.rint(depth_m * 1000).astype(np.uint16)).save(path)


def kaggle(root, scenes=(("kitchen_0001_out", 5), ("office_0002a_out", 5), ("office_0002b_out", 5)), tests=2):
    lists = {"train": [], "test": []}
    for scene, count in scenes:
        folder = root / "data" / "nyu2_train" / scene
        folder.mkdir(parents=True)
        for number in range(1, count + 1):
            Image.fromarray(picture(number)).save(folder / f"{number}.png.jpg", quality=98)
            save_depth(folder / f"{number}.png", metres(number), 8)
            name = f"data/nyu2_train/{scene}/{number}"
            lists["train"].append([f"{name}.png.jpg", f"{name}.png"])
    folder = root / "data" / "nyu2_test"
    folder.mkdir(parents=True)
    for number in range(tests):
        Image.fromarray(picture(number)).save(folder / f"{number:05d}_colors.png")
        save_depth(folder / f"{number:05d}_depth.png", metres(number), 16)
        lists["test"].append([f"data/nyu2_test/{number:05d}_{kind}.png" for kind in ("colors", "depth")])
    for split, rows in lists.items():
        write_rows(root, split, rows)
    return root


def list_file(root, split):
    return root / "data" / f"nyu2_{split}.csv"


def read_rows(root, split):
    with open(list_file(root, split), newline="") as file:
        return list(csv.reader(file))


def write_rows(root, split, rows):
    with open(list_file(root, split), "w", newline="") as file:
        csv.writer(file).writerows(rows)


def fastdepth(root, scenes=(("kitchen_0001a", 2), ("kitchen_0001b", 2), ("study_0003", 3))):
    for folder, count in [(f"train/{name}", count) for name, count in scenes] + [("val/official", 2)]:
        (root / folder).mkdir(parents=True)
        for number in range(count):
            with h5py.File(root / folder / f"{number:05d}.h5", "w") as file:
                file["rgb"] = picture(number).transpose(2, 0, 1)
                file["depth"] = metres(number)
    return root


def matlab(path, count=6, scenes=None):
    with h5py.File(path, "w") as file:
        file["images"] = np.stack([picture(n).transpose(2, 1, 0) for n in range(count)])
        file["depths"] = np.stack([metres(n).T for n in range(count)])
        if scenes:
            names = [file.create_dataset(f"#refs#/{n}", data=np.array([[ord(c)] for c in s], np.uint16))
                     for n, s in enumerate(scenes)]  # fmt: skip
            file["scenes"] = np.array([[name.ref for name in names]], dtype=h5py.ref_dtype)
    return path


def packed(data, tmp_path, spec=SPEC):
    return Pack(prepare_pack(str(data), tmp_path / "packs", spec))
