"""Shared by all tests: one torch thread (workers sit on single cores), and our own warnings are errors."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import torch

torch.set_num_threads(1)
