"""The model file that MLflow keeps beside every int8 network: uint8 images in, depth in metres out.

MLflow copies this file and the packages ``model`` and ``quant`` into the logged model ("models from code"),
so it loads without a checkout. Nothing of ours is imported before the network is loaded.
"""

from pathlib import Path
from typing import Any

import mlflow.models
import numpy as np
import torch
from mlflow.pyfunc.model import PythonModel, PythonModelContext

BATCH_SIZE = 16


class DepthModel(PythonModel):
    """An int8 depth network, ours or one built by the file logged beside it, behind MLflow's ``predict``."""

    def load_context(self, context: PythonModelContext) -> None:
        """Rebuild the network from the logged folder."""
        from model.network.user_network import register_network
        from quant.artifact import load_network

        if "source" in context.artifacts:
            register_network(Path(context.artifacts["source"]))
        self.network = load_network(Path(context.artifacts["network"])).eval()

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Return depth in metres [N,1,S/4,S/4] float32 of RGB images [N,3,S,S] uint8."""
        from model.images import MAX_DEPTH_M, normalize

        images = np.asarray(model_input)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images: got {images.dtype} {images.shape}; expected uint8 [N,3,S,S], RGB 0 to 255")
        with torch.inference_mode():
            parts = [
                self.network(normalize(torch.from_numpy(images[start : start + BATCH_SIZE].copy())))
                for start in range(0, len(images), BATCH_SIZE)
            ]
        return (torch.cat(parts) * MAX_DEPTH_M).numpy()


mlflow.models.set_model(DepthModel())
