"""What the network of card.json makes of a picture, or of C x H x W numbers in a .npy file.

Depth (metres as .npy), classes, restored pictures and all else are printed, or written beside the input. Needs numpy,
Pillow and one of the engines of card.json: the first of them that is installed runs, or the one that is named.
"""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

here = Path(__file__).parent
card = json.loads((here / "card.json").read_text())
by_engine = {file["engine"]["name"]: file for file in card["files"]}
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("input", type=Path)
parser.add_argument("--engine", choices=by_engine)
asked_for, asked_engine = vars(parser.parse_args()).values()
channels, height, width = card["input"]["shape"][1:]
said = card["output"] if isinstance(card["output"], list) else [card["output"]]


def sized(picture: Image.Image, resize: str) -> Image.Image:
    """The picture as the task's data have it: whole, or the centre of it, resized by its shorter side or not at all."""
    if resize == "whole":
        return picture.resize((width, height), Image.Resampling.BILINEAR)
    edge = min(picture.size) if resize == "none" else round(height / 0.875)
    if edge < max(width, height):
        sys.exit(f"{asked_for} is smaller than {width} x {height}")
    sides = [edge if side == min(picture.size) else int(edge * side / min(picture.size)) for side in picture.size]
    if resize == "none":
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        return picture.crop((left, top, left + width, top + height))
    scale = [now / then for now, then in zip(picture.size, sides, strict=True)]
    left, top = round((sides[0] - width) / 2) * scale[0], round((sides[1] - height) / 2) * scale[1]
    right, bottom = min(left + width * scale[0], picture.width), min(top + height * scale[1], picture.height)
    return picture.resize((width, height), Image.Resampling.BICUBIC, (left, top, right, bottom))


def read() -> np.ndarray:
    """1 x C x H x W as the network takes it."""
    if asked_for.suffix == ".npy":
        values = np.load(asked_for).reshape(channels, height, width)
    elif "mean" not in card["input"] or channels not in (1, 3):
        sys.exit(f"this network takes {channels} x {height} x {width} numbers in a .npy file, and no picture")
    else:
        picture = ImageOps.exif_transpose(Image.open(asked_for)).convert("RGB" if channels == 3 else "L")
        square = sized(picture, card["input"].get("resize", "whole"))
        values = np.asarray(square).reshape(height, width, channels).transpose(2, 0, 1)
    if values.dtype == np.uint8 and "mean" in card["input"]:
        mean, std = (np.reshape(card["input"][name], (-1, 1, 1)) for name in ("mean", "std"))
        values = (np.asarray(values, np.float32) / 255 - mean) / std
    return np.ascontiguousarray(values[None], np.float32)


def chosen() -> str:
    """The engine that is named, or the first one whose package is installed."""
    if asked_engine:
        return str(asked_engine)
    for engine, file in by_engine.items():
        if importlib.util.find_spec(file["engine"]["package"]):
            return str(engine)
    packages = ", ".join(file["engine"]["package"] for file in by_engine.values())
    sys.exit(f"none of the packages that run these files is installed: {packages}")


def outputs(image: np.ndarray) -> list[np.ndarray]:
    """What the file gives, in the order of the card, images with their channels first."""
    engine = chosen()
    file = here / by_engine[engine]["name"]
    if engine == "onnxruntime":
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)  # it warns of constants that it drops
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return list(session.run(None, {card["input"]["name"]: image}))
    if engine == "litert":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(file))
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.transpose(0, 2, 3, 1))  # layout: NHWC
        interpreter.invoke()
        given = [interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()]
        return [one.transpose(0, 3, 1, 2) if one.ndim == 4 else one for one in given]
    import torch
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(file).load_method("forward")
    return [output.numpy() for output in method.execute((torch.from_numpy(image),))]


def colours() -> bytes:
    """The palette of Pascal VOC: classes that follow each other differ."""
    palette, index = np.zeros((256, 3), np.uint8), np.arange(256)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette.tobytes()


found, task = outputs(read()), card.get("task", "depth")
if task == "depth":
    depth_m = found[0][0, 0] * 10
    np.save(asked_for.with_suffix(".depth.npy"), depth_m)
    print(f"{depth_m.min():.2f} to {depth_m.max():.2f} m")
elif task == "classification":
    likely = np.exp(found[0][0] - found[0][0].max())
    for index in np.argsort(-likely)[:5]:
        print(f"{likely[index] / likely.sum():6.1%}  {said[0]['classes'][index]}")
elif task == "segmentation":
    classes = found[0][0].argmax(0).astype(np.uint8)
    mask = Image.fromarray(classes).convert("P")
    mask.putpalette(colours())
    mask.save(asked_for.with_suffix(".classes.png"))
    for index, count in sorted(enumerate(np.bincount(classes.ravel())), key=lambda one: -one[1]):
        if count:
            print(f"{count / classes.size:6.1%}  {said[0]['classes'][index]}")
elif task == "restoration":
    levels = (found[0][0] * np.reshape(said[0]["std"], (3, 1, 1)) + np.reshape(said[0]["mean"], (3, 1, 1))) * 255
    file = asked_for.with_suffix(".restored.png")
    Image.fromarray(levels.round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)).save(file)
    print(file)
else:
    named = {one["name"]: output for one, output in zip(said, found, strict=True)}
    np.savez(asked_for.with_suffix(".outputs.npz"), **named)  # type: ignore[arg-type]  # its other arguments have types
    print("\n".join(f"{name}: {list(output.shape)}" for name, output in named.items()))
