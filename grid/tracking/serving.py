"""The model file that MLflow keeps beside every int8 network: uint8 images in, depth in metres out.

Of another task: inputs as its pack has them, and the network's outputs.

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


class GridModel(PythonModel):
    """An int8 network, ours or one built by the file logged beside it, behind MLflow's ``predict``."""

    def load_context(self, context: PythonModelContext) -> None:
        """Rebuild the network from the logged folder."""
        from model.network.user_network import register_network
        from quant.artifact import load_network, read_form

        if "source" in context.artifacts:
            register_network(Path(context.artifacts["source"]))
        folder = Path(context.artifacts["network"])
        self.network, self.spec = load_network(folder).eval(), read_form(folder).network

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> Any:
        """Return depth in metres [N,1,S/4,S/4] float32 of RGB images [N,3,S,S] uint8.

        Of another task the outputs of inputs [N,C,H,W]: an array, or a tuple or dict of arrays.
        """
        from model.images import MAX_DEPTH_M, to_network
        from model.tasks.nested import each, joined

        images, is_depth = np.asarray(model_input), self.spec.task == "depth"
        if is_depth and (images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3):
            raise ValueError(f"images: got {images.dtype} {images.shape}; expected uint8 [N,3,S,S], RGB 0 to 255")
        if images.ndim != 4 or not (is_depth or images.shape[1:] == self.spec.shape):
            raise ValueError(f"inputs: got {images.shape}; expected [N,{','.join(map(str, self.spec.shape))}]")
        with torch.inference_mode():
            parts = [
                self.network(to_network(torch.from_numpy(images[start : start + BATCH_SIZE].copy())))
                for start in range(0, len(images), BATCH_SIZE)
            ]
        return each(lambda output: (output * MAX_DEPTH_M if is_depth else output).numpy(), joined(parts))


mlflow.models.set_model(GridModel())
