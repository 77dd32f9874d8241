"""A small training of fake quantization."""

import copy

import torch

from model.epochs import TrainingRun
from model.images import normalize
from quant.calibrate import calibrate
from quant.qat.finetune import finetune
from quant.recipe import CalibrateSpec, QatSpec

CALIBRATE = CalibrateSpec(activation_range="minmax")
SPEC = QatSpec(epochs=3, batch_size=4, learning_rate=2e-3)
CPU = torch.device("cpu")


def run(prepared, pack, teacher, spec=SPEC, *, seed=0, scratch=None, progress=lambda info: None, kept_float=()):
    training_run = TrainingRun(pack, seed, CPU, scratch, progress)
    return finetune(prepared, copy.deepcopy(teacher), spec, training_run, kept_float)


def warm(source, pack, granularity="per_channel", spec=CALIBRATE):
    return calibrate(source, granularity, spec, normalize(pack.images("train")))
