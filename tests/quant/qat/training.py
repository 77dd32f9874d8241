"""A small training of fake quantization."""

import copy

import torch

from model.epochs import TrainingRun
from model.images import normalize
from quant.calibrate import calibrate
from quant.qat.finetune import finetune
from quant.recipe import CalibrateSpec, QatSpec

CALIBRATE = CalibrateSpec(activation_range="minmax")
SPEC = QatSpec(epochs=3, batch_size=4, travel=2.0)
CPU = torch.device("cpu")


def run(prepared, pack, teacher, spec=SPEC, *, seed=0, scratch=None, progress=lambda info: None, kept_float=()):
    """History and asserted state of a training."""
    trained = train(prepared, pack, teacher, spec, seed=seed, scratch=scratch, progress=progress, kept_float=kept_float)
    return trained.history, trained.asserted


def train(prepared, pack, teacher, spec=SPEC, *, seed=0, scratch=None, progress=lambda info: None, kept_float=()):
    training_run = TrainingRun(pack, seed, CPU, scratch, progress)
    return finetune(prepared, copy.deepcopy(teacher), spec, training_run, kept_float)


def warm(source, pack, granularity="per_channel", spec=CALIBRATE):
    return calibrate(source, granularity, spec, normalize(pack.images("train")))
