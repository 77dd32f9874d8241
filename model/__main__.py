"""Train the float network alone: ``python -m model --data rooms --out checkpoints/mine.safetensors``."""

import argparse
import dataclasses
import shlex
import sys
import time
from pathlib import Path

import torch
from torch import nn

from model.data.pack import Pack, PackSpec
from model.data.task_pack import prepare_data
from model.epochs import TrainingRun
from model.errors import InputError
from model.network.build import build_network
from model.network.checkpoint import load_checkpoint, save_checkpoint, to_float16_
from model.network.pretrained import load_pretrained_, take_first_layers_
from model.network.spec import NetworkSpec
from model.network.user_network import OWN, register_network
from model.tasks.load import load_task
from model.tasks.names import BUILT_IN
from model.tasks.networks import network_for, register_task_network
from model.tasks.task import metric_means
from model.training import TrainSpec, predict, train


def main() -> None:
    """Parse the command line, train, evaluate on the test split, and save a checkpoint with its provenance."""
    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    parser.add_argument("--task", default="depth", metavar="NAME|FILE", help="what is learned (docs/tasks.md)")
    parser.add_argument("--data", default="rooms", help="rooms, or where the data of the task are")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write (.safetensors)")
    parser.add_argument("--packs", type=Path, default=Path("data"), help="folder of packed data")
    parser.add_argument("--checkpoint", type=Path, help="network to fine-tune (with --init checkpoint)")
    text = "checkpoint of another network that begins with the same layers, to start from (with --init random)"
    parser.add_argument("--backbone", type=Path, help=text)
    text = "timm/<name> or torchvision/<name>; the encoder of the depth network (default: efficientnet_b0)"
    parser.add_argument("--encoder", help=text)
    parser.add_argument("--network", type=Path, metavar="FILE", help="a network of your own (docs/own.md)")
    parser.add_argument("--input-size", type=int, default=PackSpec.input_size, help="side of the images, in pixels")
    parser.add_argument("--rooms-train", type=int, default=PackSpec.rooms_train, help="rendered train images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--float16", action="store_true", help="round the weights to 16 bits: half the file")
    for field in dataclasses.fields(TrainSpec):
        flag = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=field.default)
        else:
            parser.add_argument(flag, type=type(field.default), default=field.default)
    options = parser.parse_args()
    spec = TrainSpec(**{field.name: getattr(options, field.name) for field in dataclasses.fields(TrainSpec)})
    torch.manual_seed(options.seed)
    pack_spec = PackSpec(options.input_size, rooms_train=options.rooms_train)
    pack = Pack(prepare_data(options.task, options.data, options.packs, pack_spec, _pack_progress))
    task = load_task(pack.task, Path(options.task) if pack.task.name.startswith(OWN) else None)
    network, network_spec = _start(options, spec, pack)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scratch = options.out.with_suffix(".resume")
    started = time.monotonic()
    run = TrainingRun(pack, options.seed, device, scratch, _Bar(started), task=task)
    history = train(network, spec, run)
    if options.float16:
        to_float16_(network)
    metrics = metric_means(task, predict(network, pack.images("test"), device=device), pack.targets("test"))
    best = spec.best_epoch(history, task)
    save_checkpoint(
        network,
        network_spec,
        options.out,
        {
            "command": "python -m model " + shlex.join(sys.argv[1:]),
            "data": options.data if options.data == "rooms" else pack.origin,
            "data_fingerprint": pack.fingerprint,
            "seed": options.seed,
            "best_epoch": int(best["epoch"]),
            "torch": torch.__version__,
            **{f"test_{name}": round(value, 6) for name, value in metrics.items()},
        },
        float16=options.float16,
    )
    for file in scratch.glob("*"):
        file.unlink()
    scratch.rmdir()
    print(f"\n{options.out}: " + ", ".join(f"test {name} {value:.4f}" for name, value in metrics.items()))


def _start(options: argparse.Namespace, spec: TrainSpec, pack: Pack) -> tuple[nn.Module, NetworkSpec]:
    own = options.network and register_network(options.network)
    if (spec.init == "checkpoint") != (options.checkpoint is not None):
        raise InputError("--checkpoint", "goes with --init checkpoint", "both or neither")
    if options.backbone is not None and spec.init != "random":
        raise InputError("--backbone", f"cannot be joined with --init {spec.init}", "--init random")
    network_spec = network_for(pack, options.task, own or options.encoder)
    if options.checkpoint is not None:
        network, network_spec, _ = load_checkpoint(options.checkpoint, network_spec)
        return network, network_spec
    network = build_network(network_spec)
    load_pretrained_(network, network_spec, spec.init)
    if options.backbone is not None:
        for name in BUILT_IN:  # a checkpoint may hold the network of any of them
            register_task_network(name)
        other = load_checkpoint(options.backbone)[0]
        count = take_first_layers_(network, other)
        print(f"{count} of {len(network.state_dict())} tensors start from {options.backbone}")
    return network, network_spec


def _pack_progress(done: int, total: int, text: str) -> None:
    print(f"\r\x1b[K{text}: {done}/{total}", end="" if done < total else "\n", flush=True)


class _Bar:
    """Prints a line a step (rewritten) and a line an epoch, with the time left."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.first: float | None = None

    def __call__(self, info: dict[str, float]) -> None:
        if validated := {name: figure for name, figure in info.items() if name.startswith("val_")}:
            told = "  ".join(f"{name.replace('_', ' ', 1)} {figure:.4f}" for name, figure in validated.items())
            print(
                f"\repoch {info['epoch']:.0f}/{info['epochs']:.0f}  loss {info['train_loss']:.4f}  {told}  "
                f"lr {info['learning_rate']:.1e}"
            )
            return
        done = info["epoch"] - 1 + info["step"] / info["steps"]
        if self.first is None:
            self.first, self.started = done, time.monotonic()
        spent = time.monotonic() - self.started
        left = spent / max(done - self.first, 1e-9) * (info["epochs"] - done) if done > self.first else float("nan")
        print(
            f"\repoch {info['epoch']:.0f}/{info['epochs']:.0f}  step {info['step']:.0f}/{info['steps']:.0f}  "
            f"loss {info['loss']:.4f}  {left / 60:.0f} min left ",
            end="",
            flush=True,
        )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
